//! Enrolment and closings: the ledger knows who counts in an hour before they do, and when they are done with it.

use std::sync::atomic::Ordering;
use std::thread;

use super::*;
use crate::meter::record::Closing;
use crate::meter::recover::Recovery;

fn at(hour: Hour, millis: u64) -> WallTime {
    WallTime(hour.start().0 + millis)
}

fn no_calls(leaves: bool) -> Closing {
    Closing { lines: 0, totals: Counters::default(), leaves }
}

#[test]
fn the_ledger_knows_of_an_incarnation_before_it_counts_anything() {
    let folder = folder();
    let (meter, ledger) = (meter(folder.path(), 1), Arc::new(MemoryLedger::default()));
    let mut flusher = Flusher::new(&meter, Arc::clone(&ledger) as _);
    ledger.away.store(true, Ordering::Relaxed);
    assert!(runtime().block_on(flusher.enrol(HOUR.start())).is_err());
    ledger.away.store(false, Ordering::Relaxed);
    runtime().block_on(flusher.enrol(HOUR.start())).unwrap();
    let marks = ledger.marks();
    let mark = marks[&(HOUR, meter.incarnation())];
    assert_eq!((marks.len(), mark.watermark, mark.closing), (1, WallTime(0), None));
    assert!(ledger.all().is_empty());
}

#[test]
fn a_ledger_that_is_away_is_asked_again_until_it_knows_or_nobody_wants_to_any_more() {
    use std::time::Duration;
    let folder = folder();
    let (meter, ledger) = (meter(folder.path(), 1), Arc::new(MemoryLedger::default()));
    ledger.away.store(true, Ordering::Relaxed);
    runtime().block_on(async {
        let enrol = |stopped| {
            let mut flusher = Flusher::new(&meter, Arc::clone(&ledger) as _);
            tokio::spawn(async move { flusher.enrol_until(Duration::from_millis(1), stopped).await })
        };
        let (stop, stopped) = tokio::sync::watch::channel(false);
        let stopping = enrol(stopped.clone());
        tokio::task::yield_now().await;
        assert!(!stopping.is_finished());
        stop.send(true).unwrap();
        let patience = Duration::from_secs(20);
        assert!(!tokio::time::timeout(patience, stopping).await.unwrap().unwrap());
        stop.send(false).unwrap();
        let going_on = enrol(stopped);
        tokio::task::yield_now().await;
        assert!(!going_on.is_finished());
        ledger.away.store(false, Ordering::Relaxed);
        assert!(tokio::time::timeout(patience, going_on).await.unwrap().unwrap());
    });
    assert_eq!(ledger.marks().len(), 1);
}

#[test]
fn an_idle_gateway_closes_every_hour_also_those_it_slept_through() {
    let folder = folder();
    let (meter, ledger) = (meter(folder.path(), 1), Arc::new(MemoryLedger::default()));
    let mut flusher = Flusher::new(&meter, Arc::clone(&ledger) as _);
    let runtime = runtime();
    runtime.block_on(flusher.enrol(HOUR.start())).unwrap();
    let later = Hour(HOUR.0 + 5);
    assert_eq!(runtime.block_on(flusher.flush_once(at(later, 1))).unwrap().folded.len(), 5);
    for hour in (HOUR.0..later.0).map(Hour) {
        assert_eq!(ledger.closing(hour, meter.incarnation()), Some(no_calls(false)), "{hour}");
    }
    runtime.block_on(flusher.retire(at(later, 2))).unwrap();
    assert_eq!(ledger.closing(later, meter.incarnation()), Some(no_calls(true)));
    assert_eq!(ledger.marks().len(), 6);
}

