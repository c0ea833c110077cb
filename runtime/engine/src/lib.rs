//! Cofferdam, the embeddable agent runtime.
//!
//! A [`Runtime`] holds connections (plugins in chambers), a journal store and the runs that are
//! under way. What is told to have happened is on disk; what was begun when the process died is
//! taken up again when the store is opened.
//!
//! ```no_run
//! use cofferdam::{Config, Runtime};
//! use serde_json::json;
//!
//! # async fn example() -> Result<(), cofferdam::Error> {
//! let runtime = Runtime::open(Config::load("cofferdam.toml")?).await?;
//! let workflow = runtime.load_workflow("workflow.yaml")?;
//! let run = runtime.start(&workflow, json!({"email": "ada@example.com"})).await?;
//! let end = runtime.wait(&run).await?;
//! println!("{} {:?}", end.status.as_str(), end.provenance);
//! runtime.shutdown().await;
//! # Ok(())
//! # }
//! ```

#![allow(
    clippy::result_large_err,
    reason = "errors are made once for an operation, and carry what people need"
)]

mod activation;
mod admission;
mod ambient;
mod answers;
mod archive;
mod backup;
mod breakers;
mod builder;
mod checkpoints;
pub mod config;
mod connections;
mod connector;
#[cfg(unix)]
pub mod control;
mod definition;
mod detached;
mod drain;
mod error;
mod events;
mod explain;
mod external;
mod fits;
mod generations;
mod health;
mod hedging;
mod history;
mod keeper;
mod kv;
mod look;
mod mutation;
mod outbox;
mod pace;
mod payloads;
mod purge;
mod query;
mod queue;
mod ramp;
mod removal;
mod retention;
mod rows;
mod runner;
mod runtime;
mod scheduler;
mod schedules;
mod service;
mod shelf;
mod start;
mod swaps;
mod take_up;
mod trust;
mod verbs;
mod view;
mod waiting;
mod waking;

pub use activation::{Swap, Swapped};
pub use ambient::{Clock, Rng};
pub use answers::AnswerLimits;
pub use archive::{Archive, StoreReport};
pub use backup::{BackupSummary, Engine, check_engine, migrate_store, restore};
pub use breakers::BreakerSetting;
pub use builder::RuntimeBuilder;
pub use cofferdam_core::breaker::{Config as BreakerConfig, WindowType};
pub use cofferdam_core::call::Decision;
pub use cofferdam_core::canary::{Canary, Config as CanaryConfig};
pub use cofferdam_core::cloud_event::CloudEvent;
pub use cofferdam_core::compatibility::Change;
pub use cofferdam_core::descriptor::{Action, Descriptor, Effect};
pub use cofferdam_core::error::WorkflowError;
pub use cofferdam_core::failure::{Class, EffectState, Failure};
pub use cofferdam_core::health::Config as HealthConfig;
pub use cofferdam_core::provenance::Provenance;
pub use cofferdam_core::quarantine::State as QuarantineState;
pub use cofferdam_core::retry::{Backoff, Rule as RetryRule};
pub use cofferdam_core::run::{
    AttemptReport, For as WaitFor, Origin, Status, Suspension, TaskReport, TaskStatus, Wait,
    WaitsFor,
};
pub use cofferdam_core::workflow::{
    OnDeadline, OnExhausted, OnOutage, OnUnknown, ReviewPolicy, Source, Sources,
};
pub use cofferdam_host::{
    Call, ChildCompiler, ChildExit, Compiler, Health, HealthStatus, PublicKey, Trust, compile_child,
};
pub use config::{Bulkhead, Config, Connection};
pub use connections::ConnectionState;
pub use connector::Connector;
pub use definition::Definition;
pub use error::Error;
pub use events::keys::EventLetter;
pub use events::{
    Delivery, EventOptions, Lifecycle, Published, StartAt, SubscribeOptions, Subscriber,
    SubscriberState,
};
pub use generations::{GenerationRow, GenerationState, Generations, TrialState};
pub use history::{Happening, HistoryRow};
pub use look::{Act, Look, SETTLE_MS_MAX};
#[cfg(feature = "mutations")]
pub use mutation::Mutation;
pub use outbox::OutboxState;
pub use payloads::PAYLOAD_BYTES_MAX;
pub use purge::{PURGE_MAX, PURGE_NAMES_MAX, PurgeFilter, Purged};
pub use query::Query;
pub use queue::{PRIORITY_DEFAULT, PRIORITY_MAX};
pub use rows::{DeadLetter, EventRow, Review, RunRow};
pub use runtime::{Durability, Runtime};
pub use schedules::ScheduleRow;
pub use start::{OnConflict, StartOptions};
pub use verbs::{LetterFilter, REDRIVE_MAX, Redriven};
pub use view::{Cancelled, RunView};
