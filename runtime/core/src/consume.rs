//! Taking events in: what a filter lets through, and when a strategy has enough.
//!
//! [`Collector`] is the state of one strategy, shared by the `listen` task and by schedules that
//! are started by events. It decides; where events come from is not its business. [`Watch`] is the
//! part of a filter that can be looked up: whoever has many collectors keeps their watches in an
//! index, and tells an event only to those that it may concern.
//!
//! An expression that fails on an event does not let it through: what others publish must not
//! bring a run down.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::cloud_event::CloudEvent;
use crate::expr::{Expr, Template};
use crate::workflow::{Filter, Match, Read, Strategy, Until};

/// How far a strategy has come.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Collector {
    /// By filter, those of `until` behind the others: what correlations must be.
    expected: Vec<BTreeMap<String, Value>>,
    /// What correlations without an expectation turned out to be, by name.
    learned: BTreeMap<String, Value>,
    /// Which filters of `all` have their event; those of `until` behind the others.
    taken: Vec<bool>,
}

/// What a strategy does with an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing: it is none of its events.
    Ignored,
    /// It is taken, and that may be enough.
    Taken {
        /// Whether it is enough. For `any` with `until` the caller has to ask its condition.
        complete: bool,
    },
    /// It is one of those that end the strategy, and not the last one that is needed.
    Noted,
    /// It ends the strategy, and is not part of what was taken.
    Ends,
}

/// Evaluates an expression of the strategy on a value; none if it fails.
pub type Evaluate<'a> = &'a dyn Fn(&Expr, &Value) -> Option<Value>;

impl Collector {
    /// Begins: `evaluate` gives what correlations must be.
    ///
    /// # Errors
    /// Those of `evaluate`.
    pub fn new<E>(
        strategy: &Strategy,
        evaluate: impl Fn(&Template) -> Result<Value, E>,
    ) -> Result<Self, E> {
        let mut expected = Vec::new();
        for filter in all_filters(strategy) {
            let mut own = BTreeMap::new();
            for (name, correlation) in &filter.correlate {
                if let Some(expect) = &correlation.expect {
                    own.insert(name.clone(), evaluate(expect)?);
                }
            }
            expected.push(own);
        }
        Ok(Self {
            taken: vec![false; expected.len()],
            expected,
            learned: BTreeMap::new(),
        })
    }

    /// Takes an event, or does not. Unchanged if the verdict is [`Verdict::Ignored`].
    pub fn take(
        &mut self,
        strategy: &Strategy,
        event: &CloudEvent,
        evaluate: Evaluate<'_>,
    ) -> Verdict {
        let envelope = event.to_value();
        let own = strategy.filters().len();
        if let Some(until) = strategy.until()
            && let Some(enough) = self.find(until, own, event, &envelope, evaluate)
        {
            return if enough {
                Verdict::Ends
            } else {
                Verdict::Noted
            };
        }
        match self.find(strategy, 0, event, &envelope, evaluate) {
            Some(complete) => Verdict::Taken { complete },
            None => Verdict::Ignored,
        }
    }

    /// Finds the filter that takes the event, and says whether the strategy then has enough.
    fn find(
        &mut self,
        strategy: &Strategy,
        first: usize,
        event: &CloudEvent,
        envelope: &Value,
        evaluate: Evaluate<'_>,
    ) -> Option<bool> {
        let filters = strategy.filters();
        let is_all = matches!(strategy, Strategy::All(_));
        if strategy.takes_all() {
            return Some(is_first_enough(strategy));
        }
        for (at, filter) in filters.iter().enumerate() {
            let at = first + at;
            if is_all && self.taken.get(at).copied().unwrap_or(true) {
                continue;
            }
            let Some(learned) = self.fits(filter, at, event, envelope, evaluate) else {
                continue;
            };
            self.learned.extend(learned);
            if let Some(taken) = self.taken.get_mut(at) {
                *taken = true;
            }
            let all = self.taken.iter().skip(first).take(filters.len());
            return Some(if is_all {
                all.into_iter().all(|t| *t)
            } else {
                is_first_enough(strategy)
            });
        }
        None
    }

