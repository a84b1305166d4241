//! What a slab file holds, word by word, and the order in which it is written.
//!
//! A file is a row of 64-bit words: who it belongs to, one redo slot, a directory of line keys, and the lines. This module works
//! on any `&[AtomicU64]`: the mapped file of a living gateway, or a copy read from the file of a dead one.
//!
//! **What a SIGKILL can cut.** The pages belong to the file, so a store that was executed stays, whatever happens to the
//! process. A kill stops each thread between two machine instructions: of the stores of one thread, those before the cut are in
//! the file and those after it are not. So the order of the machine's stores is all that counts, and every store here is a
//! `Release` store of one whole word ([`put`]): the compiler moves no earlier store behind it, hence none past another. On
//! x86-64 this is a plain `mov`.
//!
//! **A commit** changes up to six counters, so a cut in the middle would tear it. Therefore the new absolute values are first
//! written into the redo slot, then published by one store of its state word, then copied to the line, then the slot is
//! cleared. Cut before the publishing store: the call never ended. Cut after it: recovery copies the values (once more). There is
//! no third case. The slot is the file's, and a file has a single writer, so there is never a second commit in the slot.
//!
//! **An admission** stores `last_used` and `flags` before `opened`. Each is right by itself, so it needs no slot.
//!
//! **A new line**: its directory record is stored before the count of published records, and the index is handed out after
//! that. A published record that does not match its checksum is damage, never a half-written one.
//!
//! **Concurrent readers** (the flush) see a line whole by its version word: odd while it is written, another value afterwards.
//! Every load is `Acquire`, so who has seen any later value also sees the version that was stored before it.

use std::hash::{Hash, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};

use super::charge::Tally;
use super::record::{Counters, LineKey, Operation, Outcome};
use crate::principal::{AccountId, ClusterId, ID_BYTES, Incarnation, KeyId, StoreId};
use crate::time::{Hour, WallTime};

pub const WORD: usize = size_of::<u64>();
const MAGIC: u64 = u64::from_le_bytes(*b"TGSLAB\r\n");
const FORMAT: u64 = 1;

const IDENTITY: usize = 12;
const PUBLISHED: usize = 64;
const FLUSHES: usize = 80;
const REDO: usize = 96;
const REDO_WORDS: usize = 8;
const DIRECTORY: usize = 512;
const RECORD: usize = 5;
const LINE: usize = 16;
/// Bit 63 of the slot's state word; below it the outcome (bits 32–39) and the line (bits 0–31).
const REDO_PUBLISHED: u64 = 1 << 63;
/// How often a reader looks again at a line that is being written before it leaves it for the next flush.
const LOOKS: u32 = 1000;

/// Whose file it is and which part of the incarnation's counters it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    pub store_id: StoreId,
    pub boot_id: [u8; 16],
    pub incarnation: Incarnation,
    pub hour: Hour,
    /// 0 is the shared shard.
    pub shard: u16,
    /// Counts the files of this shard and hour, from 0.
    pub extent: u16,
    /// Lines.
    pub capacity: u32,
}

/// Why a file cannot be believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    #[error("it is not a slab of this version")]
    NotASlab,
    #[error("its header does not match its checksum")]
    Header,
    #[error("its length does not match its header")]
    Length,
    #[error("its count of lines does not match its checksum")]
    Count,
    #[error("the directory record of line {0} does not match its checksum")]
    Record(u32),
    #[error("its redo slot is not one that was ever written")]
    Redo,
}

/// Words of a file with room for `capacity` lines; lines start at a multiple of 128 bytes.
pub const fn words_of(capacity: u32) -> usize {
    lines_start(capacity) + capacity as usize * LINE
}

const fn lines_start(capacity: u32) -> usize {
    (DIRECTORY + capacity as usize * RECORD).next_multiple_of(LINE)
}

