use std::collections::BTreeSet;
use std::time::Duration;

use super::super::testing::{Pod, in_new_netns, run};
use super::super::{
    CleanupProblem, GatewayDeviceSpec, Leftovers, Masquerade, MasqueradeSpec, NftTable,
    SysctlLedger, VethMismatch, check_veth, cleanup, configure_gateway, container_mac, host_ifname,
};
use super::*;

fn spec_for(pod: &Pod) -> VethSpec {
    let ifname: IfName = "eth0".parse().unwrap();
    VethSpec {
        host_ifname: host_ifname("c1", &ifname),
        netns: pod.path(),
        mac: container_mac("c1", &ifname),
        ifname,
        mtu: 1400,
        addresses: vec![
            "10.244.1.2/24".parse().unwrap(),
            "fd00:1::2/64".parse().unwrap(),
        ],
        gateways: vec!["10.244.1.1".parse().unwrap(), "fd00:1::1".parse().unwrap()],
        routes: vec![
            ("10.96.0.0/12".parse().unwrap(), None),
            (
                "192.0.2.0/24".parse().unwrap(),
                Some("10.244.1.9".parse().unwrap()),
            ),
        ],
    }
}

fn shield() -> Shield {
    Shield::new(NftTable::default())
}

#[test]
fn both_ends_are_configured_as_specified() {
    in_new_netns(|| {
        let pod = Pod::new();
        let spec = spec_for(&pod);
        create_veth(&spec, &shield()).unwrap();
        let inside = pod
            .run("ip -d addr show eth0; ip route; ip -6 route; ip link show lo")
            .unwrap();
        for part in [
            "mtu 1400",
            &spec.mac.to_string(),
            "inet 10.244.1.2/24",
            "inet6 fd00:1::2/64",
            "default via 10.244.1.1 dev eth0",
            "default via fd00:1::1 dev eth0",
            "10.96.0.0/12 via 10.244.1.1",
            "192.0.2.0/24 via 10.244.1.9",
            "<LOOPBACK,UP,LOWER_UP>",
        ] {
            assert!(inside.contains(part), "{part} in {inside}");
        }
        assert!(
            inside.contains("inet6 fd00:1::2/64 scope global nodad \n"),
            "{inside}"
        );
        assert!(soon(|| !pod
            .run("ip addr show eth0")
            .unwrap()
            .contains("tentative")));
        let outside = run(&format!("ip -d addr show {}", spec.host_ifname)).unwrap();
        assert!(
            outside.contains("mtu 1400") && outside.contains("NOARP"),
            "{outside}"
        );
        assert!(
            outside.contains(",UP,") && !outside.contains("inet"),
            "{outside}"
        );
        check_veth(&spec).unwrap();
    });
}

#[test]
fn container_leaves_nothing_to_its_veth_that_the_switch_cannot_be_told() {
    in_new_netns(|| {
        let pod = Pod::new();
        let spec = spec_for(&pod);
        create_veth(&spec, &shield()).unwrap();
        let inside = pod.run("ethtool -k eth0").unwrap();
        for feature in crate::port::UNDESCRIBED_FEATURES {
            assert!(inside.contains(&format!("{feature}: off\n")), "{inside}");
        }
        assert!(
            inside.contains("tx-tcp-segmentation: on\n")
                && inside.contains("tx-checksum-ip-generic: on\n"),
            "super-frames and partial checksums are what makes a veth fast: {inside}"
        );
    });
}

/// Polls for half a second; duplicate address detection takes one to two.
fn soon(mut holds: impl FnMut() -> bool) -> bool {
    (0..25).any(|_| {
        std::thread::sleep(Duration::from_millis(20));
        holds()
    })
}

#[test]
fn gateway_outside_the_subnet_is_reached_over_the_link() {
    in_new_netns(|| {
        let pod = Pod::new();
        let mut spec = spec_for(&pod);
        spec.addresses = vec![
            "10.244.1.2/32".parse().unwrap(),
            "fd00:1::2/128".parse().unwrap(),
        ];
        spec.gateways = vec!["169.254.1.1".parse().unwrap(), "fd00:2::1".parse().unwrap()];
        spec.routes = Vec::new();
        create_veth(&spec, &shield()).unwrap();
        let routes = pod.run("ip route; ip -6 route").unwrap();
        assert!(
            routes.contains("169.254.1.1 dev eth0 proto static scope link"),
            "{routes}"
        );
        assert!(routes.contains("default via fd00:2::1"), "{routes}");
        check_veth(&spec).unwrap();
    });
}

