//! What was done once is not done again: not by a task that is tried again, not by one beside it,
//! not after a suspension or a redrive.

use super::*;
use crate::cloud_event::CloudEvent;
use crate::failure::EffectState;

/// A `try` around these tasks that is tried once more after a second, then with these words.
fn tried(tasks: &str, then: &str) -> String {
    format!(
        "  - t:\n      try: [{tasks}]\n      catch:\n        retry: {{delay: PT1S, backoff: {{constant: {{}}}}, limit: {{attempt: {{count: 1}}}}}}\n{then}"
    )
}

const QUEUE: &str = "onOutage: {queueAndForward: {deliverWithin: PT2H}}";

/// Takes the attempt that was asked for first.
fn asked(play: &mut Play) -> Attempt {
    let is_attempt = |e: &Effect| matches!(e, Effect::Attempt(_));
    let index = play.effects.iter().position(is_attempt);
    match play.effects.remove(index.expect("an attempt is asked for")) {
        Effect::Attempt(attempt) => attempt,
        _ => unreachable!(),
    }
}

/// Lets the attempt that was asked for first begin.
fn begin(play: &mut Play) -> Attempt {
    let attempt = asked(play);
    let (ticket, digest) = (attempt.ticket, "d".to_owned());
    play.tell(Event::Started { ticket, digest });
    attempt
}

fn count(play: &Play, is: impl Fn(&Effect) -> bool) -> usize {
    play.effects.iter().filter(|e| is(e)).count()
}

fn is_defer(effect: &Effect) -> bool {
    matches!(effect, Effect::Defer { .. })
}

/// Goes on at the next instant that the run waits for.
fn later(play: Play) -> Play {
    let due_ms = play.run.next_due_ms().expect("it waits for an instant");
    play.at(due_ms)
}

/// A run that keeps what its tasks gave.
fn recorded(workflow: &str, input: Value) -> Play {
    let head = "document: {dsl: \"1.0.3\", namespace: t, name: t, version: \"1.0.0\"}\n";
    let workflow = compile(&format!("{head}{workflow}"));
    let run = Run::new("run-1", workflow, Arc::new(bindings())).recording(None);
    let mut play = Play {
        run,
        now_ms: 1_000,
        effects: Vec::new(),
        calls: Vec::new(),
    };
    play.tell(Event::Begun { input });
    play
}

/// What becomes of redriving a run that faulted.
fn redriven(play: &mut Play, input: Option<Value>) -> Result<(), Illegal> {
    assert_eq!(play.run.status(), Status::Faulted);
    let taken = play.run.finished().unwrap();
    let event = Event::Redriven { input, taken };
    play.run.step(event, play.now_ms).map(drop)
}

fn crm_refuses(attempt: &Attempt) -> Result<Value, Failure> {
    match &*attempt.connection {
        "crm" => Err(Failure::new(Class::NotFound, "gone", "gone")),
        _ => echo(attempt),
    }
}

#[test]
fn a_listener_that_is_tried_again_makes_the_call_of_each_event() {
    let listener = "{l: {listen: {to: {any: [], until: '( . | length ) > 1'}}, foreach: {item: e, do: [{pay: {call: pay.charge, with: {n: '${ $e.n }'}}}]}}}";
    let mut play = Play::of(&tried(listener, ""), json!({}));
    for n in 1..=4 {
        if n == 3 {
            play = later(play);
        }
        let event = json!({
            "specversion": "1.0", "id": n.to_string(), "source": "/test", "type": "x", "data": {"n": n},
        });
        play.tell(Event::Heard {
            task: "/t/~try/l".into(),
            seq: n,
            event: CloudEvent::new(event).unwrap(),
        });
        play = play.answer(|a| {
            if a.input["n"] == 2 {
                refused(a)
            } else {
                echo(a)
            }
        });
    }
    let sent: Vec<_> = play.calls.iter().map(|a| a.input["n"].clone()).collect();
    assert_eq!(sent, [1, 2, 3, 4]);
    let keys: BTreeSet<_> = play.calls.iter().map(|a| a.key.clone()).collect();
    assert_eq!(keys.len(), 4, "what is done for an event has its own key");
    assert_eq!(play.output(), json!([{"n": 3}, {"n": 4}]));
}

