//! Plays a cluster of Kubernetes 1.20.2 with every part real: etcd, API server, controller-manager,
//! scheduler, and two machines with containerd and kubelet, whose network vswitch is: first as a
//! process of each machine, then as the DaemonSet of `config/kubernetes/vswitch.yaml`.
//!
//! Everything is in namespaces of its own; `tests/run.sh` removes them when it is interrupted.
//! `tests/kubernetes/setup.sh` gets the programs and images.

#![expect(clippy::print_stdout, reason = "it is there to be read")]

mod control_plane;
mod custom_resources;
mod machine;
mod steps;
mod wait;

use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context as _, Result};

use steps::{STEPS, World};

/// Folder in which the paths of manifests are.
const PROJECT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

fn main() -> ExitCode {
    match play() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            println!("kubernetes: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Returns whether every step went as it should. A step that fails does not keep later ones from
/// being tried.
fn play() -> Result<bool> {
    std::env::set_current_dir(PROJECT).context(PROJECT)?;
    let mut world = World::new()?;
    let mut passed = 0;
    for (number, (title, step)) in STEPS.iter().enumerate() {
        println!("{:>2}. {title}", number + 1);
        let begin = clock();
        let outcome = step(&mut world);
        let seconds = begin.elapsed().as_secs();
        match outcome {
            Ok(()) => {
                passed += 1;
                println!("    ok, {seconds} s");
            }
            Err(error) => println!("    FAIL after {seconds} s: {error:#}\n{}", world.state()),
        }
    }
    drop(world);
    println!("kubernetes 1.20.2: {passed}/{} steps", STEPS.len());
    Ok(passed == STEPS.len())
}

#[expect(clippy::disallowed_methods, reason = "it is told how long steps take")]
fn clock() -> Instant {
    Instant::now()
}
