//! The export: all records in one file, written whole and renamed. Read only when the
//! database itself is beyond repair.

use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, BufWriter, Write as _};
use std::path::Path;

const NAME: &str = "export.jsonl";

/// Writes all records, each a JSON array of key and value in hexadecimal.
pub(super) fn write(
    folder: &Path,
    records: impl Iterator<Item = (Vec<u8>, Vec<u8>)>,
) -> io::Result<()> {
    let fresh = folder.join(format!("{NAME}.writing"));
    let mut file = BufWriter::new(File::create(&fresh)?);
    for (key, value) in records {
        serde_json::to_writer(&mut file, &[hex(&key), hex(&value)])?;
        file.write_all(b"\n")?;
    }
    file.into_inner()
        .map_err(io::IntoInnerError::into_error)?
        .sync_all()?;
    fs::rename(fresh, folder.join(NAME))
}

/// Reads the last export; none is an error, because then there is nothing to go on with.
pub(super) fn read(folder: &Path) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let mut records = Vec::new();
    for line in BufReader::new(File::open(folder.join(NAME))?).lines() {
        let [key, value]: [String; 2] = serde_json::from_str(&line?)?;
        match (unhex(&key), unhex(&value)) {
            (Some(key), Some(value)) => records.push((key, value)),
            _ => {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "export is damaged",
                ));
            }
        }
    }
    Ok(records)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes();
    if !digits.len().is_multiple_of(2) {
        return None;
    }
    let pair = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    digits.chunks(2).map(pair).collect()
}
