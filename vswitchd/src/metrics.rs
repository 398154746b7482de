//! Prometheus text: figures that others count, put into the exposition format at scrape time.
//!
//! But for one histogram nothing is counted here. [`Figures`] is filled by whoever serves `/metrics`; names are
//! `vswitch_<noun>_<unit>` and labels come from enums, names of local ports and of policies, of which
//! whoever fills in the figures bounds the number.

use std::fmt;
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
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
    pub first_packets: FirstPacketFigures,
    pub ports: Vec<PortFigures>,
    pub ports_over_share: u64,
    pub connections: u64,
    pub connections_limit: u64,
    pub connections_early_dropped: u64,
    pub connections_expired: u64,
    pub connections_created: u64,
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
    /// Connections when they began, or packets of none that were denied.
    pub connections: u64,
}

/// How long first packets of flows took.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FirstPacketFigures {
    /// Upper bounds of buckets, microseconds, and packets in each of them.
    pub buckets: Vec<(u64, u64)>,
    /// Packets that took longer.
    pub beyond: u64,
    /// How long all of them took.
    pub nanoseconds: u64,
}

/// Flow records, by where they go.
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

/// Returns the figures in the text exposition format (OpenMetrics 1.0).
#[must_use]
pub fn render(figures: Figures, latency: &InForceLatency) -> String {
    let mut registry = Registry::with_prefix("vswitch");
    registry.register(
        "change_in_force_seconds",
        "From when a change of an object is heard until the rules that it comes to are in force (unstable)",
        latency.0.clone(),
    );
    registry.register_collector(Box::new(figures));
    let mut text = String::new();
    // Writing into a String cannot fail.
    let _ = encode(&mut text, &registry);
    text
}

impl Collector for Figures {
    fn encode(&self, encoder: DescriptorEncoder) -> fmt::Result {
        let mut page = Page(encoder);
        self.write_policies(&mut page)?;
        self.write_first_packets(&mut page)?;
        self.write_flow_exports(&mut page)?;
        self.write_ports(&mut page)?;
        self.write_tables(&mut page)?;
        match &self.cluster {
            Some(cluster) => cluster.write(&mut page),
            None => Ok(()),
        }
    }
}

/// Where metrics are written to, one after the other. There is nothing of a metric in the text that
/// has no sample.
struct Page<'a>(DescriptorEncoder<'a>);

impl Page<'_> {
    fn counters<L: EncodeLabelSet>(
        &mut self,
        (name, help): (&str, &str),
        samples: impl IntoIterator<Item = (L, u64)>,
    ) -> fmt::Result {
        self.samples(
            (name, help),
            MetricType::Counter,
            samples,
            |sample, count| sample.encode_counter::<NoLabelSet, _, u64>(&count, None),
        )
    }

    fn gauges<L: EncodeLabelSet>(
        &mut self,
        (name, help): (&str, &str),
        samples: impl IntoIterator<Item = (L, u64)>,
    ) -> fmt::Result {
        self.samples((name, help), MetricType::Gauge, samples, |sample, value| {
            sample.encode_gauge(&i64::try_from(value).unwrap_or(i64::MAX))
        })
    }

    fn samples<L: EncodeLabelSet>(
        &mut self,
        (name, help): (&str, &str),
        kind: MetricType,
        samples: impl IntoIterator<Item = (L, u64)>,
        write: impl Fn(&mut MetricEncoder, u64) -> fmt::Result,
    ) -> fmt::Result {
        let mut samples = samples.into_iter().peekable();
        if samples.peek().is_none() {
            return Ok(());
        }
        let mut metric = self.metric((name, help), kind)?;
        for (labels, value) in samples {
            write(&mut metric.encode_family(&labels)?, value)?;
        }
        Ok(())
    }

    /// Begins a metric.
    fn metric<'s>(
        &'s mut self,
        (name, help): (&'s str, &str),
        kind: MetricType,
    ) -> Result<MetricEncoder<'s>, fmt::Error> {
        let help = format!("{help} (unstable).");
        self.0.encode_descriptor(name, &help, None, kind)
    }

    fn counter(&mut self, (name, help): (&str, &str), count: u64) -> fmt::Result {
        let mut metric = self.metric((name, help), MetricType::Counter)?;
        metric.encode_counter::<NoLabelSet, _, u64>(&count, None)
    }

    fn gauge(&mut self, (name, help): (&str, &str), value: u64) -> fmt::Result {
        let mut metric = self.metric((name, help), MetricType::Gauge)?;
        metric.encode_gauge(&i64::try_from(value).unwrap_or(i64::MAX))
    }
}

