//! Mail addresses, read strictly: what is not plainly an address is refused.

use std::borrow::Cow;
use std::str::FromStr;

use cofferdam_sdk::prelude::*;

/// An address, perhaps with a name: `ada@example.org` or `Ada Lovelace <ada@example.org>`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Address {
    /// The name to show.
    pub name: Option<String>,
    /// The address itself.
    pub email: String,
}

/// RFC 5321, 4.5.3.1.3, without the angle brackets.
const EMAIL_BYTES_MAX: usize = 254;

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.chars().any(char::is_control) {
            return Err("an address has no line breaks or other control characters".to_owned());
        }
        let (name, email) = match text
            .trim()
            .strip_suffix('>')
            .and_then(|t| t.split_once('<'))
        {
            Some((name, email)) => (Some(name.trim().trim_matches('"').trim()), email.trim()),
            None => (None, text.trim()),
        };
        if !is_email(email) {
            let shown: String = text.chars().take(100).collect();
            return Err(format!(
                "`{shown}` is not a mail address: write `ada@example.org` or `Ada <ada@example.org>`"
            ));
        }
        let name = name.filter(|name| !name.is_empty()).map(str::to_owned);
        Ok(Self {
            name,
            email: email.to_owned(),
        })
    }
}

impl TryFrom<String> for Address {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl Address {
    /// What follows the `@`.
    pub(crate) fn domain(&self) -> &str {
        self.email.rsplit_once('@').map_or("", |(_, domain)| domain)
    }
}

impl JsonSchema for Address {
    fn schema_name() -> Cow<'static, str> {
        "Address".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "string",
            "description": "`ada@example.org` or `Ada Lovelace <ada@example.org>`",
            "minLength": 3,
            "maxLength": 500,
        })
    }
}

/// Whether this is a `dot-atom` at a domain name (RFC 5322, 3.4.1). Quoted local parts and
/// address literals exist and are refused: no vendor's data has them except to do harm.
fn is_email(email: &str) -> bool {
    let Some((local, domain)) = email.rsplit_once('@') else {
        return false;
    };
    let atom = |text: &str| {
        !text.is_empty()
            && text
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~".contains(&b))
    };
    let label = |text: &str| {
        (1..=63).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !text.starts_with('-')
            && !text.ends_with('-')
    };
    email.len() <= EMAIL_BYTES_MAX && local.split('.').all(atom) && domain.split('.').all(label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_may_have_a_name() {
        let address: Address = "\"Ada L.\" <ada+x@mail.example.org>".parse().unwrap();
        assert_eq!(address.name.as_deref(), Some("Ada L."));
        assert_eq!(
            (address.email.as_str(), address.domain()),
            ("ada+x@mail.example.org", "mail.example.org")
        );
    }

    #[test]
    fn what_is_not_plainly_an_address_is_refused() {
        for text in [
            "",
            "ada",
            "@example.org",
            "ada@",
            "a b@example.org",
            "ada@example.org\r\nBcc: eve@example.com",
            "ada@example.org, eve@example.com",
            "<ada@example.org> x",
            "\"a@b\"@example.org",
            "ada@[127.0.0.1]",
            "ada@-x.org",
        ] {
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
    }
}
