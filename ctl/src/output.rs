//! Printing: tables for people, JSON and YAML for programs.

use std::io::Write as _;

use anyhow::{Context as _, Result};
use clap::ValueEnum;
use comfy_table::{Cell, ContentArrangement, Table, presets};
use serde::Serialize;

/// How to print.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Columns for people.
    Table,
    /// More columns.
    Wide,
    /// JSON, indented.
    Json,
    /// JSON, each item of a list in a line of its own.
    Jsonl,
    /// YAML.
    Yaml,
}

/// Writes text to standard output; a closed pipe (`| head`) is no failure.
pub(crate) fn write_out(text: &str) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    match stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
    {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        other => other.context("write to standard output"),
    }
}

/// Prints a value as JSON or YAML, or calls `table` for people.
pub(crate) fn print<T: Serialize>(
    format: Format,
    value: &T,
    table: impl FnOnce() -> String,
) -> Result<()> {
    match format {
        Format::Json => write_out(&(serde_json::to_string_pretty(value)? + "\n")),
        Format::Jsonl => write_out(&jsonl(value)?),
        Format::Yaml => write_out(&yaml(value)?),
        Format::Table | Format::Wide => write_out(&table()),
    }
}

fn jsonl<T: Serialize>(value: &T) -> Result<String> {
    let lines = match serde_json::to_value(value)? {
        serde_json::Value::Array(items) => items,
        other => vec![other],
    };
    Ok(lines.iter().map(|line| format!("{line}\n")).collect())
}

/// Returns a value as YAML.
pub(crate) fn yaml<T: Serialize>(value: &T) -> Result<String> {
    let mut text = serde_saphyr::to_string(value).context("write YAML")?;
    if !text.ends_with('\n') {
        text.push('\n');
    }
    Ok(text)
}

/// Returns a borderless table, as kubectl prints them.
pub(crate) fn columns<R, C>(header: &[&str], rows: R) -> String
where
    R: IntoIterator<Item = C>,
    C: IntoIterator<Item = String>,
{
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(header.iter().copied().map(Cell::new));
    for row in rows {
        table.add_row(row.into_iter().map(Cell::new));
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    let mut text = String::new();
    for line in table.lines() {
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// Returns a number of bytes with a binary unit.
#[expect(clippy::cast_precision_loss, reason = "a rounded figure for people")]
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = count as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 {
        format!("{count} B")
    } else {
        format!("{value:.1} {}", UNITS[unit])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_have_no_trailing_blanks() {
        let text = columns(&["A", "LONG"], [["xx".to_owned(), "y".to_owned()]]);
        assert_eq!(text, "A   LONG\nxx  y\n");
    }

    #[test]
    fn a_list_is_a_line_an_item() {
        assert_eq!(jsonl(&[1, 2]).unwrap(), "1\n2\n");
        assert_eq!(jsonl(&Some(1)).unwrap(), "1\n");
    }

    #[test]
    fn byte_counts_keep_one_decimal() {
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1536), "1.5 KiB");
    }
}
