//! Connections in the kernel, with the counts that were already told of each.
//!
//! A connection has a place (slot) in the shared memory, which each of its directions leads to by
//! its key. When it leaves the kernel a packet may still be under way on another processor, so
//! its slot rests before another connection has it; what still went by is told then.
//!
//! Invariant: a key leads to the slot that the kernel has for it, so that an old flow that goes
//! does not take a newer one of the same key along.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use vswitch_datapath::conntrack::{Connection, Direction};
use vswitch_datapath::kernel_path::Account;
use vswitch_datapath::{KernelFlow, KernelUsage, Timestamp};

use super::kernel::{FlowMap, KernelError, Translations};
use super::memory::{ConnMemory, Place};
use super::wire::{self, Device, Key};
use crate::errors;
use crate::port::PortCounters;

/// A connection without packets for this long makes room; the engine offers it again.
const IDLE: Duration = Duration::from_secs(10);

/// How long a slot rests: a program runs for less than a microsecond, but a virtual processor may
/// stand still in the middle of it.
const REST: Duration = Duration::from_secs(1);

/// Connections handed over before that are looked at when another one is: whether somebody has
/// answered. Two, so that all are before long.
const LOOKS: usize = 2;

/// A direction to be installed.
#[derive(Debug)]
pub(super) struct NewFlow {
    pub(super) flow: KernelFlow,
    pub(super) key: Key,
    pub(super) to: Device,
    /// Counters of its in port and its out port.
    pub(super) ports: [Arc<PortCounters>; 2],
}

impl NewFlow {
    const fn side(&self) -> usize {
        match self.flow.direction {
            Direction::Original => 0,
            Direction::Reply => 1,
        }
    }
}

/// A connection with a slot.
#[derive(Debug)]
struct Entry {
    conn: Arc<Connection>,
    /// Its number among those that have had the slot.
    id: u32,
    /// Its directions, as far as they are known, with the generations they were judged by.
    flows: [Option<(NewFlow, u64)>; 2],
    told: [KernelUsage; 2],
    /// When a packet was last told; set by the first sync.
    active: Option<Timestamp>,
    /// When it left the kernel.
    left: Option<Timestamp>,
}

/// All connections.
#[derive(Debug)]
pub(super) struct Entries {
    flows: FlowMap,
    translations: Translations,
    memory: Arc<ConnMemory>,
    slots: Vec<Option<Entry>>,
    free: Vec<u32>,
    /// Slot and side of a key.
    by_key: HashMap<Key, (u32, usize)>,
    /// Slot of a connection that has not left, by its address: an entry keeps it alive.
    by_conn: HashMap<usize, u32>,
    /// Slots and numbers of connections that nobody had answered when they were last looked at.
    unanswered: VecDeque<(u32, u32)>,
}

fn address(conn: &Arc<Connection>) -> usize {
    Arc::as_ptr(conn).addr()
}

impl Entries {
    pub(super) fn new(flows: FlowMap, translations: Translations, memory: Arc<ConnMemory>) -> Self {
        Self {
            flows,
            translations,
            memory,
            slots: Vec::new(),
            free: Vec::new(),
            by_key: HashMap::new(),
            by_conn: HashMap::new(),
            unanswered: VecDeque::new(),
        }
    }

    /// Returns how many directions the kernel follows.
    pub(super) fn len(&self) -> usize {
        self.by_key.len()
    }

    /// Returns how many slots there are to go through.
    pub(super) fn slots(&self) -> usize {
        self.slots.len()
    }

    /// Hands a connection over, or has the kernel know more of one. A full table takes none.
    pub(super) fn install(
        &mut self,
        flows: impl IntoIterator<Item = NewFlow>,
        (generation, now): (u64, Timestamp),
        account: Account<'_>,
    ) {
        self.look_for_answers(account);
        for new in flows {
            let conn = Arc::clone(&new.flow.conn);
            let slot = self.by_conn.get(&address(&conn)).copied();
            let slot = slot.filter(|slot| self.may_stay(*slot, &new, now));
            let Some(slot) = slot.or_else(|| self.enter(&conn)) else {
                return;
            };
            self.put(slot, new, generation, account);
        }
    }

