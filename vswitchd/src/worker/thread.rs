//! One worker thread: epoll, commands, ports in turn.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender};
use std::time::Duration;

use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::EventFd;
use vswitch_api::PortNo;
use vswitch_datapath::fairness::{Account, Contention, PortShare, Standing, Work};
use vswitch_datapath::packet::Frame;
use vswitch_datapath::{Outputs, Timestamp, Verdict};

use super::config::WorkerConfig;
use super::forward::Forwarder;
use super::processor::FrameProcessor;
use super::processor_wait::ProcessorWait;
use super::table::{Common, SharedPort};
use crate::clock::MonotonicClock;
use crate::port::{PortFault, PortRx};
use crate::supervise::Beat;

/// Epoll data of the wake-up descriptor; port numbers are 32 bits wide and never meet it.
pub(super) const WAKE: u64 = u64::MAX;

/// How often devices that were down are asked for again and kernel drops are fetched; also the
/// longest sleep, so that the heartbeat of an idle worker goes on.
const TICK: Duration = Duration::from_secs(1);

const EVENTS: usize = 64;

/// How often a worker with a wasteful port asks whether it had to wait for its processor.
const LOOK_FOR_PRESSURE: Duration = Duration::from_millis(10);

/// What the pool asks of a worker.
#[derive(Debug)]
pub(super) enum Command {
    /// Receive from this port from now on.
    Attach {
        port: Arc<SharedPort>,
        rx: Option<Box<dyn PortRx>>,
        done: SyncSender<nix::Result<()>>,
    },
    /// Forget this port; every worker answers, so that none still sends to it.
    Detach {
        no: PortNo,
        done: SyncSender<nix::Result<()>>,
    },
    /// Decide on a frame as if it had come in through the port, and send what is to be sent; no
    /// verdict if the port is not this worker's.
    Inject {
        no: PortNo,
        frame: Box<Frame>,
        done: SyncSender<Option<(Timestamp, Verdict)>>,
    },
    /// Hand on what is queued and end.
    Stop,
}

#[derive(Debug)]
struct OwnedPort {
    shared: Arc<SharedPort>,
    rx: Option<Box<dyn PortRx>>,
    account: Account,
    share: Arc<PortShare>,
    paused_until: Option<Timestamp>,
}

impl OwnedPort {
    /// Has epoll report frames or not. What happens to the device it reports in any case.
    fn listen(&self, epoll: &Epoll, to_frames: bool) {
        let flags = if to_frames {
            EpollFlags::EPOLLIN
        } else {
            EpollFlags::empty()
        };
        let mut event = EpollEvent::new(flags, u64::from(self.shared.no.0));
        if let Some(rx) = &self.rx {
            // Of a descriptor that was removed there is nothing more to report.
            let _removed = epoll.modify(rx.fd(), &mut event);
        }
    }
}

/// The state of one worker.
pub(super) struct Worker<P> {
    pub(super) processor: P,
    pub(super) config: WorkerConfig,
    pub(super) epoll: Epoll,
    pub(super) wake: Arc<EventFd>,
    pub(super) commands: Receiver<Command>,
    pub(super) common: Arc<Common>,
    pub(super) clock: MonotonicClock,
    ports: HashMap<PortNo, OwnedPort>,
    contention: Contention,
    /// When the first of the paused ports is to be heard again.
    next_resume: Option<Timestamp>,
    /// When pressure is to be looked for again.
    next_look: Timestamp,
    buffers: Buffers,
}

/// Reused from batch to batch: nothing is allocated per packet.
struct Buffers {
    frames: Vec<Frame>,
    verdicts: Vec<Verdict>,
    out: Outputs,
}

impl<P: FrameProcessor> Worker<P> {
    pub(super) fn new(
        processor: P,
        config: WorkerConfig,
        epoll: Epoll,
        wake: Arc<EventFd>,
        commands: Receiver<Command>,
        common: Arc<Common>,
    ) -> Self {
        let frames = (0..config.batch).map(|_| Frame::new()).collect();
        let verdicts = Vec::with_capacity(config.batch);
        Self {
            processor,
            clock: config.clock,
            config,
            epoll,
            wake,
            commands,
            common,
            ports: HashMap::new(),
            contention: Contention::default(),
            next_resume: None,
            next_look: Timestamp::default(),
            buffers: Buffers {
                frames,
                verdicts,
                out: Outputs::default(),
            },
        }
    }

    /// Works until told to stop.
    pub(super) fn run(mut self, beat: &Beat) {
        let mut ready = [EpollEvent::empty(); EVENTS];
        let mut empty_rounds = self.config.spin_polls;
        let mut next_tick = self.clock.now() + TICK;
        let mut wait = ProcessorWait::of_this_thread();
        loop {
            beat.beat();
            let idle = empty_rounds >= self.config.spin_polls;
            let count = self.wait(&mut ready, idle, next_tick);
            let mut moved = false;
            for event in ready.iter().take(count) {
                if event.data() != WAKE {
                    let no = PortNo(u32::try_from(event.data()).unwrap_or_default());
                    moved |= self.serve(no, count == 1, &mut wait);
                } else if self.obey() {
                    return self.drain(&mut wait);
                }
            }
            let now = self.clock.now();
            moved |= self.notify(now);
            empty_rounds = if moved {
                0
            } else {
                empty_rounds.saturating_add(1)
            };
            self.resume(now);
            if now >= next_tick {
                self.tick();
                next_tick = now + TICK;
            }
        }
    }

