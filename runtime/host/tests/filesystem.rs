//! A directory that was granted is all there is: no path, link or race leads out of it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use cofferdam_host::{Connection, Directory};
use common::{call, unruly, unruly_spec};
use serde_json::{Value, json};

const OUTSIDE: &str = "what is outside";
const INSIDE: &str = "what is inside";

/// A folder with `granted` and, beside it, what must not be read or changed.
struct Ground {
    root: tempfile::TempDir,
}

impl Ground {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        for folder in ["granted/inner", "outside"] {
            std::fs::create_dir_all(root.path().join(folder)).unwrap();
        }
        std::fs::write(root.path().join("granted/file"), INSIDE).unwrap();
        std::fs::write(root.path().join("granted/inner/file"), INSIDE).unwrap();
        std::fs::write(root.path().join("outside/file"), OUTSIDE).unwrap();
        // A name that the granted one is the beginning of.
        std::fs::create_dir(root.path().join("granted-not")).unwrap();
        std::fs::write(root.path().join("granted-not/file"), OUTSIDE).unwrap();
        Self { root }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn granted(&self, writable: bool) -> Connection {
        let mut spec = unruly_spec(None);
        spec.grants.filesystem = vec![Directory {
            host_path: self.path("granted"),
            guest_path: "/data".to_owned(),
            writable,
        }];
        // Going through files again and again is work of the host's, which a busy machine does slowly.
        spec.limits.cpu_time = Duration::from_mins(1);
        spec.limits.timeout = Duration::from_mins(1);
        unruly(spec)
    }

    /// Everything outside of what was granted, with its contents.
    fn outside(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let mut found = Vec::new();
        for folder in ["outside", "granted-not"] {
            for entry in std::fs::read_dir(self.path(folder)).unwrap() {
                let path = entry.unwrap().path();
                found.push((path.clone(), std::fs::read(&path).unwrap()));
            }
        }
        found.sort();
        found
    }
}

async fn tries(connection: &Connection, input: Value) -> (Vec<String>, Vec<String>) {
    let mut asked = call("use-file", input);
    asked.timeout = Duration::from_mins(1);
    let output = connection.invoke(asked).await;
    let output = output.result.unwrap();
    let list = |key: &str| -> Vec<String> {
        let items = output[key].as_array().unwrap().iter();
        items
            .map(|item| item.as_str().unwrap().to_owned())
            .collect()
    };
    (list("texts"), list("errors"))
}

fn absolute(path: &Path) -> String {
    path.display().to_string()
}

#[tokio::test]
async fn a_granted_file_is_read_and_nothing_beside_it() {
    let ground = Ground::new();
    symlink("../../outside", ground.path("granted/inner/up")).unwrap();
    symlink("../outside/file", ground.path("granted/relative")).unwrap();
    symlink(ground.path("outside/file"), ground.path("granted/absolute")).unwrap();
    symlink("/etc/hostname", ground.path("granted/system")).unwrap();
    symlink("inner/up/file", ground.path("granted/nested")).unwrap();
    symlink("loop", ground.path("granted/loop")).unwrap();
    symlink("inner/file", ground.path("granted/within")).unwrap();
    let connection = ground.granted(true);
    for path in ["file", "inner/file", "inner/../file", "./file", "within"] {
        let (texts, errors) = tries(&connection, json!({"what": "read", "path": path})).await;
        assert_eq!(texts, [INSIDE], "{path}: {errors:?}");
    }
    let (out, not) = (
        absolute(&ground.path("outside/file")),
        absolute(&ground.path("granted-not/file")),
    );
    for path in [
        "../outside/file",
        "inner/../../outside/file",
        "../granted-not/file",
        "../granted/../outside/file",
        "..",
        "relative",
        "absolute",
        "system",
        "nested",
        "inner/up/file",
        "loop",
        "/etc/hostname",
        "/proc/self/environ",
        "file/../../outside/file",
        "..\\outside\\file",
        "inner/up/../outside/file",
        "\u{0}/../outside/file",
        &out,
        &not,
    ] {
        for what in ["read", "write", "truncate", "touch", "remove"] {
            // Removing a link takes the link away, not what it points to.
            if what == "remove" && !path.contains("..") && !path.starts_with('/') {
                continue;
            }
            let input = json!({"what": what, "path": path, "to": "changed"});
            let (texts, errors) = tries(&connection, input).await;
            assert!(!texts.iter().any(|text| text.contains(OUTSIDE)), "{path}");
            let at_most_inside = path == "..\\outside\\file";
            assert!(
                !errors.is_empty() || at_most_inside,
                "{what} {path}: {texts:?}"
            );
        }
    }
    let untouched = ground.outside();
    assert_eq!(untouched.len(), 2);
    assert!(
        untouched
            .iter()
            .all(|(_, bytes)| bytes == OUTSIDE.as_bytes())
    );
}

