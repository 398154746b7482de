//! The worker pool: starts the threads, spreads ports over them, stops them.

use std::collections::HashMap;
use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use nix::sys::eventfd::{EfdFlags, EventFd};
use tokio::sync::mpsc::Sender;
use vswitch_api::PortNo;
use vswitch_datapath::packet::Frame;
use vswitch_datapath::{Timestamp, Verdict};

use super::config::WorkerConfig;
use super::first_packets::{FirstPacketTimes, FirstPackets};
use super::processor::WorkerDatapath;
use super::table::{Common, PortTable, SharedPort};
use super::thread::{Command, WAKE, Worker};
use crate::heap;
use crate::port::{Port, PortNotice, PortStats};
use crate::supervise::{Ended, Part, Supervisor};

/// Commands that may wait for one worker; callers block beyond it.
const COMMAND_QUEUE: usize = 16;

/// How long a worker may take to answer a command. A round is milliseconds; a worker that needs
/// this long hangs, and its heartbeat says so to the watchdog.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// Connections that take some megabytes: when so many have gone, their memory is given back.
const MANY: usize = 16_384;

/// The pool could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// A thread or its epoll set could not be made.
    #[error("start worker {worker}")]
    Start {
        /// Which one.
        worker: usize,
        /// Why.
        source: io::Error,
    },
    /// The thread that removes old connections could not be made.
    #[error("start the expiry thread")]
    StartExpiry {
        /// Why.
        source: io::Error,
    },
    /// The number is taken.
    #[error("attach port {port}: the number is taken")]
    PortExists {
        /// The port.
        port: PortNo,
    },
    /// The worker could not wait for the port's descriptor.
    #[error("attach port {port}")]
    Attach {
        /// The port.
        port: PortNo,
        /// Why.
        source: io::Error,
    },
    /// There is no such port.
    #[error("detach port {port}: not attached")]
    NoSuchPort {
        /// The port.
        port: PortNo,
    },
    /// There is no port that a frame could come in through.
    #[error("send into port {port}: not attached")]
    NoPortFor {
        /// The port.
        port: PortNo,
    },
    /// A worker did not answer in time, or has stopped.
    #[error("worker {worker} does not answer")]
    NoAnswer {
        /// Which one.
        worker: usize,
    },
}

#[derive(Debug)]
struct Handle {
    commands: SyncSender<Command>,
    wake: Arc<EventFd>,
    thread: JoinHandle<()>,
}

/// The running workers. Its methods block for the length of a worker's round; call them off the
/// tokio workers (`spawn_blocking`).
#[derive(Debug)]
pub struct WorkerPool {
    workers: Vec<Handle>,
    expiry: Option<(SyncSender<()>, JoinHandle<()>)>,
    common: Arc<Common>,
    /// Serialises attach and detach: both read the table and then replace it.
    changes: Mutex<()>,
}

impl WorkerPool {
    /// Starts the workers. `events` is told of devices that go down, come up or vanish.
    ///
    /// # Errors
    ///
    /// [`WorkerError::Start`] if a thread or descriptor cannot be had; nothing runs then.
    pub fn start<S: WorkerDatapath>(
        switch: &Arc<S>,
        config: WorkerConfig,
        events: Sender<PortNotice>,
        supervisor: &Supervisor,
    ) -> Result<Self, WorkerError> {
        let config = config.checked();
        let mut pool = Self {
            workers: Vec::with_capacity(config.workers),
            expiry: None,
            common: Arc::new(Common {
                table: PortTable::default(),
                events,
                first_packets: FirstPacketTimes::default(),
            }),
            changes: Mutex::new(()),
        };
        for worker in 0..config.workers {
            let handle = start_worker(worker, switch, &config, &pool.common, supervisor)
                .map_err(|source| WorkerError::Start { worker, source })?;
            pool.workers.push(handle);
        }
        pool.expiry = Some(
            start_expiry(switch, &config, supervisor)
                .map_err(|source| WorkerError::StartExpiry { source })?,
        );
        Ok(pool)
    }

    /// Attaches a port to the worker that has the fewest; it forwards when this returns.
    ///
    /// # Errors
    ///
    /// [`WorkerError::PortExists`], or what the worker says; the port is closed then.
    pub fn attach(&self, port: Port) -> Result<(), WorkerError> {
        let _serial = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        let no = port.no;
        let ports = self.common.table.load_full();
        if ports.contains_key(&no) {
            return Err(WorkerError::PortExists { port: no });
        }
        let load = |worker: &usize| ports.values().filter(|port| port.owner == *worker).count();
        let owner = (0..self.workers.len()).min_by_key(load).unwrap_or(0);
        let shared = Arc::new(SharedPort::new(
            no,
            port.ifname,
            port.tx,
            port.counters,
            owner,
        ));
        self.replace_table(|ports| drop(ports.insert(no, Arc::clone(&shared))));
        let rx = port.rx;
        let attached = self
            .ask(owner, |done| Command::Attach {
                port: shared,
                rx,
                done,
            })
            .and_then(|answer| {
                answer.map_err(|errno| WorkerError::Attach {
                    port: no,
                    source: errno.into(),
                })
            });
        if attached.is_err() {
            self.replace_table(|ports| drop(ports.remove(&no)));
        }
        attached
    }

