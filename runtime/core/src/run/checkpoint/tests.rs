//! Checkpoints; see also [`super::check`], which looks at every step of every test.

use std::sync::Arc;

use serde_json::{Value, json};

use super::check::read_back;
use super::{Checkpoint, Error};
use crate::call::Decision;
use crate::descriptor::Effect as Repeat;
use crate::failure::{Class, EffectState, Failure};
use crate::run::tests::{bindings, compile};
use crate::run::{Attempt, Bindings, Effect, Event, Illegal, Run};

const HEAD: &str = "document: {dsl: \"1.0.3\", namespace: t, name: t, version: \"1.0.0\"}\ndo:\n";

fn run_of(tasks: &str) -> Run {
    run_by(bindings(), tasks)
}

fn run_by(bindings: Bindings, tasks: &str) -> Run {
    let workflow = compile(&format!("{HEAD}{tasks}"));
    Run::new("run-1", workflow, Arc::new(bindings))
}

/// Events at instants that are a second apart.
struct Teller {
    run: Run,
    now_ms: u64,
    effects: Vec<Effect>,
}

impl Teller {
    fn begin(run: Run, input: Value) -> Self {
        let mut teller = Self {
            run,
            now_ms: 0,
            effects: Vec::new(),
        };
        teller.tell(Event::Begun { input });
        teller
    }

    fn tell(&mut self, event: Event) {
        self.now_ms += 1_000;
        let effects = self.run.step(event, self.now_ms).unwrap();
        self.effects.extend(effects);
    }

    /// The next attempt that is asked for begins.
    fn start(&mut self) -> Attempt {
        let is_attempt = |effect: &Effect| matches!(effect, Effect::Attempt(_));
        let at = self.effects.iter().position(is_attempt).unwrap();
        let Effect::Attempt(attempt) = self.effects.remove(at) else {
            unreachable!()
        };
        let (ticket, digest) = (attempt.ticket, "d".to_owned());
        self.tell(Event::Started { ticket, digest });
        attempt
    }

    fn succeed(&mut self, output: Value) {
        let ticket = self.start().ticket;
        self.tell(Event::Succeeded { ticket, output });
    }

    fn fail(&mut self, class: Class, effect: EffectState) {
        let ticket = self.start().ticket;
        let failure = Failure::new(class, "code", "why").with_effect(effect);
        let draw = 7;
        self.tell(Event::Failed {
            ticket,
            failure,
            draw,
        });
    }

    fn hear(&mut self, task: &str, seq: u64) {
        let event = json!({"specversion": "1.0", "id": "1", "source": "/s", "type": "t", "data": {"n": seq}});
        let event = crate::cloud_event::CloudEvent::new(event).unwrap();
        let task = task.to_owned();
        self.tell(Event::Heard { task, seq, event });
    }
}

/// A frame of every kind, an undoing, a fallback, and an effect that nobody knows the end of.
fn rich() -> Run {
    rich_by(bindings())
}

fn rich_by(bindings: Bindings) -> Run {
    let tasks = r#"
  - kept: {call: crm.upsert, with: {n: 1.5}, export: {as: "${ {seen: .} }"}, metadata: {cofferdam: {compensate: {call: archive, with: {}}}}}
  - side:
      fork:
        branches:
          - nap: {wait: {hours: 1}}
          - heard: {listen: {to: {any: [{with: {type: t}}], until: false}}, foreach: {do: [{note: {call: chat.post, with: {}}}]}}
          - each:
              for: {each: item, in: "${ [1, 2, 3] }"}
              metadata: {cofferdam: {maxConcurrency: 2}}
              do: [{get: {call: crm.get, with: {item: "${ $item }"}, metadata: {cofferdam: {hedge: PT1S}}}}]
          - tried:
              try: [{go: {call: pay.charge, with: {}, timeout: {after: {hours: 2}}}}]
              catch: {retry: {delay: PT10S}}
          - stands: {call: mail.send, with: {}, metadata: {cofferdam: {onOutage: fallback, onUnknown: review, fallback: [{call: crm-eu.get}]}}}
          - asked: {call: chat.post, with: {}}
"#;
    let mut teller = Teller::begin(run_by(bindings, tasks).slim(), json!({"a": [null, 0.1]}));
    teller.succeed(json!({"id": 17, "of": 0.1 + 0.2}));
    teller.hear("/side/heard", 3);
    while teller
        .effects
        .iter()
        .any(|e| matches!(e, Effect::Attempt(_)))
    {
        let attempt = match &teller
            .effects
            .iter()
            .find(|e| matches!(e, Effect::Attempt(_)))
        {
            Some(Effect::Attempt(attempt)) => attempt.clone(),
            _ => unreachable!(),
        };
        match attempt.task.as_str() {
            "/side/each/[0]/get" => teller.succeed(json!({"n": 0})),
            "/side/tried/~try/go" | "/side/stands" => {
                teller.fail(Class::Refused, EffectState::None);
            }
            "/side/asked" => teller.fail(Class::Timeout, EffectState::Unknown),
            _ => drop(teller.start()),
        }
    }
    teller.run
}

