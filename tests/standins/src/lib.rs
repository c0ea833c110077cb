//! Stand-ins for the services that connectors talk to: stateful, on loopback, and able to fail on
//! demand in the ways real services fail.
//!
//! ```no_run
//! # async fn example() -> Result<(), cofferdam_standins::Error> {
//! use cofferdam_standins::{Fault, Options, Standins};
//!
//! let standins = Standins::start(Options::default()).await?;
//! standins.stripe.set_faults(vec![Fault::accept_then_drop().times(1)]).await?;
//! // … drive the code under test against standins.stripe.url() …
//! assert!(standins.stripe.duplicates().is_empty());
//! standins.shutdown().await;
//! # Ok(())
//! # }
//! ```
//!
//! # The services
//!
//! | name | what it stands in for | where the vendor documents it |
//! |---|---|---|
//! | `hubspot` | contacts: read, create, update, archive, list, search, batch upsert | HubSpot developer docs: "CRM API, Contacts", "Search the CRM", "Error handling", "API usage guidelines" |
//! | `slack` | `chat.postMessage`, `conversations.history`, `auth.test` | Slack API docs: the page of each method, "Using the Slack Web API", "Rate limits" |
//! | `stripe` | payment intents (create, confirm, cancel, read, list, search), refunds, balance | Stripe API reference: "Payment Intents", "Refunds", "Balance", "Errors", "Idempotent requests", "Search"; Stripe docs: "Testing" |
//! | `smtp` | a mail server without TLS | RFC 5321, 1870 (SIZE), 2920 (PIPELINING), 6152 (8BITMIME), 2034 (ENHANCEDSTATUSCODES), 4954 (AUTH) |
//! | `generic` | echo, statuses, bytes, key-value store | here: [`generic`] |
//!
//! # What is counted
//!
//! *Requests* are attempts that arrived, whatever came of them. *Effects* are what was really
//! applied, by a key that says which business act it was; each service documents its key. A test
//! that retries, crashes and redrives asserts that no effect has a count above one
//! ([`Handle::duplicates`]) while requests may have any.
//!
//! # Faults
//!
//! See [`FaultKind`] for each fault and whether the request still takes effect. The faults of a
//! service form a list that is walked in order for every request: latencies add up, the first
//! other fault that matches decides. A fault may be limited to a number of requests, to a path
//! prefix and to a substring of the body.
//!
//! # Control API
//!
//! The same over HTTP and JSON, for tests in another process and for the demo:
//!
//! | request | answer |
//! |---|---|
//! | `GET /` | `{"services": [{name, url, requests, effects, duplicates, faults}]}`; counts only |
//! | `GET /services/{name}` | one of these |
//! | `PUT /services/{name}/faults` | replaces the list; in force when answered |
//! | `GET`, `DELETE /services/{name}/faults` | shows, clears |
//! | `GET /services/{name}/effects` | `{requests, effects, duplicates, business}`, by key |
//! | `GET /services/{name}/state` | every stored object |
//! | `POST /reset` | forgets objects, counts and faults of every service |
//!
//! Errors are `{"error": {"code", "field", "message"}}`.

mod control;
mod error;
mod fault;
mod gate;
pub mod generic;
mod http;
pub mod hubspot;
mod plan;
mod service;
pub mod slack;
pub mod smtp;
mod standins;
pub mod stripe;

pub use error::Error;
pub use fault::{Error as FaultError, Fault, FaultKind};
pub use service::{Effects, Handle};
pub use standins::{Options, Standins};
