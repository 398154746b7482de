//! Holds the direction of the layers: an upper layer may use a lower one, never the reverse,
//! an outside crate that has a home is used nowhere else, modules side by side make no circles,
//! and what the documentation names is there.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod circles;
mod reading;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Layer of each module of `vswitchd`, times ten; leaf helpers are 0 and usable from anywhere.
const LAYERS: &[(&str, u8)] = &[
    ("clock", 0),
    ("errors", 0),
    ("heap", 0),
    ("telemetry", 0),
    ("supervise", 0),
    ("config", 1),
    ("metrics", 0),
    ("netns", 20),
    ("port", 21),
    ("kernel_path", 22),
    ("store", 20),
    ("state", 30),
    ("ipam", 30),
    // Says in the status of policies what of them the compiler understands.
    ("objects", 32),
    ("rules", 30),
    ("policy", 31),
    ("service", 32),
    ("worker", 40),
    ("host", 40),
    ("reconcile", 40),
    // Ties its siblings of L4 together.
    ("switch", 45),
    // Life cycles of what hangs on it.
    ("attach", 46),
    // The reconciler, compiler and datapath without devices.
    ("simulate", 45),
    ("audit", 45),
    // What was denied: feeds `audit` as well.
    ("flow_records", 46),
    // Packets of a port with what was decided on them.
    ("capture", 46),
    // Packets of a description with the tables that they met.
    ("live_trace", 46),
    // Packets on behalf of pods.
    ("probe", 46),
    ("cni", 50),
    ("kube", 50),
    // Writes to API servers, or keeps what the REST API serves.
    ("events", 51),
    ("rest", 52),
    ("app", 60),
    ("main", 61),
];

/// Outside crates that only one module may name, or those that are listed.
const HOMES: &[(&str, &str)] = &[
    ("sled", "store"),
    ("aya", "kernel_path"),
    ("axum", "rest"),
    // Its server; its client sends flow records to a collector.
    ("hyper", "rest"),
    ("hyper", "flow_records"),
    ("hyper_util", "rest"),
    ("hyper_util", "flow_records"),
    ("tokio_rustls", "rest"),
    ("tokio_rustls", "flow_records"),
    ("hyper_rustls", "flow_records"),
    ("opentelemetry_proto", "flow_records"),
    ("prost", "flow_records"),
    ("netflow_parser", "flow_records"),
    ("rtnetlink", "host"),
    ("netlink_packet_route", "host"),
    ("tun_tap", "port"),
    ("json_patch", "objects"),
    ("prometheus_client", "metrics"),
    ("sd_notify", "app"),
    ("toml", "config"),
    ("use kube", "kube"),
];

fn source_root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../vswitchd/src")
}

pub(crate) fn rust_files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// Name of the top module that a file belongs to.
fn module_of(root: &Path, file: &Path) -> String {
    let first = file
        .strip_prefix(root)
        .unwrap()
        .components()
        .next()
        .unwrap();
    first
        .as_os_str()
        .to_string_lossy()
        .trim_end_matches(".rs")
        .to_owned()
}

/// Product code of a file: comments and the test module cut off.
fn product_code(file: &Path) -> String {
    let text = fs::read_to_string(file).unwrap();
    if file.file_name().is_some_and(|name| name == "tests.rs") {
        return String::new();
    }
    let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
    code.lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .collect::<Vec<_>>()
        .join("\n")
}

/// Top modules named by `crate::NAME` or, in `main.rs`, `vswitchd::NAME`.
fn used_modules(code: &str) -> Vec<String> {
    let mut used = Vec::new();
    for prefix in ["crate::", "use vswitchd::"] {
        for (position, _) in code.match_indices(prefix) {
            let rest = &code[position + prefix.len()..];
            if let Some(group) = rest.strip_prefix('{') {
                let group = group.split('}').next().unwrap();
                used.extend(group.split(',').map(|item| first_word(item.trim())));
            } else {
                used.push(first_word(rest));
            }
        }
    }
    used
}

fn first_word(text: &str) -> String {
    text.chars()
        .take_while(|c| c.is_ascii_alphanumeric() || *c == '_')
        .collect()
}

#[test]
fn every_use_points_down() {
    let layers: BTreeMap<&str, u8> = LAYERS.iter().copied().collect();
    let root = source_root();
    let mut files = Vec::new();
    rust_files(&root, &mut files);
    let mut wrong = Vec::new();
    for file in files {
        let user = module_of(&root, &file);
        if user == "lib" {
            continue;
        }
        let user_layer = *layers.get(user.as_str()).unwrap_or_else(|| {
            panic!("module {user} has no layer: add it to LAYERS and to docs/architecture.md")
        });
        for used in used_modules(&product_code(&file)) {
            let Some(&used_layer) = layers.get(used.as_str()) else {
                continue;
            };
            let allowed = used == user || used_layer < user_layer;
            if !allowed {
                wrong.push(format!(
                    "{}: {user} (layer {user_layer}) uses {used} (layer {used_layer})",
                    file.display()
                ));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "uses against the layers:\n{}",
        wrong.join("\n")
    );
}

#[test]
fn an_outside_crate_with_a_home_is_used_nowhere_else() {
    let root = source_root();
    let mut files = Vec::new();
    rust_files(&root, &mut files);
    let mut wrong = Vec::new();
    for file in files {
        let module = module_of(&root, &file);
        let code = product_code(&file);
        for (name, home) in HOMES {
            let is_at_home = HOMES.contains(&(*name, module.as_str()));
            if !is_at_home && code.contains(&format!("{name}::")) {
                wrong.push(format!("{}: {name} belongs to {home}", file.display()));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "outside crates away from home:\n{}",
        wrong.join("\n")
    );
}

#[test]
fn unsafe_code_stays_in_its_files() {
    let root = source_root();
    let mut files = Vec::new();
    rust_files(&root, &mut files);
    for file in files {
        let name = file
            .strip_prefix(&root)
            .unwrap()
            .to_string_lossy()
            .into_owned();
        let code = product_code(&file);
        let has_unsafe = code.contains("unsafe {") || code.contains("unsafe fn");
        assert!(
            !has_unsafe
                || [
                    "port/sys.rs",
                    "netns.rs",
                    "heap.rs",
                    "kernel_path/memory.rs",
                    "kernel_path/tcx.rs",
                    "supervise/priority.rs",
                ]
                .contains(&name.as_str()),
            "unsafe code in {name}"
        );
    }
}

#[test]
fn the_text_of_an_error_with_its_causes_is_made_in_one_place() {
    let root = source_root();
    let mut files = Vec::new();
    rust_files(&root, &mut files);
    for file in files {
        let module = module_of(&root, &file);
        // `main` prints what `anyhow` gives it.
        let is_test = file.components().any(|part| part.as_os_str() == "tests");
        if module == "errors" || module == "main" || is_test {
            continue;
        }
        let code = product_code(&file);
        for other in [".source()", ":#}"] {
            let lines = code.lines().filter(|line| line.contains(other));
            let wrong: Vec<&str> = lines.filter(|line| !line.contains("{conf:#}")).collect();
            assert!(
                wrong.is_empty(),
                "{}: use crate::errors: {wrong:?}",
                file.display()
            );
        }
    }
}

#[test]
fn a_use_against_the_layers_would_be_found() {
    assert_eq!(
        used_modules("use crate::{rest::kube_api, state};\nlet x = crate::cni::call();"),
        ["rest", "state", "cni"]
    );
}
