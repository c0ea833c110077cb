//! The systems behind the connections, and the way to them.
//!
//! A request is sent, arrives or does not, has its effect or not, and its answer comes or does not;
//! each by dice. Who sent it may have given up or be dead by the time it arrives.
//!
//! The other side is honest in two ways, as any system is whose lookups and undoings can be relied
//! on: who has said that a call did not happen, or has undone it, refuses the requests that were
//! sent before and arrive later.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use cofferdam::{
    Action, Call, Class, Connector, Descriptor, Effect, EffectState, Failure, Health, HealthStatus,
};
use serde_json::{Value, json};
use tokio::sync::oneshot;

use crate::dice::Dice;
use crate::flow::CONNECTIONS;
use crate::mutation::Mutation;
use crate::world::{State, World};

/// How many second attempts a connection may save up.
const HEDGES_SAVED: u64 = 10;

/// What the services know, and what is known of each effect.
pub(crate) struct Services {
    /// Requests that have not arrived; they outlive who sent them.
    pub on_the_way: BTreeMap<u64, Request>,
    /// Calls that somebody waits for, by request.
    pub waiting: BTreeMap<u64, Request>,
    /// By the effect's identity: what was called, whatever the engine thinks of keys.
    pub effects: BTreeMap<String, Effected>,
    /// Effects that were undone, and on which connection.
    pub undone: BTreeSet<(String, String)>,
    /// Effects whose undoing was sent.
    pub undo_sent: BTreeSet<String>,
    /// How many calls may be made on a connection at the same time.
    pub concurrency_max: BTreeMap<String, usize>,
    /// What was answered, by the number in it.
    pub given: BTreeMap<u64, Given>,
    /// Numbers in what people answered.
    pub approved: BTreeSet<u64>,
    /// The last answer of a connection that gives it again, whatever is asked.
    repeated: BTreeMap<String, Value>,
    /// By connection: first and second attempts of this process, where both may be.
    hedges: BTreeMap<String, (u64, u64)>,
    /// Requests with this key that were sent before this one are refused.
    sealed: BTreeMap<String, u64>,
    /// When each connection is out.
    outages: BTreeMap<String, Vec<(u64, u64)>>,
    requests: u64,
}

/// What is known of one effect.
#[derive(Debug, Clone, Default)]
pub(crate) struct Effected {
    pub key: String,
    pub action: String,
    /// How often it really happened, on all connections together.
    pub count: u32,
    /// By connection: what was answered.
    pub outputs: BTreeMap<String, Value>,
}

/// An answer that was given.
#[derive(Debug, Clone)]
pub(crate) struct Given {
    /// To which question.
    pub identity: String,
    pub connection: String,
    pub key: String,
    pub at_ms: u64,
}

/// One request.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub id: u64,
    pub connection: String,
    pub action: String,
    pub key: String,
    /// Names the effect.
    pub identity: String,
    /// The effect that this one undoes.
    pub of: Option<String>,
}

/// What is going to happen to one request.
#[derive(Debug, Clone)]
struct Fate {
    /// When it arrives, if ever, in milliseconds.
    arrives: Option<u64>,
    /// What is answered instead of the output.
    failure: Option<Failure>,
    /// Whether it has its effect.
    happens: bool,
    /// Whether it arrives twice.
    twice: bool,
    /// When the answer comes after that, if ever.
    answers: Option<u64>,
}

impl Services {
    pub fn new(dice: &mut Dice) -> Self {
        let mut outages: BTreeMap<String, Vec<(u64, u64)>> = BTreeMap::new();
        for connection in CONNECTIONS {
            let windows = outages.entry(connection.to_owned()).or_default();
            let mut at = 0;
            while dice.percent(40) {
                let from = at + dice.range(0..=10_000);
                at = from + dice.range(100..=20_000);
                windows.push((from, at));
            }
        }
        Self {
            on_the_way: BTreeMap::new(),
            waiting: BTreeMap::new(),
            effects: BTreeMap::new(),
            undone: BTreeSet::new(),
            undo_sent: BTreeSet::new(),
            concurrency_max: BTreeMap::new(),
            given: BTreeMap::new(),
            approved: BTreeSet::new(),
            repeated: BTreeMap::new(),
            hedges: BTreeMap::new(),
            sealed: BTreeMap::new(),
            outages,
            requests: 0,
        }
    }

