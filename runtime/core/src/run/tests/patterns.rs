//! Earlier answers, undoing of fallbacks, second attempts, checks, reviews: in whole runs.

use serde_json::json;

use super::*;
use crate::failure::EffectState;

const BROKEN: &str = "  - x: {raise: {error: {type: \"https://example.com/x\", status: 500}}}\n";

fn late(_: &Attempt) -> Result<Value, Failure> {
    Err(Failure::new(Class::Timeout, "timeout", "late").with_effect(EffectState::Unknown))
}

impl Play {
    fn find<T>(&self, pick: impl Fn(&Effect) -> Option<T>) -> Option<T> {
        self.effects.iter().find_map(pick)
    }

    fn recalls(&self) -> Option<(u64, Vec<String>)> {
        self.find(|e| match e {
            Effect::Recall {
                ticket,
                connections,
                ..
            } => Some((*ticket, connections.clone())),
            _ => None,
        })
    }

    fn question(&self) -> Option<Question> {
        self.find(|e| match e {
            Effect::Review { question, .. } => Some(question.clone()),
            _ => None,
        })
    }

    /// Lets the attempt that is asked for begin.
    fn begin(&mut self) -> Attempt {
        let index = self
            .effects
            .iter()
            .position(|e| matches!(e, Effect::Attempt(_)));
        let Effect::Attempt(attempt) = self.effects.remove(index.expect("an attempt")) else {
            unreachable!()
        };
        let (ticket, digest) = (attempt.ticket, "d".to_owned());
        self.tell(Event::Started { ticket, digest });
        attempt
    }

    fn decide(mut self, decision: Decision) -> Self {
        let task = "/a".to_owned();
        self.tell(Event::Decided { task, decision });
        self
    }
}

fn cached(more: &str) -> String {
    format!(
        "  - a: {{call: crm.get, with: {{id: 7}}, metadata: {{cofferdam: {{onOutage: fallback, failover: [crm-eu], fallback: [{{cache: {{maxAge: PT1M}}}}{more}]}}}}}}\n"
    )
}

/// Attempts fail until nothing is left but the fallbacks.
fn exhausted(tasks: &str) -> Play {
    let mut play = Play::of(tasks, json!({})).answer(down);
    while play.run.outcome().is_none() && play.recalls().is_none() {
        let due_ms = play.run.next_due_ms().expect("it waits for an instant");
        play = play.at(due_ms).answer(down);
    }
    play.now_ms += 100_000;
    play
}

#[test]
fn an_earlier_answer_stands_in_and_says_how_old_it_is() {
    let mut play = exhausted(&cached(""));
    let (ticket, connections) = play.recalls().unwrap();
    assert_eq!(connections, ["crm", "crm-eu"]);
    assert_eq!(play.run.status(), Status::Running);
    let found = Some(Kept {
        output: json!({"name": "Ada"}),
        at_ms: play.now_ms - 30_500,
    });
    play.tell(Event::Recalled { ticket, found });
    assert_eq!(play.output(), json!({"name": "Ada"}));
    assert_eq!(play.run.provenance()["/a"].to_string(), "stale:30s");
    assert!(play.run.is_degraded());
}

#[test]
fn an_answer_that_is_too_old_or_missing_leads_to_the_next_fallback() {
    let too_old = |play: &Play| Kept {
        output: json!("old"),
        at_ms: play.now_ms - 60_001,
    };
    for is_there in [true, false] {
        let mut play = exhausted(&cached(", {value: 5}"));
        let (ticket, _) = play.recalls().unwrap();
        let found = is_there.then(|| too_old(&play));
        play.tell(Event::Recalled { ticket, found });
        assert_eq!(play.output(), json!(5));
        assert_eq!(play.run.provenance()["/a"], Provenance::Default);
    }
}

#[test]
fn a_question_for_an_earlier_answer_is_asked_again_after_a_restart_and_answered_once() {
    let mut play = exhausted(&cached(""));
    let (ticket, _) = play.recalls().unwrap();
    assert!(
        matches!(&play.run.outstanding()[..], [Effect::Recall { ticket: t, .. }] if *t == ticket)
    );
    let found = Some(Kept {
        output: json!(1),
        at_ms: play.now_ms,
    });
    let answer = Event::Recalled { ticket, found };
    play.tell(answer.clone());
    assert!(play.run.step(answer, play.now_ms).is_err());
}

