//! What is refused before anything runs, and the code cache.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use std::path::Path;

use cofferdam_host::{Artifact, ConnectionSpec, Error, Host, HostOptions, Plugin, stamp};
use common::{call, connect, guest, host, services, unruly_spec, wat};
use serde_json::json;

fn artifact(component: Vec<u8>, manifest: Option<&str>) -> Artifact {
    Artifact::new(component, manifest, "some.wasm").unwrap()
}

fn refused(component: Vec<u8>) -> Error {
    match host().load(artifact(component, None)) {
        Ok(_) => panic!("it has to be refused"),
        Err(error) => error,
    }
}

#[test]
fn each_kind_of_wrong_file_is_told_apart() {
    let text = |text: &str| wat::parse(text);
    let other = r#"(component (component $c) (instance $i (instantiate $c)) (export "acme:thing/run@2.0.0" (instance $i)))"#;
    let future = r#"(component (component $c) (instance $i (instantiate $c)) (export "cofferdam:connector/connector@2.0.0" (instance $i)))"#;
    let importing = |name: &str| {
        let import = format!(r#"(import "{name}" (instance))"#);
        wat::component(&import, "", "", "")
    };
    let mut cut = wat::component("", "", "", "");
    cut.truncate(cut.len() / 2);
    let cases: Vec<(&str, Vec<u8>, &str, &str)> = vec![
        ("text", b"hello".to_vec(), "CD0303", "is not WebAssembly"),
        ("empty", Vec::new(), "CD0303", "is not WebAssembly"),
        ("core module", text("(module)"), "CD0304", "wasm32-wasip2"),
        ("cut off", cut, "CD0305", "build it again"),
        (
            "empty component",
            text("(component)"),
            "CD0306",
            "it exports nothing",
        ),
        (
            "another world",
            text(other),
            "CD0306",
            "acme:thing/run@2.0.0",
        ),
        ("a later contract", text(future), "CD0307", "2.0.0"),
        (
            "a later import",
            importing("cofferdam:connector/log@2.0.0"),
            "CD0307",
            "2.0.0",
        ),
        (
            "unknown import",
            importing("acme:secret/door@1.0.0"),
            "CD0308",
            "acme:secret/door@1.0.0",
        ),
        (
            "WASI 0.3",
            importing("wasi:http/types@0.3.0"),
            "CD0308",
            "WASI 0.2",
        ),
    ];
    for (what, component, code, says) in cases {
        let error = refused(component);
        assert_eq!(error.code(), code, "{what}: {error}");
        assert!(error.to_string().contains(says), "{what}: {error}");
        assert!(error.to_string().contains("some.wasm"), "{what}: {error}");
    }
}

#[test]
fn a_component_that_is_too_large_is_refused_without_reading_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("big.wasm");
    let file = std::fs::File::create(&path).unwrap();
    file.set_len(cofferdam_host::COMPONENT_BYTES_MAX + 1)
        .unwrap();
    assert_eq!(Artifact::read(&path).unwrap_err().code(), "CD0302");
    assert_eq!(
        Artifact::read(Path::new("/no/such/plugin"))
            .unwrap_err()
            .code(),
        "CD0301"
    );
}

#[test]
fn a_folder_and_a_file_with_its_manifest_beside_it_are_the_same_plugin() {
    let folder = tempfile::tempdir().unwrap();
    let component = wat::connector("", "").component().to_owned();
    std::fs::write(folder.path().join("plugin.wasm"), &component).unwrap();
    std::fs::write(folder.path().join("plugin.toml"), MANIFEST).unwrap();
    let by_folder = Artifact::read(folder.path()).unwrap();
    let by_file = Artifact::read(&folder.path().join("plugin.wasm")).unwrap();
    assert_eq!(by_folder.manifest(), by_file.manifest());
    assert_eq!(by_folder.manifest().unwrap().name, "by-hand");
    std::fs::write(folder.path().join("plugin.toml"), "name = 1").unwrap();
    let error = Artifact::read(folder.path()).unwrap_err();
    assert_eq!(error.code(), "CD0309");
    assert!(error.to_string().contains("plugin.toml:1:"), "{error}");
}

const MANIFEST: &str = "name = \"by-hand\"\nversion = \"1.0.0\"\n";

#[test]
fn a_manifest_travels_in_the_component_as_well() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("one.wasm");
    let bare = wat::component("", "", "", "");
    let descriptor = r#"{"name":"by-hand","version":"1.0.0","actions":{}}"#;
    std::fs::write(&path, stamp(&bare, descriptor, Some(MANIFEST)).unwrap()).unwrap();
    assert_eq!(
        Artifact::read(&path).unwrap().manifest().unwrap().name,
        "by-hand"
    );
}

#[test]
fn a_manifest_that_contradicts_the_descriptor_is_refused() {
    let stamped = wat::connector("", "").component().to_owned();
    for (from, to, key) in [("by-hand", "other", "name"), ("1.0.0", "1.0.1", "version")] {
        let error = host().load(artifact(stamped.clone(), Some(&MANIFEST.replace(from, to))));
        let Err(error) = error else {
            panic!("{key} has to be refused")
        };
        assert_eq!(error.code(), "CD0310");
        assert!(error.to_string().contains(&format!("`{key} = ")), "{error}");
    }
}

const KV: &str = r#"(import "cofferdam:connector/kv@1.0.0" (instance))"#;
const SECRETS: &str = r#"(import "cofferdam:connector/secrets@1.0.0" (instance))"#;
const SQL: &str = r#"(import "cofferdam:connector/sql@1.0.0" (instance))"#;

fn connecting(plugin: &Plugin, spec: ConnectionSpec) -> Error {
    match plugin.connect(spec, services()) {
        Ok(_) => panic!("it has to be refused"),
        Err(error) => error,
    }
}

