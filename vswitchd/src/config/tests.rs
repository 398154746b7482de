use std::fs;

use super::*;

fn machine() -> Machine {
    Machine {
        hostname: "Node-A".to_owned(),
        cores: 2,
        environment: Vec::new(),
    }
}

fn load(text: &str) -> Result<Config, ConfigError> {
    load_with(text, &[], &[])
}

fn load_with(
    text: &str,
    environment: &[(&str, &str)],
    flags: &[(&str, &str)],
) -> Result<Config, ConfigError> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("vswitchd.toml");
    fs::write(&path, text).unwrap();
    let mut machine = machine();
    for (name, value) in environment {
        machine
            .environment
            .push(((*name).to_owned(), (*value).to_owned()));
    }
    let mut overrides = Overrides::default();
    for (key, value) in flags {
        overrides.set(*key, *value);
    }
    Config::load(Some(&path), &machine, &overrides)
}

fn problems(text: &str) -> String {
    load(text).expect_err(text).to_string()
}

#[test]
fn shipped_file_has_every_key_with_its_default() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/vswitchd.toml");
    let text = fs::read_to_string(path).unwrap();
    let shipped: toml::Table = text.parse().unwrap();
    assert_eq!(
        shipped,
        toml::Table::try_from(RawConfig::default()).unwrap()
    );
    let keys = |text: &str| -> Vec<String> {
        let names = text
            .lines()
            .filter_map(|line| line.split_once(" = "))
            .map(|(name, _)| name);
        names
            .filter(|name| !name.starts_with('#'))
            .map(str::to_owned)
            .collect()
    };
    let in_order = toml::to_string(&RawConfig::default()).unwrap();
    assert_eq!(
        keys(&text),
        keys(&in_order),
        "the file is in the order of the code"
    );
}

#[test]
fn defaults_are_usable_and_take_what_the_machine_knows() {
    let config = Config::load(None, &machine(), &Overrides::default()).unwrap();
    assert_eq!(config.node_name, "node-a");
    assert_eq!(config.datapath.workers, 1);
    assert_eq!(config.datapath.conntrack, ConntrackConfig::default());
    assert_eq!(config.api.socket, Path::new("/run/vswitchd/api.sock"));
    assert_eq!(config.api.socket_mode, 0o660);
    assert_eq!(config.network.mtu, MtuSetting::Auto);
    assert_eq!(config.network.lease_rest, Duration::from_secs(60));
}

#[test]
fn flags_win_over_environment_over_file_over_defaults() {
    let file = "[network]\nmtu = 1300\nlease_rest_seconds = 1\n[log]\nlevel = \"warn\"\n";
    let environment = [
        ("VSWITCHD_NETWORK_MTU", "1400"),
        ("VSWITCHD_LOG_LEVEL", "debug"),
    ];
    let config = load_with(file, &environment, &[("network.mtu", "1500")]).unwrap();
    assert_eq!(config.network.mtu, MtuSetting::Bytes(1500));
    assert_eq!(config.log.level, "debug");
    assert_eq!(config.network.lease_rest, Duration::from_secs(1));
    assert_eq!(config.network.default_namespace, "default");
}

#[test]
fn environment_sets_lists_numbers_and_switches() {
    let environment = [
        ("VSWITCHD_NETWORK_POD_CIDRS", "10.1.0.0/24, fd00::/64"),
        ("VSWITCHD_NETWORK_MASQUERADE", "false"),
        ("VSWITCHD_CONNTRACK_UDP_TIMEOUT", "7"),
        ("VSWITCHD_CONFIG", "/etc/vswitchd.toml"),
        ("VSWITCHD_PORT", "tcp://10.96.0.1:80"),
        ("PATH", "/bin"),
    ];
    let config = load_with("", &environment, &[]).unwrap();
    assert_eq!(config.network.pod_cidrs.len(), 2);
    assert!(!config.network.masquerade);
    assert_eq!(config.datapath.conntrack.udp, Duration::from_secs(7));
    assert_eq!(config.ignored_environment, ["VSWITCHD_PORT"]);
}

