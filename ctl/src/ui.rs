//! `vsctl ui`: hands a browser's requests on to the daemon.
//!
//! The unix socket is guarded by its file mode; a loopback port is open to every user of the machine
//! and to every page in the browser. So each request bears a token that only who sees the printed
//! address has, names this port as its host, and asks for no more than the page does.

mod request;

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Args;
use vswitch_api::client::Stream;

use crate::output::write_out;
use crate::server::Server;
use request::{Refused, Request};

/// Connections at a time; a browser opens six.
const MAX_CONNECTIONS: usize = 32;
/// For a request to come, and for a piece of the answer to be taken.
const PATIENCE: Duration = Duration::from_secs(10);
/// Headers of the daemon's answer that the browser needs.
const HANDED_ON: [&str; 6] = [
    "content-type",
    "content-security-policy",
    "x-content-type-options",
    "referrer-policy",
    "cache-control",
    "location",
];

/// `ui`.
#[derive(Debug, Args)]
pub(crate) struct UiArgs {
    /// Port on 127.0.0.1; 0: any that is free.
    #[arg(long, default_value_t = 0)]
    port: u16,
}

/// Serves until it is interrupted.
pub(crate) fn ui(server: &Server, args: &UiArgs) -> Result<()> {
    // Says now, not in the browser, that the daemon is not there.
    let _status: serde_json::Value = server.get("/v1/status")?;
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, args.port));
    let listener = TcpListener::bind(address).with_context(|| format!("listen on {address}"))?;
    let address = listener.local_addr().context("address of the listener")?;
    let page = Page {
        server,
        port: address.port(),
        token: new_token().context("make a token")?,
        connections: AtomicUsize::new(0),
    };
    write_out(&format!(
        "http://{address}/ui/#token={}\nOpen it in a browser on this machine. It is served until this command is interrupted.\n",
        page.token
    ))?;
    std::thread::scope(|scope| {
        loop {
            let (stream, _) = listener.accept().context("accept a connection")?;
            let is_full = page.connections.fetch_add(1, Ordering::Relaxed) >= MAX_CONNECTIONS;
            let page = &page;
            scope.spawn(move || {
                let served = if is_full {
                    refuse(&stream, &Refused::busy())
                } else {
                    page.serve(&stream)
                };
                // The browser went away: nobody is left to hear of it.
                let _ended = served;
                page.connections.fetch_sub(1, Ordering::Relaxed);
            });
        }
    })
}

/// A random token, as hexadecimal digits.
fn new_token() -> io::Result<String> {
    let mut bytes = [0; 16];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

struct Page<'a> {
    server: &'a Server,
    port: u16,
    token: String,
    connections: AtomicUsize,
}

impl Page<'_> {
    /// Serves the one request of a connection.
    fn serve(&self, stream: &TcpStream) -> io::Result<()> {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let request = Request::read(stream)?;
        let request = match request.and_then(|request| request.checked(self.port, &self.token)) {
            Ok(request) => request,
            Err(refused) => return refuse(stream, &refused),
        };
        let headers: Vec<(&str, &str)> = request
            .headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        let (method, path) = (&request.method, &request.path);
        match self.server.relay(method, path, &headers, &request.body) {
            Ok(answer) => hand_on(stream, answer),
            Err(error) => refuse(stream, &Refused::unreachable(&error)),
        }
    }
}

fn hand_on(mut to: &TcpStream, mut answer: Stream) -> io::Result<()> {
    let mut head = format!("HTTP/1.1 {} -\r\nConnection: close\r\n", answer.status());
    for name in HANDED_ON {
        if let Some(value) = answer.header(name) {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
    }
    head.push_str("\r\n");
    to.write_all(head.as_bytes())?;
    while let Some(piece) = answer.next_piece().map_err(io::Error::other)? {
        to.write_all(&piece)?;
    }
    Ok(())
}

fn refuse(mut to: &TcpStream, refused: &Refused) -> io::Result<()> {
    let body = serde_json::json!({ "error": { "code": refused.code, "message": refused.message } });
    let body = body.to_string();
    let (status, length) = (refused.status, body.len());
    let head = format!(
        "HTTP/1.1 {status} -\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
    );
    to.write_all(head.as_bytes())?;
    to.write_all(body.as_bytes())
}
