//! How whole workflows behave: data flow, control flow, policies, sagas.

mod control;
mod deferral;
mod effects;
mod exactness;
mod examples;
mod golden;
mod language;
mod listen;
mod patterns;
mod waits;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::{Value, json};

use super::*;
use crate::call::{Decision, Lookup};
use crate::descriptor::Effect as Repeat;
use crate::failure::{Class, Failure};
use crate::workflow::{Source, Sources};

/// Compiles a workflow text, or says what is wrong with it.
pub(super) fn compile(text: &str) -> Arc<Workflow> {
    let main = Source {
        origin: "test.yaml".into(),
        text: text.into(),
    };
    let sources = Sources {
        main,
        others: BTreeMap::new(),
    };
    Arc::new(crate::dsl::compile(&sources).unwrap_or_else(|errors| panic!("{errors}")))
}

fn binding(actions: &[(&str, Repeat, bool)]) -> Binding {
    let actions = actions
        .iter()
        .map(|(name, effect, lookup)| {
            (
                (*name).to_owned(),
                ActionBinding {
                    effect: *effect,
                    lookup: *lookup,
                },
            )
        })
        .collect();
    Binding {
        actions,
        ..Binding::default()
    }
}

/// A few connections with actions of every effect.
pub(super) fn bindings() -> Bindings {
    let crm = [
        ("upsert", Repeat::Idempotent, false),
        ("archive", Repeat::Idempotent, false),
        ("get", Repeat::Read, false),
    ];
    let connections = [
        ("crm", binding(&crm)),
        (
            "http",
            binding(&[
                ("get", Repeat::Read, false),
                ("put", Repeat::Idempotent, false),
                ("send", Repeat::Once, false),
                ("operation", Repeat::Read, false),
            ]),
        ),
        ("crm-eu", binding(&crm)),
        ("mail", binding(&[("send", Repeat::Once, true)])),
        ("chat", binding(&[("post", Repeat::Once, false)])),
        (
            "pay",
            binding(&[
                ("charge", Repeat::Idempotent, true),
                ("refund", Repeat::Idempotent, false),
            ]),
        ),
    ];
    Bindings {
        connections: connections.map(|(n, b)| (n.to_owned(), b)).into(),
        ..Bindings::default()
    }
}

/// A run that is driven by hand: calls are answered by a function.
struct Play {
    run: Run,
    now_ms: u64,
    effects: Vec<Effect>,
    calls: Vec<Attempt>,
}

impl Play {
    fn of(tasks: &str, input: Value) -> Self {
        Self::bound(bindings(), tasks, input)
    }

    fn with(bindings: Bindings, tasks: &str) -> Self {
        Self::bound(bindings, tasks, json!({}))
    }

    fn bound(bindings: Bindings, tasks: &str, input: Value) -> Self {
        let head = "document: {dsl: \"1.0.3\", namespace: t, name: t, version: \"1.0.0\"}\ndo:\n";
        let run = Run::new(
            "run-1",
            compile(&format!("{head}{tasks}")),
            Arc::new(bindings),
        );
        let mut play = Self {
            run,
            now_ms: 1_000,
            effects: Vec::new(),
            calls: Vec::new(),
        };
        play.tell(Event::Begun { input });
        play
    }

    fn tell(&mut self, event: Event) {
        let effects = self.run.step(event, self.now_ms).unwrap();
        self.effects.extend(effects);
    }

    /// Answers every attempt until none is left.
    fn answer(mut self, mut answer: impl FnMut(&Attempt) -> Result<Value, Failure>) -> Self {
        while let Some(index) = self
            .effects
            .iter()
            .position(|e| matches!(e, Effect::Attempt(_)))
        {
            let Effect::Attempt(attempt) = self.effects.remove(index) else {
                unreachable!()
            };
            let ticket = attempt.ticket;
            self.calls.push(attempt.clone());
            let Ok(more) = self.run.step(
                Event::Started {
                    ticket,
                    digest: "d".into(),
                },
                self.now_ms,
            ) else {
                continue; // withdrawn: something around the task has ended
            };
            self.effects.extend(more);
            match answer(&attempt) {
                Ok(output) => self.tell(Event::Succeeded { ticket, output }),
                Err(failure) => self.tell(Event::Failed {
                    ticket,
                    failure,
                    draw: 0,
                }),
            }
        }
        self
    }

    fn at(mut self, now_ms: u64) -> Self {
        self.now_ms = now_ms;
        self.tell(Event::Tick);
        self
    }

    fn output(&self) -> Value {
        match self.run.outcome() {
            Some(Outcome::Completed { output }) => (**output).clone(),
            other => panic!("{other:?}\n{:#?}", self.run.reports().collect::<Vec<_>>()),
        }
    }