#[test]
fn all_problems_are_reported_at_once_with_their_place() {
    let file = "node_name = \"a_b\"\nspeed = 1\n[network]\nmtu = \"big\"\nmasquerade = 1\n\
                pod_cidrs = [\"10.0.0.1/24\"]\n[log]\nformat = \"xml\"\n";
    let environment = [("VSWITCHD_DATAPATH_WORKERS", "many")];
    let flags = [("api.socket_mode", "999"), ("nonsense", "1")];
    let error = load_with(file, &environment, &flags).unwrap_err();
    let found: Vec<&str> = error
        .problems
        .iter()
        .map(|problem| problem.key.as_str())
        .collect();
    let expected = [
        "network.masquerade",
        "speed",
        "datapath.workers",
        "nonsense",
        "node_name",
        "network.pod_cidrs",
        "network.mtu",
        "api.socket_mode",
        "log.format",
    ];
    let sorted = |mut keys: Vec<&str>| -> Vec<String> {
        keys.sort_unstable();
        keys.into_iter().map(str::to_owned).collect()
    };
    assert_eq!(sorted(found), sorted(expected.to_vec()), "{error}");
    let text = error.to_string();
    assert!(
        text.contains("VSWITCHD_DATAPATH_WORKERS: datapath.workers: must be a number"),
        "{text}"
    );
    assert!(text.contains("command line: api.socket_mode: "), "{text}");
    assert!(
        text.contains("vswitchd.toml: network.mtu: must be \"auto\" or 68 to 65535"),
        "{text}"
    );
}

#[test]
fn file_that_is_missing_or_no_toml_is_a_problem() {
    let missing = Path::new("/no/such/file.toml");
    let error = Config::load(Some(missing), &machine(), &Overrides::default()).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("/no/such/file.toml: cannot be read"),
        "{error}"
    );
    assert!(
        problems("[network\n").contains("vswitchd.toml: "),
        "no place named"
    );
    assert!(problems("network = 1\n").contains("network: is a section, not a value"));
    assert!(problems("[network.mtu]\na = 1\n").contains("network.mtu: must be a text"));
    assert!(problems("[network]\npod_cidrs = [1]\n").contains("must be a list of texts"));
}

#[test]
fn pod_cidrs_that_cannot_work_are_refused() {
    for bad in [
        "[]",
        "[\"10.0.0.0/31\"]",
        "[\"10.0.0.0/24\", \"10.0.1.0/24\"]",
        "[\"127.0.0.0/8\"]",
        "[\"0.0.0.0/0\"]",
        "[\"fe80::/64\"]",
        "[\"224.0.0.0/8\"]",
        "[\"10.0.0.0\"]",
    ] {
        let text = problems(&format!("[network]\npod_cidrs = {bad}\n"));
        assert!(text.contains("network.pod_cidrs"), "{bad}: {text}");
    }
}

#[test]
fn services_get_addresses_and_ports_from_the_service_section() {
    let config = load("").unwrap().service;
    assert_eq!(config.cidrs, ["10.96.0.0/16".parse().unwrap()]);
    assert_eq!(config.node_ports, 30000..=32767);
    let file =
        "[service]\ncidrs = [\"fd00:96::/108\", \"10.97.0.0/20\"]\nnode_ports = \"1-65535\"\n";
    let config = load(file).unwrap().service;
    assert_eq!(config.cidrs.len(), 2);
    assert_eq!(config.node_ports, 1..=65535);
    let environment = [
        ("VSWITCHD_SERVICE_CIDRS", ""),
        ("VSWITCHD_SERVICE_NODE_PORTS", "8000-8010"),
    ];
    let config = load_with(file, &environment, &[]).unwrap().service;
    assert!(config.cidrs.is_empty());
    assert_eq!(config.node_ports, 8000..=8010);
}

