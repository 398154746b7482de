#![allow(clippy::disallowed_methods, reason = "servers of a test end with it")]

use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::JoinHandle;

use super::*;

static SOCKETS: AtomicU32 = AtomicU32::new(0);

/// A server that answers one connection with prepared bytes and returns what it was sent.
struct OneShot {
    path: PathBuf,
    thread: Option<JoinHandle<String>>,
}

impl OneShot {
    fn answering(pieces: &[&[u8]]) -> Self {
        let pieces: Vec<Vec<u8>> = pieces.iter().map(|piece| piece.to_vec()).collect();
        Self::serving(move |mut peer| {
            let request = read_request(&mut peer);
            for piece in pieces {
                // The client may have given up on a hostile answer already.
                if peer.write_all(&piece).and_then(|()| peer.flush()).is_err() {
                    break;
                }
            }
            request
        })
    }

    fn serving(serve: impl FnOnce(UnixStream) -> String + Send + 'static) -> Self {
        let number = SOCKETS.fetch_add(1, Ordering::Relaxed);
        let name = format!("vswitch-client-{}-{number}.sock", std::process::id());
        let path = std::env::temp_dir().join(name);
        let listener = UnixListener::bind(&path).unwrap();
        let thread = std::thread::spawn(move || serve(listener.accept().unwrap().0));
        Self {
            path,
            thread: Some(thread),
        }
    }

    fn client(&self) -> Client {
        Client::new(&self.path).with_timeout(Duration::from_secs(5))
    }

    fn request(mut self) -> String {
        self.thread.take().unwrap().join().unwrap()
    }
}

impl Drop for OneShot {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

fn read_request(peer: &mut impl Read) -> String {
    let mut request = Vec::new();
    let mut chunk = [0u8; 1024];
    loop {
        let len = peer.read(&mut chunk).unwrap();
        request.extend_from_slice(&chunk[..len]);
        let text = String::from_utf8_lossy(&request);
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("Content-Length: "))
                .map_or(0, |value| value.parse().unwrap());
            if body.len() >= length {
                return text.into_owned();
            }
        }
        assert!(len > 0, "request ended early: {text}");
    }
}

fn get(pieces: &[&[u8]]) -> Result<Response, ClientError> {
    OneShot::answering(pieces)
        .client()
        .request("GET", "/", &[], b"")
}

#[test]
fn body_with_length_is_read_whole_and_no_further() {
    let answer = get(&[
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-A: b\r\n\r\nhel",
        b"lo, more",
    ])
    .unwrap();
    assert_eq!(
        (answer.status, answer.body.as_slice()),
        (200, &b"hello"[..])
    );
    assert_eq!(answer.header("x-a"), Some("b"));
    assert!(answer.is_success());
}

#[test]
fn chunked_body_is_put_together() {
    let answer = get(&[
        b"HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"3;ext=1\r\nab",
        b"c\r\n0A\r\n0123456789\r\n0\r\nTrailer: x\r\n\r\n",
    ])
    .unwrap();
    assert_eq!(
        (answer.status, answer.body.as_slice()),
        (201, &b"abc0123456789"[..])
    );
}

#[test]
fn body_without_framing_ends_with_the_connection() {
    assert_eq!(get(&[b"HTTP/1.1 200 OK\r\n\r\nall"]).unwrap().body, b"all");
    assert_eq!(
        get(&[b"HTTP/1.1 204 No Content\r\n\r\nnot a body"])
            .unwrap()
            .body,
        b""
    );
}

