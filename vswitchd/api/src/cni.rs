//! The one request that `vswitch-cni` makes of the daemon: `POST /v1/cni`.
//!
//! The daemon answers 200 with the CNI result (an empty body where the command has none),
//! or a 4xx/5xx status with a [`CniFailure`], which the shim prints as it is. Both sides
//! check the call with [`CniCall::check`]: the shim to answer without the daemon, the daemon
//! because not only the shim can write to its socket.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::IfName;

/// CNI specification versions spoken, oldest first.
pub const SUPPORTED_VERSIONS: [&str; 5] = ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];

/// The newest of [`SUPPORTED_VERSIONS`].
pub const NEWEST_VERSION: &str = "1.1.0";

/// Where the daemon listens unless its configuration says otherwise.
pub const DEFAULT_SOCKET: &str = "/run/vswitchd/api.sock";

/// Longest container id or network name taken. The specification names no limit; runtimes
/// use 64 characters, and both become part of a record's key.
const MAX_NAME_BYTES: usize = 256;

/// A CNI invocation as the runtime made it (CNI spec 1.1.0, "Parameters").
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CniCall {
    /// CNI_COMMAND: ADD, DEL, CHECK, GC, STATUS (VERSION never leaves the shim).
    pub command: String,
    /// CNI_CONTAINERID.
    #[serde(default)]
    pub container_id: Option<String>,
    /// CNI_NETNS: path of the network namespace.
    #[serde(default)]
    pub netns: Option<String>,
    /// CNI_IFNAME: interface to create inside the namespace.
    #[serde(default)]
    pub ifname: Option<String>,
    /// CNI_ARGS: `KEY=VALUE;…`.
    #[serde(default)]
    pub args: Option<String>,
    /// CNI_PATH: where delegated plugins (IPAM) are found, colon-separated.
    #[serde(default)]
    pub path: Option<String>,
    /// Network configuration from standard input.
    pub config: serde_json::Value,
}

/// CNI_COMMAND, those that the daemon serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CniCommand {
    /// Attach a container.
    Add,
    /// Detach it.
    Del,
    /// Check that it is attached as its ADD said.
    Check,
    /// Release what the runtime no longer knows.
    Gc,
    /// Say whether ADD would work.
    Status,
}

impl CniCommand {
    /// Returns the word of CNI_COMMAND.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Add => "ADD",
            Self::Del => "DEL",
            Self::Check => "CHECK",
            Self::Gc => "GC",
            Self::Status => "STATUS",
        }
    }

    /// Returns the version of the specification that brought the command.
    const fn since(self) -> &'static str {
        match self {
            Self::Add | Self::Del => "0.3.0",
            Self::Check => "0.4.0",
            Self::Gc | Self::Status => "1.1.0",
        }
    }
}

/// Code of a CNI error: those of the specification, and the switch's own from 100.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum CniCode {
    /// The configuration asks for a CNI version that is not spoken.
    IncompatibleVersion = 1,
    /// A field of the configuration is not supported; the message names key and value.
    UnsupportedField = 2,
    /// The container is unknown or gone; the runtime needs no DEL.
    UnknownContainer = 3,
    /// An environment variable is missing or wrong; the message names it.
    InvalidEnvironment = 4,
    /// Reading or writing failed.
    Io = 5,
    /// Standard input is not what JSON or the specification asks for.
    Undecodable = 6,
    /// The network configuration is wrong.
    InvalidConfig = 7,
    /// A passing condition; the same call may succeed later.
    TryAgainLater = 11,
    /// The plugin cannot serve ADD now (STATUS).
    NotAvailable = 50,
    /// Nor may containers attached earlier have connectivity (STATUS).
    NotAvailableLimited = 51,
    /// ADD for an interface that is attached already; DEL comes first.
    AlreadyAttached = 100,
    /// The address that was asked for cannot be given.
    AddressRefused = 101,
    /// CHECK found the attachment different from what ADD returned.
    CheckFailed = 102,
    /// The IPAM plugin of the configuration could not be run or answered nonsense.
    DelegateFailed = 103,
    /// The interface could not be made or configured.
    InterfaceFailed = 104,
    /// The switch did not take the port.
    PortFailed = 105,
    /// The Pod object could not be written.
    PodFailed = 106,
    /// DEL or GC left something behind; the details list it, the same call tries again.
    TeardownIncomplete = 107,
    /// A defect of the switch itself; its log has more.
    Internal = 199,
}