#[test]
fn a_run_with_every_kind_of_frame_is_read_back_as_it_was() {
    let run = rich();
    let works = format!("{:?}", run.frames);
    for work in [
        "Block(", "Call(", "For(", "Fork(", "Try(", "Wait ", "Listen(",
    ] {
        assert!(works.contains(work), "{work}");
    }
    assert!(!run.undos.is_empty() && !run.in_flight.is_empty());
    assert_eq!(format!("{:?}", read_back(&run)), format!("{run:?}"));
}

#[test]
fn what_the_first_version_wrote_is_read() {
    let text = include_str!("tests/format-1.json");
    // The rules that it was written by.
    let mut run = rich_by(Bindings {
        semantics: 2,
        ..bindings()
    });
    let read = serde_json::from_str::<Checkpoint<'static>>(text);
    let read = read.unwrap_or_else(|error| {
        let today = serde_json::to_string(&run.save()).unwrap();
        panic!("{error}; this version writes {today}")
    });
    let restored = Run::restore("run-1", run.workflow.clone(), run.bindings.clone(), read);
    let restored = restored.unwrap();
    // When it looks for what it may forget is no part of the format.
    assert!(restored.is_slim() && run.is_slim());
    run.slim.clone_from(&restored.slim);
    assert_eq!(format!("{restored:?}"), format!("{run:?}"));
}

fn restored(run: &Run, change: impl FnOnce(&mut Value)) -> Result<Run, Error> {
    let mut saved = serde_json::to_value(run.save()).unwrap();
    change(&mut saved);
    let read: Checkpoint<'static> = serde_json::from_value(saved).unwrap();
    Run::restore("run-1", run.workflow.clone(), run.bindings.clone(), read)
}

#[test]
fn a_checkpoint_of_another_version_run_or_workflow_is_refused() {
    let run = rich();
    assert!(restored(&run, |_| {}).is_ok());
    let refused = |change: fn(&mut Value)| restored(&run, change).unwrap_err();
    assert_eq!(refused(|c| c["format"] = json!(2)), Error::Format(2));
    assert_eq!(refused(|c| c["run"] = json!("b")), Error::Run("b".into()));
    assert_eq!(refused(|c| c["values"] = json!([])), Error::Lacking);
    let misplaced: [fn(&mut Value); 7] = [
        |c| c["frames"]["/side"]["work"]["fork"]["outputs"] = json!([]),
        |c| c["frames"]["/side/asked"]["work"]["call"]["plan"]["connections"] = json!([]),
        |c| c["frames"]["/side"]["task"] = json!("/do/0/kept"),
        |c| c["frames"][""]["work"]["block"]["index"] = json!(9),
        |c| c["frames"][""]["work"]["block"]["visits"] = json!([1]),
        |c| c["frames"]["/side/each/[1]"]["slot"] = json!("tried"),
        |c| c["undos"][0]["taskKey"] = json!("/side/nap"),
    ];
    for change in misplaced {
        assert!(matches!(refused(change), Error::Place { .. }));
    }
}

#[test]
fn what_a_call_has_asked_about_is_what_the_ledger_knows_unless_it_is_written() {
    let run = rich();
    let asked = restored(&run, |c| {
        let call = &mut c["frames"]["/side/asked"]["work"]["call"];
        let written = call.as_object_mut().unwrap().remove("askedAfter");
        assert_eq!(written, Some(json!(1)));
    });
    assert_eq!(format!("{:?}", asked.unwrap()), format!("{run:?}"));
}

