//! Keys: ed25519, as one line of text each.

use std::fmt;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::error::Error;
use super::files;

/// Bytes of a public key, and of the seed that a private key is made of.
pub(super) const KEY_BYTES: usize = 32;
/// Bytes of a signature.
pub(super) const SIGNATURE_BYTES: usize = 64;
/// A file with a key has some 60 bytes; whatever is larger has the wrong path.
const KEY_FILE_BYTES_MAX: u64 = 4 << 10;
/// Hexadecimal digits of a key's id: enough to tell keys apart by eye. Nothing is decided by it.
const ID_DIGITS: usize = 16;

const PUBLIC_PREFIX: &str = "ed25519:";
const PRIVATE_PREFIX: &str = "ed25519-private:";

/// The `y` of the points of small order (1, 2, 4 and 8). Anybody can forge signatures that verify
/// under such a key; see "Taming the many `EdDSAs`" (Chalkias, Garillot, Nikolaenko 2020), table 1.
const WEAK: [[u8; KEY_BYTES]; 5] = {
    let mut one = [0; KEY_BYTES];
    one[0] = 1;
    let mut minus_one = [0xff; KEY_BYTES];
    minus_one[0] = 0xec;
    minus_one[31] = 0x7f;
    let low = [
        0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4, 0x89, 0xf2, 0xef, 0x98,
        0xf0, 0xd5, 0xdf, 0xac, 0x05, 0xd3, 0xc6, 0x33, 0x39, 0xb1, 0x38, 0x02, 0x88, 0x6d, 0x53,
        0xfc, 0x05,
    ];
    let high = [
        0xc7, 0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b, 0x76, 0x0d, 0x10, 0x67,
        0x0f, 0x2a, 0x20, 0x53, 0xfa, 0x2c, 0x39, 0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77, 0x92, 0xac,
        0x03, 0x7a,
    ];
    [one, minus_one, [0; KEY_BYTES], low, high]
};

/// Whoever signs plugins is known by this. Compared by all of its bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey([u8; KEY_BYTES]);

impl PublicKey {
    /// Reads `ed25519:` and the key in base64.
    ///
    /// # Errors
    /// [`Error::Key`] for anything else, and for keys under which everybody can sign.
    pub fn parse(text: &str, origin: &str) -> Result<Self, Error> {
        let refuse = |reason: &str| Error::Key {
            origin: origin.to_owned(),
            reason: reason.to_owned(),
        };
        let text = text.trim();
        if text.starts_with(PRIVATE_PREFIX) {
            return Err(refuse(
                "this is a private key; name the public one, and keep this one to yourself",
            ));
        }
        let bytes = text
            .strip_prefix(PUBLIC_PREFIX)
            .and_then(|base64| STANDARD.decode(base64).ok())
            .and_then(|bytes| <[u8; KEY_BYTES]>::try_from(bytes).ok())
            .ok_or_else(|| {
                refuse("this is no public key; write `ed25519:` and 44 characters of base64, as `cofferdam plugin keygen` prints them")
            })?;
        Self::checked(bytes).ok_or_else(|| {
            refuse("anybody could sign under this key; make one with `cofferdam plugin keygen`")
        })
    }

    /// Reads a file that holds a public key and nothing else.
    ///
    /// # Errors
    /// [`Error::Key`] as for [`PublicKey::parse`], and if the file cannot be read.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let text = read_key_file(path)?;
        Self::parse(&text, &path.display().to_string())
    }

    /// The first digits of the key's SHA-256, to tell it apart in messages.
    pub fn id(&self) -> String {
        let mut id = hex::encode(Sha256::digest(self.0));
        id.truncate(ID_DIGITS);
        id
    }

    /// Refuses points of small order, and encodings that are not the one of their point.
    fn checked(bytes: [u8; KEY_BYTES]) -> Option<Self> {
        // The highest bit is the sign of `x`.
        let mut y = bytes;
        y[31] &= 0x7f;
        // The field's prime is 2^255 - 19.
        let is_canonical =
            !(y[0] >= 0xed && y[1..31].iter().all(|byte| *byte == 0xff) && y[31] == 0x7f);
        (is_canonical && !WEAK.contains(&y)).then_some(Self(bytes))
    }

    /// Whether a signature is one of this message by this key.
    pub(super) fn verifies(&self, message: &[u8], signature: &[u8; SIGNATURE_BYTES]) -> bool {
        UnparsedPublicKey::new(&ED25519, self.0)
            .verify(message, signature)
            .is_ok()
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PUBLIC_PREFIX}{}", STANDARD.encode(self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({self})")
    }
}

/// What plugins are signed with. Its seed is wiped from memory when this is dropped, and in no
/// message and no `Debug` output.
pub struct PrivateKey {
    seed: Zeroizing<[u8; KEY_BYTES]>,
    public: PublicKey,
}

impl PrivateKey {
    /// Makes a key out of the system's randomness.
    ///
    /// # Errors
    /// [`Error::Key`] if the system gives none.
    pub fn generate() -> Result<Self, Error> {
        let mut seed = Zeroizing::new([0; KEY_BYTES]);
        getrandom::fill(seed.as_mut()).map_err(|error| Error::Key {
            origin: "a new key".to_owned(),
            reason: format!("the system gives no randomness: {error}; try again"),
        })?;
        Self::from_seed(seed, "a new key")
    }

