//! The table in `docs/fault-matrix.md`, read as people read it.

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;

/// The faults, in the order of the table.
pub(crate) const FAULTS: [&str; 16] = [
    "400",
    "401",
    "403",
    "404",
    "409",
    "429 with Retry-After",
    "500",
    "503",
    "timeout",
    "refused",
    "reset",
    "malformed",
    "truncated",
    "missing field",
    "wrong type",
    "lost acknowledgement",
];

/// The effects of an action.
pub(crate) const EFFECTS: [&str; 3] = ["read", "idempotent", "once"];

/// The columns, as the table's head has them.
const COLUMNS: [&str; 14] = [
    "fault",
    "strikes",
    "effect",
    "class",
    "code",
    "left behind",
    "attempts",
    "waits",
    "counted",
    "breaker",
    "applied",
    "duplicates",
    "ends",
    "afterwards",
];

/// Between what one attempt after the other showed.
const THEN: &str = ", ";
/// Between two values that are both right, where which one comes is a matter of time.
const OR: &str = " or ";
/// Where there is nothing to tell.
pub(crate) const NOTHING: &str = "–";

/// One row: a fault that meets an action, and what comes of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Row([String; COLUMNS.len()]);

/// What comes of it: the columns that a test can only see when it has happened.
#[derive(Debug, Clone, Default)]
pub(crate) struct Seen {
    /// Of each attempt that failed, as are code and what was left behind.
    pub(crate) class: Vec<String>,
    pub(crate) code: Vec<String>,
    pub(crate) left_behind: Vec<String>,
    pub(crate) attempts: usize,
    /// Between one attempt and the next.
    pub(crate) waits: Vec<String>,
    pub(crate) counted: String,
    pub(crate) breaker: String,
    pub(crate) applied: u64,
    pub(crate) duplicates: u64,
    pub(crate) ends: String,
    pub(crate) afterwards: String,
}

impl Row {
    pub(crate) fn fault(&self) -> &str {
        &self.0[0]
    }

    pub(crate) fn strikes(&self) -> &str {
        &self.0[1]
    }

    pub(crate) fn effect(&self) -> &str {
        &self.0[2]
    }

    pub(crate) fn afterwards(&self) -> &str {
        &self.0[13]
    }

    /// The row as it should read; the same if everything was seen as it says.
    pub(crate) fn corrected(&self, seen: &Seen) -> Self {
        let one = |value: &dyn fmt::Display| vec![value.to_string()];
        let seen = [
            seen.class.clone(),
            seen.code.clone(),
            seen.left_behind.clone(),
            one(&seen.attempts),
            seen.waits.clone(),
            one(&seen.counted),
            one(&seen.breaker),
            one(&seen.applied),
            one(&seen.duplicates),
            one(&seen.ends),
            one(&seen.afterwards),
        ];
        let mut corrected = self.clone();
        for (cell, seen) in corrected.0[3..].iter_mut().zip(&seen) {
            *cell = told(cell, seen);
        }
        corrected
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "| {} |", self.0.join(" | "))
    }
}

/// What was seen, in the words of the cell where it allows them.
fn told(cell: &str, seen: &[String]) -> String {
    let steps: Vec<&str> = cell.split(THEN).collect();
    let word = |value: &String| {
        let step = steps
            .iter()
            .find(|step| step.split(OR).any(|word| word == value));
        step.map_or_else(|| value.clone(), |step| (*step).to_owned())
    };
    let mut words: Vec<String> = seen.iter().map(word).collect();
    words.dedup();
    if words.is_empty() {
        return NOTHING.to_owned();
    }
    words.join(THEN)
}

/// The rows of the table in `docs/`.
pub(crate) fn read() -> Result<Vec<Row>, Vec<String>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/fault-matrix.md");
    let text = std::fs::read_to_string(path).map_err(|error| vec![error.to_string()])?;
    parse(&text)
}

