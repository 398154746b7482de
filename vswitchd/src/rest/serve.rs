//! Listeners: the unix socket, and TCP where it is configured.

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use axum::extract::connect_info::Connected;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::serve::IncomingStream;
use axum::{Json, Router};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::watch;
use vswitch_api::v1::{ErrorBody, ErrorDetail};

/// Who is at the other end of a connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer {
    /// User id over the unix socket (SO_PEERCRED); `None` over TCP.
    uid: Option<u32>,
}

impl Peer {
    /// Returns whether it is a process of root on this machine.
    pub(crate) fn is_root(self) -> bool {
        self.uid == Some(0)
    }
}

impl Connected<IncomingStream<'_, UnixListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, UnixListener>) -> Self {
        Self {
            uid: stream
                .io()
                .peer_cred()
                .ok()
                .map(|credentials| credentials.uid()),
        }
    }
}

impl Connected<IncomingStream<'_, TcpListener>> for Peer {
    fn connect_info(_stream: IncomingStream<'_, TcpListener>) -> Self {
        Self { uid: None }
    }
}

/// Why a listener could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Another daemon answers on the socket.
    #[error("another daemon is listening on {path}")]
    SocketInUse {
        /// The socket.
        path: PathBuf,
    },
    /// The socket could not be made.
    #[error("listen on {path}")]
    ListenUnix {
        /// The socket.
        path: PathBuf,
        /// Cause.
        source: io::Error,
    },
    /// The address could not be bound.
    #[error("listen on {address}")]
    ListenTcp {
        /// The address.
        address: SocketAddr,
        /// Cause.
        source: io::Error,
    },
}

/// Opens the unix socket with this mode; a stale one of a daemon that was killed is replaced.
///
/// # Errors
/// [`ServeError::SocketInUse`], [`ServeError::ListenUnix`].
pub fn listen_unix(path: &Path, mode: u32) -> Result<UnixListener, ServeError> {
    let fail = |source| ServeError::ListenUnix {
        path: path.to_owned(),
        source,
    };
    match std::os::unix::net::UnixStream::connect(path) {
        Ok(_) => {
            return Err(ServeError::SocketInUse {
                path: path.to_owned(),
            });
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(_) => std::fs::remove_file(path).map_err(fail)?,
    }
    let listener = UnixListener::bind(path).map_err(fail)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).map_err(fail)?;
    Ok(listener)
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

/// Serves until `stop` turns true, then lets requests under way finish.
///
/// # Errors
/// Fails if the listener does.
pub async fn serve_unix(
    listener: UnixListener,
    router: Router,
    stop: watch::Receiver<bool>,
) -> io::Result<()> {
    let service = router.into_make_service_with_connect_info::<Peer>();
    axum::serve(listener, service)
        .with_graceful_shutdown(stopped(stop))
        .await
}

/// Serves TCP; with a token every request must carry it as a bearer token.
///
/// # Errors
/// Fails if the listener does.
pub async fn serve_tcp(
    listener: TcpListener,
    router: Router,
    token: Option<String>,
    stop: watch::Receiver<bool>,
) -> io::Result<()> {
    let router = match token {
        Some(token) => router.layer(middleware::from_fn_with_state(token, require_token)),
        None => router,
    };
    let service = router.into_make_service_with_connect_info::<Peer>();
    axum::serve(listener, service)
        .with_graceful_shutdown(stopped(stop))
        .await
}

async fn stopped(mut stop: watch::Receiver<bool>) {
    // A closed channel means that the daemon is gone: stop as well.
    let _ = stop.wait_for(|stopped| *stopped).await;
}

async fn require_token(State(token): State<String>, request: Request, next: Next) -> Response {
    let given = request
        .headers()
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.strip_prefix("Bearer "));
    if given.is_some_and(|given| equal_in_constant_time(given.as_bytes(), token.as_bytes())) {
        return next.run(request).await;
    }
    let message = "a bearer token is required on this address".to_owned();
    let body = ErrorBody {
        error: ErrorDetail {
            code: "unauthorized".to_owned(),
            message,
        },
    };
    (StatusCode::UNAUTHORIZED, Json(body)).into_response()
}

/// Compares without telling by its time how far two tokens agree.
fn equal_in_constant_time(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |sum, (x, y)| sum | (x ^ y)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_stale_socket_is_replaced_and_a_live_one_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("api.sock");
        drop(listen_unix(&path, 0o660).unwrap());
        assert!(path.exists(), "a killed daemon leaves its socket");
        let _live = listen_unix(&path, 0o660).unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o660);
        let error = listen_unix(&path, 0o660).unwrap_err();
        assert!(matches!(error, ServeError::SocketInUse { .. }), "{error}");
    }

    #[test]
    fn tokens_are_equal_only_as_a_whole() {
        assert!(equal_in_constant_time(b"secret", b"secret"));
        assert!(!equal_in_constant_time(b"secret", b"secreT"));
        assert!(!equal_in_constant_time(b"secre", b"secret"));
    }
}
