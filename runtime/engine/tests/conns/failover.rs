//! Failover with a breaker, and the way back.

use cofferdam::{BreakerSetting, Provenance, Status};
use cofferdam_store::MemoryStore;

use super::stage::*;

#[tokio::test]
async fn an_open_breaker_leads_to_the_backups_in_order_and_a_closed_one_back() {
    let (store, crm, eu, us) = (
        MemoryStore::new(),
        Service::new(),
        Service::new(),
        Service::new(),
    );
    let primary = connection("crm").with_backups(["crm-eu", "crm-us"]);
    let runtime = open(
        &store,
        [
            (primary, crm.clone()),
            (connection("crm-eu"), eu.clone()),
            (connection("crm-us"), us.clone()),
        ],
    )
    .await;
    let keep = one_call(&runtime, "crm.keep", "");
    let set = async |name: &str, setting| runtime.set_breaker(name, setting).await.unwrap();

    set("crm", BreakerSetting::ForceOpen).await;
    let view = call(&runtime, &keep, "a").await;
    assert_eq!(view.provenance["/act"], Provenance::Backup("crm-eu".into()));
    assert!(view.degraded);

    set("crm-eu", BreakerSetting::ForceOpen).await;
    let view = call(&runtime, &keep, "b").await;
    assert_eq!(view.provenance["/act"], Provenance::Backup("crm-us".into()));

    // A list at the task counts instead of the connection's; with nobody left it waits for the one
    // that the workflow names.
    let only_eu = one_call(&runtime, "crm.keep", "failover: [crm-eu]");
    let view = call(&runtime, &only_eu, "c").await;
    assert_eq!(view.status, Status::Waiting);
    assert!(view.tasks[0].waiting.as_ref().unwrap().contains("`crm`"));

    set("crm", BreakerSetting::Reset).await;
    assert_eq!(
        wait(&runtime, "c").await.provenance["/act"],
        Provenance::Live
    );
    let view = call(&runtime, &keep, "d").await;
    assert_eq!(view.provenance["/act"], Provenance::Live);
    let calls = [crm, eu, us].map(|service| service.seen().calls.len());
    assert_eq!(calls, [2, 1, 1]);
}
