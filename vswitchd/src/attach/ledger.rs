//! Attachment records: durable in the store, read from memory.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use vswitch_api::{IfName, PortNo};

use super::port_numbers::PortNumbers;
use super::record::{Kind, Record, RestPort, State};
use crate::ipam::LeaseOwner;
use crate::port::TapOffloads;
use crate::state::ObjectKey;
use crate::store::{Bucket, SharedStore, StoreError, Write};
use crate::switch::PORT_NUMBERS;

/// All attachments. Methods that write block on the disk.
#[derive(Debug)]
pub(super) struct Ledger {
    store: SharedStore,
    numbers: PortNumbers,
    /// Only for the moment of a look or a change; never held across a commit. Changes of one
    /// attachment are serialised by its lock.
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    records: BTreeMap<LeaseOwner, Arc<Record>>,
    /// What the TAPs can take, found out when they were opened.
    offloads: BTreeMap<PortNo, TapOffloads>,
    /// Keys of records that could not be read, and what is wrong with them.
    damaged: BTreeMap<Vec<u8>, String>,
    last_order: u64,
}

fn key(owner: &LeaseOwner) -> Vec<u8> {
    owner.to_string().into_bytes()
}

impl Ledger {
    /// Reads the records, and takes over what release 0.1 kept elsewhere.
    pub(super) fn open(
        store: SharedStore,
        numbers: RangeInclusive<u32>,
    ) -> Result<Self, StoreError> {
        take_over_rest_ports(&store)?;
        let mut table = Table::default();
        for (key, value) in store.scan(Bucket::Attachments, b"")? {
            match serde_json::from_slice::<Record>(&value) {
                Ok(record) => {
                    table.last_order = table.last_order.max(record.order);
                    table.records.insert(record.owner(), Arc::new(record));
                }
                Err(error) => {
                    let text = format!("attachment {:?}: {error}", String::from_utf8_lossy(&key));
                    tracing::warn!(record = text, "attachment record is damaged");
                    table.damaged.insert(key, text);
                }
            }
        }
        let used: Vec<PortNo> = table.records.values().map(|r| r.port_no()).collect();
        Ok(Self {
            numbers: PortNumbers::load(store.clone(), numbers, used.into_iter())?,
            store,
            table: Mutex::new(table),
        })
    }

    /// A record is replaced as a whole: a panic elsewhere leaves the table whole.
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn get(&self, owner: &LeaseOwner) -> Option<Arc<Record>> {
        self.table().records.get(owner).cloned()
    }

    pub(super) fn all(&self) -> Vec<Arc<Record>> {
        self.table().records.values().cloned().collect()
    }

    pub(super) fn damaged(&self) -> Vec<String> {
        self.table().damaged.values().cloned().collect()
    }

    pub(super) fn offloads(&self) -> BTreeMap<PortNo, TapOffloads> {
        self.table().offloads.clone()
    }

    pub(super) fn note_offloads(&self, no: PortNo, offloads: Option<TapOffloads>) {
        if let Some(offloads) = offloads {
            self.table().offloads.insert(no, offloads);
        }
    }

    pub(super) fn is_name_taken(&self, owner: &LeaseOwner, ifname: &IfName) -> bool {
        let table = self.table();
        let mut others = table.records.iter().filter(|(other, _)| *other != owner);
        others.any(|(_, record)| record.host_ifname() == ifname)
    }

    /// Returns the attachment that speaks for a pod: the first interface of the container that
    /// came last. What is leaving does not count.
    pub(super) fn speaker(&self, pod: &ObjectKey) -> Option<Arc<Record>> {
        let table = self.table();
        let of_pod = |record: &&Arc<Record>| {
            record.state != State::Leaving
                && record.pod().is_some_and(|identity| identity.key == *pod)
        };
        let present: Vec<_> = table.records.values().filter(of_pod).collect();
        let latest = present.iter().max_by_key(|record| record.order)?;
        let of_container = |record: &&&Arc<Record>| {
            record.attachment.container_id == latest.attachment.container_id
        };
        let first = present
            .iter()
            .filter(of_container)
            .min_by_key(|record| record.order)?;
        Some(Arc::clone(first))
    }

    pub(super) fn owners(&self) -> BTreeSet<LeaseOwner> {
        self.table().records.keys().cloned().collect()
    }

