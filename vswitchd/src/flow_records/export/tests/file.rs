//! The file of JSON lines.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::{Mode, umask};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::super::file::JsonLines;
use super::super::sink::{Outcome, Writer as _};
use super::super::{check, destination::Destination};
use super::{record, records};
use crate::config::{FlowExportConfig, FlowFileConfig};

/// A file in a folder of its own.
struct Place {
    folder: TempDir,
    path: PathBuf,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("flows.jsonl");
        Self { folder, path }
    }

    fn writer(&self, max_bytes: u64, keep: usize) -> JsonLines {
        JsonLines::new(FlowFileConfig {
            path: self.path.clone(),
            max_bytes,
            keep,
        })
    }

    fn earlier(&self, number: usize) -> PathBuf {
        self.folder.path().join(format!("flows.jsonl.{number}"))
    }
}

/// The ports of the records in a file, each line of which is a whole one.
fn ports(path: &Path) -> Vec<u64> {
    let text = fs::read_to_string(path).unwrap();
    assert!(text.is_empty() || text.ends_with('\n'), "{text}");
    text.lines()
        .map(|line| {
            let line: Value = serde_json::from_str(line).expect(line);
            line["port"].as_u64().unwrap()
        })
        .collect()
}

const fn taken(taken: usize) -> Outcome {
    Outcome {
        taken,
        given_up: 0,
        failed: None,
    }
}

fn problem(outcome: Outcome) -> String {
    outcome.failed.unwrap().problem
}

#[test]
fn a_line_is_the_record_as_followers_get_it_with_its_time_and_not_for_everybody_to_read() {
    let place = Place::new();
    let mut writer = place.writer(1 << 20, 5);
    // That of the service.
    umask(Mode::from_bits_retain(0o077));
    assert_eq!(writer.write(&[record(80)]), taken(1));
    let line: Value = serde_json::from_slice(&fs::read(&place.path).unwrap()).unwrap();
    let mut expected = json!(record(80));
    expected["time"] = json!("2026-01-31T03:12:07Z");
    assert_eq!(line, expected);
    assert_eq!(line["node"], "node-a");
    let mode = |path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&place.path), 0o640);
    // Whoever changed that wanted it so.
    fs::set_permissions(&place.path, fs::Permissions::from_mode(0o644)).unwrap();
    let mut again = place.writer(1 << 20, 5);
    assert_eq!(again.write(&[record(81)]), taken(1));
    assert_eq!(
        (mode(&place.path), ports(&place.path)),
        (0o644, vec![80, 81])
    );
}

#[test]
fn a_full_file_is_moved_to_the_earlier_ones_of_which_so_many_are_kept() {
    let place = Place::new();
    let line = serde_json::to_vec(&json!(record(0))).unwrap().len() + 100;
    let max = u64::try_from(line).unwrap() * 10;
    let mut writer = place.writer(max, 2);
    assert_eq!(writer.write(&records(0..7)), taken(7));
    assert_eq!(writer.write(&records(7..200)), taken(193));
    let files = [place.earlier(2), place.earlier(1), place.path.clone()];
    let all: Vec<u64> = files.iter().flat_map(|path| ports(path)).collect();
    let oldest = all[0];
    assert!(oldest > 150, "{oldest}");
    assert_eq!(all, (oldest..200).collect::<Vec<_>>(), "none is missing");
    for path in &files[..2] {
        let length = fs::metadata(path).unwrap().len();
        assert!(length <= max && length > max * 8 / 10, "{length} of {max}");
    }
    assert!(!place.earlier(3).exists());
    // Fewer are kept from now on, then none.
    let mut writer = place.writer(1, 1);
    assert_eq!(writer.write(&records(200..202)), taken(2));
    assert_eq!(
        (ports(&place.path), ports(&place.earlier(1))),
        (vec![201], vec![200])
    );
    assert!(!place.earlier(2).exists());
    let mut writer = place.writer(1, 0);
    assert_eq!(writer.write(&records(202..204)), taken(2));
    assert_eq!(ports(&place.path), [203]);
    assert!(!place.earlier(1).exists());
}

#[test]
fn a_file_that_others_moved_or_cut_is_opened_anew_or_goes_on() {
    let place = Place::new();
    let mut writer = place.writer(1 << 20, 5);
    writer.write(&records(0..2));
    let moved = place.folder.path().join("moved");
    fs::rename(&place.path, &moved).unwrap();
    // Nothing is denied, but the second is over.
    assert_eq!(writer.write(&[]), taken(0));
    assert_eq!(fs::metadata(&place.path).unwrap().len(), 0);
    // As logrotate makes one.
    fs::remove_file(&place.path).unwrap();
    fs::write(&place.path, "").unwrap();
    let made = fs::metadata(&place.path).unwrap().ino();
    writer.write(&records(2..4));
    assert_eq!(fs::metadata(&place.path).unwrap().ino(), made);
    assert_eq!(
        (ports(&moved), ports(&place.path)),
        (vec![0, 1], vec![2, 3])
    );
    // logrotate's copytruncate.
    fs::write(&place.path, "").unwrap();
    writer.write(&records(4..6));
    assert_eq!(ports(&place.path), [4, 5]);
}