    /// Whether a filter lets an event through; with what it teaches about correlations.
    fn fits(
        &self,
        filter: &Filter,
        at: usize,
        event: &CloudEvent,
        envelope: &Value,
        evaluate: Evaluate<'_>,
    ) -> Option<BTreeMap<String, Value>> {
        for (attribute, wanted) in &filter.with {
            let value = match attribute.as_str() {
                "data" => event.data(),
                other => event.get(other)?,
            };
            if !holds(wanted, value, evaluate) {
                return None;
            }
        }
        let mut learned = BTreeMap::new();
        for (name, correlation) in &filter.correlate {
            let found = evaluate(&correlation.from, envelope).filter(|v| !v.is_null())?;
            let expected = self.expected.get(at).and_then(|own| own.get(name));
            match expected.or_else(|| self.learned.get(name)) {
                Some(expected) if canonical(expected) != canonical(&found) => return None,
                Some(_) => {}
                None => {
                    learned.insert(name.clone(), found);
                }
            }
        }
        Some(learned)
    }

    /// What the events that may concern this strategy have in common, by filter.
    pub fn watches(&self, strategy: &Strategy) -> Vec<Watch> {
        let mut watches: Vec<Watch> = all_filters(strategy)
            .enumerate()
            .map(|(at, filter)| Watch::new(filter, self.expected.get(at)))
            .collect();
        let until_all = strategy.until().is_some_and(Strategy::takes_all);
        if strategy.takes_all() || until_all {
            watches.push(Watch::default());
        }
        watches.dedup();
        watches
    }

    /// What correlations turned out to be, by name.
    pub fn learned(&self) -> &BTreeMap<String, Value> {
        &self.learned
    }
}

fn all_filters(strategy: &Strategy) -> impl Iterator<Item = &Filter> {
    let until = strategy.until().map_or(&[][..], Strategy::filters);
    strategy.filters().iter().chain(until)
}

fn is_first_enough(strategy: &Strategy) -> bool {
    match strategy {
        Strategy::One(_) => true,
        Strategy::All(_) => false,
        Strategy::Any { until, .. } => match until {
            Until::First => true,
            Until::Holds(_) | Until::Consumed(_) | Until::Never => false,
        },
    }
}

fn holds(wanted: &Match, value: &Value, evaluate: Evaluate<'_>) -> bool {
    match wanted {
        Match::Is(wanted) => contains(value, wanted),
        Match::Holds(expr) => match evaluate(expr, value) {
            None | Some(Value::Null) => false,
            Some(Value::Bool(holds)) => holds,
            Some(other) => canonical(&other) == canonical(value),
        },
        Match::Members(members) => members.iter().all(|(name, wanted)| {
            value
                .get(name)
                .is_some_and(|value| holds(wanted, value, evaluate))
        }),
    }
}

/// Whether a value is this one, or an object that has all these members.
fn contains(value: &Value, wanted: &Value) -> bool {
    match (value, wanted) {
        (Value::Object(value), Value::Object(wanted)) => wanted
            .iter()
            .all(|(name, wanted)| value.get(name).is_some_and(|v| contains(v, wanted))),
        (value, wanted) => canonical(value) == canonical(wanted),
    }
}

/// What of an event is its value.
pub fn read(event: &CloudEvent, read: Read) -> Value {
    match read {
        Read::Data => event.data().clone(),
        Read::Envelope => event.to_value(),
        Read::Raw => match event.data() {
            Value::Null | Value::String(_) => event.data().clone(),
            data => Value::String(data.to_string()),
        },
    }
}

/// JSON that is the same text for the same value: members in order, numbers in one form.
pub fn canonical(value: &Value) -> String {
    let mut out = String::new();
    write(value, &mut out);
    out
}

