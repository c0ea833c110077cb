//! How rows look in the tree: keys, checksums, and values that are cut into chunks.
//!
//! ```text
//! row     key   = space (1 byte: the table's, or one of the store's own) ‖ key
//!         value = version (1) ‖ form (1) ‖ crc32 (4, LE) ‖ body
//!                 form 0: body is the payload
//!                 form 1: body is the payload's length (4, LE); the payload is in chunks
//! chunk   key   = CHUNKS ‖ space ‖ length of key (2, BE) ‖ key ‖ index (4, BE)
//!         value = a piece of the payload, without a frame
//! ```
//! The checksum covers the row's whole key, version, form and the whole payload, so that a row
//! that ended up under another key is noticed too.

use crate::{Error, Head, Table};

/// The space of the runs' heads. The spaces of the store itself count down from 255, the tables'
/// count up from 1, and so they never meet.
pub(super) const HEADS: u8 = 254;
/// The space of the pieces of large values.
pub(super) const CHUNKS: u8 = 253;
/// The space of the store's facts about itself.
pub(super) const SELF: u8 = 252;
/// The space of the one row that counts the groups of commits. No table has 0. First of all, so
/// that in a tree whose nodes are written anew as a whole its neighbours are short rows.
pub(super) const COUNT: u8 = 0;

/// Longest payload of one row, in bytes; a longer one is cut into chunks of this length.
///
/// sled writes whatever exceeds a quarter of a segment to a file of its own (`MINIMUM_ITEMS_PER_SEGMENT`
/// in sled's `pagecache/constants.rs`, `reserve_inner` in `pagecache/logger.rs`), and such a blob
/// file is never synced (`write_blob` in `pagecache/blob_io.rs`): an acknowledged value in it would
/// be lost with the power. What is written there is not a value but at times a whole leaf, up to
/// 17 rows and 3 more that a merge brought (`should_split`, `should_merge` in `node.rs`), or a
/// whole inner node, up to 257 keys and 63 more. With this length, the segments of `sled_tree.rs` and
/// [`crate::KEY_LEN_MAX`] neither comes near a quarter of a segment, so that no blob is ever made.
pub(super) const CHUNK_LEN: usize = 16 * 1024;

const VERSION: u8 = 1;
const INLINE: u8 = 0;
const CHUNKED: u8 = 1;
const FRAME_LEN: usize = 6;

pub(super) fn tree_key(space: u8, key: &[u8]) -> Vec<u8> {
    let mut tree_key = Vec::with_capacity(1 + key.len());
    tree_key.push(space);
    tree_key.extend_from_slice(key);
    tree_key
}

/// What all keys of chunks of the row at `tree_key` begin with.
pub(super) fn chunk_prefix(tree_key: &[u8]) -> Vec<u8> {
    let (space, key) = tree_key.split_first().unwrap_or((&0, &[]));
    let mut prefix = Vec::with_capacity(4 + key.len() + 4);
    prefix.extend([CHUNKS, *space]);
    // Keys are at most `KEY_LEN_MAX` bytes long.
    prefix.extend_from_slice(&(key.len() as u16).to_be_bytes());
    prefix.extend_from_slice(key);
    prefix
}

pub(super) fn chunk_key(prefix: &[u8], index: u32) -> Vec<u8> {
    let mut key = prefix.to_vec();
    key.extend_from_slice(&index.to_be_bytes());
    key
}

/// The row that owns a chunk, and the chunk's index; `None` if `chunk` is no key of a chunk.
pub(super) fn chunk_owner(chunk: &[u8]) -> Option<(Vec<u8>, u32)> {
    let rest = chunk.strip_prefix(&[CHUNKS])?;
    let (&space, rest) = rest.split_first()?;
    let (len, rest) = rest.split_first_chunk::<2>()?;
    let (key, index) = rest.split_at_checked(usize::from(u16::from_be_bytes(*len)))?;
    Some((
        tree_key(space, key),
        u32::from_be_bytes(index.try_into().ok()?),
    ))
}

