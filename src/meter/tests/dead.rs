//! The dead: cuts between any two stores, damage, foreign files, and what is left behind half done.

use std::cell::RefCell;
use std::fs;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use super::*;
use crate::meter::estate::HourEstate;

use crate::meter::recover::{Recovery, RecoveryReport, Why};
use crate::meter::words::cut;

fn recover(meter: &Meter, ledger: &MemoryLedger) -> RecoveryReport {
    runtime().block_on(Recovery::new(meter).run_once(ledger, HOUR.start())).unwrap()
}

/// Runs `work` as an incarnation that then dies; its files stay.
fn life(folder: &Path, incarnation: u8, work: impl FnOnce(&Meter) + Send) {
    let meter = small_meter(folder, incarnation);
    thread::scope(|scope| scope.spawn(|| work(&meter)).join().unwrap());
}

fn slab_files(folder: &Path, incarnation: u8) -> Vec<PathBuf> {
    let prefix = Incarnation([incarnation; 10]).to_string();
    let ours = |name: &String| name.starts_with(&prefix) && name.ends_with(".slab");
    files(folder).into_iter().filter(ours).map(|name| folder.join(name)).collect()
}

/// The file of the shared shard as it was after every store that `work` made.
fn cuts(meter: &Meter, work: impl FnOnce()) -> Vec<BTreeMap<LineKey, Counters>> {
    let path = meter.core.slabs()[0].path().to_owned();
    let images = Rc::new(RefCell::new(vec![fs::read(&path).unwrap()]));
    let (seen, of) = (Rc::clone(&images), path.clone());
    cut::at_every_store(move || seen.borrow_mut().push(fs::read(&of).unwrap()), work);
    images.borrow().iter().map(|image| recovered(&path, image)).collect()
}

fn recovered(path: &Path, image: &[u8]) -> BTreeMap<LineKey, Counters> {
    let words = image.chunks_exact(8).map(|word| AtomicU64::new(u64::from_ne_bytes(word.try_into().unwrap())));
    let mut estate = HourEstate::default();
    estate.add(path, &words.collect::<Vec<_>>(), STORE).unwrap();
    estate.lines.into_iter().map(|(key, sum)| (key, sum.counters)).collect()
}

#[test]
fn a_commit_that_is_cut_between_any_two_stores_is_counted_whole_or_not_at_all() {
    let folder = folder();
    let meter = small_meter(folder.path(), 1);
    let now = HOUR.start();
    call(&meter, key(1), now);
    let charge = meter.open_charge(key(1), now, false).unwrap();
    let images = cuts(&meter, || charge.commit(Outcome::Ok, tally()));
    assert!(images.len() > 10, "{} stores", images.len());
    let (before, after) = (Counters { opened: 2, ..good_calls(1, now) }, good_calls(2, now));
    let whole: Vec<bool> = images.iter().map(|lines| lines[&key(1)] == after).collect();
    for (at, lines) in images.iter().enumerate() {
        assert!(lines[&key(1)] == before || whole[at], "cut after store {at}: {:?}", lines[&key(1)]);
    }
    assert!(!whole[0] && *whole.last().unwrap());
    assert!(whole.is_sorted(), "once counted it stays counted");
}

#[test]
fn an_admission_that_is_cut_between_any_two_stores_is_counted_or_not() {
    let folder = folder();
    let meter = small_meter(folder.path(), 1);
    let images = cuts(&meter, || call(&meter, key(1), HOUR.start()));
    for (at, lines) in images.iter().enumerate() {
        let line = lines.get(&key(1)).copied().unwrap_or_default();
        assert!(line.opened <= 1 && line.committed() <= line.opened, "cut after store {at}: {line:?}");
        assert_eq!(line.request_bytes, 7 * line.committed(), "cut after store {at}: {line:?}");
    }
    assert!(images[0].is_empty());
    assert_eq!(images.last().unwrap()[&key(1)].opened, 1);
}

#[test]
fn a_slot_older_than_its_line_takes_nothing_back() {
    let folder = folder();
    let meter = small_meter(folder.path(), 1);
    let path = meter.core.slabs()[0].path().to_owned();
    call(&meter, key(1), HOUR.start());
    let charge = meter.open_charge(key(1), HOUR.start(), false).unwrap();
    let old = Rc::new(RefCell::new(Vec::new()));
    let (seen, of) = (Rc::clone(&old), path.clone());
    cut::at_every_store(move || seen.borrow_mut().push(fs::read(&of).unwrap()), || charge.commit(Outcome::Ok, tally()));
    call(&meter, key(1), HOUR.start());
    let mut torn = fs::read(&path).unwrap();
    // The page with the slot reached the disk before the page with the line did.
    let published = old.borrow()[8].clone();
    torn[96 * 8..104 * 8].copy_from_slice(&published[96 * 8..104 * 8]);
    assert_ne!(torn[96 * 8..97 * 8], [0; 8]);
    assert_eq!(recovered(&path, &torn)[&key(1)], good_calls(3, HOUR.start()));
}

