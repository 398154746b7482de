//! Table walk of one key.
//!
//! A walk only reads: what is to be done comes back as [`Step`]s and an [`End`], the rules that
//! it went through as [`Hit`]s. Connection tracking is the caller's ([`Tracker`]).

use std::net::IpAddr;
use std::sync::Arc;

use smallvec::SmallVec;
use vswitch_api::{MacAddr, PortNo};

use super::table::InstalledRule;
use super::{CounterSlot, Meter, Snapshot, TableId};
use crate::action::Action;
use crate::classifier::{Membership, PackedKey};
use crate::drop_reason::DropReason;
use crate::flow::{CtState, FlowKey, ether_type, ip_proto};
use crate::group::{Endpoint, Group, GroupId};

/// A table that a walk came through.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Hit<'s> {
    pub(crate) table: TableId,
    pub(crate) rule: Option<&'s InstalledRule>,
    /// The connection state that the table saw.
    pub(crate) ct_state: CtState,
}

/// Something to be done to every packet of the flow, before it ends.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    /// Ask the meter; what it refuses is dropped here, after this many rules.
    Meter { meter: Arc<Meter>, rules: usize },
    /// Copy the frame to a mirror port.
    Mirror(PortNo),
    /// Write the destination MAC.
    SetEthDst(MacAddr),
    /// Write the source MAC.
    SetEthSrc(MacAddr),
}

impl Step {
    /// Returns whether it writes a MAC, nothing else.
    pub(crate) const fn is_mac(&self) -> bool {
        matches!(self, Self::SetEthDst(_) | Self::SetEthSrc(_))
    }
}

/// How a walk ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// Dropped.
    Drop(DropReason),
    /// Dropped, and the sender is told.
    Reject(DropReason),
    /// Sent, if it is no larger than that.
    Forward { port: PortNo, mtu: u16 },
    /// Answered: the asked IPv4 address is at this MAC.
    ArpReply(MacAddr),
    /// Answered: the asked IPv6 address is at this MAC.
    NdAdvertise(MacAddr),
}

impl End {
    /// Returns why the packet goes no further, if it does not.
    pub(crate) const fn drop_reason(self) -> Option<DropReason> {
        match self {
            Self::Drop(reason) | Self::Reject(reason) => Some(reason),
            Self::Forward { .. } | Self::ArpReply(_) | Self::NdAdvertise(_) => None,
        }
    }
}

/// Connection tracking, as a walk needs it.
pub(crate) trait Tracker {
    /// Looks the packet up and sets `ct_state` (and the ports of later fragments).
    ///
    /// # Errors
    ///
    /// How the walk ends, if the packet must go no further.
    fn track(&mut self, key: &mut FlowKey) -> Result<(), End>;

    /// Returns the endpoint that the client was given last, if it is to keep it.
    fn kept_endpoint(&self, group: &Group, client: IpAddr) -> Option<Endpoint>;

    /// Returns the endpoint that the packet's stream is known to come from.
    fn expected_endpoint(&self, key: &FlowKey) -> Option<Endpoint>;
}

/// For keys whose connection state is known.
pub(super) struct Tracked;

impl Tracker for Tracked {
    fn track(&mut self, _key: &mut FlowKey) -> Result<(), End> {
        Ok(())
    }

    fn kept_endpoint(&self, _group: &Group, _client: IpAddr) -> Option<Endpoint> {
        None
    }

    fn expected_endpoint(&self, _key: &FlowKey) -> Option<Endpoint> {
        None
    }
}

/// The endpoint that a new connection was given.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Balanced<'s> {
    pub(crate) group: &'s Group,
    pub(crate) client: IpAddr,
    pub(crate) endpoint: Endpoint,
}

/// What a walk found: in the tables' order, of a version that outlives it.
#[derive(Debug, Default)]
pub(crate) struct WalkScratch<'s> {
    pub(super) member_of: Membership<'s>,
    pub(crate) hits: SmallVec<[Hit<'s>; TableId::USUAL_WALK]>,
    pub(crate) steps: SmallVec<[Step; 4]>,
}

impl WalkScratch<'_> {
    /// Returns where the rules count that it went through.
    pub(crate) fn rules(&self) -> SmallVec<[CounterSlot; TableId::USUAL_WALK]> {
        let hits = self.hits.iter().filter_map(|hit| hit.rule);
        hits.map(|rule| rule.counters).collect()
    }

    pub(crate) fn clear(&mut self) {
        self.hits.clear();
        self.steps.clear();
    }
}

