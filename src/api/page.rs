//! The page on which a newcomer sees it work, the descriptions of the API, and the JavaScript client, for pages
//! that are made without a build. All are part of the program.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use hyper::header::{self, HeaderName};
use hyper::{HeaderMap, StatusCode};
use warp::reply::Response;

use super::reply;

/// Only what comes from here, and no inline code.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
                      connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The modules of `clients/js`, as its build leaves them here.
const MODULES: [(&str, &str); 7] = [
    ("client.js", include_str!("page/client/client.js")),
    ("client-credentials.js", include_str!("page/client/client-credentials.js")),
    ("client-eventsource.js", include_str!("page/client/client-eventsource.js")),
    ("client-post.js", include_str!("page/client/client-post.js")),
    ("client-requests.js", include_str!("page/client/client-requests.js")),
    ("client-tabs.js", include_str!("page/client/client-tabs.js")),
    ("client-websocket.js", include_str!("page/client/client-websocket.js")),
];

/// A file that the program brings along.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum File {
    Html,
    Script,
    Style,
    OpenApi,
    AsyncApi,
    /// One of the client's, by its number.
    Module(usize),
}

impl File {
    /// Whether it is the page itself; the others describe the API.
    pub fn is_console(self) -> bool {
        matches!(self, File::Html | File::Script | File::Style)
    }

    /// The file at this path segment.
    pub fn named(segment: &str) -> Option<Self> {
        match segment {
            "" => Some(File::Html),
            "page.js" => Some(File::Script),
            "page.css" => Some(File::Style),
            "openapi.json" => Some(File::OpenApi),
            "asyncapi.json" => Some(File::AsyncApi),
            _ => MODULES.iter().position(|(name, _)| *name == segment).map(File::Module),
        }
    }
}

/// The file, or the word that the browser has it already.
pub fn file(file: File, request: &HeaderMap) -> Response {
    let (kind, text) = match file {
        File::Html => ("text/html; charset=utf-8", include_str!("page/index.html")),
        File::Script => ("text/javascript; charset=utf-8", include_str!("page/page.js")),
        File::Style => ("text/css; charset=utf-8", include_str!("page/page.css")),
        File::OpenApi => ("application/json", include_str!("openapi.json")),
        File::AsyncApi => ("application/json", include_str!("asyncapi.json")),
        File::Module(number) => ("text/javascript; charset=utf-8", MODULES[number].1),
    };
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