    /// Reads a file that [`PrivateKey::to_text`] was written to and that nobody else can read.
    ///
    /// # Errors
    /// [`Error::Key`] if it cannot be read, if others can read it, or if it holds no private key.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let origin = path.display().to_string();
        files::only_for_owner(path).map_err(|reason| Error::Key {
            origin: origin.clone(),
            reason,
        })?;
        let text = Zeroizing::new(read_key_file(path)?);
        let refuse = |reason: &str| Error::Key {
            origin: origin.clone(),
            reason: reason.to_owned(),
        };
        let text = text.trim();
        if text.starts_with(PUBLIC_PREFIX) {
            return Err(refuse(
                "this is a public key; name the private one, which `cofferdam plugin keygen` wrote beside it",
            ));
        }
        let not_one = || refuse("this is no private key; make one with `cofferdam plugin keygen`");
        let base64 = text.strip_prefix(PRIVATE_PREFIX).ok_or_else(not_one)?;
        let bytes = Zeroizing::new(STANDARD.decode(base64).map_err(|_| not_one())?);
        let mut seed = Zeroizing::new([0; KEY_BYTES]);
        if bytes.len() != KEY_BYTES {
            return Err(not_one());
        }
        seed.copy_from_slice(&bytes);
        Self::from_seed(seed, &origin)
    }

    /// The key as a file's contents: `ed25519-private:` and the seed in base64.
    pub fn to_text(&self) -> Zeroizing<String> {
        let base64 = Zeroizing::new(STANDARD.encode(self.seed.as_ref()));
        Zeroizing::new(format!("{PRIVATE_PREFIX}{}\n", base64.as_str()))
    }

    /// The key that others verify with.
    pub fn public(&self) -> PublicKey {
        self.public
    }

    pub(super) fn sign(&self, message: &[u8]) -> Option<[u8; SIGNATURE_BYTES]> {
        let pair = Ed25519KeyPair::from_seed_unchecked(self.seed.as_ref()).ok()?;
        pair.sign(message).as_ref().try_into().ok()
    }

    fn from_seed(seed: Zeroizing<[u8; KEY_BYTES]>, origin: &str) -> Result<Self, Error> {
        let public = Ed25519KeyPair::from_seed_unchecked(seed.as_ref())
            .ok()
            .and_then(|pair| <[u8; KEY_BYTES]>::try_from(pair.public_key().as_ref()).ok())
            .and_then(PublicKey::checked)
            .ok_or_else(|| Error::Key {
                origin: origin.to_owned(),
                reason: "no key can be made of it; make one with `cofferdam plugin keygen`"
                    .to_owned(),
            })?;
        Ok(Self { seed, public })
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PrivateKey")
            .field("public", &self.public)
            .finish_non_exhaustive()
    }
}

fn read_key_file(path: &Path) -> Result<String, Error> {
    let refuse = |reason: String| Error::Key {
        origin: path.display().to_string(),
        reason,
    };
    let bytes = files::read_bounded(path, KEY_FILE_BYTES_MAX).map_err(|error| match error {
        files::Error::Io(error) => refuse(format!("cannot be read: {error}; check the path")),
        files::Error::TooLarge(bytes) => refuse(format!("has {bytes} bytes, too many for a key")),
    })?;
    String::from_utf8(bytes).map_err(|_| refuse("is no text, so it holds no key".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 8032, section 7.1, test 2.
    const SEED: &str = "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb";
    const PUBLIC: &str = "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c";
    const SIGNED: &str = "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da\
                          085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00";

    fn bytes<const N: usize>(text: &str) -> [u8; N] {
        hex::decode(text).unwrap().try_into().unwrap()
    }

    #[test]
    fn keys_and_signatures_are_those_of_the_standard() {
        let key = PrivateKey::from_seed(Zeroizing::new(bytes(SEED)), "test").unwrap();
        assert_eq!(key.public().0, bytes(PUBLIC));
        assert_eq!(key.sign(&[0x72]), Some(bytes(SIGNED)));
        assert!(key.public().verifies(&[0x72], &bytes(SIGNED)));
        assert!(!key.public().verifies(&[0x73], &bytes(SIGNED)));
    }

    #[test]
    fn a_key_is_read_back_from_its_text() {
        let key = PrivateKey::generate().unwrap().public();
        assert_eq!(PublicKey::parse(&format!(" {key}\n"), "k").unwrap(), key);
        assert_eq!(key.id().len(), ID_DIGITS);
    }

    #[test]
    fn a_key_under_which_everybody_can_sign_is_refused() {
        // The identity as key and as the signature's point: it verifies for every message.
        let identity = WEAK[0];
        let mut forged = [0; SIGNATURE_BYTES];
        forged[..KEY_BYTES].copy_from_slice(&identity);
        assert!(
            PublicKey(identity).verifies(b"whatever", &forged),
            "which is why it has to be refused"
        );
        let mut not_canonical = [0xff; KEY_BYTES];
        not_canonical[0] = 0xee;
        not_canonical[31] = 0x7f;
        for mut weak in WEAK.into_iter().chain([not_canonical]) {
            for _ in 0..2 {
                let text = format!("{PUBLIC_PREFIX}{}", STANDARD.encode(weak));
                let told = PublicKey::parse(&text, "k").unwrap_err().to_string();
                assert!(told.contains("anybody could sign"), "{told}");
                weak[31] ^= 0x80;
            }
        }
    }

    #[test]
    fn what_is_no_key_is_told_without_repeating_it() {
        let private = PrivateKey::generate().unwrap().to_text();
        for text in ["", "ed25519:", "ed25519:AAAA", "rsa:AAAA", private.as_str()] {
            let told = PublicKey::parse(text, "trusted-keys[0]")
                .unwrap_err()
                .to_string();
            assert!(told.starts_with("trusted-keys[0]: "), "{told}");
            assert!(!told.contains(private.trim()), "{told}");
        }
        let key = PrivateKey::generate().unwrap();
        let shown = format!("{key:?}");
        assert!(!shown.contains(key.to_text().trim()), "{shown}");
    }
}
