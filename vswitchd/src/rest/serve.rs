//! The unix socket, and what may go wrong with a listener.

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use axum::Router;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;

use super::connections::{self, Connections, LimitedRoutes, Refusals, Slots, next};
use super::peer::Peer;
use crate::supervise::{Beats, Ended};

/// Connections of one process at a time. Those of a user are bounded by `api.max_connections`, as
/// those of a TCP address are.
const MAX_OF_A_PROCESS: usize = 64;

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
    /// Certificate or tokens are not usable.
    #[error("credentials of the TCP listener: {problem}")]
    ReadCredentials {
        /// The file and what is wrong with it.
        problem: String,
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

/// Serves until `stop` turns true, then lets requests under way finish. A user may have
/// `max_connections` at a time, of whom the kernel says who they are.
pub async fn serve_unix(
    listener: UnixListener,
    router: Router,
    max_connections: usize,
    stop: watch::Receiver<bool>,
    beat: Beats,
) -> Ended {
    let routes = LimitedRoutes::new(router);
    let (users, processes) = (Slots::new(max_connections), Slots::new(MAX_OF_A_PROCESS));
    let mut connections = Connections::default();
    let mut refusals = Refusals::default();
    loop {
        let Some(stream) = next(accept(&listener), &stop, &beat).await else {
            break;
        };
        // Without credentials the peer has gone already.
        let Ok(credentials) = stream.peer_cred() else {
            continue;
        };
        let (uid, pid) = (credentials.uid(), credentials.pid());
        let (Some(user), Some(process)) = (users.take(uid), processes.take(pid)) else {
            if refusals.is_news() {
                tracing::warn!(uid, pid, "too many connections over the unix socket");
            }
            continue;
        };
        let (routes, stop) = (routes.clone(), stop.clone());
        connections.start(async move {
            connections::serve(stream, routes, Peer::with_uid(uid), stop).await;
            drop((user, process));
        });
    }
    drop(listener);
    beat.wait(connections.ended()).await;
    Ended::AsTold
}

/// Waits for the next connection; what fails is a lack of descriptors, which takes others to end.
async fn accept(listener: &UnixListener) -> UnixStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return stream,
            Err(error) => {
                tracing::error!(%error, "accepting a connection over the unix socket failed");
                tokio::time::sleep(ACCEPT_AGAIN_AFTER).await;
            }
        }
    }
}

/// Pause before a connection is accepted again.
const ACCEPT_AGAIN_AFTER: std::time::Duration = std::time::Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::time::{Instant, timeout};

    use super::*;
    use crate::supervise::{Part, Supervisor, Task};

    struct Server {
        path: PathBuf,
        _folder: tempfile::TempDir,
        _stop: watch::Sender<bool>,
        _task: Task,
    }

    fn serve(max_connections: usize) -> Server {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("api.sock");
        let listener = listen_unix(&path, 0o660).unwrap();
        let (stop, stopping) = watch::channel(false);
        let echo = axum::routing::post(async |body: String| body);
        let large = axum::routing::get(async || "x".repeat(8 << 20));
        let router = Router::new().route("/", echo).route("/large", large);
        let run = move |beat| serve_unix(listener, router, max_connections, stopping, beat);
        Server {
            path,
            _folder: folder,
            _stop: stop,
            _task: Supervisor::default().task(Part::UnixListener, "", run),
        }
    }

    async fn ask(server: &Server, sent: &str) -> UnixStream {
        let mut client = UnixStream::connect(&server.path).await.unwrap();
        // One that is refused may be closed before it has said anything.
        let _ = client.write_all(sent.as_bytes()).await;
        client
    }

    async fn answer(client: &mut UnixStream) -> String {
        let mut answer = Vec::new();
        let _ = client.read_to_end(&mut answer).await;
        String::from_utf8(answer).unwrap()
    }

    const POST: &str =
        "POST / HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 4\r\n\r\n";

    #[tokio::test(start_paused = true)]
    async fn who_does_not_finish_a_head_or_a_body_is_cut_off() {
        let server = serve(8);
        for (sent, seconds, status) in [
            ("", 10, ""),
            ("POST / HTTP/1.1\r\nhost: x\r\n", 10, ""),
            (&format!("{POST}ab"), 30, "HTTP/1.1 408"),
        ] {
            let started = Instant::now();
            let mut client = ask(&server, sent).await;
            let answer = timeout(Duration::from_secs(120), answer(&mut client)).await;
            let answer = answer.expect("the connection ends");
            assert!(answer.starts_with(status), "{sent:?}: {answer}");
            let took = started.elapsed().as_secs();
            assert!((seconds..seconds + 5).contains(&took), "{sent:?}: {took} s");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_takes_nothing_of_an_answer_is_cut_off() {
        let server = serve(1);
        let _deaf = ask(&server, "GET /large HTTP/1.1\r\nhost: x\r\n\r\n").await;
        // Its slot is free again only when its connection has ended.
        let freed = async {
            loop {
                let mut client = ask(&server, &format!("{POST}here")).await;
                if answer(&mut client).await.ends_with("here") {
                    return;
                }
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        };
        let started = Instant::now();
        timeout(Duration::from_secs(300), freed).await.unwrap();
        assert!(started.elapsed() >= Duration::from_secs(50));
    }

    #[tokio::test]
    async fn a_process_has_so_many_connections_and_no_more() {
        let server = serve(1024);
        let mut held = Vec::new();
        for _ in 0..MAX_OF_A_PROCESS {
            held.push(ask(&server, "").await);
        }
        let mut refused = ask(&server, &format!("{POST}here")).await;
        assert_eq!(answer(&mut refused).await, "");
        drop(held.pop());
        let served = async {
            loop {
                let mut client = ask(&server, &format!("{POST}here")).await;
                if answer(&mut client).await.ends_with("here") {
                    return;
                }
            }
        };
        timeout(Duration::from_secs(5), served).await.unwrap();
    }

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
}
