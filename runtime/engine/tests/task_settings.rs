//! What a connection says of the tasks that call it: read from a file, or refused with its place.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

use std::path::Path;

use cofferdam::{Backoff, Config, OnDeadline, OnExhausted, OnUnknown};
use cofferdam_core::failure::Class;
use cofferdam_core::manifest::Manifest;
use cofferdam_core::retry::Growth;
use cofferdam_core::run::Binding;

fn parse(lines: &str) -> Result<Config, cofferdam::config::Error> {
    let text = format!("[connections.crm]\nplugin = \"hubspot\"\n{lines}");
    Config::parse(&text, "c.toml", Path::new("/base"))
}

fn binding(lines: &str) -> Binding {
    parse(lines)
        .unwrap()
        .connection("crm")
        .unwrap()
        .binding_policy()
}

#[test]
fn every_key_arrives() {
    let lines = r#"
        hedge = { delay = "200ms" }
        cache = { max-age = "1h", entries = 5, bytes = "1MiB" }
        on-unknown = "review"
        on-exhausted = "dead-letter"
        review = { deadline = "4h", escalate-to = ["lead", "head"] }
        timeout = { schedule-to-start = "10s" }
        [connections.crm.retry]
        rules = [
            { class = ["rate-limited"], attempts = 8, delay = "5s", factor = 3, max-delay = "1m" },
            { class = ["timeout", "unavailable"], code = ["http.503"] },
        ]
    "#;
    let config = parse(lines).unwrap();
    let connection = config.connection("crm").unwrap();
    let limits = connection.answer_limits();
    assert_eq!((limits.entries_max, limits.bytes_max), (5, 1 << 20));
    let binding = connection.binding_policy();
    assert_eq!(
        (
            binding.hedge_ms,
            binding.cache_max_age_ms,
            binding.schedule_to_start_ms
        ),
        (Some(200), Some(3_600_000), Some(10_000))
    );
    assert_eq!(binding.on_unknown, Some(OnUnknown::Review));
    assert_eq!(binding.on_exhausted, Some(OnExhausted::DeadLetter));
    assert_eq!(binding.review.deadline_ms, Some(14_400_000));
    assert_eq!(binding.review.on_deadline, OnDeadline::Escalate);
    assert_eq!(binding.review.escalate_to, ["lead", "head"]);
    let [limited, others] = &binding.retries[..] else {
        panic!("{:?}", binding.retries)
    };
    assert_eq!(
        (&limited.classes[..], limited.attempts_max),
        (&[Class::RateLimited][..], Some(8))
    );
    let backoff = Backoff {
        initial_ms: 5_000,
        growth: Growth::Exponential { factor: 3.0 },
        ..Backoff::default()
    };
    assert_eq!(limited.backoff, Some(backoff));
    assert_eq!(
        (others.classes.len(), &*others.codes[0], others.backoff),
        (2, "http.503", None)
    );
}

#[test]
fn what_is_not_there_is_off() {
    assert_eq!(binding(""), Binding::default());
}

#[test]
fn what_cannot_be_is_refused_where_it_stands() {
    let wrong = [
        ("hedge = {}", "c.toml:3:1: CD0203"),
        ("hedge = { delay = \"0s\" }", "CD0205"),
        ("hedge = { after = \"1s\" }", "CD0202"),
        ("cache = { entries = 0 }", "CD0205"),
        ("cache = { maxage = \"1h\" }", "did you mean `max-age`"),
        ("review = { on-deadline = \"reject\" }", "CD0203"),
        (
            "review = { deadline = \"1h\", on-deadline = \"escalate\" }",
            "escalate-to",
        ),
        (
            "review = { deadline = \"1h\", on-deadline = \"reject\", escalate-to = [\"a\"] }",
            "escalate-to",
        ),
        (
            "review = { deadline = \"1h\", escalate-to = [] }",
            "1 to 16",
        ),
        ("on-unknown = \"retry\"", "CD0205"),
        ("on-exhausted = \"deadLetter\"", "dead-letter"),
        (
            "retry.rules = [{ class = [\"conflict\"] }]",
            "c.toml:3:27: CD0205",
        ),
        ("retry.rules = [{ class = [] }]", "1 to 16"),
        ("retry.rules = [{ attempts = 0 }]", "CD0205"),
        ("retry.rules = [{ when = \"x\" }]", "CD0202"),
    ];
    for (lines, told) in wrong {
        let error = parse(lines)
            .err()
            .map(|e| e.to_string())
            .unwrap_or_default();
        assert!(error.contains(told), "{lines}\n{error}");
    }
}

#[test]
fn a_language_model_gets_five_attempts_unless_somebody_says_otherwise() {
    let manifest = |kind: &str| {
        let text = format!("name = \"model\"\nversion = \"1.0.0\"\n{kind}");
        Manifest::parse(&text, "plugin.toml").unwrap()
    };
    let attempts = |lines: &str, kind: &str| {
        let config = parse(lines).unwrap();
        let connection = config.connection("crm").unwrap();
        connection
            .binding_policy_for(Some(&manifest(kind)))
            .attempts_max
    };
    assert_eq!(attempts("", "kind = \"llm\""), 5);
    assert_eq!(attempts("retry.attempts = 2", "kind = \"llm\""), 2);
    assert_eq!(attempts("", ""), 3);
    assert!(Manifest::parse("name = \"m\"\nversion = \"1.0.0\"\nkind = \"god\"", "p").is_err());
}
