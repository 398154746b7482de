//! Changes of address sets.

use ipnet::IpNet;

/// A change to one address set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SetUpdate {
    /// Make these its members (creates the set).
    Replace(Vec<IpNet>),
    /// Add members (creates the set).
    Add(Vec<IpNet>),
    /// Remove members.
    Remove(Vec<IpNet>),
    /// Remove the set; rules that still name it match nothing.
    Delete,
}
