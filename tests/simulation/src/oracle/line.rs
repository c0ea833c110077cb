//! Who is next: in each line a higher priority goes first, and tenants get places by their weights.
//!
//! Judged when somebody leaves a line, by who left it while they stood there; and whoever stands there
//! while there is room is let in soon.

use std::collections::{BTreeMap, BTreeSet};

use cofferdam_store::{JournalStore, KeyRange, Table};

use super::rows;
use crate::world::State;

/// Who came to a line so much sooner was there when another was let out of it.
const SURE_MS: u64 = 1_000;
/// The same for concurrency keys, of which only what is durable tells when they were given.
const SURE_OF_KEY_MS: u64 = 10_000;

/// Whoever stands in a line is let in so long after there was room at the latest. The engine looks every
/// five seconds whatever it is told; a slow disk takes as long again.
const TURN_MS_MAX: u64 = 12_000;

/// Lines, by what the keys of their rows begin with.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    /// How important runs are, by what those who begin them said.
    pub priorities: BTreeMap<String, u8>,
    standing: BTreeMap<Vec<u8>, Standing>,
    left: Vec<Left>,
    /// The last of each tenant that was let in.
    served_ms: BTreeMap<String, u64>,
    /// Since when the process runs.
    open_ms: u64,
}

/// A run that stands in a line.
#[derive(Debug, Clone)]
struct Standing {
    line: Line,
    run: String,
    since_ms: u64,
    /// When there was last no room for it.
    kept_out_ms: u64,
    /// Whether there is room for it.
    has_room: bool,
}

/// What is waited for.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Line {
    Key(String),
    /// A place, by tenant.
    Place(String),
}

/// A run that was let out of a line.
#[derive(Debug)]
struct Left {
    line: Line,
    run: String,
    at_ms: u64,
}

impl Lines {
    /// Whether nobody stands anywhere.
    pub(super) fn is_empty(&self) -> bool {
        self.standing.is_empty()
    }

    /// A process begins.
    pub fn opens(&mut self, now_ms: u64) {
        self.open_ms = now_ms;
    }
}

impl Standing {
    fn read(key: &[u8], now_ms: u64) -> Option<Self> {
        let end = key.iter().position(|byte| *byte == 0)?;
        let name = String::from_utf8(key.get(1..end)?.to_vec()).ok()?;
        let line = match key.first()? {
            b'k' => Line::Key(name),
            b'q' => Line::Place(name),
            _ => return None,
        };
        // Priority and number.
        let run = key.get(end + 1 + 1 + size_of::<u64>()..)?;
        Some(Self {
            line,
            run: String::from_utf8(run.to_vec()).ok()?,
            since_ms: now_ms,
            kept_out_ms: now_ms,
            has_room: false,
        })
    }
}

impl State {
    /// Looks who has come to a line, and who has left it.
    pub(super) fn fold_lines(&mut self) -> Result<(), String> {
        // Whoever suspends and redrives decides who waits.
        if !self.swarm.queue || self.swarm.verbs {
            return Ok(());
        }
        let now_ms = self.now_ms();
        let there: BTreeSet<Vec<u8>> = rows(&self.disk.durable, Table::Queue)
            .into_iter()
            .map(|(key, _)| key)
            .collect();
        let lines = &mut self.oracle.lines;
        let gone: Vec<Standing> = lines
            .standing
            .extract_if(.., |key, _| !there.contains(key))
            .map(|(_, standing)| standing)
            .collect();
        for key in there {
            if !lines.standing.contains_key(&key)
                && let Some(standing) = Standing::read(&key, now_ms)
            {
                lines.standing.insert(key, standing);
            }
        }
        for standing in gone {
            let at_ms = match &standing.line {
                Line::Key(_) => Some(now_ms),
                Line::Place(_) => self
                    .oracle
                    .runs
                    .get(&standing.run)
                    .and_then(|s| s.let_in_ms),
            };
            let Some(at_ms) = at_ms else { continue };
            // One that the store failed may stand still until the process is started again.
            let failed_ms = self.oracle.timing.failed_ms();
            let open_ms = self.oracle.lines.open_ms;
            if failed_ms < open_ms.max(standing.since_ms) {
                let from_ms = open_ms.max(standing.since_ms);
                self.judge_passed(&standing, from_ms, at_ms)?;
                self.judge_share(&standing, from_ms, at_ms)?;
            }
            let Standing { line, run, .. } = standing;
            let lines = &mut self.oracle.lines;
            if let Line::Place(tenant) = &line {
                lines.served_ms.insert(tenant.clone(), at_ms);
            }
            lines.left.push(Left { line, run, at_ms });
        }
        Ok(())
    }

