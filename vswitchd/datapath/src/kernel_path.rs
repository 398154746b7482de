//! Interface to the kernel path: connections that last are handed to it, and the packets that it
//! forwarded are accounted for.
//!
//! The engine offers a flow (one direction of a connection) after some packets of it. Whoever
//! implements [`KernelPath`] may forward the flow's packets itself until it is told otherwise; it
//! leaves all that says something about the connection (SYN, FIN, RST, fragments, what is too
//! large) to the engine. The truth stays here: a publication of rules and a flush of connections
//! [revoke](KernelPath::revoke) everything; before the engine takes in another packet of an
//! connection in the kernel it has the connection's state [catch up](KernelPath::catch_up) with what
//! went by, and before one that says something about the connection it
//! [reclaims](KernelPath::reclaim) it.
//!
//! Invariant: a flow installed under a generation that is over is never followed. The engine
//! reads the generation before it looks whether the rules and the connection still stand;
//! writers change those before they revoke.

use std::fmt::Debug;
use std::sync::Arc;

use vswitch_api::PortNo;

use crate::conntrack::{Connection, Direction, KernelUsage, Tuple};
use crate::pipeline::RulePath;
use crate::time::Timestamp;

/// Packets of a flow that the engine forwards itself before it offers the flow: a connection
/// that asks and is answered is over by then, and costs the path below nothing.
pub(crate) const OFFER_AFTER: u32 = 8;

/// One direction of a connection, with all that forwarding its packets takes.
#[derive(Debug, Clone)]
pub struct KernelFlow {
    /// Port that its packets come in through.
    pub in_port: PortNo,
    /// Port that they leave through.
    pub out_port: PortNo,
    /// Their addresses, ports and protocol; they leave with the same.
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

/// What a flow's use is to be told to; called with the implementation's lock held.
pub type Account<'a> = &'a mut dyn FnMut(&KernelFlow, KernelUsage);

/// A path below the switch. Workers call it: nothing may wait.
pub trait KernelPath: Send + Sync + Debug {
    /// Returns the generation that a flow has to be of to be followed.
    fn generation(&self) -> u64;

    /// Takes a flow over, if there is room and both ports are known. A flow of an older
    /// generation is ignored.
    fn install(&self, flow: KernelFlow, generation: u64, account: Account<'_>);

    /// Tells what went by of a connection, and goes on.
    fn catch_up(&self, conn: &Arc<Connection>, account: Account<'_>);

    /// Stops forwarding the connection's packets and tells what went by. Packets that are under
    /// way may still be told later: to be called again as long as the connection
    /// [is in the kernel](Connection::is_in_kernel).
    fn reclaim(&self, conn: &Arc<Connection>, account: Account<'_>);

    /// Ends the generation: no flow that is installed is followed when this returns.
    fn revoke(&self);

    /// Tells what went by of all flows, and gives up those that are over, stale or idle.
    fn sync(&self, now: Timestamp, account: Account<'_>);

    /// Returns how many flows are installed.
    fn flows(&self) -> usize;
}
