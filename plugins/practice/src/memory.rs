//! What the service remembers: a few keys in the connection's small store.

use cofferdam_sdk::prelude::*;
use serde_json::{from_slice, to_vec};

use crate::model::{Answer, Repeat};

/// How many calls and checks still fail.
const DOWN: &str = "down";

fn read<T: serde::de::DeserializeOwned>(key: &str) -> Result<Option<T>, Failure> {
    let broken = |error| Failure::internal("practice.memory", format!("`{key}`: {error}"));
    kv::get(key)?
        .map(|bytes| from_slice(&bytes).map_err(broken))
        .transpose()
}

fn write(key: &str, value: &impl Serialize) -> Result<(), Failure> {
    let bytes = to_vec(value)
        .map_err(|error| Failure::internal("practice.memory", format!("`{key}`: {error}")))?;
    kv::set(key, &bytes)
}

/// What happened under a call's key.
pub(crate) fn happened(key: &str) -> Result<Option<Answer>, Failure> {
    read(&format!("happened/{key}"))
}

/// Remembers what happened; reads leave nothing.
pub(crate) fn keep(answer: &Answer, repeat: Repeat) -> Result<(), Failure> {
    if repeat == Repeat::Nothing {
        return Ok(());
    }
    write(&format!("happened/{}", answer.key), answer)
}

/// Forgets what happened under a call's key.
pub(crate) fn forget(key: &str) -> Result<(), Failure> {
    kv::delete(&format!("happened/{key}"))
}

/// Counts one more attempt under a call's key, and answers which it is.
pub(crate) fn ask(key: &str) -> Result<u32, Failure> {
    let name = format!("asked/{key}");
    let asked = read::<u32>(&name)?.unwrap_or(0).saturating_add(1);
    write(&name, &asked)?;
    Ok(asked)
}

/// The next calls and checks fail, so many.
pub(crate) fn set_down(calls: u32) -> Result<(), Failure> {
    write(DOWN, &calls)
}

/// Whether the service is down; each asking brings it nearer to its end.
pub(crate) fn take_down() -> Result<bool, Failure> {
    let Some(left) = read::<u32>(DOWN)?.filter(|left| *left > 0) else {
        return Ok(false);
    };
    set_down(left - 1)?;
    Ok(true)
}
