use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use vswitch_api::cni::CniCall;
use vswitch_api::{IfName, MacAddr};

use crate::cni::{
    AttachHost, CniDeps, CniService, CniSettings, NetnsProbe, NetnsState, PodDirectory,
    PodIdentity, StepError, SwitchPorts,
};
use crate::ipam::memory_store::MemoryStore;
use crate::ipam::{Delegate, Ipam, IpamConfig, Route};
use crate::state::Attachment;

/// Everything around the service: what was done to it, what is there, what shall fail.
#[derive(Clone, Default)]
pub(super) struct World(Arc<Inside>);

#[derive(Default)]
struct Inside {
    done: Mutex<Vec<String>>,
    fails: Mutex<BTreeSet<&'static str>>,
    /// Interfaces by container and name.
    interfaces: Mutex<BTreeSet<String>>,
    gone: Mutex<BTreeSet<PathBuf>>,
    store: Arc<MemoryStore>,
    now: AtomicU64,
    plugin_dirs: Mutex<Vec<PathBuf>>,
}

pub(super) type Service = CniService<World, World, World>;

fn id(attachment: &Attachment) -> String {
    format!("{}/{}", attachment.container_id, attachment.ifname)
}

impl World {
    /// A service of this world, as a start of the daemon makes it.
    pub(super) fn service(&self, cidrs: &[&str]) -> Service {
        let store = self.0.store.clone();
        let pod_cidrs = cidrs.iter().map(|cidr| cidr.parse().unwrap()).collect();
        let rest = Duration::from_secs(60);
        let ipam = Ipam::new(store.clone(), &IpamConfig { pod_cidrs, rest }).unwrap();
        let clock = self.clone();
        let deps = CniDeps {
            host: self.clone(),
            ports: self.clone(),
            pods: self.clone(),
            netns: Box::new(self.clone()),
            store,
            ipam: Arc::new(ipam),
            delegate: Delegate {
                plugin_dirs: self.0.plugin_dirs.lock().unwrap().clone(),
                timeout: Duration::from_secs(5),
            },
            unix_seconds: Box::new(move || clock.0.now.load(Ordering::SeqCst)),
        };
        let settings = CniSettings {
            default_namespace: "default".to_owned(),
            default_mtu: 1450,
            port_numbers: 100..=60_000,
        };
        CniService::new(deps, settings).unwrap()
    }

    pub(super) fn allow_plugins_in(&self, dir: &Path) {
        self.0.plugin_dirs.lock().unwrap().push(dir.to_path_buf());
    }

    pub(super) fn store(&self) -> &MemoryStore {
        &self.0.store
    }

    pub(super) fn fail(&self, step: &'static str) {
        self.0.fails.lock().unwrap().insert(step);
    }

    pub(super) fn heal(&self) {
        self.0.fails.lock().unwrap().clear();
        self.0.store.set_failing(false);
    }

    pub(super) fn lose_interface(&self, id: &str) {
        assert!(self.0.interfaces.lock().unwrap().remove(id));
    }

    pub(super) fn lose_netns(&self, path: &str) {
        self.0.gone.lock().unwrap().insert(path.into());
    }

    /// What was done since the last call.
    pub(super) fn done(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.done.lock().unwrap())
    }

    fn is_failing(&self, step: &'static str) -> bool {
        self.0.fails.lock().unwrap().contains(step)
    }

    fn step(&self, step: &'static str, attachment: &Attachment) -> Result<(), StepError> {
        self.0
            .done
            .lock()
            .unwrap()
            .push(format!("{step} {}", id(attachment)));
        if self.is_failing(step) {
            Err(StepError::new(format!("{step} refused")))
        } else {
            Ok(())
        }
    }
}

impl AttachHost for World {
    fn host_ifname(&self, container_id: &str, _ifname: &IfName) -> IfName {
        format!("vsw-{container_id:.11}").parse().unwrap()
    }

    fn container_mac(&self, _container_id: &str, _ifname: &IfName) -> MacAddr {
        MacAddr([2, 0, 0, 0, 0, 9])
    }

    async fn create_interface(
        &self,
        attachment: &Attachment,
        gateways: &[IpAddr],
        routes: &[Route],
    ) -> Result<(), StepError> {
        assert!(!gateways.is_empty() && routes.iter().all(|route| route.gw.is_some()));
        tokio::task::yield_now().await;
        self.step("create", attachment)?;
        if self.is_failing("create hangs") {
            std::future::pending::<()>().await;
        }
        assert!(
            self.0.interfaces.lock().unwrap().insert(id(attachment)),
            "made twice"
        );
        Ok(())
    }

    async fn remove_interface(&self, attachment: &Attachment) -> Result<(), StepError> {
        self.step("remove", attachment)?;
        self.0.interfaces.lock().unwrap().remove(&id(attachment));
        Ok(())
    }

    async fn check_interface(
        &self,
        attachment: &Attachment,
        _gateways: &[IpAddr],
        _routes: &[Route],
    ) -> Result<(), StepError> {
        if self.0.interfaces.lock().unwrap().contains(&id(attachment)) {
            return Ok(());
        }
        Err(StepError::new("interface is gone"))
    }
}

impl SwitchPorts for World {
    async fn attach(&self, attachment: &Attachment) -> Result<(), StepError> {
        if self.is_failing("store after attach") {
            self.0.store.set_failing(true);
        }
        if self.is_failing("attach later") {
            return Err(StepError::new("no rules yet").retry_later());
        }
        self.step("attach", attachment)
    }

    async fn detach(&self, attachment: &Attachment) -> Result<(), StepError> {
        self.step("detach", attachment)
    }

    async fn check(&self, _attachment: &Attachment) -> Result<(), StepError> {
        if self.is_failing("port check") {
            Err(StepError::new("port is down"))
        } else {
            Ok(())
        }
    }

    async fn ready(&self) -> Result<(), StepError> {
        if self.is_failing("ready") {
            Err(StepError::new("no rules yet").retry_later())
        } else {
            Ok(())
        }
    }
}

impl PodDirectory for World {
    async fn expect(&self, _pod: &PodIdentity) -> Result<(), StepError> {
        if self.is_failing("expect") {
            return Err(StepError::new("pod is not known").retry_later());
        }
        Ok(())
    }

    async fn declare(&self, attachment: &Attachment, pod: &PodIdentity) -> Result<(), StepError> {
        assert_eq!(attachment.pod, pod.key);
        self.step("declare", attachment)
    }

    async fn retract(&self, attachment: &Attachment) -> Result<(), StepError> {
        self.step("retract", attachment)
    }
}

impl NetnsProbe for World {
    fn probe(&self, path: &Path) -> NetnsState {
        match path.to_str() {
            Some("/proc/1/ns/net") => NetnsState::Host,
            Some("/etc/passwd") => NetnsState::NotNetns,
            _ if self.0.gone.lock().unwrap().contains(path) => NetnsState::Missing,
            _ => NetnsState::Container,
        }
    }
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

pub(super) const V4: &[&str] = &["10.1.0.0/24"];
