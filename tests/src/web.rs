//! Web servers and clients in namespaces.

use std::net::{IpAddr, SocketAddr};
use std::process::{Child, Stdio};

use anyhow::Result;
use tempfile::TempDir;

use crate::{Namespace, eventually, run_in};

/// Fetches a page from within; a connection that is not made within two seconds is a failure.
///
/// # Errors
/// Fails with curl's exit code: 28 is a time-out, 7 a refusal.
pub fn fetch(from: &Namespace, server: IpAddr, port: u16) -> Result<String> {
    let url = format!("http://{}/", SocketAddr::new(server, port));
    let curl = ["curl", "-sS", "--noproxy", "*", "--connect-timeout", "2"];
    let rest = ["--max-time", "5", &url];
    run_in(from, &[&curl[..], &rest].concat())?.success()
}

/// Serves one page on this TCP port of both families.
///
/// # Errors
/// Fails if the server cannot be started.
pub fn serve(at: &Namespace, page: &str, port: u16) -> Result<WebServer> {
    let folder = tempfile::tempdir()?;
    std::fs::write(folder.path().join("index.html"), page)?;
    let child = at
        .command("busybox")
        .args(["httpd", "-f", "-p", &format!("[::]:{port}"), "-h"])
        .arg(folder.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let server = WebServer {
        child,
        _folder: folder,
    };
    eventually("the web server listens", || {
        let listening = run_in(at, &["ss", "-Hltn", &format!("sport = :{port}")])?;
        let is_open = !listening.success()?.trim().is_empty();
        anyhow::ensure!(is_open, "port {port} is closed");
        Ok::<(), anyhow::Error>(())
    });
    Ok(server)
}

/// A web server; ends on drop.
#[derive(Debug)]
pub struct WebServer {
    child: Child,
    _folder: TempDir,
}

impl Drop for WebServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