#[test]
fn an_undoing_is_found_whatever_its_task_is_called_and_wherever_it_is() {
    let undo = "metadata: {cofferdam: {compensate: {call: archive, with: {}}}}";
    let call = format!("{{call: crm.upsert, with: {{}}, {undo}}}");
    let tasks = format!(
        "  - a/b~c: {{do: [{{x: {call}}}, {{'x#2': {call}}}]}}\n  \
         - t: {{try: [{{y: {{raise: {{error: {{type: 'https://e.com/x', status: 500}}}}}}}}], catch: {{do: [{{x: {call}}}]}}}}\n  \
         - f: {{for: {{each: i, in: '${{ [1] }}'}}, do: [{{x: {call}}}]}}\n  \
         - r: {{fork: {{branches: [{{x: {call}}}]}}}}\n  \
         - b: {{call: crm.get, with: {{}}, metadata: {{cofferdam: {{onOutage: fallback, fallback: [{{call: crm.upsert, compensate: {{call: archive, with: {{}}}}}}]}}}}}}\n  \
         - w: {{wait: {{hours: 1}}}}\n"
    );
    let mut teller = Teller::begin(run_of(&tasks), json!({}));
    for _ in 0..5 {
        teller.succeed(json!({}));
    }
    teller.fail(Class::Refused, EffectState::None);
    teller.succeed(json!({}));
    assert_eq!(teller.run.undos.len(), 6);
    let cancelled = Event::Cancelled {
        reason: None,
        compensate: true,
    };
    let mut again = read_back(&teller.run);
    let effects = again.step(cancelled.clone(), 90_000).unwrap();
    assert_eq!(effects, teller.run.step(cancelled, 90_000).unwrap());
}

#[test]
fn a_value_that_many_have_is_written_once() {
    let tasks = "  - each: {for: {each: n, in: '${ [range(500)] }'}, metadata: {cofferdam: {maxConcurrency: 500}}, do: [{get: {call: crm.get, with: {}}}]}\n";
    let large = "x".repeat(100_000);
    let run = Teller::begin(run_of(tasks), json!({ "large": large })).run;
    let bytes = serde_json::to_vec(&run.save()).unwrap().len();
    assert!(bytes < 1_500_000, "{bytes}");
    let again = read_back(&run);
    let inputs = again.frames.values().map(|f| Arc::as_ptr(&f.raw_input));
    let distinct: std::collections::BTreeSet<_> = inputs.collect();
    assert!(distinct.len() < 10, "they share it as before");
}

#[test]
fn numbers_nulls_and_deep_values_come_back() {
    let deep = (0..crate::depth::DEPTH_MAX).fold(json!(1), |inner, _| json!([inner]));
    let tasks = "  - a: {call: crm.get, with: {}, export: {as: '${ . }'}, metadata: {cofferdam: {validate: ['${ . != null }']}}}\n";
    for output in [json!(0.1 + 0.2), json!(1e-7 / 3.0), json!(-0.0), deep] {
        let mut teller = Teller::begin(
            run_of(&format!("{tasks}  - w: {{wait: {{hours: 1}}}}\n")),
            json!({}),
        );
        teller.succeed(output);
        assert_eq!(
            format!("{:?}", read_back(&teller.run)),
            format!("{:?}", teller.run)
        );
    }
    let mut teller = Teller::begin(run_of(tasks), json!({}));
    teller.succeed(json!(null));
    let accept = Event::Decided {
        task: "/a".into(),
        decision: Decision::Accept,
    };
    let mut again = read_back(&teller.run);
    assert!(
        again.step(accept, 9_000).is_ok(),
        "null is what a person looks at"
    );
}

/// Reports, effects, instants and bytes that the run keeps.
fn kept(run: &Run) -> [usize; 4] {
    let bytes = serde_json::to_vec(&run.save()).unwrap().len();
    [run.reports.len(), run.ledger.len(), run.dues.len(), bytes]
}

const ROUNDS: u64 = 400;

