//! A capture under way: takes packets out of the ring and hands them on as pieces of a pcapng file.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use vswitch_api::PortNo;
use vswitch_datapath::capture::{Capture, CaptureFilter, CapturedPacket, Way};
use vswitch_datapath::{Timestamp, TooManyWatchers, Watcher};

use super::comment::{PortNames, comment};
use super::limits::CaptureLimits;
use super::pcapng::{self, Direction, Interface, Packet, Statistics};
use crate::clock;
use crate::switch::{Switch, Watch};

/// How often the ring is looked into while nothing is in it. At 10 Gbit/s some 25 super-frames come
/// in that time, or 8,000 of the shortest frames: as many as fit.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// How often it is said what was lost, and asked whether the port is still there.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// A piece is handed on when it has come to so many bytes.
const PIECE_BYTES: usize = 64 << 10;
/// What a packet has besides its bytes, about.
const COMMENT_BYTES: usize = 256;

/// What is captured.
#[derive(Debug, Clone)]
pub struct CapturedPort {
    /// The port.
    pub no: PortNo,
    /// The pod and its interface, for people.
    pub name: String,
    /// Port and host interface, for people.
    pub description: String,
}

/// Why a capture ended by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    Count,
    Megabytes,
    Seconds,
    PortGone,
    Stopping,
}

impl Ended {
    const fn text(self) -> &'static str {
        match self {
            Self::Count => "ended by count",
            Self::Megabytes => "ended by megabytes",
            Self::Seconds => "ended by seconds",
            Self::PortGone => "ended: the port is gone",
            Self::Stopping => "ended: the daemon stops",
        }
    }
}

/// How far the file has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Header,
    Packets,
    Done,
}

/// A capture under way.
#[derive(Debug)]
pub struct CaptureSession {
    capture: Arc<Capture>,
    /// Ends the capture when it is dropped.
    _watch: Watch,
    switch: Arc<Switch>,
    stop: watch::Receiver<bool>,
    is_stopping: bool,
    port: CapturedPort,
    filter: String,
    limits: CaptureLimits,
    stage: Stage,
    names: PortNames,
    /// Nanoseconds from 1970 to when the switch's clock began.
    epoch: u64,
    began: Timestamp,
    tell_at: Timestamp,
    bytes: u64,
    figures: Statistics,
    /// What the kernel had lost at the port before.
    lost_before: u64,
}

impl CaptureSession {
    /// Begins a capture: every packet that is decided on from then on is in it.
    ///
    /// # Errors
    /// [`TooManyWatchers`].
    pub async fn begin(
        switch: Arc<Switch>,
        port: CapturedPort,
        (filter, written): (CaptureFilter, String),
        limits: CaptureLimits,
        stop: watch::Receiver<bool>,
    ) -> Result<Self, TooManyWatchers> {
        let capture = Arc::new(Capture::new(port.no, filter, limits.snaplen));
        let watcher = Watcher::Capture(Arc::clone(&capture));
        let watch = Watch::begin(Arc::clone(switch.datapath()), watcher).await?;
        let began = switch.clock().now();
        let epoch = clock::unix_nanos().saturating_sub(began.as_nanos());
        let mut session = Self {
            capture,
            _watch: watch,
            stop,
            is_stopping: false,
            port,
            filter: written,
            limits,
            stage: Stage::Header,
            names: PortNames::new(),
            epoch,
            began,
            tell_at: began + TELL_EVERY,
            bytes: 0,
            figures: Statistics {
                began: epoch.saturating_add(began.as_nanos()),
                ..Statistics::default()
            },
            lost_before: 0,
            switch,
        };
        session.lost_before = session.lost_by_kernel();
        session.learn_names();
        Ok(session)
    }

    /// Returns the next piece of the file, whole blocks; `None` when it is complete.
    pub async fn next(&mut self) -> Option<Vec<u8>> {
        let mut piece = Vec::new();
        loop {
            match self.stage {
                Stage::Header => {
                    self.write_header(&mut piece);
                    self.stage = Stage::Packets;
                }
                Stage::Packets => {
                    if let Some(ended) = self.write_packets(&mut piece) {
                        self.write_end(&mut piece, ended);
                        self.stage = Stage::Done;
                    }
                }
                Stage::Done => return None,
            }
            if !piece.is_empty() {
                return Some(piece);
            }
            // An error means that the daemon is gone.
            let stopped = self.stop.wait_for(|stopped| *stopped);
            self.is_stopping = tokio::time::timeout(LOOK_EVERY, stopped).await.is_ok();
        }
    }

