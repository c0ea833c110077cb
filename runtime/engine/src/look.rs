//! Questions about what a store holds, and what can be done with its runs, as data: the same
//! whether the process that has the store open is asked, or a store that nobody has open.

use std::time::Duration;

use cofferdam_core::call::Decision;
use cofferdam_core::run::Status;
use cofferdam_core::workflow::Sources;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::purge::PurgeFilter;
use crate::query::Query;
use crate::verbs::LetterFilter;
use crate::{Error, Runtime, StartOptions};

/// A question that the store alone can answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "about", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Look {
    /// [`Query::runs`]; answers a list of [`crate::RunRow`].
    Runs {
        /// Only runs that are there.
        status: Option<Status>,
        /// Only runs of this tenant.
        tenant: Option<String>,
        /// At most so many.
        limit: usize,
    },
    /// [`Query::run`]; answers a [`crate::RunView`].
    Run {
        /// The run.
        run: String,
    },
    /// Answers a list of [`crate::DeadLetter`].
    DeadLetters {
        /// Which.
        filter: LetterFilter,
    },
    /// Answers a [`crate::DeadLetter`].
    DeadLetter {
        /// The run.
        run: String,
    },
    /// Answers a list of [`crate::Review`].
    Reviews,
    /// Answers a [`crate::Review`].
    Review {
        /// The run.
        run: String,
        /// The task.
        task: String,
    },
    /// Answers a list of [`crate::EventRow`].
    Events,
}

/// Something to be done with runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Act {
    /// [`Runtime::define`] and [`Runtime::start_with`]; answers the run's id.
    Start {
        /// The workflow's text and those that it may run.
        sources: Sources,
        /// Its input.
        input: Value,
        /// How.
        options: StartOptions,
    },
    /// [`Runtime::cancel`].
    Cancel {
        /// The run.
        run: String,
        /// Why.
        reason: Option<String>,
        /// Whether what was done is undone.
        compensate: bool,
    },
    /// [`Runtime::suspend`].
    Suspend {
        /// The run.
        run: String,
        /// Why.
        reason: Option<String>,
    },
    /// [`Runtime::resume`].
    Resume {
        /// The run.
        run: String,
    },
    /// [`Runtime::restart`]; answers the new run's id.
    Restart {
        /// The run.
        run: String,
        /// Another definition.
        sources: Option<Sources>,
        /// The new run's id.
        id: Option<String>,
    },
    /// [`Runtime::fork`]; answers the new run's id.
    Fork {
        /// The run.
        run: String,
        /// From there on it is done anew.
        task: String,
        /// The new run's id.
        id: Option<String>,
    },
    /// [`Runtime::redrive`].
    Redrive {
        /// The run.
        run: String,
        /// What is to come into the task that failed.
        input: Option<Value>,
    },
    /// [`Runtime::redrive_all`]; answers a list of [`crate::Redriven`].
    RedriveAll {
        /// Which.
        filter: LetterFilter,
        /// At most so many.
        limit: usize,
    },
    /// [`Runtime::discard`].
    Discard {
        /// The run.
        run: String,
    },
    /// [`Runtime::purge`]; answers a [`crate::Purged`].
    Purge {
        /// Which.
        filter: PurgeFilter,
        /// Where the last answer ended.
        after: Option<String>,
    },
    /// [`Runtime::decide`].
    Decide {
        /// The run.
        run: String,
        /// The task.
        task: String,
        /// What.
        decision: Decision,
    },
    /// [`Runtime::settle`], for at most [`SETTLE_MS_MAX`]; answers a [`crate::RunView`], or null if the
    /// run is still under way.
    Settle {
        /// The run.
        run: String,
        /// For how long, in milliseconds.
        within_ms: u64,
    },
}

/// Who asks waits no longer for one answer, and asks again.
pub const SETTLE_MS_MAX: u64 = 2_000;

impl Query<'_> {
    /// Answers a question.
    ///
    /// # Errors
    /// [`Error::NoRun`], [`Error::NoDeadLetter`], [`Error::NoReview`]; [`Error::Store`] and its like.
    pub fn look(&self, look: &Look) -> Result<Value, Error> {
        Ok(match look {
            Look::Runs {
                status,
                tenant,
                limit,
            } => {
                let mut runs = self.runs(*status, usize::MAX)?;
                runs.retain(|row| tenant.as_ref().is_none_or(|tenant| row.tenant == *tenant));
                runs.truncate(*limit);
                json!(runs)
            }
            Look::Run { run } => json!(self.run(run)?),
            Look::DeadLetters { filter } => {
                let mut letters = self.dead_letters()?;
                letters.retain(|letter| filter.fits(letter));
                json!(letters)
            }
            Look::DeadLetter { run } => json!(self.dead_letter(run)?),
            Look::Reviews => json!(self.reviews()?),
            Look::Review { run, task } => json!(self.review(run, task)?),
            Look::Events => json!(self.events()?),
        })
    }
}

impl Runtime {
    /// Answers a question; of a run it knows more than its store, since it has the connections.
    ///
    /// # Errors
    /// As for [`Query::look`].
    pub fn look(&self, look: &Look) -> Result<Value, Error> {
        match look {
            Look::Run { run } => Ok(json!(self.run(run)?)),
            _ => self.query().look(look),
        }
    }

    /// Does something with runs.
    ///
    /// # Errors
    /// Those of the function that the act names.
    pub async fn act_on(&self, act: Act) -> Result<Value, Error> {
        match act {
            Act::Start {
                sources,
                input,
                options,
            } => {
                let definition = self.define(&sources)?;
                Ok(json!(self.start_with(&definition, input, options).await?))
            }
            Act::Cancel {
                run,
                reason,
                compensate,
            } => Ok(json!(self.cancel(&run, reason, compensate).await?)),
            Act::Suspend { run, reason } => Ok(json!(self.suspend(&run, reason).await?)),
            Act::Resume { run } => Ok(json!(self.resume(&run).await?)),
            Act::Restart { run, sources, id } => {
                let definition = sources.map(|sources| self.define(&sources)).transpose()?;
                Ok(json!(self.restart(&run, definition.as_ref(), id).await?))
            }
            Act::Fork { run, task, id } => Ok(json!(self.fork(&run, &task, id).await?)),
            Act::Redrive { run, input } => Ok(json!(self.redrive(&run, input).await?)),
            Act::RedriveAll { filter, limit } => Ok(json!(self.redrive_all(&filter, limit).await?)),
            Act::Discard { run } => Ok(json!(self.discard(&run).await?)),
            Act::Purge { filter, after } => Ok(json!(self.purge(&filter, after.as_deref()).await?)),
            Act::Decide {
                run,
                task,
                decision,
            } => Ok(json!(self.decide(&run, &task, decision).await?)),
            Act::Settle { run, within_ms } => {
                let within = Duration::from_millis(within_ms.min(SETTLE_MS_MAX));
                match tokio::time::timeout(within, self.settle(&run)).await {
                    Ok(settled) => Ok(json!(settled?)),
                    Err(_) => Ok(Value::Null),
                }
            }
        }
    }
}
