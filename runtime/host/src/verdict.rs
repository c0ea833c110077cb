//! The one place where the end of a call becomes a failure: class, code, message and effect.

use std::time::Duration;

use cofferdam_core::depth;
use cofferdam_core::failure::{Class, EffectState, Failure};
use cofferdam_core::schema::Violation;
use serde_json::{Value, json};
use wasmtime::component::ResourceTableError;
use wasmtime::{PoolConcurrencyLimitError, Trap, WasmBacktrace};
use wasmtime_wasi::I32Exit;

use crate::bindings::cofferdam::connector::protocol;
use crate::call::{Health, HealthStatus};
use crate::connection::Settings;
use crate::plugin::Action;
use crate::scope::{Scope, floor_char_boundary, visible};

/// Why the epoch callback ended a call.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Stop {
    #[error("the call's CPU time is used up")]
    Cpu,
    #[error("the call's deadline has passed")]
    Deadline,
}

/// What a failure that a guest tells of may hold, as the contract says.
const CODE_BYTES_MAX: usize = 128;
const MESSAGE_BYTES_MAX: usize = 4 << 10;
const DETAILS_BYTES_MAX: usize = 64 << 10;
/// Functions of a trap's backtrace that are told.
const FRAMES_MAX: usize = 4;

/// What wasmtime says when guest and host exchange too much; it offers no type to ask for.
const HOST_RESOURCE_TEXTS: [&str; 5] = [
    "fuel allocated for hostcalls has been exhausted",
    "store handle limit exceeded",
    "exceeds limit",
    "too many fields",
    "total size",
];

/// A call that ended in an error of the engine: a trap, a limit, a host function that gave up.
pub(crate) fn stopped(error: &wasmtime::Error, scope: &Scope, memory_refused: bool) -> Failure {
    let limits = &scope.settings.limits;
    let internal = |code: &str, message: String| {
        Failure::new(Class::Internal, code, message).with_effect(scope.effect())
    };
    match error.downcast_ref::<Stop>() {
        Some(Stop::Cpu) => {
            let cpu = limits.cpu_time;
            let text = format!(
                "the call used more than {cpu:?} of CPU time; raise `limits.cpu` of the connection if the work needs it"
            );
            return internal("limit.cpu", text);
        }
        Some(Stop::Deadline) => return timed_out(scope),
        None => {}
    }
    if matches!(error.downcast_ref::<Trap>(), Some(Trap::OutOfFuel)) {
        let fuel = limits.fuel.unwrap_or(u64::MAX);
        let text = format!(
            "the call used more than {fuel} units of fuel; raise `limits.fuel` of the connection if the work needs it"
        );
        return internal("limit.fuel", text);
    }
    if matches!(error.downcast_ref::<Trap>(), Some(Trap::StackOverflow)) {
        let text = "the call recursed until its stack was used up; recurse less deeply";
        return internal("limit.stack", text.to_owned());
    }
    if memory_refused {
        let bytes = limits.memory_bytes;
        let text = format!(
            "the call needs more than {bytes} bytes of memory; raise `limits.memory` of the connection if the work needs it"
        );
        return internal("limit.memory", text);
    }
    if error.downcast_ref::<PoolConcurrencyLimitError>().is_some() {
        let text = "no slot of the pool is free; try later, or raise concurrency_max of the host";
        return Failure::new(Class::Unavailable, "busy", text);
    }
    if is_host_resource(error) {
        let reason = bounded(error.root_cause().to_string(), MESSAGE_BYTES_MAX / 4);
        return internal(
            "limit.host-resources",
            format!("the call took too much of the host: {reason}"),
        );
    }
    let reason = scope.settings.scrubber.text(trap_reason(error));
    internal("plugin.trap", format!("the plugin stopped: {reason}"))
}

fn is_host_resource(error: &wasmtime::Error) -> bool {
    if matches!(
        error.downcast_ref::<ResourceTableError>(),
        Some(ResourceTableError::Full)
    ) {
        return true;
    }
    error.chain().any(|cause| {
        let text = cause.to_string();
        HOST_RESOURCE_TEXTS.iter().any(|known| text.contains(known))
    })
}

fn trap_reason(error: &wasmtime::Error) -> String {
    let mut reason = match (
        error.downcast_ref::<Trap>(),
        error.downcast_ref::<I32Exit>(),
    ) {
        (Some(trap), _) => trap.to_string(),
        (None, Some(I32Exit(status))) => format!("it exited with status {status}"),
        (None, None) => error.root_cause().to_string(),
    };
    if let Some(backtrace) = error.downcast_ref::<WasmBacktrace>() {
        let names: Vec<&str> = backtrace
            .frames()
            .iter()
            .filter_map(wasmtime::FrameInfo::func_name)
            .take(FRAMES_MAX)
            .collect();
        if !names.is_empty() {
            reason = format!("{reason} (in {})", names.join(" < "));
        }
    }
    bounded(reason, MESSAGE_BYTES_MAX)
}

