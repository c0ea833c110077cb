//! Cofferdam's chamber: plugins run here, each call in a sandbox of its own, and nothing that a
//! plugin does can reach another call, another plugin, or anything it was not granted.
//!
//! The way of a plugin: [`Artifact::read`] takes its files, [`Trust::judge`] asks who vouches for
//! them, [`Host::load`] checks and compiles it
//! without running it, [`Plugin::connect`] joins it with an operator's config, secrets, grants and
//! limits, and [`Connection::invoke`] performs one action and always returns an [`Outcome`].
//!
//! # Invariants
//! - A call has a store and an instance of its own; nothing survives it, whatever happened in it.
//! - What a guest imports and does not have is refused before it runs, with the line that grants it.
//! - Every outbound byte passes `egress`; there is no other way out.
//! - A secret's value is never in guest memory, in an output, in a failure or in a log.
//! - Guest code is never run to find out what a plugin is.

#![allow(
    clippy::result_large_err,
    reason = "failures and errors are made once for a call or a load, and carry what people need"
)]

pub mod artifact;
mod bindings;
mod cache;
mod call;
mod capabilities;
mod chamber;
mod compiler;
mod connection;
mod cpu;
mod egress;
mod engines;
mod error;
mod gate;
mod host;
mod inspect;
mod lane;
mod limits;
mod places;
mod plugin;
mod scope;
mod scrub;
mod spec;
mod table;
mod ticker;
mod verdict;

pub use artifact::{Artifact, COMPONENT_BYTES_MAX, PublicKey, Signer, Trust, stamp};
pub use call::{Call, Health, HealthStatus, LogLevel, LogLine, Occupancy, Outcome, Usage};
pub use capabilities::kv::{KeyValue, MemoryKv};
pub use compiler::{ChildCompiler, ChildExit, Compiler, compile_child};
pub use connection::{Connection, Services};
pub use error::Error;
pub use gate::Shared;
pub use host::{Host, HostOptions};
pub use inspect::Inspected;
pub use limits::{Limits, MEMORY_BYTES_MAX, check_wishes};
pub use plugin::Plugin;
pub use spec::{ConnectionSpec, Directory, Grants, Secret, SmtpGrant, SmtpTls, SqlGrant};
pub use table::{LimitRow, limits_table};
