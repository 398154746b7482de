//! The bytes of the store's files: frames, each of which says what it is and whether it is whole.
//!
//! A frame is a header of 44 bytes, a section of keys and a section of values. Three checksums
//! (CRC-32) make three grades of damage: a bad value loses a record whose key is known, bad keys
//! or a bad header lose a commit of which only its absence is known, because commits are numbered.
//! All numbers are big-endian.
//!
//! ```text
//! header  magic 4 · kind 1 · zero 3 · seq 8 · roll 4 · prev 4 · count 4 · keys_len 4 ·
//!         values_len 4 · keys_crc 4 · header_crc 4 (of the 40 bytes before it)
//! keys    count × (operation 1 · bucket 1 · key_len 2 · value_len 4 · value_crc 4 · key)
//! values  one after the other
//! ```
//!
//! `prev` is the header checksum of the frame before, which makes the frames a chain.

use super::{Bucket, Write};

const MAGIC: [u8; 4] = *b"VSF1";
const HEADER: usize = 44;
const KEY_HEADER: usize = 12;

/// Records of one frame of a snapshot.
pub(super) const SNAPSHOT_PART: usize = 256;

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// First of a log; `seq` and `prev` are those of the last commit before it.
    Begin,
    /// A batch, whole or absent.
    Commit,
    /// Some records of a snapshot; `roll` counts the parts.
    Part,
    /// Last of a snapshot: `roll` parts came before it; `prev` is the checksum of commit `seq`.
    End,
    /// The number of the last acknowledged commit; alone in its file.
    Head,
}

impl Kind {
    const fn byte(self) -> u8 {
        match self {
            Self::Begin => 1,
            Self::Commit => 2,
            Self::Part => 3,
            Self::End => 4,
            Self::Head => 5,
        }
    }

    const fn of(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::Begin,
            2 => Self::Commit,
            3 => Self::Part,
            4 => Self::End,
            5 => Self::Head,
            _ => return None,
        })
    }
}

/// What a header says of its frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tag {
    pub(super) kind: Kind,
    /// Number of the commit.
    pub(super) seq: u64,
    /// Number of the pair of logs that the commit was written to, or of the part of a snapshot.
    pub(super) roll: u32,
    /// Header checksum of the commit before.
    pub(super) prev: u32,
}

/// A write of a frame; its value may be damaged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Item<'a> {
    pub(super) bucket: u8,
    pub(super) key: &'a [u8],
    /// `Some(None)`: deleted; `None`: there was a value, and it is damaged.
    pub(super) value: Option<Option<&'a [u8]>>,
}

/// A frame whose header is whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Frame<'a> {
    pub(super) tag: Tag,
    /// Checksum of the header, to which the next frame's `prev` refers.
    pub(super) sum: u32,
    /// `None`: the keys are damaged.
    pub(super) items: Option<Vec<Item<'a>>>,
}

impl Frame<'_> {
    pub(super) fn is_whole(&self) -> bool {
        let items = self.items.as_ref();
        items.is_some_and(|items| items.iter().all(|item| item.value.is_some()))
    }
}

/// How a file ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tail {
    /// With a frame.
    Clean,
    /// Short of the end of a frame, as a power cut leaves it.
    Torn,
    /// With bytes that no cut leaves.
    Damaged,
}

/// A file as it was read.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Contents<'a> {
    pub(super) frames: Vec<Frame<'a>>,
    /// Bytes between two frames that are none, or a frame that is not whole.
    pub(super) has_damage: bool,
    pub(super) tail: Tail,
}

