//! Workflows that do not compile: each with the code and the place of its first error.

use super::{HEAD, sources};
use crate::dsl::compile;

/// The text after [`HEAD`] (which has five lines), then code, line and column.
const CASES: &[(&str, &str, usize, usize)] = &[
    // The text.
    ("do:\n  - a: [\n", "CD0100", 8, 1),
    ("do:\n  - a: {set: {x: .nan}}\n", "CD0100", 7, 18),
    ("do:\n  - a: {set: {x: !!int 1}}\n", "CD0100", 7, 18),
    ("do:\n  - a: {set: {? [1] : 2}}\n", "CD0100", 7, 17),
    ("---\ndo: []\n", "CD0100", 6, 1),
    ("do:\n  - a: {set: {x: 1, x: 2}}\n", "CD0102", 7, 21),
    ("do:\n  - a: {set: {<<: *b}}\n", "CD0100", 7, 19),
    // Keys.
    ("doo: []\ndo:\n  - a: {set: {x: 1}}\n", "CD0103", 6, 1),
    (
        "input: {form: .a}\ndo:\n  - a: {set: {x: 1}}\n",
        "CD0103",
        6,
        9,
    ),
    ("do:\n  - a: {set: {x: 1}, iff: .a}\n", "CD0103", 7, 22),
    ("input: {}\n", "CD0104", 1, 1),
    ("do: []\n", "CD0104", 6, 5),
    ("do:\n  - a: {set: {}}\n", "CD0104", 7, 14),
    ("do: {a: {set: {x: 1}}}\n", "CD0105", 6, 5),
    ("do:\n  - set\n", "CD0105", 7, 5),
    ("do:\n  - a: {set: 5}\n", "CD0105", 7, 14),
    ("do:\n  - a: {set: {x: 1}, metadata: 1}\n", "CD0105", 7, 32),
    (
        "timeout: {after: 5}\ndo:\n  - a: {set: {x: 1}}\n",
        "CD0105",
        6,
        18,
    ),
    // Values.
    ("do:\n  - end: {set: {x: 1}}\n", "CD0106", 7, 5),
    (
        "do:\n  - a: {for: {each: context, in: .x}, do: [{b: {set: {x: 1}}}]}\n",
        "CD0106",
        7,
        21,
    ),
    (
        "do:\n  - a: {for: {each: i, at: i, in: .x}, do: [{b: {set: {x: 1}}}]}\n",
        "CD0106",
        7,
        14,
    ),
    (
        "do:\n  - a: {raise: {error: {type: x, status: 99}}}\n",
        "CD0106",
        7,
        42,
    ),
    (
        "do:\n  - a: {switch: [{b: {then: end}}, {c: {then: end}}]}\n",
        "CD0106",
        7,
        40,
    ),
    (
        "do:\n  - a: {call: http, with: {method: fetch, endpoint: 'https://x/'}}\n",
        "CD0106",
        7,
        36,
    ),
    // Expressions.
    ("do:\n  - a: {if: '.a +', set: {x: 1}}\n", "CD0107", 7, 13),
    ("do:\n  - a: {set: {x: '${ $nope }'}}\n", "CD0107", 7, 18),
    ("do:\n  - a: {set: {x: '${ now }'}}\n", "CD0107", 7, 18),
    (
        "do:\n  - a: {set: {x: '${ $secrets.a }'}}\n",
        "CD0150",
        7,
        18,
    ),
    (
        "do:\n  - a: {if: '$input.x', set: {x: 1}}\n",
        "CD0107",
        7,
        13,
    ),
    ("do:\n  - a: {set: {x: '${ $item }'}}\n", "CD0107", 7, 18),
    (
        "output: {as: '${ .a'}\ndo:\n  - a: {set: {x: 1}}\n",
        "CD0107",
        6,
        14,
    ),
    // Durations and schemas.
    ("do:\n  - a: {wait: 30s}\n", "CD0108", 7, 15),
    ("do:\n  - a: {wait: P1M}\n", "CD0108", 7, 15),
    ("do:\n  - a: {wait: P9999D}\n", "CD0108", 7, 15),
    ("do:\n  - a: {wait: {second: 5}}\n", "CD0103", 7, 16),
    (
        "input: {schema: {document: {type: 7}}}\ndo:\n  - a: {set: {x: 1}}\n",
        "CD0109",
        6,
        28,
    ),
    (
        "input: {schema: {format: avro, document: {}}}\ndo:\n  - a: {set: {x: 1}}\n",
        "CD0109",
        6,
        26,
    ),
    // Names.
    ("do:\n  - a: {raise: {error: nope}}\n", "CD0110", 7, 24),
    (
        "do:\n  - a: {set: {x: 1}, timeout: nope}\n",
        "CD0110",
        7,
        31,
    ),
    (
        "do:\n  - a: {try: [{b: {set: {x: 1}}}], catch: {retry: nope}}\n",
        "CD0110",
        7,
        51,
    ),
    ("do:\n  - a: {set: {x: 1}, then: nope}\n", "CD0111", 7, 28),
    (
        "do:\n  - a: {fork: {branches: [{b: {set: {x: 1}, then: c}}, {c: {set: {x: 1}}}]}}\n",
        "CD0111",
        7,
        51,
    ),
    (
        "do:\n  - a: {set: {x: 1}}\n  - a: {set: {x: 1}}\n",
        "CD0112",
        8,
        5,
    ),
    (
        "do:\n  - a: {set: {x: 1}}\n    b: {set: {x: 1}}\n",
        "CD0113",
        7,
        5,
    ),
    ("do:\n  - a: {set: {x: 1}, wait: PT1S}\n", "CD0113", 7, 8),
    ("do:\n  - a: {if: .x}\n", "CD0113", 7, 8),
    // What the engine does not do.
    (
        "do:\n  - a: {run: {shell: {command: ls}}}\n",
        "CD0114",
        7,
        22,
    ),
    (
        "do:\n  - a: {run: {container: {image: x}}}\n",
        "CD0114",
        7,
        26,
    ),
    (
        "do:\n  - a: {run: {script: {language: js, code: x}}}\n",
        "CD0114",
        7,
        23,
    ),
    ("do:\n  - a: {call: grpc, with: {}}\n", "CD0115", 7, 15),
    ("do:\n  - a: {call: asyncapi, with: {}}\n", "CD0115", 7, 15),
    ("do:\n  - a: {call: a2a, with: {}}\n", "CD0115", 7, 15),
    // What a run takes in.
    ("do:\n  - a: {listen: {to: {}}}\n", "CD0134", 7, 22),
    ("do:\n  - a: {listen: {}}\n", "CD0104", 7, 17),
    ("do:\n  - a: {listen: {to: {all: []}}}\n", "CD0134", 7, 28),
    (
        "do:\n  - a: {listen: {to: {one: {with: {type: x}}, any: []}}}\n",
        "CD0134",
        7,
        22,
    ),
    (
        "do:\n  - a: {listen: {to: {one: {with: {type: x}}, until: .x}}}\n",
        "CD0134",
        7,
        54,
    ),
    (
        "do:\n  - a: {listen: {to: {any: [], until: {any: [], until: .x}}}}\n",
        "CD0134",
        7,
        39,
    ),
    (
        "do:\n  - a: {listen: {to: {one: {with: {}}}}}\n",
        "CD0135",
        7,
        35,
    ),
    (
        "do:\n  - a: {listen: {to: {one: {with: {orderId: x}}}}}\n",
        "CD0135",
        7,
        36,
    ),
    (
        "do:\n  - a: {listen: {to: {one: {with: {data: {a: ['${ .x }']}}}}}}\n",
        "CD0135",
        7,
        46,
    ),
    (
        "do:\n  - a: {listen: {to: {any: []}, read: all}}\n",
        "CD0106",
        7,
        39,
    ),
    (
        "do:\n  - a: {listen: {to: {any: []}}, foreach: {item: i, at: i}}\n",
        "CD0106",
        7,
        43,
    ),
    (
        "schedule: {cron: '* * * * *', every: PT1M}\ndo:\n  - a: {set: {x: 1}}\n",
        "CD0136",
        6,
        11,
    ),
    (
        "schedule: {every: {milliseconds: 1}}\ndo:\n  - a: {set: {x: 1}}\n",
        "CD0136",
        6,
        19,
    ),
    (
        "schedule: {every: PT1M, read: raw}\ndo:\n  - a: {set: {x: 1}}\n",
        "CD0136",
        6,
        31,
    ),
    (
        "schedule: {on: {any: [], until: false}}\ndo:\n  - a: {set: {x: 1}}\n",
        "CD0136",
        6,
        16,
    ),
    (
        "schedule: {on: {one: {with: {data: '${ .x == $input.x }'}}}}\ndo:\n  - a: {set: {x: 1}}\n",
        "CD0107",
        6,
        36,
    ),
    (
        "schedule: {cron: '* * 31 2 *'}\ndo:\n  - a: {set: {x: 1}}\n",
        "CD0137",
        6,
        18,
    ),
    (
        "do:\n  - a: {call: 'https://x.example/f@v1.0.0'}\n",
        "CD0118",
        7,
        15,
    ),
    ("do:\n  - a: {call: 'log:1@global'}\n", "CD0118", 7, 15),
    ("do:\n  - a: {call: 'log:1.0.0@global'}\n", "CD0118", 7, 15),
    (
        "input: {schema: {resource: {endpoint: x}}}\ndo:\n  - a: {set: {x: 1}}\n",
        "CD0120",
        6,
        39,
    ),
    (
        "do:\n  - a: {run: {workflow: {namespace: t, name: n, version: '1.0.0'}}}\n",
        "CD0121",
        7,
        25,
    ),
    (
        "do:\n  - a: {run: {workflow: {namespace: test, name: main, version: '1.0.0'}}}\n",
        "CD0122",
        7,
        25,
    ),
    (
        "use: {functions: {f: {call: f}}}\ndo:\n  - a: {call: f}\n",
        "CD0122",
        6,
        22,
    ),
    ("do:\n  - a: {call: '${ .x }'}\n", "CD0124", 7, 15),
    (
        "do:\n  - a: {set: {x: 1}, then: '${ .x }'}\n",
        "CD0124",
        7,
        28,
    ),
    (
        "do:\n  - a: {try: [{b: {set: {x: 1}}}], catch: {errors: {with: {status: '${ .x }'}}}}\n",
        "CD0124",
        7,
        68,
    ),
    ("do:\n  - a: {call: nope}\n", "CD0125", 7, 15),
    (
        "do:\n  - a: {call: a.b, metadata: {cofferdam: {timeout: {startToClose: PT0S}}}}\n",
        "CD0170",
        7,
        67,
    ),
    (
        "do:\n  - a: {call: a.b, metadata: {cofferdam: {timeout: {scheduleToClose: PT0S}}}}\n",
        "CD0170",
        7,
        70,
    ),
    (
        "do:\n  - a: {call: a.b, metadata: {cofferdam: {onOutage: {queueAndForward: {deliverWithin: PT0S}}}}}\n",
        "CD0170",
        7,
        87,
    ),
    (
        "do:\n  - a: {call: a.b, metadata: {cofferdam: {hedge: PT0S}}}\n",
        "CD0170",
        7,
        50,
    ),
    (
        "do:\n  - a: {call: a.b, metadata: {cofferdam: {hedge: {after: PT1S}}}}\n",
        "CD0103",
        7,
        51,
    ),
    (
        "do:\n  - a: {call: a.b, metadata: {cofferdam: {validate: [.x, '.x[']}}}\n",
        "CD0107",
        7,
        58,
    ),
    (
        "do:\n  - a: {call: a.b, metadata: {cofferdam: {onExhausted: {review: {deadline: PT1H, onDeadline: escalate}}}}}\n",
        "CD0171",
        7,
        65,
    ),
    (
        "do:\n  - a: {call: a.b, metadata: {cofferdam: {onUnknown: {review: {deadline: PT1H, escalateTo: [a, 5]}}}}}\n",
        "CD0105",
        7,
        96,
    ),
    (
        "do:\n  - a: {call: a.b, metadata: {cofferdam: {onExhausted: {review: {onDeadline: reject}}}}}\n",
        "CD0104",
        7,
        65,
    ),
    (
        "do:\n  - a: {call: a.b, metadata: {cofferdam: {retry: [{class: conflict}]}}}\n",
        "CD0106",
        7,
        59,
    ),
    (
        "do:\n  - a: {call: a.b, metadata: {cofferdam: {retry: {class: timeout}}}}\n",
        "CD0105",
        7,
        50,
    ),
    (
        "do:\n  - a: {call: a.b, metadata: {cofferdam: {fallback: [{value: 1, compensate: {call: c, with: {}}}]}}}\n",
        "CD0106",
        7,
        77,
    ),
    (
        "do:\n  - a: {call: a.b, metadata: {cofferdam: {onOutage: {queueAndForward: {}}}}}\n",
        "CD0104",
        7,
        71,
    ),
    (
        "do:\n  - a: {call: a.b, metadata: {cofferdam: {onOutage: queueAndForward, compensate: {call: c, with: {}}}}}\n",
        "CD0106",
        7,
        53,
    ),
    (
        "do:\n  - a: {call: a.b, metadata: {cofferdam: {fallback: [{cache: {maxAge: PT0S}}]}}}\n",
        "CD0170",
        7,
        71,
    ),
    (
        "do:\n  - a: {call: a.b, metadata: {cofferdam: {timeout: {scheduleToStart: PT0S}}}}\n",
        "CD0170",
        7,
        70,
    ),
    (
        "do:\n  - a: {set: {x: 1}, metadata: {cofferdam: {critical: true}}}\n",
        "CD0126",
        7,
        44,
    ),
    (
        "do:\n  - a: {call: a.b, metadata: {cofferdam: {critcal: true}}}\n",
        "CD0103",
        7,
        43,
    ),
    (
        "do:\n  - a: {call: a.b, metadata: {cofferdam: {onExhausted: retry}}}\n",
        "CD0106",
        7,
        56,
    ),
    (
        "do:\n  - a: {call: a.b, metadata: {cofferdam: {attempts: 0}}}\n",
        "CD0106",
        7,
        53,
    ),
    (
        "do:\n  - a: {call: a.b, metadata: {cofferdam: {compensate: {call: undo}}}}\n",
        "CD0104",
        7,
        55,
    ),
    (
        "do:\n  - a: {try: [{b: {set: {x: 1}}}], catch: {retry: {backoff: {linear: {}, constant: {}}}}}\n",
        "CD0127",
        7,
        61,
    ),
    (
        "do:\n  - a: {try: [{b: {set: {x: 1}}}], catch: {retry: {backoff: {exponential: {factor: 0}}}}}\n",
        "CD0127",
        7,
        84,
    ),
    (
        "do:\n  - a: {call: http, with: {method: get, endpoint: 'https://x/{+a}'}}\n",
        "CD0128",
        7,
        51,
    ),
    (
        "evaluate: {language: js}\ndo:\n  - a: {set: {x: 1}}\n",
        "CD0130",
        6,
        22,
    ),
    (
        "evaluate: {mode: loose}\ndo:\n  - a: {set: {x: 1}}\n",
        "CD0130",
        6,
        18,
    ),
];

