//! What followers are told at a time.

use vswitch_api::v1::FlowRecord;

/// What was counted since the round before, as records of their own.
#[derive(Debug, Default)]
pub struct Round {
    /// Records of all rounds before: whoever missed some knows how many.
    pub before: u64,
    /// Those of this one.
    pub records: Vec<FlowRecord>,
}
