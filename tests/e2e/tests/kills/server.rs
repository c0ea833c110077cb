//! What is outside: effects, by key, that stay whatever becomes of the process.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};

/// Counts effects. `do KEY` lets one happen, `ask KEY` says whether one has.
pub(crate) struct Server {
    address: SocketAddr,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    effects: Mutex<BTreeMap<String, u32>>,
    holding: Mutex<bool>,
    /// Connections whose peer has not gone away, or has and was not read to the end.
    open: Mutex<usize>,
    released: Condvar,
    closed: Condvar,
}

impl Server {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State::default());
        let serving = Arc::clone(&state);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let state = Arc::clone(&serving);
                *state.open.lock().unwrap() += 1;
                std::thread::spawn(move || {
                    state.serve(stream);
                    *state.open.lock().unwrap() -= 1;
                    state.closed.notify_all();
                });
            }
        });
        Self { address, state }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// From here on nothing happens and nobody is answered.
    pub(crate) fn hold(&self) {
        *self.state.holding.lock().unwrap() = true;
    }

    pub(crate) fn release(&self) {
        *self.state.holding.lock().unwrap() = false;
        self.state.released.notify_all();
    }

    /// Waits until all that a process which is gone has sent has happened: what is under way on a
    /// wire when somebody asks whether it happened is another matter than a kill.
    pub(crate) fn settle(&self) {
        // Connections are taken in their order, so that those before this one have been.
        let mut last = BufReader::new(TcpStream::connect(self.address).unwrap());
        last.get_mut().write_all(b"ask nothing\n").unwrap();
        last.read_line(&mut String::new()).unwrap();
        drop(last);
        let mut open = self.state.open.lock().unwrap();
        while *open > 0 {
            open = self.state.closed.wait(open).unwrap();
        }
    }

    /// How many different effects of a kind happened.
    pub(crate) fn happened(&self, kind: &str) -> usize {
        let effects = self.state.effects.lock().unwrap();
        effects.keys().filter(|key| key.starts_with(kind)).count()
    }

    pub(crate) fn happened_twice(&self, kind: &str) -> Vec<String> {
        let effects = self.state.effects.lock().unwrap();
        let twice = effects
            .iter()
            .filter(|(key, times)| key.starts_with(kind) && **times > 1);
        twice.map(|(key, _)| key.clone()).collect()
    }
}

impl State {
    /// Until the peer goes away.
    fn serve(&self, stream: TcpStream) {
        let Ok(mut write) = stream.try_clone() else {
            return;
        };
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            let answer = match line.split_once(' ') {
                Some(("do", key)) => {
                    self.wait();
                    *self
                        .effects
                        .lock()
                        .unwrap()
                        .entry(key.to_owned())
                        .or_default() += 1;
                    "yes\n"
                }
                Some(("ask", key)) if self.effects.lock().unwrap().contains_key(key) => "yes\n",
                _ => "no\n",
            };
            if write.write_all(answer.as_bytes()).is_err() {
                return;
            }
        }
    }

    fn wait(&self) {
        let mut holding = self.holding.lock().unwrap();
        while *holding {
            holding = self.released.wait(holding).unwrap();
        }
    }
}
