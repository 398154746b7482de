//! Everyday commands of kubectl, new and old: what they print and how they end.

use std::process::Command;

use vswitch_tests::{Pod, run};

use super::{Kubectl, SECURE_POD, VERSIONS, daemon};

/// A command, its input, its exit code, and what its output has.
type Step = (&'static str, &'static str, i32, &'static [&'static str]);

const SERVICE: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: web, labels: {a: '1'}}\n\
    spec: {selector: {app: web}, ports: [{port: 80}]}\n";
const CHANGED: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: web, labels: {a: '1'}}\n\
    spec: {selector: {app: web}, ports: [{port: 81}]}\n";

const STEPS: &[Step] = &[
    ("create namespace shop", "", 0, &["namespace/shop created"]),
    (
        "create namespace shop",
        "",
        1,
        &["namespaces \"shop\" already exists"],
    ),
    ("get namespace shop", "", 0, &["shop   Active"]),
    (
        "create service clusterip made --tcp=80:8080",
        "",
        0,
        &["service/made created"],
    ),
    (
        "get service made -o jsonpath={.spec.ports[0].targetPort}",
        "",
        0,
        &["8080"],
    ),
    (
        "apply --dry-run=server -f -",
        SERVICE,
        0,
        &["service/web created (server dry run)"],
    ),
    ("get service web", "", 1, &["services \"web\" not found"]),
    ("diff -f -", SERVICE, 1, &["+  name: web"]),
    ("apply -f -", SERVICE, 0, &["service/web created"]),
    ("diff -f -", SERVICE, 0, &[]),
    ("diff -f -", CHANGED, 1, &["-  - port: 80", "+  - port: 81"]),
    (
        "label service web b=2 --dry-run=server",
        "",
        0,
        &["service/web labeled"],
    ),
    (
        "get service web -o jsonpath={.metadata.labels}",
        "",
        0,
        &["{\"a\":\"1\"}"],
    ),
    (
        "explain networkpolicy.spec.podSelector",
        "",
        0,
        &["matchLabels"],
    ),
    (
        "explain service.spec.ports",
        "",
        0,
        &["targetPort", "nodePort"],
    ),
    (
        "explain pod.spec.containers.ports",
        "",
        0,
        &["containerPort"],
    ),
    ("explain service.spec.nonsense", "", 1, &["nonsense"]),
    (
        "wait --for=condition=Ready pod/client --timeout=10s",
        "",
        0,
        &["pod/client condition met"],
    ),
    (
        "get pods --field-selector=status.phase=Running -o name",
        "",
        0,
        &["pod/client"],
    ),
    (
        "get pods --field-selector=metadata.name=none -o name",
        "",
        0,
        &[],
    ),
    ("get pods -l none=none -o name", "", 0, &[]),
    ("delete service web", "", 0, &["service \"web\" deleted"]),
    (
        "delete namespace shop",
        "",
        0,
        &["namespace \"shop\" deleted"],
    ),
];

#[test]
fn everyday_commands_print_and_end_as_they_should() {
    for version in VERSIONS {
        let daemon = daemon();
        let kubectl = Kubectl::new(&daemon, version);
        let _client = Pod::named("client").attach(&daemon).unwrap();
        let mut wrong = Vec::new();
        for (line, input, code, texts) in STEPS {
            let arguments: Vec<&str> = line.split(' ').collect();
            let mut command: Command = kubectl.command(&arguments);
            let output = run(&mut command, input).unwrap();
            let all = format!("{}{}", output.stdout, output.stderr);
            let has_all = texts.iter().all(|text| all.contains(text));
            if output.code != Some(*code) || !has_all {
                wrong.push(format!("{version} {line}: {:?}\n{all}", output.code));
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }
}

/// Versions 1.20 and 1.35 both ask the server what it thinks of a whole manifest.
#[test]
fn a_dry_run_is_refused_for_what_the_write_would_be_refused_for() {
    for version in VERSIONS {
        let daemon = daemon();
        let kubectl = Kubectl::new(&daemon, version);
        let broken = SECURE_POD.replace("port: 80", "port: 80000");
        let told = kubectl.fails(&["apply", "--dry-run=server", "-f", "-"], &broken);
        assert!(
            told.contains("spec.ingress[0].ports[0].port: Invalid value"),
            "{version}: {told}"
        );
    }
}
