//! Packages made by somebody who means harm: each is refused with its code, before anything of it
//! is used.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use std::collections::BTreeMap;
use std::path::Path;

use cofferdam_host::artifact::{Artifact, PrivateKey};
use common::wat;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

const MANIFEST: &str = "name = \"by-hand\"\nversion = \"1.0.0\"\nlicense = \"Apache-2.0\"\n";

/// The files of a layout, to be changed and put together again.
#[derive(Clone)]
struct Layout {
    files: BTreeMap<String, Vec<u8>>,
}

fn layout() -> Layout {
    let component = wat::connector("", "").component().to_owned();
    let mut artifact = Artifact::new(component, Some(MANIFEST), "x").unwrap();
    artifact.sign(&PrivateKey::generate().unwrap()).unwrap();
    let packed = artifact.pack().unwrap();
    let files = packed
        .files()
        .map(|(path, bytes)| (path.to_owned(), bytes.to_vec()));
    Layout {
        files: files.collect(),
    }
}

fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

fn blob(digest: &str) -> String {
    format!("blobs/{}", digest.replace(':', "/"))
}

impl Layout {
    fn json(&self, path: &str) -> Value {
        serde_json::from_slice(&self.files[path]).unwrap()
    }

    fn put(&mut self, path: &str, json: &Value) {
        self.files
            .insert(path.to_owned(), json.to_string().into_bytes());
    }

    fn change(&mut self, path: &str, change: impl FnOnce(&mut Value)) {
        let mut json = self.json(path);
        change(&mut json);
        self.put(path, &json);
    }

    /// Changes a blob that `named` names, and names it right again.
    fn change_blob(&mut self, named: &mut Value, change: impl FnOnce(&mut Self, &mut Value)) {
        let bytes = self
            .files
            .remove(&blob(named["digest"].as_str().unwrap()))
            .unwrap();
        let mut document = serde_json::from_slice(&bytes).unwrap();
        change(self, &mut document);
        let bytes = document.to_string().into_bytes();
        named["digest"] = digest(&bytes).into();
        named["size"] = bytes.len().into();
        self.files.insert(blob(&digest(&bytes)), bytes);
    }

    /// Changes the image manifest at this place of the index.
    fn change_image(&mut self, at: usize, change: impl FnOnce(&mut Self, &mut Value)) {
        let mut index = self.json("index.json");
        self.change_blob(&mut index["manifests"][at], change);
        self.put("index.json", &index);
    }

    /// Without the signature, which would not fit what is changed.
    fn unsigned(mut self) -> Self {
        let mut index = self.json("index.json");
        let referrer = index["manifests"].as_array_mut().unwrap().pop().unwrap();
        let referrer = self
            .files
            .remove(&blob(referrer["digest"].as_str().unwrap()))
            .unwrap();
        let referrer: Value = serde_json::from_slice(&referrer).unwrap();
        for part in [&referrer["config"], &referrer["layers"][0]] {
            self.files.remove(&blob(part["digest"].as_str().unwrap()));
        }
        self.put("index.json", &index);
        self
    }

    fn write(&self, folder: &Path) {
        for (path, contents) in &self.files {
            let path = folder.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, contents).unwrap();
        }
    }

    /// Read as a folder, and as an archive that the system's tar made of it.
    fn read(&self) -> [Result<Artifact, cofferdam_host::Error>; 2] {
        let folder = tempfile::tempdir().unwrap();
        let inside = folder.path().join("layout");
        self.write(&inside);
        let archive = folder.path().join("p.cofferdam");
        let made = std::process::Command::new("tar")
            .args(["--format=ustar", "-cf"])
            .arg(&archive)
            .arg("-C")
            .arg(&inside)
            .arg(".")
            .status()
            .unwrap();
        assert!(made.success());
        [Artifact::read(&inside), Artifact::read(&archive)]
    }

    fn is_refused(&self, what: &str, code: &str, says: &str) {
        for read in self.read() {
            let error = read.map(|_| ()).expect_err(what);
            let told = error.to_string();
            assert_eq!(error.code(), code, "{what}: {told}");
            assert!(told.contains(says), "{what}: {told}");
        }
    }
}

