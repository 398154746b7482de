//! The steps, in their order; each begins with what the ones before it left.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::json;

use crate::control_plane::{ControlPlane, REGISTRY};
use crate::custom_resources::{calico_story, canal_check, policy_status};
use crate::machine::Machine;
use crate::wait::within;

/// timeout(1) of busybox has ended the program by SIGTERM.
const TIMED_OUT: i32 = 128 + 15;
const ASSETS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/kubernetes/bin");
const PODS: &str = "config/samples/client-and-server.yaml";
const POLICY: &str = "config/samples/secure-pod.yaml";
const MANIFEST: &str = "config/kubernetes/vswitch.yaml";
const UNINSTALL: &str = "config/kubernetes/uninstall.yaml";

/// A Service of the server, of every kind of address that the cluster can give it.
const SERVICE: &str = "apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  type: NodePort
  selector: {app: secure-pod}
  ports: [{port: 8080, targetPort: 80, nodePort: 30080}]
";

/// A second pod of the Service, on the other node.
const SECOND_SERVER: &str = "apiVersion: v1
kind: Pod
metadata: {name: server-2, labels: {app: secure-pod}}
spec:
  nodeName: node-1
  containers: [{name: server, image: nginx, ports: [{containerPort: 80}]}]
";

/// A policy of the same pods that admits another port.
const OTHER_PORT: &str = r#"{"spec":{"ingress":[{"from":[{"podSelector":{"matchLabels":
    {"allow-access":"true"}}}],"ports":[{"protocol":"TCP","port":81}]}]}}"#;

/// What a step does.
pub(crate) type Step = fn(&mut World) -> Result<()>;

/// Every step with what it shows.
pub(crate) const STEPS: [(&str, Step); 19] = [
    (
        "the tests of watchers and of a node, against this API server",
        watcher_tests,
    ),
    (
        "the control plane runs, and two machines join with vswitchd as a process",
        join,
    ),
    (
        "the story, no policy: kubectl exec in the client fetches from the server",
        story_open,
    ),
    (
        "the story, kubectl apply of the policy: the fetch hangs, kubectl describe says why",
        story_blocked,
    ),
    (
        "the story, kubectl label of the client: the fetch works",
        story_admitted,
    ),
    ("a changed policy: another port, and back", policy_change),
    (
        "a Service from a pod and from a node, by ClusterIP and NodePort",
        services,
    ),
    ("the Service follows its endpoints", endpoints_follow),
    (
        "a Service of another proxy is left alone while it has the label",
        other_proxy,
    ),
    (
        "RBAC forbids Services: said in the status; allowed again: heard",
        forbidden_services,
    ),
    (
        "a node reboots without an API server: what was known is in force",
        reboot_daemon_first,
    ),
    (
        "a node reboots, kubelet and API server before the daemon",
        reboot_api_server_first,
    ),
    (
        "policies of a Canal cluster: a tier denies, passes on to NetworkPolicies, finds a network set",
        calico_story,
    ),
    (
        "the check before a migration lists what vswitch does not do",
        canal_check,
    ),
    (
        "kubectl apply of vswitch.yaml with the image of make image",
        daemon_set,
    ),
    (
        "the story on the DaemonSet, with pods made anew",
        story_on_daemon_set,
    ),
    (
        "the daemon's pod is deleted: connections are possible again at once",
        daemon_pod_restarts,
    ),
    (
        "a ClusterNetworkPolicy: its status says that both nodes have it in force, an Event what fails closed",
        policy_status,
    ),
    (
        "kubectl apply of uninstall.yaml leaves no node with anything of vswitch",
        uninstall,
    ),
];

/// The cluster.
#[derive(Debug)]
pub(crate) struct World {
    // The machines end while there is an underlay.
    nodes: Vec<Machine>,
    control: Option<ControlPlane>,
    assets: PathBuf,
}

