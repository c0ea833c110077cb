//! Effects outlive the tasks that asked for them: nothing is sent twice, undone twice, or undone
//! without having happened.

use serde_json::json;

use super::*;
use crate::failure::EffectState;

fn start(play: &mut Play, index: usize) -> Attempt {
    let attempts: Vec<Attempt> = play
        .effects
        .iter()
        .filter_map(|e| match e {
            Effect::Attempt(attempt) => Some(attempt.clone()),
            _ => None,
        })
        .collect();
    let attempt = attempts[index].clone();
    play.effects
        .retain(|e| !matches!(e, Effect::Attempt(a) if a.ticket == attempt.ticket));
    let digest = "d".to_owned();
    play.tell(Event::Started {
        ticket: attempt.ticket,
        digest,
    });
    attempt
}

fn attempts(play: &Play) -> usize {
    play.effects
        .iter()
        .filter(|e| matches!(e, Effect::Attempt(_)))
        .count()
}

const ONCE_WITH_TIMEOUT: &str = "  - t:\n      try:\n        - send: {call: mail.send, with: {}, timeout: {after: {seconds: 1}}}\n      catch:\n        retry: {delay: PT1S, backoff: {constant: {}}, limit: {attempt: {count: 1}}}\n";

#[test]
fn a_branch_beside_one_that_fails_at_once_is_not_begun() {
    let tasks = "  - t:\n      try:\n        - f:\n            fork:\n              branches:\n                - a: {raise: {error: {type: \"https://example.com/x\", status: 500}}}\n                - b: {call: pay.charge, with: {}}\n      catch:\n        do:\n          - w: {wait: {hours: 1}}\n";
    let play = Play::of(tasks, json!({}));
    assert_eq!((attempts(&play), play.run.status()), (0, Status::Waiting));
}

#[test]
fn the_same_key_at_another_action_is_another_effect() {
    let key = "metadata: {cofferdam: {idempotencyKey: \"${ \\\"order-7\\\" }\"}}";
    let tasks = format!(
        "  - a: {{call: pay.charge, with: {{}}, {key}}}\n  - b: {{call: mail.send, with: {{}}, {key}}}\n"
    );
    assert_eq!(
        Play::of(&tasks, json!({})).answer(echo).called(),
        ["pay.charge", "mail.send"]
    );
}

#[test]
fn a_once_call_that_a_timeout_stopped_is_waited_for_and_not_sent_again() {
    let mut play = Play::of(ONCE_WITH_TIMEOUT, json!({}));
    let attempt = start(&mut play, 0);
    play = play.at(2_100);
    let due_ms = play.run.next_due_ms().unwrap();
    play = play.at(due_ms);
    assert_eq!(attempts(&play), 0, "it is still under way");
    play.tell(Event::Succeeded {
        ticket: attempt.ticket,
        output: json!("sent"),
    });
    assert_eq!(play.output(), json!("sent"));
}

#[test]
fn a_once_call_whose_outcome_is_unknown_is_looked_up_when_it_is_tried_again() {
    let mut play = Play::of(ONCE_WITH_TIMEOUT, json!({}));
    let attempt = start(&mut play, 0);
    play = play.at(2_100);
    play.tell(Event::Lost {
        ticket: attempt.ticket,
    });
    let due_ms = play.run.next_due_ms().unwrap();
    play = play.at(due_ms);
    assert_eq!(attempts(&play), 0);
    assert!(
        play.effects
            .iter()
            .any(|e| matches!(e, Effect::Lookup { .. }))
    );
}

#[test]
fn what_happened_once_is_undone_once_although_it_was_tried_twice() {
    let tasks = "  - t:\n      try:\n        - charge:\n            call: pay.charge\n            with: {}\n            timeout: {after: {seconds: 1}}\n            metadata: {cofferdam: {compensate: {call: refund, with: {}}}}\n      catch:\n        retry: {delay: PT1S, backoff: {constant: {}}, limit: {attempt: {count: 1}}}\n  - x: {raise: {error: {type: \"https://example.com/x\", status: 500}}}\n";
    let mut play = Play::of(tasks, json!({}));
    let attempt = start(&mut play, 0);
    play = play.at(2_100);
    play.tell(Event::Lost {
        ticket: attempt.ticket,
    });
    let due_ms = play.run.next_due_ms().unwrap();
    play = play.at(due_ms);
    if let Some(Effect::Lookup { ticket, .. }) = play
        .effects
        .iter()
        .find(|e| matches!(e, Effect::Lookup { .. }))
        .cloned()
    {
        play.tell(Event::LookedUp {
            ticket,
            answer: Lookup::Absent,
            draw: 0,
        });
    }
    let play = play.answer(echo);
    assert_eq!(play.called(), ["pay.charge", "pay.refund"]);
}

