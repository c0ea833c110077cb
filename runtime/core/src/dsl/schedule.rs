//! `schedule`: when a workflow is run without being asked.

use super::context::Context;
use super::report::At;
use crate::cron::Cron;
use crate::workflow::{Schedule, Strategy, Until};

/// Shorter intervals are no schedule but a loop.
const INTERVAL_MS_MIN: u64 = 1_000;

impl<'n> Context<'n> {
    /// `every`, `cron`, `after` or `on`.
    pub(super) fn schedule(&self, at: &At<'n>) -> Option<Schedule> {
        const KEYS: [&str; 5] = ["every", "cron", "after", "on", "read"];
        let fields = self.report.fields(at, "schedule", &KEYS)?;
        let found: Vec<_> = KEYS[..4]
            .iter()
            .filter_map(|word| Some((*word, fields.get(word)?)))
            .collect();
        let [(word, inner)] = found.as_slice() else {
            let cause = "a schedule says `every`, `cron`, `after` or `on`, and only one of them";
            let remedy = "keep one; another schedule is another workflow that runs this one";
            return self.report.error("CD0136", at, cause, remedy);
        };
        if let Some(read) = fields.get("read").filter(|_| *word != "on") {
            let cause = format!("`read` belongs to `on`; `{word}` has no event to read");
            return self.report.error("CD0136", &read, cause, "remove it");
        }
        match *word {
            "every" => self.interval(inner).map(Schedule::Every),
            "after" => self.interval(inner).map(Schedule::After),
            "cron" => self.cron(inner).map(Schedule::Cron),
            _ => {
                let to = self.strategy(inner, &[]);
                let read = self.read(fields.get("read"));
                let to = to?;
                if let Strategy::Any {
                    until: Until::Never,
                    ..
                } = to
                {
                    let cause = "`until: false` never has enough events to begin a run";
                    let remedy = "remove `until`, so that each event begins a run";
                    return self.report.error("CD0136", inner, cause, remedy);
                }
                Some(Schedule::On { to, read: read? })
            }
        }
    }

    fn interval(&self, at: &At<'n>) -> Option<u64> {
        let ms = self.fixed_ms(at)?;
        if ms < INTERVAL_MS_MIN {
            let cause = format!("{ms} ms is too short for a schedule");
            return self
                .report
                .error("CD0136", at, cause, "write at least one second");
        }
        Some(ms)
    }

    fn cron(&self, at: &At<'n>) -> Option<Cron> {
        self.report.constant(at)?;
        let text = self.report.text(at)?;
        Cron::parse(text).map_or_else(
            |why| {
                let cause = format!("`{text}` is no cron expression: {why}");
                let remedy = "write five fields, such as \"0 6 * * MON-FRI\"; times are UTC";
                self.report.error("CD0137", at, cause, remedy)
            },
            Some,
        )
    }
}