/// The words of one file, with what is needed to find one's way in them.
#[derive(Clone, Copy)]
pub struct View<'a> {
    words: &'a [AtomicU64],
    capacity: u32,
    /// The header's checksum. It goes into every other one, so that no record fits into another file.
    seal: u32,
}

impl<'a> View<'a> {
    /// For the writer, who made the header.
    pub fn trusted(words: &'a [AtomicU64], capacity: u32, seal: u32) -> Self {
        Self { words, capacity, seal }
    }

    /// Writes the header of a new file, whose other words are zero. Returns its checksum.
    pub fn initialise(words: &'a [AtomicU64], identity: &Identity) -> u32 {
        let header = identity_words(identity);
        let seal = checksum(0, &header);
        for (word, value) in words.iter().zip(header) {
            put(word, value);
        }
        if let (Some(word), Some(published)) = (words.get(IDENTITY - 1), words.get(PUBLISHED)) {
            put(word, u64::from(seal));
            put(published, sealed_count(seal, 0));
        }
        seal
    }

    /// Reads the header of a file that somebody else wrote.
    pub fn read(words: &'a [AtomicU64]) -> Result<(Self, Identity), Damage> {
        let identity = read_identity(words)?;
        if words.len() != words_of(identity.capacity) {
            return Err(Damage::Length);
        }
        let seal = checksum(0, &identity_words(&identity));
        let view = Self { words, capacity: identity.capacity, seal };
        view.check_count()?;
        Ok((view, identity))
    }

    /// How many lines have been handed out.
    pub fn published(&self) -> u32 {
        self.words.get(PUBLISHED).map_or(0, |word| low(take(word)).min(self.capacity))
    }

    pub fn has_room(&self) -> bool {
        self.published() < self.capacity
    }

    pub fn is_half_full(&self) -> bool {
        self.published() >= self.capacity / 2
    }

    /// Publishes a new line and returns its index; `None` when the file is full. For the file's writer alone.
    pub fn publish(&self, key: &PackedKey) -> Option<u32> {
        let line = self.published();
        if line >= self.capacity {
            return None;
        }
        for (word, value) in self.record(line)?.iter().zip(self.sealed_record(line, key)) {
            put(word, value);
        }
        put(self.words.get(PUBLISHED)?, sealed_count(self.seal, line + 1));
        Some(line)
    }

    /// What the published line `line` counts.
    pub fn key(&self, line: u32) -> Result<LineKey, Damage> {
        let damaged = Damage::Record(line);
        let record: &[AtomicU64; RECORD] = self.record(line).ok_or(damaged)?;
        let [a, b, c, d, seal] = record.each_ref().map(take);
        let key = PackedKey([a, b, c, d]);
        if self.sealed_record(line, &key) != [a, b, c, d, seal] {
            return Err(damaged);
        }
        key.unpack().ok_or(damaged)
    }

    /// Counts an admission. `None`, and nothing stored, where there is no such line.
    pub fn open(&self, line: u32, at: WallTime, browser: bool) -> Option<()> {
        let line = self.line(line)?;
        let version = line.begin();
        put(line.last_used, take(line.last_used).max(at.0));
        if browser {
            put(line.flags, take(line.flags) | Counters::SEEN_IN_BROWSER);
        }
        put(line.opened, take(line.opened).saturating_add(1));
        line.end(version);
        Some(())
    }

    /// Counts the end of a call, whole or not at all. `None`, and nothing stored, where there is no such line.
    pub fn commit(&self, index: u32, outcome: Outcome, tally: &Tally) -> Option<()> {
        let line = self.line(index)?;
        let (state, values) = self.redo()?;
        let counters = line.counted(outcome)?;
        let added = tally.added();
        for ((slot, counter), add) in values.iter().zip(counters).zip(added) {
            put(slot, take(counter).saturating_add(add));
        }
        put(state, REDO_PUBLISHED | (outcome as u64) << 32 | u64::from(index));
        let version = line.begin();
        for (slot, counter) in values.iter().zip(counters) {
            put(counter, take(slot));
        }
        line.end(version);
        put(state, 0);
        Some(())
    }

