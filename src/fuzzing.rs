//! Entry points for fuzzing: each takes arbitrary bytes to one parser of outside input, and must not panic.
//!
//! `fuzz/` runs them under libFuzzer. The test below runs the same functions over the corpus and over random
//! changes of it, so that CI on stable covers them too. Nothing here is in a release build.

use bytes::Bytes;
use hyper::Method;

use crate::access::{self, Grant, Need};
use crate::api;
use crate::cloudevents;
use crate::hub::After;
use crate::ingress::entry;
use crate::link::frame::{Ack, Frame};
use crate::model::{Cursor, Event, EventId, StreamName};
use crate::store::IngressEntry;
use crate::store::redis::parse;
use crate::transport::RequestHeads;
use crate::transport::websocket::Codec;

/// Feeds bytes to a parser.
pub type Target = fn(&[u8]);

/// A parser under test, by its name in `fuzz/fuzz_targets/`.
pub const TARGETS: &[(&str, Target)] = &[
    ("request_path", request_path),
    ("query", query),
    ("cursor", cursor),
    ("websocket_frames", websocket_frames),
    ("channel_message", channel_message),
    ("link_frame", link_frame),
    ("ingress_entry", ingress_entry),
    ("claims", claims),
    ("operation", operation),
    ("request_heads", request_heads),
    ("cloud_event", cloud_event),
];

/// The table of routes, with any method and path.
pub fn request_path(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let (method, path) = text.split_once(' ').unwrap_or(("GET", text));
    if let Ok(method) = method.parse::<Method>() {
        let _ = api::route::find(&method, path);
    }
}

/// The query of a listener.
pub fn query(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    if let Ok(parameters) = api::parameters::Parameters::read(text, &["device", "topic", "after", "types"]) {
        let _ = parameters.number("after");
        parameters.all("after").for_each(|after| drop(after.parse::<After>()));
    }
}

/// A cursor. What can be read is written and read again.
pub fn cursor(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    if let Ok(cursor) = text.parse::<Cursor>() {
        let again = cursor.to_string().parse();
        assert_eq!(again.as_ref(), Ok(&cursor), "a cursor reads back as it was written");
    }
}

/// What a WebSocket client sends, in one piece and in two.
pub fn websocket_frames(input: &[u8]) {
    const MAX_MESSAGE: usize = 4096;
    let (first, rest) = input.split_at(input.len() / 2);
    let mut answer = Vec::new();
    let _ = Codec::new(MAX_MESSAGE).read(input, &mut answer);
    let mut codec = Codec::new(MAX_MESSAGE);
    if codec.read(first, &mut answer).is_ok() {
        let _ = codec.read(rest, &mut answer);
    }
}

/// A message on a node's channel.
pub fn channel_message(input: &[u8]) {
    let _ = parse(Bytes::copy_from_slice(input));
}

/// A frame of a link, in either direction.
pub fn link_frame(input: &[u8]) {
    let bytes = Bytes::copy_from_slice(input);
    let _ = (Frame::decode(bytes.clone()), Ack::decode(bytes));
}

/// An entry of the ingress stream: names and values separated by zero bytes.
pub fn ingress_entry(input: &[u8]) {
    let mut words = input.split(|byte| *byte == 0).map(Bytes::copy_from_slice);
    let mut fields = Vec::new();
    while let (Some(name), Some(value)) = (words.next(), words.next()) {
        fields.push((name, value));
    }
    let _ = entry::read(&IngressEntry { id: EventId::new(5, 1), bytes: input.len() as u64, fields });
}

/// The claims of a token, or a backend's answer. Nothing that passes names the service's own topics by a star, and a
/// node understands the grant that another one passes on.
pub fn claims(input: &[u8]) {
    for grant in access::read_grants(input) {
        let named = grant.subscribe.iter().any(|pattern| pattern.starts_with("topic:whimbrel:"));
        assert!(named || !grant.covers(Need::Subscribe(&StreamName::lifecycle())), "a star reaches too far");
        let passed_on: Grant = serde_json::to_vec(&grant)
            .and_then(|grant| serde_json::from_slice(&grant))
            .expect("a grant reads back as it was written");
        assert_eq!((passed_on.info, passed_on.device), (grant.info, grant.device));
    }
}

/// A text message of a WebSocket client.
pub fn operation(input: &[u8]) {
    if let Ok(text) = std::str::from_utf8(input) {
        api::operations::read_any(text);
    }
}

/// Requests as they come in, in one piece and byte by byte: the same is found.
pub fn request_heads(input: &[u8]) {
    let (mut whole, mut pieces) = (RequestHeads::default(), RequestHeads::default());
    whole.read(input);
    input.chunks(1).for_each(|byte| pieces.read(byte));
    assert_eq!(whole, pieces);
}

/// A CloudEvent in JSON. What can be read is written and read again.
pub fn cloud_event(input: &[u8]) {
    let body = Bytes::copy_from_slice(input);
    let Ok(read) = cloudevents::structured(&body, &body) else { return };
    let mut event = Event::new(EventId::new(5, 1), EventId::ZERO, read.kind.clone(), read.data.clone());
    event.attributes = Some(read.attributes.clone());
    let written = Bytes::from(cloudevents::event(&StreamName::lifecycle(), &event));
    let again = cloudevents::structured(&written, &written).expect("a CloudEvent reads back as it was written");
    assert_eq!((again.key, again.kind, again.data), (read.key, read.kind, read.data));
    assert_eq!(again.attributes, read.attributes);
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use rand::rngs::SmallRng;
    use rand::{RngExt as _, SeedableRng as _};

    use super::*;

    const CHANGED: usize = 2_000;

    /// Flips, cuts, doubles and inserts a few bytes.
    fn change(seed: &[u8], random: &mut SmallRng) -> Vec<u8> {
        let mut bytes = seed.to_vec();
        for _ in 0..random.random_range(1..5) {
            let at = random.random_range(0..bytes.len() + 1);
            match random.random_range(0..4) {
                0 if at < bytes.len() => bytes[at] = random.random(),
                1 => bytes.truncate(at),
                2 => bytes.extend_from_within(at..),
                _ => bytes.insert(at, random.random()),
            }
        }
        bytes
    }

    #[test]
    fn no_input_near_the_corpus_makes_a_parser_panic() {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
        for (name, target) in TARGETS {
            let seeds: Vec<Vec<u8>> =
                fs::read_dir(corpus.join(name)).unwrap().map(|file| fs::read(file.unwrap().path()).unwrap()).collect();
            assert!(!seeds.is_empty(), "{name} has a corpus");
            seeds.iter().for_each(|seed| target(seed));
            let mut random = SmallRng::seed_from_u64(7);
            for round in 0..CHANGED {
                target(&change(&seeds[round % seeds.len()], &mut random));
            }
        }
    }

    #[test]
    fn each_target_is_run_by_the_fuzzer_too() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/fuzz_targets");
        for (name, _) in TARGETS {
            let code = fs::read_to_string(folder.join(format!("{name}.rs"))).unwrap();
            assert!(code.contains(&format!("whimbrel::fuzzing::{name}")), "{name}");
        }
        assert_eq!(fs::read_dir(folder).unwrap().count(), TARGETS.len());
    }
}
