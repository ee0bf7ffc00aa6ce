//! Which request means what: the one table of paths and methods.

use hyper::Method;
use percent_encoding::percent_decode_str;
use uuid::Uuid;

use super::Problem;
use super::page::File;
use crate::access::Need;
use crate::model::{EventId, StreamKind, StreamName};

/// What a request asks for.
#[derive(Debug, PartialEq, Eq)]
pub enum Route {
    /// `POST …/events`
    Publish(StreamName),
    /// `POST /v1/events`
    PublishBatch,
    /// `POST …/cloudevents`
    CloudEvents(StreamName),
    /// `POST /v1/cloudevents`: each names its stream.
    RoutedCloudEvents,
    /// `GET …/events`: history, or a live stream where the client accepts one.
    Stream(StreamName),
    /// `GET …/events/{id}`
    Event(StreamName, EventId),
    /// `GET /v1/devices/{device}`
    Device(StreamName),
    /// `POST /v1/devices/{device}/ack`
    Acknowledge(StreamName),
    /// `DELETE /v1/devices/{device}`, `DELETE /v1/topics/{topic}`
    Erase(StreamName),
    /// `GET …/log`
    Export(StreamName),
    /// `POST …/log`
    Import(StreamName),
    /// `DELETE /v1/devices/{device}/connections`
    Kick(StreamName),
    /// `GET /v1/topics/{topic}`
    Topic(StreamName),
    /// `GET /v1/topics/{topic}/connections`
    Followers(StreamName),
    /// `GET /v1/topics/{topic}/members`
    Members(StreamName),
    /// `GET /v1/nodes`
    Nodes,
    /// `PUT …/region`
    Move(StreamName),
    /// `PUT …/lease`
    Lease(StreamName),
    /// `DELETE …/lease`
    EndLease(StreamName),
    /// `GET /v1/sse`
    Sse,
    /// `POST /v1/sse`
    SseByBody,
    /// `GET /v1/cursor`
    Cursor,
    /// `GET /v1/ws`
    WebSocket,
    /// `GET /v1/regions`
    Regions,
    /// `GET /v1/leases`
    Leases,
    /// `GET /v1/ingress/rejected`
    Rejected,
    /// `GET /v1/links`
    Links,
    /// `GET /v1/whoami`
    Whoami,
    /// `POST /v1/connections/{connection}/renew`
    Renew(Uuid),
    /// `POST /v1/revocations`
    Revoke,
    /// `GET /v1/revocations`
    Revocations,
    /// `GET /v1/revocations/{id}`
    Revocation(Uuid),
    /// `DELETE /v1/revocations/{id}`
    Lift(Uuid),
    /// `GET /health/live`
    Live,
    /// `GET /health/ready`
    Ready,
    /// `GET /metrics`
    Metrics,
    /// `GET /` and what the page needs, `GET /openapi.json`, `GET /asyncapi.json`, and the client's modules.
    Page(File),
    /// `OPTIONS` of a path, with what it allows.
    Options(&'static str),
}

impl Route {
    /// The right that a caller needs. Where only the rest of the request names the streams, this is
    /// the least that is needed, and each stream is checked when it is read.
    pub fn need(&self) -> Need<'_> {
        match self {
            Route::Live | Route::Ready | Route::Page(_) | Route::Options(_) => Need::Nothing,
            Route::PublishBatch | Route::RoutedCloudEvents | Route::Whoami | Route::Renew(_) => Need::Caller,
            Route::Sse | Route::SseByBody | Route::WebSocket | Route::Cursor => Need::Listen,
            Route::Stream(stream) | Route::Event(stream, _) | Route::Members(stream) => Need::Subscribe(stream),
            Route::Publish(stream) | Route::CloudEvents(stream) => Need::Publish(stream),
            Route::Lease(stream) | Route::EndLease(stream) => Need::Publish(stream),
            Route::Acknowledge(stream) => Need::Acknowledge(stream),
            Route::Device(stream) | Route::Topic(stream) | Route::Followers(stream) => Need::Inspect(Some(stream)),
            Route::Nodes | Route::Regions => Need::Inspect(None),
            Route::Erase(stream) | Route::Kick(stream) | Route::Move(stream) => Need::Manage(Some(stream)),
            Route::Export(stream) | Route::Import(stream) => Need::Manage(Some(stream)),
            Route::Metrics | Route::Leases | Route::Rejected | Route::Links => Need::Manage(None),
            Route::Revoke | Route::Revocations | Route::Revocation(_) | Route::Lift(_) => Need::Manage(None),
        }
    }

