//! Guests that misuse the network, and servers that help them.

use cofferdam_core::failure::Class;
use serde_json::json;

use super::{Case, Ends};
use crate::web::Manner;

pub(super) fn cases() -> Vec<Case> {
    const TIMEOUT: Ends = Ends::Fails(Class::Timeout, "timeout");
    let timeouts_of_a_day = |upload: bool| -> fn(&str) -> serde_json::Value {
        if upload {
            |authority| json!({"authority": authority, "upload": true})
        } else {
            |authority| json!({"authority": authority, "upload": false})
        }
    };
    vec![
        Case::unruly(
            "requests_without_end",
            (
                "count-requests",
                |authority| json!({"url": format!("http://{authority}/"), "n": u32::MAX}),
                Manner::Prompt,
            ),
            Ends::Fails(Class::Denied, "limit.requests"),
        ),
        Case::unruly(
            "guest_timeouts_of_a_day",
            ("linger", timeouts_of_a_day(false), Manner::Silent),
            TIMEOUT,
        )
        .timeout(400),
        Case::unruly(
            "slow_drip_response",
            ("linger", timeouts_of_a_day(false), Manner::Drip),
            TIMEOUT,
        )
        .timeout(400),
        Case::unruly(
            "request_that_never_ends",
            ("linger", timeouts_of_a_day(true), Manner::Silent),
            TIMEOUT,
        )
        .timeout(400),
        Case::unruly(
            "sleep_of_an_hour_through_the_language",
            ("sleep", |_| json!({"ms": 3_600_000}), Manner::Prompt),
            TIMEOUT,
        )
        .timeout(400),
    ]
}
