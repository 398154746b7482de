//! A real kube-apiserver with its etcd.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result};
use tempfile::TempDir;

use crate::{Namespace, run};

/// The token that may do all.
pub(crate) const TOKEN: &str = "c2VjcmV0LW9mLXRoZS10ZXN0";

/// etcd and kube-apiserver in a namespace.
#[derive(Debug)]
pub(crate) struct Kubernetes {
    assets: PathBuf,
    machine: Namespace,
    address: String,
    /// Whether pods have service accounts; somebody has to make them then.
    has_accounts: bool,
    folder: TempDir,
    etcd: Child,
    server: Option<Child>,
}

impl Kubernetes {
    /// Starts both programs, which are in the folder `assets`; the machine has the address.
    pub(crate) fn start_in(
        machine: Namespace,
        address: &str,
        assets: PathBuf,
        has_accounts: bool,
    ) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let mut openssl = Command::new("openssl");
        openssl
            .args(["genpkey", "-algorithm", "RSA", "-pkeyopt"])
            .args(["rsa_keygen_bits:2048", "-out"])
            .arg(folder.path().join("sa.key"));
        run(&mut openssl, "")?.success()?;
        let tokens = format!("{TOKEN},node,1,\"system:masters\"\n");
        std::fs::write(folder.path().join("tokens.csv"), tokens)?;
        let etcd = machine
            .command(assets.join("etcd"))
            .arg("--data-dir")
            .arg(folder.path().join("etcd"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(folder.path().join("etcd.log"))?)
            .spawn()
            .context("start etcd")?;
        let mut kubernetes = Self {
            assets,
            machine,
            address: address.to_owned(),
            has_accounts,
            folder,
            etcd,
            server: None,
        };
        kubernetes.start_server()?;
        Ok(kubernetes)
    }

    /// Starts kube-apiserver (again), without waiting for it.
    pub(crate) fn start_server(&mut self) -> Result<()> {
        let folder = self.folder.path();
        let at = |name: &str| folder.join(name).display().to_string();
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(at("server.log"))?;
        let address = &self.address;
        let mut command = self.machine.command(self.assets.join("kube-apiserver"));
        if !self.has_accounts {
            command.arg("--disable-admission-plugins=ServiceAccount");
        }
        let server = command
            .args(["--etcd-servers=http://127.0.0.1:2379", "--secure-port=6443"])
            .arg(format!("--bind-address={address}"))
            .arg(format!("--advertise-address={address}"))
            .arg(format!("--cert-dir={}", at("certs")))
            .arg(format!("--token-auth-file={}", at("tokens.csv")))
            .args([
                "--authorization-mode=RBAC",
                "--service-cluster-ip-range=10.96.0.0/16",
            ])
            .args(["--kubelet-preferred-address-types=InternalIP"])
            .arg("--service-account-issuer=https://kubernetes.default.svc")
            .arg(format!(
                "--service-account-signing-key-file={}",
                at("sa.key")
            ))
            .arg(format!("--service-account-key-file={}", at("sa.key")))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .context("start kube-apiserver")?;
        self.server = Some(server);
        Ok(())
    }

    /// Ends kube-apiserver without a warning; etcd stays.
    pub(crate) fn kill_server(&mut self) -> Result<()> {
        let mut server = self.server.take().context("kube-apiserver runs")?;
        server.kill()?;
        server.wait()?;
        Ok(())
    }

    /// Returns what the program says of itself.
    pub(crate) fn version(&self) -> Result<String> {
        let server = self.assets.join("kube-apiserver");
        let version = run(Command::new(server).arg("--version"), "")?.success()?;
        Ok(version.trim().to_owned())
    }

    /// Returns where clients reach it.
    pub(crate) fn url(&self) -> String {
        format!("https://{}:6443", self.address)
    }

    /// Returns the certificate that it made for itself, which is its own authority.
    pub(crate) fn authority(&self) -> PathBuf {
        self.folder.path().join("certs/apiserver.crt")
    }

    /// Returns the key that signs tokens of service accounts.
    pub(crate) fn account_key(&self) -> PathBuf {
        self.folder.path().join("sa.key")
    }

    /// Returns its namespace.
    pub(crate) fn machine(&self) -> &Namespace {
        &self.machine
    }
}

impl Drop for Kubernetes {
    fn drop(&mut self) {
        for child in self.server.iter_mut().chain([&mut self.etcd]) {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
