//! A connector that does, on request, what a connector must not do: it never ends, traps,
//! eats memory, floods the log, lies about its output. The host's tests run it; nobody else
//! should.
//!
//! Settings: `health` is what `check` answers: `healthy` (default), `degraded`, `unhealthy`,
//! `fail` (a failure of class `unavailable`) or `panic`.

mod ambient;
mod files;
#[cfg(target_arch = "wasm32")]
mod linger;
mod shapes;
#[cfg(test)]
mod tests;
mod vault;

use std::hint::black_box;
use std::time::Duration;

use cofferdam_sdk::prelude::*;
use cofferdam_sdk::{Connector, Descriptor, error, info};

pub use ambient::{Ambient, SocketDeed, SocketSeen, SocketUse};
pub use files::{FileDeed, FileSeen, FileUse};
pub use shapes::*;
pub use vault::{SecretRequest, SignUse, Signed, Then};

/// The connector, and what its `check` is to answer.
#[derive(Debug, Deserialize)]
pub struct Unruly {
    #[serde(default)]
    health: Option<String>,
}

#[connector(name = "unruly", description = "Does what a connector must not do", export = by_hand)]
impl Unruly {
    /// Returns its input.
    #[action(effect = read, example = r#"{"any": "thing"}"#)]
    fn echo(&self, input: Value) -> Result<Value, Failure> {
        Ok(input)
    }

    /// Returns what the host told of the call.
    #[action(effect = read)]
    fn show_call(&self, call: &Call) -> Result<ShownCall, Failure> {
        Ok(ShownCall {
            connection: call.connection.clone(),
            idempotency_key: call.idempotency_key.clone(),
            attempt: call.attempt,
            deadline_ms: call.deadline_ms,
            tenant: call.tenant.clone(),
            traceparent: call.traceparent.clone(),
            ext: call.ext.clone(),
        })
    }

    /// Never ends, and calls nothing.
    #[action(effect = read)]
    fn spin(&self) -> Result<Empty, Failure> {
        let mut turns = 0_u64;
        loop {
            turns = black_box(turns.wrapping_add(1));
        }
    }

    /// Runs into an `unreachable` instruction.
    #[action(effect = read)]
    fn trap(&self) -> Result<Empty, Failure> {
        #[cfg(target_arch = "wasm32")]
        core::arch::wasm32::unreachable();
        #[cfg(not(target_arch = "wasm32"))]
        std::process::abort();
    }

    /// Panics.
    #[action(effect = read)]
    fn panic(&self) -> Result<Empty, Failure> {
        panic!("unruly panicked on purpose");
    }

    /// Panics with this message.
    #[action(effect = read, example = r#"{"message": "nothing to hide"}"#)]
    fn panic_with(&self, input: Message) -> Result<Empty, Failure> {
        panic!("{}", input.message);
    }

    /// Sends a request past the SDK, with timeouts of a day, and then reads the answer, or writes
    /// the request, for as long as it is let.
    #[action(effect = read, example = r#"{"authority": "127.0.0.1:1", "upload": false}"#)]
    fn linger(&self, input: Linger) -> Result<Empty, Failure> {
        #[cfg(target_arch = "wasm32")]
        return linger::linger(&input.authority, input.upload);
        #[cfg(not(target_arch = "wasm32"))]
        Err(Failure::internal("unruly", input.authority))
    }

    /// Recurses until the stack is used up.
    #[action(effect = read)]
    fn overflow(&self) -> Result<Count, Failure> {
        Ok(Count { count: deeper(0) })
    }

    /// Takes memory, and writes to all of it, until it gets no more.
    #[action(effect = read)]
    fn bomb(&self) -> Result<Count, Failure> {
        const STEP_BYTES: usize = 1 << 20;
        let mut held: Vec<Vec<u8>> = Vec::new();
        loop {
            held.push(vec![0xA5; STEP_BYTES]);
            black_box(&mut held);
        }
    }

    /// Writes log lines, to the log and to standard output.
    #[action(effect = read, example = r#"{"lines": 10, "bytes": 100}"#)]
    fn flood_log(&self, input: Flood) -> Result<Count, Failure> {
        let line = "x".repeat(input.bytes as usize);
        for number in 0..input.lines {
            info!("{line}", number = number);
            println!("{line}");
        }
        Ok(Count { count: input.lines })
    }

    /// Returns a text of so many bytes.
    #[action(effect = read, example = r#"{"bytes": 10}"#)]
    fn big_output(&self, input: Size) -> Result<Big, Failure> {
        Ok(Big {
            text: "x".repeat(input.bytes as usize),
        })
    }

    /// Returns something that is not JSON.
    #[action(effect = read)]
    fn not_json(&self) -> Result<Empty, Failure> {
        // Answered by `Raw`: the SDK itself cannot do this.
        Err(Failure::internal(
            "unruly",
            "`not-json` needs the raw export",
        ))
    }

    /// Returns an output that breaks its own schema.
    #[action(effect = read)]
    fn wrong_shape(&self) -> Result<Lie, Failure> {
        Ok(Lie)
    }

    /// Waits, with the host's clock.
    #[action(effect = read, example = r#"{"ms": 1}"#)]
    fn sleep(&self, input: Nap) -> Result<Count, Failure> {
        std::thread::sleep(Duration::from_millis(input.ms.into()));
        Ok(Count { count: input.ms })
    }

