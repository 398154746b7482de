//! The real binary against a unix server that answers with prepared bytes.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::JoinHandle;

use serde_json::{Value, json};

static SOCKETS: AtomicU32 = AtomicU32::new(0);

/// A daemon that takes one request.
struct Daemon {
    socket: PathBuf,
    thread: Option<JoinHandle<(String, Value)>>,
}

impl Daemon {
    fn answering(status: u16, body: &str) -> Self {
        let number = SOCKETS.fetch_add(1, Ordering::Relaxed);
        let socket =
            std::env::temp_dir().join(format!("vswitch-shim-{}-{number}", std::process::id()));
        let listener = UnixListener::bind(&socket).unwrap();
        let answer = format!(
            "HTTP/1.1 {status} Status\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let thread = std::thread::spawn(move || {
            let mut peer = listener.accept().unwrap().0;
            let request = read_request(&mut peer);
            peer.write_all(answer.as_bytes()).unwrap();
            request
        });
        Self {
            socket,
            thread: Some(thread),
        }
    }

    /// Request line and decoded body.
    fn request(mut self) -> (String, Value) {
        self.thread.take().unwrap().join().unwrap()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.socket);
    }
}

fn read_request(peer: &mut impl Read) -> (String, Value) {
    let mut bytes = Vec::new();
    let mut chunk = [0u8; 4096];
    loop {
        let len = peer.read(&mut chunk).unwrap();
        assert!(len > 0, "request ended early");
        bytes.extend_from_slice(&chunk[..len]);
        let text = String::from_utf8_lossy(&bytes);
        if let Some((head, body)) = text.split_once("\r\n\r\n")
            && let Ok(body) = serde_json::from_str(body)
        {
            return (head.lines().next().unwrap().to_owned(), body);
        }
    }
}

struct Outcome {
    exit_code: i32,
    stdout: String,
    stderr: String,
}

impl Outcome {
    fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|_| panic!("stdout: {:?}", self.stdout))
    }

    fn assert_error(&self, code: u32, msg_part: &str) {
        let error = self.json();
        assert_eq!(self.exit_code, 1);
        assert_eq!(error["code"], code, "{error}");
        assert!(error["msg"].as_str().unwrap().contains(msg_part), "{error}");
        assert!(error["cniVersion"].is_string());
        assert!(self.stderr.contains(msg_part), "{}", self.stderr);
    }
}

