//! Which plugins a runtime opens with: those that somebody trusted vouches for.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::path::{Path, PathBuf};

use cofferdam::{Config, Connection, Error, PublicKey, Runtime, Swap};
use cofferdam_host::Artifact;
use cofferdam_host::artifact::PrivateKey;

/// A plugin of `cargo xtask guests`.
fn normalize() -> Artifact {
    let folder = std::env::var_os("COFFERDAM_PLUGINS").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/plugins"),
        PathBuf::from,
    );
    let folder = folder.join("normalize");
    assert!(
        folder.join("plugin.wasm").is_file(),
        "{} holds no plugin.wasm: run `cargo xtask guests` first",
        folder.display()
    );
    Artifact::read(&folder).unwrap()
}

/// A folder of plugins with this one in it, packed.
fn folder(plugin: &Artifact) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let archive = plugin.pack().unwrap().to_archive();
    std::fs::write(folder.path().join("phone.cofferdam"), archive).unwrap();
    folder
}

fn config(folder: &Path) -> Config {
    Config::new()
        .with_plugins_dir(folder)
        .with_connection(Connection::new("phone", "phone"))
}

/// The names of the plugins that run unsigned, or the code of the refusal.
async fn opens(config: Config) -> Result<Vec<String>, &'static str> {
    match Runtime::open(config).await {
        Ok(runtime) => {
            let unsigned = runtime.unsigned_plugins();
            runtime.shutdown().await;
            Ok(unsigned)
        }
        Err(Error::Host { source }) => Err(source.code()),
        Err(other) => panic!("{other}"),
    }
}

#[tokio::test]
async fn a_plugin_that_nobody_signed_is_refused_unless_that_is_allowed_and_then_told() {
    let folder = folder(&normalize());
    let strict = || config(folder.path());
    assert_eq!(opens(strict()).await, Err("CD0347"));
    let told = Ok(vec!["normalize".to_owned()]);
    assert_eq!(opens(strict().with_allow_unsigned(true)).await, told);
    let one = Connection::new("phone", "phone").with_allow_unsigned(true);
    assert_eq!(opens(strict().with_connection(one)).await, told);
}

#[tokio::test]
async fn one_connections_leave_is_not_anothers() {
    let folder = folder(&normalize());
    let both = config(folder.path())
        .with_connection(Connection::new("lax", "phone").with_allow_unsigned(true))
        .with_connection(Connection::new("strict", "phone").with_allow_unsigned(false))
        .with_connection(Connection::new("phone", "phone").with_allow_unsigned(true));
    assert_eq!(opens(both).await, Err("CD0347"));
}

#[tokio::test]
async fn a_plugin_that_a_trusted_key_signed_is_let_in_without_a_word() {
    let key = PrivateKey::generate().unwrap();
    let mut plugin = normalize();
    plugin.sign(&key).unwrap();
    let folder = folder(&plugin);
    let trusting = |key: PublicKey| config(folder.path()).with_trusted_keys([key]);
    assert_eq!(opens(trusting(key.public())).await, Ok(Vec::new()));
    let other = PrivateKey::generate().unwrap().public();
    assert_eq!(opens(trusting(other)).await, Err("CD0348"));
    let allowed = trusting(other).with_allow_unsigned(true);
    assert_eq!(opens(allowed).await, Ok(vec!["normalize".to_owned()]));
}

#[tokio::test]
async fn a_signature_that_does_not_fit_is_refused_whatever_is_allowed() {
    let key = PrivateKey::generate().unwrap();
    let mut plugin = normalize();
    plugin.sign(&key).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("phone");
    std::fs::create_dir(&place).unwrap();
    std::fs::write(place.join("plugin.wasm"), plugin.component()).unwrap();
    std::fs::write(place.join("plugin.sig"), plugin.signature_text()).unwrap();
    let manifest = plugin.manifest_text().unwrap();
    std::fs::write(place.join("plugin.toml"), manifest).unwrap();
    let config = || {
        config(folder.path())
            .with_trusted_keys([key.public()])
            .with_allow_unsigned(true)
    };
    assert_eq!(opens(config()).await, Ok(Vec::new()));
    std::fs::write(place.join("plugin.toml"), format!("{manifest}# more\n")).unwrap();
    assert_eq!(opens(config()).await, Err("CD0345"));
}

/// Another component that does the same.
fn another() -> Artifact {
    let plugin = normalize();
    let component = [plugin.component(), &[0, 5, 4, b'm', b'o', b'r', b'e']].concat();
    Artifact::new(component, plugin.manifest_text(), "another").unwrap()
}

#[tokio::test]
async fn a_swap_asks_who_vouches_and_a_restart_asks_again() {
    let (key, stranger) = (
        PrivateKey::generate().unwrap(),
        PrivateKey::generate().unwrap(),
    );
    let mut plugin = normalize();
    plugin.sign(&key).unwrap();
    let folder = folder(&plugin);
    let config = config(folder.path())
        .with_trusted_keys([key.public()])
        .with_store(folder.path().join("data"));
    let runtime = Runtime::open(config.clone()).await.unwrap();
    let swap = |artifact: &Artifact| {
        // Not packed: component, manifest and signature lie beside each other.
        let path = folder.path().join("next.wasm");
        std::fs::write(&path, artifact.component()).unwrap();
        let manifest = artifact.manifest_text().unwrap();
        std::fs::write(folder.path().join("plugin.toml"), manifest).unwrap();
        std::fs::write(path.with_extension("sig"), artifact.signature_text()).unwrap();
        let swap = Swap {
            artifact: path,
            canary: None,
            force: true,
        };
        runtime.swap("phone", swap)
    };
    let code = |error: Error| match error {
        Error::Host { source } => source.code(),
        other => panic!("{other}"),
    };
    let mut next = another();
    next.sign(&stranger).unwrap();
    assert_eq!(code(swap(&next).await.unwrap_err()), "CD0348");
    next.sign(&key).unwrap();
    swap(&next).await.unwrap();
    runtime.shutdown().await;
    let runtime = Runtime::open(config.clone()).await.unwrap();
    assert_eq!(runtime.generations("phone").unwrap().active.row.number, 2);
    runtime.shutdown().await;
    // What was let in once is not let in for ever.
    let signature = folder.path().join("data/plugins/phone/2/plugin.sig");
    std::fs::remove_file(signature).unwrap();
    let runtime = Runtime::open(config).await.unwrap();
    let serving = runtime.generations("phone").unwrap().active.row;
    assert_eq!(serving.number, 3);
    runtime.shutdown().await;
}
