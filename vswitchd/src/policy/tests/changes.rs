//! What a change of the cluster changes, taken in step by step: the words of the tests are
//! what operators expect of a running switch.

use serde_json::json;
use vswitch_datapath::flow::ip_proto::{SCTP, TCP};
use vswitch_datapath::pipeline::SetUpdate;

use super::program::Program;
use super::walker;
use super::world::{CompiledCluster, World, labels, node};
use crate::rules::RuleDelta;
use crate::state::PodPhase;

/// A compiler that has followed a world's history so far.
struct IncrementalCompiler {
    compiler: CompiledCluster,
    program: Program,
    world: World,
}

impl IncrementalCompiler {
    fn new(world: World) -> Self {
        let mut switch = Self {
            compiler: CompiledCluster::new(),
            program: Program::default(),
            world: World::default(),
        };
        switch.become_(world);
        switch
    }

    /// The world changes; returns what that changes of the rules.
    fn become_(&mut self, world: World) -> RuleDelta {
        for change in world.changes_since(&self.world) {
            self.compiler.cluster(change);
        }
        self.compiler.set_node(world.locals(), node());
        let delta = self.compiler.flush();
        self.program.apply(delta.clone());
        self.world = world;
        delta
    }

    fn tcp(&self, from: &str, to: &str, port: u16) -> bool {
        self.allows(from, to, TCP, port)
    }

    fn allows(&self, from: &str, to: &str, proto: u8, port: u16) -> bool {
        let flow = self.world.flow(from, to, proto, port);
        walker::verdict(&self.program, &flow).is_ok()
    }
}

/// x/a admits team=blue namespaces on the port "web"; y/b is another pod of this node.
fn world() -> World {
    let web = |number: u16| vec![("web".to_owned(), number, TCP)];
    World::default()
        .namespace("x", "")
        .namespace("y", "team=blue")
        .pod("x/a", "app=a", &["10.0.0.1"])
        .last_pod(|pod| pod.ports = web(80))
        .pod("y/b", "app=b", &["10.0.0.2"])
        .policy(
            "x/p",
            json!({ "podSelector": { "matchLabels": { "app": "a" } }, "ingress": [{
                "from": [{ "namespaceSelector": { "matchLabels": { "team": "blue" } } }],
                "ports": [{ "port": "web" }] }] }),
        )
}

#[test]
fn a_relabelled_namespace_takes_its_pods_along() {
    let mut switch = IncrementalCompiler::new(world());
    assert!(switch.tcp("y/b", "x/a", 80));
    let delta = switch.become_(world().namespace("y", "team=red"));
    assert!(!switch.tcp("y/b", "x/a", 80));
    assert!(
        delta.add_rules.is_empty() && delta.remove_rules.is_empty(),
        "{delta:?}"
    );
    switch.become_(world());
    assert!(switch.tcp("y/b", "x/a", 80));
}

#[test]
fn a_relabelled_pod_enters_and_leaves_what_policies_select() {
    let mut switch = IncrementalCompiler::new(world());
    assert!(switch.tcp("y/b", "x/a", 80) && !switch.tcp("y/b", "x/a", 81));
    let mut other = world();
    other.pods[0].labels = labels("app=z");
    switch.become_(other);
    assert!(switch.tcp("y/b", "x/a", 81), "nothing isolates it any more");
    assert!(
        switch
            .program
            .rules
            .values()
            .all(|rule| rule.origin.kind != "NetworkPolicy")
    );
    switch.become_(world());
    assert!(!switch.tcp("y/b", "x/a", 81));
}

