//! `metadata.cofferdam`: what the language lacks.

use super::call::is_word;
use super::context::{Context, Scope, Stage};
use super::data::{Optional, optional};
use super::report::{At, Fields, Report, suggest};
use super::tree::Data;
use crate::workflow::{
    Compensate, CompensateWhen, OnExhausted, OnOutage, OnUnknown, Policy, ReviewPolicy,
};

/// How long a task is parked if the workflow does not say, in milliseconds: an hour.
const PARK_MS: u64 = 60 * 60 * 1000;
/// More iterations at once than these help nobody.
const CONCURRENCY_MAX: u64 = 10_000;
/// More attempts than these are a mistake.
const ATTEMPTS_MAX: u64 = 1_000;
/// Failover and fallback lists are no longer.
pub(super) const LIST_MAX: usize = 16;

const CALL_KEYS: [&str; 13] = [
    "critical",
    "idempotencyKey",
    "failover",
    "fallback",
    "onOutage",
    "onExhausted",
    "onUnknown",
    "compensate",
    "timeout",
    "attempts",
    "retry",
    "hedge",
    "validate",
];
const FOR_KEYS: [&str; 2] = ["maxConcurrency", "toleratedFailurePercent"];

/// `document.metadata.cofferdam.onExhausted`.
pub(super) fn of_document(report: &Report, head: &Fields<'_>) -> Optional<OnExhausted> {
    let Some(settings) = settings(head) else {
        return Some(None);
    };
    let fields = report.fields(&settings, "metadata.cofferdam", &["onExhausted"])?;
    optional(fields.get("onExhausted"), |at| on_exhausted(report, at))
}

fn on_unknown(report: &Report, at: &At<'_>) -> Option<OnUnknown> {
    let words = [
        ("lookup", OnUnknown::Lookup),
        ("repeat", OnUnknown::Repeat),
        ("review", OnUnknown::Review),
    ];
    word(report, at, &words)
}

/// What is to be done, and how long a person may take if one is asked.
type WithReview<T> = Option<(T, Option<ReviewPolicy>)>;

fn parted<T>(chosen: WithReview<T>) -> (Option<T>, Option<ReviewPolicy>) {
    chosen.map_or((None, None), |(what, review)| (Some(what), review))
}

fn settings<'n>(fields: &Fields<'n>) -> Option<At<'n>> {
    let metadata = fields.get("metadata")?;
    metadata.node.entry("cofferdam").map(|e| metadata.child(e))
}

fn on_exhausted(report: &Report, at: &At<'_>) -> Option<OnExhausted> {
    let words = [
        ("fault", OnExhausted::Fault),
        ("review", OnExhausted::Review),
        ("deadLetter", OnExhausted::DeadLetter),
    ];
    word(report, at, &words)
}

pub(super) fn word<T: Copy>(report: &Report, at: &At<'_>, words: &[(&str, T)]) -> Option<T> {
    report.constant(at)?;
    let text = report.text(at)?;
    words
        .iter()
        .find(|(w, _)| *w == text)
        .map(|(_, t)| *t)
        .or_else(|| {
            let known: Vec<_> = words.iter().map(|(w, _)| *w).collect();
            let cause = format!("`{text}` is none of {}", known.join(", "));
            report.error("CD0106", at, cause, suggest(text, known.into_iter()))
        })
}

impl<'n> Context<'n> {
    /// Checks that `metadata` is a map, and that only tasks with settings have `cofferdam` in it.
    pub(super) fn check_metadata(&self, word: &str, fields: &Fields<'n>) {
        let Some(metadata) = fields.get("metadata") else {
            return;
        };
        if metadata.entries().is_none() {
            self.report.wrong_kind::<()>(&metadata, "a map");
        }
        if !["call", "for"].contains(&word)
            && let Some(at) = settings(fields)
        {
            let cause = format!("a `{word}` task has no `metadata.cofferdam`");
            let remedy = "put it on the `call` and `for` tasks that it is meant for";
            self.report.error::<()>("CD0126", &at, cause, remedy);
        }
    }

