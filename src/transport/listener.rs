//! The accept loop: sockets in, HTTP until a request is accepted as a listener's, then a connection.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::{Body, Incoming};
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::{mpsc, watch};

use super::{Arrival, Connections, Endpoints, Handoff, Socket, task};
use crate::hub::Hub;

/// A client that has not sent a request's head by then is let go. It also ends idle keep-alive.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// When the node stops, requests that are under way have this long to be answered: as long as the store may
/// take.
const ANSWER_TIME: Duration = Duration::from_secs(5);

/// What connections are held to.
#[derive(Debug, Clone)]
pub struct ListenerSettings {
    /// Interval of pings; twice that without acknowledgement ends a connection.
    pub ping: Duration,
    /// Bytes that may wait for a connection.
    pub outbox_bytes: usize,
    /// Largest message that a WebSocket client may send, in bytes.
    pub max_message_bytes: usize,
    /// Streams that a connection may follow.
    pub max_streams: usize,
}

/// What connections need.
pub struct Context {
    pub settings: ListenerSettings,
    pub hub: Arc<Hub>,
    pub connections: Arc<Connections>,
}

/// Accepts connections until `stop` turns true, and then no more. Returns once the requests that are under
/// way then are answered, or had their time; listeners' connections go on.
pub async fn listen<S, B>(
    endpoints: Endpoints,
    service: S,
    settings: ListenerSettings,
    hub: Arc<Hub>,
    connections: Arc<Connections>,
    mut stop: watch::Receiver<bool>,
) where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Clone + Send + Unpin + 'static,
    S::Future: Send,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let context = Arc::new(Context { settings, hub, connections });
    // Nothing is ever sent: it ends when the last request's connection has dropped its end.
    let (under_way, mut answered) = mpsc::channel::<()>(1);
    loop {
        let (socket, arrival) = tokio::select! {
            accepted = endpoints.accept() => accepted,
            _ = stop.wait_for(|stop| *stop) => break,
        };
        let (service, context, stop) = (service.clone(), context.clone(), stop.clone());
        let under_way = under_way.clone();
        tokio::spawn(async move {
            serve(socket, arrival, service, context, stop).await;
            drop(under_way);
        });
    }
    drop((endpoints, under_way));
    let _ = tokio::time::timeout(ANSWER_TIME, answered.recv()).await;
}

async fn serve<S, B>(
    socket: Socket,
    arrival: Arrival,
    service: S,
    context: Arc<Context>,
    mut stop: watch::Receiver<bool>,
) where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Send + Unpin + 'static,
    S::Future: Send,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    if let Err(error) = socket.prepare(context.settings.ping * 2) {
        tracing::debug!(%error, "the client is gone");
        return;
    }
    let handoff = Handoff::default();
    let handed = {
        let handoff = handoff.clone();
        service_fn(move |mut request: Request<Incoming>| {
            let version = request.version();
            request.extensions_mut().insert(version);
            request.extensions_mut().insert(arrival);
            request.extensions_mut().insert(handoff.clone());
            service.call(request)
        })
    };
    // Boxed: the HTTP state is large, and a listener's connection must not keep room for it.
    let mut http = Box::new(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .serve_connection(TokioIo::new(socket), handed),
    );
    let mut stopping = false;
    let accepted = loop {
        tokio::select! {
            biased;
            accepted = handoff.taken() => break accepted,
            ended = &mut *http => {
                if let Err(error) = ended {
                    tracing::debug!(%error, "an HTTP connection ended");
                }
                return;
            }
            _ = stop.wait_for(|stop| *stop), if !stopping => {
                stopping = true;
                std::pin::Pin::new(&mut *http).graceful_shutdown();
            }
        }
    };
    let parts = http.into_parts();
    tokio::spawn(task::start(parts.io.into_inner(), parts.read_buf, accepted, context));
}
