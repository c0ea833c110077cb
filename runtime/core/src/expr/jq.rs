//! Compiling and running jq.

use std::panic::{AssertUnwindSafe, catch_unwind};

use jaq_core::load::lex::{Lexer, Tok, Token};
use jaq_core::load::{Arena, File, Loader, Parser, span};
use jaq_core::{Compiler, Ctx, Filter, compile::Undefined};
use jaq_json::Val;
use serde_json::Value;

use super::convert::{DEPTH_MAX, Mismatch, NODES_MAX, to_jq, to_json};
use super::meter;
use super::prelude::{
    self, Data, Jq, Meter, STOPPED_DEPTH, STOPPED_SIZE, STOPPED_WORK, why_missing,
};
use super::term::{Survey, Term, as_lookup};
use super::{Error, Plan, SOURCE_BYTES_MAX, Vars, brief};

/// Brackets inside brackets.
const BRACKETS_MAX: usize = 48;
/// Words and signs that the parser follows one level down: `if`, `try`, `-`, …
const PREFIXES_MAX: usize = 128;

/// A compiled program and the variables that it reads, in the order in which it takes them.
pub(super) struct Program {
    filter: Filter<Jq>,
    vars: Vec<String>,
}

/// Compiles an expression with these names (without `$`) in scope.
pub(super) fn compile(source: &str, vars: &[&str]) -> Result<Plan, Error> {
    let term = parse(source)?;
    let survey = Survey::of(&term);
    if let Some(reason) = survey.refused {
        return Err(Error::Syntax {
            expression: brief(source),
            reason,
        });
    }
    let mut used = Vec::new();
    for read in survey.reads.difference(&survey.binds) {
        let name = read.trim_start_matches('$');
        if !vars.contains(&name) {
            return Err(unknown_variable(source, read, vars));
        }
        used.push(*read);
    }
    // A name that is both bound and in scope is passed as well: which one is read where is the
    // compiler's business.
    let both = survey.reads.intersection(&survey.binds);
    used.extend(both.filter(|r| vars.contains(&r.trim_start_matches('$'))));
    if let Some((root, keys)) = as_lookup(&term) {
        return Ok(Plan::Lookup { root, keys });
    }
    let filter = build(source, term, &survey.calls, &used)?;
    let vars = used
        .iter()
        .map(|v| v.trim_start_matches('$').to_owned())
        .collect();
    Ok(Plan::Run(Box::new(Program { filter, vars })))
}

fn unknown_variable(source: &str, name: &str, vars: &[&str]) -> Error {
    let reason = match why_missing(name) {
        Some(reason) => reason.to_owned(),
        None if vars.is_empty() => "there are no variables here".to_owned(),
        None => {
            let known: Vec<_> = vars.iter().map(|v| format!("${v}")).collect();
            format!(
                "there is no such variable here; there are {}",
                known.join(", ")
            )
        }
    };
    let what = format!("the variable `{name}`");
    Error::Unknown {
        expression: brief(source),
        what,
        reason,
    }
}

fn parse(source: &str) -> Result<Term<'_>, Error> {
    let refuse = |reason: String| Error::Syntax {
        expression: brief(source),
        reason,
    };
    if source.is_empty() {
        return Err(refuse("it is empty".into()));
    }
    if source.len() > SOURCE_BYTES_MAX {
        return Err(refuse(format!(
            "it is longer than {SOURCE_BYTES_MAX} bytes"
        )));
    }
    if bracket_depth(source) > BRACKETS_MAX {
        return Err(refuse(format!(
            "it has more than {BRACKETS_MAX} brackets inside each other"
        )));
    }
    let tokens = Lexer::new(source).lex().map_err(|errors| {
        refuse(errors.first().map_or_else(String::new, |(expected, rest)| {
            format!("expected {} at {}", expected.as_str(), place(source, rest))
        }))
    })?;
    if prefixes(&tokens) > PREFIXES_MAX {
        return Err(refuse("it has too many nested constructs".into()));
    }
    Parser::new(&tokens).parse(Parser::term).map_err(|errors| {
        refuse(
            errors
                .first()
                .map_or_else(String::new, |(expected, found)| {
                    let place = found.map_or_else(|| "the end".into(), |t| place(source, t.0));
                    format!("expected {} at {place}", expected.as_str())
                }),
        )
    })
}

/// Where the rest of a source begins, for a person.
fn place(source: &str, rest: &str) -> String {
    let at = span(source, rest).start;
    if at >= source.len() {
        return "the end".into();
    }
    let shown: String = source
        .get(at..)
        .unwrap_or_default()
        .chars()
        .take(16)
        .collect();
    format!(
        "`{shown}` (character {})",
        source.get(..at).map_or(0, |s| s.chars().count()) + 1
    )
}

