//! Messages that nobody of the fleet has sent: doubled, in another order, or invented.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use redis::{Connection, RedisResult};

use super::LEASE;
use crate::harness::fleet::Fleet;

/// For the length of some leases: what is heard is sent again, twice and the other way round, and beside it deletions of keys that
/// are alive, revisions and epochs that never were, acknowledgements of nothing, and no message at all.
pub fn are_forged(fleet: &mut Fleet, times: usize) {
    let (mut listener, mut sender) = (fleet.redis.client(), fleet.redis.client());
    let field = |sender: &mut Connection, name: &str| -> String {
        redis::cmd("HGET").arg("{tg}:head").arg(name).query(sender).unwrap()
    };
    let (store, epoch) = (field(&mut sender, "store_id"), field(&mut sender, "epoch"));
    let (changes, acks) = (format!("{{tg}}:changes:{store}"), format!("{{tg}}:acks:{store}"));
    listener.set_read_timeout(Some(Duration::from_millis(3))).unwrap();
    let mut heard = listener.as_pubsub();
    heard.subscribe(&changes).unwrap();
    let mut sent = HashSet::new();
    let until = Instant::now() + LEASE * u32::try_from(4 * times).unwrap();
    while Instant::now() < until {
        // What was sent here is heard here too, and is not sent again.
        let mut again: Vec<String> = Vec::new();
        while let Ok(message) = heard.get_message() {
            let text: String = message.get_payload().unwrap_or_default();
            if !text.is_empty() && sent.insert(text.clone()) {
                again.push(text);
            }
        }
        for message in again.iter().rev().chain(&again) {
            publish(&mut sender, &changes, message.as_bytes()).unwrap();
        }
        for message in invented(&mut sender, &epoch) {
            publish(&mut sender, &changes, message.as_bytes()).unwrap();
            sent.insert(message);
        }
        let gateways: Vec<String> = redis::cmd("HKEYS").arg("{tg}:gateways").query(&mut sender).unwrap();
        for gateway in gateways.iter().chain([&epoch]) {
            publish(&mut sender, &acks, gateway.as_bytes()).unwrap();
        }
        publish(&mut sender, &changes, &[0xff, b' ', 0]).unwrap();
    }
}

/// About every key there is.
fn invented(sender: &mut Connection, epoch: &str) -> Vec<String> {
    let revision: u64 = redis::cmd("HGET").arg("{tg}:t:meta").arg("revision").query(sender).unwrap();
    let digests: Vec<Vec<u8>> = redis::cmd("HKEYS").arg("{tg}:ways").query(sender).unwrap();
    let latest = digests.iter().rev().take(30).map(|digest| data_encoding::HEXLOWER.encode(digest));
    let about = |digest: String| {
        [
            format!("{epoch} {revision} {digest}"),
            format!("{epoch} {} {digest}", revision + 1_000_000),
            format!("{epoch} 0 {digest}"),
            format!("{} {revision} {digest}", "0".repeat(epoch.len())),
        ]
    };
    latest.flat_map(about).chain([format!("{epoch} {} -", revision + 5), format!("{epoch} x -")]).collect()
}

fn publish(sender: &mut Connection, channel: &str, message: &[u8]) -> RedisResult<()> {
    redis::cmd("PUBLISH").arg(channel).arg(message).exec(sender)
}