/// Recursion is bounded, since no value that is kept nests deeper than [`crate::depth::DEPTH_MAX`].
fn write(value: &Value, out: &mut String) {
    match value {
        Value::Object(members) => {
            let sorted: BTreeMap<_, _> = members.iter().collect();
            for (at, (name, value)) in sorted.into_iter().enumerate() {
                out.push(if at == 0 { '{' } else { ',' });
                out.push_str(&Value::from(name.as_str()).to_string());
                out.push(':');
                write(value, out);
            }
            out.push_str(if members.is_empty() { "{}" } else { "}" });
        }
        Value::Array(items) => {
            out.push('[');
            for item in items {
                write(item, out);
                out.push(',');
            }
            out.push(']');
        }
        Value::Number(number) => match number.as_f64() {
            // 5 and 5.0 are one number; beyond 2^53 a float cannot tell integers apart.
            Some(float) if number.is_f64() && float.fract() == 0.0 && float.abs() < 9e15 => {
                out.push_str(&(float as i64).to_string());
            }
            _ => out.push_str(&number.to_string()),
        },
        Value::Null | Value::Bool(_) | Value::String(_) => out.push_str(&value.to_string()),
    }
}

/// The part of a filter that can be looked up: events that do not fit it do not concern the filter.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Watch {
    /// What is asked of an event.
    pub shape: Shape,
    /// The answers that it must give: attributes first, then correlations.
    pub values: Vec<Value>,
}

/// Questions to an event. Filters of the same form have the same shape, so that there are as many
/// as forms of filters in workflows, and not as many as runs.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Shape {
    /// The event's type, if the filter names one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Attributes that must have a value.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attributes: Vec<String>,
    /// Expressions on the event that must give a value.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub from: Vec<String>,
    /// Attributes, or `data`, and expressions on them that must hold whatever the run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub checks: Vec<(String, String)>,
}

impl Watch {
    fn new(filter: &Filter, expected: Option<&BTreeMap<String, Value>>) -> Self {
        let mut watch = Self::default();
        for (attribute, wanted) in &filter.with {
            match wanted {
                Match::Is(Value::String(text)) if attribute == "type" => {
                    watch.shape.kind = Some(text.clone());
                }
                Match::Is(value @ Value::String(_)) if attribute != "data" => {
                    watch.shape.attributes.push(attribute.clone());
                    watch.values.push(value.clone());
                }
                Match::Holds(expr) if is_closed(expr) => {
                    let check = (attribute.clone(), expr.source().to_owned());
                    watch.shape.checks.push(check);
                }
                Match::Is(_) | Match::Holds(_) | Match::Members(_) => {}
            }
        }
        for (name, correlation) in &filter.correlate {
            if let Some(value) = expected.and_then(|own| own.get(name))
                && is_closed(&correlation.from)
            {
                watch.shape.from.push(correlation.from.source().to_owned());
                watch.values.push(value.clone());
            }
        }
        watch
    }
}

/// Whether an expression looks at nothing but its input.
fn is_closed(expr: &Expr) -> bool {
    !expr.source().contains('$')
}

impl Shape {
    /// What an event answers; none if no filter of this shape lets it through. `evaluate` gets the
    /// source of an expression and the value that it is about.
    pub fn answers(
        &self,
        event: &CloudEvent,
        evaluate: &mut dyn FnMut(&str, &Value) -> Option<Value>,
    ) -> Option<Vec<Value>> {
        if self
            .kind
            .as_deref()
            .is_some_and(|kind| kind != event.kind())
        {
            return None;
        }
        let mut values = Vec::with_capacity(self.attributes.len() + self.from.len());
        for attribute in &self.attributes {
            values.push(event.get(attribute)?.clone());
        }
        for (attribute, source) in &self.checks {
            let value = match attribute.as_str() {
                "data" => event.data(),
                other => event.get(other)?,
            };
            match evaluate(source, value)? {
                Value::Null | Value::Bool(false) => return None,
                Value::Bool(true) => {}
                other if canonical(&other) == canonical(value) => {}
                _ => return None,
            }
        }
        if !self.from.is_empty() {
            let envelope = event.to_value();
            for source in &self.from {
                values.push(evaluate(source, &envelope).filter(|v| !v.is_null())?);
            }
        }
        Some(values)
    }
}

#[cfg(test)]
mod tests;
