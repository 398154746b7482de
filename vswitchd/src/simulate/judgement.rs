//! Verdict of one simulated switch on a frame, with the policies that decided.

use vswitch_datapath::DropReason;
use vswitch_datapath::pipeline::{TableId, Trace};

use crate::policy::deciding_policies;

/// What one switch says of a frame.
pub(super) struct Judgement {
    pub(super) reason: Option<DropReason>,
    /// Policies that decided at the sender.
    pub(super) egress_by: Vec<String>,
    /// Policies that decided at the receiver.
    pub(super) ingress_by: Vec<String>,
}

impl Judgement {
    pub(super) fn of(reason: Option<DropReason>, trace: &Trace) -> Self {
        let rules = trace.deciding.iter();
        let (egress, ingress): (Vec<_>, Vec<_>) =
            rules.partition(|rule| rule.table < TableId::Forward);
        Self {
            reason,
            egress_by: deciding_policies(egress),
            ingress_by: deciding_policies(ingress),
        }
    }
}
