//! Backoffs of unknown outcomes, waits, second attempts, reviews: pair by pair.

use super::*;
use crate::retry::Jitter;
use crate::workflow::OnDeadline;

/// A plan whose delays are not drawn.
fn steady(effect: Effect) -> Plan {
    Plan {
        backoff: Backoff {
            jitter: Jitter::None,
            ..Backoff::default()
        },
        ..plan(effect)
    }
}

fn old(effect: Effect) -> Plan {
    Plan {
        semantics: 1,
        ..steady(effect)
    }
}

fn nobody_knows() -> Failure {
    Failure::new(Class::Internal, "http.body", "?").with_effect(EffectState::Unknown)
}

fn expired() -> Failure {
    Failure::new(Class::Unauthenticated, "http.401", "expired")
}

fn limited(retry_after_ms: u32) -> Failure {
    Failure {
        retry_after_ms: Some(retry_after_ms),
        ..Failure::new(Class::RateLimited, "http.429", "slow down")
    }
}

fn at(state: State, now_ms: u64, event: Event, plan: &Plan) -> State {
    state.step(event, now_ms, plan).unwrap()
}

fn fails_at(state: State, now_ms: u64, failure: Failure, plan: &Plan) -> State {
    let begun = at(state, now_ms, Event::Started, plan);
    at(begun, now_ms, Event::Failed(failure, 0), plan)
}

#[test]
fn a_call_of_unknown_outcome_is_repeated_after_its_backoff() {
    let plan = steady(Effect::Idempotent);
    let state = run(&plan, failed(nobody_knows()));
    assert_eq!(
        (state.phase.name(), state.due_ms()),
        ("backing off", Some(1_000))
    );
    let again = at(state, 1_000, Event::Due, &plan);
    assert_eq!(
        fails_at(again, 1_000, nobody_knows(), &plan).due_ms(),
        Some(3_000)
    );
}

#[test]
fn a_run_that_began_by_older_rules_keeps_them() {
    let repeated = run(&old(Effect::Idempotent), failed(nobody_knows()));
    assert_eq!(repeated.phase.name(), "ready");
    let ended = run(&old(Effect::Read), failed(expired()));
    assert_eq!(ended.phase.name(), "exhausted");
    let mut plan = old(Effect::Once);
    plan.attempts_max = 1;
    assert_eq!(run(&plan, failed(limited(90_000))).due_ms(), Some(60_000));
}

#[test]
fn what_was_asked_to_wait_beyond_its_deadline_does_not_ask_at_the_deadline() {
    let mut plan = steady(Effect::Once);
    plan.attempts_max = 1;
    let waits = run(&plan, failed(limited(50_000)));
    assert_eq!(waits.due_ms(), Some(50_000));
    let ended = run(&plan, failed(limited(90_000)));
    assert_eq!((ended.phase.name(), ended.attempts), ("exhausted", 1));
}

#[test]
fn a_limit_that_lasts_is_asked_no_oftener_than_told_and_ends_at_the_parking_deadline() {
    let plan = steady(Effect::Read);
    let (mut state, mut asked, mut now_ms) = (State::new(&plan, 0), Vec::new(), 0);
    while state.phase.name() != "exhausted" {
        asked.push(now_ms);
        state = fails_at(state, now_ms, limited(20_000), &plan);
        if let Some(due_ms) = state.due_ms() {
            now_ms = due_ms;
            state = at(state, now_ms, Event::Due, &plan);
        }
    }
    // Three attempts; then it waits for a minute at most, and what it was told goes beyond that.
    assert_eq!(asked, [0, 20_000, 40_000, 60_000, 80_000, 100_000]);
    assert_eq!(state.attempts, 6);
}

#[test]
fn credentials_that_are_not_accepted_go_to_a_backup_and_then_park() {
    let mut plan = steady(Effect::Once);
    plan.connections.push("crm-eu".into());
    let state = run(&plan, failed(expired()));
    assert_eq!(
        (state.phase.name(), state.connection(&plan)),
        ("ready", "crm-eu")
    );
    let state = fails_at(state, 0, expired(), &plan);
    assert_eq!(
        (state.phase.name(), state.connection(&plan)),
        ("parked", "crm")
    );
    assert_eq!(at(state, 5, Event::Recovered, &plan).phase, Phase::Ready);
}

