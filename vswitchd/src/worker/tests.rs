use std::collections::HashMap;
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use tokio::sync::mpsc::{Receiver, channel};
use vswitch_api::PortNo;
use vswitch_datapath::packet::Frame;
use vswitch_datapath::{DropReason, Outputs, Timestamp, Verdict};

use super::*;
use crate::clock::MonotonicClock;
use crate::netns::in_netns;
use crate::port::testnet::{Sandbox, adopt, ifname};
use crate::port::{
    LinkState, PortEvent, PortNotice, PortStats, TapConfig, open_mirror, open_tap, open_veth,
};
use crate::supervise::{Faults, Part, Supervisor};

/// A switch that is a cable from each port to one other.
#[derive(Debug, Default)]
struct Cables {
    to: HashMap<PortNo, PortNo>,
    mirror: Option<PortNo>,
    panics: bool,
    expired: AtomicUsize,
    dropped: AtomicUsize,
}

#[derive(Debug)]
struct CableEnd(Arc<Cables>);

impl WorkerDatapath for Cables {
    type Processor = CableEnd;

    fn processor(self: &Arc<Self>) -> CableEnd {
        CableEnd(Arc::clone(self))
    }

    fn expire(&self, _now: Timestamp) -> usize {
        self.expired.fetch_add(1, SeqCst)
    }
}

impl FrameProcessor for CableEnd {
    fn process(
        &mut self,
        in_port: PortNo,
        frame: &mut Frame,
        _now: Timestamp,
        out: &mut Outputs,
    ) -> Verdict {
        assert!(!self.0.panics, "asked to panic");
        out.copies
            .extend(self.0.mirror.map(|mirror| (mirror, frame.clone())));
        self.0
            .to
            .get(&in_port)
            .map_or(Verdict::Drop(DropReason::NoRoute), |&to| {
                Verdict::Forward(to)
            })
    }

    fn count_drop(&mut self, _reason: DropReason) {
        self.0.dropped.fetch_add(1, SeqCst);
    }
}

fn cable(a: u32, b: u32) -> Cables {
    let to = HashMap::from([(PortNo(a), PortNo(b)), (PortNo(b), PortNo(a))]);
    Cables {
        to,
        ..Cables::default()
    }
}

pub(super) fn config(workers: usize) -> WorkerConfig {
    WorkerConfig {
        workers,
        ..WorkerConfig::new(MonotonicClock::start())
    }
}

fn start(net: &Sandbox, cables: Cables, workers: usize) -> (WorkerPool, Receiver<PortNotice>) {
    start_under(&Supervisor::default(), net, cables, workers)
}

fn start_under(
    supervisor: &Supervisor,
    net: &Sandbox,
    cables: Cables,
    workers: usize,
) -> (WorkerPool, Receiver<PortNotice>) {
    let (events, notices) = channel(16);
    let pool = WorkerPool::start(&Arc::new(cables), config(workers), events, supervisor).unwrap();
    attach(&pool, net, 1, "hpod");
    attach(&pool, net, 2, "hpeer");
    (pool, notices)
}

pub(super) fn attach(pool: &WorkerPool, net: &Sandbox, no: u32, name: &str) {
    let port = open_veth(PortNo(no), &ifname(name), Some(&net.open("switch")), None).unwrap();
    pool.attach(port).unwrap();
}

pub(super) fn ping(net: &Sandbox) -> bool {
    let args = ["ping", "-c1", "-W1", "-q", "10.9.0.2"];
    net.command("pod", &args).output().unwrap().status.success()
}

async fn next(notices: &mut Receiver<PortNotice>) -> PortNotice {
    tokio::time::timeout(Duration::from_secs(5), notices.recv())
        .await
        .unwrap()
        .unwrap()
}

/// Sends a mebibyte through the switch, from one namespace to the address of another.
pub(super) fn tcp_transfer(net: &Sandbox, from: &str, to: &str) -> u64 {
    let address = if to == "pod" {
        "10.9.0.1:5000"
    } else {
        "10.9.0.2:5000"
    };
    tcp_transfer_to(net, (from, to), address)
}

/// Sends a mebibyte through the switch to a socket of the namespace `to`.
pub(super) fn tcp_transfer_to(net: &Sandbox, (from, to): (&str, &str), address: &str) -> u64 {
    let listener = in_netns(&net.open(to), || TcpListener::bind(address).unwrap()).unwrap();
    let from = net.open(from);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            in_netns(&from, || {
                let mut stream = TcpStream::connect(address).unwrap();
                std::io::Write::write_all(&mut stream, &vec![1; 1 << 20]).unwrap();
            })
            .unwrap();
        });
        let (mut stream, _) = listener.accept().unwrap();
        std::io::copy(&mut stream, &mut std::io::sink()).unwrap()
    })
}