    /// Returns whether a connection can stay where it is, with this direction; else it leaves.
    fn may_stay(&mut self, slot: u32, new: &NewFlow, now: Timestamp) -> bool {
        let Some(entry) = self.entry(slot) else {
            return false;
        };
        // A direction's way cannot change under packets that follow it.
        let fares_as =
            |(old, _): &(NewFlow, u64)| old.key == new.key && old.flow.fares_as(&new.flow);
        let stays =
            entry.conn.is_in_kernel() && entry.flows[new.side()].as_ref().is_none_or(fares_as);
        if !stays {
            self.take_out(slot, now);
        }
        stays
    }

    /// Gives a connection a slot, if there is room.
    fn enter(&mut self, conn: &Arc<Connection>) -> Option<u32> {
        // Half of the room is for connections that are established.
        let is_crowded = self.by_conn.len() >= self.memory.len() / 2;
        if is_crowded && !conn.is_assured() {
            return None;
        }
        let slot = self.free_slot()?;
        if let Err(error) = self.translate(slot, conn) {
            let error = errors::chain(&error);
            tracing::debug!(
                error,
                "handing a connection to the kernel failed; its packets go through the workers"
            );
            self.free.push(slot);
            return None;
        }
        let (memory, mut id) = (&self.memory, 0);
        let entered = conn.enter_kernel(|tcp| {
            id = memory.begin(slot, tcp);
            Box::new(Place::new(Arc::clone(memory), slot))
        });
        if !entered {
            self.free.push(slot);
            return None;
        }
        if conn.is_unanswered() {
            self.unanswered.push_back((slot, id));
        }
        self.by_conn.insert(address(conn), slot);
        if let Some(room) = self.slots.get_mut(slot as usize) {
            *room = Some(Entry {
                conn: Arc::clone(conn),
                id,
                flows: [None, None],
                told: [KernelUsage::default(); 2],
                active: None,
                left: None,
            });
        }
        Some(slot)
    }

    /// Has the kernel know what packets of a translated connection look like when they leave.
    fn translate(&mut self, slot: u32, conn: &Connection) -> Result<(), KernelError> {
        let [original, reply] =
            [Direction::Original, Direction::Reply].map(|direction| conn.leaves_as(direction));
        match (original, reply) {
            (Some(original), Some(reply)) => {
                let translation = wire::translation(&[original, reply]);
                self.translations.set(slot, &translation)
            }
            _ => Ok(()),
        }
    }

    /// Has the kernel follow a direction.
    fn put(&mut self, slot: u32, new: NewFlow, generation: u64, account: Account<'_>) {
        let side = new.side();
        let Some(entry) = self.entry(slot) else {
            return;
        };
        if entry.flows[side].is_some() {
            // What went by so far counts in the rules of before.
            self.account(slot, account);
            self.memory.set_generation(slot, side, generation);
        } else {
            let flow = wire::flow(slot, side, entry.id);
            let KernelFlow {
                tuple,
                leaves_with,
                mtu,
                ..
            } = &new.flow;
            let comes_as = (tuple, entry.conn.is_translated());
            let way = wire::way(comes_as, leaves_with, *mtu, new.to);
            self.memory.set_way(slot, side, way, generation);
            // A table that is full, or a kernel without memory: the workers go on.
            if let Err(error) = self.flows.insert(&new.key, &flow) {
                let error = errors::chain(&error);
                tracing::debug!(
                    error,
                    "handing a flow to the kernel failed; its packets go through the workers"
                );
                return;
            }
            self.by_key.insert(new.key, (slot, side));
        }
        if let Some(entry) = self.entry_mut(slot) {
            entry.flows[side] = Some((new, generation));
        }
    }

    fn free_slot(&mut self) -> Option<u32> {
        if let Some(slot) = self.free.pop() {
            return Some(slot);
        }
        let slot = u32::try_from(self.slots.len()).ok()?;
        (self.slots.len() < self.memory.len()).then(|| {
            self.slots.push(None);
            slot
        })
    }

    fn entry(&self, slot: u32) -> Option<&Entry> {
        self.slots.get(slot as usize)?.as_ref()
    }

    fn entry_mut(&mut self, slot: u32) -> Option<&mut Entry> {
        self.slots.get_mut(slot as usize)?.as_mut()
    }

