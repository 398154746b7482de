//! A collector, as the published messages have it.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::collector::logs::v1::{
    ExportLogsPartialSuccess, ExportLogsServiceRequest, ExportLogsServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, KeyValue};
use prost::Message as _;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::super::destination::Destination;
use super::super::follow::hand_over;
use super::super::otlp::Otlp;
use super::super::otlp_records::request;
use super::super::sentence::sentence;
use super::super::sink::{Outcome, Sink as _};
use super::super::waiting::{Batch, MAX_WAITING, Waiting};
use super::{allowed, begun, record, round};
use crate::config::OtlpConfig;
use crate::supervise;

/// Answers in turn with what it is given (status and Retry-After), then takes everything.
#[derive(Debug, Default)]
struct Collector {
    answers: Mutex<Vec<(u16, Option<&'static str>)>>,
    /// Rejects so many of each request.
    rejects: i64,
    requests: Mutex<Vec<ExportLogsServiceRequest>>,
}

impl Collector {
    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Response<Full<Bytes>> {
        assert_eq!(
            (request.method().as_str(), request.uri().path()),
            ("POST", "/v1/logs")
        );
        assert_eq!(request.headers()["content-type"], "application/x-protobuf");
        let body = request.into_body().collect().await.unwrap().to_bytes();
        let request = ExportLogsServiceRequest::decode(body).unwrap();
        self.requests.lock().unwrap().push(request);
        let answer = self.answers.lock().unwrap().pop();
        let (status, after) = answer.unwrap_or((200, None));
        let mut response = Response::builder().status(status);
        if let Some(after) = after {
            response = response.header("retry-after", after);
        }
        let partial_success = (self.rejects > 0).then(|| ExportLogsPartialSuccess {
            rejected_log_records: self.rejects,
            error_message: "too old".to_owned(),
        });
        let body = ExportLogsServiceResponse { partial_success }.encode_to_vec();
        response.body(Full::from(body)).unwrap()
    }

    /// Listens; returns its endpoint.
    async fn start(self: &Arc<Self>) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let collector = Arc::clone(self);
        supervise::request(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let collector = Arc::clone(&collector);
                supervise::request(async move { collector.serve(stream).await });
            }
        });
        endpoint
    }

    async fn serve(self: &Arc<Self>, stream: impl AsyncRead + AsyncWrite + Unpin) {
        let serve = service_fn(|request| {
            let collector = Arc::clone(self);
            async { Ok::<_, Infallible>(collector.answer(request).await) }
        });
        let http = hyper::server::conn::http1::Builder::new();
        let _ended = http.serve_connection(TokioIo::new(stream), serve).await;
    }

    fn ports(&self) -> Vec<i64> {
        let requests = self.requests.lock().unwrap();
        let logs = requests.iter().flat_map(|of| &of.resource_logs);
        let records = logs
            .flat_map(|of| &of.scope_logs)
            .flat_map(|of| &of.log_records);
        records
            .map(|of| match attributes(&of.attributes)["destination.port"] {
                Value::IntValue(port) => port,
                ref other => panic!("{other:?}"),
            })
            .collect()
    }
}

fn otlp(endpoint: &str) -> Otlp {
    Otlp::new(&OtlpConfig {
        endpoint: endpoint.to_owned(),
        ca_file: None,
    })
    .unwrap()
}

fn attributes(of: &[KeyValue]) -> BTreeMap<String, Value> {
    let value = |of: &KeyValue| of.value.clone().and_then(|of| of.value).unwrap();
    of.iter().map(|of| (of.key.clone(), value(of))).collect()
}

fn text(text: &str) -> Value {
    Value::StringValue(text.to_owned())
}

#[test]
fn a_log_record_of_allowed_connections_has_what_they_carried_and_the_rules() {
    let request = request(&[allowed(), begun()], 1_769_829_200);
    let [record, begun] = &request.resource_logs[0].scope_logs[0].log_records[..] else {
        panic!("{request:?}")
    };
    assert_eq!(record.severity_text, "INFO");
    let of_begun = attributes(&begun.attributes);
    assert_eq!(of_begun["vswitch.event"], text("begin"));
    assert!(!of_begun.contains_key("vswitch.end"), "{of_begun:?}");
    let of = attributes(&record.attributes);
    let rules = ArrayValue {
        values: vec![AnyValue {
            value: Some(text("IngressRule default/guard ingress[0].from[0]")),
        }],
    };
    for (name, expected) in [
        ("vswitch.verdict", text("allowed")),
        ("vswitch.allowed_by", Value::ArrayValue(rules)),
        ("vswitch.event", text("end")),
        ("vswitch.end", text("fin")),
        ("vswitch.connections", Value::IntValue(2)),
        ("vswitch.sent.packets", Value::IntValue(6)),
        ("vswitch.sent.bytes", Value::IntValue(512)),
        ("vswitch.received.packets", Value::IntValue(5)),
        ("vswitch.received.bytes", Value::IntValue(2_048)),
        ("vswitch.duration_ms", Value::IntValue(1_500)),
    ] {
        assert_eq!(of[name], expected, "{name}");
    }
}

