//! What every request passes before anything is done for it: its host, and the page behind it.

use std::convert::Infallible;
use std::future::ready;
use std::pin::Pin;
use std::sync::Arc;

use hyper::body::Incoming;
use hyper::service::Service;
use hyper::{Method, Request, header};
use warp::reply::Response;

use super::Problem;
use super::page::File;
use super::route::{self, Route};
use crate::access::Access;
use crate::access::cors::Cors;
use crate::access::host::{Host, HostError};
use crate::access::origins::{Origins, Target};
use crate::metrics::Metrics;
use crate::transport::{Arrival, Reach};

/// What pages of other origins may be allowed to use begins with this.
const SHARED: &str = "/v1/";

/// What requests are held to.
pub struct Gate {
    /// Pages that may use the service besides its own.
    pub origins: Origins,
    /// Whether access is open, and then only for this machine.
    pub access: Arc<Access>,
    /// Counts what is refused.
    pub metrics: Arc<Metrics>,
}

impl Gate {
    /// Lets through to `service` what passes, and tells browsers who may read the answers.
    pub fn guard<S>(self: Arc<Self>, service: S) -> Guarded<S> {
        Guarded { gate: self, service }
    }

    /// What the browser behind the request is to be told, or why the request is refused.
    fn admit<B>(&self, request: &Request<B>) -> Result<Cors, Problem> {
        // `CONNECT host:443`, or `GET host`: there is nothing to find a route by, and warp would panic.
        if request.uri().path_and_query().is_none() {
            return Err(Problem::bad_request("the target of the request is no path; this is not a proxy"));
        }
        // The strictest, were it ever missing.
        let arrival = request.extensions().get().copied().unwrap_or(Arrival::STRICTEST);
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
        let route = route::find(request.method(), request.uri().path());
        let is_page = matches!(route, Ok(Route::Page(_)));
        // Pages of allowed origins may load the client from here too.
        let is_module = matches!(route, Ok(Route::Page(File::Module(_))));
        let target = Target { host, secure: arrival.secure, is_page };
        let caller = self.origins.admit(request.headers(), target).map_err(|foreign| {
            self.metrics.refused("origin");
            Problem::forbidden(foreign.to_string())
        })?;
        if is_module || request.uri().path().starts_with(SHARED) {
            Ok(Cors::new(caller, self.origins.allow_some()))
        } else {
            Ok(Cors::NOBODY)
        }
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
        let cors = match self.gate.admit(&request) {
            Ok(cors) => cors,
            Err(problem) => {
                let mut refusal = problem.into_response();
                Cors::NOBODY.add_to(refusal.headers_mut());
                return Box::pin(ready(Ok(refusal)));
            }
        };
        let is_preflight = request.method() == Method::OPTIONS
            && request.headers().contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
        request.extensions_mut().insert(cors.clone());
        let answering = self.service.call(request);
        Box::pin(async move {
            let mut answer = answering.await?;
            cors.add_to(answer.headers_mut());
            if is_preflight {
                cors.add_preflight_to(answer.headers_mut());
            }
            Ok(answer)
        })
    }
}
