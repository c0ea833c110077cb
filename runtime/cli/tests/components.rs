//! Files that are no plugin: told apart, with what to do, and never run.

mod common;

use common::Sandbox;

const CORE_MODULE: &[u8] = b"\0asm\x01\0\0\0";
const EMPTY_COMPONENT: &[u8] = b"\0asm\x0d\0\x01\0";

#[test]
fn what_is_no_connector_is_told_by_every_verb_that_takes_one() {
    let cases: [(&[u8], &str); 5] = [
        (b"(module)", "CD0303"),
        (b"", "CD0303"),
        (CORE_MODULE, "CD0304"),
        (b"\0asm\x0d\0\x01\0\x07\xff\xff", "CD0305"),
        (EMPTY_COMPONENT, "CD0306"),
    ];
    for (bytes, code) in cases {
        let sandbox = Sandbox::new();
        sandbox.file("x.wasm", bytes);
        for args in [
            &["call", "x.wasm", "echo"][..],
            &["plugin", "inspect", "x.wasm"],
            &["plugin", "inspect", "x.wasm", "--output", "json"],
            &["plugin", "stamp", "x.wasm"],
        ] {
            let done = sandbox.run(args).exits(2);
            assert!(done.stderr.contains(code), "{args:?}: {}", done.stderr);
            assert_eq!(done.stdout, "", "{args:?}");
        }
        assert_eq!(
            std::fs::read(sandbox.path("x.wasm")).unwrap(),
            bytes,
            "stamp left it alone"
        );
    }
}

#[test]
fn a_configured_plugin_that_is_none_stops_the_run_before_it_begins() {
    let sandbox = Sandbox::new();
    sandbox.file("bad.wasm", CORE_MODULE);
    sandbox.file(
        "cofferdam.toml",
        "plugins.allow-unsigned = true\n[connections.crm]\nplugin = './bad.wasm'\n",
    );
    sandbox.file("w.yaml", common::GREET);
    let done = sandbox.run(&["run", "w.yaml"]).exits(2);
    assert!(done.stderr.contains("CD0304"), "{}", done.stderr);
}

#[test]
fn a_manifest_with_a_misspelt_key_is_told_with_its_line() {
    let sandbox = Sandbox::new();
    sandbox.file("p/plugin.wasm", EMPTY_COMPONENT);
    sandbox.file(
        "p/plugin.toml",
        "name = 'p'\nversion = '1.0.0'\ncapabilites = {}\n",
    );
    let done = sandbox
        .run(&["plugin", "inspect", "p/plugin.wasm"])
        .exits(2);
    assert!(
        done.stderr.contains("CD0309") && done.stderr.contains("plugin.toml:3:1"),
        "{}",
        done.stderr
    );
}
