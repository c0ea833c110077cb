//! Backups: written, read back, restored; refused where they are not whole or not wanted.

mod common;

use common::{GREET, PAUSE, Sandbox};
use serde_json::Value;

/// A folder with a store that holds two runs.
fn with_runs() -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.file("w.yaml", GREET);
    for name in ["ada", "bob"] {
        sandbox.file("in.json", format!("{{\"name\":\"{name}\"}}"));
        sandbox
            .run(&["run", "w.yaml", "--input", "in.json", "--data", "store"])
            .exits(0);
    }
    sandbox
}

fn runs(sandbox: &Sandbox, data: &str) -> Value {
    sandbox
        .run(&["runs", "list", "--data", data, "--output", "json"])
        .exits(0)
        .json()
}

#[test]
fn a_restored_store_has_the_same_runs_and_the_same_digest() {
    let sandbox = with_runs();
    sandbox.file("store/plugins/crm/1/plugin.wasm", "component");
    let backup = [
        "backup", "--to", "a.backup", "--data", "store", "--output", "json",
    ];
    let written = sandbox.run(&backup).exits(0).json();
    assert_eq!(written["files"], 1);
    assert_eq!(written["heads"], 2);
    let restore = ["restore", "a.backup", "--data", "new", "--output", "json"];
    let restored = sandbox.run(&restore).exits(0).json();
    assert_eq!(restored, written);
    assert_eq!(runs(&sandbox, "new"), runs(&sandbox, "store"));
    let kept = std::fs::read(sandbox.path("new/plugins/crm/1/plugin.wasm"));
    assert_eq!(kept.expect("the copy"), b"component");
    // It is a store like any other.
    sandbox
        .run(&["run", "w.yaml", "--input", "in.json", "--data", "new"])
        .exits(0);
}

#[test]
fn what_is_there_is_not_written_over() {
    let sandbox = with_runs();
    sandbox
        .run(&["backup", "--to", "a.backup", "--data", "store"])
        .exits(0);
    let before = std::fs::read(sandbox.path("a.backup")).expect("the backup");
    let again = sandbox
        .run(&["backup", "--to", "a.backup", "--data", "store"])
        .exits(4);
    assert!(again.stderr.contains("CD0415"), "{}", again.stderr);
    assert!(std::fs::read(sandbox.path("a.backup")).expect("the backup") == before);
    let onto = sandbox
        .run(&["restore", "a.backup", "--data", "store"])
        .exits(4);
    assert!(onto.stderr.contains("CD0415"), "{}", onto.stderr);
    assert_eq!(runs(&sandbox, "store").as_array().map(Vec::len), Some(2));
    let nowhere = sandbox.run(&["restore", "a.backup"]).exits(2);
    assert!(nowhere.stderr.contains("--data DIR"), "{}", nowhere.stderr);
}

#[test]
fn a_cut_or_altered_backup_is_refused_with_the_place_and_leaves_nothing() {
    let sandbox = with_runs();
    sandbox
        .run(&["backup", "--to", "a.backup", "--data", "store"])
        .exits(0);
    let whole = std::fs::read(sandbox.path("a.backup")).expect("the backup");
    let (at, mut altered) = (whole.len() / 2, whole.clone());
    altered[at] ^= 4;
    for bad in [
        &whole[..at],
        &altered,
        b"",
        b"something else entirely, and long enough",
    ] {
        sandbox.file("bad.backup", bad);
        let refused = sandbox
            .run(&["restore", "bad.backup", "--data", "new"])
            .exits(4);
        assert!(
            refused.stderr.contains("CD0413") && refused.stderr.contains("at byte"),
            "{}",
            refused.stderr
        );
        assert!(!sandbox.path("new").exists());
    }
}