    /// Whether operators need it: it has to work when all else is at its bounds.
    pub fn is_for_operators(&self) -> bool {
        match self {
            Route::Live | Route::Ready | Route::Metrics | Route::Nodes | Route::Regions => true,
            Route::Leases | Route::Rejected | Route::Links => true,
            Route::Kick(_) | Route::Erase(_) | Route::Move(_) => true,
            Route::Revoke | Route::Revocations | Route::Revocation(_) | Route::Lift(_) => true,
            Route::Publish(_) | Route::PublishBatch | Route::Stream(_) | Route::Event(..) | Route::Sse => false,
            Route::Device(_) | Route::Topic(_) | Route::Followers(_) | Route::Acknowledge(_) => false,
            Route::Lease(_) | Route::EndLease(_) | Route::WebSocket | Route::Page(_) | Route::Options(_) => false,
            Route::SseByBody | Route::Cursor | Route::Members(_) | Route::Whoami | Route::Renew(_) => false,
            Route::Export(_) | Route::Import(_) | Route::CloudEvents(_) | Route::RoutedCloudEvents => false,
        }
    }

    /// Whether only operators do it.
    pub fn is_admin(&self) -> bool {
        matches!(self.need(), Need::Manage(_))
    }
}

/// A path that exists: what it means by method.
enum Known {
    Events(StreamName),
    Event(StreamName, EventId),
    Batch,
    CloudEvents(StreamName),
    RoutedCloudEvents,
    Device(StreamName),
    Topic(StreamName),
    Acknowledge(StreamName),
    Connections(StreamName),
    Region(StreamName),
    Lease(StreamName),
    Log(StreamName),
    Sse,
    Renew(Uuid),
    Revocations,
    Revocation(Uuid),
    Get(Route),
}

/// Finds what a request asks for.
pub fn find(method: &Method, path: &str) -> Result<Route, Problem> {
    let known = known(path)?;
    let allow = match known {
        Known::Events(_) | Known::Sse | Known::Revocations | Known::Log(_) => "GET, HEAD, POST, OPTIONS",
        Known::Batch | Known::Acknowledge(_) | Known::Renew(_) => "POST, OPTIONS",
        Known::CloudEvents(_) | Known::RoutedCloudEvents => "POST, OPTIONS",
        Known::Device(_) | Known::Topic(_) | Known::Revocation(_) => "GET, HEAD, DELETE, OPTIONS",
        Known::Connections(_) => "DELETE, OPTIONS",
        Known::Region(_) => "PUT, OPTIONS",
        Known::Lease(_) => "PUT, DELETE, OPTIONS",
        Known::Event(..) | Known::Get(_) => "GET, HEAD, OPTIONS",
    };
    let reading = method == Method::GET || method == Method::HEAD;
    match known {
        _ if method == Method::OPTIONS => Ok(Route::Options(allow)),
        Known::Events(stream) if reading => Ok(Route::Stream(stream)),
        Known::Events(stream) if method == Method::POST => Ok(Route::Publish(stream)),
        Known::Batch if method == Method::POST => Ok(Route::PublishBatch),
        Known::CloudEvents(stream) if method == Method::POST => Ok(Route::CloudEvents(stream)),
        Known::RoutedCloudEvents if method == Method::POST => Ok(Route::RoutedCloudEvents),
        Known::Connections(device) if method == Method::DELETE => Ok(Route::Kick(device)),
        Known::Event(stream, id) if reading => Ok(Route::Event(stream, id)),
        Known::Device(stream) if reading => Ok(Route::Device(stream)),
        Known::Topic(stream) if reading => Ok(Route::Topic(stream)),
        Known::Device(stream) | Known::Topic(stream) if method == Method::DELETE => Ok(Route::Erase(stream)),
        Known::Acknowledge(stream) if method == Method::POST => Ok(Route::Acknowledge(stream)),
        Known::Log(stream) if reading => Ok(Route::Export(stream)),
        Known::Log(stream) if method == Method::POST => Ok(Route::Import(stream)),
        Known::Region(stream) if method == Method::PUT => Ok(Route::Move(stream)),
        Known::Lease(stream) if method == Method::PUT => Ok(Route::Lease(stream)),
        Known::Lease(stream) if method == Method::DELETE => Ok(Route::EndLease(stream)),
        Known::Sse if reading => Ok(Route::Sse),
        Known::Sse if method == Method::POST => Ok(Route::SseByBody),
        Known::Renew(connection) if method == Method::POST => Ok(Route::Renew(connection)),
        Known::Revocations if reading => Ok(Route::Revocations),
        Known::Revocations if method == Method::POST => Ok(Route::Revoke),
        Known::Revocation(id) if reading => Ok(Route::Revocation(id)),
        Known::Revocation(id) if method == Method::DELETE => Ok(Route::Lift(id)),
        Known::Get(route) if reading => Ok(route),
        _ => Err(Problem::method_not_allowed(method, allow)),
    }
}

