//! SIGKILL at any moment of a process that counts on several threads.

use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::sync_channel;
use std::thread;

use super::*;
use crate::clock;
use crate::meter::recover::Recovery;

const FOLDER: &str = "TOLLGATE_TEST_METER_FOLDER";
const KILLS: u8 = 25;
/// Calls that a thread of the child ends before it says so.
const BURST: usize = 64;
/// Charges between the thread that opens them and the one that ends them.
const ON_THE_WAY: usize = 8;
/// What the child may have ended without having said so: a burst of each of its first two threads, and one call of its third.
const UNSAID: u64 = 2 * BURST as u64 + 1;

/// Not a test of its own: what the killed process runs.
#[test]
fn child_that_counts_until_it_is_killed() {
    let Ok(folder) = std::env::var(FOLDER) else { return };
    let options = MeterOptions { incarnation: Incarnation([2; 10]), now: clock::wall(), ..options(folder.as_ref(), 2) };
    let meter = Meter::open(options).unwrap();
    let (sender, receiver) = sync_channel(ON_THE_WAY);
    thread::scope(|scope| {
        let meter = &meter;
        scope.spawn(move || {
            meter.attach_thread();
            loop {
                (0..BURST).for_each(|at| end(open(meter, at), at));
                say(BURST);
            }
        });
        scope.spawn(move || {
            meter.attach_thread();
            loop {
                (0..BURST).for_each(|at| end(open(meter, at), at));
                say(BURST);
                sender.send(open(meter, 0)).unwrap();
            }
        });
        scope.spawn(move || {
            for charge in receiver {
                end(charge, 0);
                say(1);
            }
        });
    });
}

fn open(meter: &Meter, at: usize) -> crate::meter::Charge {
    meter.open_charge(key((at % 3) as u16), clock::wall(), at.is_multiple_of(2)).unwrap()
}

fn end(charge: crate::meter::Charge, at: usize) {
    let refused = at.is_multiple_of(5);
    let outcome = if refused { Outcome::Refused } else { Outcome::Ok };
    charge.commit(outcome, Tally { units_missing: refused, ..tally() });
}

/// One byte for each ended call.
fn say(calls: usize) {
    std::io::stderr().write_all(&[b'.'; BURST][..calls]).unwrap();
}

#[test]
fn whatever_moment_a_process_is_killed_at_every_ended_call_is_counted_once_and_whole() {
    for _ in 0..KILLS {
        let folder = folder();
        let ended = killed_child(folder.path());
        let (meter, ledger) = (meter(folder.path(), 1), MemoryLedger::default());
        let report = runtime().block_on(Recovery::new(&meter).run_once(&ledger, HOUR.start())).unwrap();
        assert!(report.left.is_empty() && report.waiting.is_empty(), "{report:?}");
        let lines = ledger.all();
        for line in lines.values() {
            assert_whole(line);
        }
        let sum = lines.values().fold(Counters::default(), |sum, line| sum.plus(line));
        let counted = sum.committed();
        assert!(ended <= counted && counted <= ended + UNSAID, "{ended} said, {counted} counted");
        // At most one call of each opening thread, and those on their way to the third or in its hands.
        assert!(sum.interrupted <= 2 + ON_THE_WAY as u64 + 1, "{sum:?}");
        assert_eq!(sum.interrupted, sum.opened - counted);
    }
}

fn assert_whole(line: &Counters) {
    let calls = line.committed();
    let used = (line.request_bytes, line.response_bytes, line.read_units, line.write_units, line.units_missing);
    assert_eq!(
        used,
        (7 * calls, 11 * calls, 3 * calls, 5 * calls, line.outcomes[Outcome::Refused as usize]),
        "{line:?}"
    );
    assert!(line.opened >= calls, "{line:?}");
}

/// Lets a child count until it has said some random number of calls, and kills it. Returns how many it said.
fn killed_child(folder: &Path) -> u64 {
    let mut random = [0; 2];
    getrandom::fill(&mut random).unwrap();
    let enough = 1 + u64::from(u16::from_le_bytes(random)) % 30_000;
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["meter::tests::kill::child_that_counts_until_it_is_killed", "--exact", "--nocapture"])
        .env(FOLDER, folder)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let said = read_until_killed(&mut child, enough);
    child.wait().unwrap();
    said
}

fn read_until_killed(child: &mut Child, enough: u64) -> u64 {
    let mut pipe = child.stderr.take().unwrap();
    let (mut said, mut buffer) = (0, [0; 4096]);
    loop {
        let length = pipe.read(&mut buffer).unwrap();
        if length == 0 {
            return said;
        }
        let text = &buffer[..length];
        assert!(text.iter().all(|byte| *byte == b'.'), "{}", String::from_utf8_lossy(text));
        said += length as u64;
        if said >= enough {
            child.kill().unwrap();
        }
    }
}
