//! A daemon that serves other nodes: TLS, tokens, and what a member's token allows.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::Result;
use vswitch_tests::{Daemon, DaemonOptions, Namespace, eventually, run, run_in, tool};

use super::SECURE_POD;

const ADMINISTRATOR: &str = "administrator-0123456789";
const MEMBER: &str = "member-of-node-b-0123456789";
const NODE_B: &str = "apiVersion: v1\nkind: Node\nmetadata:\n  name: node-b\n";

/// A hub on an underlay, and a machine beside it.
struct Hub {
    daemon: Daemon,
    machine: Namespace,
    folder: tempfile::TempDir,
}

impl Hub {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        make_certificate(folder.path()).unwrap();
        let file = |name: &str| folder.path().join(name);
        fs::write(file("token"), format!("{ADMINISTRATOR}\n")).unwrap();
        fs::write(file("members"), format!("# nodes\nnode-b {MEMBER}\n")).unwrap();
        let api = format!(
            "tcp_listen = [\"0.0.0.0:7441\"]\ntls_cert_file = {:?}\ntls_key_file = {:?}\n\
             token_file = {:?}\nmember_token_file = {:?}\n",
            file("cert.pem"),
            file("key.pem"),
            file("token"),
            file("members"),
        );
        let daemon = Daemon::start(&DaemonOptions {
            api,
            ..DaemonOptions::default()
        })
        .unwrap();
        let machine = Namespace::new("machine").unwrap();
        let node = daemon.node();
        node.connect("up0", "192.0.2.1/24", &machine, "eth0", "192.0.2.2/24")
            .unwrap();
        Self {
            daemon,
            machine,
            folder,
        }
    }

    fn kubectl(&self, token: &str) -> Kubectl<'_> {
        let home = tempfile::tempdir().unwrap();
        let authority = fs::read(self.folder.path().join("cert.pem")).unwrap();
        fs::write(home.path().join("ca.pem"), authority).unwrap();
        let config = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: hub\n\
             clusters: [{{name: hub, cluster: {{server: 'https://192.0.2.1:7441', \
             certificate-authority: ca.pem}}}}]\n\
             users: [{{name: me, user: {{token: {token}}}}}]\n\
             contexts: [{{name: hub, context: {{cluster: hub, user: me}}}}]\n"
        );
        fs::write(home.path().join("config"), config).unwrap();
        Kubectl { hub: self, home }
    }
}

/// kubectl on the machine beside the hub, with a kubeconfig.
struct Kubectl<'a> {
    hub: &'a Hub,
    home: tempfile::TempDir,
}

impl Kubectl<'_> {
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.hub.machine.command("timeout");
        command
            .arg("30")
            .arg(tool("kubectl-1.35"))
            .args(arguments)
            .env("HOME", self.home.path())
            .env("KUBECONFIG", self.home.path().join("config"));
        command
    }

    fn with_input(&self, arguments: &[&str], input: &str) -> Result<String> {
        run(&mut self.command(arguments), input)?.success()
    }

    fn run(&self, arguments: &[&str]) -> String {
        self.with_input(arguments, "").unwrap()
    }

    fn fails(&self, arguments: &[&str], input: &str) -> String {
        format!("{:#}", self.with_input(arguments, input).unwrap_err())
    }
}

/// Makes a certificate for the hub's address that is its own authority, as docs/hub.md does.
fn make_certificate(folder: &Path) -> Result<()> {
    let (key, certificate) = (folder.join("new-key.pem"), folder.join("new-cert.pem"));
    let mut openssl = Command::new("openssl");
    openssl
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt"])
        .args(["ec_paramgen_curve:prime256v1", "-nodes", "-days", "1"])
        .args(["-subj", "/CN=hub", "-addext"])
        .arg("subjectAltName=IP:192.0.2.1,IP:127.0.0.1")
        .args([PathBuf::from("-keyout"), key.clone()])
        .args([PathBuf::from("-out"), certificate.clone()]);
    run(&mut openssl, "")?.success()?;
    fs::rename(key, folder.join("key.pem"))?;
    fs::rename(certificate, folder.join("cert.pem"))?;
    Ok(())
}

