//! Secrets, extensions, OpenAPI, `catch.then`, runs of their own, and what expressions know.

use super::*;

/// A run of a whole document.
fn whole(text: &str, input: Value) -> Play {
    let run = Run::new("run-1", compile(text), Arc::new(bindings()));
    let mut play = Play {
        run,
        now_ms: 1_000,
        effects: Vec::new(),
        calls: Vec::new(),
    };
    play.tell(Event::Begun { input });
    play
}

const HEAD: &str = "document: {dsl: \"1.0.3\", namespace: t, name: t, version: \"1.0.0\"}\n";

#[test]
fn a_secret_is_a_placeholder_that_the_attempt_explains() {
    let text = format!(
        "{HEAD}use: {{secrets: [TOKEN, OTHER]}}\ninput: {{from: '. + {{t: $secret.TOKEN}}'}}\ndo:\n  - a: {{call: crm.get, with: {{t: '${{ .t }}', all: '${{ $secrets }}'}}}}\n  - b: {{input: {{from: '{{u: $secrets.OTHER}}'}}, call: chat.post, with: {{u: '${{ .u }}'}}}}\n"
    );
    let play = whole(&text, json!({})).answer(echo);
    let names: Vec<_> = play.calls[0].secrets.values().map(String::as_str).collect();
    assert_eq!(names.len(), 2);
    let of = |name: &str| {
        let secrets = &play.calls[0].secrets;
        let found = secrets.iter().find(|(_, n)| *n == name);
        found.map(|(token, _)| token.clone()).unwrap()
    };
    assert!(of("TOKEN").starts_with("cofferdam-secret-"));
    let expected = json!({"t": of("TOKEN"), "all": {"TOKEN": of("TOKEN"), "OTHER": of("OTHER")}});
    assert_eq!(*play.calls[0].input, expected);
    assert_eq!(*play.calls[1].input, json!({"u": of("OTHER")}));
    // Another run of the same workflow has other placeholders.
    let other = Run::new("run-2", compile(&text), Arc::new(bindings()));
    assert!(!other.secrets.contains_key(&of("TOKEN")));
}

#[test]
fn a_caught_error_leads_where_the_catch_says() {
    let tasks = |then: &str, body: &str| {
        format!(
            "  - a:\n      try: [{{b: {{call: crm.get, with: {{}}}}}}]\n      catch: {{{body}then: {then}}}\n  - c: {{set: {{went: on}}, then: end}}\n  - d: {{set: {{went: there}}}}\n"
        )
    };
    for (then, body, expected) in [
        ("d", "", json!({"went": "there"})),
        ("d", "do: [{x: {set: {x: 1}}}], ", json!({"went": "there"})),
        ("continue", "", json!({"went": "on"})),
        ("end", "do: [{x: {set: {x: 1}}}], ", json!({"x": 1})),
        ("exit", "do: [{x: {set: {x: 2}}}], ", json!({"x": 2})),
    ] {
        let play = Play::of(&tasks(then, body), json!({"n": 1})).answer(refused);
        assert_eq!(play.output(), expected, "{then}");
    }
    // Without an error the flow is the task's own.
    let play = Play::of(&tasks("d", ""), json!({})).answer(echo);
    assert_eq!(play.output(), json!({"went": "on"}));
}

fn extended(extension: &str, tasks: &str) -> String {
    format!("{HEAD}use:\n  extensions:\n    - log: {extension}\ndo:\n{tasks}")
}

#[test]
fn an_extension_sees_the_task_and_leaves_its_data_alone() {
    let text = extended(
        "{extend: set, before: [{b: {call: crm.get, with: {seen: '${ $task.reference }', set: '${ $task.set }', in: '${ . }'}}}], after: [{c: {call: crm.get, with: {made: '${ . }', name: '${ $task.name }'}}}]}",
        "  - one: {set: {x: '${ .n + 1 }'}}\n  - two: {wait: PT0S}\n  - three: {set: {y: '${ .x * 2 }'}, if: .x > 100}\n",
    );
    let play = whole(&text, json!({"n": 1})).answer(|_| Ok(json!("of the log")));
    let play = play.at(1_000);
    assert_eq!(play.output(), json!({"x": 2}));
    let seen: Vec<_> = play
        .calls
        .iter()
        .map(|call| (*call.input).clone())
        .collect();
    assert_eq!(
        seen,
        [
            json!({"seen": "/do/0/one", "set": {"x": "${ .n + 1 }"}, "in": {"n": 1}}),
            json!({"made": {"x": 2}, "name": "one"}),
        ],
        "a task that is passed over is not extended"
    );
}

