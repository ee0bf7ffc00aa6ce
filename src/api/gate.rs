//! What every request passes before anything is done for it: its host, and the page behind it.

use std::convert::Infallible;
use std::future::ready;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;

use futures_util::TryFutureExt as _;
use hyper::body::Incoming;
use hyper::header::HeaderValue;
use hyper::service::Service;
use hyper::{Method, Request, StatusCode, header};
use warp::reply::Response;

use super::page::File;
use super::route::{self, Route};
use super::{Problem, listen, reply};
use crate::access::Access;
use crate::access::cors::Cors;
use crate::access::host::{Host, HostError};
use crate::access::origins::{Origins, Target};
use crate::access::throttle::Throttle;
use crate::metrics::Metrics;
use crate::transport::{Ambiguity, Arrival, CloseReason, Door, Reach, sse};

/// Where a request came from, and in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Client {
    /// The client's address, as far as it is known.
    pub address: Option<IpAddr>,
    /// The listener.
    pub door: Door,
}

/// What pages of other origins may be allowed to use begins with this.
const SHARED: &str = "/v1/";

/// What requests are held to.
pub struct Gate {
    /// Pages that may use the service besides its own.
    pub origins: Origins,
    /// Whether access is open, and then only for this machine.
    pub access: Arc<Access>,
    /// What only operators do, they do at a listener of their own.
    pub has_admin_door: bool,
    /// What one client may take.
    pub throttle: Arc<Throttle>,
    /// Counts what is refused.
    pub metrics: Arc<Metrics>,
}

impl Gate {
    /// Passes requests that are allowed on to `service`, and adds the CORS headers to answers.
    pub fn guard<S>(self: Arc<Self>, service: S) -> Guarded<S> {
        Guarded { gate: self, service }
    }

    /// The answer to a request that a proxy in front could have read differently. Its connection ends with it, as what
    /// follows may be a part of it.
    fn refuse_ambiguous<B>(&self, request: &Request<B>) -> Option<Response> {
        let ambiguity = request.extensions().get::<Option<Ambiguity>>().copied().flatten()?;
        self.metrics.refused("framing");
        let mut refusal = Problem::bad_request(ambiguity.as_str()).into_response();
        refusal.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        Some(refusal)
    }

    /// The CORS headers of the answer, or why the request is refused.
    fn admit<B>(&self, request: &Request<B>, arrival: Arrival) -> Result<Cors, Problem> {
        // `CONNECT host:443`, or `GET host`: there is nothing to find a route by, and warp would panic.
        if request.uri().path_and_query().is_none() {
            return Err(Problem::bad_request("the target of the request is no path; this is not a proxy"));
        }
        let host =
            Host::of(request.uri(), request.version(), request.headers()).map_err(|error| self.no_host(error))?;
        // A page that had its own name point to this machine (DNS rebinding) shows in the name. Where access is
        // closed it gains nothing: it has no token.
        if self.access.is_open()
            && arrival.reach == Reach::Loopback
            && let Some(host) = host
            && !host.is_loopback()
        {
            self.metrics.refused("host");
            return Err(Problem::forbidden(format!(
                "the request is for host '{}', but access is open and limited to localhost",
                host.name
            )));
        }
        let route = route::find(request.method(), request.uri().path()).ok();
        // Pages of allowed origins may load the client from here too.
        let is_module = matches!(route, Some(Route::Page(File::Client(_))));
        let target = Target { host, secure: arrival.secure, is_page: matches!(route, Some(Route::Page(_))) };
        let caller = self.origins.admit(request.headers(), target).map_err(|foreign| {
            self.metrics.refused("origin");
            Problem::forbidden(foreign.to_string())
        })?;
        if self.has_admin_door && arrival.door == Door::Public {
            self.keep_to_admin_door(route, request.uri().path())?;
        }
        if is_module || request.uri().path().starts_with(SHARED) {
            Ok(Cors::new(caller, self.origins.allow_some()))
        } else {
            Ok(Cors::NOBODY)
        }
    }