/// Name, help and value of one of several metrics that have the same labels.
type Column<T> = (&'static str, &'static str, fn(&T) -> u64);

impl Figures {
    fn write_policies(&self, page: &mut Page) -> fmt::Result {
        let drops = self.drops.iter();
        page.counters(
            ("drops", "Frames dropped, by reason"),
            drops.map(|(reason, count)| ([("reason", *reason)], *count)),
        )?;
        let would_deny = self.would_deny.iter();
        page.counters(
            (
                "would_deny_connections",
                "Allowed connections that a policy in audit would have denied",
            ),
            would_deny.map(|(policy, direction, connections)| {
                let labels = [("policy", policy.as_str()), ("direction", *direction)];
                (labels, *connections)
            }),
        )?;
        let labels = |of: &'_ PolicyFigures| {
            [
                ("policy", of.policy.clone()),
                ("direction", of.direction.to_owned()),
                ("verdict", of.verdict.to_owned()),
            ]
        };
        page.counters(
            (
                "policy_packets",
                "Packets that a policy has decided about, those of its connections included",
            ),
            self.policies.iter().map(|of| (labels(of), of.packets)),
        )?;
        // A connection that one policy passes on, another one decides about.
        let deciding = self.policies.iter().filter(|of| of.verdict != "passed");
        page.counters(
            (
                "policy_connections",
                "Connections that a policy has allowed, counted when they begin; packets of no \
                 connection that it has denied",
            ),
            deciding.map(|of| (labels(of), of.connections)),
        )
    }

    fn write_first_packets(&self, page: &mut Page) -> fmt::Result {
        let help = "How long a worker took from receiving the first packet of a flow until what was \
                    to be sent of its batch was";
        let of = &self.first_packets;
        let seconds = |micros| Duration::from_micros(micros).as_secs_f64();
        let within = of.buckets.iter();
        let within = within.map(|(micros, packets)| (seconds(*micros), *packets));
        let buckets: Vec<(f64, u64)> = within.chain([(f64::INFINITY, of.beyond)]).collect();
        let took = Duration::from_nanos(of.nanoseconds).as_secs_f64();
        let all = buckets.iter().map(|(_, packets)| packets).sum();
        let mut metric = page.metric(("first_packet_seconds", help), MetricType::Histogram)?;
        metric.encode_histogram::<NoLabelSet>(took, all, &buckets, None)
    }

    fn write_flow_exports(&self, page: &mut Page) -> fmt::Result {
        let columns: [Column<FlowExportFigures>; 2] = [
            (
                "flow_records_exported",
                "Flow records that went to a destination",
                |to| to.exported,
            ),
            (
                "flow_records_lost",
                "Flow records that a destination did not take in time",
                |to| to.lost,
            ),
        ];
        for (name, help, value) in columns {
            let exports = self.flow_exports.iter();
            let samples = exports.map(|export| ([("to", export.to)], value(export)));
            page.counters((name, help), samples)?;
        }
        Ok(())
    }

    fn write_ports(&self, page: &mut Page) -> fmt::Result {
        let columns: [Column<PortFigures>; 7] = [
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
                "Frames of a port that the kernel dropped because the switch did not read them: \
                 too many at once, or the port was over its share",
                |p| p.rx_drops,
            ),
            (
                "port_over_share_drops",
                "Frames of no known connection that were refused because their port was over its \
                 share",
                |p| p.over_share_drops,
            ),
        ];
        for (name, help, value) in columns {
            let ports = self.ports.iter();
            let samples = ports.map(|port| ([("port", port.port.as_str())], value(port)));
            page.counters((name, help), samples)?;
        }
        Ok(())
    }

    fn write_tables(&self, page: &mut Page) -> fmt::Result {
        let gauges = [
            ("connections", "Tracked connections", self.connections),
            (
                "connections_limit",
                "Most connections the table may hold",
                self.connections_limit,
            ),
            (
                "ports_over_share",
                "Ports that had new flows refused lately because they were over their share",
                self.ports_over_share,
            ),
            (
                "offloaded_flows",
                "Flows that the kernel forwards",
                self.offloaded_flows,
            ),
            ("rules", "Rules installed in all tables", self.rules),
            ("address_sets", "Address sets installed", self.address_sets),
            ("epoch", "Epoch of the published rules", self.epoch),
            ("pods", "Pods known", self.pods),
            (
                "network_policies",
                "NetworkPolicies known",
                self.network_policies,
            ),
            (
                "services",
                "Services that have something to balance",
                self.services,
            ),
            (
                "remote_networks",
                "Pods' networks of other nodes that are reached",
                self.remote_networks,
            ),
            ("leases", "Addresses in use", self.leases),
        ];
        for (name, help, value) in gauges {
            page.gauge((name, help), value)?;
        }
        let counters = [
            (
                "connections_early_dropped",
                "Unanswered connections evicted from a full table",
                self.connections_early_dropped,
            ),
            (
                "connections_created",
                "Connections that began",
                self.connections_created,
            ),
            (
                "connections_expired",
                "Connections that timed out",
                self.connections_expired,
            ),
            (
                "flow_cache_hits",
                "Frames decided by a flow cache",
                self.flow_cache_hits,
            ),
            (
                "flow_cache_misses",
                "Frames translated through the tables",
                self.flow_cache_misses,
            ),
        ];
        for (name, help, value) in counters {
            page.counter((name, help), value)?;
        }
        Ok(())
    }
}