#[test]
fn answers_are_kept_for_those_that_want_them_and_only_live_ones() {
    let kept = |play: &Play| {
        play.find(|e| match e {
            Effect::Keep {
                connection,
                output,
                max_age_ms,
                ..
            } => Some((connection.clone(), (**output).clone(), *max_age_ms)),
            _ => None,
        })
    };
    let play = Play::of(&cached(""), json!({})).answer(echo);
    let expected = ("crm".to_owned(), json!({"id": 7}), 60_000);
    assert_eq!(kept(&play), Some(expected));
    let without = Play::of("  - a: {call: crm.get, with: {}}\n", json!({})).answer(echo);
    assert_eq!(kept(&without), None);
    let stand_in = cached(", {value: 5}");
    let mut play = exhausted(&stand_in);
    let (ticket, _) = play.recalls().unwrap();
    play.tell(Event::Recalled {
        ticket,
        found: None,
    });
    assert_eq!(kept(&play), None);
}

#[test]
fn a_connection_that_keeps_answers_serves_tasks_that_name_no_fallback() {
    let mut bindings = bindings();
    let crm = bindings.connections.get_mut("crm").unwrap();
    crm.cache_max_age_ms = Some(60_000);
    crm.on_outage = crate::workflow::OnOutage::Fallback;
    crm.attempts_max = 1;
    let play = |tasks: &str| Play::with(bindings.clone(), tasks).answer(down);
    let read = play("  - a: {call: crm.get, with: {}}\n");
    assert!(read.recalls().is_some());
    let own =
        play("  - a: {call: crm.get, with: {}, metadata: {cofferdam: {fallback: [{value: 1}]}}}\n");
    assert_eq!((own.recalls(), own.output()), (None, json!(1)));
    let effect = play("  - a: {call: crm.upsert, with: {}}\n");
    assert!(effect.recalls().is_none() && effect.run.outcome().is_some());
}

fn fallback_and_fault(fallback: &str) -> String {
    format!(
        "  - a:\n      call: chat.post\n      with: {{}}\n      metadata:\n        cofferdam:\n          onOutage: fallback\n          compensate: {{call: archive, with: {{what: \"${{ $output }}\"}}}}\n          fallback: [{fallback}]\n{BROKEN}"
    )
}

fn chat_is_down(attempt: &Attempt) -> Result<Value, Failure> {
    match attempt.action.as_str() {
        "post" => down(attempt),
        _ => Ok(json!({"done": attempt.action})),
    }
}

#[test]
fn what_a_fallback_did_is_undone_where_it_was_done() {
    let tasks = fallback_and_fault("{call: crm.upsert}");
    let play = Play::of(&tasks, json!({})).answer(chat_is_down);
    assert_eq!(play.called(), ["chat.post", "crm.upsert", "crm.archive"]);
    assert_eq!(*play.calls[2].input, json!({"what": {"done": "upsert"}}));
}

#[test]
fn a_fallback_can_say_itself_how_it_is_undone() {
    let own = "{call: pay.charge, compensate: {call: refund, with: {}}}";
    let play = Play::of(&fallback_and_fault(own), json!({})).answer(chat_is_down);
    assert_eq!(play.called(), ["chat.post", "pay.charge", "pay.refund"]);
}

#[test]
fn a_fallback_that_cannot_be_undone_is_told_to_a_person() {
    let tasks = fallback_and_fault("{call: pay.charge}");
    let play = Play::of(&tasks, json!({})).answer(chat_is_down);
    let stuck = play.find(|e| match e {
        Effect::Review { task, failure, .. } => Some((task.clone(), failure.code.clone())),
        _ => None,
    });
    let expected = ("undo:/a/~fallback[0]".to_owned(), "undo.stuck".to_owned());
    assert_eq!(stuck, Some(expected));
    assert!(play.run.outcome().is_some());
}

#[test]
fn a_run_that_began_by_older_rules_leaves_what_a_fallback_did() {
    let mut bindings = bindings();
    bindings.semantics = 1;
    let tasks = fallback_and_fault("{call: crm.upsert}");
    let play = Play::with(bindings, &tasks).answer(chat_is_down);
    assert_eq!(play.called(), ["chat.post", "crm.upsert"]);
}

#[test]
fn bindings_without_a_word_on_it_have_the_oldest_rules_and_those_of_today_the_newest() {
    let pinned: Bindings = serde_json::from_value(json!({"connections": {}})).unwrap();
    assert_eq!(
        (pinned.semantics, Bindings::default().semantics),
        (1, SEMANTICS)
    );
    let again = serde_json::to_value(&pinned).unwrap();
    assert_eq!(again, json!({"connections": {}}));
}

fn hedged(call: &str, more: &str) -> String {
    format!(
        "  - a: {{call: {call}, with: {{}}, metadata: {{cofferdam: {{hedge: PT0.2S{more}}}}}}}\n"
    )
}