/// Asserts that what a port received were super-frames.
pub(super) fn assert_super_frames(stats: &PortStats) {
    assert!(stats.rx_bytes > 1 << 20, "{stats:?}");
    assert!(
        stats.rx_bytes / stats.rx_frames > 1514,
        "no super-frames: {stats:?}"
    );
}

#[test]
fn a_tcp_stream_passes_between_ports_of_different_workers() {
    let net = Sandbox::new();
    let (pool, _notices) = start(&net, cable(1, 2), 2);
    assert_eq!(tcp_transfer(&net, "pod", "peer"), 1 << 20);
    // The stream is whole before its last acknowledgements are, and a worker counts a batch after
    // the receiver may already have it.
    let counted = || pool.port_stats()[1].tx_bytes == pool.port_stats()[0].rx_bytes;
    let is_counted = (0..1000).any(|_| {
        std::thread::sleep(Duration::from_millis(10));
        counted()
    });
    assert!(is_counted, "{:?}", pool.port_stats());
    assert_super_frames(&pool.port_stats()[0]);
    pool.shutdown();
}

#[test]
fn a_detached_port_is_closed_and_its_frames_are_counted_as_lost() {
    let net = Sandbox::new();
    let cables = Arc::new(cable(1, 2));
    let (events, _notices) = channel(16);
    let pool = WorkerPool::start(&cables, config(2), events, &Supervisor::default()).unwrap();
    attach(&pool, &net, 1, "hpod");
    attach(&pool, &net, 2, "hpeer");
    assert!(ping(&net));
    pool.detach(PortNo(2)).unwrap();
    assert!(matches!(
        pool.detach(PortNo(2)),
        Err(WorkerError::NoSuchPort { port: PortNo(2) })
    ));
    assert!(!ping(&net));
    assert!(cables.dropped.load(SeqCst) > 0);
    attach(&pool, &net, 2, "hpeer");
    assert!(ping(&net));
}

#[test]
fn a_number_that_is_taken_is_refused() {
    let net = Sandbox::new();
    let (pool, _notices) = start(&net, cable(1, 2), 1);
    let port = open_veth(PortNo(1), &ifname("hpeer"), Some(&net.open("switch")), None).unwrap();
    assert!(matches!(
        pool.attach(port),
        Err(WorkerError::PortExists { port: PortNo(1) })
    ));
    assert!(ping(&net));
}

#[tokio::test]
async fn a_link_that_goes_down_and_up_is_told_and_forwards_again() {
    let net = Sandbox::new();
    let (pool, mut notices) = start(&net, cable(1, 2), 1);
    net.ip("switch", "link set hpeer down");
    let down = PortNotice {
        port: PortNo(2),
        event: PortEvent::LinkDown,
    };
    assert_eq!(next(&mut notices).await, down);
    assert_eq!(pool.port_stats()[1].link, LinkState::Down);
    net.ip("switch", "link set hpeer up");
    assert_eq!(next(&mut notices).await.event, PortEvent::LinkUp);
    assert!(ping(&net));
}

#[tokio::test]
async fn a_deleted_device_is_told_once_and_the_worker_goes_on() {
    let net = Sandbox::new();
    let rounds = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&rounds);
    let supervisor = Supervisor::new(Faults::new(Part::Worker.limits(), move |part| {
        counted.fetch_add(usize::from(part == Part::Worker), SeqCst);
        None
    }));
    let (pool, mut notices) = start_under(&supervisor, &net, cable(1, 2), 1);
    net.ip("switch", "link del hpeer");
    loop {
        let notice = next(&mut notices).await;
        assert_eq!(notice.port, PortNo(2));
        if notice.event == PortEvent::Gone {
            break;
        }
    }
    let before = rounds.load(SeqCst);
    tokio::time::sleep(Duration::from_millis(1200)).await;
    let beats = rounds.load(SeqCst) - before;
    assert!(
        (1..100).contains(&beats),
        "{beats} rounds in 1.2 s: dead or spinning"
    );
    assert!(notices.try_recv().is_err());
    pool.detach(PortNo(2)).unwrap();
}

#[test]
fn copies_go_to_the_mirror() {
    let net = Sandbox::new();
    let cables = Cables {
        mirror: Some(PortNo(9)),
        ..cable(1, 2)
    };
    let (pool, _notices) = start(&net, cables, 1);
    let mirror = open_mirror(PortNo(9), &ifname("mirror0"), Some(&net.open("switch"))).unwrap();
    pool.attach(mirror).unwrap();
    net.ip("switch", "link set mirror0 up");
    assert!(ping(&net));
    let stats = pool.port_stats();
    assert!(stats[2].tx_frames >= 2, "{stats:?}");
}