    fn error(&self) -> WorkflowError {
        match self.run.outcome() {
            Some(Outcome::Faulted { error, .. }) => error.clone(),
            other => panic!("{other:?}"),
        }
    }

    fn called(&self) -> Vec<String> {
        self.calls
            .iter()
            .map(|a| format!("{}.{}", a.connection, a.action))
            .collect()
    }
}

#[expect(clippy::unnecessary_wraps, reason = "an answer is a result")]
fn echo(attempt: &Attempt) -> Result<Value, Failure> {
    Ok((*attempt.input).clone())
}

fn down(_: &Attempt) -> Result<Value, Failure> {
    Err(Failure::new(Class::Unavailable, "http.503", "down"))
}

fn refused(_: &Attempt) -> Result<Value, Failure> {
    Err(Failure::new(Class::Refused, "card_declined", "declined"))
}

#[test]
fn each_task_gets_the_output_of_the_one_before() {
    let play = Play::of(
        "  - a: {set: {x: \"${ .n + 1 }\"}}\n  - b: {set: {y: \"${ .x * 2 }\"}}\n",
        json!({"n": 1}),
    );
    assert_eq!(play.output(), json!({"y": 4}));
}

#[test]
fn exports_make_the_context_and_the_output_is_transformed_after_them() {
    let play = Play::of(
        "  - a: {set: {x: 1}, output: {as: \"${ .x }\"}, export: {as: \"${ {seen: .} }\"}}\n  - b: {set: {both: \"${ [$context.seen, .] }\"}}\n",
        json!({}),
    );
    assert_eq!(play.output(), json!({"both": [1, 1]}));
}

#[test]
fn a_task_whose_condition_does_not_hold_is_passed_over() {
    let play = Play::of(
        "  - a: {if: \"${ .n > 5 }\", set: {x: 1}}\n",
        json!({"n": 1}),
    );
    assert_eq!(play.output(), json!({"n": 1}));
    assert_eq!(
        play.run.reports().next().unwrap().status,
        TaskStatus::Skipped
    );
}

#[test]
fn a_switch_leads_to_the_first_case_that_holds() {
    let tasks = "  - pick:\n      switch:\n        - big: {when: \"${ .n > 5 }\", then: large}\n        - other: {then: small}\n  - small: {set: {size: s}, then: end}\n  - large: {set: {size: l}}\n";
    assert_eq!(
        Play::of(tasks, json!({"n": 9})).output(),
        json!({"size": "l"})
    );
    assert_eq!(
        Play::of(tasks, json!({"n": 1})).output(),
        json!({"size": "s"})
    );
}

#[test]
fn a_loop_one_after_the_other_hands_its_output_on() {
    let tasks = "  - sum:\n      for: {each: n, in: \"${ .items }\"}\n      do:\n        - add: {set: {items: \"${ .items }\", total: \"${ (.total // 0) + $n }\"}}\n";
    let play = Play::of(tasks, json!({"items": [1, 2, 3]}));
    assert_eq!(play.output()["total"], 6);
}

#[test]
fn a_loop_side_by_side_gives_all_outputs_in_order_and_tolerates_failures() {
    let tasks = "  - all:\n      for: {each: n, in: \"${ [1, 2, 3, 4] }\"}\n      metadata: {cofferdam: {maxConcurrency: 2, toleratedFailurePercent: 25}}\n      do:\n        - get: {call: crm.get, with: {n: \"${ $n }\"}}\n";
    let play = Play::of(tasks, json!({})).answer(|a| {
        if a.input["n"] == 2 {
            refused(a)
        } else {
            echo(a)
        }
    });
    assert_eq!(play.output(), json!([{"n": 1}, null, {"n": 3}, {"n": 4}]));
}

#[test]
fn a_loop_that_exceeds_its_tolerance_fails() {
    let tasks = "  - all:\n      for: {each: n, in: \"${ [1, 2] }\"}\n      metadata: {cofferdam: {maxConcurrency: 2, toleratedFailurePercent: 25}}\n      do:\n        - get: {call: crm.get, with: {}}\n";
    assert_eq!(
        Play::of(tasks, json!({})).answer(refused).error().status,
        422
    );
}

#[test]
fn a_fork_joins_its_branches_or_takes_the_first() {
    let branches = "        branches:\n          - a: {call: crm.get, with: {n: 1}}\n          - b: {call: crm.get, with: {n: 2}}\n";
    let all = Play::of(&format!("  - f:\n      fork:\n{branches}"), json!({})).answer(echo);
    assert_eq!(all.output(), json!([{"n": 1}, {"n": 2}]));
    let first = Play::of(
        &format!("  - f:\n      fork:\n        compete: true\n{branches}"),
        json!({}),
    )
    .answer(echo);
    assert_eq!(first.output(), json!({"n": 1}));
}

