//! The flow tables and the walk through them.
//!
//! `store` is the writer's side, a `snapshot` what it
//! publishes; `walk` takes a key through the tables, `translate` a packet, with its
//! connection: both only read, so that a trace is the same walk without the consequences.

mod audit;
mod bandwidth;
mod builtin;
mod meter;
mod rule;
mod rule_counters;
mod rule_path;
mod snapshot;
mod store;
mod table;
mod trace;
mod translate;
mod walk;

pub use crate::address_set::SetUpdate;
pub use crate::table_id::TableId;
pub use bandwidth::Bandwidth;
pub use builtin::builtin_rules;
pub use rule::{
    AuditUpdate, Decision, Origin, PortSpec, PortUpdate, Rule, RuleError, RuleId, RuleStats,
    Transaction, is_builtin,
};
pub use trace::{Trace, TraceInput, TracePacket, TraceStep, TraceTranslation, TraceVerdict};

pub(crate) use audit::{admitted_by, audit};
pub(crate) use bandwidth::PortLimits;
pub(crate) use meter::Meter;
pub(crate) use rule_counters::{CounterSlot, Counts, RuleCounters, add_alone};
pub(crate) use rule_path::{PathCounters, RulePath, RulePaths};
pub(crate) use snapshot::{AuditedProgram, DropCounters, Port, Ports, Snapshot};
pub(crate) use store::RuleStore;
pub(crate) use trace::{deciding_drops, denied_by, explained, trace};
pub(crate) use translate::{
    ConnUpdate, Memory, Packet, Question, Translation, answer_key, judge_connection, translate,
    translate_answer,
};
pub(crate) use walk::{End, Step, WalkScratch};
