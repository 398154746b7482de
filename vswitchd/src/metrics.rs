//! Prometheus text: figures that others count, put into the exposition format at scrape time.
//!
//! Nothing is counted here. [`Figures`] is filled by whoever serves `/metrics`; names are
//! `vswitch_<noun>_<unit>` and labels come from enums or local port names only, so that their
//! number is bounded.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// Everything that a scrape reports.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[expect(
    missing_docs,
    reason = "each field is named as its metric, whose help explains it"
)]
pub struct Figures {
    pub drops: Vec<(&'static str, u64)>,
    pub ports: Vec<PortFigures>,
    pub ports_over_share: u64,
    pub connections: u64,
    pub connections_limit: u64,
    pub connections_early_dropped: u64,
    pub connections_expired: u64,
    pub rules: u64,
    pub address_sets: u64,
    pub epoch: u64,
    pub flow_cache_hits: u64,
    pub flow_cache_misses: u64,
    pub offloaded_flows: u64,
    pub pods: u64,
    pub network_policies: u64,
    /// Services that have something to balance.
    pub services: u64,
    /// Pods' networks of other nodes that are reached.
    pub remote_networks: u64,
    pub leases: u64,
    /// In a cluster.
    pub cluster: Option<ClusterFigures>,
}

/// What is heard of the API server.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[expect(
    missing_docs,
    reason = "each field is named as its metric, whose help explains it"
)]
pub struct ClusterFigures {
    pub stale_seconds: u64,
    pub watches: Vec<WatchFigures>,
}

/// One watcher of the API server.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[expect(
    missing_docs,
    reason = "each field is named as its metric, whose help explains it"
)]
pub struct WatchFigures {
    pub kind: &'static str,
    pub is_synced: bool,
    pub is_live: bool,
    pub events: u64,
    pub lists: u64,
    pub failures: u64,
}

/// Counters of one port.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[expect(
    missing_docs,
    reason = "each field is named as its metric, whose help explains it"
)]
pub struct PortFigures {
    pub port: String,
    pub rx_packets: u64,
    pub rx_bytes: u64,
    pub tx_packets: u64,
    pub tx_bytes: u64,
    pub tx_drops: u64,
    pub rx_drops: u64,
    pub over_share_drops: u64,
}

#[derive(Debug, Clone, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ReasonLabel {
    reason: &'static str,
}

#[derive(Debug, Clone, Hash, PartialEq, Eq, EncodeLabelSet)]
struct KindLabel {
    kind: &'static str,
}

#[derive(Debug, Clone, Hash, PartialEq, Eq, EncodeLabelSet)]
struct PortLabel {
    port: String,
}

/// Returns the figures in the text exposition format (OpenMetrics 1.0).
#[must_use]
pub fn render(figures: &Figures) -> String {
    let mut registry = Registry::with_prefix("vswitch");
    let drops = Family::<ReasonLabel, Counter>::default();
    for (reason, count) in &figures.drops {
        drops.get_or_create(&ReasonLabel { reason }).inc_by(*count);
    }
    registry.register("drops", "Frames dropped, by reason (unstable)", drops);
    register_ports(&mut registry, &figures.ports);
    register_tables(&mut registry, figures);
    if let Some(cluster) = &figures.cluster {
        register_cluster(&mut registry, cluster);
    }
    let mut text = String::new();
    // Writing into a String cannot fail.
    let _ = encode(&mut text, &registry);
    text
}

/// Name, help and value of a port's counter.
type PortColumn = (&'static str, &'static str, fn(&PortFigures) -> u64);

fn register_ports(registry: &mut Registry, ports: &[PortFigures]) {
    let columns: [PortColumn; 7] = [
        (
            "port_rx_packets",
            "Frames received on a port; a super-frame is one",
            |p| p.rx_packets,
        ),
        ("port_rx_bytes", "Bytes received on a port", |p| p.rx_bytes),
        (
            "port_tx_packets",
            "Frames sent through a port; a super-frame is one",
            |p| p.tx_packets,
        ),
        ("port_tx_bytes", "Bytes sent through a port", |p| p.tx_bytes),
        ("port_tx_drops", "Frames that a port could not send", |p| {
            p.tx_drops
        }),
        (
            "port_rx_drops",
            "Frames of a port that the kernel dropped because the switch did not read them: too \
             many at once, or the port was over its share",
            |p| p.rx_drops,
        ),
        (
            "port_over_share_drops",
            "Frames of no known connection that were refused because their port was over its share",
            |p| p.over_share_drops,
        ),
    ];
    for (name, help, value) in columns {
        let family = Family::<PortLabel, Counter>::default();
        for port in ports {
            family
                .get_or_create(&PortLabel {
                    port: port.port.clone(),
                })
                .inc_by(value(port));
        }
        registry.register(name, format!("{help} (unstable)"), family);
    }
}

