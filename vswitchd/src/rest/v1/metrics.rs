//! `/metrics`: what others count, collected at each scrape.

use std::collections::{BTreeMap, BTreeSet};

use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use vswitch_api::PortNo;
use vswitch_datapath::DropReason;
use vswitch_datapath::pipeline::{Decision, RuleStats, TableId};

use super::super::RestState;
use super::status::drops;
use crate::metrics::{
    ClusterFigures, Figures, FirstPacketFigures, FlowExportFigures, PolicyFigures, PortFigures,
    render,
};
use crate::state::PolicyKey;
use crate::worker::FIRST_PACKET_BOUNDS;

/// For how many policies there are figures of their own; those of all others are added up, so that a
/// scrape stays bounded.
const MOST_POLICIES: usize = 2_000;

/// `GET /metrics`.
pub(in crate::rest) async fn metrics(State(state): State<RestState>) -> Response {
    let readers = state.readers.clone();
    let text = readers.run(move || render(figures(&state), &state.latency));
    let content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    match text.await {
        Ok(text) => ([(CONTENT_TYPE, content_type)], text).into_response(),
        Err(failed) => failed.into_response(),
    }
}

fn would_deny(state: &RestState) -> Vec<(String, &'static str, u64)> {
    state.flow_log.audit(|book| {
        let totals = book.totals().map(|(policy, is_ingress, connections)| {
            let direction = if is_ingress { "ingress" } else { "egress" };
            (policy.to_owned(), direction, connections)
        });
        totals.collect()
    })
}

fn figures(state: &RestState) -> Figures {
    state.switch.sync_kernel_counters();
    let datapath = state.switch.datapath();
    let conntrack = datapath.conntrack_stats();
    let cache = datapath.cache_stats();
    let snapshot = state.switch.reconcile().snapshot();
    let names: BTreeMap<u32, String> = datapath
        .ports()
        .into_iter()
        .map(|port| (port.no.0, port.name))
        .collect();
    let flow_exports = state.flow_exports.iter().map(|to| FlowExportFigures {
        to: to.name,
        exported: to.exported(),
        lost: to.lost(),
    });
    let ports = state
        .switch
        .workers()
        .port_stats()
        .into_iter()
        .map(|port| PortFigures {
            port: names
                .get(&port.port.0)
                .cloned()
                .unwrap_or_else(|| port.ifname.to_string()),
            rx_packets: port.rx_frames,
            rx_bytes: port.rx_bytes,
            tx_packets: port.tx_frames,
            tx_bytes: port.tx_bytes,
            tx_drops: port.tx_dropped,
            rx_drops: port.rx_dropped,
            over_share_drops: over_share_drops(state, port.port),
        });
    Figures {
        drops: drops(state),
        would_deny: would_deny(state),
        policies: policy_figures(&datapath.rules_of(TableId::is_of_policies)),
        flow_exports: flow_exports.collect(),
        first_packets: first_packets(state),
        ports: ports.collect(),
        ports_over_share: wide(datapath.ports_over_share(state.switch.clock().now()).len()),
        connections: wide(conntrack.entries),
        connections_limit: wide(conntrack.max_entries),
        connections_early_dropped: conntrack.early_dropped,
        connections_expired: conntrack.expired,
        connections_created: conntrack.inserted,
        rules: wide(datapath.rule_count()),
        address_sets: wide(datapath.address_set_count()),
        epoch: datapath.epoch().0,
        flow_cache_hits: cache.hits,
        flow_cache_misses: cache.misses,
        offloaded_flows: wide(datapath.kernel_flows().unwrap_or(0)),
        pods: wide(snapshot.cluster.pods().len()),
        network_policies: wide(snapshot.cluster.policies().len()),
        services: wide(snapshot.cluster.services().len()),
        remote_networks: wide(state.node_network.borrow().networks),
        leases: wide(state.ipam.leases().len()),
        cluster: state.cluster.as_ref().map(|health| ClusterFigures {
            stale_seconds: health.stale_seconds().unwrap_or(0),
            watches: health.figures(),
        }),
    }
}

fn first_packets(state: &RestState) -> FirstPacketFigures {
    let counted = state.switch.workers().first_packets();
    FirstPacketFigures {
        buckets: FIRST_PACKET_BOUNDS
            .into_iter()
            .zip(counted.buckets)
            .collect(),
        beyond: counted.buckets.last().copied().unwrap_or(0),
        nanoseconds: counted.nanoseconds,
    }
}

/// What was refused of a port because it was over its share.
fn over_share_drops(state: &RestState, port: PortNo) -> u64 {
    let drops = state.switch.datapath().port_drops(port).into_iter();
    drops
        .filter(|(reason, _)| *reason == DropReason::OverShare)
        .map(|(_, count)| count)
        .sum()
}

