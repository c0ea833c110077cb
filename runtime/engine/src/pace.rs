//! Calls that wait for their turn under a rate limit with `max-wait`, before they ask for a place.
//!
//! One bucket and one line for each connection, whatever its generation. Who waits holds its turn in the
//! line and no thread; and no place in the bulkhead, nor a permit of the breaker, unless it had to wait
//! for that place first.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use cofferdam_core::failure::{Class, Failure};
use cofferdam_core::rate::{Bucket, Rate};
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::time::Instant;

/// How many calls of one connection wait; more are turned away at once.
pub const WAITERS_MAX: usize = 1_000;

/// The line in front of one connection.
pub(crate) struct Line {
    /// None if calls do not wait here.
    rate: Option<Rate>,
    pot: Mutex<Pot>,
    opened: Instant,
    /// Held by the first in the line; given in the order in which it was asked for.
    first: Semaphore,
    waiting: AtomicUsize,
}

/// Calls that were made, and calls that have a token: what a call waits for between its token and
/// its leaving, the disk say, is no time in which others get one.
#[derive(Debug, Default)]
struct Pot {
    bucket: Bucket,
    promised: u64,
}

/// Leave to make one call, sooner or later. Dropped unused, it is given back.
pub(crate) struct Token {
    line: Arc<Line>,
    is_used: bool,
}

/// What a call gets that comes to the line.
pub(crate) enum Pass {
    /// Nobody has to wait here.
    Free,
    /// It may go.
    Token(Token),
    /// It may wait.
    Wait(Waiter),
    /// The line is too long.
    Full,
}

/// A turn in the line; given up when this is dropped.
pub(crate) struct Waiter {
    line: Arc<Line>,
    rate: Rate,
}

impl Line {
    pub fn new(rate: Option<Rate>) -> Arc<Self> {
        Arc::new(Self {
            rate: rate.filter(|rate| !rate.max_wait().is_zero()),
            pot: Mutex::default(),
            opened: Instant::now(),
            first: Semaphore::new(1),
            waiting: AtomicUsize::new(0),
        })
    }

    /// Whether calls need a token.
    pub fn is_kept(&self) -> bool {
        self.rate.is_some()
    }

