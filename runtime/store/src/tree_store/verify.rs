//! Reads everything and says what does not fit.

use super::Tree;
use super::inner::{Inner, Still};
use super::row::{self, CHUNKS, HEADS};
use crate::audit::Audit;
use crate::table::run_prefix;
use crate::{Entry, Error, KeyRange, Report, Table, parse_journal_key};

/// Rows read while commits wait.
const PAGE_ROWS: usize = 256;

pub(super) fn verify<T: Tree>(inner: &Inner<T>) -> Result<Report, Error> {
    let mut report = Report::default();
    for table in Table::ALL {
        if table != Table::Journal {
            pages(inner, table.byte(), &mut report, check_row)?;
        }
    }
    journals(inner, &mut report)?;
    pages(inner, HEADS, &mut report, check_head)?;
    pages(inner, CHUNKS, &mut report, check_chunk)?;
    Ok(report)
}

/// Everything, as of one point in time; see [`crate::JournalStore::read_all`].
pub(super) fn read_all<T: Tree>(
    inner: &Inner<T>,
    visit: &mut dyn FnMut(Entry<'_>) -> Result<(), Error>,
) -> Result<(), Error> {
    // Commits wait; no group waits for the lock below, which would keep readers out.
    let _paused = inner.pause();
    let still = inner.still();
    for table in Table::ALL {
        for row in still.iter(table.byte(), &KeyRange::all()) {
            let (key, value) = row?;
            let value = still.decode(&row::tree_key(table.byte(), &key), &value)?;
            visit(Entry::Row {
                table,
                key: &key,
                value: &value,
            })?;
        }
    }
    for row in still.iter(HEADS, &KeyRange::all()) {
        let (key, value) = row?;
        let tree_key = row::tree_key(HEADS, &key);
        let head = row::decode_head(&tree_key, &still.decode(&tree_key, &value)?)?;
        let run = std::str::from_utf8(&key).map_err(|_| Error::Corrupt {
            place: row::place(&tree_key),
            detail: "it is not the name of a run".to_owned(),
        })?;
        visit(Entry::Head { run, head })?;
    }
    visit(Entry::End)
}

type Check<T> = fn(&Still<'_, T>, &[u8], &[u8], &mut Report);

fn pages<T: Tree>(
    inner: &Inner<T>,
    space: u8,
    report: &mut Report,
    check: Check<T>,
) -> Result<(), Error> {
    let mut range = KeyRange::all();
    loop {
        let still = inner.still();
        let mut last = None;
        for row in still.iter(space, &range).take(PAGE_ROWS) {
            let (key, value) = row?;
            check(&still, &row::tree_key(space, &key), &value, report);
            last = Some(key);
        }
        let Some(last) = last else { return Ok(()) };
        range = range.after(&last);
    }
}

fn check_row<T: Tree>(still: &Still<'_, T>, tree_key: &[u8], value: &[u8], report: &mut Report) {
    report.rows += 1;
    match still.decode(tree_key, value) {
        Ok(payload) => report.bytes += payload.len() as u64,
        Err(error) => damaged(tree_key, error, report),
    }
}

fn check_head<T: Tree>(still: &Still<'_, T>, tree_key: &[u8], value: &[u8], report: &mut Report) {
    report.runs += 1;
    let head = still
        .decode(tree_key, value)
        .and_then(|payload| row::decode_head(tree_key, &payload));
    if let Err(error) = head {
        damaged(tree_key, error, report);
    }
}

/// The payload is checked with the row that owns it; here, that there is one.
fn check_chunk<T: Tree>(still: &Still<'_, T>, tree_key: &[u8], _: &[u8], report: &mut Report) {
    let owned = row::chunk_owner(tree_key).is_some_and(|(owner, index)| {
        let owner = still.raw(&owner).ok().flatten();
        owner.is_some_and(|owner| index < row::chunk_count(&owner))
    });
    if !owned {
        report.problem(row::place(tree_key), "it belongs to nothing");
    }
}

/// Goes from run to run; each is read in one go, so that its head and its records fit together.
fn journals<T: Tree>(inner: &Inner<T>, report: &mut Report) -> Result<(), Error> {
    let space = Table::Journal.byte();
    let mut range = KeyRange::all();
    loop {
        let still = inner.still();
        let Some(first) = still.iter(space, &range).next() else {
            return Ok(());
        };
        let (first, _) = first?;
        let Some((run, _)) = parse_journal_key(&first) else {
            report.problem(
                row::place(&row::tree_key(space, &first)),
                "it is no record of a run",
            );
            range = range.after(&first);
            continue;
        };
        let records = KeyRange::prefix(run_prefix(run)?);
        let mut audit = Audit::of(run);
        for row in still.iter(space, &records) {
            let (key, value) = row?;
            check_row(&still, &row::tree_key(space, &key), &value, report);
            if let Some((_, seq)) = parse_journal_key(&key) {
                audit.record(seq, report);
            }
        }
        // A damaged head is reported where heads are checked.
        if let Ok(head) = still.head(run) {
            audit.end(head, report);
        }
        let Some(end) = records.end else {
            return Ok(());
        };
        range.start = end;
    }
}

fn damaged(tree_key: &[u8], error: Error, report: &mut Report) {
    let what = match error {
        Error::Corrupt { detail, .. } => detail,
        other => other.to_string(),
    };
    report.problem(row::place(tree_key), what);
}
