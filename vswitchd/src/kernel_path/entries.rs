//! Flows in the kernel's map, with the counts that were already reported of each.
//!
//! A flow has a slot, and its use is read there. When it is taken out a packet may still be under
//! way on another processor, so its slot stays its own until the next round of
//! [`Entries::sync`]; until then its connection counts as in the kernel.
//!
//! Invariant: a key leads to the slot that the kernel has for it, so that an old flow that goes
//! does not take a newer one of the same key along.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use vswitch_datapath::conntrack::{Connection, Direction};
use vswitch_datapath::kernel_path::Account;
use vswitch_datapath::{KernelFlow, KernelUsage, Timestamp};

use super::kernel::{FlowMaps, KernelError};
use super::wire::{Flow, FlowSlot, Key, Total};
use crate::port::PortCounters;

/// A flow without packets for this long makes room; the engine offers it again.
const IDLE: Duration = Duration::from_secs(10);

/// A flow to be installed.
#[derive(Debug)]
pub(super) struct NewEntry {
    pub(super) flow: KernelFlow,
    pub(super) key: Key,
    pub(super) generation: u64,
    /// Counters of its in port and its out port.
    pub(super) ports: [Arc<PortCounters>; 2],
}

#[derive(Debug)]
struct FlowEntry {
    new: NewEntry,
    /// Its number among the flows that have had its slot.
    id: u32,
    /// Whether the kernel may still follow it.
    is_installed: bool,
    /// When a packet was last told; set by the first sync.
    active: Option<Timestamp>,
}

/// A place to count in, for one flow after the other.
#[derive(Debug, Default)]
struct Slot {
    entry: Option<FlowEntry>,
    /// What was read last; all of it is told.
    told: Total,
    /// Flows that have had it.
    flows: u32,
}

/// All flows.
#[derive(Debug)]
pub(super) struct Entries {
    maps: FlowMaps,
    slots: Vec<Slot>,
    free: Vec<u32>,
    by_key: HashMap<Key, u32>,
    /// Slots of a connection's directions, by its address: an entry keeps it alive.
    by_conn: HashMap<usize, [Option<u32>; 2]>,
}

fn address(conn: &Arc<Connection>) -> usize {
    Arc::as_ptr(conn).addr()
}

const fn side(direction: Direction) -> usize {
    match direction {
        Direction::Original => 0,
        Direction::Reply => 1,
    }
}

impl Entries {
    pub(super) fn new(maps: FlowMaps) -> Self {
        Self {
            maps,
            slots: Vec::new(),
            free: Vec::new(),
            by_key: HashMap::new(),
            by_conn: HashMap::new(),
        }
    }

    /// Returns how many flows have a slot.
    pub(super) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Returns how many slots there are to go through.
    pub(super) fn slots(&self) -> usize {
        self.slots.len()
    }

    /// Puts a flow into the kernel; `way` makes its value for a slot. A full table takes none.
    pub(super) fn install(
        &mut self,
        new: NewEntry,
        value: impl FnOnce(&NewEntry, FlowSlot) -> Flow,
        account: Account<'_>,
    ) -> Result<(), KernelError> {
        let sides = self.by_conn.get(&address(&new.flow.conn));
        let own = sides.and_then(|sides| sides[side(new.flow.direction)]);
        if let Some(slot) = own {
            let entry = self.entry(slot);
            if entry.is_some_and(|old| old.is_installed && old.new.generation == new.generation) {
                return Ok(());
            }
            self.take_out(slot)?;
            self.account(slot, account)?;
            self.release(slot);
        }
        if let Some(other) = self.by_key.get(&new.key).copied() {
            self.take_out(other)?;
        }
        // Half of the room is for connections that are established.
        let is_crowded = self.len() >= self.maps.capacity() as usize / 2;
        if is_crowded && !new.flow.conn.is_assured() {
            return Ok(());
        }
        let Some(slot) = self.free_slot() else {
            return Ok(());
        };
        self.put(slot, new, value)
    }

    fn put(
        &mut self,
        slot: u32,
        new: NewEntry,
        value: impl FnOnce(&NewEntry, FlowSlot) -> Flow,
    ) -> Result<(), KernelError> {
        let Some(room) = self.slots.get_mut(slot as usize) else {
            return Ok(());
        };
        room.flows = room.flows.wrapping_add(1).max(1);
        let id = room.flows;
        let (key, flow) = (new.key, value(&new, FlowSlot { slot, id }));
        let conn = Arc::clone(&new.flow.conn);
        // Before the kernel has it: whoever sees a packet less must know why.
        conn.set_in_kernel(true);
        self.by_conn.entry(address(&conn)).or_default()[side(new.flow.direction)] = Some(slot);
        self.by_key.insert(key, slot);
        room.entry = Some(FlowEntry {
            new,
            id,
            is_installed: true,
            active: None,
        });
        let installed = self.maps.insert(&key, &flow);
        if installed.is_err() {
            self.by_key.remove(&key);
            self.release(slot);
        }
        installed
    }

    fn free_slot(&mut self) -> Option<u32> {
        if let Some(slot) = self.free.pop() {
            return Some(slot);
        }
        let slot = u32::try_from(self.slots.len()).ok()?;
        (slot < self.maps.capacity()).then(|| {
            self.slots.push(Slot::default());
            slot
        })
    }

