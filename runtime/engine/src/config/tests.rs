//! What is read, and what is refused and where.

use std::path::{Path, PathBuf};
use std::time::Duration;

use cofferdam_core::manifest::Manifest;
use cofferdam_core::retry::Growth;
use cofferdam_core::workflow::OnOutage;
use cofferdam_host::{SmtpTls, Trust};
use serde_json::json;

use super::{Config, Connection, Error, PluginRef};
use crate::Durability;

const SECRET: &str = "sesame-open";

fn env(name: &str) -> Option<String> {
    (name == "TOKEN").then(|| SECRET.to_owned())
}

fn parse(text: &str) -> Result<Config, Error> {
    Config::parse_in(text, "c.toml", Path::new("/base"), &env)
}

const WHOLE: &str = r#"
[store]
path = "data"
durability = "every-task"
[plugins]
dir = "plugins"
trusted-keys = ["ed25519:PUAXw+hDiVqStwqnTRt+vJyYLM8uxJaMwM1V8Sr0Zgw="]
[limits]
memory = "32MiB"
concurrency = 4
[connections.crm]
plugin = "hubspot"
backups = ["crm-eu"]
park-deadline = "2h"
[connections.crm.config]
base_url = "http://127.0.0.1:1"
depth = { a = [1, 2.5, true] }
[connections.crm.secrets]
T = { env = "TOKEN", audience = ["api.hubapi.com"] }
[connections.crm.grants]
http = ["https://api.hubapi.com"]
kv = true
sql = { url = "sqlite:crm.db", password = { env = "TOKEN" }, pool = 2 }
smtp = { host = "mail", port = 465, tls = "implicit", username = "u", password = { env = "TOKEN" } }
filesystem = [{ host = "files", guest = "/data", writable = true }]
[connections.crm.limits]
timeout = "5s"
fuel = "unlimited"
[connections.crm.retry]
attempts = 5
delay = "250ms"
factor = 3
max-delay = "10s"
[connections.crm.timeout]
start-to-close = "20s"
schedule-to-close = "10m"
[connections.crm.breaker]
sliding-window-size = 10
wait-duration-in-open-state = "3s"
[connections.crm-eu]
plugin = "./eu/plugin.wasm"
allow-unsigned = true
enabled = false
on-outage = "fail"
secrets = { X = { env = "NOT_SET" } }
[workflows]
dir = "flows"
"#;

#[test]
fn every_key_arrives() {
    let config = parse(WHOLE).unwrap();
    assert_eq!(config.store_path(), Some(Path::new("/base/data")));
    assert_eq!(config.durability(), Durability::EveryTask);
    assert_eq!(config.workflows_dir(), Some(Path::new("/base/flows")));
    assert_eq!(config.plugin_folders()[0], Path::new("/base/plugins"));
    let crm = config.connection("crm").unwrap();
    assert_eq!(crm.plugin(), &PluginRef::Name("hubspot".into()));
    let spec = crm.spec();
    assert_eq!(spec.config["depth"], json!({"a": [1, 2.5, true]}));
    assert_eq!(
        (
            spec.secrets[0].name.as_str(),
            spec.secrets[0].value.as_str()
        ),
        ("T", SECRET)
    );
    assert_eq!(spec.secrets[0].audience, ["api.hubapi.com"]);
    assert_eq!(spec.limits.memory_bytes, 32 << 20);
    assert_eq!(spec.limits.timeout, Duration::from_secs(5));
    assert_eq!((spec.limits.fuel, spec.limits.concurrency_max), (None, 4));
    let sql = spec.grants.sql.unwrap();
    assert_eq!((sql.url.as_str(), sql.pool_max), ("sqlite:/base/crm.db", 2));
    assert_eq!(sql.password.as_deref(), Some(SECRET));
    assert_eq!(spec.grants.smtp.unwrap().tls, SmtpTls::Implicit);
    assert_eq!(
        spec.grants.filesystem[0].host_path,
        Path::new("/base/files")
    );
    assert!(spec.grants.kv && !spec.grants.allow_private);
    let policy = crm.binding_policy();
    assert_eq!(
        (policy.attempts_max, policy.backups.as_slice()),
        (5, ["crm-eu".to_owned()].as_slice())
    );
    assert_eq!(
        (policy.backoff.initial_ms, policy.backoff.delay_ms_max),
        (250, 10_000)
    );
    assert_eq!(policy.backoff.growth, Growth::Exponential { factor: 3.0 });
    assert_eq!(
        policy.on_outage,
        OnOutage::Park {
            deadline_ms: 7_200_000
        }
    );
    assert_eq!(
        (policy.start_to_close_ms, policy.schedule_to_close_ms),
        (20_000, 600_000)
    );
    assert_eq!(crm.breaker().sliding_window_size, 10);
    assert_eq!(crm.breaker().wait_duration_in_open_state_ms, 3_000);
    let eu = config.connection("crm-eu").unwrap();
    assert!(
        !eu.enabled(),
        "and so its secret, which is not there, is not missed"
    );
    assert_eq!(
        eu.plugin(),
        &PluginRef::Path(PathBuf::from("/base/./eu/plugin.wasm"))
    );
    assert_eq!(eu.binding_policy().on_outage, OnOutage::Fail);
    let trust = config.trust(crm);
    assert_eq!(trust.keys.len(), 1);
    assert!(!trust.allow_unsigned);
    assert!(config.trust(eu).allow_unsigned, "and for this one alone");
}

