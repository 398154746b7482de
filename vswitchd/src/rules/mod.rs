//! Rules under construction, for the compilers and the reconciler: ids that are stable, and the
//! difference between what is installed and what ought to be. With the addresses that they share.

mod addresses;
mod ledger;
mod rule_set;

pub use addresses::{VirtualAddresses, virtual_addresses, virtual_networks};
pub use ledger::{Ledger, RuleDelta};
pub use rule_set::{Place, RuleOwner, RuleSet};
