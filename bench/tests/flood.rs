//! `make flood` in small.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::process::Command;

/// Far below what an idle machine shows and far above what a switch without shares leaves others
/// (a twentieth): the machine may be busy with other tests.
const BAR: &str = "0.6";

#[test]
fn a_flood_leaves_others_what_a_pod_that_keeps_its_core_busy_does() {
    let output = Command::new(env!("CARGO_BIN_EXE_vswitch-flood"))
        .args(["--rounds", "5", "--window-ms", "300", "--at-least", BAR])
        .args(["--workers", "1,2", "--tables", "262144"])
        .args(["--floods", "udp", "--figures", "questions,connections"])
        .output()
        .unwrap();
    let (table, errors) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(output.status.success(), "{table}\n{errors}");
}
