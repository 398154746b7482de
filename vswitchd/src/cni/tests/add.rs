use std::collections::BTreeSet;

use futures_util::FutureExt as _;
use serde_json::{Value, json};

use super::world::{add, call, call_with, cni, code, serving};
use crate::attach::tests::world::{V4, World};
use crate::state::HostPort;
use crate::store::Bucket;

#[tokio::test]
async fn add_makes_each_step_in_order_and_records_it() {
    let world = World::default();
    let attachments = world.open(V4);
    add(&serving(&attachments), "a").await;
    assert_eq!(
        world.done(),
        ["declare a/eth0", "create a/eth0", "attach a/eth0"]
    );
    assert_eq!(world.store().keys(Bucket::Attachments), ["a/eth0"]);
    let record = attachments.all().remove(0);
    let attached = &record.attachment;
    assert_eq!((attached.mtu, attached.port_no.0), (1450, 100));
    assert_eq!(attached.pod.to_string(), "default/a");
}

#[tokio::test]
async fn result_has_the_form_of_each_version() {
    let dual = ["10.1.0.0/24", "fd00::/64"];
    for (version, has_family, has_mtu) in [
        ("0.3.0", true, false),
        ("0.3.1", true, false),
        ("0.4.0", true, false),
        ("1.0.0", false, false),
        ("1.1.0", false, true),
    ] {
        let world = World::default();
        let mut call = call_with("ADD", "a", "cniVersion", json!(version));
        call.config["dns"] = json!({"nameservers": ["10.1.0.1"]});
        let result = cni(&world, &dual).handle(call).await.unwrap().unwrap();
        let mut expected = json!({
            "cniVersion": version,
            "interfaces": [
                {"name": "vsw-a"},
                {"name": "eth0", "mac": "02:00:00:00:00:09", "sandbox": "/run/netns/a"},
            ],
            "ips": [
                {"interface": 1, "address": "10.1.0.2/32", "gateway": "10.1.0.1"},
                {"interface": 1, "address": "fd00::2/128", "gateway": "fd00::1"},
            ],
            "routes": [
                {"dst": "0.0.0.0/0", "gw": "10.1.0.1"},
                {"dst": "::/0", "gw": "fd00::1"},
            ],
            "dns": {"nameservers": ["10.1.0.1"]},
        });
        if has_family {
            expected["ips"][0]["version"] = json!("4");
            expected["ips"][1]["version"] = json!("6");
        }
        if has_mtu {
            expected["interfaces"][1]["mtu"] = json!(1450);
        }
        assert_eq!(result, expected);
    }
}

#[tokio::test]
async fn result_of_an_earlier_plugin_is_kept_in_front() {
    let world = World::default();
    let prev = json!({
        "cniVersion": "1.1.0",
        "interfaces": [{"name": "lo", "sandbox": "/run/netns/a"}],
        "ips": [{"interface": 0, "address": "127.0.0.1/8"}],
    });
    let result = cni(&world, V4)
        .handle(call_with("ADD", "a", "prevResult", prev))
        .await;
    let result = result.unwrap().unwrap();
    assert_eq!(result["interfaces"][0]["name"], "lo");
    assert_eq!(result["interfaces"][2]["name"], "eth0");
    assert_eq!(result["ips"][0]["interface"], 0);
    assert_eq!(result["ips"][1]["interface"], 2);
}

#[tokio::test]
async fn failed_step_is_undone_in_reverse() {
    for (step, code_expected, steps) in [
        // The interface is made beside the Pod object.
        (
            "declare",
            106,
            &["declare", "create", "remove", "retract"][..],
        ),
        ("create", 104, &["declare", "create", "remove", "retract"]),
        (
            "attach",
            105,
            &["declare", "create", "attach", "detach", "remove", "retract"],
        ),
    ] {
        let world = World::default();
        let service = cni(&world, V4);
        world.fail(step);
        let failure = service.handle(call("ADD", "a")).await.unwrap_err();
        assert_eq!(failure.code, code_expected, "{failure}");
        assert!(
            failure.msg.contains(&format!("{step} refused")),
            "{failure}"
        );
        let expected: Vec<_> = steps.iter().map(|step| format!("{step} a/eth0")).collect();
        assert_eq!(world.done(), expected);
        assert_eq!(world.store().keys(Bucket::Attachments), [""; 0]);
        let leases = world.store().keys(Bucket::Leases);
        assert!(
            !leases.iter().any(|key| key.starts_with("lease/")),
            "{leases:?}"
        );
        world.heal();
        add(&service, "a").await;
    }
}

#[tokio::test]
async fn step_that_may_work_later_is_code_11() {
    let world = World::default();
    world.fail("attach later");
    assert_eq!(code(&cni(&world, V4), call("ADD", "a")).await, 11);
}

#[tokio::test]
async fn store_that_fails_before_the_first_step_leaves_nothing() {
    let world = World::default();
    let service = cni(&world, V4);
    world.store().set_failing(true);
    assert_eq!(code(&service, call("ADD", "a")).await, 5);
    assert_eq!(world.done(), [""; 0]);
}