#[test]
fn a_deleted_namespace_takes_policies_and_pods_along_in_any_order() {
    for keep_pods in [true, false] {
        let mut switch = IncrementalCompiler::new(world());
        let mut going = world();
        going.namespaces.remove("y");
        if !keep_pods {
            going.pods.pop();
        }
        switch.become_(going);
        assert!(
            !switch.tcp("10.0.0.2", "x/a", 80),
            "no namespace, no labels"
        );
        let mut gone = world();
        gone.namespaces.remove("y");
        gone.pods.pop();
        switch.become_(gone);
        let blue = switch
            .program
            .sets
            .iter()
            .find(|(name, _)| name.0.contains("team=blue"));
        assert!(blue.is_some_and(|(_, members)| members.is_empty()));
    }
}

#[test]
fn an_address_that_another_pod_takes_at_once_has_the_new_pods_identity() {
    let old = world().remote("y/old", "", &["10.0.1.9"]);
    let mut switch = IncrementalCompiler::new(old);
    assert!(switch.tcp("y/old", "x/a", 80));
    let new = world()
        .namespace("z", "")
        .remote("z/new", "", &["10.0.1.9"]);
    switch.become_(new);
    assert!(!switch.tcp("z/new", "x/a", 80));
}

#[test]
fn a_pending_pod_counts_from_the_moment_it_has_an_address() {
    let pending = world()
        .remote("y/late", "", &[])
        .last_pod(|pod| pod.phase = PodPhase::Pending);
    let mut switch = IncrementalCompiler::new(pending);
    assert!(!switch.tcp("10.0.1.7", "x/a", 80));
    let delta = switch.become_(world().remote("y/late", "", &["10.0.1.7"]));
    assert!(switch.tcp("y/late", "x/a", 80));
    let added =
        |(_, update): &(_, SetUpdate)| matches!(update, SetUpdate::Add(nets) if nets.len() == 1);
    assert!(
        delta.add_rules.is_empty() && delta.sets.iter().all(added),
        "{delta:?}"
    );
}

#[test]
fn a_finished_pod_loses_what_its_address_was_allowed() {
    let running = world().remote("y/job", "", &["10.0.1.8"]);
    let mut switch = IncrementalCompiler::new(running);
    assert!(switch.tcp("y/job", "x/a", 80));
    let done = world()
        .remote("y/job", "", &["10.0.1.8"])
        .last_pod(|pod| pod.phase = PodPhase::Succeeded);
    switch.become_(done);
    assert!(!switch.tcp("10.0.1.8", "x/a", 80));
}

#[test]
fn a_named_port_follows_the_number_that_the_pod_gives_it() {
    let mut switch = IncrementalCompiler::new(world());
    let mut moved = world();
    moved.pods[0].ports = vec![("web".to_owned(), 8080, TCP)];
    switch.become_(moved);
    assert!(switch.tcp("y/b", "x/a", 8080) && !switch.tcp("y/b", "x/a", 80));
    let mut without = world();
    without.pods[0].ports.clear();
    switch.become_(without);
    assert!(!switch.tcp("y/b", "x/a", 8080), "the pod has no such port");
}

#[test]
fn sctp_is_a_protocol_of_its_own() {
    let sctp = world().policy(
        "x/q",
        json!({ "podSelector": {}, "ingress": [{ "ports": [{ "protocol": "SCTP", "port": 81 }] }] }),
    );
    let switch = IncrementalCompiler::new(sctp);
    assert!(switch.allows("y/b", "x/a", SCTP, 81));
    assert!(!switch.tcp("y/b", "x/a", 81));
}

#[test]
fn a_change_that_concerns_no_local_pod_changes_nothing() {
    let mut switch = IncrementalCompiler::new(world());
    let elsewhere = world().remote("y/r", "app=r", &["10.0.1.1"]).policy(
        "y/other",
        json!({ "podSelector": { "matchLabels": { "app": "r" } } }),
    );
    let delta = switch.become_(elsewhere);
    assert!(
        delta.add_rules.is_empty() && delta.remove_rules.is_empty(),
        "{delta:?}"
    );
    assert_eq!(
        delta.sets.len(),
        1,
        "y/r is one more of the blue team: {delta:?}"
    );
}
