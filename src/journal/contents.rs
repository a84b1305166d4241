//! Reading a whole journal: every segment in order, every number without a gap.

use std::fs;

use super::entry::Entry;
use super::error::JournalError;
use super::folder::{Folder, Head, Names};
use super::frame::{Framing, Place};
use super::segment::{self, Certain, HEADER, Header};

/// Where a journal that was read goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tail {
    pub head: Head,
    /// The number of the first intent that is kept, or would be the next.
    pub first_intent: u64,
    /// Bytes behind the good end of the last segment: an entry that was being written at a crash.
    pub torn: u64,
}

/// Reads everything, without changing a file, and shows each entry in order. `see` says no to an entry that cannot stand there.
pub fn read(
    folder: &Folder,
    names: Names,
    framing: &Framing,
    mut see: impl FnMut(Entry) -> Result<(), String>,
) -> Result<Tail, JournalError> {
    let head = folder.head()?;
    let newest = newest_segment(folder, head)?;
    let first = segment::header(&folder.segment(head.first))?;
    let mut expected = Header { names, number: head.first, ..first };
    let mut last = first.first.saturating_sub(1);
    let mut length = 0;
    for number in head.first..=newest {
        expected = if number == head.first {
            expected
        } else {
            Header { number, first: last + 1, previous: length, ..expected }
        };
        let certain = certain(folder, head, number, newest)?;
        let mut take = |_: Place, entry: Entry| {
            if let Entry::Intent(intent) = &entry {
                let no = last + 1;
                if intent.no != no {
                    return Err(format!("change {} stands where change {no} belongs", intent.no));
                }
                last = no;
            }
            see(entry)
        };
        length = segment::read(&folder.segment(number), expected, framing, certain, &mut take)?;
    }
    let path = folder.segment(newest);
    let there = fs::metadata(&path).map_err(JournalError::io(&path))?.len();
    let head = Head { first: head.first, segment: newest, length, last };
    Ok(Tail { head, first_intent: first.first, torn: there - length })
}

/// The last segment that counts: the head's, or the one that was begun right behind it.
fn newest_segment(folder: &Folder, head: Head) -> Result<u64, JournalError> {
    let there = folder.segments()?;
    for number in head.first..=head.segment {
        if !there.contains(&number) {
            return Err(JournalError::damaged(&folder.segment(number), 0, "the file is missing"));
        }
    }
    let beyond: Vec<_> = there.into_iter().filter(|number| *number > head.segment).collect();
    match beyond.as_slice() {
        [] => Ok(head.segment),
        // Its header is on the disk before anything else is written into it; until then it was never used.
        [next] if *next == head.segment + 1 => {
            let begun = segment::header(&folder.segment(*next)).is_ok();
            Ok(if begun { *next } else { head.segment })
        }
        [.., stray] => Err(JournalError::damaged(&folder.segment(*stray), 0, "the head knows nothing of this file")),
    }
}

/// A segment with a successor has the length that the successor's header says.
fn certain(folder: &Folder, head: Head, number: u64, newest: u64) -> Result<Certain, JournalError> {
    if number < newest {
        return Ok(Certain::Closed(segment::header(&folder.segment(number + 1))?.previous));
    }
    Ok(Certain::UpTo(if number == head.segment { head.length } else { HEADER }))
}