#[test]
fn service_cidrs_that_cannot_work_are_refused() {
    for (bad, why) in [
        ("[\"10.96.0.0/31\"]", "has no room for a Service"),
        ("[\"10.96.0.0/24\", \"10.97.0.0/24\"]", "has 2 IPv4 CIDRs"),
        ("[\"10.96.0.1/24\"]", "has host bits set"),
        ("[\"127.0.0.0/8\"]", "cannot be the addresses of Services"),
        ("[\"10.96.0.0\"]", "is not a CIDR"),
        (
            "[\"10.244.0.128/25\"]",
            "overlaps 10.244.0.0/24 of network.pod_cidrs",
        ),
        (
            "[\"10.0.0.0/8\"]",
            "overlaps 10.244.0.0/24 of network.pod_cidrs",
        ),
    ] {
        let text = problems(&format!("[service]\ncidrs = {bad}\n"));
        assert!(
            text.contains("vswitchd.toml: service.cidrs: "),
            "{bad}: {text}"
        );
        assert!(text.contains(why), "{bad}: {text}");
    }
    for bad in ["", "30000", "0-10", "20-10", "1-65536", "a-b", "1-2-3"] {
        let text = problems(&format!("[service]\nnode_ports = \"{bad}\"\n"));
        let expected = format!("service.node_ports: {bad:?} is not a range of ports");
        assert!(text.contains(&expected), "{text}");
    }
}

#[test]
fn ipv6_pods_need_an_mtu_of_1280() {
    let with_mtu = |mtu| format!("[network]\npod_cidrs = [\"fd00::/64\"]\nmtu = {mtu}\n");
    assert!(problems(&with_mtu(1279)).contains("1280 to 65535"));
    assert_eq!(
        load(&with_mtu(1280)).unwrap().network.mtu,
        MtuSetting::Bytes(1280)
    );
}

#[test]
fn tcp_beyond_loopback_takes_a_token_and_tls() {
    let open = "[api]\ntcp_listen = [\"127.0.0.1:1\", \"[::1]:1\", \"0.0.0.0:1\"]\n";
    let text = problems(open);
    assert!(text.contains("that takes api.token_file"), "{text}");
    assert!(text.contains("that takes api.tls_cert_file"), "{text}");
    assert_eq!(text.lines().count(), 3, "{text}");
    assert_eq!(text.matches("0.0.0.0:1 can be reached").count(), 2);

    let open = format!("{open}token_file = \"/etc/vswitchd/token\"\n");
    assert_eq!(problems(&open).lines().count(), 2);
    let plain = load(&format!("{open}allow_plaintext = true\n")).unwrap();
    assert_eq!(plain.api.tcp_listen.len(), 3);
    assert_eq!(plain.api.certificate, None);
    let files = "tls_cert_file = \"/a/cert\"\ntls_key_file = \"/a/key\"\n";
    let encrypted = load(&format!("{open}{files}")).unwrap();
    let certificate = ("/a/cert".into(), "/a/key".into());
    assert_eq!(encrypted.api.certificate, Some(certificate));
}

#[test]
fn a_certificate_takes_a_key_and_member_tokens_take_an_administrators() {
    let text = problems("[api]\ntls_key_file = \"/a/key\"\nmember_token_file = \"/a/tokens\"\n");
    assert!(text.contains("go together"), "{text}");
    assert!(text.contains("takes api.token_file as well"), "{text}");
    let text = problems("[api]\nmax_connections = 0\ntoken_file = \"token\"\n");
    assert!(text.contains("api.max_connections"), "{text}");
    assert!(text.contains("not an absolute path"), "{text}");
}

