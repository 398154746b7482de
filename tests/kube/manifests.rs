//! The manifests that install the daemon on a cluster: whole, least privileged, and true.

use std::collections::BTreeSet;
use std::process::Command;

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{ConfigMap, ServiceAccount};
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use vswitch_tests::{Daemon, DaemonOptions, binary, run};
use vswitchd::objects::RESOURCES;

const MANIFEST: &str = include_str!("../../config/kubernetes/vswitch.yaml");
const UNINSTALL: &str = include_str!("../../config/kubernetes/uninstall.yaml");

/// Reads the one object of a kind; a field that the API does not have is an error.
fn object<T: Serialize + DeserializeOwned>(kind: &str) -> T {
    object_of(MANIFEST, kind)
}

fn object_of<T: Serialize + DeserializeOwned>(manifest: &str, kind: &str) -> T {
    let documents: Vec<Value> = serde_saphyr::from_multiple(manifest).unwrap();
    let of_kind = documents.iter().filter(|document| document["kind"] == kind);
    let [document] = of_kind.collect::<Vec<_>>()[..] else {
        panic!("there is one {kind}");
    };
    let object: T = serde_json::from_value(document.clone()).unwrap();
    assert_eq!(&serde_json::to_value(&object).unwrap(), document, "{kind}");
    object
}

#[test]
fn every_object_has_only_fields_that_the_api_has_and_they_name_each_other() {
    let account: ServiceAccount = object("ServiceAccount");
    let role: ClusterRole = object("ClusterRole");
    let binding: ClusterRoleBinding = object("ClusterRoleBinding");
    let config: ConfigMap = object("ConfigMap");
    let set: DaemonSet = object("DaemonSet");
    assert_eq!(MANIFEST.matches("\nkind: ").count(), 5);

    assert_eq!(Some(&binding.role_ref.name), role.metadata.name.as_ref());
    let subject = &binding.subjects.unwrap()[0];
    assert_eq!(Some(&subject.name), account.metadata.name.as_ref());
    assert_eq!(subject.namespace, account.metadata.namespace);
    let spec = set.spec.unwrap();
    let labels = spec.template.metadata.unwrap().labels;
    assert_eq!(spec.selector.match_labels, labels);
    let pod = spec.template.spec.unwrap();
    assert_eq!(pod.service_account_name, account.metadata.name);
    let volumes = pod.volumes.unwrap();
    let maps = volumes
        .iter()
        .filter_map(|volume| volume.config_map.as_ref());
    assert!(
        maps.map(|map| Some(&map.name))
            .eq([config.metadata.name.as_ref()])
    );
    let volumes: BTreeSet<_> = volumes.iter().map(|volume| &volume.name).collect();
    let mounts = pod.containers[0].volume_mounts.as_ref().unwrap();
    let mounted: BTreeSet<_> = mounts.iter().map(|mount| &mount.name).collect();
    assert_eq!(volumes, mounted);
}

#[test]
fn the_role_allows_to_read_what_is_compiled_and_to_write_nodes_events_and_status_alone() {
    let role: ClusterRole = object("ClusterRole");
    let mut allowed = BTreeSet::new();
    for rule in role.rules.unwrap() {
        assert_eq!(rule.resource_names, None);
        for group in rule.api_groups.unwrap() {
            for resource in rule.resources.iter().flatten() {
                for verb in &rule.verbs {
                    allowed.insert(format!("{verb} {group}/{resource}"));
                }
            }
        }
    }
    let resources = RESOURCES.iter().map(|info| (info.group, info.plural));
    // Calico's kinds where they are custom resources.
    let calico = resources.clone().filter(|of| of.0 == "projectcalico.org");
    let stored = calico.map(|(_, plural)| ("crd.projectcalico.org", plural));
    // Endpoints where the API server has no EndpointSlices.
    let endpoints = [("", "endpoints")];
    let resources = resources.chain(stored).chain(endpoints);
    let read = resources.flat_map(|resource| {
        let verbs = ["get", "list", "watch"].into_iter();
        verbs.map(move |verb| format!("{verb} {}/{}", resource.0, resource.1))
    });
    let written = [
        "patch /nodes",
        "patch /nodes/status",
        "create /events",
        "patch /events",
    ]
    .map(str::to_owned);
    // Where the API of a policy has conditions.
    let status = [
        "clusternetworkpolicies",
        "adminnetworkpolicies",
        "baselineadminnetworkpolicies",
    ]
    .map(|plural| format!("patch policy.networking.k8s.io/{plural}/status"));
    assert_eq!(allowed, read.chain(written).chain(status).collect());
}