/// Returns a frame's bytes and its header checksum.
pub(super) fn encode<'a>(
    tag: Tag,
    items: impl Iterator<Item = (u8, &'a [u8], Option<&'a [u8]>)>,
) -> Result<(Vec<u8>, u32), &'static str> {
    let (mut keys, mut values, mut count) = (Vec::new(), Vec::new(), 0_u32);
    for (bucket, key, value) in items {
        let key_len = u16::try_from(key.len()).map_err(|_| "a key is longer than 65535 bytes")?;
        let bytes = value.unwrap_or_default();
        let value_len = u32::try_from(bytes.len()).map_err(|_| "a value is longer than 4 GiB")?;
        keys.extend_from_slice(&[u8::from(value.is_none()), bucket]);
        keys.extend_from_slice(&key_len.to_be_bytes());
        keys.extend_from_slice(&value_len.to_be_bytes());
        keys.extend_from_slice(&crc32fast::hash(bytes).to_be_bytes());
        keys.extend_from_slice(key);
        values.extend_from_slice(bytes);
        count += 1;
    }
    let too_long = |_| "a batch is longer than 4 GiB";
    let keys_len = u32::try_from(keys.len()).map_err(too_long)?;
    let values_len = u32::try_from(values.len()).map_err(too_long)?;
    let mut frame = Vec::with_capacity(HEADER + keys.len() + values.len());
    frame.extend_from_slice(&MAGIC);
    frame.extend_from_slice(&[tag.kind.byte(), 0, 0, 0]);
    frame.extend_from_slice(&tag.seq.to_be_bytes());
    for number in [
        tag.roll,
        tag.prev,
        count,
        keys_len,
        values_len,
        crc32fast::hash(&keys),
    ] {
        frame.extend_from_slice(&number.to_be_bytes());
    }
    let sum = crc32fast::hash(&frame);
    frame.extend_from_slice(&sum.to_be_bytes());
    frame.extend_from_slice(&keys);
    frame.extend_from_slice(&values);
    Ok((frame, sum))
}

/// Returns the frame of a batch.
pub(super) fn encode_batch(tag: Tag, batch: &[Write]) -> Result<(Vec<u8>, u32), &'static str> {
    let items = batch.iter().map(|write| match write {
        Write::Put(bucket, key, value) => (bucket.byte(), key.as_slice(), Some(value.as_slice())),
        Write::Delete(bucket, key) => (bucket.byte(), key.as_slice(), None),
    });
    encode(tag, items)
}

struct Header {
    tag: Tag,
    sum: u32,
    count: u32,
    keys_len: usize,
    values_len: usize,
    keys_crc: u32,
}

fn be32(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..)?.first_chunk::<4>()?;
    Some(u32::from_be_bytes(*bytes))
}

fn header(bytes: &[u8]) -> Option<Header> {
    let bytes = bytes.get(..HEADER)?;
    let sum = be32(bytes, 40)?;
    if bytes.get(..4)? != MAGIC || crc32fast::hash(bytes.get(..40)?) != sum {
        return None;
    }
    Some(Header {
        tag: Tag {
            kind: Kind::of(*bytes.get(4)?)?,
            seq: u64::from_be_bytes(*bytes.get(8..)?.first_chunk::<8>()?),
            roll: be32(bytes, 16)?,
            prev: be32(bytes, 20)?,
        },
        sum,
        count: be32(bytes, 24)?,
        keys_len: be32(bytes, 28)?.try_into().ok()?,
        values_len: be32(bytes, 32)?.try_into().ok()?,
        keys_crc: be32(bytes, 36)?,
    })
}

fn items<'a>(header: &Header, keys: &'a [u8], mut values: &'a [u8]) -> Option<Vec<Item<'a>>> {
    if crc32fast::hash(keys) != header.keys_crc {
        return None;
    }
    let (mut rest, mut found) = (keys, Vec::new());
    for _ in 0..header.count {
        let (head, after) = rest.split_at_checked(KEY_HEADER)?;
        let key_len = usize::from(u16::from_be_bytes(*head.get(2..)?.first_chunk::<2>()?));
        let value_len = usize::try_from(be32(head, 4)?).ok()?;
        let (key, after) = after.split_at_checked(key_len)?;
        let (value, after_value) = values.split_at_checked(value_len)?;
        (rest, values) = (after, after_value);
        let is_deleted = *head.first()? == 1;
        let is_whole = crc32fast::hash(value) == be32(head, 8)?;
        found.push(Item {
            bucket: *head.get(1)?,
            key,
            value: is_whole.then(|| (!is_deleted).then_some(value)),
        });
    }
    Some(found)
}

