//! What one call has in common with the work done on its behalf: deadline, budgets, log.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use cofferdam_core::failure::{Class, EffectState, Failure};
use parking_lot::Mutex;

use crate::call::{LogLevel, LogLine};
use crate::connection::Settings;

/// Shared by the chamber, its capabilities, and the tasks that carry its requests.
pub(crate) struct Scope {
    pub(crate) settings: Arc<Settings>,
    /// On whose behalf; empty if there is only one.
    pub(crate) tenant: String,
    pub(crate) began: Instant,
    pub(crate) deadline: Instant,
    /// What the caller gave the call, if that is less than the connection's own limit.
    pub(crate) given: Option<Duration>,
    /// Stand-ins for secrets handed out in this call, with the index of the secret.
    pub(crate) placeholders: Mutex<Vec<(String, usize)>>,
    requests: AtomicU32,
    requests_refused: AtomicBool,
    effects: Marker,
    log: Mutex<Log>,
}

/// Whether the other side may have been changed, and whether it still may be. Both in one word, so
/// that of work about to change it and a caller about to tell that nothing happened, one comes first.
#[derive(Clone)]
pub(crate) struct Marker {
    state: Arc<AtomicU8>,
    deadline: Instant,
}

/// The other side may have been changed.
const SENT: u8 = 1;
/// The verdict was read; nothing may begin any more.
const CLOSED: u8 = 2;

impl Marker {
    /// See [`Scope::mark_sent`].
    #[must_use = "what is refused must not be done"]
    pub(crate) fn mark(&self) -> bool {
        let marked = self
            .state
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |state| {
                (state & CLOSED == 0 && Instant::now() < self.deadline).then_some(state | SENT)
            });
        marked.is_ok()
    }
}

#[derive(Default)]
struct Log {
    lines: Vec<LogLine>,
    bytes: u64,
    full: bool,
}

/// What a line costs besides its text, so that empty lines end too.
const LINE_BYTES: u64 = 16;
/// No secret is longer, in whatever encoding.
const SECRET_BYTES_MAX: usize = 256 << 10;

impl Scope {
    pub(crate) fn new(settings: Arc<Settings>, tenant: String, timeout: Duration) -> Self {
        let began = Instant::now();
        let deadline = began + timeout;
        Self {
            settings,
            tenant,
            began,
            deadline,
            given: None,
            placeholders: Mutex::default(),
            requests: AtomicU32::new(0),
            requests_refused: AtomicBool::new(false),
            effects: Marker {
                state: Arc::default(),
                deadline,
            },
            log: Mutex::default(),
        }
    }

    /// What is left of the call's time; zero when it is over.
    pub(crate) fn left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    /// Takes one from the budget of outbound requests.
    pub(crate) fn take_request(&self) -> Result<(), Failure> {
        let requests_max = self.settings.limits.requests_max;
        let taken = self
            .requests
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |count| {
                (count < requests_max).then_some(count + 1)
            });
        if taken.is_ok() {
            return Ok(());
        }
        if !self.requests_refused.swap(true, Ordering::Relaxed) {
            self.log(
                LogLevel::Error,
                format!("limit.requests: {}", requests_text(requests_max)),
            );
        }
        Err(self.requests_failure())
    }

    /// Whether a request beyond the budget was tried.
    pub(crate) fn requests_refused(&self) -> bool {
        self.requests_refused.load(Ordering::Relaxed)
    }

    /// What the caller is told of a request beyond the budget.
    pub(crate) fn requests_failure(&self) -> Failure {
        let text = requests_text(self.settings.limits.requests_max);
        Failure::new(Class::Denied, "limit.requests", text).with_effect(self.effect())
    }

    pub(crate) fn requests(&self) -> u32 {
        self.requests.load(Ordering::Relaxed)
    }

    /// Notes that from here on the other side may have been changed. Asked right before each change;
    /// if it says no, the deadline has passed or the caller was told already, and the change must
    /// not be made.
    #[must_use = "what is refused must not be done"]
    pub(crate) fn mark_sent(&self) -> bool {
        self.effects.mark()
    }

    /// The same for work on another thread.
    pub(crate) fn marker(&self) -> Marker {
        self.effects.clone()
    }

    /// What a call that ended now without an answer might leave behind. Holds for good only after
    /// [`Scope::close`].
    pub(crate) fn effect(&self) -> EffectState {
        effect_of(self.effects.state.load(Ordering::Acquire))
    }

    /// Ends the call: whatever still runs for it changes nothing any more that this answer, which is
    /// for the caller, does not tell of.
    pub(crate) fn close(&self) -> EffectState {
        effect_of(self.effects.state.fetch_or(CLOSED, Ordering::AcqRel))
    }

    /// Keeps a line of the host's own.
    pub(crate) fn log(&self, level: LogLevel, message: impl Into<String>) {
        self.log_line(level, message.into(), serde_json::Value::Null);
    }

    /// Keeps a line, without secrets, as long as the call's log has room; what comes first is kept.
    pub(crate) fn log_line(&self, level: LogLevel, message: String, fields: serde_json::Value) {
        let after = self.began.elapsed();
        if self.log.lock().full {
            return;
        }
        let (message, whole) = self.scrubbed(message);
        let message = visible(message);
        let fields = self.settings.scrubber.value(fields);
        let mut log = self.log.lock();
        if log.full {
            return;
        }
        let fields_bytes = if fields.is_null() {
            0
        } else {
            fields.to_string().len() as u64
        };
        let cost = message.len() as u64 + fields_bytes + LINE_BYTES;
        let room = self.settings.limits.log_bytes.saturating_sub(log.bytes);
        if whole && cost <= room {
            log.bytes += cost;
            log.lines.push(LogLine {
                level,
                message,
                fields,
                after,
            });
            return;
        }
        log.full = true;
        let kept = floor_char_boundary(&message, room as usize);
        log.bytes += kept as u64;
        let message = format!("{} [the log is cut off here]", &message[..kept]);
        log.lines.push(LogLine {
            level,
            message,
            fields: serde_json::Value::Null,
            after,
        });
    }

    /// A message without secrets, and whether it is whole. What the log never has room for is cut
    /// off first, since looking for secrets in megabytes takes longer than a call may overshoot; and
    /// the end of what was looked at goes too, so that no half of a secret stays.
    fn scrubbed(&self, mut message: String) -> (String, bool) {
        let looked_at = (self.settings.limits.log_bytes as usize).saturating_add(SECRET_BYTES_MAX);
        let whole = message.len() <= looked_at;
        message.truncate(floor_char_boundary(&message, looked_at));
        let mut message = self.settings.scrubber.text(message);
        if !whole {
            let kept = message.len().saturating_sub(SECRET_BYTES_MAX);
            message.truncate(floor_char_boundary(&message, kept));
        }
        (message, whole)
    }

    /// The lines so far, and how many bytes of text they took.
    pub(crate) fn take_log(&self) -> (Vec<LogLine>, u64) {
        let mut log = self.log.lock();
        (std::mem::take(&mut log.lines), log.bytes)
    }
}