#[test]
fn a_call_in_the_outbox_is_not_made_again_because_what_stands_in_for_its_answer_fails() {
    let call = format!(
        "{{told: {{call: chat.post, with: {{}}, metadata: {{cofferdam: {{{QUEUE}, fallback: [{{value: '${{ error }}'}}]}}}}}}}}"
    );
    let mut play = Play::of(&tried(&call, ""), json!({}));
    let ticket = asked(&mut play).ticket;
    let failure = Failure::new(Class::Unavailable, "breaker.open", "it is out");
    play.tell(Event::Refused { ticket, failure });
    let Some(Effect::Defer { ticket, .. }) = play.effects.pop() else {
        panic!("it wants to be kept")
    };
    play.tell(Event::Deferred { ticket });
    assert_eq!(play.run.outcome(), None, "it is tried again");
    let play = later(play);
    assert_eq!(count(&play, |e| matches!(e, Effect::Attempt(_))), 0);
    assert_eq!(count(&play, is_defer), 0);
    assert_eq!(play.output()["deferred"], true);
}

#[test]
fn a_suspended_run_leaves_nothing_to_an_outbox_until_it_is_resumed() {
    let tasks = format!(
        "  - told: {{call: chat.post, with: {{}}, metadata: {{cofferdam: {{{QUEUE}}}}}}}\n"
    );
    let mut play = Play::of(&tasks, json!({}));
    let ticket = asked(&mut play).ticket;
    play.tell(Event::Suspended { reason: None });
    let failure = Failure::new(Class::Unavailable, "breaker.open", "it is out");
    play.tell(Event::Refused { ticket, failure });
    assert_eq!(count(&play, is_defer), 0);
    play.tell(Event::Resumed);
    assert_eq!(count(&play, is_defer), 1);
    let Some(Effect::Defer { ticket, .. }) = play.effects.pop() else {
        panic!("it wants to be kept")
    };
    play.tell(Event::Deferred { ticket });
    assert_eq!(play.output()["deferred"], true);
}

/// Two branches with one key; the second comes to its call a second later.
fn beside(call: &str) -> String {
    let call = format!(
        "{{call: {call}, with: {{}}, metadata: {{cofferdam: {{idempotencyKey: '${{ \"one\" }}'}}}}}}"
    );
    format!(
        "  - f:\n      fork:\n        branches:\n          - a: {call}\n          - b: {{do: [{{w: {{wait: {{seconds: 1}}}}}}, {{c: {call}}}]}}\n"
    )
}

#[test]
fn tasks_that_ask_for_the_same_effect_while_it_is_under_way_all_get_its_answer() {
    let mut play = Play::of(&beside("pay.charge"), json!({}));
    let ticket = begin(&mut play).ticket;
    let mut play = later(play);
    assert_eq!(count(&play, |e| matches!(e, Effect::Attempt(_))), 0);
    let output = json!("paid");
    play.tell(Event::Succeeded { ticket, output });
    assert_eq!(play.output(), json!(["paid", "paid"]));
}

#[test]
fn what_a_fallback_did_is_known_to_the_task_that_is_tried_again() {
    let call = "{a: {call: chat.post, with: {}, metadata: {cofferdam: {fallback: [{call: crm.upsert}]}}}}, {x: {raise: {error: {type: 'https://example.com/x', status: 500}}}}";
    let chat_refuses = |a: &Attempt| {
        if a.connection == "chat" {
            refused(a)
        } else {
            echo(a)
        }
    };
    let play = Play::of(&tried(call, ""), json!({})).answer(chat_refuses);
    assert_eq!(play.called(), ["chat.post", "crm.upsert"]);
    let play = later(play).answer(chat_refuses);
    assert_eq!(play.called(), ["chat.post", "crm.upsert"]);
    let provenance = &play.run.provenance()["/t/~try/a"];
    assert_eq!(*provenance, Provenance::Backup("crm".into()));
    assert!(play.run.outcome().is_some());
}

#[test]
fn a_run_that_failed_while_it_handled_an_error_is_not_redriven() {
    let workflow = "do:\n  - t:\n      try: [{pay: {call: pay.charge, with: {}}}, {no: {raise: {error: {type: 'https://example.com/x', status: 500}}}}]\n      catch: {do: [{tell: {call: crm.upsert, with: {}}}]}\n";
    let mut play = recorded(workflow, json!({})).answer(crm_refuses);
    assert_eq!(play.run.failed_task().unwrap().0, "/t/~catch/tell");
    let illegal = redriven(&mut play, None).unwrap_err();
    assert!(matches!(illegal, Illegal::NoWayOn(_)), "{illegal}");
}

