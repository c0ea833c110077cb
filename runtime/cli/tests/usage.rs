//! Bad command lines and bad files: exit code 2, nothing on standard output, and a message with
//! place, cause and remedy.

mod common;

use common::{GREET, Sandbox};

/// Files, arguments, and what standard error must contain.
type Bad<'a> = (&'a [(&'a str, &'a str)], &'a [&'a str], &'a [&'a str]);

const BROKEN_TOML: &str = "[connections.crm]\nplugn = 'x'\n";

const BAD: &[Bad] = &[
    (&[], &[], &["Usage: cofferdam"]),
    (&[], &["dance"], &["unrecognized subcommand 'dance'"]),
    (&[], &["run"], &["<WORKFLOW>"]),
    (
        &[],
        &["run", "absent.yaml"],
        &["absent.yaml", "no such file", "help:"],
    ),
    (
        &[("w.yaml", GREET)],
        &["run", "w.yaml", "--input", "absent.json"],
        &["absent.json", "help:"],
    ),
    (
        &[("w.yaml", GREET), ("i.json", "{name: 1}")],
        &["run", "w.yaml", "--input", "i.json"],
        &["i.json:1:2", "not JSON"],
    ),
    (
        &[("w.yaml", GREET)],
        &["run", "w.yaml", "--wait", "soon"],
        &["--wait", "30s"],
    ),
    (
        &[("w.yaml", GREET)],
        &["run", "w.yaml", "--allow-http", "example.com"],
        &["--allow-http", "https://api.example.com"],
    ),
    (
        &[("w.yaml", GREET)],
        &["run", "w.yaml", "--allow-http", "ftp://example.com"],
        &["only http and https"],
    ),
    (
        &[("w.yaml", GREET)],
        &["run", "w.yaml", "--id", "a b"],
        &["CD0256"],
    ),
    (
        &[("w.yaml", "do: [")],
        &["run", "w.yaml"],
        &["w.yaml", "CD01"],
    ),
    (
        &[("w.yaml", "document: {}\ndo: []\n")],
        &["run", "w.yaml"],
        &["w.yaml", "CD01"],
    ),
    (
        &[("w.yaml", GREET)],
        &["run", "w.yaml", "--config", "absent.toml"],
        &["absent.toml", "CD0200"],
    ),
    (
        &[("w.yaml", GREET), ("c.toml", BROKEN_TOML)],
        &["run", "w.yaml", "--config", "c.toml"],
        &["c.toml:2:1", "CD0202", "did you mean `plugin`?"],
    ),
    (
        &[("cofferdam.toml", BROKEN_TOML)],
        &["connection", "list"],
        &["cofferdam.toml:2:1", "CD0202"],
    ),
    (
        &[("cofferdam.toml", BROKEN_TOML)],
        &["plugin", "list"],
        &["CD0202"],
    ),
    (&[], &["connection"], &["Usage:"]),
    (
        &[],
        &["call", "absent.wasm", "echo"],
        &["absent.wasm", "CD0208"],
    ),
    (
        &[],
        &["call", "nothing-of-this-name", "echo"],
        &["nothing-of-this-name", "CD0208", "looked in"],
    ),
    (&[], &["call", "x.wasm"], &["<ACTION>"]),
    (
        &[],
        &["call", "x.wasm", "echo", "--input", "{"],
        &["--input:1:1", "not JSON"],
    ),
    (
        &[],
        &["call", "x.wasm", "echo", "--input", "@absent.json"],
        &["absent.json"],
    ),
    (
        &[],
        &["call", "x.wasm", "echo", "--memory", "lots"],
        &["--memory", "64MiB"],
    ),
    (
        &[],
        &["call", "x.wasm", "echo", "--timeout", "1 fortnight"],
        &["--timeout", "30s"],
    ),
    (&[], &["plugin", "inspect", "absent.wasm"], &["CD0208"]),
    (
        &[],
        &["plugin", "stamp", "absent.wasm"],
        &["CD0301", "absent.wasm"],
    ),
    (
        &[],
        &["runs", "list", "--status", "gone"],
        &["possible values: queued, running, waiting"],
    ),
    (&[], &["runs", "resume"], &["there is no store", "--data"]),
    (
        &[],
        &["reviews", "decide", "r", "/t", "approve"],
        &["--value"],
    ),
    (
        &[],
        &["reviews", "decide", "r", "/t", "approve", "--value", "{"],
        &["--value:1:1", "not JSON"],
    ),
    (
        &[],
        &["reviews", "decide", "r", "/t", "reject"],
        &["--reason"],
    ),
    (&[], &["errors", "CD9999"], &["CD9999", "lists them all"]),
    (&[], &["completions", "cmd"], &["possible values"]),
    (
        &[],
        &["doctor", "--output", "xml"],
        &["possible values: text, json"],
    ),
];

