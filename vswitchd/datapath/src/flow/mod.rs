//! Flow identity: the key taken from a packet, and what rules say of keys.

mod display;
mod key;
mod matching;
mod syntax;

pub use key::{CtState, FlowKey, PortClass, ether_type, ip_proto};
pub use matching::{AddressMatch, CtStateMatch, Match, PortRange, SetName};
pub use syntax::MatchSyntaxError;

pub(crate) use syntax::split_fields;
