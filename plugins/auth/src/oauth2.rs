//! Access tokens: OAuth 2.0 (RFC 6749), token exchange (RFC 8693), JWT client assertions (RFC 7523),
//! and the discovery of OpenID Connect.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use cofferdam_sdk::http::{Request, Response};
use cofferdam_sdk::prelude::*;

use crate::Text;

/// Where an OpenID Connect authority tells of itself.
const DISCOVERY: &str = "/.well-known/openid-configuration";
/// What a client assertion is, in the words of RFC 7523.
const ASSERTION: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
/// Tells the host to put secrets into the body too; it takes the header out.
const SECRETS_HEADER: &str = "cofferdam-secrets";

/// How a token is asked for.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// The authority's address.
    pub authority: String,
    /// Paths below the authority.
    #[serde(default)]
    pub endpoints: Endpoints,
    /// What the token is asked for with.
    pub grant: Grant,
    /// Who asks.
    #[serde(default)]
    pub client: Client,
    /// How the request is written.
    #[serde(default)]
    pub request: TokenRequest,
    /// Who may have issued a token; anybody if empty.
    #[serde(default)]
    pub issuers: Vec<String>,
    /// What the token is to allow.
    #[serde(default)]
    pub scopes: Vec<String>,
    /// For whom it is.
    #[serde(default)]
    pub audiences: Vec<String>,
    /// The user, for the grant `password`.
    #[serde(default)]
    pub username: Option<Text>,
    /// The user's password, for the grant `password`.
    #[serde(default)]
    pub password: Option<Text>,
    /// The token to exchange; for `refresh_token` the refresh token.
    #[serde(default)]
    pub subject: Option<Subject>,
    /// On whose part a token is exchanged.
    #[serde(default)]
    pub actor: Option<Subject>,
}

/// Paths below an authority.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Endpoints {
    /// Where tokens are handed out.
    #[serde(default = "token_path")]
    pub token: String,
    /// Not used: a token is used for one call and expires by itself.
    #[serde(default)]
    pub revocation: Option<String>,
    /// Not used: whoever is called judges the token.
    #[serde(default)]
    pub introspection: Option<String>,
}

impl Default for Endpoints {
    fn default() -> Self {
        Self {
            token: token_path(),
            revocation: None,
            introspection: None,
        }
    }
}

fn token_path() -> String {
    "/oauth2/token".to_owned()
}

/// What a token is asked for with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Grant {
    /// The client's own credentials.
    ClientCredentials,
    /// A user's password.
    Password,
    /// An earlier token for more of them.
    RefreshToken,
    /// A token of somebody else's.
    #[serde(rename = "urn:ietf:params:oauth:grant-type:token-exchange")]
    TokenExchange,
}

/// Who asks for a token.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Client {
    /// Its id.
    #[serde(default)]
    pub id: Option<Text>,
    /// Its secret.
    #[serde(default)]
    pub secret: Option<Text>,
    /// A signed JWT, for `private_key_jwt`.
    #[serde(default)]
    pub assertion: Option<Text>,
    /// How it says who it is.
    #[serde(default)]
    pub authentication: Method,
}

/// How a client says who it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// In the body.
    #[default]
    ClientSecretPost,
    /// In the header.
    ClientSecretBasic,
    /// With a signed assertion.
    PrivateKeyJwt,
    /// Not at all.
    None,
}

/// How a token request is written.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TokenRequest {
    /// The body's form.
    #[serde(default)]
    pub encoding: Encoding,
}

/// The form of a body.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum Encoding {
    /// A form, as the standard says.
    #[default]
    #[serde(rename = "application/x-www-form-urlencoded")]
    Form,
    /// JSON.
    #[serde(rename = "application/json")]
    Json,
}

/// A token of somebody's.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Subject {
    /// The token.
    pub token: Text,
    /// What kind it is: a URI.
    #[serde(default)]
    pub r#type: Option<String>,
}

/// What an authority answers.
#[derive(Debug, Deserialize)]
struct Granted {
    access_token: String,
}

#[derive(Debug, Deserialize)]
struct Discovered {
    token_endpoint: String,
}

/// Why an authority hands out nothing.
#[derive(Debug, Default, Deserialize)]
struct Refusal {
    #[serde(default)]
    error: String,
}

impl Policy {
    /// Gets an access token.
    ///
    /// # Errors
    /// See [`crate::Authentication::authorize`].
    pub(crate) fn token(&self, discover: bool) -> Result<String, Failure> {
        let url = if discover {
            discovered(&self.authority)?
        } else {
            joined(&self.authority, &self.endpoints.token)
        };
        let mut pairs = self.pairs()?;
        // Nothing is changed by asking for a token: whatever fails here left nothing behind.
        let mut request = Request::post(url)
            .reads()
            .header("accept", "application/json")
            .header(SECRETS_HEADER, "body");
        if let Some(basic) = self.identify(&mut pairs)? {
            request = request.header("authorization", basic);
        }
        let request = match self.request.encoding {
            Encoding::Form => request.form(&pairs),
            Encoding::Json => {
                let body = pairs
                    .into_iter()
                    .map(|(k, v)| (k.to_owned(), Value::from(v)));
                request.json(&body.collect::<serde_json::Map<_, _>>())
            }
        };
        let response = request.send()?;
        if matches!(response.status(), 400 | 401 | 403) {
            return Err(refused(&response));
        }
        let granted: Granted = response.error_for_status()?.json()?;
        self.issued(&granted.access_token)?;
        Ok(granted.access_token)
    }

