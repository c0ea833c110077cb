//! Those who publish events from outside, and those who read the bus.

use std::time::Duration;

use cofferdam::{Delivery, Error, Runtime, StartAt, SubscribeOptions, Subscriber};
use futures::future::join;
use serde_json::{Value, json};

use crate::flow::KINDS;
use crate::mutation::Mutation;
use crate::world::{State, World};

/// Programs that read the bus.
pub(crate) const SUBSCRIBERS: [&str; 2] = ["books", "mirror"];
/// How often an event is handed out before it becomes a dead letter.
const ATTEMPTS_MAX: u32 = 3;

async fn nap(world: &World, ms: std::ops::RangeInclusive<u64>) {
    let ms = world.lock().dice.range(ms);
    tokio::time::sleep(Duration::from_millis(ms)).await;
}

impl State {
    /// What somebody outside publishes next: the last event again until it is acknowledged.
    fn next_event(&mut self) -> Value {
        if let Some(pending) = &self.oracle.bus.pending {
            return pending.clone();
        }
        self.oracle.bus.published += 1;
        let n = self.oracle.bus.published;
        let event = json!({
            "specversion": "1.0", "id": format!("e-{n}"), "source": "https://outside.example/",
            "type": self.dice.pick(&KINDS),
            "data": {"n": n, "order": self.dice.pick(&["x", "y"])},
        });
        self.oracle.bus.pending = Some(event.clone());
        event
    }
}

/// Publishes as long as anybody may wait for it.
pub(crate) async fn publish(world: &World, runtime: &Runtime) {
    if !world.lock().swarm.events {
        return World::never().await;
    }
    loop {
        let longest_ms = if world.lock().is_fair() { 4_000 } else { 2_000 };
        nap(world, 20..=longest_ms).await;
        let next = {
            let mut state = world.lock();
            let is_wanted = !state.oracle.ends || state.oracle.is_listening();
            (is_wanted && !state.dead).then(|| (state.next_event(), state.dice.percent(10)))
        };
        let Some((event, is_twice)) = next else {
            continue;
        };
        let first = runtime.publish_json(event.clone());
        let published = if is_twice {
            let (first, second) = join(first, runtime.publish_json(event.clone())).await;
            first.and(second)
        } else {
            first.await
        };
        let mut state = world.lock();
        if state.dead {
            continue;
        }
        let id = event["id"].as_str().unwrap_or_default();
        match published {
            Ok(published) => {
                state.note("", &format!("publisher: {id} is {}", published.seq));
                state.oracle.bus.pending = None;
                state.judge_published(published.seq, id);
            }
            Err(error) => state.note("", &format!("publisher: {id}: {error}")),
        }
    }
}

/// Reads the bus, twice over.
pub(crate) async fn subscribe(world: &World, runtime: &Runtime) {
    if !world.lock().swarm.events {
        return World::never().await;
    }
    let [first, second] = SUBSCRIBERS.map(|name| read(world, runtime, name));
    join(first, second).await;
}

/// One subscriber: opens itself, however often it takes, and reads.
async fn read(world: &World, runtime: &Runtime, name: &str) {
    loop {
        let options = SubscribeOptions {
            start: StartAt::Oldest,
            attempts_max: ATTEMPTS_MAX,
            pause: Duration::from_millis(200),
        };
        if let Ok(mut subscriber) = runtime.subscribe(name, options).await {
            loop {
                if let Err(error) = read_one(world, &mut subscriber).await {
                    let told = format!("`{name}` cannot read: {error}");
                    world.lock().note("", &told);
                    break;
                }
                if wants_back(world) {
                    drop(subscriber);
                    go_back(world, runtime, name).await;
                    break;
                }
            }
        }
        nap(world, 100..=2_000).await;
    }
}

/// Whether a subscriber would like to hear again what it has heard.
fn wants_back(world: &World) -> bool {
    let mut state = world.lock();
    let may = state.swarm.replay && !state.oracle.ends;
    may && state.dice.percent(8)
}

/// Sets a subscriber back, or has its dead letters told again.
async fn go_back(world: &World, runtime: &Runtime, name: &str) {
    let is_mutated = world.lock().is_mutated(Mutation::ForgetReplay);
    if world.lock().dice.percent(40) {
        let letters = world.lock().letters_of(name);
        let told = runtime.replay_dead(name).await;
        let mut state = world.lock();
        state.note(
            "",
            &format!("`{name}` has {letters:?} told again: {told:?}"),
        );
        match told {
            _ if state.dead => {}
            Ok(count) if count == letters.len() => {
                state.oracle.bus.are_told_again(name, &letters);
            }
            Ok(count) => state.violated(format!("{count} letters of {letters:?} are told again")),
            Err(_) => {}
        }
        return;
    }
    let from = {
        let mut state = world.lock();
        let state = &mut *state;
        state.oracle.bus.goes_back(name, &mut state.dice)
    };
    let Some(from) = from else { return };
    let gone = if is_mutated {
        Ok(())
    } else {
        runtime.replay(name, from).await
    };
    let mut state = world.lock();
    state.note("", &format!("`{name}` goes back to {from}: {gone:?}"));
    if gone.is_ok() && !state.dead {
        state.oracle.bus.went_back(name, from);
    }
}

async fn read_one(world: &World, subscriber: &mut Subscriber) -> Result<(), Error> {
    let Some(delivery) = subscriber.next().await? else {
        return World::never().await;
    };
    let name = subscriber.name().to_owned();
    let seq = delivery.seq;
    judge(world, &name, &delivery);
    nap(world, 0..=300).await;
    let fate = world.lock().dice.range(0..=9);
    match fate {
        // It is handed out again.
        0 => Ok(()),
        1 => subscriber.failed(&delivery, "simulated").await,
        _ if delivery.is_again => subscriber.done(&delivery).await,
        _ => {
            world.lock().oracle.bus.is_done_with(&name, seq);
            subscriber.done(&delivery).await?;
            let mut state = world.lock();
            if !state.dead {
                state.oracle.bus.has_acknowledged(&name, seq);
            }
            Ok(())
        }
    }
}

fn judge(world: &World, name: &str, delivery: &Delivery) {
    let mut state = world.lock();
    if state.dead {
        return;
    }
    let seq = delivery.seq;
    state.note("", &format!("`{name}` gets event {seq}"));
    let bus = &mut state.oracle.bus;
    let judged = if delivery.is_again {
        bus.judge_again(name, seq, &delivery.event)
    } else {
        bus.judge_delivery(name, seq, &delivery.event)
    };
    let is_too_often = delivery.attempt > ATTEMPTS_MAX;
    let too_often = is_too_often.then(|| format!("`{name}` gets event {seq} too often"));
    drop(state);
    if let Some(wrong) = judged.err().or(too_often) {
        world.violated(wrong);
    }
}
