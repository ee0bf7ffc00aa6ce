//! What is answered before the store was reached for the first time, and has taken the node.

use std::convert::Infallible;
use std::sync::Arc;

use hyper::body::Incoming;
use hyper::service::Service;
use hyper::{HeaderMap, Method, Request, StatusCode, header};
use warp::Filter;
use warp::filters::path::FullPath;
use warp::reply::Response;

use super::route::{self, Route};
use super::{Gate, Problem, admit, answering, listen, page, refusals, reply, status};
use crate::access::Access;
use crate::access::cors::Cors;
use crate::health::Health;
use crate::metrics::Metrics;
use crate::model::NodeId;
use crate::store::StoreError;

/// Answers requests to a node that waits for its store: probes learn that it lives and is not ready, listeners that
/// they are to come again, and everybody else that nothing was stored.
pub fn starting(
    health: Arc<Health>,
    node: NodeId,
    metrics: Arc<Metrics>,
    gate: Arc<Gate>,
) -> impl Service<Request<Incoming>, Response = Response, Error = Infallible, Future: Send> + Clone + Send + Unpin {
    let access = gate.access.clone();
    let routes = warp::method().and(warp::path::full()).and(warp::header::headers_cloned()).then(
        move |method: Method, path: FullPath, headers: HeaderMap| {
            let (health, node, metrics, access) = (health.clone(), node.clone(), metrics.clone(), access.clone());
            async move {
                let answered = match route::find(&method, path.as_str()) {
                    Ok(route) => answer(&health, &node, &metrics, &access, route, &headers).await,
                    Err(problem) => Err(problem),
                };
                answered.unwrap_or_else(Problem::into_response)
            }
        },
    );
    answering(routes, gate)
}

async fn answer(
    health: &Health,
    node: &NodeId,
    metrics: &Metrics,
    access: &Access,
    route: Route,
    headers: &HeaderMap,
) -> Result<Response, Problem> {
    // Nothing can be done yet for anybody; metrics need their right all the same.
    if route == Route::Metrics {
        admit(access, &route, headers, "", &Cors::NOBODY).await?;
    }
    match route {
        Route::Live => return Ok(status::live()),
        Route::Ready => return Ok(status::readiness(false, &health.report(), &[], node, 0, 0)),
        Route::Metrics => return Ok(status::exposition(metrics, &health.report())),
        Route::Page(file) => return Ok(page::file(file, headers)),
        Route::Options(allow) => return Ok(reply(StatusCode::NO_CONTENT, &[(header::ALLOW, allow)], "")),
        _ => {}
    }
    if route != Route::WebSocket && listen::listens(&route, headers) {
        refusals::pause().await;
        return Ok(listen::come_back());
    }
    let reason = health.report().store_error.unwrap_or_default();
    Err(StoreError::Unavailable(format!("it was not reached since this node was started: {reason}")).into())
}
