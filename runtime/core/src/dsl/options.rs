//! The larger settings of `metadata.cofferdam`: fallbacks, retry rules, hedging, checks, reviews.

use super::context::{Context, Scope, Stage};
use super::data::{optional, shown};
use super::policy::{LIST_MAX, word};
use super::report::{At, Fields};
use crate::expr::Expr;
use crate::failure::Class;
use crate::retry::{Backoff, Growth, Jitter, Rule};
use crate::workflow::{Fallback, OnDeadline, ReviewPolicy};

/// More attempts than these are a mistake.
const ATTEMPTS_MAX: u64 = 1_000;
/// Characters of the name of a reviewer or of a failure's code.
const NAME_CHARS_MAX: usize = 200;

/// The classes that can be retried at all.
const RETRIED: [(&str, Class); 3] = [
    ("rate-limited", Class::RateLimited),
    ("timeout", Class::Timeout),
    ("unavailable", Class::Unavailable),
];

impl<'n> Context<'n> {
    pub(super) fn fallbacks(&self, at: &At<'n>, vars: &[&str]) -> Option<Vec<Fallback>> {
        let items = self.list(
            at,
            "a list of fallbacks, each `cache:`, `value:` or `call:`",
        )?;
        let all: Vec<_> = items.iter().map(|item| self.fallback(item, vars)).collect();
        all.into_iter().collect()
    }

    fn fallback(&self, at: &At<'n>, vars: &[&str]) -> Option<Fallback> {
        let keys = self.report.fields(
            at,
            "a fallback",
            &["cache", "value", "call", "with", "compensate"],
        )?;
        if let (None, Some(stray)) = (
            keys.get("call"),
            keys.get("with").or(keys.get("compensate")),
        ) {
            let cause = "`with` and `compensate` belong to `call`";
            return self.report.error("CD0106", &stray, cause, "remove it");
        }
        match (keys.get("cache"), keys.get("value"), keys.get("call")) {
            (Some(cache), None, None) => self.cache(&cache),
            (None, Some(value), None) => self.template(&value, vars).map(Fallback::Value),
            (None, None, Some(call)) => self.fallback_call(&call, &keys, vars),
            _ => {
                let cause = "a fallback is a `cache`, a `value` or a `call`";
                self.report
                    .error("CD0106", at, cause, "write one of the three")
            }
        }
    }

    fn cache(&self, at: &At<'n>) -> Option<Fallback> {
        let keys = self.report.fields(at, "cache", &["maxAge"])?;
        let max_age_ms = self.positive_ms(&self.report.need(&keys, "maxAge")?)?;
        Some(Fallback::Cache { max_age_ms })
    }

    fn fallback_call(&self, at: &At<'n>, keys: &Fields<'n>, vars: &[&str]) -> Option<Fallback> {
        let target = self.target(at, None);
        let with = optional(keys.get("with"), |w| self.arguments(w, vars));
        let (connection, action) = target?;
        let undo = Scope::default();
        let compensate = optional(keys.get("compensate"), |c| {
            self.compensate(c, &undo.vars(Stage::Undo), &connection)
        });
        Some(Fallback::Call {
            with: with?,
            compensate: compensate?.map(Box::new),
            connection,
            action,
        })
    }

    /// After how long an attempt gets a second one beside it.
    pub(super) fn hedge(&self, at: &At<'n>) -> Option<u64> {
        if at.node.entry("delay").is_some() {
            let keys = self.report.fields(at, "hedge", &["delay"])?;
            return self.positive_ms(&self.report.need(&keys, "delay")?);
        }
        self.positive_ms(at)
    }

    /// One check of an output, or a list of them.
    pub(super) fn checks(&self, at: &At<'n>, vars: &[&str]) -> Option<Vec<Expr>> {
        if at.items().is_none() {
            return Some(vec![self.expr(at, vars)?]);
        }
        let items = self.list(at, "a check, or a list of them")?;
        let all: Vec<_> = items.iter().map(|item| self.expr(item, vars)).collect();
        all.into_iter().collect()
    }

    /// `retry`: a list of rules, the first that fits counts.
    pub(super) fn retry_rules(&self, at: &At<'n>) -> Option<Vec<Rule>> {
        let items = self.list(at, "a list of retry rules")?;
        let all: Vec<_> = items.iter().map(|item| self.retry_rule(item)).collect();
        all.into_iter().collect()
    }

    fn retry_rule(&self, at: &At<'n>) -> Option<Rule> {
        const KEYS: [&str; 6] = ["class", "code", "attempts", "delay", "backoff", "jitter"];
        let keys = self.report.fields(at, "a retry rule", &KEYS)?;
        let classes = optional(keys.get("class"), |a| {
            self.one_or_more(a, |item| word(self.report, item, &RETRIED))
        });
        let codes = optional(keys.get("code"), |a| {
            self.one_or_more(a, |item| self.name(item))
        });
        let attempts = optional(keys.get("attempts"), |a| {
            self.report.count(a, 1, ATTEMPTS_MAX)
        });
        let backoff = self.rule_backoff(&keys);
        Some(Rule {
            classes: classes?.unwrap_or_default(),
            codes: codes?.unwrap_or_default(),
            attempts_max: attempts?.and_then(|n| u32::try_from(n).ok()),
            backoff: backoff?,
        })
    }

