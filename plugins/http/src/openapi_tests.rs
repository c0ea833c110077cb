//! Operations of OpenAPI documents, and requests that say how they are authorized.

use cofferdam_sdk::prelude::*;
use cofferdam_sdk::testing::{Exchange, Recorded};

use crate::Http;

const ADDRESS: &str = "https://api.example.com/openapi.json";

fn three() -> Value {
    json!({
        "openapi": "3.0.3",
        "servers": [{"url": "/v1/{stage}", "variables": {"stage": {"default": "live"}}}],
        "paths": {
            "/items/{id}": {
                "parameters": [{"$ref": "#/components/parameters/id"}],
                "get": {
                    "operationId": "getItem",
                    "parameters": [
                        {"name": "tag", "in": "query", "schema": {"type": "array"}},
                        {"name": "X-Trace", "in": "header"},
                        {"name": "session", "in": "cookie"},
                        {"name": "fields", "in": "query", "explode": false},
                    ],
                },
                "put": {
                    "operationId": "putItem",
                    "requestBody": {"$ref": "#/components/requestBodies/item"},
                },
            },
            "/login": {"post": {
                "operationId": "login",
                "servers": [{"url": "https://login.example.com"}],
                "requestBody": {"content": {"application/x-www-form-urlencoded": {}}},
            }},
        },
        "components": {
            "parameters": {"id": {"name": "id", "in": "path", "required": true}},
            "requestBodies": {"item": {"content": {"application/json": {}, "text/plain": {}}}},
        },
    })
}

fn two() -> Value {
    json!({
        "swagger": "2.0", "host": "pets.example.com", "basePath": "/v2", "schemes": ["http", "https"],
        "paths": {"/pet": {
            "get": {"operationId": "find", "parameters": [
                {"name": "status", "in": "query", "type": "array", "collectionFormat": "multi"},
                {"name": "ids", "in": "query", "type": "array"},
            ]},
            "post": {"operationId": "add", "parameters": [{"name": "pet", "in": "body"}]},
            "delete": {"operationId": "drop", "parameters": [{"name": "why", "in": "formData"}]},
        }},
    })
}

fn operation(input: Value) -> Result<Value, Failure> {
    Recorded::new().invoke::<Http>("operation", input)
}

#[test]
fn parameters_go_where_the_document_says() {
    for (document, id, parameters, method, uri, rest) in [
        (
            three(),
            "getItem",
            json!({"id": "a/b", "tag": ["x", "y z"], "fields": ["p", "q"], "X-Trace": 7, "session": "s"}),
            "get",
            "/v1/live/items/a%2Fb?fields=p%2Cq&tag=x&tag=y%20z",
            json!({"headers": {"X-Trace": "7", "cookie": "session=s"}}),
        ),
        (
            three(),
            "putItem",
            json!({"id": 1, "name": "Ada"}),
            "put",
            "/v1/live/items/1",
            json!({"headers": {"content-type": "application/json"}, "body": {"name": "Ada"}}),
        ),
        (
            three(),
            "putItem",
            json!({"id": 1, "body": [1]}),
            "put",
            "/v1/live/items/1",
            json!({"headers": {"content-type": "application/json"}, "body": [1]}),
        ),
        (
            three(),
            "login",
            json!({"user": "ada"}),
            "post",
            "https://login.example.com/login",
            json!({
                "headers": {"content-type": "application/x-www-form-urlencoded"},
                "body": {"user": "ada"},
            }),
        ),
        (
            two(),
            "find",
            json!({"status": ["a", "b"], "ids": [1, 2]}),
            "get",
            "https://pets.example.com/v2/pet?ids=1%2C2&status=a&status=b",
            json!({"headers": {}}),
        ),
        (
            two(),
            "add",
            json!({"pet": {"name": "Rex"}}),
            "post",
            "https://pets.example.com/v2/pet",
            json!({"headers": {"content-type": "application/json"}, "body": {"name": "Rex"}}),
        ),
        (
            two(),
            "drop",
            json!({"why": "old"}),
            "delete",
            "https://pets.example.com/v2/pet",
            json!({
                "headers": {"content-type": "application/x-www-form-urlencoded"},
                "body": {"why": "old"},
            }),
        ),
    ] {
        let input = json!({
            "document": {"content": document}, "operationId": id, "parameters": parameters,
        });
        let mut expected = json!({"method": method, "endpoint": uri, "redirect": false});
        for (key, value) in rest.as_object().unwrap() {
            expected[key] = value.clone();
        }
        assert_eq!(operation(input).unwrap(), expected, "{id}");
    }
}

