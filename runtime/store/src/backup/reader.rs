//! Reading a backup, trusting nothing in it.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Component, Path, PathBuf};

use super::{
    ABOUT, BODY_LEN_MAX, END, FILE, FRAME_LEN, HEAD, HEADER_LEN, MAGIC, PIECE, PIECE_LEN_MAX, Part,
    ROW, Summary, Tally, VERSION, crc_of,
};
use crate::{Error, Head, KEY_LEN_MAX, RUN_LEN_MAX, Table, VALUE_LEN_MAX};

/// Reads a backup part by part, in memory that is bounded by the longest part. Every part has
/// passed its checksum; that it is whole is known only when [`Reader::next_part`] says that there
/// is no more.
pub struct Reader<R> {
    from: R,
    path: PathBuf,
    /// Where the frame at hand begins.
    offset: u64,
    /// Of the frame at hand.
    number: u64,
    tally: Tally,
    /// Bytes of the file that began last that are still to come.
    file_left: u64,
    end: Option<Summary>,
}

impl Reader<BufReader<File>> {
    /// Opens a file.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Backup`] if it is no backup, [`Error::BackupVersion`].
    pub fn open(path: &Path) -> Result<Self, Error> {
        let file = File::open(path).map_err(|error| Error::Io {
            action: format!("opening {}", path.display()),
            detail: error.to_string(),
        })?;
        Self::new(BufReader::with_capacity(PIECE_LEN_MAX, file), path)
    }
}

impl<R: Read> Reader<R> {
    /// Begins to read; `path` is what messages name.
    ///
    /// # Errors
    /// As for [`Reader::open`].
    pub fn new(from: R, path: &Path) -> Result<Self, Error> {
        let mut reader = Self {
            from,
            path: path.to_owned(),
            offset: 0,
            number: 0,
            tally: Tally::default(),
            file_left: 0,
            end: None,
        };
        reader.read_header()?;
        let about = reader.frame()?;
        if about.first() != Some(&ABOUT) {
            return Err(reader.damaged("it does not say what wrote it"));
        }
        reader.pass(about.len());
        Ok(reader)
    }

    /// The next part; `None` after the last, when all of it has been found whole.
    ///
    /// # Errors
    /// [`Error::Backup`], naming the byte at which the part begins that does not fit;
    /// [`Error::Io`].
    pub fn next_part(&mut self) -> Result<Option<Part>, Error> {
        if self.end.is_some() {
            return Ok(None);
        }
        let body = self.frame()?;
        if body.first() == Some(&END) {
            self.check_end(&body)?;
            return Ok(None);
        }
        let part = self.part(&body)?;
        self.tally.add(&body);
        self.pass(body.len());
        Ok(Some(part))
    }

    /// What is in it, once [`Reader::next_part`] has said that there is no more.
    pub fn summary(&self) -> Option<&Summary> {
        self.end.as_ref()
    }

    /// Reads on to the end, for what a backup holds and that it is whole.
    ///
    /// # Errors
    /// As for [`Reader::next_part`].
    pub fn check(mut self) -> Result<Summary, Error> {
        while self.next_part()?.is_some() {}
        Ok(self.end.unwrap_or_default())
    }

    fn read_header(&mut self) -> Result<(), Error> {
        let header = self.exactly::<HEADER_LEN>("it is too short to be a backup")?;
        let (facts, crc) = header.split_at(HEADER_LEN - 4);
        let Some(version) = facts.strip_prefix(MAGIC) else {
            return Err(
                self.damaged("it does not begin as a backup does, and may be another kind of file")
            );
        };
        if crc != crc32fast::hash(facts).to_le_bytes() {
            return Err(self.damaged("the checksum of its header does not fit"));
        }
        let found = version.try_into().map_or(0, u32::from_le_bytes);
        if found != VERSION {
            return Err(Error::BackupVersion {
                path: self.path.clone(),
                found,
                supported: VERSION,
            });
        }
        self.offset = HEADER_LEN as u64;
        Ok(())
    }

    /// The body of the next frame.
    fn frame(&mut self) -> Result<Vec<u8>, Error> {
        const CUT: &str = "it is cut off here";
        let frame = self.exactly::<FRAME_LEN>(CUT)?;
        let [a, b, c, d, crc @ ..] = frame;
        let len = u32::from_le_bytes([a, b, c, d]) as usize;
        if len > BODY_LEN_MAX {
            return Err(self.damaged("the length of a part is beyond every limit"));
        }
        // Not allocated at once: the length is not to be trusted before its checksum.
        let mut body = Vec::new();
        let mut from = (&mut self.from).take(len as u64);
        let read = from.read_to_end(&mut body);
        read.map_err(|error| self.unreadable(&error))?;
        if body.len() < len {
            return Err(self.damaged(CUT));
        }
        if u32::from_le_bytes(crc) != crc_of(self.number, &body) {
            return Err(self.damaged("the checksum of a part does not fit"));
        }
        Ok(body)
    }

