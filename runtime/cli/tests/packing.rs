//! From a folder to a signed file that another machine lets in, with the verbs alone.

mod common;

use common::{Sandbox, plugins};

/// A folder with a plugin in it, as its author has it.
fn author() -> Sandbox {
    let sandbox = Sandbox::new();
    for file in ["plugin.wasm", "plugin.toml"] {
        let contents = std::fs::read(plugins().join("http").join(file)).expect("built");
        sandbox.file(&format!("http/{file}"), contents);
    }
    sandbox
}

fn public(sandbox: &Sandbox, name: &str) -> String {
    let made = sandbox.run(&["plugin", "keygen", "--out", name]).exits(0);
    assert!(made.stdout.starts_with("ed25519:"), "{}", made.stdout);
    made.stdout.trim().to_owned()
}

#[test]
fn a_key_is_made_for_its_owner_alone_and_never_replaced_unasked() {
    use std::os::unix::fs::PermissionsExt as _;
    let sandbox = Sandbox::new();
    let key = public(&sandbox, "acme");
    let file = |name: &str| std::fs::read_to_string(sandbox.path(name)).expect("written");
    assert_eq!(file("acme.pub").trim(), key);
    let private = file("acme.key");
    let mode = std::fs::metadata(sandbox.path("acme.key")).expect("there");
    assert_eq!(mode.permissions().mode() & 0o777, 0o600);
    let again = sandbox.run(&["plugin", "keygen", "--out", "acme"]).exits(2);
    assert!(again.stderr.contains("--force"), "{}", again.stderr);
    assert_eq!(again.stdout, "");
    assert_eq!(file("acme.key"), private);
    let json = sandbox
        .run(&[
            "plugin", "keygen", "--out", "acme", "--force", "--output", "json",
        ])
        .exits(0)
        .json();
    assert_ne!(json["publicKey"], key);
    assert!(!json.to_string().contains("private:"), "{json}");
    sandbox
        .run(&["plugin", "keygen", "--out", "no/such/acme"])
        .exits(2);
}

#[test]
fn what_one_signs_another_verifies_inspects_and_uses() {
    let sandbox = author();
    let key = public(&sandbox, "acme");
    let out = "dist.cofferdam";
    let packed = sandbox
        .run(&["plugin", "pack", "http", "--out", out, "--sign", "acme.key"])
        .exits(0);
    let digest = packed.stdout.trim();
    assert!(digest.starts_with("sha256:"), "{digest}");
    for args in [
        &["plugin", "verify", out, "--key", &key][..],
        &["plugin", "verify", out, "--key", "acme.pub"],
    ] {
        let verified = sandbox.run(args).exits(0);
        assert!(
            verified.stdout.contains("signed by trusted key"),
            "{}",
            verified.stdout
        );
    }
    let inspected = sandbox
        .run(&["plugin", "inspect", out, "--output", "json"])
        .exits(0)
        .json();
    assert_eq!(inspected["artifact"]["digest"], digest);
    assert_eq!(inspected["artifact"]["signatures"][0]["key"], key);
    assert_eq!(inspected["artifact"]["signaturesFit"], true);
    let text = sandbox.run(&["plugin", "inspect", out]).exits(0).stdout;
    assert!(
        text.contains("licence") && text.contains("not trusted"),
        "{text}"
    );

    sandbox.file(
        "cofferdam.toml",
        format!("plugins.trusted-keys = ['{key}']\n[connections.http]\nplugin = '{out}'\ngrants.http = ['https://example.com']\n"),
    );
    sandbox.file("w.yaml", common::GREET);
    sandbox.run(&["plugin", "verify", out]).exits(0);
    let input = sandbox.file("i.json", "{\"name\": \"Ada\"}");
    let run = ["run", "w.yaml", "--input", input.to_str().expect("text")];
    let done = sandbox.run(&run).exits(0);
    assert!(!done.stderr.contains("warning"), "{}", done.stderr);
}

