//! SCTP.

use super::protocol::{Progress, Start, Step};
use crate::drop_reason::DropReason;

/// State of an SCTP assocection.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct SctpTrack {}

impl SctpTrack {
    pub(super) fn start_of((_, chunk): (u32, u8)) -> Start {
        if chunk == 1 {
            Start::New
        } else {
            Start::Midstream
        }
    }
    pub(super) fn advance(
        &mut self,
        _tag: u32,
        _chunk: u8,
        step: Step<'_>,
    ) -> Result<Progress, DropReason> {
        Ok(Progress::keep(step.config.tcp_established, step.replied))
    }
    pub(super) fn is_reopened_by(&self, _chunk: u8) -> bool {
        false
    }
    pub(super) fn state_name(&self) -> &'static str {
        "ESTABLISHED"
    }
}
