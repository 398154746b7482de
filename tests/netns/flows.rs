//! What was denied, asked for afterwards.

use std::io::{BufRead as _, BufReader};
use std::net::UdpSocket;
use std::process::Stdio;
use std::sync::mpsc::TryRecvError;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;
use vswitch_tests::{Daemon, DaemonOptions, Pod, eventually, inside, join};

use crate::{SECURE_POD, daemon};

/// Client, and a server that the policy shuts it out from.
fn pods(daemon: &Daemon) -> (Pod, Pod) {
    let [client, server] =
        ["client", "server"].map(|name| Pod::named(name).attach(daemon).unwrap());
    daemon
        .vsctl(&["label", "pod", "server", "app=secure-pod"])
        .unwrap();
    daemon.apply(SECURE_POD).unwrap();
    (client, server)
}

/// Sends datagrams to each of some ports.
fn send(client: &Pod, server: &Pod, ports: std::ops::Range<u16>, each: u32) {
    let (ip, first, last) = (server.ip(), ports.start, ports.end - 1);
    let script = format!(
        "for port in $(seq {first} {last}); do for i in $(seq {each}); do \
         echo x > /dev/udp/{ip}/$port; done; done"
    );
    client
        .run(&["bash", "-c", &script])
        .unwrap()
        .success()
        .unwrap();
}

fn records(daemon: &Daemon, arguments: &[&str]) -> Vec<Value> {
    let answer = daemon
        .vsctl_json(&[&["flows"], arguments].concat())
        .unwrap();
    assert_eq!(answer["lost"], 0, "{answer}");
    assert_eq!(answer.get("problems"), None, "{answer}");
    answer["records"].as_array().unwrap().clone()
}

fn packets(records: &[Value]) -> Vec<u64> {
    records
        .iter()
        .map(|of| of["packets"].as_u64().unwrap())
        .collect()
}

/// Waits until what the daemon has written by itself says as much.
fn written(daemon: &Daemon, sum: u64) {
    eventually("all is written", || {
        let folder = daemon.folder().join("state/flows");
        let mut packets = 0;
        for file in std::fs::read_dir(&folder)? {
            for line in std::fs::read_to_string(file?.path())?.lines() {
                let record: Value = serde_json::from_str(line)?;
                packets += record["packets"].as_u64().unwrap_or(0);
            }
        }
        anyhow::ensure!(packets == sum, "{packets} of {sum}");
        Ok(())
    });
}

#[test]
fn what_was_denied_is_there_after_a_kill_with_counts_policy_and_cure() {
    let mut daemon = daemon();
    let (client, server) = pods(&daemon);
    send(&client, &server, 9_000..9_100, 5);
    written(&daemon, 500);
    daemon.stop(Signal::SIGKILL).unwrap();
    daemon.spawn().unwrap();
    let after = records(&daemon, &["--denied", "--from", "client", "--to", "server"]);
    assert_eq!(packets(&after), [5; 100]);
    let of = &after[0];
    assert_eq!(of["verdict"], "denied");
    assert_eq!(of["direction"], "ingress");
    assert_eq!(of["source"]["pod"], "default/client");
    assert_eq!(of["destination"]["pod"], "default/server");
    assert_eq!(of["policies"], serde_json::json!(["default/secure-pod"]));
    assert_eq!(records(&daemon, &["--until", "1h"]), [] as [Value; 0]);
    let of_policy = [
        "--policy",
        "default/secure-pod",
        "--since",
        "1h",
        "--limit",
        "7",
    ];
    assert_eq!(records(&daemon, &of_policy).len(), 7);
    let refused = daemon.vsctl(&["flows", "--since", "25:00"]).unwrap_err();
    assert!(format!("{refused:#}").contains("25:00"), "{refused:#}");

    client.fetch(server.ip(), 80).unwrap_err();
    let why = daemon.vsctl(&["why", "client"]).unwrap();
    for told in [
        "denied: default/client -> default/server TCP 80",
        "denied by default/secure-pod",
        "label allow-access=true on pod default/client",
    ] {
        assert!(why.contains(told), "{told:?} in {why}");
    }
    let nothing = daemon.vsctl(&["why", "nobody"]).unwrap();
    assert_eq!(nothing, "nothing was denied from or to nobody\n");
}

#[test]
fn who_follows_hears_of_a_denial_when_it_happens() {
    let daemon = daemon();
    let (client, server) = pods(&daemon);
    let mut follow = daemon.node().command(vswitch_tests::binary("vsctl"));
    follow.arg("--socket").arg(daemon.socket());
    follow.args(["flows", "--follow", "--to", "server", "-o", "jsonl"]);
    let mut follow = follow.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(follow.stdout.take().unwrap()).lines();
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let (client, server) = (&client, &server);
    std::thread::scope(|scope| {
        // It may not listen yet.
        scope.spawn(move || {
            while stopped.try_recv() == Err(TryRecvError::Empty) {
                send(client, server, 9_000..9_001, 1);
            }
        });
        let line = lines.next();
        drop(stop);
        let record: Value = serde_json::from_str(&line.unwrap().unwrap()).unwrap();
        assert_eq!(record["destination"]["pod"], "default/server");
        assert_eq!(record["port"], 9_000);
        assert!(record["packets"].as_u64().unwrap() > 0);
    });
    follow.kill().unwrap();
    follow.wait().unwrap();
}

