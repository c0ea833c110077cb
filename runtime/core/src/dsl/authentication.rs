//! `authentication` of calls, inline or by name from `use.authentications`.
//!
//! What is compiled here is data for the connector, which does the rest inside its chamber. Where a
//! credential stands, a secret's placeholder is meant; anything else is let through with a warning,
//! since the specification's own examples do so.

use indexmap::IndexMap;
use serde_json::{Value, json};

use super::context::Context;
use super::report::{At, Fields, suggest};
use crate::expr::{Expr, Template};

const KINDS: [&str; 4] = ["basic", "bearer", "oauth2", "oidc"];
const OAUTH2: [&str; 12] = [
    "authority",
    "endpoints",
    "grant",
    "client",
    "request",
    "issuers",
    "scopes",
    "audiences",
    "username",
    "password",
    "subject",
    "actor",
];
const GRANTS: [&str; 4] = [
    "client_credentials",
    "password",
    "refresh_token",
    "urn:ietf:params:oauth:grant-type:token-exchange",
];
const METHODS: [&str; 4] = [
    "client_secret_post",
    "client_secret_basic",
    "private_key_jwt",
    "none",
];

impl<'n> Context<'n> {
    /// `authentication: {use: NAME}` or a policy.
    pub(super) fn authentication(&self, at: &At<'n>, vars: &[&str]) -> Option<Template> {
        self.policy_of(&self.authentication_at(at)?, vars)
    }

