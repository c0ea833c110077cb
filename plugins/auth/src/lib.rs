//! Authentication of HTTP requests as Open Workflow describes it, inside the chamber.
//!
//! Where a credential stands, this crate handles a stand-in for it: one that the workflow brought
//! (`${ $secrets.NAME }`), or one asked of the host for a secret that the connection's config names
//! (`{secret = "NAME"}`). The host puts the secret in its place on the way out, in a header, inside
//! of `Basic` credentials, or in the body of a token request.
//!
//! An access token that an authority hands out is used for one call and kept nowhere; where the
//! other side says it back, it is overwritten.

mod oauth2;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use cofferdam_sdk::http::Request;
use cofferdam_sdk::prelude::*;

pub use oauth2::{Client, Encoding, Endpoints, Grant, Method, Policy, Subject, TokenRequest};

/// How a request is authorized: one of the four.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Authentication {
    /// User and password.
    #[serde(default)]
    pub basic: Option<Basic>,
    /// A token.
    #[serde(default)]
    pub bearer: Option<Bearer>,
    /// A token that an authority hands out.
    #[serde(default)]
    pub oauth2: Option<Oauth2>,
    /// The same, from an authority that tells where its endpoints are.
    #[serde(default)]
    pub oidc: Option<Oauth2>,
}

/// User and password, apart or as one text.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Basic {
    /// Both as one text, `user:password`.
    Whole {
        /// The text.
        credentials: Text,
    },
    /// One by one.
    Parts {
        /// The user.
        username: Text,
        /// The password.
        password: Text,
    },
}

/// A token.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Bearer {
    /// The token.
    pub token: Text,
}

/// A policy, or the name of one in the connection's config.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Oauth2 {
    /// One under `authentications` of the connection's config.
    Named {
        /// Its name.
        r#use: String,
    },
    /// Written out.
    Inline(Box<Policy>),
}

/// A text, or the name of the connection's secret that it is.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Text {
    /// The text, or a stand-in for it.
    Plain(String),
    /// A secret of the connection.
    Secret {
        /// Its name.
        secret: String,
    },
}

impl Text {
    /// The text, or what stands for it.
    ///
    /// # Errors
    /// Class `denied` if the connection has no such secret.
    pub fn resolve(&self) -> Result<String, Failure> {
        match self {
            Self::Plain(text) => Ok(text.clone()),
            Self::Secret { secret } => secrets::placeholder(secret),
        }
    }
}

/// What goes into the `Authorization` header.
#[derive(Debug)]
pub struct Authorized {
    header: String,
    /// What an authority handed out: nobody else knows to overwrite it.
    token: Option<String>,
}

impl Authentication {
    /// Gets what is needed to authorize a request. `policies` are those of the connection's config.
    ///
    /// # Errors
    /// Class `invalid-input` for a policy that says too little; `unauthenticated` if an authority
    /// does not accept the credentials; else what talking to it came to. The effect is always `none`.
    pub fn authorize(&self, policies: &BTreeMap<String, Policy>) -> Result<Authorized, Failure> {
        let plain = |header: String| Authorized {
            header,
            token: None,
        };
        if let Some(basic) = &self.basic {
            let credentials = match basic {
                Basic::Whole { credentials } => credentials.resolve()?,
                Basic::Parts { username, password } => {
                    format!("{}:{}", username.resolve()?, password.resolve()?)
                }
            };
            return Ok(plain(format!("Basic {}", STANDARD.encode(credentials))));
        }
        if let Some(bearer) = &self.bearer {
            return Ok(plain(format!("Bearer {}", bearer.token.resolve()?)));
        }
        let (given, discover) = match (&self.oauth2, &self.oidc) {
            (Some(given), None) => (given, false),
            (None, Some(given)) => (given, true),
            _ => {
                let message = "authentication is one of basic, bearer, oauth2, oidc";
                return Err(Failure::invalid_input("auth.kind", message));
            }
        };
        let token = named(given, policies)?.token(discover)?;
        Ok(Authorized {
            header: format!("Bearer {token}"),
            token: Some(token),
        })
    }
}

fn named<'a>(
    given: &'a Oauth2,
    policies: &'a BTreeMap<String, Policy>,
) -> Result<&'a Policy, Failure> {
    match given {
        Oauth2::Inline(policy) => Ok(policy),
        Oauth2::Named { r#use: name } => policies.get(name).ok_or_else(|| {
            let message = format!(
                "the connection's config has no policy `{name}`; add it under `config.authentications.{name}`"
            );
            Failure::new(Class::Denied, "auth.policy", message)
        }),
    }
}

impl Authorized {
    /// The request with the header.
    pub fn apply(&self, request: Request) -> Request {
        request.header("authorization", &self.header)
    }

    /// The answer with the token overwritten, should it be in there.
    pub fn clean(&self, answer: Value) -> Value {
        match &self.token {
            Some(token) => overwritten(answer, token),
            None => answer,
        }
    }
}

fn overwritten(value: Value, token: &str) -> Value {
    let clean = |text: String| {
        if text.contains(token) {
            text.replace(token, &"*".repeat(token.len()))
        } else {
            text
        }
    };
    match value {
        Value::String(text) => Value::String(clean(text)),
        Value::Array(items) => items.into_iter().map(|v| overwritten(v, token)).collect(),
        Value::Object(map) => Value::Object(
            map.into_iter()
                .map(|(key, v)| (clean(key), overwritten(v, token)))
                .collect(),
        ),
        Value::Null | Value::Bool(_) | Value::Number(_) => value,
    }
}
