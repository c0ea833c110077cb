//! Workflows that compile, and what they compile to.

use serde_json::json;

use super::{HEAD, good, sources};
use crate::dsl::compile;
use crate::expr::{Template, Vars};
use crate::retry::{Growth, Jitter};
use crate::workflow::{
    Call, CompensateWhen, DurationSpec, Fallback, Kind, OnExhausted, OnOutage, OnUnknown, Target,
    Then, Workflow,
};

fn call_of(workflow: &Workflow, index: usize) -> &Call {
    match &workflow.body.tasks[index].kind {
        Kind::Call(call) => call,
        other => panic!("{other:?}"),
    }
}

const ORDER: &str = r"
input:
  schema:
    document: {type: object, required: [id]}
  from: .
use:
  errors:
    broke: {type: 'https://x.example/broke', status: 402, title: Broke}
  retries:
    patient:
      delay: {seconds: 3}
      backoff: {exponential: {factor: 3, maxDelay: PT1M}}
      jitter: {from: PT0S, to: {seconds: 1}}
      limit: {attempt: {count: 5, duration: PT10S}, duration: {minutes: 5}}
  timeouts:
    short: {after: PT5S}
do:
  - charge:
      if: .amount > 0
      call: pay.charge
      with: {amount: '${ .amount }', note: 'for ${ .id }'}
      timeout: short
      export: {as: '$context + {paid: true}'}
      metadata:
        team: payments
        cofferdam:
          critical: false
          idempotencyKey: .id
          failover: [pay2, pay-3]
          fallback:
            - value: {status: unknown}
            - call: mail.send
              with: {to: '${ .id }'}
          onOutage: {park: {deadline: PT2H}}
          onExhausted: review
          onUnknown: lookup
          attempts: 4
          timeout: {startToClose: PT10S, scheduleToClose: {minutes: 30}}
          compensate:
            call: refund
            with: {charge: '${ $output.id }', amount: '${ $input.amount }'}
            when: completed
  - decide:
      switch:
        - rich: {when: .amount > 100, then: broke}
        - other: {then: fetch}
  - broke:
      raise: {error: broke}
      then: end
  - fetch:
      call: http
      with:
        method: GET
        endpoint: {uri: 'https://api.example/pet/{id}'}
        headers: {accept: application/json}
  - each:
      for: {each: pet, in: .pets, at: i}
      do:
        - one: {set: {pet: '${ $pet }', i: '${ $i }'}}
      metadata: {cofferdam: {maxConcurrency: 8, toleratedFailurePercent: 12.5}}
  - safe:
      try:
        - risky: {call: crm.upsert-contact}
      catch:
        errors: {with: {type: 'https://serverlessworkflow.io/spec/1.0.0/errors/communication', status: 503}}
        as: problem
        exceptWhen: $problem.status == 401
        retry: patient
        do:
          - tell: {emit: {event: {with: {type: t.v1, data: '${ $problem }'}}}}
  - both:
      fork:
        compete: true
        branches:
          - left: {wait: PT1S}
          - right: {wait: {seconds: 2}}
  - nap: {wait: '${ .nap }'}
output: {as: '{done: true}'}
timeout: {after: {hours: 1}}
";

#[test]
fn an_order_compiles_to_what_it_says() {
    let workflow = good(ORDER);
    assert!(matches!(
        workflow.timeout,
        Some(DurationSpec::Fixed(3_600_000))
    ));
    let charge = &workflow.body.tasks[0];
    assert_eq!(
        (charge.name.as_str(), charge.reference.as_str()),
        ("charge", "/do/0/charge")
    );
    assert!(matches!(charge.timeout, Some(DurationSpec::Fixed(5_000))));
    let Kind::Switch(cases) = &workflow.body.tasks[1].kind else {
        panic!()
    };
    assert_eq!(
        (&cases[0].then, &cases[1].then),
        (&Then::Goto(2), &Then::Goto(3))
    );
    assert_eq!(workflow.body.tasks[2].then, Then::End);
    let Kind::For(each) = &workflow.body.tasks[4].kind else {
        panic!()
    };
    assert_eq!(
        (each.each.as_str(), each.at.as_str(), each.concurrency_max),
        ("pet", "i", 8)
    );
    assert!((each.tolerated_failure_ratio - 0.125).abs() < 1e-9);
    let Kind::Fork(fork) = &workflow.body.tasks[6].kind else {
        panic!()
    };
    assert!(fork.compete && fork.branches.len() == 2);
    assert!(matches!(
        workflow.body.tasks[7].kind,
        Kind::Wait(DurationSpec::Computed(_))
    ));
}

