//! `smtp`: outgoing mail. The host holds the line to the server and the credentials.
//!
//! The SMTP commands are sent one by one, so that a failure can say whether the server may have
//! taken the message: only from the first byte of the message on is that unknown.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use cofferdam_core::failure::{Class, EffectState, Failure};
use cofferdam_core::manifest::Manifest;
use lettre::Address;
use lettre::transport::smtp::Error as SmtpError;
use lettre::transport::smtp::authentication::{Credentials, Mechanism};
use lettre::transport::smtp::client::{AsyncSmtpConnection, AsyncTokioStream};
use lettre::transport::smtp::commands::{Data, Mail, Rcpt, Rset};
use lettre::transport::smtp::extension::{ClientId, Extension, MailBodyParameter, MailParameter};
use parking_lot::Mutex;
use wasmtime::component::Linker;

use super::{Capability, missing};
use crate::Error;
use crate::bindings::cofferdam::connector::{protocol, smtp};
use crate::chamber::{Data as StoreData, State};
use crate::egress::allow::HostName;
use crate::egress::{Egress, Named, dial};
use crate::plugin::Plugin;
use crate::scope::Scope;
use crate::spec::{ConnectionSpec, SmtpGrant, SmtpTls};
use crate::verdict::{quoted_to_guest, to_guest};

mod tls;

/// Lines that are kept open between calls, and for how long: servers close them after minutes.
const IDLE_MAX: usize = 4;
const IDLE_TIME_MAX: Duration = Duration::from_secs(30);
/// What servers take at least (RFC 5321, 4.5.3.1.8).
const RECIPIENTS_MAX: usize = 100;

pub(crate) struct Smtp;

impl Capability for Smtp {
    fn name(&self) -> &'static str {
        "smtp"
    }

    fn provides(&self, interface: &str, _version: &str) -> bool {
        interface == "cofferdam:connector/smtp"
    }

    fn link(&self, linker: &mut Linker<State>) -> wasmtime::Result<()> {
        smtp::add_to_linker::<_, StoreData>(linker, |state| state)
    }

    fn unrequested(&self, manifest: &Manifest) -> Option<String> {
        (!manifest.capabilities.smtp).then(|| "smtp = true".to_owned())
    }

    fn admit(&self, plugin: &Plugin, spec: &ConnectionSpec) -> Result<(), Error> {
        if spec.grants.smtp.is_some() {
            return Ok(());
        }
        Err(missing(
            plugin,
            spec,
            "smtp",
            "smtp = { host = \"HOST\", port = 587, tls = \"starttls\" }",
        ))
    }
}

/// The mail server of one connection, with the lines to it that are open and idle.
pub(crate) struct Mailer {
    host: HostName,
    port: u16,
    tls: SmtpTls,
    credentials: Option<Credentials>,
    idle: Mutex<Vec<(AsyncSmtpConnection, Instant)>>,
}

impl Mailer {
    pub(crate) fn new(place: &str, grant: &SmtpGrant, _egress: &Egress) -> Result<Self, Error> {
        let refuse = |value: &str, reason: &str| Error::BadGrant {
            place: place.to_owned(),
            key: "grants.smtp",
            value: value.to_owned(),
            reason: reason.to_owned(),
        };
        let host = HostName::parse(&grant.host).ok_or_else(|| {
            refuse(
                &grant.host,
                "write the host's name or address, without a port",
            )
        })?;
        if grant.port == 0 {
            return Err(refuse("port 0", "write the port, as a rule 587 or 465"));
        }
        let credentials = match (&grant.username, &grant.password) {
            (Some(user), Some(password)) => Some(Credentials::new(user.clone(), password.clone())),
            (None, None) => None,
            (Some(_), None) => return Err(refuse("username", "add the password as well")),
            (None, Some(_)) => return Err(refuse("password", "add the username as well")),
        };
        let idle = Mutex::default();
        Ok(Self {
            host,
            port: grant.port,
            tls: grant.tls,
            credentials,
            idle,
        })
    }

