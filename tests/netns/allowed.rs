//! Connections that were allowed, asked for when they have ended and while they last.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd as _;
use std::path::Path;
use std::process::Stdio;
use std::sync::mpsc::TryRecvError;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use nix::sys::socket::{setsockopt, sockopt};
use serde_json::{Value, json};
use vswitch_tests::{Daemon, DaemonOptions, Namespace, Pod, eventually_within, inside, join};

use crate::{SECURE_POD, daemon};

const CLUSTER_IP: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 96, 0, 40));
const PATIENCE: Duration = Duration::from_secs(20);
/// More than a flow needs that is handed to the kernel.
const ROUNDS: u64 = 20;
const QUESTION: [u8; 100] = [b'?'; 100];
const ANSWER: [u8; 300] = [b'!'; 300];

/// A daemon that records all connections, and soon gives up silent ones of UDP.
fn recording() -> Daemon {
    let extra = "[flows]\nconnections = \"all\"\n\
                 [conntrack]\nudp_timeout = 2\nudp_timeout_stream = 2\n";
    let options = DaemonOptions {
        extra: extra.to_owned(),
        ..DaemonOptions::default()
    };
    Daemon::start(&options).unwrap()
}

/// Runs something inside a namespace.
fn at<T: Send + 'static>(
    place: &Namespace,
    what: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> T {
    join(inside(place, || Ok(what()?)).unwrap()).unwrap()
}

/// Client and server, which a policy admits the client to, and a pod of no policy.
fn pods(daemon: &Daemon) -> [Pod; 3] {
    let pods = ["client", "server", "other"].map(|name| Pod::named(name).attach(daemon).unwrap());
    for label in [
        ["client", "allow-access=true"],
        ["server", "app=secure-pod"],
    ] {
        daemon.vsctl(&["label", "pod", label[0], label[1]]).unwrap();
    }
    daemon.apply(SECURE_POD).unwrap();
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"},
        "spec": {"clusterIP": CLUSTER_IP, "ports": [{"port": 8000, "targetPort": 80}]}});
    let slice = json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"name": "web-1", "labels": {"kubernetes.io/service-name": "web"}},
        "addressType": "IPv4", "endpoints": [{"addresses": [pods[1].ip()]}],
        "ports": [{"port": 80}]});
    for object in [service, slice] {
        daemon.apply(&object.to_string()).unwrap();
    }
    pods
}

/// Returns the lines of a file of records that tell of allowed connections.
fn allowed_lines(path: &Path) -> anyhow::Result<Vec<Value>> {
    let text = std::fs::read_to_string(path)?;
    let lines = text.lines().map(serde_json::from_str::<Value>);
    let lines = lines.collect::<Result<Vec<_>, _>>()?.into_iter();
    Ok(lines.filter(|line| line["verdict"] == "allowed").collect())
}

fn listen(server: &Pod) -> TcpListener {
    at(&server.netns, || {
        TcpListener::bind((Ipv4Addr::UNSPECIFIED, 80))
    })
}

/// Connects and has questions answered, one by one; returns both ends.
fn talk(client: &Pod, server: &TcpListener, to: (IpAddr, u16)) -> (TcpStream, TcpStream) {
    let to = SocketAddr::from(to);
    let mut near = at(&client.netns, move || {
        TcpStream::connect_timeout(&to, PATIENCE)
    });
    let (mut far, _) = server.accept().unwrap();
    for stream in [&near, &far] {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
    }
    for _ in 0..ROUNDS {
        near.write_all(&QUESTION).unwrap();
        far.read_exact(&mut QUESTION.clone()).unwrap();
        far.write_all(&ANSWER).unwrap();
        near.read_exact(&mut ANSWER.clone()).unwrap();
    }
    (near, far)
}

fn reset(stream: TcpStream) {
    let reset = libc::linger {
        l_onoff: 1,
        l_linger: 0,
    };
    setsockopt(&stream.as_fd(), sockopt::Linger, &reset).unwrap();
}

fn records(daemon: &Daemon, arguments: &[&str]) -> anyhow::Result<Vec<Value>> {
    let answer = daemon.vsctl_json(&[&["flows", "--allowed"], arguments].concat())?;
    ensure!(answer["lost_connections"] == 0, "{answer}");
    ensure!(answer.get("problems").is_none(), "{answer}");
    Ok(answer["records"].as_array().context("no list")?.clone())
}

/// Waits for the one record that the arguments ask for.
fn record(daemon: &Daemon, arguments: &[&str]) -> Value {
    eventually_within(PATIENCE, "the connection is recorded", || {
        let records = records(daemon, arguments)?;
        ensure!(records.len() == 1, "{records:?}");
        Ok(records[0].clone())
    })
}

/// Bytes of the segments of one direction without their headers: of TCP with time stamps, 40 bytes
/// of options in the SYN and 12 in all others.
fn payload(of: &Value) -> u64 {
    let [packets, bytes] = ["packets", "bytes"].map(|name| of[name].as_u64().unwrap());
    bytes - (packets * 52 + 8)
}

