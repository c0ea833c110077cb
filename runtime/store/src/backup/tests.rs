//! What a backup says is what it was told; whatever was done to it is noticed.

use std::io::Cursor;
use std::path::Path;

use super::{Part, Reader, Summary, Writer};
use crate::{Error, Head, Table};

fn parts() -> Vec<Part> {
    let row = |table, key: &str, len: usize| Part::Row {
        table,
        key: key.into(),
        value: vec![7; len],
    };
    let head = Head {
        epoch: 3,
        next_seq: 9,
    };
    vec![
        row(Table::Meta, "", 0),
        row(Table::Run, "run-1", 300),
        row(Table::Kv, "k\u{0}", 5),
        Part::Head {
            run: "run-1".to_owned(),
            head,
        },
        Part::File {
            path: "plugins/crm/1/plugin.wasm".to_owned(),
            len: 6,
        },
        Part::Piece(vec![1, 2, 3, 4]),
        Part::Piece(vec![5, 6]),
        Part::File {
            path: "plugins/empty".to_owned(),
            len: 0,
        },
    ]
}

fn written(parts: &[Part]) -> (Vec<u8>, Summary) {
    let mut writer = Writer::new(Vec::new()).unwrap();
    for part in parts {
        match part {
            Part::Row { table, key, value } => writer.row(*table, key, value).unwrap(),
            Part::Head { run, head } => writer.head(run, *head).unwrap(),
            Part::File { path, len } => writer.file(path, *len).unwrap(),
            Part::Piece(bytes) => writer.piece(bytes).unwrap(),
        }
    }
    writer.finish().unwrap()
}

fn read(bytes: &[u8]) -> Result<(Vec<Part>, Summary), Error> {
    let mut reader = Reader::new(Cursor::new(bytes), Path::new("a.backup"))?;
    let mut parts = Vec::new();
    while let Some(part) = reader.next_part()? {
        parts.push(part);
    }
    Ok((parts, reader.summary().unwrap().clone()))
}

fn offset(error: &Error) -> u64 {
    match error {
        Error::Backup { offset, .. } => *offset,
        other => panic!("{other}"),
    }
}

#[test]
fn a_backup_is_read_back_as_it_was_written() {
    let (bytes, summary) = written(&parts());
    assert_eq!(read(&bytes), Ok((parts(), summary.clone())));
    assert_eq!((summary.rows, summary.heads, summary.files), (3, 1, 2));
}

#[test]
fn the_same_content_has_the_same_digest_and_other_content_another() {
    let digest = |parts: &[Part]| written(parts).1.digest;
    assert_eq!(digest(&parts()), digest(&parts()));
    for at in 0..parts().len() {
        let mut fewer = parts();
        fewer.remove(at);
        assert_ne!(digest(&fewer), digest(&parts()));
    }
}

#[test]
fn a_backup_that_ends_at_any_byte_is_refused_with_the_place() {
    let (bytes, _) = written(&parts());
    for len in 0..bytes.len() {
        let error = read(&bytes[..len]).unwrap_err();
        assert!(offset(&error) <= len as u64, "{len}: {error}");
        assert!(error.to_string().contains("a.backup"));
    }
}

#[test]
fn any_flipped_bit_is_refused_with_the_place() {
    let (bytes, _) = written(&parts());
    for bit in 0..bytes.len() * 8 {
        let mut bytes = bytes.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let error = read(&bytes).unwrap_err();
        assert!(offset(&error) <= (bit / 8) as u64, "{bit}: {error}");
    }
}

#[test]
fn what_follows_the_end_is_refused() {
    let (mut bytes, _) = written(&parts());
    let end = bytes.len() as u64;
    bytes.push(0);
    assert_eq!(offset(&read(&bytes).unwrap_err()), end);
}

#[test]
fn parts_in_another_order_are_refused() {
    let (bytes, _) = written(&parts()[..3]);
    // Two frames that are whole by themselves, swapped.
    let (first, second) = (frame_at(&bytes, 1), frame_at(&bytes, 2));
    let swapped = [
        &bytes[..first.start],
        &bytes[second.clone()],
        &bytes[first],
        &bytes[second.end..],
    ]
    .concat();
    assert!(read(&swapped).unwrap_err().to_string().contains("checksum"));
}

fn frame_at(bytes: &[u8], number: usize) -> std::ops::Range<usize> {
    let mut start = super::HEADER_LEN;
    for at in 0.. {
        let len = u32::from_le_bytes(bytes[start..start + 4].try_into().unwrap()) as usize;
        let end = start + super::FRAME_LEN + len;
        if at == number {
            return start..end;
        }
        start = end;
    }
    unreachable!("the loop is left by the return")
}

#[test]
fn a_later_version_is_told_by_its_number() {
    let (mut bytes, _) = written(&parts());
    let version = super::MAGIC.len();
    bytes[version] = 2;
    let crc = crc32fast::hash(&bytes[..version + 4]).to_le_bytes();
    bytes[version + 4..version + 8].copy_from_slice(&crc);
    assert!(matches!(
        read(&bytes),
        Err(Error::BackupVersion { found: 2, .. })
    ));
}

#[test]
fn a_path_that_leads_out_of_the_directory_is_refused() {
    for path in ["", "/etc/passwd", "../x", "plugins/../../x", "./x"] {
        let file = Part::File {
            path: path.to_owned(),
            len: 0,
        };
        let error = read(&written(&[file]).0).unwrap_err();
        assert!(error.to_string().contains("makes no sense"), "{path}");
    }
}

#[test]
fn pieces_that_do_not_make_their_file_are_refused() {
    let file = |len| Part::File {
        path: "plugins/a".to_owned(),
        len,
    };
    let piece = || Part::Piece(vec![1; 10]);
    for parts in [
        vec![piece()],
        vec![file(9), piece()],
        vec![file(11), piece()],
        vec![file(11), piece(), file(0)],
        vec![file(1), Part::Piece(Vec::new())],
    ] {
        assert!(matches!(
            read(&written(&parts).0),
            Err(Error::Backup { .. })
        ));
    }
}
