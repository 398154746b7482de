use std::sync::Arc;

use serde_json::{Value, json};
use vswitch_api::cni::CniCall;

use super::world::{add, call, call_with, cni, code, serving};
use crate::attach::Record;
use crate::attach::tests::world::{V4, World};
use crate::store::{Bucket, Store, Write};

fn is_leased(world: &World, address: &str) -> bool {
    world
        .store()
        .keys(Bucket::Leases)
        .contains(&format!("lease/{address}"))
}

fn attached(world: &World) -> Vec<String> {
    world.store().keys(Bucket::Attachments)
}

#[tokio::test]
async fn del_undoes_all_and_a_second_one_is_success() {
    let world = World::default();
    let service = cni(&world, V4);
    add(&service, "a").await;
    world.done();
    let mut del = call("DEL", "a");
    del.netns = None;
    assert_eq!(service.handle(del.clone()).await, Ok(None));
    assert_eq!(
        world.done(),
        ["detach a/eth0", "remove a/eth0", "retract a/eth0"]
    );
    assert!(!is_leased(&world, "10.1.0.2"));
    assert_eq!(service.handle(del).await, Ok(None));
    assert_eq!(service.handle(call("DEL", "never-seen")).await, Ok(None));
    assert_eq!(world.done(), [""; 0]);
}

#[tokio::test]
async fn del_goes_on_past_failures_and_the_next_one_finishes() {
    let world = World::default();
    let service = cni(&world, V4);
    add(&service, "a").await;
    world.done();
    world.fail("detach");
    world.fail("retract");
    let failure = service.handle(call("DEL", "a")).await.unwrap_err();
    assert_eq!(failure.code, 107);
    for part in ["detach refused", "retract refused"] {
        assert!(failure.details.contains(part), "{failure}");
    }
    assert_eq!(
        world.done(),
        ["detach a/eth0", "remove a/eth0", "retract a/eth0"]
    );
    assert!(is_leased(&world, "10.1.0.2"), "the port may still use it");
    world.heal();
    service.handle(call("DEL", "a")).await.unwrap();
    assert!(!is_leased(&world, "10.1.0.2"));
}

#[tokio::test]
async fn check_passes_for_what_add_returned_and_fails_for_less() {
    let world = World::default();
    let service = cni(&world, V4);
    let result = add(&service, "a").await;
    let check = |prev: Value| call_with("CHECK", "a", "prevResult", prev);
    assert_eq!(service.handle(check(result.clone())).await, Ok(None));

    let mut other_address = result.clone();
    other_address["ips"][0]["address"] = json!("10.1.0.9/24");
    let mut other_sandbox = result.clone();
    other_sandbox["interfaces"][1]["sandbox"] = json!("/run/netns/b");
    let mut other_name = result.clone();
    other_name["interfaces"][1]["name"] = json!("eth1");
    for prev in [
        other_address,
        other_sandbox,
        other_name,
        json!({}),
        json!([]),
    ] {
        assert_eq!(code(&service, check(prev.clone())).await, 102, "{prev}");
    }
    assert_eq!(
        code(&service, call("CHECK", "a")).await,
        7,
        "without prevResult"
    );
    assert_eq!(
        code(
            &service,
            call_with("CHECK", "b", "prevResult", result.clone())
        )
        .await,
        3
    );
    world.fail("port check");
    assert_eq!(code(&service, check(result.clone())).await, 102);
    world.heal();
    world.lose_interface("a/eth0");
    assert_eq!(code(&service, check(result)).await, 102);
}

fn gc(valid: Value) -> CniCall {
    call_with("GC", "x", "cni.dev/valid-attachments", valid)
}

#[tokio::test]
async fn gc_releases_what_is_not_listed_of_its_network_only() {
    let world = World::default();
    let service = cni(&world, V4);
    add(&service, "kept").await;
    add(&service, "stale").await;
    service
        .handle(call_with("ADD", "other", "name", json!("other-net")))
        .await
        .unwrap();
    let valid = json!([{"containerID": "kept", "ifname": "eth0"}]);
    assert_eq!(service.handle(gc(valid)).await, Ok(None));
    assert_eq!(attached(&world), ["kept/eth0", "other/eth0"]);
    assert!(is_leased(&world, "10.1.0.2") && is_leased(&world, "10.1.0.4"));
    assert!(!is_leased(&world, "10.1.0.3"));
}

