//! Runs the IPAM plugin that `ipam.type` names (CNI spec 1.1.0 §4, "Plugin Delegation").
//!
//! No shell; the plugin sees only the CNI variables and PATH, gets the same standard input,
//! and is killed at its timeout. It runs as root, and more people may write to the daemon's
//! socket than may become root: only directories of the daemon's own configuration are
//! searched, whatever CNI_PATH says besides.

use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::{Output, Stdio};
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};
use vswitch_api::cni::{CniCall, CniCommand, CniFailure, SUPPORTED_VERSIONS};

/// Largest output taken from a plugin.
const MAX_OUTPUT_BYTES: u64 = 1 << 20;

/// A route of the container (CNI spec 1.1.0, "Success").
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// Destination.
    pub dst: IpNet,
    /// Next hop; `None` means the default gateway.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gw: Option<IpAddr>,
    /// MTU along the path, from CNI 1.1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// Metric, from CNI 1.1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<u32>,
}

/// An address with its gateway.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedIp {
    /// Address and prefix length of its subnet.
    pub address: IpNet,
    /// Gateway of the subnet.
    #[serde(default)]
    pub gateway: Option<IpAddr>,
}

/// What address management decided for an interface.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct AddressPlan {
    /// Addresses.
    pub ips: Vec<PlannedIp>,
    /// Routes.
    #[serde(default)]
    pub routes: Vec<Route>,
    /// DNS as the plugin said it; the switch only hands it on.
    #[serde(default)]
    pub dns: Option<Value>,
}

/// Why the plugin gave nothing.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say what the fields are")]
pub enum DelegateError {
    /// The name would leave the plugin directories.
    #[error("ipam.type {plugin:?} is not the name of a plugin")]
    Name { plugin: String },
    /// Not in any directory that is both in CNI_PATH and allowed.
    #[error("IPAM plugin {plugin} is in no directory of CNI_PATH that vswitchd allows: {searched}")]
    NotFound { plugin: String, searched: String },
    /// It could not be started or talked to.
    #[error("run IPAM plugin {plugin}")]
    Run { plugin: String, source: io::Error },
    /// It did not end.
    #[error("IPAM plugin {plugin} did not end within {seconds} s and was killed")]
    Timeout { plugin: String, seconds: u64 },
    /// It said no; its own error.
    #[error("IPAM plugin {plugin} failed")]
    Failed { plugin: String, source: CniFailure },
    /// It ended with an error and no error object.
    #[error("IPAM plugin {plugin} ended with {status}: {stderr}")]
    Died {
        plugin: String,
        status: String,
        stderr: String,
    },
    /// Its result is not one.
    #[error("result of IPAM plugin {plugin}: {problem}")]
    Result { plugin: String, problem: String },
}

/// Runs IPAM plugins.
#[derive(Debug, Clone)]
pub struct Delegate {
    /// Directories that plugins may lie in.
    pub plugin_dirs: Vec<PathBuf>,
    /// Time for one run.
    pub timeout: Duration,
}

impl Delegate {
    /// Runs the plugin's ADD and returns what it decided.
    ///
    /// # Errors
    /// Each of [`DelegateError`].
    pub async fn add(&self, plugin: &str, call: &CniCall) -> Result<AddressPlan, DelegateError> {
        let output = self.run(plugin, CniCommand::Add, call).await?;
        parse_result(&output).map_err(|problem| DelegateError::Result {
            plugin: plugin.to_owned(),
            problem,
        })
    }

    /// Runs the plugin with a command and returns its standard output.
    ///
    /// # Errors
    /// Each of [`DelegateError`] but `Result`.
    pub async fn run(
        &self,
        plugin: &str,
        command: CniCommand,
        call: &CniCall,
    ) -> Result<Vec<u8>, DelegateError> {
        let program = self.find(plugin, call.path.as_deref().unwrap_or_default())?;
        let run_error = |source| DelegateError::Run {
            plugin: plugin.to_owned(),
            source,
        };
        let mut process = Command::new(program);
        process.env_clear().envs(environment(command, call));
        process
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        // Dropped at the timeout, and killed by that.
        let child = process.kill_on_drop(true).spawn().map_err(run_error)?;
        let input = call.config.to_string().into_bytes();
        match tokio::time::timeout(self.timeout, converse(child, input)).await {
            Err(_) => Err(DelegateError::Timeout {
                plugin: plugin.to_owned(),
                seconds: self.timeout.as_secs(),
            }),
            Ok(Err(source)) => Err(run_error(source)),
            Ok(Ok(output)) => judge(plugin, output),
        }
    }