/// Reads the table, or says everything that is wrong with its shape.
pub(crate) fn parse(text: &str) -> Result<Vec<Row>, Vec<String>> {
    let mut complaints = Vec::new();
    let mut rows = Vec::new();
    let head = text.lines().position(|line| cells(line) == COLUMNS);
    let Some(head) = head else {
        return Err(vec![format!("no table has the head `{COLUMNS:?}`")]);
    };
    // The line below the head only aligns.
    let body = text.lines().enumerate().skip(head + 2);
    for (index, line) in body.take_while(|(_, line)| line.starts_with('|')) {
        match <[String; COLUMNS.len()]>::try_from(cells(line)) {
            Ok(cells) => rows.push(Row(cells)),
            Err(cells) => complaints.push(format!(
                "line {}: {} cells instead of {}",
                index + 1,
                cells.len(),
                COLUMNS.len()
            )),
        }
    }
    complaints.extend(unfit(&rows));
    if complaints.is_empty() {
        Ok(rows)
    } else {
        Err(complaints)
    }
}

fn cells(line: &str) -> Vec<String> {
    let inside = line.trim().trim_start_matches('|').trim_end_matches('|');
    inside
        .split('|')
        .map(|cell| cell.trim().replace('`', ""))
        .collect()
}

/// Rows that are unknown, that come twice, or that are missing.
fn unfit(rows: &[Row]) -> Vec<String> {
    let mut complaints = Vec::new();
    let mut seen = BTreeSet::new();
    for row in rows {
        let key = (row.fault(), row.effect());
        if !FAULTS.contains(&key.0) || !EFFECTS.contains(&key.1) {
            complaints.push(format!("{key:?} is no cell of the matrix"));
        } else if !["every", "first"].contains(&row.strikes()) {
            complaints.push(format!("{key:?} strikes `every` or `first` call"));
        } else if !seen.insert(key) {
            complaints.push(format!("{key:?} has two rows"));
        }
    }
    for fault in FAULTS {
        for effect in EFFECTS {
            if !seen.contains(&(fault, effect)) {
                complaints.push(format!("{:?} has no row", (fault, effect)));
            }
        }
    }
    complaints
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(rows: &[String]) -> String {
        let head = format!(
            "| {} |\n|{}\n",
            COLUMNS.join(" | "),
            "---|".repeat(COLUMNS.len())
        );
        format!("# Title\n\n{head}{}\nAfter it.\n", rows.join("\n"))
    }

    fn row(fault: &str, effect: &str) -> String {
        format!(
            "| `{fault}` | every | {effect} |{}",
            " 1 |".repeat(COLUMNS.len() - 3)
        )
    }

    fn every_row() -> Vec<String> {
        let cells = FAULTS
            .iter()
            .flat_map(|fault| EFFECTS.map(|effect| row(fault, effect)));
        cells.collect()
    }

    #[test]
    fn a_whole_table_is_read() {
        let rows = parse(&table(&every_row())).unwrap();
        assert_eq!(rows.len(), 48);
        assert_eq!((rows[47].fault(), rows[47].effect()), (FAULTS[15], "once"));
    }

    #[test]
    fn a_table_with_holes_twins_and_strangers_is_refused_with_each_of_them() {
        let mut rows = every_row();
        rows[0] = row("400", "idempotent");
        rows[5] = row("418", "once");
        rows[7] = "| 403 | every | idempotent |".to_owned();
        rows[8] = row("403", "once").replace("every", "some");
        let complaints = parse(&table(&rows)).unwrap_err().join("\n");
        for complaint in [
            "(\"400\", \"idempotent\") has two rows",
            "(\"400\", \"read\") has no row",
            "(\"418\", \"once\") is no cell of the matrix",
            "(\"401\", \"once\") has no row",
            "line 12: 3 cells instead of 14",
            "(\"403\", \"once\") strikes `every` or `first` call",
        ] {
            assert!(complaints.contains(complaint), "{complaint}\n{complaints}");
        }
        assert!(parse("# No table").is_err());
    }

    #[test]
    fn a_cell_may_allow_two_words_for_an_attempt() {
        let seen = |words: &[&str]| words.iter().map(ToString::to_string).collect::<Vec<_>>();
        let cell = "a or b, c";
        assert_eq!(told(cell, &seen(&["a", "b", "c"])), cell);
        assert_eq!(told(cell, &seen(&["b"])), "a or b");
        assert_eq!(told(cell, &seen(&["a", "d"])), "a or b, d");
        assert_eq!(told(cell, &[]), NOTHING);
    }
}
