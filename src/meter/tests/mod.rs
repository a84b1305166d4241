//! What must hold of the meter as a whole.

mod closing;
mod counting;
mod dead;
mod flushing;
mod hours;
mod kill;
mod leaving;
mod losing;
mod spooling;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use tempfile::TempDir;

use super::record::{Counters, LineKey, Operation, Outcome, Units};
use super::{Meter, MeterOptions, Sizing, Tally, flush::Flusher, memory_ledger::MemoryLedger};
use crate::principal::{AccountId, ClusterId, Incarnation, KeyId, StoreId};
use crate::time::{Hour, WallTime};

const STORE: StoreId = StoreId([9; 10]);
const HOUR: Hour = Hour(492_000);
const SMALL: Sizing = Sizing { first: 4, most: 16 };

/// A folder on the tmpfs where there is one, as in production.
fn folder() -> TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

fn options(folder: &Path, incarnation: u8) -> MeterOptions {
    MeterOptions {
        slab_dir: Some(folder.to_owned()),
        spool_dir: folder.to_owned(),
        store_id: STORE,
        incarnation: Incarnation([incarnation; 10]),
        now: HOUR.start(),
    }
}

fn meter(folder: &Path, incarnation: u8) -> Arc<Meter> {
    Meter::open(options(folder, incarnation)).unwrap()
}

fn small_meter(folder: &Path, incarnation: u8) -> Arc<Meter> {
    Meter::open_sized(options(folder, incarnation), SMALL).unwrap()
}

fn key(number: u16) -> LineKey {
    let mut id = [0; 10];
    id[..2].copy_from_slice(&number.to_le_bytes());
    LineKey {
        account_id: AccountId(id),
        key_id: KeyId(id),
        cluster_id: ClusterId([5; 10]),
        operation: Operation::Query,
    }
}

/// What every call of these tests uses, so that sums tell how many calls were counted.
fn tally() -> Tally {
    let units = Units { read: Some(3), write: Some(5) };
    Tally { request_bytes: 7, response_bytes: 11, units, units_missing: false }
}

fn call(meter: &Meter, key: LineKey, now: WallTime) {
    meter.open_charge(key, now, false).unwrap().commit(Outcome::Ok, tally());
}

/// The counters of `ok` good calls, of which the last was at `last_used`.
fn good_calls(ok: u64, last_used: WallTime) -> Counters {
    Counters {
        opened: ok,
        outcomes: [ok, 0, 0, 0, 0, 0],
        request_bytes: 7 * ok,
        response_bytes: 11 * ok,
        read_units: 3 * ok,
        write_units: 5 * ok,
        last_used: last_used.0,
        ..Counters::default()
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

fn flush(meter: &Meter, now: WallTime) -> Arc<MemoryLedger> {
    let ledger = Arc::new(MemoryLedger::default());
    runtime().block_on(Flusher::new(meter, Arc::clone(&ledger) as _).flush_once(now)).unwrap();
    ledger
}

/// What a ledger that knows nothing yet gets from this meter, by line.
fn counted(meter: &Meter) -> BTreeMap<(Hour, LineKey), Counters> {
    flush(meter, HOUR.start()).all().into_iter().map(|((hour, key, _), counters)| ((hour, key), counters)).collect()
}

/// What is in a slab folder, without the folder of the spool.
fn files(folder: &Path) -> Vec<String> {
    let names = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.filter(|name| name != "spool").collect();
    names.sort();
    names
}
