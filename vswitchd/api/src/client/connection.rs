//! One connection: connect, send, receive the head; every step ends at the deadline.

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use super::framing::Framing;
use super::{ClientError, Server};

/// Largest head (status line and headers) taken; hyper's default is of the same order.
const MAX_HEAD_BYTES: usize = 64 << 10;
const MAX_HEADERS: usize = 100;

/// Informational answers (1xx) skipped before the real one.
const MAX_INFORMATIONAL: usize = 8;

/// Status, headers (names in lower case) and how the body is framed.
pub(super) type Head = (u16, Vec<(String, String)>, Framing);

#[derive(Debug)]
enum Socket {
    Unix(UnixStream),
    Tcp(TcpStream),
}

/// A connected socket with its unread bytes.
#[derive(Debug)]
pub(super) struct Connection {
    socket: Socket,
    server: String,
    unread: Vec<u8>,
    timeout: Duration,
    deadline: Option<Instant>,
}

#[expect(
    clippy::disallowed_methods,
    reason = "a deadline for blocking socket I/O"
)]
fn now() -> Instant {
    Instant::now()
}

impl Connection {
    pub(super) fn open(server: &Server, timeout: Duration) -> Result<Self, ClientError> {
        let deadline = now().checked_add(timeout);
        let (socket, name) = match server {
            Server::Unix(path) => (connect_unix(path, timeout)?, path.display().to_string()),
            Server::Tcp(authority) => (connect_tcp(authority, timeout)?, authority.clone()),
        };
        Ok(Self {
            socket,
            server: name,
            unread: Vec::new(),
            timeout,
            deadline,
        })
    }

    /// From here on reads wait as long as it takes.
    pub(super) fn lift_deadline(&mut self) {
        self.deadline = None;
    }

    pub(super) fn send(&mut self, bytes: &[u8]) -> Result<(), ClientError> {
        let left = self.time_left()?;
        let sent = match &mut self.socket {
            Socket::Unix(socket) => socket
                .set_write_timeout(left)
                .and_then(|()| socket.write_all(bytes)),
            Socket::Tcp(socket) => socket
                .set_write_timeout(left)
                .and_then(|()| socket.write_all(bytes)),
        };
        sent.map_err(|source| match source.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => self.timed_out(),
            _ => ClientError::Send {
                server: self.server.clone(),
                source,
            },
        })
    }

    /// Reads what comes next into the unread bytes; 0 means the peer closed.
    pub(super) fn fill(&mut self) -> Result<usize, ClientError> {
        let mut chunk = [0u8; 16 << 10];
        loop {
            let left = self.time_left()?;
            let read = match &mut self.socket {
                Socket::Unix(socket) => socket
                    .set_read_timeout(left)
                    .and_then(|()| socket.read(&mut chunk)),
                Socket::Tcp(socket) => socket
                    .set_read_timeout(left)
                    .and_then(|()| socket.read(&mut chunk)),
            };
            match read {
                Ok(len) => {
                    self.unread
                        .extend_from_slice(chunk.get(..len).unwrap_or_default());
                    return Ok(len);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
                    ) =>
                {
                    return Err(self.timed_out());
                }
                Err(source) => {
                    return Err(ClientError::Receive {
                        server: self.server.clone(),
                        source,
                    });
                }
            }
        }
    }

    /// Takes up to `limit` of the unread bytes.
    pub(super) fn take_unread(&mut self, limit: usize) -> Vec<u8> {
        let rest = self.unread.split_off(limit.min(self.unread.len()));
        std::mem::replace(&mut self.unread, rest)
    }

    pub(super) fn unread(&self) -> &[u8] {
        &self.unread
    }

    pub(super) fn receive_head(&mut self, to_head_request: bool) -> Result<Head, ClientError> {
        for _ in 0..=MAX_INFORMATIONAL {
            let (status, headers) = self.receive_one_head()?;
            if status >= 200 {
                let framing = Framing::of(status, &headers, to_head_request)
                    .map_err(|problem| self.protocol(problem))?;
                return Ok((status, headers, framing));
            }
        }
        Err(self.protocol("too many informational answers"))
    }

    fn receive_one_head(&mut self) -> Result<(u16, Vec<(String, String)>), ClientError> {
        loop {
            if let Some((len, status, headers)) =
                parse_head(&self.unread).map_err(|problem| self.protocol(problem))?
            {
                self.take_unread(len);
                return Ok((status, headers));
            }
            if self.unread.len() > MAX_HEAD_BYTES {
                return Err(self.protocol("its head is too large"));
            }
            if self.fill()? == 0 {
                return Err(self.protocol("connection closed before the answer was complete"));
            }
        }
    }

    pub(super) fn protocol(&self, problem: impl Into<String>) -> ClientError {
        ClientError::Protocol {
            server: self.server.clone(),
            problem: problem.into(),
        }
    }

    pub(super) fn too_large(&self, limit_bytes: usize) -> ClientError {
        ClientError::TooLarge {
            server: self.server.clone(),
            limit_bytes,
        }
    }

    fn timed_out(&self) -> ClientError {
        ClientError::Timeout {
            server: self.server.clone(),
            seconds: self.timeout.as_secs(),
        }
    }

    fn time_left(&self) -> Result<Option<Duration>, ClientError> {
        let Some(deadline) = self.deadline else {
            return Ok(None);
        };
        let left = deadline.saturating_duration_since(now());
        // A zero timeout would mean "none" to the kernel, and std refuses it.
        if left.is_zero() {
            Err(self.timed_out())
        } else {
            Ok(Some(left))
        }
    }
}

