//! The daemon as a service: unit file, readiness, watchdog, configuration, messages.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod monitoring;

use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use vswitch_tests::{Daemon, DaemonOptions, Namespace, binary, run};

fn config_folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../config")
}

#[test]
fn the_unit_is_valid() {
    let unit = std::fs::read_to_string(config_folder().join("vswitchd.service")).unwrap();
    let program = binary("vswitchd").canonicalize().unwrap();
    let unit = unit.replace("/usr/bin/vswitchd", &program.to_string_lossy());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("vswitchd.service");
    std::fs::write(&path, unit).unwrap();
    let mut verify = Command::new("systemd-analyze");
    let output = run(verify.args(["verify", "--man=no"]).arg(&path), "").unwrap();
    let complaints: Vec<&str> = output
        .stderr
        .lines()
        .filter(|line| line.contains("vswitchd.service"))
        .collect();
    assert!(
        output.code == Some(0) && complaints.is_empty(),
        "{output:?}"
    );
}

#[test]
fn the_image_holds_all_that_its_programs_load() {
    let folder = tempfile::tempdir().unwrap();
    let programs = folder.path().join("programs");
    std::fs::create_dir(&programs).unwrap();
    for name in ["vswitchd", "vsctl"] {
        std::os::unix::fs::symlink(binary(name).canonicalize().unwrap(), programs.join(name))
            .unwrap();
    }
    let image = folder.path().join("image");
    let mut collect = Command::new(config_folder().join("image.sh"));
    collect
        .arg(&programs)
        .arg(binary("vswitch-cni"))
        .arg(&image);
    run(&mut collect, "").unwrap().success().unwrap();
    for program in [
        &["/usr/bin/vswitchd", "--check-config"][..],
        &["/usr/bin/vsctl", "--version"],
        &["/usr/sbin/nft", "--version"],
        &["/usr/bin/vswitch-cni"],
    ] {
        let mut alone = Command::new("chroot");
        alone.arg(&image).args(program).env_clear();
        alone
            .env("CNI_COMMAND", "VERSION")
            .env("PATH", "/usr/bin:/usr/sbin:/bin:/sbin");
        let output = run(&mut alone, r#"{"cniVersion": "1.0.0"}"#).unwrap();
        assert_eq!(output.code, Some(0), "{program:?}: {output:?}");
    }
    let run_folder = image.join("var/run");
    assert_eq!(
        std::fs::read_link(run_folder).unwrap(),
        PathBuf::from("/run")
    );
}

#[test]
fn the_service_manager_is_told_of_readiness_and_fed_until_the_end() {
    let node = Namespace::new("node").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let notify = folder.path().join("notify");
    let socket = UnixDatagram::bind(&notify).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    let mut child = node
        .command(binary("vswitchd"))
        .arg("--set")
        .arg(format!(
            "state_dir={}",
            folder.path().join("state").display()
        ))
        .arg("--set")
        .arg(format!("run_dir={}", folder.path().join("run").display()))
        .env("NOTIFY_SOCKET", &notify)
        .env("WATCHDOG_USEC", "6000000")
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let next = || {
        let mut buffer = [0; 256];
        let length = socket.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..length]).trim().to_owned()
    };
    assert_eq!(next(), "READY=1");
    assert_eq!(next(), "WATCHDOG=1");
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    assert_eq!(next(), "STOPPING=1");
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_configuration_is_checked_as_a_whole() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("vswitchd.toml");
    let check = || {
        let mut command = Command::new(binary("vswitchd"));
        run(command.arg("--check-config").arg("--config").arg(&file), "").unwrap()
    };
    std::fs::write(&file, "[network]\npod_cidrs = [\"10.1.0.0/24\"]\n").unwrap();
    let effective = check().success().unwrap();
    assert!(
        effective.contains("10.1.0.0/24") && effective.contains("vsw0"),
        "{effective}"
    );

    std::fs::write(
        &file,
        "[network]\npod_cidrs = [\"10.1.0.0/33\"]\nmtu = 12\n",
    )
    .unwrap();
    let output = check();
    assert_eq!(output.code, Some(64));
    assert!(
        output.stderr.contains("10.1.0.0/33") && output.stderr.contains("network.mtu"),
        "{output:?}"
    );

    std::fs::write(&file, "elephants = 3\n").unwrap();
    let output = check();
    assert!(
        output.code == Some(64) && output.stderr.contains("elephants"),
        "{output:?}"
    );
}

#[test]
fn the_shipped_configuration_and_cni_list_are_valid() {
    let mut command = Command::new(binary("vswitchd"));
    command
        .arg("--check-config")
        .arg("--config")
        .arg(config_folder().join("vswitchd.toml"));
    run(&mut command, "").unwrap().success().unwrap();
    let list = std::fs::read_to_string(config_folder().join("10-vswitch.conflist")).unwrap();
    let list: serde_json::Value = serde_json::from_str(&list).unwrap();
    let types: Vec<_> = list["plugins"]
        .as_array()
        .unwrap()
        .iter()
        .map(|p| p["type"].clone())
        .collect();
    assert_eq!(types, ["vswitch-cni", "bandwidth"]);
}

#[test]
fn vsctl_says_what_to_do_when_no_daemon_is_there() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("api.sock");
    let mut command = Command::new(binary("vsctl"));
    let output = run(command.arg("--socket").arg(&socket).arg("status"), "").unwrap();
    assert_eq!(output.code, Some(1));
    let named = output.stderr.contains(&*socket.to_string_lossy());
    assert!(named && output.stderr.contains("vswitchd"), "{output:?}");
}

#[test]
fn a_second_daemon_on_the_same_state_is_refused() {
    let daemon = Daemon::start(&DaemonOptions::default()).unwrap();
    let output = daemon.start_again().unwrap();
    assert_eq!(output.code, Some(1), "{output:?}");
    assert!(output.stderr.contains("in use"), "{output:?}");
    daemon.vsctl(&["status"]).unwrap();
}

#[test]
fn metrics_health_and_the_api_description_are_served() {
    let daemon = Daemon::start(&DaemonOptions::default()).unwrap();
    let get = |path: &str| {
        let mut command = Command::new("curl");
        command
            .args(["-sS", "--fail", "--unix-socket"])
            .arg(daemon.socket());
        run(command.arg(format!("http://vswitchd{path}")), "")
            .unwrap()
            .success()
            .unwrap()
    };
    assert_eq!(get("/healthz"), "ok");
    assert_eq!(get("/readyz"), "ok");
    let metrics = get("/metrics");
    assert!(
        metrics.contains("vswitch_drops_total{reason=\"policy_ingress\"} 0"),
        "{metrics}"
    );
    assert!(metrics.ends_with("# EOF\n"), "{metrics}");
    let description: serde_json::Value = serde_json::from_str(&get("/v1/openapi.json")).unwrap();
    assert!(description["paths"]["/v1/trace"]["post"].is_object());
}
