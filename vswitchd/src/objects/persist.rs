//! Objects in the store: one record an object, key `plural/namespace/name`, and the newest version.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use super::shelf::{ObjectChange, ObjectId};
use super::{RESOURCES, Resource};
use crate::store::{Bucket, Store, StoreError, Write};

const VERSION_KEY: &[u8] = b"objects/resource_version";

/// Reads all objects. A record that cannot be understood is logged and left where it is.
pub(super) fn load(
    store: &dyn Store,
    bucket: Bucket,
) -> Result<BTreeMap<ObjectId, Arc<Value>>, StoreError> {
    let mut objects = BTreeMap::new();
    for (key, value) in store.scan(bucket, b"")? {
        let object = serde_json::from_slice::<Value>(&value).ok();
        match id_of(&key).zip(object) {
            Some((id, object)) => {
                objects.insert(id, Arc::new(object));
            }
            None => {
                let key = String::from_utf8_lossy(&key).into_owned();
                tracing::error!(key, "parsing a stored object failed; it is left out");
            }
        }
    }
    Ok(objects)
}

/// Returns the version of the newest change.
pub(super) fn newest_version(
    store: &dyn Store,
    objects: &BTreeMap<ObjectId, Arc<Value>>,
) -> Result<u64, StoreError> {
    let version = |object: &Arc<Value>| -> Option<u64> {
        object["metadata"]["resourceVersion"].as_str()?.parse().ok()
    };
    let newest = objects.values().filter_map(version).max().unwrap_or(0);
    let stored = store.get(Bucket::Meta, VERSION_KEY)?;
    let stored = stored.and_then(|bytes| String::from_utf8(bytes).ok()?.parse().ok());
    Ok(newest.max(stored.unwrap_or(0)))
}

/// Returns the write that makes the state of an object durable.
pub(super) fn write(bucket: Bucket, id: &ObjectId, object: Option<&Value>) -> Write {
    let key = key_of(id);
    match object {
        Some(object) => Write::Put(bucket, key, object.to_string().into_bytes()),
        None => Write::Delete(bucket, key),
    }
}

/// Returns the batch that makes the changes durable.
pub(super) fn writes(changes: &[ObjectChange]) -> Vec<Write> {
    let mut batch: Vec<Write> = changes
        .iter()
        .map(|change| write(Bucket::Objects, &change.id, change.after.as_deref()))
        .collect();
    if let Some(last) = changes.last() {
        let version = last.version.to_string().into_bytes();
        batch.push(Write::Put(Bucket::Meta, VERSION_KEY.to_vec(), version));
    }
    batch
}

pub(in crate::objects) fn key_of((resource, namespace, name): &ObjectId) -> Vec<u8> {
    format!("{}/{namespace}/{name}", resource.info().unique_name()).into_bytes()
}

fn id_of(key: &[u8]) -> Option<ObjectId> {
    let mut parts = std::str::from_utf8(key).ok()?.splitn(3, '/');
    let plural = parts.next()?;
    let resource: Resource = RESOURCES
        .iter()
        .find(|info| info.unique_name() == plural)?
        .resource;
    Some((resource, parts.next()?.to_owned(), parts.next()?.to_owned()))
}