impl World {
    pub(crate) fn new() -> Result<Self> {
        // The convention of Kubernetes' own tests, or what setup.sh made.
        let assets = std::env::var_os("KUBEBUILDER_ASSETS")
            .map_or_else(|| PathBuf::from(ASSETS), PathBuf::from);
        let assets = std::fs::canonicalize(&assets)
            .with_context(|| format!("{}: tests/kubernetes/setup.sh makes it", assets.display()))?;
        let nodes = (0..2).map(|place| Machine::new(&format!("node-{place}"), place));
        Ok(Self {
            nodes: nodes.collect::<Result<_>>()?,
            control: None,
            assets,
        })
    }

    pub(crate) fn control(&self) -> Result<&ControlPlane> {
        self.control.as_ref().context("there is no control plane")
    }

    fn control_mut(&mut self) -> Result<&mut ControlPlane> {
        self.control.as_mut().context("there is no control plane")
    }

    /// Describes the cluster after a failure.
    pub(crate) fn state(&self) -> String {
        let mut text = String::new();
        if let Some(control) = &self.control {
            for what in [
                &["get", "nodes,pods", "-A", "-o", "wide"][..],
                &["get", "events", "-A"],
            ] {
                let shown = control.try_kubectl(what);
                let shown = shown.map_or_else(|error| format!("{error:#}"), |output| output.stdout);
                let lines: Vec<&str> = shown.lines().collect();
                text += &lines[lines.len().saturating_sub(20)..].join("\n");
                text += "\n";
            }
        }
        for node in &self.nodes {
            for log in ["vswitchd", "kubelet"] {
                text += &node.text_of_log(log);
                text += "\n";
            }
            text += &node
                .vsctl(&["status"])
                .unwrap_or_else(|error| format!("{error:#}\n"));
        }
        text
    }

    /// Starts containerd and the kubelet of a node.
    fn start_kubelet(&mut self, node: usize) -> Result<()> {
        let control = self.control()?;
        let (kubelet, kubeconfig) = (control.program("kubelet"), control.kubeconfig());
        let node = &mut self.nodes[node];
        node.start_containerd(REGISTRY)?;
        node.start_kubelet(&kubelet, &kubeconfig)
    }

    fn start_daemon(&mut self, node: usize) -> Result<()> {
        let kubeconfig = self.control()?.kubeconfig();
        self.start_daemon_with(node, &kubeconfig)
    }

    fn start_daemon_with(&mut self, node: usize, kubeconfig: &str) -> Result<()> {
        let shim = vswitch_tests::binary("vswitch-cni").display().to_string();
        let node = &mut self.nodes[node];
        let config = format!(
            "node_name = {:?}\n[cluster]\nmode = \"cluster\"\nkubeconfig = {kubeconfig:?}\n\
             cni_plugin = {shim:?}\n[network]\ncluster_cidrs = [\"10.244.0.0/16\"]\n\
             backend = \"vxlan\"\n[service]\ncidrs = [\"10.96.0.0/16\"]\n",
            node.name()
        );
        node.start_daemon(&config)
    }

    fn wait_for_daemon(&self, node: usize, state: &str) -> Result<()> {
        let node = &self.nodes[node];
        within(
            60,
            &format!("the daemon of {} is ready, {state}", node.name()),
            || {
                let status = node.vsctl(&["status", "--ready"]);
                let status = status.with_context(|| node.text_of_log("vswitchd"))?;
                ensure!(status.contains(&format!("({state}")), "{status}");
                Ok(())
            },
        )
    }

    fn wait_for_no_problem(&self, node: usize) -> Result<()> {
        within(60, "the daemon tells of no problem", || {
            let status = self.nodes[node].vsctl(&["status"])?;
            ensure!(!status.contains("PROBLEM"), "{status}");
            Ok(())
        })
    }

    fn wait_for_pods(&self, pods: &[&str]) -> Result<()> {
        for pod in pods {
            let name = format!("pod/{pod}");
            let wait = ["wait", "--for=condition=Ready", "--timeout=120s", &name];
            self.control()?.kubectl(&wait)?;
        }
        Ok(())
    }

