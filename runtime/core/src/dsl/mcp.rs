//! `call: mcp`: an action of the `mcp` connection, chosen by the method. `tools/call` may do
//! anything; all else reads.

use indexmap::IndexMap;

use super::context::{Context, Scope, Stage};
use super::data::optional;
use super::report::{At, Fields, suggest};
use crate::expr::Template;
use crate::workflow::{Call, Kind, Target};

/// The connection that `call: mcp` uses.
const CONNECTION: &str = "mcp";
/// The method that calls a tool.
const TOOLS_CALL: &str = "tools/call";
const METHODS: [&str; 7] = [
    "tools/list",
    TOOLS_CALL,
    "prompts/list",
    "prompts/get",
    "resources/list",
    "resources/read",
    "resources/templates/list",
];

impl<'n> Context<'n> {
    /// `call: mcp`.
    pub(super) fn mcp(&self, fields: &Fields<'n>, scope: &Scope) -> Option<Kind> {
        const KEYS: [&str; 6] = [
            "protocolVersion",
            "method",
            "parameters",
            "timeout",
            "transport",
            "client",
        ];
        let at = self.report.need(fields, "with")?;
        let vars = scope.vars(Stage::Sent);
        let keys = self.report.fields(&at, "an MCP call", &KEYS)?;
        let method = self
            .report
            .need(&keys, "method")
            .and_then(|m| self.method(&m));
        let transport = self
            .report
            .need(&keys, "transport")
            .and_then(|t| self.transport(&t, &vars));
        let timeout = optional(keys.get("timeout"), |t| self.fixed_ms(t));
        let version = optional(keys.get("protocolVersion"), |v| {
            self.report.text(v).and_then(|_| self.template(v, &vars))
        });
        let parameters = optional(keys.get("parameters"), |p| self.arguments(p, &vars));
        let client = optional(keys.get("client"), |c| {
            let named = self.report.fields(c, "client", &["name", "version"])?;
            self.report.need(&named, "name")?;
            self.report.need(&named, "version")?;
            self.template(c, &vars)
        });
        let policy = self.policy(fields, scope, CONNECTION);
        let (method, mut parts) = (method?, transport?);
        for (key, part) in [
            ("protocolVersion", version?),
            ("parameters", parameters?),
            ("client", client?),
        ] {
            parts.extend(part.map(|part| (key.to_owned(), part)));
        }
        parts.insert("method".to_owned(), Template::Literal(method.into()));
        let (with, mut policy) = (Template::object(parts), policy?);
        policy.start_to_close_ms = policy.start_to_close_ms.or(timeout?);
        self.sends(&at, CONNECTION, &with);
        let action = if method == TOOLS_CALL { "call" } else { "read" };
        Some(Kind::Call(Call {
            target: Target::Action {
                connection: CONNECTION.to_owned(),
                action: action.to_owned(),
            },
            with,
            policy,
        }))
    }

    /// The method must be known: what repeating the call does depends on it.
    fn method(&self, at: &At<'n>) -> Option<&'n str> {
        self.report.constant(at)?;
        let text = self.report.text(at)?;
        if !METHODS.contains(&text) {
            let cause = format!("MCP has no method `{text}` here");
            let remedy = suggest(text, METHODS.into_iter());
            return self.report.error("CD0154", at, cause, remedy);
        }
        Some(text)
    }

    /// `transport: {http: {endpoint, headers}}`.
    fn transport(&self, at: &At<'n>, vars: &[&str]) -> Option<IndexMap<String, Template>> {
        let keys = self
            .report
            .fields(at, "transport", &["http", "stdio", "options"])?;
        if let Some(at) = keys.get("stdio") {
            return self.report.error(
                "CD0154",
                &at,
                "MCP over `stdio` is not supported: a workflow runs nothing on the host",
                "use a server that speaks streamable HTTP: `transport: {http: {endpoint: URL}}`",
            );
        }
        if let Some(at) = keys.get("options") {
            let cause = "there are no options of a transport";
            return self.report.error("CD0154", &at, cause, "remove them");
        }
        let http = self.report.need(&keys, "http")?;
        let fields = self
            .report
            .fields(&http, "http", &["endpoint", "headers"])?;
        let endpoint = self
            .report
            .need(&fields, "endpoint")
            .and_then(|e| self.endpoint(&e, vars));
        let headers = optional(fields.get("headers"), |h| self.arguments(h, vars));
        let mut parts = IndexMap::from([("endpoint".to_owned(), endpoint?)]);
        parts.extend(headers?.map(|headers| ("headers".to_owned(), headers)));
        Some(parts)
    }
}
