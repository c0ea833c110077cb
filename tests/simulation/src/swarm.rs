//! Which patterns a world has besides calls and flow.
//!
//! Swarm testing (Groce et al., 2012): each world leaves most of them out, so that those it has meet
//! each other more often than they would if every world had all of them.

use crate::dice::Dice;

/// Dice of their own: what a world has moves nothing in worlds that do not have it.
const SALT: u64 = 0x5741_524d_5357_4152;
/// Of a hundred worlds so many have none of them, and each other has each with this share.
const PLAIN: u64 = 40;
const SHARE: u64 = 28;

/// Dice of what came later, so that it moves nothing in worlds that do not have it.
const LATER: u64 = 0x4c41_5445_5220_4f4e;

/// What a world has.
#[derive(Debug, Clone, Copy, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a pattern")]
pub(crate) struct Swarm {
    /// Second attempts beside slow ones.
    pub hedging: bool,
    /// Calls that are left to an outbox.
    pub outbox: bool,
    /// Answers that are kept for an outage.
    pub answers: bool,
    /// Health checks beside the calls.
    pub health: bool,
    /// Workflows that begin others and do not wait for them.
    pub detached: bool,
    /// Tasks that listen, publishers and subscribers.
    pub events: bool,
    /// Workflows that run without being asked.
    pub schedules: bool,
    /// More runs than may be in memory, tenants, and concurrency keys.
    pub queue: bool,
    /// Nothing wakes a run but its turn, so that who is in memory can be counted from outside.
    pub tame: bool,
    /// Starts by key, from several callers at once.
    pub keys: bool,
    /// An operator who suspends, cancels, redrives, restarts and forks.
    pub verbs: bool,
    /// Reviews that wait for so long and no longer, and people who are slow.
    pub deadlines: bool,
    /// Connections that may be called so often and no more.
    pub rates: bool,
    /// Subscribers that go back to events that they were done with.
    pub replay: bool,
    /// One tenant that begins more runs than all others.
    pub crowd: bool,
    /// An operator who removes runs that have ended.
    pub purge: bool,
    /// Runs that have ended are kept for a while and no longer.
    pub retention: bool,
    /// Keys whose runs are gone, and who comes with them again.
    pub reuse: bool,
}

impl Swarm {
    /// What the world of this seed has.
    pub fn of(seed: u64) -> Self {
        let mut dice = Dice::new(seed ^ SALT);
        if dice.percent(PLAIN) {
            return Self::default();
        }
        let mut later = Dice::new(seed ^ LATER);
        let mut has = || dice.percent(SHARE);
        let mut swarm = Self {
            hedging: has(),
            outbox: has(),
            answers: has(),
            health: has(),
            detached: has(),
            events: has(),
            schedules: has(),
            queue: has(),
            tame: false,
            keys: has(),
            verbs: has(),
            deadlines: later.percent(SHARE),
            rates: later.percent(SHARE),
            replay: later.percent(60),
            crowd: false,
            purge: later.percent(SHARE),
            retention: later.percent(SHARE),
            reuse: false,
        };
        swarm.replay &= swarm.events;
        // A key whose run is gone begins another of the same id.
        let is_reused = swarm.retention && swarm.keys;
        if swarm.queue && dice.percent(40) {
            swarm = Self {
                queue: true,
                tame: true,
                keys: swarm.keys,
                crowd: later.percent(50),
                purge: swarm.purge,
                ..Self::default()
            };
        } else if is_reused {
            // Nobody but those who come with the key, so that a run that is gone leaves nothing.
            swarm = Self {
                keys: true,
                retention: true,
                reuse: true,
                hedging: swarm.hedging,
                answers: swarm.answers,
                rates: swarm.rates,
                ..Self::default()
            };
        }
        swarm
    }

    /// Whether it has any of them.
    pub fn is_plain(&self) -> bool {
        let Self {
            hedging,
            outbox,
            answers,
            health,
            detached,
            events,
            schedules,
            queue,
            tame: _,
            keys,
            verbs,
            deadlines,
            rates,
            replay: _,
            crowd: _,
            purge,
            retention,
            reuse: _,
        } = *self;
        ![
            hedging, outbox, answers, health, detached, events, schedules, queue, keys, verbs,
            deadlines, rates, purge, retention,
        ]
        .contains(&true)
    }
}
