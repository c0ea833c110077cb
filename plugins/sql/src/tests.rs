use cofferdam_sdk::prelude::*;
use cofferdam_sdk::testing::{Recorded, Statement};

use crate::Sql;

#[test]
fn a_query_returns_rows_and_tells_of_more() {
    let host = Recorded::new().statement(
        Statement::new("select id from leads where score > $1", json!([70]))
            .rows(json!([{"id": "a"}, {"id": "b"}])),
    );
    let input = json!({
        "statement": "select id from leads where score > $1", "parameters": [70], "maxRows": 1
    });
    let output = host.invoke::<Sql>("query", input).unwrap();
    assert_eq!(output, json!({"rows": [{"id": "a"}], "truncated": true}));
}

#[test]
fn an_upsert_binds_every_value_and_returns_what_undoes_it() {
    let host = Recorded::new().statement(
        Statement::new(
            "insert into \"crm\".\"leads\" (\"id\", \"email\") values ($1, $2) \
             on conflict (\"id\") do update set \"email\" = excluded.\"email\"",
            json!(["l-1", "'); drop table leads; --"]),
        )
        .affected(1),
    );
    let input = json!({
        "table": "crm.leads",
        "key": ["id"],
        "row": {"id": "l-1", "email": "'); drop table leads; --"}
    });
    let output = host.invoke::<Sql>("upsert", input).unwrap();
    assert_eq!(
        output,
        json!({"table": "crm.leads", "key": {"id": "l-1"}, "affected": 1})
    );
}

#[test]
fn a_row_of_nothing_but_its_key_is_left_as_it_is() {
    let host = Recorded::new().statement(
        Statement::new(
            "insert into \"seen\" (\"id\") values ($1) on conflict (\"id\") do nothing",
            json!([7]),
        )
        .affected(0),
    );
    let input = json!({"table": "seen", "key": ["id"], "row": {"id": 7}});
    assert_eq!(host.invoke::<Sql>("upsert", input).unwrap()["affected"], 0);
}

#[test]
fn names_that_are_not_names_never_reach_the_database() {
    for (table, column) in [
        ("leads; drop table leads", "id"),
        ("leads\"", "id"),
        ("a.b.c", "id"),
        ("", "id"),
        ("leads", "id\" = 1 --"),
        ("leads", "1st"),
        ("leads", "naïve"),
    ] {
        for action in ["upsert", "delete"] {
            let input = if action == "upsert" {
                json!({"table": table, "key": [column], "row": {column: 1}})
            } else {
                json!({"table": table, "key": {column: 1}})
            };
            let failure = Recorded::new().invoke::<Sql>(action, input).unwrap_err();
            assert_eq!(failure.code, "sql.name", "{table} {column}");
        }
    }
}

#[test]
fn a_key_must_name_a_row() {
    for (action, input) in [
        (
            "upsert",
            json!({"table": "t", "key": ["id"], "row": {"email": "x"}}),
        ),
        (
            "upsert",
            json!({"table": "t", "key": [], "row": {"email": "x"}}),
        ),
        ("delete", json!({"table": "t", "key": {}})),
        ("delete", json!({"table": "t", "key": {"id": null}})),
    ] {
        let failure = Recorded::new().invoke::<Sql>(action, input).unwrap_err();
        assert_eq!(failure.class, Class::InvalidInput);
    }
}

#[test]
fn a_deletion_needs_all_of_the_key() {
    let host = Recorded::new().statement(
        Statement::new(
            "delete from \"t\" where \"a\" = $1 and \"b\" = $2",
            json!([1, "x"]),
        )
        .affected(0),
    );
    let input = json!({"table": "t", "key": {"a": 1, "b": "x"}});
    assert_eq!(
        host.invoke::<Sql>("delete", input).unwrap(),
        json!({"affected": 0})
    );
}

#[test]
fn the_hosts_failure_is_passed_on_as_it_is() {
    let lost =
        Failure::new(Class::Unavailable, "sql.connection", "gone").effect(EffectState::Unknown);
    let host = Recorded::new()
        .statement(Statement::new("update t set a = 1", json!([])).fail(lost.clone()));
    let failure = host.invoke::<Sql>("execute", json!({"statement": "update t set a = 1"}));
    assert_eq!(failure.unwrap_err(), lost);
}

#[test]
fn the_check_asks_for_nothing_but_an_answer() {
    let host = Recorded::new()
        .statement(Statement::new("select 1", json!([])).rows(json!([{"?column?": 1}])));
    assert!(host.check::<Sql>().is_ok());
}
