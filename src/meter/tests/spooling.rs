//! The spool: the ledger away, the power cut, the store replaced, the disk full.

use std::fs;
use std::sync::atomic::Ordering;

use proptest::prelude::*;

use super::*;
use crate::meter::record::Flush;
use crate::meter::recover::{Recovery, RecoveryReport, Why};
use crate::meter::{Flushed, spool};
use crate::principal::ID_BYTES;
use crate::store::Ledger;

const SECOND: u64 = 1000;

fn at(hour: Hour, millis: u64) -> WallTime {
    WallTime(hour.start().0 + millis)
}

/// A gateway with its folders, on a clock of its own.
struct Stage {
    folder: TempDir,
    ledger: Arc<MemoryLedger>,
    runtime: tokio::runtime::Runtime,
}

impl Stage {
    fn new() -> Self {
        Self { folder: folder(), ledger: Arc::default(), runtime: runtime() }
    }

    fn start(&self, incarnation: u8) -> (Arc<Meter>, Flusher) {
        let meter = small_meter(self.folder.path(), incarnation);
        let flusher = Flusher::new(&meter, Arc::clone(&self.ledger) as _);
        (meter, flusher)
    }

    fn away(&self, away: bool) {
        self.ledger.away.store(away, Ordering::Relaxed);
    }

    fn flush(&self, flusher: &mut Flusher, now: WallTime) -> Flushed {
        self.runtime.block_on(flusher.flush_once(now))
    }

    /// The ledger is replaced by one that knows nothing.
    fn replace_ledger(&self, number: u8) {
        self.ledger.forget();
        self.ledger.life.store(number, Ordering::Relaxed);
    }

    /// Everything in memory is gone.
    fn cut_the_power(&self) {
        for name in files(self.folder.path()) {
            fs::remove_file(self.folder.path().join(name)).unwrap();
        }
    }

    fn recover(&self, incarnation: u8, now: WallTime) -> RecoveryReport {
        let meter = small_meter(self.folder.path(), incarnation);
        let mut recovery = Recovery::new(&meter);
        self.runtime.block_on(recovery.run_once(&*self.ledger, now)).unwrap()
    }

    fn spool(&self) -> std::path::PathBuf {
        spool::folder_in(self.folder.path())
    }

