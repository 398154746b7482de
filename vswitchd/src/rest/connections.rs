//! Limits of a client, over TCP as over the unix socket: connections, time for the head and the
//! body of a request, and time in which it must read some of its answer.
//!
//! The one user of hyper beneath axum, whose own server bounds none of them.

use std::collections::HashMap;
use std::hash::Hash;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{ConnectInfo, Request};
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, Sleep, sleep, timeout};

use super::peer::Peer;
use crate::supervise::Beats;

/// Waits for the next connection that `accept` gives; `None` when `stop` turns true.
pub(super) async fn next<S>(
    accept: impl Future<Output = S>,
    stop: &watch::Receiver<bool>,
    beat: &Beats,
) -> Option<S> {
    let next = async {
        tokio::select! {
            stream = accept => Some(stream),
            () = stopped(stop.clone()) => None,
        }
    };
    beat.wait(next).await
}

/// Waits until the daemon stops.
pub(super) async fn stopped(mut stop: watch::Receiver<bool>) {
    // A closed channel means that the daemon is gone: stop as well.
    let _ = stop.wait_for(|stopped| *stopped).await;
}

/// How long a client may take for its TLS handshake, and for the head of each request: longer
/// than three retransmissions of TCP (RFC 6298: 1 + 2 + 4 s).
pub(super) const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// How long it may take for a body: the largest in half a minute is 100 KiB a second.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// Largest body, bytes: the API server's limit is 3 MiB; routes may have lower ones.
pub(super) const MAX_BODY_BYTES: usize = 3 << 20;

/// For how long a client may take nothing of an answer. A watch without news sends nothing, and
/// waits for nobody.
const TAKE_TIMEOUT: Duration = Duration::from_secs(60);

/// Routes behind the limits. Made once for a listener, not for each connection: a layer is put
/// around every single route, with some allocations for each.
#[derive(Debug, Clone)]
pub(super) struct LimitedRoutes(TowerToHyperService<Router>);

impl LimitedRoutes {
    pub(super) fn new(router: Router) -> Self {
        let limited = router.layer(middleware::from_fn(body_in_time));
        Self(TowerToHyperService::new(limited))
    }
}

/// Serves a connection of `peer` until it ends, or until `stop` turns true and its request is
/// done. Handlers find the peer as [`ConnectInfo`].
pub(super) async fn serve<S>(
    stream: S,
    routes: LimitedRoutes,
    peer: Peer,
    stop: watch::Receiver<bool>,
) where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let handle = service_fn(|mut request: Request<Incoming>| {
        request.extensions_mut().insert(ConnectInfo(peer));
        routes.0.call(request)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(Taken::new(stream)), handle);
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stopped(stop) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "serving a connection failed");
    }
}

/// Connections that are being served: each ends with its client, and none takes others with it.
#[derive(Debug, Default)]
pub(super) struct Connections {
    running: JoinSet<()>,
}

impl Connections {
    /// Serves another one.
    #[expect(
        clippy::disallowed_methods,
        reason = "a connection lasts as long as its client"
    )]
    pub(super) fn start(&mut self, connection: impl Future<Output = ()> + Send + 'static) {
        // Those that have ended would be kept until somebody asks for them.
        while self.running.try_join_next().is_some() {}
        self.running.spawn(connection);
    }

    /// Waits until all have ended.
    pub(super) async fn ended(mut self) {
        while self.running.join_next().await.is_some() {}
    }
}

/// Reads a request's body before it is handled.
async fn body_in_time(request: Request, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    let (status, problem) = match timeout(BODY_TIMEOUT, to_bytes(body, MAX_BODY_BYTES)).await {
        Ok(Ok(body)) => return next.run(Request::from_parts(parts, Body::from(body))).await,
        Ok(Err(_)) => (
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("the body is cut short or longer than {MAX_BODY_BYTES} bytes"),
        ),
        Err(_) => (
            StatusCode::REQUEST_TIMEOUT,
            format!("the body did not end within {} s", BODY_TIMEOUT.as_secs()),
        ),
    };
    // What is left of the body must not be taken for the next request.
    (status, [(header::CONNECTION, "close")], problem).into_response()
}

/// A connection that fails when its peer takes nothing of what is written for too long.
struct Taken<S> {
    stream: S,
    /// Runs while something waits to be taken.
    stalled: Option<Pin<Box<Sleep>>>,
}

impl<S> Taken<S> {
    const fn new(stream: S) -> Self {
        Self {
            stream,
            stalled: None,
        }
    }

    /// Starts, goes on with or ends the time of a write.
    fn watch<T>(
        &mut self,
        context: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let stalled = self
            .stalled
            .get_or_insert_with(|| Box::pin(sleep(TAKE_TIMEOUT)));
        ready!(stalled.as_mut().poll(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Taken<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Taken<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.watch(context, written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        self.watch(context, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, buffers);
        self.watch(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

/// Connections by whom they are of, as many as each may have.
#[derive(Debug)]
pub(super) struct Slots<K: Hash + Eq> {
    limit: usize,
    /// Guards the numbers; held for a look-up.
    held: Arc<Mutex<HashMap<K, usize>>>,
}

impl<K: Hash + Eq + Copy> Slots<K> {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            limit,
            held: Arc::default(),
        }
    }

    /// Takes a slot; `None` if `owner` has as many as it may have.
    pub(super) fn take(&self, owner: K) -> Option<Slot<K>> {
        let mut held = lock(&self.held);
        let count = held.entry(owner).or_default();
        if *count >= self.limit {
            return None;
        }
        *count += 1;
        Some(Slot {
            owner,
            held: Arc::clone(&self.held),
        })
    }
}

/// A slot that is held; given back when this is dropped.
#[derive(Debug)]
pub(super) struct Slot<K: Hash + Eq + Copy> {
    owner: K,
    held: Arc<Mutex<HashMap<K, usize>>>,
}

impl<K: Hash + Eq + Copy> Drop for Slot<K> {
    fn drop(&mut self) {
        let mut held = lock(&self.held);
        if let Some(count) = held.get_mut(&self.owner) {
            *count -= 1;
            if *count == 0 {
                held.remove(&self.owner);
            }
        }
    }
}

/// Every change is a single step, so a panic elsewhere leaves the numbers whole.
fn lock<K>(held: &Mutex<HashMap<K, usize>>) -> MutexGuard<'_, HashMap<K, usize>> {
    held.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Says that a connection was refused, at most once in a while: whoever opens too many should not
/// fill the log as well.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    last: Option<Instant>,
}

impl Refusals {
    const EVERY: Duration = Duration::from_secs(10);

    pub(super) fn is_news(&mut self) -> bool {
        let now = Instant::now();
        let is_news = self.last.is_none_or(|last| now - last >= Self::EVERY);
        if is_news {
            self.last = Some(now);
        }
        is_news
    }
}
