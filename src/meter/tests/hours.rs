//! Hours: admission decides, the next is prepared, the past is folded.

use std::thread;

use super::*;

fn at(hour: Hour, millis: u64) -> WallTime {
    WallTime(hour.start().0 + millis)
}

#[test]
fn a_call_is_billed_in_the_hour_of_its_admission() {
    let folder = folder();
    let meter = meter(folder.path(), 1);
    let last = at(HOUR, Hour::MILLIS - 1);
    let before = meter.open_charge(key(1), last, false).unwrap();
    call(&meter, key(1), HOUR.end());
    assert_eq!(before.hour(), HOUR);
    before.commit(Outcome::Ok, tally());
    let counted = counted(&meter);
    assert_eq!(counted[&(HOUR, key(1))], good_calls(1, last));
    assert_eq!(counted[&(HOUR.next(), key(1))], good_calls(1, HOUR.end()));
}

#[test]
fn no_call_is_admitted_to_an_hour_before_one_already_used() {
    let folder = folder();
    let meter = meter(folder.path(), 1);
    call(&meter, key(1), HOUR.end());
    let late = meter.open_charge(key(1), HOUR.start(), false).unwrap();
    assert_eq!(late.hour(), HOUR.next(), "a clock that went back");
    thread::scope(|scope| {
        scope.spawn(|| {
            meter.attach_thread();
            assert_eq!(meter.open_charge(key(1), HOUR.start(), false).unwrap().hour(), HOUR.next());
        });
    });
}

#[test]
fn files_are_made_before_the_calls_that_need_them() {
    let folder = folder();
    let meter = small_meter(folder.path(), 1);
    thread::scope(|scope| {
        scope.spawn(|| {
            meter.attach_thread();
            (0..3).for_each(|number| call(&meter, key(number), HOUR.start()));
            meter.core.prepare(at(HOUR, Hour::MILLIS - 1)).unwrap();
            let prepared = files(folder.path());
            (3..6).for_each(|number| call(&meter, key(number), HOUR.start()));
            (0..4).for_each(|number| call(&meter, key(number), HOUR.end()));
            assert_eq!(files(folder.path()), prepared);
        });
    });
}

#[test]
fn the_first_file_of_an_hour_has_room_for_the_lines_of_the_hour_before() {
    let folder = folder();
    let meter = small_meter(folder.path(), 1);
    (0..9).for_each(|number| call(&meter, key(number), HOUR.start()));
    call(&meter, key(0), HOUR.end());
    let slabs = meter.core.slabs();
    let next = slabs.iter().find(|slab| slab.identity().hour == HOUR.next()).unwrap();
    assert_eq!(next.identity().capacity, 16);
}

#[test]
fn an_hour_is_folded_once_it_is_over_flushed_and_without_open_calls() {
    let folder = folder();
    let meter = meter(folder.path(), 1);
    let ledger = Arc::new(MemoryLedger::default());
    let mut flusher = Flusher::new(&meter, Arc::clone(&ledger) as _);
    let runtime = runtime();
    let mut folded = |now| runtime.block_on(flusher.flush_once(now)).unwrap().folded;
    let long = meter.open_charge(key(1), HOUR.start(), false).unwrap();
    call(&meter, key(1), HOUR.start());
    assert_eq!(folded(at(HOUR, 5)), [], "the hour is not over");
    assert_eq!(folded(at(HOUR.next(), 5)), [], "a call is open");
    let watermark = ledger.marks()[&(HOUR, meter.incarnation())].watermark;
    assert_eq!(watermark, at(HOUR.next(), 5), "the hour was closed with a watermark");
    long.commit(Outcome::Ok, tally());
    assert_eq!(folded(at(HOUR.next(), 6)), [HOUR]);
    assert_eq!(ledger.sum(HOUR, meter.incarnation()), good_calls(2, HOUR.start()));
    assert!(!files(folder.path()).iter().any(|name| name.contains(&format!("-{}-", HOUR.0))));
    meter.attach_thread();
    meter.keep_up(at(HOUR.next(), 7));
    let mapped = std::fs::read_to_string("/proc/self/maps").unwrap();
    let is_of_the_hour =
        |line: &&str| line.contains(&*folder.path().to_string_lossy()) && line.contains(&format!("-{}-", HOUR.0));
    assert_eq!(mapped.lines().find(is_of_the_hour), None, "its memory is given back");
    call(&meter, key(1), HOUR.start());
    assert_eq!(ledger.sum(HOUR, meter.incarnation()), good_calls(2, HOUR.start()));
}

