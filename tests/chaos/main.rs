//! kill -9 at random instants while everything that can be written is being written. What was
//! acknowledged is there after the next start, what was not is there whole or not at all, no
//! address has two users, and what a policy forbids never arrives.
//!
//! `VSWITCH_CHAOS_KILLS` says how often (`make chaos`: 200), `VSWITCH_CHAOS_SEED` with which
//! instants and writes.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
#![allow(clippy::print_stdout, reason = "the result is what it is for")]

mod containers;
mod datagrams;
mod objects;
mod random;
mod whole;

use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use vswitch_api::client::Client;
use vswitch_tests::{Daemon, DaemonOptions, Pod};

use containers::Containers;
use datagrams::Datagrams;
use objects::{Kind, Objects};
use random::Random;

/// Enough to meet each kind of write several times, in less than a minute.
const KILLS: u32 = 20;

/// The longest time in which writes go on, milliseconds.
const WRITES_FOR: u64 = 600;

/// One start of so many is killed before it is ready.
const EARLY: u64 = 6;

/// What may be there of something, under its name.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Expected {
    name: String,
    /// One as long as every write was answered; `None` is absent.
    possible: Vec<Option<String>>,
}

impl Expected {
    fn absent(name: String) -> Self {
        Self {
            name,
            possible: vec![None],
        }
    }

    fn now(&self) -> Option<&str> {
        let [now] = self.possible.as_slice() else {
            panic!("{self:?} was not looked at after a kill");
        };
        now.as_deref()
    }

    fn acknowledged(&mut self, value: Option<String>) {
        self.possible = vec![value];
    }

    fn unanswered(&mut self, value: Option<String>) {
        self.possible.push(value);
    }

    /// Compares with what is there.
    fn found(&mut self, value: Option<String>) {
        assert!(
            self.possible.contains(&value),
            "{}: {value:?} is there, {:?} was written",
            self.name,
            self.possible
        );
        self.acknowledged(value);
    }
}

/// How a write ended.
enum Written {
    Acknowledged,
    /// The daemon was gone.
    Unanswered,
}

/// How much was written.
#[derive(Debug, Default, Clone, Copy)]
struct Count {
    acknowledged: u64,
    unanswered: u64,
}

impl Count {
    fn add(&mut self, other: Self) {
        self.acknowledged += other.acknowledged;
        self.unanswered += other.unanswered;
    }

    fn note(&mut self, written: &Written) {
        match written {
            Written::Acknowledged => self.acknowledged += 1,
            Written::Unanswered => self.unanswered += 1,
        }
    }
}

fn number(variable: &str, default: u32) -> u32 {
    std::env::var(variable).map_or(default, |text| text.parse().unwrap())
}

fn client(daemon: &Daemon) -> Client {
    // A write waits for its rules for ten seconds.
    Client::new(daemon.socket()).with_timeout(Duration::from_secs(30))
}

/// Returns what a path lists.
fn get(daemon: &Daemon, path: &str) -> Vec<Value> {
    let answer = client(daemon).request("GET", path, &[], b"").unwrap();
    let list: Value = serde_json::from_slice(&answer.body).unwrap();
    let items = list.as_array().or_else(|| list["items"].as_array());
    items.unwrap_or_else(|| panic!("{path}: {list}")).clone()
}

/// A daemon with the pods of [`Datagrams`], of which one may never be reached.
fn start() -> (Daemon, [Pod; 3]) {
    let options = DaemonOptions {
        // Addresses rest for a while before they are given out again.
        pod_cidrs: vec!["10.244.0.0/18".to_owned()],
        ..DaemonOptions::default()
    };
    let daemon = Daemon::start(&options).unwrap();
    let pods = ["sender", "guarded", "gated"].map(|name| {
        let pod = Pod::named(name).attach(&daemon).unwrap();
        let label = format!("app={name}");
        daemon.vsctl(&["label", "pod", name, &label]).unwrap();
        pod
    });
    let policy = json!({"metadata": {"name": "guard"},
        "spec": {"podSelector": {"matchLabels": {"app": "guarded"}}}});
    daemon
        .api("POST", Kind::Policy.path(), Some(&policy))
        .unwrap();
    (daemon, pods)
}

#[test]
fn kills_at_random_instants_lose_nothing_that_was_acknowledged() {
    let kills = number("VSWITCH_CHAOS_KILLS", KILLS);
    let seed = number("VSWITCH_CHAOS_SEED", 1);
    println!("chaos: seed {seed}");
    let mut random = Random::new(seed.into());
    let (mut daemon, [sender, guarded, gated]) = start();
    let datagrams = Datagrams::start(&sender, &guarded, &gated);
    let mut objects = Kind::ALL.map(|kind| Objects::new(kind, &datagrams));
    let mut containers = Containers::new(&daemon);
    let mut count = Count::default();
    for _ in 0..kills {
        let lives_for = Duration::from_millis(random.below(WRITES_FOR));
        let pid = Pid::from_raw(i32::try_from(daemon.pid()).unwrap());
        std::thread::scope(|scope| {
            let daemon = &daemon;
            let mut writers = Vec::new();
            for objects in &mut objects {
                let random = random.fork();
                writers.push(scope.spawn(move || objects.write(&client(daemon), random)));
            }
            let random = random.fork();
            let containers = &mut containers;
            writers.push(scope.spawn(move || containers.write(random)));
            std::thread::sleep(lives_for);
            kill(pid, Signal::SIGKILL).unwrap();
            for writer in writers {
                count.add(writer.join().unwrap());
            }
        });
        daemon.stop(Signal::SIGKILL).unwrap();
        if random.below(EARLY) == 0 {
            daemon.launch().unwrap();
            std::thread::sleep(Duration::from_millis(random.below(WRITES_FOR)));
            daemon.stop(Signal::SIGKILL).unwrap();
        }
        daemon.spawn().unwrap();
        for objects in &mut objects {
            objects.look(&daemon);
        }
        containers.look(&daemon);
        whole::check(&daemon);
        // What a runtime does about an ADD or DEL that was not answered.
        containers.settle(&daemon);
        whole::check(&daemon);
    }
    let forbidden = datagrams.finish(&daemon);
    assert_eq!(forbidden, 0, "datagrams that a policy forbids");
    println!(
        "chaos: {kills} kills, {} acknowledged writes, 0 lost; {} unanswered, 0 half there; \
         0 leases twice; 0 forbidden datagrams of {}",
        count.acknowledged,
        count.unanswered,
        datagrams.sent()
    );
    assert!(count.acknowledged > u64::from(kills), "{count:?}");
}
