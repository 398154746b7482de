//! What a rule does with a packet. Kept simple enough to be offloaded to a kernel map later.

use vswitch_api::{MacAddr, PortNo};

use crate::drop_reason::DropReason;
use crate::flow::PortClass;
use crate::pipeline::TableId;

/// One step of a rule; a rule without `Goto`, `Drop` or an answer drops with its table's default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// Continue in a later table (tables only go up).
    Goto(TableId),
    /// End here and count the reason.
    Drop(DropReason),
    /// Table 0: state what hangs on the in port.
    SetClass(PortClass),
    /// Write the destination MAC.
    SetEthDst(MacAddr),
    /// Write the source MAC.
    SetEthSrc(MacAddr),
    /// Choose the port to leave through (sent in the Output step).
    SetOutPort(PortNo),
    /// Track: look the packet up in the connection table and set `ct_state`.
    CtLookup,
    /// Commit the connection if it is new.
    CtCommit,
    /// Send to the chosen out port.
    Output,
    /// Answer an ARP request: the asked address is at this MAC.
    ArpReply(MacAddr),
    /// Answer a neighbour solicitation: the target is at this MAC.
    NdAdvertise(MacAddr),
    /// Send a copy of the frame, as it stands here, to a mirror port.
    Mirror(PortNo),
    /// Send here at once, past the other tables (admin redirect).
    Redirect(PortNo),
    /// Let at most this many packets per second through, `burst` at once; drop the rest.
    RateLimit {
        /// Packets per second.
        rate_pps: u32,
        /// Bucket depth in packets.
        burst: u32,
    },
}
