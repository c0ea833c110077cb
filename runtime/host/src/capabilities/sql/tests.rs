//! Databases without a guest: SQLite in a folder of its own, and PostgreSQL where the environment
//! names a server.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::*;
use crate::connection::Settings;
use crate::egress::tests::authority::Authority;
use crate::spec::Grants;

const LONG: Duration = Duration::from_secs(20);
/// Never ends by itself, in either dialect.
const ENDLESS: &str =
    "with recursive n(x) as (select 1 union all select x + 1 from n) select count(*) from n";

fn scope(timeout: Duration) -> Scope {
    let nothing = Settings::nothing("test").unwrap();
    let settings = Settings {
        limits: crate::Limits::default(),
        ..nothing
    };
    Scope::new(Arc::new(settings), String::new(), timeout)
}

fn open(url: &str) -> Database {
    let egress = Egress::new("test", &Grants::default(), None).unwrap();
    let grant = SqlGrant {
        url: url.to_owned(),
        password: None,
        pool_max: 2,
    };
    Database::new("test", &grant, &egress).unwrap()
}

fn statement(text: &str, parameters: &Value) -> sql::Statement {
    sql::Statement {
        text: text.to_owned(),
        parameters: parameters.to_string(),
    }
}

async fn ask(database: &Database, text: &str, parameters: Value) -> Result<Value, Failure> {
    let scope = scope(LONG);
    let rows = query(&scope, database, statement(text, &parameters), 100, false).await?;
    assert_eq!(scope.effect(), cofferdam_core::failure::EffectState::None);
    Ok(serde_json::from_str(&rows.json).unwrap())
}

async fn run(database: &Database, texts: &[(&str, Value)]) -> Result<Vec<u32>, Failure> {
    let statements = texts
        .iter()
        .map(|(text, value)| statement(text, value))
        .collect();
    execute(&scope(LONG), database, statements).await
}

