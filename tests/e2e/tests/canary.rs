//! Secrets are planted, used in every way that goes well or wrong, and then looked for in
//! everything that is left: the store's bytes, the code cache, logs at their most talkative,
//! outputs, errors, and every view of a run.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

#[path = "canary/echo.rs"]
mod echo;
#[path = "canary/search.rs"]
mod search;
mod stage;

use std::path::Path;

use echo::Echo;
use search::Search;
use serde_json::{Value, json};
use tokio::process::Command;

/// With letters that every encoding writes differently.
const API: &str = "cnry/Api+7Zq\"&8w=K<x>Vb3";
const SQL: &str = "cnry Sql%9:x/Q'w~5tR2mN8";
const MAIL: &str = "cnry\\Mail?4yH#6pL;1dS0jF";

/// Everything, but for the compiler, which tells gigabytes and knows of code only.
const LOGS: &str = "trace,cranelift_codegen=off,cranelift_frontend=off,regalloc2=off,\
                    wasmtime_internal_cranelift=off";

const CONFIG: &str = r#"
[store]
path = "store"
durability = "every-task"
[plugins]
allow-unsigned = true
cache = "code"

[connections.api]
plugin = "unruly"
on-outage = "fallback"
cache = { max-age = "1h" }
secrets.TOKEN = { env = "CANARY_API", audience = ["127.0.0.1"] }
grants = { http = ["http://127.0.0.1:HTTP"], kv = true }
retry = { attempts = 1 }

[connections.api.breaker]
sliding-window-size = 10000
minimum-number-of-calls = 10000

[connections.db]
plugin = "sql"
on-outage = "fail"
grants.sql = { url = "postgresql://user@127.0.0.1:SQL/name", password = { file = "../secrets/sql" } }
retry = { attempts = 1 }

[connections.mail]
plugin = "smtp"
on-outage = "fail"
config = { from = "a@example.com" }
grants.smtp = { host = "127.0.0.1", port = MAIL, tls = "none", username = "user", password = { env = "CANARY_MAIL" } }
retry = { attempts = 1 }
"#;

/// Calls one action after the other, keeps what came of each, and publishes it. What fails is caught
/// if there are others after it.
fn workflow(deeds: &[(&str, Value)]) -> Value {
    let mut tasks: Vec<Value> = Vec::new();
    for (index, (call, with)) in deeds.iter().enumerate() {
        let act = json!({format!("act-{index}"): {"call": call, "with": with}});
        if deeds.len() == 1 {
            tasks.push(act);
            continue;
        }
        let keep = json!({format!("keep-{index}"): {"set": {"failed": "${ $error }"}}});
        let caught = json!({"try": [act], "catch": {"as": "error", "do": [keep]}});
        tasks.push(json!({format!("try-{index}"): caught}));
        tasks.push(
            json!({format!("tell-{index}"): {"emit": {"event": {"with": {
                "source": "https://tests.example/canary", "type": "canary.seen", "data": "${ . }"
            }}}}}),
        );
    }
    json!({
        "document": {"dsl": "1.0.3", "namespace": "tests", "name": "canary", "version": "1.0.0"},
        "do": tasks,
    })
}

/// Every way in which a canary may come back.
fn deeds(url: &str) -> Vec<(&'static str, Value)> {
    let mut deeds = Vec::new();
    for (path, then) in [
        ("200", "return"),
        ("200", "fail"),
        ("200", "panic"),
        ("200", "trap"),
        ("200", "keep"),
        ("500", "return"),
        ("500", "fail"),
        ("401", "fail"),
        ("drop", "return"),
        ("garbage", "return"),
    ] {
        let bearer = json!({"authorization": "Bearer {TOKEN}"});
        let with = json!({"url": format!("{url}/{path}"), "headers": bearer, "then": then});
        deeds.push(("api.send-secret", with));
    }
    let with = json!({"url": format!("{url}/200"), "basic": ["user", "{TOKEN}"], "then": "fail"});
    deeds.push(("api.send-secret", with));
    let with = json!({"url": format!("{url}/{{TOKEN}}"), "body": "{TOKEN}", "headers": {"x-a": "{TOKEN}"}});
    deeds.push(("api.send-secret", with));
    let with = json!({"url": "http://localhost:1", "headers": {"x-a": "{TOKEN}"}});
    deeds.push(("api.send-secret", with));
    deeds.push((
        "api.secret",
        json!({"name": "TOKEN", "url": format!("{url}/200")}),
    ));
    let with = json!({"name": "TOKEN", "algorithm": "hmac-sha256", "data": "00"});
    deeds.push(("api.sign", with));
    deeds.push(("db.query", json!({"statement": "select 1"})));
    let with = json!({"to": ["b@example.com"], "subject": "s", "text": "t"});
    deeds.push(("mail.send", with));
    deeds
}

/// A folder to run in, with everything that is printed kept in files of its own.
struct Scene {
    root: tempfile::TempDir,
    printed: Vec<(String, Vec<u8>)>,
}