/// What is kept after so many events, whose tasks are these.
fn after_events(each: &str, rounds: u64) -> [usize; 4] {
    let tasks = format!(
        "  - l: {{listen: {{to: {{any: [{{with: {{type: t}}}}], until: false}}}}, foreach: {{do: [{each}]}}, timeout: {{after: {{hours: 8}}}}}}\n"
    );
    let mut teller = Teller::begin(run_of(&tasks).slim(), json!({}));
    for seq in 1..=rounds {
        teller.hear("/l", seq);
        while teller
            .effects
            .iter()
            .any(|e| matches!(e, Effect::Attempt(_)))
        {
            teller.succeed(json!({}));
        }
        teller.effects.clear();
    }
    kept(&teller.run)
}

#[test]
fn a_run_that_listens_for_ever_keeps_no_more_after_many_events_than_after_some() {
    let each = "{a: {call: chat.post, with: {}, timeout: {after: {hours: 9}}}}, {b: {call: crm.upsert, with: {}, metadata: {cofferdam: {fallback: [{call: crm-eu.upsert}]}}}}";
    let few = after_events(each, ROUNDS / 2);
    let many = after_events(each, ROUNDS);
    assert!(many[0] <= 20 && many[1] <= 2 && many[2] <= 4, "{many:?}");
    assert!(many[3] < few[3] * 2, "{few:?} {many:?}");
}

#[test]
fn a_loop_that_goes_back_for_ever_keeps_no_more_after_many_rounds() {
    let tasks = "  - a: {call: crm.upsert, with: {}}\n  - b: {wait: {seconds: 1}, then: a}\n";
    let mut teller = Teller::begin(run_of(tasks).slim(), json!({}));
    for _ in 0..ROUNDS {
        teller.succeed(json!({}));
        teller.tell(Event::Tick);
    }
    let kept = kept(&teller.run);
    assert!(kept[0] <= 20 && kept[1] <= 2, "{kept:?}");
}

#[test]
fn what_may_be_asked_for_again_is_kept() {
    let own_key = "{a: {call: chat.post, with: {}, metadata: {cofferdam: {idempotencyKey: '${ $item.n | tostring }'}}}}";
    assert_eq!(after_events(own_key, 50)[1], 50);
    let undone = "{a: {call: crm.upsert, with: {}, metadata: {cofferdam: {compensate: {call: archive, with: {}}}}}}";
    assert_eq!(after_events(undone, 50)[1], 50);
    let tasks = "  - t: {try: [{l: {for: {each: n, in: '${ [range(50)] }'}, do: [{a: {call: crm.upsert, with: {}}}]}}, {w: {wait: {hours: 1}}}], catch: {retry: {delay: PT1S}}}\n";
    let mut teller = Teller::begin(run_of(tasks).slim(), json!({}));
    for _ in 0..50 {
        teller.succeed(json!({}));
    }
    assert_eq!(teller.run.ledger.len(), 50);
}

#[test]
fn an_effect_under_way_is_remembered_until_it_has_ended() {
    let each =
        "{t: {try: [{a: {call: pay.charge, with: {}, timeout: {after: PT0.5S}}}], catch: {}}}";
    let tasks = format!(
        "  - l: {{listen: {{to: {{any: [{{with: {{type: t}}}}], until: false}}}}, foreach: {{do: [{each}]}}}}\n"
    );
    let mut teller = Teller::begin(run_of(&tasks).slim(), json!({}));
    teller.hear("/l", 1);
    let late = teller.start();
    teller.tell(Event::Tick);
    assert_eq!(
        (teller.run.ledger.len(), teller.run.in_flight()),
        (1, vec![late.ticket])
    );
    let (ticket, output) = (late.ticket, json!({}));
    teller.tell(Event::Succeeded { ticket, output });
    for seq in 2..200 {
        teller.hear("/l", seq);
        teller.succeed(json!({}));
    }
    assert_eq!(teller.run.ledger.len(), 0);
    assert_eq!(late.effect, Repeat::Idempotent);
}

#[test]
fn a_run_that_forgets_is_not_redriven() {
    let tasks = "  - a: {raise: {error: {type: 'https://example.com/x', status: 500}}}\n";
    let mut run = Teller::begin(run_of(tasks).slim(), json!({})).run;
    let redriven = Event::Redriven {
        input: Some(Value::Null),
        taken: std::collections::BTreeMap::new(),
    };
    let written = serde_json::to_string(&redriven).unwrap();
    assert_eq!(serde_json::from_str::<Event>(&written).unwrap(), redriven);
    assert_eq!(run.step(redriven, 9_000), Err(Illegal::Slim));
}