impl CniCode {
    /// Returns the number as it stands in the error object.
    #[must_use]
    pub const fn number(self) -> u32 {
        self as u32
    }
}

/// A CNI error (CNI spec 1.1.0, "Error"), without `cniVersion`, which the shim adds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CniFailure {
    /// 1–7, 11, 50, 51 of the spec; the switch's own from 100.
    pub code: u32,
    /// One line.
    pub msg: String,
    /// What led to it; may be empty.
    #[serde(default)]
    pub details: String,
}

impl CniFailure {
    /// Makes a failure without details.
    #[must_use]
    pub fn new(code: CniCode, msg: impl Into<String>) -> Self {
        Self {
            code: code.number(),
            msg: msg.into(),
            details: String::new(),
        }
    }

    /// Adds what led to it.
    #[must_use]
    pub fn with_details(mut self, details: impl Into<String>) -> Self {
        self.details = details.into();
        self
    }
}

impl fmt::Display for CniFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (code {})", self.msg, self.code)?;
        if self.details.is_empty() {
            Ok(())
        } else {
            write!(f, ": {}", self.details)
        }
    }
}

impl std::error::Error for CniFailure {}

impl CniCall {
    /// Checks version, command, variables and network name; returns the command.
    ///
    /// # Errors
    /// Codes 1, 4 and 7 of the specification.
    pub fn check(&self) -> Result<CniCommand, CniFailure> {
        let command = self.parse_command()?;
        self.check_version(command)?;
        self.check_network_name()?;
        if matches!(
            command,
            CniCommand::Add | CniCommand::Del | CniCommand::Check
        ) {
            self.check_container(command)?;
        }
        Ok(command)
    }

    /// Returns `cniVersion` of the configuration; absent means 0.1.0 (CNI spec 0.2.0).
    #[must_use]
    pub fn version(&self) -> &str {
        version_of(&self.config)
    }

    fn parse_command(&self) -> Result<CniCommand, CniFailure> {
        use CniCommand::{Add, Check, Del, Gc, Status};
        [Add, Del, Check, Gc, Status]
            .into_iter()
            .find(|command| command.as_str() == self.command)
            .ok_or_else(|| {
                bad_variable(
                    "CNI_COMMAND",
                    &format!("{:?} is not a CNI command", self.command),
                )
            })
    }

    fn check_version(&self, command: CniCommand) -> Result<(), CniFailure> {
        if !self.config.is_object() {
            return Err(CniFailure::new(
                CniCode::Undecodable,
                "network configuration is not a JSON object",
            ));
        }
        let asked = self.version();
        let rank = |text: &str| SUPPORTED_VERSIONS.iter().position(|known| *known == text);
        let Some(asked_rank) = rank(asked) else {
            return Err(CniFailure::new(
                CniCode::IncompatibleVersion,
                format!("cniVersion {asked:?} is not supported"),
            )
            .with_details(format!("supported: {}", SUPPORTED_VERSIONS.join(", "))));
        };
        if Some(asked_rank) < rank(command.since()) {
            return Err(CniFailure::new(
                CniCode::IncompatibleVersion,
                format!(
                    "{} needs cniVersion {} or later, the configuration says {asked}",
                    command.as_str(),
                    command.since()
                ),
            ));
        }
        Ok(())
    }

    fn check_network_name(&self) -> Result<(), CniFailure> {
        let name = self.config.get("name").and_then(serde_json::Value::as_str);
        match name {
            Some(name) if is_cni_name(name) => Ok(()),
            Some(name) => Err(CniFailure::new(
                CniCode::InvalidConfig,
                format!("network name {name:?} has characters other than letters, digits, _ . -"),
            )),
            None => Err(CniFailure::new(
                CniCode::InvalidConfig,
                "network configuration has no name",
            )),
        }
    }

    fn check_container(&self, command: CniCommand) -> Result<(), CniFailure> {
        let id = required("CNI_CONTAINERID", self.container_id.as_deref())?;
        if !is_cni_name(id) {
            return Err(bad_variable(
                "CNI_CONTAINERID",
                &format!("{id:?} has characters other than letters, digits, _ . -"),
            ));
        }
        let ifname = required("CNI_IFNAME", self.ifname.as_deref())?;
        ifname
            .parse::<IfName>()
            .map_err(|error| bad_variable("CNI_IFNAME", &error.to_string()))?;
        if command == CniCommand::Del {
            return Ok(());
        }
        let netns = required("CNI_NETNS", self.netns.as_deref())?;
        if !netns.starts_with('/') || netns.contains('\0') {
            return Err(bad_variable(
                "CNI_NETNS",
                &format!("{netns:?} is not an absolute path"),
            ));
        }
        Ok(())
    }
}

