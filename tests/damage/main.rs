//! Damages the files of a store in every way that a disk or a person may, and looks at what a
//! start makes of it: everything is there, or what is missing is named and what it may have
//! opened is closed, or the start says why it does not go on. Never silently less.
//!
//! `VSWITCH_DAMAGE=full` damages 2,000 places and cuts to 200 lengths (`make test-damage`).

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use vswitchd::ipam::{Ipam, IpamConfig, LeaseOwner};
use vswitchd::objects::{Registry, RegistryConfig, Resource, WriteOptions, feed};
use vswitchd::state::ClusterChange;
use vswitchd::store::{Bucket, LogStore, SharedStore, Write};

/// How much is damaged.
struct Extent {
    flips: usize,
    cuts: usize,
    everywhere: usize,
}

const SMALL: Extent = Extent {
    flips: 300,
    cuts: 60,
    everywhere: 60,
};
const FULL: Extent = Extent {
    flips: 2_000,
    cuts: 200,
    everywhere: 600,
};

type Files = BTreeMap<String, Vec<u8>>;

/// What rules are compiled from, by namespace: policies, pods and labels; and the leases.
#[derive(Debug, Default, PartialEq)]
struct View {
    namespaces: BTreeMap<String, BTreeMap<String, String>>,
    leases: BTreeSet<IpAddr>,
}

fn settings() -> RegistryConfig {
    RegistryConfig {
        node_name: "node-a".to_owned(),
        service_cidrs: vec!["10.96.0.0/16".parse().unwrap()],
        node_ports: 30000..=32767,
    }
}

fn ipam(store: &SharedStore) -> Ipam {
    let config = IpamConfig {
        pod_cidrs: vec!["10.244.0.0/24".parse().unwrap()],
        rest: Duration::from_secs(120),
    };
    Ipam::new(Arc::clone(store), &config).unwrap()
}

fn owner(name: &str) -> LeaseOwner {
    LeaseOwner {
        container_id: name.to_owned(),
        ifname: "eth0".parse().unwrap(),
    }
}

fn open(folder: &Path) -> Result<(SharedStore, Arc<Registry>), String> {
    let store = LogStore::open(folder).map_err(|error| error.to_string())?;
    let store: SharedStore = Arc::new(store);
    let registry = Registry::open(Arc::clone(&store), settings());
    Ok((store, registry.map_err(|error| error.to_string())?))
}

fn view(store: &SharedStore, registry: &Registry) -> View {
    let mut view = View::default();
    let mut note = |namespace: &str, key: String, value: String| {
        let namespace = view.namespaces.entry(namespace.to_owned()).or_default();
        namespace.insert(key, value);
    };
    for change in feed(registry).initial {
        match change {
            ClusterChange::Policy(policy) => {
                let spec = format!("{:?}", policy.spec);
                note(
                    &policy.key.namespace,
                    format!("policy {}", policy.key.name),
                    spec,
                );
            }
            ClusterChange::Pod(pod) => {
                let text = format!("{pod:?}");
                note(&pod.key.namespace, format!("pod {}", pod.key.name), text);
            }
            ClusterChange::Namespace(namespace) => {
                note(
                    &namespace.name,
                    "labels".to_owned(),
                    format!("{:?}", namespace.labels),
                );
            }
            _ => {}
        }
    }
    view.leases = ipam(store)
        .leases()
        .iter()
        .map(|lease| lease.address)
        .collect();
    view
}