    pub(crate) fn pod_ip(&self, pod: &str) -> Result<String> {
        let object = self.control()?.get(&["pod", pod])?;
        let ip = object["status"]["podIP"].as_str().map(str::to_owned);
        ip.with_context(|| format!("{pod} has no address"))
    }

    /// Fetches by `kubectl exec` in the client; returns the page, or `None` if that hangs.
    fn fetch(&self, to: &str) -> Result<Option<String>> {
        let url = format!("http://{to}/");
        // wget's own limit crashes where nothing resolves names.
        let exec = [
            "exec", "client", "--", "timeout", "3", "wget", "-q", "-O", "-", &url,
        ];
        let output = self.control()?.try_kubectl(&exec)?;
        match output.code {
            Some(0) => Ok(Some(output.stdout.trim().to_owned())),
            Some(TIMED_OUT) => Ok(None),
            _ => bail!("{output:?}"),
        }
    }

    fn wait_for_page(&self, to: &str, page: Option<&str>) -> Result<()> {
        within(30, &format!("a fetch from {to} comes to {page:?}"), || {
            let fetched = self.fetch(to)?;
            ensure!(fetched.as_deref() == page, "it comes to {fetched:?}");
            Ok(())
        })
    }

    /// What the client gets from the server's own address, which changes with its sandbox.
    pub(crate) fn wait_for_server(&self, page: Option<&str>) -> Result<()> {
        within(
            90,
            &format!("a fetch from the server comes to {page:?}"),
            || {
                let fetched = self.fetch(&self.pod_ip("server")?)?;
                ensure!(fetched.as_deref() == page, "it comes to {fetched:?}");
                Ok(())
            },
        )
    }

    /// Cuts a node's power and switches it on again; it runs nothing then.
    fn reboot(&mut self, node: usize) -> Result<()> {
        let control = self.control.as_ref().context("there is no control plane")?;
        self.nodes[node].cut_power();
        // Its network goes with it, in the kernel's own time; the cable is pulled at once.
        control
            .underlay
            .ip(&["link", "delete", &format!("port{node}")])?;
        self.nodes[node].boot(&control.underlay)
    }

    /// The policy is in force, and follows the client's label.
    pub(crate) fn story_goes_on(&self) -> Result<()> {
        self.wait_for_server(Some("server"))?;
        let label = |label| self.control()?.kubectl(&["label", "pod", "client", label]);
        label("allow-access-")?;
        self.wait_for_server(None)?;
        label("allow-access=true")?;
        self.wait_for_server(Some("server"))?;
        self.wait_for_page(&self.cluster_ip()?, Some("server"))
    }

    fn cluster_ip(&self) -> Result<String> {
        let service = self.control()?.get(&["service", "web"])?;
        let ip = service["spec"]["clusterIP"].as_str();
        Ok(format!("{}:8080", ip.context("a ClusterIP")?))
    }

    /// Fetches from a machine itself.
    fn fetch_from_node(&self, node: usize, to: &str) -> Result<String> {
        let url = format!("http://{to}/");
        let fetch = [
            "busybox", "timeout", "3", "busybox", "wget", "-q", "-O", "-", &url,
        ];
        Ok(self.nodes[node].run(&fetch)?.success()?.trim().to_owned())
    }
}

fn watcher_tests(world: &mut World) -> Result<()> {
    let runner = std::env::var("VSWITCH_RUNNER").unwrap_or_else(|_| "cargo test".to_owned());
    let tests = format!("{runner} --locked --workspace --test watcher --test cluster");
    let mut command = Command::new("sh");
    // The tests build and find programs of their own.
    for variable in ["VSWITCH_BIN", "VSWITCH_SHIM"] {
        command.env_remove(variable);
    }
    command
        .args(["-c", &tests])
        .env("KUBEBUILDER_ASSETS", &world.assets);
    let output = vswitch_tests::run(&mut command, "")?;
    ensure!(
        output.code == Some(0),
        "{}\n{}",
        output.stdout,
        output.stderr
    );
    let told = format!("{}{}", output.stdout, output.stderr);
    for line in told
        .lines()
        .filter(|line| line.contains("tests run") || line.contains("test result"))
    {
        println!("    {}", line.trim());
    }
    Ok(())
}

