//! What the attribute makes of an `impl` block.

use cofferdam_sdk::prelude::*;
use cofferdam_sdk::testing::{Exchange, Recorded};
use cofferdam_sdk::{Connector, info};

struct Shop {
    region: String,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Order {
    /// What to order.
    item: String,
    #[serde(default)]
    how_many: Option<u8>,
}

#[derive(Serialize, JsonSchema)]
struct Placed {
    number: String,
}

#[connector(name = "shop")]
/// Orders things.
impl Shop {
    fn open() -> Result<Self, Failure> {
        Ok(Self {
            region: config::get("region")?.unwrap_or_else(|| "eu".to_owned()),
        })
    }

    /// Places an order. It is
    /// kept by key.
    ///
    /// At length.
    #[action(
        effect = idempotent,
        compensated_by = "cancel-order",
        lookup = find_order,
        example = r#"{"item": "tea"}"#
    )]
    fn place_order(&self, call: &Call, order: Order) -> Result<Placed, Failure> {
        info!("ordering", item = order.item, count = order.how_many);
        Ok(Placed {
            number: format!("{}-{}-{}", self.region, call.idempotency_key, order.item),
        })
    }

    #[action(effect = once, title = "Call it off")]
    fn cancel_order(&self) -> Result<Empty, Failure> {
        Ok(Empty {})
    }

    fn find_order(&self, key: &str) -> Result<Option<Placed>, Failure> {
        Ok((key == "known").then(|| Placed {
            number: key.to_owned(),
        }))
    }

    fn check(&self) -> Result<Health, Failure> {
        Ok(Health::degraded(&*self.region))
    }
}

#[test]
fn the_descriptor_says_what_the_code_does() {
    let descriptor: Value = serde_json::from_str(&Shop::descriptor().to_json()).unwrap();
    assert_eq!(descriptor["name"], "shop");
    assert_eq!(descriptor["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(descriptor["description"], "Orders things.");
    let names: Vec<&String> = descriptor["actions"].as_object().unwrap().keys().collect();
    assert_eq!(names, ["place-order", "cancel-order"]);
    let place = &descriptor["actions"]["place-order"];
    assert_eq!(place["title"], "Places an order");
    assert_eq!(
        place["description"],
        "Places an order. It is\nkept by key.\n\nAt length."
    );
    assert_eq!(
        (place["effect"].as_str(), place["lookup"].as_bool()),
        (Some("idempotent"), Some(true))
    );
    assert_eq!(place["compensatedBy"], "cancel-order");
    assert_eq!(place["examples"], json!([{"item": "tea"}]));
    assert_eq!(place["input"]["additionalProperties"], false);
    assert_eq!(place["input"]["required"], json!(["item"]));
    assert_eq!(
        place["input"]["properties"]["item"]["description"],
        "What to order."
    );
    assert_eq!(
        place["input"]["properties"]["howMany"]["type"],
        json!(["integer", "null"])
    );
    assert_eq!(place["output"]["required"], json!(["number"]));
    let cancel = &descriptor["actions"]["cancel-order"];
    assert_eq!(
        (cancel["title"].as_str(), cancel["effect"].as_str()),
        (Some("Call it off"), Some("once"))
    );
    assert_eq!(cancel["lookup"], false);
    assert!(cancel.get("compensatedBy").is_none());
}

#[test]
fn an_action_gets_its_call_its_input_and_its_settings() {
    let host = Recorded::new().config("region", "fi");
    let placed = host
        .invoke::<Shop>("place-order", json!({"item": "tea"}))
        .unwrap();
    assert_eq!(placed, json!({"number": "fi-key-1-tea"}));
    assert_eq!(
        host.log_lines(),
        [r#"INFO ordering {"item":"tea","count":null}"#]
    );
    assert_eq!(host.check::<Shop>().unwrap(), Health::degraded("fi"));
}

#[test]
fn what_the_schema_forbids_is_refused_with_its_place() {
    for (input, place) in [
        (json!({"item": "tea", "howMany": 300}), "`howMany`"),
        (json!({"item": "tea", "colour": "red"}), "`colour`"),
        (json!({}), "`item`"),
    ] {
        let failure = Recorded::new()
            .invoke::<Shop>("place-order", input)
            .unwrap_err();
        assert_eq!(failure.class, Class::InvalidInput);
        assert!(failure.message.contains(place), "{failure}");
    }
    let failure = Recorded::new()
        .invoke::<Shop>("cancel-order", json!({"x": 1}))
        .unwrap_err();
    assert_eq!(failure.class, Class::InvalidInput);
}

#[test]
fn what_is_not_offered_is_unsupported() {
    let failure = Recorded::new()
        .invoke::<Shop>("fly", json!({}))
        .unwrap_err();
    assert_eq!(
        (failure.class, failure.code.as_str()),
        (Class::Unsupported, "action")
    );
    let failure = Recorded::new()
        .lookup::<Shop>("cancel-order", "k")
        .unwrap_err();
    assert_eq!(
        (failure.class, failure.code.as_str()),
        (Class::Unsupported, "lookup")
    );
}

#[test]
fn a_lookup_answers_with_the_actions_output() {
    let host = Recorded::new();
    assert_eq!(
        host.lookup::<Shop>("place-order", "known").unwrap(),
        Some(json!({"number": "known"}))
    );
    assert_eq!(host.lookup::<Shop>("place-order", "other").unwrap(), None);
}

#[test]
fn the_trace_is_passed_on_with_every_request() {
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let host = Recorded::new()
        .call(|call| call.traceparent = trace.to_owned())
        .exchange(Exchange::get("http://h/").with_header("traceparent", trace));
    host.invoke::<Traced>("go", json!({})).unwrap();
}

#[derive(Deserialize)]
struct Traced;

#[connector(name = "traced", description = "Asks once")]
impl Traced {
    #[action(effect = read)]
    fn go(&self) -> Result<u16, Failure> {
        Ok(http::Request::get("http://h/").send()?.status())
    }

    fn check(&self) -> Result<Health, Failure> {
        Ok(Health::healthy(""))
    }
}

#[test]
#[should_panic(expected = "expected and never asked for: GET http://h/")]
fn an_exchange_that_nobody_asked_for_fails_the_test() {
    drop(Recorded::new().exchange(Exchange::get("http://h/")));
}

#[test]
#[should_panic(expected = "no request was expected, and there came GET http://h/")]
fn a_request_that_nobody_expected_fails_the_test() {
    let _ = Recorded::new().invoke::<Traced>("go", json!({}));
}
