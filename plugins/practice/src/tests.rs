use cofferdam_sdk::prelude::*;
use cofferdam_sdk::testing::Recorded;

use crate::Practice;

/// A host on which the call has this key.
fn host(key: &str) -> Recorded {
    let key = key.to_owned();
    Recorded::new().call(move |call| call.idempotency_key.clone_from(&key))
}

fn ask(host: &Recorded, action: &str, input: Value) -> Result<Value, Failure> {
    host.invoke::<Practice>(action, input)
}

#[test]
fn it_fails_as_often_as_it_is_told_and_then_works() {
    let host = host("run/keep");
    let input =
        json!({"value": 7, "fail": {"times": 2, "class": "rate-limited", "retryAfterMs": 10}});
    for _ in 0..2 {
        let failure = ask(&host, "keep", input.clone()).unwrap_err();
        assert_eq!(failure.class, Class::RateLimited);
        assert_eq!(failure.effect, EffectState::None);
        assert_eq!(failure.retry_after_ms, Some(10));
    }
    let answer = ask(&host, "keep", input).unwrap();
    assert_eq!(
        answer,
        json!({"value": 7, "key": "run/keep", "asked": 3, "happened": 1})
    );
}

#[test]
fn what_is_kept_twice_is_kept_once_and_what_is_paid_twice_is_paid_twice() {
    for (action, happened) in [("keep", 1), ("pay", 2), ("post", 2), ("read", 0)] {
        let host = host("run/task");
        ask(&host, action, json!({})).unwrap();
        let again = ask(&host, action, json!({})).unwrap();
        assert_eq!(again["happened"], happened, "{action}");
    }
}

#[test]
fn an_answer_that_is_lost_can_be_looked_up_and_undone() {
    let host = host("run/pay");
    let input = json!({"value": 4900, "fail": {"after": true}});
    let failure = ask(&host, "pay", input).unwrap_err();
    assert_eq!(failure.effect, EffectState::Unknown);
    let found = host.lookup::<Practice>("pay", "run/pay").unwrap();
    assert_eq!(found.unwrap()["happened"], 1);
    let undone = ask(&host, "undo", json!({"key": "run/pay"})).unwrap();
    assert_eq!(undone, json!({"was": true}));
    assert_eq!(host.lookup::<Practice>("pay", "run/pay").unwrap(), None);
}

#[test]
fn while_it_is_down_calls_and_checks_fail() {
    let host = host("run/read");
    ask(&host, "go-down", json!({"calls": 2})).unwrap();
    let failure = ask(&host, "read", json!({})).unwrap_err();
    assert_eq!(failure.code, "practice.down");
    assert!(host.check::<Practice>().is_err());
    assert!(host.check::<Practice>().is_ok());
    assert!(ask(&host, "read", json!({})).is_ok());
}

#[test]
fn an_input_with_an_unknown_key_is_refused() {
    let failure = ask(&host("k"), "read", json!({"fial": {}})).unwrap_err();
    assert_eq!(failure.class, Class::InvalidInput);
}
