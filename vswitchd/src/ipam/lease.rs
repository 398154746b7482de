//! Allocation and release of addresses.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ipnet::IpNet;

use super::error::IpamError;
use super::owner::LeaseOwner;
use super::pool::{Pool, is_v4};
use super::records::{self, LeaseRecord};
use super::state::{Lost, Slot, State};
use crate::store::{Bucket, SharedStore, Write};

/// What addresses there are.
#[derive(Debug, Clone)]
pub struct IpamConfig {
    /// At most one CIDR per address family.
    pub pod_cidrs: Vec<IpNet>,
    /// How long a released address is not given to anybody else.
    pub rest: Duration,
}

/// An address in use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// By whom.
    pub owner: LeaseOwner,
    /// Which.
    pub address: IpAddr,
    /// Since when, Unix seconds.
    pub leased_at: u64,
}

/// The leases of this node.
#[derive(Debug)]
pub struct Ipam {
    store: SharedStore,
    rest_secs: u64,
    damaged: Vec<String>,
    /// All of the state; held across the commit, so that the disk sees changes in order.
    state: Mutex<State>,
}

impl Ipam {
    /// Loads the leases from the store. Blocks.
    ///
    /// # Errors
    /// [`IpamError::Config`], [`IpamError::Store`]; damaged records are no error, see
    /// [`Self::damaged`].
    pub fn new(store: SharedStore, config: &IpamConfig) -> Result<Self, IpamError> {
        let pools = pools_of(&config.pod_cidrs)?;
        let stored = records::load(&store).map_err(|source| IpamError::Store { source })?;
        let damaged: Vec<String> = stored
            .damaged
            .iter()
            .map(|(_, text)| text.clone())
            .collect();
        for record in &damaged {
            tracing::warn!(record, "lease record is damaged");
        }
        let mut state = State::from_stored(pools, stored);
        let losses = Arc::clone(&store.losses().borrow());
        for loss in losses
            .iter()
            .filter(|loss| loss.may_concern(Bucket::Leases))
        {
            match loss.key_in(Bucket::Leases).map(records::address_of) {
                // Somebody may use it.
                Some(Some(address)) => state.block(address),
                // A cursor: it costs the order alone.
                Some(None) => {}
                None => state.lost = Lost::Unknown,
            }
        }
        let state = Mutex::new(state);
        Ok(Self {
            store,
            rest_secs: config.rest.as_secs(),
            damaged,
            state,
        })
    }

    /// Returns what could not be read at start.
    #[must_use]
    pub fn damaged(&self) -> &[String] {
        &self.damaged
    }

    /// Returns the gateway of each pod CIDR: its first host address, never given to a pod.
    #[must_use]
    pub fn gateways(&self) -> Vec<IpAddr> {
        self.lock().pools.iter().map(Pool::gateway).collect()
    }

    /// Leases one address per pod CIDR, durable when this returns. Blocks.
    ///
    /// The same owner gets the same addresses again. A requested address is given even if it
    /// rests: who asks for it by number is the one who wants its past.
    ///
    /// # Errors
    /// [`IpamError::Exhausted`], and what is wrong with `requested`; nothing is leased then.
    pub fn allocate(
        &self,
        owner: &LeaseOwner,
        requested: &[IpAddr],
        now_unix: u64,
    ) -> Result<Vec<IpNet>, IpamError> {
        let mut state = self.lock();
        state.age(now_unix, self.rest_secs);
        state.check_requested(requested)?;
        let mut granted = Vec::new();
        let mut writes = Vec::new();
        for pool in &state.pools {
            let wanted = requested
                .iter()
                .copied()
                .find(|address| is_v4(*address) == pool.is_v4());
            let (address, is_fresh) =
                state.choose(pool, owner, wanted, now_unix, self.rest_secs)?;
            granted.push((pool.net, address, is_fresh));
            if is_fresh {
                writes.extend(lease_writes(
                    owner,
                    pool,
                    address,
                    wanted.is_none(),
                    now_unix,
                ));
            }
        }
        self.commit(&mut state, writes)?;
        for (net, address, _) in granted.iter().filter(|(_, _, is_fresh)| *is_fresh) {
            let moves_cursor = !requested.contains(address);
            state.lease(*address, owner, now_unix, moves_cursor.then_some(*net));
        }
        Ok(state.with_prefixes(granted.iter().map(|(_, address, _)| *address)))
    }

    /// Returns the addresses the owner holds.
    #[must_use]
    pub fn held_by(&self, owner: &LeaseOwner) -> Vec<IpAddr> {
        self.lock().held_by(owner)
    }

    /// Makes addresses that an attachment is known to use the owner's, whatever the records
    /// say: heals lost and damaged ones after a restart. Blocks.
    ///
    /// # Errors
    /// [`IpamError::InUse`] if another owner has one; [`IpamError::Store`].
    pub fn adopt(
        &self,
        owner: &LeaseOwner,
        addresses: &[IpAddr],
        now_unix: u64,
    ) -> Result<(), IpamError> {
        let mut state = self.lock();
        let mut fresh = Vec::new();
        for address in addresses {
            match state.taken.get(address) {
                Some(Slot::Leased { owner: holder, .. }) if holder == owner => {}
                Some(Slot::Leased { owner: holder, .. }) => {
                    return Err(IpamError::InUse {
                        address: *address,
                        owner: holder.clone(),
                    });
                }
                _ => fresh.push(*address),
            }
        }
        let record = record_of(owner, now_unix);
        let writes = fresh
            .iter()
            .flat_map(|address| {
                [
                    records::put_lease(*address, &record),
                    records::delete_rest(*address),
                ]
            })
            .collect();
        self.commit(&mut state, writes)?;
        for address in fresh {
            state.lease(address, owner, now_unix, None);
        }
        Ok(())
    }

