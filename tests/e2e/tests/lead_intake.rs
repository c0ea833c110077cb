//! The lead-intake example, one lead at a time, with one thing wrong at a time. What happened is
//! counted at the services.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

mod stage;

use cofferdam::{Class, Decision, Provenance, RunView, Status, WaitsFor};
use cofferdam_standins::Fault;
use serde_json::{Value, json};
use stage::{Stage, ended, eventually, lead};

const ADA: &str = "ada@example.com";

fn with(mut lead: Value, key: &str, value: Value) -> Value {
    lead[key] = value;
    lead
}

fn provenance<'a>(view: &'a RunView, task: &str) -> &'a Provenance {
    &view.provenance[task]
}

#[tokio::test]
async fn in_a_healthy_world_everything_happens_once_and_the_run_is_whole() {
    let stage = Stage::new().await;
    let view = stage.run(lead(ADA)).await;
    assert_eq!(
        (view.status, view.degraded),
        (Status::Completed, false),
        "{view:#?}"
    );
    assert!(view.provenance.values().all(|how| *how == Provenance::Live));
    assert_eq!(
        (stage.contacts(ADA), stage.mails(ADA), stage.charges(ADA)),
        ((1, 0), 1, 1)
    );
    assert_eq!(stage.standins.slack.effects().len(), 1);
    let output = view.output.unwrap();
    assert_eq!(output["phone"], "+4930901820");
    assert_eq!(
        output["summary"],
        "Zoë Müller of Müller GmbH is on the team plan (warm lead)"
    );
    let intents = stage.standins.stripe.state();
    assert_eq!(intents["payment_intents"][0]["id"], output["payment"]);
    assert_eq!(intents["payment_intents"][0]["amount"], 4900);
}

#[tokio::test]
async fn a_chat_that_is_down_costs_the_message_and_nothing_else() {
    let stage = Stage::new().await;
    stage
        .standins
        .slack
        .set_faults(vec![Fault::refuse()])
        .await
        .unwrap();
    let view = stage.run(lead(ADA)).await;
    assert_eq!(
        (view.status, view.degraded),
        (Status::Completed, true),
        "{view:#?}"
    );
    assert_eq!(*provenance(&view, "/chat"), Provenance::Skipped);
    assert_eq!(
        (stage.contacts(ADA), stage.mails(ADA), stage.charges(ADA)),
        ((1, 0), 1, 1)
    );
    assert_eq!(view.output.unwrap()["announced"], false);
}

#[tokio::test]
async fn a_lead_waits_parked_for_the_crm_and_goes_on_when_it_is_back() {
    let stage = Stage::new().await;
    stage
        .standins
        .hubspot
        .set_faults(vec![Fault::refuse()])
        .await
        .unwrap();
    let (runtime, workflow) = stage.open().await;
    let run = runtime.start(&workflow, lead(ADA)).await.unwrap();
    eventually("parked", || runtime.query().parked("crm").unwrap() == 1).await;
    let view = runtime.settle(&run).await.unwrap();
    let crm = view.tasks.iter().find(|task| task.task == "/crm").unwrap();
    assert_eq!(
        (view.status, crm.waits_for),
        (Status::Waiting, Some(WaitsFor::Connection))
    );
    assert_eq!(stage.mails(ADA), 0, "what comes after the CRM waits too");
    stage.standins.hubspot.clear_faults().await.unwrap();
    let view = ended(&runtime, &run).await;
    assert_eq!(
        (view.status, view.degraded),
        (Status::Completed, false),
        "{view:#?}"
    );
    assert_eq!(runtime.query().parked("crm").unwrap(), 0);
    assert_eq!(
        (stage.contacts(ADA), stage.mails(ADA), stage.charges(ADA)),
        ((1, 0), 1, 1)
    );
    runtime.shutdown().await;
}

#[tokio::test]
async fn a_parked_lead_survives_a_restart() {
    let stage = Stage::new().await;
    stage
        .standins
        .hubspot
        .set_faults(vec![Fault::status(503)])
        .await
        .unwrap();
    let (runtime, workflow) = stage.open().await;
    let run = runtime.start(&workflow, lead(ADA)).await.unwrap();
    eventually("parked", || runtime.query().parked("crm").unwrap() == 1).await;
    runtime.shutdown().await;
    stage.standins.hubspot.clear_faults().await.unwrap();
    let (runtime, _) = stage.open().await;
    assert_eq!(ended(&runtime, &run).await.status, Status::Completed);
    assert_eq!(
        (stage.contacts(ADA), stage.mails(ADA), stage.charges(ADA)),
        ((1, 0), 1, 1)
    );
    runtime.shutdown().await;
}

#[tokio::test]
async fn a_declined_card_undoes_contact_and_row_and_leaves_a_dead_letter() {
    let stage = Stage::new().await;
    let (runtime, workflow) = stage.open().await;
    let declined = with(lead(ADA), "card", json!("pm_card_chargeDeclined"));
    let run = runtime.start(&workflow, declined.clone()).await.unwrap();
    let view = ended(&runtime, &run).await;
    assert_eq!(view.status, Status::Faulted, "{view:#?}");
    assert_eq!((stage.contacts(ADA), stage.charges(ADA)), ((1, 1), 0));
    assert_eq!(stage.rows(&runtime).await, json!([]));
    let letters = runtime.query().dead_letters().unwrap();
    assert_eq!((letters.len(), &letters[0].input), (1, &declined));
    let details = letters[0].error.cofferdam.as_ref().unwrap();
    assert_eq!(details.class, Class::Refused);
    assert!(
        letters[0]
            .error
            .detail
            .as_ref()
            .unwrap()
            .contains("declined"),
        "{:?}",
        letters[0].error
    );
    runtime.shutdown().await;
}

