//! Ports of the node that come and go while clients outside go on sending to them.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use anyhow::ensure;
use serde_json::json;
use vswitch_tests::{Daemon, Namespace, Pod, eventually, inside, join};

use crate::nodes::{dual_stack, outside};

const DUAL_STACK: [&str; 2] = ["10.96.0.60", "fd96::60"];
const NODE: [&str; 2] = ["192.0.2.1", "2001:db8::1"];
const PORT: u16 = 30_053;

/// A node of both families with an uplink, and a host behind it.
fn node() -> (Daemon, Namespace) {
    let daemon = dual_stack();
    let outside = outside(&daemon);
    // A host may have IPv6 disabled for what comes later.
    let enable = "ipv6/conf/uplink0/disable_ipv6";
    daemon.node().set_sysctl(enable, "0").unwrap();
    for (place, ifname, address) in [
        (daemon.node(), "uplink0", "2001:db8::1/64"),
        (&outside, "eth0", "2001:db8::2/64"),
    ] {
        let add = ["address", "add", address, "dev", ifname, "nodad"];
        place.ip(&add).unwrap();
    }
    (daemon, outside)
}

/// Answers each datagram with the name, until the end of the test or the socket's.
fn answer(place: &Namespace, port: u16, name: &'static str) -> Answering {
    let bind = move || {
        let socket = UdpSocket::bind(("::", port))?;
        socket.set_read_timeout(Some(Duration::from_millis(50)))?;
        Ok(socket)
    };
    let socket = join(inside(place, bind).unwrap()).unwrap();
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let thread = std::thread::spawn(move || {
        while stopped.try_recv() != Err(std::sync::mpsc::TryRecvError::Disconnected) {
            if let Ok((_, from)) = socket.recv_from(&mut [0; 16]) {
                let _ = socket.send_to(name.as_bytes(), from);
            }
        }
    });
    Answering {
        stop: Some(stop),
        thread: Some(thread),
    }
}

struct Answering {
    stop: Option<std::sync::mpsc::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Drop for Answering {
    fn drop(&mut self) {
        drop(self.stop.take());
        let _ = self.thread.take().map(std::thread::JoinHandle::join);
    }
}

/// Clients of both families, each with one source port for ever.
struct Clients([UdpSocket; 2]);

impl Clients {
    fn new(outside: &Namespace) -> Self {
        let families = [("0.0.0.0:4000", NODE[0]), ("[2001:db8::2]:4000", NODE[1])];
        Self(families.map(|(own, node)| {
            let connect = move || {
                let socket = UdpSocket::bind(own)?;
                socket.connect((node, PORT))?;
                socket.set_read_timeout(Some(Duration::from_millis(300)))?;
                Ok(socket)
            };
            join(inside(outside, connect).unwrap()).unwrap()
        }))
    }

    fn ask(socket: &UdpSocket) -> anyhow::Result<String> {
        let mut answer = [0; 16];
        socket.send(b"who")?;
        let length = socket.recv(&mut answer)?;
        Ok(String::from_utf8_lossy(&answer[..length]).into_owned())
    }

    /// Waits until both are answered by this one, and sends all the while.
    #[track_caller]
    fn hear(&self, name: &str) {
        for socket in &self.0 {
            eventually(&format!("{name} answers"), || {
                let heard = Self::ask(socket)?;
                ensure!(heard == name, "{heard} does");
                Ok(())
            });
        }
    }

    /// Asks for some time; nobody must answer.
    #[track_caller]
    fn hear_nobody(&self) {
        for socket in &self.0 {
            for _ in 0..4 {
                Self::ask(socket).unwrap_err();
            }
        }
    }
}

fn expose(daemon: &Daemon, server: &Pod) {
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "dns"},
    "spec": {"type": "NodePort", "ipFamilyPolicy": "RequireDualStack",
        "ipFamilies": ["IPv4", "IPv6"], "clusterIP": DUAL_STACK[0], "clusterIPs": DUAL_STACK,
        "ports": [
            {"name": "udp", "protocol": "UDP", "port": 53, "targetPort": 5353, "nodePort": PORT},
            {"name": "tcp", "protocol": "TCP", "port": 53, "targetPort": 5353, "nodePort": PORT},
        ]}});
    daemon.apply(&service.to_string()).unwrap();
    for (family, address) in ["IPv4", "IPv6"].iter().zip(&server.addresses) {
        let slice = json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {"name": format!("dns-{}", family.to_lowercase()),
                "labels": {"kubernetes.io/service-name": "dns"}},
            "addressType": family, "endpoints": [{"addresses": [address]}],
            "ports": [{"name": "udp", "protocol": "UDP", "port": 5353},
                {"name": "tcp", "protocol": "TCP", "port": 5353}]});
        daemon.apply(&slice.to_string()).unwrap();
    }
}

