//! Source NAT for what pods send out of the cluster, in a table of our own.
//!
//! Pods' packets to other addresses leave the switch through the gateway TAP and are routed
//! by the kernel; without NAT nobody outside knows the way back. Tables of others are never
//! touched: where the host's FORWARD chain drops by default (Docker sets that), an accept in
//! a table of ours could not overrule it, so the operator has to allow traffic from and to
//! the gateway interface there. Blocks.

use ipnet::IpNet;
use vswitch_api::IfName;

use super::NftTable;
use super::nft::{self, NftError};

/// What to masquerade.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MasqueradeSpec {
    /// Sources: the pods of this node.
    pub pod_cidrs: Vec<IpNet>,
    /// Destinations that see pods' own addresses, besides `pod_cidrs`.
    pub cluster_cidrs: Vec<IpNet>,
    /// The gateway TAP: what goes back into the switch is not translated.
    pub gateway_ifname: IfName,
}

/// The masquerade table of one daemon.
#[derive(Debug, Clone)]
pub struct Masquerade {
    table: NftTable,
}

impl Masquerade {
    /// Returns the masquerade that keeps its rules in `table` of family inet.
    #[must_use]
    pub fn new(table: NftTable) -> Self {
        Self { table }
    }

    /// Puts the rules in place of earlier ones in one transaction; blocks. Translations of
    /// established connections are kept by the kernel's connection tracking.
    ///
    /// # Errors
    /// [`NftError`].
    pub fn install(&self, spec: &MasqueradeSpec) -> Result<(), NftError> {
        nft::apply("install masquerade", &self.ruleset(spec)?)
    }

    /// Removes the rules, which may be gone already; blocks.
    ///
    /// # Errors
    /// [`NftError`].
    pub fn remove(&self) -> Result<(), NftError> {
        nft::apply("remove masquerade", &self.removal())
    }

    /// Returns whether the rules are in force: a `flush ruleset` of somebody else takes them
    /// too. Blocks.
    ///
    /// # Errors
    /// [`NftError`].
    pub fn is_installed(&self) -> Result<bool, NftError> {
        let chains = nft::chains(&format!("inet {}", self.table))?.unwrap_or_default();
        Ok(chains
            .iter()
            .any(|chain| chain.hook.as_deref() == Some("postrouting")))
    }

    fn removal(&self) -> String {
        let table = &self.table;
        format!("add table inet {table}\ndelete table inet {table}\n")
    }

    fn ruleset(&self, spec: &MasqueradeSpec) -> Result<String, NftError> {
        let (removal, table) = (self.removal(), &self.table);
        let gateway = nft::quoted(&spec.gateway_ifname)?;
        let is_v4 = |cidr: &IpNet| cidr.addr().is_ipv4();
        let v4 = rules(spec, "ip", "224.0.0.0/4, 255.255.255.255", is_v4);
        let v6 = rules(spec, "ip6", "fe80::/10, ff00::/8", |cidr| !is_v4(cidr));
        Ok(format!(
            "{removal}table inet {table} {{\n\
             chain postrouting {{\n\
             type nat hook postrouting priority srcnat; policy accept;\n\
             oifname {gateway} return\n\
             {v4}{v6}}}\n}}\n"
        ))
    }
}