#[test]
fn every_setting_of_a_call_arrives() {
    let workflow = good(ORDER);
    let call = call_of(&workflow, 0);
    let target = Target::Action {
        connection: "pay".into(),
        action: "charge".into(),
    };
    assert_eq!(call.target, target);
    let with = call
        .with
        .evaluate(&json!({"amount": 5, "id": "a"}), &Vars::new())
        .unwrap();
    assert_eq!(with, json!({"amount": 5, "note": "for ${ .id }"}));
    let policy = &call.policy;
    assert_eq!(policy.critical, Some(false));
    assert_eq!(policy.idempotency_key.as_ref().unwrap().source(), ".id");
    assert_eq!(policy.failover.as_deref().unwrap(), ["pay2", "pay-3"]);
    assert!(matches!(
        policy.fallback[0],
        Fallback::Value(Template::Literal(_))
    ));
    assert!(
        matches!(&policy.fallback[1], Fallback::Call { connection, .. } if connection == "mail")
    );
    assert_eq!(
        policy.on_outage,
        Some(OnOutage::Park {
            deadline_ms: 7_200_000
        })
    );
    assert_eq!(policy.on_exhausted, Some(OnExhausted::Review));
    assert_eq!(policy.on_unknown, Some(OnUnknown::Lookup));
    assert_eq!(policy.attempts_max, Some(4));
    assert_eq!(policy.start_to_close_ms, Some(10_000));
    assert_eq!(policy.schedule_to_close_ms, Some(1_800_000));
    let undo = policy.compensate.as_ref().unwrap();
    assert_eq!(
        (undo.connection.as_str(), undo.action.as_str()),
        ("pay", "refund")
    );
    assert_eq!(undo.when, CompensateWhen::Completed);
}