    /// Takes the owner's addresses back; they rest from now on. No lease is no error. Blocks.
    ///
    /// # Errors
    /// [`IpamError::Store`]; nothing is released then.
    pub fn release(&self, owner: &LeaseOwner, now_unix: u64) -> Result<Vec<IpAddr>, IpamError> {
        let mut state = self.lock();
        state.age(now_unix, self.rest_secs);
        let addresses = state.held_by(owner);
        self.rest(&mut state, &addresses, now_unix)?;
        Ok(addresses)
    }

    /// Releases every lease whose owner is not known, and damaged records. Nothing is leased
    /// while `is_known` is asked, which therefore must not ask for leases. Blocks.
    ///
    /// # Errors
    /// [`IpamError::Store`]; nothing is released then.
    pub fn retain(
        &self,
        is_known: impl Fn(&LeaseOwner) -> bool,
        now_unix: u64,
    ) -> Result<Vec<IpAddr>, IpamError> {
        let mut state = self.lock();
        state.age(now_unix, self.rest_secs);
        let is_stale = |slot: &Slot| match slot {
            Slot::Leased { owner, .. } => !is_known(owner),
            Slot::Resting { .. } => false,
            Slot::Damaged => true,
        };
        let stale: Vec<IpAddr> = state
            .taken
            .iter()
            .filter(|(_, slot)| is_stale(slot))
            .map(|(a, _)| *a)
            .collect();
        self.rest(&mut state, &stale, now_unix)?;
        Ok(stale)
    }

    /// Returns all leases in address order.
    #[must_use]
    pub fn leases(&self) -> Vec<Lease> {
        let lease = |(address, slot): (&IpAddr, &Slot)| match slot {
            Slot::Leased { owner, leased_at } => Some(Lease {
                owner: owner.clone(),
                address: *address,
                leased_at: *leased_at,
            }),
            _ => None,
        };
        self.lock().taken.iter().filter_map(lease).collect()
    }

    /// Says whether the next allocation would find an address in each pool.
    ///
    /// # Errors
    /// [`IpamError::Exhausted`].
    pub fn check_room(&self, now_unix: u64) -> Result<(), IpamError> {
        let mut state = self.lock();
        state.age(now_unix, self.rest_secs);
        state
            .pools
            .iter()
            .try_for_each(|pool| state.next_free(pool, now_unix, self.rest_secs).map(|_| ()))
    }

    /// Returns the addresses that rest, and in how many seconds each may be given out again.
    #[must_use]
    pub fn resting(&self, now_unix: u64) -> Vec<(IpAddr, u64)> {
        let mut state = self.lock();
        state.age(now_unix, self.rest_secs);
        let left = |released_at: u64| {
            released_at
                .saturating_add(self.rest_secs)
                .saturating_sub(now_unix)
        };
        state
            .resting
            .iter()
            .map(|(at, address)| (*address, left(*at)))
            .collect()
    }

    fn rest(&self, state: &mut State, addresses: &[IpAddr], now: u64) -> Result<(), IpamError> {
        if addresses.is_empty() {
            return Ok(());
        }
        let writes = addresses
            .iter()
            .flat_map(|a| [records::delete_lease(*a), records::put_rest(*a, now)])
            .collect();
        self.commit(state, writes)?;
        for address in addresses {
            state
                .taken
                .insert(*address, Slot::Resting { released_at: now });
            state.resting.insert((now, *address));
        }
        Ok(())
    }

    fn commit(&self, state: &mut State, writes: Vec<Write>) -> Result<(), IpamError> {
        if writes.is_empty() {
            return Ok(());
        }
        // Deletions first: a rested address may rest or be leased again in the same batch.
        let cleanup = state
            .rested
            .iter()
            .map(|address| records::delete_rest(*address));
        let batch = cleanup.chain(writes).collect();
        self.store
            .commit(batch)
            .map_err(|source| IpamError::Store { source })?;
        state.rested.clear();
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // State changes only after the commit, without a panic in between: it is whole even
        // if another holder of the lock panicked.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn pools_of(cidrs: &[IpNet]) -> Result<Vec<Pool>, IpamError> {
    let mut pools: Vec<Pool> = Vec::new();
    for cidr in cidrs {
        let fail = |problem| IpamError::Config {
            cidr: *cidr,
            problem,
        };
        let pool = Pool::new(*cidr).map_err(fail)?;
        if pools.iter().any(|other| other.is_v4() == pool.is_v4()) {
            return Err(fail("is the second of its address family"));
        }
        pools.push(pool);
    }
    Ok(pools)
}

fn record_of(owner: &LeaseOwner, leased_at: u64) -> LeaseRecord {
    LeaseRecord {
        container_id: owner.container_id.clone(),
        ifname: owner.ifname.to_string(),
        leased_at,
    }
}

fn lease_writes(
    owner: &LeaseOwner,
    pool: &Pool,
    address: IpAddr,
    moves_cursor: bool,
    now: u64,
) -> Vec<Write> {
    let mut writes = vec![
        records::put_lease(address, &record_of(owner, now)),
        records::delete_rest(address),
    ];
    if moves_cursor {
        writes.push(records::put_cursor(&pool.net.to_string(), address));
    }
    writes
}
