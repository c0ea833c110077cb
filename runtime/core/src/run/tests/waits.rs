//! What runs say about why they wait.

use super::*;

fn sentences(play: &Play) -> Vec<String> {
    let waits = play.run.waits();
    waits
        .iter()
        .map(|w| format!("{} {}", w.task, w.sentence(|ms| format!("@{ms}"))))
        .collect()
}

/// One attempt, refused as an open breaker does.
fn parked(tasks: &str) -> Play {
    let mut play = Play::of(tasks, json!({}));
    while let Some(at) = play
        .effects
        .iter()
        .position(|e| matches!(e, Effect::Attempt(_)))
    {
        let Effect::Attempt(attempt) = play.effects.remove(at) else {
            unreachable!()
        };
        let failure = Failure::new(Class::Unavailable, "breaker.open", "HTTP 503");
        play.tell(Event::Refused {
            ticket: attempt.ticket,
            failure,
        });
    }
    play
}

#[test]
fn a_parked_task_says_when_it_gives_up_and_what_it_does_then() {
    let with = |metadata: &str| {
        format!("  - a: {{call: crm.get, with: {{}}, metadata: {{cofferdam: {{{metadata}}}}}}}\n")
    };
    for (metadata, then) in [
        ("fallback: [{value: 1}]", "uses the fallback value"),
        (
            "fallback: [{call: pay.charge}]",
            "asks `pay.charge` instead",
        ),
        (
            "critical: false",
            "is passed over, and the run goes on without it",
        ),
        ("onExhausted: fault", "fails, and the run faults"),
        ("onExhausted: review", "goes to review"),
        ("", "fails, and the run faults and is kept as a dead letter"),
    ] {
        let said = sentences(&parked(&with(metadata)));
        let expected = format!(
            "/a waits for connection `crm`, since @1000 (unavailable: HTTP 503 (breaker.open)); asked again when it \
             works, which costs no attempt until then; gives up at @3601000 and then {then}"
        );
        assert_eq!(said, [expected]);
    }
}

#[test]
fn a_task_that_tries_again_says_when_and_which_attempt() {
    let mut play = Play::of("  - a: {call: crm.get, with: {}}\n", json!({}));
    play = play.answer(down);
    let said = &sentences(&play)[0];
    assert!(said.starts_with("/a waits to ask connection `crm` again, since @1000 (unavailable: down (http.503)); attempt 2 begins at @"), "{said}");
}

#[test]
fn reviews_pauses_and_timeouts_are_told() {
    let tasks = "  - side: {fork: {branches: [{w: {wait: {seconds: 9}}}, {c: {call: chat.post, with: {}, timeout: {after: {seconds: 5}}}}, {t: {try: [{no: {raise: {error: {type: t, status: 500}}}}], catch: {retry: {delay: {seconds: 3}, limit: {attempt: {count: 3}}}}}}]}}\n";
    let mut play = Play::of(tasks, json!({}));
    play = play.answer(|_| {
        let failure = Failure::new(Class::Timeout, "timeout", "no answer");
        Err(failure.with_effect(crate::failure::EffectState::Unknown))
    });
    let said = sentences(&play);
    assert_eq!(said.len(), 3, "{said:?}");
    assert!(said[0].starts_with("/side/c waits for a person's decision, since @1000 (timeout: no answer (timeout)); goes on as they decide; gives up at @6000 and then fails, because"), "{said:?}");
    assert!(
        said[1].starts_with(
            "/side/t waits to try again, since @1000; tries the tasks again (attempt 2) at @"
        ),
        "{said:?}"
    );
    assert_eq!(
        said[2],
        "/side/w waits for an instant, since @1000; goes on at @10000"
    );
}

#[test]
fn runs_that_are_suspended_or_queued_say_so_and_ended_ones_say_nothing() {
    let mut play = Play::of("  - w: {wait: {seconds: 9}}\n", json!({}));
    play.tell(Event::Suspended {
        reason: Some("audit".into()),
    });
    assert_eq!(
        sentences(&play),
        [" is suspended, since @1000 (audit); goes on when somebody resumes it"]
    );
    play.tell(Event::Cancelled {
        reason: None,
        compensate: false,
    });
    assert!(sentences(&play).is_empty());
}
