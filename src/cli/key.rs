//! `whimbrel key`: a key for a producer, and the entry for the file of keys.

use std::process::ExitCode;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::digest::{SHA256, digest};
use ring::rand::{SecureRandom as _, SystemRandom};
use serde_json::json;

use crate::access::{Patterns, to_hex};

use super::{Failure, print, say};

pub const NOTES: &str = "\
Prints two lines: the key, which its owner brings in 'Authorization: Bearer', and the entry for the array in \
WHIMBREL_API_KEYS_FILE, which has only the key's digest. The key is shown this once.

Example:
  whimbrel key shop --scope publish --stream 'topic:orders:*'";

/// Bytes of randomness in a key.
const BYTES: usize = 32;

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Scope {
    /// Publish events
    Publish,
    /// Listen, and read history and state
    Read,
    /// All of it, and erase, move, disconnect and revoke
    Admin,
}

#[derive(clap::Args)]
pub struct Arguments {
    /// What the key is called, in messages too
    name: String,
    /// What it may do; repeat it for several
    #[arg(long, value_enum, default_value = "publish")]
    scope: Vec<Scope>,
    /// Streams that it is limited to: patterns such as 'topic:orders:*'; all when left out
    #[arg(long, value_name = "PATTERN")]
    stream: Vec<Patterns>,
    /// Most events a second that it may publish, on each node
    #[arg(long, value_name = "EVENTS", value_parser = clap::value_parser!(u32).range(1..))]
    rate: Option<u32>,
}

pub fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let mut random = [0; BYTES];
    SystemRandom::new().fill(&mut random).map_err(|_| Failure::failed("this system gives no random numbers"))?;
    let key = format!("wk_{}", URL_SAFE_NO_PAD.encode(random));
    let scopes: Vec<&str> = arguments
        .scope
        .iter()
        .map(|scope| match scope {
            Scope::Publish => "publish",
            Scope::Read => "read",
            Scope::Admin => "admin",
        })
        .collect();
    let sha256 = to_hex(digest(&SHA256, key.as_bytes()).as_ref());
    let mut entry = json!({"name": arguments.name, "sha256": sha256, "scopes": scopes});
    if !arguments.stream.is_empty() {
        entry["streams"] = arguments.stream.iter().flat_map(Patterns::iter).collect();
    }
    if let Some(rate) = arguments.rate {
        entry["rate"] = rate.into();
    }
    print(&key)?;
    print(&entry)?;
    say("the first line is the key, the second one its entry for WHIMBREL_API_KEYS_FILE");
    Ok(ExitCode::SUCCESS)
}
