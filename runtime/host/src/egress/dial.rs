//! From a host to an open line: resolve, judge every address, dial one that passed.
//!
//! A name is resolved once for each line, and the addresses that were judged are the ones that are
//! dialled: a name server that answers otherwise the next time (DNS rebinding) is not asked again.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::net::TcpStream;

use super::address::{self, Kind};
use super::allow::HostName;
use super::{Egress, Named};

/// Addresses of one name that are tried.
const ADDRESSES_MAX: usize = 4;
/// Addresses of one name that are looked at.
const ANSWERS_MAX: usize = 64;

/// What is asked of the network; tests put another in its place.
#[async_trait::async_trait]
pub(crate) trait Network: Send + Sync {
    /// The addresses of a name.
    async fn lookup(&self, name: &str, port: u16) -> std::io::Result<Vec<SocketAddr>>;

    /// Opens a line to exactly this address.
    async fn connect(&self, address: SocketAddr) -> std::io::Result<TcpStream>;
}

/// The system's resolver and sockets.
pub(crate) struct System;

#[async_trait::async_trait]
impl Network for System {
    async fn lookup(&self, name: &str, port: u16) -> std::io::Result<Vec<SocketAddr>> {
        let found = tokio::net::lookup_host((name, port)).await?;
        Ok(found.take(ANSWERS_MAX).collect())
    }

    async fn connect(&self, address: SocketAddr) -> std::io::Result<TcpStream> {
        TcpStream::connect(address).await
    }
}

/// Why no line was opened. Nothing was sent in any of these cases.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("`{host}` leads to {address}, which is {kind}; {remedy}")]
    Forbidden {
        host: String,
        address: IpAddr,
        kind: &'static str,
        remedy: &'static str,
    },
    #[error("`{host}` cannot be resolved: {reason}; check the spelling and the name server")]
    Unresolved { host: String, reason: String },
    #[error("`{host}` does not accept connections: {source}")]
    Refused {
        host: String,
        source: std::io::Error,
    },
    #[error("`{host}` did not answer in {after:?}")]
    Timeout { host: String, after: Duration },
}

/// Whether a host's address may be dialled, given how the host was named.
pub(crate) fn vet(
    host: &HostName,
    named: Named,
    allow_private: bool,
    address: IpAddr,
) -> Result<(), Error> {
    const PRIVATE: &str =
        "if it is meant, write `allow-private = true` into the connection's grants";
    const LITERAL: &str =
        "if it is meant, grant that very address in place of the name or the star";
    let (kind, remedy) = match address::kind(address) {
        Kind::Public => return Ok(()),
        Kind::Private if allow_private => return Ok(()),
        Kind::Private => ("private", PRIVATE),
        Kind::Forbidden(kind) => (kind, LITERAL),
    };
    let meant = match host {
        // The operator wrote this very address.
        HostName::Address(literal) => named == Named::Exactly && *literal == address,
        // The operator wrote `localhost`, which cannot mean anything else.
        HostName::Name(name) => {
            named == Named::Exactly
                && name == "localhost"
                && address::canonical(address).is_loopback()
        }
    };
    if meant {
        return Ok(());
    }
    Err(Error::Forbidden {
        host: host.to_string(),
        address,
        kind,
        remedy,
    })
}

/// Resolves a host and returns the addresses that may be dialled, at least one. A name with one
/// forbidden address among others is dialled at the others only.
pub(crate) async fn resolve(
    egress: &Egress,
    host: &HostName,
    port: u16,
    named: Named,
) -> Result<Vec<SocketAddr>, Error> {
    let found = match host {
        HostName::Address(address) => vec![SocketAddr::new(*address, port)],
        HostName::Name(name) => {
            let found = egress.network.lookup(name, port).await;
            found.map_err(|error| Error::Unresolved {
                host: name.clone(),
                reason: error.to_string(),
            })?
        }
    };
    let mut vetted = Vec::new();
    let mut denied = None;
    for candidate in found {
        match vet(host, named, egress.allow_private, candidate.ip()) {
            // The port that was granted, whatever a resolver makes of it.
            Ok(()) => vetted.push(SocketAddr::new(candidate.ip(), port)),
            Err(error) => denied = Some(error),
        }
    }
    vetted.truncate(ADDRESSES_MAX);
    if !vetted.is_empty() {
        return Ok(vetted);
    }
    Err(denied.unwrap_or_else(|| Error::Unresolved {
        host: host.to_string(),
        reason: "it has no address".to_owned(),
    }))
}

/// Opens a line to a host, at an address that passed, within `limit`.
pub(crate) async fn dial(
    egress: &Egress,
    host: &HostName,
    port: u16,
    named: Named,
    limit: Duration,
) -> Result<TcpStream, Error> {
    let open = async {
        let mut failed = None;
        for address in resolve(egress, host, port, named).await? {
            match egress.network.connect(address).await {
                Ok(stream) => {
                    // Small requests must not wait for a full packet.
                    let _ = stream.set_nodelay(true);
                    return Ok(stream);
                }
                Err(error) => failed = Some(error),
            }
        }
        let source = failed.unwrap_or_else(|| std::io::ErrorKind::AddrNotAvailable.into());
        Err(Error::Refused {
            host: host.to_string(),
            source,
        })
    };
    match tokio::time::timeout(limit, open).await {
        Ok(opened) => opened,
        Err(_) => Err(Error::Timeout {
            host: host.to_string(),
            after: limit,
        }),
    }
}
