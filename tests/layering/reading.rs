//! What the pages for readers name is there: each `file.rs:function`, and each test.

use std::path::Path;

/// Pages, with the heading below which every function named has to be a test.
const PAGES: &[(&str, Option<&str>)] = &[
    ("docs/reading.md", None),
    ("docs/architecture.md", Some("## Invariants")),
];

/// Returns each `` `file:function` `` of a text.
fn named(text: &str) -> Vec<(&str, &str)> {
    let quoted = text.split('`').skip(1).step_by(2);
    let pairs = quoted.filter_map(|quoted| quoted.split_once(':'));
    pairs
        .filter(|(file, _)| file.ends_with(".rs") || file.ends_with(".c"))
        .collect()
}

/// Returns the lines before the one that defines a function, latest first; `None`: it does not.
fn before_definition<'a>(source: &'a str, function: &str) -> Option<Vec<&'a str>> {
    let lines: Vec<&str> = source.lines().collect();
    let is_definition = |line: &&str| {
        let name = match line.split_once("fn ") {
            Some((_, rest)) => rest,
            // C: the type stands before the name.
            None if line.starts_with("int ") => &line[4..],
            None => return false,
        };
        name.strip_prefix(function)
            .is_some_and(|rest| rest.starts_with(['(', '<']))
    };
    let at = lines.iter().position(is_definition)?;
    Some(lines[..at].iter().rev().copied().collect())
}

fn is_test(before: &[&str]) -> bool {
    let mut attributes = before
        .iter()
        .map(|line| line.trim())
        .take_while(|line| line.starts_with("#[") || line.starts_with("//"));
    attributes.any(|line| line == "#[test]" || line.starts_with("#[tokio::test"))
}

/// Returns what is wrong with what a page names.
fn wrong(page: &str, tests_only: bool, read: impl Fn(&str) -> Option<String>) -> Vec<String> {
    let mut wrong = Vec::new();
    for (file, function) in named(page) {
        let Some(source) = read(file) else {
            wrong.push(format!("{file} does not exist"));
            continue;
        };
        match before_definition(&source, function) {
            None => wrong.push(format!("{file} has no function {function}")),
            Some(before) if tests_only && !is_test(&before) => {
                wrong.push(format!("{function} of {file} is no test"));
            }
            Some(_) => {}
        }
    }
    wrong
}

#[test]
fn functions_and_tests_that_pages_for_readers_name_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let read = |file: &str| std::fs::read_to_string(root.join(file)).ok();
    let mut found = Vec::new();
    for (page, tests_below) in PAGES {
        let text = read(page).unwrap();
        let (any, tests) = match tests_below {
            Some(heading) => {
                let start = text.find(heading).unwrap();
                let end = text[start + 1..].find("\n## ").map(|end| start + 1 + end);
                let (before, rest) = text.split_at(start);
                let tests = &rest[..end.unwrap_or(text.len()) - start];
                assert!(named(tests).len() >= 10, "{page} names too few tests");
                (before, tests)
            }
            None => {
                assert!(named(&text).len() >= 30, "{page} names too few functions");
                (&*text, "")
            }
        };
        let of_page = [wrong(any, false, read), wrong(tests, true, read)].concat();
        found.extend(of_page.into_iter().map(|what| format!("{page}: {what}")));
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn a_name_that_is_not_there_would_be_found() {
    let source =
        "#[test]\n/// Why.\nfn proves<T>() {}\n\npub fn works(x: u8) {}\nint from_pod(x)\n";
    let read = |file: &str| (file == "a.rs" || file == "b.c").then(|| source.to_owned());
    let none: [&str; 0] = [];
    assert_eq!(
        wrong("`a.rs:works` `b.c:from_pod` `a.rs` `x:y`", false, read),
        none
    );
    assert_eq!(
        wrong("`a.rs:work`", false, read),
        ["a.rs has no function work"]
    );
    assert_eq!(wrong("`c.rs:works`", false, read), ["c.rs does not exist"]);
    assert_eq!(wrong("`a.rs:proves`", true, read), none);
    assert_eq!(
        wrong("`a.rs:works`", true, read),
        ["works of a.rs is no test"]
    );
}
