//! Putting meters into parsed jq: every place where work or a value can grow calls one.

use jaq_core::load::lex::StrPart;
use jaq_core::load::parse::{BinaryOp, Def, Term as JqTerm};
use jaq_core::ops::Math;
use jaq_core::path::Part;

use super::term::{LOOPS, Term};

/// Counts a step.
pub(super) const STEP: &str = "cofferdam_step";
/// Counts a step and weighs `.`.
pub(super) const TICK: &str = "cofferdam_tick";
/// Multiplication that refuses results that are too large.
pub(super) const MULTIPLY: &str = "cofferdam_multiply";

/// Functions that run through an argument without keeping what it yields.
const CONSUMERS: [&str; 2] = ["last", "skip"];

/// An expression of a workflow, metered. What it accumulates is weighed in each round.
pub(super) fn of_workflow(term: Term<'_>) -> Term<'_> {
    Meters { of_loops: TICK }.term(term)
}

/// A definition of the library, metered. Those that loop by themselves are weighed, since their
/// caller says how the value grows from one round to the next; the others count steps.
pub(super) fn of_library(def: Def<&str>) -> Def<&str> {
    let of_loops = if LOOPS.contains(&def.name) {
        TICK
    } else {
        STEP
    };
    Meters { of_loops }.definition(def)
}

#[derive(Clone, Copy)]
struct Meters {
    of_loops: &'static str,
}

impl Meters {
    fn definition(self, def: Def<&str>) -> Def<&str> {
        let body = before(self.of_loops, self.term(def.body));
        Def {
            name: def.name,
            args: def.args,
            body,
        }
    }

    #[allow(clippy::boxed_local, reason = "the syntax tree holds boxes")]
    fn boxed(self, term: Box<Term<'_>>) -> Box<Term<'_>> {
        Box::new(self.term(*term))
    }

    fn all(self, terms: Vec<Term<'_>>) -> Vec<Term<'_>> {
        terms.into_iter().map(|t| self.term(t)).collect()
    }

    fn term(self, term: Term<'_>) -> Term<'_> {
        use JqTerm as T;
        match term {
            T::Id | T::Recurse | T::Num(_) | T::Break(_) | T::Var(_) | T::Arr(None) => term,
            T::Str(format, parts) => {
                T::Str(format, parts.into_iter().map(|p| self.part(p)).collect())
            }
            T::Arr(Some(t)) => T::Arr(Some(Box::new(after(self.term(*t), STEP)))),
            T::Neg(t) => T::Neg(self.boxed(t)),
            T::Label(x, t) => T::Label(x, self.boxed(t)),
            T::Obj(entries) => {
                let entries = entries.into_iter();
                T::Obj(
                    entries
                        .map(|(k, v)| (self.term(k), v.map(|v| self.term(v))))
                        .collect(),
                )
            }
            T::BinOp(l, op, r) => self.operation(*l, op, *r),
            T::Fold(name, over, pattern, args) => {
                let mut args = self.all(args);
                if let Some(update) = args.get_mut(1) {
                    *update = before(self.of_loops, std::mem::take(update));
                }
                // The last value is weighed too: only then is it known to be small enough.
                after(
                    T::Fold(name, self.boxed(over), pattern, args),
                    self.of_loops,
                )
            }
            T::TryCatch(t, handler) => T::TryCatch(self.boxed(t), handler.map(|h| self.boxed(h))),
            T::IfThenElse(branches, otherwise) => {
                let branches = branches.into_iter();
                T::IfThenElse(
                    branches
                        .map(|(c, t)| (self.term(c), self.term(t)))
                        .collect(),
                    otherwise.map(|o| self.boxed(o)),
                )
            }
            T::Def(defs, t) => T::Def(
                defs.into_iter().map(|d| self.definition(d)).collect(),
                self.boxed(t),
            ),
            T::Call(name, args) if CONSUMERS.contains(&name) => T::Call(
                name,
                self.all(args).into_iter().map(|a| after(a, STEP)).collect(),
            ),
            T::Call(name, args) => T::Call(name, self.all(args)),
            T::Path(t, mut path) => {
                for (part, _) in &mut path.0 {
                    *part = match std::mem::take(part) {
                        Part::Index(index) => Part::Index(self.term(index)),
                        Part::Range(from, to) => {
                            Part::Range(from.map(|t| self.term(t)), to.map(|t| self.term(t)))
                        }
                    };
                }
                T::Path(self.boxed(t), path)
            }
        }
    }

    fn operation<'s>(self, l: Term<'s>, op: BinaryOp<&'s str>, r: Term<'s>) -> Term<'s> {
        let (l, r) = (self.term(l), self.term(r));
        match op {
            BinaryOp::Math(Math::Mul) => JqTerm::Call(MULTIPLY, vec![l, r]),
            // Each `as $x` may multiply what follows it.
            BinaryOp::Pipe(Some(_)) => JqTerm::BinOp(l.into(), op, before(STEP, r).into()),
            _ => JqTerm::BinOp(l.into(), op, r.into()),
        }
    }

    fn part<'s>(self, part: StrPart<&'s str, Term<'s>>) -> StrPart<&'s str, Term<'s>> {
        match part {
            StrPart::Term(t) => StrPart::Term(self.term(t)),
            other => other,
        }
    }
}

fn before<'s>(meter: &'static str, term: Term<'s>) -> Term<'s> {
    let call = JqTerm::Call(meter, vec![]);
    JqTerm::BinOp(Box::new(call), BinaryOp::Pipe(None), Box::new(term))
}

fn after<'s>(term: Term<'s>, meter: &'static str) -> Term<'s> {
    let call = JqTerm::Call(meter, vec![]);
    JqTerm::BinOp(Box::new(term), BinaryOp::Pipe(None), Box::new(call))
}