    fn find(&self, plugin: &str, cni_path: &str) -> Result<PathBuf, DelegateError> {
        if matches!(plugin, "" | "." | "..") || plugin.contains(['/', '\0']) {
            return Err(DelegateError::Name {
                plugin: plugin.to_owned(),
            });
        }
        let allowed = |dir: &PathBuf| self.plugin_dirs.contains(dir);
        let dirs: Vec<PathBuf> = std::env::split_paths(cni_path).filter(allowed).collect();
        let found = dirs
            .iter()
            .map(|dir| dir.join(plugin))
            .find(|path| path.is_file());
        found.ok_or_else(|| DelegateError::NotFound {
            plugin: plugin.to_owned(),
            searched: format!("{dirs:?} of CNI_PATH {cni_path:?}"),
        })
    }
}

fn environment(command: CniCommand, call: &CniCall) -> Vec<(&'static str, String)> {
    let optional = [
        ("CNI_CONTAINERID", call.container_id.clone()),
        ("CNI_NETNS", call.netns.clone()),
        ("CNI_IFNAME", call.ifname.clone()),
        ("CNI_ARGS", call.args.clone()),
        ("CNI_PATH", call.path.clone()),
        ("PATH", std::env::var("PATH").ok()),
    ];
    let set = optional
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?)));
    std::iter::once(("CNI_COMMAND", command.as_str().to_owned()))
        .chain(set)
        .collect()
}

/// Writes and reads at once: a plugin that prints before it has read all must not block.
async fn converse(mut child: Child, input: Vec<u8>) -> io::Result<Output> {
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let feed = async move {
        if let Some(mut stdin) = stdin {
            // A plugin may end without reading (an unknown command): its answer counts.
            let _ = stdin.write_all(&input).await;
        }
    };
    let ((), stdout, stderr) = tokio::join!(feed, read_all(stdout), read_all(stderr));
    let status = child.wait().await?;
    Ok(Output {
        status,
        stdout: stdout?,
        stderr: stderr?,
    })
}

async fn read_all(pipe: Option<impl tokio::io::AsyncRead + Unpin>) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if let Some(pipe) = pipe {
        pipe.take(MAX_OUTPUT_BYTES).read_to_end(&mut bytes).await?;
    }
    Ok(bytes)
}

fn judge(plugin: &str, output: Output) -> Result<Vec<u8>, DelegateError> {
    if output.status.success() {
        return Ok(output.stdout);
    }
    if let Ok(source) = serde_json::from_slice::<CniFailure>(&output.stdout) {
        return Err(DelegateError::Failed {
            plugin: plugin.to_owned(),
            source,
        });
    }
    let stderr = String::from_utf8_lossy(&output.stderr)
        .trim()
        .chars()
        .take(500)
        .collect();
    Err(DelegateError::Died {
        plugin: plugin.to_owned(),
        status: output.status.to_string(),
        stderr,
    })
}