/// A daemon whose records go to a file as well.
fn daemon_with_file(path: &std::path::Path) -> DaemonOptions {
    DaemonOptions {
        extra: format!("[flows]\nfile = {path:?}\njournald = true\n"),
        ..DaemonOptions::default()
    }
}

/// Waits until the lines of a file tell of so many packets.
fn in_file(path: &std::path::Path, sum: u64) {
    eventually("all is in the file", || {
        let mut lines = Vec::new();
        for line in std::fs::read_to_string(path)?.lines() {
            lines.push(serde_json::from_str::<Value>(line)?);
        }
        let packets: u64 = packets(&lines).iter().sum();
        anyhow::ensure!(packets == sum, "{packets} of {sum}");
        for line in &lines {
            assert_eq!(line["node"], "node-a");
            assert_eq!(line["time"], line["last"]);
            assert_eq!(line["source"]["pod"], "default/client");
            assert_eq!(line["policies"], serde_json::json!(["default/secure-pod"]));
        }
        Ok(())
    });
}

#[test]
fn records_go_to_a_file_as_soon_as_its_folder_is_there_and_at_the_end() {
    let place = tempfile::tempdir().unwrap();
    let folder = place.path().join("logs");
    let path = folder.join("flows.jsonl");
    let mut daemon = Daemon::start(&daemon_with_file(&path)).unwrap();
    let (client, server) = pods(&daemon);
    let problem = || {
        let status = daemon.vsctl(&["status"]).unwrap();
        let named = path.display().to_string();
        let line = |line: &&str| line.starts_with("PROBLEM") && line.contains(&named);
        status.lines().find(line).map(str::to_owned)
    };
    send(&client, &server, 9_000..9_010, 2);
    written(&daemon, 20);
    let said = problem().unwrap();
    assert!(said.contains("No such file or directory"), "{said}");
    std::fs::create_dir(&folder).unwrap();
    in_file(&path, 20);
    assert_eq!(problem(), None);
    let log = daemon.log();
    let lines = log.lines().filter(|line| line.contains("flows.jsonl"));
    let said: Vec<&str> = lines.filter(|line| line.contains("do not go")).collect();
    assert_eq!(said.len(), 1, "{said:?}");
    let metrics = daemon.text("/metrics").unwrap();
    let figure = |name: &str, to: &str| -> u64 {
        let start = format!("vswitch_flow_records_{name}_total{{to=\"{to}\"}} ");
        let figure = metrics.lines().find_map(|line| line.strip_prefix(&start));
        figure.expect(&metrics).parse().unwrap()
    };
    assert!(figure("exported", "file") >= 10);
    assert_eq!(figure("lost", "file"), 0);
    // Whether there is a journal depends on the machine.
    figure("exported", "journald");

    // Not fetched yet when the daemon is told to end.
    send(&client, &server, 9_010..9_020, 1);
    assert_eq!(daemon.stop(Signal::SIGTERM).unwrap(), Some(0));
    in_file(&path, 30);
}

#[test]
fn a_folder_where_records_should_go_is_refused_at_the_start() {
    let place = tempfile::tempdir().unwrap();
    let mut daemon = Daemon::prepare(&daemon_with_file(place.path())).unwrap();
    daemon.launch().unwrap();
    assert_eq!(daemon.wait().unwrap(), Some(1));
    let log = daemon.log();
    assert!(
        log.contains("flows.file: ") && log.contains("is a folder"),
        "{log}"
    );
}

#[test]
fn records_go_to_a_collector_of_flows() {
    let extra = "[flows]\nipfix_collector = \"udp://127.0.0.1:4739\"\nipfix_enterprise = 32473\n";
    let daemon = Daemon::start(&DaemonOptions {
        extra: extra.to_owned(),
        ..DaemonOptions::default()
    })
    .unwrap();
    let collector = inside(daemon.node(), || Ok(UdpSocket::bind("127.0.0.1:4739")?));
    let collector = join(collector.unwrap()).unwrap();
    let patience = Some(Duration::from_secs(20));
    collector.set_read_timeout(patience).unwrap();
    let (client, server) = pods(&daemon);
    send(&client, &server, 9_000..9_001, 2);
    let mut buffer = [0; 4_096];
    let length = collector.recv(&mut buffer).unwrap();
    let message = &buffer[..length];
    // Version and length (RFC 7011 section 3.1).
    assert_eq!(message[..2], [0, 10]);
    assert_eq!(
        usize::from(u16::from_be_bytes([message[2], message[3]])),
        length
    );
    for name in ["node-a", "client", "server", "default/secure-pod", "denied"] {
        let has = |part: &[u8]| part == name.as_bytes();
        assert!(message.windows(name.len()).any(has), "{name}");
    }
    eventually("it is counted", || {
        let metrics = daemon.text("/metrics")?;
        let figure = "vswitch_flow_records_exported_total{to=\"ipfix\"} ";
        let mut figures = metrics.lines().filter_map(|line| line.strip_prefix(figure));
        anyhow::ensure!(figures.any(|figure| figure != "0"), "{metrics}");
        Ok(())
    });
    let status = daemon.vsctl(&["status"]).unwrap();
    assert!(!status.contains("udp://127.0.0.1:4739"), "{status}");
}
