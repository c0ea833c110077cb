//! HTTP/1.1 as the stand-ins speak it.
//!
//! Written by hand over a TCP stream, because the faults live below what an HTTP library lets one
//! do: half a response followed by a reset, a length that is a lie, an effect without an answer.
//! For the same reason a request is carried out even if its caller has hung up meanwhile.

mod message;
mod read;
mod write;

pub(crate) use message::{Request, Response};
pub(crate) use read::Connection;
