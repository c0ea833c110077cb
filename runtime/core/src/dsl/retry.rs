//! Retry policies.

use super::context::{Context, Scope, Stage};
use super::data::optional;
use super::report::At;
use super::tree::Data;
use crate::retry::{Backoff, DELAY_MS_CEILING, Growth, Jitter};
use crate::workflow::Retry;

/// The delay if a policy names none: a retry at once would hit a system that just failed.
const DELAY_MS: u64 = 1_000;
/// What growing delays stop at if a policy does not say.
const DELAY_MS_MAX: u64 = 60_000;
/// More retries than these are a mistake.
const RETRIES_MAX: u64 = 100_000;

impl<'n> Context<'n> {
    /// A retry policy. `limit.attempt.count` counts retries, so that the first attempt comes on
    /// top of it.
    pub(super) fn retry_definition(&self, at: &At<'n>, scope: &Scope) -> Option<Retry> {
        const KEYS: [&str; 6] = ["when", "exceptWhen", "delay", "backoff", "limit", "jitter"];
        let fields = self.report.fields(at, "a retry policy", &KEYS)?;
        let vars = scope.vars(Stage::Within);
        let when = optional(fields.get("when"), |w| self.expr(w, &vars));
        let except_when = optional(fields.get("exceptWhen"), |w| self.expr(w, &vars));
        let delay = optional(fields.get("delay"), |d| self.fixed_ms(d));
        let growth = match fields.get("backoff") {
            None => Some((Growth::Constant, None)),
            Some(at) => self.growth(&at),
        };
        let jitter = optional(fields.get("jitter"), |j| self.jitter(j));
        let limits = match fields.get("limit") {
            None => Some((None, None, None)),
            Some(at) => self.limits(&at),
        };
        let initial_ms = delay?.unwrap_or(DELAY_MS);
        let (growth, longest) = growth?;
        let (retries, attempt_ms_max, total_ms_max) = limits?;
        let delay_ms_max = longest
            .unwrap_or(DELAY_MS_MAX.max(initial_ms))
            .min(DELAY_MS_CEILING);
        Some(Retry {
            when: when?,
            except_when: except_when?,
            backoff: Backoff {
                initial_ms,
                growth,
                delay_ms_max,
                jitter: jitter?.unwrap_or(Jitter::Full),
            },
            attempts_max: retries.map(|n| u32::try_from(n).unwrap_or(u32::MAX).saturating_add(1)),
            total_ms_max,
            attempt_ms_max,
        })
    }

    /// How delays grow, and the longest of them if the policy says so.
    pub(super) fn growth(&self, at: &At<'n>) -> Option<(Growth, Option<u64>)> {
        let kinds = ["constant", "linear", "exponential"];
        self.report.fields(at, "backoff", &kinds)?;
        let entries = at.entries()?;
        let [(entry, value)] = entries.as_slice() else {
            let remedy = "write one of constant: {}, linear: {}, exponential: {}";
            return self
                .report
                .error("CD0127", at, "a backoff has one kind", remedy);
        };
        let keys: &[&str] = if entry.key == "exponential" {
            &["factor", "maxDelay"]
        } else {
            &[]
        };
        let empty = matches!(value.node.data, Data::Null);
        let fields = if empty {
            None
        } else {
            Some(self.report.fields(value, &entry.key, keys)?)
        };
        match entry.key.as_str() {
            "constant" => Some((Growth::Constant, None)),
            "linear" => Some((Growth::Linear, None)),
            "exponential" => {
                let get = |key: &str| fields.as_ref().and_then(|f| f.get(key));
                let factor = optional(get("factor"), |f| self.factor(f))?;
                let longest = optional(get("maxDelay"), |d| self.fixed_ms(d))?;
                Some((
                    Growth::Exponential {
                        factor: factor.unwrap_or(2.0),
                    },
                    longest,
                ))
            }
            _ => None,
        }
    }

    fn factor(&self, at: &At<'n>) -> Option<f64> {
        self.report.constant(at)?;
        let Data::Number(number) = &at.node.data else {
            return self.report.wrong_kind(at, "a number");
        };
        let factor = number.as_f64().filter(|f| (1.0..=100.0).contains(f));
        factor.or_else(|| {
            let cause = format!("{number} cannot be a factor");
            self.report
                .error("CD0127", at, cause, "write a number from 1 to 100")
        })
    }

    pub(super) fn jitter(&self, at: &At<'n>) -> Option<Jitter> {
        let fields = self.report.fields(at, "jitter", &["from", "to"])?;
        let from_ms = self
            .report
            .need(&fields, "from")
            .and_then(|d| self.fixed_ms(&d));
        let to_ms = self
            .report
            .need(&fields, "to")
            .and_then(|d| self.fixed_ms(&d));
        let (from_ms, to_ms) = (from_ms?, to_ms?);
        if from_ms > to_ms {
            let cause = format!("`from`, {from_ms} ms, is longer than `to`, {to_ms} ms");
            return self.report.error("CD0127", at, cause, "swap them");
        }
        Some(Jitter::Range { from_ms, to_ms })
    }

    /// Retries, time of one attempt, time of all attempts.
    fn limits(&self, at: &At<'n>) -> Option<(Option<u64>, Option<u64>, Option<u64>)> {
        let fields = self.report.fields(at, "limit", &["attempt", "duration"])?;
        let total = optional(fields.get("duration"), |d| self.fixed_ms(d));
        let Some(attempt) = fields.get("attempt") else {
            return Some((None, None, total?));
        };
        let attempt = self
            .report
            .fields(&attempt, "attempt", &["count", "duration"])?;
        let count = optional(attempt.get("count"), |c| {
            self.report.count(c, 0, RETRIES_MAX)
        });
        let one = optional(attempt.get("duration"), |d| self.fixed_ms(d));
        Some((count?, one?, total?))
    }
}