fn run(variables: &[(&str, &str)], stdin: &[u8]) -> Outcome {
    let mut child = Command::new(env!("CARGO_BIN_EXE_vswitch-cni"))
        .env_clear()
        .envs(variables.iter().copied())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // The plugin may answer without reading everything.
    let _ = child.stdin.take().unwrap().write_all(stdin);
    let output = child.wait_with_output().unwrap();
    Outcome {
        exit_code: output.status.code().unwrap(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

const CONTAINER: [(&str, &str); 5] = [
    ("CNI_CONTAINERID", "c0ffee"),
    ("CNI_NETNS", "/run/netns/blue"),
    ("CNI_IFNAME", "eth0"),
    ("CNI_ARGS", "K8S_POD_NAME=web"),
    ("CNI_PATH", "/opt/cni/bin"),
];

fn run_command(command: &str, config: &Value) -> Outcome {
    let variables: Vec<_> = CONTAINER
        .into_iter()
        .chain([("CNI_COMMAND", command)])
        .collect();
    run(&variables, config.to_string().as_bytes())
}

fn config(version: &str, socket: &Path) -> Value {
    json!({"cniVersion": version, "name": "net", "type": "vswitch-cni", "socket": socket})
}

#[test]
fn add_is_relayed_and_the_result_printed() {
    let result = json!({"cniVersion": "1.0.0", "ips": []}).to_string();
    let daemon = Daemon::answering(200, &result);
    let outcome = run_command("ADD", &config("1.0.0", &daemon.socket));
    assert_eq!(
        (outcome.exit_code, outcome.stdout.as_str()),
        (0, result.as_str())
    );
    assert_eq!(outcome.stderr, "");
    let (request_line, call) = daemon.request();
    assert_eq!(request_line, "POST /v1/cni HTTP/1.1");
    for (key, value) in [
        ("command", "ADD"),
        ("container_id", "c0ffee"),
        ("netns", "/run/netns/blue"),
        ("ifname", "eth0"),
        ("args", "K8S_POD_NAME=web"),
        ("path", "/opt/cni/bin"),
    ] {
        assert_eq!(call[key], value, "{key}");
    }
    assert_eq!(call["config"]["name"], "net");
}

#[test]
fn del_prints_nothing() {
    let daemon = Daemon::answering(200, "");
    let outcome = run_command("DEL", &config("0.4.0", &daemon.socket));
    assert_eq!((outcome.exit_code, outcome.stdout.as_str()), (0, ""));
}

#[test]
fn failure_of_the_daemon_is_printed_in_the_asked_version() {
    let failure = json!({"code": 100, "msg": "attached already", "details": "since"}).to_string();
    let daemon = Daemon::answering(409, &failure);
    let outcome = run_command("ADD", &config("0.3.1", &daemon.socket));
    outcome.assert_error(100, "attached already");
    assert_eq!(outcome.json()["cniVersion"], "0.3.1");
    assert_eq!(outcome.json()["details"], "since");
}

#[test]
fn answers_that_are_no_cni_answers_mean_try_again() {
    let daemon = Daemon::answering(500, "<html>");
    run_command("ADD", &config("1.0.0", &daemon.socket)).assert_error(11, "status 500");
    let daemon = Daemon::answering(200, "");
    run_command("ADD", &config("1.0.0", &daemon.socket)).assert_error(11, "without a CNI result");
}

#[test]
fn absent_daemon_means_try_again_and_for_status_not_available() {
    let config = config("1.1.0", Path::new("/nonexistent/vswitch.sock"));
    for command in ["ADD", "DEL", "GC", "CHECK"] {
        run_command(command, &config).assert_error(11, "is vswitchd running?");
    }
    run_command("STATUS", &config).assert_error(50, "/nonexistent/vswitch.sock");
}

#[test]
fn version_is_answered_without_the_daemon() {
    let version = [("CNI_COMMAND", "VERSION")];
    let outcome = run(&version, br#"{"cniVersion": "0.4.0"}"#);
    assert_eq!(outcome.exit_code, 0);
    assert_eq!(
        outcome.json(),
        json!({"cniVersion": "0.4.0",
               "supportedVersions": ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"]})
    );
    assert_eq!(run(&version, b"").json()["cniVersion"], "1.1.0");
}

#[test]
fn wrong_variables_are_named() {
    run(&[], b"{}").assert_error(4, "CNI_COMMAND");
    let input = config("1.1.0", Path::new("/nonexistent")).to_string();
    let with = |changes: &[(&'static str, &'static str)]| {
        let variables: Vec<_> = CONTAINER
            .into_iter()
            .chain([("CNI_COMMAND", "ADD")])
            .chain(changes.iter().copied())
            .collect();
        run(&variables, input.as_bytes())
    };
    with(&[("CNI_COMMAND", "EXPLODE")]).assert_error(4, "CNI_COMMAND");
    with(&[("CNI_CONTAINERID", "")]).assert_error(4, "CNI_CONTAINERID");
    with(&[("CNI_CONTAINERID", "a/../b")]).assert_error(4, "CNI_CONTAINERID");
    with(&[("CNI_NETNS", "")]).assert_error(4, "CNI_NETNS");
    with(&[("CNI_IFNAME", "a-name-of-16-byt")]).assert_error(4, "CNI_IFNAME");
}

#[test]
fn versions_that_are_not_spoken_are_code_1() {
    let socket = Path::new("/nonexistent");
    run_command("ADD", &config("0.2.0", socket)).assert_error(1, "0.2.0");
    run_command("ADD", &config("2.0.0", socket)).assert_error(1, "2.0.0");
    run_command("CHECK", &config("0.3.1", socket)).assert_error(1, "CHECK");
    run_command("GC", &config("1.0.0", socket)).assert_error(1, "GC");
    let outcome = run_command("ADD", &json!({"name": "net"}));
    outcome.assert_error(1, "0.1.0");
    assert_eq!(outcome.json()["cniVersion"], "1.1.0");
}

#[test]
fn undecodable_input_is_code_6() {
    let variables: Vec<_> = CONTAINER
        .into_iter()
        .chain([("CNI_COMMAND", "ADD")])
        .collect();
    for input in [&b"{"[..], b"[]", b"\xff", &[b'['; 100_000]] {
        run(&variables, input).assert_error(6, "not a JSON object");
    }
    let huge = format!("{{\"a\": \"{}\"}}", "x".repeat(1 << 20));
    run(&variables, huge.as_bytes()).assert_error(6, "larger than");
}

#[test]
fn wrong_configuration_is_code_7() {
    run_command("ADD", &json!({"cniVersion": "1.0.0"})).assert_error(7, "name");
    run_command(
        "ADD",
        &json!({"cniVersion": "1.0.0", "name": "n", "socket": "run/x"}),
    )
    .assert_error(7, "socket");
}