/// Parses the result of an IPAM plugin of CNI 0.3.0 to 1.1.0: `ips`, `routes`, `dns`.
fn parse_result(bytes: &[u8]) -> Result<AddressPlan, String> {
    let result: Value = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    let version = vswitch_api::cni::version_of(&result);
    if !SUPPORTED_VERSIONS.contains(&version) {
        return Err(format!("cniVersion {version:?} is not supported"));
    }
    let plan: AddressPlan = serde_json::from_value(result).map_err(|error| error.to_string())?;
    if plan.ips.is_empty() {
        return Err("it holds no address".to_owned());
    }
    Ok(plan)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use serde_json::json;
    use tempfile::TempDir;

    use super::*;

    fn plugin(script: &str) -> (TempDir, Delegate, CniCall) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("plugin");
        std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        let delegate = Delegate {
            plugin_dirs: vec![dir.path().to_path_buf()],
            timeout: Duration::from_secs(5),
        };
        let call = CniCall {
            command: "ADD".to_owned(),
            container_id: Some("c1".to_owned()),
            netns: None,
            ifname: Some("eth0".to_owned()),
            args: Some("A=b".to_owned()),
            path: Some(format!("/nonexistent:{}", dir.path().display())),
            config: json!({"cniVersion": "1.0.0", "name": "net"}),
        };
        (dir, delegate, call)
    }

    #[tokio::test]
    async fn plugin_sees_the_call_and_its_result_is_parsed() {
        let script = r#"read input
            [ "$CNI_COMMAND $CNI_CONTAINERID $CNI_IFNAME $CNI_ARGS" = "ADD c1 eth0 A=b" ] || exit 9
            [ -z "$CNI_NETNS$HOME" ] || exit 8
            case "$input" in *'"name":"net"'*) ;; *) exit 7;; esac
            echo '{"cniVersion":"0.4.0","ips":[{"version":"4","address":"10.0.0.5/24","gateway":"10.0.0.1"}],
                   "routes":[{"dst":"0.0.0.0/0"}],"dns":{"nameservers":["10.0.0.2"]}}'"#;
        let (_dir, delegate, call) = plugin(script);
        let plan = delegate.add("plugin", &call).await.unwrap();
        assert_eq!(plan.ips[0].address, "10.0.0.5/24".parse().unwrap());
        assert_eq!(plan.ips[0].gateway, Some("10.0.0.1".parse().unwrap()));
        assert_eq!(plan.routes[0].dst, "0.0.0.0/0".parse().unwrap());
        assert_eq!(plan.dns.unwrap()["nameservers"][0], "10.0.0.2");
    }

    #[tokio::test]
    async fn error_of_the_plugin_is_passed_on() {
        let (_dir, delegate, call) = plugin(r#"echo '{"code":11,"msg":"full"}'; exit 1"#);
        match delegate.add("plugin", &call).await.unwrap_err() {
            DelegateError::Failed { source, .. } => {
                assert_eq!((source.code, &*source.msg), (11, "full"))
            }
            other => panic!("{other:?}"),
        }
        let (_dir, delegate, call) = plugin("echo oops >&2; exit 3");
        let died = delegate
            .run("plugin", CniCommand::Del, &call)
            .await
            .unwrap_err()
            .to_string();
        assert!(died.contains("exit status: 3: oops"), "{died}");
    }

    #[tokio::test]
    async fn plugin_that_hangs_is_killed() {
        let (_dir, mut delegate, call) = plugin("exec sleep 1000");
        delegate.timeout = Duration::from_millis(100);
        let error = delegate.add("plugin", &call).await.unwrap_err();
        assert!(matches!(error, DelegateError::Timeout { .. }), "{error:?}");
    }

    #[tokio::test]
    async fn only_plain_names_in_allowed_directories_are_run() {
        let (dir, mut delegate, mut call) = plugin("echo");
        for name in ["", ".", "..", "../plugin", "/bin/sh", "a\0b"] {
            let error = delegate.add(name, &call).await.unwrap_err();
            assert!(
                matches!(error, DelegateError::Name { .. }),
                "{name:?}: {error:?}"
            );
        }
        let not_found = |result| matches!(result, Err(DelegateError::NotFound { .. }));
        assert!(not_found(delegate.add("other", &call).await));
        call.path = Some("/bin".to_owned());
        assert!(not_found(delegate.add("true", &call).await));
        call.path = Some(dir.path().display().to_string());
        delegate.plugin_dirs.clear();
        assert!(not_found(delegate.add("plugin", &call).await));
    }

    #[test]
    fn results_that_are_none_are_refused() {
        for bad in [
            "",
            "[]",
            r#"{"cniVersion":"0.2.0","ip4":{"ip":"10.0.0.5/24"}}"#,
            r#"{"cniVersion":"1.0.0","ips":[]}"#,
            r#"{"cniVersion":"1.0.0","ips":[{"address":"10.0.0.5.6"}]}"#,
            r#"{"cniVersion":"1.0.0"}"#,
        ] {
            assert!(parse_result(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
