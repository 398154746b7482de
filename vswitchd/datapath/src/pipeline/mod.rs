//! The flow tables and the walk through them.

mod rule;
mod table;

pub use rule::{Origin, PortSpec, PortUpdate, Rule, RuleId, SetUpdate, Transaction};
pub use table::TableId;
