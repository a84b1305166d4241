//! A place for usage counters that is full, too small, read-only or damaged: calls that cannot be counted are refused, a metric and
//! the log say so, and no count is ever wrong.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::json;
use tollgate::verdict::Denial;

use crate::denials::ask::{Ask, Wire};
use crate::denials::unknowable::fill_lines;
use crate::harness::PATIENCE;
use crate::harness::books::Usage;
use crate::harness::fleet::{Fleet, Setting};
use crate::harness::process::{Node, Process};
use crate::harness::raw;
use crate::harness::stage::{FETCH, Stage};
use crate::world::{DEFAULT_HOST, World};

const NODE: &str = "[gateway]\nlisten = [\"127.0.0.1:0\"]\nthreads = 1\ndefault_cluster = \"default.test\"\n\
                    [control]\nlisten = \"127.0.0.1:0\"\n[meter]\nslab_dir = \"slab\"\nflush = \"50ms\"\n";

/// A node whose slab folder is a tmpfs with these options. Where nobody may mount one, the test says so and has not been run: what a
/// call is told without room for its line, tests/it/denials/unknowable.rs shows everywhere.
fn on_tmpfs(options: &str) -> Option<(Node, Process)> {
    let node = Node::new(NODE);
    fs::create_dir(node.path("slab")).unwrap();
    let process = Process::serve_on_tmpfs(&node.config(), &node.path("slab"), options);
    if process.is_none() {
        println!("not run: no process may have mounts of its own here");
    }
    Some((node, process?))
}

/// Takes all space that is left in a folder.
fn fill(folder: &Path) -> PathBuf {
    let path = folder.join("ballast");
    let mut ballast = File::create(&path).unwrap();
    while ballast.write_all(&[0; 4096]).is_ok() {}
    path
}

#[track_caller]
fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn on_a_full_tmpfs_known_lines_go_on_new_ones_are_refused_and_every_count_is_right() {
    // Without the ballast also for the files of the next hour, which are made before it begins.
    let Some((node, process)) = on_tmpfs("size=4m,mode=0700") else { return };
    let world = World::around(node, process);
    let (account, key) = world.owner(DEFAULT_HOST);
    Ask::with_key(&key.text).over(Wire::Http1, world.gateway).is_good();
    let keys: Vec<String> = (0..60).map(|number| format!("imported-key-{number:02}")).collect();
    let imported: Vec<_> = keys.iter().map(|key| json!({"key": key})).collect();
    world.operator("POST", &format!("/v1/accounts/{}/keys/import", account.id), &json!({"keys": imported}));
    assert_eq!(raw::metric(world.control, "tollgate_meter_no_room"), 0);

    let slab = world.node.path("slab");
    let ballast = fill(&world.process.root().join(slab.strip_prefix("/").unwrap()));
    let served = fill_lines(&world, &keys);
    let full = world.sample.calls();
    assert_eq!(full, served + 1, "what was refused was passed on");
    for wire in Wire::ALL {
        Ask::with_key(&keys[59]).over(wire, world.gateway).is(Denial::CannotMeter);
        Ask::with_key(&key.text).over(Wire::Http1, world.gateway).is_good();
    }
    world.wait_until("the alarm is up", || raw::metric(world.control, "tollgate_meter_no_room") == 1);
    assert!(raw::metric(world.control, "tollgate_denials_total{denial=\"cannot_meter\"}") >= 4);
    world.process.log_line("a call could not be metered and was not passed on");
    world.process.log_line("making slab files ahead fails");

    fs::remove_file(ballast).unwrap();
    world.wait_until("there is room again", || Ask::with_key(&keys[59]).over(Wire::Http1, world.gateway).status == 200);
    world.wait_until("the alarm is down", || raw::metric(world.control, "tollgate_meter_no_room") == 0);
    let passed_on = full + 4;
    assert_eq!(world.sample.calls(), passed_on);
    assert_eq!(world.ledger(passed_on).values().sum::<u64>(), passed_on);
    assert_eq!(Usage::of_records(world.control, "").opened, passed_on);
    assert_eq!(raw::metric(world.control, "tollgate_meter_uncounted"), 0);
}

#[test]
fn a_tmpfs_that_is_too_small_or_read_only_ends_the_start_with_what_to_do() {
    for (options, said) in [
        ("size=64k,mode=0700", "cannot reserve room for usage counters in"),
        ("ro,size=1m,mode=0700", "Read-only file system"),
    ] {
        let Some((_node, process)) = on_tmpfs(options) else { return };
        let line = process.log_line(said);
        assert!(line.contains("meter.slab_dir"), "{line}");
        assert!(!process.ended(PATIENCE).success(), "it serves without a place to count in");
    }
}

#[test]
fn a_damaged_slab_is_named_and_kept_and_takes_nothing_from_what_is_known() {
    let mut stage = Stage::start();
    for _ in 0..20 {
        assert_eq!(stage.http("GET", FETCH, &[], b"").status, 200);
    }
    let before = stage.settled(20);
    let process = stage.process.take().unwrap();
    process.kill();
    let slabs = fs::read_dir(stage.node.path("slab")).unwrap().map(|entry| entry.unwrap().path());
    let slabs: Vec<_> = slabs.filter(|path| path.extension().is_some_and(|extension| extension == "slab")).collect();
    assert!(slabs.len() > 1, "{slabs:?}");
    for slab in &slabs {
        let mut bytes = fs::read(slab).unwrap();
        bytes[9] ^= 1;
        fs::write(slab, bytes).unwrap();
    }
    stage.restart();
    for slab in &slabs {
        let name = slab.file_name().unwrap().to_str().unwrap();
        let line = stage.process().log_line(name);
        assert!(line.contains("a file with usage is left in place") && line.contains("damaged"), "{line}");
        assert!(slab.exists());
    }
    until("the alarm is up", || stage.metric("tollgate_meter_files_left") == slabs.len() as u64);
    // Nothing is guessed: what was flushed stands, and no call is called interrupted.
    assert_eq!(stage.usage(), before);
    assert_eq!(stage.http("GET", FETCH, &[], b"").status, 200);
    assert_eq!(stage.settled(21).of("ok"), 21);
}

#[test]
fn a_spool_that_cannot_be_written_while_the_store_is_away_stops_no_call_and_loses_none() {
    let mut fleet = Fleet::start(&Setting { lease: Duration::from_secs(5), ..Setting::default() });
    let (_, key) = fleet.office.create();
    fleet.await_everywhere(&key, 200, 200, PATIENCE);
    let (gateway, health) = (fleet.gateways()[0], fleet.process(0).listening("health"));
    let spool = fleet.node(0).path("meter/spool");
    let _ = fs::remove_dir_all(&spool);
    fs::create_dir_all(spool.parent().unwrap()).unwrap();
    fs::write(&spool, "not a folder").unwrap();
    fleet.redis.kill();
    let served = || fleet.status(gateway, &key) == 200;
    assert!(served(), "the lease is good");
    until("the alarm is up", || raw::metric(health, "tollgate_meter_spool_fails") == 1);
    fleet.process(0).log_line("usage cannot be written to the spool");
    fleet.redis.start_again();
    fs::remove_file(&spool).unwrap();
    fleet.await_everywhere(&key, 200, 503, PATIENCE);
    let calls = fleet.sample.counts().total.calls;
    let mut usage = Usage::default();
    until("every call is in the ledger", || {
        usage = Usage::of_records(fleet.office.control, "");
        usage.of("ok") >= calls
    });
    assert_eq!((usage.opened, usage.of("ok")), (calls, calls), "{usage:?}");
}