#[test]
fn a_process_that_has_the_store_open_writes_the_backup_itself() {
    let sandbox = with_runs();
    sandbox.file("pause.yaml", PAUSE);
    let mut serving = sandbox
        .command(&["run", "pause.yaml", "--data", "store"])
        .stderr(std::process::Stdio::null())
        .stdout(std::process::Stdio::null())
        .spawn()
        .expect("the program starts");
    let socket = sandbox.path("store/control.sock");
    while !socket.exists() {
        assert!(serving.try_wait().expect("its state").is_none(), "it ended");
        std::thread::yield_now();
    }
    let backup = [
        "backup", "--to", "a.backup", "--data", "store", "--output", "json",
    ];
    let written = sandbox.run(&backup).exits(0).json();
    serving.kill().expect("killed");
    serving.wait().expect("gone");
    sandbox
        .run(&["restore", "a.backup", "--data", "new"])
        .exits(0);
    assert!(written["heads"].as_u64() >= Some(2), "{written}");
}

#[test]
fn an_engine_that_is_not_known_is_refused_and_another_one_is_told_the_way() {
    let sandbox = with_runs();
    sandbox.file(
        "bad.toml",
        "[store]\npath = \"store\"\nengine = \"sledd\"\n",
    );
    let bad = sandbox
        .run(&["run", "w.yaml", "--config", "bad.toml"])
        .exits(2);
    assert!(
        bad.stderr.contains("store.engine") && bad.stderr.contains("did you mean `sled`"),
        "{}",
        bad.stderr
    );
    // What fjall keeps, opened by a configuration that says sled.
    let magic = sandbox.path("store/cofferdam.store");
    let text = std::fs::read_to_string(&magic).expect("the magic");
    std::fs::write(&magic, text.replace("sled", "fjall")).expect("written");
    sandbox.file(
        "sled.toml",
        "[store]\npath = \"store\"\nengine = \"sled\"\n",
    );
    let other = sandbox
        .run(&["run", "w.yaml", "--config", "sled.toml"])
        .exits(4);
    assert!(
        other.stderr.contains("CD0411") && other.stderr.contains("migrate-store --to sled"),
        "{}",
        other.stderr
    );
}

#[test]
fn a_store_that_sled_keeps_already_is_not_moved() {
    let sandbox = with_runs();
    let moved = sandbox
        .run(&["migrate-store", "--to", "sled", "--data", "store"])
        .exits(4);
    assert!(
        moved.stderr.contains("kept by sled already"),
        "{}",
        moved.stderr
    );
    sandbox
        .run(&["migrate-store", "--to", "sled", "--data", "none"])
        .exits(2);
}

#[cfg(feature = "fjall")]
#[test]
fn a_store_is_moved_to_fjall_and_runs_go_on_there() {
    let sandbox = with_runs();
    let before = runs(&sandbox, "store");
    sandbox
        .run(&["migrate-store", "--to", "fjall", "--data", "store"])
        .exits(0);
    assert_eq!(runs(&sandbox, "store"), before);
    sandbox.file(
        "fjall.toml",
        "[store]\npath = \"store\"\nengine = \"fjall\"\n",
    );
    sandbox
        .run(&[
            "run",
            "w.yaml",
            "--input",
            "in.json",
            "--config",
            "fjall.toml",
        ])
        .exits(0);
    assert_eq!(runs(&sandbox, "store").as_array().map(Vec::len), Some(3));
    sandbox
        .run(&["migrate-store", "--to", "sled", "--data", "store"])
        .exits(0);
    assert_eq!(runs(&sandbox, "store").as_array().map(Vec::len), Some(3));
}

#[test]
fn without_room_nothing_is_begun_and_with_room_it_goes_on() {
    let sandbox = with_runs();
    sandbox.file(
        "full.toml",
        "[store]\npath = \"store\"\nreserve = \"1000000GiB\"\n",
    );
    let refused = sandbox
        .run(&[
            "run",
            "w.yaml",
            "--input",
            "in.json",
            "--config",
            "full.toml",
        ])
        .exits(4);
    assert!(
        refused.stderr.contains("CD0410") && refused.stderr.contains("make room"),
        "{}",
        refused.stderr
    );
    assert_eq!(runs(&sandbox, "store").as_array().map(Vec::len), Some(2));
    sandbox.file(
        "full.toml",
        "[store]\npath = \"store\"\nreserve = \"1MiB\"\n",
    );
    sandbox
        .run(&[
            "run",
            "w.yaml",
            "--input",
            "in.json",
            "--config",
            "full.toml",
        ])
        .exits(0);
    assert_eq!(runs(&sandbox, "store").as_array().map(Vec::len), Some(3));
}