    /// Applies what a kill left in the redo slot. The greater value stays, since after a power cut the slot may be the older.
    pub fn finish_commit(&self) -> Result<(), Damage> {
        let (state, values) = self.redo().ok_or(Damage::Length)?;
        let state = take(state);
        if state == 0 {
            return Ok(());
        }
        let index = low(state);
        let outcome = u8::try_from((state & !REDO_PUBLISHED) >> 32).ok().and_then(Outcome::from_index);
        let (Some(outcome), true) = (outcome, state & REDO_PUBLISHED != 0 && index < self.published()) else {
            return Err(Damage::Redo);
        };
        let line = self.line(index).ok_or(Damage::Redo)?;
        for (slot, counter) in values.iter().zip(line.counted(outcome).ok_or(Damage::Redo)?) {
            put(counter, take(slot).max(take(counter)));
        }
        Ok(())
    }

    /// The version of a line: unchanged as long as its counters are. 0 before its first call.
    pub fn version(&self, line: u32) -> u64 {
        self.line(line).map_or(0, |line| take(line.version))
    }

    /// A line as it stood at one moment, with its version. `None` while it is being written.
    pub fn snapshot(&self, line: u32) -> Option<(Counters, u64)> {
        let line = self.line(line)?;
        for _ in 0..LOOKS {
            let version = take(line.version);
            let counters = line.counters();
            if version.is_multiple_of(2) && take(line.version) == version {
                return Some((counters, version));
            }
            std::hint::spin_loop();
        }
        None
    }

    /// The counters of a line of a dead incarnation, whose version may have stayed odd.
    pub fn last_counters(&self, line: u32) -> Counters {
        self.line(line).map(|line| line.counters()).unwrap_or_default()
    }

    /// The sequence number of the last flush of this hour; kept in the first file of the shared shard.
    pub fn flushes(&self) -> u64 {
        self.words.get(FLUSHES).map_or(0, take)
    }

    pub fn set_flushes(&self, sequence: u64) {
        if let Some(word) = self.words.get(FLUSHES) {
            put(word, sequence);
        }
    }

    fn check_count(&self) -> Result<(), Damage> {
        let count = self.words.get(PUBLISHED).map(take).ok_or(Damage::Length)?;
        let believable = count == sealed_count(self.seal, low(count)) && low(count) <= self.capacity;
        if believable { Ok(()) } else { Err(Damage::Count) }
    }

    fn sealed_record(&self, line: u32, key: &PackedKey) -> [u64; RECORD] {
        let [a, b, c, d] = key.0;
        [a, b, c, d, u64::from(checksum(self.seal, &[u64::from(line), a, b, c, d]))]
    }

    fn record(&self, line: u32) -> Option<&'a [AtomicU64; RECORD]> {
        let at = DIRECTORY + line as usize * RECORD;
        self.words.get(at..at + RECORD)?.try_into().ok()
    }

    fn line(&self, line: u32) -> Option<Line<'a>> {
        let at = lines_start(self.capacity) + line as usize * LINE;
        self.words.get(at..at + LINE)?.try_into().ok().map(Line::new)
    }

    fn redo(&self) -> Option<(&'a AtomicU64, &'a [AtomicU64; 6])> {
        let slot: &[AtomicU64; REDO_WORDS] = self.words.get(REDO..REDO + REDO_WORDS)?.try_into().ok()?;
        let [state, values @ .., _] = slot;
        Some((state, values))
    }
}

/// The 16 words of a line, by name.
struct Line<'a> {
    version: &'a AtomicU64,
    opened: &'a AtomicU64,
    outcomes: &'a [AtomicU64; 6],
    units_missing: &'a AtomicU64,
    request_bytes: &'a AtomicU64,
    response_bytes: &'a AtomicU64,
    read_units: &'a AtomicU64,
    write_units: &'a AtomicU64,
    last_used: &'a AtomicU64,
    flags: &'a AtomicU64,
}

