//! How the text of a setting becomes its value. A refusal names the text and what is allowed; the
//! caller puts the setting's name in front.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use crate::directory::RegionRules;
use crate::model::Secret;
use crate::store::RetentionRules;
use crate::store::presence::Overflow;
use crate::store::redis::RedisUrl;
use crate::transport::Endpoint;

/// Ten years. More is a mistake, and sums with the clock could overflow.
const MAX_SECONDS: u64 = 10 * 365 * 86_400;

/// A million a second. What is above it limits nothing.
const MAX_RATE: u32 = 1_000_000;

/// 64 MiB: an event is held whole in memory, and sent whole through Redis, so one may not be a large
/// part of either.
const MAX_EVENT_BYTES: usize = 64 * 1024 * 1024;

/// Reads a secret of at least so many bytes. No refusal repeats it.
pub fn secret(least: usize) -> impl Fn(&str) -> Result<Secret, String> {
    move |text| match text.len() >= least {
        true => Ok(Secret::new(text.to_owned())),
        false => Err(format!("is too short to be a secret: at least {least} characters")),
    }
}

/// Reads a share of a whole.
pub fn share(text: &str) -> Result<f64, String> {
    let share = text.parse().ok().filter(|share| (0.0..=1.0).contains(share));
    share.ok_or_else(|| format!("{} is no share; allowed are numbers from 0 to 1, such as 0.01", quoted(text)))
}

/// An address as others use it: it may be a name that they look up.
pub fn host_and_port(text: &str) -> Result<String, String> {
    let sound = text.rsplit_once(':').is_some_and(|(host, port)| {
        !host.is_empty() && !text.contains([' ', '/', '@']) && port.parse::<u16>().is_ok_and(|port| port > 0)
    });
    sound.then(|| text.to_owned()).ok_or_else(|| format!("{} is not HOST:PORT", quoted(text)))
}

/// All regions with their Redis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegionUrls(Vec<(String, RedisUrl)>);

impl RegionUrls {
    /// The Redis of this region.
    pub fn of(&self, region: &str) -> Option<&RedisUrl> {
        self.0.iter().find(|(name, _)| name == region).map(|(_, url)| url)
    }

    /// All of them, as they were given.
    pub fn iter(&self) -> impl Iterator<Item = &(String, RedisUrl)> {
        self.0.iter()
    }
}

/// Longest name of a region: it is written with every stream.
const MAX_REGION: usize = 32;

/// Most regions.
const MAX_REGIONS: usize = 64;

pub fn region(text: &str) -> Result<String, String> {
    let sound = text.len() <= MAX_REGION
        && text.starts_with(|first: char| first.is_ascii_lowercase())
        && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    sound.then(|| text.to_owned()).ok_or_else(|| {
        format!(
            "{} can't be a region; allowed are 1 to {MAX_REGION} characters out of a-z 0-9 -, a letter first",
            quoted(text)
        )
    })
}

/// Reads `NAME=URL` pairs. No refusal repeats a URL, since it may hold a password.
pub fn regions(text: &str) -> Result<RegionUrls, String> {
    let mut regions: Vec<(String, RedisUrl)> = Vec::new();
    for entry in text.split_whitespace() {
        let (name, url) =
            entry.split_once('=').ok_or("has an entry that is not NAME=URL, such as eu=redis://HOST:6379")?;
        let name = region(name)?;
        let url: RedisUrl = url.parse().map_err(|reason| format!("the URL of region '{name}' {reason}"))?;
        if regions.iter().any(|(known, _)| *known == name) {
            return Err(format!("names the region '{name}' twice"));
        }
        regions.push((name, url));
    }
    match regions.len() {
        1..=MAX_REGIONS => Ok(RegionUrls(regions)),
        count => Err(format!("names {count} regions; allowed are 1 to {MAX_REGIONS}")),
    }
}

pub fn region_rules(text: &str) -> Result<RegionRules, String> {
    text.parse::<RegionRules>().map_err(|e| e.to_string())
}

/// Places to listen at, at least one.
pub fn endpoints(text: &str) -> Result<Vec<Endpoint>, String> {
    let endpoint = |word: &str| word.parse::<Endpoint>().map_err(|error| format!("{} is {error}", quoted(word)));
    match text.split_whitespace().map(endpoint).collect::<Result<Vec<_>, _>>()? {
        none if none.is_empty() => Err("names no place to listen at".into()),
        endpoints => Ok(endpoints),
    }
}