#[test]
fn a_task_whose_inside_has_answered_gets_no_other_input() {
    let workflow =
        "do:\n  - d: {do: [{pay: {call: pay.charge, with: {}}}], output: {as: '${ error }'}}\n";
    let mut play = recorded(workflow, json!({"n": 1})).answer(echo);
    assert_eq!(play.run.failed_task().unwrap().0, "/d");
    let illegal = redriven(&mut play, Some(json!({"n": 2}))).unwrap_err();
    assert!(matches!(illegal, Illegal::NoWayOn(_)), "{illegal}");
    assert_eq!(redriven(&mut play, None), Ok(()));
}

#[test]
fn what_may_have_happened_before_an_attempt_that_is_taken_over_stays_where_it_is() {
    let call = "{a: {call: crm.upsert, with: {}, timeout: {after: {seconds: 30}}, metadata: {cofferdam: {attempts: 2, failover: [crm-eu]}}}}";
    let mut play = Play::of(&tried(call, ""), json!({}));
    let ticket = begin(&mut play).ticket;
    let failure = Failure::new(Class::Timeout, "timeout", "late").with_effect(EffectState::Unknown);
    play.tell(Event::Failed {
        ticket,
        failure,
        draw: 0,
    });
    let mut play = later(play);
    let ticket = begin(&mut play).ticket;
    // The task's time is over; the one that comes after it takes the attempt over.
    let mut play = later(later(play));
    assert_eq!(play.run.in_flight(), [ticket]);
    let failure = Failure::new(Class::Unavailable, "http.503", "down");
    play.tell(Event::Failed {
        ticket,
        failure,
        draw: 0,
    });
    let play = later(play).answer(down);
    assert_eq!(play.called(), ["crm.upsert"]);
    let is_parked =
        |e: &Effect| matches!(e, Effect::Park { connection, .. } if connection == "crm");
    assert_eq!(count(&play, is_parked), 1);
}

#[test]
fn a_redrive_takes_over_more_tasks_than_a_loop_may_do_in_one_step() {
    const FINISHED: usize = 60_000;
    let workflow = "do:\n  - each: {for: {in: '${ [range(60001)] }'}, do: [{one: {call: crm.get, with: {n: '${ $item }'}}}]}\n";
    let mut play = recorded(workflow, json!({})).answer(crm_refuses);
    assert_eq!(play.run.status(), Status::Faulted);
    let finished = |n| Taken {
        output: json!(n),
        context: None,
        provenance: BTreeMap::new(),
    };
    let taken = (0..FINISHED).map(|n| (format!("/each/[{n}]/one"), finished(n)));
    play.tell(Event::Redriven {
        input: None,
        taken: taken.collect(),
    });
    play.tell(Event::Admitted);
    let play = play.answer(echo);
    assert_eq!(play.output(), json!({"n": FINISHED}));
    assert_eq!(play.called(), ["crm.get", "crm.get"]);
}

#[test]
fn a_workflow_whose_tasks_have_answered_gets_no_other_input() {
    let workflow = "output: {as: '${ error }'}\ndo:\n  - pay: {call: pay.charge, with: {}}\n";
    let mut play = recorded(workflow, json!({"n": 1})).answer(echo);
    assert_eq!(play.run.failed_task().unwrap().0, "");
    let illegal = redriven(&mut play, Some(json!({"n": 2}))).unwrap_err();
    assert!(matches!(illegal, Illegal::NoWayOn(_)), "{illegal}");
}

#[test]
fn a_run_that_failed_beside_a_handler_under_way_is_not_redriven() {
    let workflow = "do:\n  - f:\n      fork:\n        branches:\n          - a: {try: [{pay: {call: pay.charge, with: {}}}, {no: {raise: {error: {type: 'https://example.com/x', status: 500}}}}], catch: {do: [{tell: {call: pay.refund, with: {}}}, {w: {wait: {hours: 1}}}]}}\n          - b: {do: [{w: {wait: {seconds: 1}}}, {c: {call: crm.get, with: {}}}]}\n";
    let play = recorded(workflow, json!({})).answer(crm_refuses);
    let mut play = later(play).answer(crm_refuses);
    let illegal = redriven(&mut play, None).unwrap_err();
    assert!(matches!(illegal, Illegal::NoWayOn(_)), "{illegal}");
}

