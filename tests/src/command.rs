//! Running programs: bounded in time, with their output in the error.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

/// What a program printed and how it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// Exit code; `None` if a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Output {
    /// Returns standard output if the exit code is 0.
    ///
    /// # Errors
    /// Names code and both outputs otherwise.
    pub fn success(self) -> Result<String> {
        if self.code == Some(0) {
            return Ok(self.stdout);
        }
        bail!(
            "exit {:?}\nstdout: {}\nstderr: {}",
            self.code,
            self.stdout,
            self.stderr
        )
    }
}

/// Runs a command with `input` on standard input, and waits for it.
///
/// # Errors
/// Fails if the program cannot be started.
pub fn run(command: &mut Command, input: &str) -> Result<Output> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("start {command:?}"))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A program that does not read its input closes the pipe: its exit code tells.
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child.wait_with_output()?;
    Ok(Output {
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

/// Returns the path of one of the project's programs, built by `make build`.
///
/// # Panics
/// Panics if it has not been built.
#[must_use]
pub fn binary(name: &str) -> PathBuf {
    let variable = if name == "vswitch-cni" {
        "VSWITCH_SHIM"
    } else {
        "VSWITCH_BIN"
    };
    let path = match std::env::var_os(variable) {
        Some(path) if name == "vswitch-cni" => PathBuf::from(path),
        Some(folder) => PathBuf::from(folder).join(name),
        None => target_folder().join(name),
    };
    assert!(
        path.exists(),
        "{} is missing: run `make build` first",
        path.display()
    );
    path
}

/// Returns the path of a tool that `tests/setup.sh` installed under `target/tools`.
///
/// # Panics
/// Panics if it has not been installed.
#[must_use]
pub fn tool(name: &str) -> PathBuf {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let path = root.join("../target/tools").join(name);
    assert!(
        path.exists(),
        "{} is missing: run `make setup` first",
        path.display()
    );
    path
}

/// `target/debug` or `target/release`, wherever this test binary itself stands.
fn target_folder() -> PathBuf {
    let mut path = std::env::current_exe().expect("a running program has a path");
    while path
        .file_name()
        .is_some_and(|name| name != "debug" && name != "release")
    {
        path.pop();
    }
    path
}
