use serde_json::{Value, json};
use vswitch_api::cni::CniCall;

use crate::attach::Attachments;
use crate::attach::tests::world::World;
use crate::cni::{CniService, CniSettings};

pub(super) type Service = CniService;

/// A service of this world, as a start of the daemon makes it.
pub(super) fn cni(world: &World, cidrs: &[&str]) -> Service {
    serving(&world.open(cidrs))
}

/// The service of these attachments.
pub(super) fn serving(attachments: &Attachments) -> Service {
    let settings = CniSettings {
        default_namespace: "default".to_owned(),
    };
    CniService::new(attachments.clone(), settings)
}

/// A call for interface eth0 of a container whose namespace has its name.
pub(super) fn call(command: &str, container: &str) -> CniCall {
    CniCall {
        command: command.to_owned(),
        container_id: Some(container.to_owned()),
        netns: Some(format!("/run/netns/{container}")),
        ifname: Some("eth0".to_owned()),
        args: None,
        path: None,
        config: json!({"cniVersion": "1.1.0", "name": "net", "type": "vswitch-cni"}),
    }
}

pub(super) fn call_with(command: &str, container: &str, key: &str, value: Value) -> CniCall {
    let mut call = call(command, container);
    call.config[key] = value;
    call
}

pub(super) async fn add(service: &Service, container: &str) -> Value {
    service
        .handle(call("ADD", container))
        .await
        .unwrap()
        .unwrap()
}

pub(super) async fn code(service: &Service, call: CniCall) -> u32 {
    service
        .handle(call)
        .await
        .map_or_else(|failure| failure.code, |_| 0)
}
