//! What the store has lost closes what it may have opened.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::json;

use super::*;
use crate::clock;
use crate::objects::feed::ISOLATION;
use crate::objects::persist::key_of;
use crate::state::ClusterChange;
use crate::store::{Bucket, LogStore, Loss, ObjectsFrom, Store as _};

fn open_at(folder: &Path) -> (Arc<LogStore>, Arc<Registry>) {
    let store = Arc::new(LogStore::open(folder).unwrap());
    let registry = Registry::open(Arc::clone(&store) as SharedStore, config()).unwrap();
    (store, registry)
}

fn policy(name: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"podSelector": {}, "ingress": [{}]}})
}

/// Policies in force, by `namespace/name`.
fn apply(policies: &mut BTreeSet<String>, changes: Vec<ClusterChange>) {
    for change in changes {
        match change {
            ClusterChange::Policy(policy) => {
                policies.insert(policy.key.to_string());
            }
            ClusterChange::PolicyGone(key) => {
                policies.remove(&key.to_string());
            }
            _ => {}
        }
    }
}

/// A closed store: policies `a` and `b` in namespace `shop`, `c` in `bank`.
fn stored(folder: &Path) {
    let (_store, registry) = open_at(folder);
    for (namespace, policies) in [("shop", &["a", "b"][..]), ("bank", &["c"])] {
        let object = json!({"metadata": {"name": namespace}});
        let options = WriteOptions::default;
        registry
            .create(Resource::Namespace, "", object, options())
            .unwrap();
        for name in policies {
            registry
                .create(Resource::NetworkPolicy, namespace, policy(name), options())
                .unwrap();
        }
    }
}

/// Flips a bit of every copy of a text in the folder's files.
fn damage(folder: &Path, text: &str) {
    for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
        if !entry.file_type().unwrap().is_file() {
            continue;
        }
        let mut bytes = std::fs::read(entry.path()).unwrap();
        for at in 0..bytes.len() {
            if bytes[at..].starts_with(text.as_bytes()) {
                bytes[at] ^= 1;
            }
        }
        std::fs::write(entry.path(), bytes).unwrap();
    }
}

#[tokio::test]
async fn a_lost_policy_isolates_its_namespace_until_it_is_written_again() {
    let folder = tempfile::tempdir().unwrap();
    stored(folder.path());
    damage(folder.path(), "\"name\":\"b\"");
    let (_store, registry) = open_at(folder.path());
    let mut feed = feed(&registry);
    let mut policies = BTreeSet::new();
    apply(&mut policies, std::mem::take(&mut feed.initial));
    let isolated = format!("shop/{ISOLATION}");
    assert_eq!(
        policies,
        BTreeSet::from(["bank/c".to_owned(), isolated.clone()])
    );
    // Another policy of the namespace opens nothing.
    let options = WriteOptions::default;
    registry
        .create(Resource::NetworkPolicy, "shop", policy("d"), options())
        .unwrap();
    apply(&mut policies, feed.next().await.unwrap());
    assert!(
        policies.contains(&isolated) && !policies.contains("shop/d"),
        "{policies:?}"
    );
    registry
        .create(Resource::NetworkPolicy, "shop", policy("b"), options())
        .unwrap();
    apply(&mut policies, feed.next().await.unwrap());
    let all = ["bank/c", "shop/a", "shop/b", "shop/d"];
    assert_eq!(policies, all.map(str::to_owned).into());
}

/// Deletes what a store has written, and leaves that it was in use.
fn empty(folder: &Path) {
    for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
        if entry.file_name() != "lock" {
            std::fs::remove_file(entry.path()).unwrap();
        }
    }
}

#[tokio::test]
async fn a_node_of_a_cluster_that_may_have_lost_a_flow_isolates_all_until_it_is_accepted() {
    let folder = tempfile::tempdir().unwrap();
    stored(folder.path());
    empty(folder.path());
    let store = Arc::new(LogStore::open(folder.path()).unwrap());
    let listed = |name: &str| {
        let id = (Resource::NetworkPolicy, "shop".to_owned(), name.to_owned());
        let mut policy = policy(name);
        policy["metadata"]["namespace"] = json!("shop");
        (id, Some(policy))
    };
    let objects = [listed("a")].into_iter();
    let objects = objects.filter_map(|(id, object)| Some((id, Arc::new(object?))));
    let registry = Registry::mirror_of("http://hub", objects.collect(), config(), store.losses());
    let mut feed = feed(&registry);
    let mut policies = BTreeSet::new();
    apply(&mut policies, std::mem::take(&mut feed.initial));
    registry.mirror(vec![listed("b")], clock::instant());
    apply(&mut policies, feed.next().await.unwrap());
    assert_eq!(policies, BTreeSet::from([format!("shop/{ISOLATION}")]));
    store.accept_loss(None).unwrap();
    apply(&mut policies, feed.next().await.unwrap());
    assert_eq!(policies, ["shop/a", "shop/b"].map(str::to_owned).into());
}

#[tokio::test]
async fn a_loss_of_which_nothing_is_known_isolates_all_until_it_is_accepted() {
    let folder = tempfile::tempdir().unwrap();
    stored(folder.path());
    empty(folder.path());
    let (store, registry) = open_at(folder.path());
    assert_eq!(**store.losses().borrow(), [Loss::Everything]);
    let mut feed = feed(&registry);
    let mut policies = BTreeSet::new();
    apply(&mut policies, std::mem::take(&mut feed.initial));
    let object = json!({"metadata": {"name": "shop"}});
    registry
        .create(Resource::Namespace, "", object, WriteOptions::default())
        .unwrap();
    registry
        .create(
            Resource::NetworkPolicy,
            "shop",
            policy("a"),
            WriteOptions::default(),
        )
        .unwrap();
    apply(&mut policies, feed.next().await.unwrap());
    let isolated = ["default", "shop"].map(|namespace| format!("{namespace}/{ISOLATION}"));
    assert_eq!(policies, isolated.into());
    assert_eq!(store.accept_loss(None).unwrap(), [Loss::Everything]);
    apply(&mut policies, feed.next().await.unwrap());
    assert_eq!(policies, BTreeSet::from(["shop/a".to_owned()]));
}

#[test]
fn every_kind_that_policies_are_judged_by_closes_something_where_it_is_lost() {
    let harmless: Vec<&str> = RESOURCES
        .iter()
        .filter(|info| {
            let namespace = match info.scope {
                Scope::Cluster => "",
                Scope::Namespaced => "shop",
            };
            let id = (info.resource, namespace.to_owned(), "name".to_owned());
            let loss = Loss::Record {
                bucket: Bucket::Objects,
                key: String::from_utf8(key_of(&id)).unwrap(),
            };
            loss.consequence(ObjectsFrom::Store).is_none()
        })
        .map(|info| info.plural)
        .collect();
    let staged = [
        "stagedglobalnetworkpolicies",
        "stagednetworkpolicies",
        "stagedkubernetesnetworkpolicies",
    ];
    let of_nodes = ["hostendpoints"];
    assert_eq!(
        harmless,
        [&["services", "endpointslices"], &staged[..], &of_nodes].concat()
    );
}
