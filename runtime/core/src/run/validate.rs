//! What a workflow demands of an output beyond its schema. A person looks at what does not pass.

use std::sync::Arc;

use serde_json::Value;

use super::calls::provenance;
use super::environment::Around;
use super::frame::{Frame, Work};
use super::{Effect, Run, Step};
use crate::failure::{Class, EffectState, Failure};
use crate::provenance::Provenance;
use crate::workflow::Kind;

impl Run {
    /// A call has its answer: it is kept and handed on, or a person looks at it first.
    pub(super) fn answer(&mut self, key: &str, output: Value, manual: bool, step: &mut Step) {
        let output = Arc::new(output);
        if manual {
            self.succeed(key, output, Provenance::Manual, step);
            return;
        }
        let miss = self.miss(key, &output);
        let Some(Frame {
            work: Work::Call(work),
            ..
        }) = self.frames.get_mut(key)
        else {
            return;
        };
        if let Some(failure) = miss.filter(|_| !work.state.accepted) {
            let held = Some((*output).clone());
            work.state.ask(failure, held, step.now_ms, &work.plan);
            self.follow_call(key, step);
            return;
        }
        if let Some(max_age_ms) = work.keep_ms {
            step.effects.push(Effect::Keep {
                connection: work.state.connection(&work.plan).to_owned(),
                action: work.action.clone(),
                input: Arc::clone(&work.input),
                output: Arc::clone(&output),
                max_age_ms,
            });
        }
        let provenance = provenance(work);
        self.succeed(key, output, provenance, step);
    }

    /// The outcome of an effect that an earlier task asked for.
    pub(super) fn took_known(
        &mut self,
        key: &str,
        output: Arc<Value>,
        provenance: Provenance,
        step: &mut Step,
    ) {
        let miss = self.miss(key, &output);
        match (miss, self.frames.get_mut(key).map(|f| &mut f.work)) {
            (Some(failure), Some(Work::Call(work))) if provenance != Provenance::Manual => {
                let held = Some((*output).clone());
                work.state.ask(failure, held, step.now_ms, &work.plan);
                self.follow_call(key, step);
            }
            _ => self.succeed(key, output, provenance, step),
        }
    }

    /// What an output lacks. A check that fails to be evaluated is one that it does not pass.
    fn miss(&self, key: &str, output: &Value) -> Option<Failure> {
        let frame = self.frames.get(key)?;
        let (Kind::Call(call), Work::Call(work)) = (&frame.task.as_ref()?.kind, &frame.work) else {
            return None;
        };
        let around = Around::new(self, key).with_output(output);
        let message = call.policy.validate.iter().find_map(|check| {
            let source = check.source();
            match self.holds(check, output, &around) {
                Ok(true) => None,
                Ok(false) => Some(format!("the output does not pass the check `{source}`")),
                Err(error) => Some(format!("the check `{source}` failed: {error}")),
            }
        })?;
        let effect = match work.effect {
            None => EffectState::None,
            Some(_) => EffectState::Applied,
        };
        Some(Failure::new(Class::Refused, "output.validate", message).with_effect(effect))
    }
}
