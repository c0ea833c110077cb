//! A store as one file, whatever engine keeps it.
//!
//! ```text
//! header  "COFFERDAM BACKUP\n" ‖ version (u32) ‖ crc32 of both (u32)
//! frame   length of body (u32) ‖ crc32 of frame number (u64) and body (u32) ‖ body
//! body    1 ‖ JSON                                   what wrote it
//!         2 ‖ table (u8) ‖ length of key (u16) ‖ key ‖ value
//!         3 ‖ epoch (u64) ‖ next sequence number (u64) ‖ run
//!         4 ‖ length (u64) ‖ path                    a file beside the store
//!         5 ‖ bytes                                  a piece of that file
//!         6 ‖ rows (u64) ‖ heads (u64) ‖ files (u64) ‖ digest (32)
//! ```
//! Numbers are little-endian. First comes one frame of kind 1, then the rows (tables in the order
//! of their bytes, each in the order of its keys), the heads in the order of the runs' names, the
//! files, and last one frame of kind 6, after which nothing follows. The digest is BLAKE3 over
//! length and body of every frame of the kinds 2 to 5: two stores that hold the same have the same.

mod reader;
#[cfg(test)]
mod tests;
mod writer;

use serde::{Deserialize, Serialize};

use crate::{Head, Table};

pub use reader::Reader;
pub use writer::Writer;

/// The version of the format that is written, and the only one that is read.
pub const VERSION: u32 = 1;

/// Longest piece of a file, in bytes.
pub const PIECE_LEN_MAX: usize = 1 << 20;

const MAGIC: &[u8] = b"COFFERDAM BACKUP\n";
const HEADER_LEN: usize = MAGIC.len() + 8;
const FRAME_LEN: usize = 8;

/// Longest body: the longest row, and what stands around it.
const BODY_LEN_MAX: usize = crate::VALUE_LEN_MAX + crate::KEY_LEN_MAX + 64;

const ABOUT: u8 = 1;
const ROW: u8 = 2;
const HEAD: u8 = 3;
const FILE: u8 = 4;
const PIECE: u8 = 5;
const END: u8 = 6;

/// What a backup, or a store, holds.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    /// Rows, records of journals included.
    pub rows: u64,
    /// Runs that have a head.
    pub heads: u64,
    /// Files beside the store.
    pub files: u64,
    /// BLAKE3 of it all, in hexadecimal.
    pub digest: String,
}

/// A part of a backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// A row of a table.
    Row {
        /// The table.
        table: Table,
        /// The key.
        key: Vec<u8>,
        /// The value.
        value: Vec<u8>,
    },
    /// Where a run is.
    Head {
        /// The run.
        run: String,
        /// Where it is.
        head: Head,
    },
    /// A file beside the store begins.
    File {
        /// Its path below the store's directory, with `/`; it never leads out of there.
        path: String,
        /// Its bytes.
        len: u64,
    },
    /// A piece of the file that began last.
    Piece(Vec<u8>),
}

impl Part {
    /// How messages call it.
    pub(crate) fn place(&self) -> String {
        match self {
            Self::Row { table, key, .. } => match crate::parse_journal_key(key) {
                Some((run, seq)) if *table == Table::Journal => {
                    format!("record {seq} of run `{run}`")
                }
                _ => format!("table {table}, key `{}`", key.escape_ascii()),
            },
            Self::Head { run, .. } => format!("the head of run `{run}`"),
            Self::File { path, .. } => format!("file `{path}`"),
            Self::Piece(_) => "a piece of a file".to_owned(),
        }
    }

    fn body(&self) -> Vec<u8> {
        match self {
            Self::Row { table, key, value } => row_body(*table, key, value),
            Self::Head { run, head } => head_body(run, *head),
            Self::File { path, len } => [&[FILE][..], &len.to_le_bytes(), path.as_bytes()].concat(),
            Self::Piece(bytes) => [&[PIECE][..], bytes].concat(),
        }
    }
}

fn row_body(table: Table, key: &[u8], value: &[u8]) -> Vec<u8> {
    // Keys are at most `KEY_LEN_MAX` bytes long.
    let len = (key.len() as u16).to_le_bytes();
    [&[ROW, table.byte()][..], &len, key, value].concat()
}

fn head_body(run: &str, head: Head) -> Vec<u8> {
    let (epoch, next_seq) = (head.epoch.to_le_bytes(), head.next_seq.to_le_bytes());
    [&[HEAD][..], &epoch, &next_seq, run.as_bytes()].concat()
}

/// Counts parts and digests them.
#[derive(Debug, Default)]
struct Tally {
    rows: u64,
    heads: u64,
    files: u64,
    hasher: blake3::Hasher,
}

impl Tally {
    fn add(&mut self, body: &[u8]) {
        match body.first() {
            Some(&ROW) => self.rows += 1,
            Some(&HEAD) => self.heads += 1,
            Some(&FILE) => self.files += 1,
            _ => {}
        }
        self.hasher.update(&(body.len() as u32).to_le_bytes());
        self.hasher.update(body);
    }

    fn end_body(&self) -> Vec<u8> {
        let mut body = vec![END];
        for count in [self.rows, self.heads, self.files] {
            body.extend(count.to_le_bytes());
        }
        body.extend(self.hasher.finalize().as_bytes());
        body
    }

    fn summary(&self) -> Summary {
        Summary {
            rows: self.rows,
            heads: self.heads,
            files: self.files,
            digest: self.hasher.finalize().to_hex().to_string(),
        }
    }
}

fn crc_of(number: u64, body: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&number.to_le_bytes());
    hasher.update(body);
    hasher.finalize()
}
