//! Reachability as a grid: senders down, receivers with their ports across.

use std::collections::BTreeMap;
use std::io::IsTerminal as _;

use crate::output::columns;
use crate::verdict::Verdict;

const ALLOWED: &str = "yes";
const DENIED: &str = "no";
/// A pod to itself is not judged; two pods without a common address family have no way.
const NONE: &str = ".";

/// Draws verdicts; colours only for a terminal.
pub(crate) fn of_verdicts(verdicts: &[Verdict]) -> String {
    let is_coloured = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let text = draw(verdicts);
    if is_coloured { coloured(&text) } else { text }
}

fn draw(verdicts: &[Verdict]) -> String {
    let mut receivers: Vec<String> = Vec::new();
    let mut rows: BTreeMap<String, BTreeMap<String, bool>> = BTreeMap::new();
    for verdict in verdicts {
        let to = receiver(verdict);
        if !receivers.contains(&to) {
            receivers.push(to.clone());
        }
        let row = rows.entry(verdict.probe.from.to_string()).or_default();
        row.insert(to, verdict.answer.allowed);
    }
    let header = std::iter::once("FROM").chain(receivers.iter().map(String::as_str));
    let header: Vec<&str> = header.collect();
    let lines = rows.iter().map(|(from, row)| {
        let cells = receivers.iter().map(|to| match row.get(to) {
            Some(true) => ALLOWED,
            Some(false) => DENIED,
            None => NONE,
        });
        let cells = cells.map(str::to_owned);
        std::iter::once(from.clone())
            .chain(cells)
            .collect::<Vec<_>>()
    });
    let allowed = verdicts.iter().filter(|v| v.answer.allowed).count();
    format!(
        "{}{allowed} of {} allowed\n",
        columns(&header, lines),
        verdicts.len()
    )
}

/// Colours the cells; the first column, the header and the sum stay as they are.
fn coloured(text: &str) -> String {
    let last = text.lines().count().saturating_sub(1);
    let lines = text.lines().enumerate().map(|(number, line)| {
        let Some(end) = line.find(' ').filter(|_| number != 0 && number != last) else {
            return format!("{line}\n");
        };
        let (from, cells) = line.split_at(end);
        let cells = cells
            .replace(ALLOWED, &format!("\x1b[32m{ALLOWED}\x1b[0m"))
            .replace(DENIED, &format!("\x1b[31m{DENIED}\x1b[0m"));
        format!("{from}{cells}\n")
    });
    lines.collect()
}

fn receiver(verdict: &Verdict) -> String {
    let probe = &verdict.probe;
    let port = probe.port.as_ref().map(ToString::to_string);
    format!(
        "{}:{}/{}",
        probe.to,
        port.unwrap_or_default(),
        probe.protocol
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn verdict(from: &str, to: &str, allowed: bool) -> Verdict {
        let end = |name: &str| json!({ "namespace": "x", "name": name });
        let probe = json!({ "from": end(from), "to": end(to), "port": 80 });
        let answer = json!({ "ingress": allowed, "egress": true, "allowed": allowed,
                             "reason": "", "policies": [] });
        Verdict {
            probe: serde_json::from_value(probe).unwrap(),
            answer: serde_json::from_value(answer).unwrap(),
        }
    }

    #[test]
    fn senders_are_rows_and_receivers_with_their_ports_columns() {
        let text = draw(&[verdict("a", "b", true), verdict("b", "a", false)]);
        assert_eq!(
            text,
            "FROM  x/b:80/TCP  x/a:80/TCP\n\
             x/a   yes         .\n\
             x/b   .           no\n\
             1 of 2 allowed\n"
        );
        let lines = coloured(&text);
        assert!(lines.contains("\x1b[32myes\x1b[0m"), "{lines}");
        assert!(lines.ends_with("1 of 2 allowed\n"));
    }
}