#[test]
fn a_thread_without_calls_leaves_the_hour_when_it_is_told_the_time() {
    let folder = folder();
    let (meter, ledger) = (meter(folder.path(), 1), Arc::new(MemoryLedger::default()));
    let mut flusher = Flusher::new(&meter, Arc::clone(&ledger) as _);
    let runtime = runtime();
    let mut folded = |now| runtime.block_on(flusher.flush_once(now)).unwrap().folded;
    thread::scope(|scope| {
        let quiet = scope.spawn(|| {
            meter.attach_thread();
            call(&meter, key(1), HOUR.start());
            assert_eq!(folded(at(HOUR.next(), 5)), []);
            meter.keep_up(at(HOUR.next(), 6));
            assert_eq!(folded(at(HOUR.next(), 7)), [HOUR]);
        });
        quiet.join().unwrap();
    });
    let closing = Closing { lines: 1, totals: good_calls(1, HOUR.start()), leaves: false };
    assert_eq!(ledger.closing(HOUR, meter.incarnation()), Some(closing));
}

#[test]
fn no_hour_is_closed_while_a_call_in_it_is_open() {
    let folder = folder();
    let (meter, ledger) = (meter(folder.path(), 1), Arc::new(MemoryLedger::default()));
    let mut flusher = Flusher::new(&meter, Arc::clone(&ledger) as _);
    let runtime = runtime();
    let long = meter.open_charge(key(1), HOUR.start(), false).unwrap();
    call(&meter, key(2), HOUR.start());
    runtime.block_on(flusher.flush_once(at(HOUR.next().next(), 5))).unwrap();
    assert_eq!(ledger.closing(HOUR, meter.incarnation()), None);
    assert_eq!(ledger.closing(HOUR.next(), meter.incarnation()), Some(no_calls(false)), "nobody waits in that one");
    long.commit(Outcome::Ok, tally());
    runtime.block_on(flusher.flush_once(at(HOUR.next().next(), 6))).unwrap();
    let closing = Closing { lines: 2, totals: good_calls(2, HOUR.start()), leaves: false };
    assert_eq!(ledger.closing(HOUR, meter.incarnation()), Some(closing));
    ledger.assert_closings_fit();
}

#[test]
fn across_an_hour_whose_clock_is_stepped_the_two_hours_sum_up_exactly() {
    let folder = folder();
    let (meter, ledger) = (small_meter(folder.path(), 1), Arc::new(MemoryLedger::default()));
    let mut flusher = Flusher::new(&meter, Arc::clone(&ledger) as _);
    let runtime = runtime();
    runtime.block_on(flusher.enrol(HOUR.start())).unwrap();
    let boundary = HOUR.end().0;
    // Five seconds around the boundary, in which the clock goes back by two seconds and ahead by two.
    let mut calls = 0;
    for step in 0..500_u64 {
        let shift: i64 = match step / 100 {
            1 | 3 => -2000,
            2 => 2000,
            _ => 0,
        };
        let now = WallTime((boundary - 2500 + step * 10).saturating_add_signed(shift));
        let charge = meter.open_charge(key((step % 9) as u16), now, false).unwrap();
        calls += 1;
        if step % 7 == 0 {
            runtime.block_on(flusher.flush_once(now)).unwrap();
        }
        charge.commit(Outcome::Ok, tally());
    }
    runtime.block_on(flusher.retire(WallTime(boundary + 5000))).unwrap();
    let of = |hour| ledger.sum(hour, meter.incarnation());
    let (first, second) = (of(HOUR), of(HOUR.next()));
    assert!(first.opened > 0 && second.opened > 0);
    for sum in [first, second] {
        let good = good_calls(sum.opened, WallTime(sum.last_used));
        assert_eq!(sum, good, "every call is whole, in one hour");
    }
    assert_eq!(first.opened + second.opened, calls);
    ledger.assert_closings_fit();
    assert!(!ledger.closing(HOUR, meter.incarnation()).unwrap().leaves);
    assert!(ledger.closing(HOUR.next(), meter.incarnation()).unwrap().leaves);
}

fn recover(folder: &Path, ledger: &MemoryLedger) {
    let meter = meter(folder, 1);
    let report = runtime().block_on(Recovery::new(&meter).run_once(ledger, at(HOUR.next(), 9))).unwrap();
    assert!(report.left.is_empty() && report.waiting.is_empty(), "{report:?}");
}

