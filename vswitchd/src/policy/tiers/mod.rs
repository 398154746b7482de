//! Policies whose rules have actions and stand in tiers: those of the whole cluster and Calico's.
//!
//! ```text
//! 55 to 58 Egress-, 75 to 78 IngressAdminTier…   tiers before NetworkPolicies
//! 60, 80   Egress-, IngressRule                  tier default before NetworkPolicies, those
//! 61, 81   Egress-, IngressDefault               tier default behind them, isolation
//! 65, 66   Egress-, 85, 86 IngressBaselineTier…  tiers behind tier default
//! ```
//!
//! A policy of any of these kinds is lowered to a [`TieredPolicy`] and compiled from that. The
//! [`Ranking`] says where its rules go: inside a priority the id of a rule tells its [`Place`], by
//! the policy's place, then by the rule's position. The first one that matches decides.
//!
//! [`Place`]: crate::rules::Place

mod compile;
mod model;
mod ranking;
mod verdict;

pub(super) use compile::{CaseCompiler, compile};
pub use model::Flaw;
pub(super) use model::{
    Case, Demand, END_OF_TIER, RuleAction, SetPrefix, TieredPolicy, TieredRule, Traffic, Transport,
};
pub(super) use ranking::{ADMIN, BASELINE, DEFAULT, Order, Position, Rank, Ranking, TierPlace};
pub use verdict::{deciding_policies, denial};