    fn entry(&self, slot: u32) -> Option<&FlowEntry> {
        self.slots.get(slot as usize)?.entry.as_ref()
    }

    fn entry_mut(&mut self, slot: u32) -> Option<&mut FlowEntry> {
        self.slots.get_mut(slot as usize)?.entry.as_mut()
    }

    /// Takes a flow out of the kernel; its slot stays.
    fn take_out(&mut self, slot: u32) -> Result<(), KernelError> {
        let Some(entry) = self.entry_mut(slot) else {
            return Ok(());
        };
        if !entry.is_installed {
            return Ok(());
        }
        entry.is_installed = false;
        let key = entry.new.key;
        if self.by_key.get(&key) == Some(&slot) {
            self.by_key.remove(&key);
            self.maps.remove(&key)?;
        }
        Ok(())
    }

    /// Tells what went by of a flow since it was last told; returns whether anything did.
    fn account(&mut self, slot: u32, account: Account<'_>) -> Result<bool, KernelError> {
        let total = self.maps.total(slot)?;
        let Some(room) = self.slots.get_mut(slot as usize) else {
            return Ok(false);
        };
        let told = std::mem::replace(&mut room.told, total);
        let Some(entry) = &room.entry else {
            return Ok(false);
        };
        let (whose, progress) = total.tcp;
        let usage = KernelUsage {
            packets: total.packets.saturating_sub(told.packets),
            bytes: total.bytes.saturating_sub(told.bytes),
            tcp: (whose == entry.id).then_some(progress),
        };
        if usage.packets == 0 {
            return Ok(false);
        }
        let [received, sent] = &entry.new.ports;
        received.count_kernel_rx(usage.packets, usage.bytes);
        sent.count_kernel_tx(usage.packets, usage.bytes);
        account(&entry.new.flow, usage);
        Ok(true)
    }

    /// Frees a slot whose flow is out of the kernel and told.
    fn release(&mut self, slot: u32) {
        let Some(entry) = self
            .slots
            .get_mut(slot as usize)
            .and_then(|room| room.entry.take())
        else {
            return;
        };
        self.free.push(slot);
        let conn = &entry.new.flow.conn;
        if let Some(sides) = self.by_conn.get_mut(&address(conn)) {
            let own = &mut sides[side(entry.new.flow.direction)];
            if *own == Some(slot) {
                *own = None;
            }
            if *sides == [None, None] {
                self.by_conn.remove(&address(conn));
                conn.set_in_kernel(false);
            }
        }
    }

    /// Returns the slots of a connection.
    fn slots_of(&self, conn: &Arc<Connection>) -> impl Iterator<Item = u32> + use<> {
        let sides = self.by_conn.get(&address(conn)).copied();
        sides.unwrap_or_default().into_iter().flatten()
    }

    /// Tells what went by of a connection.
    pub(super) fn catch_up(
        &mut self,
        conn: &Arc<Connection>,
        account: Account<'_>,
    ) -> Result<(), KernelError> {
        for slot in self.slots_of(conn) {
            self.account(slot, account)?;
        }
        Ok(())
    }

    /// Takes both directions of a connection out and tells what went by.
    pub(super) fn reclaim(
        &mut self,
        conn: &Arc<Connection>,
        account: Account<'_>,
    ) -> Result<(), KernelError> {
        for slot in self.slots_of(conn) {
            self.take_out(slot)?;
        }
        self.catch_up(conn, account)
    }

    /// Tells what went by of the flows in some slots, frees those that were taken out before,
    /// and takes out what is over, of another generation, or idle.
    pub(super) fn sync(
        &mut self,
        slots: std::ops::Range<usize>,
        (generation, now): (u64, Timestamp),
        account: Account<'_>,
    ) -> Result<(), KernelError> {
        for slot in slots {
            let Ok(slot) = u32::try_from(slot) else { break };
            let Some(entry) = self.entry(slot) else {
                continue;
            };
            let was_installed = entry.is_installed;
            let is_active = self.account(slot, account)?;
            if !was_installed {
                self.release(slot);
                continue;
            }
            let Some(entry) = self.entry_mut(slot) else {
                continue;
            };
            let active = *entry.active.get_or_insert(now);
            if is_active {
                entry.active = Some(now);
            }
            let conn = &entry.new.flow.conn;
            // A connection that closes and is silent is over.
            let patience = if conn.may_enter_kernel() {
                IDLE
            } else {
                Duration::ZERO
            };
            let is_idle = !is_active && now.since(active) >= patience;
            let is_stale = entry.new.generation != generation;
            if is_idle || is_stale || conn.is_dead() {
                self.take_out(slot)?;
            }
        }
        Ok(())
    }

    /// Takes out every flow that uses a port; for a port that goes.
    pub(super) fn forget_port(&mut self, port: vswitch_api::PortNo) -> Result<(), KernelError> {
        let uses =
            |entry: &FlowEntry| [entry.new.flow.in_port, entry.new.flow.out_port].contains(&port);
        for slot in 0..self.slots.len() {
            let Ok(slot) = u32::try_from(slot) else { break };
            if self.entry(slot).is_some_and(uses) {
                self.take_out(slot)?;
            }
        }
        Ok(())
    }
}
