//! Signatures: what exactly is signed, and how it is written down.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::error::Error;
use super::key::{PrivateKey, PublicKey, SIGNATURE_BYTES};

/// The first word of a statement and of a written signature. It keeps a signature of a plugin from
/// being taken for one of anything else, and names the version of both forms.
const DOMAIN: &str = "cofferdam-plugin-signature-v1";

/// A plugin has at most this many: an author's, those of who reviewed it, and both keys while one
/// takes the place of the other.
pub const SIGNATURES_MAX: usize = 8;
/// One written signature has some 170 bytes.
pub(super) const SIGNATURE_TEXT_BYTES_MAX: u64 = 256;
/// All of them, as they stand in a file.
pub(super) const SIGNATURES_TEXT_BYTES_MAX: u64 = SIGNATURE_TEXT_BYTES_MAX * SIGNATURES_MAX as u64;

/// Somebody vouches for a plugin. Nothing is known about it before it was verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Signature {
    key: PublicKey,
    bytes: [u8; SIGNATURE_BYTES],
}

/// What is signed: a plugin's name, its version, and every byte of its sealed component, in which
/// its manifest and its descriptor travel.
pub(super) struct Statement<'a> {
    pub name: &'a str,
    pub version: &'a str,
    /// SHA-256 of the sealed component, as hexadecimal digits.
    pub sealed: &'a str,
}

impl Statement<'_> {
    /// The signed bytes. Names and versions contain no line ends, so no two plugins have the same.
    fn to_bytes(&self) -> Vec<u8> {
        let Self {
            name,
            version,
            sealed,
        } = self;
        format!("{DOMAIN}\nname: {name}\nversion: {version}\ncomponent: sha256:{sealed}\n")
            .into_bytes()
    }
}

impl Signature {
    /// Signs a statement; the same key makes the same signature of the same plugin.
    pub(super) fn new(statement: &Statement<'_>, key: &PrivateKey) -> Result<Self, Error> {
        let bytes = key.sign(&statement.to_bytes()).ok_or_else(|| Error::Key {
            origin: format!("key {}", key.public().id()),
            reason: "cannot be signed with; make one with `cofferdam plugin keygen`".to_owned(),
        })?;
        Ok(Self {
            key: key.public(),
            bytes,
        })
    }

    /// The key that is said to have made it.
    pub fn key(&self) -> PublicKey {
        self.key
    }

    pub(super) fn is_of(&self, statement: &Statement<'_>) -> bool {
        self.key.verifies(&statement.to_bytes(), &self.bytes)
    }

    /// Reads one line, as [`fmt::Display`] writes it.
    pub(super) fn parse(line: &str, origin: &str) -> Result<Self, Error> {
        let refuse = |reason: &str| Error::Signature {
            origin: origin.to_owned(),
            reason: reason.to_owned(),
        };
        let mut words = line.split(' ');
        match words.next() {
            Some(DOMAIN) => {}
            Some(word) if word.starts_with("cofferdam-plugin-signature-") => {
                return Err(refuse("the signature is of a later version"));
            }
            Some(_) | None => return Err(refuse("this is no signature")),
        }
        let (Some(key), Some(signature), None) = (words.next(), words.next(), words.next()) else {
            return Err(refuse("a signature has three words with one space between"));
        };
        let key = PublicKey::parse(key, origin)?;
        let bytes = STANDARD
            .decode(signature)
            .ok()
            .and_then(|bytes| bytes.try_into().ok())
            .ok_or_else(|| refuse("the last word is not 64 bytes in base64"))?;
        Ok(Self { key, bytes })
    }

    /// Reads all lines of a file of signatures: at least one, and one of each key.
    pub(super) fn parse_all(text: &str, origin: &str) -> Result<Vec<Self>, Error> {
        let signatures: Vec<Self> = text
            .lines()
            .take(SIGNATURES_MAX + 1)
            .enumerate()
            .map(|(index, line)| Self::parse(line, &format!("{origin}:{}", index + 1)))
            .collect::<Result<_, _>>()?;
        check_all(&signatures, origin)?;
        Ok(signatures)
    }
}

/// Refuses none, too many, and two of one key.
pub(super) fn check_all(signatures: &[Signature], origin: &str) -> Result<(), Error> {
    let refuse = |reason: String| Error::Signature {
        origin: origin.to_owned(),
        reason,
    };
    if signatures.is_empty() {
        return Err(refuse("there is no signature in it".to_owned()));
    }
    if signatures.len() > SIGNATURES_MAX {
        return Err(refuse(format!(
            "there are more than {SIGNATURES_MAX} signatures"
        )));
    }
    for (index, signature) in signatures.iter().enumerate() {
        if signatures[..index]
            .iter()
            .any(|other| other.key == signature.key)
        {
            let id = signature.key.id();
            return Err(refuse(format!("there are two signatures by key {id}")));
        }
    }
    Ok(())
}

/// The written form: `cofferdam-plugin-signature-v1`, the public key, the signature in base64.
impl fmt::Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{DOMAIN} {} {}", self.key, STANDARD.encode(self.bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATEMENT: Statement<'static> = Statement {
        name: "crm",
        version: "1.0.0",
        sealed: "00",
    };

    fn signed() -> (PrivateKey, Signature) {
        let key = PrivateKey::generate().unwrap();
        let signature = Signature::new(&STATEMENT, &key).unwrap();
        (key, signature)
    }

    #[test]
    fn a_signature_is_of_one_name_one_version_and_one_component() {
        let (_, signature) = signed();
        assert!(signature.is_of(&STATEMENT));
        for other in [
            Statement {
                name: "crn",
                ..STATEMENT
            },
            Statement {
                version: "1.0.1",
                ..STATEMENT
            },
            Statement {
                sealed: "01",
                ..STATEMENT
            },
        ] {
            assert!(!signature.is_of(&other));
        }
    }

    #[test]
    fn what_was_written_is_read_back() {
        let (_, one) = signed();
        let (_, two) = signed();
        let text = format!("{one}\n{two}\n");
        assert_eq!(Signature::parse_all(&text, "p.sig").unwrap(), [one, two]);
        assert!(text.len() as u64 <= 2 * SIGNATURE_TEXT_BYTES_MAX);
    }

    #[test]
    fn what_is_no_signature_is_told_with_its_line() {
        let (key, good) = signed();
        let line = good.to_string();
        let many: Vec<String> = (0..=SIGNATURES_MAX)
            .map(|_| signed().1.to_string())
            .collect();
        for (text, says) in [
            (String::new(), "no signature in it"),
            ("hello".to_owned(), "p.sig:1`: this is no signature"),
            (line.replace("-v1", "-v2"), "later version"),
            (format!("{line} more"), "three words"),
            (line.replace(' ', "  "), "three words"),
            (format!("{line}\n\n"), "p.sig:2"),
            (
                line.replace(&key.public().to_string(), "ed25519:AA=="),
                "no public key",
            ),
            (line[..line.len() - 4].to_owned(), "64 bytes"),
            (format!("{line}\n{line}"), "two signatures by key"),
            (many.join("\n"), "more than 8"),
        ] {
            let told = Signature::parse_all(&text, "p.sig")
                .unwrap_err()
                .to_string();
            assert!(told.contains(says), "{text:?}: {told}");
        }
    }
}