#[tokio::test]
async fn input_that_breaks_the_contract_is_kept_with_the_reason_and_reaches_nobody() {
    let stage = Stage::new().await;
    let (runtime, workflow) = stage.open().await;
    for (key, value) in [
        ("email", json!("ada(at)example.com")),
        ("amount", json!("forty-nine")),
    ] {
        let run = runtime
            .start(&workflow, with(lead(ADA), key, value))
            .await
            .unwrap();
        let view = ended(&runtime, &run).await;
        let error = view.error.unwrap();
        assert!(error.r#type.ends_with("/validation"), "{error}");
        assert!(error.detail.unwrap().contains(key));
    }
    assert_eq!(runtime.query().dead_letters().unwrap().len(), 2);
    let requests = [
        stage.standins.hubspot.requests(),
        stage.standins.smtp.requests(),
        stage.standins.stripe.requests(),
    ];
    assert_eq!(requests, [0, 0, 0]);
    runtime.shutdown().await;
}

#[tokio::test]
async fn a_charge_whose_answer_is_lost_is_made_once() {
    let stage = Stage::new().await;
    let lost = Fault::accept_then_drop()
        .times(1)
        .on_path("/v1/payment_intents");
    stage.standins.stripe.set_faults(vec![lost]).await.unwrap();
    let view = stage.run(lead(ADA)).await;
    assert_eq!(
        (view.status, view.degraded),
        (Status::Completed, false),
        "{view:#?}"
    );
    assert_eq!(stage.charges(ADA), 1);
    assert!(stage.standins.stripe.duplicates().is_empty());
    assert!(stage.standins.stripe.requests() > 1, "the fault struck");
}

#[tokio::test]
async fn a_mail_whose_answer_is_lost_is_not_sent_again_but_shown_to_a_person() {
    let stage = Stage::new().await;
    stage
        .standins
        .smtp
        .set_faults(vec![Fault::accept_then_drop().times(1)])
        .await
        .unwrap();
    let (runtime, workflow) = stage.open().await;
    let run = runtime.start(&workflow, lead(ADA)).await.unwrap();
    eventually("in review", || {
        runtime.query().reviews().unwrap().len() == 1
    })
    .await;
    assert_eq!((stage.mails(ADA), stage.charges(ADA)), (1, 0));
    let review = &runtime.query().reviews().unwrap()[0];
    assert_eq!(
        (review.run.as_str(), review.task.as_str()),
        (run.as_str(), "/mail")
    );
    let sent = Decision::Approve {
        output: json!({"messageId": "<seen-in-the-log@example.com>", "reply": "250 OK"}),
    };
    runtime.decide(&run, "/mail", sent).await.unwrap();
    let view = ended(&runtime, &run).await;
    assert_eq!(*provenance(&view, "/mail"), Provenance::Manual);
    assert_eq!(
        (view.status, stage.mails(ADA), stage.charges(ADA)),
        (Status::Completed, 1, 1)
    );
    runtime.shutdown().await;
}

#[tokio::test]
async fn plugins_that_trap_or_never_end_cost_their_own_part() {
    let stage = Stage::new().await;
    let unlucky = with(lead(ADA), "phone", json!("030 901820 ext. 12"));
    let view = stage
        .run(with(unlucky, "company", json!("Müller -- Söhne GmbH")))
        .await;
    assert_eq!(
        (view.status, view.degraded),
        (Status::Completed, true),
        "{view:#?}"
    );
    assert_eq!(*provenance(&view, "/normalize"), Provenance::Skipped);
    assert_eq!(*provenance(&view, "/score"), Provenance::Default);
    let code = |task: &str| {
        let report = view
            .tasks
            .iter()
            .find(|report| report.task == task)
            .unwrap();
        report
            .attempts
            .last()
            .unwrap()
            .failure
            .as_ref()
            .unwrap()
            .code
            .clone()
    };
    assert_eq!(
        (code("/normalize").as_str(), code("/score").as_str()),
        ("plugin.trap", "limit.cpu")
    );
    assert_eq!(
        view.output.unwrap()["score"],
        json!({"score": 0, "band": "unknown"})
    );
    assert_eq!(
        (stage.contacts(ADA), stage.mails(ADA), stage.charges(ADA)),
        ((1, 0), 1, 1)
    );
}

#[tokio::test]
async fn a_lead_that_is_given_twice_under_one_id_is_one_run() {
    let stage = Stage::new().await;
    let (runtime, workflow) = stage.open().await;
    let options = cofferdam::StartOptions {
        id: Some("lead-ada".to_owned()),
        ..cofferdam::StartOptions::default()
    };
    for _ in 0..2 {
        let run = runtime
            .start_with(&workflow, lead(ADA), options.clone())
            .await
            .unwrap();
        assert_eq!(ended(&runtime, &run).await.status, Status::Completed);
    }
    assert_eq!(
        (stage.contacts(ADA), stage.mails(ADA), stage.charges(ADA)),
        ((1, 0), 1, 1)
    );
    runtime.shutdown().await;
}
