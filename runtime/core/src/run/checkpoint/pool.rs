//! Values that are shared in memory, written once.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use serde_json::Value;

use super::Error;
use crate::run::frame::Scope;

/// Gives shared values a number. Holds them, so that an address stays theirs.
#[derive(Default)]
pub(super) struct Pool {
    pub values: Vec<Arc<Value>>,
    pub scopes: Vec<Scope>,
    value_at: HashMap<*const Value, usize>,
    scope_at: HashMap<*const BTreeMap<String, Value>, usize>,
}

impl Pool {
    pub fn value(&mut self, value: &Arc<Value>) -> usize {
        *self.value_at.entry(Arc::as_ptr(value)).or_insert_with(|| {
            self.values.push(Arc::clone(value));
            self.values.len() - 1
        })
    }

    pub fn scope(&mut self, scope: &Scope) -> usize {
        *self.scope_at.entry(Arc::as_ptr(scope)).or_insert_with(|| {
            self.scopes.push(Arc::clone(scope));
            self.scopes.len() - 1
        })
    }
}

/// The values by their numbers.
pub(super) struct Pooled {
    pub values: Vec<Arc<Value>>,
    pub scopes: Vec<Scope>,
}

impl Pooled {
    pub fn value(&self, at: usize) -> Result<Arc<Value>, Error> {
        self.values.get(at).cloned().ok_or(Error::Lacking)
    }

    pub fn scope(&self, at: usize) -> Result<Scope, Error> {
        self.scopes.get(at).cloned().ok_or(Error::Lacking)
    }
}