    /// The time between attempts, if the rule says anything of it.
    #[allow(clippy::option_option, reason = "the outer one carries errors")]
    fn rule_backoff(&self, keys: &Fields<'n>) -> Option<Option<Backoff>> {
        let delay = optional(keys.get("delay"), |d| self.fixed_ms(d));
        let growth = optional(keys.get("backoff"), |b| self.growth(b));
        let jitter = optional(keys.get("jitter"), |j| self.jitter(j));
        let (delay, growth, jitter) = (delay?, growth?, jitter?);
        if delay.is_none() && growth.is_none() && jitter.is_none() {
            return Some(None);
        }
        let default = Backoff::default();
        let initial_ms = delay.unwrap_or(default.initial_ms);
        let (growth, longest) = growth.unwrap_or((Growth::Constant, None));
        Some(Some(Backoff {
            initial_ms,
            growth,
            delay_ms_max: longest.unwrap_or(default.delay_ms_max.max(initial_ms)),
            jitter: jitter.unwrap_or(Jitter::Full),
        }))
    }

    fn one_or_more<T>(&self, at: &At<'n>, read: impl Fn(&At<'n>) -> Option<T>) -> Option<Vec<T>> {
        if at.items().is_none() {
            return Some(vec![read(at)?]);
        }
        let items = self.list(at, "one or more")?;
        if items.is_empty() {
            let remedy = format!("name 1 to {LIST_MAX}, or leave the key out");
            return self.report.error("CD0106", at, "the list is empty", remedy);
        }
        let all: Vec<_> = items.iter().map(read).collect();
        all.into_iter().collect()
    }

    fn name(&self, at: &At<'n>) -> Option<String> {
        self.report.constant(at)?;
        let text = self.report.text(at)?;
        if (1..=NAME_CHARS_MAX).contains(&text.chars().count()) {
            return Some(text.to_owned());
        }
        let remedy = format!("write 1 to {NAME_CHARS_MAX} characters");
        self.report
            .error("CD0106", at, "this is empty, or too long", remedy)
    }

    /// A word, or `{review: {…}}` where the word `review` could stand.
    pub(super) fn or_review<T>(
        &self,
        at: &At<'n>,
        review: T,
        word: impl FnOnce(&At<'n>) -> Option<T>,
    ) -> Option<(T, Option<ReviewPolicy>)> {
        if at.entries().is_none() {
            return Some((word(at)?, None));
        }
        let keys = self
            .report
            .fields(at, "this setting as a map", &["review"])?;
        let policy = self.review(&self.report.need(&keys, "review")?)?;
        Some((review, Some(policy)))
    }

    fn review(&self, at: &At<'n>) -> Option<ReviewPolicy> {
        const KEYS: [&str; 3] = ["deadline", "onDeadline", "escalateTo"];
        let keys = self.report.fields(at, "review", &KEYS)?;
        let deadline = self
            .report
            .need(&keys, "deadline")
            .and_then(|d| self.positive_ms(&d));
        let on_deadline = optional(keys.get("onDeadline"), |a| {
            let words = [
                ("reject", OnDeadline::Reject),
                ("escalate", OnDeadline::Escalate),
            ];
            word(self.report, a, &words)
        });
        let escalate_to = optional(keys.get("escalateTo"), |a| {
            self.one_or_more(a, |item| self.name(item))
        });
        let escalate_to: Vec<String> = escalate_to?.unwrap_or_default();
        let named = !escalate_to.is_empty();
        let default = if named {
            OnDeadline::Escalate
        } else {
            OnDeadline::Reject
        };
        let on_deadline = on_deadline?.unwrap_or(default);
        if named != (on_deadline == OnDeadline::Escalate) {
            let cause = "`onDeadline: escalate` and `escalateTo` go together";
            let remedy =
                "name in `escalateTo` who is asked next, or write `onDeadline: reject` alone";
            return self.report.error("CD0171", at, cause, remedy);
        }
        Some(ReviewPolicy {
            deadline_ms: Some(deadline?),
            on_deadline,
            escalate_to,
        })
    }

    /// A duration that is not nothing.
    pub(super) fn positive_ms(&self, at: &At<'n>) -> Option<u64> {
        let ms = self.fixed_ms(at)?;
        if ms > 0 {
            return Some(ms);
        }
        let cause = format!("{} is no time, and nothing is done in no time", shown(at));
        let remedy = "write for example PT30S, or leave the key out";
        self.report.error("CD0170", at, cause, remedy)
    }
}
