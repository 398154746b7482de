//! The page of the daemon in a real browser: what it shows of a fetch that hangs, and who may see it.

mod browser;

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use vswitch_tests::{Daemon, DaemonOptions, Pod, binary, eventually_within, run_in, serve};

use browser::{Browser, ENTER};

const POLICY: &str = include_str!("../../config/samples/secure-pod.yaml");
const CURE: &str = "would pass with label allow-access=true on pod default/client";

/// A browser on a busy machine draws seldom.
fn soon<T>(what: &str, check: impl FnMut() -> Result<T>) -> T {
    eventually_within(Duration::from_secs(40), what, check)
}

/// `vsctl ui`; ends on drop.
struct Served {
    vsctl: Child,
    /// What it printed, with the token.
    address: String,
}

impl Served {
    fn of(daemon: &Daemon) -> Result<Self> {
        let mut command = daemon.node().command(binary("vsctl"));
        command.arg("--socket").arg(daemon.socket()).arg("ui");
        let mut vsctl = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        let stdout = vsctl.stdout.take().context("no output")?;
        let mut address = String::new();
        let mut served = Self {
            vsctl,
            address: String::new(),
        };
        BufReader::new(stdout).read_line(&mut address)?;
        served.address = address.trim().to_owned();
        ensure!(served.address.starts_with("http://127.0.0.1:"), "{address}");
        Ok(served)
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.vsctl.kill();
        let _ = self.vsctl.wait();
    }
}

/// The arrow of this verdict from the client to the server.
fn arrow(verdict: &str) -> String {
    format!("#graph .edge.{verdict}[aria-label^='default/client to default/server']")
}

/// Chooses an arrow by the keyboard.
fn choose(browser: &Browser<'_>, verdict: &str) -> Result<()> {
    let focus = format!("document.querySelector(\"{}\").focus()", arrow(verdict));
    soon("an arrow is shown", || browser.script(&focus));
    browser.press(ENTER)
}

fn shows(browser: &Browser<'_>, selector: &str, expected: &[&str]) {
    soon(selector, || {
        let text = browser.text(selector)?;
        let missing: Vec<_> = expected
            .iter()
            .filter(|part| !text.contains(**part))
            .collect();
        ensure!(missing.is_empty(), "{missing:?} missing in {text}");
        Ok(())
    });
}

/// With `VSWITCH_SCREENSHOT` the picture of the page goes into that file, in base64.
fn keep_picture(browser: &Browser<'_>) -> Result<()> {
    if let Some(path) = std::env::var_os("VSWITCH_SCREENSHOT") {
        std::fs::write(path, browser.screenshot()?)?;
    }
    Ok(())
}

#[test]
fn the_story_is_seen_on_the_page_with_its_reason_and_its_cure() {
    let daemon = Daemon::start(&DaemonOptions::default()).unwrap();
    let client = Pod::named("client").attach(&daemon).unwrap();
    let server = Pod::named("server").attach(&daemon).unwrap();
    let label = |pod, label| daemon.vsctl(&["label", "pod", pod, label]).unwrap();
    label("server", "app=secure-pod");
    let _web = serve(&server.netns, "hello", 80).unwrap();
    let page = Served::of(&daemon).unwrap();
    let browser = Browser::start(daemon.node()).unwrap();
    browser.resize(1280, 900).unwrap();
    browser.open(&page.address).unwrap();
    shows(&browser, "#node", &["node-a"]);
    shows(&browser, "#state", &["ready"]);
    // The token does not stay in the address, nor in the history.
    let address = browser.script("return location.href").unwrap();
    assert!(!address.as_str().unwrap().contains("token"), "{address}");

    client.fetch(server.ip(), 80).unwrap();
    soon("the fetch is shown", || browser.click(&arrow("allowed")));
    shows(
        &browser,
        "#detail",
        &["default/client → default/server", "TCP 80", "allowed"],
    );

    // It hangs; the page says so by itself.
    daemon.apply(POLICY).unwrap();
    client.fetch(server.ip(), 80).unwrap_err();
    soon("the denial is shown", || browser.click(&arrow("denied")));
    let said = [
        "TCP 80",
        "denied",
        "default/secure-pod",
        "no rule allows it",
        CURE,
    ];
    shows(&browser, "#detail", &said);
    keep_picture(&browser).unwrap();

    // By the keyboard alone.
    choose(&browser, "allowed").unwrap();
    soon("another is chosen", || {
        let text = browser.text("#detail")?;
        ensure!(!text.contains(CURE), "{text}");
        Ok(())
    });
    browser.fill("#question", "client → server:80").unwrap();
    browser.press(ENTER).unwrap();
    shows(&browser, "#answer", &["denied"]);
    shows(&browser, "#detail", &["default/secure-pod", CURE]);

    label("client", "allow-access=true");
    client.fetch(server.ip(), 80).unwrap();
    browser.click("[value=matrix]").unwrap();
    let cell = "#matrix button[aria-label='default/client to default/server: allowed']";
    soon("the matrix shows it", || browser.click(cell));
    browser.fill("#question", "client -> server:80").unwrap();
    browser.press(ENTER).unwrap();
    shows(&browser, "#answer", &["allowed"]);
    browser.fill("#question", "client server").unwrap();
    browser.press(ENTER).unwrap();
    shows(&browser, "#detail", &["ICMP"]);
    browser.fill("#question", "client").unwrap();
    browser.press(ENTER).unwrap();
    shows(&browser, "#detail", &["client → server:80"]);

    // Half the width is what 200 % of zoom leave: nothing is to be scrolled to aside.
    browser.resize(640, 700).unwrap();
    let wide = "return document.documentElement.scrollWidth - innerWidth";
    soon("it fits", || {
        let beyond = browser.script(wide)?;
        ensure!(beyond.as_i64() <= Some(0), "{beyond} pixels too wide");
        Ok(())
    });
    assert_eq!(browser.errors().unwrap(), [] as [String; 0]);
}