/// An upper bound of how deep brackets are nested; those in strings count too.
fn bracket_depth(source: &str) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0);
    for c in source.chars() {
        match c {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    deepest
}

fn prefixes(tokens: &[Token<&str>]) -> usize {
    const WORDS: [&str; 8] = ["if", "try", "reduce", "foreach", "label", "def", "as", "-"];
    tokens
        .iter()
        .map(|Token(text, kind)| match kind {
            Tok::Block(inner) => prefixes(inner),
            _ => usize::from(WORDS.contains(text)),
        })
        .sum()
}

fn build(
    source: &str,
    term: Term<'_>,
    calls: &std::collections::BTreeSet<&str>,
    vars: &[&str],
) -> Result<Filter<Jq>, Error> {
    const MAIN: &str = "cofferdam_main";
    let (mut defs, funs) = prelude::needed(calls);
    // The parsed term goes in as the last definition of the library, its variables as arguments.
    let args = vars.to_vec();
    defs.push(jaq_core::load::parse::Def {
        name: MAIN,
        args,
        body: meter::of_workflow(term),
    });
    let call = if vars.is_empty() {
        MAIN.to_owned()
    } else {
        format!("{MAIN}({})", vars.join("; "))
    };
    let arena = Arena::default();
    let file = File {
        code: call.as_str(),
        path: (),
    };
    let modules = Loader::new(defs)
        .load(&arena, file)
        .map_err(|_| Error::Syntax {
            expression: brief(source),
            reason: "it cannot be compiled".into(),
        })?;
    Compiler::default()
        .with_funs(funs)
        .with_global_vars(vars.iter().copied())
        .compile(modules)
        .map_err(|errors| undefined(source, errors.into_iter().flat_map(|(_, e)| e).next()))
}

fn undefined(source: &str, first: Option<(&str, Undefined)>) -> Error {
    let expression = brief(source);
    let Some((name, kind)) = first else {
        return Error::Syntax {
            expression,
            reason: "it cannot be compiled".into(),
        };
    };
    let what = match kind {
        Undefined::Filter(0) => format!("the function `{name}`"),
        Undefined::Filter(arity) => format!("the function `{name}` with {arity} arguments"),
        other => format!("the {} `{name}`", other.as_str()),
    };
    let reason = why_missing(name)
        .unwrap_or("there is none with that name")
        .to_owned();
    Error::Unknown {
        expression,
        what,
        reason,
    }
}

impl Program {
    /// The first output, or `null`. A panic in a library of jq is an error of the expression: what
    /// a service answered must not take a run down. Nothing outlives the evaluation, so that there
    /// is no state which a panic could leave half done.
    pub(super) fn run(&self, source: &str, input: &Value, vars: &Vars<'_>) -> Result<Value, Error> {
        let first = || self.first(source, input, vars);
        catch_unwind(AssertUnwindSafe(first)).unwrap_or_else(|_| {
            Err(Error::Failed {
                expression: brief(source),
                reason: "a function of jq cannot work on this value".into(),
            })
        })
    }

    fn first(&self, source: &str, input: &Value, vars: &Vars<'_>) -> Result<Value, Error> {
        let refuse = |m: Mismatch| mismatch(source, m);
        let values = self.vars.iter().map(|name| to_jq(vars.get(name)));
        let values = values.collect::<Result<Vec<Val>, _>>().map_err(refuse)?;
        let input = to_jq(input).map_err(refuse)?;
        let meter = Meter::new();
        let data = Data {
            lut: &self.filter.lut,
            meter: &meter,
        };
        let ctx = Ctx::<Jq>::new(data, jaq_core::Vars::new(values));
        let Some(first) = self.filter.id.run((ctx, input)).next() else {
            return Ok(Value::Null);
        };
        match first {
            Ok(value) => to_json(&value).map_err(refuse),
            Err(exception) => Err(exception.get_err().map_or_else(
                |other| stopped(source, other.get_halt().unwrap_or_default()),
                |e| Error::Failed {
                    expression: brief(source),
                    reason: brief(&failure_text(e)),
                },
            )),
        }
    }
}

/// What an error of jq says. A value in it may be deep or large, so that it is never printed
/// before it was weighed.
fn failure_text(error: jaq_core::Error<Val>) -> String {
    match to_json(&error.into_val()) {
        Ok(Value::String(text)) => text,
        Ok(value) => value.to_string(),
        Err(_) => "it raised an error that is too large to show".into(),
    }
}

fn mismatch(source: &str, mismatch: Mismatch) -> Error {
    let expression = brief(source);
    match mismatch {
        Mismatch::Deep => stopped(source, STOPPED_DEPTH),
        Mismatch::Large => stopped(source, STOPPED_SIZE),
        Mismatch::NotJson(reason) => Error::NotJson { expression, reason },
    }
}

fn stopped(source: &str, code: i32) -> Error {
    let reason = match code {
        STOPPED_WORK => {
            "it takes too much work; work on less data, or loop with a `for` task".into()
        }
        STOPPED_SIZE => format!("a value has more than {NODES_MAX} parts"),
        STOPPED_DEPTH => format!("a value is nested deeper than {DEPTH_MAX}"),
        other => format!("it stopped by itself with {other}"),
    };
    Error::TooMuch {
        expression: brief(source),
        reason,
    }
}
