//! `secrets`: credentials that a plugin uses without holding them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cofferdam_core::failure::{Class, Failure};
use hmac::{Hmac, KeyInit, Mac};
use http::{HeaderMap, HeaderValue};
use serde_json::Value;
use wasmtime::component::Linker;

use super::{Capability, missing};
use crate::Error;
use crate::bindings::cofferdam::connector::{protocol, secrets};
use crate::call::Call;
use crate::chamber::{Data, State};
use crate::egress::{Audience, Destination};
use crate::plugin::Plugin;
use crate::scope::Scope;
use crate::scrub::{SECRET_BYTES_MIN, Scrubber};
use crate::spec::{ConnectionSpec, Secret};
use crate::verdict::to_guest;

/// What every stand-in begins with, so that one is recognised in a log.
const PLACEHOLDER_PREFIX: &str = "cofferdam-secret-";
/// Random bytes of a stand-in: nobody guesses the one of another secret or call.
const PLACEHOLDER_BYTES: usize = 16;
/// Stand-ins of one call; asking again for the same secret gives the same one.
const PLACEHOLDERS_MAX: usize = 64;

pub(crate) struct Secrets;

impl Capability for Secrets {
    fn name(&self) -> &'static str {
        "secrets"
    }

    fn provides(&self, interface: &str, _version: &str) -> bool {
        interface == "cofferdam:connector/secrets"
    }

    fn link(&self, linker: &mut Linker<State>) -> wasmtime::Result<()> {
        secrets::add_to_linker::<_, Data>(linker, |state| state)
    }

    fn admit(&self, plugin: &Plugin, spec: &ConnectionSpec) -> Result<(), Error> {
        let Some(manifest) = plugin.manifest() else {
            return Ok(());
        };
        let granted = |name: &str| spec.secrets.iter().any(|secret| secret.name == name);
        match manifest
            .capabilities
            .secrets
            .iter()
            .find(|name| !granted(name))
        {
            None => Ok(()),
            Some(name) => {
                let line =
                    format!("secrets.{name} = {{ env = \"{name}\", audience = [\"HOST\"] }}");
                Err(missing(plugin, spec, format!("the secret `{name}`"), line))
            }
        }
    }
}

/// A secret with its audience parsed.
pub(crate) struct Held {
    pub(crate) name: String,
    pub(crate) value: String,
    audience: Vec<Audience>,
}

/// Checks the secrets of a connection.
pub(crate) fn hold(place: &str, secrets: Vec<Secret>) -> Result<Vec<Held>, Error> {
    let mut held = Vec::with_capacity(secrets.len());
    for secret in secrets {
        if secret.value.len() < SECRET_BYTES_MIN {
            tracing::warn!(
                connection = place,
                secret = secret.name,
                "a secret this short cannot be removed from answers and logs"
            );
        }
        let audience = secret
            .audience
            .iter()
            .map(|text| {
                Audience::parse(text).map_err(|reason| Error::BadGrant {
                    place: place.to_owned(),
                    key: "secrets.audience",
                    value: text.clone(),
                    reason,
                })
            })
            .collect::<Result<_, _>>()?;
        held.push(Held {
            name: secret.name,
            value: secret.value,
            audience,
        });
    }
    Ok(held)
}

/// A call whose input names a secret that the connection has not: it would send the stand-in.
pub(crate) fn missing_in(held: &[Held], place: &str, call: &Call) -> Option<Failure> {
    let lacks = |name: &String| !held.iter().any(|secret| secret.name == *name);
    let mut lacking = call.secrets.iter().filter(|(_, name)| lacks(name));
    let (_, name) = lacking.find(|(token, _)| holds(&call.input, token))?;
    let text = format!(
        "connection `{place}` has no secret `{name}`, which the workflow sends through it; add it under [connections.{place}.secrets]"
    );
    Some(Failure::new(Class::Denied, "secret.denied", text))
}

