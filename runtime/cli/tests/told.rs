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
    let done = sandbox.run(&["migrate-store", "--to", "sled"]).exits(4);
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

/// Arguments, and what standard error must contain.
type Case<'a> = (&'a [&'a str], &'a [&'a str]);

#[test]
fn wrong_input_is_told_with_its_place_its_cause_and_what_to_do() {
    let sandbox = Sandbox::new();
    sandbox.file("w.yaml", GREET);
    sandbox.file("latin.yaml", b"do: \xff");
    sandbox.file("not.toml", "document: 1\n");
    sandbox.run(&["run", "w.yaml", "--id", "r"]).exits(0);
    let long = "k".repeat(2000);
    let cases: [Case; 13] = [
        (
            &["runs", "restart", "r", "--id", "r"],
            &[
                "CD0225",
                "cannot have the id of the old one, `r`",
                "choose another",
            ],
        ),
        (
            &["runs", "fork", "r", "--from", "greet"],
            &["CD0222", "`greet`", "begins with `/`", "runs show r"],
        ),
        (
            &["runs", "fork", "r", "--from", "/greet", "--id", "r"],
            &["CD0224", "`r` exists and is completed", "choose another id"],
        ),
        (
            &["run", "w.yaml", "--priority", "300"],
            &["--priority", "0..=9"],
        ),
        (
            &["run", "w.yaml", "--key", &long],
            &["CD0225", "2000 bytes", "1 to 512"],
        ),
        (
            &["run", "latin.yaml"],
            &["CD0251", "latin.yaml", "text in UTF-8"],
        ),
        (
            &["runs", "list", "--limit", "0"],
            &["--limit", "from 1 to 1000000"],
        ),
        (
            &["events", "list", "--limit", "99999999999999999999999"],
            &["--limit", "from 1 to 1000000"],
        ),
        (
            &["chaos", "outage", "--config", "not.toml"],
            &["not.toml:1:11: CD0201"],
        ),
        (
            &["demo", "--keep", "w.yaml"],
            &["w.yaml` is no folder", "--keep DIR"],
        ),
        (
            &["doctor", "--config", "none.toml", "--wait"],
            &["unexpected argument '--wait'"],
        ),
        (
            &["plugin", "swap", "x", "y", "--canary", "-5%"],
            &["`--canary -5%`: it cannot be negative"],
        ),
        (
            &["restore", "none", "--data", "new"],
            &["`none`: no such file", "help:"],
        ),
    ];
    for (args, told) in cases {
        let done = sandbox.run(args).exits(2);
        assert_eq!(done.stdout, "", "{args:?}");
        contains(&done.stderr, told);
    }
    let done = sandbox
        .run(&["restore", "w.yaml", "--data", "new"])
        .exits(4);
    contains(&done.stderr, &["CD0413", "w.yaml", "another kind of file"]);
    assert!(!sandbox.path("new").join("engine").exists());
    for (to, what) in [("w.yaml", "file"), (".", "folder")] {
        let done = sandbox.run(&["backup", "--to", to]).exits(4);
        let told = format!("`{to}`: there is a {what} already");
        contains(&done.stderr, &["CD0415", &told, "help:"]);
    }
}

#[test]
fn a_limit_of_a_call_is_told_as_the_option_that_it_was_given_by() {
    let sandbox = plugin("memory = \"64MiB\"");
    for (option, value, told) in [
        (
            "--memory",
            "1GiB",
            "--memory 1073741824B: it must be from 128KiB to 256MiB",
        ),
        (
            "--timeout",
            "0s",
            "--timeout 0s: it must be longer than zero",
        ),
        (
            "--timeout",
            "900h",
            ": it must be longer than zero and at most one hour",
        ),
        ("--fuel", "0", "--fuel 0: it must be from 100000 to"),
    ] {
        let args = [
            "call",
            "./http",
            "get",
            "--allow-http",
            "http://127.0.0.1:1",
            option,
            value,
        ];
        let done = sandbox.run(&args).exits(2);
        contains(&done.stderr, &["CD0317", told, "help:"]);
    }
}

#[test]
fn an_argument_that_is_no_text_is_named() {
    use std::os::unix::ffi::OsStrExt as _;
    let sandbox = Sandbox::new();
    sandbox.file("w.yaml", GREET);
    let bad = std::ffi::OsStr::from_bytes(b"so\xffon");
    let mut command = sandbox.command(&["run", "w.yaml", "--wait"]);
    let done = common::done(command.arg(bad)).exits(2);
    contains(
        &done.stderr,
        &["CD0218", "argument 4", "so\u{fffd}on", "UTF-8", "help:"],
    );
    // Nor does it harm where another one is wrong.
    let mut command = sandbox.command(&["run", "--wait", "-5s"]);
    let done = common::done(command.arg(bad)).exits(2);
    contains(&done.stderr, &["`--wait -5s`"]);
}

#[test]
fn errors_of_the_command_line_have_their_help_apart_as_json() {
    let sandbox = Sandbox::new();
    for args in [
        &["runs", "fork", "r", "--output", "json"][..],
        &["nope", "--output", "json"],
    ] {
        let done = sandbox.run(args).exits(2);
        let told: serde_json::Value = serde_json::from_str(&done.stderr).expect("JSON alone");
        let error = &told["error"];
        let message = error["message"].as_str().expect("text");
        assert!(!message.contains("Usage"), "{message}");
        contains(
            error["help"].as_str().expect("text"),
            &["Usage: cofferdam", "--help"],
        );
    }
}

#[test]
fn doctor_tells_a_missing_configuration_once() {
    let sandbox = Sandbox::new();
    let done = sandbox
        .run(&["doctor", "--offline", "--config", "none.toml"])
        .exits(1);
    assert_eq!(
        done.stdout.matches("No such file").count(),
        1,
        "{}",
        done.stdout
    );
}
