//! What an event and a client's message cost inside the process, without sockets and without Redis:
//! `cargo bench`. For changes to the hot path; what a deployment reaches, `whimbrel bench` tells.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use whimbrel::dispatch::{Delivery, Flush, Offer, Path, Registry, RegistrySettings, Sink, Slot};
use whimbrel::metrics::Metrics;
use whimbrel::model::{Cursor, Encoding, Event, EventId, EventType, NodeId, StreamName};
use whimbrel::store::RetentionRules;
use whimbrel::store::memory::MemoryStore;
use whimbrel::transport::{sse, websocket};

const SINKS: u64 = 10_000;

fn stream() -> StreamName {
    "topic:news".parse().expect("a name")
}

fn event(id: EventId, prev: EventId) -> Arc<Event> {
    let data = format!("{{\"fill\":\"{}\"}}", "x".repeat(117));
    Arc::new(Event::new(id, prev, EventType::default(), data.into()))
}

fn encode(criterion: &mut Criterion) {
    let (stream, event) = (stream(), event(EventId::new(1_763_795_000_000, 2731), EventId::ZERO));
    let mut group = criterion.benchmark_group("encode an event of 128 bytes");
    for (name, encoding) in [("sse", Encoding::Sse), ("sse envelope", Encoding::SseEnvelope)] {
        group.bench_function(name, |bencher| bencher.iter(|| sse::event(black_box(&stream), &event, None, encoding)));
    }
    group.bench_function("websocket", |bencher| {
        bencher.iter(|| websocket::event(black_box(&stream), &event, None, Encoding::WebSocket))
    });
    group.finish();
}

/// A connection that takes everything and writes nothing.
struct Taker(u64);

#[async_trait]
impl Sink for Taker {
    fn number(&self) -> u64 {
        self.0
    }

    fn wants(&self, _: Slot) -> bool {
        true
    }

    fn offer(&self, _: Slot, _: &StreamName, delivery: &Delivery) -> Offer {
        black_box(delivery);
        Offer::Taken { flush: true }
    }

    fn flush(&self) {}

    async fn room(&self) {}

    async fn left(&self, _: Slot) {
        std::future::pending().await
    }
}

fn dispatch(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let _entered = runtime.enter();
    let rules: RetentionRules = "*=1000/86400".parse().expect("rules");
    let store = Arc::new(MemoryStore::new(rules, Duration::from_secs(3600), 1 << 20));
    let settings =
        RegistrySettings { sync: Duration::from_secs(3600), lease: Duration::from_secs(15), ring_bytes: 1 << 20 };
    let registry = Registry::new(store, NodeId::random(), settings, Metrics::new());
    let stream = stream();
    let mut head = EventId::ZERO;
    for number in 0..SINKS {
        let attached = runtime.block_on(registry.attach(&stream)).expect("an attached stream");
        head = attached.head();
        attached.follow(Arc::new(Taker(number)), 0, head);
    }
    let mut group = criterion.benchmark_group("dispatch");
    group.throughput(Throughput::Elements(SINKS));
    group.bench_function("one event to 10,000 connections", |bencher| {
        bencher.iter(|| {
            let next = EventId::new(head.ms + 1, 0);
            let mut flush = Flush::default();
            registry.message(&stream, event(next, head), Path::Channel, &mut flush);
            flush.run(|_| {});
            head = next;
        });
    });
    group.finish();
}

fn parse(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("parse");
    group.bench_function("an event id", |bencher| {
        bencher.iter(|| black_box("1763795000000-2731").parse::<EventId>());
    });
    group.bench_function("a stream's name", |bencher| {
        bencher.iter(|| black_box("device:bench-0123456789abcdef-4711").parse::<StreamName>());
    });
    let id = EventId::new(1_763_795_000_000, 2731);
    let names: Vec<StreamName> = (0..8).map(|n| format!("topic:n{n}").parse().expect("a name")).collect();
    let cursor = Cursor::several(names.iter().map(|name| (name, id))).to_string();
    group.bench_function("a cursor of eight streams", |bencher| {
        bencher.iter(|| black_box(&cursor).parse::<Cursor>());
    });
    let frame = masked(br#"{"op":"publish","stream":"topic:news","data":{"a":1},"ref":1}"#);
    let mut codec = websocket::Codec::new(1 << 16);
    let mut answer = Vec::new();
    group.bench_function("a WebSocket message", |bencher| {
        bencher.iter(|| codec.read(black_box(&frame), &mut answer));
    });
    group.finish();
}

/// A client's text frame.
fn masked(payload: &[u8]) -> Bytes {
    let mask = [1, 2, 3, 4];
    let mut frame = vec![0x81, 0x80 | payload.len() as u8];
    frame.extend(mask);
    frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame.into()
}

criterion_group!(hot_path, encode, dispatch, parse);
criterion_main!(hot_path);