fn join(world: &mut World) -> Result<()> {
    world.control = Some(ControlPlane::start(&world.assets)?);
    let control = world.control()?;
    for (image, name) in [
        ("vswitch-test-idle:1", "library/pause:1"),
        ("vswitch-test-web:1", "library/nginx:latest"),
        ("vswitch-test-idle:1", "curlimages/curl:latest"),
    ] {
        control.publish(&format!("localhost/{image}"), name)?;
    }
    for node in 0..world.nodes.len() {
        let underlay = &world.control.as_ref().context("it runs")?.underlay;
        world.nodes[node].boot(underlay)?;
        world.start_kubelet(node)?;
    }
    // Without a network they are not ready: nothing of the host's is taken for one.
    for node in ["node-0", "node-1"] {
        world.control()?.wait_for_node(node, false)?;
    }
    for node in 0..world.nodes.len() {
        world.start_daemon(node)?;
    }
    for node in 0..world.nodes.len() {
        world.wait_for_daemon(node, "live")?;
        world
            .control()?
            .wait_for_node(world.nodes[node].name(), true)?;
    }
    // The nodes have told each other by then how their pods are reached.
    world.wait_for_no_problem(0)?;
    world.wait_for_no_problem(1)
}

fn story_open(world: &mut World) -> Result<()> {
    world.control()?.kubectl(&["apply", "-f", PODS])?;
    world.wait_for_pods(&["server", "client"])?;
    world.wait_for_server(Some("server"))
}

fn story_blocked(world: &mut World) -> Result<()> {
    world.control()?.kubectl(&["apply", "-f", POLICY])?;
    world.wait_for_server(None)?;
    within(30, "the client's Events name policy and label", || {
        let described = world.control()?.kubectl(&["describe", "pod", "client"])?;
        for told in [
            "PolicyDenied",
            "denied by default/secure-pod (ingress)",
            "pod default/client lacks label allow-access=true",
        ] {
            ensure!(described.contains(told), "{told:?} in {described}");
        }
        Ok(())
    })
}

fn story_admitted(world: &mut World) -> Result<()> {
    world
        .control()?
        .kubectl(&["label", "pod", "client", "allow-access=true"])?;
    world.wait_for_server(Some("server"))
}

fn policy_change(world: &mut World) -> Result<()> {
    let control = world.control()?;
    control.kubectl(&["patch", "networkpolicy", "secure-pod", "-p", OTHER_PORT])?;
    world.wait_for_server(None)?;
    world.control()?.kubectl(&["apply", "-f", POLICY])?;
    world.wait_for_server(Some("server"))
}

fn services(world: &mut World) -> Result<()> {
    world.control()?.apply(SERVICE)?;
    let cluster_ip = world.cluster_ip()?;
    world.wait_for_page(&cluster_ip, Some("server"))?;
    // The server's own node is always admitted; the other one is nobody that the policy names.
    let page = world.fetch_from_node(0, &cluster_ip)?;
    ensure!(page == "server", "{page}");
    let page = world.fetch_from_node(0, &format!("{}:30080", world.nodes[0].address()))?;
    ensure!(page == "server", "{page}");
    Ok(())
}

fn endpoints_follow(world: &mut World) -> Result<()> {
    world.control()?.apply(SECOND_SERVER)?;
    world.wait_for_pods(&["server-2"])?;
    let cluster_ip = world.cluster_ip()?;
    let mut pages = std::collections::BTreeSet::new();
    within(60, "both pods serve", || {
        pages.extend(world.fetch(&cluster_ip)?);
        ensure!(pages.len() == 2, "{pages:?}");
        Ok(())
    })?;
    let delete = ["delete", "pod", "server-2", "--grace-period=1"];
    world.control()?.kubectl(&delete)?;
    for _ in 0..8 {
        world.wait_for_page(&cluster_ip, Some("server"))?;
    }
    Ok(())
}