/// One sitting of a daemon that writes records of every kind.
fn write(folder: &Path, sitting: usize) {
    let (store, registry) = open(folder).unwrap();
    let ipam = ipam(&store);
    let create = |resource, namespace: &str, object: Value| {
        registry
            .create(resource, namespace, object, WriteOptions::default())
            .unwrap();
    };
    for number in 0..4 {
        let namespace = format!("team-{sitting}-{number}");
        let labels = json!({"team": namespace});
        create(
            Resource::Namespace,
            "",
            json!({"metadata": {"name": namespace, "labels": labels}}),
        );
        for name in ["client", "server"] {
            let pod = json!({"metadata": {"name": name, "labels": {"app": name}},
                "spec": {"containers": [{"name": "c", "image": "i"}]}});
            create(Resource::Pod, &namespace, pod);
            let holder = owner(&format!("{namespace}-{name}"));
            ipam.allocate(&holder, &[], 0).unwrap();
            let record = json!({"container": holder.container_id})
                .to_string()
                .into_bytes();
            let key = holder.to_string().into_bytes();
            store
                .commit(vec![Write::Put(Bucket::Attachments, key, record)])
                .unwrap();
        }
        for name in ["deny", "admit"] {
            let policy = json!({"metadata": {"name": name}, "spec": {
                "podSelector": {"matchLabels": {"app": "server"}},
                "ingress": [{"from": [{"podSelector": {"matchLabels": {"admitted-by": name}}}]}]}});
            create(Resource::NetworkPolicy, &namespace, policy);
        }
        let service = json!({"metadata": {"name": "web"},
            "spec": {"selector": {"app": "server"}, "ports": [{"port": 80}]}});
        create(Resource::Service, &namespace, service);
    }
    let flow = json!({"name": "f", "priority": 1, "match": "tcp", "actions": "drop"});
    let key = format!("f{sitting}").into_bytes();
    store
        .commit(vec![Write::Put(
            Bucket::AdminFlows,
            key,
            flow.to_string().into_bytes(),
        )])
        .unwrap();
}

fn read(folder: &Path) -> Files {
    let entries = fs::read_dir(folder).unwrap().map(Result::unwrap);
    let entries = entries.filter(|entry| entry.file_type().unwrap().is_file());
    let named = entries.map(|entry| {
        let name = entry.file_name().into_string().unwrap();
        (name, fs::read(entry.path()).unwrap())
    });
    named.collect()
}

/// In memory where that is possible: what is damaged here is not the disk.
fn folder() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let builder = tempfile::Builder::new();
    if memory.is_dir() {
        builder.tempdir_in(memory).unwrap()
    } else {
        builder.tempdir().unwrap()
    }
}

#[derive(Debug, Default)]
struct Outcomes {
    whole: usize,
    named_and_closed: usize,
    refused: usize,
}

struct Judge {
    original: Files,
    expected: View,
    outcomes: Outcomes,
}

impl Judge {
    /// Starts on these files and judges what comes of it. `is_single` says that one file is
    /// damaged: then nothing may be lost.
    fn start(&mut self, what: &str, is_single: bool, files: &Files) {
        let folder = folder();
        for (name, bytes) in files {
            fs::write(folder.path().join(name), bytes).unwrap();
        }
        let (store, registry) = match open(folder.path()) {
            Ok(opened) => opened,
            Err(sentence) => {
                assert!(sentence.len() > 10, "{what}: {sentence:?}");
                self.outcomes.refused += 1;
                return;
            }
        };
        let found = view(&store, &registry);
        let losses = store.losses().borrow().to_vec();
        if losses.is_empty() {
            assert_eq!(found, self.expected, "{what}: silently less");
            self.outcomes.whole += 1;
        } else {
            assert!(!is_single, "{what}: {losses:?}");
            self.check_closed(what, &found);
            self.outcomes.named_and_closed += 1;
        }
        if let Ok(granted) = ipam(&store).allocate(&owner("new"), &[], 10) {
            let again = granted
                .iter()
                .find(|net| self.expected.leases.contains(&net.addr()));
            assert_eq!(again, None, "{what}: an address twice");
        }
    }

    /// Every namespace of which something differs is isolated.
    fn check_closed(&self, what: &str, found: &View) {
        for (name, namespace) in &found.namespaces {
            let policies: Vec<&String> = namespace
                .keys()
                .filter(|key| key.starts_with("policy "))
                .collect();
            let is_isolated =
                matches!(policies[..], [only] if only.starts_with("policy isolated:"));
            let is_as_before = self.expected.namespaces.get(name) == Some(namespace);
            assert!(
                is_isolated || is_as_before,
                "{what}: {name} is open: {namespace:?}"
            );
        }
    }

