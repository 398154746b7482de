//! Connections that have begun or ended, with what is known of them, until somebody fetches them.
//!
//! The connection table notes them (`conntrack::noted`). What they carried, and which rules admitted
//! them, is found out when they are fetched.

use std::sync::Arc;

use vswitch_api::PortNo;

use super::Datapath;
use super::versions::admitting_rules;
use crate::conntrack::{ConnectionEnd, Direction, Noted, RecordConnections, Tuple};
use crate::pipeline::{Rule, Snapshot};
use crate::time::Timestamp;

/// A connection that was admitted, when it has begun or when it has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotedConnection {
    /// How it ended; `None`: it has begun.
    pub end: Option<ConnectionEnd>,
    /// It is one of the samples that are recorded for good, not only for who looks on.
    pub is_sample: bool,
    /// Ports of the switch that its first packet came in and left through.
    pub ports: (PortNo, PortNo),
    /// What its first packet looked like when it came.
    pub original: Tuple,
    /// What it looked like when it left.
    pub forwarded: Tuple,
    /// When its first packet came.
    pub started: Timestamp,
    /// When its last packet came, of one that has begun its first.
    pub last: Timestamp,
    /// When it began, or ended: with the last packet, if its ends closed it.
    pub at: Timestamp,
    /// Packets, and their bytes from the IP header on, of who began. None are told of a connection
    /// that has begun.
    pub sent: (u64, u64),
    /// The same of the other end.
    pub received: (u64, u64),
    /// The rules of policies that admitted it, of either direction; empty if nothing isolates,
    /// `None` if the rules of then are forgotten.
    pub rules: Option<Vec<Arc<Rule>>>,
}

/// What was fetched.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NotedConnections {
    /// In no order.
    pub connections: Vec<NotedConnection>,
    /// Beginnings and ends that there was no room to note.
    pub lost: u64,
}

impl Datapath {
    /// Sets which connections are recorded. One thread at a time calls this and
    /// [`Datapath::fetch_connections`].
    pub fn record_connections(&self, wanted: RecordConnections) {
        if wanted == self.conns.recorded() {
            return;
        }
        self.conns.record(wanted);
        if wanted == RecordConnections::default() {
            self.versions.forget();
        } else {
            self.versions.keep(&self.published.load());
        }
    }

    /// Keeps a version that was just published, if connections are recorded.
    pub(super) fn keep_version(&self, version: &Arc<Snapshot>) {
        if self.conns.recorded() != RecordConnections::default() {
            self.versions.keep(version);
        }
    }

    /// Returns the recorded connections that have begun or ended since the last call, those that have
    /// ended with all that the kernel forwarded of them.
    #[must_use]
    pub fn fetch_connections(&self, now: Timestamp) -> NotedConnections {
        let mut noted = Vec::new();
        let lost = self.conns.fetch_noted(|connection| noted.push(connection));
        let versions = self.versions.all();
        let known = |noted: &Noted| match noted.end {
            None => begun(noted, &versions),
            Some(end) => self.ended(noted, end, &versions, now),
        };
        NotedConnections {
            connections: noted.iter().map(known).collect(),
            lost,
        }
    }

    fn ended(
        &self,
        noted: &Noted,
        end: ConnectionEnd,
        versions: &[Arc<Snapshot>],
        now: Timestamp,
    ) -> NotedConnection {
        let conn = &noted.conn;
        // What went by last may not be told yet.
        conn.catch_up(self.conns.config());
        let last = conn.last_seen();
        let at = match end {
            ConnectionEnd::Fin | ConnectionEnd::Reset => last,
            ConnectionEnd::Timeout => conn.expires().min(now),
            ConnectionEnd::Evicted
            | ConnectionEnd::Cut
            | ConnectionEnd::Replaced
            | ConnectionEnd::Detached => now,
        };
        NotedConnection {
            end: Some(end),
            last,
            at,
            sent: conn.traffic(Direction::Original),
            received: conn.traffic(Direction::Reply),
            ..begun(noted, versions)
        }
    }
}

/// Returns what is known of a connection from its first packet on.
fn begun(
    Noted {
        conn, is_sample, ..
    }: &Noted,
    versions: &[Arc<Snapshot>],
) -> NotedConnection {
    let started = conn.created();
    NotedConnection {
        end: None,
        is_sample: *is_sample,
        ports: (conn.in_port(), conn.out_port()),
        original: conn.original(),
        forwarded: conn.forwarded(),
        started,
        last: started,
        at: started,
        sent: (0, 0),
        received: (0, 0),
        rules: admitting_rules(versions, conn),
    }
}
