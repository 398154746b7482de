//! Explanations of random clusters agree with the naive evaluator.

use proptest::prelude::*;
use vswitch_datapath::flow::ip_proto;

use super::super::naive;
use super::super::property::{PORTS, PROTOS, every_address, world};
use super::super::walker::Flow;
use super::super::world::{Labels, World};
use super::{end, state};
use crate::policy::explain::{
    Advice, Explanation, Ground, LabelChange, Labelled, Miss, Question, Relabel, explain,
};
use crate::state::PolicyKey;

/// Calls `check` with every connection of a world and its explanation.
fn for_each(world: &World, mut check: impl FnMut(Flow, &Explanation)) {
    let state = state(world);
    let addresses = every_address(world);
    for (from, to) in addresses
        .iter()
        .flat_map(|a| addresses.iter().map(move |b| (a, b)))
    {
        let (source, target) = (end(world, &state, from), end(world, &state, to));
        if source.address.map(|ip| ip.is_ipv4()) != target.address.map(|ip| ip.is_ipv4()) {
            continue;
        }
        for (protocol, port) in PROTOS.into_iter().flat_map(|p| PORTS.map(|n| (p, n))) {
            // What is asked of ICMP is an echo request.
            if protocol == ip_proto::ICMP && port != 80 {
                continue;
            }
            let question = Question {
                from: source.clone(),
                to: target.clone(),
                protocol,
                port,
            };
            let flow = world.flow(from, to, protocol, port);
            check(flow, &explain(&state, &question));
        }
    }
}

fn relabel(world: &World, relabels: &[Relabel]) -> World {
    let mut world = world.clone();
    for relabel in relabels {
        let labels: &mut Labels = match &relabel.object {
            Labelled::Pod(key) => {
                let mut pods = world.pods.iter_mut();
                &mut pods.find(|pod| pod.key == *key).unwrap().labels
            }
            Labelled::Namespace(name) => world.namespaces.get_mut(name).unwrap(),
        };
        for change in &relabel.changes {
            match change {
                LabelChange::Set { key, value } => labels.insert(key.clone(), value.clone()),
                LabelChange::Remove { key } => labels.remove(key),
            };
        }
    }
    world
}

/// Takes the advice and asks the naive evaluator again.
fn helps(world: &World, flow: Flow, advice: &Advice) -> bool {
    match advice {
        Advice::Labels(relabels) => naive::allows(&relabel(world, relabels), &flow),
        Advice::Ports(choices) => choices.iter().all(|choice| {
            let port = choice.ports.map_or(flow.port, |range| range.first);
            let flow = Flow {
                proto: choice.protocol,
                port,
                ..flow
            };
            naive::allows(world, &flow)
        }),
    }
}

fn denied_at_one_end(explanation: &Explanation) -> &[Miss] {
    match (explanation.egress.allowed, explanation.ingress.allowed) {
        (false, true) => &explanation.egress.misses,
        (true, false) => &explanation.ingress.misses,
        _ => &[],
    }
}

/// Every pod attached here, so that both ends are judged. Only pods in the pod network are
/// attached, each with addresses of its own.
fn all_local(mut world: World) -> World {
    for pod in &mut world.pods {
        pod.ips.truncate(2);
        pod.is_local = true;
    }
    world
}

/// Worlds that are tried.
const CASES: u32 = 80;

/// Worlds of which most have NetworkPolicies alone: advice is about those, and policies of
/// tiers come before it.
fn advised() -> impl Strategy<Value = World> {
    (world(), prop::bool::weighted(0.3)).prop_map(|(mut world, has_tiers)| {
        if !has_tiers {
            world.cluster_policies.clear();
            world.calico.clear();
        }
        all_local(world)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(CASES))]

    #[test]
    fn explanations_decide_here_as_the_api_is_worded(world in world()) {
        for_each(&world, |flow, explanation| {
            let expected = naive::allows(&world, &flow);
            assert_eq!(explanation.allowed_here(), expected, "{flow:?} {explanation:#?}");
        });
    }

    #[test]
    fn explanations_decide_both_ends_as_the_api_is_worded(world in world().prop_map(all_local)) {
        for_each(&world, |flow, explanation| {
            let expected = naive::allows(&world, &flow);
            assert_eq!(explanation.allowed, expected, "{flow:?} {explanation:#?}");
        });
    }

    #[test]
    fn advice_that_is_taken_helps(world in advised()) {
        for_each(&world, |flow, explanation| {
            for miss in denied_at_one_end(explanation) {
                let Some(advice) = &miss.advice else { continue };
                assert!(helps(&world, flow, advice), "{flow:?} {miss:#?}");
            }
        });
    }

    #[test]
    fn a_denial_by_policies_always_has_a_near_miss(world in world()) {
        for_each(&world, |flow, explanation| {
            for judgement in [&explanation.egress, &explanation.ingress] {
                let is_denied = matches!(judgement.ground, Ground::NothingAllows { .. });
                assert!(!is_denied || !judgement.misses.is_empty(), "{flow:?}");
                for miss in &judgement.misses {
                    let mut policies = judgement.isolated_by.iter().cloned();
                    let is_of = |key| PolicyKey::NetworkPolicy(key) == miss.rule.policy;
                    assert!(policies.any(is_of), "{flow:?} {miss:?}");
                }
            }
        });
    }
}

/// The worlds are worth asking: there are denials with advice among them.
#[test]
fn random_worlds_deny_and_are_advised() {
    use proptest::strategy::ValueTree as _;
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let (mut labels, mut ports) = (0, 0);
    for _ in 0..CASES {
        let world = advised().new_tree(&mut runner).unwrap().current();
        for_each(&world, |_, explanation| {
            for miss in denied_at_one_end(explanation) {
                match &miss.advice {
                    Some(Advice::Labels(_)) => labels += 1,
                    Some(Advice::Ports(_)) => ports += 1,
                    None => {}
                }
            }
        });
    }
    assert!(labels > 100 && ports > 100, "{labels} {ports}");
}
