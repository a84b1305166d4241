//! Hours that have left the ledger: their usage waits, is asked for, and holds no other hour up.

use std::sync::atomic::Ordering;

use super::*;
use crate::meter::recover::{Recovery, RecoveryReport};

fn recover(recovery: &mut Recovery, ledger: &MemoryLedger, now: WallTime) -> RecoveryReport {
    runtime().block_on(recovery.run_once(ledger, now)).unwrap()
}

#[test]
fn an_hour_that_has_left_waits_in_slab_and_spool_while_others_are_flushed_and_is_sent_once_it_is_back() {
    let folder = folder();
    let meter = small_meter(folder.path(), 1);
    let ledger = Arc::new(MemoryLedger::default());
    let mut flusher = Flusher::new(&meter, Arc::clone(&ledger) as _);
    runtime().block_on(flusher.enrol(HOUR.start())).unwrap();
    call(&meter, key(1), HOUR.start());
    ledger.archived.lock().insert(HOUR);
    let now = HOUR.next().start();
    meter.core.advance(HOUR.next());
    call(&meter, key(2), now);
    let report = runtime().block_on(flusher.flush_once(now)).unwrap();
    assert_eq!(report.waiting.first(), Some(&HOUR));
    assert_eq!(ledger.sum(HOUR.next(), meter.incarnation()), good_calls(1, now), "the other hour does not wait");
    assert!(ledger.sum(HOUR, meter.incarnation()) == Counters::default() && report.folded.is_empty());
    let spool = std::fs::read_dir(folder.path().join("spool")).unwrap().flatten();
    assert!(
        spool.into_iter().any(|file| file.file_name().to_string_lossy().ends_with(".spool")),
        "the power may be cut"
    );
    ledger.archived.lock().clear();
    let report = runtime().block_on(flusher.flush_once(now)).unwrap();
    assert!(report.waiting.is_empty());
    assert_eq!(ledger.sum(HOUR, meter.incarnation()), good_calls(1, HOUR.start()));
    ledger.assert_closings_fit();
}

#[test]
fn hours_of_the_dead_that_have_left_hold_no_other_up_and_are_recovered_once_they_are_back() {
    let folder = folder();
    for incarnation in [2, 3] {
        let meter = small_meter(folder.path(), incarnation);
        call(&meter, key(1), HOUR.start());
        meter.core.advance(HOUR.next());
        call(&meter, key(2), HOUR.end());
    }
    let (ledger, meter) = (MemoryLedger::default(), small_meter(folder.path(), 1));
    ledger.archived.lock().insert(HOUR);
    let mut recovery = Recovery::new(&meter);
    let report = recover(&mut recovery, &ledger, HOUR.next().end());
    assert_eq!((report.recovered.len(), report.waiting.len()), (2, 2), "{report:?}");
    for incarnation in [2, 3].map(|number| Incarnation([number; 10])) {
        assert_eq!(ledger.sum(HOUR.next(), incarnation), good_calls(1, HOUR.end()));
    }
    ledger.archived.lock().clear();
    let report = recover(&mut recovery, &ledger, HOUR.next().end());
    assert!(report.waiting.is_empty() && report.recovered.len() == 2, "{report:?}");
    for incarnation in [2, 3].map(|number| Incarnation([number; 10])) {
        assert_eq!(ledger.sum(HOUR, incarnation), good_calls(1, HOUR.start()));
        assert!(ledger.closing(HOUR.next(), incarnation).unwrap().leaves);
    }
    ledger.assert_closings_fit();
}

#[test]
fn a_call_whose_end_only_the_ledger_saw_is_not_interrupted_while_its_hour_is_away() {
    let folder = folder();
    let meter = small_meter(folder.path(), 2);
    let ledger = Arc::new(MemoryLedger::default());
    let mut flusher = Flusher::new(&meter, Arc::clone(&ledger) as _);
    let open = meter.open_charge(key(1), HOUR.start(), false).unwrap();
    ledger.away.store(true, Ordering::Relaxed);
    runtime().block_on(flusher.flush_once(HOUR.start())).unwrap_err();
    ledger.away.store(false, Ordering::Relaxed);
    open.commit(Outcome::Ok, tally());
    // It arrives, and nobody hears of it, so the spool stays with the beginning of the call alone.
    ledger.loses_answers.store(true, Ordering::Relaxed);
    runtime().block_on(flusher.flush_once(HOUR.start())).unwrap_err();
    ledger.loses_answers.store(false, Ordering::Relaxed);
    drop((meter, flusher));
    // The power is cut, and the hour leaves the ledger before anybody looks.
    for name in files(folder.path()) {
        std::fs::remove_file(folder.path().join(name)).unwrap();
    }
    let full = ledger.all();
    ledger.forget();
    ledger.archived.lock().insert(HOUR);
    // Whoever reads the hour before it is back, and merges after, has not seen the end of the call.
    *ledger.returning.lock() = Some(full.clone());
    let meter = small_meter(folder.path(), 1);
    let mut recovery = Recovery::new(&meter);
    assert_eq!(recover(&mut recovery, &ledger, HOUR.end()).waiting.len(), 1);
    ledger.put_back(full);
    recover(&mut recovery, &ledger, HOUR.end());
    assert_eq!(ledger.sum(HOUR, Incarnation([2; 10])), good_calls(1, HOUR.start()));
}
