//! An OpenTelemetry collector: a real HTTP server that takes spans by OTLP and keeps them.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::{Request, Response};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value};
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use parking_lot::Mutex;
use prost::Message as _;
use tokio::net::TcpListener;
use tokio::task::AbortHandle;

use super::eventually;
use super::serve::serve;

/// A span as it was exported.
#[derive(Debug, Clone)]
pub struct Span {
    /// What its node says of itself.
    pub resource: BTreeMap<String, String>,
    pub trace: String,
    pub id: String,
    /// Empty for none.
    pub parent: String,
    pub name: String,
    pub begun_ns: u64,
    pub ended_ns: u64,
    pub attributes: BTreeMap<String, String>,
    pub failed: bool,
}

impl Span {
    pub fn attribute(&self, name: &str) -> &str {
        self.attributes.get(name).unwrap_or_else(|| panic!("no {name} in {self:?}"))
    }
}

/// A collector; it is gone when dropped.
pub struct Collector {
    address: SocketAddr,
    spans: Arc<Mutex<Vec<Span>>>,
    accepting: AbortHandle,
}

impl Collector {
    pub async fn start() -> Self {
        Collector::at(([127, 0, 0, 1], 0).into()).await
    }

    /// At this address, where it may have been before.
    pub async fn at(address: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let spans = Arc::<Mutex<Vec<Span>>>::default();
        let kept = spans.clone();
        let accepting = serve(listener, move |request| take(kept.clone(), request));
        Collector { address, spans, accepting }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// All spans so far.
    pub fn spans(&self) -> Vec<Span> {
        self.spans.lock().clone()
    }

    /// Those of one trace.
    pub fn of(&self, trace: &str) -> Vec<Span> {
        self.spans().into_iter().filter(|span| span.trace == trace).collect()
    }

    /// Waits until a trace has so many spans, and returns them.
    pub async fn trace(&self, trace: &str, count: usize) -> Vec<Span> {
        let what = format!("{count} spans of {trace}");
        eventually(&what, async || Some(self.of(trace)).filter(|spans| spans.len() >= count)).await
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn take(kept: Arc<Mutex<Vec<Span>>>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let Ok(body) = body.collect().await else { return Ok(Response::default()) };
    assert_eq!((head.method.as_str(), head.uri.path()), ("POST", "/v1/traces"));
    assert_eq!(head.headers["content-type"], "application/x-protobuf");
    let request = ExportTraceServiceRequest::decode(body.to_bytes()).unwrap();
    for of_resource in request.resource_spans {
        let resource = of_resource.resource.map(|resource| texts(resource.attributes)).unwrap_or_default();
        for span in of_resource.scope_spans.into_iter().flat_map(|scope| scope.spans) {
            kept.lock().push(Span {
                resource: resource.clone(),
                trace: hex(&span.trace_id),
                id: hex(&span.span_id),
                parent: hex(&span.parent_span_id),
                name: span.name,
                begun_ns: span.start_time_unix_nano,
                ended_ns: span.end_time_unix_nano,
                attributes: texts(span.attributes),
                failed: span.status.is_some_and(|status| status.code == StatusCode::Error as i32),
            });
        }
    }
    let mut response = Response::new(Full::default());
    response.headers_mut().insert("content-type", "application/x-protobuf".parse().unwrap());
    Ok(response)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn texts(attributes: Vec<KeyValue>) -> BTreeMap<String, String> {
    let text = |value: any_value::Value| match value {
        any_value::Value::StringValue(text) => text,
        any_value::Value::IntValue(number) => number.to_string(),
        any_value::Value::BoolValue(flag) => flag.to_string(),
        other => panic!("{other:?}"),
    };
    let pair = |attribute: KeyValue| Some((attribute.key, text(attribute.value?.value?)));
    attributes.into_iter().filter_map(pair).collect()
}
