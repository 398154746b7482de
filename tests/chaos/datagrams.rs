//! Datagrams that are numbered, from one pod to two others: one that may never be reached, and
//! one whose policy comes and goes.

use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Result, ensure};
use vswitch_tests::{Daemon, Namespace, Pod, eventually, inside, join};

use crate::objects::Kind;

const PORT: u16 = 5_000;
const EVERY: Duration = Duration::from_millis(2);

/// What is known of the way to a pod, and what came along it.
pub(crate) struct Gate {
    sent: Arc<AtomicU64>,
    /// The number after which a policy closed it, as long as that is in force.
    closed_after: Mutex<Option<u64>>,
    arrived: AtomicU64,
    forbidden: AtomicU64,
}

impl Gate {
    fn new(sent: &Arc<AtomicU64>) -> Arc<Self> {
        Arc::new(Self {
            sent: Arc::clone(sent),
            closed_after: Mutex::default(),
            arrived: AtomicU64::default(),
            forbidden: AtomicU64::default(),
        })
    }

    /// A policy that closes it is acknowledged.
    pub(crate) fn close(&self) {
        let mut closed_after = self.closed_after.lock().unwrap();
        closed_after.get_or_insert(self.sent.load(SeqCst));
    }

    /// The policy is about to be deleted.
    pub(crate) fn open(&self) {
        *self.closed_after.lock().unwrap() = None;
    }

    /// A datagram has arrived. It is forbidden if it was sent after the gate was closed and the
    /// gate is closed still: one that waited for its neighbour meanwhile may arrive later.
    fn arrive(&self, number: u64) {
        let closed_after = *self.closed_after.lock().unwrap();
        if closed_after.is_some_and(|after| number > after) {
            self.forbidden.fetch_add(1, SeqCst);
        }
        self.arrived.fetch_add(1, SeqCst);
    }
}

pub(crate) struct Datagrams {
    guard: Arc<Gate>,
    pub(crate) gate: Arc<Gate>,
    sent: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Result<()>>>,
}

impl Datagrams {
    pub(crate) fn start(sender: &Pod, guarded: &Pod, gated: &Pod) -> Self {
        let (sent, stop) = (Arc::<AtomicU64>::default(), Arc::<AtomicBool>::default());
        let pods = [guarded, gated];
        let gates = pods.map(|_| Gate::new(&sent));
        // Its policy is in force.
        gates[0].close();
        let mut threads = Vec::new();
        for (pod, gate) in pods.iter().zip(&gates) {
            let (gate, stop) = (Arc::clone(gate), Arc::clone(&stop));
            let receive = move || receive(&gate, &stop);
            threads.push(inside(&pod.netns, receive).unwrap());
        }
        let targets = pods.map(|pod| SocketAddr::new(pod.ip(), PORT));
        threads.push(send(&sender.netns, targets, &sent, &stop));
        let [guard, gate] = gates;
        Self {
            guard,
            gate,
            sent,
            stop,
            threads,
        }
    }

    pub(crate) fn sent(&self) -> u64 {
        self.sent.load(SeqCst)
    }

    /// Returns how many forbidden ones arrived; shows that those that may arrive do, so that the
    /// others would have been seen.
    pub(crate) fn finish(&self, daemon: &Daemon) -> u64 {
        for (gate, policy) in [(&self.guard, "guard"), (&self.gate, "chaos-policy-0")] {
            let before = gate.arrived.load(SeqCst);
            gate.open();
            let path = format!("{}/{policy}", Kind::Policy.path());
            daemon.api("DELETE", &path, None).unwrap();
            eventually("datagrams once they may", || {
                ensure!(gate.arrived.load(SeqCst) > before);
                Ok(())
            });
        }
        self.guard.forbidden.load(SeqCst) + self.gate.forbidden.load(SeqCst)
    }
}

impl Drop for Datagrams {
    fn drop(&mut self) {
        self.stop.store(true, SeqCst);
        for thread in self.threads.drain(..) {
            let ended = join(thread);
            assert!(std::thread::panicking() || ended.is_ok(), "{ended:?}");
        }
    }
}

fn receive(gate: &Gate, stop: &AtomicBool) -> Result<()> {
    let socket = UdpSocket::bind(("0.0.0.0", PORT))?;
    socket.set_read_timeout(Some(Duration::from_millis(100)))?;
    let mut number = [0; 8];
    while !stop.load(SeqCst) {
        match socket.recv(&mut number) {
            Ok(8) => gate.arrive(u64::from_be_bytes(number)),
            Ok(length) => anyhow::bail!("a datagram of {length} bytes"),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn send(
    from: &Namespace,
    targets: [SocketAddr; 2],
    sent: &Arc<AtomicU64>,
    stop: &Arc<AtomicBool>,
) -> JoinHandle<Result<()>> {
    let (sent, stop) = (Arc::clone(sent), Arc::clone(stop));
    let run = move || {
        let socket = UdpSocket::bind(("0.0.0.0", 0))?;
        while !stop.load(SeqCst) {
            for target in targets {
                let number = sent.fetch_add(1, SeqCst) + 1;
                // Without a daemon nobody answers for the neighbour.
                let _unreachable = socket.send_to(&number.to_be_bytes(), target);
            }
            std::thread::sleep(EVERY);
        }
        Ok(())
    };
    inside(from, run).unwrap()
}
