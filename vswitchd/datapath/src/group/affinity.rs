//! Session affinity: the endpoint that each client of a Service with `sessionAffinity: ClientIP`
//! got last.
//!
//! Bounded: beyond the limit a client is balanced anew. Noted when a connection is committed,
//! so that a packet that is dropped leaves nothing behind.

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use foldhash::quality::RandomState;

use super::{Endpoint, GroupId};
use crate::time::Timestamp;

/// Clients that are remembered, over all shards.
const MAX_CLIENTS: usize = 65_536;
const SHARDS: usize = 16;

type Client = (GroupId, IpAddr);

#[derive(Debug, Clone, Copy)]
struct Stay {
    endpoint: Endpoint,
    until: Timestamp,
}

/// Endpoints by client; shared by all workers.
#[derive(Debug, Default)]
pub(crate) struct AffinityTable {
    hasher: RandomState,
    /// Plain mutexes: held for one lookup or insertion, for new connections only.
    shards: [Mutex<HashMap<Client, Stay, RandomState>>; SHARDS],
}

impl AffinityTable {
    /// Returns where the client was sent last, if that is not too long ago.
    pub(crate) fn get(&self, group: GroupId, client: IpAddr, now: Timestamp) -> Option<Endpoint> {
        let client = (group, client);
        let stay = self.lock(&client)?.get(&client).copied()?;
        (now < stay.until).then_some(stay.endpoint)
    }

    /// Remembers where the client is sent.
    pub(crate) fn note(
        &self,
        group: GroupId,
        client: IpAddr,
        endpoint: Endpoint,
        (now, timeout): (Timestamp, Duration),
    ) {
        let client = (group, client);
        let Some(mut shard) = self.lock(&client) else {
            return;
        };
        if shard.len() >= MAX_CLIENTS / SHARDS && !shard.contains_key(&client) {
            return;
        }
        let until = now + timeout;
        shard.insert(client, Stay { endpoint, until });
    }

    /// Forgets clients whose time is over.
    pub(crate) fn expire(&self, now: Timestamp) {
        for shard in &self.shards {
            lock(shard).retain(|_, stay| now < stay.until);
        }
    }

    fn lock(&self, client: &Client) -> Option<MutexGuard<'_, HashMap<Client, Stay, RandomState>>> {
        let hash = usize::try_from(self.hasher.hash_one(client) >> 48).unwrap_or(0);
        self.shards.get(hash % SHARDS).map(lock)
    }
}

/// Locks, whatever became of another thread: a map is whole between its calls.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_nanos(seconds * 1_000_000_000)
    }

    #[test]
    fn a_client_is_remembered_until_its_time_is_over() {
        let table = AffinityTable::default();
        let endpoint = Endpoint {
            ip: IpAddr::from([10, 0, 0, 1]),
            port: 80,
        };
        let client = IpAddr::from([10, 1, 0, 1]);
        let timeout = Duration::from_secs(10);
        table.note(GroupId(1), client, endpoint, (at(0), timeout));
        assert_eq!(table.get(GroupId(1), client, at(9)), Some(endpoint));
        assert_eq!(table.get(GroupId(2), client, at(9)), None);
        assert_eq!(table.get(GroupId(1), client, at(10)), None);
        table.note(GroupId(1), client, endpoint, (at(9), timeout));
        table.expire(at(18));
        assert_eq!(table.get(GroupId(1), client, at(18)), Some(endpoint));
        table.expire(at(19));
        assert_eq!(table.get(GroupId(1), client, at(18)), None);
    }

    #[test]
    fn clients_beyond_the_limit_are_not_remembered() {
        let table = AffinityTable::default();
        let endpoint = Endpoint {
            ip: IpAddr::from([10, 0, 0, 1]),
            port: 80,
        };
        let timeout = Duration::from_secs(10);
        let clients = u32::try_from(MAX_CLIENTS).unwrap() * 2;
        for bits in 0..clients {
            let client = IpAddr::from(bits.to_be_bytes());
            table.note(GroupId(1), client, endpoint, (at(0), timeout));
        }
        let count: usize = table.shards.iter().map(|shard| lock(shard).len()).sum();
        assert!(count <= MAX_CLIENTS, "{count}");
    }
}
