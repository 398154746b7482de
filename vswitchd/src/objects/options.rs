//! Parameters and results of calls to the registry: selections, options, answers.

use std::ops::RangeInclusive;
use std::sync::Arc;

use ipnet::IpNet;
use serde_json::Value;

/// What the registry needs to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegistryConfig {
    /// spec.nodeName of pods that name none, and the name of the node's own object.
    pub node_name: String,
    /// ClusterIPs are given out from these; the family of the first is the default one.
    pub service_cidrs: Vec<IpNet>,
    /// NodePorts are given out from these.
    pub node_ports: RangeInclusive<u16>,
}

/// Which objects a list or watch is about; selectors in the API's text form, empty for all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selection {
    /// labelSelector.
    pub label_selector: String,
    /// fieldSelector.
    pub field_selector: String,
}

/// Objects of a list.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ObjectList {
    /// The objects.
    pub items: Vec<Arc<Value>>,
    /// Collection's resourceVersion.
    pub resource_version: u64,
    /// Where the next page begins, if this is not the last.
    pub next: Option<PageStart>,
    /// How many come after this page; `None` for the last, and where a selector chose, for which
    /// Kubernetes does not count (meta/v1 ListMeta.remainingItemCount).
    pub remaining: Option<usize>,
}

/// Which part of a list is wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    /// limit; 0 for all that is left.
    pub limit: usize,
    /// continue; `None` for the first page.
    pub start: Option<PageStart>,
}

/// Where a page begins. All pages of a list show the objects of one version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageStart {
    /// The version.
    pub version: u64,
    /// Namespace and name of the last object of the page before.
    pub after: (String, String),
}

impl PageStart {
    /// Returns the text of the parameter `continue`.
    #[must_use]
    pub fn to_token(&self) -> String {
        let (namespace, name) = &self.after;
        format!("{}/{namespace}/{name}", self.version)
    }

    /// Understands what [`Self::to_token`] returned.
    #[must_use]
    pub fn from_token(token: &str) -> Option<Self> {
        let mut parts = token.splitn(3, '/');
        let version = parts.next()?.parse().ok()?;
        let (namespace, name) = (parts.next()?, parts.next()?);
        Some(Self {
            version,
            after: (namespace.to_owned(), name.to_owned()),
        })
    }
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
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WriteOptions {
    /// fieldValidation.
    pub field_validation: FieldValidation,
    /// dryRun=All: validate, answer, store nothing.
    pub dry_run: bool,
    /// The request goes to `/status`.
    pub status: bool,
    /// fieldManager: who owns what is written; empty for the daemon itself.
    pub manager: String,
    /// force of an applied configuration: takes over what other managers set.
    pub force: bool,
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
    /// sendInitialEvents: existing objects as ADDED, then a bookmark with the annotation
    /// `k8s.io/initial-events-end: "true"`.
    pub send_initial_events: bool,
}
