//! A probe with its answer from the simulated cluster.

use serde::Serialize;
use vswitchd::simulate::{Answer, Probe};

/// A judged connection.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Verdict {
    #[serde(flatten)]
    pub(crate) probe: Probe,
    #[serde(flatten)]
    pub(crate) answer: Answer,
}