#[tokio::test]
async fn undoing_that_fails_is_reported_and_healed_by_the_next_add() {
    let world = World::default();
    let service = cni(&world, V4);
    world.fail("store after attach");
    let failure = service.handle(call("ADD", "a")).await.unwrap_err();
    assert_eq!(failure.code, 5);
    assert!(
        failure.details.contains("undoing it failed too"),
        "{failure}"
    );
    assert_eq!(world.store().keys(Bucket::Attachments), ["a/eth0"]);
    world.heal();
    add(&service, "a").await;
    assert_eq!(world.store().keys(Bucket::Attachments), ["a/eth0"]);
}

#[tokio::test]
async fn second_add_is_refused_while_the_first_stands() {
    let world = World::default();
    let service = cni(&world, V4);
    add(&service, "a").await;
    world.done();
    assert_eq!(code(&service, call("ADD", "a")).await, 100);
    assert_eq!(world.done(), [""; 0], "the refused ADD touches nothing");
    world.lose_interface("a/eth0");
    add(&service, "a").await;
    assert_eq!(world.store().keys(Bucket::Attachments), ["a/eth0"]);
}

#[tokio::test]
async fn parallel_adds_share_no_address_and_no_port() {
    let world = World::default();
    let attachments = world.open(V4);
    let service = serving(&attachments);
    let calls = (0..40).map(|n| {
        let service = service.clone();
        crate::supervise::request(async move { add(&service, &format!("c{n}")).await })
    });
    let mut addresses = BTreeSet::new();
    for call in calls.collect::<Vec<_>>() {
        addresses.insert(call.await.unwrap()["ips"][0]["address"].to_string());
    }
    let ports: BTreeSet<_> = attachments.by_port().into_keys().collect();
    assert_eq!((addresses.len(), ports.len()), (40, 40));
}

#[tokio::test]
async fn of_parallel_adds_for_one_interface_one_succeeds() {
    let world = World::default();
    let service = cni(&world, V4);
    let calls = (0..8).map(|_| {
        let service = service.clone();
        crate::supervise::request(async move { code(&service, call("ADD", "a")).await })
    });
    let mut codes = Vec::new();
    for call in calls.collect::<Vec<_>>() {
        codes.push(call.await.unwrap());
    }
    codes.sort_unstable();
    assert_eq!(codes, [0, 100, 100, 100, 100, 100, 100, 100]);
}

#[tokio::test]
async fn add_goes_on_when_its_caller_goes_away() {
    let world = World::default();
    let service = cni(&world, V4);
    // Polled once, the call has begun; the runtime had no turn in which to carry it to its end.
    let begun = service.handle(call("ADD", "a")).now_or_never();
    assert!(begun.is_none());
    // DEL waits for the lock that the running ADD holds, or finds nothing at all.
    tokio::task::yield_now().await;
    service.handle(call("DEL", "a")).await.unwrap();
    let done = world.done();
    assert_eq!(
        done.last().map(String::as_str),
        Some("retract a/eth0"),
        "{done:?}"
    );
    assert!(done.contains(&"attach a/eth0".to_owned()), "{done:?}");
}

#[tokio::test]
async fn namespaces_that_cannot_be_are_named() {
    let service = cni(&World::default(), V4);
    for (path, problem) in [
        ("/proc/1/ns/net", "of the host"),
        ("/etc/passwd", "not a network namespace"),
    ] {
        let mut call = call("ADD", "a");
        call.netns = Some(path.to_owned());
        let failure = service.handle(call).await.unwrap_err();
        assert_eq!(failure.code, 4);
        assert!(
            failure.msg.contains("CNI_NETNS") && failure.msg.contains(problem),
            "{failure}"
        );
    }
    let world = World::default();
    world.lose_netns("/run/netns/a");
    assert_eq!(code(&cni(&world, V4), call("ADD", "a")).await, 4);
}

#[tokio::test]
async fn requested_address_and_mac_are_honoured() {
    let world = World::default();
    let service = cni(&world, V4);
    let runtime = json!({"ips": ["10.1.0.77/24"], "mac": "02:00:00:00:00:07", "portMappings": []});
    let result = service
        .handle(call_with("ADD", "a", "runtimeConfig", runtime))
        .await
        .unwrap();
    let result = result.unwrap();
    assert_eq!(result["ips"][0]["address"], "10.1.0.77/32");
    assert_eq!(result["interfaces"][1]["mac"], "02:00:00:00:00:07");
    let mut by_args = call("ADD", "b");
    by_args.args = Some("IgnoreUnknown=1;IP=10.1.0.78".to_owned());
    let result = service.handle(by_args).await.unwrap().unwrap();
    assert_eq!(result["ips"][0]["address"], "10.1.0.78/32");
    let taken = json!({"ips": ["10.1.0.77"]});
    assert_eq!(
        code(&service, call_with("ADD", "c", "runtimeConfig", taken)).await,
        101
    );
}

fn mapping(entry: Value) -> Value {
    json!({"portMappings": [entry]})
}

