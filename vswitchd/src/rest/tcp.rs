//! Serves TCP: TLS where it is configured, tokens, and a limit on the connections of an address.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::{Router, middleware};
use nix::sys::socket::{setsockopt, sockopt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;

use super::auth::{self, Tokens};
use super::connections::{self, Connections, HEAD_TIMEOUT, LimitedRoutes, Refusals, next};
use super::peer::Peer;
use super::serve::ServeError;
use super::tls::Certificate;
use crate::supervise::{Beats, Ended};

/// After how long a silent client is probed, and for how long it may leave data or probes
/// unanswered: a watch of a machine that lost its power must not be held for ever.
const PROBE_AFTER_SECONDS: u32 = 30;
const UNANSWERED_MILLIS: u32 = 90_000;

/// How TCP clients are served.
#[derive(Debug, Clone)]
pub struct TcpOptions {
    /// Files of certificate chain and key; `None`: plain HTTP.
    pub certificate: Option<(PathBuf, PathBuf)>,
    /// File of the token that may do all; `None`: everybody may.
    pub token_file: Option<PathBuf>,
    /// File of the tokens of member nodes.
    pub member_token_file: Option<PathBuf>,
    /// Most connections of an address at a time.
    pub max_connections: usize,
}

/// What all connections share.
#[derive(Debug)]
pub struct TcpServer {
    certificate: Option<Certificate>,
    tokens: Option<Arc<Tokens>>,
    max_connections: usize,
}

impl TcpServer {
    /// Reads certificate and tokens.
    ///
    /// # Errors
    /// [`ServeError::ReadCredentials`].
    pub fn open(options: TcpOptions) -> Result<Self, ServeError> {
        let fail = |problem| ServeError::ReadCredentials { problem };
        let certificate = options
            .certificate
            .map(|(chain, key)| Certificate::open(chain, key))
            .transpose()
            .map_err(fail)?;
        let members = options.member_token_file;
        let tokens = options
            .token_file
            .map(|file| Tokens::open(file, members))
            .transpose()
            .map_err(fail)?;
        Ok(Self {
            certificate,
            tokens: tokens.map(Arc::new),
            max_connections: options.max_connections,
        })
    }

    /// Serves until `stop` turns true, then lets requests under way finish.
    pub async fn serve(
        self: Arc<Self>,
        listener: TcpListener,
        router: Router,
        stop: watch::Receiver<bool>,
        beat: Beats,
    ) -> Ended {
        let router = match &self.tokens {
            Some(tokens) => router.layer(middleware::from_fn_with_state(
                Arc::clone(tokens),
                auth::require_token,
            )),
            None => router,
        };
        let routes = LimitedRoutes::new(router);
        let slots = Arc::new(Semaphore::new(self.max_connections));
        let mut connections = Connections::default();
        let mut refusals = Refusals::default();
        loop {
            let Some(stream) = next(accept(&listener), &stop, &beat).await else {
                break;
            };
            let Ok(slot) = Arc::clone(&slots).try_acquire_owned() else {
                if refusals.is_news() {
                    let limit = self.max_connections;
                    tracing::warn!(limit, "too many connections over TCP");
                }
                continue;
            };
            let (server, routes, stop) = (Arc::clone(&self), routes.clone(), stop.clone());
            connections.start(async move {
                server.serve_connection(stream, routes, stop).await;
                drop(slot);
            });
        }
        drop(listener);
        beat.wait(connections.ended()).await;
        Ended::AsTold
    }

    async fn serve_connection(
        &self,
        stream: TcpStream,
        routes: LimitedRoutes,
        stop: watch::Receiver<bool>,
    ) {
        give_up_on_the_dead(&stream);
        let Some(certificate) = &self.certificate else {
            return connections::serve(stream, routes, Peer::OVER_TCP, stop).await;
        };
        let handshake = certificate.acceptor().accept(stream);
        match timeout(HEAD_TIMEOUT, handshake).await {
            Ok(Ok(stream)) => connections::serve(stream, routes, Peer::OVER_TCP, stop).await,
            Ok(Err(error)) => tracing::debug!(%error, "TLS handshake failed"),
            Err(_) => tracing::debug!("TLS handshake took too long"),
        }
    }
}

/// Waits for the next connection; a failure is one of that connection, or a lack of
/// descriptors, which takes others to end.
async fn accept(listener: &TcpListener) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return stream,
            Err(error) if is_of_the_connection(&error) => {}
            Err(error) => {
                tracing::error!(%error, "accepting a connection over TCP failed");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

fn is_of_the_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
    )
}