#[test]
fn what_ended_is_there_with_names_service_policy_and_every_byte() {
    let daemon = recording();
    let [client, server, other] = &pods(&daemon);
    let listener = listen(server);

    // By FIN, over the Service.
    let (mut near, mut far) = talk(client, &listener, (CLUSTER_IP, 8000));
    near.shutdown(Shutdown::Write).unwrap();
    far.read_to_end(&mut Vec::new()).unwrap();
    drop(far);
    near.read_to_end(&mut Vec::new()).unwrap();
    drop(near);
    let of = record(&daemon, &["--from", "client", "--to", "server"]);
    assert_eq!(of["end"], "fin", "{of}");
    assert_eq!(of["service"], format!("{CLUSTER_IP}:8000"));
    assert_eq!(of["source"]["pod"], "default/client");
    assert_eq!(of["destination"]["pod"], "default/server");
    assert_eq!((&of["protocol"], &of["port"]), (&json!("TCP"), &json!(80)));
    assert_eq!(
        (&of["verdict"], &of["direction"]),
        (&json!("allowed"), &json!("ingress"))
    );
    assert_eq!(of["policies"], json!(["default/secure-pod"]));
    assert_eq!(of["allowed_by"][0]["table"], "IngressRule");
    assert_eq!((&of["connections"], &of["packets"]), (&json!(1), &json!(0)));
    let traffic = &of["traffic"];
    assert_eq!(
        payload(&traffic["sent"]),
        ROUNDS * QUESTION.len() as u64,
        "{of}"
    );
    assert_eq!(
        payload(&traffic["received"]),
        ROUNDS * ANSWER.len() as u64,
        "{of}"
    );

    // By RST, without.
    let (near, far) = talk(client, &listener, (server.ip(), 80));
    reset(near);
    eventually_within(PATIENCE, "there is one more", || {
        let ended = records(&daemon, &["--policy", "default/secure-pod", "--port", "80"])?;
        let by_reset = ended.iter().find(|of| of["end"] == "rst");
        let by_reset = by_reset.with_context(|| format!("{ended:?}"))?;
        ensure!(by_reset.get("service").is_none(), "{by_reset}");
        let sent = payload(&by_reset["traffic"]["sent"]);
        ensure!(sent == ROUNDS * QUESTION.len() as u64, "{by_reset}");
        Ok(())
    });
    drop(far);

    // By silence.
    let to = SocketAddr::new(other.ip(), 5_353);
    let receiver = at(&other.netns, move || UdpSocket::bind(to));
    at(&client.netns, move || {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        (0..3).try_for_each(|_| socket.send_to(&QUESTION, to).map(drop))
    });
    receiver.recv_from(&mut QUESTION.clone()).unwrap();
    let of = record(&daemon, &["--to", "other"]);
    assert_eq!(
        (&of["end"], &of["reason"]),
        (&json!("timeout"), &json!("not_isolated"))
    );
    let sent = json!({"packets": 3, "bytes": 3 * (QUESTION.len() + 28)});
    assert_eq!(of["traffic"]["sent"], sent);
    assert_eq!(of["traffic"]["received"], json!({"packets": 0, "bytes": 0}));
}

#[test]
fn a_connection_that_a_policy_cuts_or_whose_pod_goes_is_told_as_such() {
    let daemon = recording();
    let [client, server, _] = &pods(&daemon);
    let listener = listen(server);
    let (mut near, _far) = talk(client, &listener, (server.ip(), 80));
    daemon
        .vsctl(&["label", "pod", "client", "allow-access-"])
        .unwrap();
    near.write_all(&QUESTION).unwrap();
    let of = record(&daemon, &["--from", "client"]);
    assert_eq!(of["end"], "cut", "{of}");
    assert_eq!(
        of["policies"],
        json!(["default/secure-pod"]),
        "it had allowed it"
    );
    assert_eq!(
        payload(&of["traffic"]["sent"]),
        ROUNDS * QUESTION.len() as u64,
        "without what was cut: {of}"
    );

    daemon
        .vsctl(&["label", "pod", "client", "allow-access=true"])
        .unwrap();
    let (_near, _far) = talk(client, &listener, (server.ip(), 80));
    client.cni("DEL").unwrap().success().unwrap();
    eventually_within(PATIENCE, "it ended with its pod", || {
        let ended = records(&daemon, &["--from", "client", "--to", "server"])?;
        ensure!(ended.iter().any(|of| of["end"] == "detached"), "{ended:?}");
        Ok(())
    });
}

