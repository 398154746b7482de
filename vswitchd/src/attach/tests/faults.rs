//! What no order of events may bring about.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use futures_util::FutureExt as _;

use super::world::{V4, World};
use crate::attach::{Attachments, Kind, PodIdentity, State, Wanted, WantedAddresses};
use crate::ipam::LeaseOwner;
use crate::state::ObjectKey;
use crate::store::Bucket;

const BUILT_IN: WantedAddresses = WantedAddresses::BuiltIn {
    requested: Vec::new(),
    routes: Vec::new(),
    dns: None,
};

fn owner(container: &str) -> LeaseOwner {
    LeaseOwner {
        container_id: container.to_owned(),
        ifname: "eth0".parse().unwrap(),
    }
}

fn pod(name: &str) -> PodIdentity {
    PodIdentity {
        key: ObjectKey {
            namespace: "default".to_owned(),
            name: name.to_owned(),
        },
        uid: None,
        labels: Some(BTreeMap::new()),
    }
}

/// A container that runs pod `name`.
fn container(id: &str, name: &str) -> Wanted {
    Wanted {
        owner: owner(id),
        kind: Kind::Pod,
        network: "net".to_owned(),
        netns: PathBuf::from(format!("/run/netns/{id}")),
        mac: None,
        mtu: None,
        pod: Some(pod(name)),
        addresses: BUILT_IN,
        host_ports: Vec::new(),
    }
}

fn vm(tap: &str) -> Wanted {
    let ifname = tap.parse().unwrap();
    Wanted {
        owner: Kind::Vm.owner(&ifname),
        kind: Kind::Vm,
        network: String::new(),
        netns: PathBuf::new(),
        ..container(tap, tap)
    }
}

fn mirror(tap: &str) -> Wanted {
    let ifname = tap.parse().unwrap();
    Wanted {
        owner: Kind::Mirror.owner(&ifname),
        kind: Kind::Mirror,
        pod: None,
        addresses: WantedAddresses::None,
        ..vm(tap)
    }
}

fn leases(world: &World) -> Vec<String> {
    let keys = world.store().keys(Bucket::Leases).into_iter();
    keys.filter(|key| key.starts_with("lease/")).collect()
}

