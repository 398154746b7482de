//! Leases as they lie in the store: `lease/ADDRESS`, `rest/ADDRESS`, `cursor/CIDR`.

use std::net::IpAddr;

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::store::{Bucket, SharedStore, StoreError, Write};

const LEASE: &str = "lease/";
const REST: &str = "rest/";
const CURSOR: &str = "cursor/";

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct LeaseRecord {
    pub(super) container_id: String,
    pub(super) ifname: String,
    pub(super) leased_at: u64,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct RestRecord {
    pub(super) released_at: u64,
}

/// What the store holds; `damaged` names records that could not be read, with the address
/// that stays blocked for it if the key still tells.
#[derive(Debug, Default)]
pub(super) struct Stored {
    pub(super) leases: Vec<(IpAddr, LeaseRecord)>,
    pub(super) resting: Vec<(IpAddr, RestRecord)>,
    pub(super) cursors: Vec<(String, IpAddr)>,
    pub(super) damaged: Vec<(Option<IpAddr>, String)>,
}

pub(super) fn load(store: &SharedStore) -> Result<Stored, StoreError> {
    let mut stored = Stored::default();
    for (key, value) in store.scan(Bucket::Leases, b"")? {
        let name = String::from_utf8_lossy(&key).into_owned();
        if let Some(address) = name.strip_prefix(LEASE) {
            match parse(address, &value) {
                Ok(lease) => stored.leases.push(lease),
                Err(problem) => stored
                    .damaged
                    .push((address.parse().ok(), problem_of(&name, &problem))),
            }
        } else if let Some(address) = name.strip_prefix(REST) {
            match parse(address, &value) {
                Ok(rest) => stored.resting.push(rest),
                Err(problem) => stored
                    .damaged
                    .push((address.parse().ok(), problem_of(&name, &problem))),
            }
        } else if let Some(cidr) = name.strip_prefix(CURSOR) {
            // A lost cursor costs nothing but the order of allocation.
            match serde_json::from_slice(&value) {
                Ok(address) => stored.cursors.push((cidr.to_owned(), address)),
                Err(error) => stored
                    .damaged
                    .push((None, problem_of(&name, &error.to_string()))),
            }
        } else {
            stored
                .damaged
                .push((None, problem_of(&name, "unknown kind of record")));
        }
    }
    Ok(stored)
}

/// Returns the address whose lease or rest a key keeps.
pub(super) fn address_of(key: &str) -> Option<IpAddr> {
    let address = key.strip_prefix(LEASE).or_else(|| key.strip_prefix(REST));
    address?.parse().ok()
}

fn problem_of(name: &str, problem: &str) -> String {
    format!("record {name:?}: {problem}")
}

fn parse<T: DeserializeOwned>(address: &str, value: &[u8]) -> Result<(IpAddr, T), String> {
    let address = address
        .parse()
        .map_err(|_| "key holds no address".to_owned())?;
    let record = serde_json::from_slice(value).map_err(|error| error.to_string())?;
    Ok((address, record))
}

pub(super) fn put_lease(address: IpAddr, record: &LeaseRecord) -> Write {
    let value = serde_json::to_vec(record).expect("strings and numbers encode");
    Write::Put(Bucket::Leases, key(LEASE, address), value)
}

pub(super) fn delete_lease(address: IpAddr) -> Write {
    Write::Delete(Bucket::Leases, key(LEASE, address))
}

pub(super) fn put_rest(address: IpAddr, released_at: u64) -> Write {
    let value = serde_json::to_vec(&RestRecord { released_at }).expect("a number encodes");
    Write::Put(Bucket::Leases, key(REST, address), value)
}

pub(super) fn delete_rest(address: IpAddr) -> Write {
    Write::Delete(Bucket::Leases, key(REST, address))
}

pub(super) fn put_cursor(cidr: &str, address: IpAddr) -> Write {
    let value = serde_json::to_vec(&address).expect("an address encodes");
    Write::Put(
        Bucket::Leases,
        format!("{CURSOR}{cidr}").into_bytes(),
        value,
    )
}

fn key(kind: &str, address: IpAddr) -> Vec<u8> {
    format!("{kind}{address}").into_bytes()
}