    /// Returns a number that no port has; `None` if there is none.
    pub(super) fn allocate_number(
        &self,
        is_live: impl Fn(PortNo) -> bool,
    ) -> Result<Option<PortNo>, StoreError> {
        self.numbers.allocate(is_live)
    }

    pub(super) fn release_number(&self, no: PortNo) {
        self.numbers.release(no);
    }

    /// Makes a new attachment known and durable; returns it with its place in the order, or
    /// `None` if another one has the name of its device. On failure it is not known.
    pub(super) fn begin(&self, mut record: Record) -> Result<Option<Arc<Record>>, StoreError> {
        let owner = record.owner();
        let record = {
            let mut table = self.table();
            let mut others = table.records.values();
            if others.any(|other| other.host_ifname() == record.host_ifname()) {
                return Ok(None);
            }
            table.last_order += 1;
            record.order = table.last_order;
            let record = Arc::new(record);
            table.records.insert(owner.clone(), Arc::clone(&record));
            record
        };
        if let Err(error) = self.write(&record) {
            self.table().records.remove(&owner);
            return Err(error);
        }
        Ok(Some(record))
    }

    /// Notes a state that a restart need not know of.
    pub(super) fn note(&self, record: &Record, state: State) -> Arc<Record> {
        debug_assert!(record.state.may_become(state), "{record:?} to {state:?}");
        let record = Arc::new(Record {
            state,
            ..record.clone()
        });
        let mut table = self.table();
        // One that is not kept here, as during a start, is not made known by this.
        if let Some(known) = table.records.get_mut(&record.owner()) {
            *known = Arc::clone(&record);
        }
        record
    }

    /// Makes a state durable, then known.
    pub(super) fn reach(&self, record: &Record, state: State) -> Result<Arc<Record>, StoreError> {
        let next = Record {
            state,
            ..record.clone()
        };
        self.write(&next)?;
        Ok(self.note(record, state))
    }

    /// Makes the gateway known: it is part of the configuration, not of the store.
    pub(super) fn note_gateway(&self, record: Record) {
        let mut table = self.table();
        table.records.insert(record.owner(), Arc::new(record));
    }

    fn write(&self, record: &Record) -> Result<(), StoreError> {
        let value = serde_json::to_vec(record).map_err(|source| StoreError::Commit {
            source: source.into(),
        })?;
        let key = key(&record.owner());
        self.store
            .commit(vec![Write::Put(Bucket::Attachments, key.clone(), value)])?;
        self.table().damaged.remove(&key);
        Ok(())
    }

    /// Forgets an attachment, or a damaged record of it; none is no error.
    pub(super) fn forget(&self, owner: &LeaseOwner) -> Result<(), StoreError> {
        let key = key(owner);
        let delete = Write::Delete(Bucket::Attachments, key.clone());
        self.store.commit(vec![delete])?;
        let mut table = self.table();
        table.damaged.remove(&key);
        if let Some(record) = table.records.remove(owner) {
            table.offloads.remove(&record.port_no());
            drop(table);
            self.numbers.release(record.port_no());
        }
        Ok(())
    }
}

/// Returns the TAPs of VM ports that a daemon which is not running made. Blocks.
///
/// # Errors
/// The store cannot be read.
pub fn made_taps(store: &SharedStore) -> Result<Vec<IfName>, StoreError> {
    let ledger = Ledger::open(store.clone(), PORT_NUMBERS)?;
    let all = ledger.all().into_iter();
    let made = all.filter(|record| record.kind == Kind::Vm && !record.is_found);
    Ok(made.map(|record| record.host_ifname().clone()).collect())
}

/// Release 0.1 kept VM and mirror ports in a bucket of their own. One that is not understood
/// stays there.
fn take_over_rest_ports(store: &SharedStore) -> Result<(), StoreError> {
    let mut batch = Vec::new();
    for (name, value) in store.scan(Bucket::Ports, b"")? {
        let record = serde_json::from_slice::<RestPort>(&value).map(Record::from);
        let record = record.and_then(|record| Ok((record.owner(), serde_json::to_vec(&record)?)));
        match record {
            Ok((owner, value)) => {
                batch.push(Write::Put(Bucket::Attachments, key(&owner), value));
                batch.push(Write::Delete(Bucket::Ports, name));
            }
            Err(error) => {
                let port = String::from_utf8_lossy(&name).into_owned();
                tracing::error!(port, %error, "parsing a stored port failed; it is left out");
            }
        }
    }
    if batch.is_empty() {
        return Ok(());
    }
    store.commit(batch)
}