/// The row's value and the chunks that belong with it.
pub(super) fn encode<'a>(
    tree_key: &[u8],
    payload: &'a [u8],
) -> (Vec<u8>, impl Iterator<Item = &'a [u8]>) {
    let chunked = payload.len() > CHUNK_LEN;
    let (form, body, pieces): (u8, &[u8], &[u8]) = if chunked {
        (CHUNKED, &(payload.len() as u32).to_le_bytes(), payload)
    } else {
        (INLINE, payload, &[])
    };
    let mut value = Vec::with_capacity(FRAME_LEN + body.len());
    value.extend([VERSION, form]);
    value.extend_from_slice(&checksum(tree_key, form, payload).to_le_bytes());
    value.extend_from_slice(body);
    (value, pieces.chunks(CHUNK_LEN))
}

fn checksum(tree_key: &[u8], form: u8, payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(tree_key);
    hasher.update(&[VERSION, form]);
    hasher.update(payload);
    hasher.finalize()
}

/// How many chunks belong to a row; 0 for a row that cannot be read, so that it can be
/// overwritten all the same.
pub(super) fn chunk_count(value: &[u8]) -> u32 {
    match Frame::parse(value) {
        Ok(Frame::Chunked { len, .. }) => len.div_ceil(CHUNK_LEN as u32),
        Ok(Frame::Inline { .. }) | Err(_) => 0,
    }
}

/// The payload of a row; `chunk` reads the chunk with an index.
///
/// # Errors
/// [`Error::Corrupt`], naming table and key; errors of `chunk`.
pub(super) fn decode(
    tree_key: &[u8],
    value: &[u8],
    mut chunk: impl FnMut(u32) -> Result<Option<Vec<u8>>, Error>,
) -> Result<Vec<u8>, Error> {
    let corrupt = |detail: &str| Error::Corrupt {
        place: place(tree_key),
        detail: detail.to_owned(),
    };
    let (form, crc, payload) = match Frame::parse(value).map_err(&corrupt)? {
        Frame::Inline { crc, payload } => (INLINE, crc, payload.to_vec()),
        Frame::Chunked { crc, len } => {
            let len = len as usize;
            if len > crate::VALUE_LEN_MAX {
                return Err(corrupt("its length is beyond every limit"));
            }
            let mut payload = Vec::with_capacity(len);
            for index in 0..len.div_ceil(CHUNK_LEN) {
                let piece = chunk(index as u32)?;
                let piece = piece.ok_or_else(|| corrupt("a part of it is missing"))?;
                payload.extend_from_slice(&piece);
            }
            if payload.len() != len {
                return Err(corrupt("its parts do not have its length"));
            }
            (CHUNKED, crc, payload)
        }
    };
    if checksum(tree_key, form, &payload) != crc {
        return Err(corrupt("its checksum does not fit"));
    }
    Ok(payload)
}

enum Frame<'a> {
    Inline { crc: u32, payload: &'a [u8] },
    Chunked { crc: u32, len: u32 },
}

