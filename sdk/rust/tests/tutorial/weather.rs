//! What the sky is doing.

use cofferdam_sdk::prelude::*;

/// The settings, from `[connections.NAME.config]`.
#[derive(Deserialize)]
pub struct Weather {
    base_url: Option<String>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Place {
    /// The place's name, as in the service's list.
    city: String,
}

#[derive(Deserialize, Serialize, JsonSchema)]
pub struct Report {
    celsius: f64,
}

#[connector(name = "weather", description = "What the sky is doing")]
impl Weather {
    /// Tells the temperature at a place.
    #[action(effect = read, example = r#"{"city": "Turku"}"#)]
    fn get_report(&self, place: Place) -> Result<Report, Failure> {
        let base = self
            .base_url
            .as_deref()
            .unwrap_or("https://api.weather.example");
        http::Request::get(http::url(base, &["v1", "reports", &place.city])?)
            .bearer(secrets::placeholder("WEATHER_TOKEN")?)
            .send()?
            .error_for_status()?
            .json()
    }

    fn check(&self) -> Result<Health, Failure> {
        self.get_report(Place {
            city: "Turku".into(),
        })?;
        Ok(Health::healthy("the service answers"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cofferdam_sdk::testing::{Exchange, Recorded};

    const TURKU: &str = "https://api.weather.example/v1/reports/Turku";

    #[test]
    fn a_report_is_read_with_the_token() {
        let host = Recorded::new().secret("WEATHER_TOKEN").exchange(
            Exchange::get(TURKU)
                .with_header("authorization", "Bearer secret:WEATHER_TOKEN")
                .reply(200, &json!({"celsius": -3.5})),
        );
        let report = host.invoke::<Weather>("get-report", json!({"city": "Turku"}));
        assert_eq!(report.unwrap(), json!({"celsius": -3.5}));
    }

    #[test]
    fn a_full_service_is_left_alone_for_as_long_as_it_asks() {
        let host = Recorded::new().secret("WEATHER_TOKEN").exchange(
            Exchange::get(TURKU)
                .reply_text(429, "slow down")
                .reply_header("retry-after", "30"),
        );
        let failure = host
            .invoke::<Weather>("get-report", json!({"city": "Turku"}))
            .unwrap_err();
        assert_eq!(
            (failure.class, failure.retry_after_ms),
            (Class::RateLimited, Some(30_000))
        );
    }
}