    /// Returns how many descriptors are ready; sleeps only when `idle`, at most to the next tick
    /// or to when a paused port is to be heard again.
    fn wait(&self, ready: &mut [EpollEvent], idle: bool, next_tick: Timestamp) -> usize {
        let timeout = if idle {
            let next = self.next_resume.map_or(next_tick, |at| at.min(next_tick));
            // One more millisecond: rounding down would wake before the tick is due.
            let left = next.since(self.clock.now()) + Duration::from_millis(1);
            EpollTimeout::try_from(left).unwrap_or(EpollTimeout::ZERO)
        } else {
            EpollTimeout::ZERO
        };
        // EINTR is an empty round.
        self.epoll.wait(ready, timeout).unwrap_or(0)
    }

    /// Carries out the waiting commands; returns whether to stop.
    fn obey(&mut self) -> bool {
        // Read before the channel: a command sent in between wakes the worker once more.
        let _counter = self.wake.read();
        while let Ok(command) = self.commands.try_recv() {
            match command {
                Command::Attach { port, rx, done } => {
                    let _caller_gave_up = done.send(self.attach(port, rx));
                }
                Command::Detach { no, done } => {
                    self.detach(no);
                    let _caller_gave_up = done.send(Ok(()));
                }
                Command::Inject {
                    no,
                    mut frame,
                    done,
                } => {
                    let _caller_gave_up = done.send(self.inject(no, &mut frame));
                }
                Command::Stop => return true,
            }
        }
        false
    }

    fn attach(&mut self, shared: Arc<SharedPort>, rx: Option<Box<dyn PortRx>>) -> nix::Result<()> {
        if let Some(rx) = &rx {
            let event = EpollEvent::new(EpollFlags::EPOLLIN, u64::from(shared.no.0));
            self.epoll.add(rx.fd(), event)?;
        }
        let (share, _) = self.processor.port_share(shared.no);
        let owned = OwnedPort {
            shared,
            rx,
            account: Account::default(),
            share,
            paused_until: None,
        };
        self.ports.insert(owned.shared.no, owned);
        Ok(())
    }

    fn detach(&mut self, no: PortNo) {
        if let Some(OwnedPort { rx: Some(rx), .. }) = self.ports.remove(&no) {
            let _closed_anyway = self.epoll.delete(rx.fd());
        }
    }

    /// Moves what a ready port has while its turn lasts; returns whether there was anything.
    fn serve(&mut self, no: PortNo, is_alone: bool, wait: &mut ProcessorWait) -> bool {
        let may_begin = |port: &mut OwnedPort| port.account.begin_turn(is_alone);
        if !self.ports.get_mut(&no).is_some_and(may_begin) {
            return false;
        }
        let (mut moved, mut begun) = (false, self.clock.now());
        while self.may_go_on(no, begun, wait) {
            let Some(count) = self.receive(no) else { break };
            moved |= count > 0;
            self.process(no, count, begun);
            let ended = self.clock.now();
            self.charge(no, count, ended.since(begun), ended);
            begun = ended;
            let has_credit = |port: &OwnedPort| port.account.has_credit();
            if count < self.buffers.frames.len() || !self.ports.get(&no).is_some_and(has_credit) {
                break;
            }
        }
        moved
    }

    /// Returns whether a port may have another batch. One that is over its share has its new
    /// flows refused, or its frames wait.
    fn may_go_on(&mut self, no: PortNo, now: Timestamp, wait: &mut ProcessorWait) -> bool {
        let Some(port) = self.ports.get_mut(&no) else {
            return false;
        };
        if !port.account.is_wasteful(now) {
            self.processor.set_refusing(false);
            return true;
        }
        if now >= self.next_look {
            self.next_look = now + LOOK_FOR_PRESSURE;
            if let Some((waited, within)) = wait.since_last(now) {
                self.contention.note_wait(waited, within, now);
            }
        }
        let has_to_share;
        (port.share, has_to_share) = self.processor.port_share(no);
        let standing = port.account.standing(&self.contention, now);
        let is_within = standing == Standing::Within || !has_to_share;
        self.processor.set_refusing(!is_within);
        if is_within {
            return true;
        }
        port.share.note_refusal(now);
        if let Standing::Paused(until) = standing {
            port.paused_until = Some(until);
            port.listen(&self.epoll, false);
            self.next_resume = Some(self.next_resume.map_or(until, |next| next.min(until)));
            return false;
        }
        true
    }

