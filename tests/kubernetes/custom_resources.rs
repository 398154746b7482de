//! Steps with policies and other objects of custom resources: Calico's, and administrators'.

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use vswitch_tests::CustomResource;

use crate::control_plane::ControlPlane;
use crate::steps::World;
use crate::wait::within;

const CHECK_CANAL: &str = "config/kubernetes/check-canal.sh";
const CALICO: &str = "crd.projectcalico.org";
const ADMINISTRATORS: &str = "policy.networking.k8s.io";

/// What Calico's installation brings, and administrators' policies.
const CANAL_KINDS: [CustomResource; 9] = [
    of(CALICO, "networkpolicies", "NetworkPolicy", "Namespaced"),
    of(
        CALICO,
        "globalnetworkpolicies",
        "GlobalNetworkPolicy",
        "Cluster",
    ),
    of(CALICO, "globalnetworksets", "GlobalNetworkSet", "Cluster"),
    of(
        CALICO,
        "stagednetworkpolicies",
        "StagedNetworkPolicy",
        "Namespaced",
    ),
    of(CALICO, "tiers", "Tier", "Cluster"),
    of(CALICO, "hostendpoints", "HostEndpoint", "Cluster"),
    of(
        CALICO,
        "felixconfigurations",
        "FelixConfiguration",
        "Cluster",
    ),
    of(CALICO, "ippools", "IPPool", "Cluster"),
    of(
        ADMINISTRATORS,
        "adminnetworkpolicies",
        "AdminNetworkPolicy",
        "Cluster",
    ),
];

const fn of(
    group: &'static str,
    plural: &'static str,
    kind: &'static str,
    scope: &'static str,
) -> CustomResource {
    CustomResource {
        group,
        version: "v1",
        plural,
        kind,
        scope,
    }
}

/// Makes the custom resources that a Canal cluster has.
fn define_canal_kinds(control: &ControlPlane) -> Result<()> {
    CANAL_KINDS
        .into_iter()
        .try_for_each(|kind| define(control, kind))
}

/// Makes a custom resource and waits until it is served.
fn define(control: &ControlPlane, kind: CustomResource) -> Result<()> {
    control.apply(&kind.definition().to_string())?;
    let wait = kind.wait();
    let wait: Vec<&str> = wait.iter().map(String::as_str).collect();
    control.kubectl(&wait).map(drop)
}

/// Waits until there is an Event that says that something is not enforced of an object.
fn wait_for_event(control: &ControlPlane, kind: &str, name: &str, part: &str) -> Result<()> {
    let of = format!("involvedObject.kind={kind},involvedObject.name={name},reason=NotEnforced");
    within(60, &format!("an Event about {kind} {name}"), || {
        let events = control.kubectl(&["get", "events", "--field-selector", &of, "-o", "wide"])?;
        ensure!(events.contains(part), "{events}");
        Ok(())
    })
}

pub(crate) fn calico_story(world: &mut World) -> Result<()> {
    let control = world.control()?;
    define_canal_kinds(control)?;
    let apply = |kind: &str, name: &str, labels: Value, spec: Value| {
        let object = json!({"apiVersion": "crd.projectcalico.org/v1", "kind": kind,
            "metadata": {"name": name, "labels": labels}, "spec": spec});
        within(30, &format!("{kind} is served"), || {
            control.apply(&object.to_string())
        })
    };
    let label = |label| control.kubectl(&["label", "pod", "client", label]);
    let none = json!({});
    apply("Tier", "security", none.clone(), json!({"order": 10}))?;
    let deny = |selector: &str| json!({"action": "Deny", "source": {"selector": selector}});
    let rules = [
        deny("quarantine == 'true'"),
        deny("role == 'blocked'"),
        json!({"action": "Pass"}),
    ];
    let guard = json!({"tier": "security", "order": 1, "types": ["Ingress"],
        "selector": "app == 'secure-pod'", "ingress": rules});
    label("quarantine=true")?;
    apply("GlobalNetworkPolicy", "security.guard", none, guard)?;
    world.wait_for_server(None).context("the tier denies")?;
    label("quarantine-")?;
    world.wait_for_server(Some("server"))?;
    label("allow-access-")?;
    world
        .wait_for_server(None)
        .context("the tier passes on to the NetworkPolicy")?;
    label("allow-access=true")?;
    world.wait_for_server(Some("server"))?;

    let client = json!({"nets": [world.pod_ip("client")?]});
    let blocked = json!({"role": "blocked"});
    apply("GlobalNetworkSet", "blocked", blocked, client)?;
    world
        .wait_for_server(None)
        .context("the client is in the network set")?;
    let none = json!({});
    apply(
        "HostEndpoint",
        "uplink",
        none.clone(),
        json!({"node": "node-0", "interfaceName": "eth0"}),
    )?;
    wait_for_event(
        control,
        "HostEndpoint",
        "uplink",
        "HostEndpoints have no effect",
    )?;
    let untracked = json!({"selector": "app == 'nobody'", "doNotTrack": true, "ingress": []});
    apply("GlobalNetworkPolicy", "untracked", none, untracked)?;
    wait_for_event(control, "GlobalNetworkPolicy", "untracked", "doNotTrack")?;
    for policy in [
        "hostendpoints.crd.projectcalico.org/uplink",
        "globalnetworkpolicies.crd.projectcalico.org/untracked",
        "globalnetworksets.crd.projectcalico.org/blocked",
        "globalnetworkpolicies.crd.projectcalico.org/security.guard",
        "tiers.crd.projectcalico.org/security",
    ] {
        control.kubectl(&["delete", policy])?;
    }
    world.story_goes_on()
}

