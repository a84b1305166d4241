//! Counting: on one thread, on several, across threads, and when the folder is full.

use std::collections::HashSet;
use std::thread;

use super::*;
use crate::meter::Unmetered;

#[test]
fn a_call_is_opened_when_admitted_and_ends_once() {
    let folder = folder();
    let meter = meter(folder.path(), 1);
    let now = HOUR.start();
    let charge = meter.open_charge(key(1), now, true).unwrap();
    assert_eq!(charge.hour(), HOUR);
    let open = Counters { opened: 1, last_used: now.0, flags: Counters::SEEN_IN_BROWSER, ..Counters::default() };
    assert_eq!(counted(&meter)[&(HOUR, key(1))], open);
    charge.commit(Outcome::Refused, Tally { units_missing: true, ..tally() });
    let ended = Counters {
        outcomes: [0, 1, 0, 0, 0, 0],
        units_missing: 1,
        flags: Counters::SEEN_IN_BROWSER,
        ..good_calls(1, now)
    };
    assert_eq!(counted(&meter)[&(HOUR, key(1))], ended);
}

#[test]
fn a_dropped_charge_is_an_aborted_call_with_what_it_was_last_told() {
    let folder = folder();
    let meter = meter(folder.path(), 1);
    drop(meter.open_charge(key(1), HOUR.start(), false).unwrap());
    let mut told = meter.open_charge(key(2), HOUR.start(), false).unwrap();
    told.set_tally(tally());
    drop(told);
    let counted = counted(&meter);
    let silent = counted[&(HOUR, key(1))];
    assert_eq!((silent.opened, silent.outcomes, silent.request_bytes), (1, [0, 0, 0, 0, 0, 1], 0));
    let expected = Counters { outcomes: [0, 0, 0, 0, 0, 1], ..good_calls(1, HOUR.start()) };
    assert_eq!(counted[&(HOUR, key(2))], expected);
}

#[test]
fn two_threads_on_one_line_sum_exactly_and_no_sequence_comes_twice() {
    const CALLS: u64 = 20_000;
    let folder = folder();
    let meter = meter(folder.path(), 1);
    let work = || {
        meter.attach_thread();
        meter.attach_thread();
        let sequences = (0..CALLS).map(|_| {
            let charge = meter.open_charge(key(1), HOUR.start(), false).unwrap();
            let sequence = charge.sequence();
            charge.commit(Outcome::Ok, tally());
            sequence
        });
        sequences.collect::<HashSet<u64>>()
    };
    let unattached = || (0..CALLS).for_each(|_| call(&meter, key(1), HOUR.start()));
    let (one, two) = thread::scope(|scope| {
        let (one, two) = (scope.spawn(work), scope.spawn(work));
        scope.spawn(unattached);
        (one.join().unwrap(), two.join().unwrap())
    });
    assert_eq!(one.union(&two).count() as u64, 2 * CALLS);
    assert_eq!(counted(&meter)[&(HOUR, key(1))], good_calls(3 * CALLS, HOUR.start()));
}

#[test]
fn a_call_that_ends_on_another_thread_is_counted_once_and_never_before_it_was_opened() {
    const CALLS: u64 = 300_000;
    let folder = folder();
    let meter = meter(folder.path(), 1);
    let ledger = Arc::new(MemoryLedger::default());
    let mut flusher = Flusher::new(&meter, Arc::clone(&ledger) as _);
    let runtime = runtime();
    let (sender, receiver) = std::sync::mpsc::sync_channel(8);
    thread::scope(|scope| {
        let meter = &meter;
        scope.spawn(move || {
            meter.attach_thread();
            (0..CALLS).for_each(|_| sender.send(meter.open_charge(key(1), HOUR.start(), false).unwrap()).unwrap());
        });
        let ending = scope.spawn(move || {
            meter.attach_thread();
            receiver.iter().for_each(|charge| charge.commit(Outcome::Ok, tally()));
        });
        while !ending.is_finished() {
            runtime.block_on(flusher.flush_once(HOUR.start())).unwrap();
            for (_, counters) in ledger.sent.lock().drain(..).flat_map(|flush| flush.lines) {
                assert!(counters.committed() <= counters.opened, "{counters:?}");
                assert_eq!(counters.request_bytes, 7 * counters.committed(), "torn: {counters:?}");
            }
        }
    });
    assert_eq!(counted(&meter)[&(HOUR, key(1))], good_calls(CALLS, HOUR.start()));
    assert_eq!(meter.lost(), 0);
}

#[test]
fn a_thread_leaves_its_shard_to_the_next() {
    let folder = folder();
    let meter = meter(folder.path(), 1);
    let mut sequences = HashSet::new();
    for _ in 0..5 {
        let work = || {
            meter.attach_thread();
            let charge = meter.open_charge(key(1), HOUR.start(), false).unwrap();
            let sequence = charge.sequence();
            charge.commit(Outcome::Ok, tally());
            sequence
        };
        // Joined, not scoped: a scope may end before the thread's own values are dropped.
        let sequence = thread::scope(|scope| scope.spawn(work).join().unwrap());
        assert!(sequences.insert(sequence));
    }
    assert!(meter.core.shards.lock().len() <= 3, "{}", meter.core.shards.lock().len());
    assert_eq!(counted(&meter)[&(HOUR, key(1))], good_calls(5, HOUR.start()));
}

#[test]
fn lines_beyond_a_file_go_into_further_files() {
    let folder = folder();
    let meter = small_meter(folder.path(), 1);
    thread::scope(|scope| {
        scope.spawn(|| {
            meter.attach_thread();
            for round in 1..=2 {
                (0..100).for_each(|number| call(&meter, key(number), WallTime(HOUR.start().0 + round)));
            }
        });
    });
    let expected = (0..100).map(|number| ((HOUR, key(number)), good_calls(2, WallTime(HOUR.start().0 + 2))));
    assert_eq!(counted(&meter), expected.collect());
}

#[test]
fn without_room_new_lines_are_refused_and_old_ones_go_on() {
    let folder = folder();
    let path = folder.path().join("slabs");
    let meter = small_meter(&path, 1);
    thread::scope(|scope| {
        scope.spawn(|| {
            meter.attach_thread();
            let admitted: Vec<_> = (0..4).map(|n| meter.open_charge(key(n), HOUR.start(), false).unwrap()).collect();
            std::fs::remove_dir_all(&path).unwrap();
            let refused = meter.open_charge(key(9), HOUR.start(), false).map(drop);
            assert!(matches!(refused, Err(Unmetered::NoRoom(_))), "{refused:?}");
            let again = meter.open_charge(key(9), HOUR.start(), false).map(drop);
            assert!(matches!(again, Err(Unmetered::Lately)), "{again:?}");
            assert!(!meter.is_writable());
            call(&meter, key(3), HOUR.start());
            // Elsewhere: their lines in the shared shard were made with them.
            scope.spawn(|| admitted.into_iter().for_each(|charge| charge.commit(Outcome::Ok, tally())));
        });
    });
    assert_eq!(meter.lost(), 0);
    let expected = (0..4).map(|n| ((HOUR, key(n)), good_calls(if n == 3 { 2 } else { 1 }, HOUR.start())));
    assert_eq!(counted(&meter), expected.collect());
    std::fs::create_dir(&path).unwrap();
    call(&meter, key(9), WallTime(HOUR.start().0 + 1000));
    assert!(meter.is_writable());
}