#[test]
fn a_task_that_cannot_begin_in_time_ends() {
    let mut plan = steady(Effect::Read);
    plan.schedule_to_start_ms = Some(5_000);
    let waiting = State::new(&plan, 0);
    assert_eq!(waiting.due_ms(), Some(5_000));
    let ended = at(waiting, 5_000, Event::Due, &plan);
    assert!(
        matches!(&ended.phase, Phase::Exhausted { failure, fallback: true } if failure.code == "timeout.schedule-to-start")
    );
    let parked = run(&plan, [Event::Refused(unavailable())]);
    assert_eq!(parked.due_ms(), Some(5_000));
    let ended = at(parked, 5_000, Event::Due, &plan);
    assert_eq!(ended.phase.name(), "exhausted");
}

#[test]
fn a_task_that_has_begun_is_not_bound_by_the_time_to_begin() {
    let mut plan = steady(Effect::Read);
    plan.schedule_to_start_ms = Some(5_000);
    assert_eq!(run(&plan, [Event::Started]).due_ms(), None);
    let mut events = Vec::from(failed(unavailable()));
    for _ in 0..2 {
        events.push(Event::Due);
        events.extend(failed(unavailable()));
    }
    let parked = run(&plan, events);
    assert_eq!(
        (parked.phase.name(), parked.due_ms()),
        ("parked", Some(60_000))
    );
}

#[test]
fn the_first_rule_that_fits_a_failure_says_how_it_is_retried() {
    let rule = |class, codes: &[&str], attempts_max, initial_ms| Rule {
        classes: vec![class],
        codes: codes.iter().map(|c| (*c).to_owned()).collect(),
        attempts_max,
        backoff: Some(Backoff {
            initial_ms,
            ..steady(Effect::Read).backoff
        }),
    };
    let mut plan = steady(Effect::Read);
    plan.retries = vec![
        rule(Class::Unavailable, &["http.502"], Some(9), 10),
        rule(Class::Unavailable, &[], Some(1), 20),
        rule(Class::Timeout, &[], None, 30),
    ];
    let due = |class, code: &str| run(&plan, failed(Failure::new(class, code, "x"))).due_ms();
    assert_eq!(due(Class::Unavailable, "http.502"), Some(10));
    assert_eq!(due(Class::Timeout, "x"), Some(30));
    assert_eq!(due(Class::RateLimited, "x"), Some(1_000));
    let once = run(&plan, failed(unavailable()));
    assert_eq!(once.phase.name(), "parked");
}

fn hedging(effect: Effect) -> Plan {
    let mut plan = steady(effect);
    plan.hedge_ms = Some(200);
    plan.connections.push("crm-eu".into());
    plan
}

/// An attempt with a second one beside it.
fn pair(plan: &Plan) -> State {
    let state = run(plan, [Event::Started]);
    assert_eq!(state.due_ms(), Some(200));
    let state = at(state, 200, Event::Due, plan);
    assert_eq!((&state.hedge, state.due_ms()), (&Hedge::Asked, None));
    at(state, 200, Event::Hedge(HedgeEvent::Started), plan)
}

fn second(failure: Failure) -> Event {
    Event::Hedge(HedgeEvent::Failed(failure, 0))
}

#[test]
fn a_second_attempt_of_a_read_goes_to_the_next_connection_and_may_win() {
    let plan = hedging(Effect::Read);
    let won = Event::Hedge(HedgeEvent::Succeeded(json!(2)));
    let state = at(pair(&plan), 300, won, &plan);
    assert_eq!(state.phase.name(), "succeeded");
    assert_eq!((state.connection(&plan), state.attempts), ("crm-eu", 2));
    let state = at(pair(&plan), 300, Event::Succeeded(json!(1)), &plan);
    assert_eq!(state.connection(&plan), "crm");
}

