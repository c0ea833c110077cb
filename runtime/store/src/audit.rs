//! Checks one journal at a time against its run's head; both stores' `verify` feed it.

use crate::{Head, Report};

/// The records of one run, seen in order.
#[derive(Debug, Default)]
pub(crate) struct Audit {
    run: String,
    last_seq: Option<u64>,
}

impl Audit {
    pub(crate) fn of(run: &str) -> Self {
        Self {
            run: run.to_owned(),
            last_seq: None,
        }
    }

    pub(crate) fn run(&self) -> &str {
        &self.run
    }

    /// Takes the next record. A journal may begin anywhere, since old records are pruned.
    pub(crate) fn record(&mut self, seq: u64, report: &mut Report) {
        if let Some(last) = self.last_seq.replace(seq)
            && seq != last + 1
        {
            report.problem(
                format!("run `{}`", self.run),
                format!("its journal has a gap: record {seq} follows record {last}"),
            );
        }
    }

    /// Ends the journal; `head` is the run's, `None` if it has none.
    pub(crate) fn end(self, head: Option<Head>, report: &mut Report) {
        let Some(last) = self.last_seq else { return };
        let place = format!("run `{}`", self.run);
        match head {
            None => report.problem(
                place,
                "it has records but no head: it was forgotten too early",
            ),
            Some(head) if head.next_seq != last + 1 => report.problem(
                place,
                format!("its journal ends with record {last}, but its head is at {head}"),
            ),
            Some(_) => {}
        }
    }
}
