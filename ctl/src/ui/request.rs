//! What a browser asks for, and whether it may.

use std::io::{self, Read};

use vswitch_api::client::ClientError;

/// Most bytes before the body (browsers send about 1 KiB), and of the body.
const MAX_HEAD: usize = 16 << 10;
const MAX_BODY: usize = 64 << 10;
const MAX_HEADERS: usize = 64;

/// What the page asks for besides its own files.
const READ: [&str; 4] = [
    "/v1/status",
    "/v1/traffic",
    "/v1/attachments",
    "/v1/flow-records",
];
const ASKED: [&str; 1] = ["/v1/explain"];

/// Headers that the daemon is told of.
const HANDED_ON: [&str; 2] = ["accept", "content-type"];

/// A request.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) method: String,
    pub(super) path: String,
    /// Names in lower case.
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
}

/// Why it is not handed on.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refused {
    pub(super) status: u16,
    pub(super) code: &'static str,
    pub(super) message: String,
}

impl Refused {
    fn new(status: u16, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            code,
            message: message.into(),
        }
    }

    fn malformed(message: impl Into<String>) -> Self {
        Self::new(400, "invalid_request", message)
    }

    pub(super) fn busy() -> Self {
        Self::new(503, "busy", "too many connections at a time")
    }

    pub(super) fn unreachable(error: &ClientError) -> Self {
        Self::new(502, "unreachable", error.to_string())
    }
}

impl Request {
    /// Reads one; what is wrong with it is for the browser, what is wrong with the connection for
    /// nobody.
    pub(super) fn read(mut from: impl Read) -> io::Result<Result<Self, Refused>> {
        let mut bytes = Vec::new();
        let (mut request, length, start) = loop {
            let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
            let mut parsed = httparse::Request::new(&mut headers);
            match parsed.parse(&bytes) {
                Ok(httparse::Status::Complete(start)) => match Self::of(&parsed) {
                    Ok((request, length)) => break (request, length, start),
                    Err(refused) => return Ok(Err(refused)),
                },
                Ok(httparse::Status::Partial) if bytes.len() < MAX_HEAD => {}
                Ok(httparse::Status::Partial) => {
                    return Ok(Err(Refused::malformed(
                        "the head of the request is too long",
                    )));
                }
                Err(error) => return Ok(Err(Refused::malformed(error.to_string()))),
            }
            let mut piece = [0; 2048];
            let read = from.read(&mut piece)?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            bytes.extend_from_slice(piece.get(..read).unwrap_or_default());
        };
        request.body = bytes.split_off(start.min(bytes.len()));
        request.body.truncate(length);
        let mut rest = vec![0; length - request.body.len()];
        from.read_exact(&mut rest)?;
        request.body.append(&mut rest);
        Ok(Ok(request))
    }

