//! Records as release 0.1 wrote them.

use super::world::{V4, World};
use crate::attach::{Kind, State};
use crate::store::{Bucket, Store, Write};

const POD: &str = r#"{"container_id":"c1","ifname":"eth0","network":"net",
    "netns":"/run/netns/c1","host_ifname":"vsw-c1","port_no":104,"mac":"02:00:00:00:00:01",
    "addresses":["10.1.0.4/24"],"mtu":1430,"pod":{"namespace":"shop","name":"db"},
    "delegated_ipam":null,"completed":true,
    "plan":{"ips":[{"address":"10.1.0.4/24","gateway":"10.1.0.1"}],
    "routes":[{"dst":"0.0.0.0/0","gw":"10.1.0.1"}],"dns":null},"delegated":null}"#;
const VM: &str = r#"{"kind":"vm","attachment":{"container_id":"vm:tap0","ifname":"tap0",
    "network":"","netns":"","host_ifname":"tap0","port_no":1000000,"mac":"02:00:00:00:00:77",
    "addresses":["10.1.0.6/24"],"mtu":1430,"pod":{"namespace":"default","name":"tap0"},
    "delegated_ipam":null}}"#;
const MIRROR: &str = r#"{"kind":"mirror","ifname":"span0","port_no":1000001}"#;

#[tokio::test]
async fn records_of_0_1_are_taken_over_whole() {
    let world = World::default();
    let put = |bucket, key: &str, value: &str| Write::Put(bucket, key.into(), value.into());
    let half = POD.replace("c1", "c2").replace("true", "false");
    let records = vec![
        put(Bucket::Attachments, "c1/eth0", POD),
        put(Bucket::Attachments, "c2/eth0", &half),
        put(Bucket::Ports, "tap0", VM),
        put(Bucket::Ports, "span0", MIRROR),
        put(Bucket::Meta, "cni/next_port_no", "168"),
    ];
    world.store().commit(records).unwrap();
    world.put_interface("c1/eth0", "vsw-c1");
    for _ in 0..2 {
        let attachments = world.open(V4);
        let recovered = attachments.recover().await;
        assert_eq!(recovered.problems, [""; 0]);
        let known: Vec<_> = attachments
            .by_port()
            .into_values()
            .map(|record| (record.kind, record.port_no().0, record.state))
            .collect();
        assert_eq!(
            known,
            [
                (Kind::Pod, 104, State::Attached),
                (Kind::Vm, 1_000_000, State::Attached),
                (Kind::Mirror, 1_000_001, State::Attached),
            ]
        );
        assert_eq!(attachments.ipam().leases().len(), 2);
        assert_eq!(world.store().keys(Bucket::Ports), [""; 0]);
    }
    let stored = world
        .store()
        .get(Bucket::Meta, b"cni/next_port_no")
        .unwrap();
    assert_eq!(stored.as_deref(), Some(b"168".as_slice()));
}
