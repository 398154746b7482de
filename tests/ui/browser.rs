//! A real browser in a network namespace, driven by WebDriver (W3C) through chromedriver.

use std::process::{Child, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};
use tempfile::TempDir;
use vswitch_tests::{Namespace, eventually_within, run};

/// What an element is called in answers (WebDriver, section 12).
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";
pub(crate) const ENTER: &str = "\u{e007}";

/// A page in a browser; both end on drop.
pub(crate) struct Browser<'a> {
    at: &'a Namespace,
    driver: Child,
    session: String,
    _profile: TempDir,
}

impl<'a> Browser<'a> {
    /// Starts a browser that talks to nobody but the pages that it is sent to.
    pub(crate) fn start(at: &'a Namespace) -> Result<Self> {
        let prefix = format!("vswitch-test-{}-", std::process::id());
        let profile = tempfile::Builder::new().prefix(&prefix).tempdir()?;
        let driver = at
            .command("chromedriver")
            .args(["--port=9515", "--log-level=OFF"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("start chromedriver")?;
        let mut browser = Self {
            at,
            driver,
            session: String::new(),
            _profile: profile,
        };
        eventually_within(Duration::from_secs(60), "chromedriver is ready", || {
            let status = browser.request("GET", "/status", None)?;
            anyhow::ensure!(status["ready"] == true, "{status}");
            Ok(())
        });
        let folder = browser._profile.path().display();
        let user_data = format!("--user-data-dir={folder}");
        let arguments = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            &user_data,
        ];
        let wanted = json!({"capabilities": {"alwaysMatch": {
            "browserName": "chrome",
            "goog:loggingPrefs": {"browser": "ALL"},
            "goog:chromeOptions": {"args": arguments},
        }}});
        let session = browser.request("POST", "/session", Some(&wanted))?;
        let id = session["sessionId"].as_str().context("no session")?;
        browser.session = format!("/session/{id}");
        Ok(browser)
    }

    /// One command of the protocol; what it answers.
    fn request(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Value> {
        let url = format!("http://127.0.0.1:9515{path}");
        let mut curl = self.at.command("curl");
        curl.args(["-sS", "--noproxy", "*", "--max-time", "60", "-X", method]);
        curl.args(["-H", "Content-Type: application/json", &url]);
        let input = body.map(Value::to_string).unwrap_or_default();
        if body.is_some() {
            curl.args(["--data-binary", "@-"]);
        }
        let answer = run(&mut curl, &input)?.success()?;
        let mut answer: Value = serde_json::from_str(&answer).context("answer of chromedriver")?;
        let value = answer["value"].take();
        if let Some(error) = value["error"].as_str() {
            bail!("{method} {path}: {error}: {}", value["message"]);
        }
        Ok(value)
    }

    fn command(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Value> {
        self.request(method, &format!("{}{path}", self.session), body)
    }

    pub(crate) fn open(&self, url: &str) -> Result<()> {
        self.command("POST", "/url", Some(&json!({ "url": url })))?;
        Ok(())
    }

    /// Runs a function body in the page.
    pub(crate) fn script(&self, script: &str) -> Result<Value> {
        let body = json!({"script": script, "args": []});
        self.command("POST", "/execute/sync", Some(&body))
    }

    fn element(&self, selector: &str) -> Result<String> {
        let body = json!({"using": "css selector", "value": selector});
        let found = self.command("POST", "/element", Some(&body))?;
        let id = found[ELEMENT].as_str().context("no element")?;
        Ok(format!("/element/{id}"))
    }

    /// Returns the text of an element as it is rendered.
    pub(crate) fn text(&self, selector: &str) -> Result<String> {
        let path = format!("{}/text", self.element(selector)?);
        let text = self.command("GET", &path, None)?;
        Ok(text.as_str().context("no text")?.to_owned())
    }

    pub(crate) fn click(&self, selector: &str) -> Result<()> {
        let path = format!("{}/click", self.element(selector)?);
        self.command("POST", &path, Some(&json!({})))?;
        Ok(())
    }

    /// Types where the focus of the keyboard is.
    pub(crate) fn press(&self, keys: &str) -> Result<()> {
        let active = self.command("GET", "/element/active", None)?;
        let id = active[ELEMENT].as_str().context("nothing has the focus")?;
        let path = format!("/element/{id}/value");
        self.command("POST", &path, Some(&json!({ "text": keys })))?;
        Ok(())
    }

    /// Replaces what is in a field.
    pub(crate) fn fill(&self, selector: &str, text: &str) -> Result<()> {
        let element = self.element(selector)?;
        self.command("POST", &format!("{element}/clear"), Some(&json!({})))?;
        let body = json!({ "text": text });
        self.command("POST", &format!("{element}/value"), Some(&body))?;
        Ok(())
    }

    /// Gives the window so many pixels of CSS.
    pub(crate) fn resize(&self, width: u32, height: u32) -> Result<()> {
        let body = json!({"width": width, "height": height});
        self.command("POST", "/window/rect", Some(&body))?;
        Ok(())
    }

    /// Returns the window as a picture: PNG, base64.
    pub(crate) fn screenshot(&self) -> Result<String> {
        let picture = self.command("GET", "/screenshot", None)?;
        Ok(picture.as_str().context("no picture")?.to_owned())
    }

    /// Returns errors of scripts, refusals of the security policy and failed requests until now.
    pub(crate) fn errors(&self) -> Result<Vec<String>> {
        let body = json!({"type": "browser"});
        let log = self.command("POST", "/se/log", Some(&body))?;
        let entries = log.as_array().context("no log")?.iter();
        let severe = entries.filter(|entry| entry["level"] == "SEVERE");
        Ok(severe.map(|entry| entry["message"].to_string()).collect())
    }
}

impl Drop for Browser<'_> {
    fn drop(&mut self) {
        if !self.session.is_empty() {
            let _ended = self.command("DELETE", "", None);
        }
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}
