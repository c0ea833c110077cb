//! Every outbound byte: who may be reached, under which name, at which address.
//!
//! A destination is parsed once, and what was parsed is matched, resolved and dialled; there is no
//! second reading of the same text that could see another host in it.

use std::sync::Arc;

use cofferdam_core::manifest::Manifest;

use crate::Error;
use crate::spec::Grants;

pub(crate) mod address;
pub(crate) mod allow;
mod answer;
mod body;
pub(crate) mod client;
pub(crate) mod dial;
mod head;
#[cfg(test)]
pub(crate) mod tests;
mod tls;

pub(crate) use allow::{Audience, Destination};

use allow::Pattern;

/// What one connection may reach.
pub(crate) struct Egress {
    /// What the operator grants.
    granted: Vec<Pattern>,
    /// What the manifest asks for; `None` for a bare component, whose grants alone decide.
    asked: Option<Vec<Pattern>>,
    pub(crate) allow_private: bool,
    pub(crate) network: Arc<dyn dial::Network>,
    /// Of this connection alone, so that not even session tickets are shared.
    pub(crate) tls: Arc<rustls::ClientConfig>,
}

/// Why a destination is not allowed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Denied {
    #[error("{destination} is not granted; add to the connection's grants: http = [\"{origin}\"]")]
    NotGranted { destination: String, origin: String },
    #[error(
        "{destination} is granted by a star, and the plugin's manifest does not ask for it; grant it by its name if it is meant: http = [\"{origin}\"]"
    )]
    NotAsked { destination: String, origin: String },
}

impl Egress {
    pub(crate) fn new(
        place: &str,
        grants: &Grants,
        manifest: Option<&Manifest>,
    ) -> Result<Self, Error> {
        let granted = patterns(place, "grants.http", &grants.http)?;
        let asked = manifest
            .map(|m| patterns("plugin.toml", "capabilities.http", &m.capabilities.http))
            .transpose()?;
        let tls = tls::config(place, grants.tls_ca.as_deref())?;
        Ok(Self {
            granted,
            asked,
            allow_private: grants.allow_private,
            network: Arc::new(dial::System),
            tls,
        })
    }

    /// Reaches nothing.
    pub(crate) fn nothing() -> Result<Self, Error> {
        Ok(Self {
            granted: Vec::new(),
            asked: None,
            allow_private: false,
            network: Arc::new(dial::System),
            tls: tls::config("nothing", None)?,
        })
    }

    /// Whether a request may go there; tells if its host is named exactly, as opposed to by `*`.
    ///
    /// What a star grants is narrowed to what the manifest asks for. A host that the operator wrote
    /// out is meant, be it a test system, a mirror, or an installation of the customer's own.
    pub(crate) fn permit(&self, destination: &Destination) -> Result<Named, Denied> {
        let mut by_star = false;
        for pattern in self
            .granted
            .iter()
            .filter(|pattern| pattern.matches(destination))
        {
            if pattern.is_exact() {
                return Ok(Named::Exactly);
            }
            by_star = true;
        }
        let (text, origin) = (destination.to_string(), destination.origin());
        if !by_star {
            return Err(Denied::NotGranted {
                destination: text,
                origin,
            });
        }
        match &self.asked {
            Some(asked) if !asked.iter().any(|pattern| pattern.matches(destination)) => {
                Err(Denied::NotAsked {
                    destination: text,
                    origin,
                })
            }
            Some(_) | None => Ok(Named::ByWildcard),
        }
    }
}

/// Whether an operator wrote down the very host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Named {
    /// Then an address literal or `localhost` may be reached, whatever range it is in.
    Exactly,
    /// Then only public addresses may be reached.
    ByWildcard,
}

fn patterns(place: &str, key: &'static str, texts: &[String]) -> Result<Vec<Pattern>, Error> {
    let parse = |text: &String| {
        Pattern::parse(text).map_err(|reason| Error::BadGrant {
            place: place.to_owned(),
            key,
            value: text.clone(),
            reason,
        })
    };
    texts.iter().map(parse).collect()
}