#[test]
fn a_retry_policy_arrives_and_the_first_attempt_is_counted() {
    let workflow = good(ORDER);
    let Kind::Try(attempt) = &workflow.body.tasks[5].kind else {
        panic!()
    };
    let catch = &attempt.catch;
    assert_eq!(catch.r#as, "problem");
    assert_eq!(catch.errors["status"], 503);
    let retry = catch.retry.as_ref().unwrap();
    assert_eq!(retry.attempts_max, Some(6));
    assert_eq!(retry.attempt_ms_max, Some(10_000));
    assert_eq!(retry.total_ms_max, Some(300_000));
    assert_eq!(retry.backoff.initial_ms, 3_000);
    assert_eq!(retry.backoff.growth, Growth::Exponential { factor: 3.0 });
    assert_eq!(retry.backoff.delay_ms_max, 60_000);
    assert_eq!(
        retry.backoff.jitter,
        Jitter::Range {
            from_ms: 0,
            to_ms: 1_000
        }
    );
}

#[test]
fn http_takes_uri_templates_and_lower_case_methods() {
    let workflow = good(ORDER);
    let call = call_of(&workflow, 3);
    assert_eq!(call.target, Target::Http);
    let with = call
        .with
        .evaluate(&json!({"id": "a b"}), &Vars::new())
        .unwrap();
    assert_eq!(with["endpoint"], "https://api.example/pet/a%20b");
    assert_eq!(with["method"], "get");
}

#[test]
fn every_target_of_a_call_can_be_listed() {
    let workflow = good(ORDER);
    let calls: Vec<_> = workflow
        .calls()
        .into_iter()
        .map(|(t, c, a)| format!("{}: {c}.{a}", t.name))
        .collect();
    assert_eq!(
        calls,
        [
            "charge: pay.charge",
            "charge: pay2.charge",
            "charge: pay-3.charge",
            "charge: mail.send",
            "charge: pay.refund",
            "fetch: http.get",
            "risky: crm.upsert-contact",
        ]
    );
}

#[test]
fn the_text_is_read_as_yaml_1_2() {
    let workflow = good(
        "do:\n  - a:\n      set:\n        no: no\n        on: yes\n        t: true\n        n: ~\n        \
         hex: 0x1F\n        f: 1.5e3\n        big: 18446744073709551615\n        q: '1'\n        d: 2024-01-01\n",
    );
    let Kind::Set(template) = &workflow.body.tasks[0].kind else {
        panic!()
    };
    let expected = json!({
        "no": "no", "on": "yes", "t": true, "n": null, "hex": 31, "f": 1500.0,
        "big": 18_446_744_073_709_551_615_u64, "q": "1", "d": "2024-01-01",
    });
    assert_eq!(template.as_literal(), Some(&expected));
}

#[test]
fn anchors_are_followed() {
    let workflow = good("do:\n  - a: {set: {x: &x {y: 1}, z: *x}}\n");
    let Kind::Set(template) = &workflow.body.tasks[0].kind else {
        panic!()
    };
    assert_eq!(template.as_literal().unwrap()["z"]["y"], 1);
}

#[test]
fn a_list_in_a_for_may_hold_expressions() {
    let workflow = good(
        "do:\n  - a:\n      for: {in: [{n: 1, \"we\\\"ird \\\\(1)\": '${ .x }'}, {n: -2}]}\n      do: [{b: {set: '$item'}}]\n",
    );
    let Kind::For(each) = &workflow.body.tasks[0].kind else {
        panic!()
    };
    let items = each
        .r#in
        .evaluate(&json!({"x": [1]}), &Vars::new())
        .unwrap();
    assert_eq!(items, json!([{"n": 1, "we\"ird \\(1)": [1]}, {"n": -2}]));
}

#[test]
fn a_function_becomes_a_task_with_the_arguments_as_input() {
    let workflow = good(
        "use:\n  functions:\n    pet:\n      input: {schema: {document: {type: object}}}\n      call: http\n      \
         with: {method: get, endpoint: 'https://x.example/{petId}'}\ndo:\n  - get:\n      call: pet\n      with: {petId: 69}\n",
    );
    let Kind::Do(around) = &workflow.body.tasks[0].kind else {
        panic!()
    };
    let from = around.tasks[0].input.from.as_ref().unwrap();
    assert_eq!(from.as_literal(), Some(&json!({"petId": 69})));
    let Kind::Do(inner) = &around.tasks[0].kind else {
        panic!()
    };
    assert!(inner.tasks[0].input.schema.is_some());
    assert_eq!(inner.tasks[0].reference, "/use/functions/pet");
}

fn runs(version: &str) -> String {
    format!(
        "{HEAD}do:\n  - r:\n      run: {{workflow: {{namespace: test, name: sub, version: {version}, input: {{a: '${{ .a }}'}}}}}}\n"
    )
}

fn sub(version: &str, rest: &str) -> String {
    format!("document: {{dsl: '1.0.3', namespace: test, name: sub, version: {version}}}\n{rest}")
}

#[test]
fn another_workflow_is_found_by_version_or_as_the_latest() {
    let body = "do: [{a: {call: crm.get}}]\n";
    let (old, new) = (sub("1.9.0", body), sub("1.10.0", body));
    let others = [
        ("test/sub:1.9.0", old.as_str()),
        ("test/sub:1.10.0", new.as_str()),
    ];
    for (version, expected) in [("latest", "1.10.0"), ("1.9.0", "1.9.0")] {
        let workflow = compile(&sources(&runs(version), &others)).unwrap();
        let Kind::Run {
            workflow: other, ..
        } = &workflow.body.tasks[0].kind
        else {
            panic!()
        };
        assert_eq!(other.document.version, expected);
        assert_eq!(workflow.calls().len(), 1);
    }
}

#[test]
fn an_error_in_another_workflow_names_its_file() {
    let broken = sub("1.0.0", "do: [{a: {wait: soon}}]\n");
    let errors = compile(&sources(&runs("1.0.0"), &[("test/sub:1.0.0", &broken)])).unwrap_err();
    assert_eq!(errors.0[0].origin, "test/sub:1.0.0.yaml");
    assert_eq!(errors.0[0].code, "CD0108");
}

#[test]
fn a_circle_of_workflows_is_refused() {
    let back = sub(
        "1.0.0",
        "do: [{a: {run: {workflow: {namespace: test, name: main, version: 1.0.0}}}}]\n",
    );
    let errors = compile(&sources(&runs("1.0.0"), &[("test/sub:1.0.0", &back)])).unwrap_err();
    assert_eq!(errors.0[0].code, "CD0122");
    let own = sub(
        "1.0.0",
        "do: [{a: {run: {workflow: {namespace: test, name: sub, version: latest}}}}]\n",
    );
    let errors = compile(&sources(&runs("1.0.0"), &[("test/sub:1.0.0", &own)])).unwrap_err();
    assert_eq!(errors.0[0].code, "CD0122");
}

#[test]
fn the_workflows_in_the_documentation_compile() {
    let page = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/workflows.md");
    let page = std::fs::read_to_string(page).unwrap();
    let blocks = page
        .split("```yaml\n")
        .skip(1)
        .filter_map(|b| b.split("```").next());
    let whole: Vec<_> = blocks.filter(|b| b.starts_with("document:")).collect();
    assert!(whole.len() >= 2);
    for text in whole {
        compile(&sources(text, &[])).unwrap_or_else(|e| panic!("{e}\n{text}"));
    }
}
