//! The registry: reads, writes and watches.
//!
//! Writers go one at a time: compute, commit to the store, then make visible and wake watches.
//! Readers see a consistent shelf. A write that changes nothing is none.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tokio::sync::watch;

use super::apply::{self, Applied};
use super::pods::{MadePod, PodMismatch};
use super::selectors::Selector;
use super::shared::Shared;
use super::shelf::{ObjectChange, ObjectId, Pending, Shelf};
use super::watch::{Scope as WatchScope, Watch, WatchEvent, bookmark};
use super::{
    DeleteOptions, ObjectList, Page, PageStart, PatchKind, RegistryConfig, Resource, ResourceInfo,
    Scope, Selection, StatusError, WatchOptions, WriteOptions, Written, endpoints, persist, pods,
    prepare, services,
};
use crate::clock;
use crate::errors;
use crate::store::{Bucket, Loss, ObjectsFrom, SharedStore, StoreError};

/// The standalone API server's core. Reads are cheap; writes block until durable.
#[derive(Debug)]
pub struct Registry {
    shared: Arc<Shared>,
    store: SharedStore,
    config: RegistryConfig,
    /// The API server that is mirrored; `None`: this registry is the one.
    pub(super) origin: Option<String>,
    /// What the node's store has lost.
    losses: watch::Receiver<Arc<Vec<Loss>>>,
    /// Held by a writer from reading the old object to showing the new one.
    pub(super) writer: Mutex<()>,
}

impl Registry {
    /// Loads everything from the store. Blocks.
    ///
    /// # Errors
    /// The store cannot be read or written.
    pub fn open(store: SharedStore, config: RegistryConfig) -> Result<Arc<Self>, StoreError> {
        let objects = persist::load(store.as_ref(), Bucket::Objects)?;
        let version = persist::newest_version(store.as_ref(), &objects)?;
        let shared = Arc::new(Shared::new(Shelf::new(objects, version)));
        let losses = store.losses();
        let registry = Arc::new(Self::with(shared, store, config, None, losses));
        // What is stored is in force even if the disk is full; the store says so itself.
        let completed = registry
            .ensure_own_objects()
            .and_then(|()| registry.complete_services());
        if let Err(error) = completed {
            let error = errors::chain(&error);
            tracing::error!(error, "completing the stored objects failed");
        }
        Ok(registry)
    }

    pub(super) const fn with(
        shared: Arc<Shared>,
        store: SharedStore,
        config: RegistryConfig,
        origin: Option<String>,
        losses: watch::Receiver<Arc<Vec<Loss>>>,
    ) -> Self {
        Self {
            shared,
            store,
            config,
            origin,
            losses,
            writer: Mutex::new(()),
        }
    }

    /// Namespace `default` and the node's own object are always there; the node is ready, or
    /// nobody would be here to say so.
    fn ensure_own_objects(&self) -> Result<(), StoreError> {
        let node = self.config.node_name.as_str();
        for (resource, name) in [(Resource::Namespace, "default"), (Resource::Node, node)] {
            let object = json!({"metadata": {"name": name}});
            match self.create(resource, "", object, WriteOptions::default()) {
                Ok(_) => {}
                Err(error) if error.code == 409 => {}
                Err(error) => {
                    return Err(StoreError::Commit {
                        source: Box::new(error),
                    });
                }
            }
        }
        let ready = json!({"status": {"conditions": [{"type": "Ready", "status": "True",
            "reason": "SwitchReady", "message": "vswitchd is running"}]}});
        let options = WriteOptions {
            status: true,
            ..WriteOptions::default()
        };
        self.patch(Resource::Node, "", node, PatchKind::Merge, &ready, options)
            .map(drop)
            .map_err(|error| StoreError::Commit {
                source: Box::new(error),
            })
    }

    /// Services that were stored before there was anything to give to them get it, and all have
    /// their slices.
    fn complete_services(&self) -> Result<(), StoreError> {
        let selection = Selection::default();
        let services = self.list(Resource::Service, None, &selection);
        for service in services.map_or_else(|_| Vec::new(), |list| list.items) {
            let metadata = &service["metadata"];
            let namespace = metadata["namespace"].as_str().unwrap_or_default();
            let name = name_of(&service);
            let object = (*service).clone();
            let options = WriteOptions::default();
            if let Err(error) = self.update(Resource::Service, namespace, &name, object, options) {
                tracing::warn!(namespace, name, %error, "completing a Service failed; it stays as it was stored");
            }
        }
        let _writer = self.hold_writer();
        let changes = endpoints::all(&self.shared.shelf());
        self.commit_all(self.versioned(Vec::new(), changes))
            .map_err(|error| StoreError::Commit {
                source: Box::new(error),
            })
    }