/// Two attempts of one call under way.
fn pair(tasks: &str) -> (Play, Attempt, Attempt) {
    let mut play = Play::of(tasks, json!({}));
    let first = play.begin();
    assert_eq!(play.run.next_due_ms(), Some(1_200));
    play = play.at(1_200);
    let second = play.begin();
    assert_eq!((first.is_hedge, second.is_hedge), (false, true));
    assert_eq!((&first.key, second.attempt), (&second.key, 2));
    (play, first, second)
}

#[test]
fn the_first_success_of_two_attempts_counts_and_the_other_is_dropped() {
    let (mut play, first, second) = pair(&hedged("crm.get", ", failover: [crm-eu]"));
    assert_eq!((&*first.connection, &*second.connection), ("crm", "crm-eu"));
    let (ticket, output) = (second.ticket, json!(2));
    play.tell(Event::Succeeded { ticket, output });
    assert_eq!(play.output(), json!(2));
    assert_eq!(play.run.provenance()["/a"].to_string(), "backup:crm-eu");
    let ticket = first.ticket;
    assert!(play.effects.contains(&Effect::Cancel { ticket }));
    assert!(play.run.in_flight().is_empty());
    let attempts = &play.run.reports().next().unwrap().attempts;
    let told: Vec<_> = attempts.iter().map(|a| (a.hedge, a.dropped)).collect();
    assert_eq!(told, [(false, true), (true, false)]);
    let output = json!(1);
    let too_late = Event::Succeeded { ticket, output };
    assert!(play.run.step(too_late, play.now_ms).is_err());
}

#[test]
fn the_slower_of_two_attempts_with_an_effect_ends_before_the_effect_is_undone() {
    let tasks = hedged("pay.charge", ", compensate: {call: refund, with: {}}") + BROKEN;
    let (mut play, first, second) = pair(&tasks);
    let (ticket, output) = (first.ticket, json!(1));
    play.tell(Event::Succeeded { ticket, output });
    assert_eq!(play.run.in_flight(), [second.ticket]);
    assert_eq!(play.run.status(), Status::Compensating);
    assert!(!play.effects.iter().any(|e| matches!(e, Effect::Attempt(_))));
    let (ticket, output) = (second.ticket, json!(1));
    play.tell(Event::Succeeded { ticket, output });
    let play = play.answer(echo);
    assert_eq!(play.called(), ["pay.refund"]);
}

#[test]
fn both_of_two_attempts_are_found_lost_after_a_crash_and_asked_for_as_one() {
    let (mut play, first, second) = pair(&hedged("pay.charge", ""));
    assert_eq!(play.run.in_flight(), [first.ticket, second.ticket]);
    for ticket in play.run.in_flight() {
        play.tell(Event::Lost { ticket });
    }
    let lookups = play
        .effects
        .iter()
        .filter(|e| matches!(e, Effect::Lookup { .. }));
    assert_eq!(lookups.count(), 1);
}

#[test]
fn a_second_attempt_that_was_asked_for_when_the_first_ends_does_not_begin() {
    let mut play = Play::of(&hedged("crm.get", ""), json!({}));
    let first = play.begin();
    play = play.at(1_200);
    let (ticket, output) = (first.ticket, json!(1));
    play.tell(Event::Succeeded { ticket, output });
    let Some(Effect::Attempt(second)) = play
        .effects
        .iter()
        .find(|e| matches!(e, Effect::Attempt(_)))
        .cloned()
    else {
        panic!("it was asked for")
    };
    let (ticket, digest) = (second.ticket, "d".to_owned());
    assert!(
        play.run
            .step(Event::Started { ticket, digest }, 1_300)
            .is_err()
    );
}

const CHECKED: &str = "  - a: {call: pay.charge, with: {paid: 3}, metadata: {cofferdam: {validate: [\".paid > 0\", '.paid == 5'], compensate: {call: refund, with: {}}}}}\n";

#[test]
fn an_output_that_does_not_pass_goes_to_a_person_who_may_take_it_as_it_is() {
    let play = Play::of(CHECKED, json!({})).answer(echo);
    let question = play.question().unwrap();
    assert_eq!(question.output, Some(json!({"paid": 3})));
    let accepted = play.decide(Decision::Accept);
    assert_eq!(accepted.output(), json!({"paid": 3}));
    assert_eq!(accepted.run.provenance()["/a"], Provenance::Live);
}

#[test]
fn a_person_may_answer_in_place_of_an_output_that_does_not_pass() {
    let output = json!({"paid": 5});
    let play = Play::of(CHECKED, json!({})).answer(echo);
    let play = play.decide(Decision::Answer { output });
    assert_eq!(play.output(), json!({"paid": 5}));
    assert_eq!(play.run.provenance()["/a"], Provenance::Manual);
}

