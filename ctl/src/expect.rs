//! Compares answers with expected ones.

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::files::{numbered_lines, read_text};
use crate::output::write_out;

/// Prints every difference; the exit code is 1 if there is one.
pub(crate) fn compare(file: &Path, found: &[Value]) -> Result<ExitCode> {
    let text = read_text(file)?;
    let mut expected = Vec::new();
    for (number, line) in numbered_lines(&text) {
        let value: Value =
            serde_json::from_str(line).with_context(|| format!("{}:{number}", file.display()))?;
        expected.push((number, value));
    }
    let differences = differences(&expected, found);
    for difference in &differences {
        write_out(&format!("{difference}\n"))?;
    }
    if differences.is_empty() {
        write_out(&format!("{} as expected\n", found.len()))?;
        return Ok(ExitCode::SUCCESS);
    }
    let wrong = differences.len();
    eprintln!(
        "vsctl: {wrong} of {} differ from {}",
        found.len(),
        file.display()
    );
    Ok(ExitCode::FAILURE)
}

fn differences(expected: &[(usize, Value)], found: &[Value]) -> Vec<String> {
    let mut differences = Vec::new();
    for ((number, wanted), found) in expected.iter().zip(found) {
        differ(&format!("line {number}"), wanted, found, &mut differences);
    }
    if expected.len() != found.len() {
        differences.push(format!(
            "{} expected, {} found",
            expected.len(),
            found.len()
        ));
    }
    differences
}

/// Of an object only the fields that are expected count; of an array all items.
fn differ(place: &str, wanted: &Value, found: &Value, into: &mut Vec<String>) {
    match (wanted, found) {
        (Value::Object(wanted), Value::Object(fields)) => {
            let named = |name: &str| match fields.get("reason").and_then(Value::as_str) {
                Some(reason) if name != "reason" => format!(" ({reason})"),
                _ => String::new(),
            };
            for (name, wanted) in wanted {
                let value = fields.get(name).unwrap_or(&Value::Null);
                if value != wanted {
                    let reason = named(name);
                    let what = connection(found);
                    into.push(format!(
                        "{place}{what}: {name}: expected {wanted}, found {value}{reason}"
                    ));
                }
            }
        }
        (Value::Array(wanted), Value::Array(found)) if wanted.len() == found.len() => {
            for (index, (wanted, found)) in wanted.iter().zip(found).enumerate() {
                differ(&format!("{place}[{index}]"), wanted, found, into);
            }
        }
        _ if wanted == found => {}
        _ => into.push(format!("{place}: expected {wanted}, found {found}")),
    }
}

/// Names the connection, where the answer says which it is.
fn connection(found: &Value) -> String {
    let end = |end: &Value| match (&end["namespace"], &end["name"], &end["ip"]) {
        (Value::String(namespace), Value::String(name), _) => Some(format!("{namespace}/{name}")),
        (_, _, Value::String(ip)) => Some(ip.clone()),
        _ => None,
    };
    match (end(&found["from"]), end(&found["to"])) {
        (Some(from), Some(to)) => format!(" {from} -> {to}:{}", found["port"]),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_what_is_expected_is_compared_and_differences_say_why() {
        let found = [
            json!({ "allowed": true, "reason": "allowed by x/p" }),
            json!([{ "allowed": false, "reason": "ingress denied" }]),
        ];
        let same = [
            (1, json!({ "allowed": true })),
            (3, json!([{ "allowed": false }])),
        ];
        assert!(differences(&same, &found).is_empty());
        let other = [
            (1, json!({ "allowed": false })),
            (3, json!([{ "allowed": true }])),
        ];
        assert_eq!(
            differences(&other, &found),
            [
                "line 1: allowed: expected false, found true (allowed by x/p)",
                "line 3[0]: allowed: expected true, found false (ingress denied)"
            ]
        );
    }

    #[test]
    fn missing_and_surplus_lines_are_differences() {
        let line = json!({ "allowed": true });
        assert_eq!(
            differences(&[(1, line.clone())], &[line.clone(), line.clone()]),
            ["1 expected, 2 found"]
        );
        let shorter = differences(&[(1, json!([true, true]))], &[json!([true])]);
        assert_eq!(shorter, ["line 1: expected [true,true], found [true]"]);
        assert_eq!(
            differences(&[(1, line)], &[json!({ "ingress": true })]),
            ["line 1: allowed: expected true, found null"]
        );
    }
}