#[test]
fn an_extension_may_stand_in_for_the_task() {
    let mock = |when: &str| {
        extended(
            &format!(
                "{{extend: call, when: '{when}', before: [{{mock: {{set: {{~exit: mocked}}, then: exit}}}}], after: [{{c: {{set: {{never: shown}}}}}}]}}"
            ),
            "  - a: {call: crm.get, with: {id: 7}}\n  - b: {set: {got: '${ . }'}}\n",
        )
    };
    let held = whole(&mock("$task.with.id == 7 and .n == 1"), json!({"n": 1})).answer(echo);
    assert!(held.calls.is_empty());
    assert_eq!(held.output(), json!({"got": {"~exit": "mocked"}}));
    for when in [
        "$task.with.id == 8",
        "$task.with.id | startswith(\"a\")",
        ".n == 2",
    ] {
        let play = whole(&mock(when), json!({"n": 1})).answer(echo);
        assert_eq!(play.called(), ["crm.get"], "{when}");
        assert_eq!(play.output(), json!({"got": {"id": 7}}), "{when}");
    }
}

#[test]
fn what_comes_before_and_does_not_exit_leads_on_to_the_task() {
    let text = extended(
        "{extend: call, before: [{look: {switch: [{mine: {when: .n == 1, then: exit}}, {not: {then: continue}}]}}, {b: {set: {lost: true}}}]}",
        "  - a: {call: crm.get, with: {in: '${ . }'}}\n",
    );
    let play = whole(&text, json!({"n": 2})).answer(echo);
    assert_eq!(play.output(), json!({"in": {"n": 2}}));
    let play = whole(&text, json!({"n": 1})).answer(echo);
    assert!(play.calls.is_empty());
    assert_eq!(play.output(), json!({"n": 1}));
}

#[test]
fn extensions_stand_around_each_other_and_then_is_the_tasks_own() {
    let text = format!(
        "{HEAD}use:\n  extensions:\n    - outer: {{extend: all, before: [{{b: {{call: crm.get, with: {{at: outer}}}}}}], after: [{{a: {{call: crm.get, with: {{at: outer after}}}}}}]}}\n    - inner: {{extend: set, before: [{{b: {{call: crm.get, with: {{at: inner}}}}}}], after: [{{a: {{call: crm.get, with: {{at: inner after}}}}}}]}}\ndo:\n  - one: {{set: {{x: 1}}, then: three}}\n  - two: {{set: {{x: 2}}}}\n  - three: {{switch: [{{d: {{then: end}}}}]}}\n"
    );
    let play = whole(&text, json!({})).answer(echo);
    let at: Vec<_> = play
        .calls
        .iter()
        .map(|c| c.input["at"].as_str().unwrap())
        .collect();
    assert_eq!(at, ["outer", "inner", "inner after", "outer after"]);
    assert_eq!(play.output(), json!({"x": 1}));
}

#[test]
fn an_openapi_call_finds_the_operation_and_makes_the_request() {
    let text = format!(
        "{HEAD}do:\n  - a: {{call: openapi, with: {{document: {{endpoint: 'https://x.example/api.json'}}, operationId: add, parameters: {{n: '${{ .n }}'}}}}}}\n"
    );
    let request = json!({"method": "post", "endpoint": "https://x.example/add"});
    let play = whole(&text, json!({"n": 1})).answer(|attempt| match attempt.action.as_str() {
        "operation" => Ok(request.clone()),
        _ => Ok(json!({"added": true})),
    });
    assert_eq!(play.called(), ["http.operation", "http.send"]);
    assert_eq!(play.calls[0].input["parameters"], json!({"n": 1}));
    assert_eq!(play.calls[0].effect, Repeat::Read);
    assert_eq!(*play.calls[1].input, request);
    assert_eq!(play.calls[1].effect, Repeat::Once);
    assert_eq!(play.output(), json!({"added": true}));
}

