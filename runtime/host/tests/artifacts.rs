//! Plugins as they travel: packed, signed, altered by strangers, judged.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use std::path::Path;

use cofferdam_host::artifact::{Artifact, PrivateKey, Signer, Trust};
use cofferdam_host::stamp;
use common::{guest, host, wat};
use proptest::prelude::*;

const MANIFEST: &str = r#"name = "by-hand"
version = "1.0.0"
description = "Written by hand"
authors = ["Ada <ada@example.org>", "Grace"]
license = "Apache-2.0"
"#;

fn artifact() -> Artifact {
    let component = wat::connector("", "").component().to_owned();
    Artifact::new(component, Some(MANIFEST), "by-hand").unwrap()
}

fn key() -> PrivateKey {
    PrivateKey::generate().unwrap()
}

fn trusting(key: &PrivateKey) -> Trust {
    Trust {
        keys: vec![key.public()],
        allow_unsigned: false,
    }
}

const EVERYTHING: Trust = Trust {
    keys: Vec::new(),
    allow_unsigned: true,
};

/// Writes a packed file and reads it.
fn packed(folder: &Path, archive: &[u8]) -> Result<Artifact, cofferdam_host::Error> {
    let path = folder.join("p.cofferdam");
    std::fs::write(&path, archive).unwrap();
    Artifact::read(&path)
}

/// A plugin's folder, as an author has it.
fn loose(folder: &Path, artifact: &Artifact) {
    std::fs::write(folder.join("plugin.wasm"), artifact.component()).unwrap();
    std::fs::write(
        folder.join("plugin.toml"),
        artifact.manifest_text().unwrap(),
    )
    .unwrap();
    let signatures = artifact.signature_text();
    if !signatures.is_empty() {
        std::fs::write(folder.join("plugin.sig"), signatures).unwrap();
    }
}

#[test]
fn a_plugin_is_the_same_in_every_form_and_so_is_its_signature() {
    let key = key();
    let mut made = artifact();
    made.sign(&key).unwrap();
    let packed_form = made.pack().unwrap();
    let (one, two, three) = (
        tempfile::tempdir().unwrap(),
        tempfile::tempdir().unwrap(),
        tempfile::tempdir().unwrap(),
    );
    let file = packed(one.path(), &packed_form.to_archive()).unwrap();
    packed_form.write_folder(two.path()).unwrap();
    let folder = Artifact::read(two.path()).unwrap();
    loose(three.path(), &made);
    let beside = Artifact::read(three.path()).unwrap();
    for (read, is_packed) in [(&file, true), (&folder, true), (&beside, false)] {
        assert_eq!(read.is_packed(), is_packed);
        assert_eq!(read.manifest(), made.manifest());
        assert_eq!(read.sealed().unwrap(), made.sealed().unwrap());
        assert_eq!(read.digest().unwrap(), packed_form.digest());
        assert_eq!(
            trusting(&key).judge(read).unwrap(),
            Signer::Key(key.public())
        );
        assert_eq!(read.pack().unwrap().to_archive(), packed_form.to_archive());
        host().load(read.clone()).unwrap();
    }
}

#[test]
fn real_plugins_are_packed_and_loaded() {
    let key = key();
    let folder = tempfile::tempdir().unwrap();
    for name in ["http", "hubspot"] {
        let mut plugin = guest(name);
        plugin.sign(&key).unwrap();
        let read = packed(folder.path(), &plugin.pack().unwrap().to_archive()).unwrap();
        assert!(trusting(&key).judge(&read).unwrap().is_trusted());
        assert_eq!(read.component(), &*plugin.sealed().unwrap());
        assert_eq!(host().load(read).unwrap().name(), name);
    }
}

#[test]
fn the_same_plugin_makes_the_same_bytes_and_another_does_not() {
    let archive = artifact().pack().unwrap().to_archive();
    assert_eq!(artifact().pack().unwrap().to_archive(), archive);
    let other = MANIFEST.replace("1.0.0", "1.0.1");
    let other = Artifact::new(artifact().component().to_owned(), Some(&other), "x").unwrap();
    assert_ne!(
        other.pack().unwrap().digest(),
        artifact().pack().unwrap().digest()
    );
}

