//! The contract's bindings, generated from `wit/`, and the way from them to this crate's types.

/// A connector without `lookup`, and all imports.
pub mod plugin {
    wit_bindgen::generate!({
        path: "../../wit",
        world: "plugin",
        pub_export_macro: true,
        export_macro_name: "export_plugin",
        default_bindings_module: "cofferdam_sdk::bindings::plugin",
        type_section_suffix: "plugin",
    });
}

/// What a connector with `lookup` exports besides: together they are the contract's world
/// `plugin-with-recovery`. (Generating that world whole would define the exports of `plugin`
/// twice.)
pub mod recovery {
    wit_bindgen::generate!({
        path: "../../wit",
        inline: "
            package cofferdam:sdk;
            world recovery-only {
                export cofferdam:connector/recovery@1.0.0;
            }
        ",
        world: "cofferdam:sdk/recovery-only",
        pub_export_macro: true,
        export_macro_name: "export_recovery",
        default_bindings_module: "cofferdam_sdk::bindings::recovery",
        type_section_suffix: "recovery",
        with: {
            "cofferdam:connector/protocol@1.0.0": super::plugin::cofferdam::connector::protocol,
        },
    });
}

use std::marker::PhantomData;

use plugin::cofferdam::connector::protocol as wire;

use crate::call::{Call, Health, Status};
use crate::connector::{Connector, run};
use crate::failure::{Class, EffectState, Failure};

/// Makes a [`Connector`] what the generated export macros want.
pub struct Adapter<C>(PhantomData<C>);

impl<C: Connector> plugin::exports::cofferdam::connector::connector::Guest for Adapter<C> {
    fn describe() -> String {
        C::descriptor().to_json()
    }

    fn invoke(call: wire::Call) -> Result<String, wire::Failure> {
        Ok(run::<C>(&call.into())?)
    }

    fn check(_connection: String) -> Result<wire::Health, wire::Failure> {
        Ok(C::open()?.check()?.into())
    }
}

impl<C: Connector> recovery::exports::cofferdam::connector::recovery::Guest for Adapter<C> {
    fn lookup(action: String, key: String) -> Result<Option<String>, wire::Failure> {
        Ok(C::open()?.lookup(&action, &key)?)
    }
}

impl From<wire::Call> for Call {
    fn from(call: wire::Call) -> Self {
        Self {
            action: call.action,
            input: call.input,
            connection: call.connection,
            idempotency_key: call.idempotency_key,
            attempt: call.attempt,
            deadline_ms: call.deadline_ms,
            tenant: call.tenant,
            traceparent: call.traceparent,
            ext: call.ext,
        }
    }
}

impl From<Health> for wire::Health {
    fn from(health: Health) -> Self {
        let status = match health.status {
            Status::Healthy => wire::HealthStatus::Healthy,
            Status::Degraded => wire::HealthStatus::Degraded,
            Status::Unhealthy => wire::HealthStatus::Unhealthy,
        };
        Self {
            status,
            message: health.message,
        }
    }
}

impl From<Failure> for wire::Failure {
    fn from(failure: Failure) -> Self {
        Self {
            class: failure.class.into(),
            code: failure.code,
            message: failure.message,
            retry_after_ms: failure.retry_after_ms,
            effect: match failure.effect {
                EffectState::None => wire::EffectState::None,
                EffectState::Unknown => wire::EffectState::Unknown,
                EffectState::Applied => wire::EffectState::Applied,
            },
            details: failure
                .details
                .map(|details| details.to_string())
                .unwrap_or_default(),
        }
    }
}

impl From<wire::Failure> for Failure {
    fn from(failure: wire::Failure) -> Self {
        Self {
            class: failure.class.into(),
            code: failure.code,
            message: failure.message,
            retry_after_ms: failure.retry_after_ms,
            effect: match failure.effect {
                wire::EffectState::None => EffectState::None,
                wire::EffectState::Unknown => EffectState::Unknown,
                wire::EffectState::Applied => EffectState::Applied,
            },
            details: serde_json::from_str(&failure.details).ok().map(Box::new),
        }
    }
}

macro_rules! same_cases {
    ($ours:ident = $theirs:ident: $($case:ident)*) => {
        impl From<$ours> for wire::$theirs {
            fn from(class: $ours) -> Self {
                match class { $($ours::$case => Self::$case,)* }
            }
        }
        impl From<wire::$theirs> for $ours {
            fn from(class: wire::$theirs) -> Self {
                match class { $(wire::$theirs::$case => Self::$case,)* }
            }
        }
    };
}
same_cases!(Class = FailureClass:
    InvalidInput Unauthenticated Denied NotFound Conflict RateLimited Timeout Unavailable
    Refused Unsupported Internal Other);
