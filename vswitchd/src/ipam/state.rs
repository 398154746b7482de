//! Leases, resting addresses and cursors in memory: the state behind [`super::Ipam`].
//!
//! Decides and never writes: `lease` commits first and changes this afterwards.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;

use super::error::IpamError;
use super::owner::LeaseOwner;
use super::pool::{Pool, is_v4};
use super::records::Stored;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Slot {
    Leased {
        owner: LeaseOwner,
        leased_at: u64,
    },
    Resting {
        released_at: u64,
    },
    /// Its record is unreadable: somebody may use it, so nobody else gets it until
    /// [`Ipam::adopt`] or [`Ipam::retain`] says who does.
    Damaged,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) pools: Vec<Pool>,
    pub(super) taken: BTreeMap<IpAddr, Slot>,
    /// The resting ones of `taken` by time of release.
    pub(super) resting: BTreeSet<(u64, IpAddr)>,
    /// Rest records whose time is over; the next batch deletes them.
    pub(super) rested: Vec<IpAddr>,
    /// Whether leases may be missing here.
    pub(super) lost: Lost,
}

/// Whether addresses may be in use without a record: then all that have none rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lost {
    /// No.
    Nothing,
    /// Yes, and the rest begins when the state is first asked.
    Unknown,
    /// They rest since.
    Since(u64),
}

impl State {
    pub(super) fn from_stored(mut pools: Vec<Pool>, stored: Stored) -> Self {
        for pool in &mut pools {
            let cidr = pool.net.to_string();
            pool.cursor = stored
                .cursors
                .iter()
                .find(|(of, _)| *of == cidr)
                .map(|(_, a)| *a);
        }
        let mut state = Self {
            pools,
            taken: BTreeMap::new(),
            resting: BTreeSet::new(),
            rested: Vec::new(),
            lost: Lost::Nothing,
        };
        for (address, record) in stored.resting {
            let released_at = record.released_at;
            state.taken.insert(address, Slot::Resting { released_at });
            state.resting.insert((released_at, address));
        }
        let damaged = stored.damaged.iter().filter_map(|(address, _)| *address);
        for address in damaged {
            state.block(address);
        }
        // Last: where records contradict each other, the lease is the one that matters.
        for (address, record) in stored.leases {
            match record.ifname.parse() {
                Ok(ifname) => {
                    let owner = LeaseOwner {
                        container_id: record.container_id,
                        ifname,
                    };
                    state.lease(address, &owner, record.leased_at, None);
                }
                Err(_) => state.block(address),
            }
        }
        state
    }

    pub(super) fn block(&mut self, address: IpAddr) {
        self.forget_rest(address);
        self.taken.insert(address, Slot::Damaged);
    }

    pub(super) fn lease(
        &mut self,
        address: IpAddr,
        owner: &LeaseOwner,
        at: u64,
        cursor_of: Option<IpNet>,
    ) {
        self.forget_rest(address);
        self.taken.insert(
            address,
            Slot::Leased {
                owner: owner.clone(),
                leased_at: at,
            },
        );
        if let Some(net) = cursor_of {
            let moved = self.pools.iter_mut().filter(|pool| pool.net == net);
            moved.for_each(|pool| pool.cursor = Some(address));
        }
    }

    pub(super) fn forget_rest(&mut self, address: IpAddr) {
        if let Some(Slot::Resting { released_at }) = self.taken.get(&address) {
            self.resting.remove(&(*released_at, address));
        }
    }

    /// Ends the rest of those whose time is over.
    ///
    /// A node without a battery-backed clock boots in 1970: releases that lie in the future
    /// count as just made, or their addresses would be lost for decades.
    pub(super) fn age(&mut self, now: u64, rest_secs: u64) {
        self.lost = match self.lost {
            Lost::Unknown => Lost::Since(now),
            Lost::Since(at) if at > now => Lost::Since(now),
            Lost::Since(at) if at.saturating_add(rest_secs) <= now => Lost::Nothing,
            other => other,
        };
        while let Some((released_at, address)) = self.resting.last().copied() {
            if released_at <= now {
                break;
            }
            self.resting.pop_last();
            self.resting.insert((now, address));
            self.taken
                .insert(address, Slot::Resting { released_at: now });
        }
        while let Some((released_at, address)) = self.resting.first().copied() {
            if released_at.saturating_add(rest_secs) > now {
                break;
            }
            self.resting.pop_first();
            self.taken.remove(&address);
            self.rested.push(address);
        }
    }