    /// Refuses what is done at the operators' listener alone.
    fn keep_to_admin_door(&self, route: Option<Route>, path: &str) -> Result<(), Problem> {
        match route {
            Some(Route::Metrics) => Err(Problem::not_found(path)),
            Some(Route::Page(file)) if file.is_console() => Err(Problem::not_found(path)),
            Some(route) if route.is_admin() => {
                self.metrics.refused("admin");
                Err(Problem::forbidden("this is done at the node's admin listener only (WHIMBREL_ADMIN_LISTEN)"))
            }
            _ => Ok(()),
        }
    }

    /// The answer to a listener that comes too soon after others of its address.
    fn throttle<B>(&self, request: &Request<B>, client: Client) -> Option<Response> {
        if !self.throttle.limits_connects() {
            return None;
        }
        let is_sse = match route::find(request.method(), request.uri().path()).ok()? {
            Route::Sse | Route::SseByBody => true,
            Route::Stream(_) => listen::wants_stream(request.headers()).then_some(true)?,
            Route::WebSocket => false,
            _ => return None,
        };
        let too_fast = self.throttle.connect(client.address).err()?;
        self.metrics.refused("rate");
        // An EventSource that comes back would stay away for good at any other answer.
        Some(if is_sse && request.headers().contains_key("last-event-id") {
            let retry_ms = too_fast.retry_seconds() * 1000;
            reply(StatusCode::OK, &sse::HEADERS, sse::close(CloseReason::Overload, retry_ms))
        } else {
            Problem::too_fast(&too_fast).into_response()
        })
    }

    fn no_host(&self, error: HostError) -> Problem {
        self.metrics.refused("host");
        Problem::bad_request(error.to_string())
    }
}

/// A service behind a [`Gate`].
#[derive(Clone)]
pub struct Guarded<S> {
    gate: Arc<Gate>,
    service: S,
}

impl<S> Service<Request<Incoming>> for Guarded<S>
where
    S: Service<Request<Incoming>, Response = Response, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        if let Some(mut refusal) = self.gate.refuse_ambiguous(&request) {
            Cors::NOBODY.add_to(refusal.headers_mut());
            return Box::pin(ready(Ok(refusal)));
        }
        // The strictest, were it ever missing.
        let arrival = request.extensions().get().copied().unwrap_or(Arrival::STRICTEST);
        let cors = match self.gate.admit(&request, arrival) {
            Ok(cors) => cors,
            Err(problem) => {
                let mut refusal = problem.into_response();
                Cors::NOBODY.add_to(refusal.headers_mut());
                return Box::pin(ready(Ok(refusal)));
            }
        };
        let asked = (request.method() == Method::OPTIONS)
            .then(|| request.headers().get(header::ACCESS_CONTROL_REQUEST_METHOD).cloned())
            .flatten();
        let address = self.gate.throttle.client(arrival.peer, request.headers());
        let client = Client { address, door: arrival.door };
        if let Some(mut refusal) = self.gate.throttle(&request, client) {
            cors.add_to(refusal.headers_mut());
            return Box::pin(ready(Ok(refusal)));
        }
        request.extensions_mut().insert(client);
        request.extensions_mut().insert(cors.clone());
        // Not an async block, which would have room for what it awaits twice.
        Box::pin(self.service.call(request).map_ok(move |mut answer| {
            if let Some(method) = asked {
                // A path or a name that is wrong is for the request itself to learn: of a refused preflight a page sees
                // nothing.
                if matches!(answer.status(), StatusCode::BAD_REQUEST | StatusCode::NOT_FOUND) && cors.is_for_pages() {
                    answer = reply(StatusCode::NO_CONTENT, &[], "");
                }
                cors.add_preflight_to(answer.headers_mut(), &method);
            }
            cors.add_to(answer.headers_mut());
            answer
        }))
    }
}