#[test]
fn what_policies_in_audit_would_deny_is_amber_and_both_colour_schemes_are_there() {
    let daemon = Daemon::start(&DaemonOptions::default()).unwrap();
    let client = Pod::named("client").attach(&daemon).unwrap();
    let server = Pod::named("server").attach(&daemon).unwrap();
    daemon
        .vsctl(&["label", "pod", "server", "app=secure-pod"])
        .unwrap();
    let mut policy: Value = serde_saphyr::from_str(POLICY).unwrap();
    policy["metadata"]["annotations"] = serde_json::json!({"policy.vswitch.io/mode": "audit"});
    daemon.apply(&policy.to_string()).unwrap();
    let _web = serve(&server.netns, "hello", 80).unwrap();
    let page = Served::of(&daemon).unwrap();
    let browser = Browser::start(daemon.node()).unwrap();
    browser.open(&page.address).unwrap();
    client.fetch(server.ip(), 80).unwrap();
    choose(&browser, "would_deny").unwrap();
    shows(
        &browser,
        "#detail",
        &["would be denied", "default/secure-pod"],
    );
    // It was allowed all the same.
    choose(&browser, "allowed").unwrap();
    shows(&browser, "#detail", &["allowed", "connection"]);
    let schemes = "return [...document.styleSheets[0].cssRules] \
        .filter((rule) => rule.conditionText === '(prefers-color-scheme: dark)').length";
    assert_eq!(browser.script(schemes).unwrap(), 1);
}

#[test]
fn the_page_over_tcp_shows_nothing_without_the_token() {
    let mut daemon = Daemon::prepare(&DaemonOptions::default()).unwrap();
    let file = daemon.folder().join("token");
    std::fs::write(&file, "0123456789abcdef\n").unwrap();
    daemon.set("api.token_file", &file.display().to_string());
    daemon.spawn().unwrap();
    let browser = Browser::start(daemon.node()).unwrap();
    browser.open("http://127.0.0.1:7441/ui").unwrap();
    let login = |token| {
        soon("a token is asked for", || browser.fill("#token", token));
        browser.press(ENTER).unwrap();
    };
    login("0123456789abcdeX");
    soon("another is asked for", || {
        let hidden = browser.script("return document.getElementById('login').hidden")?;
        ensure!(hidden == false, "no token is asked for");
        Ok(())
    });
    assert_eq!(browser.text("#node").unwrap(), "");
    login("0123456789abcdef");
    shows(&browser, "#node", &["node-a"]);
}

#[test]
fn the_port_of_vsctl_serves_nobody_else() {
    let daemon = Daemon::start(&DaemonOptions::default()).unwrap();
    let page = Served::of(&daemon).unwrap();
    let (address, token) = page.address.split_once("/ui/#token=").unwrap();
    let status = |arguments: &[&str]| {
        let curl = [
            "curl",
            "-sS",
            "--noproxy",
            "*",
            "-o",
            "/dev/null",
            "-w",
            "%{http_code}",
        ];
        let answer = run_in(daemon.node(), &[&curl[..], arguments].concat());
        answer.unwrap().success().unwrap()
    };
    let bearer = format!("Authorization: Bearer {token}");
    let (read, wrong) = (format!("{address}/v1/status"), format!("{bearer}0"));
    assert_eq!(status(&["-H", &bearer, &read]), "200");
    assert_eq!(status(&[&read]), "401");
    assert_eq!(status(&["-H", &wrong, &read]), "401");
    assert_eq!(
        status(&["-H", &bearer, "-H", "Host: evil.example", &read]),
        "421"
    );
    let flows = format!("{address}/v1/flows");
    assert_eq!(status(&["-H", &bearer, "-d", "{}", &flows]), "403");
    let file = format!("{address}/ui/page.js");
    assert_eq!(status(&[&file]), "200");
}
