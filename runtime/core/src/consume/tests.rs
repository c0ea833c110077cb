//! What can be looked up of filters, and how values are compared.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::expr::Vars;
use crate::workflow::{Kind, Listen, Source, Sources, Workflow};

fn workflow(to: &str) -> Workflow {
    let text = format!(
        "document: {{dsl: '1.0.3', namespace: t, name: t, version: '1.0.0'}}\n\
         do: [{{l: {{listen: {{to: {to}}}}}}}]\n"
    );
    let main = Source {
        origin: "test.yaml".into(),
        text,
    };
    let others = BTreeMap::new();
    crate::dsl::compile(&Sources { main, others }).unwrap_or_else(|e| panic!("{e}"))
}

fn listen(workflow: &Workflow) -> &Listen {
    match &workflow.body.tasks[0].kind {
        Kind::Listen(listen) => listen,
        _ => panic!(),
    }
}

fn evaluate(expr: &Expr, value: &Value) -> Option<Value> {
    expr.evaluate(value, &Vars::new()).ok()
}

fn event(kind: &str, subject: &str, data: &Value) -> CloudEvent {
    let value = json!({
        "specversion": "1.0", "id": "1", "source": "/t", "type": kind, "subject": subject, "data": data,
    });
    CloudEvent::new(value).unwrap()
}

fn answers(watch: &Watch, event: &CloudEvent) -> Option<Vec<Value>> {
    watch.shape.answers(event, &mut |source, value| {
        evaluate(&Expr::compile(source, &[]).unwrap(), value)
    })
}

#[test]
fn the_same_value_is_the_same_text() {
    let same = [
        (
            json!({"a": 1, "b": [2.0, null]}),
            json!({"b": [2, null], "a": 1.0}),
        ),
        (json!({}), json!({})),
        (json!(-0.0), json!(0)),
    ];
    for (a, b) in same {
        assert_eq!(canonical(&a), canonical(&b));
    }
    for (a, b) in [
        (json!("1"), json!(1)),
        (json!([]), json!({})),
        (json!([1, 2]), json!([12])),
    ] {
        assert_ne!(canonical(&a), canonical(&b));
    }
}

/// Filters of every form; the index must never keep an event from one that would take it.
const FILTERS: &[&str] = &[
    "{one: {with: {type: a}}}",
    "{one: {with: {subject: s1}}}",
    "{one: {with: {type: a, data: '${ .n > 2 }'}}}",
    "{one: {with: {data: {n: 3}}}}",
    "{one: {with: {type: '${ . == \"a\" }'}}}",
    "{one: {with: {subject: '${ \"s\" + \"1\" }'}}}",
    "{one: {with: {type: a}, correlate: {x: {from: .data.n, expect: '${ 1 + 2 }'}}}}",
    "{one: {with: {type: a}, correlate: {x: {from: .data.k, expect: v}}}}",
    "{any: []}",
    "{any: [{with: {type: a}}], until: {one: {with: {type: b}}}}",
    "{any: [{with: {type: a}}], until: {any: []}}",
    "{all: [{with: {type: a}}, {with: {type: b, data: '${ .k == \"v\" }'}}]}",
];

proptest! {
    #[test]
    fn no_event_that_is_taken_is_missed_by_the_index(
        filter in 0..FILTERS.len(),
        kind in "[abc]",
        subject in "s[12]",
        n in prop_oneof![Just(json!(3)), Just(json!(3.0)), Just(json!(1)), Just(json!("x")), Just(Value::Null)],
        k in prop_oneof![Just(json!("v")), Just(json!(null))],
    ) {
        let workflow = workflow(FILTERS[filter]);
        let to = &listen(&workflow).to;
        let mut collector = Collector::new(to, |t| t.evaluate(&Value::Null, &Vars::new())).unwrap();
        let event = event(&kind, &subject, &json!({"n": n, "k": k}));
        let is_found = collector.watches(to).iter().any(|watch| {
            answers(watch, &event).is_some_and(|found| {
                let found: Vec<_> = found.iter().map(canonical).collect();
                found == watch.values.iter().map(canonical).collect::<Vec<_>>()
            })
        });
        let is_taken = collector.take(to, &event, &evaluate) != Verdict::Ignored;
        prop_assert!(is_found || !is_taken);
    }
}

#[test]
fn filters_of_one_form_have_one_shape() {
    let shape = |value: &str| {
        let workflow = workflow(&format!(
            "{{one: {{with: {{type: a, subject: {value}}}, correlate: {{x: {{from: .data.n, expect: {value}}}}}}}}}"
        ));
        let to = &listen(&workflow).to;
        let collector = Collector::new(to, |t| t.evaluate(&Value::Null, &Vars::new())).unwrap();
        collector.watches(to).remove(0)
    };
    assert_eq!(shape("one").shape, shape("two").shape);
    assert_ne!(shape("one").values, shape("two").values);
}
