//! Everything that a workflow may call, for checking it against the connections that exist.

use super::{Block, Call, Fallback, Kind, Target, Task, Workflow};

/// The name of the connection that `call: http` uses.
pub const HTTP_CONNECTION: &str = "http";
/// The actions of an HTTP connector, in the order in which methods are mapped to them.
pub const HTTP_ACTIONS: [&str; 3] = ["get", "put", "send"];

impl Workflow {
    /// Every connection and action that a task may call: its own target, the same action of its
    /// failover connections, its fallbacks and its compensation; also those of workflows that
    /// this one runs. `call: http` gives the action of its method, or all three if the method is
    /// computed. In the order of the text.
    pub fn calls(&self) -> Vec<(&Task, String, String)> {
        let mut calls = Vec::new();
        in_block(&self.body, &mut calls);
        calls
    }
}

fn in_block<'w>(block: &'w Block, calls: &mut Vec<(&'w Task, String, String)>) {
    block.tasks.iter().for_each(|t| in_task(t, calls));
}

fn in_task<'w>(task: &'w Task, calls: &mut Vec<(&'w Task, String, String)>) {
    match &task.kind {
        Kind::Call(call) => {
            calls.extend(targets(call).into_iter().map(|(c, a)| (task, c, a)));
        }
        Kind::Do(body) => in_block(body, calls),
        Kind::For(each) => in_block(&each.body, calls),
        Kind::Fork(fork) => fork.branches.iter().for_each(|t| in_task(t, calls)),
        Kind::Try(attempt) => {
            in_block(&attempt.body, calls);
            attempt.catch.body.iter().for_each(|b| in_block(b, calls));
        }
        Kind::Run { workflow, .. } => in_block(&workflow.body, calls),
        Kind::Listen(listen) => {
            let body = listen.foreach.iter().filter_map(|e| e.body.as_deref());
            body.for_each(|b| in_block(b, calls));
        }
        Kind::Set(_) | Kind::Switch(_) | Kind::Raise(_) | Kind::Wait(_) | Kind::Emit(_) => {}
    }
}

fn targets(call: &Call) -> Vec<(String, String)> {
    let own: Vec<(String, String)> = match &call.target {
        Target::Action { connection, action } => vec![(connection.clone(), action.clone())],
        Target::Http => http_actions(call)
            .map(|a| (HTTP_CONNECTION.to_owned(), a.to_owned()))
            .collect(),
    };
    let policy = &call.policy;
    let failover = policy.failover.iter().flatten();
    let failover = failover.flat_map(|c| {
        own.iter()
            .map(move |(_, action)| (c.clone(), action.clone()))
    });
    let fallback = policy.fallback.iter().filter_map(|f| match f {
        Fallback::Call {
            connection, action, ..
        } => Some((connection.clone(), action.clone())),
        Fallback::Cache { .. } | Fallback::Value(_) => None,
    });
    let undo_fallback = policy.fallback.iter().filter_map(|f| match f {
        Fallback::Call { compensate, .. } => compensate.as_deref(),
        Fallback::Cache { .. } | Fallback::Value(_) => None,
    });
    let undo = policy
        .compensate
        .iter()
        .chain(undo_fallback)
        .map(|c| (c.connection.clone(), c.action.clone()));
    own.iter()
        .cloned()
        .chain(failover)
        .chain(fallback)
        .chain(undo)
        .collect()
}

/// The action of an HTTP connector that serves a method.
pub(crate) fn http_action(method: &str) -> &'static str {
    match method.to_ascii_lowercase().as_str() {
        "get" | "head" | "options" => "get",
        "put" | "delete" => "put",
        _ => "send",
    }
}

fn http_actions(call: &Call) -> impl Iterator<Item = &'static str> {
    use crate::expr::Template;
    let method = match &call.with {
        Template::Object(parts) => parts.get("method").and_then(Template::as_literal),
        Template::Literal(value) => value.get("method"),
        Template::Expr(_) | Template::Uri(_) | Template::Array(_) => None,
    };
    let only = method.and_then(serde_json::Value::as_str).map(http_action);
    HTTP_ACTIONS
        .into_iter()
        .filter(move |a| only.is_none_or(|o| o == *a))
}
