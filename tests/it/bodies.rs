//! Bodies of every shape: they come through whole, in pieces as they come, and are counted to the byte and the unit.

mod answers;
mod forms;
mod leaving;

use std::time::Duration;

use prost::Message;
use serde_json::Value;
use tollgate::demo::call::Request;
use tollgate::demo::proto::request::{CreateCollection, FetchDocs, WriteDocs};
use tollgate::demo::proto::{DocOp, response};

use crate::harness::raw::Raw;
use crate::harness::scripted::Scripted;
use crate::harness::stage::{COLLECTION, FETCH, FETCH_UNITS, GRPC_FETCH, Setting, Stage, doc, fetch_message, metadata};

const MIB: u64 = 1024;

#[test]
fn a_batch_of_ten_megabytes_is_inserted_and_counted_to_the_byte() {
    let stage = Stage::start();
    let wide = CreateCollection { name: "wide".to_owned(), dimension: 1000, ..CreateCollection::default() };
    stage.sample.execute("wide", Request::CreateCollection(wide)).unwrap();
    let vector = vec!["0.12345678"; 1000].join(",");
    let docs: Vec<String> = (0..940).map(|id| format!("{{\"id\":\"{id}\",\"vector\":[{vector}]}}")).collect();
    let body = format!("{{\"docs\":[{}]}}", docs.join(","));
    assert!(body.len() > 10_300_000, "{}", body.len());
    let answer =
        stage.http("POST", "/v1/collections/wide/docs", &[("content-type", "application/json")], body.as_bytes());
    assert_eq!((answer.status, &answer.json()["code"]), (200, &Value::from(0)));
    let usage = stage.settled(1);
    assert_eq!((usage.of("ok"), usage.write_units, usage.units_missing), (1, 940, 0));
    assert_eq!((usage.request_bytes, usage.response_bytes), (body.len() as u64, answer.body.len() as u64));
}

#[test]
fn an_answer_of_64_mib_leaves_memory_flat_on_both_protocols() {
    const FILLER: u64 = 64 * 1024 * 1024;
    let stage = Stage::start();
    let filler = [("x-sample-bytes", "67108864")];
    let grpc = |stage: &Stage, more: &[(&str, &str)]| {
        let metadata = [&metadata(&stage.key)[..], more].concat();
        stage.block_on(async { stage.h2().await.grpc_unary(GRPC_FETCH, &metadata, &fetch_message()).await })
    };
    assert_eq!(grpc(&stage, &[]).status(), 0);
    assert_eq!(stage.http("GET", FETCH, &[], b"").status, 200);
    let before = stage.watch_memory();
    let large = grpc(&stage, &filler);
    assert_eq!((large.status(), large.messages.len()), (0, 1));
    let over_http = stage.http("GET", FETCH, &filler, b"");
    assert_eq!(over_http.status, 200);
    let grown = stage.grown(before);
    println!("the gateway's memory peaked {grown} KiB higher during two answers of 64 MiB");
    assert!(grown < 12 * MIB, "{grown} KiB");
    let usage = stage.settled(4);
    assert_eq!((usage.of("ok"), usage.read_units), (4, 4 * FETCH_UNITS));
    let bytes = large.messages[0].len() as u64 + 5 + over_http.body.len() as u64;
    assert!(bytes > 2 * FILLER && usage.response_bytes > bytes && usage.response_bytes < bytes + 4096, "{usage:?}");
}