fn give_up_on_the_dead(stream: &TcpStream) {
    let set = setsockopt(stream, sockopt::KeepAlive, &true)
        .and_then(|()| setsockopt(stream, sockopt::TcpKeepIdle, &PROBE_AFTER_SECONDS))
        .and_then(|()| setsockopt(stream, sockopt::TcpUserTimeout, &UNANSWERED_MILLIS));
    if let Err(error) = set.and_then(|()| setsockopt(stream, sockopt::TcpNoDelay, &true)) {
        tracing::debug!(%error, "setting options of a TCP connection failed");
    }
}

/// Opens a TCP address.
///
/// # Errors
/// [`ServeError::ListenTcp`].
pub async fn listen_tcp(address: SocketAddr) -> Result<TcpListener, ServeError> {
    TcpListener::bind(address)
        .await
        .map_err(|source| ServeError::ListenTcp { address, source })
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;
    use crate::supervise::{Part, Supervisor, Task};

    async fn serve(max_connections: usize) -> (SocketAddr, watch::Sender<bool>, Task) {
        let options = TcpOptions {
            certificate: None,
            token_file: None,
            member_token_file: None,
            max_connections,
        };
        let listener = listen_tcp("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopping) = watch::channel(false);
        let server = Arc::new(TcpServer::open(options).unwrap());
        let router = Router::new().route("/", axum::routing::get(async || "here"));
        let serve = |beat| server.serve(listener, router, stopping, beat);
        let task = Supervisor::default().task(Part::TcpListener, "", serve);
        (address, stop, task)
    }

    async fn answer(stream: &mut TcpStream) -> String {
        let mut answer = Vec::new();
        // A reset is an end as well.
        let _ = stream.read_to_end(&mut answer).await;
        String::from_utf8(answer).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn who_does_not_finish_a_head_is_cut_off() {
        let (address, _stop, _task) = serve(8).await;
        for sent in ["", "GET / HTTP/1.1\r\nhost: x\r\n"] {
            let mut client = TcpStream::connect(address).await.unwrap();
            client.write_all(sent.as_bytes()).await.unwrap();
            let started = tokio::time::Instant::now();
            let answer = timeout(HEAD_TIMEOUT * 3, answer(&mut client)).await;
            assert!(!answer.unwrap().contains("here"), "{sent:?}");
            assert!(started.elapsed() >= HEAD_TIMEOUT, "{sent:?}");
        }
    }

    #[tokio::test]
    async fn connections_beyond_the_limit_are_closed_until_one_ends() {
        let (address, _stop, _task) = serve(1).await;
        let request = b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
        let mut first = TcpStream::connect(address).await.unwrap();
        let mut second = TcpStream::connect(address).await.unwrap();
        assert_eq!(answer(&mut second).await, "");
        first.write_all(request).await.unwrap();
        assert!(answer(&mut first).await.ends_with("here"));
        let mut third = TcpStream::connect(address).await.unwrap();
        third.write_all(request).await.unwrap();
        assert!(answer(&mut third).await.ends_with("here"));
    }

    #[tokio::test]
    async fn stopping_ends_connections_that_wait_for_a_request() {
        let (address, stop, _task) = serve(1).await;
        let mut idle = TcpStream::connect(address).await.unwrap();
        idle.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
            .await
            .unwrap();
        let mut start = [0; 12];
        idle.read_exact(&mut start).await.unwrap();
        assert_eq!(&start, b"HTTP/1.1 200");
        stop.send_replace(true);
        timeout(Duration::from_secs(5), answer(&mut idle))
            .await
            .unwrap();
    }
}
