//! The end of the process when a part of it fails.

/// Ends the process at once: nothing of a switch that is not whole may go on.
pub(super) fn end(name: &str, why: &str) -> ! {
    tracing::error!(name, why, "a part of the switch failed; the process ends");
    std::process::abort();
}