impl ClusterFigures {
    fn write(&self, page: &mut Page) -> fmt::Result {
        let help = "How long what is enforced may have been outdated; 0 while all is heard";
        page.gauge(("kube_stale_seconds", help), self.stale_seconds)?;
        let gauges: [Column<WatchFigures>; 2] = [
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
        let watches = |value: fn(&WatchFigures) -> u64| {
            let watches = self.watches.iter();
            watches.map(move |watch| ([("kind", watch.kind)], value(watch)))
        };
        for (name, help, value) in gauges {
            page.gauges((name, help), watches(value))?;
        }
        let counters: [Column<WatchFigures>; 3] = [
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
            page.counters((name, help), watches(value))?;
        }
        Ok(())
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
        let text = render(figures, &InForceLatency::default());
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
        let text = render(Figures::default(), &latency);
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
                connections: 2,
            }],
            ..Figures::default()
        };
        let text = render(figures, &InForceLatency::default());
        let line = "vswitch_policy_packets_total{policy=\"shop/web\",direction=\"ingress\",\
                    verdict=\"denied\"} 5";
        assert!(text.contains(line), "{text}");
    }

    #[test]
    fn connections_that_policies_decide_about_are_reported_but_not_what_one_passes_on() {
        let of = |verdict, connections| PolicyFigures {
            policy: "shop/web".to_owned(),
            direction: "ingress",
            verdict,
            packets: 9,
            connections,
        };
        let figures = Figures {
            policies: vec![of("allowed", 4), of("passed", 0)],
            ..Figures::default()
        };
        let text = render(figures, &InForceLatency::default());
        let samples: Vec<&str> = text
            .lines()
            .filter(|line| line.starts_with("vswitch_policy_connections"))
            .collect();
        let line = "vswitch_policy_connections_total{policy=\"shop/web\",direction=\"ingress\",\
                    verdict=\"allowed\"} 4";
        assert_eq!(samples, [line]);
    }

    #[test]
    fn the_time_of_first_packets_is_a_histogram() {
        let first_packets = FirstPacketFigures {
            buckets: vec![(4, 5), (8, 0), (16, 1)],
            beyond: 2,
            nanoseconds: 3_000_000,
        };
        let figures = Figures {
            first_packets,
            ..Figures::default()
        };
        let text = render(figures, &InForceLatency::default());
        for line in [
            "vswitch_first_packet_seconds_bucket{le=\"0.000004\"} 5",
            "vswitch_first_packet_seconds_bucket{le=\"0.000016\"} 6",
            "vswitch_first_packet_seconds_bucket{le=\"+Inf\"} 8",
            "vswitch_first_packet_seconds_count 8",
            "vswitch_first_packet_seconds_sum 0.003",
        ] {
            assert!(text.contains(line), "{line}: {text}");
        }
    }

    #[test]
    fn what_policies_in_audit_would_deny_is_reported_by_policy_and_direction() {
        let figures = Figures {
            would_deny: vec![("shop/web".to_owned(), "ingress", 4)],
            ..Figures::default()
        };
        let text = render(figures, &InForceLatency::default());
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
        let text = render(figures, &InForceLatency::default());
        for line in [
            "vswitch_flow_records_exported_total{to=\"file\"} 5",
            "vswitch_flow_records_lost_total{to=\"file\"} 3",
        ] {
            assert!(text.contains(line), "{line}: {text}");
        }
    }

    #[test]
    fn watchers_are_reported_in_a_cluster_only() {
        assert!(!render(Figures::default(), &InForceLatency::default()).contains("kube_"));
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
        let text = render(figures, &InForceLatency::default());
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
                connections: 1,
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
        let text = render(all_figures(), &InForceLatency::default());
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