    /// Returns what the node's store has lost, now and later.
    pub(super) fn losses(&self) -> watch::Receiver<Arc<Vec<Loss>>> {
        self.losses.clone()
    }

    pub(super) const fn objects_from(&self) -> ObjectsFrom {
        match self.origin {
            Some(_) => ObjectsFrom::ApiServer,
            None => ObjectsFrom::Store,
        }
    }

    /// Returns the version of the newest change.
    #[must_use]
    pub fn current_version(&self) -> u64 {
        self.shared.shelf().version()
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    pub(super) fn wakeups(&self) -> watch::Receiver<u64> {
        self.shared.newest.subscribe()
    }

    /// Gets one object.
    ///
    /// # Errors
    /// 404.
    pub fn get(
        &self,
        resource: Resource,
        namespace: &str,
        name: &str,
    ) -> Result<Arc<Value>, StatusError> {
        let shelf = self.shared.shelf();
        let found = shelf.get(&id(resource, namespace, name)).cloned();
        found.ok_or_else(|| StatusError::not_found(resource.info(), name))
    }

    /// Lists objects; `namespace` `None` means all.
    ///
    /// # Errors
    /// 400 for a bad selector.
    pub fn list(
        &self,
        resource: Resource,
        namespace: Option<&str>,
        selection: &Selection,
    ) -> Result<ObjectList, StatusError> {
        self.list_page(resource, namespace, selection, &Page::default())
    }

    /// Lists a page of objects: that of the version at which the first one was asked for.
    ///
    /// # Errors
    /// 400 for a bad selector, 410 if that version is no longer in the window.
    pub fn list_page(
        &self,
        resource: Resource,
        namespace: Option<&str>,
        selection: &Selection,
        page: &Page,
    ) -> Result<ObjectList, StatusError> {
        let selector = Selector::parse(selection)?;
        let shelf = self.shared.shelf();
        let version = match &page.start {
            None => shelf.version(),
            Some(start) => start.version,
        };
        let most = match page.limit {
            0 => usize::MAX,
            limit => limit,
        };
        let is_counted = *selection == Selection::default();
        let mut items = Vec::new();
        let mut beyond = 0;
        let mut add = |object: &Arc<Value>| {
            if items.len() == most {
                beyond += usize::from(selector.matches(object));
            } else if selector.matches(object) {
                items.push(Arc::clone(object));
            }
            // One more than asked for tells that there are more, unless they are to be counted.
            beyond == 0 || is_counted
        };
        match &page.start {
            None => {
                let mut objects = shelf.objects(resource, namespace);
                objects.all(|(_, object)| add(object));
            }
            Some(start) => {
                let objects = shelf.objects_at(version, resource, namespace);
                let objects = objects.ok_or_else(|| StatusError::expired(version))?;
                let (namespace, name) = start.after.clone();
                let after = (resource, namespace, name);
                let mut objects = objects.into_iter().skip_while(|(id, _)| **id <= after);
                objects.all(|(_, object)| add(object));
            }
        }
        drop(shelf);
        let last = items.last().filter(|_| beyond > 0);
        let next = last.map(|last| {
            let text = |field: &str| {
                last["metadata"][field]
                    .as_str()
                    .unwrap_or_default()
                    .to_owned()
            };
            PageStart {
                version,
                after: (text("namespace"), text("name")),
            }
        });
        Ok(ObjectList {
            items,
            resource_version: version,
            next,
            remaining: (is_counted && beyond > 0).then_some(beyond),
        })
    }

    /// Starts a watch.
    ///
    /// # Errors
    /// 400 for a bad selector, 405 of a mirror, 410 for a resourceVersion that is no longer in
    /// the window, or not yet there: the store was replaced, and its reader knows another one.
    pub fn watch(
        &self,
        resource: Resource,
        namespace: Option<&str>,
        options: &WatchOptions,
    ) -> Result<Watch, StatusError> {
        self.own()?;
        let selector = Selector::parse(&options.selection)?;
        let scope = WatchScope {
            resource,
            namespace: namespace.map(str::to_owned),
            selector,
        };
        let wakeups = self.wakeups();
        let shelf = self.shared.shelf();
        let asked = options.resource_version.filter(|version| *version > 0);
        let mut pending = VecDeque::new();
        let start = match asked {
            Some(version) if !options.send_initial_events => {
                if version > shelf.version() || shelf.changes_since(version).is_none() {
                    return Err(StatusError::expired(version));
                }
                version
            }
            _ => {
                let existing = shelf.objects(resource, namespace);
                let existing = existing.filter(|((_, ns, _), object)| scope.covers(ns, object));
                pending.extend(existing.map(|(_, object)| WatchEvent::Added(Arc::clone(object))));
                if options.send_initial_events {
                    pending.push_back(bookmark(resource, shelf.version(), true));
                }
                shelf.version()
            }
        };
        drop(shelf);
        Ok(Watch::new(
            Arc::clone(&self.shared),
            wakeups,
            scope,
            pending,
            start,
        ))
    }

    /// Creates an object (namespace is empty for cluster-scoped resources). Blocks.
    ///
    /// # Errors
    /// 400, 404 (namespace), 409, 422, 500.
    pub fn create(
        &self,
        resource: Resource,
        namespace: &str,
        object: Value,
        options: WriteOptions,
    ) -> Result<Written, StatusError> {
        let _writer = self.writer()?;
        self.create_locked(resource, namespace, object, &options, None)
    }

    /// Creates an object, which may be what an applied configuration came to.
    fn create_locked(
        &self,
        resource: Resource,
        namespace: &str,
        object: Value,
        options: &WriteOptions,
        applied: Option<Applied>,
    ) -> Result<Written, StatusError> {
        let info = resource.info();
        let (mut object, warnings) =
            prepare::new_object(info, namespace, object, &self.config.node_name, options)?;
        record(info, None, &mut object, options, applied);
        prepare::check_size(&object)?;
        let name = name_of(&object);
        if info.scope == Scope::Namespaced {
            self.get(Resource::Namespace, "", namespace)?;
        }
        let id = id(resource, namespace, &name);
        if self.shared.shelf().get(&id).is_some() {
            return Err(StatusError::already_exists(info, &name));
        }
        self.allocate(resource, None, &mut object)?;
        let object = self.commit_one(id, None, object, options.dry_run)?;
        Ok(Written {
            object,
            warnings,
            created: true,
        })
    }

    /// Replaces an object. Blocks.
    ///
    /// # Errors
    /// As create, and 404.
    pub fn update(
        &self,
        resource: Resource,
        namespace: &str,
        name: &str,
        object: Value,
        options: WriteOptions,
    ) -> Result<Written, StatusError> {
        let _writer = self.writer()?;
        let old = self.get(resource, namespace, name)?;
        self.replace(resource, (namespace, name), &old, object, &options, None)
    }

    /// Patches an object. Blocks.
    ///
    /// # Errors
    /// As update.
    pub fn patch(
        &self,
        resource: Resource,
        namespace: &str,
        name: &str,
        kind: PatchKind,
        patch: &Value,
        options: WriteOptions,
    ) -> Result<Written, StatusError> {
        let _writer = self.writer()?;
        let old = self.get(resource, namespace, name)?;
        let patched =
            super::patch::patched(kind, super::schema::root(resource.info()), &old, patch)?;
        self.replace(resource, (namespace, name), &old, patched, &options, None)
    }

    /// Applies a configuration to an object, or makes one of it (server-side apply). Blocks.
    ///
    /// # Errors
    /// As create and update; 409 names the fields that other managers set.
    pub fn apply(
        &self,
        resource: Resource,
        namespace: &str,
        name: &str,
        config: &Value,
        options: &WriteOptions,
    ) -> Result<Written, StatusError> {
        let _writer = self.writer()?;
        let info = resource.info();
        let config = named(config, name)?;
        let live = match self.get(resource, namespace, name) {
            Ok(live) => Some(live),
            Err(error) if error.code == 404 && !options.status => None,
            Err(error) => return Err(error),
        };
        let writer = writer_of(info, options, true);
        let applied = apply::applied(info, live.as_deref(), &config, &writer, options.force)?;
        let object = applied.object.clone();
        match live {
            None => self.create_locked(resource, namespace, object, options, Some(applied)),
            Some(live) => {
                let place = (namespace, name);
                self.replace(resource, place, &live, object, options, Some(applied))
            }
        }
    }

    /// Puts an object, which may be what an applied configuration came to, in the place of the
    /// old one.
    fn replace(
        &self,
        resource: Resource,
        (namespace, name): (&str, &str),
        old: &Arc<Value>,
        object: Value,
        options: &WriteOptions,
        applied: Option<Applied>,
    ) -> Result<Written, StatusError> {
        let info = resource.info();
        let (mut object, warnings) =
            prepare::changed_object(info, namespace, name, old, object, options)?;
        record(info, Some(old), &mut object, options, applied);
        prepare::check_size(&object)?;
        if !options.status {
            self.allocate(resource, Some(old), &mut object)?;
        }
        if is_finished(&object) {
            let object = self.remove(resource, namespace, name, old, options.dry_run)?;
            return Ok(Written {
                object,
                warnings,
                created: false,
            });
        }
        if object == **old {
            return Ok(Written {
                object: Arc::clone(old),
                warnings,
                created: false,
            });
        }
        let id = id(resource, namespace, name);
        let object = self.commit_one(id, Some(Arc::clone(old)), object, options.dry_run)?;
        Ok(Written {
            object,
            warnings,
            created: false,
        })
    }

    /// Gives a Service addresses and ports. The caller holds `writer`.
    fn allocate(
        &self,
        resource: Resource,
        old: Option<&Value>,
        object: &mut Value,
    ) -> Result<(), StatusError> {
        if resource != Resource::Service {
            return Ok(());
        }
        services::allocate(&self.config, &self.shared.shelf(), old, object)
    }

    /// Deletes an object; returns it as it last was. One with finalizers is only marked. Blocks.
    ///
    /// # Errors
    /// 403 (namespace default), 404, 409.
    pub fn delete(
        &self,
        resource: Resource,
        namespace: &str,
        name: &str,
        options: &DeleteOptions,
    ) -> Result<Arc<Value>, StatusError> {
        let _writer = self.writer()?;
        let info = resource.info();
        let old = self.get(resource, namespace, name)?;
        check_preconditions(info, name, &old, options)?;
        if resource == Resource::Namespace && name == "default" {
            let why = "this namespace may not be deleted";
            return Err(StatusError::forbidden(info, name, why));
        }
        let has_finalizers = old["metadata"]["finalizers"]
            .as_array()
            .is_some_and(|list| !list.is_empty());
        if has_finalizers {
            let mut marked = (*old).clone();
            if marked["metadata"]["deletionTimestamp"].is_null() {
                marked["metadata"]["deletionTimestamp"] = json!(prepare::now());
                marked["metadata"]["deletionGracePeriodSeconds"] = json!(0);
            }
            let id = id(resource, namespace, name);
            return self.commit_one(id, Some(old), marked, options.dry_run);
        }
        self.remove(resource, namespace, name, &old, options.dry_run)
    }

    /// Removes an object, and with a namespace everything in it, in one batch.
    fn remove(
        &self,
        resource: Resource,
        namespace: &str,
        name: &str,
        old: &Arc<Value>,
        dry_run: bool,
    ) -> Result<Arc<Value>, StatusError> {
        if dry_run {
            return Ok(Arc::clone(old));
        }
        let mut doomed: Vec<(ObjectId, Arc<Value>)> = Vec::new();
        if resource == Resource::Namespace {
            let shelf = self.shared.shelf();
            for info in &super::RESOURCES {
                if info.scope == Scope::Namespaced {
                    let inside = shelf.objects(info.resource, Some(name));
                    doomed.extend(inside.map(|(id, object)| (id.clone(), object.clone())));
                }
            }
        }
        doomed.push((id(resource, namespace, name), Arc::clone(old)));
        let gone = doomed
            .into_iter()
            .map(|(id, old)| (id, Some(old), None))
            .collect();
        self.commit(gone)?;
        Ok(Arc::clone(old))
    }

    /// Makes a pod known under its addresses (CNI ADD): fills the status of a declared Pod, or
    /// creates the Pod, and its namespace with it. One that was made for another container is
    /// this one's from now on. Blocks.
    ///
    /// # Errors
    /// As create.
    pub fn declare_pod(&self, pod: &MadePod) -> Result<(), StatusError> {
        let _writer = self.writer()?;
        let (namespace, name) = (pod.namespace.as_str(), pod.name.as_str());
        let old = self.get(Resource::Pod, namespace, name).ok();
        match &old {
            None => self.make_pod(pod)?,
            Some(old) if pods::maker(old).is_some_and(|maker| maker != pod.maker) => {
                let mut object = (**old).clone();
                pods::hand_over(&mut object, pod);
                let options = WriteOptions::default();
                let id = (namespace, name);
                self.replace(Resource::Pod, id, old, object, &options, None)?;
            }
            Some(_) => {}
        }
        if old.is_some_and(|old| pods::is_running(&old, &pod.ips)) {
            return Ok(());
        }
        let written = self.set_pod_status(namespace, name, |object| {
            pods::running(object, &pod.ips);
        });
        if written.is_err() {
            self.retract_locked(pod)?;
        }
        written
    }

    fn make_pod(&self, pod: &MadePod) -> Result<(), StatusError> {
        let namespace = pod.namespace.as_str();
        let options = WriteOptions::default();
        if self.get(Resource::Namespace, "", namespace).is_err() {
            let object = json!({"metadata": {"name": namespace}});
            self.create_locked(Resource::Namespace, "", object, &options, None)?;
        }
        let object = pods::made_for(pod);
        self.create_locked(Resource::Pod, namespace, object, &options, None)
            .map(drop)
    }

    /// Takes the addresses out of a pod's status, or deletes the object if it was made for this
    /// container. An absent pod, or one that is another container's by now, is no error. Blocks.
    ///
    /// # Errors
    /// 500 if the store fails.
    pub fn retract_pod(&self, pod: &MadePod) -> Result<(), StatusError> {
        let _writer = self.writer()?;
        self.retract_locked(pod)
    }

    fn retract_locked(&self, pod: &MadePod) -> Result<(), StatusError> {
        let (namespace, name) = (pod.namespace.as_str(), pod.name.as_str());
        let Ok(old) = self.get(Resource::Pod, namespace, name) else {
            return Ok(());
        };
        match pods::maker(&old) {
            Some(maker) if maker == pod.maker => self
                .remove(Resource::Pod, namespace, name, &old, false)
                .map(drop),
            None if pods::has_any(&old, &pod.ips) => {
                self.set_pod_status(namespace, name, pods::without_addresses)
            }
            _ => Ok(()),
        }
    }

    /// Says whether a pod is known under its addresses (CNI CHECK).
    ///
    /// # Errors
    /// What is missing.
    pub fn check_pod(&self, pod: &MadePod) -> Result<(), PodMismatch> {
        let (namespace, name) = (pod.namespace.clone(), pod.name.clone());
        let Ok(object) = self.get(Resource::Pod, &namespace, &name) else {
            return Err(PodMismatch::Missing { namespace, name });
        };
        match pods::lacks(&object, &pod.ips) {
            None => Ok(()),
            Some(address) => Err(PodMismatch::Address {
                namespace,
                name,
                address,
            }),
        }
    }

    /// Deletes the pods of this node that were made for containers or VMs that are not among
    /// `makers`. Blocks.
    ///
    /// # Errors
    /// 500 if the store fails.
    pub fn retain_made_pods(&self, makers: &BTreeSet<String>) -> Result<(), StatusError> {
        let _writer = self.writer()?;
        let is_lost = |object: &Value| {
            object["spec"]["nodeName"] == self.config.node_name.as_str()
                && pods::maker(object).is_some_and(|maker| !makers.contains(maker))
        };
        let lost: Vec<(ObjectId, Arc<Value>)> = {
            let shelf = self.shared.shelf();
            let pods = shelf.objects(Resource::Pod, None);
            let lost = pods.filter(|(_, object)| is_lost(object));
            lost.map(|(place, object)| (place.clone(), Arc::clone(object)))
                .collect()
        };
        for ((_, namespace, name), object) in lost {
            tracing::warn!(
                namespace,
                name,
                "Pod object of a container that is gone is deleted"
            );
            self.remove(Resource::Pod, &namespace, &name, &object, false)?;
        }
        Ok(())
    }

    fn set_pod_status(
        &self,
        namespace: &str,
        name: &str,
        change: impl FnOnce(&mut Value),
    ) -> Result<(), StatusError> {
        let old = self.get(Resource::Pod, namespace, name)?;
        let mut pod = (*old).clone();
        change(&mut pod);
        let options = WriteOptions {
            status: true,
            ..WriteOptions::default()
        };
        self.replace(Resource::Pod, (namespace, name), &old, pod, &options, None)
            .map(drop)
    }

    fn commit_one(
        &self,
        id: ObjectId,
        before: Option<Arc<Value>>,
        mut object: Value,
        dry_run: bool,
    ) -> Result<Arc<Value>, StatusError> {
        let version = self.current_version() + 1;
        object["metadata"]["resourceVersion"] = json!(version.to_string());
        let object = Arc::new(object);
        if !dry_run {
            self.commit(vec![(id, before, Some(Arc::clone(&object)))])?;
        }
        Ok(object)
    }

    /// Makes changes, and what they bring about, durable, then visible. The caller holds
    /// `writer`.
    fn commit(&self, changes: Vec<Pending>) -> Result<(), StatusError> {
        let slices = endpoints::consequences(&self.shared.shelf(), &changes);
        self.commit_all(self.versioned(changes, slices))
    }

    /// Returns changes with their versions; objects of `more` do not have theirs yet.
    fn versioned(
        &self,
        changes: Vec<Pending>,
        more: Vec<endpoints::SliceChange>,
    ) -> Vec<ObjectChange> {
        let mut versions = self.current_version() + 1..;
        let mut versioned = Vec::new();
        for ((id, before, after), version) in changes.into_iter().zip(versions.by_ref()) {
            versioned.push(ObjectChange {
                version,
                id,
                before,
                after,
            });
        }
        for ((id, before, after), version) in more.into_iter().zip(versions) {
            let after = after.map(|mut object| {
                object["metadata"]["resourceVersion"] = json!(version.to_string());
                Arc::new(object)
            });
            versioned.push(ObjectChange {
                version,
                id,
                before,
                after,
            });
        }
        versioned
    }

    fn commit_all(&self, changes: Vec<ObjectChange>) -> Result<(), StatusError> {
        if changes.is_empty() {
            return Ok(());
        }
        self.store
            .commit(persist::writes(&changes))
            .map_err(|error| StatusError::internal(&error))?;
        let mut shelf = self.shared.shelf_mut();
        for change in changes {
            shelf.apply(change);
        }
        let version = shelf.version();
        drop(shelf);
        self.shared.wake(version, clock::instant());
        Ok(())
    }
}

fn id(resource: Resource, namespace: &str, name: &str) -> ObjectId {
    (resource, namespace.to_owned(), name.to_owned())
}

/// The manager of what the daemon writes itself.
const OWN_MANAGER: &str = "vswitchd";

fn writer_of(info: &ResourceInfo, options: &WriteOptions, applies: bool) -> apply::Writer {
    let manager = match options.manager.as_str() {
        "" => OWN_MANAGER,
        manager => manager,
    };
    apply::Writer {
        manager: manager.to_owned(),
        applies,
        api_version: info.api_version(),
        is_status: options.status,
    }
}

/// Records who owns the fields of an object that is to be written.
fn record(
    info: &ResourceInfo,
    old: Option<&Value>,
    object: &mut Value,
    options: &WriteOptions,
    applied: Option<Applied>,
) {
    match applied {
        Some(applied) => applied.record(object),
        None => apply::record(info, old, object, &writer_of(info, options, false)),
    }
}

/// Returns an applied configuration with the name that its URL has.
fn named(config: &Value, name: &str) -> Result<Value, StatusError> {
    let given = config["metadata"]["name"].as_str();
    if let Some(given) = given.filter(|given| *given != name) {
        let message =
            format!("the name of the object ({given}) does not match the name on the URL ({name})");
        return Err(StatusError::bad_request(message));
    }
    let mut object = config.clone();
    let metadata = object.as_object_mut().and_then(|object| {
        object
            .entry("metadata")
            .or_insert_with(|| json!({}))
            .as_object_mut()
    });
    let metadata = metadata.ok_or_else(|| StatusError::bad_request("metadata is not an object"))?;
    metadata.insert("name".to_owned(), json!(name));
    Ok(object)
}

fn name_of(object: &Value) -> String {
    object["metadata"]["name"]
        .as_str()
        .unwrap_or_default()
        .to_owned()
}

/// An object marked for deletion whose last finalizer is gone.
fn is_finished(object: &Value) -> bool {
    let metadata = &object["metadata"];
    !metadata["deletionTimestamp"].is_null()
        && metadata["finalizers"].as_array().is_none_or(Vec::is_empty)
}

fn check_preconditions(
    info: &ResourceInfo,
    name: &str,
    object: &Value,
    options: &DeleteOptions,
) -> Result<(), StatusError> {
    let pairs = [
        ("UID", "uid", &options.uid),
        (
            "ResourceVersion",
            "resourceVersion",
            &options.resource_version,
        ),
    ];
    for (title, field, wanted) in pairs {
        let found = object["metadata"][field].as_str().unwrap_or_default();
        if let Some(wanted) = wanted
            && wanted != found
        {
            let why = format!(
                "Precondition failed: {title} in precondition: {wanted}, {title} in object meta: {found}"
            );
            return Err(StatusError::conflict(info, name, &why));
        }
    }
    Ok(())
}