#[test]
fn tasks_that_ask_for_the_same_effect_after_it_failed_ask_once() {
    let mut play = Play::of(&beside("mail.send"), json!({}));
    let ticket = begin(&mut play).ticket;
    let mut play = later(play);
    let failure = Failure::new(Class::Unavailable, "http.503", "down");
    play.tell(Event::Failed {
        ticket,
        failure,
        draw: 0,
    });
    for task in ["/f/a", "/f/b/c"] {
        play.tell(Event::Recovered { task: task.into() });
    }
    let play = play.answer(|_| Ok(json!("sent")));
    assert_eq!(play.output(), json!(["sent", "sent"]));
    assert_eq!(
        play.run.reports().map(|r| r.attempts.len()).sum::<usize>(),
        2
    );
}

#[test]
fn tasks_that_ask_for_the_same_effect_at_once_ask_once() {
    let call =
        "{call: mail.send, with: {}, metadata: {cofferdam: {idempotencyKey: '${ \"one\" }'}}}";
    let tasks = format!("  - f: {{fork: {{branches: [{{a: {call}}}, {{b: {call}}}]}}}}\n");
    let play = Play::of(&tasks, json!({})).answer(|_| Ok(json!("sent")));
    assert_eq!(play.output(), json!(["sent", "sent"]));
    assert_eq!(
        play.run.reports().map(|r| r.attempts.len()).sum::<usize>(),
        1
    );
}

/// A failure after which the effect certainly did not happen, or may have.
fn failure(effect: EffectState) -> Failure {
    Failure::new(Class::Unavailable, "http.503", "down").with_effect(effect)
}

fn fail(play: &mut Play, ticket: u64, effect: EffectState) {
    let failure = failure(effect);
    play.tell(Event::Failed {
        ticket,
        failure,
        draw: 0,
    });
}

fn refuse(play: &mut Play) {
    let ticket = asked(play).ticket;
    let failure = Failure::new(Class::Unavailable, "breaker.open", "it is out");
    play.tell(Event::Refused { ticket, failure });
}

fn decide(play: &mut Play, task: &str, decision: Decision) {
    let task = task.to_owned();
    play.tell(Event::Decided { task, decision });
}

fn attempts_asked(play: &Play) -> usize {
    count(play, |e| matches!(e, Effect::Attempt(_)))
}

/// Attempts that were made.
fn made(play: &Play) -> usize {
    play.run.reports().map(|r| r.attempts.len()).sum()
}

/// Two branches with one key, that ask at once.
fn at_once(call: &str, more: &str) -> String {
    let call = format!(
        "{{call: {call}, with: {{}}, metadata: {{cofferdam: {{idempotencyKey: '${{ \"one\" }}'{more}}}}}}}"
    );
    format!("  - f: {{fork: {{branches: [{{a: {call}}}, {{b: {call}}}]}}}}\n")
}

/// Both are parked, and then `b` makes its attempt.
fn under_way_beside_a_parked_one(call: &str) -> (Play, u64) {
    let mut play = Play::of(&at_once(call, ""), json!({}));
    refuse(&mut play);
    refuse(&mut play);
    play.tell(Event::Recovered {
        task: "/f/b".into(),
    });
    let ticket = begin(&mut play).ticket;
    (play, ticket)
}

#[test]
fn a_task_whose_connection_recovers_waits_for_the_same_effect_under_way() {
    let (mut play, ticket) = under_way_beside_a_parked_one("mail.send");
    play.tell(Event::Recovered {
        task: "/f/a".into(),
    });
    assert_eq!(attempts_asked(&play), 0);
    let output = json!("sent");
    play.tell(Event::Succeeded { ticket, output });
    assert_eq!(play.output(), json!(["sent", "sent"]));
    assert_eq!(made(&play), 1);
}

