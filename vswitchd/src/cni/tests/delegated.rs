use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::json;
use tempfile::TempDir;
use vswitch_api::cni::CniCall;

use super::world::{call, cni, code};
use crate::attach::tests::world::{V4, World};
use crate::store::Bucket;

/// A plugin that writes down its commands, and what it answers.
struct Plugin {
    dir: TempDir,
}

impl Plugin {
    fn new(answer: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let script = format!(
            "#!/bin/sh\nread input\necho \"$CNI_COMMAND $CNI_CONTAINERID\" >> {}\n{answer}\n",
            dir.path().join("log").display()
        );
        let path = dir.path().join("test-ipam");
        std::fs::write(&path, script).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        Self { dir }
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn runs(&self) -> Vec<String> {
        let log = std::fs::read_to_string(self.path().join("log")).unwrap_or_default();
        log.lines().map(str::to_owned).collect()
    }

    fn call(&self, command: &str) -> CniCall {
        let mut call = call(command, "a");
        call.path = Some(self.path().display().to_string());
        call.config["ipam"] = json!({"type": "test-ipam"});
        call
    }
}

const ADDRESS: &str = r#"[ $CNI_COMMAND = ADD ] && echo '{"cniVersion":"1.0.0",
    "ips":[{"address":"192.168.5.9/24","gateway":"192.168.5.1"}],"dns":{}}'
    exit 0"#;

#[tokio::test]
async fn addresses_come_from_the_plugin_and_go_back_to_it() {
    let (world, plugin) = (World::default(), Plugin::new(ADDRESS));
    world.allow_plugins_in(plugin.path());
    let service = cni(&world, V4);
    let result = service.handle(plugin.call("ADD")).await.unwrap().unwrap();
    assert_eq!(result["ips"][0]["address"], "192.168.5.9/24");
    assert_eq!(
        result["routes"],
        json!([{"dst": "0.0.0.0/0", "gw": "192.168.5.1"}])
    );
    assert!(result.get("dns").is_none(), "an empty object says nothing");
    let mut check = plugin.call("CHECK");
    check.config["prevResult"] = result;
    service.handle(check).await.unwrap();
    // The configuration may have changed since: the plugin of the ADD is asked.
    service.handle(call("DEL", "a")).await.unwrap();
    assert_eq!(plugin.runs(), ["ADD a", "CHECK a", "DEL a"]);
    let leases = world.store().keys(Bucket::Leases);
    assert_eq!(leases, [""; 0], "the built-in management is not involved");
}

#[tokio::test]
async fn failed_attach_gives_the_address_back_to_the_plugin() {
    let (world, plugin) = (World::default(), Plugin::new(ADDRESS));
    world.allow_plugins_in(plugin.path());
    world.fail("attach");
    assert_eq!(code(&cni(&world, V4), plugin.call("ADD")).await, 105);
    assert_eq!(plugin.runs(), ["ADD a", "DEL a"]);
}

#[tokio::test]
async fn plugin_that_refuses_decides_the_code() {
    let plugin = Plugin::new(r#"echo '{"code": 11, "msg": "no address"}'; exit 1"#);
    let world = World::default();
    world.allow_plugins_in(plugin.path());
    let service = cni(&world, V4);
    let failure = service.handle(plugin.call("ADD")).await.unwrap_err();
    assert_eq!(failure.code, 11);
    assert!(failure.msg.contains("test-ipam: no address"), "{failure}");
    assert_eq!(code(&service, plugin.call("STATUS")).await, 11);
    assert_eq!(world.done(), [""; 0]);
}

#[tokio::test]
async fn plugin_outside_the_allowed_directories_is_not_run() {
    let (world, plugin) = (World::default(), Plugin::new(ADDRESS));
    assert_eq!(code(&cni(&world, V4), plugin.call("ADD")).await, 103);
    assert_eq!(plugin.runs(), [""; 0]);
}

#[tokio::test]
async fn gc_and_status_reach_the_plugin_and_older_ones_may_not_know_them() {
    let unknown = r#"case $CNI_COMMAND in GC|STATUS)
        echo '{"code": 4, "msg": "unknown CNI_COMMAND"}'; exit 1;; esac"#;
    let (world, plugin) = (World::default(), Plugin::new(unknown));
    world.allow_plugins_in(plugin.path());
    let service = cni(&world, V4);
    assert_eq!(code(&service, plugin.call("STATUS")).await, 0);
    let mut gc = plugin.call("GC");
    gc.config["cni.dev/valid-attachments"] = json!([]);
    assert_eq!(code(&service, gc).await, 0);
    assert_eq!(plugin.runs(), ["STATUS a", "GC a"]);
}
