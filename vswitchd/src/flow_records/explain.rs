//! Why policies denied what a record tells of, and what came closest to allowing it.

use vswitch_api::v1::{FlowEnd, FlowExplanation};

use super::minute::Unexplained;
use crate::policy::explain::{Judgement, Question, explain, near_miss};
use crate::switch::Ends;

/// Explains by the policies of now; `None` if those allow it, or others than policies denied it.
pub(super) fn explanation(record: &Unexplained, ends: &Ends<'_>) -> Option<FlowExplanation> {
    let of = &record.of;
    let end = |end: &FlowEnd| {
        let name = end.pod.clone();
        ends.end(
            &name.unwrap_or_else(|| end.address.to_string()),
            Some(end.address),
        )
    };
    let question = Question {
        from: end(of.source.as_ref()?),
        to: end(of.destination.as_ref()?),
        protocol: record.proto,
        port: record.port,
    };
    let explained = explain(ends.cluster, &question);
    let judgement: &Judgement = match of.direction.as_deref()? {
        "ingress" => &explained.ingress,
        _ => &explained.egress,
    };
    (!judgement.allowed).then(|| FlowExplanation {
        reason: judgement.ground.to_string(),
        nearest_miss: judgement.misses.first().map(near_miss),
    })
}
