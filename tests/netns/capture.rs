//! Captures of pods, read by tshark.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, ensure};
use serde_json::Value;
use vswitch_tests::{Daemon, Pod, binary, eventually, run};

use crate::fast_path::{ask, connect, echo, flows, pods, returns_to_the_kernel, tracked, warm_up};
use crate::{SECURE_POD, daemon};

/// A capture into a file, as long as this is there.
struct Capture {
    vsctl: Child,
    file: PathBuf,
}

/// A packet as tshark reads it.
#[derive(Debug)]
struct Packet {
    interface: String,
    is_outbound: bool,
    protocols: String,
    comment: String,
}

impl Capture {
    /// Begins; when this returns every packet is captured.
    fn begin(daemon: &Daemon, pod: &str, filter: &str) -> Self {
        let file = daemon.folder().join(format!("{pod}.pcapng"));
        let _none_before = std::fs::remove_file(&file);
        let mut vsctl = daemon.node().command(binary("vsctl"));
        vsctl.arg("--socket").arg(daemon.socket());
        vsctl.args(["capture", pod, filter, "-w"]).arg(&file);
        let capture = Self {
            vsctl: vsctl.spawn().unwrap(),
            file,
        };
        eventually("the capture begins", || {
            let written = std::fs::metadata(&capture.file)?.len();
            ensure!(written > 0);
            Ok(())
        });
        capture
    }

    fn packets(&self) -> Vec<Packet> {
        packets(&self.file)
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        let _gone = self.vsctl.kill();
        let _gone = self.vsctl.wait();
    }
}

fn packets(file: &Path) -> Vec<Packet> {
    let mut tshark = Command::new("tshark");
    tshark.args(["-n", "-T", "fields", "-r"]).arg(file);
    for field in [
        "frame.interface_name",
        "frame.packet_flags_direction",
        "frame.protocols",
        "frame.comment",
    ] {
        tshark.args(["-e", field]);
    }
    let read = run(&mut tshark, "").unwrap().success().unwrap();
    let packet = |line: &str| {
        let fields: Vec<&str> = line.split('\t').collect();
        let [interface, direction, protocols, comment] = fields[..] else {
            panic!("{line}");
        };
        let direction = direction.trim_start_matches("0x").trim_start_matches('0');
        assert!(["1", "2"].contains(&direction), "{line}");
        Packet {
            interface: interface.to_owned(),
            is_outbound: direction == "2",
            protocols: protocols.to_owned(),
            comment: comment.to_owned(),
        }
    };
    read.lines().map(packet).collect()
}

/// Packets that the pod's interface has sent and received.
fn counted(pod: &Pod) -> (u64, u64) {
    let stats = pod.netns.ip(&["-s", "-j", "link", "show", "eth0"]).unwrap();
    let stats: Value = serde_json::from_str(&stats).unwrap();
    let packets = |way: &str| stats[0]["stats64"][way]["packets"].as_u64().unwrap();
    (packets("tx"), packets("rx"))
}

#[test]
fn allowed_and_denied_packets_carry_verdict_policy_and_direction() {
    let daemon = daemon();
    let [client, server] = &pods(&daemon);
    daemon
        .vsctl(&["label", "pod", "server", "app=secure-pod"])
        .unwrap();
    daemon.apply(SECURE_POD).unwrap();
    let _web = server.serve(80).unwrap();
    let capture = Capture::begin(&daemon, "server", "tcp and port 80");
    client.fetch(server.ip(), 80).unwrap_err();
    daemon
        .vsctl(&["label", "pod", "client", "allow-access=true"])
        .unwrap();
    client.fetch(server.ip(), 80).unwrap();
    let denied = "dropped (policy_ingress): the receiver is isolated by default/secure-pod, and no rule \
                  allows it; rule IngressDefault: NetworkPolicy default/secure-pod";
    let allowed = "forwarded from default/client: allowed by default/secure-pod; \
                   rule IngressRule: NetworkPolicy default/secure-pod ingress[0]";
    let answers =
        "forwarded to default/client: answers a connection, allowed by default/secure-pod; ";
    eventually("all is in the file", || {
        let packets = capture.packets();
        for (is_outbound, comment) in [(false, denied), (false, allowed), (true, answers)] {
            let is_it = |packet: &&Packet| packet.comment.starts_with(comment);
            let found = packets.iter().find(is_it);
            let found = found.with_context(|| format!("{comment} in {packets:#?}"))?;
            assert_eq!(found.is_outbound, is_outbound, "{found:?}");
            assert_eq!(found.interface, "default/server eth0");
            assert!(found.protocols.contains("tcp"), "{found:?}");
        }
        anyhow::Ok(())
    });
}