#[test]
fn an_empty_configuration_has_defaults() {
    let config = parse("").unwrap();
    assert_eq!(
        (config.store_path(), config.durability()),
        (None, Durability::OutputCommit)
    );
    assert_eq!(config.connections().count(), 0);
    assert_eq!(config.trust_default(), &Trust::default());
}

#[test]
fn unsigned_plugins_are_allowed_for_all_for_one_or_for_all_but_one() {
    const BOTH: &str = "[connections.a]\nplugin = 'x'\n[connections.b]\nplugin = 'x'\n";
    let allows = |text: &str| {
        let config = parse(text).unwrap();
        let allows = |name| {
            config
                .trust(config.connection(name).unwrap())
                .allow_unsigned
        };
        (allows("a"), allows("b"))
    };
    assert_eq!(allows(BOTH), (false, false));
    assert_eq!(
        allows(&format!("plugins.allow-unsigned = true\n{BOTH}")),
        (true, true)
    );
    assert_eq!(
        allows(&format!("{BOTH}allow-unsigned = true\n")),
        (false, true)
    );
    let but = format!("plugins.allow-unsigned = true\n{BOTH}allow-unsigned = false\n");
    assert_eq!(allows(&but), (true, false));
}

/// Text, code, line, and what the message must contain.
type Bad = (&'static str, &'static str, usize, &'static str);

const BAD: &[Bad] = &[
    ("[store\n", "CD0201", 1, "not TOML"),
    ("a = 1\na = 2\n", "CD0201", 2, "duplicate"),
    ("\n[stor]\n", "CD0202", 2, "did you mean `store`?"),
    ("[store]\npaht = 'x'\n", "CD0202", 2, "did you mean `path`?"),
    ("[alerts]\n", "CD0202", 1, "`connections`"),
    (
        "[limits]\nmemory_max = '1MiB'\n",
        "CD0202",
        2,
        "limits.memory_max",
    ),
    (
        "[connections.crm]\nplugn = 'x'\n",
        "CD0202",
        2,
        "did you mean `plugin`?",
    ),
    (
        "[connections.crm]\nplugin = 'x'\nonOutage = 'park'\n",
        "CD0202",
        3,
        "did you mean `on-outage`?",
    ),
    (
        "[connections.crm]\nplugin = 'x'\n[connections.crm.grants]\nhtpp = []\n",
        "CD0202",
        4,
        "did you mean `http`?",
    ),
    (
        "[connections.crm]\nplugin = 'x'\n[connections.crm.breaker]\nwait_duration_in_open_state = '1s'\n",
        "CD0202",
        4,
        "`wait-duration-in-open-state`",
    ),
    (
        "\n[connections.crm]\nenabled = true\n",
        "CD0203",
        2,
        "connections.crm.plugin",
    ),
    (
        "[connections.crm]\nplugin = 'x'\ngrants.sql = {}\n",
        "CD0203",
        3,
        "postgresql://",
    ),
    (
        "[connections.crm]\nplugin = 'x'\ngrants.smtp = { host = 'm' }\n",
        "CD0203",
        3,
        "587",
    ),
    (
        "[connections.crm]\nplugin = 'x'\ngrants.filesystem = [{ host = 'm' }]\n",
        "CD0203",
        3,
        "/data",
    ),
    ("store = 7\n", "CD0204", 1, "a table"),
    ("[store]\npath = 7\n", "CD0204", 2, "text in quotes"),
    (
        "[connections.crm]\nplugin = 'x'\nenabled = 'yes'\n",
        "CD0204",
        3,
        "`true` or `false`",
    ),
    (
        "[connections.crm]\nplugin = 'x'\nbackups = 'y'\n",
        "CD0204",
        3,
        "a list",
    ),
    (
        "[connections.crm]\nplugin = 'x'\nbackups = [7]\n",
        "CD0204",
        3,
        "connections.crm.backups[0]",
    ),
    (
        "[connections.crm]\nplugin = 'x'\nconfig = []\n",
        "CD0204",
        3,
        "a table",
    ),
    ("[limits]\ntimeout = 30\n", "CD0204", 2, "\"30s\""),
    ("[limits]\nmemory = true\n", "CD0204", 2, "\"64MiB\""),
    (
        "[plugins]\ntrusted-key = []\n",
        "CD0202",
        2,
        "did you mean `trusted-keys`?",
    ),
    (
        "[plugins]\nallow_unsigned = true\n",
        "CD0202",
        2,
        "did you mean `allow-unsigned`?",
    ),
    (
        "[plugins]\nallow-unsigned = 'yes'\n",
        "CD0204",
        2,
        "`true` or `false`",
    ),
    (
        "[plugins]\ntrusted-keys = 'ed25519:x'\n",
        "CD0204",
        2,
        "a list",
    ),
    (
        "[plugins]\ntrusted-keys = [\n  'ed25519:AAAA',\n]\n",
        "CD0205",
        3,
        "plugins.trusted-keys[0]",
    ),
    (
        "[plugins]\ntrusted-keys = ['ed25519-private:sesame-open']\n",
        "CD0205",
        2,
        "private key",
    ),
    (
        "[plugins]\ntrusted-keys = ['ed25519:AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=']\n",
        "CD0205",
        2,
        "anybody could sign",
    ),
    (
        "[connections.crm]\nplugin = 'x'\nallow-unsigned = 1\n",
        "CD0204",
        3,
        "`true` or `false`",
    ),
    (
        "[store]\ndurability = 'always'\n",
        "CD0205",
        2,
        "`output-commit` and `every-task`",
    ),
    ("[connections.crm]\nplugin = ''\n", "CD0205", 2, "empty"),
    (
        "\n[connections.CRM]\nplugin = 'x'\n",
        "CD0205",
        2,
        "lower-case",
    ),
    ("[limits]\ntimeout = 'soon'\n", "CD0205", 2, "\"500ms\""),
    ("[limits]\ntimeout = '2h'\n", "CD0205", 2, "at most \"1h\""),
    ("[limits]\ntimeout = '0s'\n", "CD0205", 2, "above zero"),
    ("[limits]\nmemory = '64MB'\n", "CD0205", 2, "\"64KiB\""),
    (
        "[limits]\noutput = '1KiB'\nmemory = '1GiB'\n",
        "CD0205",
        3,
        "256MiB",
    ),
    ("[limits]\nconcurrency = 0\n", "CD0205", 2, "from 1"),
    ("[limits]\nfuel = 'none'\n", "CD0204", 2, "a whole number"),
    ("[limits]\nfuel = 7\n", "CD0205", 2, "100000"),
    ("[limits]\nqueue = -1\n", "CD0205", 2, "whole number from 0"),
    (
        "[connections.crm]\nplugin = 'x'\non-outage = 'wait'\n",
        "CD0205",
        3,
        "`park`, `queue-and-forward`, `fallback` and `fail`",
    ),
    (
        "[connections.crm]\nplugin = 'x'\non-outage = 'fail'\npark-deadline = '1h'\n",
        "CD0205",
        4,
        "nothing is parked",
    ),
    (
        "[connections.crm]\nplugin = 'x'\nretry.attempts = 0\n",
        "CD0205",
        3,
        "from 1 to 100",
    ),
    (
        "[connections.crm]\nplugin = 'x'\nretry.factor = 0.5\n",
        "CD0205",
        3,
        "from 1 to 100",
    ),
    (
        "[connections.crm]\nplugin = 'x'\n[connections.crm.retry]\ndelay = '5s'\nmax-delay = '1s'\n",
        "CD0205",
        5,
        "shorter than the first delay, 5s",
    ),
    (
        "[connections.crm]\nplugin = 'x'\n[connections.crm.timeout]\nstart-to-close = '10m'\nschedule-to-close = '1m'\n",
        "CD0205",
        3,
        "schedule-to-close",
    ),
    (
        "[connections.crm]\nplugin = 'x'\nbreaker.failure-rate-threshold-ratio = 0\n",
        "CD0205",
        3,
        "above 0",
    ),
    (
        "[connections.crm]\nplugin = 'x'\nbreaker.failure-rate-threshold-ratio = 50\n",
        "CD0205",
        3,
        "from 0 to 1",
    ),
    (
        "[connections.crm]\nplugin = 'x'\n[connections.crm.breaker]\nsliding-window-size = 3\n",
        "CD0205",
        3,
        "sliding-window-size",
    ),
    (
        "[connections.crm]\nplugin = 'x'\ngrants.smtp = { host = 'm', port = 70000 }\n",
        "CD0205",
        3,
        "65535",
    ),
    (
        "[connections.crm]\nplugin = 'x'\ngrants.smtp = { host = 'm', port = 25, tls = 'ssl' }\n",
        "CD0205",
        3,
        "`starttls`",
    ),
    (
        "[connections.crm]\nplugin = 'x'\ngrants.sql.url = 'postgresql://u:sesame-open@h/d'\n",
        "CD0205",
        3,
        "password in the URL",
    ),
    (
        "[connections.crm]\nplugin = 'x'\ngrants.filesystem = [{ host = 'm', guest = 'data' }]\n",
        "CD0205",
        3,
        "slash",
    ),
    (
        "[connections.crm]\nplugin = 'x'\nsecrets.T = 'sesame-open'\n",
        "CD0205",
        3,
        "{ env = \"NAME\" }",
    ),
    (
        "[connections.crm]\nplugin = 'x'\nsecrets.T = { audience = ['a'] }\n",
        "CD0205",
        3,
        "nowhere",
    ),
    (
        "[connections.crm]\nplugin = 'x'\nsecrets.T = { env = 'TOKEN', file = 'f' }\n",
        "CD0205",
        3,
        "two sources",
    ),
    (
        "[connections.crm]\nplugin = 'x'\nsecrets.T = { value = 'sesame-open' }\n",
        "CD0202",
        3,
        "secrets.T.value",
    ),
    (
        "[connections.crm]\nplugin = 'x'\nbackups = ['cmr']\n",
        "CD0206",
        1,
        "no connection `cmr`",
    ),
    (
        "[connections.crm]\nplugin = 'x'\nbackups = ['crm']\n",
        "CD0206",
        1,
        "its own backup",
    ),
    (
        "[connections.crm]\nplugin = 'x'\nsecrets.T = { env = 'NOT_SET' }\n",
        "CD0207",
        3,
        "NOT_SET",
    ),
    (
        "[connections.crm]\nplugin = 'x'\nsecrets.T = { file = 'no-such-file' }\n",
        "CD0207",
        3,
        "/base/no-such-file",
    ),
];

#[test]
fn what_is_wrong_is_told_with_code_place_and_remedy() {
    let mut missed = Vec::new();
    for (text, code, line, contains) in BAD {
        let error = parse(text).map(|_| ()).expect_err(text);
        let message = error.to_string();
        let is_told = error.code() == *code
            && error.place().is_some_and(|place| place.line == *line)
            && message.starts_with(&format!("c.toml:{line}:"))
            && [*code, *contains, "\nhelp: "]
                .iter()
                .all(|part| message.contains(part));
        if !is_told {
            missed.push(format!(
                "{text}wanted {code}, line {line}, {contains:?}; got {message}\n"
            ));
        }
    }
    assert!(missed.is_empty(), "{}", missed.join("\n"));
}

#[test]
fn no_secret_is_in_a_message_or_in_debug_output() {
    for (text, ..) in BAD {
        let error = parse(text).map(|_| ()).expect_err(text);
        assert!(!format!("{error} {error:?}").contains(SECRET), "{error}");
    }
    let config = parse(WHOLE).unwrap();
    assert!(!format!("{config:#?}").contains(SECRET));
}

#[test]
fn a_file_that_is_not_there_is_told() {
    let error = Config::load("/no/such/cofferdam.toml").unwrap_err();
    assert_eq!(error.code(), "CD0200");
    assert!(
        error.to_string().contains("/no/such/cofferdam.toml"),
        "{error}"
    );
}

#[test]
fn authorities_are_read_from_the_file_that_is_named_unless_the_connection_is_off() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("ca.pem"), "PEM").unwrap();
    let config = |file: &str, rest: &str| {
        let text = format!("[connections.a]\nplugin = \"p\"\n{rest}\ngrants.tls-ca = \"{file}\"\n");
        Config::parse_in(&text, "c.toml", folder.path(), &env)
    };
    let read = config("ca.pem", "").unwrap();
    assert_eq!(
        read.connection("a").unwrap().grants.tls_ca.as_deref(),
        Some("PEM")
    );
    let told = config("none.pem", "").err().unwrap().to_string();
    assert!(
        told.contains("c.toml:4:") && told.contains("none.pem"),
        "{told}"
    );
    assert!(told.contains("certificates in PEM"), "{told}");
    assert!(config("none.pem", "enabled = false").is_ok());
}