#[test]
fn a_workflow_that_is_not_awaited_becomes_a_run_of_its_own() {
    let source = |text: &str| Source {
        origin: "test.yaml".into(),
        text: text.into(),
    };
    let main = format!(
        "{HEAD}do:\n  - a: {{run: {{await: false, workflow: {{namespace: t, name: other, version: '1.0.0', input: {{x: '${{ .n }}'}}}}}}}}\n"
    );
    let other = "document: {dsl: '1.0.3', namespace: t, name: other, version: '1.0.0'}\ndo: [{a: {call: crm.get, with: {}}}]\n";
    let sources = Sources {
        main: source(&main),
        others: [("t/other:1.0.0".to_owned(), source(other))].into(),
    };
    let workflow = Arc::new(crate::dsl::compile(&sources).unwrap());
    let begun = || {
        let mut run = Run::new("run-1", Arc::clone(&workflow), Arc::new(bindings()));
        let begin = Event::Begun {
            input: json!({"n": 5}),
        };
        let effects = run.step(begin, 1_000).unwrap();
        (run, effects)
    };
    let (run, effects) = begun();
    let Some(Effect::Begin {
        run: id,
        workflow: name,
        input,
        ..
    }) = effects.first()
    else {
        panic!("{effects:?}");
    };
    assert_eq!((name.as_str(), input), ("t/other:1.0.0", &json!({"x": 5})));
    assert!(id.starts_with("run-1."));
    assert_eq!(effects.last(), Some(&Effect::Finished));
    let Some(Outcome::Completed { output }) = run.outcome() else {
        panic!()
    };
    assert_eq!(**output, json!({"n": 5}), "the task's output is its input");
    assert_eq!(begun().1, effects, "the same id whenever it is asked for");
}

#[test]
fn expressions_know_the_definition_and_how_a_call_is_authorized() {
    let text = format!(
        "{HEAD}use: {{secrets: [T]}}\ndo:\n  - a: {{set: {{word: '${{ $task.definition | keys[0] }}', first: '${{ $workflow.definition.do[0] | keys[0] }}', name: '${{ $runtime.name }}'}}}}\n  - b:\n      call: http\n      with: {{method: get, endpoint: {{uri: 'https://x.example/', authentication: {{bearer: {{use: T}}}}}}, headers: {{x-scheme: '${{ $authorization.scheme }}'}}}}\n      output: {{as: '[., $authorization.scheme]'}}\n  - c: {{call: http, with: {{method: get, endpoint: 'https://x.example/', body: '${{ [$authorization, $input] }}'}}}}\n"
    );
    let mut first = None;
    let play = whole(&text, json!({})).answer(|attempt| {
        first.get_or_insert_with(|| attempt.clone());
        Ok(attempt.input["headers"].clone())
    });
    let set = play.calls[1].input["body"][1].clone();
    assert_eq!(set, json!([{"x-scheme": "Bearer"}, "Bearer"]));
    assert_eq!(play.calls[1].input["body"][0], Value::Null);
    let first = first.unwrap();
    let token = first.input["endpoint"]["authentication"]["bearer"]["token"]
        .as_str()
        .unwrap();
    assert_eq!(first.secrets.get(token).map(String::as_str), Some("T"));
    let words = Play::of(
        "  - a: {set: {word: '${ $task.definition | keys[0] }', first: '${ $workflow.definition.do[0] | keys[0] }', name: '${ $runtime.name }'}}\n",
        json!({}),
    );
    assert_eq!(
        words.output(),
        json!({"word": "set", "first": "a", "name": "cofferdam"})
    );
}

#[test]
fn data_cannot_say_how_a_request_is_authorized() {
    let tasks = "  - a: {call: http, with: {method: get, endpoint: '${ .at }'}}\n";
    let play = Play::of(tasks, json!({"at": "https://x.example/"})).answer(echo);
    assert_eq!(play.calls[0].input["endpoint"], "https://x.example/");
    let sly = json!({"uri": "https://x.example/", "authentication": {"oauth2": {"use": "crm"}}});
    let play = Play::of(tasks, json!({ "at": sly })).answer(echo);
    assert!(play.calls.is_empty());
    assert!(
        play.error().r#type.ends_with("/expression"),
        "{}",
        play.error()
    );
}

#[test]
fn the_context_is_checked_also_where_nothing_is_exported() {
    let tasks = "  - a: {set: {x: 1}, export: {as: '{x: .x}'}}\n  - b: {set: {y: 1}, export: {schema: {document: {required: [y]}}}}\n";
    let error = Play::of(tasks, json!({})).error();
    assert_eq!(error.status, 400);
    assert_eq!(error.instance.as_deref(), Some("/do/1/b"));
    assert!(error.r#type.ends_with("/validation"), "{error}");
}