#[test]
fn a_task_whose_backoff_is_over_waits_for_the_same_effect_under_way() {
    let key = "idempotencyKey: '${ \"one\" }', attempts: 3";
    let call = format!("{{call: mail.send, with: {{}}, metadata: {{cofferdam: {{{key}}}}}}}");
    let tasks = format!(
        "  - f:\n      fork:\n        branches:\n          - a: {call}\n          - b: {{do: [{{w: {{wait: {{milliseconds: 1}}}}}}, {{c: {call}}}]}}\n"
    );
    let mut play = Play::of(&tasks, json!({}));
    let ticket = begin(&mut play).ticket;
    play.tell(Event::Failed {
        ticket,
        failure: failure(EffectState::None),
        draw: u32::MAX,
    });
    // The other branch comes to its call while this one waits.
    let mut play = later(play);
    let ticket = begin(&mut play).ticket;
    let mut play = later(play);
    assert_eq!(attempts_asked(&play), 0);
    let output = json!("sent");
    play.tell(Event::Succeeded { ticket, output });
    assert_eq!(play.output(), json!(["sent", "sent"]));
}

#[test]
fn who_lets_a_call_be_made_again_beside_one_under_way_gets_the_answer_of_that() {
    let mut play = Play::of(&at_once("chat.post", ""), json!({}));
    let ticket = begin(&mut play).ticket;
    play.effects.clear(); // The other waits for the same attempt.
    fail(&mut play, ticket, EffectState::Unknown);
    decide(&mut play, "/f/a", Decision::Retry);
    let ticket = begin(&mut play).ticket;
    decide(&mut play, "/f/b", Decision::Retry);
    assert_eq!(attempts_asked(&play), 0);
    let output = json!("posted");
    play.tell(Event::Succeeded { ticket, output });
    assert_eq!(play.output(), json!(["posted", "posted"]));
}

#[test]
fn who_lets_a_call_be_made_again_after_it_was_made_gets_its_answer() {
    let mut play = Play::of(&at_once("chat.post", ""), json!({}));
    let ticket = begin(&mut play).ticket;
    play.effects.clear(); // The other waits for the same attempt.
    fail(&mut play, ticket, EffectState::Unknown);
    decide(&mut play, "/f/a", Decision::Retry);
    let ticket = begin(&mut play).ticket;
    let output = json!("posted");
    play.tell(Event::Succeeded { ticket, output });
    decide(&mut play, "/f/b", Decision::Retry);
    assert_eq!(attempts_asked(&play), 0);
    assert_eq!(play.output(), json!(["posted", "posted"]));
}

#[test]
fn a_person_is_asked_again_when_what_they_decided_about_was_followed_by_another_attempt() {
    let mut play = Play::of(&at_once("chat.post", ""), json!({}));
    let ticket = begin(&mut play).ticket;
    play.effects.clear(); // The other waits for the same attempt.
    fail(&mut play, ticket, EffectState::Unknown);
    decide(&mut play, "/f/a", Decision::Retry);
    let ticket = begin(&mut play).ticket;
    fail(&mut play, ticket, EffectState::Unknown);
    play.effects.clear();
    decide(&mut play, "/f/b", Decision::Retry);
    assert_eq!(attempts_asked(&play), 0);
    assert_eq!(
        count(
            &play,
            |e| matches!(e, Effect::Review { task, .. } if task == "/f/b")
        ),
        1
    );
    // They have seen that one as well.
    decide(&mut play, "/f/b", Decision::Retry);
    assert_eq!(attempts_asked(&play), 1);
}

#[test]
fn a_task_finds_out_what_came_of_the_attempt_of_another_one() {
    let (mut play, ticket) = under_way_beside_a_parked_one("mail.send");
    fail(&mut play, ticket, EffectState::Unknown);
    play.effects.clear();
    play.tell(Event::Recovered {
        task: "/f/a".into(),
    });
    assert_eq!(attempts_asked(&play), 0);
    assert_eq!(count(&play, |e| matches!(e, Effect::Lookup { .. })), 1);
}

#[test]
fn an_answer_from_before_another_attempt_does_not_let_the_call_be_made_again() {
    let mut play = Play::of(&at_once("mail.send", ", attempts: 3"), json!({}));
    let ticket = begin(&mut play).ticket;
    play.effects.clear(); // The other waits for the same attempt.
    fail(&mut play, ticket, EffectState::Unknown);
    let asked: Vec<u64> = play.effects.iter().filter_map(lookup_ticket).collect();
    let [first, second] = asked[..] else {
        panic!("both ask: {asked:?}")
    };
    play.effects.clear();
    let absent = |ticket| Event::LookedUp {
        ticket,
        answer: Lookup::Absent,
        draw: 0,
    };
    play.tell(absent(first));
    let mut play = if attempts_asked(&play) == 0 {
        later(play)
    } else {
        play
    };
    let ticket = begin(&mut play).ticket;
    fail(&mut play, ticket, EffectState::Unknown);
    play.effects.clear();
    play.tell(absent(second));
    assert_eq!(attempts_asked(&play), 0);
    assert_eq!(count(&play, |e| lookup_ticket(e).is_some()), 1);
}

