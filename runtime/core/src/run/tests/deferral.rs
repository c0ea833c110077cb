//! Calls that are left to an outbox, in whole runs.

use super::*;

const QUEUE: &str = "onOutage: {queueAndForward: {deliverWithin: PT2H}}";

fn out() -> Failure {
    Failure::new(Class::Unavailable, "breaker.open", "it is out")
}

/// Refuses the first attempt; what it wants kept then.
fn refused(tasks: &str) -> (Play, u64, Deferred) {
    let mut play = Play::of(tasks, json!({}));
    let Some(Effect::Attempt(attempt)) = play.effects.pop() else {
        panic!("a call begins with an attempt");
    };
    let ticket = attempt.ticket;
    play.tell(Event::Refused {
        ticket,
        failure: out(),
    });
    match play.effects.pop() {
        Some(Effect::Defer {
            ticket, deferred, ..
        }) => (play, ticket, deferred),
        other => panic!("it wants to be kept: {other:?}"),
    }
}

#[test]
fn a_run_goes_on_at_once_and_says_that_its_call_is_still_to_be_made() {
    let tasks = format!(
        "  - told: {{call: chat.post, with: {{text: hi}}, metadata: {{cofferdam: {{{QUEUE}}}}}}}\n"
    );
    let (mut play, ticket, deferred) = refused(&tasks);
    assert_eq!(
        deferred,
        Deferred {
            connection: "chat".into(),
            action: "post".into(),
            input: Arc::new(json!({"text": "hi"})),
            key: "run-1/told".into(),
            deliver_within_ms: 7_200_000,
        }
    );
    assert_eq!(play.run.status(), Status::Running);
    play.tell(Event::Deferred { ticket });
    let output = json!({"deferred": true, "key": "run-1/told"});
    assert_eq!(
        play.run.outcome(),
        Some(&Outcome::Completed {
            output: Arc::new(output)
        })
    );
    assert_eq!(play.run.provenance()["/told"], Provenance::Deferred);
    assert!(play.run.is_degraded());
}

#[test]
fn the_value_that_the_workflow_names_stands_in_for_the_answer() {
    let tasks = format!(
        "  - told: {{call: chat.post, with: {{}}, metadata: {{cofferdam: {{{QUEUE}, fallback: [{{value: {{sent: later}}}}]}}}}}}\n"
    );
    let (mut play, ticket, _) = refused(&tasks);
    play.tell(Event::Deferred { ticket });
    assert_eq!(
        play.run.outcome(),
        Some(&Outcome::Completed {
            output: Arc::new(json!({"sent": "later"}))
        })
    );
}

#[test]
fn a_full_outbox_leads_to_parking() {
    let tasks = format!(
        "  - told: {{call: chat.post, with: {{}}, metadata: {{cofferdam: {{{QUEUE}}}}}}}\n"
    );
    let (mut play, ticket, _) = refused(&tasks);
    play.tell(Event::NotDeferred { ticket });
    assert_eq!(play.run.status(), Status::Waiting);
    assert!(
        matches!(play.effects.pop(), Some(Effect::Park { connection, .. }) if connection == "chat")
    );
}

#[test]
fn what_was_asked_for_before_a_crash_is_asked_for_again() {
    let tasks = format!(
        "  - told: {{call: chat.post, with: {{}}, metadata: {{cofferdam: {{{QUEUE}}}}}}}\n"
    );
    let (play, ticket, deferred) = refused(&tasks);
    let again = play.run.outstanding();
    assert!(
        matches!(&again[..], [Effect::Defer { ticket: t, deferred: d, .. }] if *t == ticket && *d == deferred)
    );
}

#[test]
fn a_read_parks_since_somebody_needs_the_answer() {
    let tasks =
        format!("  - got: {{call: crm.get, with: {{}}, metadata: {{cofferdam: {{{QUEUE}}}}}}}\n");
    let mut play = Play::of(&tasks, json!({}));
    let Some(Effect::Attempt(Attempt { ticket, .. })) = play.effects.pop() else {
        panic!("a call begins with an attempt");
    };
    play.tell(Event::Refused {
        ticket,
        failure: out(),
    });
    assert!(matches!(play.effects.pop(), Some(Effect::Park { .. })));
}

#[test]
fn the_same_effect_asked_for_again_is_not_kept_twice() {
    let call = format!(
        "{{call: chat.post, with: {{}}, metadata: {{cofferdam: {{{QUEUE}, idempotencyKey: '${{ \"one\" }}'}}}}}}"
    );
    let (mut play, ticket, _) = refused(&format!("  - a: {call}\n  - b: {call}\n"));
    play.tell(Event::Deferred { ticket });
    assert_eq!(play.run.status(), Status::Completed);
    assert_eq!(play.effects.pop(), Some(Effect::Finished));
}