/// Returns the rules of one family; none where it has no pods.
///
/// Overlapping CIDRs are merged first: a set with intervals takes no overlaps. Ports are
/// drawn at random (`fully-random`): the kernel's usual allocation lets two first packets of
/// one socket race for the same port, which costs a DNS lookup its five-second timeout.
fn rules(
    spec: &MasqueradeSpec,
    family: &str,
    never_translated: &str,
    is_of_family: impl Fn(&IpNet) -> bool,
) -> String {
    let set = |cidrs: Vec<IpNet>| {
        let merged = IpNet::aggregate(&cidrs).into_iter().filter(&is_of_family);
        merged
            .map(|cidr| cidr.to_string())
            .collect::<Vec<_>>()
            .join(", ")
    };
    let pods = set(spec.pod_cidrs.clone());
    if pods.is_empty() {
        return String::new();
    }
    let cluster = set([&spec.pod_cidrs[..], &spec.cluster_cidrs].concat());
    format!(
        "{family} saddr {{ {pods} }} {family} daddr {{ {cluster} }} return\n\
         {family} saddr {{ {pods} }} {family} daddr {{ {never_translated} }} return\n\
         {family} saddr {{ {pods} }} counter masquerade fully-random\n"
    )
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Pod, in_new_netns, run};
    use super::*;

    fn spec(pod_cidrs: &[&str], cluster_cidrs: &[&str]) -> MasqueradeSpec {
        let nets = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
        MasqueradeSpec {
            pod_cidrs: nets(pod_cidrs),
            cluster_cidrs: nets(cluster_cidrs),
            gateway_ifname: "vsw0".parse().unwrap(),
        }
    }

    #[test]
    fn rules_of_both_families_are_installed_replaced_and_removed() {
        in_new_netns(|| {
            let masquerade = Masquerade::new("t1".parse().unwrap());
            // The node's CIDR lies inside the cluster's: an overlap that nft refuses in a set.
            let both = spec(&["10.244.1.0/24", "fd00:1::/64"], &["10.244.0.0/16"]);
            assert!(!masquerade.is_installed().unwrap());
            masquerade.install(&both).unwrap();
            assert!(masquerade.is_installed().unwrap());
            let rules = run("nft list ruleset").unwrap();
            for part in [
                "10.244.1.0/24",
                "10.244.0.0/16",
                "fd00:1::/64",
                "fully-random",
            ] {
                assert!(rules.contains(part), "{part} in {rules}");
            }
            masquerade.install(&spec(&["10.245.1.0/24"], &[])).unwrap();
            let rules = run("nft list ruleset").unwrap();
            assert!(
                rules.contains("10.245.1.0/24") && !rules.contains("10.244"),
                "{rules}"
            );
            assert_eq!(rules.matches("masquerade").count(), 1, "{rules}");
            masquerade.remove().unwrap();
            assert!(!masquerade.is_installed().unwrap());
            masquerade.remove().unwrap();
            assert_eq!(run("nft list ruleset").unwrap(), "");
        });
    }

    #[test]
    fn tables_of_others_are_left_alone() {
        in_new_netns(|| {
            run("nft add table inet vswitch_other; nft add table ip nat").unwrap();
            let before = run("nft list ruleset").unwrap();
            let masquerade = Masquerade::new(NftTable::default());
            masquerade.install(&spec(&["10.244.1.0/24"], &[])).unwrap();
            masquerade.remove().unwrap();
            assert_eq!(run("nft list ruleset").unwrap(), before);
        });
    }

    #[test]
    fn outside_sees_the_node_and_the_cluster_sees_the_pod() {
        in_new_netns(|| {
            let (pod, outside) = (Pod::new(), Pod::new());
            let (pod_ns, out_ns) = (pod.path(), outside.path());
            run(&format!(
                "ip link add vsw0 type veth peer name eth0 netns {pod}
                 ip link add up0 type veth peer name eth0 netns {out}
                 ip addr add 10.244.1.1/24 dev vsw0; ip link set vsw0 up
                 ip addr add 192.0.2.1/24 dev up0; ip link set up0 up
                 echo 1 > /proc/sys/net/ipv4/ip_forward",
                pod = pod_ns.display(),
                out = out_ns.display(),
            ))
            .unwrap();
            pod.run(
                "ip addr add 10.244.1.2/24 dev eth0; ip link set eth0 up
                     ip route add default via 10.244.1.1",
            )
            .unwrap();
            outside
                .run(
                    "ip addr add 192.0.2.2/24 dev eth0; ip addr add 10.244.9.9/32 dev eth0
                      ip link set eth0 up",
                )
                .unwrap();
            run("ip route add 10.244.9.9/32 via 192.0.2.2").unwrap();
            Masquerade::new(NftTable::default())
                .install(&spec(&["10.244.1.0/24"], &["10.244.0.0/16"]))
                .unwrap();
            // `outside` has no route to pods: only a translated ping can be answered.
            pod.run("ping -c 1 -W 2 192.0.2.2").unwrap();
            assert!(
                pod.run("ping -c 1 -W 1 10.244.9.9").is_err(),
                "sent untranslated"
            );
            outside
                .run("ip route add 10.244.1.0/24 via 192.0.2.1")
                .unwrap();
            pod.run("ping -c 1 -W 2 10.244.9.9").unwrap();
        });
    }
}