#[cfg(unix)]
#[test]
fn a_secret_is_not_read_from_a_device_without_end() {
    let text = "[connections.a]\nplugin = \"p\"\nsecrets.T = { file = \"/dev/zero\" }\n";
    let told = parse(text).err().unwrap().to_string();
    assert!(told.contains("too much for a secret"), "{told}");
}

#[test]
fn a_secret_is_read_from_a_file_without_its_line_end() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("token"), format!("{SECRET}\n")).unwrap();
    let text = "[connections.crm]\nplugin = 'x'\nsecrets.T = { file = 'token' }\n";
    let config = Config::parse(text, "c.toml", dir.path()).unwrap();
    assert_eq!(
        config.connection("crm").unwrap().spec().secrets[0].value,
        SECRET
    );
}

#[test]
fn a_plugin_that_is_not_there_is_told_with_those_that_are() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(dir.path().join("hubspot")).unwrap();
    std::fs::write(dir.path().join("hubspot/plugin.toml"), "").unwrap();
    std::fs::write(dir.path().join("single.wasm"), "").unwrap();
    std::fs::write(dir.path().join("packed.cofferdam"), "").unwrap();
    std::fs::create_dir_all(dir.path().join("layout")).unwrap();
    std::fs::write(dir.path().join("layout/oci-layout"), "").unwrap();
    let config = Config::new()
        .with_plugins_dir(dir.path())
        .with_connection(Connection::new("good", "hubspot"))
        .with_connection(Connection::new("single", "single"))
        .with_connection(Connection::new("packed", "packed"))
        .with_connection(Connection::new("layout", "layout"))
        .with_connection(Connection::new("bad", "hubsport"));
    let path = |name| config.connection(name).unwrap().resolve_plugin();
    assert_eq!(path("good").unwrap(), dir.path().join("hubspot"));
    assert_eq!(path("single").unwrap(), dir.path().join("single.wasm"));
    let packed = dir.path().join("packed.cofferdam");
    assert_eq!(path("packed").unwrap(), packed);
    assert_eq!(path("layout").unwrap(), dir.path().join("layout"));
    let by_path = PluginRef::parse("packed.cofferdam", dir.path());
    assert_eq!(by_path, PluginRef::Path(packed));
    let error = path("bad").unwrap_err();
    assert_eq!(error.code(), "CD0208");
    let message = error.to_string();
    assert!(
        message.contains("`hubsport`") && message.contains("`hubspot`"),
        "{message}"
    );
    assert_eq!(
        config.find_plugin("/no/where.wasm").unwrap_err().code(),
        "CD0208"
    );
}