    /// From here on nothing that was sent before has this effect.
    pub fn seal(&mut self, key: &str) {
        self.sealed.insert(key.to_owned(), self.requests);
    }

    /// Nobody asks any more about these effects.
    pub fn forget(&mut self, is_over: impl Fn(&str) -> bool) {
        self.effects.retain(|identity, _| !is_over(identity));
        self.undone.retain(|(identity, _)| !is_over(identity));
        self.undo_sent.retain(|identity| !is_over(identity));
    }

    /// What a process has saved up of second attempts is gone with it.
    pub fn begin_process(&mut self) {
        self.hedges.clear();
    }

    /// Whether an effect happened.
    pub fn happened(&self, identity: &str) -> bool {
        self.effects.get(identity).is_some_and(|e| e.count > 0)
    }

    /// What the system behind a connection knows about a key.
    fn known(&self, connection: &str, key: &str) -> Option<Value> {
        let found = self.effects.values().find(|effected| effected.key == key)?;
        found.outputs.get(connection).cloned()
    }
}

impl State {
    /// Of the calls of a connection a tenth get a second attempt, and ten that were saved up.
    pub fn count_hedges(&mut self, connection: String, is_second: bool) {
        let text = format!("`{connection}` gets more second attempts than a tenth of its calls");
        let (first, second) = self.services.hedges.entry(connection).or_default();
        *first += u64::from(!is_second);
        *second += u64::from(is_second);
        if *second > HEDGES_SAVED + *first / 10 {
            self.violated(text);
        }
    }

    fn is_out(&self, connection: &str, begun_ms: u64) -> bool {
        let at = self.now_ms().saturating_sub(begun_ms);
        let windows = self.services.outages.get(connection);
        !self.is_fair()
            && windows.is_some_and(|all| all.iter().any(|(from, to)| (*from..*to).contains(&at)))
    }

    fn fate(&mut self, connection: &str, effect: Effect) -> Fate {
        // Quicker than the shortest timeout in good weather.
        let is_fair = self.is_fair();
        let quick = |dice: &mut Dice| match dice.range(0..=9) {
            _ if is_fair => dice.range(0..=4),
            0..=5 => 0,
            6..=8 => dice.range(1..=30),
            _ => dice.range(30..=600),
        };
        let mut fate = Fate {
            arrives: Some(quick(&mut self.dice)),
            failure: None,
            happens: true,
            twice: false,
            answers: Some(quick(&mut self.dice)),
        };
        let begun_ms = self.fair_from_ms.saturating_sub(60_000);
        if self.is_out(connection, begun_ms) && self.dice.percent(90) {
            fate.happens = false;
            fate.failure = Some(failure(Class::Unavailable, "sim.out", EffectState::None));
            return fate;
        }
        if !self.bad_luck(100) {
            return fate;
        }
        let transient = *self
            .dice
            .pick(&[Class::Unavailable, Class::Timeout, Class::Internal]);
        match self.dice.range(0..=9) {
            // Nothing happened, and it says so.
            0..=2 => {
                let class = *self.dice.pick(&Class::ALL);
                let mut told = failure(class, "sim.refused", EffectState::None);
                if class == Class::RateLimited && self.dice.percent(70) {
                    told.retry_after_ms = Some(self.dice.range(1..=3_000) as u32);
                }
                fate.happens = false;
                fate.failure = Some(told);
            }
            // It happened, and the answer is lost on the way back.
            3..=4 => fate.failure = Some(failure(transient, "sim.reset", EffectState::Unknown)),
            // It did not happen, and nobody knows.
            5 => {
                fate.happens = false;
                fate.failure = Some(failure(transient, "sim.reset", EffectState::Unknown));
            }
            // It is lost on the way, and nobody answers.
            6 => fate.arrives = None,
            // The answer never comes, or late.
            7 => fate.answers = self.dice.percent(50).then(|| self.dice.range(500..=5_000)),
            // It arrives late, perhaps after the caller has given up.
            8 => fate.arrives = Some(self.dice.range(300..=5_000)),
            _ if effect == Effect::Once => {
                let class = *self.dice.pick(&Class::ALL);
                fate.failure = Some(failure(class, "sim.after", EffectState::Applied));
            }
            // The network delivers it twice.
            _ => fate.twice = true,
        }
        // A connector that crashes says so in a way that counts against the plugin.
        if let Some(told) = &mut fate.failure
            && told.class == Class::Internal
            && self.dice.percent(50)
        {
            "plugin.trap".clone_into(&mut told.code);
        }
        fate
    }