/// Reads a file; goes on behind damage with the next frame that is whole enough to be known.
pub(super) fn parse(bytes: &[u8]) -> Contents<'_> {
    let mut contents = Contents {
        frames: Vec::new(),
        has_damage: false,
        tail: Tail::Clean,
    };
    let mut at = 0;
    while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
        let Some(header) = header(rest) else {
            let next = (at + 1..bytes.len()).find(|from| {
                bytes
                    .get(*from..)
                    .is_some_and(|rest| rest.starts_with(&MAGIC) && self::header(rest).is_some())
            });
            let Some(next) = next else {
                let is_torn = rest.len() < HEADER || rest.iter().all(|byte| *byte == 0);
                contents.tail = if is_torn { Tail::Torn } else { Tail::Damaged };
                return contents;
            };
            contents.has_damage = true;
            at = next;
            continue;
        };
        let length = HEADER + header.keys_len + header.values_len;
        let Some(body) = rest.get(HEADER..length) else {
            contents.tail = Tail::Torn;
            return contents;
        };
        let (keys, values) = body.split_at(header.keys_len);
        let frame = Frame {
            tag: header.tag,
            sum: header.sum,
            items: items(&header, keys, values),
        };
        contents.has_damage |= !frame.is_whole();
        contents.frames.push(frame);
        at += length;
    }
    contents
}

impl Bucket {
    /// Returns the bucket whose keys begin with a byte.
    pub(super) fn of_byte(byte: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|bucket| bucket.byte() == byte)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TAG: Tag = Tag {
        kind: Kind::Commit,
        seq: 7,
        roll: 1,
        prev: 3,
    };

    fn two() -> (Vec<u8>, usize) {
        let batch = [
            Write::Put(Bucket::Objects, b"key".to_vec(), b"value".to_vec()),
            Write::Delete(Bucket::Leases, b"gone".to_vec()),
        ];
        let (mut bytes, sum) = encode_batch(TAG, &batch).unwrap();
        let first = bytes.len();
        let next = Tag {
            seq: 8,
            prev: sum,
            ..TAG
        };
        bytes.extend(encode_batch(next, &batch[..1]).unwrap().0);
        (bytes, first)
    }

    #[test]
    fn what_was_written_is_read() {
        let (bytes, _) = two();
        let contents = parse(&bytes);
        assert_eq!((contents.tail, contents.has_damage), (Tail::Clean, false));
        let [first, second] = contents.frames.as_slice() else {
            panic!("two frames");
        };
        assert_eq!((first.tag, second.tag.prev), (TAG, first.sum));
        let items = first.items.as_ref().unwrap();
        assert_eq!(items[0].value, Some(Some(b"value".as_slice())));
        assert_eq!(items[1].value, Some(None));
    }

    #[test]
    fn a_flipped_bit_anywhere_is_noticed_and_costs_its_own_frame_alone() {
        let (bytes, first) = two();
        let whole = parse(&bytes);
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let contents = parse(&damaged);
            let is_noticed = contents.has_damage || contents.tail != Tail::Clean;
            assert!(is_noticed, "bit {bit}");
            let other = usize::from(bit / 8 < first);
            let is_kept = contents
                .frames
                .iter()
                .any(|frame| *frame == whole.frames[other]);
            assert!(is_kept, "bit {bit}");
        }
    }

    #[test]
    fn a_cut_anywhere_is_torn_and_keeps_what_is_before_it() {
        let (bytes, first) = two();
        for length in 1..bytes.len() {
            let contents = parse(&bytes[..length]);
            let is_between = length == first;
            let tail = if is_between { Tail::Clean } else { Tail::Torn };
            assert_eq!(contents.tail, tail, "cut to {length}");
            assert_eq!(contents.frames.len(), usize::from(length >= first));
        }
    }
}
