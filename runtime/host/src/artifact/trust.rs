//! Whom an operator lets vouch for plugins.

use std::fmt;

use super::Artifact;
use super::error::Error;
use super::key::PublicKey;

/// An operator's word on who may sign plugins. The default trusts nobody and lets no unsigned
/// plugin in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trust {
    /// A plugin that one of these has signed is let in.
    pub keys: Vec<PublicKey>,
    /// Whether a plugin that none of them has signed is let in all the same.
    pub allow_unsigned: bool,
}

/// Who vouches for a plugin that was let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signer {
    /// A trusted key.
    Key(PublicKey),
    /// Only a key that the operator did not name; let in by `allow_unsigned`.
    Stranger(PublicKey),
    /// Nobody; let in by `allow_unsigned`.
    Unsigned,
}

impl Signer {
    /// Whether a trusted key vouches for the plugin.
    pub fn is_trusted(&self) -> bool {
        matches!(self, Self::Key(_))
    }
}

impl fmt::Display for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key(key) => write!(f, "signed by trusted key {}", key.id()),
            Self::Stranger(key) => write!(f, "signed by unknown key {}", key.id()),
            Self::Unsigned => f.write_str("not signed"),
        }
    }
}

impl Trust {
    /// Lets a plugin in, or refuses it. Has to be asked about the very bytes that are then loaded.
    ///
    /// A signature that is not one of this plugin is refused whatever is allowed: somebody has
    /// altered something. The first signature by a trusted key counts.
    ///
    /// # Errors
    /// [`Error::BadSignature`] and [`Error::NoManifest`] for a signature that vouches for something
    /// else; [`Error::Unsigned`] and [`Error::UntrustedKey`], with the remedy, unless `allow_unsigned`.
    pub fn judge(&self, artifact: &Artifact) -> Result<Signer, crate::Error> {
        artifact.verify()?;
        let signers = || artifact.signatures().iter().map(super::Signature::key);
        if let Some(key) = signers().find(|key| self.keys.contains(key)) {
            return Ok(Signer::Key(key));
        }
        let name = || artifact.name().to_owned();
        let origin = || artifact.origin().to_owned();
        match (signers().next(), self.allow_unsigned) {
            (Some(key), true) => Ok(Signer::Stranger(key)),
            (None, true) => Ok(Signer::Unsigned),
            (Some(key), false) => Err(Error::UntrustedKey {
                name: name(),
                origin: origin(),
                id: key.id(),
                key: key.to_string(),
            }
            .into()),
            (None, false) => Err(Error::Unsigned {
                name: name(),
                origin: origin(),
            }
            .into()),
        }
    }
}
