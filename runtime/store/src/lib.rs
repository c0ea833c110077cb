//! Where runs are kept: one trait, and the stores behind it.
//!
//! [`JournalStore`] is what the engine is written against: guarded, atomic batches that are
//! durable when acknowledged, and reads that see whole batches only. [`MemoryStore`] is its model
//! and has no disk; [`SledStore`] keeps its rows in a directory, and so does `FjallStore`, behind
//! the feature `fjall`.
//!
//! ```
//! use cofferdam_store::{Batch, JournalStore, MemoryStore, Table};
//!
//! let store = MemoryStore::new();
//! let begin = Batch::new()
//!     .guard("run-1", 0, 0) // nobody has begun it
//!     .claim("run-1", 1)
//!     .append("run-1", 0, "started")
//!     .put(Table::RunByStatus, "running/run-1", "");
//! store.commit(begin).wait()?;
//! assert_eq!(store.journal("run-1", 0, 10)?, [(0, b"started".to_vec())]);
//! # Ok::<(), cofferdam_store::Error>(())
//! ```

mod audit;
pub mod backup;
mod batch;
mod commit;
#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
mod engine;
mod error;
mod heads;
mod memory;
mod store;
mod table;
pub mod transfer;
mod tree_store;

pub use batch::{
    BATCH_BYTES_MAX, BATCH_WRITES_MAX, Batch, Guard, Head, KEY_LEN_MAX, RUN_LEN_MAX, VALUE_LEN_MAX,
    Write,
};
pub use commit::{Answer, Commit};
pub use engine::{Engine, open};
pub use error::Error;
pub use memory::{Fault, MemoryStore};
pub use store::{Entry, JournalStore, PROBLEMS_MAX, Problem, Records, Report, Rows};
pub use table::{KeyRange, Table, journal_key, parse_journal_key};
pub use tree_store::{
    CACHE_BYTES_MIN, Options, QUEUE_BYTES_MAX, QUEUE_COMMITS_MAX, Sled, SledStore, Tree, TreeStore,
};
#[cfg(feature = "fjall")]
pub use tree_store::{Fjall, FjallStore};
