//! A small blocking HTTP/1.1 client over the daemon's unix socket (or plain TCP).
//!
//! `vsctl` and `vswitch-cni` call it. One connection per request, `Connection: close`, no
//! redirects, no TLS. The peer is not trusted: heads and bodies have size limits, framing
//! that contradicts itself is an error, and a request ends at its timeout however slowly
//! the peer trickles. Blocks; not for use inside an async runtime.

mod body;
mod connection;
mod framing;

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use body::Body;
use connection::Connection;

/// Time for a whole request, unless [`Client::with_timeout`] says otherwise.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);

/// Largest body read into memory, unless [`Client::with_body_limit`] says otherwise.
pub const DEFAULT_BODY_LIMIT: usize = 64 << 20;

/// Longest line of a stream: a watch event carries one whole object.
const MAX_LINE_BYTES: usize = 16 << 20;

/// Why a request got no usable answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The base URL is not one the client can use.
    #[error("{url:?} is not a server address ({problem}); write http://HOST:PORT or unix:///PATH")]
    Url {
        /// As given.
        url: String,
        /// What is wrong.
        problem: &'static str,
    },
    /// The unix socket does not exist.
    #[error("no socket {path}: is vswitchd running? (socket {path})", path = path.display())]
    SocketMissing {
        /// The socket.
        path: PathBuf,
        /// Cause.
        source: io::Error,
    },
    /// The socket file is there and nobody listens.
    #[error("nothing listens on {server}: is vswitchd running?")]
    Refused {
        /// Socket path or host and port.
        server: String,
        /// Cause.
        source: io::Error,
    },
    /// The caller may not open the socket.
    #[error(
        "no permission for socket {path}: run as root or join the group that owns it",
        path = path.display()
    )]
    PermissionDenied {
        /// The socket.
        path: PathBuf,
        /// Cause.
        source: io::Error,
    },
    /// Any other failure to connect.
    #[error("connect to {server}")]
    Connect {
        /// Socket path or host and port.
        server: String,
        /// Cause.
        source: io::Error,
    },
    /// Method, path or a header holds bytes that would break the request apart.
    #[error("request {part} {text:?} has characters that HTTP does not allow there")]
    Request {
        /// Which part.
        part: &'static str,
        /// As given.
        text: String,
    },
    /// The request could not be sent.
    #[error("send request to {server}")]
    Send {
        /// Socket path or host and port.
        server: String,
        /// Cause.
        source: io::Error,
    },
    /// The answer could not be read.
    #[error("read answer of {server}")]
    Receive {
        /// Socket path or host and port.
        server: String,
        /// Cause.
        source: io::Error,
    },
    /// No complete answer in time.
    #[error("{server} did not answer within {seconds} s; its log may say why")]
    Timeout {
        /// Socket path or host and port.
        server: String,
        /// The limit.
        seconds: u64,
    },
    /// The answer is not HTTP/1.1 as this client understands it.
    #[error("{server} does not answer in HTTP/1.1: {problem}")]
    Protocol {
        /// Socket path or host and port.
        server: String,
        /// What is wrong.
        problem: String,
    },
    /// The body is larger than the limit.
    #[error("answer of {server} is larger than {limit_bytes} bytes")]
    TooLarge {
        /// Socket path or host and port.
        server: String,
        /// The limit.
        limit_bytes: usize,
    },
}

/// A complete answer.
#[derive(Debug, Clone)]
pub struct Response {
    /// Status code.
    pub status: u16,
    /// Header names in lower case, values as text (bytes that are no UTF-8 replaced).
    pub headers: Vec<(String, String)>,
    /// The body, transfer coding removed.
    pub body: Vec<u8>,
}

impl Response {
    /// Returns the first header of that name, in any case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        find_header(&self.headers, name)
    }

    /// Returns whether the status is 2xx.
    #[must_use]
    pub const fn is_success(&self) -> bool {
        self.status >= 200 && self.status < 300
    }
}

#[derive(Debug, Clone)]
enum Server {
    Unix(PathBuf),
    /// `host:port` as dialled; IPv6 hosts in brackets.
    Tcp(String),
}

/// A client for one server.
#[derive(Clone)]
pub struct Client {
    server: Server,
    token: Option<String>,
    timeout: Duration,
    body_limit: usize,
}

impl std::fmt::Debug for Client {
    /// Leaves the token out: clients end up in logs.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client")
            .field("server", &self.server)
            .finish_non_exhaustive()
    }
}