#[test]
fn names_that_would_end_up_in_rules_or_paths_are_checked() {
    for (key, bad) in [
        ("gateway_ifname", "vsw\\\"0"),
        ("gateway_ifname", "a-name-of-16-byt"),
        ("gateway_ifname", "vsw*"),
        ("nft_table_suffix", "a b"),
        ("default_namespace", "Default"),
    ] {
        let text = problems(&format!("[network]\n{key} = \"{bad}\"\n"));
        assert!(text.contains(&format!("network.{key}")), "{text}");
    }
    assert!(problems("state_dir = \"var\"\n").contains("not an absolute path"));
    let long = format!("[api]\nsocket = \"/{}\"\n", "x".repeat(107));
    assert!(problems(&long).contains("api.socket: is longer than"));
}

#[test]
fn denied_packets_are_dropped_unless_the_policy_section_says_reject() {
    assert_eq!(load("").unwrap().policy.deny, Deny::Drop);
    for (text, deny) in [("drop", Deny::Drop), ("reject", Deny::Reject)] {
        let config = load(&format!("[policy]\ndeny = \"{text}\"\n")).unwrap();
        assert_eq!(config.policy, PolicyConfig { deny });
    }
    let environment = [("VSWITCHD_POLICY_DENY", "reject")];
    let config = load_with("", &environment, &[]).unwrap();
    assert_eq!(config.policy.deny, Deny::Reject);
    for bad in ["", "Reject", "accept"] {
        let text = problems(&format!("[policy]\ndeny = \"{bad}\"\n"));
        let expected = format!("vswitchd.toml: policy.deny: {bad:?} is none of drop, reject");
        assert!(text.contains(&expected), "{text}");
    }
}

#[test]
fn numbers_out_of_range_are_refused() {
    for (section, key, bad) in [
        ("conntrack", "max_entries", "0"),
        ("conntrack", "tcp_timeout_established", "-1"),
        ("conntrack", "icmp_timeout", "0"),
        ("datapath", "workers", "257"),
        ("datapath", "flow_cache_entries", "9223372036854775807"),
        ("network", "lease_rest_seconds", "-5"),
    ] {
        let text = problems(&format!("[{section}]\n{key} = {bad}\n"));
        assert!(
            text.contains(&format!("{section}.{key}: {bad} is not in ")),
            "{text}"
        );
    }
}

#[test]
fn connections_are_recorded_when_they_end_and_when_they_begin_if_that_is_asked_for() {
    let of = |text: &str| {
        let flows = load(text).unwrap().flows;
        (flows.connections.to_string(), flows.connection_starts)
    };
    assert_eq!(of(""), ("off".to_owned(), false));
    let both = "[flows]\nconnections = \"1/10\"\nconnection_starts = true\n";
    assert_eq!(of(both), ("1/10".to_owned(), true));
    let text = problems("[flows]\nconnections = \"some\"\n");
    assert!(text.contains("flows.connections: "), "{text}");
}