#[test]
fn an_unsigned_plugin_stops_a_run_or_is_told_at_each_start() {
    let sandbox = author();
    let connection =
        "[connections.http]\nplugin = './http'\ngrants.http = ['https://example.com']\n";
    sandbox.file("w.yaml", common::GREET);
    let input = sandbox.file("i.json", "{\"name\": \"Ada\"}");
    let run = ["run", "w.yaml", "--input", input.to_str().expect("text")];
    sandbox.file("cofferdam.toml", connection);
    let refused = sandbox.run(&run).exits(2);
    assert!(
        refused.stderr.contains("CD0347") && refused.stderr.contains("allow-unsigned = true"),
        "{}",
        refused.stderr
    );
    let call = [
        "call",
        "./http/plugin.wasm",
        "get",
        "--connection",
        "http",
        "--input",
        "{\"url\":\"https://example.com\"}",
    ];
    let refused = sandbox.run(&call).exits(2);
    assert!(refused.stderr.contains("CD0347"), "{}", refused.stderr);
    let doctor = sandbox.run(&["doctor", "--offline"]).exits(1);
    assert!(doctor.stdout.contains("CD0347"), "{}", doctor.stdout);

    sandbox.file(
        "cofferdam.toml",
        format!("plugins.allow-unsigned = true\n{connection}"),
    );
    for _ in 0..2 {
        let done = sandbox.run(&run).exits(0);
        assert!(
            done.stderr.contains("warning: not signed by a trusted key")
                && done.stderr.contains("http"),
            "{}",
            done.stderr
        );
    }
    let doctor = sandbox.run(&["doctor", "--offline"]).exits(0);
    assert!(
        doctor.stdout.contains("not signed, and let in"),
        "{}",
        doctor.stdout
    );
}

#[test]
fn a_plugin_that_cannot_be_vouched_for_fails_the_check() {
    let sandbox = author();
    let (key, other) = (public(&sandbox, "acme"), public(&sandbox, "other"));
    let check = |key: &str, code: &str| {
        let done = sandbox
            .run(&["plugin", "verify", "http", "--key", key])
            .exits(1);
        assert!(done.stderr.contains(code), "{}", done.stderr);
        assert_eq!(done.stdout, "");
        let args = ["plugin", "verify", "http", "--key", key, "--output", "json"];
        let json = sandbox.run(&args).exits(1).json();
        assert_eq!(
            (&json["verified"], &json["code"]),
            (&false.into(), &code.into())
        );
    };
    check(&key, "CD0347");
    let signed = sandbox
        .run(&["plugin", "sign", "http", "--key", "acme.key"])
        .exits(0);
    assert_eq!(signed.stdout.trim().len(), 16);
    sandbox
        .run(&["plugin", "verify", "http", "--key", &key])
        .exits(0);
    check(&other, "CD0348");
    let manifest = std::fs::read_to_string(sandbox.path("http/plugin.toml")).expect("there");
    sandbox.file("http/plugin.toml", format!("{manifest}# altered\n"));
    check(&key, "CD0345");
    let refused = sandbox.run(&["call", "http/plugin.wasm", "get"]).exits(2);
    assert!(refused.stderr.contains("CD0345"), "{}", refused.stderr);
    let refused = sandbox
        .run(&["plugin", "pack", "http", "--out", "x.cofferdam"])
        .exits(2);
    assert!(refused.stderr.contains("CD0345"), "{}", refused.stderr);
    sandbox
        .run(&["plugin", "sign", "http", "--key", "acme.key"])
        .exits(0);
    sandbox
        .run(&["plugin", "verify", "http", "--key", &key])
        .exits(0);
}

#[test]
fn a_packed_file_and_a_packed_folder_are_signed_where_they_are() {
    let sandbox = author();
    let (key, other) = (public(&sandbox, "acme"), public(&sandbox, "other"));
    for out in ["one.cofferdam", "layout"] {
        let packed = sandbox
            .run(&["plugin", "pack", "http", "--out", out])
            .exits(0);
        for name in ["acme.key", "other.key"] {
            let args = ["plugin", "sign", out, "--key", name, "--output", "json"];
            let signed = sandbox.run(&args).exits(0).json();
            assert_eq!(signed["digest"], packed.stdout.trim(), "signing keeps it");
        }
        for key in [&key, &other] {
            sandbox
                .run(&["plugin", "verify", out, "--key", key])
                .exits(0);
        }
        // Packing what is packed keeps its signatures.
        let again = format!("again-{out}");
        sandbox
            .run(&["plugin", "pack", out, "--out", &again])
            .exits(0);
        sandbox
            .run(&["plugin", "verify", &again, "--key", &key])
            .exits(0);
    }
    assert_eq!(
        std::fs::read(sandbox.path("one.cofferdam")).expect("there"),
        std::fs::read(sandbox.path("again-one.cofferdam")).expect("there")
    );
}

#[test]
fn a_component_that_was_never_stamped_is_stamped_when_it_is_packed() {
    let sandbox = author();
    let bare = unstamped(&std::fs::read(sandbox.path("http/plugin.wasm")).expect("there"));
    sandbox.file("http/plugin.wasm", bare);
    let inspect = |path: &str| {
        sandbox
            .run(&["plugin", "inspect", path, "--output", "json"])
            .exits(0)
            .json()
    };
    assert_eq!(inspect("http")["stamped"], false);
    sandbox
        .run(&["plugin", "pack", "http", "--out", "http.cofferdam"])
        .exits(0);
    assert_eq!(inspect("http.cofferdam")["stamped"], true);
}