#[test]
fn who_goes_on_sending_to_a_node_port_is_answered_by_whoever_has_it() {
    let (daemon, outside) = node();
    let server = Pod::named("server").attach(&daemon).unwrap();
    let _pod = answer(&server.netns, 5353, "pod");
    let clients = Clients::new(&outside);
    clients.hear_nobody();
    expose(&daemon, &server);
    clients.hear("pod");
    daemon.vsctl(&["delete", "service", "dns"]).unwrap();
    let process = answer(daemon.node(), PORT, "process");
    clients.hear("process");
    // A process that has the port loses it to the Service.
    expose(&daemon, &server);
    clients.hear("pod");
    drop(process);
    clients.hear("pod");
}

#[test]
fn who_goes_on_sending_to_a_host_port_is_answered_by_whoever_has_it() {
    let (daemon, outside) = node();
    let clients = Clients::new(&outside);
    clients.hear_nobody();
    let mapping = json!([{"hostPort": PORT, "containerPort": 5353, "protocol": "udp"}]);
    let attach = |name: &str| {
        let pod = Pod::named(name).config("runtimeConfig", json!({"portMappings": mapping}));
        pod.attach(&daemon).unwrap()
    };
    let first = attach("first");
    let answering = answer(&first.netns, 5353, "first");
    clients.hear("first");
    drop((answering, first));
    let second = attach("second");
    let answering = answer(&second.netns, 5353, "second");
    clients.hear("second");
    drop((answering, second));
    let _process = answer(daemon.node(), PORT, "process");
    clients.hear("process");
}

#[test]
fn a_host_port_that_goes_while_the_daemon_is_away_is_its_process_s() {
    let (mut daemon, outside) = node();
    let clients = Clients::new(&outside);
    let mapping = json!([{"hostPort": PORT, "containerPort": 5353, "protocol": "udp"}]);
    let pod = Pod::named("server").config("runtimeConfig", json!({"portMappings": mapping}));
    let pod = pod.attach(&daemon).unwrap();
    let answering = answer(&pod.netns, 5353, "pod");
    clients.hear("pod");
    daemon.stop(nix::sys::signal::Signal::SIGKILL).unwrap();
    // Without a DEL: its container is gone when the daemon comes back.
    drop((answering, pod));
    let _process = answer(daemon.node(), PORT, "process");
    for socket in &clients.0 {
        Clients::ask(socket).unwrap_err();
    }
    daemon.spawn().unwrap();
    clients.hear("process");
}

#[test]
fn a_conversation_with_a_process_outlives_a_node_port_of_the_same_number() {
    let (daemon, outside) = node();
    let server = Pod::named("server").attach(&daemon).unwrap();
    let _pod = answer(&server.netns, 5353, "pod");
    let listen = || Ok(TcpListener::bind(("0.0.0.0", PORT))?);
    let listener = join(inside(daemon.node(), listen).unwrap()).unwrap();
    let connect = || Ok(TcpStream::connect((NODE[0], PORT))?);
    let mut near = join(inside(&outside, connect).unwrap()).unwrap();
    let (mut far, _) = listener.accept().unwrap();
    let mut talk = || {
        near.write_all(b"question").unwrap();
        far.read_exact(&mut [0; 8]).unwrap();
        far.write_all(b"answer").unwrap();
        near.read_exact(&mut [0; 6]).unwrap();
    };
    talk();
    expose(&daemon, &server);
    // The datagrams of others say that the port is led elsewhere by now.
    Clients::new(&outside).hear("pod");
    talk();
}