pub(crate) fn timed_out(scope: &Scope) -> Failure {
    let timeout_ms = scope
        .deadline
        .saturating_duration_since(scope.began)
        .as_secs_f64()
        * 1e3;
    let timeout = Duration::from_millis(timeout_ms.round() as u64);
    // What the caller gave is the caller's to explain.
    let text = if let Some(given) = scope.given {
        format!("no answer within {timeout:?}; the call was given {given:?}")
    } else {
        let limit = scope.settings.limits.timeout;
        format!("no answer within {timeout:?}; `limits.timeout` of the connection is {limit:?}")
    };
    Failure::new(Class::Timeout, "timeout", text).with_effect(scope.effect())
}

pub(crate) fn panicked(scope: &Scope) -> Failure {
    let text = "a defect of the host ended this call; see the host's own log";
    Failure::new(Class::Internal, "host.panic", text).with_effect(scope.effect())
}

/// A state that the types allow and the code does not reach.
pub(crate) fn defect(text: &str) -> Failure {
    Failure::new(Class::Internal, "host.defect", text)
}

pub(crate) fn input_schema(action: &str, violations: &[Violation]) -> Failure {
    let text = format!(
        "the input of `{action}` breaks its schema: {}",
        listed(violations)
    );
    let mut failure = Failure::new(Class::InvalidInput, "input.schema", text);
    failure.details = details_of(violations);
    failure
}

/// Reads and checks what a guest returned.
pub(crate) fn output(
    text: &str,
    action: &Action,
    settings: &Settings,
    effect: EffectState,
) -> Result<Value, Failure> {
    let name = &action.name;
    let internal = |code: &str, message: String, effect| {
        Failure::new(Class::Internal, code, message).with_effect(effect)
    };
    let bytes_max = settings.limits.output_bytes;
    if text.len() as u64 > bytes_max {
        let text = format!(
            "the output of `{name}` has {} bytes, and at most {bytes_max} are taken; raise `limits.output` of the connection",
            text.len()
        );
        return Err(internal("limit.output", text, effect));
    }
    if !depth::is_fine_text(text) {
        let message = format!(
            "the output of `{name}` nests deeper than {} levels",
            depth::DEPTH_MAX
        );
        return Err(internal("output.depth", message, effect));
    }
    let value: Value = serde_json::from_str(text).map_err(|error| {
        internal(
            "output.json",
            format!("the output of `{name}` is not JSON: {error}"),
            effect,
        )
    })?;
    let value = settings.scrubber.value(value);
    action.output.check(&value).map_err(|violations| {
        let text = format!(
            "the output of `{name}` breaks its schema: {}",
            listed(&violations)
        );
        // The guest said that it succeeded, so what it was asked for has happened.
        let mut failure = internal("output.schema", text, EffectState::Applied);
        failure.details = settings.scrubber.value(details_of(&violations));
        failure.message = settings.scrubber.text(failure.message);
        failure
    })?;
    Ok(value)
}

fn listed(violations: &[Violation]) -> String {
    let texts: Vec<String> = violations.iter().map(ToString::to_string).collect();
    bounded(texts.join("; "), MESSAGE_BYTES_MAX)
}

fn details_of(violations: &[Violation]) -> Value {
    let list: Vec<Value> = violations
        .iter()
        .map(|violation| json!({"pointer": violation.pointer, "reason": violation.reason}))
        .collect();
    json!({ "violations": list })
}

/// A failure that a guest told of, held to the contract and without secrets.
pub(crate) fn of_guest(failure: protocol::Failure, scope: &Scope) -> Failure {
    if scope.requests_refused() {
        return scope.requests_failure();
    }
    let scrubber = &scope.settings.scrubber;
    let details = if failure.details.len() > DETAILS_BYTES_MAX {
        Value::Null
    } else {
        serde_json::from_str(&failure.details).unwrap_or(Value::Null)
    };
    Failure {
        class: class(failure.class),
        code: bounded(scrubber.text(failure.code), CODE_BYTES_MAX),
        message: bounded(scrubber.text(failure.message), MESSAGE_BYTES_MAX),
        retry_after_ms: failure.retry_after_ms,
        effect: match failure.effect {
            protocol::EffectState::None => EffectState::None,
            protocol::EffectState::Unknown => EffectState::Unknown,
            protocol::EffectState::Applied => EffectState::Applied,
        },
        details: scrubber.value(details),
    }
}

fn class(class: protocol::FailureClass) -> Class {
    match class {
        protocol::FailureClass::InvalidInput => Class::InvalidInput,
        protocol::FailureClass::Unauthenticated => Class::Unauthenticated,
        protocol::FailureClass::Denied => Class::Denied,
        protocol::FailureClass::NotFound => Class::NotFound,
        protocol::FailureClass::Conflict => Class::Conflict,
        protocol::FailureClass::RateLimited => Class::RateLimited,
        protocol::FailureClass::Timeout => Class::Timeout,
        protocol::FailureClass::Unavailable => Class::Unavailable,
        protocol::FailureClass::Refused => Class::Refused,
        protocol::FailureClass::Unsupported => Class::Unsupported,
        protocol::FailureClass::Internal => Class::Internal,
        protocol::FailureClass::Other => Class::Other,
    }
}

