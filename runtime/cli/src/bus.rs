//! Asking about events and schedules: the process that has the store open, or the store itself.

use anyhow::Result;
use cofferdam::control::Request;
use cofferdam::{Config, Runtime};
use serde::de::DeserializeOwned;

use crate::context::{Context, block_on};
use crate::exit::storage;

/// Asks the process that has the store open; without one, opens the store itself, without plugins,
/// and leaves the runs in it where they are: they hear of events when it is next opened.
pub fn ask<T: DeserializeOwned>(context: &Context, request: Request) -> Result<T> {
    let store = context.store_path()?;
    let answer = block_on(async {
        if let Some(answer) = cofferdam::control::ask(&store, &request).await? {
            return Ok(answer);
        }
        if !matches!(request, Request::Publish { .. }) && !store.exists() {
            return Err(storage(format!(
                "CD0217: there is no store at `{}`\nhelp: `cofferdam run` makes one; name another with --data DIR",
                store.display()
            )));
        }
        let config = Config::new().with_store(store);
        let runtime = Runtime::builder(config).idle().open().await?;
        let answer = runtime.perform(request).await;
        runtime.shutdown().await;
        Ok(answer?)
    })?;
    Ok(serde_json::from_value(answer)?)
}