#[test]
fn a_layout_that_others_put_together_is_read() {
    for plain in [layout(), layout().unsigned()] {
        for read in plain.read() {
            assert_eq!(read.unwrap().name(), "by-hand");
        }
    }
    // What the specifications allow, and nobody here needs.
    let mut rich = layout().unsigned();
    rich.change_image(0, |_, image| {
        image["annotations"]["org.opencontainers.image.source"] = "https://example.com".into();
        image["artifactType"] = "application/vnd.wasm.config.v0+json".into();
        image["more"] = json!({"of": "this"});
    });
    rich.change("index.json", |index| {
        index.as_object_mut().unwrap().remove("mediaType");
        index["manifests"][0]["platform"] = json!({"os": "wasip2", "architecture": "wasm"});
    });
    for read in rich.read() {
        let read = read.unwrap();
        let digest = read.digest().unwrap();
        assert_eq!(rich.json("index.json")["manifests"][0]["digest"], digest);
        assert_eq!(
            read.pack().unwrap().digest(),
            digest,
            "it keeps its documents"
        );
    }
}

#[test]
fn other_kinds_and_later_versions_are_refused_by_name() {
    const OCI: &str = "application/vnd.oci.image";
    let cases = [
        ("oci-layout", "/imageLayoutVersion", "2.0.0".into()),
        ("index.json", "/schemaVersion", json!(3)),
        ("index.json", "/mediaType", "x/y".into()),
        (
            "index.json",
            "/manifests/0/mediaType",
            format!("{OCI}.index.v1+json").into(),
        ),
        ("image", "/schemaVersion", json!(1)),
        ("image", "/mediaType", "x/y".into()),
        ("image", "/artifactType", "application/x".into()),
        (
            "image",
            "/config/mediaType",
            format!("{OCI}.config.v1+json").into(),
        ),
        (
            "image",
            "/layers/0/mediaType",
            format!("{OCI}.layer.v1.tar+gzip").into(),
        ),
        ("config", "/os", "wasip1".into()),
        ("config", "/architecture", "amd64".into()),
    ];
    for (document, pointer, value) in cases {
        let mut changed = layout().unsigned();
        let says = value.as_str().map_or(value.to_string(), str::to_owned);
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        let set = |json: &mut Value| json.pointer_mut(parent).unwrap()[key] = value;
        match document {
            "image" => changed.change_image(0, |_, image| set(image)),
            "config" => changed.change_image(0, |layout, image| {
                layout.change_blob(&mut image["config"], |_, config| set(config));
            }),
            file => changed.change(file, set),
        }
        changed.is_refused(pointer, "CD0341", &says);
    }
}

#[test]
fn what_a_package_says_of_its_plugin_has_to_be_true() {
    for key in ["title", "version", "description", "authors", "licenses"] {
        let mut lies = layout().unsigned();
        lies.change_image(0, |_, image| {
            image["annotations"][format!("org.opencontainers.image.{key}")] = "Mallory".into();
        });
        lies.is_refused(key, "CD0343", "Mallory");
    }
    let mut lies = layout().unsigned();
    lies.change_image(0, |lies, image| {
        lies.change_blob(&mut image["config"], |_, config| {
            config["layerDigests"] = json!([digest(b"another")]);
        });
    });
    lies.is_refused("layer digests", "CD0343", "layer");
    let mut moved = layout();
    moved.change_image(1, |_, referrer| {
        referrer["subject"]["digest"] = digest(b"another").into();
    });
    moved.is_refused("the signature of another plugin", "CD0343", "subject");
}

#[test]
fn every_part_has_to_be_what_it_is_named() {
    let names: Vec<String> = layout()
        .files
        .into_keys()
        .filter(|n| n.starts_with("blobs/"))
        .collect();
    assert_eq!(
        names.len(),
        6,
        "component, config, manifest, signature, its config and manifest"
    );
    for at in 0..names.len() {
        let mut altered = layout();
        let name = altered
            .files
            .keys()
            .filter(|n| n.starts_with("blobs/"))
            .nth(at)
            .unwrap()
            .clone();
        let contents = altered.files.get_mut(&name).unwrap();
        *contents.last_mut().unwrap() ^= 1;
        altered.is_refused(&name, "CD0342", "altered");
        let mut missing = layout();
        let name = missing
            .files
            .keys()
            .filter(|n| n.starts_with("blobs/"))
            .nth(at)
            .unwrap()
            .clone();
        missing.files.remove(&name);
        missing.is_refused(&name, "CD0340", &name);
    }
    let mut shorter = layout();
    shorter.change("index.json", |index| {
        index["manifests"][0]["size"] = 1_000.into();
    });
    shorter.is_refused("a size that is not the blob's", "CD0342", "digest");
}

