//! Who vouches for the plugins: asked before anything of one is compiled.

use std::collections::BTreeSet;

use cofferdam_host::{Artifact, Signer, Trust};

use crate::Error;

/// Plugins that were let in although no trusted key vouches for them, by name; see
/// [`crate::Runtime::unsigned_plugins`].
pub(crate) type Unsigned = BTreeSet<String>;

/// Lets a plugin in, or refuses it. One that only `allow-unsigned` lets in is told to the log and
/// added to `unsigned`. What is loaded has to be this artifact, not its files read again.
pub(crate) fn judge(
    artifact: &Artifact,
    trust: &Trust,
    unsigned: &mut Unsigned,
) -> Result<Signer, Error> {
    let signer = trust.judge(artifact)?;
    if !signer.is_trusted() && unsigned.insert(artifact.name().to_owned()) {
        tracing::warn!(
            plugin = artifact.name(),
            origin = artifact.origin(),
            "the plugin is {signer}, and let in by allow-unsigned"
        );
    }
    Ok(signer)
}
