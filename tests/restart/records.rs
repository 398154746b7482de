//! Flow records over kills of the daemon at any instant.

use std::net::{Ipv4Addr, UdpSocket};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use nix::sys::signal::Signal;
use vswitch_tests::{Daemon, DaemonOptions, Pod, inside, join};

use super::SECURE_POD;

const KILLS: u16 = 5;

/// Denied ports of each round: kinds that are told apart. There is room for those of all rounds in the
/// running minute's eighth of the disk.
const PORTS: u16 = 20;

/// What a daemon that is killed may lose: records are written each second, and a machine that is
/// busy takes a while for it.
const MAY_BE_LOST: Duration = Duration::from_secs(2);

/// Most that the records take of the disk.
const MAX_BYTES: u64 = 1 << 20;

/// Returns what is recorded of all denials: kinds and packets.
fn recorded(daemon: &Daemon) -> (usize, u64) {
    let answer = daemon.vsctl_json(&["flows", "--denied"]).unwrap();
    assert_eq!(answer.get("problems"), None, "{answer}");
    let records = answer["records"].as_array().unwrap();
    let packets = records.iter().map(|of| of["packets"].as_u64().unwrap());
    (records.len(), packets.sum())
}

fn bytes_on_disk(daemon: &Daemon) -> u64 {
    let files = std::fs::read_dir(daemon.folder().join("state/flows")).unwrap();
    // One may just have been replaced.
    let sizes = files.filter_map(|file| Some(file.ok()?.metadata().ok()?.len()));
    sizes.sum()
}

/// Sends datagrams that are denied, until told to stop.
fn send(
    client: &Pod,
    server: &Pod,
    ports: Range<u16>,
    stop: Arc<AtomicBool>,
) -> JoinHandle<anyhow::Result<()>> {
    let to = server.ip();
    let sender = inside(&client.netns, move || {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        for port in ports.cycle().take_while(|_| !stop.load(Relaxed)) {
            socket.send_to(b"x", (to, port))?;
            // Some hundred a second: few enough that no kind is left out.
            std::thread::sleep(Duration::from_millis(3));
        }
        Ok(())
    });
    sender.unwrap()
}

#[expect(clippy::disallowed_methods, reason = "real processes run on real time")]
#[test]
fn what_was_told_of_denials_is_there_after_kills_but_for_the_last_second() {
    let mut daemon = Daemon::start(&DaemonOptions {
        extra: "[flows]\nmax_megabytes = 1\nevents = false\n".to_owned(),
        ..DaemonOptions::default()
    })
    .unwrap();
    let [client, server] =
        ["client", "server"].map(|name| Pod::named(name).attach(&daemon).unwrap());
    daemon
        .vsctl(&["label", "pod", "server", "app=secure-pod"])
        .unwrap();
    daemon.apply(SECURE_POD).unwrap();
    let mut before = (0, 0);
    for round in 0..KILLS {
        let first = 20_000 + round * PORTS;
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        // Whichever part of the second and of a write that is.
        let lives = Duration::from_millis(2_500 + u64::from(now.unwrap().subsec_micros() % 2_000));
        let stop = Arc::new(AtomicBool::new(false));
        let ports = first..first + PORTS;
        let sender = send(&client, &server, ports, Arc::clone(&stop));
        let (begun, mut told) = (Instant::now(), Vec::new());
        while begun.elapsed() < lives {
            let asked = recorded(&daemon);
            told.push((Instant::now(), asked));
            assert!(asked.0 >= before.0 && asked.1 >= before.1, "{told:?}");
            assert!(bytes_on_disk(&daemon) <= MAX_BYTES);
            // Asking is not what has it written.
            std::thread::sleep(Duration::from_millis(100));
        }
        let killed = Instant::now();
        daemon.stop(Signal::SIGKILL).unwrap();
        stop.store(true, Relaxed);
        join(sender).unwrap();
        daemon.spawn().unwrap();
        let kept = recorded(&daemon);
        let is_due = |at: Instant| killed.duration_since(at) >= MAY_BE_LOST;
        let due = told.iter().rev().find(|(at, _)| is_due(*at));
        let (_, due) = due.expect("the daemon lived longer than that");
        assert!(
            kept.0 >= due.0 && kept.1 >= due.1,
            "round {round}: {due:?} were told, {kept:?} are there"
        );
        assert!(kept.1 > before.1, "round {round} left nothing: {kept:?}");
        assert!(bytes_on_disk(&daemon) <= MAX_BYTES);
        before = kept;
    }
    assert!(before.0 >= usize::from(KILLS * PORTS), "{before:?}");
}