#[test]
fn a_digest_that_leads_elsewhere_is_refused() {
    for evil in [
        "sha256:../../../../etc/passwd",
        "sha256:/etc/passwd",
        "sha512:00",
        "",
        "sha256:",
        &format!("sha256:{}", "A".repeat(64)),
        &format!("sha256:{}\u{1b}[2J", "a".repeat(60)),
    ] {
        let mut changed = layout();
        changed.change("index.json", |index| {
            index["manifests"][0]["digest"] = evil.into();
        });
        changed.is_refused(evil, "CD0340", "is no SHA-256");
    }
}

#[test]
fn what_is_too_large_is_refused_before_it_is_read() {
    let mut large = layout().unsigned();
    large.change("index.json", |index| {
        index["manifests"][0]["size"] = u64::MAX.into();
    });
    large.is_refused("a manifest", "CD0340", "at most");
    let mut large = layout().unsigned();
    large.change_image(0, |_, image| {
        image["layers"][0]["size"] = (1_u64 << 40).into();
    });
    large.is_refused("a component", "CD0302", "at most");
    for name in ["index.json", "oci-layout"] {
        let mut large = layout();
        large
            .files
            .get_mut(name)
            .unwrap()
            .extend(vec![b' '; 300 << 10]);
        large.is_refused(name, "CD0340", "at most");
    }
    let huge = vec![0; (cofferdam_host::COMPONENT_BYTES_MAX + (2 << 20) + 1) as usize];
    let error = Artifact::from_archive(&huge, "huge").unwrap_err();
    assert_eq!(error.code(), "CD0302");
    let mut many = layout();
    many.change("index.json", |index| {
        let one = index["manifests"][0].clone();
        index["manifests"] = vec![one; 10].into();
    });
    many.is_refused("manifests", "CD0340", "too many");
}

#[test]
fn a_package_holds_one_plugin_of_one_layer() {
    let mut none = layout();
    none.change("index.json", |index| index["manifests"] = json!([]));
    assert_eq!(none.read()[0].as_ref().unwrap_err().code(), "CD0340");
    let mut two = layout();
    two.change("index.json", |index| {
        index["manifests"][1] = index["manifests"][0].clone();
    });
    two.is_refused("two plugins", "CD0340", "more than one plugin");
    for count in [0, 2] {
        let mut layers = layout().unsigned();
        layers.change_image(0, |_, image| {
            let one = image["layers"][0].clone();
            image["layers"] = vec![one; count].into();
        });
        layers.is_refused("layers", "CD0340", "instead of one");
    }
}

#[test]
fn a_component_without_a_manifest_is_no_plugin() {
    let mut bare = layout().unsigned();
    let component = wat::connector("", "").component().to_owned();
    bare.change_image(0, |bare, image| {
        bare.files
            .remove(&blob(image["layers"][0]["digest"].as_str().unwrap()));
        bare.files
            .insert(blob(&digest(&component)), component.clone());
        image["layers"][0]["digest"] = digest(&component).into();
        image["layers"][0]["size"] = component.len().into();
        bare.change_blob(&mut image["config"], |_, config| {
            config["layerDigests"] = json!([digest(&component)]);
        });
    });
    bare.is_refused("bare", "CD0344", "no manifest");
}

