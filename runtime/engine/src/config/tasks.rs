//! What a connection says of the tasks that call it, where they say nothing themselves: retries by
//! kind of failure, second attempts, earlier answers, reviews.

use std::time::Duration;

use cofferdam_core::failure::Class;
use cofferdam_core::manifest::{Kind, Manifest};
use cofferdam_core::retry::Rule;
use cofferdam_core::run::Binding;
use cofferdam_core::workflow::{OnDeadline, OnExhausted, OnUnknown, ReviewPolicy};

use super::connection::Connection;
use super::document::{Item, Section};
use super::error::Error;
use super::read::backoff;
use crate::AnswerLimits;

/// How long anything here may take at most.
const MONTH: Duration = Duration::from_hours(24 * 31);
const ATTEMPTS_MAX: u64 = 100;
/// Lists of rules, codes and reviewers are no longer.
const LIST_MAX: usize = 16;
const ENTRIES_MAX: u64 = 1_000_000;
/// Attempts on a connection to a language model, which is busy more often than it is down.
const LLM_ATTEMPTS: u32 = 5;

impl Connection {
    /// What failures of some kinds are retried by instead; the first rule that fits counts. Not
    /// for `once` actions.
    pub fn with_retry_rules(mut self, rules: impl IntoIterator<Item = Rule>) -> Self {
        self.binding.retries = rules.into_iter().collect();
        self
    }

    /// How long a task may wait for its first attempt, for admission or parked.
    pub fn with_schedule_to_start(mut self, timeout: Duration) -> Self {
        self.binding.schedule_to_start_ms = Some(timeout.as_millis() as u64);
        self
    }

    /// After how long an attempt of a `read` or `idempotent` action gets a second one beside it.
    pub fn with_hedge(mut self, delay: Duration) -> Self {
        self.binding.hedge_ms = Some(delay.as_millis() as u64);
        self
    }

    /// Keeps the answers of `read` actions, for tasks that get none and name no fallback of their
    /// own.
    pub fn with_cache(mut self, max_age: Duration) -> Self {
        self.binding.cache_max_age_ms = Some(max_age.as_millis() as u64);
        self
    }

    /// How many earlier answers are kept; by default [`AnswerLimits::default`].
    pub fn with_answer_limits(mut self, limits: AnswerLimits) -> Self {
        self.answers = limits;
        self
    }

    /// What is done when nobody knows whether a call happened.
    pub fn with_on_unknown(mut self, on_unknown: OnUnknown) -> Self {
        self.binding.on_unknown = Some(on_unknown);
        self
    }

    /// What is done when a task is out of options.
    pub fn with_on_exhausted(mut self, on_exhausted: OnExhausted) -> Self {
        self.binding.on_exhausted = Some(on_exhausted);
        self
    }

    /// How long a person may take, and who is asked then.
    pub fn with_review(mut self, review: ReviewPolicy) -> Self {
        self.binding.review = review;
        self
    }

    /// How many earlier answers are kept.
    pub fn answer_limits(&self) -> AnswerLimits {
        self.answers
    }

    /// What decisions depend on, if the connection is served by a plugin with this manifest.
    pub fn binding_policy_for(&self, manifest: Option<&Manifest>) -> Binding {
        let mut binding = self.binding_policy();
        let is_llm = manifest.is_some_and(|manifest| manifest.kind == Kind::Llm);
        if is_llm && !self.attempts_chosen {
            binding.attempts_max = LLM_ATTEMPTS;
        }
        binding
    }
}

/// Reads what a section says of tasks.
pub(super) fn read(section: &Section<'_>, binding: &mut Binding) -> Result<(), Error> {
    if let Some(retry) = section.section("retry")? {
        binding.retries = rules(&retry)?;
    }
    if let Some(timeout) = section.section("timeout")? {
        let item = timeout.get("schedule-to-start");
        binding.schedule_to_start_ms = item.map(|item| item.duration_ms(MONTH)).transpose()?;
    }
    if let Some(hedge) = section.section("hedge")? {
        hedge.only(&["delay"])?;
        let delay = hedge.require("delay", "write after how long: `delay = \"200ms\"`")?;
        binding.hedge_ms = Some(delay.duration_ms(MONTH)?);
    }
    if let Some(cache) = section.section("cache")? {
        let item = cache.get("max-age");
        binding.cache_max_age_ms = item.map(|item| item.duration_ms(MONTH)).transpose()?;
    }
    if let Some(item) = section.get("on-unknown") {
        binding.on_unknown = Some(item.choice(&[
            ("lookup", OnUnknown::Lookup),
            ("repeat", OnUnknown::Repeat),
            ("review", OnUnknown::Review),
        ])?);
    }
    if let Some(item) = section.get("on-exhausted") {
        binding.on_exhausted = Some(item.choice(&[
            ("fault", OnExhausted::Fault),
            ("review", OnExhausted::Review),
            ("dead-letter", OnExhausted::DeadLetter),
        ])?);
    }
    if let Some(review) = section.section("review")? {
        binding.review = reviewed(&review)?;
    }
    Ok(())
}