fn effect_of(state: u8) -> EffectState {
    if state & SENT == 0 {
        EffectState::None
    } else {
        EffectState::Unknown
    }
}

fn requests_text(requests_max: u32) -> String {
    format!(
        "the call tried more than {requests_max} outbound requests; send fewer, or raise `limits.requests` of the connection"
    )
}

/// The text without what steers a terminal or turns the direction of writing: people read it there,
/// and a guest may not clear their screen or write over what the host says.
pub(crate) fn visible(text: String) -> String {
    let steers = |letter: char| {
        let control = letter.is_control() && !matches!(letter, '\n' | '\t');
        control || matches!(letter, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    if text.contains(steers) {
        text.replace("\r\n", "\n").replace(steers, "\u{fffd}")
    } else {
        text
    }
}

/// The largest index not above `index` at which the text may be cut.
pub(crate) fn floor_char_boundary(text: &str, index: usize) -> usize {
    let mut index = index.min(text.len());
    while !text.is_char_boundary(index) {
        index -= 1;
    }
    index
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scope(timeout: Duration) -> Scope {
        let settings = Arc::new(Settings::nothing("test").unwrap());
        Scope::new(settings, String::new(), timeout)
    }

    const LONG: Duration = Duration::from_mins(10);

    #[test]
    fn after_the_verdict_nothing_is_sent() {
        let scope = scope(LONG);
        let elsewhere = scope.marker();
        assert_eq!(scope.close(), EffectState::None);
        assert!(!scope.mark_sent());
        assert!(!elsewhere.mark());
        assert_eq!(scope.effect(), EffectState::None);
        assert_eq!(scope.close(), EffectState::None);
    }

    #[test]
    fn what_was_sent_before_the_verdict_is_told() {
        let scope = scope(LONG);
        assert_eq!(scope.effect(), EffectState::None);
        assert!(scope.marker().mark());
        assert_eq!(scope.effect(), EffectState::Unknown);
        assert!(scope.mark_sent(), "a second change");
        assert_eq!(scope.close(), EffectState::Unknown);
        assert!(!scope.mark_sent(), "none after the verdict");
        assert_eq!(scope.effect(), EffectState::Unknown);
    }

    #[test]
    fn after_the_deadline_nothing_is_sent() {
        let scope = scope(Duration::ZERO);
        assert!(!scope.mark_sent());
        assert!(!scope.marker().mark());
        assert_eq!(scope.effect(), EffectState::None);
    }

    #[test]
    fn of_a_sender_and_a_caller_that_gives_up_exactly_one_comes_first() {
        for _ in 0..1_000 {
            let scope = scope(LONG);
            let marker = scope.marker();
            let (was_sent, effect) = std::thread::scope(|threads| {
                let sender = threads.spawn(move || marker.mark());
                let effect = scope.close();
                (sender.join().unwrap(), effect)
            });
            assert_eq!(was_sent, effect == EffectState::Unknown);
        }
    }
}