#[test]
fn every_packet_of_a_connection_that_the_kernel_forwarded_is_captured_and_it_returns_there() {
    let daemon = daemon();
    let [client, server] = &pods(&daemon);
    // Neighbour discovery comes at any time, and is counted.
    client
        .netns
        .set_sysctl("net.ipv6.conf.all.disable_ipv6", "1")
        .unwrap();
    echo(&server.netns, 80);
    let stream = connect(&client.netns, server.ip(), 80);
    warm_up(&stream);
    assert_eq!(flows(&daemon), 2);

    let (capture, before) = eventually("a capture begins while nothing is sent", || {
        let before = counted(client);
        let capture = Capture::begin(&daemon, "client", "");
        ensure!(before == counted(client), "an acknowledgement was late");
        anyhow::Ok((capture, before))
    });
    for _ in 0..500 {
        ask(&stream, 20_000).unwrap();
    }
    assert_eq!(tracked(&daemon, &stream)["offloaded"], false);
    eventually("every packet is in the file", || {
        let packets = capture.packets();
        let of_way = |way| {
            let packets = packets.iter().filter(|packet| packet.is_outbound == way);
            u64::try_from(packets.count())
        };
        let counted = counted(client);
        let counted = (counted.0 - before.0, counted.1 - before.1);
        assert!(counted.0 >= 500 && counted.1 >= 500, "{counted:?}");
        let captured = (of_way(true)?, of_way(false)?);
        ensure!(counted == captured, "{captured:?} of {counted:?}");
        anyhow::Ok(())
    });
    drop(capture);

    returns_to_the_kernel(&daemon, &stream);
}

#[test]
fn a_capture_is_piped_into_tshark_until_it_has_its_packets() {
    let daemon = daemon();
    let [client, server] = &pods(&daemon);
    let mut vsctl = daemon.node().command(binary("vsctl"));
    vsctl.arg("--socket").arg(daemon.socket());
    vsctl.args(["capture", "default/client", "icmp", "-c", "4", "-w", "-"]);
    let piped = vsctl.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut vsctl = piped.spawn().unwrap();
    let stdout = vsctl.stdout.take().unwrap();
    let tshark = Command::new("tshark")
        .args(["-n", "-r", "-", "-T", "fields", "-e", "icmp.type"])
        .stdin(stdout)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    eventually("it has its packets", || {
        client.pings(server.ip()).unwrap();
        ensure!(vsctl.try_wait().unwrap().is_some());
        Ok(())
    });
    let said = vsctl.wait_with_output().unwrap();
    assert_eq!(
        String::from_utf8_lossy(&said.stderr),
        "vsctl: 4 packets captured, 0 lost; ended by count\n"
    );
    let read = tshark.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&read.stdout), "8\n0\n8\n0\n");
}

#[test]
fn what_cannot_be_captured_is_named() {
    let daemon = daemon();
    let _client = Pod::named("client").attach(&daemon).unwrap();
    let refused = |arguments: &[&str]| {
        let all = [&["capture"], arguments, &["-w", "/dev/null"]].concat();
        format!("{:#}", daemon.vsctl(&all).unwrap_err())
    };
    for (arguments, named) in [
        (&["nobody"][..], "\"nobody\" is neither a pod on this node"),
        (&["client", "tcp", "prot", "80"], "\"prot\" is none of tcp"),
        (&["client", "--count", "0"], "count: 0 is not within 1"),
    ] {
        let refused = refused(arguments);
        assert!(refused.contains(named), "{refused}");
    }
    // The gateway has a name on the host alone.
    let _captures: Vec<Capture> = ["client", "vsw0"]
        .iter()
        .flat_map(|port| (0..2).map(|_| Capture::begin(&daemon, port, "")))
        .collect();
    let too_many = refused(&["client"]);
    assert!(too_many.contains("4 captures are under way"), "{too_many}");
}
