//! Probes and figures.

use hyper::{StatusCode, header};
use warp::reply::Response;

use super::{Api, json, reply};
use crate::health::Report;
use crate::metrics::{ByWork, Metrics, TEXT_TYPE};
use crate::model::NodeId;
use crate::trouble::{TroubleReport, Work};

/// The process answers.
pub fn live() -> Response {
    json(StatusCode::OK, &serde_json::json!({"status": "ok"}))
}

/// Whether clients had better come here. A node that merely lost its store keeps its clients, and is no
/// worse than its neighbours, so that alone does not make it unready.
pub fn ready(api: &Api) -> Response {
    let (health, registry) = (api.health.report(), api.hub.registry());
    let ready = !health.draining && health.reached_once && (health.store_error.is_none() || !api.ready_strict);
    let refused = api.hub.troubles().report();
    readiness(ready, &health, &refused, &registry.node(), api.connections.count(), registry.streams())
}

/// The answer to a probe for readiness.
pub fn readiness(
    ready: bool,
    health: &Report,
    refused: &[TroubleReport],
    node: &NodeId,
    connections: usize,
    streams: usize,
) -> Response {
    let refuses: Vec<_> = refused
        .iter()
        .map(|refused| {
            let (what, reason, seconds) = (refused.work.as_str(), &refused.reason, refused.lasts.as_secs());
            serde_json::json!({"what": what, "reason": reason, "seconds": seconds})
        })
        .collect();
    let error = health.store_error.as_ref().or(refused.first().map(|refused| &refused.reason));
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let body = serde_json::json!({
        "status": if ready { "ok" } else { "unready" },
        "node": node.as_str(),
        "draining": health.draining,
        "store": {
            "kind": health.store,
            "up": health.store_error.is_none(),
            "error": error,
            "refuses": refuses,
            "down_seconds": health.down_for.map(|time| time.as_secs()),
        },
        "connections": connections,
        "streams": streams,
    });
    json(status, &body)
}

/// What Prometheus reads.
pub fn metrics(api: &Api) -> Response {
    let registry = api.hub.registry();
    let metrics = api.hub.metrics();
    metrics.streams.set(registry.streams() as i64);
    metrics.ring_bytes.set(registry.ring_bytes() as i64);
    metrics.sync_lag_seconds.set(registry.sync_lag().as_secs_f64());
    if let Some(regions) = api.hub.regions() {
        metrics.directory_streams.set(regions.replica().len() as i64);
        metrics.directory_lag_seconds.set(regions.lag().as_secs_f64());
    }
    let refused = api.hub.troubles().report();
    for work in Work::ALL {
        let is_refused = refused.iter().any(|refused| refused.work == work);
        metrics.store_refuses.get_or_create(&ByWork { work: work.as_str() }).set(i64::from(is_refused));
    }
    exposition(metrics, &api.health.report())
}

/// The figures as they are, with the state of the store.
pub fn exposition(metrics: &Metrics, health: &Report) -> Response {
    metrics.store_up.set(i64::from(health.reached_once && health.store_error.is_none()));
    reply(StatusCode::OK, &[(header::CONTENT_TYPE, TEXT_TYPE)], metrics.text())
}