    /// Hands over one message within what is left of the call.
    async fn send(&self, scope: &Scope, letter: &Letter) -> Result<String, Failure> {
        let begun = AtomicBool::new(false);
        let left = scope.left();
        let ended = tokio::time::timeout(left, self.exchange(scope, letter, &begun)).await;
        ended.unwrap_or_else(|_| {
            let effect = if begun.load(Ordering::Relaxed) {
                EffectState::Unknown
            } else {
                EffectState::None
            };
            let text = format!("the mail server did not answer in {left:?}");
            Err(Failure::new(Class::Timeout, "smtp.timeout", text).with_effect(effect))
        })
    }

    async fn exchange(
        &self,
        scope: &Scope,
        letter: &Letter,
        begun: &AtomicBool,
    ) -> Result<String, Failure> {
        let mut line = match self.take_idle().await {
            Some(line) => line,
            None => self.open(scope).await?,
        };
        self.offer(&mut line, letter).await?;
        if !scope.mark_sent() {
            // Without the message's end the server drops what it was offered.
            let text = "the call's time was over before the message was sent";
            return Err(Failure::new(Class::Timeout, "smtp.timeout", text));
        }
        begun.store(true, Ordering::Relaxed);
        let response = line.message(&letter.message).await.map_err(|error| {
            // A reply is an answer; without one the server may have taken the message or not.
            let effect = if error.status().is_some() {
                EffectState::None
            } else {
                EffectState::Unknown
            };
            failure(&error).with_effect(effect)
        })?;
        self.keep(line);
        let lines: Vec<&str> = response.message().collect();
        Ok(format!("{} {}", response.code(), lines.join(" "))
            .trim_end()
            .to_owned())
    }

    /// Everything before the message itself; a refusal here leaves nothing behind.
    async fn offer(&self, line: &mut AsyncSmtpConnection, letter: &Letter) -> Result<(), Failure> {
        let mut parameters = Vec::new();
        if !letter.message.is_ascii()
            && line.server_info().supports_feature(Extension::EightBitMime)
        {
            parameters.push(MailParameter::Body(MailBodyParameter::EightBitMime));
        }
        let offered = async {
            line.command(Mail::new(letter.sender.clone(), parameters))
                .await?;
            for recipient in &letter.recipients {
                line.command(Rcpt::new(recipient.clone(), Vec::new()))
                    .await?;
            }
            line.command(Data).await
        };
        match offered.await {
            Ok(_) => Ok(()),
            Err(error) => {
                let _ = line.command(Rset).await;
                Err(failure(&error))
            }
        }
    }

    async fn open(&self, scope: &Scope) -> Result<AsyncSmtpConnection, Failure> {
        // The operator wrote this host down, so it counts as named exactly.
        let egress = &scope.settings.egress;
        let stream = dial::dial(egress, &self.host, self.port, Named::Exactly, scope.left())
            .await
            .map_err(|error| dial_failure("smtp", &error))?;
        let hello = ClientId::default();
        let (tls, host) = (&egress.tls, &self.host);
        let mut line = match self.tls {
            SmtpTls::None => connect(Box::new(stream), &hello).await?,
            SmtpTls::StartTls => {
                let stream = tls::starttls(tls, host, stream, &hello).await?;
                connect(Box::new(stream), &hello).await?
            }
            SmtpTls::Implicit => {
                let stream = tls::implicit(tls, host, stream).await?;
                connect(Box::new(stream), &hello).await?
            }
        };
        if let Some(credentials) = &self.credentials {
            let mechanisms = [Mechanism::Plain, Mechanism::Login];
            line.auth(&mechanisms, credentials)
                .await
                .map_err(|error| failure(&error))?;
        }
        Ok(line)
    }

    async fn take_idle(&self) -> Option<AsyncSmtpConnection> {
        loop {
            let (mut line, since) = self.idle.lock().pop()?;
            if since.elapsed() < IDLE_TIME_MAX && line.test_connected().await {
                return Some(line);
            }
        }
    }