#[test]
fn no_wish_of_a_plugin_raises_a_limit() {
    let manifest =
        "name = 'x'\nversion = '1.0.0'\n[limits]\nmemory = '128MiB'\ntimeout = '1h'\ncpu = '2s'\n";
    let manifest = Manifest::parse(manifest, "plugin.toml").unwrap();
    let connection = parse("[connections.a]\nplugin = 'x'\n").unwrap();
    let connection = connection.connection("a").unwrap();
    let limits = connection.spec_for(Some(&manifest)).limits;
    assert_eq!(limits, cofferdam_host::Limits::default());
    assert_eq!(
        connection.unmet_wishes(&manifest),
        ["memory = \"131072KiB\"", "timeout = \"1h\"", "cpu = \"2s\""]
    );
}

#[test]
fn a_rate_is_read_and_refused_with_its_place() {
    let read = |line: &str| {
        parse(&format!(
            "[connections.a]\nplugin = 'x'\nrate-limit = {line}\n"
        ))
    };
    let rate = |line: &str| {
        read(line)
            .unwrap()
            .connection("a")
            .unwrap()
            .spec()
            .limits
            .rate
            .unwrap()
    };
    let minute = rate("{ calls = 100, per = '1m', burst = 20 }");
    assert_eq!((minute.calls(), minute.burst()), (100, 20));
    assert_eq!(minute.per(), Duration::from_mins(1));
    let second = rate("{ calls = 5 }");
    assert_eq!((second.burst(), second.per()), (5, Duration::from_secs(1)));
    assert_eq!(second.max_wait(), Duration::ZERO);
    let waits = rate("{ calls = 5, max-wait = '2s' }");
    assert_eq!(waits.max_wait(), Duration::from_secs(2));
    for (line, words) in [
        ("{ calls = 0 }", "from 1"),
        ("{ calls = 2000000 }", "1000000"),
        ("{ per = '1s' }", "calls"),
        ("{ calls = 1, burst = 0 }", "from 1"),
        ("{ calls = 1, per = '0s' }", "above zero"),
        ("{ calls = 1, per = '2h' }", "1h"),
        ("{ calls = 1, per = '1us' }", "from 1ms"),
        ("{ calls = 1, rate = 2 }", "rate"),
        ("{ calls = 1, max-wait = '2h' }", "1h"),
        ("{ calls = 1, max-wait = 2 }", "max-wait"),
        ("7", "table"),
    ] {
        let error = read(line).unwrap_err().to_string();
        assert!(
            error.contains(words) && error.contains("rate-limit"),
            "{line}: {error}"
        );
    }
}

