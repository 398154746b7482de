use std::time::Duration;

use proptest::prelude::*;
use vswitch_api::PortNo;

use super::*;
use crate::time::Timestamp;

/// What a packet of a new flow takes of a worker.
const WALK: Duration = Duration::from_micros(5);
const BATCH: u32 = 16;

/// One worker in simulated time.
struct Worker {
    now: Timestamp,
    contention: Contention,
}

/// A port with as many frames as it is asked for.
struct Port {
    account: Account,
    share: PortShare,
    /// Time of the worker that it got.
    got: Duration,
    walked: u32,
}

impl Port {
    fn new() -> Self {
        Self {
            account: Account::default(),
            share: PortShare::new(PortNo(1)),
            got: Duration::ZERO,
            walked: 0,
        }
    }
}

impl Worker {
    fn new() -> Self {
        Self {
            now: Timestamp::from_nanos(1_000_000_000),
            contention: Contention::default(),
        }
    }

    /// Works on a batch that takes so long for each frame.
    fn batch(&mut self, port: &mut Port, work: Work, each: Duration) {
        let took = each * work.frames;
        self.now = self.now + took;
        port.got += took;
        let with = (&port.share, &mut self.contention);
        port.account.charge(work, took, with, self.now);
    }

    /// Works on a batch of new flows that nobody answers, if the port may; returns whether any
    /// of it walked.
    fn flood(&mut self, port: &mut Port) -> bool {
        let (refused, each) = match port.account.standing(&self.contention, self.now) {
            Standing::Within => (0, WALK),
            Standing::Refusing => (BATCH, WALK / 10),
            Standing::Paused(_) => return false,
        };
        let work = Work {
            frames: BATCH,
            wasted: BATCH,
            refused,
            answers: 0,
            walked: BATCH - refused,
        };
        self.batch(port, work, each);
        port.walked += BATCH - refused;
        refused == 0
    }

    /// Works on frames of connections that are known.
    fn serve(&mut self, port: &mut Port, frames: u32) {
        let work = Work {
            frames,
            ..Work::default()
        };
        self.batch(port, work, WALK / 10);
    }

    fn idle(&mut self, time: Duration) {
        self.now = self.now + time;
    }

    fn until(&self, time: Duration) -> Timestamp {
        self.now + time
    }
}

#[test]
fn a_lone_port_that_wastes_all_it_sends_has_the_whole_worker() {
    let (mut worker, mut port) = (Worker::new(), Port::new());
    let end = worker.until(Duration::from_secs(10));
    while worker.now < end {
        assert!(worker.flood(&mut port));
    }
}

#[test]
fn a_probe_now_and_then_does_not_hold_a_wasteful_port_back() {
    let (mut worker, mut flooder, mut other) = (Worker::new(), Port::new(), Port::new());
    let end = worker.until(Duration::from_secs(5));
    while worker.now < end {
        worker.serve(&mut other, 2);
        let next = worker.until(Duration::from_millis(100));
        while worker.now < next {
            assert!(worker.flood(&mut flooder));
        }
    }
}

#[test]
fn waste_gets_a_small_part_of_the_worker_while_another_port_has_work() {
    let (mut worker, mut flooder, mut other) = (Worker::new(), Port::new(), Port::new());
    let (seconds, start) = (10, worker.now);
    let end = worker.until(Duration::from_secs(seconds));
    while worker.now < end {
        worker.serve(&mut other, 4);
        if !worker.flood(&mut flooder) {
            worker.idle(Duration::from_micros(200));
        }
    }
    let part = flooder.got.as_secs_f64() / worker.now.since(start).as_secs_f64();
    assert!(part < 0.02, "{part} of the worker");
    // It is held back, not shut out.
    assert!(flooder.walked > 1_000, "{} walked", flooder.walked);
}

#[test]
fn a_port_that_wasted_while_alone_is_held_back_as_soon_as_another_has_work() {
    let (mut worker, mut flooder, mut other) = (Worker::new(), Port::new(), Port::new());
    let end = worker.until(Duration::from_secs(30));
    while worker.now < end {
        worker.flood(&mut flooder);
    }
    worker.serve(&mut other, 16);
    assert!(!worker.flood(&mut flooder));
    // And it is given its part before long, whatever it wasted before.
    worker.idle(Duration::from_millis(100));
    worker.serve(&mut other, 16);
    assert!(worker.flood(&mut flooder));
}

