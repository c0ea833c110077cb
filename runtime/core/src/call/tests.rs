use super::*;
use crate::descriptor::Effect;
use crate::failure::Class;
use proptest::prelude::*;
use serde_json::json;

fn plan(effect: Effect) -> Plan {
    Plan {
        effect,
        lookup: false,
        connections: vec!["crm".into()],
        attempts_max: 3,
        backoff: Backoff::default(),
        on_outage: OnOutage::Park {
            deadline_ms: 60_000,
        },
        on_unknown: None,
        schedule_to_close_ms: 3_600_000,
        schedule_to_start_ms: None,
        hedge_ms: None,
        retries: Vec::new(),
        review: ReviewPolicy::default(),
        semantics: crate::run::SEMANTICS,
    }
}

fn run(plan: &Plan, events: impl IntoIterator<Item = Event>) -> State {
    events
        .into_iter()
        .fold(State::new(plan, 0), |state, event| {
            state.step(event, 0, plan).unwrap()
        })
}

fn unavailable() -> Failure {
    Failure::new(Class::Unavailable, "http.503", "down")
}

fn failed(failure: Failure) -> [Event; 2] {
    [Event::Started, Event::Failed(failure, 0)]
}

#[test]
fn a_transient_failure_is_retried_and_then_parked() {
    let plan = plan(Effect::Read);
    let mut events = Vec::new();
    for _ in 0..2 {
        events.extend(failed(unavailable()));
        events.push(Event::Due);
    }
    events.extend(failed(unavailable()));
    let state = run(&plan, events);
    assert_eq!((state.phase.name(), state.attempts), ("parked", 3));
}

#[test]
fn a_logical_failure_is_never_retried() {
    for class in [
        Class::InvalidInput,
        Class::Denied,
        Class::NotFound,
        Class::Conflict,
        Class::Refused,
    ] {
        let state = run(&plan(Effect::Read), failed(Failure::new(class, "x", "x")));
        assert_eq!(
            (state.phase.name(), state.attempts),
            ("exhausted", 1),
            "{class}"
        );
    }
}

#[test]
fn a_refusal_uses_up_no_attempt_and_parks() {
    let state = run(&plan(Effect::Once), [Event::Refused(unavailable())]);
    assert_eq!((state.phase.name(), state.attempts), ("parked", 0));
}

#[test]
fn a_once_call_that_may_have_happened_goes_to_review() {
    let failure = Failure::new(Class::Timeout, "timeout", "late").with_effect(EffectState::Unknown);
    assert_eq!(
        run(&plan(Effect::Once), failed(failure)).phase.name(),
        "in review"
    );
    assert_eq!(
        run(&plan(Effect::Once), [Event::Started, Event::Lost])
            .phase
            .name(),
        "in review"
    );
}

#[test]
fn a_lost_keyed_call_is_repeated_and_a_lookup_is_preferred() {
    let mut keyed = plan(Effect::Idempotent);
    assert_eq!(
        run(&keyed, [Event::Started, Event::Lost]).phase.name(),
        "ready"
    );
    keyed.lookup = true;
    let state = run(&keyed, [Event::Started, Event::Lost]);
    assert_eq!(state.phase.name(), "looking up");
    let found = Event::LookedUp(Lookup::Found { output: json!(1) }, 0);
    assert_eq!(
        state.step(found, 0, &keyed).unwrap().phase.name(),
        "succeeded"
    );
}

#[test]
fn a_call_that_may_have_happened_is_not_sent_to_a_backup() {
    let mut keyed = plan(Effect::Idempotent);
    keyed.attempts_max = 1;
    keyed.connections.push("crm-eu".into());
    let sent = unavailable().with_effect(EffectState::Unknown);
    assert_eq!(run(&keyed, failed(sent)).connection(&keyed), "crm");
    assert_eq!(
        run(&keyed, failed(unavailable())).connection(&keyed),
        "crm-eu"
    );
}

#[test]
fn a_parked_task_ends_at_its_deadline_also_after_it_was_woken_between() {
    let plan = plan(Effect::Read);
    let parked = run(&plan, [Event::Refused(unavailable())]);
    let woken = parked.step(Event::Recovered, 59_000, &plan).unwrap();
    let again = woken
        .step(Event::Refused(unavailable()), 59_500, &plan)
        .unwrap();
    assert_eq!(again.due_ms(), Some(60_000));
    let ended = again.step(Event::Due, 60_000, &plan).unwrap();
    assert_eq!(ended.phase.name(), "exhausted");
}

#[test]
fn an_output_that_is_looked_at_is_not_asked_for_elsewhere() {
    let mut keyed = plan(Effect::Idempotent);
    keyed.attempts_max = 1;
    keyed.connections.push("crm-eu".into());
    let wanted_again = |held: Option<Value>| {
        let mut state = run(&keyed, [Event::Started, Event::Succeeded(json!(1))]);
        let failure = Failure::new(Class::Refused, "output.validate", "no");
        state.ask(failure, held, 0, &keyed);
        let [started, failed] = failed(unavailable());
        [Event::Decided(Decision::Retry), started, failed]
            .into_iter()
            .fold(state, |state, event| state.step(event, 0, &keyed).unwrap())
    };
    let state = wanted_again(Some(json!(1)));
    assert_eq!(
        (state.phase.name(), state.connection(&keyed)),
        ("parked", "crm")
    );
    let state = wanted_again(None);
    assert_eq!(
        (state.phase.name(), state.connection(&keyed)),
        ("ready", "crm-eu")
    );
}