#[test]
fn a_bad_command_line_is_told_and_ends_with_2() {
    for (files, args, told) in BAD {
        let sandbox = Sandbox::new();
        for (name, text) in *files {
            sandbox.file(name, text);
        }
        let done = sandbox.run(args);
        assert_eq!(done.code, 2, "{args:?}\n{}{}", done.stdout, done.stderr);
        assert_eq!(done.stdout, "", "{args:?}");
        for text in *told {
            assert!(
                done.stderr.contains(text),
                "{args:?} lacks {text:?}:\n{}",
                done.stderr
            );
        }
    }
}

#[test]
fn what_cannot_be_run_leaves_nothing_behind() {
    let sandbox = Sandbox::new();
    sandbox.file("w.yaml", GREET);
    sandbox.file("i.json", "nonsense");
    sandbox
        .run(&["run", "w.yaml", "--input", "i.json"])
        .exits(2);
    assert!(!sandbox.path(".cofferdam").exists());
}

#[test]
fn help_has_examples_and_goes_to_stdout() {
    let sandbox = Sandbox::new();
    for verb in [
        &["run"][..],
        &["call"],
        &["plugin", "inspect"],
        &["plugin", "list"],
        &["plugin", "stamp"],
        &["runs", "list"],
        &["runs", "show"],
        &["runs", "resume"],
        &["deadletters", "list"],
        &["reviews", "list"],
        &["runs", "start"],
        &["runs", "suspend"],
        &["runs", "cancel"],
        &["runs", "restart"],
        &["runs", "fork"],
        &["runs", "redrive"],
        &["deadletters", "show"],
        &["deadletters", "redrive"],
        &["deadletters", "discard"],
        &["reviews", "show"],
        &["reviews", "approve"],
        &["reviews", "retry"],
        &["reviews", "reject"],
        &["reviews", "decide"],
        &["connection", "list"],
        &["events", "list"],
        &["doctor"],
        &["completions"],
        &["errors"],
    ] {
        let done = sandbox.run(&[verb, &["--help"]].concat()).exits(0);
        assert!(
            done.stdout.contains("Examples:\n  "),
            "{verb:?}: {}",
            done.stdout
        );
        assert_eq!(done.stderr, "", "{verb:?}");
    }
}

#[test]
fn every_error_code_is_explained() {
    let sandbox = Sandbox::new();
    let listed = sandbox.run(&["errors"]).exits(0).stdout;
    assert!(listed.lines().count() > 60, "{listed}");
    for line in listed.lines() {
        let (code, _) = line.split_once(':').expect("a code and a title");
        let page = sandbox
            .run(&["errors", &code.to_lowercase()])
            .exits(0)
            .stdout;
        assert!(page.contains("## What to do"), "{page}");
    }
}

#[test]
fn a_wrong_argument_is_told_as_such_and_nothing_is_done() {
    let sandbox = Sandbox::new();
    sandbox.file("folder/file", "");
    let cases: [(&[&str], &str); 6] = [
        (
            &["deadletters", "redrive", "--all", "--input", "x.json"],
            "--input",
        ),
        (&["restore", "none", "--data", "d"], "no such file"),
        (&["restore", "folder", "--data", "d"], "it is no file"),
        (&["backup", "--to", "none/b"], "its folder is not there"),
        (&["run", "folder"], "it is no file"),
        (
            &["reviews", "answer", "r", "/t", "--value", "{"],
            "--value:1:1",
        ),
    ];
    for (args, told) in cases {
        let done = sandbox.run(args).exits(2);
        assert!(done.stderr.contains(told), "{args:?}: {}", done.stderr);
    }
}

#[test]
fn doctor_judges_the_disk_and_the_workflows_as_a_start_would() {
    let sandbox = Sandbox::new();
    sandbox.file(
        "cofferdam.toml",
        "[store]\nreserve = \"900000GiB\"\n\
         [workflows]\nnightly = \"none.yaml\"\nbroken = \"broken.yaml\"\ngreet = \"greet.yaml\"\n",
    );
    sandbox.file("broken.yaml", "do: [");
    sandbox.file("greet.yaml", GREET);
    let done = sandbox.run(&["doctor", "--offline"]).exits(1);
    for told in [
        "fail  workflow nightly",
        "fail  workflow broken",
        "ok    workflow greet",
        "fail  disk",
        "`[store] reserve`",
    ] {
        assert!(done.stdout.contains(told), "{told}: {}", done.stdout);
    }
}