    pub(super) fn check_requested(&self, requested: &[IpAddr]) -> Result<(), IpamError> {
        for (index, address) in requested.iter().enumerate() {
            let fail = |problem| IpamError::Unusable {
                address: *address,
                problem,
            };
            let earlier = requested.iter().take(index);
            if earlier
                .clone()
                .any(|other| is_v4(*other) == is_v4(*address))
            {
                return Err(fail("is the second of its address family"));
            }
            let Some(pool) = self.pools.iter().find(|pool| pool.net.contains(address)) else {
                return Err(fail("is in no pod CIDR of this node"));
            };
            if !pool.offers(*address) {
                return Err(fail("is the network, gateway or broadcast address"));
            }
        }
        Ok(())
    }

    /// Returns the address for the owner and whether it still has to be leased.
    pub(super) fn choose(
        &self,
        pool: &Pool,
        owner: &LeaseOwner,
        wanted: Option<IpAddr>,
        now: u64,
        rest_secs: u64,
    ) -> Result<(IpAddr, bool), IpamError> {
        let held = self
            .held_by(owner)
            .into_iter()
            .find(|address| pool.offers(*address));
        match (held, wanted) {
            (Some(held), None) => Ok((held, false)),
            (Some(held), Some(wanted)) if held == wanted => Ok((held, false)),
            (Some(held), Some(address)) => Err(IpamError::Conflict {
                owner: owner.clone(),
                held,
                address,
            }),
            (None, Some(wanted)) => self.check_available(wanted).map(|()| (wanted, true)),
            (None, None) => self
                .next_free(pool, now, rest_secs)
                .map(|address| (address, true)),
        }
    }

    pub(super) fn check_available(&self, address: IpAddr) -> Result<(), IpamError> {
        match self.taken.get(&address) {
            None | Some(Slot::Resting { .. }) => Ok(()),
            Some(Slot::Leased { owner, .. }) => Err(IpamError::InUse {
                address,
                owner: owner.clone(),
            }),
            Some(Slot::Damaged) => Err(IpamError::Unusable {
                address,
                problem: "may be in use: its lease record is damaged",
            }),
        }
    }

    pub(super) fn next_free(
        &self,
        pool: &Pool,
        now: u64,
        rest_secs: u64,
    ) -> Result<IpAddr, IpamError> {
        let (first, last) = pool.bounds();
        let taken = self.taken.range(first..=last);
        if let Lost::Since(at) = self.lost {
            let is_leased = |(_, slot): &(&IpAddr, &Slot)| matches!(slot, Slot::Leased { .. });
            let leased = taken.filter(is_leased).count();
            let rest = pool.capacity().saturating_sub(leased as u128);
            return Err(IpamError::Exhausted {
                cidr: pool.net,
                leased,
                resting: usize::try_from(rest).unwrap_or(usize::MAX),
                retry_after_secs: Some(at.saturating_add(rest_secs).saturating_sub(now)),
            });
        }
        if (taken.clone().count() as u128) < pool.capacity() {
            let free = pool
                .candidates()
                .find(|address| !self.taken.contains_key(address));
            return Ok(free.expect("fewer are taken than there are"));
        }
        let earliest = taken.clone().filter_map(|(_, slot)| match slot {
            Slot::Resting { released_at } => Some(*released_at),
            _ => None,
        });
        let resting = earliest.clone().count();
        let retry = earliest
            .min()
            .map(|at| at.saturating_add(rest_secs).saturating_sub(now));
        Err(IpamError::Exhausted {
            cidr: pool.net,
            leased: taken.count() - resting,
            resting,
            retry_after_secs: retry,
        })
    }

    pub(super) fn held_by(&self, owner: &LeaseOwner) -> Vec<IpAddr> {
        let is_owners =
            |slot: &Slot| matches!(slot, Slot::Leased { owner: holder, .. } if holder == owner);
        self.taken
            .iter()
            .filter(|(_, slot)| is_owners(slot))
            .map(|(address, _)| *address)
            .collect()
    }

    pub(super) fn with_prefixes(&self, addresses: impl Iterator<Item = IpAddr>) -> Vec<IpNet> {
        let with_prefix = |address: IpAddr| {
            let pool = self.pools.iter().find(|pool| pool.offers(address));
            pool.map_or_else(|| IpNet::from(address), |pool| pool.with_prefix(address))
        };
        addresses.map(with_prefix).collect()
    }
}