#[test]
fn where_records_go_is_checked_key_by_key() {
    assert_eq!(load("").unwrap().flow_export, FlowExportConfig::default());
    let flows = |lines: &str| format!("[flows]\n{lines}\n");
    let config = load(&flows("file = \"/logs/flows.jsonl\"\njournald = true")).unwrap();
    let file = config.flow_export.file.unwrap();
    assert_eq!((file.max_bytes, file.keep), (100 << 20, 5));
    assert!(config.flow_export.journald);
    assert_eq!(config.flow_export.otlp, None);
    let config = load(&flows("otlp_endpoint = \"https://collector:4318/base\"")).unwrap();
    let otlp = config.flow_export.otlp.unwrap();
    assert_eq!(
        (otlp.endpoint.as_str(), otlp.ca_file),
        ("https://collector:4318/base", None)
    );
    for (line, transport, address) in [
        (
            "udp://collector:4739",
            IpfixTransport::Udp,
            "collector:4739",
        ),
        ("tcp://10.0.0.9:1", IpfixTransport::Tcp, "10.0.0.9:1"),
        (
            "tcp://[fd00::9]:4739",
            IpfixTransport::Tcp,
            "[fd00::9]:4739",
        ),
    ] {
        let config = load(&flows(&format!("ipfix_collector = \"{line}\""))).unwrap();
        let ipfix = config.flow_export.ipfix.unwrap();
        assert_eq!(
            (ipfix.transport, ipfix.address.as_str()),
            (transport, address)
        );
        assert_eq!(
            (ipfix.enterprise, ipfix.template_refresh.as_secs()),
            (None, 60)
        );
    }
    let lines = "ipfix_collector = \"udp://c:1\"\nipfix_enterprise = 32473";
    let ipfix = load(&flows(lines)).unwrap().flow_export.ipfix.unwrap();
    assert_eq!(ipfix.enterprise, Some(32_473));
    for (line, problem) in [
        (
            "file = \"flows.jsonl\"",
            "flows.file: \"flows.jsonl\" is not an absolute path",
        ),
        (
            "file = \"/logs/\"",
            "flows.file: \"/logs/\" is a folder's path",
        ),
        (
            "file_max_megabytes = 0",
            "flows.file_max_megabytes: 0 is not in 1 to",
        ),
        (
            "otlp_endpoint = \"collector:4318\"",
            "flows.otlp_endpoint: \"collector:4318\" is not",
        ),
        (
            "otlp_endpoint = \"http://\"",
            "flows.otlp_endpoint: \"http://\" is not",
        ),
        (
            "otlp_endpoint = \"http://a b\"",
            "is not an address like http://collector:4318",
        ),
        (
            "otlp_endpoint = \"https://u:p@c\"",
            "is not an address like",
        ),
        (
            "otlp_ca_file = \"ca.pem\"",
            "flows.otlp_ca_file: \"ca.pem\" is not an absolute path",
        ),
        ("file_keep = -1", "flows.file_keep: -1 is not in 0 to"),
        (
            "ipfix_collector = \"collector:4739\"",
            "flows.ipfix_collector: \"collector:4739\" is not an address like udp://",
        ),
        (
            "ipfix_collector = \"sctp://collector:4739\"",
            "flows.ipfix_collector: ",
        ),
        (
            "ipfix_collector = \"udp://collector\"",
            "flows.ipfix_collector: ",
        ),
        (
            "ipfix_collector = \"udp://:4739\"",
            "flows.ipfix_collector: ",
        ),
        (
            "ipfix_collector = \"udp://a b:1\"",
            "flows.ipfix_collector: ",
        ),
        ("ipfix_collector = \"tcp://c:0\"", "flows.ipfix_collector: "),
        (
            "ipfix_collector = \"tcp://c:65536\"",
            "flows.ipfix_collector: ",
        ),
        (
            "ipfix_collector = \"tcp://::1:4739\"",
            "flows.ipfix_collector: ",
        ),
        (
            "ipfix_enterprise = 4294967296",
            "flows.ipfix_enterprise: 4294967296 is not in 0 to 4294967295",
        ),
        (
            "ipfix_enterprise = 29305",
            "flows.ipfix_enterprise: 29305 is the number of RFC 5103",
        ),
        (
            "ipfix_template_seconds = 0",
            "flows.ipfix_template_seconds: 0 is not in 1 to 86400",
        ),
    ] {
        let text = problems(&flows(line));
        assert!(text.contains(problem), "{text}");
    }
}

#[test]
fn configuration_in_force_is_a_file_that_means_the_same() {
    let config = load("[network]\nmtu = 1400\n[conntrack]\nudp_timeout = 9\n").unwrap();
    let again = load(&config.to_toml()).unwrap();
    assert_eq!(again, config);
    assert!(config.to_toml().contains("node_name = \"node-a\""));
}