#[test]
fn informational_answers_are_skipped() {
    let answer =
        get(&[b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"]);
    assert_eq!(answer.unwrap().status, 404);
}

#[test]
fn request_carries_method_path_headers_token_and_body() {
    let server = OneShot::answering(&[b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"]);
    let client = server.client().with_token("s3cret");
    client
        .request(
            "POST",
            "/v1/cni?x=1",
            &[("Accept", "application/json")],
            b"{}",
        )
        .unwrap();
    assert!(!format!("{client:?}").contains("s3cret"));
    let request = server.request();
    assert!(
        request.starts_with("POST /v1/cni?x=1 HTTP/1.1\r\n"),
        "{request}"
    );
    for line in [
        "Accept: application/json",
        "Authorization: Bearer s3cret",
        "Content-Length: 2",
    ] {
        assert!(request.contains(line), "{request}");
    }
    assert!(request.ends_with("\r\n\r\n{}"), "{request}");
}

#[test]
fn hostile_answers_are_protocol_errors() {
    let endless_head = [b"HTTP/1.1 200 OK\r\nA: ".as_slice(), &[b'a'; 70_000]].concat();
    let hostile: [&[u8]; 14] = [
        b"",
        b"garbage\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: +1\r\n\r\na",
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999999\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1ffffffffffffffff\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc\r\n0\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
        &endless_head,
    ];
    for answer in hostile {
        let error = get(&[answer]).unwrap_err();
        let shown = String::from_utf8_lossy(&answer[..answer.len().min(90)]);
        assert!(
            matches!(error, ClientError::Protocol { .. }),
            "{shown:?}: {error:?}"
        );
    }
}

#[test]
fn body_over_the_limit_is_refused() {
    let server = OneShot::answering(&[b"HTTP/1.1 200 OK\r\n\r\n", &[b'x'; 2000]]);
    let error = server
        .client()
        .with_body_limit(1000)
        .request("GET", "/", &[], b"")
        .unwrap_err();
    assert!(
        matches!(
            error,
            ClientError::TooLarge {
                limit_bytes: 1000,
                ..
            }
        ),
        "{error:?}"
    );
}

#[test]
fn trickling_server_meets_the_deadline() {
    let server = OneShot::serving(|mut peer| {
        let request = read_request(&mut peer);
        let mut sent = peer.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n");
        while sent.is_ok() {
            std::thread::park_timeout(Duration::from_millis(20));
            sent = peer.write_all(b"x");
        }
        request
    });
    let client = server.client().with_timeout(Duration::from_millis(200));
    let error = client.request("GET", "/", &[], b"").unwrap_err();
    assert!(matches!(error, ClientError::Timeout { .. }), "{error:?}");
}

#[test]
fn errors_say_what_to_do() {
    let missing = Client::new("/nonexistent/api.sock")
        .request("GET", "/", &[], b"")
        .unwrap_err();
    assert!(
        missing
            .to_string()
            .contains("is vswitchd running? (socket /nonexistent/api.sock)")
    );
    let mut server = OneShot::answering(&[]);
    let path = server.path.clone();
    let _ = server.client().request("GET", "/", &[], b"");
    // Its listener is closed when its thread has ended, and not before.
    server.thread.take().unwrap().join().unwrap();
    let refused = Client::new(&path)
        .request("GET", "/", &[], b"")
        .unwrap_err();
    assert!(
        matches!(refused, ClientError::Refused { .. }),
        "{refused:?}"
    );
    assert!(refused.to_string().contains("is vswitchd running?"));
}

#[test]
fn request_parts_that_would_split_the_request_are_refused() {
    let client = Client::new("/nonexistent");
    let injected = [("X", "a\r\nEvil: 1")];
    for (method, path, headers) in [
        ("GET /", "/", &[][..]),
        ("GET", "/a b", &[]),
        ("GET", "relative", &[]),
        ("GET", "/", &injected),
        ("GET", "/", &[("A:", "b")]),
    ] {
        let error = client.request(method, path, headers, b"").unwrap_err();
        assert!(matches!(error, ClientError::Request { .. }), "{error:?}");
    }
}

#[test]
fn stream_yields_lines_as_they_come() {
    let server = OneShot::answering(&[
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"6\r\none\ntw\r\n",
        b"3\r\no\r\n\r\n4\r\nlast\r\n0\r\n\r\n",
    ]);
    let stream = server.client().stream("GET", "/watch", &[], b"").unwrap();
    assert_eq!(stream.status(), 200);
    let lines: Vec<Vec<u8>> = stream.map(Result::unwrap).collect();
    assert_eq!(lines, [&b"one"[..], b"two", b"last"]);
}

#[test]
fn stream_that_breaks_off_ends_with_one_error() {
    let server = OneShot::answering(&[b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\na\nb"]);
    let mut stream = server.client().stream("GET", "/", &[], b"").unwrap();
    assert_eq!(stream.next().unwrap().unwrap(), b"a");
    assert!(stream.next().unwrap().is_err());
    assert!(stream.next().is_none());
}

#[test]
fn stream_of_an_error_status_becomes_a_response() {
    let server = OneShot::answering(&[b"HTTP/1.1 410 Gone\r\nContent-Length: 4\r\n\r\ngone"]);
    let answer = server
        .client()
        .stream("GET", "/", &[], b"")
        .unwrap()
        .into_response()
        .unwrap();
    assert_eq!((answer.status, answer.body.as_slice()), (410, &b"gone"[..]));
}

#[test]
fn url_chooses_the_transport() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let server = std::thread::spawn(move || {
        let mut peer = listener.accept().unwrap().0;
        let request = read_request(&mut peer);
        peer.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            .unwrap();
        request
    });
    let answer = Client::from_url(&url)
        .unwrap()
        .request("GET", "/healthz", &[], b"")
        .unwrap();
    assert_eq!(answer.body, b"ok");
    assert!(server.join().unwrap().contains("Host: 127.0.0.1:"));
    for bad in [
        "",
        "ftp://x",
        "https://x",
        "http://",
        "http://a/b",
        "http://a:b",
        "unix://x",
    ] {
        assert!(
            matches!(Client::from_url(bad), Err(ClientError::Url { .. })),
            "{bad}"
        );
    }
    for good in [
        "http://a",
        "http://[::1]:80",
        "http://[::1]",
        "unix:///run/x.sock",
    ] {
        assert!(Client::from_url(good).is_ok(), "{good}");
    }
}
