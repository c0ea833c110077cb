//! What expressions see: `$context`, `$input`, `$output`, `$task`, `$workflow`, `$runtime`,
//! `$secrets` (placeholders), and the variables of `for` and `catch`.

use std::sync::Arc;

use serde_json::{Value, json};

use super::Run;
use super::frame::{BlockWork, FlowWork, Frame, Scope, Work};
use crate::error::WorkflowError;
use crate::expr::{Expr, Template, Vars};
use crate::workflow::{DurationSpec, placeholder};

static NULL: Value = Value::Null;

/// What is around an expression.
pub(super) struct Around<'a> {
    frame: Option<&'a Frame>,
    flow: Option<&'a FlowWork>,
    flow_frame: Option<&'a Frame>,
    reference: &'a str,
    scope: Option<&'a Scope>,
    output: Option<&'a Value>,
}

impl<'a> Around<'a> {
    /// What is around the task with this key.
    pub fn new(run: &'a Run, key: &str) -> Self {
        let frame = run.frames.get(key);
        let mut around = Self {
            frame,
            flow: None,
            flow_frame: None,
            reference: "",
            scope: frame.map(|f| &f.scope),
            output: None,
        };
        let mut at = frame;
        while let Some(frame) = at {
            if around.reference.is_empty()
                && let Some(task) = &frame.task
            {
                around.reference = &task.reference;
            }
            if let Work::Block(BlockWork {
                flow: Some(flow), ..
            }) = &frame.work
            {
                around.flow = Some(flow);
                around.flow_frame = Some(frame);
                break;
            }
            at = frame.parent.as_ref().and_then(|key| run.frames.get(key));
        }
        around
    }

    pub fn with_output(mut self, output: &'a Value) -> Self {
        self.output = Some(output);
        self
    }

    pub fn with_scope(mut self, scope: &'a Scope) -> Self {
        self.scope = Some(scope);
        self
    }

    /// Where the task stands in the workflow, as a JSON pointer.
    pub fn reference(&self) -> &'a str {
        self.reference
    }

    /// The context of the workflow around the task.
    pub fn context(&self) -> &'a Value {
        self.flow.map_or(&NULL, |f| &f.context)
    }

    /// The task's transformed input.
    pub fn input(&self) -> &'a Value {
        self.frame.map_or(&NULL, |f| &f.input)
    }

    fn vars(&self, run: &Run, mentions: impl Fn(&str) -> bool) -> Vars<'a> {
        let mut vars = Vars::new();
        if let Some(scope) = self.scope {
            for (name, value) in &**scope {
                vars.set(name.as_str(), value);
            }
        }
        vars.set("context", self.context());
        vars.set("input", self.input());
        vars.set("output", self.output.unwrap_or(&NULL));
        // These are made up of copies, and few expressions want them.
        if mentions("$task") {
            vars.set_owned("task", self.describe_task());
        }
        if mentions("$workflow") {
            vars.set_owned("workflow", self.describe_workflow(run));
        }
        if mentions("$secret") {
            vars.set_owned("secrets", self.placeholders(run));
            vars.set_owned("secret", self.placeholders(run));
        }
        if mentions("$runtime") {
            let runtime =
                json!({"name": "cofferdam", "version": env!("CARGO_PKG_VERSION"), "metadata": {}});
            vars.set_owned("runtime", runtime);
        }
        vars
    }

    /// What `use.secrets` names, each with what stands for it.
    fn placeholders(&self, run: &Run) -> Value {
        let names = self.flow.map(|f| &f.workflow.secrets.own).into_iter();
        names
            .flatten()
            .map(|name| (name.clone(), Value::String(placeholder(&run.id, name))))
            .collect()
    }

    fn describe_task(&self) -> Value {
        let Some(frame) = self.frame else {
            return Value::Null;
        };
        let Some(task) = &frame.task else {
            return Value::Null;
        };
        json!({
            "name": task.name,
            "reference": task.reference,
            "definition": self.definition(&task.reference),
            "input": *frame.raw_input,
            "output": self.output.unwrap_or(&NULL),
            "startedAt": instant(frame.started_ms),
        })
    }

    fn definition(&self, reference: &str) -> &'a Value {
        let whole = self.flow.map(|f| &f.workflow.definition);
        whole.and_then(|d| d.pointer(reference)).unwrap_or(&NULL)
    }

    fn describe_workflow(&self, run: &Run) -> Value {
        let Some(flow) = self.flow else {
            return Value::Null;
        };
        let (input, started_ms) = self.flow_frame.map_or((&NULL, run.begun_ms), |frame| {
            (&*frame.raw_input, frame.started_ms)
        });
        json!({
            "id": run.id,
            "definition": flow.workflow.definition,
            "input": input,
            "startedAt": instant(started_ms),
        })
    }
}

