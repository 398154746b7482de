//! `vsctl trace --live` in the background.

use std::fs::File;
use std::path::PathBuf;
use std::process::Child;

use anyhow::{Result, ensure};
use serde_json::Value;

use crate::{Daemon, binary, eventually};

/// A live trace, as long as this is there.
#[derive(Debug)]
pub struct LiveTrace {
    vsctl: Child,
    out: PathBuf,
    err: PathBuf,
}

impl LiveTrace {
    /// Begins; when this returns packets are traced by all daemons that are asked.
    ///
    /// # Panics
    /// Panics if it does not begin.
    #[must_use]
    pub fn begin(daemon: &Daemon, arguments: &[&str]) -> Self {
        let file = |name: &str| daemon.folder().join(format!("live-trace.{name}"));
        let (out, err) = (file("out"), file("err"));
        let create = |path: &PathBuf| File::create(path).expect("create a file of the trace");
        let mut vsctl = daemon.node().command(binary("vsctl"));
        vsctl.arg("--socket").arg(daemon.socket());
        vsctl
            .args(["trace", "--live", "-o", "jsonl"])
            .args(arguments);
        vsctl.stdout(create(&out)).stderr(create(&err));
        let vsctl = vsctl.spawn().expect("start vsctl");
        let trace = Self { vsctl, out, err };
        eventually("the trace begins", || {
            let said = trace.said()?;
            ensure!(said.contains("tracing on"), "{said}");
            Ok(())
        });
        trace
    }

    /// Returns what it said besides packets.
    ///
    /// # Errors
    /// Fails if its file cannot be read.
    pub fn said(&self) -> Result<String> {
        Ok(std::fs::read_to_string(&self.err)?)
    }

    /// Returns the packets that were told of so far.
    ///
    /// # Errors
    /// Fails if its file cannot be read.
    pub fn packets(&self) -> Result<Vec<Value>> {
        let text = std::fs::read_to_string(&self.out)?;
        let whole = text.lines().take(text.matches('\n').count());
        whole.map(|line| Ok(serde_json::from_str(line)?)).collect()
    }

    /// Waits until it ends by itself; returns the packets.
    ///
    /// # Panics
    /// Panics if it does not end well.
    #[must_use]
    pub fn finish(mut self) -> Vec<Value> {
        eventually("the trace ends", || {
            let ended = self.vsctl.try_wait()?;
            ensure!(ended.is_some(), "{}", self.said()?);
            Ok(())
        });
        let code = self.vsctl.wait().expect("it has ended").code();
        assert_eq!(code, Some(0), "{:?}", self.said());
        self.packets().expect("its file is there")
    }
}

impl Drop for LiveTrace {
    fn drop(&mut self) {
        let _gone = self.vsctl.kill();
        let _gone = self.vsctl.wait();
    }
}