/// Returns `cniVersion` of a configuration; absent means 0.1.0 (CNI spec 0.2.0).
#[must_use]
pub fn version_of(config: &serde_json::Value) -> &str {
    config
        .get("cniVersion")
        .and_then(serde_json::Value::as_str)
        .unwrap_or("0.1.0")
}

fn required<'a>(variable: &str, value: Option<&'a str>) -> Result<&'a str, CniFailure> {
    match value {
        Some(value) if !value.is_empty() => Ok(value),
        _ => Err(bad_variable(variable, "is not set")),
    }
}

fn bad_variable(variable: &str, problem: &str) -> CniFailure {
    CniFailure::new(
        CniCode::InvalidEnvironment,
        format!("environment variable {variable}: {problem}"),
    )
}

/// "Must start with an alphanumeric character, optionally followed by any combination of one
/// or more alphanumeric characters, underscore, dot or hyphen" (CNI spec 1.1.0).
fn is_cni_name(text: &str) -> bool {
    text.len() <= MAX_NAME_BYTES
        && text.starts_with(|first: char| first.is_ascii_alphanumeric())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn call(command: &str) -> CniCall {
        CniCall {
            command: command.to_owned(),
            container_id: Some("c1".to_owned()),
            netns: Some("/run/netns/x".to_owned()),
            ifname: Some("eth0".to_owned()),
            args: None,
            path: None,
            config: json!({"cniVersion": "1.1.0", "name": "net", "type": "vswitch-cni"}),
        }
    }

    fn failure(call: &CniCall) -> CniFailure {
        call.check().unwrap_err()
    }

    #[test]
    fn every_command_is_known_by_its_word() {
        for word in ["ADD", "DEL", "CHECK", "GC", "STATUS"] {
            assert_eq!(call(word).check().unwrap().as_str(), word);
        }
        assert_eq!(failure(&call("add")).code, 4);
    }

    #[test]
    fn missing_or_wrong_variables_are_named() {
        let mut no_id = call("ADD");
        no_id.container_id = None;
        let mut bad_id = call("DEL");
        bad_id.container_id = Some("../etc".to_owned());
        let mut bad_ifname = call("CHECK");
        bad_ifname.ifname = Some("a/b".to_owned());
        let mut no_netns = call("ADD");
        no_netns.netns = Some(String::new());
        let mut relative = call("ADD");
        relative.netns = Some("run/netns/x".to_owned());
        for (call, variable) in [
            (no_id, "CNI_CONTAINERID"),
            (bad_id, "CNI_CONTAINERID"),
            (bad_ifname, "CNI_IFNAME"),
            (no_netns, "CNI_NETNS"),
            (relative, "CNI_NETNS"),
        ] {
            let failure = failure(&call);
            assert_eq!(failure.code, 4);
            assert!(failure.msg.contains(variable), "{failure}");
        }
    }

    #[test]
    fn del_works_without_a_namespace() {
        let mut del = call("DEL");
        del.netns = None;
        assert_eq!(del.check(), Ok(CniCommand::Del));
    }

    #[test]
    fn commands_newer_than_the_asked_version_are_refused() {
        for (command, version) in [("CHECK", "0.3.1"), ("GC", "1.0.0"), ("STATUS", "0.4.0")] {
            let mut call = call(command);
            call.config["cniVersion"] = json!(version);
            assert_eq!(failure(&call).code, 1, "{command} {version}");
        }
        for version in ["0.2.0", "1.2.0", "", "one"] {
            let mut call = call("ADD");
            call.config["cniVersion"] = json!(version);
            assert_eq!(failure(&call).code, 1, "{version}");
        }
    }

    #[test]
    fn configuration_without_a_good_name_is_invalid() {
        let mut unnamed = call("ADD");
        unnamed.config = json!({"cniVersion": "1.0.0"});
        assert_eq!(failure(&unnamed).code, 7);
        unnamed.config["name"] = json!("a b");
        assert_eq!(failure(&unnamed).code, 7);
        unnamed.config = json!([1]);
        assert_eq!(failure(&unnamed).code, 6);
    }
}