#[test]
fn what_a_dead_incarnation_counted_is_merged_once_and_its_files_go() {
    let folder = folder();
    life(folder.path(), 2, |meter| {
        (0..3).for_each(|number| call(meter, key(number), HOUR.start()));
        meter.attach_thread();
        (0..30).for_each(|number| call(meter, key(number % 10), HOUR.start()));
        // Opened here, ended on the shared shard or never.
        let elsewhere = meter.open_charge(key(0), HOUR.start(), false).unwrap();
        thread::scope(|scope| scope.spawn(|| elsewhere.commit(Outcome::Ok, tally())).join().unwrap());
        Box::leak(Box::new(meter.open_charge(key(1), HOUR.start(), false).unwrap()));
    });
    let (meter, ledger) = (meter(folder.path(), 1), MemoryLedger::default());
    let report = recover(&meter, &ledger);
    let dead = Incarnation([2; 10]);
    let expected = Counters { opened: 35, interrupted: 1, ..good_calls(34, HOUR.start()) };
    assert_eq!(ledger.sum(HOUR, dead), Counters { last_used: HOUR.start().0, ..expected });
    assert_eq!(ledger.all()[&(HOUR, key(1), dead)].interrupted, 1);
    assert_eq!((report.recovered.len(), report.recovered[0].interrupted, report.recovered[0].complete), (1, 1, true));
    assert!(report.left.is_empty() && report.waiting.is_empty(), "{report:?}");
    assert_eq!(ledger.sent.lock().last().unwrap().watermark, HOUR.end());
    assert!(!files(folder.path()).iter().any(|name| name.starts_with(&dead.to_string())), "{:?}", files(folder.path()));
    assert!(recover(&meter, &ledger).recovered.is_empty());
}

#[test]
fn files_wait_while_the_ledger_is_away() {
    let folder = folder();
    life(folder.path(), 2, |meter| call(meter, key(1), HOUR.start()));
    let (meter, ledger) = (meter(folder.path(), 1), MemoryLedger::default());
    ledger.away.store(true, Ordering::Relaxed);
    let before = files(folder.path());
    assert_eq!(recover(&meter, &ledger).waiting.len(), 1);
    assert_eq!(files(folder.path()), before);
    ledger.away.store(false, Ordering::Relaxed);
    ledger.loses_answers.store(true, Ordering::Relaxed);
    assert_eq!(recover(&meter, &ledger).waiting.len(), 1);
    assert_eq!(files(folder.path()), before);
    ledger.loses_answers.store(false, Ordering::Relaxed);
    assert_eq!(recover(&meter, &ledger).recovered.len(), 1);
    assert_eq!(ledger.sum(HOUR, Incarnation([2; 10])), good_calls(1, HOUR.start()));
}

#[test]
fn recovery_goes_on_from_what_was_flushed() {
    let folder = folder();
    let ledger = Arc::new(MemoryLedger::default());
    life(folder.path(), 2, |meter| {
        let mut flusher = Flusher::new(meter, Arc::clone(&ledger) as _);
        call(meter, key(1), HOUR.start());
        runtime().block_on(flusher.flush_once(HOUR.start())).unwrap();
        call(meter, key(1), HOUR.start());
    });
    recover(&meter(folder.path(), 1), &ledger);
    assert_eq!(ledger.sum(HOUR, Incarnation([2; 10])), good_calls(2, HOUR.start()));
    // In between the ledger is asked how far it came.
    assert_eq!(ledger.sent.lock().iter().map(|flush| flush.sequence).collect::<Vec<_>>(), [1, 0, 2]);
}

#[test]
fn two_incarnations_live_side_by_side_and_neither_buries_the_other() {
    let folder = folder();
    let (one, two) = (meter(folder.path(), 1), meter(folder.path(), 2));
    call(&one, key(1), HOUR.start());
    call(&two, key(1), HOUR.start());
    let (before, ledger) = (files(folder.path()), MemoryLedger::default());
    assert!(recover(&one, &ledger).recovered.is_empty() && recover(&two, &ledger).recovered.is_empty());
    assert_eq!(files(folder.path()), before);
    assert!(Meter::open(options(folder.path(), 1)).is_err(), "an incarnation is one process");
    drop(two);
    assert_eq!(recover(&one, &ledger).recovered.len(), 1);
    assert_eq!(ledger.sum(HOUR, Incarnation([2; 10])), good_calls(1, HOUR.start()));
}

