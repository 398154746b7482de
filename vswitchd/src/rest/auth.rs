//! Authorization over TCP: bearer tokens of the administrator and of member nodes.
//!
//! The administrator's token may do all. A member's may read the Kubernetes API, make its own
//! Node object and write to it, and nothing else. Health is told to everybody, for probes; so are
//! the files of the page, which hold nothing of this node.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use serde_json::Value;

use super::error::{ApiError, ErrorCode};
use super::reloaded::Reloaded;
use crate::objects::StatusError;

/// Largest Node object that a member may make, bytes: a Node with its status has some 10 KiB.
const MAX_NODE_BYTES: usize = 256 << 10;

/// Shortest token, bytes: what cannot be guessed over a network (RFC 6750 leaves it open).
const MIN_TOKEN_BYTES: usize = 16;

/// The tokens that are good.
#[derive(Debug)]
pub(super) struct Tokens {
    administrator: Reloaded<String>,
    members: Option<Reloaded<Vec<Member>>>,
}

/// A node that reads its objects here.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Member {
    node: String,
    token: String,
}

/// Whose token a request bears.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Bearer {
    Administrator,
    Member { node: String },
}

impl Tokens {
    /// Reads the administrator's token and those of members.
    pub(super) fn open(administrator: PathBuf, members: Option<PathBuf>) -> Result<Self, String> {
        let first = |files: &[PathBuf]| files.first().cloned().unwrap_or_default();
        let administrator =
            Reloaded::open(vec![administrator], move |files| read_token(&first(files)))?;
        let members = members
            .map(|file| Reloaded::open(vec![file], move |files| read_members(&first(files))))
            .transpose()?;
        Ok(Self {
            administrator,
            members,
        })
    }

    fn bearer(&self, headers: &HeaderMap) -> Option<Bearer> {
        let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
        let given = value.strip_prefix("Bearer ")?.as_bytes();
        if is_same(given, self.administrator.get().as_bytes()) {
            return Some(Bearer::Administrator);
        }
        let members = self.members.as_ref()?.get();
        // All are compared: the time tells nothing about which one it was.
        let node = members.iter().fold(None, |found, member| {
            let is_it = is_same(given, member.token.as_bytes());
            if is_it { Some(&member.node) } else { found }
        })?;
        let node = node.clone();
        Some(Bearer::Member { node })
    }
}

/// Lets a request pass if its token allows it.
pub(super) async fn require_token(
    State(tokens): State<Arc<Tokens>>,
    request: Request,
    next: Next,
) -> Response {
    if is_public(request.uri().path()) {
        return next.run(request).await;
    }
    match tokens.bearer(request.headers()) {
        None => {
            let message = "a bearer token is required on this address";
            refusal(&request, ErrorCode::Unauthorized, message.to_owned())
        }
        Some(Bearer::Administrator) => next.run(request).await,
        Some(Bearer::Member { node }) => as_member(&node, request, next).await,
    }
}

fn is_public(path: &str) -> bool {
    matches!(path, "/healthz" | "/livez" | "/readyz" | "/ui") || path.starts_with("/ui/")
}

async fn as_member(node: &str, request: Request, next: Next) -> Response {
    match right_of_member(node, request.method(), request.uri().path()) {
        Right::Allowed => next.run(request).await,
        Right::IfOwnNode => match creates_own_node(node, request).await {
            Ok(request) => next.run(request).await,
            Err(request) => forbidden(node, &request),
        },
        Right::Denied => forbidden(node, &request),
    }
}

fn forbidden(node: &str, request: &Request) -> Response {
    let (method, path) = (request.method(), request.uri().path());
    let message = format!("the token of node {node} does not allow {method} {path}");
    refusal(request, ErrorCode::Forbidden, message)
}

/// What a member may do with a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Right {
    Allowed,
    /// If the object in the body is its own Node.
    IfOwnNode,
    Denied,
}

fn right_of_member(node: &str, method: &Method, path: &str) -> Right {
    let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    let is_read = matches!(*method, Method::GET | Method::HEAD);
    match parts.as_slice() {
        ["api" | "apis" | "version" | "openapi", ..] if is_read => Right::Allowed,
        ["api", "v1", "nodes"] if method == Method::POST => Right::IfOwnNode,
        ["api", "v1", "nodes", name] | ["api", "v1", "nodes", name, "status"]
            if *name == node && matches!(*method, Method::PATCH | Method::PUT) =>
        {
            Right::Allowed
        }
        _ => Right::Denied,
    }
}

/// Returns the request with its body whole if that is the member's Node, in JSON.
async fn creates_own_node(node: &str, request: Request) -> Result<Request, Request> {
    let (parts, body) = request.into_parts();
    let Ok(bytes) = to_bytes(body, MAX_NODE_BYTES).await else {
        return Err(Request::from_parts(parts, Body::empty()));
    };
    let is_own = serde_json::from_slice::<Value>(&bytes)
        .is_ok_and(|object| object["metadata"]["name"] == node);
    let request = Request::from_parts(parts, Body::from(bytes));
    if is_own { Ok(request) } else { Err(request) }
}