/// A walk under way.
pub(super) struct Walk<'a, 's> {
    pub(super) snapshot: &'s Snapshot,
    pub(super) key: FlowKey,
    /// The key as classifiers want it.
    packed: PackedKey,
    pub(super) scratch: &'a mut WalkScratch<'s>,
    /// Whether the end was reached over `ct(commit)`.
    pub(super) commits: bool,
    pub(super) balanced: Option<Balanced<'s>>,
}

/// What a rule does with the walk.
enum Next {
    Table(TableId),
    End(End),
}

impl<'a, 's> Walk<'a, 's> {
    /// Starts a walk: finds out what sets the addresses are in.
    pub(super) fn new(
        snapshot: &'s Snapshot,
        key: FlowKey,
        scratch: &'a mut WalkScratch<'s>,
    ) -> Self {
        scratch.clear();
        let sides = &mut scratch.member_of;
        snapshot.addresses.lookup(key.ip_src, &mut sides.src);
        snapshot.addresses.lookup(key.ip_dst, &mut sides.dst);
        Self {
            snapshot,
            key,
            packed: PackedKey::of(&key),
            scratch,
            commits: false,
            balanced: None,
        }
    }

    /// Walks from `start` to the end; `None` if it came to `before`, or past it, instead.
    pub(super) fn run(
        &mut self,
        start: TableId,
        before: Option<TableId>,
        tracker: &mut impl Tracker,
    ) -> Option<End> {
        let mut table = self.snapshot.entered(start);
        loop {
            if before.is_some_and(|before| table >= before) {
                return None;
            }
            match self.visit(table, tracker) {
                Next::Table(next) => table = self.snapshot.entered(next),
                Next::End(end) => return Some(end),
            }
        }
    }

    fn visit(&mut self, table: TableId, tracker: &mut impl Tracker) -> Next {
        if table == TableId::Conntrack
            && let Err(end) = self.track(tracker)
        {
            return Next::End(end);
        }
        let (snapshot, member_of) = (self.snapshot, &self.scratch.member_of);
        let rule = snapshot
            .table(table)
            .and_then(|rules| rules.lookup(&self.packed, member_of))
            .map(Arc::as_ref);
        let ct_state = self.key.ct_state;
        self.scratch.hits.push(Hit {
            table,
            rule,
            ct_state,
        });
        match rule {
            Some(rule) => self.act(table, rule, tracker),
            None => Next::End(self.default_drop(table)),
        }
    }

    fn act(&mut self, table: TableId, rule: &InstalledRule, tracker: &mut impl Tracker) -> Next {
        for action in &rule.actions {
            match *action {
                // Tables only go up: that is what keeps a walk finite.
                Action::Goto(next) if next <= table => {
                    return Next::End(End::Drop(DropReason::PipelineLoop));
                }
                Action::Goto(next) => return Next::Table(next),
                Action::Drop(reason) => return Next::End(End::Drop(reason)),
                Action::Reject(reason) => return Next::End(End::Reject(reason)),
                Action::SetClass(class) => self.change_key(|key| key.class = class),
                Action::SetEthDst(mac) => {
                    self.change_key(|key| key.eth_dst = mac);
                    self.scratch.steps.push(Step::SetEthDst(mac));
                }
                Action::SetEthSrc(mac) => {
                    self.change_key(|key| key.eth_src = mac);
                    self.scratch.steps.push(Step::SetEthSrc(mac));
                }
                Action::SetOutPort(port) => self.change_key(|key| key.out_port = port),
                Action::CtLookup => {
                    if let Err(end) = self.track(tracker) {
                        return Next::End(end);
                    }
                }
                Action::CtCommit => self.commits = true,
                Action::Group(group) => {
                    if let Err(end) = self.balance(group, tracker) {
                        return Next::End(end);
                    }
                }
                Action::Output => return Next::End(self.output(self.key.out_port)),
                Action::ArpReply(mac) => return Next::End(End::ArpReply(mac)),
                Action::NdAdvertise(mac) => return Next::End(End::NdAdvertise(mac)),
                Action::Mirror(port) => self.scratch.steps.push(Step::Mirror(port)),
                Action::Redirect(port) => return Next::End(self.output(port)),
                Action::RateLimit { .. } => self.limit(rule),
            }
        }
        Next::End(self.default_drop(table))
    }