#[test]
fn files_of_another_store_are_left_untouched() {
    let folder = folder();
    let foreign = StoreId([8; 10]);
    let other = Meter::open(MeterOptions { store_id: foreign, ..options(folder.path(), 2) }).unwrap();
    call(&other, key(1), HOUR.start());
    drop(other);
    let (meter, ledger) = (meter(folder.path(), 1), MemoryLedger::default());
    let before: Vec<_> = files(folder.path()).iter().map(|name| fs::read(folder.path().join(name)).unwrap()).collect();
    let report = recover(&meter, &ledger);
    assert_eq!(report.left.len(), 1);
    assert_eq!(report.left[0].why, Why::Foreign(foreign));
    assert!(ledger.all().is_empty() && ledger.marks().is_empty(), "nobody waits for what another store has");
    let after: Vec<_> = files(folder.path()).iter().map(|name| fs::read(folder.path().join(name)).unwrap()).collect();
    assert_eq!(before, after);
}

#[test]
fn every_flipped_byte_of_the_header_the_count_and_a_directory_record_is_noticed() {
    let folder = folder();
    life(folder.path(), 2, |meter| (0..3).for_each(|number| call(meter, key(number), HOUR.start())));
    let path = slab_files(folder.path(), 2)[0].clone();
    let good = fs::read(&path).unwrap();
    let bytes = (0..12 * 8).chain(64 * 8..65 * 8).chain(512 * 8..(512 + 3 * 5) * 8);
    for at in bytes {
        for flip in [0x01, 0x80, 0xff] {
            let mut bad = good.clone();
            bad[at] ^= flip;
            let words = bad.chunks_exact(8).map(|word| AtomicU64::new(u64::from_ne_bytes(word.try_into().unwrap())));
            let mut estate = HourEstate::default();
            let added = estate.add(&path, &words.collect::<Vec<_>>(), STORE);
            assert!(matches!(added, Err(Why::Damaged(_))), "byte {at} ^ {flip}: {added:?}");
            assert!(estate.lines.is_empty() && estate.files.is_empty(), "byte {at}");
        }
    }
}

#[test]
fn a_damaged_file_is_named_kept_and_not_counted_and_its_hour_never_shows_interrupted_calls() {
    let folder = folder();
    life(folder.path(), 2, |meter| {
        meter.attach_thread();
        let elsewhere = meter.open_charge(key(1), HOUR.start(), false).unwrap();
        thread::scope(|scope| scope.spawn(|| elsewhere.commit(Outcome::Ok, tally())).join().unwrap());
        call(meter, key(1), HOUR.end());
    });
    let shared =
        slab_files(folder.path(), 2).into_iter().find(|path| path.to_str().unwrap().contains("-0-0.")).unwrap();
    for damage in ["flipped", "cut short", "gone"] {
        let good = fs::read(&shared).unwrap();
        match damage {
            "flipped" => fs::write(&shared, [&good[..4097], &[good[4097] ^ 1], &good[4098..]].concat()).unwrap(),
            "cut short" => fs::write(&shared, &good[..good.len() - 3]).unwrap(),
            _ => fs::remove_file(&shared).unwrap(),
        }
        let before = slab_files(folder.path(), 2).len();
        let (meter, ledger) = (meter(folder.path(), damage.len() as u8), MemoryLedger::default());
        let mut recovery = Recovery::new(&meter);
        let report = runtime().block_on(recovery.run_once(&ledger, HOUR.start())).unwrap();
        let of_hour = report.recovered.iter().find(|recovered| recovered.hour == HOUR).unwrap();
        assert!(!of_hour.complete);
        let counted = ledger.sum(HOUR, Incarnation([2; 10]));
        assert_eq!((counted.opened, counted.interrupted), (1, 0), "{damage}");
        let kept = slab_files(folder.path(), 2);
        assert!(
            report.left.len()
                == kept.iter().filter(|path| path.to_str().unwrap().contains(&HOUR.0.to_string())).count()
        );
        assert!(kept.len() <= before);
        let again = runtime().block_on(recovery.run_once(&ledger, HOUR.start())).unwrap();
        assert_eq!(
            (again.recovered.len(), &again.left),
            (0, &report.left),
            "{damage}: not counted again, but still named"
        );
        if damage != "gone" {
            fs::write(&shared, good).unwrap();
        }
    }
}

#[test]
fn a_fold_that_was_cut_short_shows_no_call_as_interrupted() {
    let folder = folder();
    let ledger = MemoryLedger::default();
    life(folder.path(), 2, |meter| {
        meter.attach_thread();
        for number in 0..10 {
            let elsewhere = meter.open_charge(key(number), HOUR.start(), false).unwrap();
            thread::scope(|scope| scope.spawn(|| elsewhere.commit(Outcome::Ok, tally())).join().unwrap());
        }
    });
    let paths = slab_files(folder.path(), 2);
    let (shared, own): (Vec<_>, Vec<_>) = paths.into_iter().partition(|path| path.to_str().unwrap().contains("-0-"));
    assert!(shared.len() > 1 && own.len() > 1);
    own.iter().chain(&shared[..1]).for_each(|path| fs::remove_file(path).unwrap());
    recover(&meter(folder.path(), 1), &ledger);
    assert_eq!(ledger.sum(HOUR, Incarnation([2; 10])).interrupted, 0);
}
