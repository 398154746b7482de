//! Logging set-up: journald, JSON or text.