    fn keep(&self, line: AsyncSmtpConnection) {
        let mut idle = self.idle.lock();
        idle.retain(|(_, since)| since.elapsed() < IDLE_TIME_MAX);
        if idle.len() < IDLE_MAX && !line.has_broken() {
            idle.push((line, Instant::now()));
        }
    }
}

async fn connect(
    stream: Box<dyn AsyncTokioStream>,
    hello: &ClientId,
) -> Result<AsyncSmtpConnection, Failure> {
    AsyncSmtpConnection::connect_with_transport(stream, hello)
        .await
        .map_err(|error| failure(&error))
}

/// A message with its checked addresses.
struct Letter {
    sender: Option<Address>,
    recipients: Vec<Address>,
    message: Vec<u8>,
}

impl Letter {
    fn new(envelope: &smtp::Envelope, message: Vec<u8>) -> Result<Self, Failure> {
        let invalid = |text: String| Failure::new(Class::InvalidInput, "smtp.address", text);
        let parse = |text: &str| {
            text.trim()
                .parse::<Address>()
                .map_err(|error| invalid(format!("`{text}` is not an address: {error}")))
        };
        let count = envelope.recipients.len();
        if !(1..=RECIPIENTS_MAX).contains(&count) {
            let text = format!("a message has 1 to {RECIPIENTS_MAX} recipients, this has {count}");
            return Err(invalid(text));
        }
        // The empty address is for messages that must not bounce.
        let sender = match envelope.sender.trim() {
            "" => None,
            text => Some(parse(text)?),
        };
        let recipients = envelope
            .recipients
            .iter()
            .map(|text| parse(text))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            sender,
            recipients,
            message,
        })
    }
}

impl smtp::Host for State {
    async fn send(
        &mut self,
        envelope: smtp::Envelope,
        message: Vec<u8>,
    ) -> Result<String, protocol::Failure> {
        let scope = &self.scope;
        let Some(mailer) = &scope.settings.smtp else {
            let text = "smtp is not granted to this connection";
            return Err(to_guest(Failure::new(Class::Denied, "smtp.denied", text)));
        };
        scope.take_request().map_err(to_guest)?;
        let letter = Letter::new(&envelope, message).map_err(to_guest)?;
        match mailer.send(scope, &letter).await {
            Ok(reply) => Ok(scope.settings.scrubber.text(reply)),
            Err(failure) => Err(quoted_to_guest(failure, scope)),
        }
    }
}

/// What a server's reply, or the lack of one, means. Before the message nothing has happened.
fn failure(error: &SmtpError) -> Failure {
    let text = match std::error::Error::source(error) {
        Some(source) => format!("the mail server: {error}: {source}"),
        None => format!("the mail server: {error}"),
    };
    let Some(status) = error.status() else {
        let class = if error.is_client() {
            Class::Unsupported
        } else {
            Class::Unavailable
        };
        return Failure::new(class, "smtp.connection", text);
    };
    let number: u16 = status.into();
    let class = match number {
        450 | 452 => Class::RateLimited,
        400..=499 => Class::Unavailable,
        530 | 534 | 535 | 538 => Class::Unauthenticated,
        500..=504 => Class::Unsupported,
        552 | 555 => Class::InvalidInput,
        _ => Class::Refused,
    };
    Failure::new(class, format!("smtp.{number}"), text)
}

/// What it means that no line could be opened; nothing was sent.
pub(super) fn dial_failure(prefix: &str, error: &dial::Error) -> Failure {
    let (class, what) = match error {
        dial::Error::Forbidden { .. } => (Class::Denied, "denied"),
        dial::Error::Unresolved { .. } | dial::Error::Refused { .. } => {
            (Class::Unavailable, "connect")
        }
        dial::Error::Timeout { .. } => (Class::Timeout, "timeout"),
    };
    Failure::new(class, format!("{prefix}.{what}"), error.to_string())
}

#[cfg(test)]
#[path = "smtp_tests.rs"]
mod tests;