#[test]
fn each_mistake_has_its_code_and_place() {
    let mut wrong = Vec::new();
    for (rest, code, line, column) in CASES {
        let found = match compile(&sources(&format!("{HEAD}{rest}"), &[])) {
            Ok(_) => "compiled".to_owned(),
            Err(errors) => {
                let e = &errors.0[0];
                assert!(!e.cause.is_empty() && !e.remedy.is_empty(), "{e}");
                if (e.code, e.line, e.column) == (code, *line, *column) {
                    continue;
                }
                e.to_string()
            }
        };
        wrong.push(format!(
            "{rest}  wanted {code} at {line}:{column}\n  {found}\n\n"
        ));
    }
    assert!(wrong.is_empty(), "{}", wrong.concat());
    assert!(CASES.len() >= 40);
}

#[test]
fn what_is_out_of_range_is_told_with_the_value_and_the_bounds() {
    let told = |settings: &str| {
        let text = format!(
            "do:\n  - a: {{call: c.act, with: {{}}, metadata: {{cofferdam: {settings}}}}}\n"
        );
        compile(&sources(&format!("{HEAD}{text}"), &[]))
            .unwrap_err()
            .to_string()
    };
    for (settings, cause, remedy) in [
        (
            "{timeout: {startToClose: PT0S}}",
            "`PT0S` is no time",
            "PT30S",
        ),
        (
            "{timeout: {startToClose: {seconds: 0}}}",
            "{\"seconds\":0} is no time",
            "PT30S",
        ),
        (
            "{timeout: {startToClose: P4000D}}",
            "`P4000D` is longer than ten years",
            "P3650D",
        ),
        (
            "{timeout: {startToClose: -PT5S}}",
            "`-PT5S` is negative",
            "PT30S",
        ),
        (
            "{timeout: {startToClose: P1Y}}",
            "`P1Y`: years and months have no fixed length",
            "P1DT12H",
        ),
        ("{attempts: 0}", "0 is out of range", "from 1 to 1000"),
        (
            "{retry: [{jitter: {from: PT5S, to: PT1S}}]}",
            "`from`, 5000 ms, is longer than `to`, 1000 ms",
            "swap",
        ),
        (
            "{retry: [{backoff: {exponential: {factor: 0.5}}}]}",
            "0.5 cannot be a factor",
            "from 1 to 100",
        ),
    ] {
        let told = told(settings);
        assert!(
            told.contains(cause) && told.contains(remedy),
            "{settings}: {told}"
        );
    }
}

