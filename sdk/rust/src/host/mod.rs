//! Where the crate meets its host: the component's imports in a component, a test double
//! elsewhere.
//!
//! These are plain functions rather than a trait object on purpose: a table of methods would
//! keep every import alive, and a component must import only what it uses.

#[cfg(not(target_arch = "wasm32"))]
mod double;
#[cfg(target_arch = "wasm32")]
mod imports;
#[cfg(target_arch = "wasm32")]
mod outgoing;

#[cfg(not(target_arch = "wasm32"))]
pub(crate) use double::*;
#[cfg(target_arch = "wasm32")]
pub(crate) use imports::*;
#[cfg(target_arch = "wasm32")]
pub(crate) use outgoing::http_send;
