//! The page on which a newcomer sees it work, and the descriptions of the API. All are part of the
//! program.

use hyper::{StatusCode, header};
use warp::reply::Response;

use super::reply;

/// Only what comes from here, and no inline code.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
                      connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// A file that the program brings along.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum File {
    Html,
    Script,
    Style,
    OpenApi,
    AsyncApi,
}

impl File {
    /// The file at this path segment.
    pub fn named(segment: &str) -> Option<Self> {
        match segment {
            "" => Some(File::Html),
            "page.js" => Some(File::Script),
            "page.css" => Some(File::Style),
            "openapi.json" => Some(File::OpenApi),
            "asyncapi.json" => Some(File::AsyncApi),
            _ => None,
        }
    }
}

/// A file of the page.
pub fn file(file: File) -> Response {
    let (kind, text) = match file {
        File::Html => ("text/html; charset=utf-8", include_str!("page/index.html")),
        File::Script => ("text/javascript; charset=utf-8", include_str!("page/page.js")),
        File::Style => ("text/css; charset=utf-8", include_str!("page/page.css")),
        File::OpenApi => ("application/json", include_str!("openapi.json")),
        File::AsyncApi => ("application/json", include_str!("asyncapi.json")),
    };
    let headers = [
        (header::CONTENT_TYPE, kind),
        (header::CACHE_CONTROL, "no-cache"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
    ];
    reply(StatusCode::OK, &headers, text)
}