    fn write_header(&self, piece: &mut Vec<u8>) {
        let interface = Interface {
            name: &self.port.name,
            description: &self.port.description,
            filter: &self.filter,
            snaplen: u32::try_from(self.limits.snaplen).unwrap_or(u32::MAX),
        };
        pcapng::begin(piece, &interface);
    }

    /// Writes what is there; returns why the capture ends, if it does.
    fn write_packets(&mut self, piece: &mut Vec<u8>) -> Option<Ended> {
        // Looked at before the ring: what came until then is in the file.
        let ended = self.is_over();
        if ended == Some(Ended::Stopping) {
            return ended;
        }
        self.tell(piece);
        while piece.len() < PIECE_BYTES {
            let mut batch = take(&self.capture);
            if batch.is_empty() {
                return ended;
            }
            // Workers put in what they have when they have it.
            batch.sort_by_key(|packet| packet.time);
            let mut reached = None;
            for packet in batch {
                reached = reached.or_else(|| self.write_packet(piece, &packet));
                self.capture.give_back(packet);
            }
            if reached.is_some() {
                return reached;
            }
        }
        // There is more: the end waits for the next piece, but not for ever.
        ended.filter(|_| self.now().since(self.began) > self.limits.time + TELL_EVERY)
    }

    /// Writes a packet; returns the limit that is reached with it.
    fn write_packet(&mut self, piece: &mut Vec<u8>, packet: &CapturedPacket) -> Option<Ended> {
        let before = piece.len();
        let rules = self.switch.datapath().deciding_rules(packet);
        let direction = match packet.way {
            Way::Inbound => Direction::Inbound,
            Way::Outbound => Direction::Outbound,
        };
        pcapng::packet(
            piece,
            &Packet {
                time: self.epoch.saturating_add(packet.time.as_nanos()),
                direction,
                len: packet.len,
                bytes: &packet.bytes,
                comment: &comment(packet, &rules, &self.names),
            },
        );
        self.figures.delivered += 1;
        self.bytes += u64::try_from(piece.len() - before).unwrap_or(u64::MAX);
        if self.figures.delivered >= self.limits.packets {
            return Some(Ended::Count);
        }
        (self.bytes >= self.limits.bytes).then_some(Ended::Megabytes)
    }

    fn is_over(&self) -> Option<Ended> {
        if self.is_stopping || *self.stop.borrow() {
            return Some(Ended::Stopping);
        }
        if self.now().since(self.began) >= self.limits.time {
            return Some(Ended::Seconds);
        }
        (!self.switch.workers().has_port(self.port.no)).then_some(Ended::PortGone)
    }

    /// Says what was lost, if that is more than was said, and learns the names of new ports.
    fn tell(&mut self, piece: &mut Vec<u8>) {
        if self.now() < self.tell_at {
            return;
        }
        self.tell_at = self.now() + TELL_EVERY;
        self.learn_names();
        let (lost, by_kernel) = (self.figures.lost, self.figures.lost_by_kernel);
        self.count_lost();
        if (self.figures.lost, self.figures.lost_by_kernel) != (lost, by_kernel) {
            pcapng::statistics(piece, &self.figures);
        }
    }

    fn write_end(&mut self, piece: &mut Vec<u8>, ended: Ended) {
        self.count_lost();
        self.figures.ended = Some((self.figures.time, ended.text()));
        pcapng::statistics(piece, &self.figures);
    }

    fn count_lost(&mut self) {
        self.figures.time = self.epoch.saturating_add(self.now().as_nanos());
        self.figures.lost = self.capture.lost();
        self.figures.lost_by_kernel = self.lost_by_kernel().saturating_sub(self.lost_before);
    }

    fn lost_by_kernel(&self) -> u64 {
        let ports = self.switch.workers().port_stats();
        let own = ports.iter().find(|stats| stats.port == self.port.no);
        own.map_or(0, |stats| stats.rx_dropped)
    }

    fn learn_names(&mut self) {
        let ports = self.switch.datapath().ports().into_iter();
        self.names = ports.map(|spec| (spec.no, spec.name)).collect();
    }

    fn now(&self) -> Timestamp {
        self.switch.clock().now()
    }
}

/// Takes packets out of the ring, about a piece of them.
#[expect(clippy::vec_box, reason = "buffers go round as they are")]
fn take(capture: &Capture) -> Vec<Box<CapturedPacket>> {
    let mut bytes = 0;
    let next = || {
        let packet = (bytes < PIECE_BYTES).then(|| capture.next())??;
        bytes += packet.bytes.len() + COMMENT_BYTES;
        Some(packet)
    };
    std::iter::from_fn(next).collect()
}
