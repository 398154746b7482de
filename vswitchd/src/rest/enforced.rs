//! Delays the answer to a write until its rules are in force, or late.

use super::state::Task;
use crate::objects::StatusError;
use crate::supervise::Supervisor;

/// Longest wait for a write's rules: a write that is stored and not in force is no success.
const IN_FORCE_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(10);

/// Waits for a write's rules; 504 if they are not in force in time. The object is stored all the
/// same: enforcement follows without the client, and the same write again waits for it again.
pub(super) async fn enforced(
    version: u64,
    in_force: Task<bool>,
    supervisor: Supervisor,
) -> Result<(), StatusError> {
    let why = match tokio::time::timeout(IN_FORCE_TIMEOUT, in_force).await {
        Ok(true) => return Ok(()),
        Ok(false) => "the daemon is stopping".to_owned(),
        Err(_) => {
            let late = supervisor.late();
            let late: Vec<String> = late.iter().map(ToString::to_string).collect();
            let seconds = IN_FORCE_TIMEOUT.as_secs();
            match late.is_empty() {
                true => format!("not within {seconds} s"),
                false => late.join("; "),
            }
        }
    };
    tracing::error!(
        version,
        why,
        "bringing a stored write into force failed or is late"
    );
    let message = format!(
        "the write is stored, but not in force yet: {why}. It will be enforced as soon as it can; \
         the same write again waits for that"
    );
    Err(StatusError::plain(504, "Timeout", message))
}