fn other_proxy(world: &mut World) -> Result<()> {
    let cluster_ip = world.cluster_ip()?;
    for label in ["service-proxy-name", "headless"] {
        let key = format!("service.kubernetes.io/{label}");
        let (set, unset) = (format!("{key}=x"), format!("{key}-"));
        world
            .control()?
            .kubectl(&["label", "service", "web", &set])?;
        within(30, "nobody serves it", || {
            ensure!(
                world.fetch(&cluster_ip).ok().flatten().is_none(),
                "it is served"
            );
            Ok(())
        })?;
        world
            .control()?
            .kubectl(&["label", "service", "web", &unset])?;
        world.wait_for_page(&cluster_ip, Some("server"))?;
    }
    Ok(())
}

/// A daemon that may read all but Services, by a role of its own.
fn forbidden_services(world: &mut World) -> Result<()> {
    let control = world.control()?;
    let manifest = std::fs::read_to_string(MANIFEST)?;
    let of_account = manifest
        .split("\n---\n")
        .take(3)
        .collect::<Vec<_>>()
        .join("\n---\n");
    let without = of_account.replace(", services]", "]");
    ensure!(without != of_account, "the role names services");
    control.apply(&without)?;
    let as_vswitch = ["auth", "can-i", "list", "services", "-A", "--as"];
    let account = "system:serviceaccount:kube-system:vswitch";
    let answer = control.try_kubectl(&[&as_vswitch[..], &[account]].concat())?;
    ensure!(answer.stdout.trim() == "no", "{answer:?}");

    // The daemon of node-1 with the account's token; what it knew of Services stays.
    let kubeconfig = account_kubeconfig(world)?;
    world.nodes[1].stop_daemon()?;
    world.start_daemon_with(1, &kubeconfig)?;
    world.wait_for_daemon(1, "live")?;
    let status = world.nodes[1].vsctl(&["status"])?;
    let problem = "PROBLEM       services: what was known of them stays in force (list services: services is forbidden";
    ensure!(status.contains(problem), "{status}");
    world.wait_for_page(&world.cluster_ip()?, Some("server"))?;
    world.control()?.apply(&of_account)?;
    world.wait_for_no_problem(1)?;
    world.nodes[1].stop_daemon()?;
    world.start_daemon(1)?;
    world.wait_for_daemon(1, "live")
}

/// Writes a kubeconfig for the service account of vswitch.yaml.
fn account_kubeconfig(world: &World) -> Result<String> {
    let control = world.control()?;
    let of_system = ["-n", "kube-system"];
    let token = within(30, "the account has a token", || {
        let account = control.get(&[&of_system[..], &["serviceaccount", "vswitch"]].concat())?;
        let secret = account["secrets"][0]["name"]
            .as_str()
            .context("no secret yet")?;
        let template = "go-template={{.data.token | base64decode}}";
        let get = [&of_system[..], &["get", "secret", secret, "-o", template]];
        control.kubectl(&get.concat())
    })?;
    control.kubeconfig_of(&json!({ "token": token }))
}

fn reboot_daemon_first(world: &mut World) -> Result<()> {
    world.control_mut()?.kill_api_server()?;
    world.reboot(0)?;
    world.start_daemon(0)?;
    world.wait_for_daemon(0, "last-known")?;
    world.start_kubelet(0)?;
    world.control_mut()?.revive_api_server()?;
    world.wait_for_daemon(0, "live")?;
    world.story_goes_on()
}

fn reboot_api_server_first(world: &mut World) -> Result<()> {
    world.reboot(1)?;
    world.start_kubelet(1)?;
    // The kubelet has the network of the sandbox of before removed first, and there is nobody yet
    // who could; of that it makes no event.
    within(60, "the kubelet has been refused", || {
        let log = world.nodes[1].text_of_log("kubelet");
        let refused =
            "plugin type=\"vswitch-cni\" failed (delete): no socket /run/vswitchd/api.sock";
        ensure!(log.contains(refused), "{log}");
        Ok(())
    })?;
    world.start_daemon(1)?;
    world.wait_for_daemon(1, "live")?;
    world.story_goes_on()
}

