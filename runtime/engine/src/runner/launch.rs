//! Calls and questions that leave, once what they depend on is durable.

use cofferdam_core::call::Lookup;
use cofferdam_core::failure::{Class, Failure};

use super::{Done, Launch, Runner};
use crate::admission;
use crate::mutation::Mutation;

impl Runner {
    pub(super) fn launch_all(&mut self) {
        for launch in std::mem::take(&mut self.launches) {
            self.launch(launch);
        }
    }

    fn launch(&mut self, launch: Launch) {
        match launch {
            Launch::Call(attempt, admitted) => {
                let again = self.inner.armed.has(Mutation::ReleaseTwice);
                let slot = self.inner.connections.get(&attempt.connection);
                let again = slot.filter(|_| again).cloned();
                let (ticket, effect) = (attempt.ticket, attempt.effect);
                let tenant = self.row.tenant.clone();
                let calling = self.under_way.spawn(async move {
                    let result = admitted.call(&attempt, tenant).await;
                    if let Some(slot) = again {
                        slot.bulkhead.add_permits(1);
                    }
                    Done::Called {
                        ticket,
                        effect,
                        result,
                    }
                });
                self.calls.insert(ticket, calling);
            }
            Launch::Lookup {
                ticket,
                connection,
                action,
                key,
            } => {
                let slot = self.inner.connections.get(&connection).cloned();
                self.under_way.spawn(async move {
                    let answer = match slot {
                        Some(slot) => admission::look_up(&slot, &action, &key).await,
                        None => Lookup::Failed {
                            failure: Failure::new(
                                Class::Unavailable,
                                "connection.missing",
                                connection,
                            ),
                        },
                    };
                    Done::LookedUp { ticket, answer }
                });
            }
        }
    }
}
