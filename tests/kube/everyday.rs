//! Everyday commands of kubectl, new and old: what they print and how they end.

use std::process::Command;

use serde_json::{Value, json};
use vswitch_tests::{Pod, run};

use super::{Kubectl, SECURE_POD, daemon, with_each_kubectl};

/// A command, its input, its exit code, and what its output has.
type Step = (&'static str, &'static str, i32, &'static [&'static str]);

const SERVICE: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: web, labels: {a: '1'}}\n\
    spec: {selector: {app: web}, ports: [{port: 80}]}\n";
const CHANGED: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: web, labels: {a: '1'}}\n\
    spec: {selector: {app: web}, ports: [{port: 81}]}\n";

/// A policy of the whole cluster, and one that its CRD refuses.
const GUARD: &str = "apiVersion: policy.networking.k8s.io/v1alpha2\nkind: ClusterNetworkPolicy\n\
    metadata: {name: guard}\nspec: {tier: Admin, priority: 10, subject: {namespaces: {}}, \
    ingress: [{action: Accept, from: [{namespaces: {matchLabels: {kind: monitoring}}}]}]}\n";
const BAD_GUARD: &str = "apiVersion: policy.networking.k8s.io/v1alpha2\nkind: ClusterNetworkPolicy\n\
    metadata: {name: guard}\nspec: {tier: Admin, priority: 1001, subject: {namespaces: {}}}\n";

/// The kinds before it.
const OLDER: &str = "apiVersion: policy.networking.k8s.io/v1alpha1\nkind: AdminNetworkPolicy\n\
    metadata: {name: guard}\nspec: {priority: 5, subject: {namespaces: {}}, \
    egress: [{action: Deny, to: [{networks: [192.0.2.0/24]}], ports: [{portNumber: {port: 22}}]}]}\n\
    ---\napiVersion: policy.networking.k8s.io/v1alpha1\nkind: BaselineAdminNetworkPolicy\n\
    metadata: {name: default}\nspec: {subject: {namespaces: {}}, \
    ingress: [{action: Allow, from: [{namespaces: {}}]}]}\n";
