//! How fast answers are read for their usage, in bytes per second.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use tollgate::gateway::usage::{Form, UsageReader};

/// What hyper hands over at a time.
const CHUNK: usize = 16 * 1024;
const SIZES: [(&str, usize); 3] = [("1KB", 1 << 10), ("100KB", 100 << 10), ("10MB", 10 << 20)];

/// A query answer of about `bytes` bytes, whose documents have vectors of 128 floats or short fields only.
fn json(bytes: usize, vectors: bool) -> Vec<u8> {
    let mut text =
        String::from(r#"{"code":0,"request_id":"19215409-ea66-4db9-8764-26ce2eb5bb99","message":"","output":["#);
    let mut id = 0_u32;
    while text.len() + 40 < bytes {
        let comma = if id == 0 { "" } else { "," };
        let vector = if vectors { vector(id) } else { String::new() };
        text.push_str(&format!(
            r#"{comma}{{"id":"{id}",{vector}"fields":{{"name":"zhangsan \"{id}\"","age":{},"weight":70.5}},"score":0.{id}}}"#,
            id % 90
        ));
        id += 1;
    }
    text.push_str(r#"],"usage":{"read_units":1}}"#);
    text.into_bytes()
}

fn vector(id: u32) -> String {
    let floats: Vec<_> =
        (0..128_u32).map(|at| format!("{:.8}", f64::from(at * 7919 + id) / 1_048_576.0 - 0.5)).collect();
    format!(r#""vector":[{}],"#, floats.join(","))
}

/// The same in gRPC's form: fields 1, many of 4, 5.
fn grpc(bytes: usize, vectors: bool) -> Vec<u8> {
    let doc = vec![0x2a_u8; if vectors { 128 * 4 + 20 } else { 40 }];
    let mut message = vec![0x0a, 1, b'r'];
    while message.len() < bytes {
        message.push(0x22);
        message.extend([(doc.len() & 0x7f) as u8 | 0x80, (doc.len() >> 7) as u8]);
        message.extend(&doc);
    }
    message.extend([0x2a, 2, 0x10, 1]);
    let mut body = vec![0];
    body.extend((message.len() as u32).to_be_bytes());
    body.extend(message);
    body
}

fn read(mut reader: UsageReader, body: &[u8]) {
    for chunk in body.chunks(CHUNK) {
        reader.feed(black_box(chunk));
    }
    let reading = reader.finish();
    assert!(reading.form == Form::Whole && reading.units.read == Some(1));
}

fn answers(criterion: &mut Criterion) {
    let fields = tollgate::gateway::fields::Fields::default();
    let mut group = criterion.benchmark_group("usage");
    for (size, bytes) in SIZES {
        for (kind, vectors) in [("vectors", true), ("fields", false)] {
            let body = json(bytes, vectors);
            group.throughput(Throughput::Bytes(body.len() as u64));
            group.bench_with_input(BenchmarkId::new(format!("json_{kind}"), size), &body, |bencher, body| {
                bencher.iter(|| read(UsageReader::for_http(&fields), body));
            });
            let body = grpc(bytes, vectors);
            group.throughput(Throughput::Bytes(body.len() as u64));
            group.bench_with_input(BenchmarkId::new(format!("grpc_{kind}"), size), &body, |bencher, body| {
                bencher.iter(|| read(UsageReader::for_grpc(u64::MAX), body));
            });
        }
    }
    group.finish();
}

criterion_group!(benches, answers);
criterion_main!(benches);
