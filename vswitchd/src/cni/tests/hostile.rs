//! Whatever the configuration and the arguments hold: an answer, never a panic (code 199).

use proptest::prelude::*;
use serde_json::{Value, json};

use super::world::{call, cni};
use crate::attach::tests::world::{V4, World};

fn json_value() -> impl Strategy<Value = Value> {
    let text = prop_oneof![
        Just("10.1.0.7".to_owned()),
        Just("10.1.0.7/24".to_owned()),
        Just("::/0".to_owned()),
        Just("eth0".to_owned()),
        Just("/run/netns/a".to_owned()),
        "\\PC{0,12}",
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        text.prop_map(Value::from),
    ];
    let key = prop_oneof![
        Just("type"),
        Just("routes"),
        Just("dst"),
        Just("gw"),
        Just("ips"),
        Just("mac"),
        Just("cni"),
        Just("labels"),
        Just("key"),
        Just("value"),
        Just("interfaces"),
        Just("name"),
        Just("sandbox"),
        Just("address"),
        Just("interface"),
        Just("containerID"),
        Just("ifname"),
    ];
    leaf.prop_recursive(4, 32, 4, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(key.clone(), inner, 0..4).prop_map(|map| json!(map)),
        ]
    })
}

fn config_key() -> impl Strategy<Value = &'static str> {
    prop_oneof![
        Just("ipam"),
        Just("mtu"),
        Just("runtimeConfig"),
        Just("args"),
        Just("prevResult"),
        Just("dns"),
        Just("defaultNamespace"),
        Just("cni.dev/valid-attachments"),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_configuration_breaks_a_call(
        entries in prop::collection::btree_map(config_key(), json_value(), 0..4),
        args in prop::option::of("(K8S_POD_NAME|IP|MAC|K8S_POD_NAMESPACE|[A-Z]{0,3})=?\\PC{0,12};?"),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let service = cni(&World::default(), V4);
            for command in ["ADD", "CHECK", "STATUS", "GC", "DEL"] {
                let mut call = call(command, "a");
                call.args = args.clone();
                for (key, value) in &entries {
                    call.config[*key] = value.clone();
                }
                if let Err(failure) = service.handle(call).await {
                    assert_ne!(failure.code, 199, "{failure}");
                }
            }
        });
    }
}