#[test]
fn the_head_is_checked() {
    for (from, to, code, line) in [
        ("'1.0.3'", "'2.0.0'", "CD0129", 2),
        ("'1.0.3'", "1.0", "CD0105", 2),
        ("name: main", "name: ma/in", "CD0106", 4),
        ("'1.0.0'", "'1'", "CD0106", 5),
        ("'1.0.0'", "'01.0.0'", "CD0106", 5),
        ("  name: main\n", "", "CD0104", 2),
        (
            "version: '1.0.0'",
            "version: '1.0.0'\n  titel: x",
            "CD0103",
            6,
        ),
        (
            "version: '1.0.0'",
            "version: '1.0.0'\n  metadata: {cofferdam: {onExhausted: x}}",
            "CD0106",
            6,
        ),
    ] {
        let text = format!("{HEAD}do:\n  - a: {{set: {{x: 1}}}}\n").replacen(from, to, 1);
        let errors = compile(&sources(&text, &[])).expect_err(to);
        assert_eq!(
            (errors.0[0].code, errors.0[0].line),
            (code, line),
            "{errors}"
        );
    }
}

#[test]
fn a_document_that_unfolds_is_refused() {
    let mut rows = vec!["a: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned()];
    for i in 1..12 {
        let row = vec![format!("*a{}", i - 1); 10].join(", ");
        rows.push(format!("b{i}: &a{i} [{row}]\n"));
    }
    let errors = compile(&sources(&rows.concat(), &[])).unwrap_err();
    assert_eq!(errors.0[0].code, "CD0101", "{errors}");
}

#[test]
fn a_document_that_is_too_deep_or_too_long_is_refused() {
    let deep = format!("{HEAD}do: {}{}", "[".repeat(10_000), "]".repeat(10_000));
    let long = format!("{HEAD}do: # {}", "x".repeat(1024 * 1024));
    for text in [deep, long] {
        let errors = compile(&sources(&text, &[])).unwrap_err();
        assert_eq!(errors.0[0].code, "CD0101", "{errors}");
    }
}

#[test]
fn errors_are_bounded() {
    let text = format!("{HEAD}do:\n{}", "  - a: {nope: 1}\n".repeat(500));
    assert!(compile(&sources(&text, &[])).unwrap_err().0.len() <= 50);
}

#[test]
fn every_code_has_a_page() {
    let pages = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/errors");
    let here = concat!(env!("CARGO_MANIFEST_DIR"), "/src/dsl");
    let mut codes = std::collections::BTreeSet::new();
    for file in std::fs::read_dir(here).unwrap().flatten() {
        let Ok(text) = std::fs::read_to_string(file.path()) else {
            continue;
        };
        codes.extend(
            text.match_indices("\"CD01")
                .filter_map(|(i, _)| text.get(i + 1..i + 7).map(str::to_owned)),
        );
    }
    assert!(codes.len() > 25, "{codes:?}");
    for code in codes {
        assert!(
            pages.join(format!("{code}.md")).exists(),
            "no page for {code}"
        );
    }
}
