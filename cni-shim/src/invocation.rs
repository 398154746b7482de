//! The CNI call of the runtime: CNI variables and the configuration on standard input.

use std::env;
use std::ffi::OsString;
use std::io::Read;

use serde_json::Value;
use vswitch_api::cni::{CniCall, CniCode, CniCommand, CniFailure, DEFAULT_SOCKET, NEWEST_VERSION};

/// Largest configuration read. A prevResult of a long chain is a few KiB, a GC list of a full
/// node some tens.
const MAX_CONFIG_BYTES: u64 = 1 << 20;

/// The CNI variables as found, not yet judged.
#[derive(Debug, Default)]
pub(crate) struct Variables {
    command: Option<OsString>,
    container_id: Option<OsString>,
    netns: Option<OsString>,
    ifname: Option<OsString>,
    args: Option<OsString>,
    path: Option<OsString>,
}

/// What is to be done.
#[derive(Debug)]
pub(crate) enum Invocation {
    /// VERSION, answered here in the version asked for.
    Version {
        /// cniVersion of the input.
        asked: String,
    },
    /// Anything else, for the daemon.
    Call {
        /// Its socket.
        socket: String,
        /// The command of the call.
        command: CniCommand,
        /// The call.
        call: Box<CniCall>,
    },
}

impl Variables {
    pub(crate) fn from_process() -> Self {
        Self {
            command: env::var_os("CNI_COMMAND"),
            container_id: env::var_os("CNI_CONTAINERID"),
            netns: env::var_os("CNI_NETNS"),
            ifname: env::var_os("CNI_IFNAME"),
            args: env::var_os("CNI_ARGS"),
            path: env::var_os("CNI_PATH"),
        }
    }

    /// Returns CNI_COMMAND; checked before standard input is read, so that somebody who
    /// starts the plugin by hand gets an explanation and not a silent wait.
    pub(crate) fn command(&self) -> Result<String, CniFailure> {
        text("CNI_COMMAND", self.command.as_ref())?
            .filter(|command| !command.is_empty())
            .ok_or_else(|| {
                CniFailure::new(
                    CniCode::InvalidEnvironment,
                    "environment variable CNI_COMMAND: is not set",
                )
                .with_details("vswitch-cni is a CNI plugin: a container runtime executes it")
            })
    }

    pub(crate) fn invocation(self, config: Value) -> Result<Invocation, CniFailure> {
        let command = self.command()?;
        if command == "VERSION" {
            let asked = config
                .get("cniVersion")
                .and_then(Value::as_str)
                .unwrap_or(NEWEST_VERSION);
            return Ok(Invocation::Version {
                asked: asked.to_owned(),
            });
        }
        let call = CniCall {
            command,
            container_id: text("CNI_CONTAINERID", self.container_id.as_ref())?,
            netns: text("CNI_NETNS", self.netns.as_ref())?,
            ifname: text("CNI_IFNAME", self.ifname.as_ref())?,
            args: text("CNI_ARGS", self.args.as_ref())?,
            path: text("CNI_PATH", self.path.as_ref())?,
            config,
        };
        let command = call.check()?;
        let socket = socket_of(&call.config)?;
        Ok(Invocation::Call {
            socket,
            command,
            call: Box::new(call),
        })
    }
}

fn text(variable: &str, value: Option<&OsString>) -> Result<Option<String>, CniFailure> {
    let Some(value) = value else { return Ok(None) };
    value
        .to_str()
        .map(|value| Some(value.to_owned()))
        .ok_or_else(|| {
            CniFailure::new(
                CniCode::InvalidEnvironment,
                format!("environment variable {variable}: {value:?} is not UTF-8"),
            )
        })
}

fn socket_of(config: &Value) -> Result<String, CniFailure> {
    match config.get("socket") {
        None | Some(Value::Null) => Ok(DEFAULT_SOCKET.to_owned()),
        Some(Value::String(path)) if path.starts_with('/') => Ok(path.clone()),
        Some(other) => Err(CniFailure::new(
            CniCode::InvalidConfig,
            format!("configuration key socket: {other} is not an absolute path"),
        )),
    }
}

/// Reads the configuration; no input at all is an empty object (VERSION needs none).
pub(crate) fn read_config(input: impl Read) -> Result<Value, CniFailure> {
    let mut bytes = Vec::new();
    input
        .take(MAX_CONFIG_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| {
            CniFailure::new(
                CniCode::Io,
                "read network configuration from standard input",
            )
            .with_details(error.to_string())
        })?;
    if bytes.len() as u64 > MAX_CONFIG_BYTES {
        return Err(CniFailure::new(
            CniCode::Undecodable,
            format!("network configuration is larger than {MAX_CONFIG_BYTES} bytes"),
        ));
    }
    if bytes.trim_ascii().is_empty() {
        return Ok(Value::Object(serde_json::Map::new()));
    }
    let undecodable = |details: String| {
        CniFailure::new(
            CniCode::Undecodable,
            "network configuration is not a JSON object",
        )
        .with_details(details)
    };
    let config: Value =
        serde_json::from_slice(&bytes).map_err(|error| undecodable(error.to_string()))?;
    if config.is_object() {
        Ok(config)
    } else {
        Err(undecodable("another JSON type".to_owned()))
    }
}