#[test]
fn wishes_of_a_plugin_count_where_nobody_chose() {
    let manifest = "name = 'x'\nversion = '1.0.0'\n[limits]\nmemory = '32MiB'\ntimeout = '10s'\ncpu = '200ms'\n";
    let manifest = Manifest::parse(manifest, "plugin.toml").unwrap();
    let silent = parse("[connections.a]\nplugin = 'x'\n").unwrap();
    let limits = silent
        .connection("a")
        .unwrap()
        .spec_for(Some(&manifest))
        .limits;
    assert_eq!(limits.memory_bytes, 32 << 20);
    assert_eq!(limits.timeout, Duration::from_secs(10));
    assert_eq!(limits.cpu_time, Duration::from_millis(200));
    let chosen =
        parse("[limits]\nmemory = '16MiB'\n[connections.a]\nplugin = 'x'\nlimits.cpu = '1s'\n")
            .unwrap();
    let limits = chosen
        .connection("a")
        .unwrap()
        .spec_for(Some(&manifest))
        .limits;
    assert_eq!(
        (limits.memory_bytes, limits.cpu_time),
        (16 << 20, Duration::from_secs(1))
    );
}

#[test]
fn a_program_can_make_the_same_and_is_checked_the_same() {
    let config = Config::new().with_connection(
        Connection::new("crm", "hubspot")
            .with_secret("T", SECRET, ["api.hubapi.com"])
            .allow_http("https://api.hubapi.com")
            .with_backups(["eu"]),
    );
    assert_eq!(config.validate().unwrap_err().code(), "CD0206");
    let config = config.with_connection(Connection::new("eu", "hubspot"));
    config.validate().unwrap();
    let config = config.with_connection(Connection::new("Not a name", "hubspot"));
    assert_eq!(config.validate().unwrap_err().code(), "CD0205");
}
