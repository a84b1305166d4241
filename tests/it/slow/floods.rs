//! Floods of HTTP/2 frames: the connection ends or is slowed down, memory stays, and others are served meanwhile.

use std::io::{ErrorKind, Read, Write};
use std::time::{Duration, Instant};

use super::{LATE, await_cuts, call_on, is_served};
use crate::harness::stage::{COLLECTION, GRPC_FETCH, Stage};
use crate::harness::wire::{self, Wire};

/// How far a flood goes where nobody stops it.
const FRAMES: usize = 400_000;
/// Memory a flood may cost, in KiB.
const ROOM: u64 = 24 * 1024;

/// What became of a flood.
#[derive(Debug)]
struct Flooded {
    /// Frames that the kernel took.
    sent: usize,
    /// The gateway ended the connection.
    ended: bool,
    took: Duration,
}

/// Sends pieces, made one after the other, until the gateway has had enough; a thread of its own reads what comes back.
fn flood(client: Wire, per_piece: usize, mut piece: impl FnMut(usize) -> Vec<u8>) -> Flooded {
    let began = Instant::now();
    let mut reader = client.stream.try_clone().unwrap();
    reader.set_read_timeout(Some(LATE)).unwrap();
    let reading = std::thread::spawn(move || {
        let mut buffer = [0; 64 * 1024];
        loop {
            match reader.read(&mut buffer) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(error) => return error.kind() != ErrorKind::WouldBlock,
            }
        }
    });
    let mut sent = 0;
    let mut writer = &client.stream;
    while sent < FRAMES && writer.write_all(&piece(sent)).is_ok() {
        sent += per_piece;
    }
    let ended = reading.join().unwrap();
    Flooded { sent, ended, took: began.elapsed() }
}

/// Runs a flood, and checks that it cost little and hurt nobody.
fn run(name: &str, stage: &Stage, attack: impl FnOnce() -> Flooded) -> Flooded {
    let (memory, cpu) = (stage.watch_memory(), stage.cpu());
    let flooded = attack();
    let (grown, cpu) = (stage.grown(memory), stage.cpu() - cpu);
    println!("{name}: {flooded:?}, {grown} KiB and {cpu:?} of CPU in the gateway");
    assert!(grown < ROOM, "{name}: {grown} KiB");
    assert!(cpu < Duration::from_secs(2) && flooded.took < LATE * 5, "{name}: {flooded:?}, {cpu:?} of CPU");
    assert!(is_served(stage.gateway, stage));
    flooded
}

fn repeat(frame: Vec<u8>, times: usize) -> Vec<u8> {
    frame.repeat(times)
}

#[test]
fn streams_that_are_reset_at_once_end_their_connection() {
    let stage = Stage::start();
    let more = [("dashvector-auth-token", stage.key.as_str()), ("collection-name", COLLECTION)];
    let block = wire::block(&wire::grpc_fields("stage.test", GRPC_FETCH, &more));
    let flooded = run("rapid reset", &stage, || {
        flood(Wire::greet(stage.gateway), 1, |turn| {
            let stream = 1 + 2 * u32::try_from(turn).unwrap();
            let begin = wire::frame(wire::HEADERS, wire::END_HEADERS, stream, &block);
            [begin, wire::frame(wire::RST_STREAM, 0, stream, &8_u32.to_be_bytes())].concat()
        })
    });
    assert!(flooded.ended, "{flooded:?}");
    let usage = stage.usage();
    println!("rapid reset: {:?} in the ledger, {} at the service", usage.calls, stage.sample.counts().total.calls);
}

#[test]
fn a_header_that_never_ends_ends_its_connection() {
    let stage = Stage::start();
    for (name, payload) in [("CONTINUATION", vec![0, 1, b'a', 1, b'b']), ("empty CONTINUATION", vec![])] {
        let flooded = run(name, &stage, || {
            let mut client = Wire::greet(stage.gateway);
            client.send(&wire::frame(wire::HEADERS, 0, 1, &wire::block(&[(":method", "GET")])));
            flood(client, 100, |_| repeat(wire::frame(wire::CONTINUATION, 0, 1, &payload), 100))
        });
        assert!(flooded.ended, "{name}: {flooded:?}");
    }
}

#[test]
fn frames_that_carry_no_call_end_their_connection_beyond_a_rate() {
    let stage = Stage::start();
    let kinds = [
        ("PING", wire::frame(wire::PING, 0, 0, &[1; 8])),
        ("SETTINGS", wire::frame(wire::SETTINGS, 0, 0, &[])),
        ("PRIORITY", wire::frame(2, 0, 1, &[0, 0, 0, 0, 1])),
        ("an unknown kind", wire::frame(0xbe, 0, 0, &[])),
    ];
    for (name, frame) in kinds {
        let flooded = run(name, &stage, || flood(Wire::greet(stage.gateway), 100, |_| repeat(frame.clone(), 100)));
        assert!(flooded.ended, "{name}: {flooded:?}");
    }
    await_cuts(&stage, "flood", 4);
}

#[test]
fn data_without_content_ends_its_connection() {
    let stage = Stage::start();
    let more = [("dashvector-auth-token", stage.key.as_str()), ("collection-name", COLLECTION)];
    let block = wire::block(&wire::grpc_fields("stage.test", GRPC_FETCH, &more));
    for (name, data) in [("empty DATA", vec![]), ("DATA of one byte", vec![0])] {
        let flooded = run(name, &stage, || {
            let mut client = Wire::greet(stage.gateway);
            client.send(&wire::frame(wire::HEADERS, wire::END_HEADERS, 1, &block));
            flood(client, 100, |_| repeat(wire::frame(wire::DATA, 0, 1, &data), 100))
        });
        assert!(flooded.ended, "{name}: {flooded:?}");
    }
}

#[test]
fn a_client_that_pings_and_never_reads_costs_no_memory() {
    let stage = Stage::start();
    let memory = stage.watch_memory();
    let client = Wire::greet(stage.gateway);
    client.stream.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
    let pings = repeat(wire::frame(wire::PING, 0, 0, &[1; 8]), 1000);
    let written = (0..FRAMES / 1000).take_while(|_| (&client.stream).write_all(&pings).is_ok()).count();
    let grown = stage.grown(memory);
    println!("{written} thousand PINGs without reading: {grown} KiB");
    assert!(grown < ROOM, "{grown} KiB");
    call_on(&mut Wire::greet(stage.gateway), &stage, 1);
}
