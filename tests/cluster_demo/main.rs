//! Plays the story across nodes for a person: three nodes, a client and a server on different
//! ones, a policy that blocks, a label that admits; then what leads the packets, and a machine
//! that is no node and tries to look like the client.
//!
//! Everything is in namespaces of its own. `tests/run.sh` removes them when it is interrupted.

#![expect(clippy::print_stdout, reason = "it is there to be read")]

use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result, bail, ensure};
use vswitch_tests::{Cluster, ClusterOptions, Daemon, Namespace, Pod, run, run_in, tool};

const POLICY: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../config/samples/secure-pod.yaml"
);
/// curl(1): the time is over.
const TIMED_OUT: &str = "exit Some(28)";

fn main() -> ExitCode {
    match play() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            println!("cluster demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Returns whether everything went as the story says.
fn play() -> Result<bool> {
    let backend = match std::env::args().nth(1).as_deref() {
        None | Some("vxlan") => "vxlan",
        Some("host-gw") => "host-gw",
        Some(other) => bail!("backend {other:?} is none of vxlan, host-gw"),
    };
    step(&format!(
        "three nodes on one link, a vswitchd in each, backend {backend}"
    ));
    let cluster = Cluster::start(&ClusterOptions {
        nodes: 3,
        backend,
        dual_stack: false,
    })?;
    show(&kubectl(cluster.node(0), &["get", "nodes", "-o", "wide"])?);

    step("a server on node-0, a client on node-1, attached by the CNI plugin");
    let server = Pod::named("server").attach(cluster.node(0))?;
    let client = Pod::named("client").attach(cluster.node(1))?;
    let _web = server.serve(80)?;
    kubectl(
        cluster.node(0),
        &["label", "pod", "server", "app=secure-pod"],
    )?;
    cluster.share()?;
    show(&kubectl(cluster.node(2), &["get", "pods", "-o", "wide"])?);

    let mut story = Story::default();
    step("1. no policy: the client fetches the page from the other node");
    story.fetch("no policy", &client, &server, "fetched");

    step("2. a policy admits only pods labelled allow-access=true: the fetch hangs");
    for node in 0..3 {
        let shown = kubectl(cluster.node(node), &["apply", "-f", POLICY])?;
        show(&format!("node-{node}: {shown}"));
    }
    story.fetch("policy applied", &client, &server, "hangs");

    step("3. the client gets the label on its own node: the fetch works again");
    show(&kubectl(
        cluster.node(1),
        &["label", "pod", "client", "allow-access=true"],
    )?);
    cluster.share()?;
    story.fetch("client labelled", &client, &server, "fetched");

    step("what leads packets from node-1 to the others");
    let look = "ip -4 route show proto 86; ip -br link show type vxlan; bridge fdb show | grep dst";
    show(&run_in(cluster.node(1).node(), &["sh", "-c", look])?.stdout);

    step("4. a machine that is no node sends with the client's address");
    story.impostor(&cluster, &client, &server)?;
    show(&cluster.node(0).vsctl(&["status"])?);

    step("summary");
    println!("{}", story.lines.join("\n"));
    Ok(story.is_as_told)
}

/// What happened, and whether it is what was to happen.
struct Story {
    lines: Vec<String>,
    is_as_told: bool,
}

impl Default for Story {
    fn default() -> Self {
        Self {
            lines: Vec::new(),
            is_as_told: true,
        }
    }
}

impl Story {
    fn verdict(&mut self, what: &str, expected: &str, happened: &str) {
        let is_right = expected == happened;
        self.is_as_told &= is_right;
        println!("-> {happened}");
        self.lines.push(if is_right {
            format!("  ok    {what}: {happened}")
        } else {
            format!("  FAIL  {what}: expected {expected}, got {happened}")
        });
    }

    fn fetch(&mut self, what: &str, client: &Pod, server: &Pod, expected: &str) {
        println!(
            "$ curl http://{}/    # in the client, {}",
            server.ip(),
            client.ip()
        );
        let happened = match client.fetch(server.ip(), 80) {
            Ok(page) => {
                println!("{page}");
                "fetched".to_owned()
            }
            Err(error) if format!("{error:#}").contains(TIMED_OUT) => "hangs".to_owned(),
            Err(error) => format!("{error:#}"),
        };
        self.verdict(what, expected, &happened);
    }

    fn impostor(&mut self, cluster: &Cluster, client: &Pod, server: &Pod) -> Result<()> {
        let machine = Namespace::new("impostor")?;
        cluster.plug(&machine, 66)?;
        let address = format!("{}/32", client.ip());
        machine.ip(&["address", "add", &address, "dev", "lo"])?;
        machine.ip(&["route", "add", "10.244.0.0/24", "via", "192.0.2.1"])?;
        let (source, to) = (client.ip().to_string(), server.ip().to_string());
        println!("$ ping -c 3 -I {source} {to}    # on a machine at 192.0.2.67");
        let ping = [
            "ping", "-n", "-c", "3", "-i", "0.2", "-W", "1", "-I", &source, &to,
        ];
        let is_answered = run_in(&machine, &ping)?.code == Some(0);
        let counted = vswitch_tests::eventually("the drops are counted", || {
            let status = cluster.node(0).vsctl_json(&["status"])?;
            let count = status["drops"]["uplink_spoofed"].as_u64().unwrap_or(0);
            ensure!(count >= 3, "{status}");
            Ok(count)
        });
        let happened = if is_answered {
            "answered".to_owned()
        } else {
            format!("dropped, {counted} counted as uplink_spoofed")
        };
        self.verdict(
            "impostor",
            "dropped, 3 counted as uplink_spoofed",
            &happened,
        );
        Ok(())
    }
}

fn step(title: &str) {
    println!("\n== {title}");
}

fn show(text: &str) {
    println!("{}", text.trim_end());
}

/// Runs kubectl against the API of a node, and shows how.
fn kubectl(node: &Daemon, arguments: &[&str]) -> Result<String> {
    println!(
        "$ kubectl --server {} {}    # on {}",
        node.api_url(),
        arguments.join(" "),
        node.node_name()
    );
    let mut command: Command = node.node().command(tool("kubectl-1.35"));
    command
        .args(["--server", node.api_url()])
        .args(arguments)
        // Where it keeps what it discovered; removed with the node.
        .env("HOME", node.folder())
        .env_remove("KUBECONFIG");
    run(&mut command, "")?.success().context("kubectl")
}
