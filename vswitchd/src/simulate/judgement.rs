//! Verdict of one simulated switch on a frame, with the policies that decided.

use vswitch_datapath::DropReason;
use vswitch_datapath::pipeline::Trace;

/// What one switch says of a frame.
pub(super) struct Judgement {
    pub(super) reason: Option<DropReason>,
    pub(super) policies: Vec<String>,
}

impl Judgement {
    pub(super) fn of(reason: Option<DropReason>, trace: &Trace) -> Self {
        let mut policies: Vec<String> = Vec::new();
        for rule in &trace.deciding {
            if rule.origin.kind == "NetworkPolicy" && !policies.contains(&rule.origin.name) {
                policies.push(rule.origin.name.clone());
            }
        }
        Self { reason, policies }
    }
}