    /// Sends one request and returns the answer, whatever its status.
    #[action(effect = read, example = r#"{"url": "http://127.0.0.1:1/"}"#)]
    fn fetch(&self, input: Fetch) -> Result<Answer, Failure> {
        let method = input.method.as_deref().unwrap_or("GET").parse()?;
        let mut request = http::Request::new(method, input.url);
        for (name, value) in input.headers {
            request = request.header(name, value);
        }
        if let Some(body) = input.body {
            request = request.body(body);
        }
        let response = request.send()?;
        Ok(Answer {
            status: response.status(),
            body: response.text(),
        })
    }

    /// Sends so many requests, one after the other, and returns how many were answered.
    #[action(effect = read, example = r#"{"url": "http://127.0.0.1:1/", "n": 2}"#)]
    fn count_requests(&self, input: Requests) -> Result<Count, Failure> {
        for _ in 0..input.n {
            http::Request::get(&input.url).send()?;
        }
        Ok(Count { count: input.n })
    }

    /// Puts a secret's placeholder into its output, its log and, if there is a `url`, a request.
    #[action(effect = read, example = r#"{"name": "UNRULY_SECRET"}"#)]
    fn secret(&self, input: SecretUse) -> Result<SecretSeen, Failure> {
        let placeholder = secrets::placeholder(&input.name)?;
        info!("the secret is {placeholder}", secret = placeholder);
        println!("the secret is {placeholder}");
        let answer = match input.url {
            Some(url) => {
                let response = http::Request::get(url).bearer(&placeholder).send()?;
                Some(Answer {
                    status: response.status(),
                    body: response.text(),
                })
            }
            None => None,
        };
        Ok(SecretSeen {
            placeholder,
            answer,
        })
    }

    /// Fails as it is told.
    #[action(effect = idempotent, example = r#"{"class": "unavailable", "code": "down"}"#)]
    fn fail(&self, input: Fail) -> Result<Empty, Failure> {
        let mut failure = Failure::new(input.class, input.code, input.message)
            .effect(input.effect)
            .details(input.details);
        failure.retry_after_ms = input.retry_after_ms;
        Err(failure)
    }

    /// Keeps a value in the connector's own store and returns the one before.
    #[action(effect = once, example = r#"{"key": "k", "value": "v"}"#)]
    fn remember(&self, input: Remember) -> Result<Remembered, Failure> {
        let before = kv::get(&input.key)?;
        kv::set(&input.key, input.value.as_bytes())?;
        Ok(Remembered {
            before: before.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()),
        })
    }

    /// Tries something with a file.
    #[action(effect = read, example = r#"{"what": "read", "path": "../x"}"#)]
    fn use_file(&self, input: FileUse) -> Result<FileSeen, Failure> {
        Ok(files::try_it(&input))
    }

    /// Looks around for what nobody gave it.
    #[action(effect = read)]
    fn look_around(&self) -> Result<Ambient, Failure> {
        Ok(ambient::look())
    }

    /// Tries to reach something past the host's HTTP.
    #[action(effect = read, example = r#"{"what": "resolve", "name": "example.com"}"#)]
    fn use_socket(&self, input: SocketUse) -> Result<SocketSeen, Failure> {
        Ok(ambient::dial(&input))
    }

    /// Signs with a secret.
    #[action(effect = read, example = r#"{"name": "A", "algorithm": "hmac-sha1", "data": ""}"#)]
    fn sign(&self, input: SignUse) -> Result<Signed, Failure> {
        vault::sign(&input)
    }

    /// Sends placeholders wherever it is told, and does with the answer what it must not.
    #[action(effect = idempotent, example = r#"{"url": "http://127.0.0.1:1/"}"#)]
    fn send_secret(&self, input: SecretRequest) -> Result<Answer, Failure> {
        vault::send(input)
    }

    fn check(&self) -> Result<Health, Failure> {
        match self.health.as_deref() {
            None | Some("healthy") => Ok(Health::healthy("as well as it can be")),
            Some("degraded") => Ok(Health::degraded("told so")),
            Some("unhealthy") => Ok(Health::unhealthy("told so")),
            Some("panic") => panic!("unruly panicked in its check"),
            Some(_) => {
                error!("the check fails");
                Err(Failure::new(
                    Class::Unavailable,
                    "unruly.check",
                    "told to fail",
                ))
            }
        }
    }
}

/// Deep enough for any stack, and not a loop that a compiler could make of it.
#[expect(unconditional_recursion, reason = "that is what it is for")]
fn deeper(depth: u32) -> u32 {
    let frame = black_box([depth; 64]);
    black_box(deeper(depth.wrapping_add(1))).wrapping_add(frame[0])
}

/// The connector with one action that the SDK would not let pass.
pub struct Raw(Unruly);

impl Connector for Raw {
    fn descriptor() -> Descriptor {
        Unruly::descriptor()
    }

    fn open() -> Result<Self, Failure> {
        Unruly::open().map(Self)
    }

    fn invoke(&self, call: &Call) -> Result<String, Failure> {
        match call.action.as_str() {
            "not-json" => Ok("{\"not\": json".to_owned()),
            _ => Connector::invoke(&self.0, call),
        }
    }

    fn check(&self) -> Result<Health, Failure> {
        Connector::check(&self.0)
    }

    fn lookup(&self, action: &str, key: &str) -> Result<Option<String>, Failure> {
        Connector::lookup(&self.0, action, key)
    }

    fn accepts(action: &str, input: &str) -> Result<(), Failure> {
        Unruly::accepts(action, input)
    }
}

cofferdam_sdk::export!(Raw);
