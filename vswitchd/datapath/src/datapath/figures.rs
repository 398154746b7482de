//! Read access to the datapath: rules, sets, groups, ports, counters.

use ipnet::IpNet;
use vswitch_api::PortNo;

use super::Datapath;
use crate::cache::CacheStats;
use crate::conntrack::{ConnectionInfo, ConntrackStats};
use crate::drop_reason::DropReason;
use crate::flow::SetName;
use crate::group::Group;
use crate::pipeline::{Bandwidth, PortSpec, RuleStats, TableId};
use crate::time::Timestamp;

impl Datapath {
    /// Returns every rule with its counters, in pipeline order, best first.
    #[must_use]
    pub fn rules(&self) -> Vec<RuleStats> {
        self.rules_of(|_| true)
    }

    /// Returns the rules of the tables that are wanted, likewise. Publications wait meanwhile.
    #[must_use]
    pub fn rules_of(&self, wanted: impl Fn(TableId) -> bool) -> Vec<RuleStats> {
        let counts = self.counters.of_rules();
        self.lock().program.rules.list(wanted, counts)
    }

    /// Returns how many rules there are.
    #[must_use]
    pub fn rule_count(&self) -> usize {
        self.lock().program.rules.len()
    }

    /// Returns how many address sets there are.
    #[must_use]
    pub fn address_set_count(&self) -> usize {
        self.lock().program.sets.len()
    }

    /// Returns every address set with its members, by name.
    #[must_use]
    pub fn address_sets(&self) -> Vec<(SetName, Vec<IpNet>)> {
        self.lock().program.sets.list()
    }

    /// Returns the members of an address set; none if there is no such set.
    #[must_use]
    pub fn address_set(&self, name: &SetName) -> Vec<IpNet> {
        self.lock().program.sets.members(name)
    }

    /// Returns every load-balancing group, by number.
    #[must_use]
    pub fn groups(&self) -> Vec<Group> {
        self.published.load().groups.list()
    }

    /// Returns every port, by number.
    #[must_use]
    pub fn ports(&self) -> Vec<PortSpec> {
        let mut ports: Vec<_> = self
            .published
            .load()
            .ports
            .values()
            .map(|port| port.spec.clone())
            .collect();
        ports.sort_by_key(|port| port.no);
        ports
    }

    /// Returns the drops for each reason, of all engines that ever were.
    #[must_use]
    pub fn drop_counters(&self) -> Vec<(DropReason, u64)> {
        self.counters.drops()
    }

    /// Returns the drops for each reason of what came in through a port, since it was added;
    /// nothing if there is no such port.
    #[must_use]
    pub fn port_drops(&self, port: PortNo) -> Vec<(DropReason, u64)> {
        self.published
            .load()
            .port(port)
            .map_or_else(Vec::new, |port| port.drops.read())
    }

    /// Returns the ports that are, or were until a few seconds ago, over their share of new flows.
    #[must_use]
    pub fn ports_over_share(&self, now: Timestamp) -> Vec<PortSpec> {
        let mut ports = self.ports();
        ports.retain(|port| self.conns.port_share(port.no).is_over(now));
        ports
    }

    /// Returns the limits of a port; none if there is no such port.
    #[must_use]
    pub fn port_bandwidth(&self, port: PortNo) -> Bandwidth {
        let published = self.published.load();
        let port = published.port(port);
        port.map(|port| port.limits.bandwidth).unwrap_or_default()
    }

    /// Returns the figures of all FlowCaches together.
    #[must_use]
    pub fn cache_stats(&self) -> CacheStats {
        self.counters.cache()
    }

    /// Returns all about every connection.
    #[must_use]
    pub fn connections(&self, now: Timestamp) -> Vec<ConnectionInfo> {
        self.conns.snapshot(now)
    }

    /// Visits all about every connection, one after the other: there may be a million.
    pub fn visit_connections(&self, now: Timestamp, visit: impl FnMut(ConnectionInfo)) {
        self.conns.visit(now, visit);
    }

    /// Returns the figures of the connection table.
    #[must_use]
    pub fn conntrack_stats(&self) -> ConntrackStats {
        self.conns.stats()
    }
}
