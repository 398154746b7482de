//! Plays the story across nodes for a person: a hub and three nodes that read it, a client and a
//! server on different ones, a policy that blocks, a label that admits; then what leads the
//! packets, a machine that is no node and tries to look like the client, and a hub that is away.
//!
//! Everything is in namespaces of its own. `tests/run.sh` removes them when it is interrupted.

#![expect(clippy::print_stdout, reason = "it is there to be read")]

use std::process::ExitCode;

use anyhow::{Context as _, Result, bail, ensure};
use vswitch_tests::{ApiServer, Cluster, ClusterOptions, Namespace, Pod, run_in, wait_for_state};

/// Folder in which the paths below are.
const PROJECT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
const PODS: &str = "config/samples/client-and-server.yaml";
const POLICY: &str = "config/samples/secure-pod.yaml";
/// curl(1): the time is over.
const TIMED_OUT: &str = "exit Some(28)";
/// How a fetch ends.
const FETCHED: &str = "fetched";
const HANGS: &str = "hangs";
/// How often a fetch that did not end as it should is repeated.
const TRIES: usize = 50;

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
    // The paths of manifests are shown as somebody would type them.
    std::env::set_current_dir(PROJECT).context(PROJECT)?;
    step(&format!(
        "a hub and three nodes on one link, a vswitchd in each, backend {backend}"
    ));
    let mut cluster = Cluster::start(&ClusterOptions {
        nodes: 3,
        backend,
        dual_stack: false,
    })?;
    let api = cluster.api();
    println!("the hub is {}; objects are written there alone", api.url());
    kubectl(api, &["get", "nodes"])?;

    step("a server bound to node-0, a client to node-1, attached there by the CNI plugin");
    kubectl(api, &["apply", "-f", PODS])?;
    let server = api.run_pod(cluster.node(0), "default", "server")?;
    let client = api.run_pod(cluster.node(1), "default", "client")?;
    let _web = server.serve(80)?;
    kubectl(api, &["get", "pods", "-o", "wide"])?;

    let mut story = Story::default();
    step("1. no policy: the client fetches the page from the other node");
    story.fetch("no policy", &client, &server, FETCHED);

    step("2. a policy admits only pods labelled allow-access=true: the fetch hangs");
    kubectl(api, &["apply", "-f", POLICY])?;
    story.fetch("policy applied", &client, &server, HANGS);

    step("3. the client gets the label: the fetch works again");
    kubectl(api, &["label", "pod", "client", "allow-access=true"])?;
    story.fetch("client labelled", &client, &server, FETCHED);

    step("what leads packets from node-1 to the others");
    let look = "ip -4 route show proto 86; ip -br link show type vxlan; bridge fdb show | grep dst";
    show(&run_in(cluster.node(1).node(), &["sh", "-c", look])?.stdout);

    step("4. a machine that is no node sends with the client's address");
    story.impostor(&cluster, &client, &server)?;
    show(&cluster.node(0).vsctl(&["status"])?);

    step("5. the hub is killed: what is known stays in force");
    cluster.api_mut().kill()?;
    wait_for_state(cluster.node(0), "stale");
    story.fetch("hub away", &client, &server, FETCHED);

    step("6. the hub is back, and the client loses its label: the fetch hangs");
    cluster.api_mut().revive()?;
    wait_for_state(cluster.node(0), "live");
    kubectl(cluster.api(), &["label", "pod", "client", "allow-access-"])?;
    story.fetch("label removed", &client, &server, HANGS);

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
        // A change has yet to get from the hub to the server's node.
        let mut happened = fetch(client, server);
        for _ in 0..TRIES {
            if happened == expected {
                break;
            }
            happened = fetch(client, server);
        }
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

fn fetch(client: &Pod, server: &Pod) -> String {
    match client.fetch(server.ip(), 80) {
        Ok(page) if page == server.name => FETCHED.to_owned(),
        Ok(page) => format!("fetched {page:?}"),
        Err(error) if format!("{error:#}").contains(TIMED_OUT) => HANGS.to_owned(),
        Err(error) => format!("{error:#}"),
    }
}

/// Runs kubectl against the hub, and shows it with what it prints.
fn kubectl(api: &ApiServer, arguments: &[&str]) -> Result<()> {
    println!("$ kubectl {}", arguments.join(" "));
    show(&api.kubectl(arguments)?);
    Ok(())
}