#[test]
fn a_second_attempt_with_an_effect_stays_where_the_first_is() {
    let plan = hedging(Effect::Idempotent);
    let won = Event::Hedge(HedgeEvent::Succeeded(json!(2)));
    assert_eq!(at(pair(&plan), 300, won, &plan).connection(&plan), "crm");
}

#[test]
fn a_once_action_gets_no_second_attempt() {
    let plan = hedging(Effect::Once);
    assert_eq!(run(&plan, [Event::Started]).due_ms(), None);
}

#[test]
fn a_failure_counts_when_the_other_attempt_has_failed_too() {
    let plan = hedging(Effect::Idempotent);
    let first = at(pair(&plan), 300, Event::Failed(unavailable(), 0), &plan);
    assert_eq!(first.phase, Phase::InFlight);
    let state = at(first, 300, second(unavailable()), &plan);
    // Two attempts of three are used up, and the delay is that after two.
    assert_eq!((state.failed_here, state.due_ms()), (2, Some(2_300)));
    let alone = at(pair(&plan), 300, second(unavailable()), &plan);
    assert_eq!(
        (&alone.phase, &alone.hedge),
        (&Phase::InFlight, &Hedge::Off)
    );
    let state = at(alone, 300, Event::Failed(unavailable(), 0), &plan);
    assert_eq!((state.failed_here, state.due_ms()), (2, Some(2_300)));
}

#[test]
fn what_either_of_two_attempts_may_have_left_behind_keeps_the_call_where_it_is() {
    let mut plan = hedging(Effect::Idempotent);
    plan.attempts_max = 1;
    let sent = || unavailable().with_effect(EffectState::Unknown);
    for (one, other) in [(sent(), unavailable()), (unavailable(), sent())] {
        let state = at(pair(&plan), 300, Event::Failed(one, 0), &plan);
        let state = at(state, 300, second(other), &plan);
        assert_eq!(
            (state.phase.name(), state.connection(&plan)),
            ("parked", "crm")
        );
    }
}

#[test]
fn two_attempts_that_are_lost_are_one_unknown_outcome() {
    let plan = hedging(Effect::Idempotent);
    let state = at(pair(&plan), 300, Event::Lost, &plan);
    assert_eq!(state.phase, Phase::InFlight);
    let state = at(state, 300, Event::Hedge(HedgeEvent::Lost), &plan);
    assert_eq!((&state.phase, state.tainted), (&Phase::Ready, true));
}

#[test]
fn an_attempt_that_failed_counts_although_the_one_beside_it_was_lost() {
    let lost = || Event::Hedge(HedgeEvent::Lost);
    let mut plan = hedging(Effect::Idempotent);
    plan.attempts_max = 1;
    let fails = |failure: Failure, plan: &Plan| {
        let state = at(pair(plan), 300, Event::Failed(failure, 0), plan);
        at(state, 300, lost(), plan)
    };
    let spent = fails(unavailable(), &plan);
    assert_eq!((spent.phase.name(), spent.failed_here), ("parked", 1));
    let denied = Failure::new(Class::Denied, "http.403", "no");
    assert_eq!(fails(denied, &plan).phase.name(), "exhausted");
    plan.attempts_max = 2;
    let spent = fails(unavailable(), &plan);
    assert_eq!((spent.phase.name(), spent.failed_here), ("ready", 1));
    // Who said how long to wait is not asked sooner.
    assert_eq!(fails(limited(50_000), &plan).due_ms(), Some(50_300));
    // What is wrong about the call itself is as wrong of a read that was made twice.
    let reads = hedging(Effect::Read);
    let denied = Failure::new(Class::Denied, "http.403", "no");
    assert_eq!(fails(denied, &reads).phase.name(), "exhausted");
    for class in [Class::Unauthenticated, Class::Unavailable] {
        let failure = Failure::new(class, "x", "no");
        for plan in [&reads, &plan] {
            let mut plan = plan.clone();
            plan.attempts_max = 1;
            plan.connections.truncate(1);
            let name = fails(failure.clone(), &plan).phase.name();
            assert_eq!(name, "parked", "{class:?} of {:?}", plan.effect);
        }
    }
    // Nobody saw either end: nothing counts.
    let both = at(pair(&plan), 300, Event::Lost, &plan);
    assert_eq!(at(both, 300, lost(), &plan).failed_here, 0);

    plan.attempts_max = 1;
    plan.semantics = 2;
    let old = fails(unavailable(), &plan);
    assert_eq!((old.phase.name(), old.failed_here), ("ready", 0));
}