#[test]
fn a_caught_error_is_handled_with_the_error_in_scope() {
    let tasks = "  - t:\n      try:\n        - go: {call: pay.charge, with: {}}\n      catch:\n        errors: {with: {status: 422}}\n        as: problem\n        do:\n          - note: {set: {why: \"${ $problem.status }\"}}\n";
    assert_eq!(
        Play::of(tasks, json!({})).answer(refused).output(),
        json!({"why": 422})
    );
}

#[test]
fn an_error_of_another_kind_is_not_caught() {
    let tasks = "  - t:\n      try:\n        - go: {call: pay.charge, with: {}}\n      catch:\n        errors: {with: {status: 404}}\n        do:\n          - note: {set: {a: 1}}\n";
    assert_eq!(
        Play::of(tasks, json!({})).answer(refused).error().status,
        422
    );
}

#[test]
fn a_try_is_retried_with_its_backoff_and_then_handled() {
    let tasks = "  - t:\n      try:\n        - go: {raise: {error: {type: \"https://example.com/odd\", status: 500, title: Odd}}}\n      catch:\n        retry: {delay: PT1S, backoff: {constant: {}}, limit: {attempt: {count: 1}}}\n        do:\n          - note: {set: {handled: true}}\n";
    let play = Play::of(tasks, json!({}));
    assert_eq!(play.run.status(), Status::Waiting);
    let due_ms = play.run.next_due_ms().unwrap();
    assert_eq!(play.at(due_ms).output(), json!({"handled": true}));
}

#[test]
fn a_wait_holds_the_run_until_its_instant() {
    let play = Play::of("  - w: {wait: {hours: 1}}\n", json!({"a": 1}));
    assert_eq!(
        (play.run.is_idle(), play.run.next_due_ms()),
        (true, Some(3_601_000))
    );
    assert_eq!(play.at(3_601_000).output(), json!({"a": 1}));
}

#[test]
fn a_timeout_stops_what_is_inside_and_can_be_caught() {
    let tasks = "  - t:\n      try:\n        - slow: {wait: {hours: 1}, timeout: {after: {seconds: 5}}}\n      catch:\n        do:\n          - note: {set: {why: \"${ $error.status }\"}}\n";
    assert_eq!(
        Play::of(tasks, json!({})).at(6_000).output(),
        json!({"why": 408})
    );
}

#[test]
fn a_loop_of_tasks_that_wait_for_nothing_faults_instead_of_hanging() {
    let error = Play::of(
        "  - a: {set: {x: 1}, then: b}\n  - b: {set: {x: 2}, then: a}\n",
        json!({}),
    )
    .error();
    assert!(error.detail.unwrap().contains("without waiting"));
}

#[test]
fn an_outage_parks_the_task_and_recovery_lets_it_go_on() {
    let mut play = Play::of("  - c: {call: crm.upsert, with: {a: 1}}\n", json!({})).answer(down);
    for _ in 0..2 {
        let due_ms = play.run.next_due_ms().unwrap();
        play = play.at(due_ms).answer(down);
    }
    assert!(play.effects.contains(&Effect::Park {
        task: "/c".into(),
        connection: "crm".into()
    }));
    assert!(play.run.is_idle());
    play.tell(Event::Recovered { task: "/c".into() });
    let play = play.answer(echo);
    assert_eq!(play.output(), json!({"a": 1}));
    let keys: BTreeSet<_> = play.calls.iter().map(|a| a.key.clone()).collect();
    assert_eq!(keys.len(), 1, "every attempt of a task has the same key");
}

#[test]
fn a_task_that_is_not_critical_is_passed_over_and_the_run_is_degraded() {
    let tasks = "  - c: {call: chat.post, with: {}, metadata: {cofferdam: {critical: false, onOutage: fail}}}\n  - d: {set: {went: on}}\n";
    let play = Play::of(tasks, json!({})).answer(down);
    assert_eq!(play.output(), json!({"went": "on"}));
    assert!(play.run.is_degraded());
    assert_eq!(play.run.provenance()["/c"], Provenance::Skipped);
}