    fn pairs(&self) -> Result<Vec<(&'static str, String)>, Failure> {
        let mut pairs = Vec::new();
        match self.grant {
            Grant::ClientCredentials => pairs.push(("grant_type", "client_credentials".to_owned())),
            Grant::Password => {
                pairs.push(("grant_type", "password".to_owned()));
                pairs.push(("username", needed("username", self.username.as_ref())?));
                pairs.push(("password", needed("password", self.password.as_ref())?));
            }
            Grant::RefreshToken => {
                let token = self.subject.as_ref().map(|subject| &subject.token);
                pairs.push(("grant_type", "refresh_token".to_owned()));
                pairs.push(("refresh_token", needed("subject", token)?));
            }
            Grant::TokenExchange => self.exchange(&mut pairs)?,
        }
        if !self.scopes.is_empty() {
            pairs.push(("scope", self.scopes.join(" ")));
        }
        let audiences = self.audiences.iter();
        pairs.extend(audiences.map(|audience| ("audience", audience.clone())));
        Ok(pairs)
    }

    fn exchange(&self, pairs: &mut Vec<(&'static str, String)>) -> Result<(), Failure> {
        const KIND: &str = "urn:ietf:params:oauth:token-type:access_token";
        let kind = |of: &Subject| of.r#type.clone().unwrap_or_else(|| KIND.to_owned());
        let grant = "urn:ietf:params:oauth:grant-type:token-exchange";
        pairs.push(("grant_type", grant.to_owned()));
        let subject = self.subject.as_ref();
        pairs.push((
            "subject_token",
            needed("subject", subject.map(|s| &s.token))?,
        ));
        pairs.extend(subject.map(|subject| ("subject_token_type", kind(subject))));
        if let Some(actor) = &self.actor {
            pairs.push(("actor_token", actor.token.resolve()?));
            pairs.push(("actor_token_type", kind(actor)));
        }
        Ok(())
    }

    /// Says who asks: in the body, or in the header that is returned.
    fn identify(&self, pairs: &mut Vec<(&'static str, String)>) -> Result<Option<String>, Failure> {
        let client = &self.client;
        let id = client.id.as_ref().map(Text::resolve).transpose()?;
        match client.authentication {
            Method::ClientSecretBasic => {
                let id = id.ok_or_else(|| missing("client.id"))?;
                let secret = needed("client.secret", client.secret.as_ref())?;
                let credentials = STANDARD.encode(format!("{id}:{secret}"));
                return Ok(Some(format!("Basic {credentials}")));
            }
            Method::ClientSecretPost => {
                pairs.extend(id.map(|id| ("client_id", id)));
                if let Some(secret) = &client.secret {
                    pairs.push(("client_secret", secret.resolve()?));
                }
            }
            Method::PrivateKeyJwt => {
                let assertion = needed("client.assertion", client.assertion.as_ref())?;
                pairs.extend(id.map(|id| ("client_id", id)));
                pairs.push(("client_assertion_type", ASSERTION.to_owned()));
                pairs.push(("client_assertion", assertion));
            }
            Method::None => pairs.extend(id.map(|id| ("client_id", id))),
        }
        Ok(None)
    }

    /// Whether the token is from one of the issuers, if the policy names any.
    fn issued(&self, token: &str) -> Result<(), Failure> {
        if self.issuers.is_empty() {
            return Ok(());
        }
        let issuer = issuer(token);
        if issuer
            .as_ref()
            .is_some_and(|issuer| self.issuers.contains(issuer))
        {
            return Ok(());
        }
        let message = match issuer {
            Some(issuer) => format!("the token is from `{issuer}`, which is none of `issuers`"),
            None => "the token does not say who issued it, and `issuers` wants to know".to_owned(),
        };
        Err(Failure::new(
            Class::Unauthenticated,
            "oauth2.issuer",
            message,
        ))
    }
}

/// Who issued a JWT, by its own account; whoever is called checks the signature.
fn issuer(token: &str) -> Option<String> {
    let payload = URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
    let claims: Value = serde_json::from_slice(&payload).ok()?;
    Some(claims.get("iss")?.as_str()?.to_owned())
}

fn needed(what: &str, text: Option<&Text>) -> Result<String, Failure> {
    text.ok_or_else(|| missing(what))?.resolve()
}

fn missing(what: &str) -> Failure {
    let message = format!("the authentication needs `{what}`");
    Failure::invalid_input("auth.missing", message)
}

fn joined(authority: &str, path: &str) -> String {
    if path.contains("://") {
        return path.to_owned();
    }
    let path = path.trim_start_matches('/');
    format!("{}/{path}", authority.trim_end_matches('/'))
}

fn discovered(authority: &str) -> Result<String, Failure> {
    let url = if authority.ends_with(DISCOVERY) {
        authority.to_owned()
    } else {
        format!("{}{DISCOVERY}", authority.trim_end_matches('/'))
    };
    let response = Request::get(url).send()?.error_for_status()?;
    Ok(response.json::<Discovered>()?.token_endpoint)
}

/// The authority's own word for it (`invalid_client`), and nothing else of what it says: it may say
/// back what it was told.
fn refused(response: &Response) -> Failure {
    let refusal: Refusal = response.json().unwrap_or_default();
    let fine = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let word = match refusal.error.as_str() {
        "" => response.status().to_string(),
        word if word.len() <= 64 && word.chars().all(fine) => word.to_owned(),
        _ => "refused".to_owned(),
    };
    let message = format!("the authority hands out no token: {word}");
    Failure::new(Class::Unauthenticated, format!("oauth2.{word}"), message)
}
