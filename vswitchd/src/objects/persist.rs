//! Objects in the store: one record an object, key `plural/namespace/name`, and the newest version.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use super::shelf::{Change, Place};
use super::{RESOURCES, Resource};
use crate::store::{Bucket, Store, StoreError, Write};

const VERSION_KEY: &[u8] = b"objects/resource_version";

/// Reads all objects and the newest version. A record that cannot be understood is logged and
/// left where it is.
pub(super) fn load(store: &dyn Store) -> Result<(BTreeMap<Place, Arc<Value>>, u64), StoreError> {
    let mut objects = BTreeMap::new();
    let mut newest = 0;
    for (key, value) in store.scan(Bucket::Objects, b"")? {
        let object = serde_json::from_slice::<Value>(&value).ok();
        match place_of(&key).zip(object) {
            Some((place, object)) => {
                let version = object["metadata"]["resourceVersion"].as_str();
                newest = newest.max(version.and_then(|text| text.parse().ok()).unwrap_or(0));
                objects.insert(place, Arc::new(object));
            }
            None => {
                let key = String::from_utf8_lossy(&key).into_owned();
                tracing::error!(key, "stored object is not understood");
            }
        }
    }
    let stored = store.get(Bucket::Meta, VERSION_KEY)?;
    let stored = stored.and_then(|bytes| String::from_utf8(bytes).ok()?.parse().ok());
    Ok((objects, newest.max(stored.unwrap_or(0))))
}

/// Returns the batch that makes the changes durable.
pub(super) fn writes(changes: &[Change]) -> Vec<Write> {
    let mut batch: Vec<Write> = changes
        .iter()
        .map(|change| {
            let key = key_of(&change.place);
            match &change.after {
                Some(object) => Write::Put(Bucket::Objects, key, object.to_string().into_bytes()),
                None => Write::Delete(Bucket::Objects, key),
            }
        })
        .collect();
    if let Some(last) = changes.last() {
        let version = last.version.to_string().into_bytes();
        batch.push(Write::Put(Bucket::Meta, VERSION_KEY.to_vec(), version));
    }
    batch
}

fn key_of((resource, namespace, name): &Place) -> Vec<u8> {
    format!("{}/{namespace}/{name}", resource.info().plural).into_bytes()
}

fn place_of(key: &[u8]) -> Option<Place> {
    let mut parts = std::str::from_utf8(key).ok()?.splitn(3, '/');
    let plural = parts.next()?;
    let resource: Resource = RESOURCES
        .iter()
        .find(|info| info.plural == plural)?
        .resource;
    Some((resource, parts.next()?.to_owned(), parts.next()?.to_owned()))
}