#[tokio::test]
async fn links_that_a_guest_makes_lead_nowhere() {
    let ground = Ground::new();
    let connection = ground.granted(true);
    let out = absolute(&ground.path("outside/file"));
    for (index, to) in [
        "../outside/file",
        &out,
        "/etc/hostname",
        "inner/../../outside/file",
    ]
    .iter()
    .enumerate()
    {
        let name = format!("made-{index}");
        let make = json!({"what": "symlink", "path": name, "to": to});
        let linked = tries(&connection, make).await.1.is_empty();
        for what in ["read", "write", "truncate"] {
            if !linked && what == "write" {
                // It would make a file of that name, which is fine.
                continue;
            }
            let input = json!({"what": what, "path": name, "to": "changed"});
            let (texts, errors) = tries(&connection, input).await;
            assert!(!errors.is_empty(), "{what} through {to}: {texts:?}");
        }
        let enter = json!({"what": "enter", "path": name, "to": "file"});
        assert!(tries(&connection, enter).await.0.is_empty(), "{to}");
    }
    // A directory through a link, and hard links and renames across the border.
    let up = json!({"what": "symlink", "path": "inner/up", "to": "../../outside"});
    let _made_or_refused = tries(&connection, up).await;
    for input in [
        json!({"what": "enter", "path": "inner/up", "to": "file"}),
        json!({"what": "enter", "path": "..", "to": "outside/file"}),
        json!({"what": "enter", "path": "inner", "to": "../../outside/file"}),
        json!({"what": "link", "path": "../outside/file", "to": "mine"}),
        json!({"what": "link", "path": out, "to": "mine"}),
        json!({"what": "link", "path": "file", "to": "../outside/planted"}),
        json!({"what": "rename", "path": "file", "to": "../outside/planted"}),
        json!({"what": "rename", "path": "../outside/file", "to": "mine"}),
        json!({"what": "rename", "path": "file", "to": "inner/up/planted"}),
        json!({"what": "make-directory", "path": "../outside/planted"}),
        json!({"what": "make-directory", "path": "inner/up/planted"}),
        json!({"what": "write", "path": "inner/up/planted", "to": "planted"}),
        json!({"what": "symlink", "path": "../outside/planted", "to": "x"}),
        json!({"what": "remove", "path": "inner/up/file"}),
        json!({"what": "read-link", "path": "../outside"}),
    ] {
        let (texts, errors) = tries(&connection, input.clone()).await;
        assert!(!errors.is_empty(), "{input}: {texts:?}");
    }
    assert_eq!(ground.outside().len(), 2, "{:?}", ground.outside());
    assert!(ground.path("granted/file").is_file());
}

#[tokio::test]
async fn a_directory_to_read_cannot_be_changed_in_any_way() {
    let ground = Ground::new();
    let connection = ground.granted(false);
    let (texts, _) = tries(&connection, json!({"what": "read", "path": "file"})).await;
    assert_eq!(texts, [INSIDE]);
    let before = std::fs::metadata(ground.path("granted/file")).unwrap();
    for input in [
        json!({"what": "write", "path": "file", "to": "changed"}),
        json!({"what": "write", "path": "made", "to": "changed"}),
        json!({"what": "truncate", "path": "file"}),
        json!({"what": "touch", "path": "file"}),
        json!({"what": "remove", "path": "file"}),
        json!({"what": "rename", "path": "file", "to": "other"}),
        json!({"what": "link", "path": "file", "to": "other"}),
        json!({"what": "symlink", "path": "other", "to": "file"}),
        json!({"what": "make-directory", "path": "other"}),
    ] {
        let (texts, errors) = tries(&connection, input.clone()).await;
        assert_eq!(errors.len(), 1, "{input}: {texts:?}");
    }
    let after = std::fs::metadata(ground.path("granted/file")).unwrap();
    assert_eq!(before.modified().unwrap(), after.modified().unwrap());
    assert_eq!(
        std::fs::read_dir(ground.path("granted")).unwrap().count(),
        2
    );
    let text = std::fs::read_to_string(ground.path("granted/file")).unwrap();
    assert_eq!(text, INSIDE);
}

