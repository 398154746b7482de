//! Streams from servers behind Services go on across a restart, though their clients only listen.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::json;
use vswitch_tests::{Daemon, DaemonOptions, Namespace, Pod, eventually, inside, join};

const CLUSTER_IP: [u8; 4] = [10, 96, 0, 40];
/// Longer than an outage with the retransmission behind it; who is cut off hears at once.
const PATIENCE: Duration = Duration::from_secs(60);

/// Sends numbers without an end to whoever connects.
struct Source {
    pod: Pod,
    stop: Arc<AtomicBool>,
}

impl Source {
    fn start(pod: Pod) -> Self {
        let listen = || Ok(TcpListener::bind("0.0.0.0:8080")?);
        let listener = join(inside(&pod.netns, listen).unwrap()).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let is_over = Arc::clone(&stop);
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let is_over = Arc::clone(&is_over);
                std::thread::spawn(move || {
                    let mut number = 0_u64;
                    while !is_over.load(SeqCst) && stream.write_all(&number.to_be_bytes()).is_ok() {
                        number += 1;
                        std::thread::sleep(Duration::from_millis(10));
                    }
                });
            }
        });
        Self { pod, stop }
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        self.stop.store(true, SeqCst);
    }
}

/// A client that never sends.
struct Listener {
    name: String,
    /// The next number that it waits for.
    next: Arc<AtomicU64>,
    end: std::thread::JoinHandle<String>,
}

impl Listener {
    fn connect(name: &str, place: &Namespace, to: SocketAddr) -> Self {
        let connect = move || Ok(TcpStream::connect_timeout(&to, PATIENCE)?);
        let mut stream = join(inside(place, connect).unwrap()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let next = Arc::new(AtomicU64::new(0));
        let seen = Arc::clone(&next);
        let end = std::thread::spawn(move || {
            let mut number = [0; 8];
            loop {
                if let Err(error) = stream.read_exact(&mut number) {
                    return error.to_string();
                }
                if u64::from_be_bytes(number) != seen.fetch_add(1, SeqCst) {
                    return "a number is missing, or came twice".to_owned();
                }
            }
        });
        Self {
            name: name.to_owned(),
            next,
            end,
        }
    }

    /// Waits for twenty more numbers, or the end: who hears nothing gives up.
    fn goes_on(self) -> Self {
        let before = self.next.load(SeqCst);
        while self.next.load(SeqCst) < before + 20 {
            if self.end.is_finished() {
                panic!("{}: {}", self.name, self.end.join().unwrap());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        self
    }
}

fn apply_slice(daemon: &Daemon, sources: &[&Source]) {
    let endpoints: Vec<_> = sources
        .iter()
        .map(|source| json!({"addresses": [source.pod.ip()]}))
        .collect();
    let slice = json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"name": "stream-1", "labels": {"kubernetes.io/service-name": "stream"}},
        "addressType": "IPv4", "endpoints": endpoints, "ports": [{"port": 8080}]});
    daemon.apply(&slice.to_string()).unwrap();
}

/// Admits the client to the pods of the Service, and to nothing else.
fn isolate(daemon: &Daemon) {
    for (name, app) in [
        ("client", "client"),
        ("one", "stream"),
        ("two", "stream"),
        ("three", "stream"),
    ] {
        let label = format!("app={app}");
        daemon.vsctl(&["label", "pod", name, &label]).unwrap();
    }
    let peer = |app: &str| json!([{"podSelector": {"matchLabels": {"app": app}}}]);
    let policies = [
        json!({"podSelector": {"matchLabels": {"app": "client"}},
            "policyTypes": ["Ingress", "Egress"], "egress": [{"to": peer("stream")}]}),
        json!({"podSelector": {"matchLabels": {"app": "stream"}},
            "policyTypes": ["Egress"], "egress": []}),
    ];
    for (nth, spec) in policies.iter().enumerate() {
        let policy = json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": {"name": format!("stream-{nth}")}, "spec": spec});
        daemon.apply(&policy.to_string()).unwrap();
    }
}

fn streams_go_on(signal: Signal) {
    let mut daemon = Daemon::start(&DaemonOptions::default()).unwrap();
    let outside = Namespace::new("outside").unwrap();
    daemon
        .node()
        .connect("uplink0", "192.0.2.1/24", &outside, "eth0", "192.0.2.2/24")
        .unwrap();
    let client = Pod::named("client").attach(&daemon).unwrap();
    let [one, two, three] = ["one", "two", "three"]
        .map(|name| Source::start(Pod::named(name).attach(&daemon).unwrap()));
    isolate(&daemon);
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "stream"},
        "spec": {"type": "NodePort", "clusterIP": std::net::Ipv4Addr::from(CLUSTER_IP),
            "ports": [{"port": 80, "targetPort": 8080, "nodePort": 30080}]}});
    daemon.apply(&service.to_string()).unwrap();
    apply_slice(&daemon, &[&one, &two]);
    let (cluster_ip, node_port) = (
        SocketAddr::from((CLUSTER_IP, 80)),
        SocketAddr::from(([192, 0, 2, 1], 30080)),
    );
    let direct = SocketAddr::new(one.pod.ip(), 8080);
    eventually("the NodePort answers", || {
        let connect = move || {
            Ok(TcpStream::connect_timeout(
                &node_port,
                Duration::from_secs(1),
            )?)
        };
        join(inside(&outside, connect).unwrap())
    });
    let places = [
        ("pod to ClusterIP", &client.netns, cluster_ip),
        ("pod to NodePort", &client.netns, node_port),
        ("pod to pod", &client.netns, direct),
        ("node to ClusterIP", daemon.node(), cluster_ip),
        ("outside to NodePort", &outside, node_port),
    ];
    // Several of each, so that both endpoints have some.
    let listeners = places.into_iter().flat_map(|(name, place, to)| {
        (0..4).map(move |nth| Listener::connect(&format!("{name} {nth}"), place, to))
    });
    let listeners: Vec<_> = listeners.map(Listener::goes_on).collect();
    // From now on new connections are spread otherwise.
    apply_slice(&daemon, &[&three, &one, &two]);
    daemon.stop(signal).unwrap();
    daemon.spawn().unwrap();
    for listener in listeners {
        listener.goes_on();
    }
}

#[test]
fn a_sigterm_ends_no_stream_through_a_service() {
    streams_go_on(Signal::SIGTERM);
}

#[test]
fn a_kill_9_ends_no_stream_through_a_service() {
    streams_go_on(Signal::SIGKILL);
}