#[test]
fn flows_that_are_answered_are_no_waste() {
    let (mut worker, mut client, mut other) = (Worker::new(), Port::new(), Port::new());
    let end = worker.until(Duration::from_secs(5));
    while worker.now < end {
        worker.serve(&mut other, 4);
        assert!(worker.flood(&mut client), "held back at {:?}", worker.now);
        for _ in 0..BATCH {
            client.share.open();
            client.share.answer();
        }
    }
}

#[test]
fn answers_to_others_are_not_demand() {
    let (mut worker, mut flooder, mut victim) = (Worker::new(), Port::new(), Port::new());
    let end = worker.until(Duration::from_secs(2));
    while worker.now < end {
        assert!(worker.flood(&mut flooder));
        let work = Work {
            frames: BATCH,
            answers: BATCH,
            walked: BATCH,
            ..Work::default()
        };
        worker.batch(&mut victim, work, WALK);
    }
}

#[test]
fn a_worker_that_waits_for_its_processor_holds_waste_back() {
    let (mut worker, mut flooder) = (Worker::new(), Port::new());
    let within = Duration::from_millis(10);
    let end = worker.until(Duration::from_secs(1));
    while worker.now < end {
        let now = worker.now;
        let calm = Duration::from_micros(900);
        worker.contention.note_wait(calm, within, now);
        assert!(worker.flood(&mut flooder));
    }
    let now = worker.now;
    worker
        .contention
        .note_wait(Duration::from_millis(2), within, now);
    assert!(!worker.flood(&mut flooder));
    worker.idle(Duration::from_millis(900));
    for _ in 0..1_000 {
        worker.flood(&mut flooder);
    }
    assert!(!worker.flood(&mut flooder), "pressure is remembered");
    worker.idle(Duration::from_millis(200));
    (0..1_000).for_each(|_| assert!(worker.flood(&mut flooder), "pressure is over"));
}

#[test]
fn a_paused_port_is_heard_again_at_the_time_said() {
    let (mut worker, mut flooder, mut other) = (Worker::new(), Port::new(), Port::new());
    worker.serve(&mut other, 64);
    while worker.flood(&mut flooder) {}
    let until = loop {
        match flooder.account.standing(&worker.contention, worker.now) {
            Standing::Paused(until) => break until,
            _ => worker.flood(&mut flooder),
        };
    };
    assert!(until > worker.now && until.since(worker.now) < Duration::from_millis(200));
    worker.now = until;
    assert_eq!(
        flooder.account.standing(&worker.contention, worker.now),
        Standing::Within
    );
}

proptest! {
    /// Whatever the batches of each port take, turns give each of those that always have frames
    /// the same time, but for a quantum and a batch.
    #[test]
    fn turns_share_time_evenly(each in prop::collection::vec(1_u64..200, 2..6)) {
        let mut worker = Worker::new();
        let mut ports: Vec<_> = each.iter().map(|_| Port::new()).collect();
        for _ in 0..4_000 {
            for (port, micros) in ports.iter_mut().zip(&each) {
                if !port.account.begin_turn(false) {
                    continue;
                }
                while port.account.has_credit() {
                    let work = Work { frames: 1, ..Work::default() };
                    worker.batch(port, work, Duration::from_micros(*micros));
                }
            }
        }
        let least = ports.iter().map(|port| port.got).min().unwrap();
        let most = ports.iter().map(|port| port.got).max().unwrap();
        prop_assert!(most - least < Duration::from_micros(600), "{:?} to {:?}", least, most);
    }

    /// Whatever is wasted, refused and answered in between: a port is paused for a bounded time,
    /// and never if it is alone.
    #[test]
    fn no_port_waits_for_long(
        batches in prop::collection::vec((0_u32..17, 0_u32..17, 0_u64..100_000, any::<bool>()), 1..200),
    ) {
        let (mut worker, mut port) = (Worker::new(), Port::new());
        for (wasted, refused, micros, contended) in batches {
            let wasted = wasted.min(BATCH);
            let refused = refused.min(wasted);
            let work = Work { frames: BATCH, wasted, refused, answers: BATCH - wasted, walked: BATCH - refused };
            worker.batch(&mut port, work, Duration::from_micros(micros) / BATCH);
            let mut others = Contention::default();
            if contended {
                others.note_wait(Duration::from_secs(1), Duration::from_secs(1), worker.now);
            }
            match port.account.standing(&others, worker.now) {
                Standing::Paused(until) => {
                    prop_assert!(contended);
                    prop_assert!(until.since(worker.now) <= Duration::from_millis(200));
                }
                Standing::Refusing => prop_assert!(contended),
                Standing::Within => {}
            }
        }
    }
}