impl Client {
    /// Makes a client of the daemon behind a unix socket.
    #[must_use]
    pub fn new(socket_path: impl Into<PathBuf>) -> Self {
        Self::of(Server::Unix(socket_path.into()))
    }

    /// Makes a client from `http://HOST:PORT` (port 80 if absent) or `unix:///PATH`.
    ///
    /// # Errors
    /// [`ClientError::Url`].
    pub fn from_url(url: &str) -> Result<Self, ClientError> {
        let fail = |problem| ClientError::Url {
            url: url.to_owned(),
            problem,
        };
        if let Some(path) = url.strip_prefix("unix://") {
            let absolute = path.starts_with('/');
            return if absolute {
                Ok(Self::new(path))
            } else {
                Err(fail("path is not absolute"))
            };
        }
        if url.starts_with("https://") {
            return Err(fail(
                "TLS is not spoken; use the unix socket or a local proxy",
            ));
        }
        let rest = url
            .strip_prefix("http://")
            .ok_or_else(|| fail("unknown scheme"))?;
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"-._:[]%".contains(&b);
        if authority.is_empty() || !authority.bytes().all(is_plain) {
            return Err(fail("host and port expected, no path"));
        }
        Ok(Self::of(Server::Tcp(
            with_port(authority).ok_or_else(|| fail("port is not a number"))?,
        )))
    }

    fn of(server: Server) -> Self {
        Self {
            server,
            token: None,
            timeout: DEFAULT_TIMEOUT,
            body_limit: DEFAULT_BODY_LIMIT,
        }
    }

    /// Sends `Authorization: Bearer …` with each request.
    #[must_use]
    pub fn with_token(mut self, token: impl Into<String>) -> Self {
        self.token = Some(token.into());
        self
    }

    /// Sets the time for a whole request; for a stream, the time until its head.
    #[must_use]
    pub const fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Sets the largest body that [`Self::request`] takes.
    #[must_use]
    pub const fn with_body_limit(mut self, limit_bytes: usize) -> Self {
        self.body_limit = limit_bytes;
        self
    }

    /// Makes one request and reads the whole answer. Blocks.
    ///
    /// # Errors
    /// Each variant of [`ClientError`] but `Url`. A status of 4xx or 5xx is an answer, no error.
    pub fn request(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Result<Response, ClientError> {
        self.open(method, path, headers, body)?.into_response()
    }

    /// Makes one request and returns the answer as lines, as they come (watches, server-sent
    /// events). Reading a line blocks without limit; check [`Stream::status`] first.
    ///
    /// # Errors
    /// Those of [`Self::request`] up to the head of the answer.
    pub fn stream(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Result<Stream, ClientError> {
        self.open(method, path, headers, body)
    }

    fn open(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Result<Stream, ClientError> {
        let head = self.request_head(method, path, headers, body.len())?;
        let mut connection = Connection::open(&self.server, self.timeout)?;
        // A server may answer and close before it read all (413, a restart): what it said is
        // worth more than the broken pipe.
        let sent = connection.send(&head).and_then(|()| connection.send(body));
        let received = connection.receive_head(method == "HEAD");
        let (status, headers, framing) = match (sent, received) {
            (Err(send), Err(_)) => return Err(send),
            (_, received) => received?,
        };
        Ok(Stream {
            status,
            headers,
            body: Body::new(connection, framing),
            line: Vec::new(),
            searched: 0,
            body_limit: self.body_limit,
            ended: false,
        })
    }

    fn request_head(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body_len: usize,
    ) -> Result<Vec<u8>, ClientError> {
        let fail = |part, text: &str| ClientError::Request {
            part,
            text: text.to_owned(),
        };
        let is_token = |text: &str| {
            !text.is_empty()
                && text
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
        };
        if !is_token(method) {
            return Err(fail("method", method));
        }
        if !path.starts_with('/') || !path.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(fail("path", path));
        }
        let host = match &self.server {
            Server::Unix(_) => "localhost",
            Server::Tcp(authority) => authority,
        };
        let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n");
        let authorization = self.token.as_ref().map(|token| format!("Bearer {token}"));
        let authorization = authorization
            .iter()
            .map(|value| ("Authorization", value.as_str()));
        for (name, value) in headers.iter().copied().chain(authorization) {
            let value_ok = value
                .bytes()
                .all(|b| b == b'\t' || (b >= 0x20 && b != 0x7f));
            if !is_token(name) {
                return Err(fail("header", name));
            }
            if !value_ok {
                // The value may be a token of the operator: it stays out of the message.
                return Err(fail("value of header", name));
            }
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if body_len > 0 || matches!(method, "POST" | "PUT" | "PATCH") {
            head.push_str(&format!("Content-Length: {body_len}\r\n"));
        }
        head.push_str("\r\n");
        Ok(head.into_bytes())
    }
}

fn with_port(authority: &str) -> Option<String> {
    let after_brackets = authority
        .rsplit_once(']')
        .map_or(authority, |(_, rest)| rest);
    match after_brackets.rsplit_once(':') {
        Some((_, port)) => port.parse::<u16>().ok().map(|_| authority.to_owned()),
        None => Some(format!("{authority}:80")),
    }
}

fn find_header<'a>(headers: &'a [(String, String)], name: &str) -> Option<&'a str> {
    headers
        .iter()
        .find(|(known, _)| known.eq_ignore_ascii_case(name))
        .map(|(_, v)| v.as_str())
}

/// An answer whose body is read line by line, or piece by piece.
///
/// Iterates over lines without their `\n` or `\r\n`; the last line may lack its end. After an
/// error the iteration is over.
#[derive(Debug)]
pub struct Stream {
    status: u16,
    headers: Vec<(String, String)>,
    body: Body,
    line: Vec<u8>,
    /// So much of `line` holds no line end: a long line is not searched from its start again.
    searched: usize,
    body_limit: usize,
    ended: bool,
}

impl Stream {
    /// Returns the status code.
    #[must_use]
    pub const fn status(&self) -> u16 {
        self.status
    }