impl Run {
    pub(super) fn evaluate(
        &self,
        template: &Template,
        on: &Value,
        around: &Around<'_>,
    ) -> Result<Value, WorkflowError> {
        let vars = around.vars(self, |name| mentions(template, name));
        template
            .evaluate(on, &vars)
            .map_err(|e| WorkflowError::expression(e.to_string(), around.reference()))
    }

    pub(super) fn evaluate_expr(
        &self,
        expr: &Expr,
        on: &Value,
        around: &Around<'_>,
    ) -> Result<Value, WorkflowError> {
        let vars = around.vars(self, |name| expr.source().contains(name));
        expr.evaluate(on, &vars)
            .map_err(|e| WorkflowError::expression(e.to_string(), around.reference()))
    }

    pub(super) fn holds(
        &self,
        expr: &Expr,
        on: &Value,
        around: &Around<'_>,
    ) -> Result<bool, WorkflowError> {
        let value = self.evaluate_expr(expr, on, around)?;
        Ok(!matches!(value, Value::Null | Value::Bool(false)))
    }

    pub(super) fn duration_ms(&self, key: &str, spec: &DurationSpec) -> Result<u64, WorkflowError> {
        match spec {
            DurationSpec::Fixed(ms) => Ok(*ms),
            DurationSpec::Computed(template) => {
                let around = Around::new(self, key);
                let value = self.evaluate(template, around.input(), &around)?;
                crate::duration::parse(&value)
                    .map_err(|e| WorkflowError::expression(e.to_string(), around.reference()))
            }
        }
    }

    /// The instant at which the time of a task is over.
    pub(super) fn deadline_ms(
        &self,
        key: &str,
        timeout: Option<&DurationSpec>,
        now_ms: u64,
    ) -> Result<Option<u64>, WorkflowError> {
        let Some(spec) = timeout else { return Ok(None) };
        Ok(Some(now_ms.saturating_add(self.duration_ms(key, spec)?)))
    }

    /// The scope that the frame with this key has.
    pub(super) fn scope_of(&self, key: &str) -> Scope {
        self.frames
            .get(key)
            .map(|f| Arc::clone(&f.scope))
            .unwrap_or_default()
    }
}

fn mentions(template: &Template, name: &str) -> bool {
    match template {
        // In an interpolated address only names of the input stand.
        Template::Literal(_) | Template::Uri(_) => false,
        Template::Expr(expr) => expr.source().contains(name),
        Template::Array(parts) => parts.iter().any(|p| mentions(p, name)),
        Template::Object(parts) => parts.values().any(|p| mentions(p, name)),
    }
}

fn instant(ms: u64) -> Value {
    let iso8601 = jiff::Timestamp::from_millisecond(i64::try_from(ms).unwrap_or(i64::MAX))
        .map(|t| t.to_string())
        .unwrap_or_default();
    json!({"iso8601": iso8601, "epoch": {"seconds": ms / 1000, "milliseconds": ms}})
}