#[test]
fn signatures_in_a_package_are_checked_as_strictly() {
    type Change = fn(&mut Layout, &mut Value);
    let cases: [(&str, Change, &str); 5] = [
        (
            "no subject",
            |_, j| drop(j.as_object_mut().unwrap().remove("subject")),
            "CD0343",
        ),
        (
            "another config",
            |_, j| j["config"]["mediaType"] = "x/y".into(),
            "CD0341",
        ),
        (
            "another layer",
            |_, j| j["layers"][0]["mediaType"] = "x/y".into(),
            "CD0341",
        ),
        (
            "two layers",
            |_, j| {
                let one = j["layers"][0].clone();
                j["layers"] = json!([one, one]);
            },
            "CD0340",
        ),
        (
            "a later version",
            |l, j| {
                let line = b"cofferdam-plugin-signature-v2 x y".to_vec();
                l.files
                    .remove(&blob(j["layers"][0]["digest"].as_str().unwrap()));
                j["layers"][0]["digest"] = digest(&line).into();
                j["layers"][0]["size"] = line.len().into();
                l.files.insert(blob(&digest(&line)), line);
            },
            "CD0346",
        ),
    ];
    for (what, change, code) in cases {
        let mut changed = layout();
        changed.change_image(1, change);
        changed.is_refused(what, code, "");
    }
}

#[test]
fn what_nothing_refers_to_is_not_smuggled_in_an_archive() {
    for name in ["plugin.toml", "blobs/sha256/more", "x/y"] {
        let mut more = layout();
        more.files.insert(name.to_owned(), b"more".to_vec());
        let [folder, archive] = more.read();
        assert!(folder.is_ok(), "a folder may lie beside other things");
        let told = archive.unwrap_err().to_string();
        assert!(told.contains("nothing in it refers to"), "{told}");
    }
}

#[test]
fn links_are_not_followed() {
    let folder = tempfile::tempdir().unwrap();
    let target = tempfile::tempdir().unwrap();
    let layout = layout();
    for name in layout.files.keys() {
        let place = folder.path().join(name);
        layout.write(folder.path());
        let moved = target.path().join("moved");
        std::fs::rename(&place, &moved).unwrap();
        std::os::unix::fs::symlink(&moved, &place).unwrap();
        let told = Artifact::read(folder.path()).unwrap_err().to_string();
        assert!(told.contains("is a link"), "{name}: {told}");
        std::fs::remove_file(&place).unwrap();
    }
    // In an archive.
    layout.write(folder.path());
    std::fs::remove_file(folder.path().join("oci-layout")).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", folder.path().join("oci-layout")).unwrap();
    let archive = target.path().join("p.cofferdam");
    let made = std::process::Command::new("tar")
        .args(["--format=ustar", "-cf"])
        .arg(&archive)
        .arg("-C")
        .arg(folder.path())
        .arg(".")
        .status()
        .unwrap();
    assert!(made.success());
    let told = Artifact::read(&archive).unwrap_err().to_string();
    assert!(told.contains("regular files only"), "{told}");
}

#[test]
fn what_is_no_json_or_no_file_is_told() {
    for name in ["index.json", "oci-layout"] {
        for text in [
            "",
            "{",
            "[]",
            "{}",
            "\u{1b}[2J",
            "{\"schemaVersion\":2,\"manifests\":7}",
        ] {
            let mut broken = layout();
            broken
                .files
                .insert(name.to_owned(), text.as_bytes().to_vec());
            broken.is_refused(text, "CD0340", name);
        }
        let folder = tempfile::tempdir().unwrap();
        layout().write(folder.path());
        std::fs::remove_file(folder.path().join(name)).unwrap();
        std::fs::create_dir(folder.path().join(name)).unwrap();
        let told = Artifact::read(folder.path()).unwrap_err().to_string();
        assert!(told.contains("no regular file"), "{told}");
    }
    let deep = format!(
        "{{\"schemaVersion\":2,\"manifests\":{}1{}}}",
        "[".repeat(10_000),
        "]".repeat(10_000)
    );
    let mut nested = layout();
    nested
        .files
        .insert("index.json".to_owned(), deep.into_bytes());
    nested.is_refused("deep", "CD0340", "index.json");
}

#[test]
fn a_pipe_is_not_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["plugin.wasm", "p.cofferdam"] {
        let path = folder.path().join(name);
        let made = std::process::Command::new("mkfifo")
            .arg(&path)
            .status()
            .unwrap();
        assert!(made.success());
        let told = Artifact::read(&path).unwrap_err().to_string();
        assert!(told.contains("no regular file"), "{told}");
    }
}