#[test]
fn a_log_record_has_the_sentence_and_attributes_by_the_conventions() {
    let now = 1_769_829_200;
    let mut icmp = record(8);
    icmp.of.verdict = "would_deny".to_owned();
    icmp.of.protocol = Some("ICMP".to_owned());
    let encoded = request(&[record(80), icmp], now).encode_to_vec();
    let request = ExportLogsServiceRequest::decode(&encoded[..]).unwrap();
    let [logs] = &request.resource_logs[..] else {
        panic!("{request:?}")
    };
    let resource = attributes(&logs.resource.as_ref().unwrap().attributes);
    assert_eq!(resource["service.name"], text("vswitchd"));
    assert_eq!(resource["k8s.node.name"], text("node-a"));
    let [logs] = &logs.scope_logs[..] else {
        panic!("{logs:?}")
    };
    let [denied, would_deny] = &logs.log_records[..] else {
        panic!("{logs:?}")
    };
    // 2026-01-31T03:12:07Z.
    assert_eq!(denied.time_unix_nano, 1_769_829_127 * 1_000_000_000);
    assert_eq!(denied.observed_time_unix_nano, now * 1_000_000_000);
    assert_eq!(
        (denied.severity_number, denied.severity_text.as_str()),
        (13, "WARN")
    );
    let body = AnyValue {
        value: Some(text(&sentence(&record(80)))),
    };
    assert_eq!(denied.body, Some(body));
    let of = attributes(&denied.attributes);
    for (name, expected) in [
        ("source.address", text("10.244.0.5")),
        ("source.k8s.namespace.name", text("default")),
        ("source.k8s.pod.name", text("client")),
        ("source.vswitch.workload", text("Job nightly")),
        ("destination.address", text("10.244.0.6")),
        ("destination.k8s.pod.name", text("server")),
        ("destination.port", Value::IntValue(80)),
        ("network.transport", text("tcp")),
        ("network.type", text("ipv4")),
        ("vswitch.verdict", text("denied")),
        ("vswitch.service", text("10.96.0.7:80")),
        ("vswitch.rule.table", text("IngressDefault")),
        ("vswitch.packets", Value::IntValue(3)),
    ] {
        assert_eq!(of[name], expected, "{name}");
    }
    let Value::ArrayValue(policies) = &of["vswitch.policies"] else {
        panic!("{of:?}")
    };
    let policies: Vec<_> = policies
        .values
        .iter()
        .map(|of| of.value.clone().unwrap())
        .collect();
    assert_eq!(policies, [text("default/guard"), text("default/other")]);
    assert_eq!(
        (
            would_deny.severity_number,
            would_deny.severity_text.as_str()
        ),
        (9, "INFO")
    );
    let of = attributes(&would_deny.attributes);
    assert_eq!(of["vswitch.icmp.type"], Value::IntValue(8));
    assert!(!of.contains_key("destination.port"), "{of:?}");
}

#[tokio::test]
async fn all_records_come_in_batches_whatever_the_collector_answers_first() {
    let collector = Arc::new(Collector {
        // The last one first.
        answers: Mutex::new(vec![
            (503, Some("0")),
            (429, Some("0")),
            (502, Some("0")),
            (504, Some("0")),
        ]),
        ..Collector::default()
    });
    let sink = otlp(&collector.start().await);
    let to = Destination::new("otlp", "there".to_owned());
    let waiting = Waiting::new(MAX_WAITING);
    waiting.add(Batch::of(round(0, 0..1_200)));
    waiting.close();
    hand_over(&sink, &waiting, &to).await;
    let first_tries = 4 * 512;
    let expected: Vec<i64> = (0..1_200).collect();
    let got = collector.ports();
    assert_eq!(got[first_tries..], expected);
    assert_eq!(collector.requests.lock().unwrap().len(), 4 + 3);
    assert_eq!((to.exported(), to.lost(), to.problem()), (1_200, 0, None));
}

/// What comes of three records.
async fn outcome(sink: &Otlp) -> Outcome {
    sink.send(Batch::of(round(0, 0..3))).await
}

#[tokio::test]
async fn what_a_collector_refuses_is_given_up_and_said_until_it_takes_some() {
    let collector = Arc::new(Collector {
        answers: Mutex::new(vec![(400, None), (401, Some("1"))]),
        ..Collector::default()
    });
    let sink = otlp(&collector.start().await);
    for status in ["401 Unauthorized", "400 Bad Request"] {
        let refused = outcome(&sink).await;
        assert_eq!((refused.taken, refused.given_up), (0, 3));
        assert!(refused.failed.unwrap().problem.contains(status));
        let look = sink.send(Batch::default()).await;
        assert!(look.failed.unwrap().problem.contains(status));
    }
    assert_eq!(
        outcome(&sink).await,
        Outcome {
            taken: 3,
            ..Outcome::default()
        }
    );
    assert_eq!(sink.send(Batch::default()).await, Outcome::default());
}