    /// Returns the first header of that name, in any case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        find_header(&self.headers, name)
    }

    /// Returns the next bytes of the body as they come, never none; `None` at its end. Blocks without
    /// limit. Not for an answer that is read by lines.
    ///
    /// # Errors
    /// [`ClientError::Receive`], `Protocol`.
    pub fn next_piece(&mut self) -> Result<Option<Vec<u8>>, ClientError> {
        self.body.lift_deadline();
        self.body.next_piece()
    }

    /// Reads the rest of the body, for instance the explanation beside a status of 4xx.
    ///
    /// # Errors
    /// [`ClientError::Receive`], `Timeout`, `Protocol`, `TooLarge`.
    pub fn into_response(mut self) -> Result<Response, ClientError> {
        let mut collected = std::mem::take(&mut self.line);
        while let Some(piece) = self.body.next_piece()? {
            if collected.len() + piece.len() > self.body_limit {
                return Err(self.body.too_large(self.body_limit));
            }
            collected.extend_from_slice(&piece);
        }
        Ok(Response {
            status: self.status,
            headers: self.headers,
            body: collected,
        })
    }

    fn take_line(&mut self) -> Option<Vec<u8>> {
        let fresh = self.line.get(self.searched..).unwrap_or_default();
        let Some(end) = fresh.iter().position(|b| *b == b'\n') else {
            self.searched = self.line.len();
            return None;
        };
        let end = self.searched + end;
        self.searched = 0;
        let rest = self.line.split_off(end + 1);
        let mut line = std::mem::replace(&mut self.line, rest);
        line.pop();
        if line.last() == Some(&b'\r') {
            line.pop();
        }
        Some(line)
    }

    fn read_more(&mut self) -> io::Result<bool> {
        match self.body.next_piece().map_err(io::Error::other)? {
            Some(piece) => {
                self.line.extend_from_slice(&piece);
                Ok(true)
            }
            None => Ok(false),
        }
    }
}

impl Iterator for Stream {
    type Item = io::Result<Vec<u8>>;

    fn next(&mut self) -> Option<Self::Item> {
        // The timeout covered the head; events may be hours apart.
        self.body.lift_deadline();
        while !self.ended {
            if let Some(line) = self.take_line() {
                return Some(Ok(line));
            }
            if self.line.len() > MAX_LINE_BYTES {
                self.ended = true;
                self.line.clear();
                return Some(Err(io::Error::other(self.body.too_large(MAX_LINE_BYTES))));
            }
            match self.read_more() {
                Ok(true) => {}
                Ok(false) => self.ended = true,
                Err(error) => {
                    self.ended = true;
                    self.line.clear();
                    return Some(Err(error));
                }
            }
        }
        (!self.line.is_empty()).then(|| Ok(std::mem::take(&mut self.line)))
    }
}

#[cfg(test)]
mod tests;
