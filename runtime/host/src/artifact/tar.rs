//! A tar archive of few files, in one form only: POSIX ustar, regular files, nothing about users
//! and times. The same files make the same bytes. Folders are read over; links, devices and every
//! extension are refused, so that nothing in an archive can mean another place.

use std::collections::BTreeMap;
use std::ops::Range;

const BLOCK_BYTES: usize = 512;
/// No packed plugin has more entries.
const ENTRIES_MAX: usize = 64;

/// Places in a header block.
const NAME: Range<usize> = 0..100;
const MODE: Range<usize> = 100..108;
const UID: Range<usize> = 108..116;
const GID: Range<usize> = 116..124;
const SIZE: Range<usize> = 124..136;
const MTIME: Range<usize> = 136..148;
const CHECKSUM: Range<usize> = 148..156;
const KIND: usize = 156;
const LINK: Range<usize> = 157..257;
const MAGIC: Range<usize> = 257..263;
const VERSION: Range<usize> = 263..265;
const PREFIX: Range<usize> = 345..500;

const USTAR: &[u8; 6] = b"ustar\0";
const REGULAR: u8 = b'0';
const FOLDER: u8 = b'5';

/// Whether the bytes begin like a tar archive.
pub(super) fn is_tar(bytes: &[u8]) -> bool {
    bytes
        .get(MAGIC)
        .is_some_and(|magic| magic.starts_with(&USTAR[..5]))
}

/// Writes an archive. Names are shorter than 100 bytes; a longer one is cut, and then not found.
pub(super) fn write(files: &BTreeMap<String, Vec<u8>>) -> Vec<u8> {
    let bytes: usize = files.values().map(|f| f.len() + 2 * BLOCK_BYTES).sum();
    let mut archive = Vec::with_capacity(bytes + 2 * BLOCK_BYTES);
    for (name, contents) in files {
        archive.extend_from_slice(&header(name, contents.len()));
        archive.extend_from_slice(contents);
        archive.resize(archive.len().next_multiple_of(BLOCK_BYTES), 0);
    }
    archive.resize(archive.len() + 2 * BLOCK_BYTES, 0);
    archive
}

fn header(name: &str, size: usize) -> [u8; BLOCK_BYTES] {
    let mut block = [0; BLOCK_BYTES];
    let mut put = |place: Range<usize>, text: &str| {
        let text = &text.as_bytes()[..text.len().min(place.len())];
        block[place.start..place.start + text.len()].copy_from_slice(text);
    };
    put(NAME, name);
    put(MODE, "0000644");
    put(UID, "0000000");
    put(GID, "0000000");
    put(SIZE, &format!("{size:011o}"));
    put(MTIME, "00000000000");
    put(VERSION, "00");
    put(CHECKSUM, "        ");
    block[KIND] = REGULAR;
    block[MAGIC].copy_from_slice(USTAR);
    let sum = format!("{:06o}\0 ", checksum(&block));
    block[CHECKSUM].copy_from_slice(sum.as_bytes());
    block
}

/// The sum of a header's bytes, its own place counted as spaces.
fn checksum(block: &[u8]) -> u32 {
    block
        .iter()
        .enumerate()
        .map(|(at, byte)| {
            let byte = if CHECKSUM.contains(&at) { b' ' } else { *byte };
            u32::from(byte)
        })
        .sum()
}

