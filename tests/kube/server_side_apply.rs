//! `kubectl apply --server-side`: what a manifest no longer names is taken away, what others set
//! is theirs.

use super::{client_and_server, with_each_kubectl};

const SERVER_SIDE: [&str; 4] = ["apply", "--server-side", "-f", "-"];

fn policy(labels: &str) -> String {
    format!(
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: closed}}\n\
         spec: {{podSelector: {{matchLabels: {{{labels}}}}}, policyTypes: [Ingress]}}\n"
    )
}

fn service(labels: &str, port: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: web, labels: {{{labels}}}}}\n\
         spec: {{ports: [{{{port}}}]}}\n"
    )
}

#[test]
fn a_policy_that_names_fewer_labels_selects_the_pod_and_closes_it() {
    with_each_kubectl(|kubectl, daemon| {
        let (client, server, _web) = client_and_server(daemon, 80);
        kubectl.run(&["label", "pod", "server", "app=web"]);
        let apply = |labels: &str| kubectl.with_input(&SERVER_SIDE, &policy(labels)).unwrap();
        apply("app: web, tier: x");
        assert_eq!(client.fetch(server.ip(), 80).unwrap(), "server");
        let told = apply("app: web");
        assert_eq!(
            told.trim(),
            "networkpolicy.networking.k8s.io/closed serverside-applied"
        );
        client.fetch(server.ip(), 80).unwrap_err();
    });
}

#[test]
fn what_another_manager_set_is_a_conflict_until_it_is_forced() {
    with_each_kubectl(|kubectl, _| {
        let labels = || kubectl.run(&["get", "svc", "web", "-o", "jsonpath={.metadata.labels}"]);
        let manifest = service("a: '1', b: '1'", "port: 80");
        kubectl.with_input(&SERVER_SIDE, &manifest).unwrap();
        kubectl.run(&["label", "svc", "web", "a=2", "--overwrite"]);
        let refused = kubectl.fails(&SERVER_SIDE, &manifest);
        assert!(
            refused
                .contains("Apply failed with 1 conflict: conflict with \"kubectl-label\" using v1"),
            "{refused}"
        );
        assert!(refused.contains(": .metadata.labels.a"), "{refused}");
        assert_eq!(labels(), r#"{"a":"2","b":"1"}"#);
        let force = [&SERVER_SIDE[..], &["--force-conflicts"]].concat();
        kubectl.with_input(&force, &manifest).unwrap();
        assert_eq!(labels(), r#"{"a":"1","b":"1"}"#);
    });
}

#[test]
fn what_was_applied_by_the_client_is_taken_over_by_the_server() {
    with_each_kubectl(|kubectl, _| {
        let apply = |how: &[&str], labels: &str, port: &str| {
            kubectl.with_input(how, &service(labels, port)).unwrap()
        };
        apply(&["apply", "-f", "-"], "a: '1', b: '1'", "port: 80");
        // What the client's record names is taken over; a default that it does not name would be
        // another manager's value.
        apply(&SERVER_SIDE, "a: '2', b: '1'", "port: 80, targetPort: 80");
        let shown = kubectl.run(&[
            "get",
            "svc",
            "web",
            "-o",
            "jsonpath={.metadata.labels}{.spec.ports[*].targetPort}",
        ]);
        assert_eq!(shown, r#"{"a":"2","b":"1"}80"#);
        // And back: what the client's record names and the manifest does not goes.
        apply(
            &["apply", "-f", "-"],
            "a: '2'",
            "port: 80, targetPort: 8080",
        );
        let labels = kubectl.run(&["get", "svc", "web", "-o", "jsonpath={.metadata.labels}"]);
        assert_eq!(labels, r#"{"a":"2"}"#);
    });
}

#[test]
fn a_changed_protocol_leaves_one_port() {
    with_each_kubectl(|kubectl, _| {
        let ports = || {
            let path = "jsonpath={range .spec.ports[*]}{.port}/{.protocol}>{.targetPort} {end}";
            kubectl.run(&["get", "svc", "web", "-o", path])
        };
        for how in [&["apply", "-f", "-"][..], &SERVER_SIDE] {
            let apply = |port: &str| kubectl.with_input(how, &service("", port)).unwrap();
            apply("port: 53, protocol: TCP, targetPort: 5353");
            assert_eq!(ports(), "53/TCP>5353 ", "{how:?}");
            apply("port: 53, protocol: UDP");
            assert_eq!(ports(), "53/UDP>53 ", "{how:?}");
            kubectl.run(&["delete", "svc", "web"]);
        }
    });
}