/// A component without its custom sections at the end, which is where stamps are.
fn unstamped(component: &[u8]) -> Vec<u8> {
    let stamp = b"cofferdam:descriptor";
    let at = component
        .windows(stamp.len())
        .rposition(|window| window == stamp)
        .expect("stamped");
    // Before the name: its length, the section's size in one to five bytes, and the section's id.
    let mut start = at - 1;
    loop {
        start -= 1;
        if component[start] == 0 && component[start + 1] != 0 {
            return component[..start].to_vec();
        }
    }
}

#[test]
fn nothing_that_is_there_is_written_over() {
    let sandbox = author();
    sandbox.file("there.cofferdam", "mine");
    sandbox.file("folder/mine.txt", "mine");
    let pack = |out: &str, more: &[&str]| {
        let mut args = vec!["plugin", "pack", "http", "--out", out];
        args.extend(more);
        sandbox.run(&args)
    };
    for out in ["there.cofferdam", "folder"] {
        let refused = pack(out, &[]).exits(2);
        assert!(refused.stderr.contains("is there"), "{}", refused.stderr);
        assert_eq!(refused.stdout, "");
    }
    pack("folder", &["--force"]).exits(2);
    assert!(sandbox.path("folder/mine.txt").is_file());
    pack("there.cofferdam", &["--force"]).exits(0);
    pack("layout", &[]).exits(0);
    pack("layout", &[]).exits(2);
    pack("layout", &["--force"]).exits(0);
    sandbox.file("layout/mine.txt", "mine");
    pack("layout", &["--force"]).exits(2);
    assert!(sandbox.path("layout/mine.txt").is_file());
    let refused = pack("x.tar", &[]).exits(2);
    assert!(
        refused.stderr.contains("--out x.cofferdam"),
        "{}",
        refused.stderr
    );
}

#[test]
fn bad_artifacts_and_bad_keys_are_told_with_code_and_remedy() {
    let sandbox = author();
    public(&sandbox, "acme");
    sandbox.file("bad.cofferdam", "no archive");
    sandbox.file("empty.cofferdam", "");
    sandbox.file("oci/oci-layout", "{}");
    sandbox.file(
        "shared.key",
        std::fs::read(sandbox.path("acme.key")).expect("there"),
    );
    sandbox.file("nameless/plugin.wasm", b"\0asm\x0d\0\x01\0");
    for (args, says) in [
        (
            &["plugin", "verify", "bad.cofferdam", "--key", "acme.pub"][..],
            "CD0340",
        ),
        (
            &["plugin", "verify", "empty.cofferdam", "--key", "acme.pub"],
            "CD0340",
        ),
        (&["plugin", "inspect", "oci"], "CD0340"),
        (&["plugin", "verify", "http"], "--key PUB"),
        (
            &["plugin", "verify", "http", "--key", "ed25519:AAAA"],
            "CD0349",
        ),
        (
            &["plugin", "verify", "http", "--key", "absent.pub"],
            "CD0349",
        ),
        (
            &["plugin", "verify", "http", "--key", "acme.key"],
            "private key",
        ),
        (
            &["plugin", "verify", "absent", "--key", "acme.pub"],
            "CD0208",
        ),
        (&["plugin", "sign", "http", "--key", "acme.pub"], "CD0349"),
        (
            &["plugin", "sign", "http", "--key", "shared.key"],
            "chmod 600",
        ),
        (&["plugin", "sign", "http"], "--key"),
        (&["plugin", "sign", "absent", "--key", "acme.key"], "CD0301"),
        (
            &["plugin", "sign", "nameless", "--key", "acme.key"],
            "CD0344",
        ),
        (
            &["plugin", "pack", "nameless", "--out", "x.cofferdam"],
            "CD0344",
        ),
        (
            &["plugin", "pack", "absent", "--out", "x.cofferdam"],
            "CD0301",
        ),
        (
            &["plugin", "pack", "bad.cofferdam", "--out", "x.cofferdam"],
            "CD0340",
        ),
        (&["plugin", "pack", "http"], "--out"),
        (&["plugin", "stamp", "bad.cofferdam"], "CD0340"),
    ] {
        let done = sandbox.run(args).exits(2);
        assert!(done.stderr.contains(says), "{args:?}: {}", done.stderr);
        assert_eq!(done.stdout, "", "{args:?}");
    }
    assert!(!sandbox.path("x.cofferdam").exists());
}
