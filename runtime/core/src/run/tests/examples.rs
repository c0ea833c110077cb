//! The examples of the specification, where they are at hand: each that compiles is run, with calls
//! that are answered by what such services answer.

use std::path::Path;

use super::*;

/// What the other workflow of `run-subflow.yaml` is.
const OTHER: &str = "document: {dsl: '1.0.3', namespace: test, name: register-customer, version: '0.1.0'}\ndo: [{a: {set: {ok: true}}}]\n";
/// More turns than any example takes.
const TURNS_MAX: usize = 1_000;

/// The examples that end with an error, by its status; all others complete.
/// Nobody publishes the readings that one of them waits for.
const FAULTED: [(&str, u16); 3] = [
    ("raise-inline.yaml", 500),
    ("raise-reusable.yaml", 500),
    ("accumulate-room-readings.yaml", 408),
];

fn binds(workflow: &Workflow) -> Bindings {
    let mut bindings = Bindings::default();
    for (_, connection, action) in workflow.calls() {
        let effect = match action.as_str() {
            "get" | "operation" | "read" => Repeat::Read,
            "put" => Repeat::Idempotent,
            _ => Repeat::Once,
        };
        let binding = bindings.connections.entry(connection).or_default();
        let bound = ActionBinding {
            effect,
            lookup: false,
        };
        binding.actions.insert(action, bound);
    }
    bindings
}

#[expect(clippy::unnecessary_wraps, reason = "an answer is a result")]
/// What a service would answer: to a search for an operation a request, else a pet.
fn answer(attempt: &Attempt) -> Result<Value, Failure> {
    if attempt.action == "operation" {
        let endpoint = "https://petstore.swagger.io/v2/pet/findByStatus?status=available";
        return Ok(json!({"method": "get", "endpoint": endpoint}));
    }
    Ok(
        json!({"id": 1, "name": "Rex", "status": "available", "homeworld": "https://swapi.dev/api/planets/1/",
        "content": {"homeworld": "https://swapi.dev/api/planets/1/"}}),
    )
}

/// Runs a workflow to its end; the calls that it made.
fn run(name: &str, workflow: Workflow, input: &Value) -> (Run, Vec<Attempt>) {
    let bindings = Arc::new(binds(&workflow));
    let mut run = Run::new("run-1", Arc::new(workflow), bindings);
    let mut now_ms = 1_000;
    let mut calls = Vec::new();
    let begin = Event::Begun {
        input: input.clone(),
    };
    let mut effects = run.step(begin, now_ms).unwrap();
    for _ in 0..TURNS_MAX {
        if run.outcome().is_some() {
            return (run, calls);
        }
        let listens = |report: &TaskReport| report.waits_for == Some(WaitsFor::Event);
        if effects.is_empty() && run.next_due_ms().is_none() && run.reports().any(listens) {
            // Nobody publishes here; `listen` has tests of its own.
            return (run, calls);
        }
        if effects.is_empty() {
            now_ms = run
                .next_due_ms()
                .unwrap_or_else(|| panic!("{name} waits for ever"));
            effects = run.step(Event::Tick, now_ms).unwrap();
            continue;
        }
        let Effect::Attempt(attempt) = effects.remove(0) else {
            continue;
        };
        let ticket = attempt.ticket;
        let started = Event::Started {
            ticket,
            digest: "d".into(),
        };
        effects.extend(run.step(started, now_ms).unwrap());
        let ended = match answer(&attempt) {
            Ok(output) => Event::Succeeded { ticket, output },
            Err(failure) => Event::Failed {
                ticket,
                failure,
                draw: 0,
            },
        };
        effects.extend(run.step(ended, now_ms).unwrap());
        calls.push(attempt);
    }
    panic!("{name} does not end");
}

#[test]
fn each_example_of_the_specification_that_compiles_is_run() {
    let folder =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/openworkflow/examples");
    let Ok(files) = std::fs::read_dir(folder) else {
        return;
    };
    let input = json!({
        "id": 1, "petId": 1, "customer": {"age": 40}, "token": "t", "user": {"name": "Ada"}, "searchQuery": "luke", "orderType": "electronic",
        "pets": [{"id": 1}], "shape": "circle", "size": {"width": 6, "height": 6},
    });
    let mut wrong = Vec::new();
    for file in files.flatten() {
        let name = file.file_name().to_string_lossy().into_owned();
        let text = std::fs::read_to_string(file.path()).unwrap_or_default();
        let source = |text: &str| Source {
            origin: name.clone(),
            text: text.to_owned(),
        };
        let sources = Sources {
            main: source(&text),
            others: [("test/register-customer:0.1.0".to_owned(), source(OTHER))].into(),
        };
        let Ok(workflow) = crate::dsl::compile(&sources) else {
            continue;
        };
        let expected = FAULTED
            .iter()
            .find(|(n, _)| *n == name)
            .map(|(_, status)| *status);
        let (run, calls) = run(&name, workflow, &input);
        let found = match run.outcome() {
            Some(Outcome::Faulted { error, .. }) => Some(error.status),
            _ => None,
        };
        if found != expected {
            wrong.push(format!(
                "{name}: {:?} after {} calls\n",
                run.outcome(),
                calls.len()
            ));
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.concat());
}