/// Reads how many earlier answers are kept.
pub(super) fn answers(section: &Section<'_>) -> Result<AnswerLimits, Error> {
    let mut limits = AnswerLimits::default();
    let Some(cache) = section.section("cache")? else {
        return Ok(limits);
    };
    cache.only(&["max-age", "entries", "bytes"])?;
    if let Some(item) = cache.get("entries") {
        limits.entries_max = item.integer(1, ENTRIES_MAX)? as usize;
    }
    if let Some(item) = cache.get("bytes") {
        limits.bytes_max = usize::try_from(item.bytes()?).unwrap_or(usize::MAX);
    }
    Ok(limits)
}

fn rules(retry: &Section<'_>) -> Result<Vec<Rule>, Error> {
    let Some(list) = retry.get("rules") else {
        return Ok(Vec::new());
    };
    few(&list, list.items()?)?.iter().map(rule).collect()
}

fn rule(item: &Item<'_>) -> Result<Rule, Error> {
    let section = item.section()?;
    section.only(&["class", "code", "attempts", "delay", "factor", "max-delay"])?;
    let class = |item: &Item<'_>| {
        item.choice(&[
            ("rate-limited", Class::RateLimited),
            ("timeout", Class::Timeout),
            ("unavailable", Class::Unavailable),
        ])
    };
    let classes = match section.get("class") {
        None => Vec::new(),
        Some(list) => {
            let classes = few(&list, list.items()?)?;
            classes.iter().map(class).collect::<Result<_, _>>()?
        }
    };
    let codes = match section.get("code") {
        None => Vec::new(),
        Some(list) => few(&list, list.texts()?)?,
    };
    let attempts = section.get("attempts");
    let attempts = attempts
        .map(|item| item.integer(1, ATTEMPTS_MAX))
        .transpose()?;
    let waits = ["delay", "factor", "max-delay"];
    let waits = waits.iter().any(|key| section.get(key).is_some());
    Ok(Rule {
        classes,
        codes,
        attempts_max: attempts.map(|n| n as u32),
        backoff: if waits {
            Some(backoff(&section)?)
        } else {
            None
        },
    })
}

fn few<T>(item: &Item<'_>, list: Vec<T>) -> Result<Vec<T>, Error> {
    if (1..=LIST_MAX).contains(&list.len()) {
        return Ok(list);
    }
    let problem = format!("it has {} entries", list.len());
    Err(item.refuse(problem, format!("write 1 to {LIST_MAX}, or leave it out")))
}

fn reviewed(section: &Section<'_>) -> Result<ReviewPolicy, Error> {
    section.only(&["deadline", "on-deadline", "escalate-to"])?;
    let deadline = section.require("deadline", "write how long a person may take: \"4h\"")?;
    let escalate_to = match section.get("escalate-to") {
        None => Vec::new(),
        Some(list) => few(&list, list.texts()?)?,
    };
    let named = !escalate_to.is_empty();
    let on_deadline = match section.get("on-deadline") {
        None if named => OnDeadline::Escalate,
        None => OnDeadline::Reject,
        Some(item) => {
            let chosen = item.choice(&[
                ("reject", OnDeadline::Reject),
                ("escalate", OnDeadline::Escalate),
            ])?;
            if named != (chosen == OnDeadline::Escalate) {
                return Err(item.refuse(
                    "`on-deadline = \"escalate\"` and `escalate-to` go together",
                    "name in `escalate-to` who is asked next, or write `on-deadline = \"reject\"` alone",
                ));
            }
            chosen
        }
    };
    Ok(ReviewPolicy {
        deadline_ms: Some(deadline.duration_ms(MONTH)?),
        on_deadline,
        escalate_to,
    })
}
