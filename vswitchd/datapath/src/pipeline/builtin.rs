//! The rules that every datapath starts with: what each table does where no other rule
//! decides. They are real rules, so that `dump-flows` shows and counts the defaults.

use std::sync::{Arc, LazyLock};

use vswitch_api::{Cookie, Priority};

use super::rule::FIRST_BUILTIN_ID;
use super::{Origin, Rule, RuleId, TableId};
use crate::action::{Action, parse_actions};
use crate::flow::Match;

/// Table, priority, match, actions, reason for the default.
type Line = (TableId, u16, &'static str, &'static str, &'static str);

/// Neighbour discovery (router and neighbour solicitation and advertisement, redirect) is
/// types 133 to 137: RFC 4861 section 4.
const LINES: &[Line] = &[
    (
        TableId::Classify,
        0,
        "",
        "drop(unknown_port)",
        "nothing is known of the port",
    ),
    (
        TableId::SpoofGuard,
        0,
        "",
        "drop(spoofed)",
        "addresses are used only by their owner",
    ),
    (
        TableId::ArpResponder,
        2,
        "arp",
        "drop(arp_unknown)",
        "the switch answers for what it knows",
    ),
    (
        TableId::ArpResponder,
        2,
        "icmp6,icmp_type=133-137",
        "drop(nd_unknown)",
        "as for ARP",
    ),
    (
        TableId::ArpResponder,
        0,
        "",
        "goto_table:30",
        "not address resolution",
    ),
    (TableId::Admin, 0, "", "goto_table:40", "no operator's flow"),
    (
        TableId::Conntrack,
        90,
        "vlan_tci=0x1000/0x1000",
        "drop(unsupported_vlan)",
        "pods are untagged",
    ),
    (
        TableId::Conntrack,
        80,
        "ct_state=+trk+inv,ipv6,ipv6_dst=ff00::/8",
        "drop(multicast_not_forwarded)",
        "multicast listener reports are of no connection",
    ),
    (
        TableId::Conntrack,
        70,
        "ct_state=+trk+inv",
        "drop(ct_invalid)",
        "fits no connection",
    ),
    (
        TableId::Conntrack,
        60,
        "ct_state=+trk+rpl",
        "goto_table:70",
        "replies need no policy of their own: their connection was judged",
    ),
    (
        TableId::Conntrack,
        60,
        "ct_state=+trk+rel",
        "goto_table:70",
        "errors go with their connection",
    ),
    (
        TableId::Conntrack,
        50,
        "ct_state=+trk",
        "goto_table:50",
        "judged as its connection",
    ),
    (
        TableId::Conntrack,
        0,
        "",
        "drop(unsupported_ether_type)",
        "not IP: it cannot be tracked",
    ),
    (
        TableId::ServiceLb,
        0,
        "",
        "goto_table:55",
        "not to a service",
    ),
    (
        TableId::EgressAdminTier,
        0,
        "",
        "goto_table:56",
        "no policy of these tiers decides for the sender",
    ),
    (
        TableId::EgressAdminTier2,
        0,
        "",
        "goto_table:57",
        "no policy of these tiers decides for the sender",
    ),
    (
        TableId::EgressAdminTier3,
        0,
        "",
        "goto_table:58",
        "no policy of these tiers decides for the sender",
    ),
    (
        TableId::EgressAdminTier4,
        0,
        "",
        "goto_table:60",
        "no policy of these tiers decides for the sender",
    ),
    (
        TableId::EgressRule,
        0,
        "",
        "goto_table:61",
        "no rule allows it",
    ),
    (
        TableId::EgressDefault,
        0,
        "",
        "goto_table:65",
        "the sender is not isolated for egress",
    ),
    (
        TableId::EgressBaselineTier,
        0,
        "",
        "goto_table:66",
        "no policy of these tiers decides for the sender",
    ),
    (
        TableId::EgressBaselineTier2,
        0,
        "",
        "goto_table:70",
        "no policy of these tiers decides for the sender",
    ),
    (
        TableId::Forward,
        60_000,
        "ip,nw_dst=224.0.0.0/4",
        "drop(multicast_not_forwarded)",
        "no multicast routing",
    ),
    (
        TableId::Forward,
        60_000,
        "ip,nw_dst=255.255.255.255",
        "drop(multicast_not_forwarded)",
        "no broadcast domain",
    ),
    (
        TableId::Forward,
        60_000,
        "ipv6,ipv6_dst=ff00::/8",
        "drop(multicast_not_forwarded)",
        "no multicast routing",
    ),
    (
        TableId::Forward,
        0,
        "",
        "drop(no_route)",
        "nobody has the destination address",
    ),
    (
        TableId::IngressAdminTier,
        60_000,
        "ct_state=+trk+rpl",
        "goto_table:90",
        "replies need no policy of their own: their connection was judged",
    ),
    (
        TableId::IngressAdminTier,
        60_000,
        "ct_state=+trk+rel",
        "goto_table:90",
        "errors go with their connection",
    ),
    (
        TableId::IngressAdminTier,
        0,
        "",
        "goto_table:76",
        "no policy of these tiers decides for the receiver",
    ),
    (
        TableId::IngressAdminTier2,
        60_000,
        "ct_state=+trk+rpl",
        "goto_table:90",
        "replies need no policy of their own: their connection was judged",
    ),
    (
        TableId::IngressAdminTier2,
        60_000,
        "ct_state=+trk+rel",
        "goto_table:90",
        "errors go with their connection",
    ),
    (
        TableId::IngressAdminTier2,
        0,
        "",
        "goto_table:77",
        "no policy of these tiers decides for the receiver",
    ),
    (
        TableId::IngressAdminTier3,
        60_000,
        "ct_state=+trk+rpl",
        "goto_table:90",
        "replies need no policy of their own: their connection was judged",
    ),
    (
        TableId::IngressAdminTier3,
        60_000,
        "ct_state=+trk+rel",
        "goto_table:90",
        "errors go with their connection",
    ),
    (
        TableId::IngressAdminTier3,
        0,
        "",
        "goto_table:78",
        "no policy of these tiers decides for the receiver",
    ),
    (
        TableId::IngressAdminTier4,
        60_000,
        "ct_state=+trk+rpl",
        "goto_table:90",
        "replies need no policy of their own: their connection was judged",
    ),
    (
        TableId::IngressAdminTier4,
        60_000,
        "ct_state=+trk+rel",
        "goto_table:90",
        "errors go with their connection",
    ),
    (
        TableId::IngressAdminTier4,
        0,
        "",
        "goto_table:80",
        "no policy of these tiers decides for the receiver",
    ),
    (
        TableId::IngressRule,
        60_000,
        "ct_state=+trk+rpl",
        "goto_table:90",
        "replies need no policy of their own: their connection was judged",
    ),
    (
        TableId::IngressRule,
        60_000,
        "ct_state=+trk+rel",
        "goto_table:90",
        "errors go with their connection",
    ),
    (
        TableId::IngressRule,
        0,
        "",
        "goto_table:81",
        "no rule allows it",
    ),
    (
        TableId::IngressDefault,
        0,
        "",
        "goto_table:85",
        "the receiver is not isolated for ingress",
    ),
    (
        TableId::IngressBaselineTier,
        0,
        "",
        "goto_table:86",
        "no policy of these tiers decides for the receiver",
    ),
    (
        TableId::IngressBaselineTier2,
        0,
        "",
        "goto_table:90",
        "no policy of these tiers decides for the receiver",
    ),
    (
        TableId::Output,
        0,
        "",
        "ct(commit),output",
        "end of the pipeline",
    ),
];

/// Built once: the text above is constant.
static RULES: LazyLock<Vec<Rule>> =
    LazyLock::new(|| (FIRST_BUILTIN_ID..).zip(LINES).map(rule).collect());

/// Returns the built-in rules.
#[must_use]
pub fn builtin_rules() -> Vec<Rule> {
    RULES.clone()
}

fn rule((id, (table, priority, matches, actions, why)): (u64, &Line)) -> Rule {
    Rule {
        id: RuleId(id),
        table: *table,
        priority: Priority(*priority),
        matches: matches
            .parse::<Match>()
            .expect("the text in LINES is match syntax"),
        actions: parse_actions(actions).expect("the text in LINES is action syntax"),
        cookie: Cookie(0),
        origin: Arc::new(Origin {
            kind: "Builtin",
            name: table.name().to_owned(),
            part: (*why).to_owned(),
        }),
    }
}

/// Returns whether a table of a tier has rules besides its built-in ones.
pub(super) fn is_tier_in_use(table: TableId, rules: usize) -> bool {
    rules > LINES.iter().filter(|line| line.0 == table).count()
}

/// Returns whether the rule drops.
pub(super) fn drops(rule: &Rule) -> bool {
    rule.actions
        .iter()
        .any(|action| matches!(action, Action::Drop(_) | Action::Reject(_)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::CtState;

    #[test]
    fn every_table_has_a_rule_for_everything_else() {
        for table in TableId::ALL {
            let is_default = |rule: &Rule| {
                rule.table == table && rule.priority.0 == 0 && rule.matches == Match::default()
            };
            assert_eq!(
                builtin_rules().iter().filter(|r| is_default(r)).count(),
                1,
                "{table}"
            );
        }
    }

    #[test]
    fn no_builtin_rule_tells_a_first_packet_from_a_later_one() {
        let tells = CtState(CtState::NEW.0 | CtState::EST.0);
        for rule in builtin_rules() {
            let mask = rule.matches.ct_state.map_or(0, |state| state.mask.0);
            assert_eq!(mask & tells.0, 0, "{}", rule.matches);
        }
    }
}
