//! Cofferdam's decisions, and nothing else.
//!
//! Everything here is pure: no clock, no random numbers, no threads, no files, no network. Time
//! and randomness are arguments. That is what lets the whole of the resilience logic run in a
//! seeded simulator, and a run's state be rebuilt from its journal exactly.

pub mod breaker;
pub mod call;
pub mod canary;
pub mod cloud_event;
pub mod compatibility;
pub mod consume;
pub mod cron;
pub mod depth;
pub mod descriptor;
pub mod dsl;
pub mod duration;
pub mod error;
pub mod expr;
pub mod failure;
pub mod fair;
pub mod health;
pub mod manifest;
mod present;
pub mod provenance;
pub mod quarantine;
pub mod ramp;
pub mod rate;
pub mod retry;
pub mod run;
pub mod schema;
pub mod workflow;
