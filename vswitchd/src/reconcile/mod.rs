//! Diffs desired rules against installed ones and publishes once.