#[test]
fn fallbacks_are_used_in_order_and_told() {
    let tasks = "  - c:\n      call: crm.get\n      with: {}\n      metadata:\n        cofferdam:\n          onOutage: fallback\n          fallback: [{call: crm-eu.get}, {value: {default: true}}]\n";
    let backup = Play::of(tasks, json!({})).answer(|a| {
        if a.connection == "crm" {
            refused(a)
        } else {
            Ok(json!(7))
        }
    });
    assert_eq!(
        (backup.output(), backup.run.provenance()["/c"].to_string()),
        (json!(7), "backup:crm-eu".into())
    );
    let neither = Play::of(tasks, json!({})).answer(refused);
    assert_eq!(
        (neither.output(), neither.run.provenance()["/c"].clone()),
        (json!({"default": true}), Provenance::Default)
    );
}

#[test]
fn a_connection_that_is_out_is_replaced_by_its_failover() {
    let tasks = "  - c: {call: crm.get, with: {}, metadata: {cofferdam: {failover: [crm-eu], attempts: 1}}}\n";
    let play = Play::of(tasks, json!({})).answer(|a| {
        if a.connection == "crm" {
            down(a)
        } else {
            Ok(json!(1))
        }
    });
    assert_eq!(
        play.run.provenance()["/c"],
        Provenance::Backup("crm-eu".into())
    );
}

#[test]
fn a_fault_undoes_what_was_done_last_first() {
    let undo = |call: &str| {
        format!(
            "metadata: {{cofferdam: {{compensate: {{call: {call}, with: {{was: \"${{ $output.n }}\"}}}}}}}}"
        )
    };
    let tasks = format!(
        "  - a: {{call: crm.upsert, with: {{n: 1}}, {}}}\n  - b: {{call: pay.charge, with: {{n: 2}}, {}}}\n  - c: {{raise: {{error: {{type: \"https://example.com/x\", status: 500}}}}}}\n",
        undo("archive"),
        undo("refund"),
    );
    let play = Play::of(&tasks, json!({})).answer(echo);
    assert_eq!(
        play.called(),
        ["crm.upsert", "pay.charge", "pay.refund", "crm.archive"]
    );
    assert_eq!(*play.calls[2].input, json!({"was": 2}));
    assert_eq!(play.error().status, 500);
}

#[test]
fn what_certainly_did_not_happen_is_not_undone() {
    let tasks = "  - a: {call: pay.charge, with: {}, metadata: {cofferdam: {compensate: {call: refund, with: {}}}}}\n";
    assert_eq!(
        Play::of(tasks, json!({})).answer(refused).called(),
        ["pay.charge"]
    );
}

#[test]
fn an_undoing_that_fails_goes_to_review_and_does_not_stop_the_others() {
    let tasks = "  - a: {call: crm.upsert, with: {}, metadata: {cofferdam: {compensate: {call: archive, with: {}}}}}\n  - b: {call: pay.charge, with: {}, metadata: {cofferdam: {compensate: {call: refund, with: {}}}}}\n  - c: {raise: {error: {type: \"https://example.com/x\", status: 500}}}\n";
    let play = Play::of(tasks, json!({})).answer(|a| {
        if a.action == "refund" {
            refused(a)
        } else {
            echo(a)
        }
    });
    assert_eq!(
        play.called(),
        ["crm.upsert", "pay.charge", "pay.refund", "crm.archive"]
    );
    assert!(
        play.effects
            .iter()
            .any(|e| matches!(e, Effect::Review { task, .. } if task == "undo:/b"))
    );
    assert!(play.run.outcome().is_some());
}

#[test]
fn an_input_that_breaks_its_schema_faults_with_the_place() {
    let text = "document: {dsl: \"1.0.3\", namespace: t, name: t, version: \"1.0.0\"}\ninput: {schema: {document: {type: object, required: [email]}}}\ndo:\n  - a: {set: {x: 1}}\n";
    let mut run = Run::new("run-1", compile(text), Arc::default());
    let effects = run.step(Event::Begun { input: json!({}) }, 0).unwrap();
    assert_eq!(effects, [Effect::Finished]);
    let Some(Outcome::Faulted { error, dead_letter }) = run.outcome() else {
        panic!()
    };
    assert!(
        *dead_letter && error.detail.as_deref().unwrap().contains("email"),
        "{error:?}"
    );
}

#[test]
fn folding_the_journal_gives_the_same_run() {
    let tasks = "  - a: {call: crm.upsert, with: {n: 1}}\n  - w: {wait: {seconds: 5}}\n  - b: {call: pay.charge, with: {n: 2}}\n";
    let play = Play::of(tasks, json!({})).answer(echo).at(6_000);
    let mut again = Play::of(tasks, json!({})).answer(echo).at(6_000).run;
    assert_eq!(again.outstanding(), play.run.outstanding());
    assert_eq!(
        again.reports().collect::<Vec<_>>(),
        play.run.reports().collect::<Vec<_>>()
    );
    assert!(again.step(Event::Lost { ticket: 99 }, 7_000).is_err());
}
