//! Why an artifact was not read, packed, signed or trusted.

/// What is wrong with an artifact, a signature or a key. Every message names the place, the cause
/// and the remedy.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A packed plugin whose parts do not fit together.
    #[error(
        "`{origin}` is no packed plugin: {reason}; take it from its source again, or make it with `cofferdam plugin pack`"
    )]
    Packed {
        /// The file or folder.
        origin: String,
        /// What is wrong, and in which part.
        reason: String,
    },
    /// A packed thing of another kind or of a later version.
    #[error(
        "`{origin}`: {what} is `{found}`, and only `{wanted}` is understood; get a plugin that was made with `cofferdam plugin pack`"
    )]
    Unsupported {
        /// The file or folder.
        origin: String,
        /// Which part.
        what: String,
        /// What it says.
        found: String,
        /// What it has to say.
        wanted: &'static str,
    },
    /// Contents that are not those that were packed.
    #[error(
        "`{origin}`: the contents of {what} have digest {found} instead of {wanted}; it was damaged or altered: take it from its source again"
    )]
    Digest {
        /// The file or folder.
        origin: String,
        /// Which part.
        what: String,
        /// The digest of what is there.
        found: String,
        /// The digest that it was packed with.
        wanted: String,
    },
    /// A package that says one thing outside and another inside.
    #[error(
        "`{origin}`: the package says {key} `{outside}` and the plugin in it says `{inside}`; take it from its source again"
    )]
    Contradiction {
        /// The file or folder.
        origin: String,
        /// An annotation, or a field of the package's configuration.
        key: String,
        /// What the package says.
        outside: String,
        /// What the plugin says.
        inside: String,
    },
    /// A component without a manifest cannot be packed, signed or trusted.
    #[error(
        "`{origin}` has no manifest, so there is no name and no version to vouch for; write a plugin.toml beside it, or run `cofferdam plugin stamp` with one"
    )]
    NoManifest {
        /// The file or folder.
        origin: String,
    },
    /// A signature that is not one of this plugin.
    #[error(
        "`{origin}`: the signature by key {key} is not one of this plugin: it, or the signature, was altered; take both from their source again, and do not run it"
    )]
    BadSignature {
        /// The file or folder.
        origin: String,
        /// The id of the key that is said to have signed.
        key: String,
    },
    /// A text that is no signature.
    #[error(
        "`{origin}`: {reason}; a line is `cofferdam-plugin-signature-v1 ed25519:KEY SIGNATURE`: sign again with `cofferdam plugin sign`"
    )]
    Signature {
        /// The file, or the part of the package.
        origin: String,
        /// What is wrong, and in which line.
        reason: String,
    },
    /// Nobody vouches for the plugin.
    #[error(
        "plugin `{name}` (`{origin}`) is not signed\nhelp: sign it with `cofferdam plugin sign {origin} --key KEY` and add the key to `[plugins] trusted-keys`; \
         or, if you built it yourself, write `allow-unsigned = true` under [plugins]"
    )]
    Unsigned {
        /// The plugin's name.
        name: String,
        /// The file or folder.
        origin: String,
    },
    /// Somebody vouches for the plugin whom the operator does not know.
    #[error(
        "plugin `{name}` (`{origin}`) is signed by key {id}, which is not trusted\nhelp: if you know whose key it is, add \"{key}\" to `[plugins] trusted-keys`"
    )]
    UntrustedKey {
        /// The plugin's name.
        name: String,
        /// The file or folder.
        origin: String,
        /// The key's id.
        id: String,
        /// The key.
        key: String,
    },
    /// A key that cannot be used.
    #[error("{origin}: {reason}")]
    Key {
        /// The file, or what stands for the text.
        origin: String,
        /// What is wrong, and what to do. Never contains a private key.
        reason: String,
    },
}

impl Error {
    /// The stable code under which the documentation explains this.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Packed { .. } => "CD0340",
            Self::Unsupported { .. } => "CD0341",
            Self::Digest { .. } => "CD0342",
            Self::Contradiction { .. } => "CD0343",
            Self::NoManifest { .. } => "CD0344",
            Self::BadSignature { .. } => "CD0345",
            Self::Signature { .. } => "CD0346",
            Self::Unsigned { .. } => "CD0347",
            Self::UntrustedKey { .. } => "CD0348",
            Self::Key { .. } => "CD0349",
        }
    }
}
