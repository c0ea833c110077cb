//! Leave to make one call: a place in the bulkhead and a permit of the breaker.

use std::sync::Arc;
use std::time::Duration;

use cofferdam_core::breaker::{Permit, Verdict};
use cofferdam_core::call::Lookup;
use cofferdam_core::depth;
use cofferdam_core::failure::{Class, EffectState, Failure};
use cofferdam_core::ramp::Ended;
use cofferdam_core::run::Attempt;
use cofferdam_host::{Call, HealthStatus, Outcome, Usage};
use serde_json::Value;
use tokio::sync::{OwnedSemaphorePermit, TryAcquireError};
use tokio::time::Instant;

use crate::connections::Slot;
use crate::connector::Backend;
use crate::generations::{Judgement, Served};
use crate::hedging::Share;
use crate::mutation::{Armed, Mutation};
use crate::pace::{Pass, Token, Waiter};
use crate::ramp::Leave;

/// The code of a call that was over before its answer came.
const TIMED_OUT: &str = "timeout";

/// Leave to make one call. Dropped unused, it gives everything back and says nothing about the
/// connection.
pub(crate) struct Admitted {
    slot: Arc<Slot>,
    served: Served,
    permit: Option<Permit>,
    /// That of a drain which let the call go.
    leave: Option<Leave>,
    /// Of the rate limit, if the connection keeps a line.
    token: Option<Token>,
    /// Of the budget for second attempts, if it is one.
    share: Option<Share>,
    // Held until the call has ended.
    _place: OwnedSemaphorePermit,
}

/// What asking for admission gives at once.
pub(crate) enum Admission {
    Admitted(Admitted),
    Refused(Failure),
    /// The bulkhead is full: wait with [`admit`].
    Full(Queued),
}

/// A place in the queue for the bulkhead; given back when this is dropped.
pub(crate) struct Queued {
    slot: Arc<Slot>,
}

impl Queued {
    fn new(slot: &Arc<Slot>) -> Option<Self> {
        slot.queue_up().then(|| Self {
            slot: Arc::clone(slot),
        })
    }
}

impl Drop for Queued {
    fn drop(&mut self) {
        self.slot.leave_queue();
    }
}

/// Asks without waiting for leave to make the call with this key. Refused as `busy` if the bulkhead
/// is full and so is its queue.
pub(crate) fn try_admit(slot: &Arc<Slot>, key: &str) -> Admission {
    match Arc::clone(&slot.bulkhead).try_acquire_owned() {
        Ok(place) => match admitted(slot, place, key) {
            Ok(admitted) => Admission::Admitted(admitted),
            Err(failure) => Admission::Refused(failure),
        },
        Err(TryAcquireError::NoPermits) => match Queued::new(slot) {
            Some(queued) => Admission::Full(queued),
            None => Admission::Refused(slot.busy("the queue for a place is full")),
        },
        Err(TryAcquireError::Closed) => Admission::Refused(closing()),
    }
}

/// Asks for leave to make a second attempt beside one that takes long. It gets none when it would
/// have to wait, when the connection is not well, and when too many are made already.
pub(crate) fn try_hedge(slot: &Arc<Slot>, key: &str, armed: Armed) -> Result<Admitted, Failure> {
    let refused = |why: &str| Err(Failure::new(Class::Unavailable, "hedge.refused", why));
    if slot.breaker_state() != "Closed" {
        return refused("the breaker is not closed");
    }
    let Ok(place) = Arc::clone(&slot.bulkhead).try_acquire_owned() else {
        return refused("the connection has enough to do");
    };
    let token = match slot.line.come() {
        Pass::Free => None,
        Pass::Token(token) => Some(token),
        Pass::Wait(_) | Pass::Full => return refused("the rate limit has no room for it"),
    };
    let share = slot.hedges.take();
    if share.is_none() && !armed.has(Mutation::HedgeFreely) {
        return refused("a tenth of the calls were second attempts already");
    }
    let mut admitted = admitted(slot, place, key)?;
    admitted.token = token;
    admitted.share = share;
    Ok(admitted)
}

/// Code of a failure of calls that got no leave while the time of all attempts lasted.
pub(crate) const OUT_OF_TIME: &str = "timeout.schedule-to-close";

/// Waits for leave, no longer than the time of all attempts of a call lasts; unless that was over before
/// it came to wait. Cancel-safe, as that which it waits by is.
pub(crate) async fn in_time<T>(
    slot: &Slot,
    attempt: &Attempt,
    waiting: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    let Some(left) = slot.time_left(attempt) else {
        return waiting.await;
    };
    let waited = tokio::time::timeout(left, waiting).await;
    waited.unwrap_or_else(|_| Err(not_in_time(&slot.name)))
}

fn not_in_time(connection: &str) -> Failure {
    let message = format!(
        "the call could not begin within `scheduleToClose`: there was no place on connection `{connection}`, \
         or no turn under its rate limit"
    );
    Failure::new(Class::Timeout, OUT_OF_TIME, message)
}

