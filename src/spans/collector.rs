//! The OpenTelemetry collector, as this side sees it: requests of OTLP over HTTP, with protobuf.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hyper::HeaderMap;
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span as SentSpan, Status};
use percent_encoding::percent_decode_str;
use prost::Message as _;
use reqwest::{Client, Url};
use uuid::Uuid;

use super::span::{Kind, Span, Value};
use crate::client;

/// Where spans are taken on a collector whose address has no path.
const PATH: &str = "/v1/traces";

/// How long the collector may take to answer.
const ANSWER_TIME: Duration = Duration::from_secs(10);

/// The flags of spans: their traces are sampled.
const SAMPLED: u32 = 1;

/// Why nothing can be sent at all.
#[derive(Debug, thiserror::Error)]
#[error("the HTTP client can't be set up: {0}")]
pub struct CollectorError(String);

/// Where spans go, and what this node says of itself.
pub struct Collector {
    http: Client,
    url: Url,
    resource: Resource,
}

impl Collector {
    /// A collector at this address. The variables of OpenTelemetry say what this service is called, and which headers
    /// the collector wants.
    pub fn new(mut url: Url) -> Result<Self, CollectorError> {
        if url.path() == "/" {
            url.set_path(PATH);
        }
        let headers = pairs("OTEL_EXPORTER_OTLP_HEADERS").into_iter().filter_map(|(name, value)| {
            let mut value = HeaderValue::from_str(&value).ok()?;
            value.set_sensitive(true);
            Some((HeaderName::try_from(name).ok()?, value))
        });
        let http = client::builder()
            .default_headers(HeaderMap::from_iter(headers))
            .timeout(ANSWER_TIME)
            .build()
            .map_err(|error| CollectorError(client::cause(&error)))?;
        Ok(Collector { http, url, resource: resource() })
    }

    /// Sends spans once. The error is for people.
    pub async fn send(&self, spans: &[Span]) -> Result<(), String> {
        let body = self.request(spans).encode_to_vec();
        let request = self.http.post(self.url.clone()).header(CONTENT_TYPE, "application/x-protobuf").body(body);
        let answer = request.send().await.map_err(|error| client::cause(&error))?;
        match answer.status() {
            status if status.is_success() => Ok(()),
            status => Err(format!("it answered {status}")),
        }
    }

    fn request(&self, spans: &[Span]) -> ExportTraceServiceRequest {
        let scope = InstrumentationScope {
            name: env!("CARGO_PKG_NAME").into(),
            version: env!("CARGO_PKG_VERSION").into(),
            ..Default::default()
        };
        let spans = spans.iter().map(sent).collect();
        let scope_spans = vec![ScopeSpans { scope: Some(scope), spans, ..Default::default() }];
        let resource = Some(self.resource.clone());
        ExportTraceServiceRequest {
            resource_spans: vec![ResourceSpans { resource, scope_spans, ..Default::default() }],
        }
    }
}

impl fmt::Display for Collector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The rest may be what keeps others out.
        f.write_str(&self.url.origin().ascii_serialization())
    }
}

/// What this node says of itself.
fn resource() -> Resource {
    let mut attributes = BTreeMap::from([
        ("service.name".to_owned(), env!("CARGO_PKG_NAME").to_owned()),
        ("service.version".to_owned(), env!("CARGO_PKG_VERSION").to_owned()),
        ("service.instance.id".to_owned(), Uuid::new_v4().to_string()),
    ]);
    attributes.extend(pairs("OTEL_RESOURCE_ATTRIBUTES"));
    let name = std::env::var("OTEL_SERVICE_NAME").ok().filter(|name| !name.is_empty());
    attributes.extend(name.map(|name| ("service.name".to_owned(), name)));
    let attributes = attributes.into_iter().map(|(name, value)| attribute(name, any_value::Value::StringValue(value)));
    Resource { attributes: attributes.collect(), ..Default::default() }
}

/// The pairs in a variable: NAME=VALUE, separated by commas, with what is percent-encoded decoded.
fn pairs(variable: &str) -> Vec<(String, String)> {
    let text = std::env::var(variable).unwrap_or_default();
    let decoded = |text: &str| percent_decode_str(text.trim()).decode_utf8_lossy().into_owned();
    text.split(',')
        .filter_map(|pair| pair.split_once('='))
        .map(|(name, value)| (decoded(name), decoded(value)))
        .collect()
}

fn attribute(key: String, value: any_value::Value) -> KeyValue {
    KeyValue { key, value: Some(AnyValue { value: Some(value) }), ..Default::default() }
}

fn sent(span: &Span) -> SentSpan {
    let kind = match span.kind {
        Kind::Producer => SpanKind::Producer,
        Kind::Client => SpanKind::Client,
        Kind::Consumer => SpanKind::Consumer,
        Kind::Internal => SpanKind::Internal,
    };
    let said = span.attributes.iter().map(|(name, value)| {
        let value = match value {
            Value::Word(word) => any_value::Value::StringValue((*word).to_owned()),
            Value::Text(text) => any_value::Value::StringValue(text.clone()),
            Value::Count(count) => any_value::Value::IntValue(i64::try_from(*count).unwrap_or(i64::MAX)),
            Value::Flag(flag) => any_value::Value::BoolValue(*flag),
        };
        attribute((*name).to_owned(), value)
    });
    let problem =
        span.error.map(|problem| attribute("error.type".to_owned(), any_value::Value::StringValue(problem.to_owned())));
    SentSpan {
        trace_id: span.trace.to_vec(),
        span_id: span.id.to_vec(),
        parent_span_id: span.parent.map(Vec::from).unwrap_or_default(),
        flags: SAMPLED,
        name: span.name.to_owned(),
        kind: kind.into(),
        start_time_unix_nano: nanoseconds(span.begun),
        end_time_unix_nano: nanoseconds(span.ended),
        attributes: said.chain(problem).collect(),
        status: span.error.map(|_| Status { code: StatusCode::Error.into(), ..Default::default() }),
        ..Default::default()
    }
}

fn nanoseconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}
