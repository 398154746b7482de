//! A world of attachments in memory: what was done to it, what is there, what shall fail.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use vswitch_api::{IfName, MacAddr, PortNo};

use crate::attach::{
    AttachDeps, AttachSettings, Attachments, Devices, Kind, NetnsProbe, NetnsState, PodDirectory,
    PodIdentity, Ports, Record, Step, StepError,
};
use crate::ipam::memory_store::MemoryStore;
use crate::ipam::{Delegate, Ipam, IpamConfig, LeaseOwner};
use crate::port::TapOffloads;

/// Everything around the service: what was done to it, what is there, what shall fail.
#[derive(Clone, Default)]
pub(crate) struct World(Arc<Inside>);

#[derive(Default)]
struct Inside {
    done: Mutex<Vec<String>>,
    seen: Mutex<Vec<String>>,
    /// A port that the switch has and nobody listed.
    occupied: AtomicU32,
    names_by_interface: AtomicBool,
    fails: Mutex<BTreeSet<&'static str>>,
    /// Interfaces by container and name.
    interfaces: Mutex<BTreeMap<String, IfName>>,
    shields: Mutex<BTreeSet<IfName>>,
    gone: Mutex<BTreeSet<PathBuf>>,
    store: Arc<MemoryStore>,
    now: AtomicU64,
    plugin_dirs: Mutex<Vec<PathBuf>>,
}

fn id(record: &Record) -> String {
    record.owner().to_string()
}

impl World {
    /// The attachments of this world, as a start of the daemon makes them.
    pub(crate) fn open(&self, cidrs: &[&str]) -> Attachments {
        let store = self.0.store.clone();
        let pod_cidrs = cidrs.iter().map(|cidr| cidr.parse().unwrap()).collect();
        let rest = Duration::from_secs(60);
        let ipam = Ipam::new(store.clone(), &IpamConfig { pod_cidrs, rest }).unwrap();
        let clock = self.clone();
        let deps = AttachDeps {
            devices: Box::new(self.clone()),
            ports: Box::new(self.clone()),
            pods: Box::new(self.clone()),
            netns: Box::new(self.clone()),
            store,
            ipam: Arc::new(ipam),
            delegate: Delegate {
                plugin_dirs: self.0.plugin_dirs.lock().unwrap().clone(),
                timeout: Duration::from_secs(5),
            },
            unix_seconds: Box::new(move || clock.0.now.load(Ordering::SeqCst)),
        };
        let settings = AttachSettings {
            default_mtu: 1450,
            port_numbers: 100..=60_000,
        };
        Attachments::open(deps, settings).unwrap()
    }

    pub(crate) fn allow_plugins_in(&self, dir: &Path) {
        self.0.plugin_dirs.lock().unwrap().push(dir.to_path_buf());
    }

    pub(crate) fn store(&self) -> &MemoryStore {
        &self.0.store
    }

    pub(crate) fn fail(&self, step: &'static str) {
        self.0.fails.lock().unwrap().insert(step);
    }

    pub(crate) fn heal(&self) {
        self.0.fails.lock().unwrap().clear();
        self.0.store.set_failing(false);
    }

    pub(crate) fn lose_interface(&self, id: &str) {
        assert!(self.0.interfaces.lock().unwrap().remove(id).is_some());
    }

    pub(crate) fn shields(&self) -> BTreeSet<IfName> {
        self.0.shields.lock().unwrap().clone()
    }

    pub(crate) fn lose_shield(&self, ifname: &str) {
        let ifname = ifname.parse().unwrap();
        assert!(self.0.shields.lock().unwrap().remove(&ifname));
    }

    pub(crate) fn put_interface(&self, id: &str, host_ifname: &str) {
        let host_ifname = host_ifname.parse().unwrap();
        let mut interfaces = self.0.interfaces.lock().unwrap();
        interfaces.insert(id.to_owned(), host_ifname);
    }

    pub(crate) fn occupy(&self, number: u32) {
        self.0.occupied.store(number, Ordering::SeqCst);
    }

    pub(crate) fn name_by_interface(&self) {
        self.0.names_by_interface.store(true, Ordering::SeqCst);
    }

    /// Everything that was ever done.
    pub(crate) fn seen(&self) -> Vec<String> {
        self.0.seen.lock().unwrap().clone()
    }

    pub(crate) fn pass(&self, seconds: u64) {
        self.0.now.fetch_add(seconds, Ordering::SeqCst);
    }

    pub(crate) fn lose_netns(&self, path: &str) {
        self.0.gone.lock().unwrap().insert(path.into());
    }

    /// What was done since the last call.
    pub(crate) fn done(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.done.lock().unwrap())
    }

    fn is_failing(&self, step: &'static str) -> bool {
        self.0.fails.lock().unwrap().contains(step)
    }

    fn step(&self, step: &'static str, record: &Record) -> Result<(), StepError> {
        let done = format!("{step} {}", id(record));
        self.0.seen.lock().unwrap().push(done.clone());
        self.0.done.lock().unwrap().push(done);
        if self.is_failing(step) {
            Err(StepError::new(format!("{step} refused")))
        } else {
            Ok(())
        }
    }
}

