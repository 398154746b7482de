//! `vswitch-cni`: the CNI plugin that a container runtime executes.
//!
//! It holds no state and decides nothing: variables and standard input become one
//! `POST /v1/cni` on the daemon's unix socket, the answer goes to standard output. Only
//! VERSION and calls that the specification forbids are answered without the daemon.
//! Exit code 0 with a result, 1 with an error object; logs go to standard error.

mod invocation;
mod relay;

use std::io::Write;
use std::process::ExitCode;

use serde_json::{Value, json};
use vswitch_api::cni::{CniFailure, NEWEST_VERSION, SUPPORTED_VERSIONS, version_of};

use invocation::{Invocation, Variables};

fn main() -> ExitCode {
    let variables = Variables::from_process();
    let config = variables
        .command()
        .and_then(|_| invocation::read_config(std::io::stdin().lock()));
    let spoken = config
        .as_ref()
        .map_or(NEWEST_VERSION, spoken_version)
        .to_owned();
    match config.and_then(|config| answer(variables, config)) {
        Ok(result) => print(&result),
        Err(failure) => {
            let message = format!("vswitch-cni: {failure}\n");
            // Standard error may be closed; the error object below says the same.
            let _ = std::io::stderr().write_all(message.as_bytes());
            print(&error_object(&spoken, &failure));
            ExitCode::FAILURE
        }
    }
}

/// Returns the bytes for standard output; empty where the command has no result.
fn answer(variables: Variables, config: Value) -> Result<Vec<u8>, CniFailure> {
    match variables.invocation(config)? {
        Invocation::Version { asked } => {
            let result = json!({"cniVersion": asked, "supportedVersions": SUPPORTED_VERSIONS});
            Ok(result.to_string().into_bytes())
        }
        Invocation::Call {
            socket,
            command,
            call,
        } => relay::relay(&socket, command, &call),
    }
}

/// The version to answer in: what was asked for if it is spoken, else the newest.
fn spoken_version(config: &Value) -> &str {
    let asked = version_of(config);
    if SUPPORTED_VERSIONS.contains(&asked) {
        asked
    } else {
        NEWEST_VERSION
    }
}

fn error_object(version: &str, failure: &CniFailure) -> Vec<u8> {
    let object = json!({
        "cniVersion": version,
        "code": failure.code,
        "msg": failure.msg,
        "details": failure.details,
    });
    object.to_string().into_bytes()
}

fn print(bytes: &[u8]) -> ExitCode {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Ok(()) => ExitCode::SUCCESS,
        // The runtime never saw the result: to it the call failed.
        Err(_) => ExitCode::FAILURE,
    }
}