#[test]
fn an_upload_without_length_streams_through_both_ways_piece_by_piece() {
    let stage = Stage::start();
    let mut connection = Raw::connect(stage.gateway);
    connection.send(&stage.request("POST", "/echo/body", &[("transfer-encoding", "chunked")], b"5\r\nfirst\r\n"));
    // The echo comes back before the upload has ended.
    let seen = |text: &[u8]| text.windows(5).any(|window| window == b"first");
    let mut came = Vec::new();
    while !seen(&came) {
        came.extend(connection.some(Duration::from_secs(10)).unwrap());
    }
    let head = String::from_utf8_lossy(&came).to_ascii_lowercase();
    assert!(head.starts_with("http/1.1 200") && head.contains("transfer-encoding: chunked"), "{head}");
    assert!(!head.contains("content-length"), "{head}");
    connection.send(b"4\r\nlast\r\n0\r\n\r\n");
    while !came.ends_with(b"0\r\n\r\n") {
        came.extend(connection.some(Duration::from_secs(10)).unwrap());
    }
    assert!(came.windows(4).any(|window| window == b"last"));
    let upstream = last_request(&stage);
    assert_eq!((&upstream["transfer_encoding"], &upstream["content_length"]), (&"chunked".into(), &Value::Null));
    let usage = stage.settled(1);
    assert_eq!((usage.of("ok"), usage.request_bytes, usage.response_bytes), (1, 9, 9));
    assert_eq!(usage.units_missing, 0, "an unknown path has no units that could be missing");
}

#[test]
fn a_length_in_is_a_length_out_both_ways() {
    let stage = Stage::start();
    let answer = stage.http("POST", "/echo", &[], b"twelve bytes");
    assert_eq!(answer.header("content-length"), Some(answer.body.len().to_string().as_str()));
    assert_eq!(answer.header("transfer-encoding"), None);
    let upstream = last_request(&stage);
    assert_eq!((&upstream["content_length"], &upstream["transfer_encoding"]), (&"12".into(), &Value::Null));
    let pieces = stage.http("POST", "/echo", &[("x-sample-chunk", "7")], b"");
    assert_eq!((pieces.header("content-length"), pieces.header("transfer-encoding")), (None, Some("chunked")));
    let upstream = last_request(&stage);
    assert_eq!(upstream["content_length"], "0", "an empty body that says so stays one that says so");
    stage.http("GET", "/echo", &[], b"");
    let upstream = last_request(&stage);
    assert_eq!((&upstream["content_length"], &upstream["transfer_encoding"]), (&Value::Null, &Value::Null));
}

#[test]
fn a_delete_with_a_body_an_empty_answer_and_head_are_counted_right() {
    let stage = Stage::start();
    let docs = WriteDocs { docs: vec![doc("gone")], ..WriteDocs::default() };
    stage.sample.execute(COLLECTION, Request::Write(DocOp::Insert, docs)).unwrap();
    let deleted = stage.http("DELETE", "/v1/collections/things/docs", &[], b"{\"ids\":[\"gone\"]}");
    assert_eq!(deleted.json()["code"], 0);
    assert_eq!((&last_request(&stage)["method"], &last_request(&stage)["body_bytes"]), (&"DELETE".into(), &16.into()));

    // On one connection, so that an answer that is longer than it says would be seen.
    let mut connection = Raw::connect(stage.gateway);
    for status in ["204", "304"] {
        connection.send(&stage.request("GET", "/v1/collections", &[("x-sample-status", status)], b""));
        let answer = connection.answer();
        assert_eq!((answer.status.to_string().as_str(), answer.body.len()), (status, 0));
        assert_eq!(answer.header("transfer-encoding"), None);
    }
    connection.send(&stage.request("HEAD", "/echo", &[], b""));
    let head = connection.answer_without_body();
    assert_eq!(head.status, 200);
    assert!(head.header("content-length").is_some(), "{}", head.head);
    connection.send(&stage.request("GET", FETCH, &[], b""));
    assert_eq!(connection.answer().status, 200);

    let usage = stage.settled(5);
    // 304 is not a success; the empty answers belong to operations without units.
    assert_eq!((usage.of("ok"), usage.of("refused"), usage.units_missing), (4, 1, 0), "{usage:?}");
    assert_eq!((usage.write_units, usage.read_units), (1, FETCH_UNITS));
    assert_eq!(usage.operations["delete"], 1);
}

#[test]
fn answers_without_usage_are_counted_as_missing_units() {
    let stage = Stage::start();
    assert_eq!(stage.http("GET", FETCH, &[("x-sample-no-usage", "1")], b"").status, 200);
    let more = [&metadata(&stage.key)[..], &[("x-sample-no-usage", "1")]].concat();
    let answer = stage.block_on(async { stage.h2().await.grpc_unary(GRPC_FETCH, &more, &fetch_message()).await });
    assert_eq!(answer.status(), 0);
    assert_eq!(stage.http("GET", "/v1/collections", &[], b"").status, 200);
    let usage = stage.settled(3);
    assert_eq!((usage.of("ok"), usage.units_missing, usage.read_units), (3, 2, 0));
}

