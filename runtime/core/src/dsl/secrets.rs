//! `use.secrets`, `$secrets` in expressions, and variables that are constants where they stand.

use super::context::Context;
use super::report::{At, Report, suggest};
use crate::expr::Template;
use crate::workflow::{SecretUse, Secrets};

/// A workflow has no more secrets: a call has at most so many placeholders.
const SECRETS_MAX: usize = 64;
/// No secret's name is longer, in bytes.
const NAME_BYTES_MAX: usize = 128;

/// `use.secrets`: names.
pub(super) fn declared(report: &Report, at: Option<At<'_>>) -> Secrets {
    let mut secrets = Secrets::default();
    let Some(at) = at else { return secrets };
    let Some(items) = at.items() else {
        report.wrong_kind::<()>(&at, "a list of names");
        return secrets;
    };
    if items.len() > SECRETS_MAX {
        let cause = format!(
            "there are {} secrets; {SECRETS_MAX} are allowed",
            items.len()
        );
        report.error::<()>("CD0106", &at, cause, "remove some");
    }
    for item in items.iter().take(SECRETS_MAX) {
        let Some(name) = report.text(item) else {
            continue;
        };
        if name.is_empty() || name.len() > NAME_BYTES_MAX || name.contains(char::is_control) {
            let cause = format!("`{name}` cannot be the name of a secret");
            let remedy = "write the name that the secret has in the connection, 1 to 128 bytes";
            report.error::<()>("CD0106", item, cause, remedy);
        }
        secrets.own.insert(name.to_owned());
    }
    secrets.all.clone_from(&secrets.own);
    secrets
}

impl Context<'_> {
    /// Whether every secret that an expression names is declared.
    pub(super) fn known_secrets(&self, at: &At<'_>, source: &str) -> Option<()> {
        for name in named(source) {
            self.known_secret(at, name)?;
        }
        Some(())
    }

    /// Whether a secret is declared.
    pub(super) fn known_secret(&self, at: &At<'_>, name: &str) -> Option<()> {
        let secrets = self.secrets.borrow();
        if secrets.own.contains(name) {
            return Some(());
        }
        let remedy = match suggest(name, secrets.own.iter().map(String::as_str)) {
            near if near.starts_with("did") => near,
            _ => format!("add it: `use: {{secrets: [{name}]}}`"),
        };
        let cause = format!("`use.secrets` does not name `{name}`");
        self.report.error("CD0150", at, cause, remedy)
    }

    /// Notes which secrets a call sends through a connection, so that it can be checked that the
    /// connection has them.
    pub(super) fn sends(&self, at: &At<'_>, connection: &str, with: &Template) {
        let mut sources = Vec::new();
        in_template(with, &mut sources);
        let mut secrets = self.secrets.borrow_mut();
        for name in sources.iter().flat_map(|source| named(source)) {
            secrets.uses.push(SecretUse {
                origin: self.report.origin().to_owned(),
                line: at.node.spot.line,
                connection: connection.to_owned(),
                name: name.to_owned(),
            });
        }
    }

    /// The expression with those variables bound that are constants here.
    pub(super) fn with_constants(&self, source: &str) -> String {
        let constants = self.constants.borrow();
        let mut text = source.to_owned();
        for (name, value) in constants.iter().rev() {
            if mentions(&text, name) {
                text = format!("{value} as ${name} | ({text})");
            }
        }
        text
    }

    /// Does something while a variable is a constant.
    pub(super) fn with_constant<T>(
        &self,
        name: &'static str,
        value: &serde_json::Value,
        work: impl FnOnce() -> T,
    ) -> T {
        self.constants.borrow_mut().push((name, value.to_string()));
        let done = work();
        self.constants.borrow_mut().pop();
        done
    }
}

/// Whether an expression reads a variable; a longer name that begins alike does not count.
fn mentions(source: &str, name: &str) -> bool {
    let pattern = format!("${name}");
    source.match_indices(&pattern).any(|(at, found)| {
        let next = source[at + found.len()..].chars().next();
        !next.is_some_and(|c| c.is_ascii_alphanumeric() || c == '_')
    })
}

fn in_template<'t>(template: &'t Template, sources: &mut Vec<&'t str>) {
    match template {
        Template::Literal(_) | Template::Uri(_) => {}
        Template::Expr(expr) => sources.push(expr.source()),
        Template::Array(parts) => parts.iter().for_each(|p| in_template(p, sources)),
        Template::Object(parts) => parts.values().for_each(|p| in_template(p, sources)),
    }
}

/// The secrets that an expression names outright: `$secrets.NAME`, `$secrets["NAME"]`.
fn named(source: &str) -> Vec<&str> {
    let mut names = Vec::new();
    for (at, found) in source.match_indices("$secret") {
        let rest = &source[at + found.len()..];
        let rest = rest.strip_prefix('s').unwrap_or(rest);
        let plain = rest
            .strip_prefix('.')
            .filter(|r| !r.starts_with(['[', '"']));
        if let Some(rest) = plain {
            let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
            names.push(&rest[..end.unwrap_or(rest.len())]);
            continue;
        }
        let rest = rest.strip_prefix('.').unwrap_or(rest);
        let quoted = rest.strip_prefix("[\"").or_else(|| rest.strip_prefix('"'));
        names.extend(quoted.and_then(|rest| rest.split('"').next()));
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn named_secrets_are_found_in_each_form() {
        for (source, expected) in [
            ("$secrets.A", vec!["A"]),
            ("$secret.A_1 + $secrets[\"b c\"]", vec!["A_1", "b c"]),
            ("$secrets.\"x\" | length", vec!["x"]),
            ("$secretary.x", vec![]),
            ("$secrets | keys", vec![]),
            (".a", vec![]),
        ] {
            assert_eq!(named(source), expected, "{source}");
        }
    }

    #[test]
    fn a_longer_name_is_another_variable() {
        assert!(mentions("$task.name", "task"));
        assert!(mentions("1 + $task", "task"));
        assert!(!mentions("$tasks.name", "task"));
    }
}
