//! Files that people hand in; `-` is standard input.

use std::io::Read as _;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

/// Reads a text.
pub(crate) fn read_text(file: &Path) -> Result<String> {
    if file != Path::new("-") {
        return std::fs::read_to_string(file).with_context(|| format!("read {}", file.display()));
    }
    let mut text = String::new();
    std::io::stdin()
        .read_to_string(&mut text)
        .context("read standard input")?;
    Ok(text)
}

/// Returns the lines that hold something, with their numbers.
pub(crate) fn numbered_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let lines = text
        .lines()
        .enumerate()
        .map(|(index, line)| (index + 1, line));
    lines.filter(|(_, line)| !line.trim().is_empty())
}

/// Reads manifests in YAML or JSON, those of a List one by one.
pub(crate) fn read_manifests(file: &Path) -> Result<Vec<Value>> {
    let text = read_text(file)?;
    let documents: Vec<Value> = serde_saphyr::from_multiple(&text)
        .with_context(|| format!("parse manifest {}", file.display()))?;
    let mut objects = Vec::new();
    for document in documents {
        match document["items"].as_array() {
            Some(items)
                if document["kind"]
                    .as_str()
                    .is_some_and(|k| k.ends_with("List")) =>
            {
                objects.extend(items.iter().cloned());
            }
            _ if document.is_null() => {}
            _ => objects.push(document),
        }
    }
    if objects.is_empty() {
        bail!("{} holds no object", file.display());
    }
    Ok(objects)
}
