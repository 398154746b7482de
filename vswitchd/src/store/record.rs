//! The envelope of a record: schema version, CRC-32 of the payload, payload.

/// Version of the envelope and of what is inside.
const VERSION: u8 = 1;

/// Puts a payload into its envelope.
pub(super) fn encode(payload: &[u8]) -> Vec<u8> {
    let mut record = Vec::with_capacity(payload.len() + 5);
    record.push(VERSION);
    record.extend_from_slice(&checksum(payload).to_be_bytes());
    record.extend_from_slice(payload);
    record
}

/// Takes a payload out; says what is wrong with the envelope.
pub(super) fn decode(record: &[u8]) -> Result<Vec<u8>, &'static str> {
    let (version, rest) = record.split_first().ok_or("it is empty")?;
    if *version != VERSION {
        return Err("its schema version is not known");
    }
    let (sum, payload) = rest.split_first_chunk::<4>().ok_or("it is cut short")?;
    if u32::from_be_bytes(*sum) != checksum(payload) {
        return Err("its checksum is wrong");
    }
    Ok(payload.to_vec())
}

/// CRC-32 (IEEE 802.3).
pub(super) fn checksum(bytes: &[u8]) -> u32 {
    crc32fast::hash(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flipped_bit_anywhere_is_noticed() {
        let record = encode(b"payload");
        assert_eq!(decode(&record).unwrap(), b"payload");
        for bit in 0..record.len() * 8 {
            let mut damaged = record.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&damaged).is_err(), "bit {bit}");
        }
        for length in 0..record.len() {
            assert!(decode(&record[..length]).is_err(), "cut to {length}");
        }
    }
}