    fn part(&mut self, body: &[u8]) -> Result<Part, Error> {
        let nonsense = || self.damaged("a part of it makes no sense");
        let (kind, rest) = body.split_first().ok_or_else(nonsense)?;
        if self.file_left > 0 && *kind != PIECE {
            return Err(self.damaged("a file in it is not whole"));
        }
        match *kind {
            ROW => row(rest).ok_or_else(nonsense),
            HEAD => head(rest).ok_or_else(nonsense),
            FILE => {
                let (path, len) = file(rest).ok_or_else(nonsense)?;
                self.file_left = len;
                Ok(Part::File { path, len })
            }
            PIECE => {
                let len = rest.len() as u64;
                if rest.is_empty() || rest.len() > PIECE_LEN_MAX || len > self.file_left {
                    return Err(nonsense());
                }
                self.file_left -= len;
                Ok(Part::Piece(rest.to_vec()))
            }
            _ => Err(self.damaged("it has a part of a kind that this version does not know")),
        }
    }

    fn check_end(&mut self, body: &[u8]) -> Result<(), Error> {
        if self.file_left > 0 {
            return Err(self.damaged("a file in it is not whole"));
        }
        if body != self.tally.end_body() {
            return Err(self.damaged("what it holds is not what it says in the end"));
        }
        self.pass(body.len());
        let mut more = [0];
        match self.from.read(&mut more) {
            Ok(0) => {}
            Ok(_) => return Err(self.damaged("something follows its end")),
            Err(error) => return Err(self.unreadable(&error)),
        }
        self.end = Some(self.tally.summary());
        Ok(())
    }

    fn exactly<const N: usize>(&mut self, cut: &str) -> Result<[u8; N], Error> {
        let mut bytes = [0; N];
        match self.from.read_exact(&mut bytes) {
            Ok(()) => Ok(bytes),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(self.damaged(cut)),
            Err(error) => Err(self.unreadable(&error)),
        }
    }

    fn pass(&mut self, len: usize) {
        self.offset += (FRAME_LEN + len) as u64;
        self.number += 1;
    }

    fn damaged(&self, detail: &str) -> Error {
        Error::Backup {
            path: self.path.clone(),
            offset: self.offset,
            detail: detail.to_owned(),
        }
    }

    fn unreadable(&self, error: &io::Error) -> Error {
        Error::Io {
            action: format!("reading {}", self.path.display()),
            detail: error.to_string(),
        }
    }
}

fn row(rest: &[u8]) -> Option<Part> {
    let (&table, rest) = rest.split_first()?;
    let (len, rest) = rest.split_first_chunk::<2>()?;
    let (key, value) = rest.split_at_checked(usize::from(u16::from_le_bytes(*len)))?;
    if key.len() > KEY_LEN_MAX || value.len() > VALUE_LEN_MAX {
        return None;
    }
    Some(Part::Row {
        table: Table::from_byte(table)?,
        key: key.to_vec(),
        value: value.to_vec(),
    })
}

fn head(rest: &[u8]) -> Option<Part> {
    let (epoch, rest) = rest.split_first_chunk::<8>()?;
    let (next_seq, run) = rest.split_first_chunk::<8>()?;
    let run = std::str::from_utf8(run).ok()?;
    if run.is_empty() || run.len() > RUN_LEN_MAX {
        return None;
    }
    Some(Part::Head {
        run: run.to_owned(),
        head: Head {
            epoch: u64::from_le_bytes(*epoch),
            next_seq: u64::from_le_bytes(*next_seq),
        },
    })
}

/// A path that leads out of the store's directory would let a backup overwrite anything.
fn file(rest: &[u8]) -> Option<(String, u64)> {
    let (len, path) = rest.split_first_chunk::<8>()?;
    let path = std::str::from_utf8(path).ok()?;
    let is_plain = !path.is_empty()
        && Path::new(path)
            .components()
            .all(|part| matches!(part, Component::Normal(_)));
    is_plain.then(|| (path.to_owned(), u64::from_le_bytes(*len)))
}
