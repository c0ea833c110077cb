//! A small durable store of the connector's own, apart for each connection and tenant.
//! Needs `kv = true` in the manifest and in the grant. Keys are at most 512 bytes, values at
//! most 64 KiB.

use crate::failure::Failure;
use crate::host;

/// The value last set, or none.
pub fn get(key: &str) -> Result<Option<Vec<u8>>, Failure> {
    host::kv_get(key)
}

/// Sets a value; durable when it returns.
pub fn set(key: &str, value: &[u8]) -> Result<(), Failure> {
    host::kv_set(key, value)
}

/// Removes a value; fine if there is none.
pub fn delete(key: &str) -> Result<(), Failure> {
    host::kv_delete(key)
}
