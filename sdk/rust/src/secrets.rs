//! Secrets that a connector may use and never sees.

use crate::failure::Failure;
use crate::host;

/// A keyed hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// HMAC with SHA-256.
    HmacSha256,
    /// HMAC with SHA-1, for old interfaces.
    HmacSha1,
    /// HMAC with SHA-512.
    HmacSha512,
}

/// A stand-in for the named secret, for a request's header. On its way out the host replaces
/// it by the secret, if the request goes to the audience that the operator named for it. It is
/// worthless anywhere else.
///
/// # Errors
/// Class `denied` if the connection has no such secret.
pub fn placeholder(name: &str) -> Result<String, Failure> {
    host::placeholder(name)
}

/// A keyed hash of `data` with the named secret, for interfaces that want requests signed.
///
/// # Errors
/// Class `denied` if the connection has no such secret.
pub fn sign(name: &str, algorithm: Algorithm, data: &[u8]) -> Result<Vec<u8>, Failure> {
    host::sign(name, algorithm, data)
}
