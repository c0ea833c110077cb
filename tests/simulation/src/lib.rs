//! The whole engine on a virtual clock, between a disk that fails and services that fail, in
//! processes that die: one seed gives one history.
//!
//! [`play`] makes a world from a seed: a workflow, connections, a few runs, bad weather for a while
//! and fair weather from then on. The engine in it is the real one, all of it but the chambers:
//! `cofferdam::Runtime` on a paused tokio runtime, with [`cofferdam::Clock`], [`cofferdam::Rng`], a
//! `JournalStore` and `Connector`s of the world's.
//!
//! A *step* is a thing that the engine does to the world or the world to the engine: a commit, a
//! write, a call, an arrival, an answer. A crash is put before a step, and nothing that the process
//! does afterwards counts. What a process does between two steps is in its memory alone, which dies
//! with it; so a crash at any await is the same as a crash before the next step.
//!
//! The oracle stands outside and sees the disk and the services alone. See `oracle.rs` for what it
//! holds the engine to, and `mutation.rs` and `tamper.rs` for how it is itself checked.

mod bus;
mod clients;
mod dice;
mod disk;
mod finish;
mod flow;
mod mutation;
mod operator;
mod oracle;
mod plan;
mod play;
mod purge;
mod services;
mod swarm;
mod tamper;
mod verbs;
mod world;

pub use mutation::Mutation;
pub use play::{Options, Played, host, play};
