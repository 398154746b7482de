//! Keeps the host's own stack from seeing what pods send.
//!
//! A frame that a pod sends into its veth reaches the packet socket of the switch as a copy;
//! the original goes on into the host's stack, which would answer ARP for every address of
//! the node, answer ICMP, even route. A netdev ingress chain with policy drop sits behind
//! the packet taps (`__netif_receive_skb_core`) and ends it there. One chain per veth, in
//! one table, so that removing a port touches nothing of the others.

use std::collections::BTreeSet;

use vswitch_api::IfName;

use super::nft::{self, NftError};
use super::{NftTable, names};

/// The table of shields of one daemon.
#[derive(Debug, Clone)]
pub struct Shield {
    table: NftTable,
}

impl Shield {
    /// Returns the shield that keeps its chains in `table` of family netdev.
    #[must_use]
    pub fn new(table: NftTable) -> Self {
        Self { table }
    }

    /// Shields one interface; to be done before it is up. Repeating it is harmless. Blocks.
    ///
    /// # Errors
    /// [`NftError`].
    pub fn add(&self, ifname: &IfName) -> Result<(), NftError> {
        let operation = format!("shield {ifname}");
        // A deletion costs an RCU grace period, for which nft waits: 28 ms were measured, 4 ms
        // without. So nothing is deleted unless the name is taken.
        match nft::apply(&operation, &self.creation(ifname)?) {
            Err(NftError::Refused { .. }) => nft::apply(&operation, &self.addition(ifname)?),
            created => created,
        }
    }

    /// Shields several interfaces, which all have to be there, in one transaction. Blocks.
    ///
    /// # Errors
    /// [`NftError`].
    pub fn add_all(&self, ifnames: &[IfName]) -> Result<(), NftError> {
        let mut transaction = String::new();
        for ifname in ifnames {
            transaction += &self.addition(ifname)?;
        }
        nft::apply("install shields", &transaction)
    }

    /// Removes the shield of one interface, which may be gone already. Blocks.
    ///
    /// # Errors
    /// [`NftError`].
    pub fn remove(&self, ifname: &IfName) -> Result<(), NftError> {
        nft::apply(
            &format!("remove shield of {ifname}"),
            &self.removal(ifname)?,
        )
    }

    /// Shields exactly these interfaces, in one transaction, and drops shields of others.
    /// For the start of the daemon: its ports' shields may be lost or stale. Blocks.
    ///
    /// # Errors
    /// [`NftError`].
    pub fn replace(&self, ifnames: &[IfName]) -> Result<(), NftError> {
        let mut transaction = self.table_removal();
        for ifname in ifnames {
            transaction += &self.addition(ifname)?;
        }
        nft::apply("install shields", &transaction)
    }

    /// Returns the interfaces whose shields are in force: `flush ruleset`, as firewall
    /// services do on reload, takes ours too, and [`Shield::replace`] brings them back.
    /// Blocks.
    ///
    /// # Errors
    /// [`NftError`].
    pub fn shielded(&self) -> Result<BTreeSet<IfName>, NftError> {
        let chains = nft::chains(&format!("netdev {}", self.table))?.unwrap_or_default();
        let drops = |chain: &nft::Chain| {
            chain.hook.as_deref() == Some("ingress") && chain.policy.as_deref() == Some("drop")
        };
        Ok(chains
            .iter()
            .filter(|c| drops(c))
            .filter_map(|c| c.name.parse().ok())
            .collect())
    }

    /// Removes all shields and the table. Blocks.
    ///
    /// # Errors
    /// [`NftError`].
    pub fn remove_all(&self) -> Result<(), NftError> {
        nft::apply("remove shields", &self.table_removal())
    }

    fn table_removal(&self) -> String {
        let table = &self.table;
        format!("add table netdev {table}\ndelete table netdev {table}\n")
    }

    /// Deletes and creates in one transaction: before Linux 6.16 a chain does not find back to
    /// its device when that is made anew under the same name.
    fn addition(&self, ifname: &IfName) -> Result<String, NftError> {
        Ok(self.removal(ifname)? + &self.creation(ifname)?)
    }

    /// `create`, other than `add`, fails if there is such a chain.
    fn creation(&self, ifname: &IfName) -> Result<String, NftError> {
        let (table, chain, device) = (&self.table, chain_of(ifname)?, nft::quoted(ifname)?);
        Ok(format!(
            "add table netdev {table}\n\
             create chain netdev {table} {chain} {{ type filter hook ingress \
             device {device} priority -500; policy drop; }}\n"
        ))
    }

    /// `delete` of what is absent fails, and `destroy` is too young (nft 1.0.7, Linux 6.3):
    /// so the transaction adds first, which changes nothing of an existing chain.
    fn removal(&self, ifname: &IfName) -> Result<String, NftError> {
        let (table, chain) = (&self.table, chain_of(ifname)?);
        Ok(format!(
            "add table netdev {table}\nadd chain netdev {table} {chain}\n\
             delete chain netdev {table} {chain}\n"
        ))
    }
}

/// A chain's name must be a plain word; host ends are, others are refused.
fn chain_of(ifname: &IfName) -> Result<&str, NftError> {
    let name = ifname.as_str();
    let is_word = name.starts_with(names::HOST_VETH_PREFIX)
        && name.bytes().all(|b| b.is_ascii_alphanumeric());
    if is_word {
        Ok(name)
    } else {
        Err(NftError::Unquotable {
            ifname: ifname.clone(),
        })
    }
}