    fn with(&mut self, what: &str, is_single: bool, damage: impl FnOnce(&mut Files)) {
        let mut files = self.original.clone();
        damage(&mut files);
        self.start(what, is_single, &files);
    }
}

fn evenly(length: usize, count: usize) -> impl Iterator<Item = usize> {
    (0..count.min(length)).map(move |number| number * length / count.min(length))
}

#[test]
fn a_damaged_store_is_whole_again_or_says_what_is_lost_and_closes() {
    let extent = match std::env::var("VSWITCH_DAMAGE").as_deref() {
        Ok("full") => FULL,
        _ => SMALL,
    };
    let home = folder();
    for sitting in 0..3 {
        write(home.path(), sitting);
    }
    let original = read(home.path());
    let (store, registry) = open(home.path()).unwrap();
    let mut judge = Judge {
        expected: view(&store, &registry),
        original: original.clone(),
        outcomes: Outcomes::default(),
    };
    drop((store, registry));
    assert_eq!(judge.expected.leases.len(), 24);
    judge.with("untouched", true, |_| {});

    let bytes: usize = original.values().map(Vec::len).sum();
    let place = |mut at: usize| {
        for (name, content) in &original {
            if at < content.len() {
                return (name.clone(), at);
            }
            at -= content.len();
        }
        unreachable!("the place is below the sum")
    };
    for (number, at) in evenly(bytes, extent.flips).enumerate() {
        let (name, at) = place(at);
        let bit = 1 << (number % 8);
        judge.with(&format!("{name} flipped at {at}"), true, |files| {
            files.get_mut(&name).unwrap()[at] ^= bit;
        });
    }
    for at in evenly(bytes, extent.cuts) {
        let (name, at) = place(at);
        judge.with(&format!("{name} cut to {at}"), true, |files| {
            files.get_mut(&name).unwrap().truncate(at);
        });
    }
    for (name, content) in &original {
        judge.with(&format!("{name} deleted"), true, |files| {
            drop(files.remove(name))
        });
        judge.with(&format!("{name} begins with garbage"), true, |files| {
            let content = files.get_mut(name).unwrap();
            content.iter_mut().take(100).for_each(|byte| *byte = 0xa5);
        });
        for (other, others) in original.range(name.clone()..).skip(1) {
            judge.with(&format!("{name} and {other} swapped"), true, |files| {
                files.insert(name.clone(), others.clone());
                files.insert(other.clone(), content.clone());
            });
        }
    }

    // The same place in every copy: what a disk that lies, or a bad program, may do.
    let logs: Vec<&Vec<u8>> = original
        .iter()
        .filter(|(name, _)| name.ends_with(".a"))
        .map(|(_, content)| content)
        .collect();
    for log in logs {
        for at in evenly(log.len(), extent.everywhere / 3) {
            let piece = &log[at..(at + 24).min(log.len())];
            judge.with(&format!("{piece:?} damaged everywhere"), false, |files| {
                for content in files.values_mut() {
                    for from in 0..content.len() {
                        if content[from..].starts_with(piece) {
                            content[from] ^= 0x10;
                        }
                    }
                }
            });
        }
    }
    for prefix in ["log-", "snapshot-", "head", ""] {
        let is_meant = |name: &str| name.starts_with(prefix) && name != "lock";
        judge.with(&format!("all of {prefix:?} deleted"), false, |files| {
            files.retain(|name, _| !is_meant(name));
        });
        for keep in [0, 1, 44, 100, 1_000] {
            judge.with(
                &format!("all of {prefix:?} cut to {keep}"),
                false,
                |files| {
                    let meant = files.iter_mut().filter(|(name, _)| is_meant(name));
                    meant.for_each(|(_, content)| content.truncate(keep));
                },
            );
        }
    }
    let Outcomes {
        whole,
        named_and_closed,
        refused,
    } = judge.outcomes;
    assert!(
        named_and_closed > 0,
        "nothing was ever lost: the damage does not reach"
    );
    let starts = whole + named_and_closed + refused;
    println!(
        "damage: {starts} starts: {whole} with everything there, {named_and_closed} with the loss \
         named and closed, {refused} refused with a sentence, 0 silently less"
    );
}