    /// Concurrency, and the tolerated share of failures, of a `for`.
    pub(super) fn for_policy(&self, fields: &Fields<'n>) -> Option<(usize, f64)> {
        let Some(settings) = settings(fields) else {
            return Some((1, 0.0));
        };
        let keys = self
            .report
            .fields(&settings, "metadata.cofferdam of a `for`", &FOR_KEYS)?;
        let count = |at: &At<'n>| self.report.count(at, 1, CONCURRENCY_MAX);
        let concurrency = optional(keys.get("maxConcurrency"), count);
        let percent = optional(keys.get("toleratedFailurePercent"), |at| self.percent(at));
        let concurrency = concurrency?.unwrap_or(1);
        let ratio = percent?.unwrap_or(0.0) / 100.0;
        if ratio > 0.0 && concurrency == 1 {
            return self.report.error(
                "CD0106",
                &settings,
                "failures can only be tolerated when iterations do not depend on each other",
                "set maxConcurrency to 2 or more",
            );
        }
        if concurrency > 1 && fields.get("while").is_some() {
            return self.report.error(
                "CD0106",
                &settings,
                "`while` looks at one iteration after the other",
                "remove `while` or maxConcurrency",
            );
        }
        Some((usize::try_from(concurrency).unwrap_or(1), ratio))
    }

    fn percent(&self, at: &At<'n>) -> Option<f64> {
        self.report.constant(at)?;
        let Data::Number(number) = &at.node.data else {
            return self.report.wrong_kind(at, "a number");
        };
        number
            .as_f64()
            .filter(|p| (0.0..=100.0).contains(p))
            .or_else(|| {
                let cause = format!("{number} is no percentage");
                self.report
                    .error("CD0106", at, cause, "write a number from 0 to 100")
            })
    }

    /// `metadata.cofferdam` of a call. `own` is the connection that it calls.
    pub(super) fn policy(&self, fields: &Fields<'n>, scope: &Scope, own: &str) -> Option<Policy> {
        let Some(at) = settings(fields) else {
            return Some(Policy::default());
        };
        let keys = self
            .report
            .fields(&at, "metadata.cofferdam of a call", &CALL_KEYS)?;
        let within = scope.vars(Stage::Sent);
        let critical = optional(keys.get("critical"), |a| self.report.flag(a));
        let idempotency_key = optional(keys.get("idempotencyKey"), |a| self.expr(a, &within));
        let failover = optional(keys.get("failover"), |a| self.failover(a));
        let fallback = optional(keys.get("fallback"), |a| self.fallbacks(a, &within));
        let on_outage = optional(keys.get("onOutage"), |a| self.on_outage(a));
        let exhausted = optional(keys.get("onExhausted"), |a| {
            self.or_review(a, OnExhausted::Review, |a| on_exhausted(self.report, a))
        });
        let on_unknown = optional(keys.get("onUnknown"), |a| {
            self.or_review(a, OnUnknown::Review, |a| on_unknown(self.report, a))
        });
        let compensate = optional(keys.get("compensate"), |a| {
            self.compensate(a, &scope.vars(Stage::Undo), own)
        });
        let timeouts = match keys.get("timeout") {
            None => Some((None, None, None)),
            Some(at) => self.call_timeout(&at),
        };
        let attempts = optional(keys.get("attempts"), |a| {
            self.report.count(a, 1, ATTEMPTS_MAX)
        });
        let retries = optional(keys.get("retry"), |a| self.retry_rules(a));
        let hedge_ms = optional(keys.get("hedge"), |a| self.hedge(a));
        let validate = match keys.get("validate") {
            None => Some(Vec::new()),
            Some(at) => self.checks(&at, &scope.vars(Stage::Output)),
        };
        let (start_to_close_ms, schedule_to_start_ms, schedule_to_close_ms) = timeouts?;
        let (on_exhausted, review) = parted(exhausted?);
        let (on_unknown, review_unknown) = parted(on_unknown?);
        self.refuse_undoing_deferred(&keys, on_outage.as_ref(), compensate.as_ref())?;
        Some(Policy {
            critical: critical?,
            idempotency_key: idempotency_key?,
            failover: failover?,
            fallback: fallback?.unwrap_or_default(),
            on_outage: on_outage?,
            on_exhausted,
            on_unknown,
            compensate: compensate?,
            start_to_close_ms,
            schedule_to_close_ms,
            schedule_to_start_ms,
            attempts_max: attempts?.and_then(|n| u32::try_from(n).ok()),
            retries: retries?,
            hedge_ms: hedge_ms?,
            validate: validate?,
            review: review.or(review_unknown),
        })
    }

