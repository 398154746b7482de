//! A standalone daemon that is the API server of others, set up as docs/hub.md does.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::{Daemon, DaemonOptions, Namespace, run};

/// The hub; ends with its value.
#[derive(Debug)]
pub struct Hub {
    daemon: Daemon,
    url: String,
}

impl Hub {
    /// The token that may do all.
    pub const ADMINISTRATOR: &str = "administrator-0123456789";

    /// Starts a hub without members in a namespace that is prepared as its machine, where it is
    /// reached under `address`.
    ///
    /// # Errors
    /// Fails if the certificate or the daemon cannot be made.
    pub fn start_in(machine: Namespace, address: &str, options: &DaemonOptions) -> Result<Self> {
        let mut daemon = Daemon::prepare_in(machine, options)?;
        let folder = daemon.folder().to_owned();
        make_certificate(&folder, address)?;
        fs::write(folder.join("token"), Self::ADMINISTRATOR)?;
        fs::write(folder.join("members"), "# nodes\n")?;
        daemon.set("api.tcp_listen", "0.0.0.0:7441");
        for (key, file) in [
            ("api.tls_cert_file", "hub-cert.pem"),
            ("api.tls_key_file", "hub-key.pem"),
            ("api.token_file", "token"),
            ("api.member_token_file", "members"),
        ] {
            daemon.set(key, &folder.join(file).display().to_string());
        }
        daemon.spawn()?;
        let url = format!("https://{address}:7441");
        Ok(Self { daemon, url })
    }

    /// Lets a node in; returns its token.
    ///
    /// # Errors
    /// Fails if the file cannot be written.
    pub fn add_member(&self, node: &str) -> Result<String> {
        let token = format!("member-of-{node}-0123456789");
        let file = self.daemon.folder().join("members");
        let mut file = fs::OpenOptions::new().append(true).open(file)?;
        // At once: the daemon may read the file at any time.
        file.write_all(format!("{node} {token}\n").as_bytes())?;
        Ok(token)
    }

    /// Returns where members and kubectl reach it.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Returns the certificate that its clients trust.
    #[must_use]
    pub fn authority(&self) -> PathBuf {
        self.daemon.folder().join("hub-cert.pem")
    }

    /// Returns the daemon.
    #[must_use]
    pub fn daemon(&self) -> &Daemon {
        &self.daemon
    }

    /// Returns the daemon, to stop and start it.
    pub fn daemon_mut(&mut self) -> &mut Daemon {
        &mut self.daemon
    }
}

/// Makes a certificate for an address that is its own authority; replaces what is in the folder.
///
/// # Errors
/// Fails if openssl does.
pub fn make_certificate(folder: &Path, address: &str) -> Result<()> {
    let (key, certificate) = (folder.join("new-key.pem"), folder.join("new-cert.pem"));
    let mut openssl = Command::new("openssl");
    openssl
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt"])
        .args(["ec_paramgen_curve:prime256v1", "-nodes", "-days", "1"])
        .args(["-subj", "/CN=vswitch-hub", "-addext"])
        .arg(format!("subjectAltName=IP:{address},IP:127.0.0.1"))
        .args(["-addext", "basicConstraints=critical,CA:FALSE"])
        .args([Path::new("-keyout"), &key])
        .args([Path::new("-out"), &certificate]);
    run(&mut openssl, "")?.success()?;
    fs::rename(key, folder.join("hub-key.pem"))?;
    fs::rename(certificate, folder.join("hub-cert.pem"))?;
    Ok(())
}

/// Returns a kubeconfig with one cluster and one user.
#[must_use]
pub fn kubeconfig(server: &str, authority: &Path, user: &serde_json::Value) -> String {
    serde_json::json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "test",
        "clusters": [{"name": "test",
            "cluster": {"server": server, "certificate-authority": authority}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "user"}}],
        "users": [{"name": "user", "user": user}],
    })
    .to_string()
}
