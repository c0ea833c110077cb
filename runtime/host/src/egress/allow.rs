//! The allow-list: `scheme://host[:port]`, with `*.suffix` for every host below a name.

use std::net::IpAddr;

use http::Uri;
use url::{Host, Url};

use super::address::canonical;

/// Bytes of a name and of one label of it (RFC 1035, 2.3.4).
const NAME_BYTES_MAX: usize = 253;
const LABEL_BYTES_MAX: usize = 63;

/// Where a request goes, parsed once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Destination {
    pub(crate) scheme: Scheme,
    pub(crate) host: HostName,
    pub(crate) port: u16,
}

/// How it is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scheme {
    Http,
    Https,
}

/// A host in its one canonical spelling: lower case, punycode, no final dot, addresses decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum HostName {
    Name(String),
    Address(IpAddr),
}

impl Scheme {
    fn parse(text: &str) -> Option<Self> {
        match text {
            "http" => Some(Self::Http),
            "https" => Some(Self::Https),
            _ => None,
        }
    }

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

/// Why a URL leads nowhere.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Malformed {
    #[error("its URL has no scheme; write `https://host`")]
    NoScheme,
    #[error("its scheme `{scheme}` cannot be granted; only http and https can")]
    Scheme { scheme: String },
    #[error("its URL names no host; write `https://host`")]
    NoHost,
    #[error(
        "its URL has user info before the host, which hides where it leads; put credentials into a header"
    )]
    UserInfo,
    #[error("its host `{host}` is neither a name nor an address")]
    Host { host: String },
}

impl HostName {
    /// Reads a host as the WHATWG URL rules do, so that `0x7f.1` is seen for what it is.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        // The URL parser drops tabs and line breaks wherever they are.
        if text.contains(|c: char| c.is_whitespace() || c.is_control()) {
            return None;
        }
        let url = Url::parse(&format!("http://{text}/")).ok()?;
        let plain = url.username().is_empty()
            && url.password().is_none()
            && url.port().is_none()
            && url.path() == "/"
            && url.query().is_none()
            && url.fragment().is_none();
        if plain { Self::of(&url) } else { None }
    }

    fn of(url: &Url) -> Option<Self> {
        match url.host()? {
            Host::Domain(name) => {
                let name = name.strip_suffix('.').unwrap_or(name);
                let fine = name.len() <= NAME_BYTES_MAX && name.split('.').all(is_label);
                fine.then(|| Self::Name(name.to_ascii_lowercase()))
            }
            Host::Ipv4(address) => Some(Self::Address(address.into())),
            Host::Ipv6(address) => Some(Self::Address(canonical(address.into()))),
        }
    }
}

/// The URL parser keeps stars, empty labels and other oddities; a host that is dialled has none.
fn is_label(label: &str) -> bool {
    (1..=LABEL_BYTES_MAX).contains(&label.len())
        && label
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

impl std::fmt::Display for HostName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Address(IpAddr::V4(address)) => address.fmt(f),
            Self::Address(IpAddr::V6(address)) => write!(f, "[{address}]"),
        }
    }
}

impl Destination {
    /// Reads the destination of a request; an error if it has none, or hides one in user info.
    pub(crate) fn of(uri: &Uri) -> Result<Self, Malformed> {
        let scheme = uri.scheme_str().ok_or(Malformed::NoScheme)?;
        let scheme = Scheme::parse(scheme).ok_or_else(|| Malformed::Scheme {
            scheme: scheme.to_owned(),
        })?;
        let authority = uri.authority().ok_or(Malformed::NoHost)?.as_str();
        if authority.contains('@') {
            return Err(Malformed::UserInfo);
        }
        let malformed = || Malformed::Host {
            host: authority.to_owned(),
        };
        let url = Url::parse(&format!("{}://{authority}/", scheme.as_str()));
        let url = url.map_err(|_| malformed())?;
        // Anything but a host in there, and two parsers would disagree about where it ends.
        if url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
            return Err(malformed());
        }
        let host = HostName::of(&url).ok_or_else(malformed)?;
        Ok(Self {
            scheme,
            host,
            port: url.port().unwrap_or(scheme.default_port()),
        })
    }

    /// The pattern that would allow exactly this.
    pub(crate) fn origin(&self) -> String {
        if self.port == self.scheme.default_port() {
            format!("{}://{}", self.scheme.as_str(), self.host)
        } else {
            format!("{}://{}:{}", self.scheme.as_str(), self.host, self.port)
        }
    }

    /// The value of the `host` header.
    pub(crate) fn host_header(&self) -> String {
        if self.port == self.scheme.default_port() {
            self.host.to_string()
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    pub(crate) fn host_text(&self) -> String {
        self.host.to_string()
    }
}

impl std::fmt::Display for Destination {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.origin())
    }
}