#[test]
fn an_import_without_a_grant_is_refused_with_the_line_that_grants_it() {
    for (import, what, line) in [(KV, "kv", "kv = true"), (SQL, "sql", "sql = { url = ")] {
        let component = wat::stamped(&wat::component(import, "", "", ""));
        let plugin = host().load(artifact(component, None)).unwrap();
        assert_eq!(plugin.imports(), [what]);
        let error = connecting(&plugin, ConnectionSpec::new("crm"));
        assert_eq!(error.code(), "CD0314");
        let told = error.to_string();
        assert!(told.contains(what) && told.contains(line), "{told}");
        assert!(told.contains("[connections.crm.grants]"), "{told}");
    }
    let asks = format!("{MANIFEST}[capabilities]\nsecrets = [\"TOKEN\"]\n");
    let component = wat::stamped(&wat::component(SECRETS, "", "", ""));
    let plugin = host().load(artifact(component, Some(&asks))).unwrap();
    let told = connecting(&plugin, ConnectionSpec::new("crm")).to_string();
    assert!(told.contains("the secret `TOKEN`"), "{told}");
    let plugin = host().load(guest("unruly")).unwrap();
    let mut spec = unruly_spec(None);
    spec.grants.http.clear();
    let told = connecting(&plugin, spec).to_string();
    assert!(told.contains("http = [\"*\"]"), "{told}");
}

#[test]
fn an_import_that_the_manifest_does_not_ask_for_is_refused() {
    let component = wat::stamped(&wat::component(KV, "", "", ""));
    let Err(error) = host().load(artifact(component, Some(MANIFEST))) else {
        panic!("it has to be refused")
    };
    assert_eq!(error.code(), "CD0315");
    assert!(error.to_string().contains("kv = true"), "{error}");
}

#[test]
fn a_component_without_a_descriptor_cannot_be_connected() {
    let plugin = host()
        .load(artifact(wat::component("", "", "", ""), None))
        .unwrap();
    assert_eq!(
        connecting(&plugin, ConnectionSpec::new("crm")).code(),
        "CD0311"
    );
}

#[test]
fn limits_and_grants_without_sense_are_refused() {
    let plugin = host().load(wat::connector("", "")).unwrap();
    let mut spec = ConnectionSpec::new("crm");
    spec.limits.concurrency_max = 0;
    assert_eq!(connecting(&plugin, spec).code(), "CD0317");
    let mut spec = ConnectionSpec::new("crm");
    spec.grants.http = vec!["api.example.com".to_owned()];
    let error = connecting(&plugin, spec);
    assert_eq!(error.code(), "CD0316");
    assert!(error.to_string().contains("api.example.com"), "{error}");
    let none = Host::new(HostOptions {
        concurrency_max: 0,
        ..HostOptions::default()
    });
    assert!(matches!(none, Err(Error::BadLimit { .. })));
}

fn cached(folder: &Path) -> Host {
    let code_cache_dir = Some(folder.to_owned());
    Host::new(HostOptions {
        code_cache_dir,
        concurrency_max: 2,
        ..HostOptions::default()
    })
    .unwrap()
}

fn entry(folder: &Path, extension: &str) -> std::path::PathBuf {
    let mut found = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    found
        .find(|path| path.extension().is_some_and(|e| e == extension))
        .unwrap()
}

#[tokio::test]
async fn compiled_code_that_was_altered_is_compiled_again() {
    let folder = tempfile::tempdir().unwrap();
    let works = || async {
        let plugin = cached(folder.path()).load(wat::connector("", "")).unwrap();
        let connection = connect(&plugin, ConnectionSpec::new("crm"));
        assert!(
            connection
                .invoke(call("go", json!({})))
                .await
                .result
                .is_ok()
        );
    };
    works().await;
    let code = entry(folder.path(), "cwasm");
    let good = std::fs::read(&code).unwrap();
    let written = || std::fs::metadata(&code).unwrap().modified().unwrap();
    let first = written();
    works().await;
    assert_eq!(written(), first, "the second start takes it from the cache");

    for damage in ["flip", "cut", "mac", "key"] {
        let mac = code.with_extension("mac");
        match damage {
            "flip" => {
                let mut bad = good.clone();
                let middle = bad.len() / 2;
                bad[middle] ^= 1;
                std::fs::write(&code, bad).unwrap();
            }
            "cut" => std::fs::write(&code, &good[..good.len() / 2]).unwrap(),
            "mac" => std::fs::write(&mac, [0; 32]).unwrap(),
            _ => std::fs::write(folder.path().join("key"), [7; 32]).unwrap(),
        }
        let before = (std::fs::read(&code).unwrap(), std::fs::read(&mac).unwrap());
        works().await;
        let after = (std::fs::read(&code).unwrap(), std::fs::read(&mac).unwrap());
        assert_ne!(before, after, "{damage}: it was written again");
    }
}

#[cfg(unix)]
#[test]
fn the_cache_is_for_this_user_alone() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let inner = folder.path().join("code");
    cached(&inner).load(wat::connector("", "")).unwrap();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&inner), 0o700);
    for name in ["cwasm", "mac"] {
        assert_eq!(mode(&entry(&inner, name)), 0o600);
    }
    assert_eq!(mode(&inner.join("key")), 0o600);
    std::fs::set_permissions(&inner, std::fs::Permissions::from_mode(0o777)).unwrap();
    let shared = Host::new(HostOptions {
        code_cache_dir: Some(inner),
        concurrency_max: 2,
        ..HostOptions::default()
    });
    assert!(matches!(shared, Err(Error::Cache { .. })));
}
