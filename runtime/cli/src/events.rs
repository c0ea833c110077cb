//! `cofferdam events …`

use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Subcommand};
use cofferdam::control::Request;
use cofferdam::{EventLetter, EventRow, Published, SubscriberState};
use serde_json::Value;

use crate::bus::ask;
use crate::context::Context;
use crate::runs::instant;
use crate::{input, output};

const LIST_EXAMPLES: &str = "\
Shows events that are still kept, the oldest first: the last ones, or those from a number on.

Examples:
  cofferdam events list
  cofferdam events list --from 1200 --limit 50
  cofferdam events list --output json | jq '.[].event.data'";

const PUBLISH_EXAMPLES: &str = "\
Publishes an event, or a list of events, in the JSON form of CloudEvents 1.0. Those with the source
and id of an event that is kept are not published again. Prints the number of each. Works beside
`cofferdam serve`, and without: then those who wait hear of it when the store is next opened.

Examples:
  cofferdam events publish paid.json
  echo '{\"specversion\": \"1.0\", \"id\": \"1\", \"source\": \"/shop\", \"type\": \"order.paid\"}' |
    cofferdam events publish -";

const REPLAY_EXAMPLES: &str = "\
Sets a subscriber back (or forward) to a number, or has its dead letters told to it again. A
subscriber that is open hears of the first when it is opened again.

Examples:
  cofferdam events replay billing --from 1200
  cofferdam events replay billing --dead";

const SUBSCRIBERS_EXAMPLES: &str = "\
A subscriber is a program that embeds the runtime and reads events. Its place is kept by its name.

Examples:
  cofferdam events subscribers
  cofferdam events dead";

/// What can be done with events.
#[derive(Debug, Subcommand)]
pub enum EventsVerb {
    /// List events that were published, the oldest first
    #[command(after_long_help = LIST_EXAMPLES)]
    List(ListArgs),
    /// Publish an event
    #[command(after_long_help = PUBLISH_EXAMPLES)]
    Publish(PublishArgs),
    /// List who reads events, and how far they have come
    #[command(after_long_help = SUBSCRIBERS_EXAMPLES)]
    Subscribers,
    /// List events that somebody could do nothing with
    #[command(after_long_help = SUBSCRIBERS_EXAMPLES)]
    Dead,
    /// Tell a subscriber of events again
    #[command(after_long_help = REPLAY_EXAMPLES)]
    Replay(ReplayArgs),
}

/// What `list` takes.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// The number of the first event [default: as few before the end as fit]
    #[arg(long, value_name = "NUMBER")]
    from: Option<u64>,
    /// How many at most
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = crate::args::count)]
    limit: usize,
}

/// What `publish` takes.
#[derive(Debug, Args)]
pub struct PublishArgs {
    /// The event or events: a JSON file, or `-` for standard input
    #[arg(value_name = "FILE|-")]
    file: String,
}

/// What `replay` takes.
#[derive(Debug, Args)]
#[command(group(clap::ArgGroup::new("what").required(true).args(["from", "dead"])))]
pub struct ReplayArgs {
    /// The subscriber
    subscriber: String,
    /// The number of the first event that it gets
    #[arg(long, value_name = "NUMBER")]
    from: Option<u64>,
    /// Its dead letters, before anything else
    #[arg(long)]
    dead: bool,
}

pub fn run(context: &Context, verb: &EventsVerb) -> Result<ExitCode> {
    match verb {
        EventsVerb::List(args) => list(context, args),
        EventsVerb::Publish(args) => publish(context, args),
        EventsVerb::Subscribers => subscribers(context),
        EventsVerb::Dead => dead(context),
        EventsVerb::Replay(args) => replay(context, args),
    }
}

fn list(context: &Context, args: &ListArgs) -> Result<ExitCode> {
    let (from, limit) = (args.from, args.limit);
    let events: Vec<EventRow> = ask(context, Request::Events { from, limit })?;
    if context.is_json() {
        output::json(&events)?;
        return Ok(ExitCode::SUCCESS);
    }
    let text = |value: Option<&str>| value.unwrap_or("-").to_owned();
    let rows: Vec<[String; 6]> = events
        .iter()
        .map(|row| {
            [
                row.seq
                    .map_or_else(|| "-".to_owned(), |seq| seq.to_string()),
                instant(row.at_ms),
                text(row.event["type"].as_str()),
                text(row.event["source"].as_str()),
                text(row.run.as_deref()),
                text(row.task.as_deref()),
            ]
        })
        .collect();
    if rows.is_empty() {
        eprintln!("no events in {}", context.store_path()?.display());
    }
    output::table(["NUMBER", "AT", "TYPE", "SOURCE", "RUN", "TASK"], &rows)?;
    Ok(ExitCode::SUCCESS)
}

fn publish(context: &Context, args: &PublishArgs) -> Result<ExitCode> {
    let events = match input::from_file(&args.file)? {
        Value::Array(events) => events,
        event => vec![event],
    };
    let mut told = Vec::new();
    for event in events {
        let published: Published = ask(context, Request::Publish { event })?;
        if !context.is_json() {
            let note = if published.duplicate {
                " (published before)"
            } else {
                ""
            };
            println!("{}{note}", published.seq);
        }
        told.push(published);
    }
    if context.is_json() {
        output::json(&told)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn subscribers(context: &Context) -> Result<ExitCode> {
    let states: Vec<SubscriberState> = ask(context, Request::Subscribers)?;
    if context.is_json() {
        output::json(&states)?;
        return Ok(ExitCode::SUCCESS);
    }
    let rows: Vec<[String; 7]> = states
        .iter()
        .map(|state| {
            [
                state.name.clone(),
                state.done_seq.to_string(),
                state.lag.to_string(),
                state.attempts.to_string(),
                state.missed.to_string(),
                state.dead_letters.to_string(),
                instant(state.at_ms),
            ]
        })
        .collect();
    if rows.is_empty() {
        eprintln!(
            "nobody reads the events in {}",
            context.store_path()?.display()
        );
    }
    let head = [
        "SUBSCRIBER",
        "DONE",
        "BEHIND",
        "ATTEMPTS",
        "MISSED",
        "DEAD LETTERS",
        "MOVED",
    ];
    output::table(head, &rows)?;
    Ok(ExitCode::SUCCESS)
}

fn dead(context: &Context) -> Result<ExitCode> {
    let letters: Vec<EventLetter> = ask(context, Request::DeadEvents)?;
    if context.is_json() {
        output::json(&letters)?;
        return Ok(ExitCode::SUCCESS);
    }
    let rows: Vec<[String; 5]> = letters
        .iter()
        .map(|letter| {
            [
                letter.seq.to_string(),
                instant(letter.at_ms),
                letter.event["type"].as_str().unwrap_or("-").to_owned(),
                letter.subscriber.clone(),
                letter.reason.clone(),
            ]
        })
        .collect();
    if rows.is_empty() {
        eprintln!("no dead events in {}", context.store_path()?.display());
    }
    output::table(["NUMBER", "SINCE", "TYPE", "FOR", "REASON"], &rows)?;
    Ok(ExitCode::SUCCESS)
}

fn replay(context: &Context, args: &ReplayArgs) -> Result<ExitCode> {
    let subscriber = args.subscriber.clone();
    let from = args.from;
    let told: Value = ask(context, Request::ReplayEvents { subscriber, from })?;
    if context.is_json() {
        output::json(&told)?;
    } else if let Some(count) = told.as_u64() {
        eprintln!(
            "{count} dead letters are told to `{}` again",
            args.subscriber
        );
    }
    Ok(ExitCode::SUCCESS)
}
