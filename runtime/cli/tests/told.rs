//! What users are told when something does not fit: the place, the cause with the value that was
//! seen and what is allowed, and the remedy; and that nothing is done then.

mod common;

use common::{GREET, Sandbox, plugins};

/// The plugin `http` with a manifest that ends like this.
fn plugin(limits: &str) -> Sandbox {
    let sandbox = Sandbox::new();
    let from = plugins().join("http");
    let manifest = std::fs::read_to_string(from.join("plugin.toml")).expect("built");
    let (manifest, _) = manifest.split_once("[limits]").expect("it has limits");
    sandbox.file(
        "http/plugin.toml",
        format!("{manifest}[limits]\n{limits}\n"),
    );
    let component = std::fs::read(from.join("plugin.wasm")).expect("built");
    sandbox.file("http/plugin.wasm", component);
    sandbox
}

#[track_caller]
fn contains(text: &str, told: &[&str]) {
    for told in told {
        assert!(text.contains(told), "lacks {told:?}:\n{text}");
    }
}

#[test]
fn a_manifest_that_nobody_can_load_is_neither_stamped_nor_packed() {
    for (limits, key, had) in [
        ("memory = \"1KiB\"", "limits.memory", "128KiB to 256MiB"),
        ("memory = \"1GiB\"", "limits.memory", "128KiB to 256MiB"),
        ("timeout = \"2h\"", "limits.timeout", "at most 1h"),
        ("cpu = \"90m\"", "limits.cpu", "at most 1h"),
    ] {
        let sandbox = plugin(limits);
        let asked = limits.split_once(" = ").expect("a pair").1;
        let told = ["CD0317", key, asked, had];
        let stamp = ["plugin", "stamp", "http/plugin.wasm", "--out", "x.wasm"];
        let done = sandbox.run(&stamp).exits(2);
        contains(&done.stderr, &told);
        contains(&done.stderr, &["http/plugin.toml"]);
        let done = sandbox
            .run(&["plugin", "pack", "http", "--out", "x.cofferdam"])
            .exits(2);
        contains(&done.stderr, &told);
        contains(&done.stderr, &["plugin `http`"]);
        assert!(!sandbox.path("x.wasm").exists() && !sandbox.path("x.cofferdam").exists());
        let shown = sandbox.run(&["plugin", "inspect", "./http"]).exits(0);
        contains(&shown.stdout, &told);
    }
}

#[test]
fn a_wish_for_too_little_names_connection_and_plugin_and_the_operator_wins() {
    let sandbox = plugin("memory = \"1KiB\"");
    let config = "[plugins]\nallow-unsigned = true\n[connections.web]\nplugin = \"./http/plugin.wasm\"\n\
                  grants.http = [\"https://example.com\"]\n";
    sandbox.file("cofferdam.toml", config);
    let done = sandbox.run(&["doctor", "--offline"]).exits(1);
    contains(
        &done.stdout,
        &[
            "connection `web`, plugin `http`",
            "`memory_bytes = 1024`",
            "from 128KiB to 256MiB",
            "[connections.web.limits]",
        ],
    );
    sandbox.file(
        "cofferdam.toml",
        format!("{config}limits.memory = \"64MiB\"\n"),
    );
    let done = sandbox.run(&["doctor", "--offline"]);
    contains(&done.stdout, &["ok    connection web"]);
}

#[test]
fn doctor_compares_the_engine_that_is_asked_for_with_the_one_that_keeps_the_store() {
    let sandbox = Sandbox::new();
    sandbox.file("w.yaml", GREET);
    sandbox.run(&["run", "w.yaml"]).exits(0);
    sandbox.file("cofferdam.toml", "[store]\nengine = \"sled\"\n");
    let done = sandbox.run(&["doctor", "--offline"]).exits(0);
    assert!(!done.stdout.contains("store engine"), "{}", done.stdout);
    sandbox.file("cofferdam.toml", "[store]\nengine = \"fjall\"\n");
    let done = sandbox.run(&["doctor", "--offline"]).exits(1);
    contains(&done.stdout, &["fail  store engine", "fjall"]);
    if cfg!(feature = "fjall") {
        contains(
            &done.stdout,
            &["kept by sled", "cofferdam migrate-store --to fjall"],
        );
    }
}

#[test]
fn a_run_that_has_ended_is_told_on_a_full_disk_and_none_is_begun() {
    let sandbox = Sandbox::new();
    sandbox.file("w.yaml", GREET);
    sandbox.run(&["run", "w.yaml", "--id", "r"]).exits(0);
    sandbox.file("cofferdam.toml", "[store]\nreserve = \"900000GiB\"\n");
    let again = sandbox.run(&["run", "w.yaml", "--id", "r"]).exits(0);
    contains(&again.stdout, &["hello"]);
    let other = sandbox.run(&["run", "w.yaml", "--id", "s"]).exits(4);
    contains(&other.stderr, &["CD0410", "[store] reserve"]);
}

#[test]
fn a_store_is_not_moved_to_the_engine_that_keeps_it() {
    let sandbox = Sandbox::new();
    sandbox.file("w.yaml", GREET);
    sandbox.run(&["run", "w.yaml"]).exits(0);
    let done = sandbox.run(&["migrate-store", "--to", "sled"]).exits(2);
    contains(
        &done.stderr,
        &[
            "--to sled",
            "`.cofferdam`",
            "kept by sled already",
            "help:",
            "--to fjall",
        ],
    );
    sandbox.run(&["runs", "list"]).exits(0);
}