#[test]
fn the_hours_of_the_dead_are_closed_and_the_last_one_says_so() {
    let folder = folder();
    let (dead, ledger) = (meter(folder.path(), 2), MemoryLedger::default());
    call(&dead, key(1), HOUR.start());
    let cut = dead.open_charge(key(2), HOUR.start(), false).unwrap();
    // The next hour is prepared, and nothing comes in it.
    dead.core.prepare(at(HOUR, Hour::MILLIS - 1)).unwrap();
    let whose = dead.incarnation();
    drop(dead);
    recover(folder.path(), &ledger);
    let closing = ledger.closing(HOUR, whose).unwrap();
    assert_eq!((closing.lines, closing.leaves), (2, false));
    assert_eq!((closing.totals.opened, closing.totals.interrupted), (2, 1));
    assert_eq!(ledger.closing(HOUR.next(), whose), Some(no_calls(true)));
    ledger.assert_closings_fit();
    drop(cut);
}

#[test]
fn an_incarnation_that_died_after_folding_an_hour_has_left_another() {
    let folder = folder();
    let (dead, ledger) = (meter(folder.path(), 2), Arc::new(MemoryLedger::default()));
    let mut flusher = Flusher::new(&dead, Arc::clone(&ledger) as _);
    call(&dead, key(1), HOUR.start());
    assert_eq!(runtime().block_on(flusher.flush_once(at(HOUR.next(), 5))).unwrap().folded, [HOUR]);
    let whose = dead.incarnation();
    drop((flusher, dead));
    recover(folder.path(), &ledger);
    assert!(!ledger.closing(HOUR, whose).unwrap().leaves);
    assert_eq!(ledger.closing(HOUR.next(), whose), Some(no_calls(true)));
    ledger.assert_closings_fit();
}

#[test]
fn a_fold_that_was_cut_short_changes_no_closing() {
    let folder = folder();
    let (dead, ledger) = (small_meter(folder.path(), 2), Arc::new(MemoryLedger::default()));
    let mut flusher = Flusher::new(&dead, Arc::clone(&ledger) as _);
    thread::scope(|scope| {
        let counting = scope.spawn(|| {
            dead.attach_thread();
            (0..9).for_each(|number| call(&dead, key(number), HOUR.start()));
        });
        counting.join().unwrap();
    });
    let of_hour = |name: &String| name.contains(&format!("-{}-", HOUR.0)) && name.contains("-0-");
    let names: Vec<_> = files(folder.path()).into_iter().filter(of_hour).collect();
    let last = names.iter().map(|name| (folder.path().join(name), std::fs::read(folder.path().join(name)).unwrap()));
    let last: Vec<_> = last.collect();
    assert_eq!(runtime().block_on(flusher.flush_once(at(HOUR.next(), 5))).unwrap().folded, [HOUR]);
    let before = ledger.closing(HOUR, dead.incarnation()).unwrap();
    let whose = dead.incarnation();
    drop((flusher, dead));
    // The files of the shared shard, without the lines that were in those of the thread.
    last.iter().for_each(|(path, bytes)| std::fs::write(path, bytes).unwrap());
    recover(folder.path(), &ledger);
    assert_eq!(ledger.closing(HOUR, whose), Some(before));
    ledger.assert_closings_fit();
}

#[test]
fn an_hour_with_a_damaged_file_stays_open() {
    let folder = folder();
    let (dead, ledger) = (meter(folder.path(), 2), MemoryLedger::default());
    call(&dead, key(1), HOUR.start());
    call(&dead, key(1), HOUR.end());
    let whose = dead.incarnation();
    drop(dead);
    let name = files(folder.path()).into_iter().find(|name| name.contains(&format!("-{}-", HOUR.next().0))).unwrap();
    std::fs::write(folder.path().join(name), b"broken").unwrap();
    let meter = meter(folder.path(), 1);
    runtime().block_on(Recovery::new(&meter).run_once(&ledger, at(HOUR.next(), 9))).unwrap();
    assert!(!ledger.closing(HOUR, whose).unwrap().leaves, "it went on, and nobody knows how far");
    assert_eq!(ledger.closing(HOUR.next(), whose), None);
}