#[test]
fn kubectl_reads_writes_and_watches_over_tls_with_a_kubeconfig() {
    let hub = Hub::start();
    let kubectl = hub.kubectl(ADMINISTRATOR);
    let mut watch = kubectl
        .command(&["get", "networkpolicies", "-w", "-o", "name"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    let (sender, seen) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for line in lines.map_while(Result::ok) {
            let _ = sender.send(line);
        }
    });
    kubectl
        .with_input(&["apply", "-f", "-"], SECURE_POD)
        .unwrap();
    let line = seen
        .recv_timeout(std::time::Duration::from_secs(10))
        .unwrap();
    assert_eq!(line, "networkpolicy.networking.k8s.io/secure-pod");
    watch.kill().unwrap();
    watch.wait().unwrap();
}

#[test]
fn nobody_gets_in_without_a_token_and_no_client_trusts_another_certificate() {
    let hub = Hub::start();
    // kubectl would ask for a user.
    let get = |path| {
        let url = format!("https://192.0.2.1:7441{path}");
        let curl = ["curl", "-sk", "--noproxy", "*", &url];
        run_in(&hub.machine, &curl).unwrap().success().unwrap()
    };
    let nobody = get("/api/v1/pods");
    assert!(nobody.contains("\"code\":401"), "{nobody}");
    assert!(nobody.contains("bearer token is required"), "{nobody}");
    assert_eq!(get("/healthz"), "ok");
    let wrong = hub
        .kubectl("administrator-0123456780")
        .fails(&["get", "pods"], "");
    assert!(
        wrong.contains("Unauthorized") || wrong.contains("must be logged in"),
        "{wrong}"
    );

    let stranger = hub.kubectl(ADMINISTRATOR);
    make_certificate(stranger.home.path()).unwrap();
    fs::rename(
        stranger.home.path().join("cert.pem"),
        stranger.home.path().join("ca.pem"),
    )
    .unwrap();
    let distrust = stranger.fails(&["get", "pods"], "");
    assert!(distrust.contains("certificate"), "{distrust}");
}

#[test]
fn a_member_reads_everything_and_writes_its_own_node_alone() {
    let hub = Hub::start();
    hub.daemon.apply(SECURE_POD).unwrap();
    let member = hub.kubectl(MEMBER);
    let policies = member.run(&["get", "networkpolicies", "-o", "name"]);
    assert!(policies.contains("secure-pod"), "{policies}");

    member.with_input(&["create", "-f", "-"], NODE_B).unwrap();
    member.run(&["annotate", "node", "node-b", "vswitch/note=seen"]);
    let patch = r#"{"status":{"conditions":[{"type":"NetworkUnavailable","status":"False"}]}}"#;
    member.run(&[
        "patch",
        "node",
        "node-b",
        "--subresource=status",
        "-p",
        patch,
    ]);
    let node = member.run(&["get", "node", "node-b", "-o", "json"]);
    assert!(
        node.contains("NetworkUnavailable") && node.contains("seen"),
        "{node}"
    );

    for (arguments, input) in [
        (
            &["create", "-f", "-"][..],
            &NODE_B.replace("node-b", "node-c")[..],
        ),
        (&["annotate", "node", "node-a", "vswitch/note=seen"], ""),
        (&["delete", "node", "node-b"], ""),
        (&["delete", "networkpolicy", "secure-pod"], ""),
        (
            &["create", "-f", "-"],
            &SECURE_POD.replace("name: secure-pod", "name: other"),
        ),
        (&["get", "--raw", "/v1/status"], ""),
        (&["get", "--raw", "/metrics"], ""),
    ] {
        let refused = member.fails(arguments, input);
        assert!(refused.contains("orbidden"), "{arguments:?}: {refused}");
    }
}

#[test]
fn certificate_and_tokens_are_renewed_without_a_restart() {
    let hub = Hub::start();
    hub.kubectl(ADMINISTRATOR).run(&["get", "pods"]);
    let before = hub.kubectl(ADMINISTRATOR);
    make_certificate(hub.folder.path()).unwrap();
    let other = ADMINISTRATOR.replace("0123", "4567");
    fs::write(hub.folder.path().join("token"), &other).unwrap();
    eventually("the certificate is renewed", || {
        let kubectl = hub.kubectl(&other);
        kubectl.with_input(&["get", "pods"], "")
    });
    let stale = before.fails(&["get", "pods"], "");
    assert!(stale.contains("certificate"), "{stale}");
    let revoked = hub.kubectl(ADMINISTRATOR).fails(&["get", "pods"], "");
    assert!(!revoked.contains("certificate"), "{revoked}");
}