/// Refuses in the words of the API that was asked.
fn refusal(request: &Request, code: ErrorCode, message: String) -> Response {
    if request.uri().path().starts_with("/v1") {
        return ApiError::new(code, message).into_response();
    }
    let reason = match code {
        ErrorCode::Unauthorized => "Unauthorized",
        _ => "Forbidden",
    };
    StatusError::plain(code.status().as_u16(), reason, message).into_response()
}

fn read(path: &Path) -> Result<String, String> {
    fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))
}

fn read_token(path: &Path) -> Result<String, String> {
    let text = read(path)?;
    let token = text.trim();
    check_token(token).map_err(|problem| format!("{}: {problem}", path.display()))?;
    Ok(token.to_owned())
}

/// Reads a line `NODE TOKEN` for each member; empty ones and those with `#` are passed over.
fn read_members(path: &Path) -> Result<Vec<Member>, String> {
    let text = read(path)?;
    let mut members = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let problem = match words.as_slice() {
            [] => continue,
            [word, ..] if word.starts_with('#') => continue,
            [node, token] => match check_token(token) {
                Ok(()) => {
                    let (node, token) = ((*node).to_owned(), (*token).to_owned());
                    members.push(Member { node, token });
                    continue;
                }
                Err(problem) => problem,
            },
            _ => "a line is NODE TOKEN".to_owned(),
        };
        return Err(format!("{}: line {number}: {problem}", path.display()));
    }
    Ok(members)
}

fn check_token(token: &str) -> Result<(), String> {
    let is_plain = token.bytes().all(|byte| byte.is_ascii_graphic());
    if is_plain && token.len() >= MIN_TOKEN_BYTES {
        Ok(())
    } else {
        Err(format!(
            "a token has at least {MIN_TOKEN_BYTES} printable ASCII characters and no space"
        ))
    }
}

/// Compares without telling by its time how far two tokens agree.
fn is_same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |sum, (x, y)| sum | (x ^ y)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_equal_only_as_a_whole() {
        assert!(is_same(b"secret", b"secret"));
        assert!(!is_same(b"secret", b"secreT"));
        assert!(!is_same(b"secre", b"secret"));
    }

    #[test]
    fn a_member_reads_all_objects_and_writes_its_own_node_alone() {
        let right = |method: Method, path| right_of_member("node-b", &method, path);
        for path in ["/api/v1/pods", "/apis", "/version", "/openapi/v3", "/api"] {
            assert_eq!(right(Method::GET, path), Right::Allowed, "{path}");
            assert_eq!(right(Method::DELETE, path), Right::Denied, "{path}");
        }
        for path in ["/v1/status", "/metrics", "/apiary", "/", "/v1/cni"] {
            assert_eq!(right(Method::GET, path), Right::Denied, "{path}");
        }
        assert_eq!(right(Method::POST, "/api/v1/nodes"), Right::IfOwnNode);
        for own in ["/api/v1/nodes/node-b", "/api/v1/nodes/node-b/status"] {
            assert_eq!(right(Method::PATCH, own), Right::Allowed, "{own}");
            assert_eq!(right(Method::PUT, own), Right::Allowed, "{own}");
            assert_eq!(right(Method::DELETE, own), Right::Denied, "{own}");
        }
        for other in [
            "/api/v1/nodes/node-a",
            "/api/v1/nodes/node-a/status",
            "/api/v1/nodes/node-b/status/x",
            "/api/v1/nodes//node-b",
            "/api/v1/namespaces/default/pods/node-b",
            "/apis/networking.k8s.io/v1/namespaces/nodes/networkpolicies/node-b",
        ] {
            assert_eq!(right(Method::PATCH, other), Right::Denied, "{other}");
        }
    }

    #[test]
    fn health_and_the_files_of_the_page_need_no_token_and_nothing_else_does() {
        for path in [
            "/healthz",
            "/livez",
            "/readyz",
            "/ui",
            "/ui/",
            "/ui/page.js",
        ] {
            assert!(is_public(path), "{path}");
        }
        for path in [
            "/",
            "/v1/status",
            "/metrics",
            "/uid",
            "/v1/ui/",
            "/healthz/x",
        ] {
            assert!(!is_public(path), "{path}");
        }
    }

    #[test]
    fn files_of_tokens_are_checked() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("tokens");
        let members = |text: &str| {
            fs::write(&file, text).unwrap();
            read_members(&file)
        };
        let good = "# comment\n\nnode-b 0123456789abcdef\n";
        let member = Member {
            node: "node-b".to_owned(),
            token: "0123456789abcdef".to_owned(),
        };
        assert_eq!(members(good), Ok(vec![member]));
        let short = members("node-b short\n").unwrap_err();
        assert!(short.contains("line 1: a token has at least 16"), "{short}");
        let words = members("# x\nnode-b 0123456789abcdef x\n").unwrap_err();
        assert!(words.contains("line 2: a line is NODE TOKEN"), "{words}");
        fs::write(&file, "  0123456789abcdef\n").unwrap();
        assert_eq!(read_token(&file), Ok("0123456789abcdef".to_owned()));
        fs::write(&file, "\n").unwrap();
        assert!(read_token(&file).unwrap_err().contains("tokens: a token"));
    }
}
