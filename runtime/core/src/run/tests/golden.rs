//! Journals of the past, and what they fold to. Each line of a journal has an event and what the
//! machine wanted done after it; the files never change. One that fails says that a run which began
//! with an older program would wake up in a state that never was.

use super::*;

/// One record of a journal, with what followed from it.
#[derive(serde::Deserialize)]
struct Line {
    at: u64,
    event: Event,
    wants: Vec<String>,
}

/// What an effect asks for, in a line.
fn brief(effect: &Effect) -> String {
    match effect {
        Effect::Attempt(a) => format!(
            "attempt {} of {}: {}.{} with {}, key {}",
            a.ticket, a.task, a.connection, a.action, a.input, a.key
        ),
        Effect::Lookup { ticket, task, .. } => format!("lookup {ticket} of {task}"),
        Effect::Park { task, connection } => format!("park {task} on {connection}"),
        Effect::Review { task, failure, .. } => format!("review {task}: {}", failure.code),
        Effect::Emit { task, event } => format!("emit by {task}: {}", event["type"]),
        Effect::Listen { task, .. } => format!("listen {task}"),
        Effect::Hear { task } => format!("hear {task}"),
        Effect::ListenClosed { task, .. } => format!("listen no more {task}"),
        Effect::Finished => "finished".into(),
        other => format!("{other:?}"),
    }
}

fn pinned(semantics: u32) -> Bindings {
    let mut bindings = bindings();
    bindings.semantics = semantics;
    if let Some(crm) = bindings.connections.get_mut("crm") {
        crm.backups = vec!["crm-eu".into()];
    }
    // As it is in the store.
    let text = serde_json::to_string(&bindings).unwrap();
    assert_eq!(text.contains("semantics"), semantics > 1);
    serde_json::from_str(&text).unwrap()
}

fn folded(semantics: u32, workflow: &str, journal: &str) -> Run {
    let bindings = Arc::new(pinned(semantics));
    let mut run = Run::new("run-1", compile(workflow), bindings);
    for (n, line) in journal.lines().enumerate() {
        let line: Line = serde_json::from_str(line).unwrap_or_else(|e| panic!("line {n}: {e}"));
        let name = line.event.name();
        let effects = run
            .step(line.event, line.at)
            .unwrap_or_else(|e| panic!("line {n}: {e}"));
        let wants: Vec<_> = effects.iter().map(brief).collect();
        assert_eq!(wants, line.wants, "line {}, {name}", n + 1);
    }
    run
}

#[test]
fn a_journal_of_the_first_semantics_folds_to_what_it_meant() {
    let run = folded(
        1,
        include_str!("golden/semantics-1.yaml"),
        include_str!("golden/semantics-1.jsonl"),
    );
    let reports: Vec<_> = run.reports().collect();
    let folded = serde_json::to_value(&reports).unwrap();
    let meant: Value = serde_json::from_str(include_str!("golden/semantics-1.state.json")).unwrap();
    assert_eq!(folded, meant, "{folded:#}");
    assert_eq!(run.status(), Status::Faulted);
}

#[test]
fn the_same_workflow_does_otherwise_by_the_rules_of_today() {
    let workflow = compile(include_str!("golden/semantics-1.yaml"));
    let begun = |input: Value| {
        let mut run = Run::new("run-1", Arc::clone(&workflow), Arc::new(bindings()));
        let effects = run.step(Event::Begun { input }, 1_000).unwrap();
        (run, effects)
    };
    let (run, _) = begun(json!({"endpoint": {"uri": "https://example.com/"}}));
    let Some(Outcome::Faulted { error, .. }) = run.outcome() else {
        panic!("data says how a request is made")
    };
    assert!(error.to_string().contains("an endpoint is text"), "{error}");

    let (mut run, effects) = begun(json!({"endpoint": "https://example.com/"}));
    let [Effect::Attempt(attempt)] = effects.as_slice() else {
        panic!("{effects:?}")
    };
    let (ticket, digest) = (attempt.ticket, "d".to_owned());
    run.step(Event::Started { ticket, digest }, 1_000).unwrap();
    let output = json!({});
    run.step(Event::Succeeded { ticket, output }, 1_000)
        .unwrap();
    let Some(Outcome::Faulted { error, .. }) = run.outcome() else {
        panic!("an export breaks its schema")
    };
    assert_eq!(error.instance.as_deref(), Some("/do/1/shape"));
}

#[test]
fn a_journal_of_the_second_semantics_folds_to_what_it_meant() {
    let workflow = include_str!("golden/semantics-2.yaml");
    let run = folded(2, workflow, include_str!("golden/semantics-2.jsonl"));
    let reports: Vec<_> = run.reports().collect();
    let folded = serde_json::to_value(&reports).unwrap();
    let meant: Value = serde_json::from_str(include_str!("golden/semantics-2.state.json")).unwrap();
    assert_eq!(folded, meant, "{folded:#}");
    assert_eq!(run.status(), Status::Completed);
}

#[test]
fn by_the_rules_of_today_a_lost_attempt_gives_no_attempt_away() {
    let workflow = compile(include_str!("golden/semantics-2.yaml"));
    let mut run = Run::new("run-1", workflow, Arc::new(bindings()));
    let journal = include_str!("golden/semantics-2.jsonl");
    let lost = journal.lines().map_while(|line| {
        let line: Line = serde_json::from_str(line).unwrap();
        let is_over = line.wants == ["attempt 3 of /look: crm.get with {}, key run-1/look"];
        let effects = run.step(line.event, line.at).unwrap();
        (!is_over).then_some(effects)
    });
    assert!(lost.last().is_some());
    let wants: Vec<_> = run.outstanding().iter().map(brief).collect();
    assert_eq!(wants, ["park /look on crm"]);
}
