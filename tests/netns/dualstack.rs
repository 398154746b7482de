//! Both address families under the same policies.

use vswitch_tests::{Daemon, DaemonOptions, Pod};

use crate::SECURE_POD;

#[test]
fn the_story_holds_for_ipv6_and_ipv4_of_dual_stack_pods() {
    let options = DaemonOptions {
        pod_cidrs: vec!["10.244.0.0/24".to_owned(), "fd00:244::/64".to_owned()],
        ..DaemonOptions::default()
    };
    let daemon = Daemon::start(&options).unwrap();
    let client = Pod::named("client").attach(&daemon).unwrap();
    let server = Pod::named("server").attach(&daemon).unwrap();
    let _web = server.serve(80).unwrap();
    assert_eq!(server.addresses.len(), 2);
    daemon
        .vsctl(&["label", "pod", "server", "app=secure-pod"])
        .unwrap();
    for address in &server.addresses {
        assert_eq!(client.fetch(*address, 80).unwrap(), "server");
    }
    daemon.apply(SECURE_POD).unwrap();
    for address in &server.addresses {
        client.fetch(*address, 80).unwrap_err();
    }
    daemon
        .vsctl(&["label", "pod", "client", "allow-access=true"])
        .unwrap();
    for address in &server.addresses {
        assert_eq!(client.fetch(*address, 80).unwrap(), "server");
    }
    assert!(
        client.pings("fd00:244::1".parse().unwrap()).unwrap(),
        "the gateway answers over IPv6"
    );
}

#[test]
fn an_ipv6_only_network_works() {
    let options = DaemonOptions {
        pod_cidrs: vec!["fd00:244::/64".to_owned()],
        ..DaemonOptions::default()
    };
    let daemon = Daemon::start(&options).unwrap();
    let client = Pod::named("client").attach(&daemon).unwrap();
    let server = Pod::named("server").attach(&daemon).unwrap();
    let _web = server.serve(80).unwrap();
    assert_eq!(client.fetch(server.ip(), 80).unwrap(), "server");
}
