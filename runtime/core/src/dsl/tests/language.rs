//! Secrets, authentication, extensions, catalogs, OpenAPI, MCP: what compiles and what does not.

use super::{HEAD, good, sources};
use crate::dsl::compile;
use crate::workflow::{Kind, SecretUse, Target};

/// A call of `http` with this authentication.
fn http(authentication: &str) -> String {
    format!(
        "do:\n  - a: {{call: http, with: {{method: get, endpoint: {{uri: 'https://x.example/', authentication: {authentication}}}}}}}\n"
    )
}

#[expect(clippy::too_many_lines, reason = "a table")]
/// The text after the head, then the code and a word of its message.
fn bad() -> Vec<(String, &'static str, &'static str)> {
    let set = "do:\n  - a: {set: {x: 1}}\n";
    let secrets = |rest: &str| format!("use: {{secrets: [TOKEN]}}\ndo:\n  - a: {rest}\n");
    let oauth2 = |rest: &str| {
        http(&format!(
            "{{oauth2: {{authority: 'https://id.example', {rest}}}}}"
        ))
    };
    let extension = |rest: &str| format!("use: {{extensions: [{{e: {rest}}}]}}\n{set}");
    let call = |rest: &str| format!("do:\n  - a: {{call: {rest}}}\n");
    vec![
        // Secrets stand only in what a call sends.
        (
            secrets("{set: {x: '${ $secrets.TOKEN }'}}"),
            "CD0150",
            "cannot be used here",
        ),
        (
            secrets("{if: $secrets.TOKEN, set: {x: 1}}"),
            "CD0150",
            "cannot be used here",
        ),
        (
            secrets("{set: {x: 1}, output: {as: $secret.TOKEN}}"),
            "CD0150",
            "cannot be used here",
        ),
        (
            secrets("{set: {x: 1}, export: {as: $secrets}}"),
            "CD0150",
            "cannot be used here",
        ),
        (
            secrets("{emit: {event: {with: {type: t, data: '${ $secrets.TOKEN }'}}}}"),
            "CD0150",
            "cannot",
        ),
        (
            secrets("{wait: '${ $secrets.TOKEN }'}"),
            "CD0150",
            "cannot be used here",
        ),
        (
            secrets("{raise: {error: {type: '${ $secrets.TOKEN }', status: 400}}}"),
            "CD0150",
            "cannot",
        ),
        (
            format!("output: {{as: $secrets.a}}\n{set}"),
            "CD0150",
            "cannot be used here",
        ),
        (
            secrets("{call: a.b, with: {x: '${ $secrets.TOKIN }'}}"),
            "CD0150",
            "does not name `TOKIN`",
        ),
        (
            call("a.b, with: {x: '${ $secrets[\"T\"] }'}"),
            "CD0150",
            "does not name `T`",
        ),
        (
            format!("use: {{secrets: TOKEN}}\n{set}"),
            "CD0105",
            "list of names",
        ),
        (
            format!("use: {{secrets: ['']}}\n{set}"),
            "CD0106",
            "name of a secret",
        ),
        (
            format!("use: {{secrets: [{}]}}\n{set}", "a, ".repeat(65)),
            "CD0106",
            "64 are allowed",
        ),
        // Authentication.
        (http("{use: nope}"), "CD0110", "defines no `nope`"),
        (
            http("{digest: {username: a, password: b}}"),
            "CD0119",
            "digest",
        ),
        (http("{certificate: {}}"), "CD0119", "certificate"),
        (
            http("{basic: {username: a, password: b}, bearer: {token: t}}"),
            "CD0119",
            "one kind",
        ),
        (http("{}"), "CD0119", "one kind"),
        (http("{basic: {username: a}}"), "CD0104", "password"),
        (
            http("{basic: {use: NOPE}}"),
            "CD0150",
            "does not name `NOPE`",
        ),
        (http("{bearer: {token: 5}}"), "CD0105", "text"),
        (
            http("{oauth2: {use: NOPE}}"),
            "CD0150",
            "does not name `NOPE`",
        ),
        (
            oauth2("grant: authorization_code"),
            "CD0119",
            "needs a person",
        ),
        (oauth2("grant: client_credential"), "CD0106", "no grant"),
        (oauth2("grant: password, username: a"), "CD0104", "password"),
        (oauth2("grant: client_credentials"), "CD0104", "client"),
        (oauth2("client: {id: a}"), "CD0104", "grant"),
        (
            oauth2("grant: client_credentials, client: {id: a, authentication: client_secret_jwt}"),
            "CD0119",
            "client_secret_jwt",
        ),
        (
            http(
                "{oidc: {authority: 'https://x', grant: client_credentials, client: {id: a}, endpoints: {}}}",
            ),
            "CD0103",
            "endpoints",
        ),
        (
            format!("use: {{authentications: {{a: {{basic: {{}}}}}}}}\n{set}"),
            "CD0104",
            "username",
        ),
        (
            "do:\n  - a: {call: a.b, with: {x: '${ $authorization }'}}\n".to_owned(),
            "CD0107",
            "$authorization",
        ),
        // Extensions.
        (
            extension("{extend: calls, before: [{b: {set: {x: 1}}}]}"),
            "CD0106",
            "no task `calls`",
        ),
        (
            extension("{extend: switch, before: [{b: {set: {x: 1}}}]}"),
            "CD0152",
            "switch",
        ),
        (extension("{extend: set}"), "CD0152", "does nothing"),
        (
            extension("{before: [{b: {set: {x: 1}}}]}"),
            "CD0104",
            "extend",
        ),
        (
            extension("{extend: wait, before: [{b: {set: {}}}]}"),
            "CD0104",
            "sets nothing",
        ),
        (
            extension("{extend: set, when: '.a +', before: [{b: {set: {x: 1}}}]}"),
            "CD0107",
            ".a +",
        ),
        (
            format!("use: {{extensions: {{e: 1}}}}\n{set}"),
            "CD0105",
            "list",
        ),
        // Catalogs.
        (call("'log:1.0.0@shared'"), "CD0118", "nothing is fetched"),
        (call("'log@shared'"), "CD0118", "names no function"),
        (
            call("'https://x.example/function.yaml'"),
            "CD0118",
            "not fetched",
        ),
        (
            format!("use: {{catalogs: {{c: {{}}}}}}\n{set}"),
            "CD0104",
            "endpoint",
        ),
        // OpenAPI.
        (call("openapi"), "CD0104", "with"),
        (
            call("openapi, with: {operationId: a}"),
            "CD0104",
            "document",
        ),
        (
            call("openapi, with: {document: {endpoint: 'https://x.example/'}}"),
            "CD0104",
            "operationId",
        ),
        (
            call("openapi, with: {document: {endpoint: 'file:nope.json'}, operationId: a}"),
            "CD0153",
            "no `file:nope.json`",
        ),
        (
            call("openapi, with: {document: {endpoint: 'file:broken'}, operationId: a}"),
            "CD0153",
            "neither YAML nor JSON",
        ),
        (
            call("openapi, with: {document: {endpoint: 'file:list'}, operationId: a}"),
            "CD0153",
            "no OpenAPI",
        ),
        (
            call(
                "openapi, with: {document: {endpoint: 'https://x.example/'}, operationId: a, output: all}",
            ),
            "CD0106",
            "all",
        ),
        // MCP.
        (
            call("mcp, with: {method: tools/list, transport: {stdio: {command: npx}}}"),
            "CD0154",
            "stdio",
        ),
        (
            call("mcp, with: {method: tools/drop, transport: {http: {endpoint: 'https://x'}}}"),
            "CD0154",
            "no method",
        ),
        (
            call("mcp, with: {method: '${ .m }', transport: {http: {endpoint: 'https://x'}}}"),
            "CD0124",
            "expression",
        ),
        (
            call("mcp, with: {method: tools/list}"),
            "CD0104",
            "transport",
        ),
        (
            call("mcp, with: {method: tools/list, transport: {http: {}}}"),
            "CD0104",
            "endpoint",
        ),
        (
            call(
                "mcp, with: {method: tools/list, transport: {http: {endpoint: 'https://x'}, options: {}}}",
            ),
            "CD0154",
            "options",
        ),
        // Schemas in files.
        (
            "do:\n  - a: {set: {x: 1}, input: {schema: {resource: {endpoint: 'https://x'}}}}\n"
                .to_owned(),
            "CD0120",
            "not fetched",
        ),
        (
            "do:\n  - a: {set: {x: 1}, input: {schema: {resource: {endpoint: 'file:nope'}}}}\n"
                .to_owned(),
            "CD0120",
            "beside the workflow",
        ),
        // `catch.then` leads to a task beside the `try`.
        (
            "do:\n  - a: {try: [{b: {set: {x: 1}}}], catch: {then: b}}\n".to_owned(),
            "CD0111",
            "no task `b`",
        ),
        (
            "do:\n  - a: {run: {workflow: {namespace: t, name: n, version: '1.0.0'}, await: 1}}\n"
                .to_owned(),
            "CD0105",
            "true or false",
        ),
    ]
}

