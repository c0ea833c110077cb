//! Outgoing mail. The host holds the connection to the server and the credentials.
//! Needs `smtp = true` in the manifest and in the grant.

use crate::failure::Failure;
use crate::host;

/// Hands one complete RFC 5322 message to the server and returns the server's last reply.
/// `sender` is the address that bounces go to; `recipients` is everybody who gets it.
///
/// # Errors
/// The host's; its effect says whether the server may have taken the message.
pub fn send(sender: &str, recipients: &[String], message: &[u8]) -> Result<String, Failure> {
    host::smtp_send(sender, recipients, message)
}