#[test]
fn the_documents_are_those_of_the_specifications() {
    let mut plugin = artifact();
    plugin.sign(&key()).unwrap();
    let packed = plugin.pack().unwrap();
    let documents: Vec<(String, serde_json::Value)> = packed
        .files()
        .filter_map(|(path, bytes)| Some((path.to_owned(), serde_json::from_slice(bytes).ok()?)))
        .collect();
    let find = |pointer: &str, value: &str| {
        let found = documents
            .iter()
            .find(|(_, json)| json.pointer(pointer).and_then(|v| v.as_str()) == Some(value));
        &found.unwrap_or_else(|| panic!("{pointer} = {value}")).1
    };
    find("/imageLayoutVersion", "1.0.0");
    let image = find("/config/mediaType", "application/vnd.wasm.config.v0+json");
    assert_eq!(image["schemaVersion"], 2);
    assert_eq!(
        image["mediaType"],
        "application/vnd.oci.image.manifest.v1+json"
    );
    assert_eq!(image["layers"].as_array().unwrap().len(), 1);
    assert_eq!(image["layers"][0]["mediaType"], "application/wasm");
    let said = |key: &str| &image["annotations"][format!("org.opencontainers.image.{key}")];
    assert_eq!(said("title"), "by-hand");
    assert_eq!(said("version"), "1.0.0");
    assert_eq!(said("description"), "Written by hand");
    assert_eq!(said("authors"), "Ada <ada@example.org>, Grace");
    assert_eq!(said("licenses"), "Apache-2.0");
    let config = find("/architecture", "wasm");
    assert_eq!(config["os"], "wasip2");
    assert_eq!(config["layerDigests"][0], image["layers"][0]["digest"]);
    let exports = config["component"]["exports"].as_array().unwrap();
    assert!(exports.contains(&"cofferdam:connector/connector@1.0.0".into()));
    let referrer = find(
        "/artifactType",
        "application/vnd.cofferdam.plugin.signature.v1",
    );
    assert_eq!(
        referrer["config"]["mediaType"],
        "application/vnd.oci.empty.v1+json"
    );
    assert_eq!(referrer["subject"]["digest"], packed.digest());
    let index = find("/mediaType", "application/vnd.oci.image.index.v1+json");
    assert_eq!(index["manifests"].as_array().unwrap().len(), 2);
    assert_eq!(index["manifests"][0]["digest"], packed.digest());
}

#[test]
fn what_is_not_signed_by_a_trusted_key_is_let_in_only_if_that_is_allowed() {
    let (known, unknown) = (key(), key());
    let unsigned = artifact();
    let mut strange = artifact();
    strange.sign(&unknown).unwrap();
    let trust = trusting(&known);
    let error = trust.judge(&unsigned).unwrap_err();
    assert_eq!(error.code(), "CD0347");
    let told = error.to_string();
    assert!(
        told.contains("by-hand") && told.contains("trusted-keys"),
        "{told}"
    );
    let error = trust.judge(&strange).unwrap_err();
    assert_eq!(error.code(), "CD0348");
    let told = error.to_string();
    assert!(told.contains(&unknown.public().to_string()), "{told}");
    assert_eq!(EVERYTHING.judge(&unsigned).unwrap(), Signer::Unsigned);
    assert_eq!(
        EVERYTHING.judge(&strange).unwrap(),
        Signer::Stranger(unknown.public())
    );
    assert_eq!(
        Trust::default().judge(&unsigned).unwrap_err().code(),
        "CD0347"
    );
    // One trusted signature among others is enough, whatever their order.
    strange.sign(&known).unwrap();
    assert_eq!(strange.signatures().len(), 2);
    assert_eq!(trust.judge(&strange).unwrap(), Signer::Key(known.public()));
}

