//! One text for an error and its causes, in logs, answers and problems alike: "what failed: why".

use std::error::Error;

/// Writes an error with all its causes on one line. What a text repeats of its cause, as those of
/// some outside crates do, is said once.
#[must_use]
pub fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = String::new();
    let mut next = Some(error);
    while let Some(error) = next {
        let part = error.to_string();
        if text.is_empty() {
            text = part;
        } else if !text.contains(&part) {
            text = format!("{text}: {part}");
        }
        next = error.source();
    }
    text
}

/// Writes the causes alone, for where the error's own text stands elsewhere; empty if there are
/// none.
#[must_use]
pub fn causes(error: &(dyn Error + 'static)) -> String {
    error.source().map(chain).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{doing}")]
    struct Step {
        doing: &'static str,
        source: io::Error,
    }

    #[derive(Debug, thiserror::Error)]
    #[error("the call failed: {source}")]
    struct Repeating {
        source: Step,
    }

    fn step() -> Step {
        Step {
            doing: "open socket",
            source: io::Error::from_raw_os_error(24),
        }
    }

    #[test]
    fn every_cause_is_said_and_none_twice() {
        let why = "Too many open files (os error 24)";
        assert_eq!(chain(&step()), format!("open socket: {why}"));
        assert_eq!(causes(&step()), why);
        assert_eq!(causes(&step().source), "");
        let repeating = Repeating { source: step() };
        let said = format!("the call failed: open socket: {why}");
        assert_eq!(chain(&repeating), said);
    }
}