    /// Detaches a port; no worker touches it any more when this returns, and it is closed.
    ///
    /// # Errors
    ///
    /// [`WorkerError::NoSuchPort`]; [`WorkerError::NoAnswer`] if a worker hangs: the port is out of
    /// the table but may still be open.
    pub fn detach(&self, no: PortNo) -> Result<(), WorkerError> {
        let _serial = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.common.table.load().contains_key(&no) {
            return Err(WorkerError::NoSuchPort { port: no });
        }
        self.replace_table(|ports| drop(ports.remove(&no)));
        let mut result = Ok(());
        for worker in 0..self.workers.len() {
            let answer = self.ask(worker, |done| Command::Detach { no, done });
            result = result.and(answer.map(drop));
        }
        result
    }

    /// Has a frame decided on as if it had come in through a port, and sent; returns when, and the
    /// verdict.
    ///
    /// # Errors
    ///
    /// [`WorkerError::NoPortFor`] if there is no such port, [`WorkerError::NoAnswer`] if its worker
    /// hangs.
    pub fn inject(&self, no: PortNo, frame: Frame) -> Result<(Timestamp, Verdict), WorkerError> {
        let no_port = WorkerError::NoPortFor { port: no };
        let owner = self.common.table.load().get(&no).map(|port| port.owner);
        let Some(owner) = owner else {
            return Err(no_port);
        };
        let frame = Box::new(frame);
        let answer = self.ask(owner, |done| Command::Inject { no, frame, done })?;
        answer.ok_or(no_port)
    }

    /// Returns whether a port has this number.
    #[must_use]
    pub fn has_port(&self, no: PortNo) -> bool {
        self.common.table.load().contains_key(&no)
    }

    /// Returns the counters of every port, by number.
    #[must_use]
    pub fn port_stats(&self) -> Vec<PortStats> {
        let mut stats: Vec<_> = self
            .common
            .table
            .load()
            .values()
            .map(|port| port.stats())
            .collect();
        stats.sort_by_key(|port| port.port);
        stats
    }

    /// Returns how long first packets took.
    #[must_use]
    pub fn first_packets(&self) -> FirstPackets {
        self.common.first_packets.read()
    }

    /// Lets every worker hand on what its ports have queued, and ends the threads.
    pub fn shutdown(self) {
        drop(self);
    }

    fn replace_table(&self, change: impl Fn(&mut HashMap<PortNo, Arc<SharedPort>>)) {
        let mut ports = HashMap::clone(&self.common.table.load());
        change(&mut ports);
        self.common.table.store(Arc::new(ports));
    }

    /// Sends a command and waits for the answer.
    fn ask<T>(
        &self,
        worker: usize,
        command: impl FnOnce(SyncSender<T>) -> Command,
    ) -> Result<T, WorkerError> {
        let no_answer = WorkerError::NoAnswer { worker };
        let Some(handle) = self.workers.get(worker) else {
            return Err(no_answer);
        };
        let (done, answer) = sync_channel(1);
        // A full queue means that the worker has not looked for sixteen commands.
        if handle.commands.try_send(command(done)).is_err() || handle.wake.write(1).is_err() {
            return Err(no_answer);
        }
        answer.recv_timeout(ANSWER_TIMEOUT).map_err(|_| no_answer)
    }
}

impl Drop for WorkerPool {
    fn drop(&mut self) {
        for worker in &self.workers {
            let _has_ended = worker.commands.send(Command::Stop);
            let _has_ended = worker.wake.write(1);
        }
        let expiry = self.expiry.take().map(|(stop, thread)| {
            drop(stop);
            thread
        });
        for thread in self
            .workers
            .drain(..)
            .map(|worker| worker.thread)
            .chain(expiry)
        {
            // A panic aborts the process in the thread itself; there is no error to see here.
            let _ended = thread.join();
        }
    }
}

fn start_worker<S: WorkerDatapath>(
    index: usize,
    switch: &Arc<S>,
    config: &WorkerConfig,
    common: &Arc<Common>,
    supervisor: &Supervisor,
) -> io::Result<Handle> {
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
    let wake = Arc::new(EventFd::from_value_and_flags(0, flags)?);
    epoll.add(&*wake, EpollEvent::new(EpollFlags::EPOLLIN, WAKE))?;
    let (commands, inbox) = sync_channel(COMMAND_QUEUE);
    let worker = Worker::new(
        switch.processor(),
        config.clone(),
        epoll,
        Arc::clone(&wake),
        inbox,
        Arc::clone(common),
    );
    // The kernel keeps 15 bytes of a thread's name: the number must be among them.
    let name = format!("vsw-worker-{index}");
    let thread = supervisor.thread(Part::Worker, &index.to_string(), &name, |beat| {
        worker.run(beat);
        Ended::AsTold
    })?;
    Ok(Handle {
        commands,
        wake,
        thread,
    })
}

fn start_expiry<S: WorkerDatapath>(
    switch: &Arc<S>,
    config: &WorkerConfig,
    supervisor: &Supervisor,
) -> io::Result<(SyncSender<()>, JoinHandle<()>)> {
    let (stop, stopped): (_, Receiver<()>) = sync_channel(0);
    let (switch, clock, interval) = (Arc::clone(switch), config.clock, config.expire_interval);
    let thread = supervisor.thread(Part::Expiry, "", "vsw-expiry", move |beat| {
        let mut gone = 0;
        while stopped.recv_timeout(interval) == Err(RecvTimeoutError::Timeout) {
            beat.beat();
            let removed = switch.expire(clock.now());
            tracing::trace!(removed, "connections expired");
            gone += removed;
            // When the tide is out: what goes in its midst is taken again at once.
            if gone >= MANY && removed < gone / 64 {
                heap::give_back();
                gone = 0;
            }
        }
        Ended::AsTold
    })?;
    Ok((stop, thread))
}