/// The regular files of an archive, by name.
///
/// # Errors
/// What is wrong with which entry: cut off, a wrong checksum, a name twice, a name that leads
/// elsewhere, a link or another kind that no packed plugin has, or something after the end.
pub(super) fn read(archive: &[u8]) -> Result<BTreeMap<String, &[u8]>, String> {
    let mut files = BTreeMap::new();
    let mut rest = archive;
    for _ in 0..=ENTRIES_MAX {
        let (block, after) = rest
            .split_at_checked(BLOCK_BYTES)
            .ok_or("the archive is cut off: it has no end")?;
        if block.iter().all(|byte| *byte == 0) {
            let has_end = after.len() >= BLOCK_BYTES && after.iter().all(|byte| *byte == 0);
            return if has_end {
                Ok(files)
            } else {
                Err("the archive is cut off, or something follows its end".to_owned())
            };
        }
        let entry = Entry::read(block)?;
        let name = entry.name;
        let cut = || format!("the archive is cut off in `{name}`");
        let contents = after.get(..entry.size).ok_or_else(cut)?;
        let whole = entry.size.next_multiple_of(BLOCK_BYTES);
        rest = after.get(whole..).ok_or_else(cut)?;
        if entry.is_folder {
            continue;
        }
        if files.insert(name.to_owned(), contents).is_some() {
            return Err(format!("the archive has `{name}` twice"));
        }
    }
    Err(format!("the archive has more than {ENTRIES_MAX} entries"))
}

struct Entry<'a> {
    name: &'a str,
    size: usize,
    is_folder: bool,
}

impl<'a> Entry<'a> {
    fn read(block: &'a [u8]) -> Result<Self, String> {
        if !block[MAGIC].starts_with(&USTAR[..5]) {
            return Err("an entry of the archive has no ustar header".to_owned());
        }
        if octal(&block[CHECKSUM]) != Some(u64::from(checksum(block))) {
            return Err("an entry of the archive has a wrong checksum".to_owned());
        }
        let name = text(&block[NAME]).ok_or("an entry's name is no text")?;
        let shown = name.escape_debug();
        let kind = block[KIND];
        let is_folder = kind == FOLDER;
        if !(kind == REGULAR || kind == 0 || is_folder) {
            let kind = char::from(kind).escape_debug();
            return Err(format!(
                "`{shown}` is of kind `{kind}`, and a packed plugin has regular files only, in the ustar format"
            ));
        }
        if block[LINK].iter().chain(&block[PREFIX]).any(|b| *b != 0) {
            return Err(format!("`{shown}` is a link, or has a name in two parts"));
        }
        let name = name.strip_prefix("./").unwrap_or(name);
        let is_plain = !name.is_empty()
            && name
                .trim_end_matches('/')
                .split('/')
                .all(|part| !matches!(part, "" | "." | ".."));
        // Tar names the packed folder itself `./`.
        if !(is_plain || is_folder && name.is_empty()) {
            return Err(format!("`{shown}` leads out of the package"));
        }
        let size = octal(&block[SIZE])
            .and_then(|size| usize::try_from(size).ok())
            .filter(|size| !is_folder || *size == 0)
            .ok_or_else(|| format!("`{shown}` has a size that makes no sense"))?;
        Ok(Self {
            name,
            size,
            is_folder,
        })
    }
}

/// Text up to the first zero byte, which only zeros follow.
fn text(field: &[u8]) -> Option<&str> {
    let end = field.iter().position(|b| *b == 0).unwrap_or(field.len());
    let (text, padding) = field.split_at(end);
    padding.iter().all(|byte| *byte == 0).then_some(())?;
    std::str::from_utf8(text).ok()
}

