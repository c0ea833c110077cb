//! HTTP requests to what the operator's allow-list names.
//!
//! Everything that can go wrong is mapped to a [`Failure`](crate::Failure) here, once, with
//! the right class and the right statement about what the request left behind:
//!
//! | what happened | class | effect of a request that changes something |
//! |---|---|---|
//! | name not found, connection refused, TLS refused, no connection in time | `unavailable`, `timeout` | `none` |
//! | denied by the operator's allow-list | `denied` | `none` |
//! | connection broken, or no answer in time, after the request was sent | `unavailable`, `timeout` | `unknown` |
//! | 400, 405, 406, 411, 413 to 417, 422, 431 | `invalid-input` | `none` |
//! | 401, 407 | `unauthenticated` | `none` |
//! | 402 | `refused` | `none` |
//! | 403, 451 | `denied` | `none` |
//! | 404, 410 | `not-found` | `none` |
//! | 408 | `timeout` | `none` |
//! | 409, 412, 423, 424, 428 | `conflict` | `none` |
//! | 425, 429 | `rate-limited`, with `Retry-After` | `none` |
//! | 501 | `unsupported` | `none` |
//! | any other 5xx | `unavailable`, with `Retry-After` | `unknown` |
//! | 1xx, 3xx | `other` (redirects are not followed) | `unknown` |
//! | any other 4xx | `other` | `none` |
//!
//! `GET`, `HEAD` and `OPTIONS` change nothing: their effect is always `none`.

mod request;
mod response;
mod status;
mod transport;
mod url;

pub use request::{Method, Request};
pub use response::Response;
pub use transport::TransportError;
pub use url::url;

pub(crate) use request::Wire;
pub(crate) use response::Received;

/// Bodies of answers are read up to this many bytes unless [`Request::response_max`] says
/// otherwise: it is also the bound on an action's output.
pub const RESPONSE_BYTES_MAX: usize = 1024 * 1024;