    /// Looks whether connections of before were answered: ports are held to how many of theirs
    /// nobody answers.
    fn look_for_answers(&mut self, account: Account<'_>) {
        for _ in 0..LOOKS {
            let Some((slot, id)) = self.unanswered.pop_front() else {
                return;
            };
            let is_it = |entry: &&Entry| entry.id == id && entry.left.is_none();
            let Some(entry) = self.entry(slot).filter(is_it) else {
                continue;
            };
            let conn = Arc::clone(&entry.conn);
            let [_, answers] = self.memory.usage(slot);
            if answers.packets > 0 {
                self.account(slot, account);
            }
            if conn.is_unanswered() {
                self.unanswered.push_back((slot, id));
            }
        }
    }

    /// Takes a connection out of the kernel; its slot stays.
    fn take_out(&mut self, slot: u32, now: Timestamp) {
        let Some(entry) = self.slots.get_mut(slot as usize).and_then(Option::as_mut) else {
            return;
        };
        // First: from here on no packet follows it, whatever becomes of its keys.
        entry.conn.leave_kernel();
        entry.left.get_or_insert(now);
        for (side, flow) in entry.flows.iter().enumerate() {
            let Some((new, _)) = flow else { continue };
            if self.by_key.get(&new.key) != Some(&(slot, side)) {
                continue;
            }
            self.by_key.remove(&new.key);
            if let Err(error) = self.flows.remove(&new.key) {
                let error = errors::chain(&error);
                tracing::warn!(
                    error,
                    "removing a flow from the kernel failed; no packet follows it any more"
                );
            }
        }
        if self.by_conn.get(&address(&entry.conn)) == Some(&slot) {
            self.by_conn.remove(&address(&entry.conn));
        }
    }

    /// Tells what went by of a connection since it was last told; returns whether anything did.
    fn account(&mut self, slot: u32, account: Account<'_>) -> bool {
        let totals = self.memory.usage(slot);
        let Some(entry) = self.entry_mut(slot) else {
            return false;
        };
        let told = std::mem::replace(&mut entry.told, totals);
        let mut is_any = false;
        for ((flow, total), told) in entry.flows.iter().zip(totals).zip(told) {
            let usage = KernelUsage {
                packets: total.packets.saturating_sub(told.packets),
                bytes: total.bytes.saturating_sub(told.bytes),
            };
            let (Some((new, _)), 1..) = (flow, usage.packets) else {
                continue;
            };
            let [received, sent] = &new.ports;
            received.count_kernel_rx(usage.packets, usage.bytes);
            sent.count_kernel_tx(usage.packets, usage.bytes);
            account(&new.flow, usage);
            is_any = true;
        }
        is_any
    }

    /// Frees a slot whose connection is out of the kernel and told.
    fn release(&mut self, slot: u32) {
        let room = self.slots.get_mut(slot as usize);
        if let Some(entry) = room.and_then(Option::take) {
            entry.conn.give_place_up();
            self.free.push(slot);
        }
    }

    /// Tells what went by of the connections in some slots, frees those that have rested, and takes
    /// out what is over, of another generation, or idle.
    pub(super) fn sync(
        &mut self,
        slots: std::ops::Range<usize>,
        (generation, now): (u64, Timestamp),
        account: Account<'_>,
    ) {
        for slot in slots {
            let Ok(slot) = u32::try_from(slot) else { break };
            if self.entry(slot).is_none() {
                continue;
            }
            let is_active = self.account(slot, account);
            let Some(entry) = self.entry_mut(slot) else {
                continue;
            };
            if let Some(left) = entry.left {
                if now.since(left) >= REST {
                    self.release(slot);
                }
                continue;
            }
            let active = *entry.active.get_or_insert(now);
            if is_active {
                entry.active = Some(now);
            }
            let mut flows = entry.flows.iter().flatten();
            let is_stale = flows.all(|(_, judged_by)| *judged_by != generation);
            let is_idle = !is_active && now.since(active) >= IDLE;
            let conn = &entry.conn;
            let is_over = !conn.is_in_kernel() || conn.is_finished();
            if is_idle || is_stale || is_over {
                self.take_out(slot, now);
            }
        }
    }

    /// Takes out every connection that uses a port; for a port that goes.
    pub(super) fn forget_port(&mut self, port: vswitch_api::PortNo, now: Timestamp) {
        let uses =
            |(new, _): &(NewFlow, u64)| [new.flow.in_port, new.flow.out_port].contains(&port);
        for slot in 0..self.slots.len() {
            let Ok(slot) = u32::try_from(slot) else { break };
            let entry = self.entry(slot);
            if entry.is_some_and(|entry| entry.flows.iter().flatten().any(uses)) {
                self.take_out(slot, now);
            }
        }
    }
}
