//! Looking at and rewriting parsed jq.

use std::collections::BTreeSet;

use jaq_core::load::lex::StrPart;
use jaq_core::load::parse::{BinaryOp, Def, Pattern, Term as JqTerm};
use jaq_core::ops::Math;
use jaq_core::path::Part;

/// A parsed term.
pub(super) type Term<'s> = JqTerm<&'s str>;

/// No term is nested deeper than this.
const NESTING_MAX: usize = 192;

/// Functions that loop as long as they like. Where jq follows a path in order to change what is
/// there, each round takes a piece of the stack.
pub(super) const LOOPS: [&str; 4] = ["until", "while", "repeat", "recurse"];
/// Functions whose argument is followed as a path.
const PATH_TAKERS: [&str; 5] = ["del", "path", "paths", "pick", "path_value"];

/// What a term needs, and why it is refused if it is.
#[derive(Debug, Default)]
pub(super) struct Survey<'s> {
    /// Functions that it calls.
    pub calls: BTreeSet<&'s str>,
    /// Variables that it reads, with `$`.
    pub reads: BTreeSet<&'s str>,
    /// Variables that it binds, with `$`.
    pub binds: BTreeSet<&'s str>,
    /// The first thing in it that is not allowed.
    pub refused: Option<String>,
}

impl<'s> Survey<'s> {
    /// Surveys a term written in a workflow.
    pub(super) fn of(term: &Term<'s>) -> Self {
        let mut survey = Self::default();
        survey.term(term, 0, false);
        survey
    }

    /// Surveys a definition of the library.
    pub(super) fn of_library(def: &Def<&'s str>) -> Self {
        let mut survey = Self::default();
        survey.term(&def.body, 0, false);
        survey
    }

    fn refuse(&mut self, why: &str) {
        if self.refused.is_none() {
            self.refused = Some(why.to_owned());
        }
    }

    /// `path` says whether the term is followed as a path to change something.
    fn term(&mut self, term: &Term<'s>, depth: usize, path: bool) {
        use JqTerm as T;
        if depth > NESTING_MAX {
            return self.refuse("it is nested too deeply");
        }
        let deeper = depth + 1;
        match term {
            T::Id | T::Recurse | T::Num(_) | T::Break(_) | T::Arr(None) => {}
            T::Str(format, parts) => self.string(*format, parts, deeper, path),
            T::Arr(Some(inner)) | T::Neg(inner) | T::Label(_, inner) => {
                self.term(inner, deeper, path);
            }
            T::Obj(entries) => {
                for (key, value) in entries {
                    self.term(key, deeper, path);
                    self.all(value, deeper, path);
                }
            }
            T::BinOp(left, op, right) => self.operation(left, op, right, deeper, path),
            T::Fold(_, over, pattern, args) => {
                if path {
                    self.refuse("`reduce` and `foreach` cannot stand where something is changed");
                }
                self.term(over, deeper, path);
                self.pattern(pattern, deeper, path);
                self.all(args, deeper, path);
            }
            T::TryCatch(inner, handler) => {
                self.term(inner, deeper, path);
                self.all(handler.as_deref(), deeper, path);
            }
            T::IfThenElse(branches, otherwise) => {
                for (condition, then) in branches {
                    self.term(condition, deeper, path);
                    self.term(then, deeper, path);
                }
                self.all(otherwise.as_deref(), deeper, path);
            }
            T::Def(defs, inner) => {
                self.refuse("functions cannot be defined (`def`) in a workflow expression");
                self.all(defs.iter().map(|d| &d.body), deeper, path);
                self.term(inner, deeper, path);
            }
            T::Call(name, args) => {
                if path && LOOPS.contains(name) {
                    self.refuse(&format!("`{name}` cannot stand where something is changed"));
                }
                self.calls.insert(name);
                let path = path || PATH_TAKERS.contains(name);
                self.all(args, deeper, path);
            }
            T::Var(name) => {
                self.reads.insert(name);
            }
            T::Path(inner, parts) => {
                self.term(inner, deeper, path);
                for (part, _) in &parts.0 {
                    match part {
                        Part::Index(index) => self.term(index, deeper, path),
                        Part::Range(from, to) => {
                            self.all(from.iter().chain(to), deeper, path);
                        }
                    }
                }
            }
        }
    }

    fn all<'t>(&mut self, terms: impl IntoIterator<Item = &'t Term<'s>>, depth: usize, path: bool)
    where
        's: 't,
    {
        for term in terms {
            self.term(term, depth, path);
        }
    }

    fn string(
        &mut self,
        format: Option<&'s str>,
        parts: &[StrPart<&'s str, Term<'s>>],
        depth: usize,
        path: bool,
    ) {
        self.calls.extend(format);
        for part in parts {
            if let StrPart::Term(term) = part {
                self.term(term, depth, path);
            }
        }
    }

    fn operation(
        &mut self,
        left: &Term<'s>,
        op: &BinaryOp<&'s str>,
        right: &Term<'s>,
        depth: usize,
        path: bool,
    ) {
        let changes = matches!(
            op,
            BinaryOp::Assign | BinaryOp::Update | BinaryOp::UpdateMath(_) | BinaryOp::UpdateAlt
        );
        if let BinaryOp::UpdateMath(Math::Mul) = op {
            self.refuse("`*=` is not supported; write `.a = .a * 2`");
        }
        if let BinaryOp::Pipe(Some(pattern)) = op {
            self.pattern(pattern, depth, path);
        }
        self.term(left, depth, path || changes);
        self.term(right, depth, path);
    }

    fn pattern(&mut self, pattern: &Pattern<&'s str>, depth: usize, path: bool) {
        if depth > NESTING_MAX {
            return self.refuse("it is nested too deeply");
        }
        match pattern {
            Pattern::Var(name) => {
                self.binds.insert(name);
            }
            Pattern::Arr(items) => {
                for item in items {
                    self.pattern(item, depth + 1, path);
                }
            }
            Pattern::Obj(entries) => {
                for (key, value) in entries {
                    self.term(key, depth + 1, path);
                    self.pattern(value, depth + 1, path);
                }
            }
        }
    }
}

/// `.a.b` or `$x.a.b` as a root and keys, if that is all that the term is.
pub(super) fn as_lookup(term: &Term<'_>) -> Option<(Option<String>, Vec<String>)> {
    use jaq_core::path::Opt;
    let root = |t: &Term<'_>| match t {
        JqTerm::Id => Some(None),
        JqTerm::Var(name) => Some(Some(name.trim_start_matches('$').to_owned())),
        _ => None,
    };
    let JqTerm::Path(inner, path) = term else {
        return root(term).map(|r| (r, Vec::new()));
    };
    let mut keys = Vec::new();
    for part in &path.0 {
        let (Part::Index(JqTerm::Str(None, parts)), Opt::Essential) = part else {
            return None;
        };
        let [StrPart::Str(key)] = parts.as_slice() else {
            return None;
        };
        keys.push((*key).to_owned());
    }
    Some((root(inner)?, keys))
}