fn lookup_ticket(effect: &Effect) -> Option<u64> {
    match effect {
        Effect::Lookup { ticket, .. } => Some(*ticket),
        _ => None,
    }
}

#[test]
fn a_call_that_waits_for_leave_takes_what_a_person_knows_of_the_same_effect() {
    let mut play = Play::of(&at_once("chat.post", ""), json!({}));
    let ticket = begin(&mut play).ticket;
    play.effects.clear(); // The other waits for the same attempt.
    fail(&mut play, ticket, EffectState::Unknown);
    decide(&mut play, "/f/a", Decision::Retry);
    let ticket = asked(&mut play).ticket;
    let output = json!("posted");
    decide(&mut play, "/f/b", Decision::Approve { output });
    let digest = "d".to_owned();
    let begins = play
        .run
        .step(Event::Started { ticket, digest }, play.now_ms);
    assert!(begins.is_err(), "nothing is left to be done");
    assert_eq!(play.output(), json!(["posted", "posted"]));
}

#[test]
fn what_became_known_first_is_not_taken_back_by_a_decision_about_another_task() {
    let approve = |n: u32| Decision::Approve { output: json!(n) };
    let reason = String::new();
    let others = [
        Decision::Accept,
        Decision::Answer { output: json!(2) },
        Decision::Reject { reason },
    ];
    let in_review = || {
        let mut play = Play::of(&at_once("chat.post", ""), json!({}));
        let ticket = begin(&mut play).ticket;
        play.effects.clear(); // The other waits for the same attempt.
        fail(&mut play, ticket, EffectState::Unknown);
        play
    };
    let mut play = in_review();
    for decision in [Decision::Retry, approve(2)].iter().chain(&others) {
        assert!(!play.run.takes_back("/f/b", decision), "nothing is known");
    }
    decide(&mut play, "/f/a", approve(1));
    for (decision, takes_back) in [
        (Decision::Retry, true),
        (approve(2), true),
        (approve(1), false),
    ] {
        assert_eq!(
            play.run.takes_back("/f/b", &decision),
            takes_back,
            "{decision:?}"
        );
    }
    assert!(
        !others
            .iter()
            .any(|decision| play.run.takes_back("/f/b", decision))
    );
    assert!(!play.run.takes_back("/f/a", &Decision::Retry), "it is done");
    decide(&mut play, "/f/b", approve(1));
    assert_eq!(play.output(), json!([1, 1]));
    // What was asked before the last attempt was made denies nothing that came of that.
    let mut play = in_review();
    decide(&mut play, "/f/a", Decision::Retry);
    let ticket = begin(&mut play).ticket;
    let output = json!(1);
    play.tell(Event::Succeeded { ticket, output });
    assert!(!play.run.takes_back("/f/b", &Decision::Retry));
    decide(&mut play, "/f/b", Decision::Retry);
    assert_eq!(play.output(), json!([1, 1]));
}

#[test]
fn what_may_have_happened_on_a_backup_is_repeated_there_by_all_that_wait_for_it() {
    let mut play = Play::of(&at_once("crm.upsert", ", failover: [crm-eu]"), json!({}));
    let out = |ticket| Event::Refused {
        ticket,
        failure: Failure::new(Class::Unavailable, "breaker.open", "it is out"),
    };
    let first = asked(&mut play);
    play.tell(out(first.ticket));
    let index = play
        .effects
        .iter()
        .position(|e| matches!(e, Effect::Attempt(attempt) if attempt.connection == "crm-eu"));
    let Effect::Attempt(backup) = play.effects.remove(index.unwrap()) else {
        unreachable!()
    };
    let (ticket, digest) = (backup.ticket, "d".to_owned());
    play.tell(Event::Started { ticket, digest });
    play.effects.clear();
    fail(&mut play, ticket, EffectState::Unknown);
    let play = later(play);
    let connections: BTreeSet<_> = play
        .effects
        .iter()
        .filter_map(|e| match e {
            Effect::Attempt(attempt) => Some(attempt.connection.as_str()),
            _ => None,
        })
        .collect();
    assert_eq!(connections, BTreeSet::from(["crm-eu"]));
}