#[test]
fn a_folder_that_is_missing_or_in_the_way_is_said_and_tried_again() {
    let place = Place::new();
    let folder = place.folder.path().join("logs");
    let mut writer = JsonLines::new(FlowFileConfig {
        path: folder.join("flows.jsonl"),
        max_bytes: 1 << 20,
        keep: 5,
    });
    let said = problem(writer.write(&[]));
    assert!(
        said.contains("opening") && said.contains("No such file"),
        "{said}"
    );
    let outcome = writer.write(&records(0..2));
    assert_eq!((outcome.taken, outcome.given_up), (0, 0));
    fs::create_dir_all(folder.join("flows.jsonl")).unwrap();
    let said = problem(writer.write(&[]));
    assert!(said.contains("directory"), "{said}");
    fs::remove_dir(folder.join("flows.jsonl")).unwrap();
    assert_eq!(writer.write(&records(0..2)), taken(2));
}

#[test]
fn neither_a_pipe_nor_a_link_is_written_to() {
    let place = Place::new();
    let mut writer = place.writer(1 << 20, 5);
    nix::unistd::mkfifo(&place.path, Mode::S_IRWXU).unwrap();
    // Waits for no reader.
    assert!(problem(writer.write(&records(0..1))).contains("no regular file"));
    fs::remove_file(&place.path).unwrap();
    let other = place.folder.path().join("other");
    fs::write(&other, "").unwrap();
    std::os::unix::fs::symlink(&other, &place.path).unwrap();
    problem(writer.write(&records(0..1)));
    assert_eq!(fs::read(&other).unwrap(), b"");
}

#[test]
fn a_folder_in_place_of_the_file_is_refused_by_the_name_of_its_key() {
    let place = Place::new();
    let check = |path: &Path| {
        check(&FlowExportConfig {
            file: Some(FlowFileConfig {
                path: path.to_owned(),
                max_bytes: 1,
                keep: 0,
            }),
            ..FlowExportConfig::default()
        })
    };
    let refused = check(place.folder.path()).unwrap_err().to_string();
    let named = place.folder.path().display().to_string();
    assert!(
        refused.contains("flows.file") && refused.contains(&named),
        "{refused}"
    );
    check(&place.path).unwrap();
}

/// A file system of a few pages at a folder, seen by this thread alone.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(folder: &Path) -> Self {
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        let none = None::<&str>;
        mount(none, "/", none, MsFlags::MS_PRIVATE | MsFlags::MS_REC, none).unwrap();
        let options = Some("size=64k,mode=700");
        mount(
            Some("tmpfs"),
            folder,
            Some("tmpfs"),
            MsFlags::empty(),
            options,
        )
        .unwrap();
        Self(folder.to_owned())
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}

#[test]
fn a_full_disk_leaves_whole_lines_and_what_had_no_room_comes_when_there_is_some() {
    let place = Place::new();
    let _disk = SmallDisk::mount(place.folder.path());
    let ballast = place.folder.path().join("ballast");
    fs::write(&ballast, vec![0; 40 << 10]).unwrap();
    let mut writer = place.writer(1 << 20, 5);
    assert_eq!(writer.write(&records(0..10)), taken(10));
    // More than there is room for: the kernel takes a part.
    let outcome = writer.write(&records(10..60));
    assert_eq!(outcome.taken, 0);
    let said = problem(outcome);
    assert!(said.contains("writing failed: No space left"), "{said}");
    assert_eq!(ports(&place.path), (0..10).collect::<Vec<_>>());
    fs::remove_file(&ballast).unwrap();
    assert_eq!(writer.write(&records(10..60)), taken(50));
    assert_eq!(ports(&place.path), (0..60).collect::<Vec<_>>());
}

#[test]
fn what_is_said_names_the_file() {
    let to = Destination::new("file", "/logs/flows.jsonl".to_owned());
    to.fails("writing failed".to_owned());
    to.count_lost(7);
    let said = to.problem().unwrap();
    assert_eq!(
        said,
        "flow records do not go to /logs/flows.jsonl: writing failed; 7 are lost"
    );
    to.works();
    assert_eq!(to.problem(), None);
}
