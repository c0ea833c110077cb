//! Large values, each stored once by its hash.
//!
//! A row or a record of a journal with a value of more than [`PAYLOAD_BYTES_MAX`] bytes is kept
//! without it: `{"payloads": {"/event/input": HASH}, "row": …}`, with `null` at the place (a JSON
//! pointer) that the value was taken from. The value is a row of its own, whoever and however many
//! have it, and each of them leaves a row that says so:
//!
//! | key of [`Table::Payload`] | says |
//! |---|---|
//! | `p` hash | the value, as JSON |
//! | `r` hash `r` run | a run refers to it: its journal, row, dead letter or reviews |
//! | `r` hash `t` table, key | another row refers to it, and goes together with the reference |
//! | `o` run 0 hash | the same by run, so that what a run refers to is found with it |
//!
//! All of it is written in one batch with what refers, and the store decides in one place whether a
//! value is there already, and whether anybody still refers to it ([`Batch::put_new`],
//! [`Batch::delete_unreferenced`]): so no crash and no race leaves a reference without its payload,
//! or a payload without a reference. A run keeps what it refers to until it is removed.
//!
//! Rows and records from before there were payloads have their values in them and are read as
//! they are.

use std::collections::{BTreeMap, HashSet};
use std::fmt::Display;

use cofferdam_store::{Batch, JournalStore, KeyRange, Report, Table};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::Error;
use crate::rows::encode;

/// A value with more bytes of JSON is a payload; shorter ones stay where they are, since a
/// payload costs three rows.
pub const PAYLOAD_BYTES_MAX: usize = 32 * 1024;

/// How many rows are looked at in one go; each may be as large as the store allows.
const PAGE: usize = 8;

/// How the JSON of what was packed begins, and no other row.
const STUB: &[u8] = b"{\"payloads\":";

const PAYLOAD: u8 = b'p';
const REFERENCE: u8 = b'r';
const OF_RUN: u8 = b'o';
const BY_RUN: u8 = b'r';
const BY_ROW: u8 = b't';
const HASH_LEN: usize = 64;

/// BLAKE3 of the value's JSON, in hexadecimal.
pub(crate) type Hash = String;

/// A large value on its way to the store.
#[derive(Debug)]
pub(crate) struct Payload {
    pub hash: Hash,
    /// None if the batch has it already.
    bytes: Option<Vec<u8>>,
}

/// A row or record, and the values that were taken out of it.
#[derive(Debug)]
pub(crate) struct Packed {
    pub bytes: Vec<u8>,
    pub payloads: Vec<Payload>,
}

