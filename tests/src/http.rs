//! Requests to the APIs of daemons and of other API servers, by curl.

use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::run;

/// Sends a request by a curl that has been told how to get there; `None` for a status of 404.
///
/// # Errors
/// Fails with the answer of any other status that is no success.
pub(crate) fn request(
    curl: &mut Command,
    method: &str,
    url: &str,
    body: Option<&Value>,
) -> Result<Option<Value>> {
    let kind = match method {
        "PATCH" => "Content-Type: application/merge-patch+json",
        _ => "Content-Type: application/json",
    };
    // Longer than a write waits for its rules.
    curl.args(["-sS", "--noproxy", "*", "--max-time", "20"])
        .args(["-w", "\n%{http_code}", "-X", method, "-H", kind, url]);
    if body.is_some() {
        curl.args(["--data-binary", "@-"]);
    }
    let input = body.map(Value::to_string).unwrap_or_default();
    let answer = run(curl, &input)?.success()?;
    let (text, status) = answer.rsplit_once('\n').context("curl tells the status")?;
    if status == "404" {
        return Ok(None);
    }
    ensure!(status.starts_with('2'), "{method} {url}: {status} {text}");
    let value = serde_json::from_str(text).with_context(|| format!("{url}: {text}"))?;
    Ok(Some(value))
}