#[test]
fn a_signature_of_something_else_is_refused_whatever_is_allowed() {
    let key = key();
    let mut signed = artifact();
    signed.sign(&key).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, contents: &[u8]| {
        std::fs::write(folder.path().join(name), contents).unwrap();
    };
    let refused = |what: &str, code: &str| {
        let read = Artifact::read(folder.path()).unwrap();
        for trust in [trusting(&key), EVERYTHING] {
            let error = trust.judge(&read).unwrap_err();
            assert_eq!(error.code(), code, "{what}: {error}");
        }
        loose(folder.path(), &signed);
        assert!(
            trusting(&key)
                .judge(&Artifact::read(folder.path()).unwrap())
                .is_ok()
        );
    };
    loose(folder.path(), &signed);

    let altered = stamp(
        &wat::component("", "", "", "(drop (i32.const 1))"),
        r#"{"name":"by-hand","version":"1.0.0","actions":{}}"#,
        None,
    );
    write("plugin.wasm", &altered.unwrap());
    refused("another component", "CD0345");
    write(
        "plugin.toml",
        MANIFEST.replace("Grace", "Mallory").as_bytes(),
    );
    refused("another author", "CD0345");
    write("plugin.toml", MANIFEST.replace("1.0.0", "1.0.1").as_bytes());
    refused("another version", "CD0345");
    write("plugin.toml", format!("{MANIFEST}\n").as_bytes());
    refused("one more line end", "CD0345");
    let asks = format!("{MANIFEST}[capabilities]\nhttp = [\"*\"]\n");
    write("plugin.toml", asks.as_bytes());
    refused("more that it asks for", "CD0345");
    std::fs::remove_file(folder.path().join("plugin.toml")).unwrap();
    refused("no manifest", "CD0344");

    let mut other = Artifact::new(
        signed.component().to_owned(),
        Some(&MANIFEST.replace("by-hand", "other")),
        "x",
    )
    .unwrap();
    other.sign(&key).unwrap();
    write("plugin.sig", other.signature_text().as_bytes());
    refused("the signature of another plugin by the same key", "CD0345");
    // The trusted key's name on a signature that a stranger made.
    let mut strange = artifact();
    strange.sign(&PrivateKey::generate().unwrap()).unwrap();
    let stolen = strange.signature_text().replace(
        &strange.signatures()[0].key().to_string(),
        &key.public().to_string(),
    );
    write("plugin.sig", stolen.as_bytes());
    refused("a trusted key's name on another's signature", "CD0345");
    // A good signature does not make up for a bad one.
    write(
        "plugin.sig",
        format!("{}{}", signed.signature_text(), {
            let mut bad = other.clone();
            bad.sign(&PrivateKey::generate().unwrap()).unwrap();
            bad.signatures()[1].to_string() + "\n"
        })
        .as_bytes(),
    );
    refused("a bad one beside a good one", "CD0345");
    write("plugin.sig", b"");
    assert_eq!(Artifact::read(folder.path()).unwrap_err().code(), "CD0346");
    write("plugin.sig", b"\xff\xfe");
    assert_eq!(Artifact::read(folder.path()).unwrap_err().code(), "CD0301");
    write("plugin.sig", &vec![b'x'; 1 << 20]);
    assert_eq!(Artifact::read(folder.path()).unwrap_err().code(), "CD0302");
}

#[test]
fn signing_again_replaces_what_no_longer_fits() {
    let (one, two) = (key(), key());
    let mut plugin = artifact();
    assert_eq!(plugin.sign(&one).unwrap(), 0);
    assert_eq!(plugin.sign(&two).unwrap(), 0);
    assert_eq!(plugin.sign(&one).unwrap(), 0);
    assert_eq!(plugin.signatures().len(), 2);
    let folder = tempfile::tempdir().unwrap();
    loose(folder.path(), &plugin);
    let next = MANIFEST.replace("1.0.0\"\nd", "1.0.0\"\n# rebuilt\nd");
    std::fs::write(folder.path().join("plugin.toml"), next).unwrap();
    let mut next = Artifact::read(folder.path()).unwrap();
    assert_eq!(
        next.sign(&one).unwrap(),
        1,
        "that of the other key is stale"
    );
    assert!(trusting(&one).judge(&next).is_ok());
}

#[test]
fn a_plugin_has_a_bounded_number_of_signatures() {
    let mut plugin = artifact();
    for _ in 0..cofferdam_host::artifact::SIGNATURES_MAX {
        plugin.sign(&key()).unwrap();
    }
    assert_eq!(plugin.sign(&key()).unwrap_err().code(), "CD0346");
    let folder = tempfile::tempdir().unwrap();
    loose(folder.path(), &plugin);
    let read = Artifact::read(folder.path()).unwrap();
    assert_eq!(read.signatures(), plugin.signatures());
    let read = packed(folder.path(), &plugin.pack().unwrap().to_archive()).unwrap();
    assert_eq!(read.signatures(), plugin.signatures());
}