    fn spooled(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.spool()) else { return Vec::new() };
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

fn dead(incarnation: u8) -> Incarnation {
    Incarnation([incarnation; ID_BYTES])
}

#[test]
fn half_an_hour_without_the_ledger_loses_nothing_and_leaves_nothing() {
    let stage = Stage::new();
    let (meter, mut flusher) = stage.start(1);
    let start = at(HOUR, 50 * 60 * SECOND);
    stage.runtime.block_on(flusher.enrol(start)).unwrap();
    let mut calls = 0;
    for tick in 0..(40 * 60 * 4) {
        let now = WallTime(start.0 + tick * 250);
        let minute = tick / 240;
        stage.away((5..35).contains(&minute));
        stage.ledger.loses_answers.store(minute == 36 && tick % 2 == 0, Ordering::Relaxed);
        call(&meter, key((tick % 11) as u16), now);
        calls += 1;
        let flushed = stage.flush(&mut flusher, now);
        assert_eq!(flushed.is_err(), (5..35).contains(&minute) || (minute == 36 && tick % 2 == 0));
        let in_spool = stage.spooled().iter().any(|name| name.ends_with(".spool"));
        assert!(if minute < 35 { in_spool == flushed.is_err() } else { !in_spool || flushed.is_err() }, "tick {tick}");
    }
    let end = WallTime(start.0 + 40 * 60 * SECOND);
    stage.runtime.block_on(flusher.retire(end)).unwrap();
    let (first, second) =
        (stage.ledger.sum(HOUR, meter.incarnation()), stage.ledger.sum(HOUR.next(), meter.incarnation()));
    assert_eq!(first, good_calls(first.opened, WallTime(first.last_used)));
    assert_eq!(first.opened + second.opened, calls);
    assert_eq!(first.opened, 10 * 240, "ten minutes of the first hour");
    stage.ledger.assert_closings_fit();
}

#[test]
fn a_power_cut_while_the_ledger_is_away_takes_no_more_than_the_last_second() {
    let stage = Stage::new();
    let (meter, mut flusher) = stage.start(2);
    stage.runtime.block_on(flusher.enrol(HOUR.start())).unwrap();
    call(&meter, key(1), HOUR.start());
    stage.flush(&mut flusher, at(HOUR, 100)).unwrap();
    stage.away(true);
    let mut calls = vec![0];
    for tick in 1..400_u64 {
        let now = at(HOUR, 100 + tick * 50);
        call(&meter, key((tick % 5) as u16), now);
        calls.push(now.0);
        stage.flush(&mut flusher, now).unwrap_err();
    }
    let open = meter.open_charge(key(0), at(HOUR, 100 + 399 * 50), false).unwrap();
    drop((flusher, meter));
    stage.cut_the_power();
    stage.away(false);
    let report = stage.recover(1, at(HOUR, 60 * SECOND));
    let counted = stage.ledger.sum(HOUR, dead(2));
    let all = calls.len() as u64;
    assert!(counted.opened <= all && counted.opened >= all - 20, "{} of {all}", counted.opened);
    assert_eq!(counted.opened, counted.committed() + counted.interrupted);
    assert!(!report.recovered[0].complete && report.left.is_empty(), "{report:?}");
    assert_eq!(stage.ledger.closing(HOUR, dead(2)), None, "the hour stays open and is named");
    assert!(!stage.spooled().iter().any(|name| name.ends_with(".spool")));
    drop(open);
}

#[test]
fn a_call_whose_end_only_the_ledger_saw_is_not_interrupted() {
    let stage = Stage::new();
    let (meter, mut flusher) = stage.start(2);
    let open = meter.open_charge(key(1), HOUR.start(), false).unwrap();
    stage.away(true);
    stage.flush(&mut flusher, HOUR.start()).unwrap_err();
    open.commit(Outcome::Ok, tally());
    stage.away(false);
    stage.ledger.loses_answers.store(true, Ordering::Relaxed);
    stage.flush(&mut flusher, at(HOUR, 10)).unwrap_err();
    stage.ledger.loses_answers.store(false, Ordering::Relaxed);
    drop((flusher, meter));
    stage.cut_the_power();
    stage.recover(1, at(HOUR, SECOND));
    assert_eq!(stage.ledger.sum(HOUR, dead(2)), good_calls(1, HOUR.start()));
}

#[test]
fn slabs_on_a_disk_are_not_believed_to_be_whole_after_another_boot() {
    let stage = Stage::new();
    let (meter, flusher) = stage.start(2);
    call(&meter, key(1), HOUR.start());
    drop((flusher, meter));
    let living = small_meter(stage.folder.path(), 1);
    let mut recovery = Recovery::new(&living).after_a_boot();
    let report = stage.runtime.block_on(recovery.run_once(&*stage.ledger, at(HOUR, SECOND))).unwrap();
    assert!(!report.recovered[0].complete && report.left.is_empty(), "{report:?}");
    assert_eq!(stage.ledger.sum(HOUR, dead(2)), good_calls(1, HOUR.start()));
    assert_eq!(stage.ledger.closing(HOUR, dead(2)), None);
}

#[test]
fn a_gateway_that_is_killed_while_the_ledger_is_away_loses_nothing() {
    let stage = Stage::new();
    let (meter, mut flusher) = stage.start(2);
    stage.away(true);
    for tick in 0..30 {
        call(&meter, key(tick % 5), HOUR.start());
        stage.flush(&mut flusher, at(HOUR, u64::from(tick) * 100)).unwrap_err();
    }
    drop((flusher, meter));
    assert_eq!(stage.recover(1, at(HOUR, 5 * SECOND)).waiting.len(), 1);
    stage.away(false);
    let report = stage.recover(3, at(HOUR, 6 * SECOND));
    assert!(report.recovered[0].complete && report.left.is_empty() && report.waiting.is_empty(), "{report:?}");
    assert_eq!(stage.ledger.sum(HOUR, dead(2)), good_calls(30, HOUR.start()));
    assert!(stage.ledger.closing(HOUR, dead(2)).unwrap().leaves);
    stage.ledger.assert_closings_fit();
}

#[test]
fn nobody_takes_up_the_spool_of_the_living() {
    let stage = Stage::new();
    let (meter, mut flusher) = stage.start(2);
    stage.away(true);
    let open = meter.open_charge(key(1), HOUR.start(), false).unwrap();
    stage.flush(&mut flusher, HOUR.start()).unwrap_err();
    stage.away(false);
    // As on another host with the same spool: the lock in the slab folder is not to be seen there.
    fs::remove_file(stage.folder.path().join(format!("{}.alive", dead(2)))).unwrap();
    let report = stage.recover(1, at(HOUR, SECOND));
    assert!(report.recovered.is_empty() && stage.ledger.all().is_empty(), "{report:?}");
    open.commit(Outcome::Ok, tally());
    stage.flush(&mut flusher, at(HOUR, 2 * SECOND)).unwrap();
    assert_eq!(stage.ledger.sum(HOUR, dead(2)), good_calls(1, HOUR.start()));
}

#[test]
fn hours_that_are_folded_are_sent_again_to_another_server() {
    let stage = Stage::new();
    let (meter, mut flusher) = stage.start(1);
    stage.runtime.block_on(flusher.enrol(HOUR.start())).unwrap();
    for hours in 0..3 {
        let hour = Hour(HOUR.0 + hours);
        (0..1 + hours as u16 * 600).for_each(|number| call(&meter, key(number), hour.start()));
        stage.flush(&mut flusher, hour.end()).unwrap();
    }
    let last = Hour(HOUR.0 + 3);
    let (before, marks) = (stage.ledger.all(), stage.ledger.marks());
    assert_eq!(stage.spooled().len(), 3);
    stage.replace_ledger(2);
    stage.flush(&mut flusher, at(last, 2 * SECOND)).unwrap();
    assert_eq!(stage.ledger.all(), before);
    for hour in (HOUR.0..last.0).map(Hour) {
        let of = |marks: &BTreeMap<_, crate::meter::memory_ledger::Mark>| {
            marks[&(hour, meter.incarnation())].closing.map(|(_, closing)| closing)
        };
        assert_eq!(of(&stage.ledger.marks()), of(&marks), "{hour}");
    }
    assert!(stage.ledger.marks().contains_key(&(last, meter.incarnation())), "the current hour is announced again");
    stage.ledger.assert_closings_fit();
    let sent = stage.ledger.sent.lock().len();
    stage.flush(&mut flusher, at(last, 2 * SECOND + 1)).unwrap();
    assert_eq!(stage.ledger.sent.lock().len(), sent, "once is enough");
}

#[test]
fn hours_of_the_dead_and_the_retired_are_sent_again_to_another_server_and_only_then() {
    let stage = Stage::new();
    let (meter, mut flusher) = stage.start(2);
    call(&meter, key(1), HOUR.start());
    stage.flush(&mut flusher, at(HOUR.next(), 5)).unwrap();
    call(&meter, key(1), HOUR.end());
    stage.runtime.block_on(flusher.retire(at(HOUR.next(), 9))).unwrap();
    drop(meter);
    let (killed, flusher) = stage.start(3);
    call(&killed, key(2), HOUR.end());
    drop((killed, flusher));
    stage.recover(4, at(HOUR.next(), 20));
    let (before, sent) = (stage.ledger.all(), stage.ledger.sent.lock().len());
    assert_eq!(before.len(), 3);
    assert_eq!(stage.recover(5, at(HOUR.next(), 30)).replayed, 0, "the server is the same");
    let newly = stage.ledger.sent.lock()[sent..].iter().filter(|flush| !flush.lines.is_empty()).count();
    assert_eq!(newly, 0);
    stage.replace_ledger(2);
    stage.away(true);
    assert_eq!(stage.recover(6, at(HOUR.next(), 40)).replayed, 0);
    stage.away(false);
    assert!(stage.recover(7, at(HOUR.next(), 50)).replayed >= 3);
    assert_eq!(stage.ledger.all(), before);
    assert!(stage.ledger.closing(HOUR.next(), dead(2)).unwrap().leaves);
    stage.ledger.assert_closings_fit();
    assert_eq!(stage.recover(8, at(HOUR.next(), 60)).replayed, 0);
}

#[test]
fn kept_hours_go_after_two_days() {
    let stage = Stage::new();
    let (meter, mut flusher) = stage.start(1);
    call(&meter, key(1), HOUR.start());
    stage.flush(&mut flusher, at(HOUR.next(), 5)).unwrap();
    let of_hour = || stage.spooled().iter().any(|name| name.ends_with(&format!("-{}.hour", HOUR.0)));
    assert!(of_hour());
    stage.flush(&mut flusher, at(HOUR.next(), 48 * 3600 * SECOND)).unwrap();
    assert!(of_hour());
    stage.flush(&mut flusher, at(HOUR.next(), 48 * 3600 * SECOND + 1)).unwrap();
    assert!(!of_hour());
}

#[test]
fn a_damaged_spool_is_named_kept_and_read_as_far_as_it_goes() {
    let stage = Stage::new();
    let (meter, mut flusher) = stage.start(2);
    stage.away(true);
    for tick in 0..5 {
        call(&meter, key(1), HOUR.start());
        stage.flush(&mut flusher, at(HOUR, tick * SECOND)).unwrap_err();
    }
    drop((flusher, meter));
    stage.cut_the_power();
    stage.away(false);
    let path = stage.spool().join(format!("{}.spool", dead(2)));
    let mut bytes = fs::read(&path).unwrap();
    let last = bytes.len() - 9;
    bytes[last] ^= 1;
    fs::write(&path, &bytes).unwrap();
    let report = stage.recover(1, at(HOUR, 9 * SECOND));
    assert_eq!(stage.ledger.sum(HOUR, dead(2)), good_calls(4, HOUR.start()), "all but the last record");
    assert_eq!(report.left.len(), 1);
    assert!(matches!(report.left[0].why, Why::SpoolDamaged(_)), "{report:?}");
    assert_eq!(fs::read(&path).unwrap(), bytes);
}

#[test]
fn the_spool_of_another_store_is_left_alone() {
    let stage = Stage::new();
    let foreign = StoreId([8; ID_BYTES]);
    let other = Meter::open(MeterOptions { store_id: foreign, ..options(stage.folder.path(), 2) }).unwrap();
    let mut flusher = Flusher::new(&other, Arc::clone(&stage.ledger) as _);
    stage.away(true);
    call(&other, key(1), HOUR.start());
    stage.flush(&mut flusher, HOUR.start()).unwrap_err();
    drop((flusher, other));
    stage.cut_the_power();
    stage.away(false);
    let before = stage.spooled();
    let report = stage.recover(1, at(HOUR, SECOND));
    assert_eq!(report.left.iter().map(|left| left.why.clone()).collect::<Vec<_>>(), [Why::Foreign(foreign)]);
    assert!(stage.ledger.all().is_empty());
    assert_eq!(stage.spooled(), before);
}

#[test]
fn a_spool_that_cannot_be_written_stops_nothing_and_is_told() {
    let stage = Stage::new();
    let (meter, mut flusher) = stage.start(1);
    fs::write(stage.spool(), "not a folder").unwrap();
    stage.away(true);
    call(&meter, key(1), HOUR.start());
    stage.flush(&mut flusher, HOUR.start()).unwrap_err();
    assert!(!meter.is_spool_writable());
    stage.away(false);
    // The slabs stay for a while, as the only second copy.
    assert_eq!(stage.flush(&mut flusher, at(HOUR.next(), 5)).unwrap().folded, []);
    assert_eq!(stage.ledger.sum(HOUR, meter.incarnation()), good_calls(1, HOUR.start()));
    assert!(stage.ledger.closing(HOUR, meter.incarnation()).is_some());
    fs::remove_file(stage.spool()).unwrap();
    assert_eq!(stage.flush(&mut flusher, at(HOUR.next(), 6)).unwrap().folded, [], "not tried again at once");
    assert_eq!(stage.flush(&mut flusher, at(HOUR.next(), 10 * SECOND + 5)).unwrap().folded, [HOUR]);
    assert!(meter.is_spool_writable());
    fs::remove_dir_all(stage.spool()).unwrap();
    fs::write(stage.spool(), "not a folder").unwrap();
    let much_later = at(HOUR.next().next(), 6 * 3600 * SECOND + 1);
    assert!(stage.flush(&mut flusher, much_later).unwrap().folded.contains(&HOUR.next()), "memory is not to fill up");
    assert!(!meter.is_spool_writable());
}

#[test]
fn the_file_of_the_spool_does_not_grow_with_time() {
    let stage = Stage::new();
    let (meter, mut flusher) = stage.start(1);
    stage.away(true);
    let keys = 400;
    let mut longest = 0;
    for second in 0..60 {
        (0..keys).for_each(|number| call(&meter, key(number), HOUR.start()));
        stage.flush(&mut flusher, at(HOUR, second * SECOND)).unwrap_err();
        let path = stage.spool().join(format!("{}.spool", meter.incarnation()));
        longest = longest.max(fs::metadata(path).unwrap().len());
    }
    assert!(longest < 2 << 20, "{longest} bytes for {keys} lines");
}

/// What goes wrong between the gateway and the ledger during one flush.
#[derive(Clone, Copy, Debug)]
enum Trouble {
    None,
    Away,
    AnswerLost,
    Replaced,
}

fn trouble() -> impl Strategy<Value = Trouble> {
    prop_oneof![
        4 => Just(Trouble::None),
        3 => Just(Trouble::Away),
        2 => Just(Trouble::AnswerLost),
        1 => Just(Trouble::Replaced)
    ]
}

/// Plays the same calls with these troubles, one a minute; in the end all is well.
fn played(troubles: &[Trouble]) -> (Arc<MemoryLedger>, Vec<Flush>) {
    let stage = Stage::new();
    let (meter, mut flusher) = stage.start(1);
    stage.runtime.block_on(flusher.enrol(HOUR.start())).unwrap();
    let minute = |number: usize| at(HOUR, number as u64 * 60 * SECOND);
    for (number, trouble) in troubles.iter().enumerate() {
        call(&meter, key((number % 7) as u16), minute(number));
        match trouble {
            Trouble::Replaced => stage.replace_ledger(number as u8 + 2),
            _ => stage.away(matches!(trouble, Trouble::Away)),
        }
        stage.ledger.loses_answers.store(matches!(trouble, Trouble::AnswerLost), Ordering::Relaxed);
        let _ = stage.flush(&mut flusher, minute(number));
    }
    stage.away(false);
    stage.ledger.loses_answers.store(false, Ordering::Relaxed);
    stage.runtime.block_on(flusher.retire(minute(troubles.len()))).unwrap();
    let sent = stage.ledger.sent.lock().clone();
    (Arc::clone(&stage.ledger), sent)
}

fn closings(ledger: &MemoryLedger) -> Vec<(Hour, crate::meter::record::Closing)> {
    ledger.marks().iter().filter_map(|((hour, _), mark)| Some((*hour, mark.closing?.1))).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn whatever_goes_wrong_on_the_way_the_ledger_ends_as_if_nothing_had(
        troubles in proptest::collection::vec(trouble(), 1..150),
        order in proptest::collection::vec(any::<prop::sample::Index>(), 0..60),
    ) {
        let (calm, _) = played(&vec![Trouble::None; troubles.len()]);
        let (ledger, sent) = played(&troubles);
        prop_assert_eq!(ledger.all(), calm.all());
        prop_assert_eq!(closings(&ledger), closings(&calm));
        ledger.assert_closings_fit();
        // And once more: in any order, and all of it ten times.
        let replayed = MemoryLedger::default();
        let runtime = runtime();
        let again = (0..10).flat_map(|_| sent.iter().rev());
        for flush in order.iter().map(|index| index.get(&sent)).chain(again) {
            runtime.block_on(replayed.merge(flush.clone())).unwrap();
        }
        prop_assert_eq!(replayed.all(), calm.all());
        prop_assert_eq!(closings(&replayed), closings(&calm));
    }
}