    /// A request arrives: what is answered.
    fn arrives(&mut self, request: &Request, effect: Effect) -> Result<Value, Failure> {
        self.services.on_the_way.remove(&request.id);
        let sealed = self.services.sealed.get(&request.key);
        if sealed.is_some_and(|before| request.id <= *before) {
            self.note("", &format!("service: #{} is too late", request.id));
            return Err(failure(Class::Conflict, "sim.sealed", EffectState::None));
        }
        let nonce = self.dice.roll() >> 12;
        let output = json!({"id": request.identity, "n": nonce});
        let given = Given {
            identity: request.identity.clone(),
            connection: request.connection.clone(),
            key: request.key.clone(),
            at_ms: self.now_ms(),
        };
        if effect == Effect::Read {
            self.services.given.insert(nonce, given);
            return Ok(output);
        }
        let effected = self
            .services
            .effects
            .entry(request.identity.clone())
            .or_default();
        let known = effected.outputs.get(&request.connection).cloned();
        if let (Effect::Idempotent, Some(output)) = (effect, known)
            && effected.key == request.key
        {
            return Ok(output);
        }
        effected.count += 1;
        effected
            .outputs
            .insert(request.connection.clone(), output.clone());
        let count = effected.count;
        if count > 1 {
            self.violated(format!("`{}` happened {count} times", request.identity));
        }
        self.services.given.insert(nonce, given);
        if let Some(of) = &request.of {
            let key = self.services.effects.get(of).map(|e| e.key.clone());
            if let Some(key) = key {
                self.services.seal(&key);
            }
            let undone = (of.clone(), request.connection.clone());
            self.services.undone.insert(undone);
        }
        Ok(output)
    }
}

impl State {
    /// What a lookup answers, if it answers.
    fn looked_up(&mut self, connection: &str, key: &str) -> Option<Result<Option<Value>, Failure>> {
        if self.bad_luck(100) {
            let class = *self.dice.pick(&Class::ALL);
            let hangs = self.dice.percent(30);
            return (!hangs).then(|| Err(failure(class, "sim.lookup", EffectState::None)));
        }
        let found = self.services.known(connection, key);
        if found.is_none() {
            self.services.seal(key);
        }
        Some(Ok(found))
    }

    /// An answer to a call that was never sent.
    fn make_up(&mut self, connection: &str, call: &Call) -> Value {
        let nonce = self.dice.roll() >> 12;
        let given = Given {
            identity: call.input["id"].as_str().unwrap_or_default().to_owned(),
            connection: connection.to_owned(),
            key: call.idempotency_key.clone(),
            at_ms: self.now_ms(),
        };
        self.services.given.insert(nonce, given);
        json!({"id": call.input["id"], "n": nonce})
    }