impl<'a> Line<'a> {
    fn new(words: &'a [AtomicU64; LINE]) -> Self {
        let [
            version,
            opened,
            outcomes @ ..,
            units_missing,
            request_bytes,
            response_bytes,
            read_units,
            write_units,
            last_used,
            flags,
            _spare,
        ] = words;
        Self {
            version,
            opened,
            outcomes,
            units_missing,
            request_bytes,
            response_bytes,
            read_units,
            write_units,
            last_used,
            flags,
        }
    }

    fn begin(&self) -> u64 {
        let version = take(self.version);
        put(self.version, version.wrapping_add(1));
        version
    }

    fn end(&self, version: u64) {
        put(self.version, version.wrapping_add(2));
    }

    /// What a commit changes, in the order of [`Tally::added`].
    fn counted(&self, outcome: Outcome) -> Option<[&'a AtomicU64; 6]> {
        let outcome = self.outcomes.get(outcome as usize)?;
        Some([outcome, self.units_missing, self.request_bytes, self.response_bytes, self.read_units, self.write_units])
    }

    fn counters(&self) -> Counters {
        Counters {
            opened: take(self.opened),
            outcomes: self.outcomes.each_ref().map(take),
            units_missing: take(self.units_missing),
            request_bytes: take(self.request_bytes),
            response_bytes: take(self.response_bytes),
            read_units: take(self.read_units),
            write_units: take(self.write_units),
            last_used: take(self.last_used),
            flags: take(self.flags),
            interrupted: 0,
        }
    }
}

/// A line key as it stands in the directory; also what lines are looked up by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PackedKey([u64; 4]);

impl PackedKey {
    pub fn of(key: &LineKey) -> Self {
        let mut bytes = [0; 4 * WORD];
        let parts = key.account_id.0.iter().chain(&key.key_id.0).chain(&key.cluster_id.0).copied();
        for (to, from) in bytes.iter_mut().zip(parts.chain([key.operation as u8])) {
            *to = from;
        }
        Self(from_bytes(&bytes))
    }

    fn unpack(self) -> Option<LineKey> {
        let bytes: Vec<u8> = self.0.iter().flat_map(|word| word.to_le_bytes()).collect();
        let (account_id, rest) = bytes.split_first_chunk::<ID_BYTES>()?;
        let (key_id, rest) = rest.split_first_chunk::<ID_BYTES>()?;
        let (cluster_id, rest) = rest.split_first_chunk::<ID_BYTES>()?;
        Some(LineKey {
            account_id: AccountId(*account_id),
            key_id: KeyId(*key_id),
            cluster_id: ClusterId(*cluster_id),
            operation: Operation::from_index(*rest.first()?)?,
        })
    }
}

/// Ids are random bits of our own making, so nobody can choose keys that collide, and two folded products mix them well enough.
impl Hash for PackedKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let [a, b, c, d] = self.0;
        let once = folded(a ^ 0x9e37_79b9_7f4a_7c15, b ^ 0xc2b2_ae3d_27d4_eb4f);
        state.write_u64(folded(once ^ c, d ^ 0x1656_67b1_9e37_79f9 ^ once.rotate_left(32)));
    }
}

fn folded(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    (product >> 64) as u64 ^ product as u64
}

/// Every store into a slab. See the head of this module for why the order is `Release`.
#[inline(always)]
fn put(word: &AtomicU64, value: u64) {
    word.store(value, Ordering::Release);
    #[cfg(test)]
    cut::after_a_store();
}

#[inline(always)]
fn take(word: &AtomicU64) -> u64 {
    word.load(Ordering::Acquire)
}

fn low(word: u64) -> u32 {
    (word & u64::from(u32::MAX)) as u32
}

