//! Relays the call to the daemon in one request, and its result or error back.

use std::error::Error;
use std::time::Duration;

use vswitch_api::client::{Client, ClientError};
use vswitch_api::cni::{CniCall, CniCode, CniCommand, CniFailure};

/// Longer than the daemon's own limits (a delegated IPAM plugin gets 60 s) and shorter than
/// the patience of runtimes (kubelet: 4 minutes for a sandbox).
const TIMEOUT: Duration = Duration::from_secs(120);

/// A result is a few KiB.
const MAX_RESULT_BYTES: usize = 1 << 20;

/// Sends the call to the daemon and returns what belongs on standard output.
pub(crate) fn relay(
    socket: &str,
    command: CniCommand,
    call: &CniCall,
) -> Result<Vec<u8>, CniFailure> {
    let body = serde_json::to_vec(call).map_err(|error| {
        CniFailure::new(CniCode::Internal, "encode the call").with_details(error.to_string())
    })?;
    let client = Client::new(socket)
        .with_timeout(TIMEOUT)
        .with_body_limit(MAX_RESULT_BYTES);
    let response = client
        .request(
            "POST",
            "/v1/cni",
            &[("Content-Type", "application/json")],
            &body,
        )
        .map_err(|error| unreachable_daemon(command, &error))?;
    if response.is_success() {
        return result_of(command, response.body);
    }
    Err(serde_json::from_slice(&response.body).unwrap_or_else(|_| {
        unavailable(
            command,
            format!("vswitchd answered with status {}", response.status),
        )
        .with_details(
            String::from_utf8_lossy(&response.body)
                .chars()
                .take(500)
                .collect::<String>(),
        )
    }))
}

/// A runtime parses what it gets: what is no JSON object would surface there without a hint.
fn result_of(command: CniCommand, body: Vec<u8>) -> Result<Vec<u8>, CniFailure> {
    if command != CniCommand::Add {
        return Ok(body);
    }
    match serde_json::from_slice::<serde_json::Value>(&body) {
        Ok(serde_json::Value::Object(_)) => Ok(body),
        _ => Err(unavailable(
            command,
            "vswitchd answered ADD without a CNI result".to_owned(),
        )),
    }
}

fn unreachable_daemon(command: CniCommand, error: &ClientError) -> CniFailure {
    let mut causes = Vec::new();
    let mut cause = error.source();
    while let Some(inner) = cause {
        causes.push(inner.to_string());
        cause = inner.source();
    }
    unavailable(command, error.to_string()).with_details(causes.join(": "))
}

/// The daemon comes back by itself (systemd): the runtime shall try again. STATUS has a code
/// of its own for it.
fn unavailable(command: CniCommand, msg: String) -> CniFailure {
    let code = match command {
        CniCommand::Status => CniCode::NotAvailable,
        _ => CniCode::TryAgainLater,
    };
    CniFailure::new(code, msg)
}