    /// What is told instead of an answer by a connection that mixes them up.
    fn mix_up(&mut self, connection: &str, output: Value) -> Value {
        if !self.is_mutated(Mutation::MixAnswers) {
            return output;
        }
        let repeated = self.services.repeated.entry(connection.to_owned());
        repeated.or_insert(output).clone()
    }

    /// How a check goes: 0 hangs, 1 fails, 2 says that it is out, 3 is well.
    fn checked(&mut self, connection: &str) -> u64 {
        let begun_ms = self.fair_from_ms.saturating_sub(60_000);
        let bad = self.is_out(connection, begun_ms) || self.bad_luck(60);
        if bad { self.dice.range(0..=2) } else { 3 }
    }
}

fn failure(class: Class, code: &str, effect: EffectState) -> Failure {
    Failure::new(class, code, "simulated").with_effect(effect)
}

/// The effect of each action.
pub(crate) fn effect_of(action: &str) -> Effect {
    match action {
        "read" => Effect::Read,
        "pay" | "book" => Effect::Once,
        _ => Effect::Idempotent,
    }
}

/// The way to one connection, as one process has it.
pub(crate) struct Way {
    world: Arc<World>,
    connection: String,
}

impl Way {
    pub fn to(world: &Arc<World>, connection: &str) -> Arc<dyn Connector> {
        Arc::new(Self {
            world: Arc::clone(world),
            connection: connection.to_owned(),
        })
    }

    /// Sends a request, or finds out that it must not be sent.
    fn send(&self, call: &Call, effect: Effect) -> Option<(Request, Fate)> {
        let text = |name: &str| call.input[name].as_str().unwrap_or_default().to_owned();
        let mut state = self.world.lock();
        state.services.requests += 1;
        let mut request = Request {
            id: state.services.requests,
            connection: self.connection.clone(),
            action: call.action.clone(),
            key: call.idempotency_key.clone(),
            identity: text("id"),
            of: call.input["of"].as_str().map(ToOwned::to_owned),
        };
        if state.is_mutated(Mutation::FreshKeys) && call.attempt > 1 {
            request.key = format!("{}#{}", request.key, call.attempt);
        }
        let line = format!(
            "call: #{} {}.{} {} attempt {}",
            request.id, request.connection, request.action, request.identity, call.attempt
        );
        let lives = state.step(|| line);
        if !lives {
            self.world.died.notify_one();
            return None;
        }
        state.judge_call(&request, call, effect);
        let fate = state.fate(&self.connection, effect);
        if effect != Effect::Read {
            let effected = state.services.effects.entry(request.identity.clone());
            let effected = effected.or_default();
            if effected.key.is_empty() {
                effected.key.clone_from(&request.key);
                effected.action.clone_from(&request.action);
            }
        }
        state
            .services
            .on_the_way
            .insert(request.id, request.clone());
        state.services.waiting.insert(request.id, request.clone());
        Some((request, fate))
    }
}

/// Removes a call from those that somebody waits for.
struct Waits {
    world: Arc<World>,
    id: u64,
}

impl Drop for Waits {
    fn drop(&mut self) {
        self.world.lock().services.waiting.remove(&self.id);
    }
}

