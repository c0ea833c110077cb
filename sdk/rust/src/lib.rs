//! Write a Cofferdam connector in Rust.
//!
//! A connector is a struct of settings and an `impl` block of actions. The attribute
//! [`macro@connector`] derives everything else from it: the descriptor with its JSON Schemas,
//! the parsing of inputs, and the component's exports.
//!
//! ```
//! use cofferdam_sdk::prelude::*;
//!
//! /// The settings, from `[connections.NAME.config]`.
//! #[derive(Deserialize)]
//! struct Weather {
//!     base_url: Option<String>,
//! }
//!
//! #[derive(Deserialize, JsonSchema)]
//! #[serde(deny_unknown_fields)]
//! struct Place {
//!     city: String,
//! }
//!
//! #[derive(Deserialize, Serialize, JsonSchema)]
//! struct Report {
//!     celsius: f64,
//! }
//!
//! #[connector(name = "weather", description = "What the sky is doing")]
//! impl Weather {
//!     /// Tells the temperature at a place.
//!     #[action(effect = read, example = r#"{"city": "Turku"}"#)]
//!     fn get_report(&self, place: Place) -> Result<Report, Failure> {
//!         let base = self.base_url.as_deref().unwrap_or("https://api.weather.example");
//!         http::Request::get(http::url(base, &["v1", "reports", &place.city])?)
//!             .bearer(secrets::placeholder("WEATHER_TOKEN")?)
//!             .send()?
//!             .error_for_status()?
//!             .json()
//!     }
//!
//!     fn check(&self) -> Result<Health, Failure> {
//!         self.get_report(Place { city: "Turku".into() })?;
//!         Ok(Health::healthy("the service answers"))
//!     }
//! }
//!
//! // A test against a recorded exchange: no host, no network.
//! use cofferdam_sdk::testing::{Exchange, Recorded};
//! let host = Recorded::new().secret("WEATHER_TOKEN").exchange(
//!     Exchange::get("https://api.weather.example/v1/reports/Turku")
//!         .with_header("authorization", "Bearer secret:WEATHER_TOKEN")
//!         .reply(200, &json!({"celsius": -3.5})),
//! );
//! let report = host.invoke::<Weather>("get-report", json!({"city": "Turku"}));
//! assert_eq!(report.unwrap(), json!({"celsius": -3.5}));
//! ```
//!
//! Each call gets a fresh instance: what is kept in memory is gone afterwards, and a panic
//! harms that one call. There is nothing to retry or to time out here: the host does that, by
//! the [`Failure`] that the connector returns. What fails in [`http`] is mapped already.

#[cfg(target_arch = "wasm32")]
#[doc(hidden)]
#[allow(
    missing_docs,
    unsafe_code,
    clippy::all,
    clippy::pedantic,
    unused_qualifications
)]
pub mod bindings;
pub mod call;
pub mod clock;
pub mod config;
#[doc(hidden)]
pub mod connector;
pub mod failure;
mod host;
pub mod http;
pub mod kv;
pub mod log;
pub mod secrets;
pub mod smtp;
pub mod sql;
#[cfg(not(target_arch = "wasm32"))]
pub mod testing;

pub use call::{Call, Health};
pub use cofferdam_sdk_macros::connector;
pub use connector::{Action, Connector, Descriptor, Effect, Empty};
pub use failure::{Class, EffectState, Failure};

/// What nearly every connector uses.
pub mod prelude {
    pub use crate::{
        Call, Class, EffectState, Empty, Failure, Health, config, connector, http, kv, secrets,
        smtp, sql,
    };
    pub use schemars::JsonSchema;
    pub use serde::{Deserialize, Serialize};
    pub use serde_json::{Value, json};
}

/// Exports a [`Connector`] from the component; does nothing elsewhere. The attribute
/// [`macro@connector`] does this unless it is told `export = by_hand`. `with lookup` exports the
/// contract's optional interface `recovery` besides.
#[macro_export]
macro_rules! export {
    ($connector:ty) => {
        $crate::export!(@ $connector, {});
    };
    ($connector:ty, with lookup) => {
        $crate::export!(@ $connector, {
            $crate::bindings::recovery::export_recovery!(
                CofferdamExport with_types_in $crate::bindings::recovery
            );
        });
    };
    (@ $connector:ty, { $($recovery:tt)* }) => {
        #[cfg(target_arch = "wasm32")]
        #[allow(unsafe_code, missing_docs, clippy::all, clippy::pedantic)]
        const _: () = {
            type CofferdamExport = $crate::bindings::Adapter<$connector>;
            $crate::bindings::plugin::export_plugin!(
                CofferdamExport with_types_in $crate::bindings::plugin
            );
            $($recovery)*
        };
    };
}

/// For the macros' expansions only.
#[doc(hidden)]
pub mod __private {
    pub use serde_json::{Map, json};
}