/// The manifest as its comments say that it is to be changed where no kube-proxy runs.
fn manifest() -> Result<String> {
    let text = std::fs::read_to_string(MANIFEST)?;
    let mut changed = text.clone();
    for (from, to) in [
        (
            "# - name: KUBERNETES_SERVICE_HOST",
            "- name: KUBERNETES_SERVICE_HOST",
        ),
        ("#   value: 192.0.2.10\n", "  value: 192.0.2.100\n"),
        (
            "# - name: KUBERNETES_SERVICE_PORT",
            "- name: KUBERNETES_SERVICE_PORT",
        ),
        ("#   value: \"6443\"", "  value: \"6443\""),
    ] {
        let next = changed.replace(from, to);
        ensure!(next != changed, "{MANIFEST} has no {from:?}");
        changed = next;
    }
    Ok(changed)
}

const ROLLOUT: [&str; 5] = ["-n", "kube-system", "rollout", "status", "--timeout=150s"];

fn daemon_set(world: &mut World) -> Result<()> {
    let image = std::env::var("VSWITCH_IMAGE").unwrap_or_else(|_| "vswitch:0.1.0".to_owned());
    let folder = tempfile::tempdir()?;
    let archive = folder.path().join("image.tar").display().to_string();
    let mut save = Command::new("podman");
    save.args(["save", "--quiet", "--output", &archive, &image]);
    vswitch_tests::run(&mut save, "")?.success()?;
    for node in &world.nodes {
        node.stop_daemon()?;
        let name = "docker.io/library/vswitch:0.1.0";
        node.import(&archive, &format!("localhost/{image}"), name)?;
    }
    let control = world.control()?;
    control.apply(&manifest()?)?;
    control.kubectl(&[&ROLLOUT[..], &["daemonset/vswitch"]].concat())?;
    world.story_goes_on()
}

fn story_on_daemon_set(world: &mut World) -> Result<()> {
    let control = world.control()?;
    control.kubectl(&["delete", "pod", "client", "server", "--grace-period=1"])?;
    control.kubectl(&["delete", "-f", POLICY])?;
    story_open(world)?;
    story_blocked(world)?;
    story_admitted(world)
}

fn daemon_pod_restarts(world: &mut World) -> Result<()> {
    let control = world.control()?;
    let pods = [
        "-n",
        "kube-system",
        "delete",
        "pod",
        "-l",
        "app.kubernetes.io/name=vswitch",
    ];
    control.kubectl(&pods)?;
    control.kubectl(&[&ROLLOUT[..], &["daemonset/vswitch"]].concat())?;
    world.story_goes_on()
}

fn uninstall(world: &mut World) -> Result<()> {
    let control = world.control()?;
    for node in &world.nodes {
        let links = node.run(&["ip", "-o", "link"])?.success()?;
        ensure!(
            links.contains("vsw0"),
            "there is something to remove: {links}"
        );
    }
    control.kubectl(&[
        "-n",
        "kube-system",
        "delete",
        "daemonset",
        "vswitch",
        "--wait",
    ])?;
    control.apply(&std::fs::read_to_string(UNINSTALL)?)?;
    control.kubectl(&[&ROLLOUT[..], &["daemonset/vswitch-uninstall"]].concat())?;
    control.kubectl(&[
        "delete",
        "-f",
        UNINSTALL,
        "-f",
        MANIFEST,
        "--ignore-not-found",
    ])?;
    for node in &world.nodes {
        let look = "ip -o link | grep vsw; ip route show table all | grep 'proto 86'; \
                    nft list tables | grep vswitch; \
                    ls /etc/cni/net.d/10-vswitch.conflist /opt/cni/bin/vswitch-cni 2>/dev/null";
        let left = node.run(&["sh", "-c", look])?;
        ensure!(
            left.stdout.is_empty(),
            "left on {}:\n{}",
            node.name(),
            left.stdout
        );
    }
    Ok(())
}