    /// Comes to the line.
    pub fn come(self: &Arc<Self>) -> Pass {
        let Some(rate) = self.rate else {
            return Pass::Free;
        };
        // Who comes later does not go first.
        if self.waiting.load(Ordering::Acquire) == 0
            && let Ok(token) = self.take(&rate)
        {
            return Pass::Token(token);
        }
        let grow = |waiting| (waiting < WAITERS_MAX).then_some(waiting + 1);
        match self
            .waiting
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, grow)
        {
            Ok(_) => Pass::Wait(Waiter {
                line: Arc::clone(self),
                rate,
            }),
            Err(_) => Pass::Full,
        }
    }

    /// Takes a token if there is one; else the time after which to ask again.
    fn take(self: &Arc<Self>, rate: &Rate) -> Result<Token, Duration> {
        let mut pot = self.pot.lock();
        pot.bucket
            .promise(rate, self.now_ns(), pot.promised)
            .map_err(Duration::from_nanos)?;
        pot.promised += 1;
        Ok(Token {
            line: Arc::clone(self),
            is_used: false,
        })
    }

    fn now_ns(&self) -> u64 {
        u64::try_from(self.opened.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// Why a call without a token is turned away.
    pub fn too_often(&self, connection: &str) -> Failure {
        let mut failure = Failure::new(Class::RateLimited, "limit.rate", String::new());
        if let Some(rate) = self.rate {
            let wait = {
                let pot = self.pot.lock();
                let asked = pot.bucket.promise(&rate, self.now_ns(), pot.promised);
                asked.err().unwrap_or(0)
            };
            // Rounded up: whoever comes back earlier is turned away again.
            let wait_ms = wait.div_ceil(1_000_000);
            failure.message = format!(
                "connection `{connection}` takes {} calls in {:?}, and {} at once, and none was free in {:?}; \
                 raise `rate-limit` or its `max-wait`",
                rate.calls(),
                rate.per(),
                rate.burst(),
                rate.max_wait()
            );
            failure.retry_after_ms = Some(u32::try_from(wait_ms).unwrap_or(u32::MAX));
        }
        failure
    }
}

impl Waiter {
    /// Waits for a token, no longer than the rate lets anybody wait; none then. Tokens are given in the
    /// order of arrival. Cancel-safe: who goes away takes nothing along.
    pub async fn token(self) -> Option<Token> {
        let taking = async {
            // Never closed.
            let _first = self.line.first.acquire().await.ok()?;
            loop {
                match self.line.take(&self.rate) {
                    Ok(token) => return Some(token),
                    Err(wait) => tokio::time::sleep(wait).await,
                }
            }
        };
        tokio::time::timeout(self.rate.max_wait(), taking)
            .await
            .ok()
            .flatten()
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        self.line.waiting.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Token {
    /// The call is made.
    pub fn spend(mut self) {
        self.is_used = true;
    }
}

impl Drop for Token {
    fn drop(&mut self) {
        let mut pot = self.line.pot.lock();
        pot.promised -= 1;
        if let Some(rate) = self.line.rate.filter(|_| self.is_used)
            && let Ok(taken) = pot.bucket.take(&rate, self.line.now_ns())
        {
            pot.bucket = taken;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(max_wait: Duration) -> Arc<Line> {
        let rate = Rate::new(10, Duration::from_secs(1), 1).unwrap();
        Line::new(Some(rate.with_max_wait(max_wait)))
    }

    fn waiter(line: &Arc<Line>) -> Waiter {
        match line.come() {
            Pass::Wait(waiter) => waiter,
            Pass::Free | Pass::Token(_) | Pass::Full => panic!("it does not have to wait"),
        }
    }

    fn spend(line: &Arc<Line>) {
        match line.come() {
            Pass::Token(token) => token.spend(),
            Pass::Free | Pass::Wait(_) | Pass::Full => panic!("there is no token"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn tokens_are_given_in_the_order_of_arrival_and_at_the_rate() {
        let line = line(Duration::from_secs(5));
        spend(&line);
        let begun = Instant::now();
        let mut waiting = tokio::task::JoinSet::new();
        for n in 0..5_u32 {
            let waiter = waiter(&line);
            waiting.spawn(async move {
                waiter.token().await.expect("in time").spend();
                n
            });
            // Each comes after the one before it.
            tokio::task::yield_now().await;
        }
        for n in 0..5_u32 {
            let next = waiting.join_next().await.unwrap().unwrap();
            assert_eq!(next, n);
            // The clock is a virtual one, and has milliseconds.
            let (after, took) = (Duration::from_millis(100) * (n + 1), begun.elapsed());
            assert!(
                took >= after && took < after + Duration::from_millis(50),
                "{took:?}"
            );
        }
        assert_eq!(line.waiting.load(Ordering::Relaxed), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn calls_that_have_to_wait_with_their_tokens_leave_no_faster_for_that() {
        let line = line(Duration::from_secs(5));
        let Pass::Token(first) = line.come() else {
            panic!("there is a token")
        };
        // Its intent is being written, which takes a while.
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert!(matches!(line.come(), Pass::Wait(_)));
        first.spend();
        assert!(matches!(line.come(), Pass::Wait(_)));
        tokio::time::sleep(Duration::from_millis(100)).await;
        spend(&line);
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_too_long_or_goes_away_takes_no_token() {
        let line = line(Duration::from_millis(50));
        spend(&line);
        let begun = Instant::now();
        assert!(waiter(&line).token().await.is_none());
        assert!(begun.elapsed() >= Duration::from_millis(50));
        assert_eq!(line.too_often("c").class, Class::RateLimited);
        assert!(line.too_often("c").retry_after_ms > Some(0));
        let gone = tokio::time::timeout(Duration::from_millis(10), waiter(&line).token()).await;
        assert!(gone.is_err());
        tokio::time::sleep(Duration::from_millis(60)).await;
        // One that is dropped unused is there for the next.
        match line.come() {
            Pass::Token(token) => drop(token),
            Pass::Free | Pass::Wait(_) | Pass::Full => panic!("there is no token"),
        }
        spend(&line);
    }

    #[tokio::test(start_paused = true)]
    async fn the_line_is_bounded_and_nobody_overtakes_it() {
        let line = line(Duration::from_secs(5));
        spend(&line);
        let waiters: Vec<_> = (0..WAITERS_MAX).map(|_| waiter(&line)).collect();
        assert!(matches!(line.come(), Pass::Full));
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(matches!(line.come(), Pass::Full));
        drop(waiters);
        spend(&line);
        assert!(matches!(Line::new(None).come(), Pass::Free));
    }
}