#[test]
fn a_gateway_tap_talks_to_a_pod() {
    let net = Sandbox::new();
    let (events, _notices) = channel(16);
    let pool = WorkerPool::start(
        &Arc::new(cable(1, 3)),
        config(1),
        events,
        &Supervisor::default(),
    )
    .unwrap();
    attach(&pool, &net, 1, "hpod");
    let tap = TapConfig {
        ifname: ifname("vsw0"),
        mac: None,
        persistent: false,
    };
    let tap = open_tap(PortNo(3), &tap, Some(&net.open("switch"))).unwrap();
    pool.attach(tap.port).unwrap();
    net.ip("switch", "link set vsw0 up");
    net.ip("switch", "addr add 10.9.0.2/24 dev vsw0");
    assert!(ping(&net));
    // A mebibyte each way: the average frame of the sending side tells whether it went whole.
    assert_eq!(tcp_transfer(&net, "switch", "pod"), 1 << 20);
    assert_super_frames(&pool.port_stats()[1]);
    let before = pool.port_stats()[0].clone();
    assert_eq!(tcp_transfer(&net, "pod", "switch"), 1 << 20);
    let after = pool.port_stats()[0].clone();
    assert_super_frames(&PortStats {
        rx_bytes: after.rx_bytes - before.rx_bytes,
        rx_frames: after.rx_frames - before.rx_frames,
        ..after
    });
}

#[test]
fn expiry_runs_and_stops_with_the_pool() {
    let cables = Arc::new(Cables::default());
    let (events, _notices) = channel(1);
    let config = WorkerConfig {
        expire_interval: Duration::from_millis(5),
        ..config(1)
    };
    let pool = WorkerPool::start(&cables, config, events, &Supervisor::default()).unwrap();
    while cables.expired.load(SeqCst) < 3 {
        std::thread::yield_now();
    }
    pool.shutdown();
    assert_eq!(Arc::strong_count(&cables), 1, "a thread still runs");
}

#[test]
fn a_panic_on_a_worker_ends_the_process() {
    const CHILD: &str = "VSWITCH_TEST_PANIC_CHILD";
    if std::env::var_os(CHILD).is_some() {
        let net = Sandbox::new();
        let (pool, _notices) = start(
            &net,
            Cables {
                panics: true,
                ..cable(1, 2)
            },
            1,
        );
        ping(&net);
        pool.shutdown();
        return;
    }
    let name = "worker::tests::a_panic_on_a_worker_ends_the_process";
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env(CHILD, "1")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let _left_behind = adopt(child.id());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.signal(), Some(libc::SIGABRT), "{output:?}");
}

#[test]
fn a_port_that_is_flooded_does_not_starve_another() {
    let net = Sandbox::new();
    let (events, _notices) = channel(16);
    let pool = WorkerPool::start(
        &Arc::new(cable(2, 3)),
        config(1),
        events,
        &Supervisor::default(),
    )
    .unwrap();
    attach(&pool, &net, 1, "hpod");
    attach(&pool, &net, 2, "hpeer");
    let tap = TapConfig {
        ifname: ifname("vsw0"),
        mac: None,
        persistent: false,
    };
    let tap = open_tap(PortNo(3), &tap, Some(&net.open("switch"))).unwrap();
    pool.attach(tap.port).unwrap();
    net.ip("switch", "link set vsw0 up");
    net.ip("switch", "addr add 10.9.0.3/24 dev vsw0");
    net.ip(
        "pod",
        "neigh add 10.9.0.77 lladdr 02:00:00:00:00:77 dev eth0",
    );
    let pod = net.open("pod");
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            in_netns(&pod, || {
                let socket = UdpSocket::bind("10.9.0.1:0").unwrap();
                while !stop.load(SeqCst) {
                    let _full = socket.send_to(&[0; 64], "10.9.0.77:9");
                }
            })
        });
        while pool.port_stats()[0].rx_frames < 1000 {
            std::thread::yield_now();
        }
        let args = ["ping", "-c20", "-i0.01", "-W1", "-q", "10.9.0.3"];
        let output = net.command("peer", &args).output().unwrap();
        stop.store(true, SeqCst);
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.contains(" 0% packet loss"), "{text}");
    });
}

#[test]
fn a_frame_that_no_port_sent_is_decided_on_and_sent_as_if_one_had() {
    let net = Sandbox::new();
    let (pool, _notices) = start(&net, cable(1, 2), 2);
    // The stacks of both ends send by themselves, and nothing of this size.
    let frame = || Frame::from_bytes(&[7; 1_400]);
    let bytes = || pool.port_stats()[1].tx_bytes;
    let before = bytes();
    let (_, verdict) = pool.inject(PortNo(1), frame()).unwrap();
    assert_eq!(verdict, Verdict::Forward(PortNo(2)));
    assert!(bytes() >= before + 1_400, "it left through the other port");
    let refused = pool.inject(PortNo(9), frame()).unwrap_err();
    assert_eq!(refused.to_string(), "send into port 9: not attached");
}