impl Devices for World {
    fn host_ifname(&self, container_id: &str, ifname: &IfName) -> IfName {
        if self.0.names_by_interface.load(Ordering::SeqCst) {
            return format!("vsw-{ifname}").parse().unwrap();
        }
        format!("vsw-{container_id:.11}").parse().unwrap()
    }

    fn container_mac(&self, _container_id: &str, _ifname: &IfName) -> MacAddr {
        MacAddr([2, 0, 0, 0, 0, 9])
    }

    fn find_tap<'a>(&'a self, _ifname: &'a IfName) -> Step<'a, bool> {
        Box::pin(async { Ok(false) })
    }

    fn create<'a>(&'a self, record: &'a Record) -> Step<'a> {
        Box::pin(async move {
            let routes = &record.plan.routes;
            assert!(routes.iter().all(|route| route.gw.is_some()));
            tokio::task::yield_now().await;
            self.step("create", record)?;
            if record.kind == Kind::Pod {
                let shields = &self.0.shields;
                shields.lock().unwrap().insert(record.host_ifname().clone());
            }
            if self.is_failing("create hangs") {
                std::future::pending::<()>().await;
            }
            if record.kind != Kind::Pod {
                return Ok(());
            }
            let mut interfaces = self.0.interfaces.lock().unwrap();
            let host_end = record.host_ifname().clone();
            assert!(
                interfaces.insert(id(record), host_end).is_none(),
                "made twice"
            );
            Ok(())
        })
    }

    fn remove<'a>(&'a self, record: &'a Record) -> Step<'a> {
        Box::pin(async move {
            self.step("remove", record)?;
            self.0.interfaces.lock().unwrap().remove(&id(record));
            self.0.shields.lock().unwrap().remove(record.host_ifname());
            Ok(())
        })
    }

    fn check<'a>(&'a self, record: &'a Record) -> Step<'a> {
        Box::pin(async move {
            if self.0.interfaces.lock().unwrap().contains_key(&id(record)) {
                return Ok(());
            }
            Err(StepError::new("interface is gone"))
        })
    }

    fn present(&self) -> Step<'_, BTreeSet<IfName>> {
        let present = self
            .0
            .interfaces
            .lock()
            .unwrap()
            .values()
            .cloned()
            .collect();
        Box::pin(async { Ok(present) })
    }

    fn shield_only<'a>(&'a self, ifnames: &'a [IfName]) -> Step<'a> {
        *self.0.shields.lock().unwrap() = ifnames.iter().cloned().collect();
        Box::pin(async { Ok(()) })
    }

    fn shield_also<'a>(&'a self, ifnames: &'a [IfName]) -> Step<'a> {
        self.0
            .shields
            .lock()
            .unwrap()
            .extend(ifnames.iter().cloned());
        Box::pin(async { Ok(()) })
    }

    fn shielded(&self) -> Step<'_, BTreeSet<IfName>> {
        let shielded = self.shields();
        Box::pin(async { Ok(shielded) })
    }
}

impl Ports for World {
    fn enforce<'a>(&'a self, _record: &'a Record, _is_again: bool) -> Step<'a> {
        Box::pin(async { Ok(()) })
    }

    fn forward<'a>(&'a self, record: &'a Record) -> Step<'a, Option<TapOffloads>> {
        Box::pin(async move {
            if self.is_failing("store after attach") {
                self.0.store.set_failing(true);
            }
            if self.is_failing("attach later") {
                return Err(StepError::new("no rules yet").retry_later());
            }
            self.step("attach", record).map(|()| None)
        })
    }

    fn detach<'a>(&'a self, record: &'a Record) -> Step<'a> {
        Box::pin(async move { self.step("detach", record) })
    }

    fn check<'a>(&'a self, _record: &'a Record) -> Step<'a> {
        Box::pin(async {
            if self.is_failing("port check") {
                Err(StepError::new("port is down"))
            } else {
                Ok(())
            }
        })
    }

    fn ready(&self) -> Step<'_> {
        Box::pin(async {
            if self.is_failing("ready") {
                Err(StepError::new("no rules yet").retry_later())
            } else {
                Ok(())
            }
        })
    }

    fn is_live(&self, no: PortNo) -> bool {
        no.0 == self.0.occupied.load(Ordering::SeqCst)
    }
}

impl PodDirectory for World {
    fn expect<'a>(&'a self, _pod: &'a PodIdentity) -> Step<'a> {
        Box::pin(async {
            if self.is_failing("expect") {
                return Err(StepError::new("pod is not known").retry_later());
            }
            Ok(())
        })
    }

    fn declare<'a>(&'a self, record: &'a Record) -> Step<'a> {
        Box::pin(async move { self.step("declare", record) })
    }

    fn retract<'a>(&'a self, record: &'a Record) -> Step<'a> {
        Box::pin(async move { self.step("retract", record) })
    }

    fn check<'a>(&'a self, _record: &'a Record) -> Step<'a> {
        Box::pin(async {
            if self.is_failing("pod check") {
                return Err(StepError::new("there is no Pod object"));
            }
            Ok(())
        })
    }

    fn retain<'a>(&'a self, _owners: &'a BTreeSet<LeaseOwner>) -> Step<'a> {
        Box::pin(async { Ok(()) })
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

pub(crate) const V4: &[&str] = &["10.1.0.0/24"];
