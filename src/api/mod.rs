//! The HTTP side: from requests to what the hub can do, and back to answers.
//!
//! warp carries requests in and replies out. Which request means what is one table ([`route`]): names are
//! decoded once, a wrong method gets a 405 with the right ones, and an unknown path a JSON 404.

mod batch;
mod bodies;
mod body;
mod catch;
mod cloudevents;
mod cursor;
mod devices;
mod events;
mod gate;
mod inbox;
mod lease;
mod listen;
mod nodes;
pub(crate) mod operations;
mod operators;
mod page;
pub(crate) mod parameters;
mod parts;
mod positions;
mod problem;
mod refusals;
mod regions;
mod renew;
mod revocations;
pub(crate) mod route;
mod starting;
mod status;
mod topics;
mod whoami;
mod wish;

use std::convert::Infallible;
use std::sync::Arc;

use hyper::body::Incoming;
use hyper::service::Service;
use hyper::{HeaderMap, Method, StatusCode, Version, header};
use hyper_util::service::TowerToHyperService;
use warp::Filter;
use warp::filters::path::FullPath;
use warp::reply::Response;

use crate::access::cors::Cors;
use crate::access::crowded::Crowded;
use crate::access::throttle::Throttle;
use crate::access::{Access, Grant, Holder, Need, Refusal};
use crate::health::Health;
use crate::hub::Hub;
use crate::model::TypeFilters;
use crate::transport::{Connections, Door, Handoff};

pub use bodies::Bodies;
pub use gate::{Client, Gate, Guarded};
pub use problem::Problem;
pub use refusals::Refusals;
pub use starting::starting;

use body::BodyStream;
use route::Route;

/// What requests are answered from.
pub struct Api {
    /// What can be done.
    pub hub: Arc<Hub>,
    /// Who may do what.
    pub access: Arc<Access>,
    /// The state of the node, for probes.
    pub health: Arc<Health>,
    /// The listeners' connections.
    pub connections: Arc<Connections>,
    /// The node reports unready while its store is away.
    pub ready_strict: bool,
    /// Streams that a connection may follow.
    pub max_streams: usize,
    /// What one client may take.
    pub throttle: Arc<Throttle>,
    /// Devices that have too many connections.
    pub crowded: Crowded,
    /// The bodies of requests.
    pub bodies: Bodies,
    /// What listeners want.
    pub filters: TypeFilters,
    /// Listeners that are turned away.
    pub refusals: Refusals,
}

/// A request, taken apart.
struct Request {
    version: Version,
    method: Method,
    path: String,
    query: String,
    headers: HeaderMap,
    /// The CORS headers of its answer.
    cors: Cors,
    /// Where it came from.
    client: Client,
    handoff: Option<Handoff>,
    body: BodyStream,
}

impl Request {
    /// Whether its connection was let in for probes and administration only.
    fn is_reserved(&self) -> bool {
        self.handoff.as_ref().is_some_and(Handoff::is_reserved)
    }
}

/// Answers all requests.
pub fn service(
    api: Arc<Api>,
    gate: Arc<Gate>,
) -> impl Service<hyper::Request<Incoming>, Response = Response, Error = Infallible, Future: Send> + Clone + Send + Unpin
{
    answering(routes(api), gate)
}

/// Routes behind the gate. Every request is answered, even one whose handling panics.
fn answering(
    routes: impl Filter<Extract = (Response,), Error = Infallible> + Clone + Send + Sync + Unpin + 'static,
    gate: Arc<Gate>,
) -> impl Service<hyper::Request<Incoming>, Response = Response, Error = Infallible, Future: Send> + Clone + Send + Unpin
{
    catch::panics(gate.guard(TowerToHyperService::new(warp::service(routes))))
}

/// All routes as one warp filter.
fn routes(
    api: Arc<Api>,
) -> impl Filter<Extract = (Response,), Error = Infallible> + Clone + Send + Sync + Unpin + 'static {
    let query = warp::query::raw().or(warp::any().map(String::new)).unify();
    warp::method()
        .and(warp::path::full())
        .and(query)
        .and(warp::header::headers_cloned())
        .and(warp::ext::optional::<Version>())
        .and(warp::ext::optional::<Cors>())
        .and(warp::ext::optional::<Client>())
        .and(warp::ext::optional::<Handoff>())
        .and(body::stream())
        .then(
            move |method,
                  path: FullPath,
                  query,
                  headers,
                  version: Option<_>,
                  cors: Option<Cors>,
                  client: Option<Client>,
                  handoff,
                  body| {
                let api = api.clone();
                let path = path.as_str().to_owned();
                let (version, cors) = (version.unwrap_or(Version::HTTP_10), cors.unwrap_or(Cors::NOBODY));
                let client = client.unwrap_or_default();
                async move {
                    answer(&api, Request { version, method, path, query, headers, cors, client, handoff, body }).await
                }
            },
        )
        // None of the filters above rejects; were one to, that would be our fault.
        .recover(|rejection| async move {
            tracing::error!(?rejection, "a request was rejected before it was routed");
            Ok::<_, Infallible>(Problem::internal().into_response())
        })
        .unify()
}

async fn answer(api: &Api, request: Request) -> Response {
    let reads = request.method.is_safe();
    let answered = dispatch(api, request).await.map_err(|problem| if reads { problem.of_reading() } else { problem });
    // To a HEAD request, hyper sends the head alone, with the length of the answer to GET.
    answered.unwrap_or_else(Problem::into_response)
}