    /// The request without its body, and how long that is.
    fn of(parsed: &httparse::Request<'_, '_>) -> Result<(Self, usize), Refused> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let headers: Vec<(String, String)> = parsed
            .headers
            .iter()
            .map(|header| (header.name.to_ascii_lowercase(), text(header.value)))
            .collect();
        let request = Self {
            method: parsed.method.unwrap_or_default().to_owned(),
            path: parsed.path.unwrap_or_default().to_owned(),
            headers,
            body: Vec::new(),
        };
        if request.header("transfer-encoding").is_some() {
            return Err(Refused::malformed("a body without a length is not taken"));
        }
        let length = match request.header("content-length") {
            None => 0,
            Some(given) => given
                .parse()
                .map_err(|_| Refused::malformed(format!("Content-Length: {given:?}")))?,
        };
        if length > MAX_BODY {
            let message = format!("a body of {length} bytes is longer than {MAX_BODY}");
            return Err(Refused::new(413, "too_large", message));
        }
        Ok((request, length))
    }

    fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        let (_, value) = headers.find(|(known, _)| known == name)?;
        Some(value)
    }

    /// Returns what is handed on to the daemon, if that may be.
    pub(super) fn checked(mut self, port: u16, token: &str) -> Result<Self, Refused> {
        // Another name for this address is that of a page elsewhere, which its browser was made to
        // look for here (DNS rebinding).
        let hosts = [format!("127.0.0.1:{port}"), format!("localhost:{port}")];
        let host = self.header("host").unwrap_or_default();
        if !hosts.iter().any(|own| own == host) {
            let message = format!("this is not {host:?}");
            return Err(Refused::new(421, "misdirected", message));
        }
        let (path, _) = self.path.split_once('?').unwrap_or((&self.path, ""));
        let is_file = path == "/ui" || path.starts_with("/ui/");
        let may_be_asked = match self.method.as_str() {
            "GET" => is_file || READ.contains(&path),
            "POST" => ASKED.contains(&path),
            _ => false,
        };
        if !may_be_asked {
            let message = format!("{} {path} is not for the page", self.method);
            return Err(Refused::new(403, "forbidden", message));
        }
        if !is_file && !self.bears(token) {
            let message = "the token of the address that vsctl printed is needed";
            return Err(Refused::new(401, "unauthorized", message));
        }
        self.headers
            .retain(|(name, _)| HANDED_ON.contains(&name.as_str()));
        Ok(self)
    }

    fn bears(&self, token: &str) -> bool {
        let given = self.header("authorization").unwrap_or_default();
        let given = given.strip_prefix("Bearer ").unwrap_or_default().as_bytes();
        let pairs = given.iter().zip(token.as_bytes());
        // Takes as long wherever they differ.
        given.len() == token.len() && pairs.fold(0, |sum, (a, b)| sum | (a ^ b)) == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "00112233445566778899aabbccddeeff";

    fn read(text: &str) -> Result<Request, Refused> {
        Request::read(text.as_bytes()).unwrap()
    }

    fn asked(line: &str, host: &str, token: &str) -> Result<Request, u16> {
        let text = format!(
            "{line} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\nCookie: a=b\r\nAccept: text/event-stream\r\n\r\n"
        );
        let request = read(&text).and_then(|request| request.checked(7000, TOKEN));
        request.map_err(|refused| refused.status)
    }

    #[test]
    fn the_page_s_requests_are_handed_on_without_the_token() {
        let request = asked("GET /v1/flow-records?since=5m", "127.0.0.1:7000", TOKEN).unwrap();
        assert_eq!(request.path, "/v1/flow-records?since=5m");
        let accept = ("accept".to_owned(), "text/event-stream".to_owned());
        assert_eq!(request.headers, [accept]);
        asked("POST /v1/explain", "localhost:7000", TOKEN).unwrap();
        asked("GET /ui/page.js", "localhost:7000", "none").unwrap();
    }

    #[test]
    fn others_are_refused() {
        let host = "127.0.0.1:7000";
        let wrong = TOKEN.replace('f', "e");
        for (line, host, token, status) in [
            ("GET /v1/status", host, "", 401),
            ("GET /v1/status", host, wrong.as_str(), 401),
            ("GET /v1/status", "evil.example:7000", TOKEN, 421),
            ("GET /ui/", "evil.example:7000", TOKEN, 421),
            ("GET /ui/", "127.0.0.1", TOKEN, 421),
            ("DELETE /v1/flows/x", host, TOKEN, 403),
            ("POST /v1/flows", host, TOKEN, 403),
            ("GET /api/v1/pods", host, TOKEN, 403),
            ("GET /v1/status/../flows", host, TOKEN, 403),
            ("OPTIONS /v1/explain", host, TOKEN, 403),
        ] {
            assert_eq!(
                asked(line, host, token).unwrap_err(),
                status,
                "{line} {host}"
            );
        }
    }

    #[test]
    fn bodies_are_read_to_their_length_and_bounded() {
        let head = "POST /v1/explain HTTP/1.1\r\nHost: x\r\n";
        let request = read(&format!("{head}Content-Length: 5\r\n\r\nhello and more")).unwrap();
        assert_eq!(request.body, b"hello");
        let status = |text: String| read(&text).unwrap_err().status;
        assert_eq!(status(format!("{head}Content-Length: 65537\r\n\r\n")), 413);
        assert_eq!(status(format!("{head}Content-Length: -1\r\n\r\n")), 400);
        assert_eq!(
            status(format!("{head}Transfer-Encoding: chunked\r\n\r\n")),
            400
        );
        assert_eq!(
            status(format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(20_000))),
            400
        );
        assert_eq!(status("\u{1}\r\n\r\n".to_owned()), 400);
        let cut = Request::read(format!("{head}Content-Length: 5\r\n\r\nhe").as_bytes());
        assert_eq!(cut.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