    fn failover(&self, at: &At<'n>) -> Option<Vec<String>> {
        let items = self.list(at, "a list of connections")?;
        let names = items.iter().map(|item| {
            self.report.constant(item)?;
            let name = self.report.text(item)?;
            if !is_word(name) {
                let cause = format!("`{name}` cannot be the name of a connection");
                let remedy = "write the connection's name; the action stays the same";
                return self.report.error("CD0125", item, cause, remedy);
            }
            Some(name.to_owned())
        });
        names.collect::<Vec<_>>().into_iter().collect()
    }

    pub(super) fn list(&self, at: &At<'n>, what: &str) -> Option<Vec<At<'n>>> {
        let Some(items) = at.items() else {
            return self.report.wrong_kind(at, what);
        };
        if items.len() > LIST_MAX {
            let cause = format!("there are {} entries; {LIST_MAX} are allowed", items.len());
            return self.report.error("CD0106", at, cause, "remove some");
        }
        Some(items)
    }

    fn on_outage(&self, at: &At<'n>) -> Option<OnOutage> {
        if at.entries().is_some() {
            let keys = self
                .report
                .fields(at, "onOutage", &["park", "queueAndForward"])?;
            if let Some(queue) = keys.get("queueAndForward") {
                let queue = self
                    .report
                    .fields(&queue, "queueAndForward", &["deliverWithin"])?;
                let within = self.report.need(&queue, "deliverWithin")?;
                let deliver_within_ms = self.positive_ms(&within)?;
                return Some(OnOutage::QueueAndForward { deliver_within_ms });
            }
            let park = self.report.need(&keys, "park")?;
            let keys = self.report.fields(&park, "park", &["deadline"])?;
            let deadline_ms = self.fixed_ms(&self.report.need(&keys, "deadline")?)?;
            return Some(OnOutage::Park { deadline_ms });
        }
        let words = [
            (
                "park",
                OnOutage::Park {
                    deadline_ms: PARK_MS,
                },
            ),
            (
                "queueAndForward",
                OnOutage::QueueAndForward {
                    deliver_within_ms: crate::run::DELIVER_MS_DEFAULT,
                },
            ),
            ("fallback", OnOutage::Fallback),
            ("fail", OnOutage::Fail),
        ];
        word(self.report, at, &words)
    }

    /// What lies in an outbox when the run faults would be undone before it is done.
    fn refuse_undoing_deferred(
        &self,
        keys: &Fields<'n>,
        on_outage: Option<&Option<OnOutage>>,
        compensate: Option<&Option<Compensate>>,
    ) -> Option<()> {
        let defers = matches!(on_outage, Some(Some(OnOutage::QueueAndForward { .. })));
        match keys.get("onOutage") {
            Some(at) if defers && matches!(compensate, Some(Some(_))) => self.report.error(
                "CD0106",
                &at,
                "a call that is delivered later cannot be undone with the run",
                "use `park`, or leave `compensate` out",
            ),
            Some(_) | None => Some(()),
        }
    }

    pub(super) fn compensate(&self, at: &At<'n>, vars: &[&str], own: &str) -> Option<Compensate> {
        let keys = self
            .report
            .fields(at, "compensate", &["call", "with", "when"])?;
        let target = self
            .report
            .need(&keys, "call")
            .and_then(|c| self.target(&c, Some(own)));
        let with = self
            .report
            .need(&keys, "with")
            .and_then(|w| self.arguments(&w, vars));
        let when = optional(keys.get("when"), |w| {
            let words = [
                ("completed", CompensateWhen::Completed),
                ("attempted", CompensateWhen::Attempted),
            ];
            word(self.report, w, &words)
        });
        let (connection, action) = target?;
        let when = when?.unwrap_or(CompensateWhen::Attempted);
        Some(Compensate {
            connection,
            action,
            with: with?,
            when,
        })
    }

    /// startToClose, scheduleToStart and scheduleToClose.
    fn call_timeout(&self, at: &At<'n>) -> Option<(Option<u64>, Option<u64>, Option<u64>)> {
        let keys = ["startToClose", "scheduleToStart", "scheduleToClose"];
        let keys = self.report.fields(at, "timeout", &keys)?;
        let one = optional(keys.get("startToClose"), |d| self.positive_ms(d));
        let begin = optional(keys.get("scheduleToStart"), |d| self.positive_ms(d));
        let all = optional(keys.get("scheduleToClose"), |d| self.positive_ms(d));
        Some((one?, begin?, all?))
    }
}