#[tokio::test]
async fn records_that_a_collector_rejects_of_a_request_are_lost() {
    for (rejects, expected) in [(2, (1, 2)), (7, (0, 3)), (-1, (3, 0))] {
        let collector = Arc::new(Collector {
            rejects,
            ..Collector::default()
        });
        let sink = otlp(&collector.start().await);
        let outcome = outcome(&sink).await;
        assert_eq!((outcome.taken, outcome.given_up), expected, "{rejects}");
    }
}

#[tokio::test]
async fn pauses_grow_unless_the_collector_says_how_long() {
    let answers = vec![
        (429, Some("7")),
        (503, Some("soon")),
        (503, Some("99999")),
        (503, None),
    ];
    let collector = Arc::new(Collector {
        answers: Mutex::new(answers),
        ..Collector::default()
    });
    let sink = otlp(&collector.start().await);
    let mut pauses = Vec::new();
    for _ in 0..4 {
        let later = outcome(&sink).await;
        assert_eq!((later.taken, later.given_up), (0, 0));
        pauses.push(later.failed.unwrap().again_after);
    }
    let around = |seconds: u64| {
        let pause = Duration::from_secs(seconds);
        pause.mul_f64(0.75)..=pause.mul_f64(1.25)
    };
    assert!(around(1).contains(&pauses[0]), "{pauses:?}");
    assert_eq!(pauses[1], Duration::from_secs(300), "no longer than that");
    assert!(around(2).contains(&pauses[2]), "{pauses:?}");
    assert_eq!(pauses[3], Duration::from_secs(7));
    // Nobody listens any more.
    let sink = otlp("http://127.0.0.1:1");
    for seconds in [1, 2, 4, 8, 16, 30, 30] {
        let pause = outcome(&sink).await.failed.unwrap().again_after;
        assert!(around(seconds).contains(&pause), "{seconds}: {pause:?}");
    }
}

/// A certificate for 127.0.0.1, signed by itself, and its key.
fn certificate(folder: &Path) -> (PathBuf, PathBuf) {
    let (certificate, key) = (folder.join("cert.pem"), folder.join("key.pem"));
    let mut openssl = Command::new("openssl");
    openssl.args([
        "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
    ]);
    openssl.args([
        "-subj",
        "/CN=collector",
        "-addext",
        "subjectAltName=IP:127.0.0.1",
    ]);
    openssl
        .arg("-out")
        .arg(&certificate)
        .arg("-keyout")
        .arg(&key);
    // An authority is refused as a server's own certificate.
    openssl.args(["-addext", "basicConstraints=critical,CA:FALSE"]);
    let output = openssl.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    (certificate, key)
}

#[tokio::test]
async fn a_collector_with_tls_is_believed_by_the_authority_of_the_file_alone() {
    let folder = tempfile::tempdir().unwrap();
    let (certificate, key) = certificate(folder.path());
    let chain = vec![CertificateDer::from_pem_file(&certificate).unwrap()];
    let key = PrivateKeyDer::from_pem_file(&key).unwrap();
    let provider = Arc::new(ring::default_provider());
    let tls = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(tls));
    let collector = Arc::new(Collector::default());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("https://{}", listener.local_addr().unwrap());
    let serving = Arc::clone(&collector);
    supervise::request(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let (acceptor, collector) = (acceptor.clone(), Arc::clone(&serving));
            supervise::request(async move {
                if let Ok(stream) = acceptor.accept(stream).await {
                    collector.serve(stream).await;
                }
            });
        }
    });
    let of = |ca_file: Option<&Path>| {
        Otlp::new(&OtlpConfig {
            endpoint: endpoint.clone(),
            ca_file: ca_file.map(Path::to_owned),
        })
    };
    let trusting = of(Some(&certificate)).unwrap();
    let taken = Outcome {
        taken: 3,
        ..Outcome::default()
    };
    assert_eq!(outcome(&trusting).await, taken);
    // Where a machine trusts nobody at all, it is refused at the start.
    if let Ok(strange) = of(None) {
        let problem = outcome(&strange).await.failed.unwrap().problem;
        assert!(problem.contains("certificate"), "{problem}");
    }
    for (path, content) in [
        ("missing.pem", None),
        ("empty.pem", Some("")),
        ("key.pem", None),
    ] {
        let path = folder.path().join(path);
        if let Some(content) = content {
            std::fs::write(&path, content).unwrap();
        }
        let refused = format!("{:#}", of(Some(&path)).unwrap_err());
        let named = path.display().to_string();
        assert!(
            refused.contains("flows.otlp_ca_file") && refused.contains(&named),
            "{refused}"
        );
    }
}
