//! Counts what is denied, and has it said.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::broadcast::{Receiver, error::RecvError};
use vswitch_api::v1::{FlowEnd, FlowRecord};

use super::message::Side;
use super::plan::Plan;
use crate::clock::unix_seconds;
use crate::events::{Recorder, Regarding};
use crate::flow_records::Round;
use crate::objects::{Registry, Resource};
use crate::supervise::{Beats, Ended};

/// How often it is looked for what is due.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Notes that may wait for the recorder: those of some seconds, so that others are written soon.
/// What is not said yet goes on counting.
const MAX_WAITING: usize = 32;

/// Notes what policies deny the pods of a registry, for as long as the daemon runs.
pub async fn follow_denied(
    mut records: Receiver<Arc<Round>>,
    registry: Arc<Registry>,
    recorder: Recorder,
    beat: Beats,
) -> Ended {
    let mut plan = Plan::default();
    let mut ticks = tokio::time::interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let heard = async {
            tokio::select! {
                records = records.recv() => Some(records),
                _ = ticks.tick() => None,
            }
        };
        let now = unix_seconds();
        match beat.wait(heard).await {
            Some(Ok(round)) => {
                for record in &round.records {
                    count(&mut plan, &registry, record, now);
                }
            }
            // The counts of Events lack them; those of the records are whole.
            Some(Err(RecvError::Lagged(_))) => {}
            Some(Err(RecvError::Closed)) => return Ended::Early("nobody records any more"),
            None => {}
        }
        let room = MAX_WAITING.saturating_sub(recorder.waiting());
        for (note, packets) in plan.due(room, now) {
            recorder.note_times(note, packets);
        }
    }
}

fn count(plan: &mut Plan, registry: &Registry, record: &FlowRecord, now: u64) {
    let of = &record.of;
    let is_denied = matches!(of.verdict.as_str(), "denied" | "cut");
    let Some(direction) = of.direction.as_deref().filter(|_| is_denied) else {
        return;
    };
    let ends = [
        (Side::Source, &of.source),
        (Side::Destination, &of.destination),
    ];
    for (side, end) in ends {
        let is_concerned = side == Side::Source || direction == "ingress";
        let end = end.as_ref().filter(|_| is_concerned);
        // Who has no object cannot be described.
        if let Some(pod) = end.and_then(|end| regarding(registry, end)) {
            plan.count(&pod, side, record, now);
        }
    }
}

fn regarding(registry: &Registry, end: &FlowEnd) -> Option<Regarding> {
    let (namespace, name) = end.pod.as_ref()?.split_once('/')?;
    let object = registry.get(Resource::Pod, namespace, name).ok()?;
    Some(Regarding::object(&object))
}