const SECOND_BASELINE: &str = "apiVersion: policy.networking.k8s.io/v1alpha1\n\
    kind: BaselineAdminNetworkPolicy\nmetadata: {name: second}\nspec: {subject: {namespaces: {}}}\n";

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
    (
        "get events",
        "",
        0,
        &["No resources found in default namespace."],
    ),
    ("get events -A", "", 0, &["No resources found"]),
    (
        "get events.v1.events.k8s.io",
        "",
        0,
        &["No resources found in default namespace."],
    ),
    ("get events -o jsonpath={.kind}{.items}", "", 0, &["List[]"]),
    (
        "get event none",
        "",
        1,
        &["(NotFound): events \"none\" not found"],
    ),
    ("describe pod client", "", 0, &["Events:", "<none>"]),
    (
        "apply -f -",
        GUARD,
        0,
        &["clusternetworkpolicy.policy.networking.k8s.io/guard created"],
    ),
    (
        "apply -f -",
        BAD_GUARD,
        1,
        &["spec.priority: Invalid value: 1001"],
    ),
    (
        "get cnp",
        "",
        0,
        &["TIER", "PRIORITY", "guard   Admin   10"],
    ),
    (
        "patch cnp guard --type=merge -p {\"spec\":{\"priority\":11}}",
        "",
        0,
        &["clusternetworkpolicy.policy.networking.k8s.io/guard patched"],
    ),
    ("diff -f -", GUARD, 1, &["priority: 11", "priority: 10"]),
    (
        "wait --for=condition=Enforceable cnp/guard --timeout=10s",
        "",
        0,
        &["guard condition met"],
    ),
    (
        "apply --server-side --force-conflicts -f -",
        GUARD,
        0,
        &["guard serverside-applied"],
    ),
    (
        "explain clusternetworkpolicy.spec.egress.to",
        "",
        0,
        &["networks", "domainNames"],
    ),
    ("delete cnp guard", "", 0, &["\"guard\" deleted"]),
    (
        "apply -f -",
        OLDER,
        0,
        &[
            "adminnetworkpolicy.policy.networking.k8s.io/guard created",
            "baselineadminnetworkpolicy.policy.networking.k8s.io/default created",
        ],
    ),
    (
        "apply -f -",
        SECOND_BASELINE,
        1,
        &["Only one baseline admin network policy"],
    ),
    ("get anp", "", 0, &["PRIORITY", "guard   5"]),
    ("get banp", "", 0, &["default"]),
    (
        "get anp guard -o jsonpath={.spec.egress[0].ports[0].portNumber.protocol}",
        "",
        0,
        &["TCP"],
    ),
    (
        "wait --for=condition=Enforceable anp/guard banp/default --timeout=10s",
        "",
        0,
        &["guard condition met", "default condition met"],
    ),
    (
        "explain adminnetworkpolicy.spec.egress.ports",
        "",
        0,
        &["portNumber", "namedPort"],
    ),
    ("diff -f -", OLDER, 0, &[]),
    ("delete anp guard", "", 0, &["\"guard\" deleted"]),
    ("delete banp default", "", 0, &["\"default\" deleted"]),
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
    with_each_kubectl(|kubectl, daemon| {
        let _client = Pod::named("client").attach(daemon).unwrap();
        let mut wrong = Vec::new();
        for (line, input, code, texts) in STEPS {
            let arguments: Vec<&str> = line.split(' ').collect();
            let mut command: Command = kubectl.command(&arguments);
            let output = run(&mut command, input).unwrap();
            let all = format!("{}{}", output.stdout, output.stderr);
            let has_all = texts.iter().all(|text| all.contains(text));
            if output.code != Some(*code) || !has_all {
                wrong.push(format!("{line}: {:?}\n{all}", output.code));
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    });
}

/// Versions 1.20 and 1.35 both ask the server what it thinks of a whole manifest.
#[test]
fn a_dry_run_is_refused_for_what_the_write_would_be_refused_for() {
    with_each_kubectl(|kubectl, _| {
        let broken = SECURE_POD.replace("port: 80", "port: 80000");
        let told = kubectl.fails(&["apply", "--dry-run=server", "-f", "-"], &broken);
        assert!(
            told.contains("spec.ingress[0].ports[0].port: Invalid value"),
            "{told}"
        );
    });
}

/// kubectl's own command for events is newer than 1.20.
#[test]
fn events_are_none_in_either_group_and_watches_of_them_are_silent() {
    let daemon = daemon();
    let kubectl = Kubectl::new(&daemon, "kubectl-1.35");
    let output = run(&mut kubectl.command(&["events"]), "").unwrap();
    assert_eq!(output.code, Some(0), "{output:?}");
    assert_eq!(
        output.stderr.trim(),
        "No events found in default namespace."
    );

    for (root, version) in [
        ("/api/v1", "v1"),
        ("/apis/events.k8s.io/v1", "events.k8s.io/v1"),
    ] {
        let path = format!("{root}/namespaces/default/events");
        let list = daemon.api("GET", &path, None).unwrap().unwrap();
        assert_eq!(list["apiVersion"], version, "{list}");
        assert_eq!(list["kind"], "EventList", "{list}");
        assert_eq!(list["items"], json!([]), "{list}");
        let since = list["metadata"]["resourceVersion"].as_str().unwrap();
        let watch = format!("{path}?watch=true&timeoutSeconds=1&resourceVersion={since}");
        assert_eq!(daemon.text(&watch).unwrap(), "");
        let from_the_first = format!("{path}?watch=1&timeoutSeconds=1&sendInitialEvents=true");
        let bookmark = daemon.text(&from_the_first).unwrap();
        let bookmark: Value = serde_json::from_str(&bookmark).unwrap();
        assert_eq!(bookmark["type"], "BOOKMARK", "{bookmark}");
        let object = &bookmark["object"];
        assert_eq!(object["apiVersion"], version, "{bookmark}");
        assert_eq!(
            object["metadata"]["annotations"],
            json!({"k8s.io/initial-events-end": "true"})
        );
        let written = daemon.api("POST", &path, Some(&json!({"kind": "Event"})));
        let told = format!("{:#}", written.unwrap_err());
        assert!(told.contains("405"), "{told}");
    }
}

#[test]
fn a_list_in_chunks_is_fetched_page_by_page_and_whole() {
    with_each_kubectl(|kubectl, daemon| {
        let names = ["a", "b", "c", "d", "e"];
        for name in names {
            let pod = json!({"metadata": {"name": name},
                "spec": {"containers": [{"name": "main", "image": "none"}]}});
            daemon
                .api("POST", "/api/v1/namespaces/default/pods", Some(&pod))
                .unwrap();
        }
        let get = ["get", "pods", "--chunk-size=2", "-v=6"];
        let output = run(&mut kubectl.command(&get), "").unwrap();
        assert_eq!(output.code, Some(0), "{output:?}");
        let rows = output.stdout.lines().skip(1);
        let shown: Vec<&str> = rows.filter_map(|row| row.split(' ').next()).collect();
        assert_eq!(shown, names);
        let asked: Vec<&str> = output
            .stderr
            .lines()
            .filter(|line| line.contains("/namespaces/default/pods?"))
            .collect();
        assert_eq!(asked.len(), 3, "{output:?}");
        assert!(asked.iter().all(|line| line.contains("limit=2")));
        let continued: Vec<bool> = asked
            .iter()
            .map(|line| line.contains("continue="))
            .collect();
        assert_eq!(continued, [false, true, true], "{output:?}");
    });
}

#[test]
fn a_client_that_takes_protobuf_alone_is_told_so_and_nothing_is_done() {
    let daemon = daemon();
    let url = |path: &str| format!("{}{path}", daemon.api_url());
    let ask = |accept: &str, arguments: &[&str]| {
        let accept = format!("Accept: {accept}");
        let mut curl = daemon.node().command("curl");
        curl.args(["-sS", "--noproxy", "*", "--max-time", "10"])
            .args(["-w", "\n%{http_code}", "-H", &accept])
            .args(arguments);
        let answer = run(&mut curl, "").unwrap().success().unwrap();
        let (body, status) = answer.rsplit_once('\n').unwrap();
        (status.to_owned(), body.to_owned())
    };
    const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
    let namespaces = url("/api/v1/namespaces");
    let create = ["-H", "Content-Type: application/json", "-d"];
    let shop = r#"{"metadata":{"name":"shop"}}"#;
    let create = [&create[..], &[shop, &namespaces]].concat();
    for arguments in [
        &[url("/api/v1/namespaces/default/pods").as_str()][..],
        &[&url("/api/v1")],
        &[&url("/api/v1/events")],
        &["-X", "DELETE", &url("/api/v1/namespaces/default")],
        &create,
    ] {
        let (status, body) = ask(PROTOBUF, arguments);
        assert_eq!(status, "406", "{arguments:?}: {body}");
        let body: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(body["reason"], "NotAcceptable", "{arguments:?}");
        assert_eq!(
            body["message"],
            "only the following media types are accepted: application/json; \
             got \"application/vnd.kubernetes.protobuf\"",
            "{arguments:?}"
        );
    }
    let (status, body) = ask(&format!("{PROTOBUF}, */*"), &[&namespaces]);
    assert_eq!(status, "200", "{body}");
    assert!(
        body.contains("\"default\"") && !body.contains("shop"),
        "{body}"
    );
}
