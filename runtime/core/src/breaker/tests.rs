use super::*;
use proptest::prelude::*;

const VERDICTS: [Verdict; 5] = [
    Verdict::Success,
    Verdict::Slow,
    Verdict::Failure,
    Verdict::SlowFailure,
    Verdict::Ignored,
];

fn ask(breaker: &mut Breaker, now_ms: u64) -> Option<Permit> {
    let effects = breaker.step(Event::Asked, now_ms);
    effects.iter().find_map(|e| match e {
        Effect::Permitted(permit) => Some(*permit),
        Effect::Rejected { .. } | Effect::Changed { .. } => None,
    })
}

fn call(breaker: &mut Breaker, verdict: Verdict, now_ms: u64) {
    let permit = ask(breaker, now_ms).unwrap();
    breaker.step(Event::Ended(permit, verdict), now_ms);
}

fn breaker(config: Config) -> Breaker {
    config.validate().unwrap();
    Breaker::new(config)
}

fn opened_as(config: Config) -> Breaker {
    let mut breaker = breaker(config);
    for _ in 0..5 {
        call(&mut breaker, Verdict::Failure, 0);
    }
    breaker
}

fn opened() -> Breaker {
    opened_as(Config::default())
}

fn name(breaker: &Breaker) -> &'static str {
    breaker.state().name()
}

/// One breaker in each state, with a permit of that state's generation.
fn in_each_state(config: Config) -> Vec<(Breaker, Permit)> {
    let mut half = opened_as(config);
    ask(&mut half, 5_000).unwrap();
    let mut forced = breaker(config);
    forced.step(Event::ForcedOpen, 0);
    let mut disabled = breaker(config);
    disabled.step(Event::Disabled, 0);
    [breaker(config), opened_as(config), half, forced, disabled]
        .into_iter()
        .map(|breaker| {
            let generation = breaker.generation;
            (breaker, Permit { generation })
        })
        .collect()
}

#[test]
fn every_pair_of_state_and_event_leads_where_it_is_written() {
    let events = |permit| {
        [
            Event::Asked,
            Event::Ended(permit, Verdict::Success),
            Event::Ended(permit, Verdict::Failure),
            Event::Ended(permit, Verdict::Ignored),
            Event::Elapsed,
            Event::ForcedOpen,
            Event::Disabled,
            Event::Reset,
        ]
    };
    let table = [
        [
            "Closed",
            "Closed",
            "Closed",
            "Closed",
            "Closed",
            "ForcedOpen",
            "Disabled",
            "Closed",
        ],
        [
            "HalfOpen",
            "Open",
            "Open",
            "Open",
            "Open",
            "ForcedOpen",
            "Disabled",
            "Closed",
        ],
        [
            "HalfOpen",
            "HalfOpen",
            "Open",
            "HalfOpen",
            "HalfOpen",
            "ForcedOpen",
            "Disabled",
            "Closed",
        ],
        [
            "ForcedOpen",
            "ForcedOpen",
            "ForcedOpen",
            "ForcedOpen",
            "ForcedOpen",
            "ForcedOpen",
            "Disabled",
            "Closed",
        ],
        [
            "Disabled",
            "Disabled",
            "Disabled",
            "Disabled",
            "Disabled",
            "ForcedOpen",
            "Disabled",
            "Closed",
        ],
    ];
    for ((before, permit), row) in in_each_state(Config::default()).into_iter().zip(table) {
        for (event, expected) in events(permit).into_iter().zip(row) {
            let mut after = before.clone();
            after.step(event, 6_000);
            assert_eq!(name(&after), expected, "{} and {event:?}", name(&before));
        }
    }
}

#[test]
fn it_opens_at_the_threshold_and_not_before_the_minimum() {
    let mut four = breaker(Config::default());
    for _ in 0..4 {
        call(&mut four, Verdict::Failure, 0);
    }
    assert_eq!(name(&four), "Closed");
    assert_eq!(name(&opened()), "Open");
}

#[test]
fn it_rejects_until_the_wait_is_over_then_probes_and_closes() {
    let mut breaker = opened();
    assert_eq!(ask(&mut breaker, 4_999), None);
    for _ in 0..3 {
        call(&mut breaker, Verdict::Success, 5_000);
    }
    assert_eq!(name(&breaker), "Closed");
}

#[test]
fn a_failed_probe_opens_it_again() {
    for verdict in [Verdict::Failure, Verdict::SlowFailure] {
        let mut breaker = opened();
        call(&mut breaker, verdict, 5_000);
        assert_eq!(breaker.probe_due_ms(), Some(10_000));
    }
}

#[test]
fn probes_that_are_all_slow_open_it_again() {
    let mut breaker = opened();
    for _ in 0..3 {
        call(&mut breaker, Verdict::Slow, 5_000);
    }
    assert_eq!(name(&breaker), "Open");
}

