//! Tests of expressions and templates.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{Error, Expr, Template, UriTemplate, Vars, inside_braces};

fn eval(source: &str, input: &Value) -> Result<Value, Error> {
    Expr::compile(source, &[])?.evaluate(input, &Vars::new())
}

fn ok(source: &str, input: &Value) -> Value {
    eval(source, input).unwrap_or_else(|e| panic!("{e}"))
}

#[test]
fn jq_works() {
    let input = json!({"items": [{"id": 1, "n": 2}, {"id": 2, "n": 5}], "name": "Ada"});
    let cases = [
        (".", input.clone()),
        (".name", json!("Ada")),
        (".items[1].n", json!(5)),
        (".items | map(.n) | add", json!(7)),
        (".items | length", json!(2)),
        ("[.items[] | select(.n > 2) | .id]", json!([2])),
        (r#""Hello, \(.name)!""#, json!("Hello, Ada!")),
        (".missing.deeper", json!(null)),
        (
            "{name, total: ([.items[].n] | add)}",
            json!({"name": "Ada", "total": 7}),
        ),
        ("if .name == \"Ada\" then \"a\" else \"b\" end", json!("a")),
        ("reduce .items[] as $i (0; . + $i.n)", json!(7)),
        ("[range(3)]", json!([0, 1, 2])),
        ("[range(0; 10; 5)]", json!([0, 5])),
        (
            ".items |= map(.id)",
            json!({"items": [1, 2], "name": "Ada"}),
        ),
        (".items[0].n += 1 | .items[0].n", json!(3)),
        ("to_entries | map(.key)", json!(["items", "name"])),
        ("with_entries(.value |= tostring) | .name", json!("Ada")),
        ("del(.items)", json!({"name": "Ada"})),
        ("[.items[] | .n] | sort | reverse", json!([5, 2])),
        ("[paths]  | length", json!(8)),
        ("getpath([\"items\", 0, \"id\"])", json!(1)),
        ("[.items[] | .id] | join(\"-\")", json!("1-2")),
        ("\"2015-03-05T23:51:47Z\" | fromdate", json!(1_425_599_507)),
        ("0 | todate", json!("1970-01-01T00:00:00Z")),
        ("1425599621 | gmtime | mktime", json!(1_425_599_621)),
        ("1425599621.5 | strftime(\"%F\")", json!("2015-03-05")),
        (
            "[2015, 2, 5, 23, 51, 47] | strftime(\"%FT%T\")",
            json!("2015-03-05T23:51:47"),
        ),
        ("\"a,b\" | split(\",\")", json!(["a", "b"])),
        ("\"abc\" | test(\"b+\")", json!(true)),
        ("\"[1,2]\" | fromjson", json!([1, 2])),
        ("{a: 1} | tojson", json!("{\"a\":1}")),
        ("\"x\" * 3", json!("xxx")),
        ("3 * 4", json!(12)),
        (".name // \"none\"", json!("Ada")),
        ("try error(\"x\") catch .", json!("x")),
        ("[limit(3; repeat(1))]", json!([1, 1, 1])),
        ("[.[]?] | length", json!(2)),
        ("@base64 \"\\(.name)\"", json!("QWRh")),
        ("ascii_downcase?", json!(null)),
        ("empty", json!(null)),
        ("1, 2", json!(1)),
        ("[1, [2, [3]]] | flatten", json!([1, 2, 3])),
        ("label $out | 1, break $out", json!(1)),
        ("[.items[] as {$id, n: $x} | $id + $x]", json!([3, 7])),
        ("first(.items[] | .id)", json!(1)),
        ("[.items | group_by(.n)[] | length]", json!([1, 1])),
        ("[.items[].n] | max", json!(5)),
        ("any(.items[]; .n == 5)", json!(true)),
        ("\"3\" | tonumber", json!(3)),
        ("[1,2] | contains([1])", json!(true)),
        (
            "walk(if type == \"number\" then . + 1 else . end) | .items[0].n",
            json!(3),
        ),
    ];
    for (source, expected) in cases {
        assert_eq!(ok(source, &input), expected, "{source}");
    }
}

#[test]
fn variables_are_passed_by_name_and_missing_ones_are_null() {
    let names = ["context", "input", "item"];
    let context = json!({"a": 1, "b": {"c": [1, 2]}});
    let vars = Vars::new().with("context", &context);
    let run = |s: &str| {
        Expr::compile(s, &names)
            .unwrap()
            .evaluate(&json!(5), &vars)
            .unwrap()
    };
    assert_eq!(run("$context.a + ."), 6);
    assert_eq!(run("$context.b.c"), json!([1, 2]));
    assert_eq!(run("$item"), Value::Null);
    assert_eq!(run("[$input, $context.a]"), json!([null, 1]));
    assert_eq!(
        run("[1, 2] | map(. as $item | $item + $context.a)"),
        json!([2, 3])
    );
    assert_eq!(
        run("$item as $x | [$x, (7 as $item | $item), $item]"),
        json!([null, 7, null])
    );
}

#[test]
fn a_name_that_is_not_in_scope_is_an_error_when_compiled() {
    let error = Expr::compile("$contxt.a", &["context"]).unwrap_err();
    assert!(error.to_string().contains("$context"), "{error}");
    assert!(matches!(
        Expr::compile("nosuch(1)", &[]),
        Err(Error::Unknown { .. })
    ));
    assert!(matches!(
        Expr::compile("def f: 1; f", &[]),
        Err(Error::Syntax { .. })
    ));
    assert!(matches!(
        Expr::compile(".a +", &[]),
        Err(Error::Syntax { .. })
    ));
    assert!(matches!(Expr::compile("", &[]), Err(Error::Syntax { .. })));
    assert!(matches!(
        Expr::compile(".a )", &[]),
        Err(Error::Syntax { .. })
    ));
}

#[test]
fn nothing_reads_the_world_or_stops_the_process() {
    let sources = [
        "now",
        "env",
        "$ENV.HOME",
        "input",
        "[inputs]",
        "halt",
        "halt_error",
        "halt(1)",
        "halt_error(1)",
        "debug",
        "debug(.)",
        "stderr",
        "input_filename",
        "localtime",
        "0 | localtime",
        "0 | strflocaltime(\"%H\")",
        "import \"a\" as a; 1",
        "include \"a\"; 1",
        "input_line_number",
        "$__prog_args",
        "cofferdam_nothing",
    ];
    for source in sources {
        let error = Expr::compile(source, &["context"]).expect_err(source);
        assert!(
            matches!(error, Error::Unknown { .. } | Error::Syntax { .. }),
            "{source}: {error}"
        );
    }
}

#[test]
fn numbers_stay_exact() {
    for number in [
        json!(i64::MAX),
        json!(i64::MIN),
        json!(u64::MAX),
        json!(0.1),
        json!(1e300),
    ] {
        assert_eq!(ok(".", &number), number);
        assert_eq!(ok("[.][0]", &number), number);
    }
    assert_eq!(ok("10 / 2", &Value::Null).to_string(), "5");
    assert_eq!(
        ok("9007199254740993", &Value::Null),
        json!(9_007_199_254_740_993_i64)
    );
    assert_eq!(
        ok(". + 1", &json!(i64::MAX)),
        json!(9_223_372_036_854_775_808_u64)
    );
    assert_eq!(ok("1.50", &Value::Null), json!(1.5));
}

#[test]
fn what_json_cannot_hold_is_an_error() {
    for source in [
        "nan",
        "infinite",
        "-infinite",
        "1e999",
        "18446744073709551616",
        "{(1): 2}",
    ] {
        assert!(
            matches!(eval(source, &Value::Null), Err(Error::NotJson { .. })),
            "{source}"
        );
    }
    let bytes = eval("\"/w==\" | @base64d", &Value::Null);
    assert!(matches!(bytes, Err(Error::NotJson { .. })), "{bytes:?}");
}

#[test]
fn a_runaway_is_stopped_and_cannot_catch_that() {
    for source in [
        "[range(1e18)]",
        "[range(1000) as $a | range(1000) as $b | range(1000) as $c | 1]",
        "[1, 2, 3, 4, 5, 6, 7, 8] | [.[] as $a | .[] as $b | .[] as $c | .[] as $d | .[] as $e | .[] as $f | .[] as $g | 1] | length",
        "[1, 2, 3, 4, 5, 6, 7, 8] | last(.[] + .[] + .[] + .[] + .[] + .[] + .[])",
        "[repeat(1)]",
        "last(repeat(.))",
        "until(false; .)",
        "[while(true; .)]",
        "last(recurse(.))",
        "try last(repeat(1)) catch 1",
        "[limit(1e15; repeat(1))]",
        "reduce range(60) as $i (1; [., .]) | tojson",
        "reduce range(60) as $i (1; [., .]) | [..] | length",
        "\"abc\" * 1e15",
        "\"abc\" * 1000000000000",
        "reduce range(60) as $i (\"a\"; . + .)",
        "reduce range(100000) as $i (0; [.])",
        "last(foreach range(100000) as $i (0; {a: .}))",
        "last(limit(100000; 0 | recurse([.])))",
        "reduce range(100000) as $i (null; [.])?",
        "[path(last(limit(100000; repeat(.a))))]",
    ] {
        eprintln!("{source}");
        let found = eval(source, &Value::Null);
        assert!(
            matches!(
                found,
                Err(Error::TooMuch { .. } | Error::Syntax { .. } | Error::Failed { .. })
            ),
            "{source}: {:?}",
            found.map(|v| v.to_string().len())
        );
    }
}

#[test]
fn ordinary_work_on_large_data_is_not_stopped() {
    let items: Vec<_> = (0..2_000)
        .map(|i| json!({"id": i.to_string(), "n": i, "tags": ["a", "b"]}))
        .collect();
    let input = json!({ "items": items });
    for (source, expected) in [
        ("[.items[] | select(.n % 2 == 0)] | length", json!(1_000)),
        (
            ". as $all | [.items[] | select(.n < ($all.items | length))] | length",
            json!(2_000),
        ),
        (".items | map({(.id): .n}) | add | length", json!(2_000)),
        (
            "reduce .items[] as $i ({}; .[$i.id] = $i) | length",
            json!(2_000),
        ),
        (
            ".items | group_by(.n % 10) | map(length) | add",
            json!(2_000),
        ),
        (
            "[.items[] | {key: .id, value: .n}] | from_entries | length",
            json!(2_000),
        ),
        ("[.items[].n] | add", json!(1_999_000)),
    ] {
        assert_eq!(ok(source, &input), expected, "{source}");
    }
}

#[test]
fn deep_texts_and_sources_do_not_exhaust_the_stack() {
    let deep = json!("[".repeat(200_000));
    assert!(matches!(eval("fromjson", &deep), Err(Error::Failed { .. })));
    for unit in [
        "(",
        "[",
        "{a:",
        "-",
        "try ",
        "if ",
        ". as $x | ",
        "1 + ",
        ". | ",
        ".a?//",
        "\"\\(",
    ] {
        let source = unit.repeat(3_000);
        assert!(Expr::compile(&source, &[]).is_err(), "{unit}");
    }
    let mut nested = json!(1);
    for _ in 0..1_000 {
        nested = json!([nested]);
    }
    assert!(matches!(
        eval("length + 0", &nested),
        Err(Error::TooMuch { .. })
    ));
}

#[test]
fn times_that_cannot_be_written_are_errors() {
    for source in [
        "9223372036854775807 | gmtime",
        "-9223372036854775808 | gmtime",
        "9223372036854 | strftime(\"%Y\")",
        "1e300 | gmtime",
        "infinite | gmtime",
        "nan | gmtime",
        "[2015, 127, 1, 0, 0, 0] | mktime",
        "[2015, 127, 1, 0, 0, 0] | strftime(\"%Y\")",
        "[99999, 1, 1, 0, 0, 0] | mktime",
        "[2015, 1, 99, 0, 0, 1e300] | mktime",
        "9223372036854775807 | todate",
        "\"9999-12-31T23:59:59Z\" | strptime(\"%Y\")",
    ] {
        let error = eval(source, &Value::Null).unwrap_err();
        assert!(matches!(error, Error::Failed { .. }), "{source}: {error}");
        assert!(
            !error.to_string().contains("cannot work"),
            "{source}: {error}"
        );
    }
}

#[test]
fn errors_name_the_expression_and_stay_short() {
    let error = eval(".a + 1", &json!({"a": "x".repeat(5_000)}))
        .unwrap_err()
        .to_string();
    assert!(error.contains(".a + 1"), "{error}");
    assert!(error.len() < 500, "{error}");
    assert!(
        eval(".a", &json!(1))
            .unwrap_err()
            .to_string()
            .contains("cannot index")
    );
}

#[test]
fn a_template_evaluates_only_whole_strings_in_braces() {
    let source = json!({
        "a": "${ .x }", "b": "x ${ .x }", "c": ["${ .x + 1 }", 2], "d": {"e": null},
        "${ .x }": 1,
    });
    let template = Template::compile(&source, &[]).unwrap();
    let value = template.evaluate(&json!({"x": 1}), &Vars::new()).unwrap();
    let expected = json!({
        "a": 1, "b": "x ${ .x }", "c": [2, 2], "d": {"e": null}, "${ .x }": 1,
    });
    assert_eq!(value, expected);
    let keys: Vec<_> = value.as_object().unwrap().keys().collect();
    assert_eq!(keys, ["a", "b", "c", "d", "${ .x }"]);
}

#[test]
fn data_is_never_taken_for_an_expression() {
    let template = Template::compile(&json!("${ .text }"), &[]).unwrap();
    let value = template.evaluate(&json!({"text": "${ .secret }", "secret": 1}), &Vars::new());
    assert_eq!(value.unwrap(), json!("${ .secret }"));
}

#[test]
fn braces_count_only_around_the_whole_text() {
    assert_eq!(inside_braces(" ${ .a } "), Some(".a"));
    assert_eq!(inside_braces("${.a}"), Some(".a"));
    assert_eq!(inside_braces("$ {.a}"), None);
    assert_eq!(inside_braces(".a"), None);
}

#[test]
fn a_uri_template_takes_properties_of_the_input_and_encodes_them() {
    let uri = UriTemplate::parse("https://x.example/pet/{petId}?q={q}")
        .unwrap()
        .unwrap();
    assert_eq!(uri.names().collect::<Vec<_>>(), ["petId", "q"]);
    let expanded = uri
        .expand(&json!({"petId": 7, "q": "a b/../c?&é"}))
        .unwrap();
    assert_eq!(
        expanded,
        "https://x.example/pet/7?q=a%20b%2F..%2Fc%3F%26%C3%A9"
    );
    assert_eq!(uri.expand(&json!({})).unwrap(), "https://x.example/pet/?q=");
    assert!(uri.expand(&json!({"petId": [1]})).is_err());
    assert!(UriTemplate::parse("https://x.example/").unwrap().is_none());
    for bad in [
        "https://x/{",
        "https://x/}",
        "https://x/{}",
        "https://x/{+a}",
        "https://x/${a}b{",
    ] {
        assert!(UriTemplate::parse(bad).is_err(), "{bad}");
    }
}

fn json_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        "\\PC{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 64, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::vec(("\\PC{0,6}", inner), 0..6)
                .prop_map(|entries| Value::Object(entries.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn identity_through_jq_changes_nothing(value in json_value()) {
        let out = ok("[.] | .[0]", &value);
        prop_assert_eq!(out.to_string(), value.to_string());
    }

    #[test]
    fn no_source_and_no_input_panics(source in "[-.a-c0-9|,()\\[\\]{}\"$@:;?+*/= ]{0,40}", value in json_value()) {
        if let Ok(expr) = Expr::compile(&source, &["a"]) {
            let _ = expr.evaluate(&value, &Vars::new());
        }
    }

    #[test]
    fn words_of_jq_in_any_order_do_not_panic(
        words in prop::collection::vec(prop::sample::select(vec![
            ".", "..", ".a", "[", "]", "(", ")", "{", "}", "|", ",", "map(.)", "reduce", "foreach",
            "as $x", "$x", "if", "then", "else", "end", "try", "catch", "|=", "+=", "+", "*", "-",
            "//", "path(..)", "del(.a)", "limit(3; .[])", "tojson", "fromjson", "\"a\"", "1", "1.5",
            "sort_by(.a)", "to_entries", "label $o |", "break $o", "range(3)", "error", "?",
            "getpath([\"a\"])", "splits(\"a\")", "@base64", "@json", "tostring", "implode", "strptime(\"%Y\")",
            "todate", "ltrimstr(\"a\")", "combinations", "transpose", "ascii", "indices(1)", "gmtime", "mktime",
        ]), 0..12),
        value in json_value(),
    ) {
        let source = words.join(" ");
        if let Ok(expr) = Expr::compile(&source, &["x"]) {
            let _ = expr.evaluate(&value, &Vars::new());
        }
    }
}