/// One entry of an allow-list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Pattern {
    /// `*`: whatever the operator grants. Only of use in a manifest.
    Anything,
    /// Hosts with one scheme and one port.
    Hosts {
        scheme: Scheme,
        hosts: Hosts,
        port: u16,
    },
}

/// Which hosts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Hosts {
    /// `*`: all, as far as addresses are public.
    All,
    /// `*.example.com`: every host below `example.com`, and not itself.
    Below(String),
    /// Just this one.
    One(HostName),
}

impl Hosts {
    fn parse(text: &str) -> Option<Self> {
        if text == "*" {
            return Some(Self::All);
        }
        let Some(suffix) = text.strip_prefix("*.") else {
            return HostName::parse(text).map(Self::One);
        };
        match HostName::parse(suffix)? {
            HostName::Name(name) => Some(Self::Below(name)),
            HostName::Address(_) => None,
        }
    }

    fn match_host(&self, host: &HostName) -> bool {
        match (self, host) {
            (Self::All, _) => true,
            (Self::Below(suffix), HostName::Name(name)) => name
                .strip_suffix(suffix.as_str())
                .is_some_and(|front| front.ends_with('.') && front.len() > 1),
            (Self::Below(_), HostName::Address(_)) => false,
            (Self::One(one), host) => one == host,
        }
    }
}

impl Pattern {
    /// Reads one entry; the error says what to write instead.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        const FORM: &str = "write `https://host`, `https://host:port` or `https://*.suffix`";
        if text == "*" {
            return Ok(Self::Anything);
        }
        let (scheme, rest) = text
            .split_once("://")
            .ok_or_else(|| format!("the scheme is missing; {FORM}"))?;
        let scheme = Scheme::parse(scheme)
            .ok_or_else(|| format!("only http and https can be granted; {FORM}"))?;
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        if rest.contains(['/', '?', '#', '@']) {
            return Err(format!(
                "a path, a query or user info cannot be part of it; {FORM}"
            ));
        }
        let (host, port) =
            split_port(rest).ok_or_else(|| format!("the port is no port; {FORM}"))?;
        let hosts = Hosts::parse(host).ok_or_else(|| {
            format!(
                "the host is not valid (a star may only stand for whole labels in front, and never for a part of an address); {FORM}"
            )
        })?;
        Ok(Self::Hosts {
            scheme,
            hosts,
            port: port.unwrap_or(scheme.default_port()),
        })
    }

    pub(crate) fn matches(&self, destination: &Destination) -> bool {
        match self {
            Self::Anything => true,
            Self::Hosts {
                scheme,
                hosts,
                port,
            } => {
                *scheme == destination.scheme
                    && *port == destination.port
                    && hosts.match_host(&destination.host)
            }
        }
    }

    pub(crate) fn is_exact(&self) -> bool {
        matches!(
            self,
            Self::Hosts {
                hosts: Hosts::One(_),
                ..
            }
        )
    }
}

/// Whom a secret may be sent to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Audience {
    /// A host, whatever the scheme and port; the allow-list still decides on these.
    Host(Hosts),
    /// With scheme and port.
    Exact(Pattern),
}

impl Audience {
    /// Reads one entry; the error says what to write instead.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        const FORM: &str = "write a host such as `api.example.com` or `*.example.com`";
        if text.contains("://") {
            return Pattern::parse(text).map(Self::Exact);
        }
        match Hosts::parse(text) {
            Some(Hosts::All) => Err(format!("a secret for everybody is none; {FORM}")),
            Some(hosts) => Ok(Self::Host(hosts)),
            None => Err(format!("that is not a host; {FORM}")),
        }
    }

    pub(crate) fn includes(&self, destination: &Destination) -> bool {
        match self {
            Self::Host(hosts) => hosts.match_host(&destination.host),
            Self::Exact(pattern) => pattern.matches(destination),
        }
    }
}

/// `host:port` in two; an IPv6 address keeps its brackets. `None` if the port is no number.
fn split_port(text: &str) -> Option<(&str, Option<u16>)> {
    let after_brackets = text.rfind(']').map_or(0, |at| at + 1);
    match text[after_brackets..].rfind(':') {
        None => Some((text, None)),
        Some(at) => {
            let (host, port) = text.split_at(after_brackets + at);
            port[1..]
                .parse()
                .ok()
                .filter(|port| *port > 0)
                .map(|port| (host, Some(port)))
        }
    }
}