/// Waits until a step has begun that will never end.
async fn until_done(world: &World, step: &str) {
    for _ in 0..10_000 {
        if world.seen().iter().any(|done| done == step) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    panic!("{step} was not begun: {:?}", world.seen());
}

/// Begins an ADD whose caller goes away at once.
fn cut_off(attachments: &Attachments, wanted: Wanted) {
    let answer = Box::pin(attachments.add(wanted)).now_or_never();
    assert!(answer.is_none(), "it takes longer than its caller waits");
}

#[tokio::test]
async fn vm_keeps_its_lease_over_a_restart_and_every_gc() {
    let world = World::default();
    world.open(V4).add(vm("tap0")).await.unwrap();
    let attachments = world.open(V4);
    assert_eq!(attachments.recover().await.problems, [""; 0]);
    attachments
        .gc("net".to_owned(), BTreeSet::new())
        .await
        .unwrap();
    // Once a lease has rested, its address is given to somebody else.
    world.pass(3600);
    let other = attachments.add(container("c1", "c1")).await.unwrap();
    assert_eq!(leases(&world), ["lease/10.1.0.2", "lease/10.1.0.3"]);
    assert_eq!(
        other.addresses(),
        ["10.1.0.3".parse::<std::net::IpAddr>().unwrap()]
    );
}

#[tokio::test]
async fn caller_that_hangs_up_leaves_a_whole_port() {
    let world = World::default();
    let attachments = world.open(V4);
    cut_off(&attachments, vm("tap0"));
    cut_off(&attachments, mirror("span0"));
    for tap in ["tap0", "span0"] {
        until_done(&world, &format!("attach {}", attachments_owner(tap))).await;
        let port = attachments.rest_port(tap).unwrap();
        // The lock is free when the work has come to its end.
        let _ = attachments.check(&port.owner()).await;
        let port = attachments.rest_port(tap).unwrap();
        assert_eq!(port.state, State::Attached);
        attachments.remove(&port.owner(), None).await.unwrap();
    }
    assert_eq!(leases(&world), [""; 0]);
    assert_eq!(world.store().keys(Bucket::Attachments), [""; 0]);
}

fn attachments_owner(tap: &str) -> LeaseOwner {
    let kind = if tap == "tap0" {
        Kind::Vm
    } else {
        Kind::Mirror
    };
    kind.owner(&tap.parse().unwrap())
}

#[tokio::test]
async fn vm_port_that_a_crash_cut_short_is_undone_with_its_pod_object() {
    let world = World::default();
    world.fail("create hangs");
    cut_off(&world.open(V4), vm("tap0"));
    until_done(&world, "create vm:tap0/tap0").await;
    world.heal();
    world.done();
    let recovered = world.open(V4).recover().await;
    assert_eq!((recovered.attached.len(), recovered.released.len()), (0, 1));
    assert_eq!(world.done().last().unwrap(), "retract vm:tap0/tap0");
    assert_eq!(leases(&world), [""; 0]);
}

#[tokio::test]
async fn del_that_a_crash_cut_short_is_taken_up_at_start() {
    let world = World::default();
    let attachments = world.open(V4);
    attachments.add(container("c1", "c1")).await.unwrap();
    world.fail("detach");
    attachments.remove(&owner("c1"), None).await.unwrap_err();
    world.heal();
    let recovered = world.open(V4).recover().await;
    assert_eq!((recovered.attached.len(), recovered.released.len()), (0, 1));
    assert_eq!(leases(&world), [""; 0]);
}

#[tokio::test]
async fn interface_that_was_cleaned_up_is_made_again_or_its_attachment_released() {
    let world = World::default();
    let attachments = world.open(V4);
    for id in ["c1", "c2"] {
        attachments.add(container(id, id)).await.unwrap();
    }
    world.lose_interface("c1/eth0");
    world.done();
    let recovered = world.open(V4).recover().await;
    assert_eq!(recovered.attached.len(), 2);
    assert!(world.done().contains(&"create c1/eth0".to_owned()));

    world.lose_interface("c2/eth0");
    world.fail("create");
    let recovered = world.open(V4).recover().await;
    assert_eq!((recovered.attached.len(), recovered.released.len()), (1, 1));
    assert_eq!(leases(&world), ["lease/10.1.0.2"]);
}

#[tokio::test]
async fn repair_of_shields_leaves_alone_the_pod_that_is_being_added() {
    let world = World::default();
    let attachments = world.open(V4);
    for id in ["c1", "c2"] {
        attachments.add(container(id, id)).await.unwrap();
    }
    world.fail("create hangs");
    let adding = attachments.clone();
    crate::supervise::request(async move { adding.add(container("c3", "c3")).await });
    until_done(&world, "create c3/eth0").await;
    let [one, two, three] = ["vsw-c1", "vsw-c2", "vsw-c3"].map(|name| name.parse().unwrap());
    assert_eq!(world.shields(), BTreeSet::from([one, two, three]));
    world.lose_shield("vsw-c1");
    attachments.repair_shields().await.unwrap();
    assert_eq!(world.shields().len(), 3);
}

#[tokio::test]
async fn number_of_a_live_port_that_nobody_listed_is_not_handed_out() {
    let world = World::default();
    world.occupy(100);
    let record = world.open(V4).add(container("c1", "c1")).await.unwrap();
    assert_eq!(record.port_no().0, 101);
}

#[tokio::test]
async fn number_is_not_used_again_at_once_whatever_the_kind() {
    let world = World::default();
    let attachments = world.open(V4);
    let mut given = Vec::new();
    for wanted in [
        vm("tap0"),
        mirror("span0"),
        vm("tap0"),
        container("c1", "c1"),
    ] {
        let record = attachments.add(wanted).await.unwrap();
        given.push(record.port_no().0);
        attachments.remove(&record.owner(), None).await.unwrap();
    }
    assert_eq!(given, [100, 101, 102, 103]);
}

#[tokio::test]
async fn late_del_of_a_container_leaves_its_successor_alone() {
    let world = World::default();
    let attachments = world.open(V4);
    for id in ["old", "new"] {
        attachments.add(container(id, "web-0")).await.unwrap();
    }
    world.done();
    attachments.remove(&owner("old"), None).await.unwrap();
    assert_eq!(
        world.done(),
        ["detach old/eth0", "remove old/eth0", "declare new/eth0"]
    );
    attachments.check(&owner("new")).await.unwrap();
    assert_eq!(leases(&world), ["lease/10.1.0.3"]);
}

#[tokio::test]
async fn check_of_a_container_whose_pod_is_another_one_fails() {
    let world = World::default();
    let attachments = world.open(V4);
    for id in ["old", "new"] {
        attachments.add(container(id, "web-0")).await.unwrap();
    }
    let error = attachments.check(&owner("old")).await.unwrap_err();
    assert!(crate::errors::chain(&error).contains("container new"));
    world.fail("pod check");
    attachments.check(&owner("new")).await.unwrap_err();
}

#[tokio::test]
async fn second_interface_of_a_container_does_not_take_its_pod() {
    let world = World::default();
    let attachments = world.open(V4);
    attachments.add(container("c1", "c1")).await.unwrap();
    let mut second = container("c1", "c1");
    second.owner.ifname = "eth1".parse().unwrap();
    let second_owner = second.owner.clone();
    // The fake names host ends by container alone.
    world.name_by_interface();
    attachments.add(second).await.unwrap();
    world.done();
    attachments.remove(&second_owner, None).await.unwrap();
    assert_eq!(
        world.done(),
        ["detach c1/eth1", "remove c1/eth1", "declare c1/eth0"]
    );
}

#[tokio::test]
async fn name_of_a_device_has_one_port() {
    let world = World::default();
    let attachments = world.open(V4);
    attachments.add(mirror("tap0")).await.unwrap();
    let refused = attachments.add(vm("tap0")).await.unwrap_err();
    assert_eq!(refused.to_string(), "there is already a port tap0");
    let refused = attachments.add(mirror("tap0")).await.unwrap_err();
    assert!(refused.to_string().contains("attached already"));
    assert_eq!(leases(&world), [""; 0]);
}
