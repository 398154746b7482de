use serde_json::json;

use super::*;

const ALL: Watched = Watched::All(Resource::Pod);
const OWN: Watched = Watched::OwnPods;

fn seen(name: &str, uid: &str, version: u64) -> Seen {
    Seen {
        id: id(name),
        version,
        object: pod(uid, version),
    }
}

fn id(name: &str) -> ObjectId {
    (Resource::Pod, "default".to_owned(), name.to_owned())
}

/// A pod of this node; the version stands in it as a label, to tell states apart.
fn pod(uid: &str, version: u64) -> Value {
    json!({"metadata": {"uid": uid, "labels": {"v": version.to_string()}},
        "spec": {"nodeName": "node-a"}})
}

fn merge() -> Merge {
    Merge::new("node-a", &Objects::new())
}

fn shows(name: &str, uid: &str, version: u64) -> MirrorChange {
    (id(name), Some(pod(uid, version)))
}

fn gone(name: &str) -> MirrorChange {
    (id(name), None)
}

#[test]
fn an_object_that_both_watchers_tell_is_told_once() {
    let mut merge = merge();
    let first = merge.take(WatchReport::Present(OWN, seen("a", "u1", 5)));
    assert_eq!(first, [shows("a", "u1", 5)]);
    assert!(
        merge
            .take(WatchReport::Present(ALL, seen("a", "u1", 5)))
            .is_empty()
    );
    let second = merge.take(WatchReport::Present(ALL, seen("a", "u1", 6)));
    assert_eq!(second, [shows("a", "u1", 6)]);
    assert!(
        merge
            .take(WatchReport::Present(OWN, seen("a", "u1", 6)))
            .is_empty()
    );
}

#[test]
fn a_watcher_that_is_behind_takes_nothing_back() {
    let mut merge = merge();
    merge.take(WatchReport::Present(OWN, seen("a", "u1", 9)));
    for behind in [
        WatchReport::Present(ALL, seen("a", "u1", 7)),
        WatchReport::Gone(ALL, seen("a", "u0", 6)),
        // Its list is of a time before the pod.
        WatchReport::Listed(ALL, 4, Vec::new()),
    ] {
        assert_eq!(merge.take(behind.clone()), [], "{behind:?}");
    }
}

#[test]
fn a_pod_that_one_watcher_told_gone_does_not_come_back_through_the_other() {
    let mut merge = merge();
    merge.take(WatchReport::Present(OWN, seen("a", "u1", 5)));
    assert_eq!(
        merge.take(WatchReport::Gone(OWN, seen("a", "u1", 8))),
        [gone("a")]
    );
    assert_eq!(
        merge.take(WatchReport::Present(ALL, seen("a", "u1", 5))),
        []
    );
    assert_eq!(
        merge.take(WatchReport::Present(ALL, seen("a", "u1", 6))),
        []
    );
    assert_eq!(merge.take(WatchReport::Gone(ALL, seen("a", "u1", 8))), []);
    // The same name again is another pod, from whichever watcher it comes first.
    let again = merge.take(WatchReport::Present(ALL, seen("a", "u2", 9)));
    assert_eq!(again, [shows("a", "u2", 9)]);
}

#[test]
fn a_list_of_a_time_before_the_deletion_does_not_bring_the_pod_back() {
    let mut merge = merge();
    merge.take(WatchReport::Present(OWN, seen("a", "u1", 5)));
    merge.take(WatchReport::Gone(OWN, seen("a", "u1", 8)));
    let list = vec![seen("a", "u1", 5), seen("b", "u9", 6)];
    let changes = merge.take(WatchReport::Listed(ALL, 7, list));
    assert_eq!(changes, [shows("b", "u9", 6)]);
    assert_eq!(merge.take(WatchReport::Gone(ALL, seen("a", "u1", 8))), []);
}

#[test]
fn what_vanished_while_disconnected_is_told_gone() {
    let mut merge = merge();
    let list = vec![seen("a", "u1", 3), seen("b", "u2", 4)];
    merge.take(WatchReport::Listed(ALL, 5, list));
    let changes = merge.take(WatchReport::Listed(ALL, 20, vec![seen("b", "u2", 4)]));
    assert_eq!(changes, [gone("a"), shows("b", "u2", 4)]);
}

#[test]
fn a_pod_made_anew_under_its_name_while_disconnected_is_another_one() {
    let mut merge = merge();
    merge.take(WatchReport::Listed(ALL, 5, vec![seen("a", "u1", 3)]));
    let changes = merge.take(WatchReport::Listed(ALL, 20, vec![seen("a", "u2", 15)]));
    assert_eq!(changes, [gone("a"), shows("a", "u2", 15)]);
}

#[test]
fn the_list_of_own_pods_says_nothing_about_others() {
    let mut merge = merge();
    let mut other = seen("far", "u3", 4);
    other.object["spec"]["nodeName"] = json!("node-b");
    merge.take(WatchReport::Listed(ALL, 5, vec![seen("a", "u1", 3), other]));
    let changes = merge.take(WatchReport::Listed(OWN, 9, Vec::new()));
    assert_eq!(changes, [gone("a")]);
}

#[test]
fn what_is_known_from_the_last_run_stays_until_the_list_of_its_kind() {
    let known = [id("a"), id("b")].map(|id| (id, std::sync::Arc::new(pod("u1", 0))));
    let mut merge = Merge::new("node-a", &known.into());
    let namespaces = Watched::All(Resource::Namespace);
    assert_eq!(
        merge.take(WatchReport::Listed(namespaces, 9, Vec::new())),
        []
    );
    let changes = merge.take(WatchReport::Listed(ALL, 9, vec![seen("b", "u1", 8)]));
    assert_eq!(changes, [gone("a"), shows("b", "u1", 8)]);
}

#[test]
fn versions_that_begin_anew_are_believed() {
    let mut merge = merge();
    merge.take(WatchReport::Listed(OWN, 900, vec![seen("a", "u1", 890)]));
    merge.take(WatchReport::Listed(ALL, 900, vec![seen("a", "u1", 890)]));
    merge.take(WatchReport::Gone(OWN, seen("b", "u7", 901)));
    // The store behind the API server was restored.
    merge.take(WatchReport::Listed(ALL, 12, vec![seen("a", "u1", 10)]));
    let changes = merge.take(WatchReport::Listed(OWN, 12, vec![seen("a", "u1", 10)]));
    assert_eq!(changes, [shows("a", "u1", 10)]);
    let changes = merge.take(WatchReport::Present(ALL, seen("a", "u1", 13)));
    assert_eq!(changes, [shows("a", "u1", 13)]);
}

#[test]
fn everything_is_told_when_every_watcher_has_listed() {
    let mut merge = merge();
    for watched in WATCHED {
        assert!(!merge.is_synced());
        merge.take(WatchReport::Listed(watched, 1, Vec::new()));
    }
    assert!(merge.is_synced());
}