#[test]
fn a_document_called_usage_is_not_the_usage() {
    let upstream = Scripted::keeping(|request| {
        let body = match request {
            _ if request.contains("/last") => {
                r#"{"code":0,"output":{"usage":{"read_units":900}},"usage":{"read_units":3}}"#
            }
            _ if request.contains("/first") => {
                r#"{"usage":{"read_units":4},"code":0,"output":[{"usage":{"read_units":900}}]}"#
            }
            _ if request.contains("/only") => r#"{"code":0,"output":{"usage":{"read_units":900}}}"#,
            _ => {
                r#"{"code":0,"message":"\"usage\":{\"read_units\":900}","output":{"a":"}","\"usage":{"write_units":900}}, "usage" : { "read_units" : "5" } }"#
            }
        };
        format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len()).into_bytes()
    });
    let stage = Stage::with(Setting { upstream: Some(upstream.at), ..Setting::default() });
    for collection in ["last", "first", "only", "text"] {
        assert_eq!(stage.http("GET", &format!("/v1/collections/{collection}/docs?ids=usage"), &[], b"").status, 200);
    }
    let usage = stage.settled(4);
    assert_eq!((usage.of("ok"), usage.read_units, usage.write_units), (4, 3 + 4 + 5, 0));
    assert_eq!(usage.units_missing, 1);
}

#[test]
fn units_are_read_however_an_answer_is_cut() {
    let stage = Stage::start();
    let sizes = ["1", "2", "3", "5", "7", "16", "64", "1000"];
    let mut http = Raw::connect(stage.gateway);
    stage.block_on(async {
        let mut grpc = stage.h2().await;
        for size in sizes {
            let chunk = [("x-sample-chunk", size), ("x-sample-units", "11")];
            http.send(&stage.request("GET", FETCH, &chunk, b""));
            assert_eq!(http.answer().json()["usage"]["read_units"], 11);
            let more = [&metadata(&stage.key)[..], &chunk[..]].concat();
            let answer = grpc.grpc_unary(GRPC_FETCH, &more, &fetch_message()).await;
            assert_eq!(answer.status(), 0);
        }
    });
    let usage = stage.settled(2 * sizes.len() as u64);
    assert_eq!((usage.of("ok"), usage.read_units), (16, 16 * 11));
}

#[test]
fn a_code_in_a_good_answer_is_a_refusal_on_both_protocols() {
    let stage = Stage::start();
    let code = [("x-sample-code", "-2021")];
    let answer = stage.http("GET", FETCH, &code, b"");
    assert_eq!((answer.status, &answer.json()["code"]), (200, &Value::from(-2021)));
    assert_eq!(stage.http("GET", FETCH, &[("x-sample-status", "500")], b"").status, 500);
    stage.block_on(async {
        let mut h2 = stage.h2().await;
        let more = [&metadata(&stage.key)[..], &code].concat();
        let answer = h2.grpc_unary(GRPC_FETCH, &more, &fetch_message()).await;
        assert_eq!(answer.status(), 0);
        assert_eq!(response::Bare::decode(&answer.messages[0][..]).unwrap().code, -2021);
        let more = [&metadata(&stage.key)[..], &[("x-sample-status", "5")]].concat();
        assert_eq!(h2.grpc_unary(GRPC_FETCH, &more, &FetchDocs::default().encode_to_vec()).await.status(), 5);
    });
    let usage = stage.settled(4);
    assert_eq!((usage.of("refused"), usage.read_units, usage.units_missing), (4, 0, 0));
}

/// What the sample service saw last.
fn last_request(stage: &Stage) -> Value {
    let answer = crate::harness::raw::call(stage.upstream, "GET", "/sample/counts", &[], b"");
    answer.json()["last"].clone()
}