fn known(path: &str) -> Result<Known, Problem> {
    let segments: Vec<&str> = path.strip_prefix('/').unwrap_or(path).split('/').collect();
    Ok(match segments.as_slice() {
        ["v1", kind @ ("devices" | "topics"), name, "events"] => Known::Events(stream(kind, name)?),
        ["v1", kind @ ("devices" | "topics"), name, "events", id] => {
            let id = decode(id)?.parse().map_err(|error| Problem::bad_request(format!("{error}")))?;
            Known::Event(stream(kind, name)?, id)
        }
        ["v1", kind @ ("devices" | "topics"), name, "cloudevents"] => Known::CloudEvents(stream(kind, name)?),
        ["v1", kind @ ("devices" | "topics"), name, "lease"] => Known::Lease(stream(kind, name)?),
        ["v1", kind @ ("devices" | "topics"), name, "log"] => Known::Log(stream(kind, name)?),
        ["v1", "devices", name] => Known::Device(stream("devices", name)?),
        ["v1", "topics", name] => Known::Topic(stream("topics", name)?),
        ["v1", "devices", name, "ack"] => Known::Acknowledge(stream("devices", name)?),
        ["v1", "devices", name, "connections"] => Known::Connections(stream("devices", name)?),
        ["v1", "topics", name, "connections"] => Known::Get(Route::Followers(stream("topics", name)?)),
        ["v1", "topics", name, "members"] => Known::Get(Route::Members(stream("topics", name)?)),
        ["v1", "nodes"] => Known::Get(Route::Nodes),
        ["v1", kind @ ("devices" | "topics"), name, "region"] => Known::Region(stream(kind, name)?),
        ["v1", "events"] => Known::Batch,
        ["v1", "cloudevents"] => Known::RoutedCloudEvents,
        ["v1", "sse"] => Known::Sse,
        ["v1", "cursor"] => Known::Get(Route::Cursor),
        ["v1", "ws"] => Known::Get(Route::WebSocket),
        ["v1", "regions"] => Known::Get(Route::Regions),
        ["v1", "leases"] => Known::Get(Route::Leases),
        ["v1", "ingress", "rejected"] => Known::Get(Route::Rejected),
        ["v1", "links"] => Known::Get(Route::Links),
        ["v1", "connections", connection, "renew"] => Known::Renew(uuid(connection)?),
        ["v1", "revocations"] => Known::Revocations,
        ["v1", "revocations", id] => Known::Revocation(uuid(id)?),
        ["v1", "whoami"] => Known::Get(Route::Whoami),
        ["health", "live"] => Known::Get(Route::Live),
        ["health", "ready"] => Known::Get(Route::Ready),
        ["metrics"] => Known::Get(Route::Metrics),
        other => Known::Get(Route::Page(File::at(other).ok_or_else(|| Problem::not_found(path))?)),
    })
}

fn stream(kind: &str, name: &str) -> Result<StreamName, Problem> {
    let kind = if kind == "devices" { StreamKind::Device } else { StreamKind::Topic };
    StreamName::new(kind, &decode(name)?).map_err(|error| Problem::invalid_name(&error))
}