/// Who refers to payloads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum By<'a> {
    /// A run: until it is removed.
    Run(&'a str),
    /// A row: until [`delete_row`].
    Row(Table, &'a [u8]),
}

/// What is kept in place of what was packed.
#[derive(Serialize, Deserialize)]
struct Stub {
    /// By place in the row.
    payloads: BTreeMap<String, Hash>,
    row: Value,
}

impl Payload {
    fn new(bytes: Vec<u8>) -> Self {
        Self {
            hash: hash(&bytes),
            bytes: Some(bytes),
        }
    }

    /// Bytes that the batch has for it.
    pub fn len_bytes(&self) -> usize {
        self.bytes.as_ref().map_or(0, Vec::len)
    }
}

impl Packed {
    /// Bytes that a batch has for it.
    pub fn len_bytes(&self) -> usize {
        let payloads = self.payloads.iter().map(Payload::len_bytes);
        self.bytes.len() + payloads.sum::<usize>()
    }

    /// Leaves out values that the same batch has already.
    pub fn once(mut self, there: &mut HashSet<Hash>) -> Self {
        for payload in &mut self.payloads {
            if !there.insert(payload.hash.clone()) {
                payload.bytes = None;
            }
        }
        self
    }
}

fn hash(bytes: &[u8]) -> Hash {
    blake3::hash(bytes).to_hex().to_string()
}

/// A value, if it is one to be kept apart.
pub(crate) fn of_value(value: &Value) -> Result<Option<Payload>, Error> {
    let bytes = encode(value)?;
    Ok((bytes.len() > PAYLOAD_BYTES_MAX).then(|| Payload::new(bytes)))
}

/// Encodes a row without the values at `places` (JSON pointers) that are large.
pub(crate) fn pack<T: Serialize>(
    row: &T,
    places: impl FnOnce() -> Vec<String>,
) -> Result<Packed, Error> {
    let (bytes, mut payloads) = (encode(row)?, Vec::new());
    if bytes.len() <= PAYLOAD_BYTES_MAX {
        return Ok(Packed { bytes, payloads });
    }
    let mut stub = Stub {
        payloads: BTreeMap::new(),
        row: serde_json::to_value(row).map_err(|source| Error::Encode { source })?,
    };
    for place in places() {
        if let Some(value) = stub.row.pointer_mut(&place)
            && let Some(payload) = of_value(value)?
        {
            *value = Value::Null;
            stub.payloads.insert(place, payload.hash.clone());
            payloads.push(payload);
        }
    }
    let bytes = if payloads.is_empty() {
        bytes
    } else {
        encode(&stub)?
    };
    Ok(Packed { bytes, payloads })
}

/// Whether values were taken out of a row.
pub(crate) fn is_packed(bytes: &[u8]) -> bool {
    bytes.starts_with(STUB)
}

/// What was packed, whole again. `what` and `key` name it in errors.
///
/// # Errors
/// [`Error::Payload`] if a value is missing or is not what its hash says; [`Error::Row`].
pub(crate) fn unpack<T: DeserializeOwned>(
    store: &dyn JournalStore,
    what: &'static str,
    key: impl Display,
    bytes: &[u8],
) -> Result<T, Error> {
    let unlike = |source| Error::Row {
        what,
        key: key.to_string(),
        source,
    };
    if !is_packed(bytes) {
        return serde_json::from_slice(bytes).map_err(unlike);
    }
    let mut stub: Stub = serde_json::from_slice(bytes).map_err(unlike)?;
    for (place, hash) in &stub.payloads {
        let wrong = |reason: String| Error::Payload {
            what,
            key: key.to_string(),
            hash: hash.clone(),
            reason,
        };
        let value = read(store, hash).map_err(wrong)?;
        let at = stub.row.pointer_mut(place);
        *at.ok_or_else(|| wrong(format!("and has no place `{place}` for it")))? = value;
    }
    serde_json::from_value(stub.row).map_err(unlike)
}

/// The same of a row that is not the caller's: none if it went before its values were read.
///
/// # Errors
/// As for [`unpack`]; [`Error::Store`].
pub(crate) fn unpack_row<T: DeserializeOwned>(
    store: &dyn JournalStore,
    what: &'static str,
    (table, key): (Table, &[u8]),
    bytes: &[u8],
) -> Result<Option<T>, Error> {
    match unpack(store, what, String::from_utf8_lossy(key), bytes) {
        Err(Error::Payload { .. }) if store.get(table, key)?.as_deref() != Some(bytes) => Ok(None),
        unpacked => unpacked.map(Some),
    }
}

/// The value of this hash that a row names by itself.
///
/// # Errors
/// [`Error::Payload`].
pub(crate) fn fetch(
    store: &dyn JournalStore,
    what: &'static str,
    key: &str,
    hash: &str,
) -> Result<Value, Error> {
    read(store, hash).map_err(|reason| Error::Payload {
        what,
        key: key.to_owned(),
        hash: hash.to_owned(),
        reason,
    })
}

fn read(store: &dyn JournalStore, wanted: &str) -> Result<Value, String> {
    let bytes = store.get(Table::Payload, &payload_key(wanted));
    let bytes = bytes.map_err(|error| format!("which cannot be read: {error}"))?;
    let bytes = bytes.ok_or("which is not in the store")?;
    let found = hash(&bytes);
    if found != wanted {
        return Err(format!("whose content has hash {found}"));
    }
    serde_json::from_slice(&bytes).map_err(|error| format!("which is no JSON: {error}"))
}

/// What the row of a run and the like refer to, without looking at it.
fn hashes(bytes: &[u8]) -> Vec<Hash> {
    if !is_packed(bytes) {
        return Vec::new();
    }
    // One that cannot be read is reported by who reads it.
    let stub: Option<Stub> = serde_json::from_slice(bytes).ok();
    stub.map_or_else(Vec::new, |stub| stub.payloads.into_values().collect())
}

/// Adds payloads and the references to them.
pub(crate) fn keep(mut batch: Batch, by: By<'_>, payloads: Vec<Payload>) -> Batch {
    for Payload { hash, bytes } in payloads {
        if let Some(bytes) = bytes {
            batch = batch.put_new(Table::Payload, payload_key(&hash), bytes);
        }
        batch = batch.put(Table::Payload, reference_key(&hash, by), Vec::new());
        if let By::Run(run) = by {
            batch = batch.put(Table::Payload, of_run_key(run, &hash), Vec::new());
        }
    }
    batch
}

/// Takes references away, and payloads that nobody else refers to.
pub(crate) fn let_go(mut batch: Batch, by: By<'_>, hashes: &[Hash]) -> Batch {
    for hash in hashes {
        batch = batch.delete(Table::Payload, reference_key(hash, by));
        if let By::Run(run) = by {
            batch = batch.delete(Table::Payload, of_run_key(run, hash));
        }
        batch =
            batch.delete_unreferenced(Table::Payload, payload_key(hash), references_prefix(hash));
    }
    batch
}

/// Sets a row that was packed, and that only [`delete_row`] deletes.
pub(crate) fn put_row(batch: Batch, table: Table, key: Vec<u8>, packed: Packed) -> Batch {
    keep(batch, By::Row(table, &key), packed.payloads).put(table, key, packed.bytes)
}

/// Deletes a row that may have been packed; `bytes` are what is there.
pub(crate) fn delete_row(batch: Batch, table: Table, key: Vec<u8>, bytes: &[u8]) -> Batch {
    let_go(batch, By::Row(table, &key), &hashes(bytes)).delete(table, key)
}

/// What a run refers to, at most `limit`.
///
/// # Errors
/// The store's.
pub(crate) fn of_run(
    store: &dyn JournalStore,
    run: &str,
    limit: usize,
) -> Result<Vec<Hash>, cofferdam_store::Error> {
    let prefix = of_run_key(run, "");
    let rows = store.scan(Table::Payload, KeyRange::prefix(prefix.clone()), limit)?;
    let hash = |(key, _): &(Vec<u8>, _)| String::from_utf8_lossy(&key[prefix.len()..]).into_owned();
    Ok(rows.iter().map(hash).collect())
}

fn payload_key(hash: &str) -> Vec<u8> {
    [&[PAYLOAD], hash.as_bytes()].concat()
}

/// What all keys of references to a payload begin with: hashes have one length.
fn references_prefix(hash: &str) -> Vec<u8> {
    [&[REFERENCE], hash.as_bytes()].concat()
}

fn reference_key(hash: &str, by: By<'_>) -> Vec<u8> {
    let mut key = references_prefix(hash);
    match by {
        By::Run(run) => {
            key.push(BY_RUN);
            key.extend_from_slice(run.as_bytes());
        }
        By::Row(table, row) => {
            key.extend([BY_ROW, table.byte()]);
            key.extend_from_slice(row);
        }
    }
    key
}

fn parse_reference(key: &[u8]) -> Option<(&str, By<'_>)> {
    let (hash, by) = key.strip_prefix(&[REFERENCE])?.split_at_checked(HASH_LEN)?;
    let by = match by.split_first()? {
        (&BY_RUN, run) => By::Run(std::str::from_utf8(run).ok()?),
        (&BY_ROW, row) => {
            let (table, key) = row.split_first()?;
            By::Row(Table::from_byte(*table)?, key)
        }
        _ => return None,
    };
    Some((std::str::from_utf8(hash).ok()?, by))
}

fn of_run_key(run: &str, hash: &str) -> Vec<u8> {
    [&[OF_RUN], run.as_bytes(), &[0], hash.as_bytes()].concat()
}

fn parse_of_run(key: &[u8]) -> Option<(&str, &str)> {
    let (run, hash) = std::str::from_utf8(key.strip_prefix(&[OF_RUN])?)
        .ok()?
        .split_once('\0')?;
    Some((run, hash))
}

/// Looks at every payload and every reference, and reports payloads that are not what their hash
/// says or that nobody refers to, references without their payload, and references of what is not
/// there. In bounded memory. Of a store that is written to meanwhile it may report what is not so.
///
/// # Errors
/// [`Error::Store`] where damage keeps the rest from being read.
pub(crate) fn check(store: &dyn JournalStore, report: &mut Report) -> Result<(), Error> {
    let mut range = KeyRange::all();
    loop {
        let rows = store.scan(Table::Payload, range, PAGE)?;
        let Some((last, _)) = rows.last() else {
            return Ok(());
        };
        range = KeyRange::all().after(last);
        for (key, value) in &rows {
            if let Some(what) = problem(store, key, value)? {
                let place = format!("table payload, key `{}`", key.escape_ascii());
                report.problem(place, what);
            }
        }
    }
}

fn problem(store: &dyn JournalStore, key: &[u8], value: &[u8]) -> Result<Option<String>, Error> {
    let is_there = |key: Vec<u8>| Ok::<_, Error>(store.get(Table::Payload, &key)?.is_some());
    if let Some(named) = key.strip_prefix(&[PAYLOAD]) {
        let (found, named) = (hash(value), String::from_utf8_lossy(named));
        if found != named {
            return Ok(Some(format!(
                "it is a payload whose content has hash {found}"
            )));
        }
        let references = KeyRange::prefix(references_prefix(&named));
        let is_kept = !store.scan(Table::Payload, references, 1)?.is_empty();
        return Ok((!is_kept).then(|| "it is a payload that nothing refers to".to_owned()));
    }
    if let Some((hash, by)) = parse_reference(key) {
        if !is_there(payload_key(hash))? {
            return Ok(Some("it refers to a payload that is not there".to_owned()));
        }
        let is_fine = match by {
            By::Run(run) => {
                is_there(of_run_key(run, hash))? && store.get(Table::Run, run.as_bytes())?.is_some()
            }
            By::Row(table, row) => store.get(table, row)?.is_some(),
        };
        return Ok((!is_fine).then(|| "it is a reference of what is not there".to_owned()));
    }
    if let Some((run, hash)) = parse_of_run(key) {
        let is_fine = is_there(reference_key(hash, By::Run(run)))?;
        return Ok((!is_fine).then(|| format!("run `{run}` does not refer to it")));
    }
    Ok(Some("it is neither a payload nor a reference".to_owned()))
}
