//! Logging set-up: journald, JSON or text.
//!
//! Called once by `main` before anything else may log. The level comes from the
//! configuration; `VSWITCHD_LOG_LEVEL` overrides it there like every other key.

use std::io::{self, IsTerminal as _};
use std::os::unix::fs::MetadataExt as _;

use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer, Registry};

/// Logging.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogConfig {
    /// A level, or directives like `info,vswitchd::cni=debug`.
    pub level: String,
    /// Where and how.
    pub format: LogFormat,
}

/// Where log lines go, and in which form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// The journal where standard error is connected to it, text elsewhere.
    Auto,
    /// The journal, with fields.
    Journald,
    /// JSON lines on standard error.
    Json,
    /// Text on standard error.
    Text,
}

/// Logging that could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The level cannot be understood.
    #[error(
        "{level:?} is not a level (error, warn, info, debug, trace) nor a list like info,vswitchd::cni=debug"
    )]
    Level {
        /// As written.
        level: String,
    },
    /// The journal was asked for, but its socket is not there.
    #[error("connect to the journal")]
    Journal {
        /// Cause.
        source: io::Error,
    },
    /// The process logs already.
    #[error("install the logger")]
    Install {
        /// Cause.
        source: tracing_subscriber::util::TryInitError,
    },
}

/// Checks a level or list of directives.
///
/// # Errors
/// [`TelemetryError::Level`].
pub fn check_level(level: &str) -> Result<(), TelemetryError> {
    filter(level).map(drop)
}

/// Starts logging for the whole process.
///
/// # Errors
/// [`TelemetryError`].
pub fn init(config: &LogConfig) -> Result<(), TelemetryError> {
    let subscriber = tracing_subscriber::registry()
        .with(output(config.format)?.with_filter(filter(&config.level)?));
    subscriber
        .try_init()
        .map_err(|source| TelemetryError::Install { source })
}

/// What a library says at each failed try, as an error: the watchers say once what is not heard and
/// why. A directive of the configuration for the same target comes behind it, and counts.
const QUIET: &str = "kube_client=off";

/// `EnvFilter` alone would take a misspelt level (`inof`) for the name of a module, and log
/// nothing at all.
fn filter(level: &str) -> Result<EnvFilter, TelemetryError> {
    let bad = || TelemetryError::Level {
        level: level.to_owned(),
    };
    let is_level = |word: &str| {
        ["error", "warn", "info", "debug", "trace", "off"].contains(&word.to_lowercase().as_str())
    };
    let is_directive = |part: &str| match part.split_once('=') {
        Some((target, word)) => !target.is_empty() && is_level(word),
        None => is_level(part),
    };
    if !level.split(',').map(str::trim).all(is_directive) {
        return Err(bad());
    }
    // The parser itself takes no blanks behind commas.
    let dense: String = level.split_whitespace().collect();
    let directives = format!("{QUIET},{dense}");
    EnvFilter::builder().parse(directives).map_err(|_| bad())
}

type Output = Box<dyn Layer<Registry> + Send + Sync>;

fn output(format: LogFormat) -> Result<Output, TelemetryError> {
    let journal = || tracing_journald::layer().map(|layer| layer.with_field_prefix(None).boxed());
    match format {
        LogFormat::Journald => journal().map_err(|source| TelemetryError::Journal { source }),
        LogFormat::Json => Ok(json()),
        LogFormat::Text => Ok(text()),
        LogFormat::Auto if stderr_is_journal() => Ok(journal().unwrap_or_else(|_| json())),
        LogFormat::Auto => Ok(text()),
    }
}

fn json() -> Output {
    tracing_subscriber::fmt::layer()
        .json()
        .with_writer(io::stderr)
        .boxed()
}

fn text() -> Output {
    let colours = io::stderr().is_terminal();
    tracing_subscriber::fmt::layer()
        .with_ansi(colours)
        .with_writer(io::stderr)
        .boxed()
}

/// systemd.exec(5): `JOURNAL_STREAM` is `device:inode` of the stream that was connected; if
/// standard error has been redirected since, the numbers differ.
fn stderr_is_journal() -> bool {
    let Some(stream) = std::env::var_os("JOURNAL_STREAM") else {
        return false;
    };
    let stderr = std::fs::metadata("/proc/self/fd/2");
    stderr.is_ok_and(|stderr| is_stream(&stream.to_string_lossy(), stderr.dev(), stderr.ino()))
}

fn is_stream(journal_stream: &str, dev: u64, ino: u64) -> bool {
    journal_stream == format!("{dev}:{ino}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_and_directives_are_taken_and_misspelt_ones_refused() {
        for good in [
            "info",
            "WARN",
            "off",
            "info,vswitchd::cni=debug",
            "info, sled=warn",
        ] {
            assert!(check_level(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "inof",
            "info,",
            "vswitchd=loud",
            "=debug",
            "info,vswitchd",
        ] {
            assert!(check_level(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn each_failed_try_of_the_kubernetes_client_is_logged_if_it_is_asked_for() {
        let is_logged = |level: &str| {
            let subscriber = tracing_subscriber::registry().with(filter(level).unwrap());
            tracing::subscriber::with_default(
                subscriber,
                || tracing::enabled!(target: "kube_client::client::builder", tracing::Level::ERROR),
            )
        };
        assert!(!is_logged("debug"));
        assert!(is_logged("info,kube_client=error"));
        assert!(!is_logged("off"));
    }

    #[test]
    fn logging_starts_once_and_a_second_start_is_an_error() {
        let config = LogConfig {
            level: "warn".to_owned(),
            format: LogFormat::Json,
        };
        init(&config).unwrap();
        assert!(tracing::enabled!(tracing::Level::WARN));
        assert!(!tracing::enabled!(tracing::Level::INFO));
        assert!(matches!(init(&config), Err(TelemetryError::Install { .. })));
    }

    #[test]
    fn journal_is_recognised_by_device_and_inode() {
        assert!(is_stream("8:1234", 8, 1234));
        assert!(!is_stream("8:1234", 8, 1235));
        assert!(!is_stream("nonsense", 8, 1234));
    }
}