/// A count and its checksum in one word, so that one store replaces both.
fn sealed_count(seal: u32, count: u32) -> u64 {
    u64::from(checksum(seal, &[u64::from(count)])) << 32 | u64::from(count)
}

fn checksum(seal: u32, words: &[u64]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&seal.to_le_bytes());
    for word in words {
        hasher.update(&word.to_le_bytes());
    }
    hasher.finalize()
}

fn identity_words(of: &Identity) -> [u64; IDENTITY - 1] {
    let [store_a, store_b] = from_bytes(&padded(of.store_id.0));
    let [boot_a, boot_b] = from_bytes(&of.boot_id);
    let [incarnation_a, incarnation_b] = from_bytes(&padded(of.incarnation.0));
    let part = u64::from(of.shard) << 16 | u64::from(of.extent);
    let (hour, capacity) = (u64::from(of.hour.0), u64::from(of.capacity));
    [MAGIC, FORMAT, store_a, store_b, boot_a, boot_b, incarnation_a, incarnation_b, hour, part, capacity]
}

fn read_identity(words: &[AtomicU64]) -> Result<Identity, Damage> {
    let header: &[AtomicU64; IDENTITY] = words.first_chunk().ok_or(Damage::NotASlab)?;
    let [magic, format, stored @ .., seal] = header.each_ref().map(take);
    if magic != MAGIC || format != FORMAT {
        return Err(Damage::NotASlab);
    }
    let [store_a, store_b, boot_a, boot_b, incarnation_a, incarnation_b, hour, part, capacity] = stored;
    let identity = Identity {
        store_id: StoreId(unpadded([store_a, store_b]).ok_or(Damage::Header)?),
        boot_id: to_bytes([boot_a, boot_b]),
        incarnation: Incarnation(unpadded([incarnation_a, incarnation_b]).ok_or(Damage::Header)?),
        hour: Hour(u32::try_from(hour).map_err(|_| Damage::Header)?),
        shard: u16::try_from(part >> 16).map_err(|_| Damage::Header)?,
        extent: (part & 0xffff) as u16,
        capacity: u32::try_from(capacity).map_err(|_| Damage::Header)?,
    };
    let right = u64::from(checksum(0, &identity_words(&identity))) == seal;
    if right { Ok(identity) } else { Err(Damage::Header) }
}

fn from_bytes<const BYTES: usize, const WORDS: usize>(bytes: &[u8; BYTES]) -> [u64; WORDS] {
    let mut words = [0; WORDS];
    for (word, chunk) in words.iter_mut().zip(bytes.as_chunks::<WORD>().0) {
        *word = u64::from_le_bytes(*chunk);
    }
    words
}

fn to_bytes(words: [u64; 2]) -> [u8; 16] {
    let [a, b] = words;
    (u128::from(b) << 64 | u128::from(a)).to_le_bytes()
}

fn padded(id: [u8; ID_BYTES]) -> [u8; 16] {
    let mut bytes = [0; 16];
    for (to, from) in bytes.iter_mut().zip(id) {
        *to = from;
    }
    bytes
}

fn unpadded(words: [u64; 2]) -> Option<[u8; ID_BYTES]> {
    let bytes = to_bytes(words);
    let (id, rest) = bytes.split_first_chunk::<ID_BYTES>()?;
    rest.iter().all(|byte| *byte == 0).then_some(*id)
}

/// Lets a test look at a file after every single store of the current thread.
#[cfg(test)]
pub mod cut {
    use std::cell::RefCell;

    type Look = Box<dyn FnMut()>;

    thread_local! {
        static LOOK: RefCell<Option<Look>> = const { RefCell::new(None) };
    }

    /// Calls `look` after every store that `work` makes.
    pub fn at_every_store(look: impl FnMut() + 'static, work: impl FnOnce()) {
        LOOK.set(Some(Box::new(look)));
        work();
        LOOK.set(None);
    }

    pub fn after_a_store() {
        LOOK.with_borrow_mut(|look| look.as_mut().map(|look| look()));
    }
}