#[tokio::test]
async fn gc_releases_leases_of_which_nothing_else_is_known() {
    let world = World::default();
    let lost = br#"{"container_id":"lost","ifname":"eth0","leased_at":0}"#;
    let write = Write::Put(Bucket::Leases, b"lease/10.1.0.9".to_vec(), lost.to_vec());
    world.store().commit(vec![write]).unwrap();
    let service = cni(&world, V4);
    assert!(is_leased(&world, "10.1.0.9"));
    service.handle(gc(json!([]))).await.unwrap();
    assert!(!is_leased(&world, "10.1.0.9"));
}

#[tokio::test]
async fn gc_without_a_list_releases_nothing() {
    let world = World::default();
    let service = cni(&world, V4);
    add(&service, "a").await;
    assert_eq!(code(&service, call("GC", "x")).await, 7);
    for list in [json!({}), json!([{"containerID": "a"}]), json!(["a"])] {
        assert_eq!(code(&service, gc(list)).await, 7);
    }
    assert_eq!(attached(&world), ["a/eth0"]);
}

#[tokio::test]
async fn status_says_when_the_switch_is_not_ready() {
    let world = World::default();
    let service = cni(&world, V4);
    assert_eq!(service.handle(call("STATUS", "x")).await, Ok(None));
    world.fail("ready");
    let failure = service.handle(call("STATUS", "x")).await.unwrap_err();
    assert_eq!(failure.code, 50);
    assert!(failure.msg.contains("no rules yet"), "{failure}");
}

#[tokio::test]
async fn restart_keeps_what_stands_and_releases_what_is_gone() {
    let world = World::default();
    let service = cni(&world, V4);
    add(&service, "stands").await;
    add(&service, "gone").await;
    world.lose_netns("/run/netns/gone");
    drop(service);

    let attachments = world.open(V4);
    let recovered = attachments.recover().await;
    assert_eq!(recovered.problems, [""; 0]);
    let ids = |of: &[Arc<Record>]| -> Vec<String> {
        let ids = of.iter().map(|a| a.attachment.container_id.clone());
        ids.collect()
    };
    let service = serving(&attachments);
    assert_eq!(ids(&recovered.attached), ["stands"]);
    assert_eq!(ids(&recovered.released), ["gone"]);
    assert!(is_leased(&world, "10.1.0.2") && !is_leased(&world, "10.1.0.3"));
    assert_eq!(code(&service, call("ADD", "stands")).await, 100);
}

#[tokio::test]
async fn add_that_a_crash_cut_short_is_undone_at_start() {
    let world = World::default();
    world.fail("create hangs");
    let service = cni(&world, V4);
    let adding = service.clone();
    crate::supervise::request(async move { adding.handle(call("ADD", "a")).await });
    let mut done = Vec::new();
    for _ in 0..10_000 {
        tokio::task::yield_now().await;
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        done.extend(world.done());
        if done.contains(&"create a/eth0".to_owned()) {
            break;
        }
    }
    assert_eq!(done, ["declare a/eth0", "create a/eth0"]);
    world.heal();

    let recovered = world.open(V4).recover().await;
    assert_eq!((recovered.attached.len(), recovered.released.len()), (0, 1));
    assert_eq!(
        world.done(),
        ["detach a/eth0", "remove a/eth0", "retract a/eth0"]
    );
    assert!(!is_leased(&world, "10.1.0.2"));
}

#[tokio::test]
async fn restart_gives_an_attachment_its_lost_lease_back() {
    let world = World::default();
    add(&cni(&world, V4), "a").await;
    world
        .store()
        .commit(vec![Write::Delete(
            Bucket::Leases,
            b"lease/10.1.0.2".to_vec(),
        )])
        .unwrap();
    assert_eq!(world.open(V4).recover().await.problems, [""; 0]);
    assert!(is_leased(&world, "10.1.0.2"));
}

#[tokio::test]
async fn damaged_record_is_reported_and_del_removes_it() {
    let world = World::default();
    let write = Write::Put(
        Bucket::Attachments,
        b"a/eth0".to_vec(),
        b"{\"container_id\"".to_vec(),
    );
    world.store().commit(vec![write]).unwrap();
    let attachments = world.open(V4);
    assert_eq!(attachments.recover().await.problems.len(), 1);
    serving(&attachments)
        .handle(call("DEL", "a"))
        .await
        .unwrap();
    assert_eq!(world.store().keys(Bucket::Attachments), [""; 0]);
}