/// A failure that quotes another system, as the guest gets it: that system may have repeated a
/// credential.
pub(crate) fn quoted_to_guest(failure: Failure, scope: &Scope) -> protocol::Failure {
    let scrubber = &scope.settings.scrubber;
    to_guest(Failure {
        code: scrubber.text(failure.code),
        message: scrubber.text(failure.message),
        details: scrubber.value(failure.details),
        ..failure
    })
}

/// A failure of a host capability, as the guest gets it.
pub(crate) fn to_guest(failure: Failure) -> protocol::Failure {
    protocol::Failure {
        class: match failure.class {
            Class::InvalidInput => protocol::FailureClass::InvalidInput,
            Class::Unauthenticated => protocol::FailureClass::Unauthenticated,
            Class::Denied => protocol::FailureClass::Denied,
            Class::NotFound => protocol::FailureClass::NotFound,
            Class::Conflict => protocol::FailureClass::Conflict,
            Class::RateLimited => protocol::FailureClass::RateLimited,
            Class::Timeout => protocol::FailureClass::Timeout,
            Class::Unavailable => protocol::FailureClass::Unavailable,
            Class::Refused => protocol::FailureClass::Refused,
            Class::Unsupported => protocol::FailureClass::Unsupported,
            Class::Internal => protocol::FailureClass::Internal,
            Class::Other => protocol::FailureClass::Other,
        },
        code: failure.code,
        message: failure.message,
        retry_after_ms: failure.retry_after_ms,
        effect: match failure.effect {
            EffectState::None => protocol::EffectState::None,
            EffectState::Unknown => protocol::EffectState::Unknown,
            EffectState::Applied => protocol::EffectState::Applied,
        },
        details: if failure.details.is_null() {
            String::new()
        } else {
            failure.details.to_string()
        },
    }
}

pub(crate) fn health(health: protocol::Health, scope: &Scope) -> Health {
    Health {
        status: match health.status {
            protocol::HealthStatus::Healthy => HealthStatus::Healthy,
            protocol::HealthStatus::Degraded => HealthStatus::Degraded,
            protocol::HealthStatus::Unhealthy => HealthStatus::Unhealthy,
        },
        message: bounded(
            scope.settings.scrubber.text(health.message),
            MESSAGE_BYTES_MAX,
        ),
    }
}

/// A text for people, cut and made harmless for the terminal that they read it on.
fn bounded(text: String, bytes_max: usize) -> String {
    let mut text = visible(text);
    text.truncate(floor_char_boundary(&text, bytes_max));
    text
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::scrub::Scrubber;

    #[test]
    fn what_a_guest_says_cannot_steer_a_terminal() {
        const EVIL: &str = "one\r\ntwo\t\u{1b}[2J\u{7}\u{9b}0m\u{202e}\u{7f}\rend";
        const TAME: &str = "one\ntwo\t\u{fffd}[2J\u{fffd}\u{fffd}0m\u{fffd}\u{fffd}\u{fffd}end";
        let settings = Settings {
            limits: crate::Limits::default(),
            ..Settings::nothing("test").unwrap()
        };
        let scope = Scope::new(Arc::new(settings), String::new(), Duration::from_secs(1));
        let failure = Failure::new(Class::Other, EVIL, EVIL);
        let failure = of_guest(to_guest(failure), &scope);
        assert_eq!(
            (failure.code.as_str(), failure.message.as_str()),
            (TAME, TAME)
        );
        let said = protocol::Health {
            status: protocol::HealthStatus::Healthy,
            message: EVIL.to_owned(),
        };
        assert_eq!(health(said, &scope).message, TAME);
        scope.log(crate::LogLevel::Info, EVIL);
        assert_eq!(scope.take_log().0[0].message, TAME);
    }

    #[test]
    fn what_another_system_says_is_scrubbed_before_a_guest_gets_it() {
        let mut settings = Settings::nothing("test").unwrap();
        settings.scrubber = Arc::new(Scrubber::new(["hunter22"].into_iter()));
        let scope = Scope::new(Arc::new(settings), String::new(), Duration::from_secs(1));
        let mut failure = Failure::new(Class::Unavailable, "hunter22", "not hunter22");
        failure.details = json!({"said": "aHVudGVyMjI="});
        let told = quoted_to_guest(failure, &scope);
        assert_eq!(
            (told.code.as_str(), told.message.as_str()),
            ("********", "not ********")
        );
        assert_eq!(told.details, r#"{"said":"************"}"#);
    }
}