#[tokio::test]
async fn port_mappings_are_kept_with_the_attachment() {
    let world = World::default();
    let attachments = world.open(V4);
    let mappings = json!({"portMappings": [
        {"hostPort": 8080, "containerPort": 80, "protocol": "TCP", "hostIP": "0.0.0.0"},
        {"hostPort": 8080, "containerPort": 80, "protocol": "TCP", "hostIP": "0.0.0.0"},
        {"hostPort": 53, "containerPort": 5353, "protocol": "udp", "hostIP": ""},
        {"hostPort": 0, "containerPort": 9090},
    ]});
    let call = call_with("ADD", "a", "runtimeConfig", mappings);
    serving(&attachments).handle(call).await.unwrap();
    let kept: Vec<_> = attachments.all()[0]
        .attachment
        .host_ports
        .iter()
        .map(HostPort::key)
        .collect();
    let any: std::net::IpAddr = [0, 0, 0, 0].into();
    assert_eq!(kept, [(6, 8080, Some(any)), (17, 53, None)]);
}

#[tokio::test]
async fn configuration_that_makes_no_sense_is_code_7() {
    let service = cni(&World::default(), V4);
    for (key, value) in [
        ("mtu", json!(70_000)),
        ("mtu", json!("big")),
        ("ipam", json!({"type": 7})),
        ("ipam", json!({"routes": [{"dst": "nowhere"}]})),
        ("runtimeConfig", json!({"ips": "10.1.0.5"})),
        ("runtimeConfig", json!({"ips": ["10.1.0"]})),
        ("runtimeConfig", json!({"mac": "ff:ff:ff:ff:ff:ff"})),
        ("runtimeConfig", json!({"portMappings": {"hostPort": 80}})),
        ("runtimeConfig", mapping(json!({"hostPort": 80}))),
        (
            "runtimeConfig",
            mapping(json!({"hostPort": 70_000, "containerPort": 80})),
        ),
        (
            "runtimeConfig",
            mapping(json!({"hostPort": 80, "containerPort": 0})),
        ),
        (
            "runtimeConfig",
            mapping(json!({"hostPort": 80, "containerPort": 80, "protocol": "icmp"})),
        ),
        (
            "runtimeConfig",
            mapping(json!({"hostPort": 80, "containerPort": 80, "hostIP": "node"})),
        ),
        (
            "runtimeConfig",
            json!({"portMappings": [
                {"hostPort": 80, "containerPort": 80}, {"hostPort": 80, "containerPort": 81}]}),
        ),
        ("args", json!({"cni": {"labels": {"a": "b"}}})),
    ] {
        let failed = code(&service, call_with("ADD", "a", key, value.clone())).await;
        assert_eq!(failed, 7, "{key} {value}");
    }
}

#[tokio::test]
async fn exhausted_pool_is_code_11_for_add_and_50_for_status() {
    let service = cni(&World::default(), &["10.1.0.0/30"]);
    assert_eq!(code(&service, call("STATUS", "a")).await, 0);
    add(&service, "a").await;
    assert_eq!(code(&service, call("ADD", "b")).await, 11);
    assert_eq!(code(&service, call("STATUS", "a")).await, 50);
}

#[tokio::test]
async fn configured_routes_replace_the_default_route_and_get_a_next_hop() {
    let service = cni(&World::default(), V4);
    let ipam = json!({"type": "vswitch", "routes": [{"dst": "10.0.0.0/8"}, {"dst": "10.9.0.0/16", "gw": "10.1.0.3"}]});
    let result = service
        .handle(call_with("ADD", "a", "ipam", ipam))
        .await
        .unwrap()
        .unwrap();
    let expected =
        json!([{"dst": "10.0.0.0/8", "gw": "10.1.0.1"}, {"dst": "10.9.0.0/16", "gw": "10.1.0.3"}]);
    assert_eq!(result["routes"], expected);
}

#[tokio::test]
async fn mtu_below_what_ipv6_needs_is_refused_and_leases_nothing() {
    let world = World::default();
    let dual = cni(&world, &["10.1.0.0/24", "fd00::/64"]);
    assert_eq!(
        code(&dual, call_with("ADD", "a", "mtu", json!(1200))).await,
        7
    );
    let leases = world.store().keys(Bucket::Leases);
    assert!(
        !leases.iter().any(|key| key.starts_with("lease/")),
        "{leases:?}"
    );
    assert_eq!(
        code(
            &cni(&World::default(), V4),
            call_with("ADD", "a", "mtu", json!(1200))
        )
        .await,
        0
    );
}

#[tokio::test]
async fn an_add_whose_pod_is_not_known_is_to_be_tried_again_and_leaves_nothing() {
    let world = World::default();
    let service = cni(&world, V4);
    world.fail("expect");
    let failure = service.handle(call("ADD", "a")).await.unwrap_err();
    assert_eq!(failure.code, 11);
    assert!(failure.msg.contains("wait for the pod"), "{failure}");
    assert_eq!(world.done(), [""; 0]);
    for bucket in [Bucket::Leases, Bucket::Attachments] {
        assert_eq!(world.store().keys(bucket), [""; 0]);
    }
    world.heal();
    add(&service, "a").await;
}