    /// The policy that is meant.
    fn authentication_at(&self, at: &At<'n>) -> Option<At<'n>> {
        let Some(name) = at.node.entry("use").map(|e| at.child(e)) else {
            return Some(at.clone());
        };
        self.report.fields(at, "authentication", &["use"])?;
        self.report.constant(&name)?;
        let text = self.report.text(&name)?;
        self.named(
            "authentications",
            self.authentications.as_ref(),
            &name,
            text,
        )
    }

    /// `$authorization` of a call: its scheme. The parameter is made in the chamber, and stays there.
    pub(super) fn authorization(&self, word: &str, fields: &Fields<'n>) -> Option<Value> {
        let call = fields.get("call").filter(|_| word == "call")?;
        let path: &[&str] = match call.text()? {
            "http" => &["endpoint", "authentication"],
            "openapi" => &["authentication"],
            "mcp" => &["transport", "http", "endpoint", "authentication"],
            _ => return None,
        };
        let mut at = fields.get("with")?;
        for key in path {
            at = match at.node.entry(key).map(|e| at.child(e)) {
                Some(inner) => inner,
                None => return Some(Value::Null),
            };
        }
        let name = at.node.entry("use").map(|e| at.child(e));
        if let Some(name) = name.as_ref().and_then(At::text) {
            let table = self.authentications.as_ref();
            at = table.and_then(|t| t.node.entry(name).map(|e| t.child(e)))?;
        }
        let scheme = if at.node.entry("basic").is_some() {
            "Basic"
        } else {
            "Bearer"
        };
        Some(json!({"scheme": scheme, "parameter": null}))
    }

    /// A policy itself.
    pub(super) fn policy_of(&self, at: &At<'n>, vars: &[&str]) -> Option<Template> {
        let all = ["basic", "bearer", "digest", "certificate", "oauth2", "oidc"];
        self.report.fields(at, "authentication", &all)?;
        for (kind, why) in [
            (
                "digest",
                "its hash needs the password itself, which no connector ever has",
            ),
            (
                "certificate",
                "connections present no certificate of their own",
            ),
        ] {
            if let Some(entry) = at.node.entry(kind) {
                let cause = format!("`{kind}` authentication is not possible: {why}");
                let remedy = "use basic, bearer, oauth2 or oidc";
                return self.report.error("CD0119", &at.child(entry), cause, remedy);
            }
        }
        let entries = at.entries()?;
        let [(entry, policy)] = entries.as_slice() else {
            let remedy = format!("write one of {}", KINDS.join(", "));
            return self
                .report
                .error("CD0119", at, "an authentication has one kind", remedy);
        };
        let parts = match entry.key.as_str() {
            "basic" => self.basic(policy, vars),
            "bearer" => self.bearer(policy, vars),
            "oauth2" | "oidc" => self.oauth2(&entry.key, policy, vars),
            _ => None,
        };
        Some(object([(entry.key.as_str(), parts?)]))
    }

    /// `{username, password}`, or `{use}` of a secret that is `user:password`.
    fn basic(&self, at: &At<'n>, vars: &[&str]) -> Option<Template> {
        let fields = self
            .report
            .fields(at, "basic", &["username", "password", "use"])?;
        if let Some(name) = fields.get("use") {
            return Some(object([("credentials", self.secret(&name)?)]));
        }
        let username = self.report.need(&fields, "username");
        let password = self.report.need(&fields, "password");
        let username = username.and_then(|u| self.plain(&u, vars));
        let password = password.and_then(|p| self.credential(&p, vars));
        Some(object([("username", username?), ("password", password?)]))
    }

    /// `{token}`, or `{use}` of a secret that is the token.
    fn bearer(&self, at: &At<'n>, vars: &[&str]) -> Option<Template> {
        let fields = self.report.fields(at, "bearer", &["token", "use"])?;
        let token = match fields.get("use") {
            Some(name) => self.secret(&name),
            None => self.credential(&self.report.need(&fields, "token")?, vars),
        };
        Some(object([("token", token?)]))
    }

    /// `oauth2` and `oidc`; with `{use}` the policy is in the connection's config.
    fn oauth2(&self, kind: &str, at: &At<'n>, vars: &[&str]) -> Option<Template> {
        if let Some(name) = at.node.entry("use").map(|e| at.child(e)) {
            self.report.fields(at, kind, &["use"])?;
            self.report.constant(&name)?;
            let text = self.report.text(&name)?;
            self.known_secret(&name, text)?;
            return Some(object([("use", Template::Literal(text.into()))]));
        }
        let fields = self.report.fields(at, kind, &OAUTH2)?;
        let mut good = self.grant(&fields).is_some();
        good &= self.report.need(&fields, "authority").is_some();
        let mut parts = IndexMap::new();
        for (entry, value) in at.entries()? {
            let part = match entry.key.as_str() {
                "authority" => self.uri(&value, vars),
                "endpoints" if kind == "oidc" => self.report.error(
                    "CD0103",
                    &value,
                    "oidc has no key `endpoints`: they are asked of the authority",
                    "remove it, or use oauth2",
                ),
                "endpoints" => {
                    let keys = ["token", "revocation", "introspection"];
                    self.map(&value, "endpoints", &keys, |_, at| self.uri(at, vars))
                }
                "client" => self.client(&value, vars),
                "request" => self.map(&value, "request", &["encoding"], |_, at| {
                    self.one_of(
                        at,
                        &["application/x-www-form-urlencoded", "application/json"],
                    )
                }),
                "issuers" | "scopes" | "audiences" => self.template(&value, vars),
                "username" => self.plain(&value, vars),
                "password" => self.credential(&value, vars),
                "subject" | "actor" => {
                    self.map(&value, &entry.key, &["token", "type"], |key, at| {
                        if key == "token" {
                            self.credential(at, vars)
                        } else {
                            self.plain(at, vars)
                        }
                    })
                }
                _ => Some(Template::Literal(value.node.to_value())),
            };
            match part {
                Some(part) => drop(parts.insert(entry.key.clone(), part)),
                None => good = false,
            }
        }
        good.then(|| Template::object(parts))
    }

    /// The grant, and that what it needs is there.
    fn grant(&self, fields: &Fields<'n>) -> Option<()> {
        let at = self.report.need(fields, "grant")?;
        self.report.constant(&at)?;
        let grant = self.report.text(&at)?;
        if grant == "authorization_code" {
            let cause = "`authorization_code` is not possible: it needs a person with a browser";
            let remedy = "use client_credentials, password, refresh_token or the token exchange";
            return self.report.error("CD0119", &at, cause, remedy);
        }
        if !GRANTS.contains(&grant) {
            let cause = format!("there is no grant `{grant}`");
            let remedy = suggest(grant, GRANTS.into_iter());
            return self.report.error("CD0106", &at, cause, remedy);
        }
        let needed: &[&str] = match grant {
            "password" => &["username", "password"],
            "client_credentials" => &["client"],
            _ => &["subject"],
        };
        let all = needed
            .iter()
            .map(|key| self.report.need(fields, key).map(drop));
        all.collect::<Vec<_>>()
            .into_iter()
            .collect::<Option<Vec<()>>>()?;
        Some(())
    }

    fn client(&self, at: &At<'n>, vars: &[&str]) -> Option<Template> {
        let method = at.node.entry("authentication").map(|e| at.child(e));
        if let Some(at) = &method
            && at.text() == Some("client_secret_jwt")
        {
            let cause = "`client_secret_jwt` is not possible here";
            let remedy = "use client_secret_basic, client_secret_post, or private_key_jwt with a \
                          signed assertion";
            return self.report.error("CD0119", at, cause, remedy);
        }
        let keys = ["id", "secret", "assertion", "authentication"];
        self.map(at, "client", &keys, |key, at| match key {
            "authentication" => self.one_of(at, &METHODS),
            "secret" | "assertion" => self.credential(at, vars),
            _ => self.plain(at, vars),
        })
    }

    /// A map with these keys, each compiled.
    fn map(
        &self,
        at: &At<'n>,
        what: &str,
        keys: &[&str],
        compile: impl Fn(&str, &At<'n>) -> Option<Template>,
    ) -> Option<Template> {
        self.report.fields(at, what, keys)?;
        let known = at.entries()?.into_iter();
        let known = known.filter(|(e, _)| keys.contains(&e.key.as_str()));
        let parts: Vec<_> = known
            .map(|(e, value)| Some((e.key.clone(), compile(&e.key, &value)?)))
            .collect();
        let parts: Option<IndexMap<_, _>> = parts.into_iter().collect();
        Some(Template::object(parts?))
    }

    fn one_of(&self, at: &At<'n>, words: &[&str]) -> Option<Template> {
        self.report.constant(at)?;
        let text = self.report.text(at)?;
        if !words.contains(&text) {
            let cause = format!("`{text}` is none of {}", words.join(", "));
            let remedy = suggest(text, words.iter().copied());
            return self.report.error("CD0106", at, cause, remedy);
        }
        Some(Template::Literal(text.into()))
    }

    /// Text that is no secret.
    fn plain(&self, at: &At<'n>, vars: &[&str]) -> Option<Template> {
        self.report.text(at)?;
        self.template(at, vars)
    }

    /// Text that should be the placeholder of a secret.
    fn credential(&self, at: &At<'n>, vars: &[&str]) -> Option<Template> {
        let template = self.plain(at, vars)?;
        let remedy = "put it into the connection's secrets, name it in `use.secrets`, and write \
                      `${ $secrets.NAME }` here";
        match &template {
            Template::Expr(expr) if expr.source().contains("$secret") => {}
            Template::Expr(_) => {
                let cause = "this credential comes from the run's data, which the journal keeps";
                self.report.warn("CD0151", at, cause, remedy);
            }
            _ => {
                let cause = "this credential stands in the workflow, which the store keeps";
                self.report.warn("CD0151", at, cause, remedy);
            }
        }
        Some(template)
    }

    /// The placeholder of a secret that is named.
    fn secret(&self, at: &At<'n>) -> Option<Template> {
        self.report.constant(at)?;
        let name = self.report.text(at)?;
        self.known_secret(at, name)?;
        let source = format!("$secrets[{}]", Value::from(name));
        Expr::compile(&source, &["secrets"])
            .ok()
            .map(Template::Expr)
    }
}

fn object<const N: usize>(parts: [(&str, Template); N]) -> Template {
    let parts = parts.into_iter().map(|(key, part)| (key.to_owned(), part));
    Template::object(parts.collect())
}
