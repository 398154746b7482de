//! Interface to the kernel path: connections are handed to it when they are admitted, and the
//! packets that it forwarded are accounted for.
//!
//! With the first packet of a TCP or UDP connection the engine offers both directions of it.
//! Whoever implements [`KernelPath`] may forward the connection's packets itself from there on, and
//! tracks it to its end; it leaves what it does not exactly understand to the engine. The
//! connection has a place there ([`KernelCell`](crate::conntrack::KernelCell)), which it reads
//! before it takes in a packet that comes to the engine all the same: there is one state, wherever
//! a packet goes by.
//!
//! The rules stay here: a publication of rules and a flush of connections
//! [revoke](KernelPath::revoke) everything, and each direction's next packet is judged anew.
//!
//! Invariant: a direction that was judged under a generation that is over is never followed. The
//! engine reads the generation before it looks whether the rules and the connection still stand;
//! writers change those before they revoke.

use std::fmt::Debug;
use std::sync::Arc;

use vswitch_api::PortNo;

use crate::cache::pair_of_macs;
use crate::conntrack::{Connection, Direction, KernelUsage, Tuple};
use crate::flow::FlowKey;
use crate::pipeline::RulePath;
use crate::time::Timestamp;

/// One direction of a connection, with all that forwarding its packets takes.
#[derive(Debug, Clone)]
pub struct KernelFlow {
    /// Port that its packets come in through.
    pub in_port: PortNo,
    /// Port that they leave through.
    pub out_port: PortNo,
    /// Their addresses, ports and protocol when they come; the connection knows with which they
    /// [leave](Connection::leaves_as).
    pub tuple: Tuple,
    /// MAC addresses that they come with: destination, source, as in the frame.
    pub macs: [u8; 12],
    /// MAC addresses that they leave with, in the same order.
    pub leaves_with: [u8; 12],
    /// Largest packet that the out port takes, from the IP header on, in bytes.
    pub mtu: u16,
    /// The connection.
    pub conn: Arc<Connection>,
    /// Which way its packets go in the connection.
    pub direction: Direction,
    /// Rules that its packets count in.
    pub(crate) path: Arc<RulePath>,
}

impl KernelFlow {
    /// Returns the flow of a connection's answers: what they come with, what they leave with and
    /// through which port, and how large they may be.
    pub(crate) fn answers(
        conn: &Arc<Connection>,
        (comes_with, leaves_with, mtu): (FlowKey, FlowKey, u16),
        path: Arc<RulePath>,
    ) -> Self {
        Self {
            in_port: comes_with.in_port,
            out_port: leaves_with.out_port,
            tuple: conn.comes_as(Direction::Reply),
            macs: pair_of_macs(&comes_with),
            leaves_with: pair_of_macs(&leaves_with),
            mtu,
            conn: Arc::clone(conn),
            direction: Direction::Reply,
            path,
        }
    }

    /// Returns whether packets of both fare the same in the kernel, whatever they count in.
    #[must_use]
    pub fn fares_as(&self, other: &Self) -> bool {
        let facts = |flow: &Self| {
            let ports = (flow.in_port, flow.out_port);
            (ports, flow.tuple, flow.macs, flow.leaves_with, flow.mtu)
        };
        self.direction == other.direction && facts(self) == facts(other)
    }
}

/// What went by of a flow is to be told to; called with the implementation's lock held.
pub type Account<'a> = &'a mut dyn FnMut(&KernelFlow, KernelUsage);

/// A path below the switch. Workers call it: nothing may wait.
pub trait KernelPath: Send + Sync + Debug {
    /// Returns the generation that a flow has to be of to be followed.
    fn generation(&self) -> u64;

    /// Takes over one or both directions of a connection, if there is room and both ports are
    /// known. An offer of an older generation is ignored.
    fn install(&self, flows: &[KernelFlow], generation: u64, account: Account<'_>);

    /// Ends the generation: no flow that is installed is followed when this returns.
    fn revoke(&self);

    /// Tells what went by of all flows, and gives up those that are over, stale or idle.
    fn sync(&self, now: Timestamp, account: Account<'_>);

    /// Returns how many flows are installed.
    fn flows(&self) -> usize;
}