    fn change_key(&mut self, change: impl FnOnce(&mut FlowKey)) {
        change(&mut self.key);
        self.packed.refresh(&self.key);
    }

    /// Only untagged IP packets have connections; others keep an empty `ct_state`.
    fn track(&mut self, tracker: &mut impl Tracker) -> Result<(), End> {
        let is_ip = matches!(self.key.eth_type, ether_type::IPV4 | ether_type::IPV6);
        if is_ip && self.key.vlan_tci == 0 {
            let before = (self.key.ip_src, self.key.ip_dst);
            tracker.track(&mut self.key)?;
            self.packed.refresh(&self.key);
            self.readdressed(before);
        }
        Ok(())
    }

    /// Finds out anew what the addresses are, where they were translated.
    fn readdressed(&mut self, before: (Option<IpAddr>, Option<IpAddr>)) {
        let (src, dst) = (self.key.ip_src, self.key.ip_dst);
        if before == (src, dst) {
            return;
        }
        let (addresses, sides) = (&self.snapshot.addresses, &mut self.scratch.member_of);
        if before.0 != src {
            addresses.lookup(src, &mut sides.src);
        }
        if before.1 != dst {
            addresses.lookup(dst, &mut sides.dst);
        }
        self.packed = PackedKey::of(&self.key);
    }

    /// Gives a new connection its endpoint.
    fn balance(&mut self, id: GroupId, tracker: &impl Tracker) -> Result<(), End> {
        if !self.key.ct_state.contains(CtState::NEW) {
            return Ok(());
        }
        let none = End::Reject(DropReason::ServiceNoEndpoints);
        let before = (self.key.ip_src, self.key.ip_dst);
        let group = self.snapshot.groups.get(id).ok_or(none)?;
        let client = self.key.ip_src.ok_or(none)?;
        let expected = tracker.expected_endpoint(&self.key);
        let kept = || tracker.kept_endpoint(group, client);
        let endpoint = expected
            .filter(|expected| group.has(*expected))
            .or_else(|| kept().filter(|kept| group.has(*kept)))
            .or_else(|| group.select(&self.key))
            .ok_or(none)?;
        self.key.ip_dst = Some(endpoint.ip);
        self.key.tp_dst = endpoint.port;
        self.key.ct_state = self.key.ct_state | CtState::DNAT;
        if client == endpoint.ip {
            self.masquerade(group);
        }
        self.balanced = Some(Balanced {
            group,
            client,
            endpoint,
        });
        self.readdressed(before);
        Ok(())
    }

    fn masquerade(&mut self, group: &Group) {
        self.key.ip_src = Some(group.hairpin_source);
        self.key.ct_state = self.key.ct_state | CtState::SNAT;
    }

    fn limit(&mut self, rule: &InstalledRule) {
        if let Some(meter) = &rule.meter {
            let (meter, rules) = (Arc::clone(meter), self.scratch.hits.len());
            self.scratch.steps.push(Step::Meter { meter, rules });
        }
    }

    fn output(&mut self, port: PortNo) -> End {
        if port == PortNo(0) {
            return End::Drop(DropReason::NoRoute);
        }
        if port == self.key.in_port && !self.may_return() {
            return End::Drop(DropReason::Hairpin);
        }
        match self.snapshot.port(port) {
            Some(known) => End::Forward {
                port,
                mtu: known.spec.mtu,
            },
            None => End::Drop(DropReason::PortDown),
        }
    }

    /// Returns whether the packet may leave through the port that it came in through: where a
    /// Service led it back, under another source.
    fn may_return(&mut self) -> bool {
        if !self.key.ct_state.contains(CtState::SNAT)
            && let Some(balanced) = self.balanced
        {
            self.masquerade(balanced.group);
        }
        self.key.ct_state.contains(CtState::SNAT)
    }

    fn default_drop(&self, table: TableId) -> End {
        let is_nd = self.key.ip_proto == ip_proto::ICMPV6;
        End::Drop(match table {
            TableId::ArpResponder if is_nd => DropReason::NdUnknown,
            _ => table.default_reason(),
        })
    }
}