#[test]
fn slow_calls_open_it_at_their_own_threshold_failed_ones_included() {
    let config = Config {
        slow_call_rate_threshold_ratio: 0.4,
        failure_rate_threshold_ratio: 1.0,
        ..Config::default()
    };
    let mut breaker = breaker(config);
    for verdict in [
        Verdict::Success,
        Verdict::Slow,
        Verdict::Success,
        Verdict::Success,
    ] {
        call(&mut breaker, verdict, 0);
    }
    assert_eq!(name(&breaker), "Closed");
    call(&mut breaker, Verdict::SlowFailure, 0);
    assert_eq!(name(&breaker), "Open");
}

#[test]
fn half_open_gives_no_more_permits_than_configured() {
    let mut breaker = opened();
    let given = (0..10).filter(|_| ask(&mut breaker, 5_000).is_some());
    assert_eq!(given.count(), 3);
}

#[test]
fn half_open_that_does_not_decide_in_time_opens_again() {
    let config = Config {
        max_wait_duration_in_half_open_state_ms: 1_000,
        ..Config::default()
    };
    let mut breaker = opened_as(config);
    let late = ask(&mut breaker, 5_000).unwrap();
    assert_eq!(breaker.due_ms(), Some(6_000));
    assert_eq!(breaker.step(Event::Elapsed, 5_999), []);
    breaker.step(Event::Elapsed, 6_000);
    assert_eq!(
        (name(&breaker), breaker.probe_due_ms()),
        ("Open", Some(11_000))
    );
    // The probe that hung does not close what has opened since.
    assert_eq!(
        breaker.step(Event::Ended(late, Verdict::Success), 6_001),
        []
    );
}

#[test]
fn without_a_longest_time_half_open_waits() {
    let mut breaker = opened();
    ask(&mut breaker, 5_000).unwrap();
    assert_eq!(breaker.due_ms(), None);
    assert_eq!(breaker.step(Event::Elapsed, u64::MAX), []);
}

#[test]
fn with_the_automatic_transition_it_needs_no_call_to_become_half_open() {
    let config = Config {
        automatic_transition_from_open_to_half_open_enabled: true,
        ..Config::default()
    };
    let mut automatic = opened_as(config);
    assert_eq!(automatic.due_ms(), Some(5_000));
    automatic.step(Event::Elapsed, 5_000);
    assert_eq!(name(&automatic), "HalfOpen");
    let mut asked = opened();
    asked.step(Event::Elapsed, 5_000);
    assert_eq!((name(&asked), asked.due_ms()), ("Open", None));
}

#[test]
fn a_window_of_time_forgets_what_is_older() {
    let config = Config {
        sliding_window_type: WindowType::TimeBased,
        sliding_window_size: 10,
        ..Config::default()
    };
    let mut old = breaker(config);
    for second in 0..4 {
        call(&mut old, Verdict::Failure, second * 1_000);
    }
    // The first failure has left the window when the fifth call comes: four calls are too few.
    call(&mut old, Verdict::Failure, 10_000);
    assert_eq!(name(&old), "Closed");
    call(&mut old, Verdict::Failure, 10_000);
    assert_eq!(name(&old), "Open");
}

#[test]
fn in_a_window_of_time_a_burst_of_good_calls_outweighs_failures() {
    let config = Config {
        sliding_window_type: WindowType::TimeBased,
        sliding_window_size: 60,
        ..Config::default()
    };
    let mut breaker = breaker(config);
    for _ in 0..1_000 {
        call(&mut breaker, Verdict::Success, 500);
    }
    for _ in 0..999 {
        call(&mut breaker, Verdict::Failure, 30_000);
    }
    assert_eq!(name(&breaker), "Closed");
    call(&mut breaker, Verdict::Failure, 30_000);
    assert_eq!(name(&breaker), "Open");
}

#[test]
fn a_result_from_before_a_transition_moves_nothing() {
    let mut breaker = breaker(Config::default());
    let old = ask(&mut breaker, 0).unwrap();
    for _ in 0..5 {
        call(&mut breaker, Verdict::Failure, 0);
    }
    ask(&mut breaker, 5_000).unwrap();
    let effects = breaker.step(Event::Ended(old, Verdict::Failure), 5_000);
    assert_eq!((name(&breaker), effects.len()), ("HalfOpen", 0));
}

#[test]
fn values_that_could_never_decide_are_refused_by_name() {
    let base = Config::default();
    let timed = Config {
        sliding_window_type: WindowType::TimeBased,
        ..base
    };
    for (config, key) in [
        (
            Config {
                sliding_window_size: 0,
                ..base
            },
            "sliding-window-size",
        ),
        (
            Config {
                sliding_window_size: 10_001,
                ..base
            },
            "sliding-window-size",
        ),
        (
            Config {
                sliding_window_size: 3_601,
                ..timed
            },
            "sliding-window-size",
        ),
        (
            Config {
                minimum_number_of_calls: 21,
                ..base
            },
            "minimum-number-of-calls",
        ),
        (
            Config {
                minimum_number_of_calls: 0,
                ..timed
            },
            "minimum-number-of-calls",
        ),
        (
            Config {
                failure_rate_threshold_ratio: 0.0,
                ..base
            },
            "failure-rate-threshold-ratio",
        ),
        (
            Config {
                slow_call_rate_threshold_ratio: 1.1,
                ..base
            },
            "slow-call-rate-threshold-ratio",
        ),
        (
            Config {
                permitted_number_of_calls_in_half_open_state: 0,
                ..base
            },
            "permitted-number-of-calls-in-half-open-state",
        ),
    ] {
        assert_eq!(config.validate().unwrap_err().key, key);
    }
    assert!(
        Config {
            minimum_number_of_calls: 21,
            ..timed
        }
        .validate()
        .is_ok()
    );
}