#[test]
fn who_follows_hears_of_connections_that_nobody_keeps() {
    let daemon = daemon();
    let [client, server, other] = &pods(&daemon);
    let listener = listen(server);
    let mut follow = daemon.node().command(vswitch_tests::binary("vsctl"));
    follow.arg("--socket").arg(daemon.socket());
    follow.args([
        "flows",
        "--follow",
        "--allowed",
        "--to",
        "server",
        "-o",
        "jsonl",
    ]);
    let mut follow = follow.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(follow.stdout.take().unwrap()).lines();
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    std::thread::scope(|scope| {
        // It may not listen yet.
        scope.spawn(move || {
            while stopped.try_recv() == Err(TryRecvError::Empty) {
                let (near, _far) = talk(client, &listener, (server.ip(), 80));
                reset(near);
                let _refused = at(&client.netns, {
                    let to = (other.ip(), 80);
                    move || Ok(TcpStream::connect(to).is_err())
                });
            }
        });
        let line = lines.next();
        drop(stop);
        let record: Value = serde_json::from_str(&line.unwrap().unwrap()).unwrap();
        assert_eq!(record["verdict"], "allowed", "{record}");
        assert_eq!(record["end"], "rst", "{record}");
        assert_eq!(record["destination"]["pod"], "default/server");
        assert_eq!(record["policies"], json!(["default/secure-pod"]));
        let connections = record["connections"].as_u64().unwrap();
        let sent = &record["traffic"]["sent"];
        let headers = sent["packets"].as_u64().unwrap() * 52 + connections * 8;
        let payload = sent["bytes"].as_u64().unwrap() - headers;
        assert_eq!(
            payload,
            connections * ROUNDS * QUESTION.len() as u64,
            "{record}"
        );
    });
    follow.kill().unwrap();
    follow.wait().unwrap();
    assert_eq!(records(&daemon, &[]).unwrap(), [] as [Value; 0]);
    let table = daemon.vsctl(&["flows", "--allowed"]).unwrap();
    assert!(table.contains("connections are not recorded"), "{table}");
}

#[test]
fn connections_that_are_recorded_go_to_the_file_of_records_as_well() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("flows.jsonl");
    let options = DaemonOptions {
        extra: format!("[flows]\nconnections = \"all\"\nfile = {path:?}\n"),
        ..DaemonOptions::default()
    };
    let daemon = Daemon::start(&options).unwrap();
    let [client, server, _other] = pods(&daemon);
    let listener = listen(&server);
    drop(talk(&client, &listener, (server.ip(), 80)));
    let line = eventually_within(PATIENCE, "the connection is in the file", || {
        let mut allowed = allowed_lines(&path)?.into_iter();
        allowed.next().context("no connection")
    });
    assert_eq!(line["end"], "fin");
    assert_eq!(line["source"]["pod"], "default/client");
    assert_eq!(line["policies"], json!(["default/secure-pod"]));
    assert_eq!(line["connections"], 1);
    assert_eq!(
        payload(&line["traffic"]["sent"]),
        ROUNDS * QUESTION.len() as u64
    );
    assert_eq!(
        payload(&line["traffic"]["received"]),
        ROUNDS * ANSWER.len() as u64
    );
}

#[test]
fn a_connection_is_there_when_it_begins_and_again_when_it_has_ended() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("flows.jsonl");
    let options = DaemonOptions {
        extra: format!(
            "[flows]\nconnections = \"all\"\nconnection_starts = true\nfile = {path:?}\n"
        ),
        ..DaemonOptions::default()
    };
    let daemon = Daemon::start(&options).unwrap();
    let [client, server, _other] = pods(&daemon);
    let listener = listen(&server);
    let (mut near, mut far) = talk(&client, &listener, (CLUSTER_IP, 8000));
    let of_both = ["--from", "client", "--to", "server"];
    let begun = record(&daemon, &of_both);
    assert_eq!(begun["event"], "begin", "{begun}");
    assert_eq!(begun["verdict"], "allowed");
    assert_eq!(begun["service"], format!("{CLUSTER_IP}:8000"));
    assert_eq!(begun["policies"], json!(["default/secure-pod"]));
    assert_eq!(begun["connections"], 1);
    for unknown in ["end", "traffic"] {
        assert_eq!(begun.get(unknown), None, "{begun}");
    }
    let table = daemon.vsctl(&["flows", "--allowed"]).unwrap();
    assert!(table.contains("  begin  default/client"), "{table}");

    near.shutdown(Shutdown::Write).unwrap();
    far.read_to_end(&mut Vec::new()).unwrap();
    drop(far);
    near.read_to_end(&mut Vec::new()).unwrap();
    let events = |records: &[Value]| -> Vec<String> {
        let events = records.iter().filter_map(|of| of["event"].as_str());
        events.map(str::to_owned).collect()
    };
    eventually_within(PATIENCE, "it has ended", || {
        let records = records(&daemon, &of_both)?;
        ensure!(events(&records) == ["end", "begin"], "{records:?}");
        ensure!(records[0]["end"] == "fin", "{records:?}");
        ensure!(records[1]["connections"] == 1, "{records:?}");
        let sent = payload(&records[0]["traffic"]["sent"]);
        ensure!(sent == ROUNDS * QUESTION.len() as u64, "{records:?}");
        Ok(())
    });
    eventually_within(PATIENCE, "both are in the file", || {
        let lines = allowed_lines(&path)?;
        ensure!(events(&lines) == ["begin", "end"], "{lines:?}");
        Ok(())
    });
}
