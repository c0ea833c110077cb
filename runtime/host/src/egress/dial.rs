//! From a host to an open line: resolve, judge every address, dial one that passed.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::net::TcpStream;

use super::Named;
use super::address::{self, Kind};
use super::allow::HostName;

/// Addresses of one name that are tried.
const ADDRESSES_MAX: usize = 4;

/// Why no line was opened. Nothing was sent in any of these cases.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("`{host}` resolves to {address}, which is {kind}; {remedy}")]
    Forbidden {
        host: String,
        address: IpAddr,
        kind: &'static str,
        remedy: &'static str,
    },
    #[error("`{host}` cannot be resolved: {reason}")]
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
    const PRIVATE: &str = "set allow_private = true in the connection's grants if it is meant";
    const LITERAL: &str = "grant that address itself if it is meant";
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
    host: &HostName,
    port: u16,
    named: Named,
    allow_private: bool,
) -> Result<Vec<SocketAddr>, Error> {
    let found: Vec<SocketAddr> = match host {
        HostName::Address(address) => vec![SocketAddr::new(*address, port)],
        HostName::Name(name) => tokio::net::lookup_host((name.as_str(), port))
            .await
            .map_err(|error| Error::Unresolved {
                host: name.clone(),
                reason: error.to_string(),
            })?
            .collect(),
    };
    let mut vetted = Vec::new();
    let mut denied = None;
    for candidate in found {
        match vet(host, named, allow_private, candidate.ip()) {
            Ok(()) => vetted.push(candidate),
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
    host: &HostName,
    port: u16,
    named: Named,
    allow_private: bool,
    limit: Duration,
) -> Result<TcpStream, Error> {
    let open = async {
        let mut failed = None;
        for address in resolve(host, port, named, allow_private).await? {
            match TcpStream::connect(address).await {
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
