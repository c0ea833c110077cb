//! What a workflow takes in: `listen`, and `schedule`.

use std::sync::Arc;

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Block, Export, Kind, Output, Task, Workflow};
use crate::expr::{Expr, Template};

/// `listen`.
#[derive(Debug)]
pub struct Listen {
    /// Which events are taken, and when it has enough.
    pub to: Strategy,
    /// What of an event is its value.
    pub read: Read,
    /// What is done with each event.
    pub foreach: Option<ListenEach>,
}

/// What of an event is its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Read {
    /// Its payload.
    #[default]
    Data,
    /// All of it, attributes and payload.
    Envelope,
    /// Its payload as text, as it would be sent.
    Raw,
}

/// `foreach` of a `listen`.
#[derive(Debug)]
pub struct ListenEach {
    /// Variable of the event, without `$`.
    pub item: String,
    /// Variable of its index, without `$`.
    pub at: String,
    /// What is run for each event, one after the other, with the task's input.
    pub body: Option<Arc<Block>>,
    /// Applied to what the body gave, or to the event if there is no body.
    pub output: Output,
    /// Makes the new context after each event.
    pub export: Export,
}

/// Which events are taken, and when that is enough.
#[derive(Debug)]
pub enum Strategy {
    /// One event.
    One(Filter),
    /// One event for each of these, in any order.
    All(Vec<Filter>),
    /// Events that any of these lets through, every event if there are none, until that is enough.
    Any {
        /// The filters.
        filters: Vec<Filter>,
        /// What ends it.
        until: Until,
    },
}

/// What ends `any`.
#[derive(Debug)]
pub enum Until {
    /// The first event.
    First,
    /// An expression, evaluated on all that was taken after each event.
    Holds(Expr),
    /// Other events, which are not part of the output.
    Consumed(Box<Strategy>),
    /// Nothing: it goes on until something around it ends. What was taken is not kept.
    Never,
}

/// Which event is let through.
#[derive(Debug)]
pub struct Filter {
    /// What attributes, and the payload under `data`, must be.
    pub with: IndexMap<String, Match>,
    /// What connects events with each other and with the run, by name.
    pub correlate: IndexMap<String, Correlation>,
}

/// What a value must be.
#[derive(Debug)]
pub enum Match {
    /// This value; an object needs to have these members, and may have more.
    Is(Value),
    /// Evaluated on the value: `true` lets it through, `false` and `null` do not, and any other
    /// result must be the value itself.
    Holds(Expr),
    /// An object with members that match.
    Members(IndexMap<String, Match>),
}

/// One `correlate`.
#[derive(Debug)]
pub struct Correlation {
    /// Evaluated on the event with its attributes; `null` lets nothing through.
    pub from: Expr,
    /// What it must give; evaluated when the task begins. Without it the first event decides, for
    /// all filters that have a correlation of this name.
    pub expect: Option<Template>,
}

impl Strategy {
    /// The filters for what is taken.
    pub fn filters(&self) -> &[Filter] {
        match self {
            Self::One(filter) => std::slice::from_ref(filter),
            Self::All(filters) | Self::Any { filters, .. } => filters,
        }
    }

    /// Whether every event is taken.
    pub fn takes_all(&self) -> bool {
        matches!(self, Self::Any { filters, .. } if filters.is_empty())
    }

    /// The events that end it, if events do.
    pub fn until(&self) -> Option<&Self> {
        match self {
            Self::Any {
                until: Until::Consumed(until),
                ..
            } => Some(until),
            Self::One(_) | Self::All(_) | Self::Any { .. } => None,
        }
    }
}

/// `schedule`: when a workflow is run without being asked.
#[derive(Debug)]
pub enum Schedule {
    /// At instants of a calendar.
    Cron(crate::cron::Cron),
    /// Every so many milliseconds, whether or not the run before has ended.
    Every(u64),
    /// So many milliseconds after the end of the run before.
    After(u64),
    /// For events; they are the run's input, as a list.
    On {
        /// Which, and how many.
        to: Strategy,
        /// What of an event is its value.
        read: Read,
    },
}

impl Workflow {
    /// The types of events that its tasks and its schedule name; also those of workflows that it
    /// runs. In the order of the text.
    pub fn event_types(&self) -> Vec<&str> {
        let mut types = Vec::new();
        if let Some(Schedule::On { to, .. }) = &self.schedule {
            of_strategy(to, &mut types);
        }
        in_block(&self.body, &mut types);
        types
    }
}

fn in_block<'w>(block: &'w Block, types: &mut Vec<&'w str>) {
    block.tasks.iter().for_each(|t| in_task(t, types));
}

fn in_task<'w>(task: &'w Task, types: &mut Vec<&'w str>) {
    match &task.kind {
        Kind::Listen(listen) => {
            of_strategy(&listen.to, types);
            let body = listen.foreach.iter().filter_map(|e| e.body.as_deref());
            body.for_each(|b| in_block(b, types));
        }
        Kind::Do(body) => in_block(body, types),
        Kind::For(each) => in_block(&each.body, types),
        Kind::Fork(fork) => fork.branches.iter().for_each(|t| in_task(t, types)),
        Kind::Try(attempt) => {
            in_block(&attempt.body, types);
            attempt.catch.body.iter().for_each(|b| in_block(b, types));
        }
        Kind::Run { workflow, .. } => in_block(&workflow.body, types),
        Kind::Set(_)
        | Kind::Call(_)
        | Kind::Switch(_)
        | Kind::Raise(_)
        | Kind::Wait(_)
        | Kind::Emit(_) => {}
    }
}

fn of_strategy<'w>(strategy: &'w Strategy, types: &mut Vec<&'w str>) {
    let until = strategy.until().map_or(&[][..], Strategy::filters);
    for filter in strategy.filters().iter().chain(until) {
        if let Some(Match::Is(Value::String(kind))) = filter.with.get("type") {
            types.push(kind);
        }
    }
}
