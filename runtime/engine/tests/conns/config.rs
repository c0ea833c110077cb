//! The configuration of all this: what is read, and what is refused where.

use std::path::Path;
use std::time::Duration;

use cofferdam::{Config, OnOutage, WindowType};

fn parse(lines: &str) -> Result<Config, cofferdam::config::Error> {
    let text = format!("[connections.crm]\nplugin = \"crm\"\n{lines}\n");
    Config::parse(&text, "c.toml", Path::new("/base"))
}

#[test]
fn every_key_is_read() {
    let config = parse(
        r#"
        on-outage = "queue-and-forward"
        deliver-within = "2h"
        outbox = { entries = 7 }
        bulkhead = { queue = 3, max-wait = "2s" }
        health = { interval = "1m", timeout = "4s", unhealthy-threshold = 5, healthy-threshold = 6, slow = "3s" }
        [connections.crm.breaker]
        sliding-window-type = "time-based"
        sliding-window-size = 60
        minimum-number-of-calls = 100
        automatic-transition-from-open-to-half-open-enabled = true
        max-wait-duration-in-half-open-state = "9s"
        "#,
    )
    .unwrap();
    let crm = config.connection("crm").unwrap();
    let deliver_within_ms = 7_200_000;
    assert_eq!(
        crm.binding_policy().on_outage,
        OnOutage::QueueAndForward { deliver_within_ms }
    );
    assert_eq!(crm.outbox_max(), 7);
    assert_eq!(crm.bulkhead().queue_max, 3);
    assert_eq!(crm.bulkhead().max_wait, Duration::from_secs(2));
    let health = crm.health().unwrap();
    assert_eq!((health.interval_ms, health.timeout_ms), (60_000, 4_000));
    assert_eq!(
        (health.unhealthy_threshold, health.healthy_threshold),
        (5, 6)
    );
    assert_eq!(health.slow_ms, Some(3_000));
    let breaker = crm.breaker();
    assert_eq!(breaker.sliding_window_type, WindowType::TimeBased);
    assert_eq!(breaker.minimum_number_of_calls, 100);
    assert!(breaker.automatic_transition_from_open_to_half_open_enabled);
    assert_eq!(breaker.max_wait_duration_in_half_open_state_ms, 9_000);
}

#[test]
fn what_is_out_of_range_is_told_with_the_value_and_the_bounds() {
    for (lines, told) in [
        (
            "breaker.sliding-window-size = 0",
            &[
                "breaker.sliding-window-size`: 0 is out of range",
                "from 1 to 10000 calls",
            ][..],
        ),
        (
            "breaker.failure-rate-threshold-ratio = 0.0",
            &[
                "failure-rate-threshold-ratio`: 0 is out of range",
                "above 0 and at most 1",
            ],
        ),
        (
            "breaker.failure-rate-threshold-ratio = 50",
            &["50 is out of range", "from 0 to 1"],
        ),
        (
            "breaker.minimum-number-of-calls = 30",
            &["30 is out of range", "from 1 to 20 (sliding-window-size)"],
        ),
        (
            // What nobody wrote does not fit what somebody did.
            "breaker.sliding-window-size = 3",
            &[
                "minimum-number-of-calls`: it is 5 as long as nothing is written",
                "from 1 to 3",
            ],
        ),
        (
            "limits.memory = \"1KiB\"",
            &[
                "limits.memory`: \"1KiB\" is out of range",
                "from 128KiB to 256MiB",
            ],
        ),
        (
            "limits.output = \"1GiB\"",
            &["\"1GiB\" is out of range", "from 2B to 64MiB"],
        ),
        (
            "limits.memory = \"-1MiB\"",
            &["\"-1MiB\" is no size", "above zero"],
        ),
        (
            "limits.memory = \"99999999999GiB\"",
            &[
                "\"99999999999GiB\" is no size",
                "at most \"17179869183GiB\"",
            ],
        ),
        (
            "limits.timeout = \"-5s\"",
            &["\"-5s\" is negative", "above zero and at most \"1h\""],
        ),
        (
            "limits.timeout = \"99999999999999999999s\"",
            &["is out of range", "at most \"1h\""],
        ),
        (
            "breaker.slow-call-duration = \"1us\"",
            &["\"1us\" is shorter than a millisecond", "1ms"],
        ),
        (
            "timeout = { start-to-close = \"2m\", schedule-to-close = \"1m\" }",
            &["2m, start-to-close", "1m, schedule-to-close"],
        ),
        (
            "retry = { delay = \"5s\", max-delay = \"1s\" }",
            &[
                "\"1s\" is shorter than the first delay, 5s",
                "at least \"5s\"",
            ],
        ),
        (
            "quarantine = { delay = \"5m\", max-delay = \"1m\" }",
            &["the first delay, 5m, is longer than the longest, 1m"],
        ),
        (
            "hedge = { delay = \"32days\" }",
            &["\"32days\" is out of range", "at most \"31days\""],
        ),
        (
            "health = { timeout = \"1s\", slow = \"2s\" }",
            &["\"2s\" has been given up", "1000 ms"],
        ),
    ] {
        let error = parse(lines).unwrap_err().to_string();
        assert!(error.starts_with("c.toml:"), "{error}");
        assert!(error.contains("\nhelp: "), "{error}");
        for told in told {
            assert!(error.contains(told), "{lines}: lacks {told:?}: {error}");
        }
    }
}

#[test]
fn without_a_health_table_nobody_is_probed() {
    let config = parse("").unwrap();
    let crm = config.connection("crm").unwrap();
    assert_eq!((crm.health(), crm.outbox_max()), (None, 10_000));
}

#[test]
fn what_cannot_be_meant_is_refused_with_its_place_and_a_remedy() {
    for (lines, key, remedy) in [
        (
            "bulkhead = { queues = 1 }",
            "bulkhead.queues",
            "did you mean `queue`",
        ),
        (
            "bulkhead = { max-wait = \"2d\" }",
            "bulkhead.max-wait",
            "at most",
        ),
        (
            "health = { interval = \"0s\" }",
            "health.interval",
            "above zero",
        ),
        (
            "health = { unhealthy-threshold = 0 }",
            "health.unhealthy-threshold",
            "from 1 to",
        ),
        (
            "health = { timeout = \"1s\", slow = \"2s\" }",
            "health.slow",
            "write at most `timeout`",
        ),
        ("outbox = { entries = -1 }", "outbox.entries", "from 0 to"),
        (
            "deliver-within = \"1h\"",
            "deliver-within",
            "queue-and-forward",
        ),
        (
            "on-outage = \"queue-and-forward\"\npark-deadline = \"1h\"",
            "park-deadline",
            "leave it out",
        ),
        ("on-outage = \"queue\"", "on-outage", "queue-and-forward"),
        (
            "breaker = { sliding-window-type = \"time\" }",
            "breaker.sliding-window-type",
            "time-based",
        ),
        (
            "breaker = { sliding-window-type = \"time-based\", sliding-window-size = 4000 }",
            "breaker.sliding-window-size",
            "from 1 to 3600 seconds",
        ),
    ] {
        let error = parse(lines).unwrap_err().to_string();
        assert!(
            error.contains(&format!("connections.crm.{key}")),
            "{lines}: {error}"
        );
        assert!(
            error.contains("c.toml:3") || error.contains("c.toml:4"),
            "{lines}: {error}"
        );
        assert!(error.contains(remedy), "{lines}: {error}");
    }
}