fn uuid(segment: &str) -> Result<Uuid, Problem> {
    segment.parse().map_err(|_| {
        let shown: String = segment.chars().take(64).collect();
        Problem::bad_request(format!("'{shown}' in the path is not an id such as {}", Uuid::nil()))
    })
}

fn decode(segment: &str) -> Result<String, Problem> {
    percent_decode_str(segment)
        .decode_utf8()
        .map(|text| text.into_owned())
        .map_err(|_| Problem::bad_request(format!("'{segment}' in the path is not percent-encoded UTF-8")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_in_a_path_is_decoded_once() {
        let found = find(&Method::POST, "/v1/devices/a%3Ab%40c/events").ok();
        assert_eq!(found, Some(Route::Publish("device:a:b@c".parse().unwrap())));
        assert!(find(&Method::POST, "/v1/devices/a%2541/events").is_err(), "'a%41' is no name");
        assert!(find(&Method::GET, "/v1/topics/%FF/events").is_err());
    }

    #[test]
    fn a_wrong_method_is_told_with_the_right_ones() {
        for (path, allowed) in [("/v1/topics/a/events", "POST"), ("/v1/events", "POST"), ("/metrics", "GET")] {
            let problem = find(&Method::PATCH, path).unwrap_err();
            assert_eq!(problem.status(), 405);
            assert!(problem.allow().is_some_and(|allow| allow.contains(allowed)), "{path}");
        }
    }

    const ROUTES: usize = 42;

    /// The route without its values. A new one fails to compile here until it is given a number.
    fn number(route: &Route) -> usize {
        match route {
            Route::Publish(_) => 0,
            Route::PublishBatch => 1,
            Route::Stream(_) => 2,
            Route::Event(..) => 3,
            Route::Sse => 4,
            Route::WebSocket => 5,
            Route::Live => 6,
            Route::Ready => 7,
            Route::Metrics => 8,
            Route::Page(File::Html) => 9,
            Route::Page(File::Console(_)) => 10,
            Route::Page(File::OpenApi) => 12,
            Route::Page(File::Client(_)) => 28,
            Route::Device(_) => 13,
            Route::Acknowledge(_) => 14,
            Route::Erase(_) => 15,
            Route::Page(File::AsyncApi) => 16,
            Route::Options(_) => 17,
            Route::Kick(_) => 18,
            Route::Topic(_) => 19,
            Route::Followers(_) => 20,
            Route::Nodes => 21,
            Route::Regions => 22,
            Route::Move(_) => 23,
            Route::Lease(_) => 24,
            Route::EndLease(_) => 25,
            Route::SseByBody => 26,
            Route::Cursor => 27,
            Route::Whoami => 30,
            Route::Members(_) => 29,
            Route::Renew(_) => 31,
            Route::Revoke => 32,
            Route::Revocations => 33,
            Route::Revocation(_) => 34,
            Route::Lift(_) => 11,
            Route::Leases => 35,
            Route::Rejected => 36,
            Route::Links => 37,
            Route::Export(_) => 38,
            Route::Import(_) => 39,
            Route::CloudEvents(_) => 40,
            Route::RoutedCloudEvents => 41,
        }
    }

    #[test]
    fn every_route_is_described_in_the_document() {
        let document: serde_json::Value = serde_json::from_str(include_str!("openapi.json")).unwrap();
        let mut described = [false; ROUTES];
        for (path, operations) in document["paths"].as_object().unwrap() {
            let id = if path.starts_with("/v1/revocations") { Uuid::nil().to_string() } else { "5-1".into() };
            let path = path.replace("{device}", "42").replace("{topic}", "news").replace("{id}", &id);
            let path = path.replace("{connection}", &Uuid::nil().to_string()).replace("{file}", "app.js");
            for method in operations.as_object().unwrap().keys().filter(|key| *key != "parameters") {
                let method = method.to_uppercase().parse().unwrap();
                described[number(&find(&method, &path).unwrap())] = true;
            }
        }
        assert_eq!(described, [true; ROUTES]);
    }

    #[test]
    fn an_unknown_path_is_not_found() {
        for path in ["/v1", "/v1/", "/v2/events", "/v1/topics//", "/v1/topics/a/b", "/nothing", "//", "/v1/events/"] {
            assert_eq!(find(&Method::GET, path).unwrap_err().status(), 404, "{path}");
        }
    }
}