#[test]
fn the_container_is_not_privileged_and_survives_every_taint() {
    let set: DaemonSet = object("DaemonSet");
    let pod = set.spec.unwrap().template.spec.unwrap();
    assert_eq!(pod.host_network, Some(true));
    assert_eq!((pod.host_pid, pod.host_ipc), (None, None));
    let toleration = &pod.tolerations.unwrap()[0];
    assert_eq!(toleration.operator.as_deref(), Some("Exists"));
    assert_eq!((&toleration.key, &toleration.effect), (&None, &None));
    let [container] = &pod.containers[..] else {
        panic!("there is one container");
    };
    let security = container.security_context.as_ref().unwrap();
    assert_ne!(security.privileged, Some(true));
    assert_eq!(security.allow_privilege_escalation, Some(false));
    let capabilities = security.capabilities.as_ref().unwrap();
    assert_eq!(capabilities.drop, Some(vec!["ALL".to_owned()]));
}

#[test]
fn the_probes_run_and_tell_a_ready_daemon_from_none() {
    let set: DaemonSet = object("DaemonSet");
    let pod = set.spec.unwrap().template.spec.unwrap();
    let container = &pod.containers[0];
    let probes = [
        &container.startup_probe,
        &container.readiness_probe,
        &container.liveness_probe,
    ];
    let commands = probes.map(|probe| {
        let exec = probe.as_ref().unwrap().exec.as_ref().unwrap();
        exec.command.clone().unwrap()
    });
    let daemon = Daemon::start(&DaemonOptions::default()).unwrap();
    let socket = daemon.socket();
    let probe = |command: &[String]| {
        let [program, arguments @ ..] = command else {
            panic!("a probe runs something");
        };
        assert_eq!(program, "/usr/bin/vsctl");
        let mut vsctl = Command::new(binary("vsctl"));
        vsctl.args(arguments).env("VSWITCH_SOCKET", &socket);
        run(&mut vsctl, "").unwrap().code
    };
    for command in &commands {
        assert_eq!(probe(command), Some(0), "{command:?}");
    }
    drop(daemon);
    for command in &commands {
        assert_eq!(probe(command), Some(1), "{command:?}");
    }
}

#[test]
fn the_configuration_in_the_map_is_one() {
    let config: ConfigMap = object("ConfigMap");
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in config.data.unwrap() {
        let file = folder.path().join(&name);
        std::fs::write(&file, text).unwrap();
        let mut check = Command::new(binary("vswitchd"));
        check.arg("--check-config").arg("--config").arg(&file);
        let shown = run(&mut check, "").unwrap().success().unwrap();
        assert!(shown.contains("mode = \"cluster\""), "{name}: {shown}");
    }
}

#[test]
fn what_uninstalls_sees_what_the_daemon_left_and_may_do_what_it_may() {
    let pod = |manifest| {
        let set: DaemonSet = object_of(manifest, "DaemonSet");
        let template = set.spec.unwrap().template;
        let annotations = template.metadata.unwrap().annotations.unwrap();
        (template.spec.unwrap(), annotations)
    };
    let ((daemon, _), (uninstall, annotations)) = (pod(MANIFEST), pod(UNINSTALL));
    assert_eq!(annotations.len(), 1);
    assert_eq!(uninstall.host_network, daemon.host_network);
    assert_eq!(uninstall.tolerations, daemon.tolerations);
    let cleanup = &uninstall.init_containers.unwrap()[0];
    let vswitchd = &daemon.containers[0];
    assert_eq!(cleanup.image, vswitchd.image);
    assert_eq!(cleanup.security_context, vswitchd.security_context);
    let mounts = vswitchd.volume_mounts.as_ref().unwrap();
    for mount in cleanup.volume_mounts.as_ref().unwrap() {
        assert!(mounts.contains(mount), "{mount:?}");
    }
    let volumes = daemon.volumes.unwrap();
    for volume in uninstall.volumes.unwrap() {
        // Whoever deleted vswitch.yaml first has no ConfigMap any more.
        let mut volume = volume;
        if let Some(map) = &mut volume.config_map {
            assert_eq!(map.optional.take(), Some(true));
        }
        assert!(volumes.contains(&volume), "{volume:?}");
    }
    for container in [cleanup, &uninstall.containers[0]] {
        let command = container.command.as_ref().unwrap();
        assert_eq!(command[0], "/usr/bin/vswitchd");
    }
}

#[test]
fn a_daemon_that_is_idle_ends_at_sigterm() {
    let mut idle = Command::new(binary("vswitchd"))
        .arg("--idle")
        .spawn()
        .unwrap();
    let pid = nix::unistd::Pid::from_raw(idle.id().try_into().unwrap());
    let status = vswitch_tests::eventually("it waits for signals", || {
        // Before it does, the signal would end the process with a failure.
        let waits_in = std::fs::read_to_string(format!("/proc/{pid}/wchan")).unwrap();
        if !waits_in.contains("sigtimedwait") {
            return Err(waits_in);
        }
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
        Ok(idle.wait().unwrap())
    });
    assert!(status.success(), "{status}");
}