/// Waits for a token of the rate limit, holding nothing else, and then for admission. Without a
/// token the call is turned away when it is made, as one of any rate limit is. Cancel-safe.
pub(crate) async fn admit_in_turn(
    slot: &Arc<Slot>,
    waiter: Waiter,
    key: &str,
) -> Result<Admitted, Failure> {
    let token = waiter.token().await;
    let mut admitted = match try_admit(slot, key) {
        Admission::Admitted(admitted) => admitted,
        Admission::Refused(failure) => return Err(failure),
        Admission::Full(queued) => {
            // Another's as long as this one waits: tokens that are hoarded would be a burst.
            drop(token);
            return admit_at_last(queued, key).await;
        }
    };
    admitted.token = token;
    Ok(admitted)
}

/// Waits for a place, and with it for a token of the rate limit. Cancel-safe.
pub(crate) async fn admit_at_last(queued: Queued, key: &str) -> Result<Admitted, Failure> {
    let mut admitted = admit(queued, key).await?;
    admitted.token = match admitted.slot.line.come() {
        Pass::Free | Pass::Full => None,
        Pass::Token(token) => Some(token),
        Pass::Wait(waiter) => waiter.token().await,
    };
    Ok(admitted)
}

/// Waits for a place, no longer than the bulkhead lets anybody wait; refused as `busy` then.
/// Cancel-safe: places are given in the order in which they were asked for.
async fn admit(queued: Queued, key: &str) -> Result<Admitted, Failure> {
    let slot = Arc::clone(&queued.slot);
    let waiting = Arc::clone(&slot.bulkhead).acquire_owned();
    match tokio::time::timeout(slot.bulkhead_wait(), waiting).await {
        Ok(Ok(place)) => admitted(&slot, place, key),
        Ok(Err(_)) => Err(closing()),
        Err(_) => Err(slot.busy("no call ended in time")),
    }
}

fn admitted(slot: &Arc<Slot>, place: OwnedSemaphorePermit, key: &str) -> Result<Admitted, Failure> {
    let (served, permit) = slot.ask(key)?;
    Ok(Admitted {
        slot: Arc::clone(slot),
        served,
        permit: Some(permit),
        leave: None,
        token: None,
        share: None,
        _place: place,
    })
}

/// Asks whether what is behind a connection works. A plugin that cannot tell is taken to.
pub(crate) async fn healthy(connection: &Backend) -> Result<(), Failure> {
    match connection.check().await {
        Ok(health) if health.status == HealthStatus::Unhealthy => {
            let mut message = health.message;
            if message.is_empty() {
                "its check says that it does not work".clone_into(&mut message);
            }
            Err(Failure::new(Class::Unavailable, "check.unhealthy", message))
        }
        Ok(_) => Ok(()),
        Err(failure) if failure.class == Class::Unsupported => Ok(()),
        Err(failure) => Err(failure),
    }
}

fn unanswered(timeout: Duration) -> Failure {
    let message = format!("its check did not answer within {timeout:?}");
    Failure::new(Class::Timeout, "check.timeout", message)
}

fn closing() -> Failure {
    Failure::new(
        Class::Unavailable,
        "runtime.closing",
        "the runtime is shutting down",
    )
}

impl Slot {
    /// What is left of the time of all attempts; none if there is no such time, or it is over.
    fn time_left(&self, attempt: &Attempt) -> Option<Duration> {
        let left_ms = attempt.deadline_ms?.checked_sub(self.clock.now_ms())?;
        (left_ms > 0).then(|| Duration::from_millis(left_ms))
    }
}

impl Admitted {
    /// Ties the leave of a drain to the call: it ends with it.
    pub fn carry(&mut self, leave: Option<Leave>) {
        self.leave = leave;
    }

    /// Gives it the token that it came with.
    pub fn pay_with(&mut self, token: Option<Token>) {
        self.token = token;
    }

    /// Digest of the plugin that will serve the call.
    pub fn digest(&self) -> &str {
        &self.served.generation.row.digest
    }