#[test]
fn a_call_that_too_many_ends_of_the_runtime_found_under_way_goes_to_review() {
    for effect in [Effect::Idempotent, Effect::Read] {
        let plan = plan(effect);
        let lost = |state: State| {
            [Event::Started, Event::Lost]
                .into_iter()
                .fold(state, |state, event| state.step(event, 0, &plan).unwrap())
        };
        let mut state = State::new(&plan, 0);
        for _ in 1..LOST_MAX {
            state = lost(state);
            assert_eq!(state.phase.name(), "ready");
        }
        let state = lost(state);
        assert_eq!(
            (state.phase.name(), state.attempts),
            ("in review", LOST_MAX)
        );
        let again = state.step(Event::Decided(Decision::Retry), 0, &plan);
        assert_eq!(lost(again.unwrap()).phase.name(), "ready");
    }
}

#[test]
fn an_illegal_event_names_both_sides() {
    let plan = plan(Effect::Read);
    let error = State::new(&plan, 0).step(Event::Due, 0, &plan).unwrap_err();
    assert_eq!(
        error.to_string(),
        "a call task cannot take due while it is ready"
    );
}

fn any_failure() -> impl Strategy<Value = Failure> {
    (
        0..Class::ALL.len(),
        0..3usize,
        prop::option::of(0..10_000u32),
    )
        .prop_map(|(class, effect, after)| {
            let effect = [
                EffectState::None,
                EffectState::Unknown,
                EffectState::Applied,
            ][effect];
            Failure {
                retry_after_ms: after,
                ..Failure::new(Class::ALL[class], "x", "x").with_effect(effect)
            }
        })
}

fn deferring() -> Plan {
    Plan {
        on_outage: OnOutage::QueueAndForward {
            deliver_within_ms: 90_000,
        },
        ..plan(Effect::Once)
    }
}

#[test]
fn a_call_that_is_refused_is_left_to_the_outbox_and_the_task_has_nothing_more_to_do() {
    let plan = deferring();
    let state = run(&plan, [Event::Refused(unavailable())]);
    assert_eq!((state.phase.name(), state.attempts), ("deferring", 0));
    let state = state.step(Event::Deferred, 0, &plan).unwrap();
    assert_eq!((state.phase.name(), state.due_ms()), ("deferred", None));
    assert!(state.step(Event::Due, 1, &plan).is_err());
}

#[test]
fn without_room_in_the_outbox_it_parks_for_as_long() {
    let plan = deferring();
    let events = [Event::Refused(unavailable()), Event::NotDeferred];
    let state = run(&plan, events);
    assert_eq!(
        (state.phase.name(), state.due_ms()),
        ("parked", Some(90_000))
    );
}

#[test]
fn every_backup_is_tried_before_a_call_is_left_to_the_outbox_of_the_first() {
    let mut plan = deferring();
    plan.connections.push("crm-eu".into());
    let refused = || Event::Refused(unavailable());
    let state = run(&plan, [refused()]);
    assert_eq!(
        (state.phase.name(), state.connection(&plan)),
        ("ready", "crm-eu")
    );
    let state = state.step(refused(), 0, &plan).unwrap();
    assert_eq!(
        (state.phase.name(), state.connection(&plan)),
        ("deferring", "crm")
    );
}

#[test]
fn a_once_call_that_may_have_happened_is_never_left_to_the_outbox() {
    let lost = unavailable().with_effect(EffectState::Unknown);
    let state = run(&deferring(), failed(lost));
    assert_eq!(state.phase.name(), "in review");
}

proptest! {
    /// Drives a task with whatever a connector can answer; whatever it answers, a `once` call
    /// that may have happened is not begun again without a lookup that says it did not happen.
    #[test]
    fn a_once_call_never_happens_twice(
        failures in prop::collection::vec(any_failure(), 1..20), lookup: bool, lose: bool, defers: bool,
    ) {
        let mut plan = plan(Effect::Once);
        if defers {
            plan.on_outage = OnOutage::QueueAndForward { deliver_within_ms: 60_000 };
        }
        plan.lookup = lookup;
        plan.connections.push("backup".into());
        let (mut state, mut may_have_happened, mut now_ms) = (State::new(&plan, 0), false, 0);
        for failure in failures {
            now_ms += 1_000;
            let event = match &state.phase {
                Phase::Ready => Event::Started,
                Phase::InFlight if lose => { may_have_happened = true; Event::Lost }
                Phase::InFlight => {
                    may_have_happened |= failure.effect != EffectState::None;
                    Event::Failed(failure, 7)
                }
                Phase::Backoff { .. } => Event::Due,
                Phase::Parked { .. } => Event::Recovered,
                Phase::LookingUp { .. } if failure.class.is_transient() => {
                    Event::LookedUp(Lookup::Failed { failure }, 1)
                }
                Phase::LookingUp { .. } => { may_have_happened = false; Event::LookedUp(Lookup::Absent, 1) }
                // With room in the outbox it would be gone; without, it goes on.
                Phase::Deferring { .. } => Event::NotDeferred,
                Phase::Review { .. }
                | Phase::Deferred
                | Phase::Succeeded { .. }
                | Phase::Exhausted { .. } => break,
            };
            prop_assert!(!(event == Event::Started && may_have_happened));
            state = state.step(event, now_ms, &plan).unwrap();
        }
    }
}

mod patterns;
