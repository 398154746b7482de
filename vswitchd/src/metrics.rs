//! Prometheus text: figures that others count, put into the exposition format at scrape time.
//!
//! But for one histogram nothing is counted here. [`Figures`] is filled by whoever serves `/metrics`; names are
//! `vswitch_<noun>_<unit>` and labels come from enums, names of local ports and of policies, of which
//! whoever fills in the figures bounds the number.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

/// How long it takes from when a change of an object is heard until it is in force.
#[derive(Debug, Clone)]
pub struct InForceLatency(Histogram);

impl Default for InForceLatency {
    fn default() -> Self {
        // From 1 ms, what one change of a small cluster takes, to 16 s.
        Self(Histogram::new(exponential_buckets(0.001, 2.0, 15)))
    }
}

impl InForceLatency {
    /// Notes one change, or several that came into force together: the time of the oldest.
    pub fn observe(&self, took: Duration) {
        self.0.observe(took.as_secs_f64());
    }
}

/// Everything that a scrape reports.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[expect(
    missing_docs,
    reason = "each field is named as its metric, whose help explains it"
)]
pub struct Figures {
    pub drops: Vec<(&'static str, u64)>,
    /// Policy, direction, connections.
    pub would_deny: Vec<(String, &'static str, u64)>,
    pub policies: Vec<PolicyFigures>,
    pub flow_exports: Vec<FlowExportFigures>,
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

/// What the rules of one policy have decided in one direction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyFigures {
    /// As `vsctl get policies` names it; empty for those that are counted together.
    pub policy: String,
    /// `ingress` or `egress`.
    pub direction: &'static str,
    /// `allowed`, `denied` or `passed`.
    pub verdict: &'static str,
    /// Packets of these connections.
    pub packets: u64,
}

/// Records of what was denied, by where they go.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[expect(
    missing_docs,
    reason = "each field is named as its metric, whose help explains it"
)]
pub struct FlowExportFigures {
    pub to: &'static str,
    pub exported: u64,
    pub lost: u64,
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
struct PolicyLabels {
    policy: String,
    direction: &'static str,
}

#[derive(Debug, Clone, Hash, PartialEq, Eq, EncodeLabelSet)]
struct VerdictLabels {
    policy: String,
    direction: &'static str,
    verdict: &'static str,
}

#[derive(Debug, Clone, Hash, PartialEq, Eq, EncodeLabelSet)]
struct KindLabel {
    kind: &'static str,
}

#[derive(Debug, Clone, Hash, PartialEq, Eq, EncodeLabelSet)]
struct DestinationLabel {
    to: &'static str,
}

#[derive(Debug, Clone, Hash, PartialEq, Eq, EncodeLabelSet)]
struct PortLabel {
    port: String,
}

/// Returns the figures in the text exposition format (OpenMetrics 1.0).
#[must_use]
pub fn render(figures: &Figures, latency: &InForceLatency) -> String {
    let mut registry = Registry::with_prefix("vswitch");
    let drops = Family::<ReasonLabel, Counter>::default();
    for (reason, count) in &figures.drops {
        drops.get_or_create(&ReasonLabel { reason }).inc_by(*count);
    }
    registry.register("drops", "Frames dropped, by reason (unstable)", drops);
    let would_deny = Family::<PolicyLabels, Counter>::default();
    for (policy, direction, connections) in &figures.would_deny {
        let labels = PolicyLabels {
            policy: policy.clone(),
            direction,
        };
        would_deny.get_or_create(&labels).inc_by(*connections);
    }
    let help = "Allowed connections that a policy in audit would have denied (unstable)";
    registry.register("would_deny_connections", help, would_deny);
    let packets = Family::<VerdictLabels, Counter>::default();
    for figures in &figures.policies {
        let labels = VerdictLabels {
            policy: figures.policy.clone(),
            direction: figures.direction,
            verdict: figures.verdict,
        };
        packets.get_or_create(&labels).inc_by(figures.packets);
    }
    let help =
        "Packets that a policy has decided about, those of its connections included (unstable)";
    registry.register("policy_packets", help, packets);
    registry.register(
        "change_in_force_seconds",
        "From when a change of an object is heard until the rules that it comes to are in force (unstable)",
        latency.0.clone(),
    );
    register_flow_exports(&mut registry, &figures.flow_exports);
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

fn register_flow_exports(registry: &mut Registry, exports: &[FlowExportFigures]) {
    let (exported, lost) = (
        Family::<DestinationLabel, Counter>::default(),
        Family::<DestinationLabel, Counter>::default(),
    );
    for of in exports {
        let label = DestinationLabel { to: of.to };
        exported.get_or_create(&label).inc_by(of.exported);
        lost.get_or_create(&label).inc_by(of.lost);
    }
    let help = "Records of what was denied that went to a destination (unstable)";
    registry.register("flow_records_exported", help, exported);
    let help = "Records of what was denied that a destination did not take in time (unstable)";
    registry.register("flow_records_lost", help, lost);
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
    use std::collections::BTreeSet;

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
        let text = render(&figures, &InForceLatency::default());
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
    fn the_time_until_a_change_is_in_force_is_a_histogram() {
        let latency = InForceLatency::default();
        latency.observe(Duration::from_millis(3));
        latency.clone().observe(Duration::from_secs(20));
        let text = render(&Figures::default(), &latency);
        for line in [
            "vswitch_change_in_force_seconds_bucket{le=\"0.002\"} 0",
            "vswitch_change_in_force_seconds_bucket{le=\"0.004\"} 1",
            "vswitch_change_in_force_seconds_bucket{le=\"+Inf\"} 2",
            "vswitch_change_in_force_seconds_count 2",
        ] {
            assert!(text.contains(line), "{line}: {text}");
        }
    }

    #[test]
    fn what_a_policy_has_decided_is_reported_by_direction_and_verdict() {
        let figures = Figures {
            policies: vec![PolicyFigures {
                policy: "shop/web".to_owned(),
                direction: "ingress",
                verdict: "denied",
                packets: 5,
            }],
            ..Figures::default()
        };
        let text = render(&figures, &InForceLatency::default());
        let line = "vswitch_policy_packets_total{policy=\"shop/web\",direction=\"ingress\",\
                    verdict=\"denied\"} 5";
        assert!(text.contains(line), "{text}");
    }

    #[test]
    fn what_policies_in_audit_would_deny_is_reported_by_policy_and_direction() {
        let figures = Figures {
            would_deny: vec![("shop/web".to_owned(), "ingress", 4)],
            ..Figures::default()
        };
        let text = render(&figures, &InForceLatency::default());
        let line =
            "vswitch_would_deny_connections_total{policy=\"shop/web\",direction=\"ingress\"} 4";
        assert!(text.contains(line), "{text}");
    }

    #[test]
    fn records_that_go_elsewhere_are_reported_by_destination() {
        let figures = Figures {
            flow_exports: vec![FlowExportFigures {
                to: "file",
                exported: 5,
                lost: 3,
            }],
            ..Figures::default()
        };
        let text = render(&figures, &InForceLatency::default());
        for line in [
            "vswitch_flow_records_exported_total{to=\"file\"} 5",
            "vswitch_flow_records_lost_total{to=\"file\"} 3",
        ] {
            assert!(text.contains(line), "{line}: {text}");
        }
    }

    #[test]
    fn watchers_are_reported_in_a_cluster_only() {
        assert!(!render(&Figures::default(), &InForceLatency::default()).contains("kube_"));
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
        let text = render(&figures, &InForceLatency::default());
        for line in [
            "vswitch_kube_stale_seconds 9",
            "vswitch_kube_watch_synced{kind=\"pods\"} 1",
            "vswitch_kube_watch_live{kind=\"pods\"} 0",
            "vswitch_kube_watch_lists_total{kind=\"pods\"} 2",
        ] {
            assert!(text.contains(line), "{line}: {text}");
        }
    }

    /// Figures with everything in them that a metric is made of.
    fn all_figures() -> Figures {
        Figures {
            drops: vec![("policy_ingress", 1)],
            would_deny: vec![("shop/web".to_owned(), "ingress", 1)],
            policies: vec![PolicyFigures {
                policy: "shop/web".to_owned(),
                direction: "ingress",
                verdict: "denied",
                packets: 1,
            }],
            flow_exports: vec![FlowExportFigures::default()],
            ports: vec![PortFigures::default()],
            cluster: Some(ClusterFigures {
                stale_seconds: 1,
                watches: vec![WatchFigures::default()],
            }),
            ..Figures::default()
        }
    }

    #[test]
    fn the_shipped_dashboard_and_alerts_name_metrics_that_there_are() {
        let text = render(&all_figures(), &InForceLatency::default());
        let samples = text.lines().filter(|line| !line.starts_with('#'));
        let is_of_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let known: BTreeSet<&str> = samples
            .filter_map(|line| line.split(|c| !is_of_name(c)).next())
            .collect();
        for file in ["dashboard.json", "rules.yaml"] {
            let path = format!("{}/../config/monitoring/{file}", env!("CARGO_MANIFEST_DIR"));
            let shipped = std::fs::read_to_string(path).unwrap();
            let names = shipped.split(|c| !is_of_name(c));
            let names: BTreeSet<&str> = names.filter(|n| n.starts_with("vswitch_")).collect();
            assert!(names.len() > 5, "{file}: {names:?}");
            let unknown: Vec<_> = names.difference(&known).collect();
            assert!(unknown.is_empty(), "{file}: {unknown:?}");
        }
    }
}