impl Scene {
    fn new(echo: &Echo) -> Self {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("secrets")).unwrap();
        std::fs::create_dir(root.path().join("run")).unwrap();
        std::fs::write(root.path().join("secrets/sql"), SQL).unwrap();
        let config = CONFIG
            .replace("HTTP\"", &format!("{}\"", echo.http_port))
            .replace("SQL/", &format!("{}/", echo.sql_port))
            .replace("port = MAIL", &format!("port = {}", echo.mail_port));
        std::fs::write(root.path().join("run/cofferdam.toml"), config).unwrap();
        let printed = Vec::new();
        Self { root, printed }
    }

    fn run(&self) -> std::path::PathBuf {
        self.root.path().join("run")
    }

    /// Runs the command line with every log on, and answers what it wrote to standard output.
    async fn cofferdam(&mut self, words: &[&str]) -> String {
        let plugins = stage::plugins();
        let output = Command::new(stage::cofferdam())
            .args(words)
            .current_dir(self.run())
            .env("COFFERDAM_PLUGINS", plugins)
            .env("RUST_LOG", LOGS)
            .env("RUST_BACKTRACE", "full")
            .env("CANARY_API", API)
            .env("CANARY_MAIL", MAIL)
            .output()
            .await
            .unwrap();
        let line = words.join(" ");
        let told = String::from_utf8_lossy(&output.stdout).into_owned();
        self.printed
            .push((format!("stdout of `{line}`"), output.stdout));
        self.printed
            .push((format!("stderr of `{line}`"), output.stderr));
        told
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_is_left_anywhere_whatever_goes_well_or_wrong() {
    let echo = Echo::start().await;
    let mut scene = Scene::new(&echo);
    let url = format!("http://127.0.0.1:{}", echo.http_port);
    let all = deeds(&url);
    let mut workflows = vec![workflow(&all)];
    // And those whose run ends with the failure, each by itself.
    for (call, with) in &all {
        let ends = ["fail", "trap"].iter().any(|then| with["then"] == *then);
        let first = ends && with["url"] == format!("{url}/200") && with["basic"].is_null();
        if first || !call.starts_with("api.") {
            workflows.push(workflow(&[(call, with.clone())]));
        }
    }
    for (index, document) in workflows.iter().enumerate() {
        let file = format!("workflow-{index}.json");
        std::fs::write(scene.run().join(&file), document.to_string()).unwrap();
        scene.cofferdam(&["run", &file, "--details"]).await;
    }
    let secret = "TOKEN=CANARY_API@127.0.0.1";
    for then in ["return", "fail", "panic"] {
        let input =
            json!({"url": format!("{url}/200"), "headers": {"x-a": "{TOKEN}"}, "then": then});
        let (input, allow) = (input.to_string(), url.clone());
        let words = ["call", "unruly", "send-secret", "--secret", secret];
        let more = ["--allow-http", &allow, "--input", &input, "-vvv"];
        scene.cofferdam(&[&words[..], &more[..]].concat()).await;
    }
    let runs = views(&mut scene).await;
    assert_eq!(runs, workflows.len(), "every run is kept");

    // The canaries went out, else there was nothing to find.
    let received = echo.received();
    for (canary, times) in [(API, 10), (SQL, 1), (MAIL, 1)] {
        let came = received.iter().filter(|text| text.contains(canary)).count();
        assert!(came >= times, "{canary} came {came} times");
    }
    let search = Search::new(&[API, SQL, MAIL]);
    let mut finds: Vec<String> = scene
        .printed
        .iter()
        .flat_map(|(place, bytes)| search.bytes(place, bytes))
        .collect();
    let (files, found) = search.folder(&scene.run());
    finds.extend(found);
    assert!(
        files.iter().any(|path| path.starts_with("store")),
        "{files:?}"
    );
    assert!(
        files.iter().any(|path| path.starts_with("code")),
        "{files:?}"
    );
    assert!(
        finds.is_empty(),
        "{} finds:\n{}",
        finds.len(),
        finds.join("\n")
    );
    // What was taken out has left its trace, and the rest of what the server said is there.
    let masked = |(_, bytes): &(String, Vec<u8>)| {
        String::from_utf8_lossy(bytes).contains(&"*".repeat(API.len()))
    };
    assert!(scene.printed.iter().any(masked));
}

/// Looks at everything in every way; answers how many runs there are.
async fn views(scene: &mut Scene) -> usize {
    let list = scene.cofferdam(&["runs", "list", "--output", "json"]).await;
    let list: Value = serde_json::from_str(&list).unwrap();
    let runs: Vec<String> = ids(&list);
    for run in &runs {
        scene.cofferdam(&["runs", "show", run]).await;
        scene
            .cofferdam(&["runs", "show", run, "--output", "json"])
            .await;
    }
    for words in [
        &["runs", "list"][..],
        &["deadletters", "list"],
        &["deadletters", "list", "--output", "json"],
        &["reviews", "list", "--output", "json"],
        &["events", "list"],
        &["events", "list", "--output", "json"],
        &["connection", "list", "--output", "json"],
        &["plugin", "inspect", "unruly", "--output", "json"],
        &["plugin", "list", "--output", "json"],
        &["doctor", "--output", "json", "-vvv"],
        &["runs", "resume"],
        &["errors", "CD0316"],
    ] {
        scene.cofferdam(words).await;
    }
    runs.len()
}

fn ids(list: &Value) -> Vec<String> {
    let items = list.as_array().or_else(|| list["runs"].as_array());
    let id = |item: &Value| {
        let id = item["run"].as_str().or_else(|| item["id"].as_str());
        id.unwrap().to_owned()
    };
    items.unwrap().iter().map(id).collect()
}

#[test]
fn the_search_finds_a_canary_in_every_form() {
    let search = Search::new(&[API]);
    let folder = tempfile::tempdir().unwrap();
    for form in search::examples(API) {
        let text = [b"before ".as_slice(), &form, b" after"].concat();
        assert!(!search.bytes("here", &text).is_empty(), "{form:?}");
        std::fs::create_dir_all(folder.path().join("deep/er")).unwrap();
        std::fs::write(folder.path().join("deep/er/file"), &text).unwrap();
        assert_eq!(search.folder(folder.path()).0, [Path::new("deep/er/file")]);
        assert!(!search.folder(folder.path()).1.is_empty());
    }
    assert!(
        search
            .bytes("here", b"cnry/Api and nothing more")
            .is_empty()
    );
}
