//! Memory over many minutes: the same load all the time, while keys come and go.

use std::io;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::task::LocalSet;

use crate::churn::{Churn, STAYING};
use crate::gateway::DATA_PLANE;
use crate::keys::Keys;
use crate::measure::used;
use crate::stand::{Stand, megabytes};
use crate::traffic::Traffic;

/// Between two looks at the memory.
const LOOK_EVERY: Duration = Duration::from_secs(10);
const LOOKS_PER_MINUTE: u32 = 6;
/// What the last quarter may have more than the second one: so many bytes, or so large a share of it.
const MORE_BYTES: u64 = 8_000_000;
const MORE_SHARE: f64 = 0.05;

pub fn run(minutes: u32, keys_per_second: u32) -> io::Result<()> {
    // Some more than come in, so that there are always some left.
    let coming = ((minutes + 1) * 60 * keys_per_second) as usize;
    let Keys { good, spare, .. } = Keys::new(coming);
    let keys = [&good[..STAYING], &spare].concat();
    let stand = Rc::new(Stand::start("", keys, STAYING)?);
    LocalSet::new().block_on(&crate::runtime()?, watch(&stand, spare, minutes, keys_per_second))
}

async fn watch(stand: &Rc<Stand>, coming: Vec<String>, minutes: u32, keys_per_second: u32) -> io::Result<()> {
    let pid = stand.gateway.process.pid();
    let (began, used_before) = (Instant::now(), used(pid, DATA_PLANE));
    let churn = Churn::start(stand, coming, keys_per_second);
    let traffic = Traffic::new(stand, &churn.present);
    let mut clients = traffic.start().await.map_err(io::Error::other)?;
    println!("| minute |     RSS, MB | calls so far | keys made | deleted |");
    println!("|-------:|------------:|-------------:|----------:|--------:|");
    let mut looks = Vec::new();
    let mut clock = tokio::time::interval(LOOK_EVERY);
    clock.tick().await;
    for look in 1..=minutes * LOOKS_PER_MINUTE {
        clock.tick().await;
        looks.push(stand.resident());
        if churn.has_ended() {
            break;
        }
        if look % LOOKS_PER_MINUTE == 0 {
            let minute = &looks[looks.len() - LOOKS_PER_MINUTE as usize..];
            let (made, deleted) = (&churn.present.made, &churn.present.deleted);
            println!(
                "| {:>6} | {:>11.1} | {:>12} | {:>9} | {:>7} |",
                look / LOOKS_PER_MINUTE,
                megabytes(median(minute)),
                traffic.tally().good,
                made.load(Ordering::Relaxed),
                deleted.load(Ordering::Relaxed)
            );
        }
    }
    let cpu = used(pid, DATA_PLANE).cpu.saturating_sub(used_before.cpu).as_secs_f64();
    println!("\nthe gateway used {:.1} % of one core", cpu * 100.0 / began.elapsed().as_secs_f64());
    traffic.end();
    while clients.join_next().await.is_some() {}
    churn.stop()?;
    judge(&looks, &traffic)
}

fn judge(looks: &[u64], traffic: &Traffic) -> io::Result<()> {
    let tally = traffic.tally();
    if let Some(failure) = tally.first_failure {
        return Err(io::Error::other(format!("{} calls failed, the first: {failure}", tally.failed)));
    }
    let quarter = looks.len() / 4;
    let (second, last) = (median(&looks[quarter..2 * quarter]), median(&looks[looks.len() - quarter..]));
    let allowed = second + MORE_BYTES.max((second as f64 * MORE_SHARE) as u64);
    println!(
        "median of the second quarter {:.1} MB, of the last {:.1} MB; {:.1} MB are allowed",
        megabytes(second),
        megabytes(last),
        megabytes(allowed)
    );
    if last > allowed { Err(io::Error::other("memory grows under a steady load")) } else { Ok(()) }
}

fn median(values: &[u64]) -> u64 {
    let mut values = values.to_vec();
    values.sort_unstable();
    values[values.len() / 2]
}