pub fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| format!("{} is not an IP address with a port, such as 127.0.0.1:7946", quoted(text)))
}

/// Texts without spaces, as many as there are.
pub fn words(text: &str) -> Result<Vec<String>, String> {
    Ok(text.split_whitespace().map(str::to_owned).collect())
}

pub fn path(text: &str) -> Result<PathBuf, String> {
    Ok(text.into())
}

/// Braces would move the hash tag that keeps a stream's keys together, and wildcards or spaces make keys
/// that are hard to handle by hand.
pub fn prefix(text: &str) -> Result<String, String> {
    let sound = (1..=64).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte));
    sound.then(|| text.to_owned()).ok_or_else(|| {
        format!("{} can't be a prefix; allowed are 1 to 64 characters out of A-Z a-z 0-9 - _ . :", quoted(text))
    })
}

pub fn retention(text: &str) -> Result<RetentionRules, String> {
    text.parse::<RetentionRules>().map_err(|e| e.to_string())
}

pub fn seconds(least: u64) -> impl Fn(&str) -> Result<u64, String> {
    move |text| {
        whole(text, least, MAX_SECONDS).ok_or_else(|| {
            format!("{} is not a whole number of seconds, at least {least} and at most {MAX_SECONDS}", quoted(text))
        })
    }
}

pub fn bytes(least: usize) -> impl Fn(&str) -> Result<usize, String> {
    move |text| {
        whole(text, least, usize::MAX)
            .ok_or_else(|| format!("{} is not a whole number of bytes, at least {least}", quoted(text)))
    }
}

pub fn event_bytes(text: &str) -> Result<usize, String> {
    whole(text, 1, MAX_EVENT_BYTES)
        .ok_or_else(|| format!("{} is not a whole number of bytes from 1 to {MAX_EVENT_BYTES}", quoted(text)))
}

pub fn count(least: usize, most: usize) -> impl Fn(&str) -> Result<usize, String> {
    move |text| {
        whole(text, least, most).ok_or_else(|| match most {
            usize::MAX => format!("{} is not a whole number, at least {least}", quoted(text)),
            _ => format!("{} is not a whole number from {least} to {most}", quoted(text)),
        })
    }
}

/// How often something may be done in a second.
pub fn rate(text: &str) -> Result<u32, String> {
    whole(text, 1, MAX_RATE).ok_or_else(|| format!("{} is not a whole number from 1 to {MAX_RATE}", quoted(text)))
}

pub fn overflow(text: &str) -> Result<Overflow, String> {
    [Overflow::Newest, Overflow::Oldest]
        .into_iter()
        .find(|overflow| overflow.as_str() == text)
        .ok_or_else(|| format!("{} is neither newest nor oldest", quoted(text)))
}

pub fn switch(text: &str) -> Result<bool, String> {
    match text {
        "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        _ => Err(format!("{} is neither true nor false", quoted(text))),
    }
}

pub fn log_filter(text: &str) -> Result<String, String> {
    // A word alone that is no level would be taken for the only part of a program that may log.
    let level = |word: &str| word.trim().parse::<tracing_subscriber::filter::LevelFilter>().is_ok();
    let sound = text.split(',').all(|part| part.contains('=') || (!part.trim().is_empty() && level(part)));
    match tracing_subscriber::EnvFilter::try_new(text) {
        Ok(_) if sound => Ok(text.to_owned()),
        _ => Err(format!(
            "{} is not a log filter: a level (off, error, warn, info, debug, trace), or levels of parts of the program, \
             such as info,whimbrel=debug",
            quoted(text)
        )),
    }
}

/// For types whose own parser refuses without repeating the text.
pub fn from_str<T: FromStr<Err: fmt::Display>>(text: &str) -> Result<T, String> {
    text.parse().map_err(|error: T::Err| error.to_string())
}

/// A setting that may be left out: the empty text is none.
pub fn optional<T>(parse: impl Fn(&str) -> Result<T, String>) -> impl Fn(&str) -> Result<Option<T>, String> {
    move |text| if text.is_empty() { Ok(None) } else { parse(text).map(Some) }
}

/// A number in plain digits: `parse` alone would take "+5" too.
fn whole<T: std::str::FromStr + PartialOrd>(text: &str, least: T, most: T) -> Option<T> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| text.parse().ok()).flatten().filter(|number| *number >= least && *number <= most)
}

/// What was given, cut short, and on one line whatever it holds.
fn quoted(text: &str) -> String {
    let start: String = text.chars().take(64).collect();
    format!("'{}'", start.escape_debug())
}