#[test]
fn a_meter_that_retires_leaves_nothing_once_the_ledger_has_everything() {
    let folder = folder();
    let meter = meter(folder.path(), 1);
    let ledger = Arc::new(MemoryLedger::default());
    call(&meter, key(1), HOUR.start());
    let flusher = Flusher::new(&meter, Arc::clone(&ledger) as _);
    let report = runtime().block_on(flusher.retire(at(HOUR, 5))).unwrap();
    assert_eq!(report.folded, [HOUR]);
    assert_eq!(ledger.sum(HOUR, meter.incarnation()), good_calls(1, HOUR.start()));
    let watermark = ledger.sent.lock().last().map(|flush| (flush.hour, flush.watermark));
    assert_eq!(watermark, Some((HOUR, HOUR.end())), "nothing more comes from it");
    assert_eq!(files(folder.path()), Vec::<String>::new());
}

#[test]
fn a_meter_that_retires_leaves_its_files_to_recovery_while_a_call_is_open() {
    let folder = folder();
    let meter = meter(folder.path(), 1);
    let ledger = Arc::new(MemoryLedger::default());
    let open = meter.open_charge(key(1), HOUR.start(), false).unwrap();
    let before = files(folder.path());
    let flusher = Flusher::new(&meter, Arc::clone(&ledger) as _);
    assert_eq!(runtime().block_on(flusher.retire(at(HOUR, 5))).unwrap().folded, []);
    assert_eq!(files(folder.path()), before);
    open.commit(Outcome::Ok, tally());
    assert_eq!(meter.lost(), 0);
}

#[test]
fn an_hour_stays_while_a_thread_could_still_admit_calls_to_it() {
    let folder = folder();
    let meter = meter(folder.path(), 1);
    let ledger = Arc::new(MemoryLedger::default());
    let mut flusher = Flusher::new(&meter, Arc::clone(&ledger) as _);
    let runtime = runtime();
    let mut folded = |now| runtime.block_on(flusher.flush_once(now)).unwrap().folded;
    thread::scope(|scope| {
        scope
            .spawn(|| {
                meter.attach_thread();
                call(&meter, key(1), HOUR.start());
                assert_eq!(folded(at(HOUR.next(), 5)), []);
                call(&meter, key(1), HOUR.end());
                assert_eq!(folded(at(HOUR.next(), 6)), [HOUR]);
            })
            .join()
            .unwrap();
    });
    assert_eq!(folded(at(HOUR.next().next(), 5)), [HOUR.next()], "the thread has ended");
    assert_eq!(ledger.sum(HOUR.next(), meter.incarnation()), good_calls(1, HOUR.end()));
}

#[test]
fn a_shard_that_was_idle_for_an_hour_that_is_folded_never_enters_it() {
    let folder = folder();
    let meter = meter(folder.path(), 1);
    let (go, wait) = std::sync::mpsc::sync_channel::<()>(0);
    thread::scope(|scope| {
        let meter = &meter;
        let (ready, is_ready) = std::sync::mpsc::sync_channel(0);
        let idle = scope.spawn(move || {
            meter.attach_thread();
            ready.send(()).unwrap();
            wait.recv().unwrap();
            meter.open_charge(key(1), HOUR.start(), false).unwrap().hour()
        });
        is_ready.recv().unwrap();
        meter.core.advance(HOUR.next());
        assert!(meter.core.leave(HOUR));
        // As a thread sees it that has read the latest hour before it was advanced.
        meter.core.latest.store(HOUR.0, std::sync::atomic::Ordering::SeqCst);
        go.send(()).unwrap();
        assert_eq!(idle.join().unwrap(), HOUR.next());
    });
}
