//! Finds a kube-proxy that was left on, by the rules that it keeps in this namespace. Blocks.

use std::fs;

use super::nft::{self, NftError};

/// How kube-proxy works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KubeProxy {
    /// `--proxy-mode=nftables`: table `kube-proxy`.
    Nftables,
    /// `--proxy-mode=iptables`: chain `KUBE-SERVICES` of table `nat`.
    Iptables,
    /// `--proxy-mode=ipvs`: virtual servers of the kernel.
    Ipvs,
}

impl KubeProxy {
    /// Returns the name of the mode.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Nftables => "nftables",
            Self::Iptables => "iptables",
            Self::Ipvs => "ipvs",
        }
    }
}

/// Looks for kube-proxy's rules; `None` if there are none. Rules of the legacy iptables are not
/// seen.
///
/// # Errors
/// [`NftError`].
pub fn kube_proxy() -> Result<Option<KubeProxy>, NftError> {
    for family in ["ip", "ip6"] {
        if nft::chains(&format!("{family} kube-proxy"))?.is_some() {
            return Ok(Some(KubeProxy::Nftables));
        }
    }
    for family in ["ip", "ip6"] {
        let chains = nft::chains(&format!("{family} nat"))?.unwrap_or_default();
        if chains.iter().any(|chain| chain.name == "KUBE-SERVICES") {
            return Ok(Some(KubeProxy::Iptables));
        }
    }
    Ok(has_virtual_servers().then_some(KubeProxy::Ipvs))
}

/// Three lines of headings come first.
fn has_virtual_servers() -> bool {
    let table = fs::read_to_string("/proc/net/ip_vs").unwrap_or_default();
    table.lines().count() > 3
}

#[cfg(test)]
mod tests {
    use super::super::testing::{in_new_netns, run};
    use super::*;

    #[test]
    fn its_modes_are_told_apart_and_others_tables_are_none_of_them() {
        in_new_netns(|| {
            run("nft add table ip nat; nft add chain ip nat OTHER").unwrap();
            assert_eq!(kube_proxy().unwrap(), None);
            run("nft add chain ip nat KUBE-SERVICES").unwrap();
            assert_eq!(kube_proxy().unwrap(), Some(KubeProxy::Iptables));
            run("nft add table ip6 kube-proxy").unwrap();
            assert_eq!(kube_proxy().unwrap(), Some(KubeProxy::Nftables));
        });
    }
}