#[test]
fn what_two_tasks_leave_to_an_outbox_is_there_once_after_a_suspension() {
    let tasks = at_once("chat.post", &format!(", {QUEUE}"));
    let mut play = Play::of(&tasks, json!({}));
    let tickets = [asked(&mut play).ticket, asked(&mut play).ticket];
    play.tell(Event::Suspended { reason: None });
    for ticket in tickets {
        let failure = Failure::new(Class::Unavailable, "breaker.open", "it is out");
        play.tell(Event::Refused { ticket, failure });
    }
    play.tell(Event::Resumed);
    let mut kept = 0;
    for effect in std::mem::take(&mut play.effects) {
        if let Effect::Defer { ticket, .. } = effect {
            let taken = play.run.step(Event::Deferred { ticket }, play.now_ms);
            kept += usize::from(taken.is_ok());
        }
    }
    assert_eq!(kept, 1);
    assert!(play.run.outcome().is_some());
}

#[test]
fn a_call_that_a_person_lets_be_made_again_waits_for_what_stood_in_for_it() {
    let call = "  - a: {call: chat.post, with: {}, metadata: {cofferdam: {fallback: [{call: crm.upsert}]}}}\n";
    let chat_refuses_and_crm_is_lost = |a: &Attempt| match &*a.connection {
        "chat" => refused(a),
        _ => Err(failure(EffectState::Unknown)),
    };
    let mut play = Play::of(call, json!({})).answer(chat_refuses_and_crm_is_lost);
    while play.run.next_due_ms().is_some() {
        play = later(play).answer(chat_refuses_and_crm_is_lost);
    }
    let asked = |play: &Play, of: &str| play.called().iter().filter(|c| *c == of).count();
    assert_eq!(asked(&play, "chat.post"), 1);
    assert_eq!(
        count(
            &play,
            |e| matches!(e, Effect::Review { task, .. } if task == "/a")
        ),
        1
    );
    decide(&mut play, "/a", Decision::Retry);
    let play = play.answer(|_| Ok(json!("kept")));
    assert_eq!(
        asked(&play, "chat.post"),
        1,
        "it may have been done elsewhere"
    );
    assert_eq!(play.output(), json!("kept"));
    assert_eq!(
        play.run.provenance()["/a"],
        Provenance::Backup("crm".into())
    );
}

#[test]
fn who_shares_an_effect_and_says_how_it_is_undone_sees_to_that() {
    let call = |more: &str| {
        format!(
            "{{call: pay.charge, with: {{}}, metadata: {{cofferdam: {{idempotencyKey: '${{ \"one\" }}'{more}}}}}}}"
        )
    };
    let (plain, undone) = (call(""), call(", compensate: {call: pay.refund, with: {}}"));
    let raise = "  - fail: {raise: {error: {type: \"https://t/e\", status: 400, title: no}}}\n";
    for branches in [
        // At once, while it is under way, and after it has ended.
        format!("  - f: {{fork: {{branches: [{{a: {plain}}}, {{b: {undone}}}]}}}}\n"),
        format!(
            "  - f: {{fork: {{branches: [{{a: {plain}}}, {{b: {{do: [{{s: {{set: {{x: 1}}}}}}, {{c: {undone}}}]}}}}]}}}}\n"
        ),
        format!("  - a: {plain}\n  - b: {undone}\n"),
    ] {
        let play = Play::of(&format!("{branches}{raise}"), json!({})).answer(|_| Ok(json!("done")));
        let undoings = play.calls.iter().filter(|call| call.action == "refund");
        assert_eq!(undoings.count(), 1, "{branches}");
    }
}

proptest::proptest! {
    /// Without `float_roundtrip` of `serde_json` one in some numbers is read as its neighbour, and a run that
    /// is taken up is not the run that was.
    #[test]
    fn a_number_is_read_from_a_journal_as_it_was_written(n in proptest::num::f64::NORMAL) {
        let written = json!({"n": n});
        let read: Value = serde_json::from_str(&written.to_string()).unwrap();
        proptest::prop_assert_eq!(read, written);
    }
}