#[test]
fn an_output_that_is_rejected_is_undone() {
    let reason = "no".to_owned();
    let play = Play::of(CHECKED, json!({})).answer(echo);
    let play = play.decide(Decision::Reject { reason }).answer(echo);
    assert_eq!(play.called(), ["pay.charge", "pay.refund"]);
    assert!(play.error().detail.unwrap().contains(".paid == 5"));
}

#[test]
fn an_effect_that_a_person_wants_again_is_undone_when_that_fails() {
    let play = Play::of(CHECKED, json!({})).answer(echo);
    let mut play = play.decide(Decision::Retry).answer(refused).answer(echo);
    while let Some(due_ms) = play.run.next_due_ms() {
        play = play.at(due_ms).answer(echo);
    }
    assert_eq!(play.called(), ["pay.charge", "pay.charge", "pay.refund"]);
}

#[test]
fn a_check_that_cannot_be_evaluated_is_one_that_is_not_passed() {
    let tasks =
        "  - a: {call: crm.get, with: {}, metadata: {cofferdam: {validate: '.x.y[0] | error'}}}\n";
    let play = Play::of(tasks, json!({})).answer(echo);
    assert!(play.question().is_some());
}

#[test]
fn an_output_that_passes_is_handed_on() {
    let tasks = CHECKED.replace("paid: 3", "paid: 5");
    assert_eq!(
        Play::of(&tasks, json!({})).answer(echo).output(),
        json!({"paid": 5})
    );
}

#[test]
fn a_review_is_told_again_when_it_goes_to_somebody_else_and_closed_when_its_time_is_over() {
    let tasks = |how: &str| {
        format!(
            "  - a: {{call: chat.post, with: {{}}, metadata: {{cofferdam: {{onUnknown: {{review: {{deadline: PT1H, {how}}}}}}}}}}}\n"
        )
    };
    let play = Play::of(&tasks("escalateTo: head"), json!({})).answer(late);
    assert_eq!(play.question().unwrap().due_ms, Some(3_601_000));
    let mut play = play;
    play.effects.clear();
    let play = play.at(3_601_000);
    let question = play.question().unwrap();
    assert_eq!(
        (question.reviewer.as_deref(), question.due_ms),
        (Some("head"), None)
    );
    assert_eq!(play.run.next_due_ms(), None);
    let play = Play::of(&tasks("onDeadline: reject"), json!({})).answer(late);
    let play = play.at(3_601_000);
    let closed = Effect::ReviewClosed { task: "/a".into() };
    assert!(play.effects.contains(&closed));
    assert!(
        play.error()
            .detail
            .unwrap()
            .contains("nobody decided in time")
    );
}

#[test]
fn a_task_that_waits_too_long_for_its_first_attempt_uses_its_fallback() {
    let tasks = "  - a: {call: crm.get, with: {}, metadata: {cofferdam: {timeout: {scheduleToStart: PT5S}, fallback: [{value: 1}]}}}\n";
    let mut play = Play::of(tasks, json!({}));
    assert_eq!(play.run.next_due_ms(), Some(6_000));
    let Effect::Attempt(attempt) = play.effects.remove(0) else {
        panic!("an attempt is asked for")
    };
    let mut play = play.at(6_000);
    assert_eq!(play.output(), json!(1));
    let (ticket, digest) = (attempt.ticket, "d".to_owned());
    let begins = Event::Started { ticket, digest };
    assert!(play.run.step(begins, 7_000).is_err());
}

#[test]
fn an_attempt_is_to_end_when_the_time_of_its_task_is_over() {
    let tasks = "  - a: {call: crm.get, with: {}, metadata: {cofferdam: {timeout: {scheduleToClose: PT10S}}}}\n";
    let mut play = Play::of(tasks, json!({}));
    assert_eq!(play.begin().deadline_ms, Some(11_000));
}

#[test]
fn the_run_ends_when_the_time_of_its_workflow_is_over() {
    let text = "document: {dsl: \"1.0.3\", namespace: t, name: t, version: \"1.0.0\"}\ntimeout: {after: PT10S}\ndo:\n  - a: {call: chat.post, with: {}}\n";
    let run = Run::new("run-1", compile(text), Arc::new(bindings()));
    let mut play = Play {
        run,
        now_ms: 1_000,
        effects: Vec::new(),
        calls: Vec::new(),
    };
    play.tell(Event::Begun { input: json!({}) });
    let play = play.answer(late).at(11_000);
    assert_eq!(play.error().status, 408);
}