#[test]
fn automatic_mtu_is_the_uplinks_or_ethernets_less_what_tunnels_add() {
    assert_eq!(MtuSetting::Auto.resolve(Some(1450), 0), 1450);
    assert_eq!(MtuSetting::Auto.resolve(Some(1450), 50), 1400);
    assert_eq!(MtuSetting::Auto.resolve(Some(65_536), 0), 65_535);
    assert_eq!(MtuSetting::Auto.resolve(None, 50), 1450);
    assert_eq!(MtuSetting::Auto.resolve(Some(10), 50), 0);
    assert_eq!(MtuSetting::Bytes(1400).resolve(Some(9000), 50), 1400);
}

#[test]
fn what_leads_to_other_nodes_is_checked() {
    let network = |line: &str| format!("[network]\n{line}\n");
    for (line, problem) in [
        ("backend = \"ipip\"", "none of vxlan, host-gw, none"),
        ("iface = \"a b\"", "letters, digits"),
        ("vxlan_vni = 16777216", "not in 1 to 16777215"),
        ("vxlan_port = 0", "not in 1 to 65535"),
        ("vxlan_ifname = \"abcdefghijklmno\"", "longer than 14 bytes"),
        ("vxlan_ifname = \"vsw0\"", "gateway_ifname as well"),
    ] {
        assert!(problems(&network(line)).contains(problem), "{line}");
    }
    let network = load(&network("backend = \"host-gw\"\niface = \"eth1\""))
        .unwrap()
        .network;
    assert_eq!(network.backend, Backend::HostGw);
    assert_eq!(network.iface.unwrap().as_str(), "eth1");
}

#[test]
fn shipped_network_list_gives_the_switch_host_ports_and_chains_bandwidth() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/10-vswitch.conflist");
    let list: serde_json::Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    assert_eq!(
        (&list["cniVersion"], &list["name"]),
        (&"1.0.0".into(), &"vswitch".into())
    );
    let types: Vec<_> = list["plugins"]
        .as_array()
        .unwrap()
        .iter()
        .map(|p| &p["type"])
        .collect();
    assert_eq!(types, ["vswitch-cni", "bandwidth"]);
    let capabilities = &list["plugins"][0]["capabilities"];
    assert_eq!(capabilities["portMappings"], true);
}

#[test]
fn a_cluster_is_joined_only_where_that_is_said() {
    assert_eq!(load("").unwrap().cluster, None);
    let cluster = load("[cluster]\nmode = \"cluster\"")
        .unwrap()
        .cluster
        .unwrap();
    assert_eq!(cluster.kubeconfig, None);
    assert_eq!(cluster.pod_cidrs_from, PodCidrsFrom::Node);
    let environment = [
        ("VSWITCHD_CLUSTER_MODE", "cluster"),
        ("VSWITCHD_CLUSTER_KUBECONFIG", "/etc/kubeconfig"),
        ("VSWITCHD_CLUSTER_CNI_CONF_DIR", ""),
    ];
    let flags = [("cluster.pod_cidrs_from", "node-or-config")];
    let cluster = load_with("", &environment, &flags)
        .unwrap()
        .cluster
        .unwrap();
    assert_eq!(cluster.kubeconfig, Some("/etc/kubeconfig".into()));
    assert_eq!(cluster.cni_conf_dir, None);
    assert_eq!(cluster.pod_cidrs_from, PodCidrsFrom::NodeOrConfig);
}

#[test]
fn every_problem_of_the_cluster_is_named_in_either_mode() {
    let text = problems(
        "[cluster]\nmode = \"both\"\nkubeconfig = \"config\"\npod_cidrs_from = \"dhcp\"\n\
         pod_wait_seconds = 0\ncni_bin_dir = \"\"",
    );
    for part in [
        "cluster.mode: \"both\" is none of standalone, cluster",
        "cluster.kubeconfig: \"config\" is not an absolute path",
        "cluster.pod_cidrs_from: \"dhcp\" is none of node, node-or-config",
        "cluster.pod_wait_seconds: 0 is not in 1 to 100",
        "cluster.cni_bin_dir: \"\" is not an absolute path",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
}