/// What happens to a request, whether or not somebody still waits for the answer.
async fn travel(
    world: Arc<World>,
    request: Request,
    fate: Fate,
    tell: oneshot::Sender<Result<Value, Failure>>,
) {
    let Some(after_ms) = fate.arrives else {
        // Nobody answers; nor must the caller hear that nobody does.
        let _tell = tell;
        return World::never().await;
    };
    tokio::time::sleep(Duration::from_millis(after_ms)).await;
    let effect = effect_of(&request.action);
    let name = format!("#{} {}", request.id, request.identity);
    if !world.step(|| format!("service: {name} arrives, happens: {}", fate.happens)) {
        return World::never().await;
    }
    let mut result = if fate.happens {
        world.lock().arrives(&request, effect)
    } else {
        world.lock().services.on_the_way.remove(&request.id);
        Ok(Value::Null)
    };
    if fate.twice {
        let again = world.lock().arrives(&request, effect);
        result = result.and(again);
    }
    let Some(answer_ms) = fate.answers else {
        let _tell = tell;
        return World::never().await;
    };
    tokio::time::sleep(Duration::from_millis(answer_ms)).await;
    // What was refused for being late had no effect, whatever else was to be told.
    let told = match (result, fate.failure) {
        (Err(refused), _) => Err(refused),
        (Ok(_), Some(failure)) => Err(failure),
        (Ok(output), None) => Ok(output),
    };
    if !world.step(|| {
        format!(
            "answer: {name} {}",
            told.as_ref()
                .map_or_else(ToString::to_string, ToString::to_string)
        )
    }) {
        return World::never().await;
    }
    let _ = tell.send(told);
}

/// A request whose sender is dead arrives, some time later.
pub(crate) async fn arrive_late(world: Arc<World>, request: Request, after_ms: u64) {
    let fate = Fate {
        arrives: Some(after_ms),
        failure: None,
        happens: true,
        twice: false,
        answers: None,
    };
    travel(world, request, fate, oneshot::channel().0).await;
}

#[async_trait]
impl Connector for Way {
    fn descriptor(&self) -> Descriptor {
        let action = |name: &str| Action {
            title: name.to_owned(),
            description: String::new(),
            effect: effect_of(name),
            input: json!({}),
            output: json!({}),
            compensated_by: None,
            lookup: matches!(name, "mark" | "book"),
            examples: Vec::new(),
        };
        let names = ["read", "keep", "mark", "pay", "book", "undo"];
        Descriptor {
            name: "simulated".to_owned(),
            version: "1.0.0".to_owned(),
            description: String::new(),
            actions: names.map(|name| (name.to_owned(), action(name))).into(),
        }
    }

    async fn invoke(&self, call: Call) -> Result<Value, Failure> {
        let effect = effect_of(&call.action);
        let (skips, forgets) = {
            let state = self.world.lock();
            (
                state.is_mutated(Mutation::SkipUndo),
                state.is_mutated(Mutation::RepeatUnknown),
            )
        };
        if skips && call.action == "undo" {
            return Ok(self.world.lock().make_up(&self.connection, &call));
        }
        let Some((request, fate)) = self.send(&call, effect) else {
            return World::never().await;
        };
        let _waits = Waits {
            world: Arc::clone(&self.world),
            id: request.id,
        };
        let (tell, answer) = oneshot::channel();
        tokio::spawn(travel(Arc::clone(&self.world), request, fate, tell));
        match answer.await {
            Ok(Err(failure)) if forgets => Err(failure.with_effect(EffectState::None)),
            Ok(Ok(output)) => Ok(self.world.lock().mix_up(&self.connection, output)),
            Ok(failed) => failed,
            Err(_) => World::never().await,
        }
    }

    async fn lookup(&self, action: &str, key: &str) -> Result<Option<Value>, Failure> {
        let connection = &self.connection;
        if !self
            .world
            .step(|| format!("lookup: {connection}.{action} {key}"))
        {
            return World::never().await;
        }
        let Some(answer) = self.world.lock().looked_up(connection, key) else {
            return World::never().await;
        };
        answer
    }

    async fn check(&self) -> Result<Health, Failure> {
        let connection = &self.connection;
        if !self.world.step(|| format!("check: {connection}")) {
            return World::never().await;
        }
        let how = self.world.lock().checked(connection);
        let (status, message) = match how {
            0 => return World::never().await,
            1 => return Err(failure(Class::Unavailable, "sim.check", EffectState::None)),
            2 => (HealthStatus::Unhealthy, "out".to_owned()),
            _ => (HealthStatus::Healthy, String::new()),
        };
        Ok(Health { status, message })
    }
}
