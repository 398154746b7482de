//! The rules of one table in their subtables, and the search for the one that wins.

use std::cmp::Reverse;
use std::sync::Arc;

use smallvec::SmallVec;

use super::anchor::PreferredAnchor;
use super::kind::Kind;
use super::lane::Lane;
use super::rank::Ceiling;
use super::subtable::{Filed, Shape, Subtable};
use super::{CompiledMatch, Membership, PackedKey, Rank};

/// The rules of one table. A clone shares all of them; a change copies what it touches.
#[derive(Debug)]
pub(crate) struct Classifier<T> {
    prefer: PreferredAnchor,
    /// Best first.
    pub(super) lanes: Vec<Lane<T>>,
    /// Which lanes are for packets of each kind, best first.
    by_kind: [SmallVec<[u32; 8]>; Kind::COUNT],
    /// The rule that any packet of a kind meets before all others, if there is such a one: many tables
    /// have only what they do by default.
    certain: [Option<Arc<T>>; Kind::COUNT],
    /// Rules that tell a connection's first packet from its later ones.
    state_dependent: usize,
}

impl<T> Clone for Classifier<T> {
    fn clone(&self) -> Self {
        Self {
            prefer: self.prefer,
            lanes: self.lanes.clone(),
            by_kind: self.by_kind.clone(),
            certain: self.certain.clone(),
            state_dependent: self.state_dependent,
        }
    }
}

impl<T> Classifier<T> {
    /// Returns a table without rules.
    pub(crate) fn new(prefer: PreferredAnchor) -> Self {
        Self {
            prefer,
            lanes: Vec::new(),
            by_kind: Default::default(),
            certain: std::array::from_fn(|_| None),
            state_dependent: 0,
        }
    }

    /// Files a rule; its rank must be nobody else's.
    pub(crate) fn insert(&mut self, rank: Rank, matches: &CompiledMatch, value: Arc<T>) {
        let anchor = matches.anchor(self.prefer);
        self.state_dependent += usize::from(matches.tells_new_from_established());
        let mut subtable = self.take(&Shape::of(matches, anchor));
        Arc::make_mut(&mut subtable).insert(anchor, rank, matches, value);
        self.put(subtable);
    }

    /// Removes the rule of that rank with that match, if it is there.
    pub(crate) fn remove(&mut self, rank: Rank, matches: &CompiledMatch) {
        let anchor = matches.anchor(self.prefer);
        let mut subtable = self.take(&Shape::of(matches, anchor));
        let was_there = Arc::make_mut(&mut subtable).remove(anchor, rank, matches);
        self.state_dependent -= usize::from(was_there && matches.tells_new_from_established());
        self.put(subtable);
    }

    /// Takes out the rules of a shape, to be changed and [put](Self::put) back.
    fn take(&mut self, shape: &Shape) -> Arc<Subtable<T>> {
        let is_it = |lane: &Lane<T>| lane.subtable().shape() == shape;
        match self.lanes.iter().position(is_it) {
            Some(at) => self.lanes.remove(at).into_subtable(),
            None => Arc::new(Subtable::new(shape.clone())),
        }
    }

    /// Lanes and their index are made anew as a whole: there are as many as masks in the table,
    /// some tens whatever the number of rules, and what packets read stays in one piece.
    fn put(&mut self, subtable: Arc<Subtable<T>>) {
        if !subtable.is_empty() {
            let lane = Lane::new(subtable);
            let is_before = |other: &Lane<T>| other.ceiling() >= lane.ceiling();
            let at = self.lanes.partition_point(is_before);
            self.lanes.insert(at, lane);
        }
        for (kind, lanes) in Kind::all().zip(&mut self.by_kind) {
            let numbered = (0..).zip(&self.lanes);
            let is_for = |(number, lane): (u32, &Lane<T>)| lane.is_for(kind).then_some(number);
            lanes.clear();
            lanes.extend(numbered.filter_map(is_for));
        }
        let certain = |kind: usize| {
            let mut lanes = self.by_kind.get(kind)?.iter();
            let mut next = || self.lanes.get(*lanes.next()? as usize);
            let (first, second) = (next()?, next());
            let beats = second.map_or(Ceiling::default(), Lane::ceiling);
            let sole = first.unconditional();
            let sole = sole.filter(|sole| sole.rank.is_above(beats))?;
            Some(Arc::clone(&sole.value))
        };
        self.certain = std::array::from_fn(certain);
    }

    /// Returns the lanes whose rules the packet may match.
    #[inline]
    fn lanes_for(&self, key: &PackedKey) -> impl Iterator<Item = &Lane<T>> {
        let numbers = self.by_kind.get(key.kind().index());
        let numbers = numbers.map_or(&[][..], SmallVec::as_slice);
        numbers
            .iter()
            .filter_map(|number| self.lanes.get(*number as usize))
    }

    /// Returns how many rules there are.
    pub(crate) fn len(&self) -> usize {
        let lanes = self.lanes.iter();
        lanes.map(|lane| lane.subtable().len()).sum()
    }

    /// Returns whether any rule tells a connection's first packet from its later ones.
    pub(crate) const fn tells_new_from_established(&self) -> bool {
        self.state_dependent > 0
    }

    /// Returns the winning rule.
    #[inline]
    pub(crate) fn lookup(&self, key: &PackedKey, member_of: &Membership<'_>) -> Option<&Arc<T>> {
        match self.certain.get(key.kind().index()) {
            Some(Some(certain)) => Some(certain),
            _ => self.search(key, member_of),
        }
    }

    fn search(&self, key: &PackedKey, member_of: &Membership<'_>) -> Option<&Arc<T>> {
        let mut best: Option<&Filed<T>> = None;
        let mut floor = Rank::NONE;
        for lane in self.lanes_for(key) {
            if floor.is_above(lane.ceiling()) {
                break;
            }
            if !lane.may_match(key) {
                continue;
            }
            if let Some(sole) = lane.sole() {
                if sole.rank > floor && sole.beyond.is_met(key, member_of) {
                    (best, floor) = (Some(sole), sole.rank);
                }
                continue;
            }
            lane.subtable().probe(key, member_of, |bucket| {
                let is_alone = bucket.len() == 1;
                // Of most buckets only what their one rule demands is read: it is not met.
                let mut better = bucket
                    .iter()
                    .take_while(|filed| is_alone || filed.rank > floor);
                if let Some(filed) = better.find(|filed| filed.beyond.is_met(key, member_of))
                    && filed.rank > floor
                {
                    (best, floor) = (Some(filed), filed.rank);
                }
            });
        }
        best.map(|filed| &filed.value)
    }

    /// Returns every rule that matches, best first. For explanations, not for packets.
    pub(crate) fn lookup_all(&self, key: &PackedKey, member_of: &Membership<'_>) -> Vec<Arc<T>> {
        let mut found = Vec::new();
        for lane in self.lanes_for(key) {
            lane.subtable().probe(key, member_of, |bucket| {
                let matching = bucket
                    .iter()
                    .filter(|filed| filed.beyond.is_met(key, member_of));
                found.extend(matching);
            });
        }
        found.sort_by_key(|filed| Reverse(filed.rank));
        found
            .into_iter()
            .map(|filed| Arc::clone(&filed.value))
            .collect()
    }
}