/// Adds up by policy, direction and verdict what the rules of policies have counted.
fn policy_figures(rules: &[RuleStats]) -> Vec<PolicyFigures> {
    let mut counted = BTreeMap::<_, (u64, u64)>::new();
    let mut policies = BTreeSet::new();
    for RuleStats {
        rule,
        packets,
        connections,
        ..
    } in rules
    {
        let origin = &rule.origin;
        let decision = rule.decision();
        let Some(verdict) = decision
            .filter(|_| PolicyKey::is_kind(origin.kind))
            .map(verdict)
        else {
            continue;
        };
        let direction = match rule.table < TableId::Forward {
            true => "egress",
            false => "ingress",
        };
        let mut policy = Some((origin.kind, origin.name.as_str()));
        if policies.len() < MOST_POLICIES {
            policies.insert(policy);
        } else if !policies.contains(&policy) {
            policy = None;
        }
        let sum = counted.entry((policy, direction, verdict)).or_default();
        *sum = (sum.0 + packets, sum.1 + connections);
    }
    let figures = counted.into_iter();
    figures
        .map(
            |((policy, direction, verdict), (packets, connections))| PolicyFigures {
                policy: policy.map_or_else(String::new, |(kind, name)| PolicyKey::text(kind, name)),
                direction,
                verdict,
                packets,
                connections,
            },
        )
        .collect()
}

const fn verdict(decision: Decision) -> &'static str {
    match decision {
        Decision::Allow => "allowed",
        Decision::Deny => "denied",
        Decision::Pass => "passed",
    }
}

/// A count in memory always fits.
fn wide(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use vswitch_api::{Cookie, Priority};
    use vswitch_datapath::action::parse_actions;
    use vswitch_datapath::flow::Match;
    use vswitch_datapath::pipeline::{Origin, Rule, RuleId};

    use super::*;

    fn rule(
        table: TableId,
        actions: &str,
        (kind, name): (&'static str, &str),
        packets: u64,
    ) -> RuleStats {
        let rule = Rule {
            id: RuleId(1),
            table,
            priority: Priority(1),
            matches: Match::default(),
            actions: parse_actions(actions).unwrap(),
            cookie: Cookie(1),
            origin: Arc::new(Origin {
                kind,
                name: name.to_owned(),
                part: String::new(),
            }),
        };
        RuleStats {
            rule: Arc::new(rule),
            packets,
            bytes: 0,
            connections: packets + 100,
        }
    }

    fn texts(figures: &[PolicyFigures]) -> Vec<String> {
        let text = |f: &PolicyFigures| {
            format!(
                "{} {} {} {} {}",
                f.policy, f.direction, f.verdict, f.packets, f.connections
            )
        };
        figures.iter().map(text).collect()
    }

    #[test]
    fn what_rules_count_is_added_up_by_policy_direction_and_verdict() {
        let web = ("NetworkPolicy", "shop/web");
        let cluster = ("AdminNetworkPolicy", "guard");
        let (forward, output) = (TableId::Forward.number(), TableId::Output.number());
        let tier2 = TableId::IngressAdminTier2.number();
        let rules = [
            rule(
                TableId::IngressRule,
                &format!("goto_table:{output}"),
                web,
                3,
            ),
            rule(
                TableId::IngressRule,
                &format!("goto_table:{output}"),
                web,
                4,
            ),
            rule(TableId::IngressDefault, "drop(policy_ingress)", web, 5),
            rule(
                TableId::EgressRule,
                &format!("goto_table:{forward}"),
                web,
                6,
            ),
            rule(
                TableId::IngressAdminTier,
                &format!("goto_table:{tier2}"),
                cluster,
                7,
            ),
            rule(
                TableId::EgressAdminTier,
                "reject(policy_egress)",
                cluster,
                8,
            ),
            rule(
                TableId::IngressRule,
                &format!("goto_table:{output}"),
                ("Pod", "shop/web-0"),
                9,
            ),
        ];
        assert_eq!(
            texts(&policy_figures(&rules)),
            [
                "AdminNetworkPolicy guard egress denied 8 108",
                "AdminNetworkPolicy guard ingress passed 7 107",
                "shop/web egress allowed 6 106",
                "shop/web ingress allowed 7 207",
                "shop/web ingress denied 5 105",
            ]
        );
    }

    #[test]
    fn policies_beyond_the_bound_are_counted_together() {
        let drop = |n: usize| {
            let name = format!("ns/p{n}");
            rule(
                TableId::IngressDefault,
                "drop(policy_ingress)",
                ("NetworkPolicy", &name),
                1,
            )
        };
        let rules: Vec<RuleStats> = (0..MOST_POLICIES + 3).map(drop).collect();
        let figures = policy_figures(&rules);
        assert_eq!(figures.len(), MOST_POLICIES + 1);
        assert_eq!(texts(&figures[..1]), [" ingress denied 3 303"]);
    }
}
