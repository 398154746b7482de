//! Records as logs to a collector of OpenTelemetry, by OTLP over HTTP with protobuf bodies.
//!
//! The project's messages (`opentelemetry-proto`) over the HTTP client that the API server is read
//! with. Its SDK and exporter are not used: they batch on a thread of their own, and tell nobody
//! what they lose.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER, USER_AGENT};
use hyper::{Method, Request, StatusCode, Uri};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::{Client, Error};
use hyper_util::rt::TokioExecutor;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceResponse;
use prost::Message as _;
use tokio::time::timeout;

use super::otlp_records::request;
use super::otlp_tls::tls;
use super::sink::{Failed, Outcome, Sink};
use super::waiting::Batch;
use crate::clock::unix_seconds;
use crate::config::OtlpConfig;
use crate::errors::chain;

/// For how long a request may take; less than after which a sink is said to hang.
const ANSWER_WITHIN: Duration = Duration::from_secs(8);

/// Most bytes of an answer: it says how many records were rejected, and why.
const MAX_ANSWER: usize = 64 << 10;

/// Pauses between tries: doubled from the first to the longest, unless the collector says how long.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Pauses that a collector may ask for.
const SHORTEST_ASKED: Duration = Duration::from_millis(100);
const LONGEST_ASKED: Duration = Duration::from_secs(300);

/// How the daemon says who it is.
const NAME: &str = concat!("vswitchd/", env!("CARGO_PKG_VERSION"));

/// See the module.
#[derive(Debug)]
pub(super) struct Otlp {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    uri: Uri,
    tries: Mutex<Tries>,
}

/// How the last try went.
#[derive(Debug)]
struct Tries {
    pause: Duration,
    problem: Option<String>,
}

/// What came of a request.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    /// Taken, but for so many.
    Taken { rejected: usize },
    /// Will not be taken, however often it is sent.
    Refused(String),
    /// May be taken later, at best after that pause.
    Later(String, Option<Duration>),
}

impl Otlp {
    /// Connects to nobody yet.
    pub(super) fn new(config: &OtlpConfig) -> Result<Self> {
        let uri: Uri = format!("{}/v1/logs", config.endpoint.trim_end_matches('/'))
            .parse()
            .with_context(|| format!("flows.otlp_endpoint: {}", config.endpoint))?;
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls(config)?)
            .https_or_http()
            .enable_http1()
            .build();
        Ok(Self {
            client: Client::builder(TokioExecutor::new()).build(connector),
            uri,
            tries: Mutex::new(Tries {
                pause: FIRST_PAUSE,
                problem: None,
            }),
        })
    }

    async fn post(&self, body: Vec<u8>) -> Answer {
        match timeout(ANSWER_WITHIN, self.exchange(body)).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => Answer::Later(chain(&error), None),
            Err(_) => {
                let seconds = ANSWER_WITHIN.as_secs();
                Answer::Later(format!("no answer within {seconds} s"), None)
            }
        }
    }

    async fn exchange(&self, body: Vec<u8>) -> Result<Answer, Error> {
        let mut request = Request::new(Full::from(body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.uri.clone();
        let headers = request.headers_mut();
        let protobuf = HeaderValue::from_static("application/x-protobuf");
        headers.insert(CONTENT_TYPE, protobuf);
        headers.insert(USER_AGENT, HeaderValue::from_static(NAME));
        let (head, body) = self.client.request(request).await?.into_parts();
        // What is too long or cut short says nothing.
        let body = Limited::new(body, MAX_ANSWER).collect().await;
        let body = body.map(|body| body.to_bytes()).unwrap_or_default();
        Ok(answer(head.status, &head.headers, &body))
    }

    /// Each change leaves it whole, so that a panic beside leaves nothing half done.
    fn tries(&self) -> MutexGuard<'_, Tries> {
        self.tries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What an answer of a collector means (OTLP specification, "OTLP/HTTP Response").
fn answer(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Answer {
    if status.is_success() {
        let answer = ExportLogsServiceResponse::decode(body).unwrap_or_default();
        let rejected = answer
            .partial_success
            .map_or(0, |of| of.rejected_log_records);
        let rejected = usize::try_from(rejected).unwrap_or(0);
        return Answer::Taken { rejected };
    }
    let problem = format!("the collector answers {status}");
    if ![429, 502, 503, 504].contains(&status.as_u16()) {
        return Answer::Refused(problem);
    }
    let after = headers.get(RETRY_AFTER).and_then(|of| of.to_str().ok());
    let after = after.and_then(|seconds| seconds.trim().parse().ok());
    Answer::Later(problem, after.map(Duration::from_secs))
}

impl Sink for Otlp {
    async fn send(&self, batch: Batch) -> Outcome {
        if batch.is_empty() {
            // Nothing to ask a collector: how it is shows with the next records.
            let problem = self.tries().problem.clone();
            let failed = problem.map(|problem| Failed {
                problem,
                again_after: Duration::ZERO,
            });
            return Outcome {
                failed,
                ..Outcome::default()
            };
        }
        let body = request(batch.records(), unix_seconds()).encode_to_vec();
        let answer = self.post(body).await;
        self.tries().take(answer, batch.len())
    }
}

impl Tries {
    fn take(&mut self, answer: Answer, sent: usize) -> Outcome {
        let mut outcome = Outcome::default();
        let (problem, again_after) = match answer {
            Answer::Taken { rejected } => {
                outcome.given_up = rejected.min(sent);
                outcome.taken = sent - outcome.given_up;
                (self.pause, self.problem) = (FIRST_PAUSE, None);
                return outcome;
            }
            Answer::Refused(problem) => {
                outcome.given_up = sent;
                self.pause = FIRST_PAUSE;
                (problem, FIRST_PAUSE)
            }
            Answer::Later(problem, Some(asked)) => {
                (problem, asked.clamp(SHORTEST_ASKED, LONGEST_ASKED))
            }
            Answer::Later(problem, None) => {
                let pause = self.pause;
                self.pause = (pause * 2).min(LONGEST_PAUSE);
                // Not all nodes at once.
                (problem, pause.mul_f64(0.75 + share(0.5)))
            }
        };
        self.problem = Some(problem.clone());
        outcome.failed = Some(Failed {
            problem,
            again_after,
        });
        outcome
    }
}

/// Some share, another one each time.
fn share(of: f64) -> f64 {
    let random = RandomState::new().hash_one(0_u8);
    let random = u32::try_from(random & 0xffff).map_or(0.0, f64::from);
    of * random / f64::from(0xffff)
}