    /// Makes the call and gives the leave back.
    pub async fn call(mut self, attempt: &Attempt, tenant: String) -> Result<Value, Failure> {
        let given = self.timeout(attempt);
        let call = Call {
            action: attempt.action.clone(),
            input: (*attempt.input).clone(),
            idempotency_key: attempt.key.clone(),
            attempt: attempt.attempt,
            timeout: given,
            tenant,
            traceparent: String::new(),
            secrets: (*attempt.secrets).clone(),
        };
        match self.share.take() {
            Some(share) => share.spend(),
            None if attempt.is_hedge => {}
            None => self.slot.hedges.earn(),
        }
        let begun = Instant::now();
        let outcome = match self.token.take() {
            None if self.slot.line.is_kept() => Outcome {
                result: Err(self.slot.line.too_often(&self.slot.name)),
                usage: Usage::default(),
                logs: Vec::new(),
            },
            token => {
                if let Some(token) = token {
                    token.spend();
                }
                self.served.generation.connection.invoke(call).await
            }
        };
        for line in &outcome.logs {
            tracing::debug!(
                connection = self.slot.name, task = attempt.task, level = line.level.as_str(),
                fields = %line.fields, "{}", line.message
            );
        }
        let took_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        let result = outcome.result.as_ref().map(|_| ());
        let verdict = match self.slot.judge(result, took_ms) {
            // A crash of a plugin on trial says nothing of the one that serves, nor of what is
            // behind both.
            _ if self.served.is_on_trial() && result.is_err_and(Failure::is_crash) => {
                Verdict::Ignored
            }
            verdict => verdict,
        };
        self.ended(result, took_ms);
        self.give_back(verdict);
        // A connector may have a timeout of its own, and be told of in the same words.
        let is_over = begun.elapsed() >= given;
        let told = match outcome.result {
            Err(failure) if is_over => Err(self.explained(failure, attempt, given)),
            told => told,
        };
        told.and_then(bounded)
    }

    /// A call that was over because of what it was given here says which key gave it that.
    fn explained(&self, mut failure: Failure, attempt: &Attempt, given: Duration) -> Failure {
        let limit = self.served.generation.connection.limits().timeout;
        let is_ours = failure.class == Class::Timeout && failure.code == TIMED_OUT;
        if !is_ours || given >= limit {
            return failure;
        }
        let why = if given < Duration::from_millis(attempt.timeout_ms) {
            "that was left of `timeout.schedule-to-close`"
        } else {
            "that is `timeout.start-to-close` of the connection, or `startToClose` of the task"
        };
        failure.message = format!("{}: {why}", failure.message);
        failure
    }

    /// How long the attempt may take: no longer than its task, unless the time of that was over
    /// before it could begin.
    fn timeout(&self, attempt: &Attempt) -> Duration {
        let timeout = Duration::from_millis(attempt.timeout_ms);
        self.slot
            .time_left(attempt)
            .map_or(timeout, |left| left.min(timeout))
    }

    /// Asks the connection whether it works, and gives the leave back. One that does not answer
    /// within its [`Slot::probe_timeout`] does not work: what waits for it must not wait for the
    /// end of a probe that began while it was out.
    pub async fn check(mut self) -> Result<(), Failure> {
        let begun = Instant::now();
        let timeout = self.slot.probe_timeout();
        let checking = healthy(&self.served.generation.connection);
        let result = tokio::time::timeout(timeout, checking).await;
        let result = result.unwrap_or_else(|_| Err(unanswered(timeout)));
        let took_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        // A probe that fails for any reason is no sign of health.
        let verdict = match self.slot.judge(result.as_ref().copied(), took_ms) {
            _ if result.as_ref().is_err_and(Failure::is_busy) => Verdict::Ignored,
            _ if result.is_err() => Verdict::Failure,
            verdict => verdict,
        };
        self.ended(result.as_ref().copied(), took_ms);
        self.give_back(verdict);
        result
    }

    /// What the call says about the generation that served it.
    fn ended(&self, result: Result<(), &Failure>, took_ms: u64) {
        let crashed = result.is_err_and(Failure::is_crash);
        let failed = result.is_err_and(|failure| failure.class != Class::RateLimited);
        let judgement = self
            .served
            .ended(crashed, failed, took_ms, self.slot.clock.now_ms());
        if judgement != Judgement::Nothing {
            self.slot.keep_now();
        } else if crashed {
            self.slot.keeping.later();
        }
        self.slot.judge_later(judgement);
    }

    fn give_back(&mut self, verdict: Verdict) {
        let Some(permit) = self.permit.take() else {
            return;
        };
        if let Some(leave) = &mut self.leave {
            leave.went(match verdict {
                Verdict::Success => Ended::Good,
                Verdict::Slow | Verdict::Failure | Verdict::SlowFailure => Ended::Bad,
                Verdict::Ignored => Ended::Neutral,
            });
        }
        self.slot.ended(permit, verdict);
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.give_back(Verdict::Ignored);
    }
}

/// Asks a connection what became of a call. Not subject to the breaker: it is asked because of an
/// outage.
pub(crate) async fn look_up(slot: &Slot, action: &str, key: &str) -> Lookup {
    match slot.connection().lookup(action, key).await {
        Ok(Some(output)) => match bounded(output) {
            Ok(output) => Lookup::Found { output },
            Err(failure) => Lookup::Failed { failure },
        },
        Ok(None) => Lookup::Absent,
        Err(failure) => Lookup::Failed { failure },
    }
}

/// An output that the journal could not give back is none.
fn bounded(output: Value) -> Result<Value, Failure> {
    if depth::is_fine(&output) {
        return Ok(output);
    }
    let message = format!("the output nests deeper than {} levels", depth::DEPTH_MAX);
    let failure = Failure::new(Class::Internal, "output.depth", message);
    Err(failure.with_effect(EffectState::Applied))
}