#[test]
fn a_charge_at_a_backup_is_refunded_at_the_backup() {
    let tasks = "  - a:\n      call: crm.upsert\n      with: {}\n      metadata: {cofferdam: {attempts: 1, failover: [crm-eu], compensate: {call: archive, with: {}}}}\n  - x: {raise: {error: {type: \"https://example.com/x\", status: 500}}}\n";
    let play = Play::of(tasks, json!({})).answer(|a| {
        if a.connection == "crm" {
            down(a)
        } else {
            echo(a)
        }
    });
    assert_eq!(
        play.called(),
        ["crm.upsert", "crm-eu.upsert", "crm-eu.archive"]
    );
}

#[test]
fn a_task_that_was_only_refused_so_far_is_not_undone() {
    let tasks = "  - f:\n      fork:\n        branches:\n          - a: {call: pay.charge, with: {}, metadata: {cofferdam: {compensate: {call: refund, with: {}}}}}\n          - b: {call: crm.get, with: {}}\n";
    let play = Play::of(tasks, json!({})).answer(|a| {
        if a.action == "get" {
            refused(a)
        } else {
            down(a)
        }
    });
    assert_eq!(play.called(), ["pay.charge", "crm.get"]);
    assert!(play.run.outcome().is_some());
}

#[test]
fn an_undoing_of_unknown_outcome_goes_to_review_and_does_not_hold_up_the_others() {
    let tasks = "  - a: {call: crm.upsert, with: {}, metadata: {cofferdam: {compensate: {call: archive, with: {}}}}}\n  - b: {call: pay.charge, with: {}, metadata: {cofferdam: {compensate: {call: chat.post, with: {}}}}}\n  - x: {raise: {error: {type: \"https://example.com/x\", status: 500}}}\n";
    let unknown = |_: &Attempt| {
        Err(Failure::new(Class::Timeout, "timeout", "late").with_effect(EffectState::Unknown))
    };
    let play = Play::of(tasks, json!({})).answer(|a| {
        if a.action == "post" {
            unknown(a)
        } else {
            echo(a)
        }
    });
    assert_eq!(
        play.called(),
        ["crm.upsert", "pay.charge", "chat.post", "crm.archive"]
    );
    assert!(
        play.effects
            .iter()
            .any(|e| matches!(e, Effect::Review { task, .. } if task == "undo:/b"))
    );
    assert!(play.run.outcome().is_some());
}

#[test]
fn what_may_have_happened_here_is_not_asked_for_elsewhere() {
    let tasks = "  - a:\n      call: pay.charge\n      with: {}\n      metadata: {cofferdam: {attempts: 1, onUnknown: repeat, onOutage: fallback, fallback: [{call: crm.upsert}, {value: 7}]}}\n";
    let play = Play::of(tasks, json!({})).answer(|_| {
        Err(Failure::new(Class::Timeout, "timeout", "late").with_effect(EffectState::Unknown))
    });
    assert_eq!(
        (play.called(), play.output()),
        (vec!["pay.charge".to_owned()], json!(7))
    );
}

#[test]
fn a_review_of_a_task_that_was_stopped_is_closed() {
    let tasks = "  - a: {call: chat.post, with: {}, timeout: {after: {seconds: 5}}}\n";
    let play = Play::of(tasks, json!({})).answer(refused).at(7_000);
    assert!(
        play.effects
            .contains(&Effect::ReviewClosed { task: "/a".into() })
    );
}

#[test]
fn what_the_task_says_of_a_fault_counts() {
    let tasks = "  - a: {call: crm.get, with: {}, metadata: {cofferdam: {onExhausted: fault}}}\n";
    let play = Play::of(tasks, json!({})).answer(refused);
    assert!(matches!(
        play.run.outcome(),
        Some(Outcome::Faulted {
            dead_letter: false,
            ..
        })
    ));
}

#[test]
fn a_tolerated_failure_is_told_and_degrades_the_run() {
    let tasks = "  - all:\n      for: {each: n, in: \"${ [1, 2] }\"}\n      metadata: {cofferdam: {maxConcurrency: 2, toleratedFailurePercent: 50}}\n      do:\n        - get: {call: crm.get, with: {n: \"${ $n }\"}}\n";
    let play = Play::of(tasks, json!({})).answer(|a| {
        if a.input["n"] == 2 {
            refused(a)
        } else {
            echo(a)
        }
    });
    assert!(play.run.is_degraded());
    assert_eq!(play.run.provenance()["/all/[1]"], Provenance::Skipped);
}

#[test]
fn a_rate_limited_task_comes_back_when_it_was_asked_to() {
    let tasks = "  - a: {call: mail.send, with: {}}\n";
    let play = Play::of(tasks, json!({})).answer(|_| {
        let limited = Failure::new(Class::RateLimited, "http.429", "slow down");
        Err(Failure {
            retry_after_ms: Some(90_000),
            ..limited
        })
    });
    assert_eq!(play.run.next_due_ms(), Some(91_000));
}