/// Swaps a directory and a link that leads out, again and again, while the guest goes through it.
#[tokio::test]
async fn a_directory_that_turns_into_a_link_is_no_way_out() {
    const TIMES: u32 = 500;
    let ground = Ground::new();
    for folder in ["granted/kept", "granted/swap"] {
        std::fs::create_dir_all(ground.path(folder)).unwrap();
        std::fs::write(ground.path(folder).join("file"), INSIDE).unwrap();
    }
    symlink(ground.path("outside"), ground.path("granted/link")).unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let swaps = Arc::new(AtomicU64::new(0));
    let swapping = {
        let (stop, swaps) = (Arc::clone(&stop), Arc::clone(&swaps));
        let (swap, aside, link) = (
            ground.path("granted/swap"),
            ground.path("granted/aside"),
            ground.path("granted/link"),
        );
        std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                std::fs::rename(&swap, &aside).unwrap();
                std::fs::rename(&link, &swap).unwrap();
                swaps.fetch_add(1, Ordering::Relaxed);
                std::fs::rename(&swap, &link).unwrap();
                std::fs::rename(&aside, &swap).unwrap();
            }
        })
    };
    let connection = ground.granted(true);
    let mut seen = Vec::new();
    for (what, path, to) in [
        ("read", "swap/file", ""),
        ("enter", "swap", "file"),
        ("write", "swap/planted", "planted"),
        ("rename", "kept/file", "swap/planted"),
    ] {
        let input = json!({"what": what, "path": path, "to": to, "times": TIMES});
        let (texts, errors) = tries(&connection, input).await;
        assert!(
            !texts.iter().any(|text| text.contains(OUTSIDE)),
            "{what}: {texts:?}"
        );
        seen.push((what, texts, errors));
    }
    stop.store(true, Ordering::Relaxed);
    swapping.join().unwrap();
    assert!(swaps.load(Ordering::Relaxed) > 0);
    assert_eq!(
        ground.outside().len(),
        2,
        "{:?}\n{seen:?}",
        ground.outside()
    );
}

#[tokio::test]
async fn without_a_grant_there_is_no_directory_at_all() {
    let connection = unruly(unruly_spec(None));
    let output = connection.invoke(call("look-around", json!({}))).await;
    assert_eq!(output.result.unwrap()["directories"], json!([]));
    for within in ["/", "/data", ".", ""] {
        let input = json!({"within": within, "what": "read", "path": "etc/hostname"});
        let (texts, errors) = tries(&connection, input).await;
        assert!(texts.is_empty());
        assert_eq!(errors, ["no such directory was given"]);
    }
}

#[test]
fn grants_that_make_no_sense_are_refused_with_what_to_write() {
    let ground = Ground::new();
    let directory = |host: &str, guest: &str| Directory {
        host_path: ground.path(host),
        guest_path: guest.to_owned(),
        writable: false,
    };
    let plugin = common::host().load(common::guest("unruly")).unwrap();
    for (directories, told) in [
        (vec![directory("granted", "data")], "absolute path"),
        (vec![directory("granted", "/data/../etc")], "absolute path"),
        (vec![directory("none", "/data")], "no such folder"),
        (vec![directory("granted/file", "/data")], "no such folder"),
        (
            vec![
                directory("granted", "/data"),
                directory("outside", "/data/"),
            ],
            "twice",
        ),
    ] {
        let mut spec = unruly_spec(None);
        spec.grants.filesystem = directories;
        let error = plugin.connect(spec, common::services()).err().unwrap();
        assert_eq!(error.code(), "CD0316");
        assert!(error.to_string().contains(told), "{error}");
    }
}