#[test]
fn a_document_is_read_where_it_is_and_its_servers_are_beside_it() {
    let host = Recorded::new().exchange(Exchange::get(ADDRESS).reply(200, &three()));
    let authentication = json!({"bearer": {"token": "t-1"}});
    let input = json!({
        "document": {"endpoint": ADDRESS}, "operationId": "getItem", "parameters": {"id": 1},
        "authentication": authentication, "output": "response", "redirect": true,
    });
    let request = host.invoke::<Http>("operation", input).unwrap();
    let uri = "https://api.example.com/v1/live/items/1";
    assert_eq!(
        request,
        json!({
            "method": "get", "headers": {}, "output": "response", "redirect": true,
            "endpoint": {"uri": uri, "authentication": authentication},
        })
    );
    // What comes out is what the other actions take.
    let host = Recorded::new().exchange(
        Exchange::get(uri)
            .with_header("authorization", "Bearer t-1")
            .reply(200, &json!({})),
    );
    assert!(host.invoke::<Http>("get", request).is_ok());
}

#[test]
fn what_does_not_fit_is_told() {
    for (document, id, parameters, code) in [
        (three(), "nope", json!({}), "openapi.operation"),
        (three(), "getItem", json!({}), "openapi.parameter"),
        (
            three(),
            "getItem",
            json!({"id": 1, "color": "red"}),
            "openapi.parameter",
        ),
        (three(), "getItem", json!({"id": ".."}), "openapi.parameter"),
        (three(), "getItem", json!({"id": {}}), "openapi.parameter"),
        (
            json!({"openapi": "4.0.0"}),
            "a",
            json!({}),
            "openapi.version",
        ),
        (
            json!({"openapi": "3.1.0", "paths": {"/a": {"get": {
                "operationId": "a", "parameters": [{"$ref": "#/x"}]}}}, "x": {"$ref": "#/x"}}),
            "a",
            json!({}),
            "openapi.document",
        ),
    ] {
        let input = json!({
            "document": {"content": document}, "operationId": id, "parameters": parameters,
        });
        let failure = operation(input).unwrap_err();
        assert_eq!(failure.code, code, "{failure}");
        assert_eq!(failure.effect, EffectState::None);
    }
    let host = Recorded::new().exchange(Exchange::get(ADDRESS).reply_text(200, "openapi: 3.0.0"));
    let input = json!({"document": {"endpoint": ADDRESS}, "operationId": "a"});
    let failure = host.invoke::<Http>("operation", input).unwrap_err();
    assert_eq!(failure.code, "openapi.document");
}

#[test]
fn a_request_is_authorized_as_it_says_and_a_token_that_is_said_back_is_overwritten() {
    let tokens = Exchange::post("https://id.example.com/oauth2/token")
        .reply(200, &json!({"access_token": "at-1"}));
    let policy = json!({
        "authority": "https://id.example.com", "grant": "client_credentials",
        "client": {"id": "me", "secret": {"secret": "S"}},
    });
    let input = json!({
        "method": "get", "output": "response",
        "endpoint": {"uri": "https://api.example.com/", "authentication": {"oauth2": {"use": "crm"}}},
    });
    for status in [200, 404] {
        let host = Recorded::new()
            .config("authentications", json!({"crm": policy}))
            .config("bearer", "OTHER")
            .secret("S")
            .exchange(tokens.clone())
            .exchange(
                Exchange::get("https://api.example.com/")
                    .with_header("authorization", "Bearer at-1")
                    .reply(status, &json!({"you": "sent Bearer at-1"})),
            );
        let told = format!("{:?}", host.invoke::<Http>("get", input.clone()));
        assert!(
            told.contains("Bearer ****") && !told.contains("at-1"),
            "{told}"
        );
    }
}

#[test]
fn data_cannot_ask_for_secrets_in_a_body() {
    let input = json!({
        "url": "https://api.example.com/", "headers": {"Cofferdam-Secrets": "body"}, "body": {},
    });
    let failure = Recorded::new().invoke::<Http>("send", input).unwrap_err();
    assert_eq!(failure.code, "http.header");
}
