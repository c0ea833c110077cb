//! What an operator configures for one connection.

use std::path::PathBuf;

use serde_json::Value;

use crate::Error;
use crate::egress::{Destination, Egress};
use crate::gate::Shared;
use crate::limits::Limits;

/// A connection as configured. Nothing in it is checked before `Plugin::connect`.
#[derive(Clone)]
pub struct ConnectionSpec {
    /// The connection's name, for messages.
    pub name: String,
    /// The settings that the plugin reads, a JSON object. Not secret.
    pub config: Value,
    /// The secrets that it may use.
    pub secrets: Vec<Secret>,
    /// What it may reach.
    pub grants: Grants,
    /// What its calls may use.
    pub limits: Limits,
    /// What this generation of the connection has in common with others of it.
    pub shared: Shared,
}

impl ConnectionSpec {
    /// A connection that is granted nothing, with default limits.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            config: Value::Object(serde_json::Map::new()),
            secrets: Vec::new(),
            grants: Grants::default(),
            limits: Limits::default(),
            shared: Shared::default(),
        }
    }
}

/// A secret that a plugin may use and never sees.
#[derive(Clone)]
pub struct Secret {
    /// The name that the plugin asks for.
    pub name: String,
    /// The value. Shorter ones than four bytes cannot be scrubbed from answers.
    pub value: String,
    /// The hosts that it may be sent to: `api.example.com`, `*.example.com`, or with scheme and
    /// port, `https://api.example.com:8443`. Empty: to nobody; it can then only be signed with.
    pub audience: Vec<String>,
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Secret")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// What a connection may reach. Empty means none.
#[derive(Debug, Clone, Default)]
pub struct Grants {
    /// Where requests may go: `scheme://host[:port]`, with `*.suffix` for every host below it.
    pub http: Vec<String>,
    /// Whether names may resolve to private addresses (10/8, 172.16/12, 192.168/16, `fc00::/7`).
    /// Loopback, link-local and metadata addresses stay denied unless named as such.
    pub allow_private: bool,
    /// Certificates in PEM that are trusted besides the public ones, for HTTPS, PostgreSQL and mail.
    pub tls_ca: Option<String>,
    /// The database.
    pub sql: Option<SqlGrant>,
    /// The mail server.
    pub smtp: Option<SmtpGrant>,
    /// Whether it may keep small state.
    pub kv: bool,
    /// Directories that it may use.
    pub filesystem: Vec<Directory>,
}

impl Grants {
    /// Whether these grants let a request go to this URL, as far as that can be told from its text:
    /// what a name resolves to is judged when a line is opened.
    ///
    /// # Errors
    /// [`Error::BadGrant`] names the entry of `http` that is not `scheme://host[:port]`.
    pub fn permit_http(&self, url: &str) -> Result<bool, Error> {
        let egress = Egress::new("grants", self, None)?;
        let Ok(uri) = url.parse() else {
            return Ok(false);
        };
        let permitted = Destination::of(&uri).is_ok_and(|to| egress.permit(&to).is_ok());
        Ok(permitted)
    }
}

/// A database.
#[derive(Clone)]
pub struct SqlGrant {
    /// `postgresql://user@host:5432/name?sslmode=require`, or `sqlite:path/to/file.db`.
    pub url: String,
    /// The password, apart from the URL so that the URL may be shown.
    pub password: Option<String>,
    /// Database connections at the same time. Zero means the default, 8.
    pub pool_max: u32,
}

impl std::fmt::Debug for SqlGrant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SqlGrant")
            .field("pool_max", &self.pool_max)
            .finish_non_exhaustive()
    }
}

/// A mail server.
#[derive(Clone)]
pub struct SmtpGrant {
    /// Host name or address.
    pub host: String,
    /// Port: 587 with STARTTLS, 465 with implicit TLS.
    pub port: u16,
    /// How the line is encrypted.
    pub tls: SmtpTls,
    /// For authentication; none if absent.
    pub username: Option<String>,
    /// For authentication.
    pub password: Option<String>,
}

impl std::fmt::Debug for SmtpGrant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SmtpGrant")
            .field("host", &self.host)
            .field("port", &self.port)
            .field("tls", &self.tls)
            .finish_non_exhaustive()
    }
}

/// How the line to a mail server is encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SmtpTls {
    /// Not at all. Credentials are then sent in the clear.
    None,
    /// After `STARTTLS`; without it nothing is sent.
    StartTls,
    /// From the first byte.
    Implicit,
}

/// A directory that a plugin may use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Directory {
    /// Where it is.
    pub host_path: PathBuf,
    /// Where the plugin finds it: `/data`.
    pub guest_path: String,
    /// Whether the plugin may change what is in it.
    pub writable: bool,
}
