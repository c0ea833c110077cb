//! A corpus of hostile guests. Each tries to get past one limit of the chamber, and for each the
//! tests see that its call ends with the right limit named, that the host's memory and places come
//! back, that the next good call of the same plugin succeeds, and that a healthy neighbour, called
//! all the while, loses no call.
//!
//! To add one, write its [`Case`] into `corpus/` and its name into `tests/corpus.rs`.

pub mod chameleon;
pub mod corpus;
pub mod guest;
pub mod harness;
pub mod memory;
pub mod web;

pub use corpus::{Case, Ends, Guest, corpus};
pub use guest::Text;