#[test]
fn each_mistake_is_told_with_its_code_and_cause() {
    let files = [("file:broken", "a: [\n"), ("file:list", "[1]\n")];
    let mut wrong = Vec::new();
    for (rest, code, word) in bad() {
        let found = match compile(&sources(&format!("{HEAD}{rest}"), &files)) {
            Ok(_) => "compiled".to_owned(),
            Err(errors) => {
                let first = &errors.0[0];
                assert!(!first.remedy.is_empty() && first.line > 0, "{rest}");
                format!("{}: {}", first.code, first.cause)
            }
        };
        if !(found.starts_with(code) && found.contains(word)) {
            wrong.push(format!(
                "{rest}  wanted {code} with `{word}`, found {found}\n"
            ));
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.concat());
}

#[test]
fn what_a_call_sends_is_known_with_its_connection() {
    let workflow = good(
        "use: {secrets: [A, B]}\ndo:\n  - a: {call: crm.get, with: {t: '${ $secrets.A }'}}\n  - b: {call: http, with: {method: get, endpoint: {uri: 'https://x.example/', authentication: {basic: {use: B}}}}}\n",
    );
    let sent: Vec<_> = workflow
        .secrets
        .uses
        .iter()
        .map(
            |SecretUse {
                 connection,
                 name,
                 line,
                 ..
             }| (connection.as_str(), name.as_str(), *line),
        )
        .collect();
    assert_eq!(sent, [("crm", "A", 8), ("http", "B", 9)]);
    assert_eq!(workflow.secrets.all.len(), 2);
    assert!(workflow.warnings.is_empty());
}

#[test]
fn a_credential_that_is_no_secret_is_let_through_with_a_warning() {
    for (authentication, word) in [
        (
            "{basic: {username: a, password: sesame}}",
            "stands in the workflow",
        ),
        (
            "{bearer: {token: '${ .token }'}}",
            "comes from the run's data",
        ),
        (
            "{oauth2: {authority: 'https://id.example', grant: client_credentials, client: {id: a, secret: s}}}",
            "stands in the workflow",
        ),
    ] {
        let workflow = good(&http(authentication));
        let [warning] = workflow.warnings.as_slice() else {
            panic!("{authentication}: {:?}", workflow.warnings);
        };
        assert_eq!(warning.code, "CD0151");
        assert!(warning.cause.contains(word), "{warning}");
        assert_eq!(warning.line, 7);
    }
}

#[test]
fn mcp_methods_are_actions_by_what_repeating_them_does() {
    for (method, expected) in [
        ("tools/call", "call"),
        ("tools/list", "read"),
        ("prompts/list", "read"),
        ("prompts/get", "read"),
        ("resources/list", "read"),
        ("resources/read", "read"),
        ("resources/templates/list", "read"),
    ] {
        let workflow = good(&format!(
            "do:\n  - a: {{call: mcp, with: {{method: {method}, timeout: PT5S, transport: {{http: {{endpoint: 'https://x.example/mcp', headers: {{x: y}}}}}}}}}}\n"
        ));
        let Kind::Call(call) = &workflow.body.tasks[0].kind else {
            panic!()
        };
        let Target::Action { connection, action } = &call.target else {
            panic!()
        };
        assert_eq!((connection.as_str(), action.as_str()), ("mcp", expected));
        assert_eq!(call.policy.start_to_close_ms, Some(5_000));
    }
}

#[test]
fn a_function_of_a_catalog_is_compiled_in_and_may_call_others() {
    let files = [
        (
            "outer:1.0.0@shared",
            "call: 'inner:2.0.0@shared'\nwith: {n: '${ .n + 1 }'}\n",
        ),
        (
            "inner:2.0.0@shared",
            "input: {schema: {document: {required: [n]}}}\nset: {twice: '${ .n * 2 }'}\n",
        ),
    ];
    let text = format!("{HEAD}do:\n  - a: {{call: 'outer:1.0.0@shared', with: {{n: 20}}}}\n");
    compile(&sources(&text, &files)).unwrap_or_else(|e| panic!("{e}"));
    let circle = [("outer:1.0.0@shared", "call: 'outer:1.0.0@shared'\n")];
    let errors = compile(&sources(&text, &circle)).unwrap_err();
    assert_eq!(errors.0[0].code, "CD0122", "{errors}");
    let broken = [("outer:1.0.0@shared", "wait: soon\n")];
    let errors = compile(&sources(&text, &broken)).unwrap_err();
    assert_eq!(
        (errors.0[0].code, errors.0[0].origin.as_str()),
        ("CD0108", "outer:1.0.0@shared.yaml")
    );
}

#[test]
fn a_schema_may_be_in_a_file() {
    let text = format!(
        "{HEAD}do:\n  - a: {{set: {{x: 1}}, input: {{schema: {{resource: {{endpoint: 'file:s.yaml'}}}}}}}}\n"
    );
    let workflow = compile(&sources(&text, &[("file:s.yaml", "type: object\n")])).unwrap();
    assert!(workflow.body.tasks[0].input.schema.is_some());
}