/// Length of the head, status and headers, once the head is complete.
type ParsedHead = Option<(usize, u16, Vec<(String, String)>)>;

fn parse_head(bytes: &[u8]) -> Result<ParsedHead, String> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut response = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(len) =
        response.parse(bytes).map_err(|error| error.to_string())?
    else {
        return Ok(None);
    };
    let status = response.code.unwrap_or_default();
    if !(100..600).contains(&status) || status == 101 {
        return Err(format!("status {status}"));
    }
    let headers = response
        .headers
        .iter()
        .map(|header| {
            let value = String::from_utf8_lossy(header.value).trim().to_owned();
            (header.name.to_ascii_lowercase(), value)
        })
        .collect();
    Ok(Some((len, status, headers)))
}

/// Connects on a helper thread: std has no connect with a timeout for unix sockets, and a
/// wedged daemon whose backlog is full would block the caller for ever. The thread ends
/// when the kernel answers or the process does.
fn connect_unix(path: &Path, timeout: Duration) -> Result<Socket, ClientError> {
    let (sender, receiver) = mpsc::sync_channel(1);
    let target = path.to_path_buf();
    #[expect(
        clippy::disallowed_methods,
        reason = "a client; its end is received or timed out"
    )]
    std::thread::spawn(move || sender.send(UnixStream::connect(target)));
    let server = path.display().to_string();
    let Ok(connected) = receiver.recv_timeout(timeout) else {
        return Err(ClientError::Timeout {
            server,
            seconds: timeout.as_secs(),
        });
    };
    connected
        .map(Socket::Unix)
        .map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => ClientError::SocketMissing {
                path: path.to_path_buf(),
                source,
            },
            io::ErrorKind::PermissionDenied => ClientError::PermissionDenied {
                path: path.to_path_buf(),
                source,
            },
            io::ErrorKind::ConnectionRefused => ClientError::Refused { server, source },
            _ => ClientError::Connect { server, source },
        })
}

fn connect_tcp(authority: &str, timeout: Duration) -> Result<Socket, ClientError> {
    let server = authority.to_owned();
    let addresses = authority
        .to_socket_addrs()
        .map_err(|source| ClientError::Connect {
            server: server.clone(),
            source,
        })?;
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in addresses {
        match TcpStream::connect_timeout(&address, timeout) {
            Ok(socket) => return Ok(Socket::Tcp(socket)),
            Err(error) => last = error,
        }
    }
    Err(match last.kind() {
        io::ErrorKind::ConnectionRefused => ClientError::Refused {
            server,
            source: last,
        },
        _ => ClientError::Connect {
            server,
            source: last,
        },
    })
}