pub(crate) fn canal_check(world: &mut World) -> Result<()> {
    let control = world.control()?;
    define_canal_kinds(control)?;
    for kind in CANAL_KINDS {
        let object = json!({"apiVersion": format!("{}/{}", kind.group, kind.version),
            "kind": kind.kind, "metadata": {"name": "mine"}});
        within(30, &format!("{} is served", kind.name()), || {
            control.apply(&object.to_string())
        })?;
    }
    let tier =
        r#"{"apiVersion":"crd.projectcalico.org/v1","kind":"Tier","metadata":{"name":"default"}}"#;
    control.apply(tier)?;
    let check = |backend: &str| {
        let conf = format!(r#"{{"Network": "10.244.0.0/16", "Backend": {backend}}}"#);
        let map = json!({"apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": "canal-config", "namespace": "kube-system"},
            "data": {"net-conf.json": conf}});
        control.apply(&map.to_string())?;
        vswitch_tests::run(&mut control.command(CHECK_CANAL), "")
    };
    let output = check(r#"{"Type": "vxlan", "VNI": 4096, "DirectRouting": true}"#)?;
    let mut told: Vec<&str> = output.stdout.lines().collect();
    told.sort_unstable();
    let expected = [
        "felixconfigurations.crd.projectcalico.org mine: configures Felix alone; read its spec for what you rely on",
        "flannel DirectRouting: vswitch tunnels to every node, and drops what comes by a route",
        "flannel VNI 4096: set vxlan_vni = 4096 under [network]",
        "hostendpoints.crd.projectcalico.org mine: does not protect the node",
    ];
    ensure!(told == expected && output.code == Some(1), "{output:?}");

    for kind in CANAL_KINDS {
        control.kubectl(&["delete", "crd", &kind.name()])?;
    }
    for (backend, expected) in [
        (r#"{"Type": "vxlan", "VNI": 1, "Port": 8472}"#, ""),
        (r#"{"Type": "host-gw"}"#, ""),
        (
            r#"{"Type": "vxlan", "Port": 4789}"#,
            "flannel Port 4789: set vxlan_port = 4789 under [network]\n",
        ),
        (
            r#"{"Type": "wireguard"}"#,
            "flannel backend 'wireguard': vswitch has vxlan and host-gw\n",
        ),
    ] {
        let output = check(backend)?;
        let code = i32::from(!expected.is_empty());
        ensure!(
            output.stdout == expected && output.code == Some(code),
            "{backend}: {output:?}"
        );
    }
    control.kubectl(&["-n", "kube-system", "delete", "configmap", "canal-config"])?;
    let output = vswitch_tests::run(&mut control.command(CHECK_CANAL), "")?;
    ensure!(output.code == Some(2), "without a ConfigMap: {output:?}");
    Ok(())
}

pub(crate) fn policy_status(world: &mut World) -> Result<()> {
    let control = world.control()?;
    define(control, CustomResource::CLUSTER_NETWORK_POLICY)?;
    let apply = |rule: Value| {
        let policy = json!({"apiVersion": "policy.networking.k8s.io/v1alpha2",
            "kind": "ClusterNetworkPolicy", "metadata": {"name": "guard"},
            "spec": {"tier": "Admin", "priority": 1, "egress": [rule],
                "subject": {"pods": {"namespaceSelector": {}, "podSelector": {"matchLabels": {"allow-access": "true"}}}}}});
        within(30, "ClusterNetworkPolicies are served", || {
            control.apply(&policy.to_string())
        })
    };
    let said = |status: &str, generation: u64| {
        within(
            60,
            &format!("both nodes say {status} of generation {generation}"),
            || {
                let policy = control.get(&["clusternetworkpolicy", "guard"])?;
                let all = policy["status"]["conditions"].as_array();
                let all = all.context("there are no conditions")?;
                for node in ["node-0", "node-1"] {
                    let name = format!("Ready-In-Zone-{node}");
                    let is_so = all.iter().any(|of| {
                        of["type"] == name.as_str()
                            && of["status"] == status
                            && of["observedGeneration"] == generation
                    });
                    ensure!(is_so, "{node}: {all:?}");
                }
                Ok(())
            },
        )
    };
    let everyone = json!([{"networks": ["0.0.0.0/0"]}]);
    apply(json!({"action": "Deny", "to": everyone}))?;
    said("True", 1)?;
    world.wait_for_server(None).context("the policy denies")?;
    apply(json!({"action": "Accept", "to": [{"domainNames": ["example.com"]}]}))?;
    said("False", 2)?;
    wait_for_event(control, "ClusterNetworkPolicy", "guard", "domainNames")?;
    control.kubectl(&["delete", "clusternetworkpolicy", "guard"])?;
    world.story_goes_on()
}
