//! Events that the daemon records where it is the API server: in memory, and not for ever.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::shared::Shared;
use super::shelf::{ObjectChange, ObjectId, Shelf, id_of};
use super::{Registry, RegistryConfig, Resource};
use crate::clock::unix_seconds;
use crate::store::MemoryStore;

/// Seconds after its last occurrence for which an Event is kept (`--event-ttl` of the API server).
const TTL: u64 = 3_600;

/// So many are kept; beyond them the one goes that was seen last the longest ago.
const MAX_EVENTS: usize = 1_000;

impl Registry {
    /// Returns a registry of Events. Its versions go on from the time, so that a watch that began
    /// before a restart has to list again.
    #[must_use]
    pub fn of_events() -> Arc<Self> {
        let version = unix_seconds() * 1_000_000;
        let shared = Arc::new(Shared::new(Shelf::new(BTreeMap::new(), version)));
        let config = RegistryConfig {
            node_name: String::new(),
            service_cidrs: Vec::new(),
            node_ports: 0..=0,
        };
        // Nothing is kept in it that could be lost.
        let (_, losses) = watch::channel(Arc::default());
        let store = Arc::new(MemoryStore::default());
        Arc::new(Self::with(shared, store, config, None, losses))
    }

    /// Shows a new Event.
    pub fn put_event(&self, mut event: Value) {
        event["metadata"]["uid"] = json!(uuid::Uuid::new_v4().to_string());
        event["metadata"]["creationTimestamp"] = event["lastTimestamp"].clone();
        let id = id_of(Resource::Event, &event);
        let _writer = self.hold_writer();
        self.show_event(id, Some(event));
        let shelf = self.shared().shelf();
        let count = shelf.objects(Resource::Event, None).count();
        let oldest = shelf.objects(Resource::Event, None);
        let oldest = oldest.min_by_key(|(_, event)| last_seen(event));
        let oldest = oldest.filter(|_| count > MAX_EVENTS);
        let oldest = oldest.map(|(id, _)| id.clone());
        drop(shelf);
        if let Some(oldest) = oldest {
            self.show_event(oldest, None);
        }
    }

    /// Changes fields of an Event; returns false if it is not there.
    pub fn change_event(&self, namespace: &str, name: &str, fields: &Value) -> bool {
        let _writer = self.hold_writer();
        let Ok(event) = self.get(Resource::Event, namespace, name) else {
            return false;
        };
        let mut event = (*event).clone();
        for (field, value) in fields.as_object().into_iter().flatten() {
            event[field] = value.clone();
        }
        let id = (Resource::Event, namespace.to_owned(), name.to_owned());
        self.show_event(id, Some(event));
        true
    }

    /// Ends the Events whose time is over, in seconds since 1970.
    pub fn end_events(&self, now: u64) {
        let _writer = self.hold_writer();
        let shelf = self.shared().shelf();
        let all = shelf.objects(Resource::Event, None);
        let over = all.filter(|(_, event)| last_seen(event) + TTL <= now);
        let over: Vec<ObjectId> = over.map(|(id, _)| id.clone()).collect();
        drop(shelf);
        for id in over {
            self.show_event(id, None);
        }
    }

    /// The caller holds `writer`.
    fn show_event(&self, id: ObjectId, event: Option<Value>) {
        let mut shelf = self.shared().shelf_mut();
        let version = shelf.version() + 1;
        let event = event.map(|mut event| {
            event["metadata"]["resourceVersion"] = json!(version.to_string());
            Arc::new(event)
        });
        let change = ObjectChange {
            version,
            before: shelf.get(&id).cloned(),
            after: event,
            id,
        };
        shelf.apply(change);
        drop(shelf);
        self.shared().newest.send_replace(version);
    }
}

/// Returns when an Event was seen last, in seconds since 1970.
fn last_seen(event: &Value) -> u64 {
    let text = event["lastTimestamp"].as_str().unwrap_or_default();
    let time = text.parse::<Timestamp>().map_or(0, Timestamp::as_second);
    time.try_into().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objects::{Selection, WatchEvent, WatchOptions, timestamp};

    fn event(name: &str, seen: u64) -> Value {
        json!({"apiVersion": "v1", "kind": "Event", "reason": "Test", "count": 1,
            "metadata": {"name": name, "namespace": "shop"},
            "involvedObject": {"kind": "Pod", "name": name}, "lastTimestamp": timestamp(seen)})
    }

    fn names(registry: &Registry, fields: &str) -> Vec<String> {
        let selection = Selection {
            field_selector: fields.to_owned(),
            ..Selection::default()
        };
        let list = registry.list(Resource::Event, None, &selection).unwrap();
        let name = |event: &Arc<Value>| event["metadata"]["name"].as_str().unwrap().to_owned();
        list.items.iter().map(name).collect()
    }

    #[test]
    fn events_end_an_hour_after_they_were_seen_last_and_are_bounded() {
        let events = Registry::of_events();
        events.put_event(event("a", 1_000));
        events.put_event(event("b", 1_000));
        assert_eq!(names(&events, "involvedObject.name=b,reason=Test"), ["b"]);
        assert!(events.change_event("shop", "a", &json!({"lastTimestamp": timestamp(1_001)})));
        assert!(!events.change_event("shop", "none", &json!({})));
        events.end_events(4_599);
        assert_eq!(names(&events, ""), ["a", "b"]);
        events.end_events(4_600);
        assert_eq!(names(&events, ""), ["a"]);
        for number in 0..MAX_EVENTS {
            events.put_event(event(&format!("n{number}"), 2_000));
        }
        let left = names(&events, "");
        assert_eq!(left.len(), MAX_EVENTS);
        assert!(!left.contains(&"a".to_owned()), "it was seen first");
    }

    #[tokio::test]
    async fn a_watch_hears_of_events_as_they_count_up_and_end() {
        let events = Registry::of_events();
        let options = WatchOptions::default();
        let mut watch = events
            .watch(Resource::Event, Some("shop"), &options)
            .unwrap();
        events.put_event(event("a", 1_000));
        let Some(WatchEvent::Added(added)) = watch.next().await else {
            panic!("it is added");
        };
        events.change_event("shop", "a", &json!({"count": 2}));
        let Some(WatchEvent::Modified(counted)) = watch.next().await else {
            panic!("it counts up");
        };
        assert_eq!((&added["count"], &counted["count"]), (&json!(1), &json!(2)));
        assert_eq!(added["metadata"]["uid"], counted["metadata"]["uid"]);
        let version = |event: &Value| -> u64 {
            let text = event["metadata"]["resourceVersion"].as_str().unwrap();
            text.parse().unwrap()
        };
        assert_eq!(version(&added) + 1, version(&counted));
        events.end_events(10_000);
        assert!(matches!(watch.next().await, Some(WatchEvent::Deleted(_))));
    }
}