/// Whether a text is anywhere in a value.
fn holds(value: &Value, text: &str) -> bool {
    match value {
        Value::String(string) => string.contains(text),
        Value::Array(items) => items.iter().any(|item| holds(item, text)),
        Value::Object(map) => map
            .iter()
            .any(|(key, item)| key.contains(text) || holds(item, text)),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

/// The stand-ins that a call brings along, with the index of each secret.
pub(crate) fn brought(held: &[Held], call: &Call) -> Vec<(String, usize)> {
    let known = |(token, name): (&String, &String)| {
        let index = held.iter().position(|secret| secret.name == *name)?;
        (token.starts_with(PLACEHOLDER_PREFIX)).then(|| (token.clone(), index))
    };
    call.secrets.iter().filter_map(known).collect()
}

impl State {
    fn secret(&self, name: &str) -> Result<usize, Failure> {
        let held = &self.scope.settings.secrets;
        held.iter()
            .position(|secret| secret.name == name)
            .ok_or_else(|| {
                let text = format!(
                    "connection `{}` has no secret `{name}`; add it under [connections.{}.secrets]",
                    self.scope.settings.name, self.scope.settings.name
                );
                Failure::new(Class::Denied, "secret.denied", text)
            })
    }
}

impl secrets::Host for State {
    fn placeholder(&mut self, name: String) -> Result<String, protocol::Failure> {
        let index = self.secret(&name).map_err(to_guest)?;
        let mut placeholders = self.scope.placeholders.lock();
        if let Some((token, _)) = placeholders.iter().find(|(_, secret)| *secret == index) {
            return Ok(token.clone());
        }
        if placeholders.len() >= PLACEHOLDERS_MAX {
            let text = format!("a call may use at most {PLACEHOLDERS_MAX} secrets");
            return Err(to_guest(Failure::new(Class::Denied, "secret.denied", text)));
        }
        let mut random = [0; PLACEHOLDER_BYTES];
        getrandom::fill(&mut random).map_err(|error| {
            let text = format!("no random numbers to be had: {error}");
            to_guest(Failure::new(Class::Unavailable, "secret.random", text))
        })?;
        let token = format!("{PLACEHOLDER_PREFIX}{}", hex::encode(random));
        placeholders.push((token.clone(), index));
        Ok(token)
    }

    fn sign(
        &mut self,
        name: String,
        algorithm: secrets::Algorithm,
        data: Vec<u8>,
    ) -> Result<Vec<u8>, protocol::Failure> {
        let index = self.secret(&name).map_err(to_guest)?;
        let key = self.scope.settings.secrets[index].value.as_bytes();
        let signed = match algorithm {
            secrets::Algorithm::HmacSha256 => sign::<Hmac<sha2::Sha256>>(key, &data),
            secrets::Algorithm::HmacSha1 => sign::<Hmac<sha1::Sha1>>(key, &data),
            secrets::Algorithm::HmacSha512 => sign::<Hmac<sha2::Sha512>>(key, &data),
        };
        signed.ok_or_else(|| {
            let text = format!("the secret `{name}` cannot be used as a key");
            to_guest(Failure::new(Class::Internal, "secret.key", text))
        })
    }
}

fn sign<M: Mac + KeyInit>(key: &[u8], data: &[u8]) -> Option<Vec<u8>> {
    let mut mac = <M as KeyInit>::new_from_slice(key).ok()?;
    mac.update(data);
    Some(mac.finalize().into_bytes().to_vec())
}

/// Why a request with a stand-in in it is not sent.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refused {
    #[error(
        "the secret `{name}` may not be sent to {destination}; add the host to its audience: audience = [\"{host}\"]"
    )]
    Audience {
        name: String,
        destination: String,
        host: String,
    },
    #[error("the secret `{name}` cannot be part of a header: it holds control characters")]
    Value { name: String },
}

/// Puts secrets in the place of their stand-ins, wherever one occurs in a header's value, inside
/// `Basic` credentials too. Returns what else has to be scrubbed from the answer.
pub(crate) fn reveal(
    scope: &Scope,
    destination: &Destination,
    headers: &mut HeaderMap,
) -> Result<Scrubber, Refused> {
    let placeholders = scope.placeholders.lock().clone();
    let mut encoded = Vec::new();
    if placeholders.is_empty() {
        return Ok(Scrubber::default());
    }
    for value in headers.values_mut() {
        let Ok(text) = value.to_str() else { continue };
        let revealed = match basic_credentials(text) {
            Some(credentials) => {
                let Some(revealed) = replace(
                    scope,
                    destination,
                    &placeholders,
                    &credentials,
                    str::to_owned,
                )?
                else {
                    continue;
                };
                let revealed = STANDARD.encode(revealed);
                encoded.push(revealed.clone());
                format!("Basic {revealed}")
            }
            None => match replace(scope, destination, &placeholders, text, str::to_owned)? {
                Some(revealed) => revealed,
                None => continue,
            },
        };
        let mut header = HeaderValue::from_str(&revealed).map_err(|_| Refused::Value {
            name: first_name(scope, &placeholders, text),
        })?;
        header.set_sensitive(true);
        *value = header;
    }
    Ok(Scrubber::new(encoded.iter().map(String::as_str)))
}

/// A text other than a header's with its stand-ins replaced, each secret written as `encode` says;
/// `None` if it holds none.
pub(crate) fn reveal_text(
    scope: &Scope,
    destination: &Destination,
    text: &str,
    encode: impl Fn(&str) -> String,
) -> Result<Option<String>, Refused> {
    let placeholders = scope.placeholders.lock().clone();
    replace(scope, destination, &placeholders, text, encode)
}

/// The text with its stand-ins replaced; `None` if it holds none.
fn replace(
    scope: &Scope,
    destination: &Destination,
    placeholders: &[(String, usize)],
    text: &str,
    encode: impl Fn(&str) -> String,
) -> Result<Option<String>, Refused> {
    let mut revealed = None;
    for (token, index) in placeholders {
        let current = revealed.as_deref().unwrap_or(text);
        if !current.contains(token.as_str()) {
            continue;
        }
        let secret = &scope.settings.secrets[*index];
        if !secret
            .audience
            .iter()
            .any(|audience| audience.includes(destination))
        {
            return Err(Refused::Audience {
                name: secret.name.clone(),
                destination: destination.to_string(),
                host: destination.host_text(),
            });
        }
        revealed = Some(current.replace(token.as_str(), &encode(&secret.value)));
    }
    Ok(revealed)
}

fn basic_credentials(text: &str) -> Option<String> {
    let (scheme, encoded) = text.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()?;
    decoded.contains(PLACEHOLDER_PREFIX).then_some(decoded)
}

fn first_name(scope: &Scope, placeholders: &[(String, usize)], text: &str) -> String {
    let found = placeholders
        .iter()
        .find(|(token, _)| text.contains(token.as_str()));
    found.map_or_else(String::new, |(_, index)| {
        scope.settings.secrets[*index].name.clone()
    })
}