/// An octal number with zeros or spaces around it.
fn octal(field: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(field).ok()?;
    let digits = text.trim_matches(['\0', ' ']);
    let is_octal = !digits.is_empty() && digits.bytes().all(|b| (b'0'..=b'7').contains(&b));
    is_octal.then(|| u64::from_str_radix(digits, 8).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files() -> BTreeMap<String, Vec<u8>> {
        [
            ("oci-layout".to_owned(), b"{}".to_vec()),
            ("blobs/sha256/00".to_owned(), vec![7; 1_000]),
            ("empty".to_owned(), Vec::new()),
        ]
        .into()
    }

    /// An archive with one header changed, and its checksum put right.
    fn with(change: impl Fn(&mut [u8])) -> Vec<u8> {
        let mut archive = write(&files());
        let block = &mut archive[..BLOCK_BYTES];
        change(block);
        let sum = format!("{:06o}\0 ", checksum(block));
        block[CHECKSUM].copy_from_slice(sum.as_bytes());
        archive
    }

    fn named(name: &str) -> Vec<u8> {
        with(|block| {
            block[NAME].fill(0);
            block[..name.len()].copy_from_slice(name.as_bytes());
        })
    }

    #[test]
    fn what_was_written_is_read_back_and_always_the_same() {
        let archive = write(&files());
        let read = read(&archive).unwrap();
        let owned: BTreeMap<String, Vec<u8>> =
            read.into_iter().map(|(n, c)| (n, c.to_vec())).collect();
        assert_eq!(owned, files());
        assert_eq!(write(&files()), archive);
        assert!(is_tar(&archive));
    }

    #[test]
    fn an_archive_that_is_cut_off_anywhere_is_refused() {
        let archive = write(&files());
        for end in (0..archive.len()).step_by(64) {
            assert!(read(&archive[..end]).is_err(), "{end}");
        }
        let mut longer = archive.clone();
        longer.extend_from_slice(&[0; 8 * BLOCK_BYTES]);
        assert!(
            read(&longer).is_ok(),
            "tar fills its last record with zeros"
        );
        longer.push(1);
        assert!(read(&longer).unwrap_err().contains("follows its end"));
    }

    #[test]
    fn a_name_that_leads_elsewhere_is_refused() {
        for name in [
            "../x",
            "/etc/passwd",
            "a/../../x",
            "..",
            "a//b",
            "./../x",
            "",
        ] {
            let told = read(&named(name)).unwrap_err();
            assert!(told.contains("leads out"), "{name}: {told}");
        }
        assert!(
            read(&named("./index.json"))
                .unwrap()
                .contains_key("index.json")
        );
    }

    #[test]
    fn a_name_twice_is_refused() {
        for name in ["oci-layout", "./oci-layout"] {
            let told = read(&named(name)).unwrap_err();
            assert!(told.contains("`oci-layout` twice"), "{told}");
        }
    }

    #[test]
    fn links_devices_and_extensions_are_refused() {
        for kind in [
            b'1', b'2', b'3', b'4', b'6', b'7', b'x', b'g', b'L', b'K', b'S',
        ] {
            let told = read(&with(|block| block[KIND] = kind)).unwrap_err();
            assert!(told.contains("regular files only"), "{told}");
        }
        let told = read(&with(|block| block[LINK.start] = b'x')).unwrap_err();
        assert!(told.contains("is a link"), "{told}");
        let told = read(&with(|block| block[PREFIX.start] = b'x')).unwrap_err();
        assert!(told.contains("two parts"), "{told}");
    }

    #[test]
    fn sizes_without_sense_are_refused() {
        for size in ["77777777777", "-0000000001", "0000000000x", "           "] {
            let changed = with(|block| {
                block[SIZE].fill(0);
                block[SIZE.start..SIZE.start + 11].copy_from_slice(size.as_bytes());
            });
            assert!(read(&changed).is_err(), "{size}");
        }
        // A size in binary, as GNU tar writes those that are too large for octal digits.
        assert!(read(&with(|block| block[SIZE].fill(0xff))).is_err());
    }

    #[test]
    fn an_archive_of_very_many_entries_is_refused() {
        let many = (0..=ENTRIES_MAX).map(|n| (format!("{n:04}"), Vec::new()));
        let told = read(&write(&many.collect())).unwrap_err();
        assert!(told.contains("more than 64"), "{told}");
    }

    #[test]
    fn no_changed_bit_of_a_header_changes_what_is_read() {
        let archive = write(&files());
        let meant = read(&archive).unwrap();
        for bit in 0..BLOCK_BYTES * 8 {
            let mut changed = archive.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            // The checksum itself may be written with spaces for leading zeros.
            let is_same = read(&changed).is_ok_and(|read| read == meant);
            let in_checksum = CHECKSUM.contains(&(bit / 8));
            assert!(
                read(&changed).is_err() || (is_same && in_checksum),
                "bit {bit}"
            );
        }
    }
}
