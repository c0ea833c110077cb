//! What can go wrong while stand-ins are started or steered.

use std::io;
use std::net::SocketAddr;

use crate::fault;

/// A failure of the stand-ins themselves, never one they were told to simulate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A socket could not be bound; usually the port is taken.
    #[error("{service} cannot listen on {address}: {source}")]
    Listen {
        /// The service that wanted the address.
        service: &'static str,
        /// The address that was refused by the system.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// A fault is malformed or means nothing to the service.
    #[error(transparent)]
    Fault(#[from] fault::Error),
    /// The service was shut down before the order reached it.
    #[error("{service} has stopped")]
    Stopped {
        /// The service that is gone.
        service: &'static str,
    },
}
