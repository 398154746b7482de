//! The registry: reads, writes and watches.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use super::{Resource, StatusError};
use crate::store::{SharedStore, StoreError};

/// What the registry needs to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegistryConfig {
    /// spec.nodeName of pods that name none.
    pub node_name: String,
}

/// Which objects a list or watch is about; selectors in the API's text form, empty for all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selection {
    /// labelSelector.
    pub label_selector: String,
    /// fieldSelector.
    pub field_selector: String,
}

/// A page of objects.
#[derive(Debug, Clone, PartialEq)]
pub struct ObjectList {
    /// The objects.
    pub items: Vec<Arc<Value>>,
    /// Collection's resourceVersion.
    pub resource_version: u64,
}

/// What to do with fields that the schema does not have (query parameter fieldValidation).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[expect(missing_docs, reason = "the names are the API's")]
pub enum FieldValidation {
    Ignore,
    #[default]
    Warn,
    Strict,
}

/// Options of a write.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WriteOptions {
    /// fieldValidation.
    pub field_validation: FieldValidation,
    /// dryRun=All: validate, answer, store nothing.
    pub dry_run: bool,
    /// The request goes to `/status`.
    pub status: bool,
}

/// A write's answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Written {
    /// The object as stored.
    pub object: Arc<Value>,
    /// Texts for Warning headers.
    pub warnings: Vec<String>,
    /// Whether it was created.
    pub created: bool,
}

/// Kinds of patch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are the API's")]
pub enum PatchKind {
    Json,
    Merge,
    StrategicMerge,
    Apply,
}

/// Options of a delete (meta/v1 DeleteOptions).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeleteOptions {
    /// preconditions.uid.
    pub uid: Option<String>,
    /// preconditions.resourceVersion.
    pub resource_version: Option<String>,
    /// dryRun=All.
    pub dry_run: bool,
}

/// Options of a watch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WatchOptions {
    /// Which objects.
    pub selection: Selection,
    /// resourceVersion; `None` (absent) or 0 begins with the objects that exist, as ADDED.
    pub resource_version: Option<u64>,
    /// allowWatchBookmarks.
    pub bookmarks: bool,
    /// sendInitialEvents: existing objects as ADDED, then a bookmark with the annotation
    /// `k8s.io/initial-events-end: "true"`.
    pub send_initial_events: bool,
}

/// A change as a watch reports it.
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs, reason = "the names are the API's")]
pub enum WatchEvent {
    Added(Arc<Value>),
    Modified(Arc<Value>),
    Deleted(Arc<Value>),
    /// An object of the watched kind with nothing but its resourceVersion.
    Bookmark(Arc<Value>),
    /// A `Status`, after which the watch ends (410 when the reader fell too far behind).
    Error(StatusError),
}

/// A running watch.
#[derive(Debug)]
pub struct Watch {
    _private: (),
}

impl Watch {
    /// Waits for the next event; `None` when the watch has ended. Cancel safe.
    pub async fn next(&mut self) -> Option<WatchEvent> {
        unimplemented!()
    }
}

/// The standalone API server's core. Reads are cheap; writes block until durable.
#[derive(Debug)]
pub struct Registry {
    _private: (),
}

impl Registry {
    /// Loads everything from the store. Blocks.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn open(_store: SharedStore, _config: RegistryConfig) -> Result<Arc<Self>, StoreError> {
        unimplemented!()
    }

    /// Gets one object.
    ///
    /// # Errors
    /// 404.
    pub fn get(&self, _r: Resource, _ns: &str, _name: &str) -> Result<Arc<Value>, StatusError> {
        unimplemented!()
    }

    /// Lists objects; `namespace` `None` means all.
    ///
    /// # Errors
    /// 400 for a bad selector.
    pub fn list(
        &self,
        _r: Resource,
        _ns: Option<&str>,
        _selection: &Selection,
    ) -> Result<ObjectList, StatusError> {
        unimplemented!()
    }

    /// Creates an object (namespace is empty for cluster-scoped resources). Blocks.
    ///
    /// # Errors
    /// 400, 404 (namespace), 409, 422, 500.
    pub fn create(
        &self,
        _r: Resource,
        _ns: &str,
        _object: Value,
        _options: WriteOptions,
    ) -> Result<Written, StatusError> {
        unimplemented!()
    }

    /// Replaces an object. Blocks.
    ///
    /// # Errors
    /// As create, and 404.
    pub fn update(
        &self,
        _r: Resource,
        _ns: &str,
        _name: &str,
        _object: Value,
        _options: WriteOptions,
    ) -> Result<Written, StatusError> {
        unimplemented!()
    }

    /// Patches an object; [`PatchKind::Apply`] creates what is missing. Blocks.
    ///
    /// # Errors
    /// As update.
    pub fn patch(
        &self,
        _r: Resource,
        _ns: &str,
        _name: &str,
        _kind: PatchKind,
        _patch: Value,
        _options: WriteOptions,
    ) -> Result<Written, StatusError> {
        unimplemented!()
    }

    /// Deletes an object; returns it as it last was. Blocks.
    ///
    /// # Errors
    /// 403 (namespace default), 404, 409.
    pub fn delete(
        &self,
        _r: Resource,
        _ns: &str,
        _name: &str,
        _options: &DeleteOptions,
    ) -> Result<Arc<Value>, StatusError> {
        unimplemented!()
    }

    /// Starts a watch.
    ///
    /// # Errors
    /// 400 for a bad selector, 410 for a resourceVersion that is no longer in the window.
    pub fn watch(
        &self,
        _r: Resource,
        _ns: Option<&str>,
        _options: WatchOptions,
    ) -> Result<Watch, StatusError> {
        unimplemented!()
    }

    /// Makes a pod known under its addresses (CNI ADD): fills status.podIP, podIPs, hostIP,
    /// phase Running and a Ready condition of a declared Pod, or creates the Pod with these
    /// labels. Returns whether it created the object. Creates the namespace if it is missing. Blocks.
    ///
    /// # Errors
    /// As create.
    pub fn declare_pod(
        &self,
        _ns: &str,
        _name: &str,
        _uid: Option<&str>,
        _labels: &BTreeMap<String, String>,
        _ips: &[std::net::IpAddr],
    ) -> Result<bool, StatusError> {
        unimplemented!()
    }

    /// Takes the addresses out of a pod's status (phase Pending), or deletes the object. Blocks.
    /// An absent pod is no error.
    ///
    /// # Errors
    /// 500 if the store fails.
    pub fn retract_pod(&self, _ns: &str, _name: &str, _delete: bool) -> Result<(), StatusError> {
        unimplemented!()
    }
}