#[test]
fn what_has_no_name_or_no_descriptor_is_neither_packed_nor_signed() {
    let component = artifact().component().to_owned();
    let mut nameless = Artifact::new(component, None, "nameless.wasm").unwrap();
    assert_eq!(nameless.pack().unwrap_err().code(), "CD0344");
    assert_eq!(nameless.sign(&key()).unwrap_err().code(), "CD0344");
    let bare = wat::component("", "", "", "");
    let mut bare = Artifact::new(bare, Some(MANIFEST), "bare.wasm").unwrap();
    assert_eq!(bare.pack().unwrap_err().code(), "CD0311");
    assert_eq!(bare.sign(&key()).unwrap_err().code(), "CD0311");
}

#[test]
fn a_private_key_that_others_may_read_is_refused() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("k.key");
    std::fs::write(&path, key().to_text().as_bytes()).unwrap();
    for mode in [0o644, 0o640, 0o602, 0o601] {
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        let told = PrivateKey::read(&path).unwrap_err().to_string();
        assert!(told.contains("chmod 600"), "{mode:o}: {told}");
    }
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    let read = PrivateKey::read(&path).unwrap();
    let mut plugin = artifact();
    plugin.sign(&read).unwrap();
    assert!(trusting(&read).judge(&plugin).is_ok());
    for text in [
        "",
        "ed25519-private:AAAA",
        "ed25519-private:!",
        &read.public().to_string(),
    ] {
        std::fs::write(&path, text).unwrap();
        assert_eq!(
            PrivateKey::read(&path).unwrap_err().code(),
            "CD0349",
            "{text}"
        );
    }
    std::fs::write(&path, vec![b'x'; 1 << 20]).unwrap();
    assert!(
        PrivateKey::read(&path)
            .unwrap_err()
            .to_string()
            .contains("too many")
    );
}

/// A signed packed file, and the key.
fn victim() -> &'static (Vec<u8>, PrivateKey, Artifact) {
    static VICTIM: std::sync::OnceLock<(Vec<u8>, PrivateKey, Artifact)> =
        std::sync::OnceLock::new();
    VICTIM.get_or_init(|| {
        let key = key();
        let mut plugin = artifact();
        plugin.sign(&key).unwrap();
        (plugin.pack().unwrap().to_archive(), key, plugin)
    })
}

/// Reading or judging fails, or it is the very same plugin, vouched for by the same key.
fn is_harmless(altered: &[u8]) -> Result<(), String> {
    let (_, key, plugin) = victim();
    let Ok(read) = Artifact::from_archive(altered, "altered") else {
        return Ok(());
    };
    let Ok(signer) = trusting(key).judge(&read) else {
        return Ok(());
    };
    let is_same = signer == Signer::Key(key.public())
        && read.component() == &*plugin.sealed().unwrap()
        && read.manifest() == plugin.manifest()
        && read.digest().unwrap() == plugin.digest().unwrap();
    is_same
        .then_some(())
        .ok_or("another plugin was let in".to_owned())
}

#[test]
fn no_byte_of_a_signed_file_can_be_changed_unnoticed() {
    let (archive, ..) = victim();
    for at in 0..archive.len() {
        let mut altered = archive.clone();
        altered[at] ^= 0x01;
        is_harmless(&altered).unwrap_or_else(|error| panic!("byte {at}: {error}"));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_change_of_a_signed_file_lets_another_plugin_in(
        at in any::<prop::sample::Index>(),
        length in 0_usize..600,
        bytes in prop::collection::vec(any::<u8>(), 0..64),
    ) {
        let mut altered = victim().0.clone();
        let start = at.index(altered.len());
        let end = (start + length).min(altered.len());
        altered.splice(start..end, bytes);
        prop_assert!(is_harmless(&altered).is_ok());
    }

    #[test]
    fn random_bytes_are_refused_and_nothing_breaks(bytes in prop::collection::vec(any::<u8>(), 0..2_000)) {
        prop_assert!(Artifact::from_archive(&bytes, "random").is_err());
    }
}
