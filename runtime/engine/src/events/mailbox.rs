//! How many letters lie in the boxes of those who wait for events.

use std::collections::HashMap;

use parking_lot::Mutex;

use super::keys::Owner;

/// How many letters lie in each box, as far as this process has put them there.
#[derive(Default)]
pub(crate) struct Letters(Mutex<HashMap<Owner, usize>>);

impl Letters {
    /// One more; how many there are.
    pub fn add(&self, owner: &Owner) -> usize {
        let mut boxes = self.0.lock();
        let letters = boxes.entry(owner.clone()).or_default();
        *letters += 1;
        *letters
    }

    /// One was taken out.
    pub fn take(&self, owner: &Owner) {
        let mut boxes = self.0.lock();
        if let Some(letters) = boxes.get_mut(owner) {
            *letters = letters.saturating_sub(1);
            if *letters == 0 {
                boxes.remove(owner);
            }
        }
    }
}

impl std::fmt::Display for Owner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Task { run, task } => write!(f, "{run}{task}"),
            Self::Schedule { name } => write!(f, "{name}"),
        }
    }
}
