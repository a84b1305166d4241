//! Who has to deliver an hour, and who has. Pure: worked out from the marks in the ledger alone.
//!
//! An incarnation is enrolled by its first mark, before it counts a call. Each closing of an hour says that all of it is there, and
//! whether the incarnation goes on into the next. So every hour has its list of those who have to close it, and nobody can count
//! in it without being on the list.

use std::collections::{BTreeMap, BTreeSet};

use crate::principal::Incarnation;
use crate::store::usage::HourMark;
use crate::time::Hour;

/// By incarnation: from when until when it counts, and what it has closed.
#[derive(Default)]
pub struct Attendance {
    gateways: BTreeMap<Incarnation, Presence>,
    /// Nobody waits for these; each with the hour in which it was given up, since it counted in none after that.
    abandoned: BTreeMap<Incarnation, Hour>,
    /// Hours whose marks have left the ledger: everybody had closed them.
    left: BTreeSet<Hour>,
}

struct Presence {
    first: Hour,
    latest: Hour,
    /// Where it said that it leaves.
    left: Option<Hour>,
    closed: BTreeSet<Hour>,
}

impl Attendance {
    /// From marks that reach back at least to the hour before the first that is asked about.
    pub fn of(marks: &[HourMark], abandoned: BTreeMap<Incarnation, Hour>) -> Self {
        let mut gateways: BTreeMap<Incarnation, Presence> = BTreeMap::new();
        for HourMark { hour, incarnation, mark } in marks {
            let presence = gateways.entry(*incarnation).or_insert_with(|| Presence {
                first: *hour,
                latest: *hour,
                left: None,
                closed: BTreeSet::new(),
            });
            (presence.first, presence.latest) = (presence.first.min(*hour), presence.latest.max(*hour));
            let Some(closing) = &mark.closing else { continue };
            presence.closed.insert(*hour);
            if closing.leaves {
                presence.left = presence.left.max(Some(*hour));
            }
        }
        Self { gateways, abandoned, left: BTreeSet::new() }
    }

    /// Nobody owes these hours any more, although their marks are not there.
    #[must_use]
    pub fn except(self, left: BTreeSet<Hour>) -> Self {
        Self { left, ..self }
    }

    /// Those who have to close `hour` and have not.
    pub fn missing(&self, hour: Hour) -> Vec<Incarnation> {
        let owing = self.owing(hour).filter(|_| !self.left.contains(&hour));
        owing.filter(|incarnation| !self.abandoned.contains_key(incarnation)).collect()
    }

    /// Those who have not closed `hour` and are not waited for.
    pub fn lost(&self, hour: Hour) -> Vec<Incarnation> {
        self.owing(hour)
            .filter(|incarnation| self.abandoned.get(incarnation).is_some_and(|until| hour <= *until))
            .collect()
    }

    fn owing(&self, hour: Hour) -> impl Iterator<Item = Incarnation> {
        let owing = self.gateways.iter().filter(move |(_, presence)| presence.owes(hour));
        owing.map(|(incarnation, _)| *incarnation)
    }

    /// The hours in which anybody counts, from the first mark until `now`.
    pub fn hours(&self, now: Hour) -> BTreeSet<Hour> {
        let spans = self.gateways.iter().map(|(incarnation, presence)| {
            let last = presence.last().or(self.abandoned.get(incarnation).copied()).unwrap_or(now);
            (presence.first, last.min(now))
        });
        spans.flat_map(|(first, last)| (first.0..=last.0).map(Hour)).collect()
    }
}

impl Presence {
    /// Absent while it goes on. One that was heard of after it left has not.
    fn last(&self) -> Option<Hour> {
        self.left.filter(|left| *left >= self.latest)
    }

    fn owes(&self, hour: Hour) -> bool {
        let counts = self.first <= hour && self.last().is_none_or(|last| hour <= last);
        counts && !self.closed.contains(&hour)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::meter::record::{Closing, Counters};
    use crate::principal::ID_BYTES;
    use crate::store::usage::FlushMark;
    use crate::time::WallTime;

    const A: Incarnation = Incarnation([1; ID_BYTES]);
    const B: Incarnation = Incarnation([2; ID_BYTES]);

    fn mark(incarnation: Incarnation, hour: u32, leaves: Option<bool>) -> HourMark {
        let closing = leaves.map(|leaves| Closing { lines: 0, totals: Counters::default(), leaves });
        let mark = FlushMark { sequence: 1, watermark: WallTime(0), closing };
        HourMark { hour: Hour(hour), incarnation, mark }
    }

    fn of(marks: &[HourMark]) -> Attendance {
        Attendance::of(marks, BTreeMap::new())
    }

    #[test]
    fn nobody_waits_for_one_that_was_given_up_and_it_stays_named() {
        let attendance =
            Attendance::of(&[mark(A, 5, Some(false)), mark(A, 6, None), mark(B, 6, None)], [(A, Hour(7))].into());
        assert_eq!((attendance.missing(Hour(6)), attendance.lost(Hour(6))), (vec![B], vec![A]));
        assert_eq!((attendance.missing(Hour(5)), attendance.lost(Hour(5))), (vec![], vec![]));
        assert_eq!(
            (attendance.lost(Hour(7)), attendance.lost(Hour(8))),
            (vec![A], vec![]),
            "not after it was given up"
        );
    }

    #[test]
    fn an_hour_misses_whoever_counted_in_it_and_has_not_closed_it() {
        let marks = [mark(A, 5, Some(false)), mark(A, 6, None), mark(B, 6, Some(false))];
        let attendance = of(&marks);
        assert_eq!(attendance.missing(Hour(5)), []);
        assert_eq!(attendance.missing(Hour(6)), [A]);
    }

    #[test]
    fn who_closed_an_hour_owes_the_next_without_having_been_heard_of_in_it() {
        let attendance = of(&[mark(A, 5, Some(false))]);
        assert_eq!(attendance.missing(Hour(6)), [A]);
        assert_eq!(attendance.missing(Hour(7)), [A]);
        assert_eq!(attendance.hours(Hour(7)), [Hour(5), Hour(6), Hour(7)].into());
    }

    #[test]
    fn who_left_owes_nothing_after_that_and_nobody_owes_what_was_before() {
        let attendance = of(&[mark(A, 5, Some(false)), mark(A, 6, Some(true)), mark(B, 7, None)]);
        assert_eq!(attendance.missing(Hour(4)), []);
        assert_eq!(attendance.missing(Hour(6)), []);
        assert_eq!(attendance.missing(Hour(7)), [B]);
        assert_eq!(of(&[mark(A, 6, Some(true))]).hours(Hour(9)), [Hour(6)].into());
    }

    #[test]
    fn one_that_left_an_hour_open_is_missing_in_it_although_it_left_later() {
        let attendance = of(&[mark(A, 5, None), mark(A, 6, Some(true))]);
        assert_eq!(attendance.missing(Hour(5)), [A]);
        assert_eq!(attendance.missing(Hour(6)), []);
    }

    #[test]
    fn one_that_was_heard_of_after_it_left_has_not_left() {
        let attendance = of(&[mark(A, 5, Some(true)), mark(A, 6, Some(false))]);
        assert_eq!(attendance.missing(Hour(6)), []);
        assert_eq!(attendance.missing(Hour(7)), [A]);
    }
}