    /// Listens again to ports whose pause is over.
    fn resume(&mut self, now: Timestamp) {
        if self.next_resume.is_none_or(|next| now < next) {
            return;
        }
        for port in self.ports.values_mut() {
            if port.paused_until.is_some_and(|until| now >= until) {
                port.paused_until = None;
                port.listen(&self.epoll, true);
            }
        }
        let paused = self.ports.values().filter_map(|port| port.paused_until);
        self.next_resume = paused.min();
    }

    fn charge(&mut self, no: PortNo, frames: usize, took: Duration, now: Timestamp) {
        let work = Work {
            frames: u32::try_from(frames).unwrap_or(u32::MAX),
            ..self.processor.take_work()
        };
        if work.walked > 0 {
            self.common.first_packets.add(work.walked, took);
        }
        if let Some(port) = self.ports.get_mut(&no) {
            let with = (&*port.share, &mut self.contention);
            port.account.charge(work, took, with, now);
        }
    }

    /// Fills the batch from a port; returns how many frames came.
    fn receive(&mut self, no: PortNo) -> Option<usize> {
        let port = self.ports.get_mut(&no)?;
        let rx = port.rx.as_mut()?;
        match rx.recv_batch(&mut self.buffers.frames) {
            Ok(received) => {
                let frames = self.buffers.frames.iter().take(received.frames);
                let bytes = frames.map(|frame| frame.len() as u64).sum();
                port.shared.counters.count_received(received, bytes);
                Some(received.frames)
            }
            Err(fault) => {
                if matches!(fault, PortFault::Refused { .. }) {
                    port.shared.counters.count_rx_error();
                }
                port.shared.observe_fault(&fault, &self.common.events);
                if matches!(fault, PortFault::Gone) {
                    // Its descriptor would report an error for ever; the port waits for detach.
                    let _closed_anyway = self.epoll.delete(rx.fd());
                    port.rx = None;
                }
                None
            }
        }
    }

    /// Decides on the first `count` frames of the batch and sends what is to be sent.
    fn process(&mut self, in_port: PortNo, count: usize, now: Timestamp) {
        let Buffers {
            frames,
            verdicts,
            out,
        } = &mut self.buffers;
        let frames = frames.get_mut(..count).unwrap_or_default();
        verdicts.clear();
        for frame in frames.iter_mut() {
            verdicts.push(self.processor.process(in_port, frame, now, out));
        }
        let ports = self.common.table.load();
        let mut forwarder = Forwarder {
            ports: &ports,
            processor: &mut self.processor,
            events: &self.common.events,
        };
        forwarder.send(verdicts.iter().zip(frames.iter()).filter_map(forwarded));
        forwarder.send_made(out);
    }

    /// Decides on a frame that the port did not send. What it costs is not the port's, and what the
    /// port has wasted is not held against it.
    fn inject(&mut self, in_port: PortNo, frame: &mut Frame) -> Option<(Timestamp, Verdict)> {
        if !self.ports.contains_key(&in_port) {
            return None;
        }
        let (now, out) = (self.clock.now(), &mut self.buffers.out);
        self.processor.set_refusing(false);
        let verdict = self.processor.process(in_port, frame, now, out);
        let _nobodys = self.processor.take_work();
        let ports = self.common.table.load();
        let mut forwarder = Forwarder {
            ports: &ports,
            processor: &mut self.processor,
            events: &self.common.events,
        };
        forwarder.send(forwarded((&verdict, frame)).into_iter());
        forwarder.send_made(out);
        Some((now, verdict))
    }

    /// Sends what no frame caused; returns whether there was anything.
    fn notify(&mut self, now: Timestamp) -> bool {
        let out = &mut self.buffers.out;
        if !self.processor.notify(now, out) {
            return false;
        }
        let ports = self.common.table.load();
        let mut forwarder = Forwarder {
            ports: &ports,
            processor: &mut self.processor,
            events: &self.common.events,
        };
        forwarder.send_made(out);
        true
    }

    fn tick(&mut self) {
        for port in self.ports.values_mut() {
            if let Some(rx) = &mut port.rx {
                let dropped = rx.take_kernel_drops();
                if dropped > 0 {
                    port.shared.counters.count_rx_dropped(dropped);
                }
            }
            port.shared.tick(&self.common.events);
        }
        self.processor.tidy();
    }

    /// Hands on what the ports had queued when the stop came, one turn each.
    fn drain(&mut self, wait: &mut ProcessorWait) {
        let numbers: Vec<PortNo> = self.ports.keys().copied().collect();
        for no in numbers {
            self.serve(no, true, wait);
        }
    }
}

/// Returns where a frame is to be sent, if it is.
fn forwarded<'f>((verdict, frame): (&Verdict, &'f Frame)) -> Option<(PortNo, &'f Frame)> {
    match verdict {
        Verdict::Forward(port) => Some((*port, frame)),
        Verdict::InFragments
        | Verdict::Answered
        | Verdict::Held
        | Verdict::Taken
        | Verdict::Drop(_) => None,
    }
}