#[test]
fn default_route_given_explicitly_replaces_the_one_by_the_gateway() {
    let pod = in_new_netns(Pod::new);
    let mut spec = spec_for(&pod);
    spec.routes = vec![(
        "0.0.0.0/0".parse().unwrap(),
        Some("10.244.1.7".parse().unwrap()),
    )];
    let v4_default = |route: &&PlannedRoute| route.destination == "0.0.0.0/0".parse().unwrap();
    let routes = spec.planned_routes();
    let found: Vec<_> = routes.iter().filter(v4_default).collect();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].gateway, Some("10.244.1.7".parse().unwrap()));
}

#[test]
fn container_namespace_with_ipv6_disabled_gets_its_address_all_the_same() {
    in_new_netns(|| {
        let pod = Pod::new();
        pod.run(
            "echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6
                 echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6",
        )
        .unwrap();
        create_veth(&spec_for(&pod), &shield()).unwrap();
        assert!(
            pod.run("ip addr show eth0")
                .unwrap()
                .contains("fd00:1::2/64")
        );
    });
}

#[test]
fn taken_names_are_refused_clearly_and_left_alone() {
    in_new_netns(|| {
        let pod = Pod::new();
        let spec = spec_for(&pod);
        pod.run("ip tuntap add eth0 mode tap").unwrap();
        let error = create_veth(&spec, &shield()).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("interface eth0 exists already in "),
            "{error}"
        );
        assert!(list_host_veths("vsw").unwrap().is_empty());
        pod.run("ip link show eth0 && ip link del eth0").unwrap();

        run(&format!("ip tuntap add {} mode tap", spec.host_ifname)).unwrap();
        let error = create_veth(&spec, &shield()).unwrap_err();
        assert!(
            matches!(error, VethError::HostIfnameExists { .. }),
            "{error}"
        );
        let error = delete_veth(&spec.host_ifname, &shield()).unwrap_err();
        assert!(matches!(error, VethError::NotVeth { .. }), "{error}");
        run(&format!("ip link show {}", spec.host_ifname)).unwrap();
    });
}

#[test]
fn failure_in_the_middle_leaves_nothing_behind() {
    in_new_netns(|| {
        let pod = Pod::new();
        let mut spec = spec_for(&pod);
        // A broadcast address is no next hop: the kernel refuses one of the last steps.
        spec.routes.push((
            "198.51.100.0/24".parse().unwrap(),
            Some("10.244.1.255".parse().unwrap()),
        ));
        let error = create_veth(&spec, &shield()).unwrap_err();
        let VethError::Container { source, .. } = &error else {
            panic!("{error:?}")
        };
        assert_eq!(
            source.to_string(),
            "add route 198.51.100.0/24 via 10.244.1.255 dev eth0"
        );
        assert!(list_host_veths("vsw").unwrap().is_empty());
        assert!(pod.run("ip link show eth0").is_err());
        assert!(!run("nft list ruleset").unwrap().contains("chain"));
    });
}

#[test]
fn namespaces_that_are_none_or_the_hosts_are_refused() {
    in_new_netns(|| {
        let pod = Pod::new();
        let file = tempfile::NamedTempFile::new().unwrap();
        let with = |netns: PathBuf| VethSpec {
            netns,
            ..spec_for(&pod)
        };
        let errors = [
            create_veth(&with("/no/such/netns".into()), &shield()).unwrap_err(),
            create_veth(&with(file.path().into()), &shield()).unwrap_err(),
        ];
        assert!(
            errors
                .iter()
                .all(|error| matches!(error, VethError::Netns { .. })),
            "{errors:?}"
        );
        let own = format!(
            "/proc/{}/task/{}/ns/net",
            std::process::id(),
            nix::unistd::gettid()
        );
        let error = create_veth(&with(own.into()), &shield()).unwrap_err();
        assert!(matches!(error, VethError::OwnNetns { .. }), "{error:?}");
        assert!(list_host_veths("vsw").unwrap().is_empty());
    });
}

#[test]
fn gateway_without_an_address_of_its_family_is_refused_before_anything_is_made() {
    in_new_netns(|| {
        let pod = Pod::new();
        let mut spec = spec_for(&pod);
        spec.addresses.pop();
        let error = create_veth(&spec, &shield()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "gateway fd00:1::1 has no address of its family on eth0"
        );
    });
}