impl<'a> Frame<'a> {
    fn parse(value: &'a [u8]) -> Result<Self, &'static str> {
        let Some((&[version, form, a, b, c, d], body)) = value.split_first_chunk::<FRAME_LEN>()
        else {
            return Err("it is too short to be a row");
        };
        let crc = u32::from_le_bytes([a, b, c, d]);
        match (version, form) {
            (VERSION, INLINE) => Ok(Self::Inline { crc, payload: body }),
            (VERSION, CHUNKED) => {
                let len = body.try_into().map_err(|_| "its length is not a number")?;
                let len = u32::from_le_bytes(len);
                Ok(Self::Chunked { crc, len })
            }
            (VERSION, _) => Err("it has a form that is not known"),
            (_, _) => Err("it has a version that is not known"),
        }
    }
}

pub(super) fn encode_head(head: Head) -> [u8; 16] {
    let mut payload = [0; 16];
    let (epoch, next_seq) = payload.split_at_mut(8);
    epoch.copy_from_slice(&head.epoch.to_le_bytes());
    next_seq.copy_from_slice(&head.next_seq.to_le_bytes());
    payload
}

pub(super) fn decode_head(tree_key: &[u8], payload: &[u8]) -> Result<Head, Error> {
    let corrupt = || Error::Corrupt {
        place: place(tree_key),
        detail: "it is not an epoch and a sequence number".to_owned(),
    };
    let payload: &[u8; 16] = payload.try_into().map_err(|_| corrupt())?;
    let (epoch, next_seq) = payload.split_at(8);
    let number = |bytes: &[u8]| {
        bytes
            .try_into()
            .map(u64::from_le_bytes)
            .map_err(|_| corrupt())
    };
    Ok(Head {
        epoch: number(epoch)?,
        next_seq: number(next_seq)?,
    })
}

/// The number in the one row of [`COUNT`].
pub(super) fn decode_count(payload: &[u8]) -> Result<u64, Error> {
    let payload = payload.try_into().map_err(|_| Error::Corrupt {
        place: place(&[COUNT]),
        detail: "it is not a number".to_owned(),
    })?;
    Ok(u64::from_le_bytes(payload))
}

/// Names a row in messages.
pub(super) fn place(tree_key: &[u8]) -> String {
    let (&space, key) = tree_key.split_first().unwrap_or((&0, &[]));
    if let Some((owner, index)) = chunk_owner(tree_key) {
        return format!("part {index} of {}", place(&owner));
    }
    if Table::from_byte(space) == Some(Table::Journal)
        && let Some((run, seq)) = crate::parse_journal_key(key)
    {
        return format!("table journal, run `{run}`, record {seq}");
    }
    let name = match (Table::from_byte(space), space) {
        (Some(table), _) => format!("table {table}"),
        (None, HEADS) => "head of run".to_owned(),
        (None, SELF | COUNT) => "the store's own row".to_owned(),
        (None, _) => format!("row in the unknown space {space}"),
    };
    format!("{name}, key `{}`", key.escape_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip(payload: &[u8]) -> Result<Vec<u8>, Error> {
        let key = tree_key(Table::Kv.byte(), b"k");
        let (value, chunks) = encode(&key, payload);
        let chunks: Vec<_> = chunks.map(<[u8]>::to_vec).collect();
        assert_eq!(chunk_count(&value), chunks.len() as u32);
        decode(&key, &value, |index| {
            Ok(chunks.get(index as usize).cloned())
        })
    }

    #[test]
    fn every_length_around_a_chunk_is_read_back() {
        for len in [0, 1, CHUNK_LEN - 1, CHUNK_LEN, CHUNK_LEN + 1, CHUNK_LEN * 3] {
            let payload = vec![7; len];
            assert_eq!(round_trip(&payload), Ok(payload));
        }
    }

    #[test]
    fn any_flipped_bit_of_a_row_is_noticed() {
        let key = tree_key(Table::Kv.byte(), b"k");
        let value = encode(&key, b"payload").0;
        for bit in 0..value.len() * 8 {
            let mut value = value.clone();
            value[bit / 8] ^= 1 << (bit % 8);
            let read = decode(&key, &value, |_| Ok(None));
            assert!(matches!(read, Err(Error::Corrupt { .. })), "bit {bit}");
        }
    }

    #[test]
    fn a_row_under_another_key_is_noticed() {
        let value = encode(&tree_key(Table::Kv.byte(), b"k"), b"payload").0;
        let other = tree_key(Table::Kv.byte(), b"l");
        let error = decode(&other, &value, |_| Ok(None)).unwrap_err();
        assert!(error.to_string().contains("table kv, key `l`"), "{error}");
    }

    #[test]
    fn a_lost_or_short_chunk_is_noticed() {
        let key = tree_key(Table::Kv.byte(), b"k");
        let payload = vec![7; CHUNK_LEN * 2];
        let value = encode(&key, &payload).0;
        for chunk in [None, Some(vec![7; CHUNK_LEN - 1]), Some(vec![8; CHUNK_LEN])] {
            let read = decode(&key, &value, |_| Ok(chunk.clone()));
            assert!(matches!(read, Err(Error::Corrupt { .. })));
        }
    }

    #[test]
    fn a_chunk_knows_its_owner() {
        let key = tree_key(Table::Kv.byte(), b"k");
        let chunk = chunk_key(&chunk_prefix(&key), 3);
        assert_eq!(chunk_owner(&chunk), Some((key, 3)));
        assert_eq!(place(&chunk), "part 3 of table kv, key `k`");
    }
}
