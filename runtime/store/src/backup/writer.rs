//! Writing a backup.

use std::io::{self, Write};

use super::{ABOUT, MAGIC, Part, Summary, Tally, VERSION, crc_of, head_body, row_body};
use crate::{Head, Table};

/// Writes a backup to wherever bytes go. Nothing is a backup until [`Writer::finish`].
pub struct Writer<W> {
    to: W,
    /// Of the next frame.
    number: u64,
    tally: Tally,
}

impl<W: Write> Writer<W> {
    /// Begins a backup.
    ///
    /// # Errors
    /// Those of writing.
    pub fn new(mut to: W) -> io::Result<Self> {
        let mut header = MAGIC.to_vec();
        header.extend(VERSION.to_le_bytes());
        header.extend(crc32fast::hash(&header).to_le_bytes());
        to.write_all(&header)?;
        let mut writer = Self {
            to,
            number: 0,
            tally: Tally::default(),
        };
        let about = serde_json::json!({ "cofferdam": env!("CARGO_PKG_VERSION") });
        writer.frame(&[&[ABOUT][..], about.to_string().as_bytes()].concat())?;
        Ok(writer)
    }

    /// Adds a row.
    ///
    /// # Errors
    /// Those of writing.
    pub fn row(&mut self, table: Table, key: &[u8], value: &[u8]) -> io::Result<()> {
        self.part(&row_body(table, key, value))
    }

    /// Adds the head of a run.
    ///
    /// # Errors
    /// Those of writing.
    pub fn head(&mut self, run: &str, head: Head) -> io::Result<()> {
        self.part(&head_body(run, head))
    }

    /// Begins a file of this length; its pieces follow.
    ///
    /// # Errors
    /// Those of writing.
    pub fn file(&mut self, path: &str, len: u64) -> io::Result<()> {
        let path = path.to_owned();
        self.part(&Part::File { path, len }.body())
    }

    /// Adds at most [`super::PIECE_LEN_MAX`] bytes of the file that began last.
    ///
    /// # Errors
    /// Those of writing.
    pub fn piece(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.part(&Part::Piece(bytes.to_vec()).body())
    }

    /// Ends the backup, and says what is in it.
    ///
    /// # Errors
    /// Those of writing.
    pub fn finish(mut self) -> io::Result<(W, Summary)> {
        self.frame(&self.tally.end_body())?;
        self.to.flush()?;
        Ok((self.to, self.tally.summary()))
    }

    fn part(&mut self, body: &[u8]) -> io::Result<()> {
        self.tally.add(body);
        self.frame(body)
    }

    fn frame(&mut self, body: &[u8]) -> io::Result<()> {
        self.to.write_all(&(body.len() as u32).to_le_bytes())?;
        self.to
            .write_all(&crc_of(self.number, body).to_le_bytes())?;
        self.to.write_all(body)?;
        self.number += 1;
        Ok(())
    }
}
