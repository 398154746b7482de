//! Flow identity: the key taken from a packet, and what rules say of keys.

mod key;
mod matching;

pub use key::{CtState, FlowKey, PortClass, ether_type, ip_proto};
pub use matching::{AddressMatch, CtStateMatch, Match, PortRange, SetName};