#[test]
fn deletion_removes_both_ends_and_the_shield_and_may_be_repeated() {
    in_new_netns(|| {
        let pod = Pod::new();
        let spec = spec_for(&pod);
        create_veth(&spec, &shield()).unwrap();
        assert_eq!(list_host_veths("vsw").unwrap()[0].ifname, spec.host_ifname);
        delete_veth(&spec.host_ifname, &shield()).unwrap();
        assert!(pod.run("ip link show eth0").is_err());
        assert!(!run("nft list ruleset").unwrap().contains("chain"));
        delete_veth(&spec.host_ifname, &shield()).unwrap();
        // And the container that is gone altogether took its end with it.
        create_veth(&spec, &shield()).unwrap();
        drop(pod);
        delete_veth(&spec.host_ifname, &shield()).unwrap();
        assert!(list_host_veths("vsw").unwrap().is_empty());
    });
}

#[test]
fn check_names_what_has_changed() {
    let mismatch_after = |inside: &str, outside: &str| {
        in_new_netns(|| {
            let pod = Pod::new();
            let spec = spec_for(&pod);
            create_veth(&spec, &shield()).unwrap();
            pod.run(inside).unwrap();
            run(&outside.replace("HOST", spec.host_ifname.as_str())).unwrap();
            check_veth(&spec).unwrap_err()
        })
    };
    let found = mismatch_after("true", "ip link del HOST");
    assert!(
        matches!(found, VethMismatch::HostEndMissing { .. }),
        "{found}"
    );
    let found = mismatch_after("true", "ip link set HOST down");
    assert!(matches!(found, VethMismatch::HostEndDown { .. }), "{found}");
    let found = mismatch_after("ip link set eth0 name eth9", "true");
    assert_eq!(
        found.to_string(),
        "interface eth0 is missing in the container"
    );
    let swap = "ip link set eth0 name eth9; ip link add eth0 type veth peer name x0";
    let found = mismatch_after(swap, "true");
    assert!(matches!(found, VethMismatch::NotPeers { .. }), "{found}");
    let found = mismatch_after("ip link set eth0 address 02:00:00:00:00:99", "true");
    assert!(
        found
            .to_string()
            .starts_with("MAC of eth0 is 02:00:00:00:00:99, not "),
        "{found}"
    );
    let found = mismatch_after("ip addr del fd00:1::2/64 dev eth0", "true");
    assert_eq!(found.to_string(), "address fd00:1::2/64 is missing on eth0");
    let found = mismatch_after("ip route del default", "true");
    assert_eq!(found.to_string(), "route to 0.0.0.0/0 is missing on eth0");
}

#[test]
fn host_stack_answers_neither_arp_nor_ping_of_a_pod_but_a_packet_socket_sees_them() {
    in_new_netns(|| {
        let pod = Pod::new();
        let spec = spec_for(&pod);
        create_veth(&spec, &shield()).unwrap();
        let host_ifname = &spec.host_ifname;
        // What would make the host answer: the gateway's address, ARP, forwarding.
        run(&format!(
            "ip addr add 10.244.1.1/32 dev lo; ip link set {host_ifname} arp on
             ip route add 10.244.1.2/32 dev {host_ifname}
             echo 1 > /proc/sys/net/ipv4/ip_forward"
        ))
        .unwrap();
        let ping = "ping -c 1 -W 1 10.244.1.1";
        let taps = socket_counting(host_ifname);
        assert!(pod.run(ping).is_err(), "the host answered ARP");
        assert!(taps.frames() > 0, "the packet socket lost its copy");
        let mac = mac_of(host_ifname);
        pod.run(&format!(
            "ip neigh replace 10.244.1.1 lladdr {mac} dev eth0"
        ))
        .unwrap();
        assert!(pod.run(ping).is_err(), "the host answered ICMP");
        // The proof that it was the shield which held it back.
        shield().remove(host_ifname).unwrap();
        pod.run(ping).unwrap();
        shield().add(host_ifname).unwrap();
        assert!(pod.run(ping).is_err(), "the shield is not back");
    });
}

/// By netlink: /sys shows the namespace that it was mounted in.
fn mac_of(ifname: &IfName) -> MacAddr {
    let link = netlink::in_host(async |host: Session| host.link(ifname.as_str()).await);
    link.unwrap().unwrap().mac.unwrap()
}

struct Tap(Box<dyn pnet_datalink::DataLinkReceiver>);

impl Tap {
    fn frames(mut self) -> usize {
        std::iter::from_fn(|| self.0.next().ok().map(<[u8]>::len))
            .take(3)
            .count()
    }
}

