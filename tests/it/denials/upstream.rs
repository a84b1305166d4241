//! Upstreams that are not there, break or take too long, and a gateway that is about to end.

use std::thread;
use std::time::{Duration, Instant};

use tollgate::verdict::Denial;

use super::ask::{Ask, GET_VERSION, Said, Wire, block_on};
use crate::harness::h2::H2;
use crate::harness::process::Signal;
use crate::harness::raw::{self, Raw};
use crate::harness::{PATIENCE, process};
use crate::world::{Calls, DEFAULT_HOST, World, closed_port};

fn calls(outcome: &str, count: u64) -> Calls {
    [(("get_version".to_owned(), outcome.to_owned()), count)].into()
}

#[test]
fn an_upstream_that_is_not_there_is_said_and_counted_as_its_error() {
    let world = World::start("", "");
    let (account, key) = world.owner(DEFAULT_HOST);
    world.cluster(&account, "gone.test", closed_port(), &[]);
    for wire in Wire::ALL {
        Ask::with_key(&key.text).to("gone.test").over(wire, world.gateway).is(Denial::Upstream);
    }
    assert_eq!(world.ledger(3), calls("upstream_error", 3));
    assert_eq!(world.sample.calls(), 0);
}

#[test]
fn an_upstream_that_breaks_before_it_answers_is_said_and_counted_as_its_error() {
    let world = World::start("", "");
    let (_, key) = world.owner(DEFAULT_HOST);
    for wire in Wire::ALL {
        Ask::with_key(&key.text).and("x-sample-reset", "head").over(wire, world.gateway).is(Denial::Upstream);
    }
    assert_eq!(world.ledger(3), calls("upstream_error", 3));
    // Not one of them was sent twice.
    assert_eq!(world.sample.calls(), 3);
    Ask::with_key(&key.text).over(Wire::Grpc, world.gateway).is_good();
}

#[test]
fn a_grpc_call_ends_at_its_own_deadline() {
    let world = World::start("", "");
    let (_, key) = world.owner(DEFAULT_HOST);
    let began = Instant::now();
    let ask = Ask::with_key(&key.text).and("x-sample-delay-ms", "10000").and("grpc-timeout", "200m");
    ask.over(Wire::Grpc, world.gateway).is(Denial::Deadline);
    assert!(began.elapsed() >= Duration::from_millis(200) && began.elapsed() < Duration::from_secs(8));
    assert_eq!(world.ledger(1), calls("timeout", 1));
}

#[test]
fn a_call_ends_at_the_configured_deadlines() {
    for limit in ["upstream_first_byte", "total"] {
        let world = World::start("", &format!("[gateway.limits]\n{limit} = \"200ms\"\nupstream_connect = \"100ms\"\n"));
        let (_, key) = world.owner(DEFAULT_HOST);
        for wire in Wire::ALL {
            let began = Instant::now();
            let ask = Ask::with_key(&key.text).and("x-sample-delay-ms", "10000");
            ask.over(wire, world.gateway).is(Denial::Deadline);
            assert!(began.elapsed() >= Duration::from_millis(200) && began.elapsed() < Duration::from_secs(8));
        }
        assert_eq!(world.ledger(3), calls("timeout", 3), "{limit}");
    }
}

#[test]
fn a_stop_ends_idle_connections_takes_no_new_ones_and_loses_no_call() {
    let world = World::start("", "");
    let (_, key) = world.owner(DEFAULT_HOST);
    let mut idle = Raw::connect(world.gateway);
    let good = [("dashvector-auth-token", key.text.as_str())];
    idle.send(&raw::request(world.gateway, "GET", "/service_version", &good, b""));
    assert_eq!(idle.answer().status, 200);
    let gateway = world.gateway;
    thread::scope(|scope| {
        let slow = |wire| {
            let ask = Ask::with_key(&key.text).and("x-sample-delay-ms", "1000");
            scope.spawn(move || ask.over(wire, gateway).is_good())
        };
        let slow = Wire::ALL.map(slow);
        world.wait_until("the slow calls have come through", || world.sample.calls() == 4);
        world.process.signal(Signal::TERM);
        assert!(idle.closes(PATIENCE), "an idle connection stays open");
        world.wait_until("no new connection is taken", || std::net::TcpStream::connect(gateway).is_err());
        slow.into_iter().for_each(|slow| slow.join().unwrap());
    });
    let World { process, node, sample, .. } = world;
    assert_eq!(process.ended(PATIENCE).code(), Some(0));
    assert_eq!(sample.calls(), 4);

    // What was in flight at the signal is in the ledger that the next start finds.
    let again = process::Process::serve(&node.config());
    let control = again.listening("control");
    let token = process::OPERATOR_TOKEN;
    let records = raw::api(control, "GET", "/v1/usage/records", token, &serde_json::Value::Null);
    assert!(records.text().contains("\"ok\":\"4\""), "{}", records.text());
}

#[test]
fn a_stream_that_begins_while_the_gateway_stops_is_refused_for_another_gateway_to_serve() {
    let world = World::start("", "");
    let (_, key) = world.owner(DEFAULT_HOST);
    block_on(async {
        let mut connection = H2::connect(world.gateway).await;
        let metadata = [("dashvector-auth-token", key.text.as_str())];
        Said::of_grpc(connection.grpc_unary(GET_VERSION, &metadata, b"").await).is_good();
        world.process.signal(Signal::TERM);
        // Served or refused as never processed, but nothing in between.
        for _ in 0..10_000 {
            let request = http::Request::get(format!("http://{}/service_version", world.gateway));
            let request = request.header("dashvector-auth-token", &key.text).body(bytes::Bytes::new()).unwrap();
            match connection.try_call(request).await {
                Ok(answer) => assert_eq!(answer.status, 200, "{answer:?}"),
                Err(error) => {
                    return assert!(error.is_closed() || error.is_canceled() || is_goaway(&error), "{error:?}");
                }
            }
        }
        panic!("the gateway goes on for ever");
    });
}

fn is_goaway(error: &hyper::Error) -> bool {
    let source = std::error::Error::source(error).and_then(|source| source.downcast_ref::<h2::Error>());
    source
        .is_some_and(|error| error.is_go_away() || error.is_io() || error.reason() == Some(h2::Reason::REFUSED_STREAM))
}
