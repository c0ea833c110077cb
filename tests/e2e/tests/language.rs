//! Secrets, authentication, OpenAPI, MCP, catalogs and runs of their own, through the real chamber.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

#[path = "language/site.rs"]
mod site;
mod stage;

use std::path::Path;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cofferdam::{Config, Error, RunView, Runtime, Status};
use cofferdam_store::{Batch, JournalStore, KeyRange, MemoryStore, Table};
use serde_json::{Value, json};
use site::{Came, Site};
use stage::{ended, eventually, with_plugins};

/// With letters that forms, JSON and base64 write differently.
const SECRET: &str = "Se+same \"&=%/öpen";

fn document(rest: &str) -> String {
    format!("document: {{dsl: '1.0.3', namespace: tests, name: main, version: '1.0.0'}}\n{rest}")
}

/// A folder with workflows, and a configuration that reaches one site.
struct Scene {
    folder: tempfile::TempDir,
    store: MemoryStore,
    config: Config,
}

impl Scene {
    fn new(site: &Site, settings: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("secret"), SECRET).unwrap();
        let text = format!(
            "[connections.http]\nplugin = \"http\"\nretry = {{ attempts = 1 }}\non-outage = \"fail\"\n\
             grants = {{ http = [\"{url}\"] }}\n\
             secrets.TOKEN = {{ file = \"secret\", audience = [\"127.0.0.1\"] }}\n\
             secrets.FAR = {{ file = \"secret\", audience = [\"far.example\"] }}\n\
             [connections.mcp]\nplugin = \"mcp\"\non-outage = \"fail\"\ngrants = {{ http = [\"{url}\"] }}\n\
             secrets.TOKEN = {{ file = \"secret\", audience = [\"127.0.0.1\"] }}\n{settings}",
            url = site.url
        );
        let config = with_plugins(Config::parse(&text, "test", folder.path()).unwrap());
        Self {
            folder,
            store: MemoryStore::new(),
            config,
        }
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    async fn open(&self) -> Runtime {
        let store: Arc<dyn JournalStore> = Arc::new(self.store.clone());
        let builder = Runtime::builder(self.config.clone()).store(store);
        builder.open().await.unwrap()
    }

    fn path(&self) -> std::path::PathBuf {
        self.folder.path().join("main.yaml")
    }

    /// Runs a document to its end.
    async fn run(&self, rest: &str, input: Value) -> RunView {
        self.write("main.yaml", &document(rest));
        let runtime = self.open().await;
        let workflow = runtime
            .load_workflow(self.path())
            .unwrap_or_else(|e| panic!("{e}"));
        let run = runtime.start(&workflow, input).await.unwrap();
        let view = ended(&runtime, &run).await;
        runtime.shutdown().await;
        view
    }

    /// Panics if a text is anywhere in the store, in a form that it is commonly written in.
    fn keeps_nothing_of(&self, text: &str) {
        let quoted = json!(text).to_string();
        let forms = [
            text.to_owned(),
            quoted.trim_matches('"').to_owned(),
            STANDARD.encode(text),
        ];
        let mut looked_at = 0;
        for table in Table::ALL {
            let rows = self.store.scan(table, KeyRange::all(), 10_000).unwrap();
            for (key, value) in rows {
                let row = format!(
                    "{} {}",
                    String::from_utf8_lossy(&key),
                    String::from_utf8_lossy(&value)
                );
                looked_at += row.len();
                assert!(
                    !forms.iter().any(|form| row.contains(form)),
                    "{table:?}: {row}"
                );
            }
        }
        assert!(looked_at > 100, "there is a store to look at");
    }
}