fn register_tables(registry: &mut Registry, figures: &Figures) {
    let gauges = [
        ("connections", "Tracked connections", figures.connections),
        (
            "connections_limit",
            "Most connections the table may hold",
            figures.connections_limit,
        ),
        (
            "ports_over_share",
            "Ports that had new flows refused lately because they were over their share",
            figures.ports_over_share,
        ),
        (
            "offloaded_flows",
            "Flows that the kernel forwards",
            figures.offloaded_flows,
        ),
        ("rules", "Rules installed in all tables", figures.rules),
        (
            "address_sets",
            "Address sets installed",
            figures.address_sets,
        ),
        ("epoch", "Epoch of the published rules", figures.epoch),
        ("pods", "Pods known", figures.pods),
        (
            "network_policies",
            "NetworkPolicies known",
            figures.network_policies,
        ),
        (
            "services",
            "Services that have something to balance",
            figures.services,
        ),
        (
            "remote_networks",
            "Pods' networks of other nodes that are reached",
            figures.remote_networks,
        ),
        ("leases", "Addresses in use", figures.leases),
    ];
    for (name, help, value) in gauges {
        let gauge: Gauge = Gauge::default();
        gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        registry.register(name, format!("{help} (unstable)"), gauge);
    }
    let counters = [
        (
            "connections_early_dropped",
            "Unanswered connections evicted from a full table",
            figures.connections_early_dropped,
        ),
        (
            "connections_expired",
            "Connections that timed out",
            figures.connections_expired,
        ),
        (
            "flow_cache_hits",
            "Frames decided by a flow cache",
            figures.flow_cache_hits,
        ),
        (
            "flow_cache_misses",
            "Frames translated through the tables",
            figures.flow_cache_misses,
        ),
    ];
    for (name, help, value) in counters {
        let counter: Counter = Counter::default();
        counter.inc_by(value);
        registry.register(name, format!("{help} (unstable)"), counter);
    }
}

/// Name, help and value of a watcher's figure.
type WatchColumn = (&'static str, &'static str, fn(&WatchFigures) -> u64);

fn register_cluster(registry: &mut Registry, cluster: &ClusterFigures) {
    let gauge: Gauge = Gauge::default();
    gauge.set(i64::try_from(cluster.stale_seconds).unwrap_or(i64::MAX));
    let help = "How long what is enforced may have been outdated; 0 while all is heard (unstable)";
    registry.register("kube_stale_seconds", help, gauge);
    let gauges: [WatchColumn; 2] = [
        (
            "kube_watch_synced",
            "Whether all objects of a kind were heard of once",
            |watch| u64::from(watch.is_synced),
        ),
        (
            "kube_watch_live",
            "Whether changes of a kind are heard at the moment",
            |watch| u64::from(watch.is_live),
        ),
    ];
    for (name, help, value) in gauges {
        let family = Family::<KindLabel, Gauge>::default();
        for watch in &cluster.watches {
            let gauge = family.get_or_create(&KindLabel { kind: watch.kind });
            gauge.set(i64::try_from(value(watch)).unwrap_or(i64::MAX));
        }
        registry.register(name, format!("{help} (unstable)"), family);
    }
    let counters: [WatchColumn; 3] = [
        ("kube_watch_events", "Changes heard of a kind", |watch| {
            watch.events
        }),
        (
            "kube_watch_lists",
            "Times that all objects of a kind were listed",
            |watch| watch.lists,
        ),
        (
            "kube_watch_failures",
            "Lists and watches of a kind that failed",
            |watch| watch.failures,
        ),
    ];
    for (name, help, value) in counters {
        let family = Family::<KindLabel, Counter>::default();
        for watch in &cluster.watches {
            let counter = family.get_or_create(&KindLabel { kind: watch.kind });
            counter.inc_by(value(watch));
        }
        registry.register(name, format!("{help} (unstable)"), family);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drop_is_reported_under_its_reason_and_a_port_under_its_name() {
        let figures = Figures {
            drops: vec![("policy_ingress", 7)],
            ports: vec![PortFigures {
                port: "default/web".to_owned(),
                rx_bytes: 9,
                ..PortFigures::default()
            }],
            connections: 3,
            ..Figures::default()
        };
        let text = render(&figures);
        assert!(
            text.contains("vswitch_drops_total{reason=\"policy_ingress\"} 7"),
            "{text}"
        );
        assert!(
            text.contains("vswitch_port_rx_bytes_total{port=\"default/web\"} 9"),
            "{text}"
        );
        assert!(text.contains("vswitch_connections 3"), "{text}");
    }

    #[test]
    fn watchers_are_reported_in_a_cluster_only() {
        assert!(!render(&Figures::default()).contains("kube_"));
        let watch = WatchFigures {
            kind: "pods",
            is_synced: true,
            lists: 2,
            ..WatchFigures::default()
        };
        let figures = Figures {
            cluster: Some(ClusterFigures {
                stale_seconds: 9,
                watches: vec![watch],
            }),
            ..Figures::default()
        };
        let text = render(&figures);
        for line in [
            "vswitch_kube_stale_seconds 9",
            "vswitch_kube_watch_synced{kind=\"pods\"} 1",
            "vswitch_kube_watch_live{kind=\"pods\"} 0",
            "vswitch_kube_watch_lists_total{kind=\"pods\"} 2",
        ] {
            assert!(text.contains(line), "{line}: {text}");
        }
    }
}
