//! The daemon as `vsctl` sees it: requests, and errors that say what to do.

use std::path::Path;

use anyhow::{Context as _, Result};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use vswitch_api::client::{Client, ClientError, Stream};
use vswitch_api::v1::ErrorBody;

/// The daemon answered, but not with a success.
#[derive(Debug)]
pub(crate) struct Refusal {
    /// HTTP status.
    pub(crate) status: u16,
    /// What the daemon said.
    pub(crate) message: String,
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Refusal {}

/// Returns whether the daemon said that the thing does not exist.
pub(crate) fn is_not_found(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<Refusal>()
        .is_some_and(|refusal| refusal.status == 404)
}

/// A connection to the daemon's API.
#[derive(Debug)]
pub(crate) struct Server {
    client: Client,
    /// Goes to peers as well.
    token: Option<String>,
}

impl Server {
    /// Chooses socket or URL; connects with the first request.
    pub(crate) fn connect(
        socket: &Path,
        url: Option<&str>,
        token_file: Option<&Path>,
    ) -> Result<Self> {
        let Some(url) = url else {
            return Ok(Self {
                client: Client::new(socket),
                token: read_token(token_file)?,
            });
        };
        Self::at(url, read_token(token_file)?)
    }

    fn at(url: &str, token: Option<String>) -> Result<Self> {
        let mut client = Client::from_url(url)?;
        if let Some(token) = &token {
            client = client.with_token(token);
        }
        Ok(Self { client, token })
    }

    /// Returns another daemon, which is told the same token.
    pub(crate) fn peer(&self, url: &str) -> Result<Self> {
        Self::at(url, self.token.clone())
    }

    /// Gets a resource.
    pub(crate) fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        self.send("GET", path, "application/json", &[])
    }

    /// Hands on server-sent events by name and data, as long as the daemon sends some.
    pub(crate) fn events(
        &self,
        path: &str,
        mut take: impl FnMut(&str, &str) -> Result<()>,
    ) -> Result<()> {
        let headers = [("accept", "text/event-stream")];
        let stream = self.client.stream("GET", path, &headers, &[])?;
        if !(200..300).contains(&stream.status()) {
            let answer = stream.into_response()?;
            return Err(refusal(answer.status, &answer.body).into());
        }
        let mut name = String::new();
        for line in stream {
            let line = line.context("read events")?;
            let line = String::from_utf8_lossy(&line);
            if let Some(text) = line.strip_prefix("event: ") {
                text.trim_end().clone_into(&mut name);
            } else if let Some(data) = line.strip_prefix("data: ") {
                take(&name, data.trim_end())?;
            }
        }
        Ok(())
    }

    /// Makes a request of somebody else's; the answer is handed on as it comes.
    pub(crate) fn relay(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Result<Stream, ClientError> {
        self.client.stream(method, path, headers, body)
    }

    /// Hands on the pieces of an answer while they come, as long as `take` returns true.
    pub(crate) fn pieces(
        &self,
        path: &str,
        mut take: impl FnMut(&[u8]) -> Result<bool>,
    ) -> Result<()> {
        let mut stream = self.client.stream("GET", path, &[], &[])?;
        if !(200..300).contains(&stream.status()) {
            let answer = stream.into_response()?;
            return Err(refusal(answer.status, &answer.body).into());
        }
        while let Some(piece) = stream.next_piece()? {
            if !take(&piece)? {
                break;
            }
        }
        Ok(())
    }

    /// Posts a body.
    pub(crate) fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T> {
        self.send("POST", path, "application/json", &serde_json::to_vec(body)?)
    }

    /// Deletes a resource.
    pub(crate) fn delete<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        self.send("DELETE", path, "application/json", &[])
    }

    /// Sends a request and decodes the answer.
    pub(crate) fn send<T: DeserializeOwned>(
        &self,
        method: &str,
        path: &str,
        content_type: &str,
        body: &[u8],
    ) -> Result<T> {
        let headers = [
            ("content-type", content_type),
            ("accept", "application/json"),
        ];
        let answer = self.client.request(method, path, &headers, body)?;
        if !(200..300).contains(&answer.status) {
            return Err(refusal(answer.status, &answer.body).into());
        }
        let body = if answer.body.is_empty() {
            b"null".as_slice()
        } else {
            &answer.body
        };
        serde_json::from_slice(body)
            .with_context(|| format!("decode the answer to {method} {path}"))
    }
}

fn read_token(file: Option<&Path>) -> Result<Option<String>> {
    let read = |path: &Path| {
        let token = std::fs::read_to_string(path);
        token.with_context(|| format!("read token file {}", path.display()))
    };
    let token = file.map(read).transpose()?;
    Ok(token.map(|token| token.trim().to_owned()))
}

/// Takes the message out of an error body, be it of `/v1` or a Kubernetes `Status`.
fn refusal(status: u16, body: &[u8]) -> Refusal {
    let message = serde_json::from_slice::<ErrorBody>(body)
        .map(|body| body.error.message)
        .ok()
        .or_else(|| {
            let value: Value = serde_json::from_slice(body).ok()?;
            Some(value.get("message")?.as_str()?.to_owned())
        })
        .unwrap_or_else(|| {
            format!(
                "HTTP status {status}: {}",
                String::from_utf8_lossy(body).trim()
            )
        });
    Refusal { status, message }
}

/// Percent-encodes one path segment or query value.
pub(crate) fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}