async fn dispatch(api: &Api, request: Request) -> Result<Response, Problem> {
    let route = route::find(&request.method, &request.path)?;
    // Listeners are refused in their own way.
    if request.is_reserved() && !route.is_for_operators() && !listen::listens(&route, &request.headers) {
        return Err(Problem::overload("the node answers as many requests as it can at once"));
    }
    let takes_only_streams = listen::takes_only_streams(&route, &request.headers);
    match carry_out(api, route, request).await {
        Err(problem) if takes_only_streams && problem.passes() => {
            api.refusals.hold().await;
            Ok(listen::come_back())
        }
        answered => answered,
    }
}

async fn carry_out(api: &Api, route: Route, request: Request) -> Result<Response, Problem> {
    // The operators' listener serves metrics without a key.
    let grant = match route {
        Route::Metrics if request.client.door == Door::Admin => return Ok(status::metrics(api)),
        _ => admit(&api.access, &route, &request.headers, &request.query, &request.cors).await?,
    };
    match route {
        Route::Publish(stream) => {
            throttle(api, &grant, 1)?;
            events::publish(api, stream, request).await
        }
        Route::PublishBatch => batch::publish(api, request, &grant).await,
        Route::CloudEvents(stream) => cloudevents::publish(api, Some(stream), request, &grant).await,
        Route::RoutedCloudEvents => cloudevents::publish(api, None, request, &grant).await,
        Route::Stream(stream) if listen::wants_stream(&request.headers) => {
            listen::sse_of(api, stream, request, grant).await
        }
        Route::Stream(stream) => events::history(api, stream, &request.query).await,
        Route::Event(stream, id) => events::event(api, &stream, id, &request.query).await,
        Route::Device(stream) => inbox::device(api, &stream, &request.query).await,
        Route::Acknowledge(stream) => inbox::acknowledge(api, stream, request).await,
        Route::Erase(stream) => inbox::erase(api, &stream, &request.query).await,
        Route::Export(stream) => parts::export(api, stream, &request.query).await,
        Route::Import(stream) => parts::import(api, stream, request).await,
        Route::Kick(device) => devices::kick(api, &device, &request.query).await,
        Route::Topic(topic) => topics::topic(api, topic, &request.query).await,
        Route::Followers(topic) => topics::followers(api, topic, &request.query).await,
        Route::Members(topic) => topics::members(api, &topic, &request.query).await,
        Route::Nodes => nodes::list(api, &request.query).await,
        Route::Move(stream) => regions::move_to(api, stream, request).await,
        Route::Lease(stream) => lease::take(api, stream, request).await,
        Route::EndLease(stream) => lease::end(api, &stream, &request.query).await,
        Route::Sse => listen::sse(api, request, grant).await,
        Route::SseByBody => listen::sse_by_body(api, request, grant).await,
        Route::Cursor => cursor::cursor(api, &request.query, &grant).await,
        Route::WebSocket => listen::websocket(api, request, grant).await,
        Route::Renew(connection) => renew::renew(api, connection, &grant, &request.query).await,
        Route::Revoke => revocations::revoke(api, request).await,
        Route::Revocations => revocations::list(api, &request.query).await,
        Route::Revocation(id) => revocations::one(api, id, &request.query).await,
        Route::Lift(id) => revocations::lift(api, id, &request.query).await,
        Route::Whoami => whoami::whoami(&grant, &request.query),
        Route::Regions => regions::list(api, &request.query).await,
        Route::Leases => operators::leases(api, &request.query).await,
        Route::Rejected => operators::rejected(api, &request.query).await,
        Route::Links => operators::links(api, &request.query),
        Route::Live => Ok(status::live()),
        Route::Ready => Ok(status::ready(api)),
        Route::Metrics => Ok(status::metrics(api)),
        Route::Page(file) => Ok(page::file(file, &request.headers)),
        Route::Options(allow) => {
            let answer = reply(StatusCode::NO_CONTENT, &[(header::ALLOW, allow)], "");
            Ok(cloudevents::consenting(answer, &request))
        }
    }
}

/// Decides what a caller may do, and whether that is enough for its request. Nothing else was looked at by then
/// but the path and the method.
async fn admit(
    access: &Access,
    route: &Route,
    headers: &HeaderMap,
    query: &str,
    page: &Cors,
) -> Result<Arc<Grant>, Problem> {
    let need = route.need();
    if need == Need::Nothing {
        return Ok(Arc::new(Grant::nothing(Holder::Anonymous)));
    }
    // The backend is asked when it is known what about.
    let is_asked = access.has_backend() && listen::listens(route, headers);
    let grant = match access.authenticate(headers, query, page.caller().may_use_cookies()).await {
        Err(Refusal::Foreign(_)) if is_asked => access.anonymous(),
        judged => judged?,
    };
    if !is_asked || grant.holder != Holder::Anonymous {
        grant.check(need)?;
    }
    Ok(grant)
}

/// Refuses what the holder of a grant publishes faster than it may.
fn throttle(api: &Api, grant: &Grant, events: usize) -> Result<(), Problem> {
    api.throttle.publish(grant, None, events).map_err(|too_fast| {
        api.hub.metrics().refused("rate");
        Problem::too_fast(&too_fast)
    })
}

/// A response with these headers.
fn reply(status: StatusCode, headers: &[(header::HeaderName, &str)], body: impl Into<bytes::Bytes>) -> Response {
    let body: bytes::Bytes = body.into();
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    for (name, value) in headers {
        let value = header::HeaderValue::from_str(value).expect("header values are made here, of plain ASCII");
        response.headers_mut().insert(name, value);
    }
    response
}

/// A JSON response.
fn json(status: StatusCode, body: &impl serde::Serialize) -> Response {
    let body = serde_json::to_vec(body).expect("answers hold only strings, numbers and JSON");
    reply(status, &[(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-store")], body)
}
