//! The accept loop: sockets in, HTTP until a request is accepted as a listener's, then a connection.

mod http2;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Incoming};
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::sync::{mpsc, watch};

use super::context::{Context, ListenerSettings};
use super::handoff::Accepted;
use super::socket::{Raw, Socket};
use super::tls::HttpVersion;
use super::{Arrival, Connections, Door, Endpoints, Handoff, HttpSlot, Open, Operations, Tls, task};
use crate::hub::Hub;

/// Bytes of a request's head that are always taken. hyper reads up to half as much again before it looks.
pub const HEAD_BYTES: usize = 32 * 1024;

/// When the node stops, requests that are under way have this long to be answered: as long as the store may
/// take.
const ANSWER_TIME: Duration = Duration::from_secs(5);

/// Accepts connections at the doors that are open, until none is. Returns once the requests that are under
/// way then are answered, or had their time; listeners' connections go on.
pub async fn listen<S, B>(
    mut endpoints: Endpoints,
    service: S,
    settings: ListenerSettings,
    hub: Arc<Hub>,
    connections: Arc<Connections>,
    operations: Arc<dyn Operations>,
    mut open: watch::Receiver<Open>,
) where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Clone + Send + Unpin + 'static,
    S::Future: Send,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let context = Arc::new(Context { settings, hub, connections, operations });
    // Nothing is ever sent: it ends when the last request's connection has dropped its end.
    let (under_way, mut answered) = mpsc::channel::<()>(1);
    let mut were_open = *open.borrow();
    loop {
        let accepted = tokio::select! {
            accepted = endpoints.accept() => Some(accepted),
            _ = open.wait_for(|open| *open != were_open) => None,
        };
        let accepted = match accepted {
            // Whoever connected before is still answered: closing the listener would reset the connection.
            None => endpoints.accept_waiting().await,
            accepted => accepted,
        };
        let Some((raw, arrival, slot)) = accepted else {
            were_open = *open.borrow();
            endpoints.close(Door::Public);
            if were_open == Open::None {
                break;
            }
            continue;
        };
        let (service, context, open) = (service.clone(), context.clone(), open.clone());
        let (tls, under_way) = (endpoints.tls().filter(|_| arrival.secure).cloned(), under_way.clone());
        tokio::spawn(async move {
            let slot = Arc::new(slot);
            let Some((socket, version)) = begin(raw, tls, &slot, &context).await else { return };
            if version == HttpVersion::Two {
                // Boxed, as the most clients come without it.
                Box::pin(http2::serve(socket, arrival, service, slot, context, open)).await;
                return;
            }
            let served = serve(socket, arrival, service, &slot, open).await;
            let Some((socket, early, accepted)) = served else { return };
            // A client that is turned away keeps its place until it is gone, and is waited for.
            let kept = accepted.permit.is_none().then(|| (slot.request(), slot, under_way));
            let listening = task::start(socket, early, accepted, context);
            match kept {
                None => _ = tokio::spawn(listening),
                Some(kept) => {
                    listening.await;
                    drop(kept);
                }
            }
        });
    }
    drop((endpoints, under_way));
    let _ = tokio::time::timeout(ANSWER_TIME, answered.recv()).await;
}

/// Waits for the client's first byte, and shakes hands where it speaks TLS.
async fn begin(raw: Raw, tls: Option<Arc<Tls>>, slot: &HttpSlot, context: &Context) -> Option<(Socket, HttpVersion)> {
    let beginning = async {
        raw.prepare(context.settings.ping * 2)?;
        // A silent client costs its socket, and no buffer.
        std::future::poll_fn(|cx| raw.poll_read_ready(cx)).await?;
        match tls {
            Some(tls) => tls.accept(raw).await,
            None => Ok((Socket::Plain(raw), HttpVersion::One)),
        }
    };
    let begun = tokio::select! {
        begun = beginning => begun,
        () = slot.over() => return None,
    };
    begun.inspect_err(|error| tracing::debug!(%error, "the client is gone")).ok()
}

/// Carries HTTP until a request is accepted as a listener's, or the connection ends. Returns the socket, what the
/// client sent behind the request, and the request.
async fn serve<S, B>(
    socket: Socket,
    arrival: Arrival,
    service: S,
    slot: &Arc<HttpSlot>,
    mut open: watch::Receiver<Open>,
) -> Option<(Socket, Bytes, Accepted)>
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Send + Unpin + 'static,
    S::Future: Send,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let over = slot.over();
    tokio::pin!(over);
    let handoff = Handoff::new(slot.is_reserved());
    let handed = {
        let (handoff, slot) = (handoff.clone(), slot.clone());
        service_fn(move |mut request: Request<Incoming>| {
            let version = request.version();
            request.extensions_mut().insert(version);
            request.extensions_mut().insert(arrival);
            request.extensions_mut().insert(handoff.clone());
            request.extensions_mut().insert(slot.ambiguity());
            let (answering, answer) = (slot.request(), service.call(request));
            async move {
                let answer = answer.await;
                drop(answering);
                answer
            }
        })
    };
    // Boxed: the HTTP state is large, and a listener's connection must not keep room for it. It has no timer of its
    // own, as the slot has one.
    let mut http = Box::new(
        http1::Builder::new()
            .header_read_timeout(None)
            .max_buf_size(HEAD_BYTES)
            .keep_alive(!slot.is_reserved())
            .serve_connection(TokioIo::new(slot.track(socket)), handed),
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
                return None;
            }
            () = &mut over => {
                tracing::debug!("an HTTP connection is late, or gives way to another");
                return None;
            }
            _ = open.wait_for(|open| !open.admits(arrival.door)), if !stopping => {
                stopping = true;
                std::pin::Pin::new(&mut *http).graceful_shutdown();
            }
        }
    };
    let parts = http.into_parts();
    Some((parts.io.into_inner().into_inner(), parts.read_buf, accepted))
}
