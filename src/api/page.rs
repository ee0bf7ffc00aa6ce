//! The console, the descriptions of the API, and the JavaScript client, for pages that are made without a build.
//! All are part of the program.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use hyper::header::{self, HeaderName};
use hyper::{HeaderMap, StatusCode};
use warp::reply::Response;

use super::reply;

/// Only what comes from here, and no inline code.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
                      connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Files by name, with what is in them.
macro_rules! files {
    ($folder:literal: $($name:literal)*) => {
        &[$(($name, include_str!(concat!($folder, "/", $name)))),*]
    };
}

/// The modules of `clients/js`, as its build leaves them here.
const CLIENT: &[(&str, &str)] = files!("page/client":
    "client.js" "client-credentials.js" "client-eventsource.js" "client-post.js" "client-requests.js" "client-tabs.js"
    "client-websocket.js");

/// What the console is made of, apart from its page. `app.js` is where it begins.
const CONSOLE: &[(&str, &str)] = files!("page/console":
    "app.js" "base.css" "cards.css" "chart.css" "chart.js" "demo-commands.js" "demo-link.js" "demo-log.js"
    "demo-outage.js" "demo-publisher.js" "demo-source.js" "demo.css" "demo.js" "device.js" "dom.js" "event.js"
    "events.js" "find.js" "format.js" "history-card.js" "ids.js" "ingress.js" "key.js" "latency-card.js" "leases.js"
    "lifecycle.js" "links.js" "metrics.js" "overview.js" "publish-card.js" "revocations.js" "route.js"
    "scope.js" "service.js" "shell.css" "table.js" "topic.js");

/// A file that the program brings along.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum File {
    Html,
    OpenApi,
    AsyncApi,
    /// One of the client's, by its number.
    Client(usize),
    /// One of the console's, by its number.
    Console(usize),
}

impl File {
    /// Whether it belongs to the console; the others describe the API, or are the client.
    pub fn is_console(self) -> bool {
        matches!(self, File::Html | File::Console(_))
    }

    /// The file at this path.
    pub fn at(segments: &[&str]) -> Option<Self> {
        let number = |files: &[(&str, &str)], name| files.iter().position(|(known, _)| *known == name);
        match *segments {
            [""] => Some(File::Html),
            ["openapi.json"] => Some(File::OpenApi),
            ["asyncapi.json"] => Some(File::AsyncApi),
            ["console", name] => number(CONSOLE, name).map(File::Console),
            [name] => number(CLIENT, name).map(File::Client),
            _ => None,
        }
    }

    /// Its media type and what is in it.
    fn content(self) -> (&'static str, &'static str) {
        match self {
            File::Html => (HTML, include_str!("page/console/index.html")),
            File::OpenApi => (JSON, include_str!("openapi.json")),
            File::AsyncApi => (JSON, include_str!("asyncapi.json")),
            File::Client(number) => (SCRIPT, CLIENT[number].1),
            File::Console(number) => match CONSOLE[number] {
                (name, text) if name.ends_with(".css") => (STYLE, text),
                (_, text) => (SCRIPT, text),
            },
        }
    }
}

const HTML: &str = "text/html; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";
const JSON: &str = "application/json";

/// The file, or the word that the browser has it already.
pub fn file(file: File, request: &HeaderMap) -> Response {
    let (kind, text) = file.content();
    let tag = tag(text);
    let headers = [
        (header::CONTENT_TYPE, kind),
        // Modules of two versions must not meet: a browser asks whether its copy is current.
        (header::CACHE_CONTROL, "no-cache"),
        (header::ETAG, &tag),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    ];
    let known = request.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    if known.flat_map(|value| value.split(',')).any(|value| value.trim().trim_start_matches("W/") == tag) {
        return reply(StatusCode::NOT_MODIFIED, &headers[1..], "");
    }
    reply(StatusCode::OK, &headers, text)
}

/// The same on every node of a version.
fn tag(text: &str) -> String {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    format!("\"{:016x}\"", hasher.finish())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;

    use super::*;

    fn names(files: &[(&str, &str)]) -> BTreeSet<String> {
        files.iter().map(|(name, _)| (*name).to_owned()).collect()
    }

    fn folder(name: &str) -> BTreeSet<String> {
        let entries = fs::read_dir(format!("{}/src/api/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn every_file_of_console_and_client_is_served_and_described() {
        assert_eq!(names(CLIENT), folder("page/client"));
        let mut console = folder("page/console");
        assert!(console.remove("index.html"));
        assert_eq!(names(CONSOLE), console);
        let document: serde_json::Value = serde_json::from_str(include_str!("openapi.json")).unwrap();
        let described = document["paths"]["/console/{file}"]["parameters"][0]["schema"]["enum"].as_array().unwrap();
        let described: BTreeSet<String> = described.iter().map(|name| name.as_str().unwrap().to_owned()).collect();
        assert_eq!(described, console);
    }

    #[test]
    fn the_console_loads_nothing_from_elsewhere() {
        let page = include_str!("page/console/index.html");
        for (name, text) in CONSOLE.iter().chain(&[("index.html", page)]) {
            for line in text.lines().filter(|line| line.contains("://")) {
                let known = ["http://www.w3.org/2000/svg", "http://127.0.0.1:8080/"];
                assert!(known.iter().any(|known| line.contains(known)), "{name}: {line}");
            }
        }
        assert!(!page.contains("style="), "the policy allows no inline style");
    }
}
