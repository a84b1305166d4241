//! Ten thousand connections over HTTP/1.1, each with a key of its own, and idle after a good call.

use std::io;
use std::rc::Rc;
use std::time::Duration;

use tokio::task::{JoinSet, LocalSet};

use crate::client::{Failure, Http};
use crate::keys::{KEYS, Keys};
use crate::stand::{Stand, megabytes};

const CONNECTIONS: usize = 10_000;
/// More resident memory than that, in bytes, they may not take together.
const ALLOWED: u64 = 150_000_000;
/// How many of the calls are made at once.
const AT_ONCE: usize = 50;
/// Before memory is looked at. The allocator gives back what is free some time later.
const SETTLE: Duration = Duration::from_secs(10);

/// All of them come from one address, and none is closed before it was measured.
const SETTINGS: &str = "[gateway.limits]\nconnections = 12000\nconnections_per_address = 12000\nidle = \"10m\"\n";

pub fn run() -> io::Result<()> {
    let stand = Rc::new(Stand::start(SETTINGS, Keys::new(0).good, KEYS)?);
    LocalSet::new().block_on(&crate::runtime()?, measure(&stand))
}

async fn measure(stand: &Rc<Stand>) -> io::Result<()> {
    println!("| {:<44} | connections | RSS, MB |\n|{:-<46}|------------:|--------:|", "", "");
    look(stand, "with its keys", 0).await?;
    // So that what the keys and the calls need is not counted as the connections'.
    call_each(stand, connections(stand, AT_ONCE), KEYS / AT_ONCE).await?;
    let before = look(stand, "each key used once, connections closed", 0).await?;
    let idle = call_each(stand, connections(stand, CONNECTIONS), 1).await?;
    let with = look(stand, "each connection idle after one call", CONNECTIONS).await?;
    let idle = call_each(stand, idle, 1).await?;
    let again = look(stand, "idle after another call on each", CONNECTIONS).await?;
    drop(idle);
    look(stand, "all closed", 0).await?;
    let more = with.max(again).saturating_sub(before);
    println!(
        "\n{CONNECTIONS} idle connections take {:.1} MB, {} bytes each; {:.0} MB are allowed",
        megabytes(more),
        more / CONNECTIONS as u64,
        megabytes(ALLOWED)
    );
    if more > ALLOWED { Err(io::Error::other("idle connections take too much memory")) } else { Ok(()) }
}

/// Resident memory once things have settled, with so many connections open.
async fn look(stand: &Stand, what: &str, connections: usize) -> io::Result<u64> {
    tokio::time::sleep(SETTLE).await;
    let (open, resident) = (stand.open_connections()?, stand.resident());
    println!("| {what:<44} | {open:>11} | {:>7.1} |", megabytes(resident));
    if open != connections {
        return Err(io::Error::other(format!("{connections} connections should be open")));
    }
    Ok(resident)
}

fn connections(stand: &Stand, count: usize) -> Vec<Http> {
    (0..count).map(|_| Http::new(stand.gateway.at, false, None)).collect()
}

/// So many good calls on each. A connection that is not open yet is opened by its first one.
async fn call_each(stand: &Rc<Stand>, mut clients: Vec<Http>, calls: usize) -> io::Result<Vec<Http>> {
    let (mut tasks, share) = (JoinSet::new(), clients.len() / AT_ONCE);
    let mut first = 0;
    while !clients.is_empty() {
        let (stand, mine) = (Rc::clone(stand), clients.split_off(clients.len().saturating_sub(share)));
        let numbers = first..first + mine.len() * calls;
        first = numbers.end;
        tasks.spawn_local(async move {
            let mut mine = mine;
            for number in numbers {
                let client = number % mine.len();
                call(&stand, &mut mine[client], number).await?;
            }
            Ok::<_, Failure>(mine)
        });
    }
    while let Some(done) = tasks.join_next().await {
        clients.extend(done.map_err(io::Error::other)?.map_err(io::Error::other)?);
    }
    Ok(clients)
}

async fn call(stand: &Stand, client: &mut Http, number: usize) -> Result<(), Failure> {
    let (request, expected) = stand.http.nth(number);
    let answer = client.call(request).await?;
    if expected.is_met_by(answer) { Ok(()) } else { Err(format!("{answer:?} where {expected:?} was expected").into()) }
}
