//! The faults in force on one service, used up request by request.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::fault::{Fault, FaultKind};

/// The ordered list of faults of one service.
#[derive(Debug, Default)]
pub(crate) struct FaultPlan {
    faults: Mutex<Vec<Fault>>,
    replaced: watch::Sender<()>,
}

/// What the faults do to one request.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Strike {
    /// Sum of the latencies in front of the deciding fault.
    pub(crate) latency: Duration,
    /// The first matching fault that is not a latency; it decides how the request ends.
    pub(crate) ending: Option<FaultKind>,
}

impl FaultPlan {
    pub(crate) fn replace(&self, faults: Vec<Fault>) {
        *self.faults.lock() = faults;
        self.replaced.send_replace(());
    }

    /// Told when the list is replaced from here on.
    pub(crate) fn replaced(&self) -> watch::Receiver<()> {
        self.replaced.subscribe()
    }

    pub(crate) fn list(&self) -> Vec<Fault> {
        self.faults.lock().clone()
    }

    /// Walks the list in order and charges every fault that takes part to its `times`.
    pub(crate) fn strike(&self, path: &str, body: &[u8]) -> Strike {
        let mut faults = self.faults.lock();
        let mut strike = Strike {
            latency: Duration::ZERO,
            ending: None,
        };
        for fault in faults.iter_mut().filter(|fault| matches(fault, path, body)) {
            if let Some(times) = &mut fault.times {
                *times -= 1;
            }
            if let FaultKind::Latency { ms } = fault.kind {
                strike.latency += Duration::from_millis(ms);
            } else {
                strike.ending = Some(fault.kind.clone());
                break;
            }
        }
        faults.retain(|fault| fault.times != Some(0));
        strike
    }
}

fn matches(fault: &Fault, path: &str, body: &[u8]) -> bool {
    let on_path = fault
        .path
        .as_deref()
        .is_none_or(|prefix| path.starts_with(prefix));
    let on_body = fault
        .body
        .as_deref()
        .is_none_or(|text| contains(body, text.as_bytes()));
    fault.kind != FaultKind::Refuse && fault.times != Some(0) && on_path && on_body
}

fn contains(body: &[u8], text: &[u8]) -> bool {
    text.is_empty() || body.windows(text.len()).any(|window| window == text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(faults: Vec<Fault>) -> FaultPlan {
        let plan = FaultPlan::default();
        plan.replace(faults);
        plan
    }

    #[test]
    fn faults_apply_in_order_and_are_used_up() {
        let plan = plan(vec![
            Fault::status(500).times(2),
            Fault::status(429).times(1),
        ]);
        let codes: Vec<_> = (0..4).map(|_| plan.strike("/", b"").ending).collect();
        let status = |code| {
            Some(FaultKind::Status {
                code,
                retry_after_s: None,
            })
        };
        assert_eq!(codes, [status(500), status(500), status(429), None]);
        assert!(plan.list().is_empty());
    }

    #[test]
    fn latencies_add_up_in_front_of_the_fault_that_decides() {
        let plan = plan(vec![
            Fault::latency(2),
            Fault::latency(3),
            Fault::reset(),
            Fault::latency(9),
        ]);
        let strike = plan.strike("/", b"");
        assert_eq!(
            strike,
            Strike {
                latency: Duration::from_millis(5),
                ending: Some(FaultKind::Reset)
            }
        );
    }

    #[test]
    fn a_narrowed_fault_spares_other_requests() {
        let plan = plan(vec![
            Fault::reset()
                .on_path("/v1/refunds")
                .on_body("pi_1")
                .times(1),
        ]);
        assert_eq!(plan.strike("/v1/payment_intents", b"pi_1").ending, None);
        assert_eq!(plan.strike("/v1/refunds", b"pi_2").ending, None);
        assert_eq!(
            plan.strike("/v1/refunds", b"payment_intent=pi_1").ending,
            Some(FaultKind::Reset)
        );
    }
}
