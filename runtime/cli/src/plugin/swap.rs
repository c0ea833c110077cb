//! `cofferdam plugin swap | promote | rollback`

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::Args;
use cofferdam::control::Request;
use cofferdam::{CanaryConfig, Generations, Swapped};
use serde::de::DeserializeOwned;

use super::history::{lines, table_of};
use crate::context::{Context, block_on};
use crate::exit::usage;
use crate::output;

pub const EXAMPLES: &str = "\
The new plugin is checked as at the start, compared with the one that serves, and asked whether what
is behind it works. Whatever is wrong, the old one stays and the reason is told. Calls under way end
on the plugin that they began on; no call is lost and none waits. The process that has the store open
does it; if there is none, the next one to open it begins with the new plugin.

Examples:
  cofferdam plugin swap crm ./hubspot-1.3.wasm
  cofferdam plugin swap crm ./hubspot-1.3.wasm --canary 10% --for 5m
  cofferdam plugin promote crm
  cofferdam plugin rollback crm";

/// What `plugin swap` takes.
#[derive(Debug, Args)]
pub struct SwapArgs {
    /// The connection
    connection: String,
    /// The new plugin: a component, its folder, a packed artifact, or a name as in a configuration
    artifact: String,
    /// Try it on this share of the calls first, such as 10%
    #[arg(long, value_name = "SHARE", value_parser = share)]
    canary: Option<u8>,
    /// How long to try it before it takes over by itself
    #[arg(long = "for", value_name = "DURATION", default_value = "10m", requires = "canary", value_parser = crate::args::duration)]
    duration: Duration,
    /// Take it although it lacks what the old one has, or its check fails
    #[arg(long)]
    force: bool,
}

/// What `plugin promote` and `plugin rollback` take.
#[derive(Debug, Args)]
pub struct ConnectionArg {
    /// The connection
    connection: String,
}

impl ConnectionArg {
    pub fn connection(&self) -> &str {
        &self.connection
    }
}

fn share(text: &str) -> Result<u8, String> {
    let number = text.strip_suffix('%').unwrap_or(text).parse::<u8>();
    match number {
        Ok(share @ 1..=100) => Ok(share),
        _ => Err("write a share from 1% to 100%, such as 10%".to_owned()),
    }
}

pub fn run(context: &Context, args: &SwapArgs) -> Result<ExitCode> {
    let config = context.config()?;
    let artifact = super::locate(&config, &args.artifact)?;
    let artifact = absolute(&artifact)?;
    let canary = args.canary.map(|share| {
        let duration_ms = u64::try_from(args.duration.as_millis()).unwrap_or(u64::MAX);
        CanaryConfig::new(share, duration_ms)
    });
    let canary = canary.transpose().map_err(|bad| usage(bad.to_string()))?;
    let request = Request::Swap {
        connection: args.connection.clone(),
        artifact,
        canary,
        force: args.force,
    };
    let swapped: Swapped = ask(context, request)?;
    if context.is_json() {
        output::json(&swapped)?;
        return Ok(ExitCode::SUCCESS);
    }
    for change in &swapped.changes {
        let kind = if change.breaking {
            "breaking"
        } else {
            "changed"
        };
        eprintln!("{kind}: `{}`: {}", change.action, change.what);
    }
    tell(&swapped.generations)
}

pub fn promote(context: &Context, args: &ConnectionArg) -> Result<ExitCode> {
    let connection = args.connection.clone();
    changed(context, Request::Promote { connection })
}

pub fn roll_back(context: &Context, args: &ConnectionArg) -> Result<ExitCode> {
    let connection = args.connection.clone();
    changed(context, Request::Rollback { connection })
}

fn changed(context: &Context, request: Request) -> Result<ExitCode> {
    let generations: Generations = ask(context, request)?;
    if context.is_json() {
        output::json(&generations)?;
        return Ok(ExitCode::SUCCESS);
    }
    tell(&generations)
}

fn tell(generations: &Generations) -> Result<ExitCode> {
    table_of(&lines(generations))?;
    Ok(ExitCode::SUCCESS)
}

fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).map_err(|error| {
        usage(format!(
            "cannot tell where `{}` is: {error}",
            path.display()
        ))
    })
}

/// Asks the process that has the store open; without one, opens the store itself and leaves the
/// runs in it where they are.
pub fn ask<T: DeserializeOwned>(context: &Context, request: Request) -> Result<T> {
    let store = context.store_path()?;
    let answer = block_on(async {
        if let Some(answer) = cofferdam::control::ask(&store, &request).await? {
            return Ok(answer);
        }
        if !matches!(request, Request::Swap { .. } | Request::Breaker { .. }) {
            context.store_is_there()?;
        }
        let runtime = cofferdam::Runtime::builder(context.config()?)
            .idle()
            .open()
            .await?;
        let answer = runtime.perform(request).await;
        runtime.shutdown().await;
        Ok(answer?)
    })?;
    Ok(serde_json::from_value(answer)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_a_percentage() {
        assert_eq!(share("10%"), Ok(10));
        assert_eq!(share("100"), Ok(100));
        for bad in ["0%", "101%", "ten", "", "-1%", "1.5%"] {
            assert!(share(bad).is_err(), "{bad}");
        }
    }
}