/// What holds in either dialect.
async fn behaves(database: &Database) {
    let _ = run(database, &[("drop table if exists people", json!([]))]).await;
    let table =
        "create table people (id integer primary key, name text not null, score double precision)";
    run(database, &[(table, json!([]))]).await.unwrap();
    let insert = "insert into people (name, id, score) values ($2, $1, $3)";
    let two = [
        (insert, json!([1, "Ada'; drop table people; --", 1.5])),
        (insert, json!([2, "Bo", null])),
    ];
    assert_eq!(run(database, &two).await.unwrap(), [1, 1]);

    let rows = ask(
        database,
        "select id, name, score from people where id = $1",
        json!([1]),
    )
    .await;
    assert_eq!(
        rows.unwrap(),
        json!([{"id": 1, "name": "Ada'; drop table people; --", "score": 1.5}])
    );

    let clash = [(insert, json!([3, "C", 0])), (insert, json!([1, "D", 0]))];
    let failed = run(database, &clash).await.unwrap_err();
    assert_eq!(
        (failed.class, failed.code.as_str()),
        (Class::Conflict, "sql.conflict")
    );
    let rows = ask(database, "select count(*) as n from people", json!([]))
        .await
        .unwrap();
    assert_eq!(rows, json!([{"n": 2}]), "all or none");

    for (text, parameters, class, code) in [
        ("selec 1", json!([]), Class::InvalidInput, "sql.statement"),
        (
            "select * from nowhere",
            json!([]),
            Class::InvalidInput,
            "sql.statement",
        ),
        (
            "select $1",
            json!([]),
            Class::InvalidInput,
            "sql.parameters",
        ),
        (
            "select 1",
            json!([1]),
            Class::InvalidInput,
            "sql.parameters",
        ),
        ("commit", json!([]), Class::InvalidInput, "sql.statement"),
        (
            "delete from people",
            json!([]),
            Class::InvalidInput,
            "sql.read-only",
        ),
    ] {
        let failed = ask(database, text, parameters).await.unwrap_err();
        assert_eq!(
            (failed.class, failed.code.as_str()),
            (class, code),
            "{text}: {failed}"
        );
    }

    let failed = run(database, &[(insert, json!([4, null, 0]))])
        .await
        .unwrap_err();
    assert_eq!(
        (failed.class, failed.code.as_str()),
        (Class::InvalidInput, "sql.constraint")
    );

    let add = statement(
        "insert into people (id, name) values (9, 'Z') returning id",
        &json!([]),
    );
    let rows = query(&scope(LONG), database, add, 10, true).await.unwrap();
    assert_eq!(rows.json, r#"[{"id":9}]"#);

    let some = statement("select id from people order by id", &json!([]));
    let rows = query(&scope(LONG), database, some, 2, false).await.unwrap();
    assert_eq!(
        (rows.json.as_str(), rows.truncated),
        (r#"[{"id":1},{"id":2}]"#, true)
    );

    let short = scope(Duration::from_millis(200));
    let failed = query(&short, database, statement(ENDLESS, &json!([])), 1, false).await;
    let failed = failed.unwrap_err();
    assert_eq!(
        (failed.class, failed.code.as_str()),
        (Class::Timeout, "sql.timeout")
    );
    ask(database, "select 1 as one", json!([]))
        .await
        .expect("the next statement works");
}

#[tokio::test]
async fn sqlite_behaves() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", folder.path().join("test.db").display());
    let database = open(&url);
    behaves(&database).await;
    keeps_to_the_verdict(&database).await;

    let rows = ask(
        &database,
        "select 9007199254740993 as big, x'00ff' as bytes",
        json!([]),
    )
    .await;
    assert_eq!(
        rows.unwrap(),
        json!([{"big": "9007199254740993", "bytes": "AP8="}])
    );
}

#[tokio::test]
async fn sqlite_stays_within_its_file() {
    let folder = tempfile::tempdir().unwrap();
    let other = folder.path().join("other.db");
    let database = open(&format!(
        "sqlite:{}",
        folder.path().join("test.db").display()
    ));
    let attach = format!("/**/ attach '{}' as other", other.display());
    let vacuum = format!("vacuum into '{}'", other.display());
    for text in [
        attach.as_str(),
        vacuum.as_str(),
        "pragma journal_mode = off",
        "explain pragma user_version",
        "select load_extension('x')",
        "create table t (a); begin",
        "savepoint a",
    ] {
        run(&database, &[(text, json!([]))]).await.expect_err(text);
        ask(&database, text, json!([])).await.expect_err(text);
    }
    assert!(!other.exists());
}

/// The server that the environment names, or one that is started for the test; without
/// PostgreSQL's programs on this machine there is none to be had.
#[tokio::test]
async fn postgresql_behaves() {
    let Some(server) = postgres_server::Server::find() else {
        eprintln!("no PostgreSQL here: set COFFERDAM_TEST_POSTGRES=postgresql://… to test it");
        return;
    };
    let database = open(server.url());
    behaves(&database).await;
    keeps_to_the_verdict(&database).await;

    let rows = ask(
        &database,
        "select $1::jsonb as j, $2::text[] as a, $3::numeric as n, $4::bytea as b, $5::uuid as u, \
         $6::timestamptz as t, $7::bigint as big, $8::bool as f, null::int as nil",
        json!([
            {"k": [1, "x"]},
            ["p", null, "q\"r"],
            "12345678901234567890.5",
            "AP8=",
            "6b1f2c3d-0000-4000-8000-000000000001",
            "2026-01-02T03:04:05.5Z",
            9_007_199_254_740_993_i64,
            true
        ]),
    )
    .await
    .unwrap();
    assert_eq!(
        rows,
        json!([{
            "j": {"k": [1, "x"]},
            "a": ["p", null, "q\"r"],
            "n": "12345678901234567890.5",
            "b": "AP8=",
            "u": "6b1f2c3d-0000-4000-8000-000000000001",
            "t": "2026-01-02T03:04:05.5Z",
            "big": "9007199254740993",
            "f": true,
            "nil": null
        }])
    );

    let failed = ask(&database, "select interval '1 day' as i", json!([]))
        .await
        .unwrap_err();
    assert_eq!(failed.code, "sql.type", "{failed}");
    let sneaky = "with gone as (delete from people returning id) select * from gone";
    let failed = ask(&database, sneaky, json!([])).await.unwrap_err();
    assert_eq!(failed.code, "sql.read-only", "{failed}");
}

#[tokio::test]
async fn postgresql_is_spoken_to_encrypted_and_only_if_it_is_vouched_for() {
    let (own, foreign) = (Authority::new(), Authority::new());
    let Some(server) = postgres_server::Server::with_tls(&own.vouch("127.0.0.1")) else {
        eprintln!("PostgreSQL is not installed: TLS toward it is not tested");
        return;
    };
    let select = "select ssl from pg_stat_ssl where pid = pg_backend_pid()";
    for (name, mode, authorities, works) in [
        ("127.0.0.1", "require", Some(own.pem()), true),
        ("127.0.0.1", "require", None, false),
        ("127.0.0.1", "require", Some(foreign.pem()), false),
        ("localhost", "require", Some(own.pem()), false),
        ("127.0.0.1", "disable", Some(own.pem()), false),
        ("127.0.0.1", "prefer", Some(own.pem()), false),
    ] {
        let url = server.url().replace("127.0.0.1", name);
        let grants = Grants {
            tls_ca: authorities,
            ..Grants::default()
        };
        let egress = Egress::new("test", &grants, None).unwrap();
        let grant = SqlGrant {
            url: format!("{url}?sslmode={mode}"),
            password: None,
            pool_max: 1,
        };
        let database = Database::new("test", &grant, &egress).unwrap();
        let found = ask(&database, select, json!([])).await;
        assert_eq!(found.is_ok(), works, "{name} {mode}: {found:?}");
        if works {
            assert_eq!(found.unwrap(), json!([{"ssl": true}]));
        }
    }
}

/// A transaction whose caller was told already that nothing happened is not committed.
async fn keeps_to_the_verdict(database: &Database) {
    let texts = [
        "drop table if exists told",
        "create table told (id integer primary key)",
        "insert into told values (1)",
    ];
    run(database, &texts.map(|text| (text, json!([]))))
        .await
        .unwrap();
    let late = scope(LONG);
    assert_eq!(late.close(), cofferdam_core::failure::EffectState::None);
    let insert = statement("insert into told values (2)", &json!([]));
    let failed = execute(&late, database, vec![insert]).await.unwrap_err();
    assert_eq!(
        (failed.class, failed.code.as_str(), failed.effect),
        (
            Class::Timeout,
            "sql.timeout",
            cofferdam_core::failure::EffectState::None
        )
    );
    let rows = ask(database, "select id from told", json!([])).await;
    assert_eq!(rows.unwrap(), json!([{"id": 1}]));
}

#[tokio::test]
async fn a_database_that_is_down_is_unavailable_and_nothing_happened() {
    // Held, so that nobody else listens there meanwhile.
    let held = tokio::net::TcpSocket::new_v4().unwrap();
    held.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let port = held.local_addr().unwrap().port();
    let database = open(&format!("postgresql://nobody@127.0.0.1:{port}/none"));
    let failed = run(&database, &[("select 1", json!([]))])
        .await
        .unwrap_err();
    assert_eq!(
        (failed.class, failed.code.as_str()),
        (Class::Unavailable, "sql.connect")
    );
    assert_eq!(failed.effect, cofferdam_core::failure::EffectState::None);
}

#[test]
fn urls_that_make_no_sense_are_refused_without_showing_a_password() {
    let egress = Egress::new("test", &Grants::default(), None).unwrap();
    for url in [
        "mysql://user:hunter2@host/db",
        "postgresql://user:hunter2@/var/run/postgresql/db?host=/tmp",
        "postgresql://user:hunter2@host:notaport/db",
        "sqlite:",
        "sqlite:file.db?hunter2",
        "",
    ] {
        let grant = SqlGrant {
            url: url.to_owned(),
            password: None,
            pool_max: 1,
        };
        let Err(error) = Database::new("connection `x`", &grant, &egress) else {
            panic!("{url} has to be refused");
        };
        assert_eq!(error.code(), "CD0316");
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }
}