#[test]
fn a_second_attempt_that_is_refused_leaves_the_first_alone() {
    let plan = hedging(Effect::Read);
    let state = run(&plan, [Event::Started, Event::Due]);
    let state = at(state, 200, Event::Hedge(HedgeEvent::Refused), &plan);
    assert_eq!((state.attempts, state.due_ms()), (1, None));
    let state = at(state, 300, Event::Failed(unavailable(), 0), &plan);
    assert_eq!(state.phase.name(), "backing off");
    // The next attempt may have one again.
    let state = at(state, 2_000, Event::Due, &plan);
    let state = at(state, 2_000, Event::Started, &plan);
    assert_eq!(state.due_ms(), Some(2_200));
}

#[test]
fn nothing_happens_to_a_second_attempt_that_there_is_not() {
    let plan = hedging(Effect::Read);
    let state = run(&plan, [Event::Started]);
    let won = Event::Hedge(HedgeEvent::Succeeded(json!(2)));
    let error = state.step(won, 0, &plan).unwrap_err().to_string();
    assert!(error.contains("second attempt"), "{error}");
}

fn reviewed(on_deadline: OnDeadline, escalate_to: &[&str]) -> Plan {
    let mut plan = steady(Effect::Once);
    plan.review = ReviewPolicy {
        deadline_ms: Some(1_000),
        on_deadline,
        escalate_to: escalate_to.iter().map(|n| (*n).to_owned()).collect(),
    };
    plan
}

#[test]
fn a_review_that_nobody_decides_is_rejected_at_its_deadline() {
    let plan = reviewed(OnDeadline::Reject, &[]);
    let state = run(&plan, [Event::Started, Event::Lost]);
    assert_eq!(
        (state.phase.name(), state.due_ms()),
        ("in review", Some(1_000))
    );
    let state = at(state, 1_000, Event::Due, &plan);
    assert!(
        matches!(&state.phase, Phase::Exhausted { failure, fallback: false } if failure.message.contains("in time"))
    );
}

#[test]
fn a_review_goes_from_one_to_the_next_and_the_last_has_all_the_time_there_is() {
    let plan = reviewed(OnDeadline::Escalate, &["lead", "head"]);
    let mut state = run(&plan, [Event::Started, Event::Lost]);
    let mut seen = Vec::new();
    while let Some(due_ms) = state.due_ms() {
        seen.push((due_ms, state.reviewer(&plan).map(str::to_owned)));
        state = at(state, due_ms, Event::Due, &plan);
    }
    assert_eq!(seen, [(1_000, None), (2_000, Some("lead".into()))]);
    assert_eq!(state.reviewer(&plan), Some("head"));
    let decided = Event::Decided(Decision::Answer { output: json!(1) });
    let state = at(state, 9_000, decided, &plan);
    assert_eq!((state.phase.name(), state.escalations), ("succeeded", 0));
}

#[test]
fn an_output_can_be_accepted_only_where_there_is_one_to_look_at() {
    let plan = steady(Effect::Once);
    let none = run(&plan, [Event::Started, Event::Lost]);
    let accepted = none.step(Event::Decided(Decision::Accept), 0, &plan);
    assert!(accepted.unwrap_err().is_in_review());
    let mut held = State::new(&plan, 0);
    held.ask(nobody_knows(), Some(json!({"id": 7})), 0, &plan);
    // It has happened: again would be twice.
    let again = held.clone().step(Event::Decided(Decision::Retry), 0, &plan);
    assert!(again.unwrap_err().is_in_review());
    let taken = at(held, 0, Event::Decided(Decision::Accept), &plan);
    let expected = Phase::Succeeded {
        output: json!({"id": 7}),
        manual: false,
    };
    assert_eq!((taken.phase, taken.accepted), (expected, true));
}