fn socket_counting(ifname: &IfName) -> Tap {
    let interface = pnet_datalink::interfaces()
        .into_iter()
        .find(|interface| interface.name == ifname.as_str())
        .unwrap();
    let config = pnet_datalink::Config {
        read_timeout: Some(Duration::from_millis(200)),
        promiscuous: false,
        ..Default::default()
    };
    match pnet_datalink::channel(&interface, config).unwrap() {
        pnet_datalink::Channel::Ethernet(_, receiver) => Tap(receiver),
        _ => panic!("an Ethernet channel was asked for"),
    }
}

#[test]
fn shields_are_replaced_as_a_whole() {
    in_new_netns(|| {
        run("ip tuntap add vswa mode tap; ip tuntap add vswb mode tap").unwrap();
        let (a, b): (IfName, IfName) = ("vswa".parse().unwrap(), "vswb".parse().unwrap());
        shield().add(&a).unwrap();
        shield().add(&a).unwrap();
        assert_eq!(shield().shielded().unwrap(), BTreeSet::from([a]));
        shield().replace(std::slice::from_ref(&b)).unwrap();
        assert_eq!(shield().shielded().unwrap(), BTreeSet::from([b]));
        let rules = run("nft list ruleset").unwrap();
        assert!(
            !rules.contains("vswa") && rules.contains("device \"vswb\""),
            "{rules}"
        );
        assert!(rules.contains("policy drop"), "{rules}");
        shield().remove_all().unwrap();
        shield().remove_all().unwrap();
        assert_eq!(run("nft list ruleset").unwrap(), "");
        assert!(shield().shielded().unwrap().is_empty());
    });
}

#[test]
fn cleanup_leaves_the_host_as_it_was_and_may_be_repeated() {
    in_new_netns(|| {
        let state = "ip -o link | cut -d@ -f1 | grep -v '^1:'; nft list ruleset
                     cat /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv6/conf/all/forwarding";
        let before = run(state).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let leftovers = Leftovers {
            table: NftTable::default(),
            gateway_ifname: "vsw0".parse().unwrap(),
            tunnel_ifname: "vsw-vxlan".parse().unwrap(),
            veth_prefix: "vsw".to_owned(),
            sysctl_ledger: dir.path().join("sysctls.json"),
        };
        let pod_cidrs: Vec<IpNet> = vec![
            "10.244.1.0/24".parse().unwrap(),
            "fd00:1::/64".parse().unwrap(),
        ];
        run("ip tuntap add vsw0 mode tap").unwrap();
        let gateway_ifname = leftovers.gateway_ifname.clone();
        let gateway = GatewayDeviceSpec {
            ifname: gateway_ifname.clone(),
            mac: "02:76:73:77:00:01".parse().unwrap(),
            mtu: 1500,
            pod_cidrs: pod_cidrs.clone(),
        };
        let mut ledger = SysctlLedger::open(&leftovers.sysctl_ledger).unwrap();
        configure_gateway(&gateway, &mut ledger).unwrap();
        let masquerade = MasqueradeSpec {
            pod_cidrs,
            cluster_cidrs: Vec::new(),
            gateway_ifname,
        };
        Masquerade::new(NftTable::default())
            .install(&masquerade)
            .unwrap();
        let pod = Pod::new();
        create_veth(&spec_for(&pod), &shield()).unwrap();
        assert_ne!(run(state).unwrap(), before);

        let problems = cleanup(&leftovers);
        assert!(problems.is_empty(), "{problems:?}");
        assert_eq!(run(state).unwrap(), before);
        assert!(pod.run("ip link show eth0").is_err());
        assert!(cleanup(&leftovers).is_empty());
    });
}

#[test]
fn cleanup_leaves_a_link_alone_that_only_has_the_gateways_name_and_does_the_rest() {
    in_new_netns(|| {
        run("ip link add vsw0 type bridge").unwrap();
        let dir = tempfile::tempdir().unwrap();
        let leftovers = Leftovers {
            table: NftTable::default(),
            gateway_ifname: "vsw0".parse().unwrap(),
            tunnel_ifname: "vsw-vxlan".parse().unwrap(),
            veth_prefix: "vsw".to_owned(),
            sysctl_ledger: dir.path().join("sysctls.json"),
        };
        SysctlLedger::open(&leftovers.sysctl_ledger)
            .unwrap()
            .set("net/ipv4/ip_forward", "1")
            .unwrap();
        let problems = cleanup(&leftovers);
        assert!(
            matches!(problems[..], [CleanupProblem::NotTap { .. }]),
            "{problems:?}"
        );
        run("ip link show vsw0").unwrap();
        assert_eq!(sysctl::read("net/ipv4/ip_forward").unwrap(), "0");
    });
}
