//! A client over HTTP/2: many requests on one socket, listeners' among them.
//!
//! A listener can't be handed the socket here. Its connection is the body of an answer instead, see
//! [`crate::transport::streamed`].

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Either};
use hyper::body::{Body, Incoming};
use hyper::server::conn::http2;
use hyper::service::{Service, service_fn};
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use crate::transport::context::Context;
use crate::transport::handoff::Accepted;
use crate::transport::http_phase::{HttpSlot, InRequest};
use crate::transport::socket::Socket;
use crate::transport::streamed::{StreamedBody, streamed};
use crate::transport::{Arrival, Handoff, Open, sse, task};

/// Requests of one client at a time, listeners among them. Browsers open as many tabs as their users like.
const MOST_REQUESTS: u32 = 256;

/// Bytes of a request's headers, as over HTTP/1.1 more or less.
const MOST_HEADER_BYTES: u32 = 64 * 1024;

/// Bytes of one answer that wait for the client's window.
const SEND_BUFFER: usize = 64 * 1024;

/// A client that answers no ping of HTTP/2 for so long has gone.
const PONG_TIME: Duration = Duration::from_secs(20);

/// A connection on which no request was under way at two looks in a row is closed.
const LOOK: Duration = Duration::from_secs(30);

/// Serves a client until it leaves, is idle for too long, or the node stops.
pub(super) async fn serve<S, B>(
    socket: Socket,
    arrival: Arrival,
    service: S,
    slot: Arc<HttpSlot>,
    context: Arc<Context>,
    mut open: watch::Receiver<Open>,
) where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Clone + Send + Unpin + 'static,
    S::Future: Send,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let activity = Arc::new(Activity::of(slot));
    let answering = {
        let (context, activity) = (context.clone(), activity.clone());
        service_fn(move |mut request: Request<Incoming>| {
            let (handoff, version) = (Handoff::new(activity.is_reserved()), request.version());
            request.extensions_mut().insert(version);
            request.extensions_mut().insert(arrival);
            request.extensions_mut().insert(handoff.clone());
            let (service, context) = (service.clone(), context.clone());
            let counted = Counted::new(&activity);
            async move {
                tokio::select! {
                    biased;
                    accepted = handoff.taken() => {
                        if accepted.permit.is_some() {
                            counted.0.leave_phase();
                        }
                        let answer = listen(accepted, context);
                        Ok::<_, Infallible>(answer.map(|body| Either::Right(while_counted(body, counted))))
                    }
                    answer = service.call(request) => answer.map(|answer| answer.map(Either::Left)),
                }
            }
        })
    };
    let mut http = pin!(
        http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .max_concurrent_streams(MOST_REQUESTS)
            .max_header_list_size(MOST_HEADER_BYTES)
            .max_send_buf_size(SEND_BUFFER)
            .keep_alive_interval(context.settings.ping)
            .keep_alive_timeout(PONG_TIME)
            .serve_connection(TokioIo::new(socket), answering)
    );
    let mut looks = tokio::time::interval(LOOK);
    looks.tick().await;
    let mut stopping = false;
    loop {
        tokio::select! {
            biased;
            ended = &mut http => {
                if let Err(error) = ended {
                    tracing::debug!(%error, "an HTTP/2 connection ended");
                }
                return;
            }
            _ = open.wait_for(|open| !open.admits(arrival.door)), if !stopping => {
                stopping = true;
                http.as_mut().graceful_shutdown();
            }
            // Like a connection of HTTP/1.1 on which no request comes.
            () = activity.over() => {
                tracing::debug!("an HTTP/2 connection is late, or gives way to another");
                return;
            }
            _ = looks.tick(), if !stopping => if activity.is_idle() {
                stopping = true;
                http.as_mut().graceful_shutdown();
            }
        }
    }
}

/// The answer to a listener, whose body its connection writes.
fn listen(accepted: Accepted, context: Arc<Context>) -> Response<StreamedBody> {
    let (stream, body) = streamed();
    let mut answer = Response::new(body);
    let own = sse::HEADERS.map(|(name, value)| (name, hyper::header::HeaderValue::from_static(value)));
    for (name, value) in own.into_iter().chain(accepted.headers.iter().cloned()) {
        answer.headers_mut().append(name, value);
    }
    tokio::spawn(task::start(Socket::Streamed(stream), Bytes::new(), accepted, context));
    answer
}

/// The body of an answer that counts as under way for as long as it is there.
fn while_counted(body: StreamedBody, counted: Counted) -> impl Body<Data = Bytes, Error = Infallible> + Send {
    body.map_frame(move |frame| {
        let _under_way = &counted;
        frame
    })
}

/// What is under way on a connection, and its place among those that carry HTTP.
struct Activity {
    now: Mutex<Now>,
    /// The place was given up.
    left: Notify,
}

struct Now {
    requests: usize,
    /// Until a listener is on the connection: from then on that is counted instead.
    slot: Option<Arc<HttpSlot>>,
    busy: Option<InRequest>,
}

impl Activity {
    fn of(slot: Arc<HttpSlot>) -> Self {
        Activity { now: Mutex::new(Now { requests: 0, slot: Some(slot), busy: None }), left: Notify::new() }
    }

    fn is_reserved(&self) -> bool {
        self.now.lock().slot.as_ref().is_some_and(|slot| slot.is_reserved())
    }

    fn is_idle(&self) -> bool {
        self.now.lock().requests == 0
    }

    fn begin(&self) {
        let mut now = self.now.lock();
        now.requests += 1;
        if now.busy.is_none() {
            now.busy = now.slot.as_ref().map(|slot| slot.request());
        }
    }

    fn end(&self) {
        let mut now = self.now.lock();
        now.requests -= 1;
        if now.requests == 0 {
            now.busy = None;
        }
    }

    fn leave_phase(&self) {
        let (busy, slot) = {
            let mut now = self.now.lock();
            (now.busy.take(), now.slot.take())
        };
        drop((busy, slot));
        self.left.notify_one();
    }

    /// Waits until the connection has to go, for as long as it has its place.
    async fn over(&self) {
        let slot = self.now.lock().slot.clone();
        if let Some(slot) = slot {
            tokio::select! {
                () = slot.over() => return,
                () = self.left.notified() => {}
            }
        }
        std::future::pending().await
    }
}

/// Counts a request for as long as it is under way.
struct Counted(Arc<Activity>);

impl Counted {
    fn new(activity: &Arc<Activity>) -> Self {
        activity.begin();
        Counted(activity.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.end();
    }
}
