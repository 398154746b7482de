//! The end of the process when a part of it fails.

use std::any::Any;

/// Ends the process at once: nothing of a switch that is not whole may go on.
pub(super) fn end(name: &str, why: &str) -> ! {
    tracing::error!(name, why, "a part of the switch failed; the process ends");
    std::process::abort();
}

/// Returns the text of a panic.
#[must_use]
pub(crate) fn panic_message(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().copied();
    let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("no message").to_owned()
}