#[test]
fn a_folder_that_is_missing_is_named_before_anything_is_done() {
    let sandbox = plugin("memory = \"64MiB\"");
    for args in [
        &[
            "plugin",
            "stamp",
            "http/plugin.wasm",
            "--out",
            "none/x.wasm",
        ][..],
        &["plugin", "pack", "http", "--out", "none/x.cofferdam"],
        &["plugin", "pack", "http", "--out", "none/x"],
        &["plugin", "keygen", "--out", "none/x"],
    ] {
        let done = sandbox.run(args).exits(2);
        contains(&done.stderr, &["none/x", "`none` is not there", "help:"]);
    }
    let file = [
        "plugin",
        "stamp",
        "http/plugin.wasm",
        "--out",
        "http/plugin.toml/x",
    ];
    let done = sandbox.run(&file).exits(2);
    contains(&done.stderr, &["is no folder"]);
}

#[test]
fn what_is_below_zero_is_told_with_the_option_that_it_was_given_to() {
    let sandbox = Sandbox::new();
    sandbox.file("w.yaml", GREET);
    for (args, told) in [
        (&["run", "w.yaml", "--wait", "-5s"][..], "`--wait -5s`"),
        (&["runs", "resume", "r", "--wait", "-1m"], "`--wait -1m`"),
        (
            &["runs", "purge", "--ended-before", "-1d"],
            "`--ended-before -1d`",
        ),
        (&["chaos", "outage", "--lasts", "-5m"], "`--lasts -5m`"),
        (&["call", "x", "y", "--timeout", "-.5s"], "`--timeout -.5s`"),
        (&["run", "w.yaml", "--priority", "-1"], "`--priority -1`"),
    ] {
        let done = sandbox.run(args).exits(2);
        contains(
            &done.stderr,
            &["CD0218", told, "cannot be negative", "help:"],
        );
    }
    for args in [
        &["run", "w.yaml", "--wait=-5s"][..],
        &["run", "w.yaml", "--priority=-1"],
    ] {
        let done = sandbox.run(args).exits(2);
        contains(&done.stderr, &["CD0218", "negative"]);
    }
    let json = ["run", "w.yaml", "--wait", "-5s", "--output", "json"];
    let done = sandbox.run(&json).exits(2);
    contains(&done.stderr, &["\"help\"", "\"code\": \"CD0218\""]);
    assert!(!sandbox.path(".cofferdam").exists());
}

#[test]
fn durations_that_make_no_sense_are_refused() {
    let sandbox = Sandbox::new();
    let done = sandbox.run(&["chaos", "outage", "--lasts", "0s"]).exits(2);
    contains(&done.stderr, &["--lasts", "no time", "1ms"]);
    // So long that its milliseconds do not fit: it must not come out as a short one.
    let age = ["runs", "purge", "--ended-before", "584542047years"];
    let done = sandbox.run(&age).exits(2);
    contains(&done.stderr, &["--ended-before", "at most 100years"]);
}

#[test]
fn a_control_socket_that_cannot_be_is_told_with_its_length() {
    let sandbox = Sandbox::new();
    sandbox.file("w.yaml", GREET);
    let data = format!("{}/{}", "d".repeat(60), "e".repeat(60));
    let done = sandbox.run(&["run", "w.yaml", "--data", &data]).exits(0);
    let told = ["CD0273", "control.sock", "bytes", "shorter"];
    contains(&done.stderr, &told);
    let done = sandbox
        .run(&["doctor", "--offline", "--data", &data])
        .exits(0);
    contains(&done.stdout, &["warn  control socket"]);
    contains(&done.stdout, &told);
}

#[test]
fn a_time_that_a_limit_cuts_short_is_a_warning() {
    let sandbox = plugin("memory = \"64MiB\"\ntimeout = \"10s\"");
    let config = "[plugins]\nallow-unsigned = true\n[connections.web]\nplugin = \"./http/plugin.wasm\"\n\
                  grants.http = [\"https://example.com\"]\n";
    let doctor = ["doctor", "--offline"];
    sandbox.file("cofferdam.toml", config);
    let done = sandbox.run(&doctor).exits(0);
    assert!(!done.stdout.contains("start-to-close"), "{}", done.stdout);
    sandbox.file(
        "cofferdam.toml",
        format!("{config}timeout.start-to-close = \"20s\"\n"),
    );
    let done = sandbox.run(&doctor).exits(0);
    contains(
        &done.stdout,
        &[
            "warn  connection web",
            "connections.web.timeout.start-to-close` is 20s",
            "`limits.timeout` of the plugin's manifest, 10s",
            "[connections.web.limits]",
        ],
    );
    // Known without the plugin: told where a workflow is run, too.
    let text = format!("{config}timeout.start-to-close = \"2m\"\nlimits.timeout = \"1m\"\n");
    sandbox.file("cofferdam.toml", text);
    sandbox.file("w.yaml", GREET);
    let done = sandbox.run(&["run", "w.yaml"]).exits(0);
    contains(
        &done.stderr,
        &[
            "warning:",
            "is 2m",
            "`limits.timeout` of the connection, 1m",
            "help:",
        ],
    );
}