    /// Whether there was room for somebody since the last write, and nobody was let in for long. Where
    /// the store has failed a run may stand still until the process is started again.
    pub(super) fn judge_turns(&mut self, open_ms: u64) {
        let now_ms = self.now_ms();
        let has_failed = self.oracle.timing.failed_ms() >= open_ms;
        let mut all = self.oracle.lines.standing.values_mut();
        let late = all.find_map(|standing| {
            if !standing.has_room {
                standing.kept_out_ms = now_ms;
            }
            let late_ms = now_ms - open_ms.max(standing.kept_out_ms);
            let is_late = late_ms > TURN_MS_MAX && !has_failed;
            is_late.then(|| (standing.run.clone(), standing.line.clone(), late_ms))
        });
        if let Some((run, line, late_ms)) = late {
            self.violated(format!(
                "{run} stands in {line:?}, where there is room since {late_ms} ms"
            ));
        }
    }

    /// Notes for whom there is room from here on.
    pub(super) fn note_room(&mut self) {
        let mut standing = std::mem::take(&mut self.oracle.lines.standing);
        let admission = &self.oracle.admission;
        let (mut all, mut by_tenant) = (0, BTreeMap::<&str, usize>::new());
        for tenant in self.oracle.in_memory() {
            all += 1;
            *by_tenant.entry(tenant).or_default() += 1;
        }
        for standing in standing.values_mut() {
            standing.has_room = match &standing.line {
                Line::Key(key) => {
                    let held = KeyRange::prefix([b"h", key.as_bytes(), &[0]].concat());
                    let held = self.disk.durable.scan(Table::Queue, held, usize::MAX);
                    held.is_ok_and(|held| held.len() < admission.key(key))
                }
                Line::Place(tenant) => {
                    let own = by_tenant.get(tenant.as_str()).copied().unwrap_or_default();
                    all < admission.runs_active_max && own < admission.tenant(tenant).runs_max
                }
            };
        }
        self.oracle.lines.standing = standing;
    }

    /// Nobody of a lower priority was let out of the line in front of this one.
    fn judge_passed(&self, standing: &Standing, from_ms: u64, at_ms: u64) -> Result<(), String> {
        let lines = &self.oracle.lines;
        let Some(priority) = lines.priorities.get(&standing.run) else {
            return Ok(());
        };
        let sure_ms = match standing.line {
            Line::Key(_) => SURE_OF_KEY_MS,
            Line::Place(_) => SURE_MS,
        };
        let from_ms = from_ms + sure_ms;
        let mut others = lines.left.iter().filter(|left| left.line == standing.line);
        let passed = others.find(|left| {
            let is_lower = lines
                .priorities
                .get(&left.run)
                .is_some_and(|p| p < priority);
            is_lower && left.at_ms > from_ms && left.at_ms < at_ms
        });
        match passed {
            None => Ok(()),
            Some(left) => Err(format!(
                "{} goes before {}, which is more important and has waited since {}",
                left.run, standing.run, standing.since_ms
            )),
        }
    }

    /// While a tenant waits, no other gets more places than its weight gives it.
    fn judge_share(&self, standing: &Standing, from_ms: u64, at_ms: u64) -> Result<(), String> {
        let Line::Place(tenant) = &standing.line else {
            return Ok(());
        };
        let admission = &self.oracle.admission;
        if admission.tenant(tenant).runs_max < admission.runs_active_max {
            return Ok(());
        }
        let lines = &self.oracle.lines;
        let served_ms = lines.served_ms.get(tenant).copied().unwrap_or_default();
        let from_ms = from_ms.max(served_ms) + SURE_MS;
        let mut counts: BTreeMap<&str, u32> = BTreeMap::new();
        for left in &lines.left {
            if let Line::Place(other) = &left.line
                && other != tenant
                && (from_ms..at_ms).contains(&left.at_ms)
            {
                *counts.entry(other).or_default() += 1;
            }
        }
        let weight = admission.tenant(tenant).weight;
        let most = |other: &str| admission.tenant(other).weight.div_ceil(weight) + 1;
        match counts.iter().find(|(other, count)| **count > most(other)) {
            None => Ok(()),
            Some((other, count)) => Err(format!(
                "`{other}` gets {count} places while {} of `{tenant}` waits",
                standing.run
            )),
        }
    }
}
