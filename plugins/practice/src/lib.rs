//! A service that fails when it is told to: to try a policy before it is needed, and to drill.
//!
//! There is nothing outside: what "happened" is in the connection's own small store, so that a
//! workflow shows what retry, breaker, parking, failover, lookup and compensation do without any
//! account anywhere. Every action answers how often it was asked (`asked`) and how often its
//! effect took place (`happened`), under the call's idempotency key.
//!
//! Settings, none of them needed: `fail`, as in an input, for every call that does not say how to
//! fail itself; `takes_ms`, how long every call takes.
//!
//! Not for anything but practice: what it keeps is never cleared away.

mod memory;
mod model;
#[cfg(test)]
mod tests;

use std::time::Duration;

use cofferdam_sdk::prelude::*;

pub use model::*;

/// The connector and its settings.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Practice {
    fail: Option<Fail>,
    takes_ms: u32,
}

#[connector(
    name = "practice",
    description = "A service that fails when it is told to: to try policies, and to drill"
)]
impl Practice {
    /// Answers its input's value and changes nothing.
    #[action(effect = read, example = r#"{"value": 1}"#)]
    fn read(&self, call: &Call, input: Request) -> Result<Answer, Failure> {
        self.serve(call, input, Repeat::Nothing)
    }

    /// Keeps a value; the same key keeps it once, however often it is asked.
    #[action(
        effect = idempotent,
        compensated_by = "undo",
        lookup = find,
        example = r#"{"value": {"email": "ada@example.com"}, "fail": {"times": 2}}"#
    )]
    fn keep(&self, call: &Call, input: Request) -> Result<Answer, Failure> {
        self.serve(call, input, Repeat::Once)
    }

    /// Pays: asked twice, it pays twice. It can be asked whether it has paid.
    #[action(
        effect = once,
        compensated_by = "undo",
        lookup = find,
        example = r#"{"value": 4900, "fail": {"after": true}}"#
    )]
    fn pay(&self, call: &Call, input: Request) -> Result<Answer, Failure> {
        self.serve(call, input, Repeat::Again)
    }

    /// Posts: asked twice, it posts twice, and nobody can ask whether it has.
    #[action(effect = once, compensated_by = "undo", example = r#"{"value": "hello"}"#)]
    fn post(&self, call: &Call, input: Request) -> Result<Answer, Failure> {
        self.serve(call, input, Repeat::Again)
    }

    /// Undoes what happened under a key; fine if nothing did.
    #[action(effect = idempotent, example = r#"{"key": "run/task"}"#)]
    fn undo(&self, call: &Call, input: Undo) -> Result<Undone, Failure> {
        let asked = memory::ask(&call.idempotency_key)?;
        self.fails(call, asked, input.fail.as_ref(), || Ok(()))?;
        let was = memory::happened(&input.key)?.is_some();
        memory::forget(&input.key)?;
        Ok(Undone { was })
    }

    /// Goes down: the next calls and checks fail, as many as it is told.
    #[action(effect = idempotent, example = r#"{"calls": 5}"#)]
    fn go_down(&self, input: GoDown) -> Result<Down, Failure> {
        memory::set_down(input.calls)?;
        Ok(Down { calls: input.calls })
    }

    fn check(&self) -> Result<Health, Failure> {
        self.is_up()?;
        Ok(Health::healthy("it is up"))
    }

    fn find(&self, key: &str) -> Result<Option<Answer>, Failure> {
        memory::happened(key)
    }

    fn serve(&self, call: &Call, input: Request, repeat: Repeat) -> Result<Answer, Failure> {
        let takes_ms = input.takes_ms.unwrap_or(self.takes_ms);
        std::thread::sleep(Duration::from_millis(takes_ms.into()));
        self.is_up()?;
        let key = &call.idempotency_key;
        let asked = memory::ask(key)?;
        let before = memory::happened(key)?;
        let happened = repeat.happened(before.as_ref().map_or(0, |answer| answer.happened));
        let answer = Answer {
            value: before.map_or(input.value, |answer| answer.value),
            key: key.clone(),
            asked,
            happened,
        };
        self.fails(call, asked, input.fail.as_ref(), || {
            memory::keep(&answer, repeat)
        })?;
        Ok(answer)
    }

    /// Does what is asked for, unless this attempt is one of those that fail.
    fn fails(
        &self,
        call: &Call,
        asked: u32,
        fail: Option<&Fail>,
        happen: impl FnOnce() -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let fail = fail.or(self.fail.as_ref());
        let Some(fail) = fail.filter(|fail| asked <= fail.times) else {
            return happen();
        };
        if fail.after {
            happen()?;
        }
        Err(fail.failure(asked, &call.connection))
    }

    fn is_up(&self) -> Result<(), Failure> {
        if memory::take_down()? {
            let message = "the service is down, as it was told";
            return Err(Failure::new(Class::Unavailable, "practice.down", message));
        }
        Ok(())
    }
}