#[test]
fn what_is_saved_comes_back_in_every_state() {
    for (breaker, _) in in_each_state(Config::default()) {
        let text = serde_json::to_string(&breaker.save()).unwrap();
        let saved: Saved = serde_json::from_str(&text).unwrap();
        let restored = Breaker::restore(Config::default(), &saved, 5_000);
        assert_eq!(name(&restored), name(&breaker), "{text}");
        assert_eq!(restored.probe_due_ms(), breaker.probe_due_ms());
    }
}

#[test]
fn an_open_breaker_is_open_after_a_restart_and_the_time_meanwhile_counts() {
    let saved = opened().save();
    let mut early = Breaker::restore(Config::default(), &saved, 4_000);
    assert_eq!(ask(&mut early, 4_999), None);
    let mut late = Breaker::restore(Config::default(), &saved, 60_000);
    assert!(ask(&mut late, 60_000).is_some());
}

#[test]
fn a_clock_that_was_set_back_does_not_keep_it_open_for_longer_than_configured() {
    let saved = Saved::Open {
        until_ms: 1_000_000,
    };
    let breaker = Breaker::restore(Config::default(), &saved, 1_000);
    assert_eq!(breaker.probe_due_ms(), Some(6_000));
}

#[test]
fn the_failures_before_a_restart_count_after_it() {
    let mut before = breaker(Config::default());
    for _ in 0..4 {
        call(&mut before, Verdict::Failure, 0);
    }
    let mut after = Breaker::restore(Config::default(), &before.save(), 0);
    call(&mut after, Verdict::Failure, 0);
    assert_eq!(name(&after), "Open");
    // Another kind of window begins empty.
    let timed = Config {
        sliding_window_type: WindowType::TimeBased,
        ..Config::default()
    };
    let mut other = Breaker::restore(timed, &before.save(), 0);
    call(&mut other, Verdict::Failure, 0);
    assert_eq!(name(&other), "Closed");
}

proptest! {
    #[test]
    fn a_half_open_breaker_never_gets_stuck(
        events in prop::collection::vec((0u8..6, 0u64..3_000), 1..200), timed: bool, wait_ms in 0u64..3_000,
    ) {
        let config = Config {
            sliding_window_type: if timed { WindowType::TimeBased } else { WindowType::CountBased },
            max_wait_duration_in_half_open_state_ms: wait_ms,
            automatic_transition_from_open_to_half_open_enabled: timed,
            ..Config::default()
        };
        let (mut breaker, mut now_ms, mut held) = (Breaker::new(config), 0, Vec::new());
        for (kind, pause_ms) in events {
            now_ms += pause_ms;
            if kind == 5 {
                held.extend(ask(&mut breaker, now_ms));
            } else if let Some(permit) = held.pop() {
                breaker.step(Event::Ended(permit, VERDICTS[usize::from(kind)]), now_ms);
            }
        }
        for permit in held {
            breaker.step(Event::Ended(permit, Verdict::Ignored), now_ms);
        }
        now_ms += 1_000_000;
        if ask(&mut breaker, now_ms).is_none() {
            // A half-open one whose time was over has opened at this very instant.
            now_ms += 1_000_000;
            prop_assert!(ask(&mut breaker, now_ms).is_some());
        }
    }

    #[test]
    fn the_sums_of_a_window_are_those_of_its_calls(
        calls in prop::collection::vec((0usize..4, 0u64..2_500), 1..300), size in 1usize..30, timed: bool,
    ) {
        let config = Config {
            sliding_window_type: if timed { WindowType::TimeBased } else { WindowType::CountBased },
            sliding_window_size: size,
            ..Config::default()
        };
        let (mut window, mut now_ms, mut all) = (Window::default(), 1_000, Vec::new());
        for (verdict, pause_ms) in calls {
            now_ms += pause_ms;
            window.record(VERDICTS[verdict], &config, now_ms);
            all.push((now_ms / 1_000, VERDICTS[verdict]));
            let counted = all.iter().enumerate().filter(|(n, (second, _))| {
                if timed { second + size as u64 > now_ms / 1_000 } else { n + size >= all.len() }
            });
            let mut sum = Tally::default();
            for (_, (_, verdict)) in counted {
                sum.calls += 1;
                sum.failed += u64::from(matches!(verdict, Verdict::Failure | Verdict::SlowFailure));
                sum.slow += u64::from(matches!(verdict, Verdict::Slow | Verdict::SlowFailure));
            }
            prop_assert_eq!(window.tally(), sum);
            prop_assert_eq!(Window::restore(&window.save(), &config), window.clone());
        }
    }
}