fn fine(_: &Came) -> (u16, Vec<(&'static str, String)>, String) {
    site::json(&json!({"fine": true}))
}

/// Says back whatever it is sent.
fn echo(came: &Came) -> (u16, Vec<(&'static str, String)>, String) {
    site::json(&json!({"headers": came.headers, "body": came.body}))
}

fn output(view: &RunView) -> Value {
    assert_eq!(view.status, Status::Completed, "{:?}", view.error);
    (**view.output.as_ref().unwrap()).clone()
}

#[tokio::test]
async fn a_secret_of_a_workflow_reaches_its_audience_and_nothing_else() {
    let site = Site::start(echo).await;
    let scene = Scene::new(&site, "");
    let tasks = format!(
        "use: {{secrets: [TOKEN]}}\ndo:\n  - a:\n      input: {{from: '. + {{key: $secrets.TOKEN}}'}}\n      call: http\n      with: {{method: post, endpoint: '{}/a', headers: {{x-key: '${{ \"k \\(.key)\" }}'}}, body: {{seen: '${{ .key }}'}}, output: response}}\n",
        site.url
    );
    let view = scene.run(&tasks, json!({})).await;
    let came = site.came().remove(0);
    assert_eq!(came.header("x-key"), Some(format!("k {SECRET}").as_str()));
    // In a body a placeholder stays what it is.
    assert!(came.body.contains("cofferdam-secret-"), "{}", came.body);
    let output = output(&view).to_string();
    assert!(
        output.contains("cofferdam-secret-") && output.contains("***"),
        "{output}"
    );
    scene.keeps_nothing_of(SECRET);
    let shown = format!("{view:?}");
    assert!(!shown.contains("Se+same"), "{shown}");
}

#[tokio::test]
async fn a_placeholder_goes_to_no_other_audience_and_through_no_other_connection() {
    let site = Site::start(fine).await;
    let scene = Scene::new(&site, "");
    let send = |name: &str, call: &str| {
        format!(
            "use: {{secrets: [{name}]}}\ndo:\n  - a: {{call: {call}, with: {{method: get, endpoint: '{}/', headers: {{x-key: '${{ $secrets.{name} }}'}}}}}}\n",
            site.url
        )
    };
    let view = scene.run(&send("FAR", "http"), json!({})).await;
    assert_eq!(view.status, Status::Faulted);
    assert!(view.error.unwrap().r#type.ends_with("/authorization"));
    assert!(site.came().is_empty());
    // What can be seen when the workflow is loaded is refused then.
    scene.write("main.yaml", &document(&send("NOPE", "http")));
    let runtime = scene.open().await;
    let refused = runtime.load_workflow(scene.path()).unwrap_err();
    assert!(
        matches!(&refused, Error::Binding { line: 4, .. }),
        "{refused}"
    );
    assert!(refused.to_string().contains("`NOPE`"), "{refused}");
    runtime.shutdown().await;
    // What cannot is refused by the host, with the status that the specification names.
    let hidden = format!(
        "use: {{secrets: [NOPE]}}\ndo:\n  - a: {{input: {{from: '{{k: $secrets.NOPE}}'}}, call: http, with: {{method: get, endpoint: '{}/', headers: {{x-key: '${{ .k }}'}}}}}}\n",
        site.url
    );
    let view = scene.run(&hidden, json!({})).await;
    let error = view.error.unwrap();
    assert_eq!(error.status, 403, "{error}");
    assert_eq!(error.instance.as_deref(), Some("/do/0/a"));
    assert!(site.came().is_empty());
}

#[tokio::test]
#[expect(clippy::too_many_lines, reason = "a table")]
async fn each_authentication_is_made_in_the_chamber() {
    let site = Site::start(|came| match came.line.as_str() {
        "POST /realm/oauth2/token" | "POST /t" => {
            site::json(&json!({"access_token": "at-4711", "token_type": "Bearer"}))
        }
        "GET /realm/.well-known/openid-configuration" => {
            let host = came.header("host").unwrap();
            site::json(&json!({"token_endpoint": format!("http://{host}/t")}))
        }
        _ => echo(came),
    })
    .await;
    let settings = format!(
        "[connections.http.config.authentications.TOKEN]\nauthority = \"{}/realm\"\ngrant = \"password\"\n\
         username = \"ada\"\npassword = {{ secret = \"TOKEN\" }}\n",
        site.url
    );
    let scene = Scene::new(&site, &settings);
    let oauth2 = |more: &str| {
        format!(
            "authority: '{}/realm', grant: client_credentials, client: {{id: me, secret: '${{ $secrets.TOKEN }}'{more}}}",
            site.url
        )
    };
    let basic = |user: &str| format!("Basic {}", STANDARD.encode(format!("{user}:{SECRET}")));
    for (authentication, header) in [
        (
            "{basic: {username: ada, password: '${ $secrets.TOKEN }'}}".to_owned(),
            basic("ada"),
        ),
        (
            "{bearer: {use: TOKEN}}".to_owned(),
            format!("Bearer {SECRET}"),
        ),
        ("{use: crm}".to_owned(), format!("Bearer {SECRET}")),
        (
            format!("{{oauth2: {{{}}}}}", oauth2("")),
            "Bearer at-4711".to_owned(),
        ),
        (
            format!(
                "{{oauth2: {{{}}}}}",
                oauth2(", authentication: client_secret_basic")
            ),
            "Bearer at-4711".to_owned(),
        ),
        (
            format!(
                "{{oidc: {{{}, request: {{encoding: application/json}}}}}}",
                oauth2("")
            ),
            "Bearer at-4711".to_owned(),
        ),
        (
            "{oauth2: {use: TOKEN}}".to_owned(),
            "Bearer at-4711".to_owned(),
        ),
    ] {
        let tasks = format!(
            "use: {{secrets: [TOKEN], authentications: {{crm: {{bearer: {{use: TOKEN}}}}}}}}\ndo:\n  - a:\n      call: http\n      with:\n        method: get\n        endpoint: {{uri: '{}/api', authentication: {authentication}}}\n        output: response\n",
            site.url
        );
        let before = site.at("GET /api").len();
        let view = scene.run(&tasks, json!({})).await;
        let told = output(&view).to_string();
        assert!(
            !told.contains("at-4711") && !told.contains("Se+same"),
            "{told}"
        );
        let came = site.at("GET /api");
        assert_eq!(came.len(), before + 1);
        assert_eq!(
            came[before].header("authorization"),
            Some(header.as_str()),
            "{authentication}"
        );
    }
    let tokens = site.at("POST /realm/oauth2/token");
    let form = "Se%2Bsame+%22%26%3D%25%2F%C3%B6pen";
    assert!(
        tokens[0].body.contains(&format!("client_secret={form}")),
        "{}",
        tokens[0].body
    );
    assert_eq!(tokens[0].header("cofferdam-secrets"), None);
    assert_eq!(
        tokens[1].header("authorization"),
        Some(basic("me").as_str())
    );
    assert!(
        !tokens[1].body.contains("client_secret"),
        "{}",
        tokens[1].body
    );
    assert!(
        tokens[2]
            .body
            .contains(&format!("username=ada&password={form}")),
        "{}",
        tokens[2].body
    );
    let json: Value = serde_json::from_str(&site.at("POST /t")[0].body).unwrap();
    assert_eq!(json["client_secret"], SECRET);
    scene.keeps_nothing_of(SECRET);
    scene.keeps_nothing_of("at-4711");
}

const API: &str = "
openapi: 3.0.3
servers: [{url: URL/v1}]
paths:
  /items/{id}:
    get: {operationId: getItem, parameters: [{name: id, in: path, required: true}]}
  /items:
    post: {operationId: addItem, requestBody: {content: {application/json: {}}}}
";

#[tokio::test]
async fn an_openapi_operation_is_called_as_its_document_says() {
    let served = json!({
        "swagger": "2.0", "basePath": "/v2",
        "paths": {"/pets": {"get": {"operationId": "pets", "parameters": [{"name": "status", "in": "query"}]}}},
    });
    let site = Site::start(move |came| match came.line.as_str() {
        "GET /swagger.json" => site::json(&served),
        "GET /gone.json" => (404, vec![], String::new()),
        _ => echo(came),
    })
    .await;
    let scene = Scene::new(&site, "");
    scene.write("apis/items.yaml", &API.replace("URL", &site.url));
    let tasks = format!(
        "use: {{secrets: [TOKEN]}}\ndo:\n  - a: {{call: openapi, with: {{document: {{endpoint: 'file:apis/items.yaml'}}, operationId: getItem, parameters: {{id: '${{ .id }}'}}, authentication: {{bearer: {{use: TOKEN}}}}}}}}\n  - b: {{call: openapi, with: {{document: {{endpoint: 'file:apis/items.yaml'}}, operationId: addItem, parameters: {{name: Ada}}}}}}\n  - c: {{call: openapi, with: {{document: {{endpoint: '{}/swagger.json'}}, operationId: pets, parameters: {{status: 'a b'}}, output: raw}}}}\n",
        site.url
    );
    let view = scene.run(&tasks, json!({"id": "x/y"})).await;
    assert!(output(&view).is_string(), "{:?}", view.output);
    let lines: Vec<String> = site.came().into_iter().map(|came| came.line).collect();
    assert_eq!(
        lines,
        [
            "GET /v1/items/x%2Fy",
            "POST /v1/items",
            "GET /swagger.json",
            "GET /v2/pets?status=a%20b"
        ]
    );
    let came = site.came();
    assert_eq!(
        came[0].header("authorization"),
        Some(format!("Bearer {SECRET}").as_str())
    );
    assert_eq!(came[1].body, r#"{"name":"Ada"}"#);
    assert!(came[1].header("idempotency-key").is_some());
    scene.keeps_nothing_of(SECRET);
    let missing = format!(
        "do:\n  - a: {{call: openapi, with: {{document: {{endpoint: '{}/gone.json'}}, operationId: x}}}}\n",
        site.url
    );
    let error = scene.run(&missing, json!({})).await.error.unwrap();
    assert_eq!(error.status, 404, "{error}");
    // A file outside of the workflow's folder is not there.
    let outside = "do:\n  - a: {call: openapi, with: {document: {endpoint: 'file:../secret'}, operationId: x}}\n";
    scene.write("main.yaml", &document(outside));
    let runtime = scene.open().await;
    let refused = runtime.load_workflow(scene.path()).unwrap_err().to_string();
    assert!(refused.contains("CD0153"), "{refused}");
    runtime.shutdown().await;
}

/// A server of the protocol: two tools, one of which fails.
fn mcp(came: &Came) -> (u16, Vec<(&'static str, String)>, String) {
    if came.line.starts_with("DELETE") {
        return (204, vec![], String::new());
    }
    let message: Value = serde_json::from_str(&came.body).unwrap();
    let id = message["id"].clone();
    let answer = |result: Value| json!({"jsonrpc": "2.0", "id": id, "result": result});
    let kind = |kind: &str| ("content-type", kind.to_owned());
    match (
        message["method"].as_str().unwrap(),
        message["params"]["name"].as_str(),
    ) {
        ("initialize", _) => {
            let hello = answer(json!({"protocolVersion": message["params"]["protocolVersion"]}));
            let session = ("mcp-session-id", "s-1".to_owned());
            (
                200,
                vec![kind("application/json"), session],
                hello.to_string(),
            )
        }
        ("notifications/initialized", _) => (202, vec![], String::new()),
        ("tools/call", Some("add")) => {
            let arguments = &message["params"]["arguments"];
            let sum = arguments["a"].as_i64().unwrap() + arguments["b"].as_i64().unwrap();
            let said = answer(json!({"content": [{"type": "text", "text": sum.to_string()}]}));
            let events = format!("event: message\ndata: {said}\n\n");
            (200, vec![kind("text/event-stream")], events)
        }
        ("tools/list", _) => site::json(&answer(json!({"tools": [{"name": "add"}]}))),
        _ => site::json(&json!({
            "jsonrpc": "2.0", "id": id, "error": {"code": -32602, "message": "no such tool"}
        })),
    }
}

#[tokio::test]
async fn a_tool_is_called_over_streamable_http() {
    let site = Site::start(mcp).await;
    let scene = Scene::new(&site, "");
    let ask = |method: &str, parameters: &str| {
        format!(
            "call: mcp, with: {{method: {method}, {parameters}transport: {{http: {{endpoint: {{uri: '{}/mcp', authentication: {{bearer: {{use: TOKEN}}}}}}}}}}, client: {{name: tests, version: 1.0.0}}}}",
            site.url
        )
    };
    let tasks = format!(
        "use: {{secrets: [TOKEN]}}\ndo:\n  - list: {{{}, export: {{as: '{{tools: [.tools[].name]}}'}}}}\n  - add: {{{}}}\n  - done: {{set: {{tools: '${{ $context.tools }}', sum: '${{ .content[0].text }}'}}}}\n",
        ask("tools/list", ""),
        ask(
            "tools/call",
            "parameters: {name: add, arguments: {a: 2, b: 3}}, "
        ),
    );
    let view = scene.run(&tasks, json!({})).await;
    assert_eq!(output(&view), json!({"tools": ["add"], "sum": "5"}));
    let came = site.came();
    assert!(
        came.iter()
            .all(|c| c.header("authorization") == Some(&format!("Bearer {SECRET}")))
    );
    assert_eq!(site.at("DELETE /mcp").len(), 2, "each session is closed");
    assert!(
        came[2..]
            .iter()
            .any(|c| c.header("mcp-session-id") == Some("s-1"))
    );
    scene.keeps_nothing_of(SECRET);
    let wrong = format!(
        "use: {{secrets: [TOKEN]}}\ndo:\n  - a: {{{}, metadata: {{cofferdam: {{onExhausted: fault}}}}}}\n",
        ask("tools/call", "parameters: {name: nope}, ")
    );
    let error = scene.run(&wrong, json!({})).await.error.unwrap();
    assert!(error.r#type.ends_with("/runtime"), "{error}");
    assert_eq!(error.cofferdam.unwrap().code, "mcp.-32602");
}

#[tokio::test]
async fn functions_come_from_catalogs_in_local_folders() {
    let site = Site::start(fine).await;
    let mut scene = Scene::new(&site, "");
    let shared = tempfile::tempdir().unwrap();
    scene.config = scene.config.clone().with_catalog("default", shared.path());
    let function = |root: &Path, name: &str, text: &str| {
        let folder = root.join(format!("functions/{name}/1.0.0"));
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("function.yaml"), text).unwrap();
    };
    function(shared.path(), "twice", "set: {n: '${ .n * 2 }'}\n");
    let own = scene.folder.path().join("own");
    function(
        &own,
        "plus",
        "input: {schema: {resource: {endpoint: 'file:own/n.json'}}}\ncall: 'twice:1.0.0@default'\nwith: {n: '${ .n + 1 }'}\n",
    );
    scene.write("own/n.json", "{\"required\": [\"n\"]}");
    let tasks = "use: {catalogs: {own: {endpoint: {uri: 'file:own'}}}}\ndo:\n  - a: {call: 'plus:1.0.0@own', with: {n: '${ .n }'}}\n";
    let view = scene.run(tasks, json!({"n": 20})).await;
    assert_eq!(output(&view), json!({"n": 42}));
}

#[tokio::test]
async fn a_workflow_that_is_not_awaited_runs_once_by_itself() {
    let site = Site::start(fine).await;
    let scene = Scene::new(&site, "");
    scene.write(
        "other.yaml",
        &format!(
            "document: {{dsl: '1.0.3', namespace: tests, name: other, version: '1.0.0'}}\ndo:\n  - tell: {{emit: {{event: {{with: {{type: other.began, source: 'https://tests.example'}}}}}}}}\n  - a: {{call: http, with: {{method: post, endpoint: '{}/other', body: '${{ . }}'}}}}\n",
            site.url
        ),
    );
    let tasks = "do:\n  - go: {run: {await: false, workflow: {namespace: tests, name: other, version: '1.0.0', input: {n: '${ .n }'}}}}\n";
    scene.write("main.yaml", &document(tasks));
    let runtime = scene.open().await;
    let workflow = runtime.load_workflow(scene.path()).unwrap();
    let run = runtime.start(&workflow, json!({"n": 7})).await.unwrap();
    let view = ended(&runtime, &run).await;
    assert_eq!(output(&view), json!({"n": 7}));
    let runs = runtime.query().runs(None, 10).unwrap();
    let other = runs
        .iter()
        .find(|row| row.workflow == "tests/other:1.0.0")
        .unwrap()
        .run
        .clone();
    assert!(other.starts_with(&format!("{run}.")));
    assert_eq!(ended(&runtime, &other).await.status, Status::Completed);
    assert_eq!(site.came().len(), 1);
    assert_eq!(site.came()[0].body, r#"{"n":7}"#);
    assert_eq!(runtime.query().events().unwrap().len(), 1);
    runtime.shutdown().await;
    // Nothing is begun again when the store is opened again.
    let runtime = scene.open().await;
    eventually("idle", || runtime.active_runs() == 0).await;
    assert_eq!(runtime.query().runs(None, 10).unwrap().len(), 2);
    assert_eq!(site.came().len(), 1);
    runtime.shutdown().await;
}

#[tokio::test]
async fn a_run_that_was_asked_for_and_had_not_begun_begins_after_a_restart() {
    let site = Site::start(fine).await;
    let scene = Scene::new(&site, "");
    let other = "document: {dsl: '1.0.3', namespace: tests, name: other, version: '1.0.0'}\ndo: [{tell: {emit: {event: {with: {type: t, source: 'https://tests.example'}}}}}]\n";
    scene.write("other.yaml", other);
    let tasks = "do:\n  - go: {run: {await: false, workflow: {namespace: tests, name: other, version: '1.0.0'}}}\n";
    scene.write("main.yaml", &document(tasks));
    let runtime = scene.open().await;
    let workflow = runtime.load_workflow(scene.path()).unwrap();
    let run = runtime.start(&workflow, json!({})).await.unwrap();
    ended(&runtime, &run).await;
    let rows = runtime.query().runs(None, 10).unwrap();
    let other = rows.iter().find(|row| row.run != run).unwrap().clone();
    ended(&runtime, &other.run).await;
    runtime.shutdown().await;
    // A row as the first commit left it: it holds the input, and the journal nothing.
    let fresh = MemoryStore::new();
    let mut batch = Batch::new();
    for (key, value) in scene
        .store
        .scan(Table::Definition, KeyRange::all(), 100)
        .unwrap()
    {
        batch = batch.put(Table::Definition, key, value);
    }
    let mut pending = serde_json::to_value(&other).unwrap();
    pending["status"] = json!("running");
    pending["pending"] = json!({});
    pending.as_object_mut().unwrap().remove("endedMs");
    let row = serde_json::to_vec(&pending).unwrap();
    batch = batch.put(Table::Run, other.run.as_bytes(), row);
    batch = batch.put(
        Table::RunByStatus,
        [b"running\0".as_slice(), other.run.as_bytes()].concat(),
        Vec::new(),
    );
    fresh.commit(batch).await.unwrap();
    let scene = Scene {
        store: fresh,
        ..scene
    };
    let runtime = scene.open().await;
    let view = ended(&runtime, &other.run).await;
    assert_eq!(view.status, Status::Completed);
    assert_eq!(
        runtime.query().events().unwrap().len(),
        1,
        "what a beginning publishes is published"
    );
    runtime.shutdown().await;
}

#[tokio::test]
async fn a_placeholder_that_data_brings_along_is_no_secret() {
    let site = Site::start(fine).await;
    let scene = Scene::new(&site, "");
    let guess = format!("cofferdam-secret-{}", "0".repeat(32));
    let tasks = format!(
        "use: {{secrets: [TOKEN]}}\ndo:\n  - a: {{call: http, with: {{method: get, endpoint: '{}/', headers: {{x-key: '${{ .guess }}', x-name: '$secrets.TOKEN'}}}}}}\n",
        site.url
    );
    let view = scene.run(&tasks, json!({"guess": guess})).await;
    assert_eq!(view.status, Status::Completed);
    let came = site.came().remove(0);
    assert_eq!(came.header("x-key"), Some(guess.as_str()));
    assert!(!format!("{came:?}").contains("Se+same"));
}
