//! The functions that expressions may call.
//!
//! jaq's own library, less what is not deterministic, with a meter in each definition. Three
//! functions are replaced: `range` counts what it yields, `getpath` bounds its path, `fromjson`
//! parses without recursing as deep as a hostile text asks.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use jaq_core::box_iter::box_once;
use jaq_core::load::parse::Def;
use jaq_core::native::{Fun, bome, v};
use jaq_core::{DataT, Error, Exn, Lut, Native, ValXs};
use jaq_json::Val;

use super::convert::{DEPTH_MAX, Mismatch, NODES_MAX, to_jq, weigh};
use super::meter::{MULTIPLY, STEP, TICK, of_library};
use super::term::Survey;

/// Steps of loops and calls, plus what it takes to weigh what they make: well under a second.
/// Tests are not optimised and stop sooner.
const WORK_MAX: u64 = if cfg!(test) { 200_000 } else { 2_000_000 };
/// Bytes in a text made by multiplication.
const TEXT_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Why an evaluation was stopped. Carried as an exit code, which `try` does not catch.
pub(super) const STOPPED_WORK: i32 = 1;
pub(super) const STOPPED_SIZE: i32 = 2;
pub(super) const STOPPED_DEPTH: i32 = 3;

/// What evaluations work on.
#[derive(Debug)]
pub(super) struct Jq;

impl DataT for Jq {
    type V<'a> = Val;
    type Data<'a> = Data<'a>;
}

/// What every function can reach while an expression runs.
#[derive(Clone, Copy)]
pub(super) struct Data<'a> {
    pub(super) lut: &'a Lut<Jq>,
    pub(super) meter: &'a Meter,
}

impl<'a> jaq_core::data::HasLut<'a, Jq> for Data<'a> {
    fn lut(&self) -> &'a Lut<Jq> {
        self.lut
    }
}

/// How much one evaluation may still do.
#[derive(Debug)]
pub(super) struct Meter {
    left: Cell<u64>,
    unweighed: Cell<u64>,
    gap: Cell<u64>,
}

impl Meter {
    /// A full meter.
    pub(super) fn new() -> Self {
        Self {
            left: Cell::new(WORK_MAX),
            unweighed: Cell::new(0),
            gap: Cell::new(0),
        }
    }

    fn spend(&self, units: u64) -> Result<(), i32> {
        let left = self.left.get().checked_sub(units).ok_or(STOPPED_WORK)?;
        self.left.set(left);
        Ok(())
    }

    /// Counts one step, and weighs the value in hand: each time while it is small, each fourth
    /// time when it is large, so that a loop that grows a list does not become quadratic sooner
    /// than it must.
    fn tick(&self, value: &Val) -> Result<(), i32> {
        const GAP_MAX: u64 = 4;
        const SMALL: usize = 1_024;
        const NODES_PER_STEP: u64 = 128;
        self.spend(1)?;
        if matches!(value, Val::Null | Val::Bool(_) | Val::Num(_)) {
            return Ok(());
        }
        let unweighed = self.unweighed.get() + 1;
        self.unweighed.set(unweighed);
        if unweighed < self.gap.get() {
            return Ok(());
        }
        self.unweighed.set(0);
        let (nodes, depth) = weigh(value);
        if depth > DEPTH_MAX {
            return Err(STOPPED_DEPTH);
        }
        if nodes > NODES_MAX {
            return Err(STOPPED_SIZE);
        }
        self.gap.set(if nodes < SMALL || depth > DEPTH_MAX / 8 {
            0
        } else {
            GAP_MAX
        });
        self.spend(nodes as u64 / NODES_PER_STEP)
    }
}

/// Definitions of ours that come before or instead of jaq's. Those of time are bounded to the
/// years that can be written, from -9999 to 9999: jaq's own arithmetic overflows beyond them.
const OWN: &str = r#"
    def range($from; $to; $by): cofferdam_range($from; $to; $by) | cofferdam_step;
    def cofferdam_instant:
      if type == "number" and (. >= -377705116800 and . <= 253402300799 | not)
      then error("the time is not within the years -9999 to 9999")
      elif type == "array" and (.[1]? | type == "number" and (. < 0 or . > 11))
      then error("a month is a number from 0 to 11") else . end;
    def gmtime: cofferdam_instant | cofferdam_gmtime;
    def mktime: cofferdam_instant | cofferdam_mktime;
    def strftime($format): cofferdam_instant | cofferdam_strftime($format);
    def getpath($path):
      if ($path | length) > 128 then error("the path is too long")
      else reduce $path[] as $p (.; .[$p]) end;
"#;

/// Functions of jaq that are not here, and why.
pub(super) fn why_missing(name: &str) -> Option<&'static str> {
    Some(match name {
        "now" | "localtime" | "strflocaltime" | "mktime_local" | "date" => {
            "an expression cannot read the clock or the local time zone; use \
             $workflow.startedAt or $task.startedAt"
        }
        "env" | "$ENV" => "an expression cannot read the environment; use a connection's config",
        "input" | "inputs" | "input_filename" | "input_line_number" => {
            "an expression has one input, `.`"
        }
        "halt" | "halt_error" => {
            "an expression cannot stop the engine; use `error` or a raise task"
        }
        "debug" | "stderr" => "an expression has no side effects",
        _ => return None,
    })
}

/// jaq's definitions and ours, metered, by name, in the order in which they are defined.
static LIBRARY: LazyLock<Vec<Def<&'static str>>> = LazyLock::new(|| {
    let own = jaq_core::load::parse(OWN, |p| p.defs()).unwrap_or_default();
    let theirs = jaq_core::defs()
        .chain(jaq_std::defs())
        .chain(jaq_json::defs());
    let mut library = Vec::new();
    for def in theirs {
        let replaced = own.iter().find(|d| same(d, &def)).cloned();
        if replaced.is_some() || why_missing(def.name).is_none() {
            library.push(of_library(replaced.unwrap_or(def)));
        }
    }
    // What is left is native in jaq. Its own definitions call `range/3`, which goes first; ours of
    // time call its definitions, and go last.
    let (range, time): (Vec<_>, Vec<_>) = own
        .into_iter()
        .filter(|d| !library.iter().any(|l| same(l, d)))
        .partition(|d| d.name == "range");
    library.splice(0..0, range.into_iter().map(of_library));
    library.extend(time.into_iter().map(of_library));
    library
});

/// Which functions each definition calls, by name.
static CALLS: LazyLock<BTreeMap<&'static str, BTreeSet<&'static str>>> = LazyLock::new(|| {
    let mut calls: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
    for def in LIBRARY.iter() {
        calls
            .entry(def.name)
            .or_default()
            .extend(Survey::of_library(def).calls);
    }
    calls
});

fn same(a: &Def<&str>, b: &Def<&str>) -> bool {
    a.name == b.name && a.args.len() == b.args.len()
}

/// The definitions and native functions that these calls need, and no others: a program holds
/// its own copy of each.
pub(super) fn needed(calls: &BTreeSet<&str>) -> (Vec<Def<&'static str>>, Vec<Fun<Jq>>) {
    let mut wanted: BTreeSet<&str> = calls.clone();
    let mut queue: Vec<&str> = calls.iter().copied().collect();
    while let Some(name) = queue.pop() {
        for &callee in CALLS.get(name).into_iter().flatten() {
            if wanted.insert(callee) {
                queue.push(callee);
            }
        }
    }
    // What the parser and the compiler put in by themselves.
    wanted.extend([STEP, TICK, MULTIPLY]);
    let defs = LIBRARY
        .iter()
        .filter(|d| wanted.contains(d.name))
        .cloned()
        .collect();
    let funs = natives()
        .filter(|(name, ..)| wanted.contains(name))
        .collect();
    (defs, funs)
}

fn natives() -> impl Iterator<Item = Fun<Jq>> {
    let theirs = jaq_core::funs()
        .chain(jaq_std::funs())
        .chain(jaq_json::funs());
    let kept = theirs.filter_map(|(name, args, run)| match name {
        "range" => Some(("cofferdam_range", args, run)),
        "gmtime" => Some(("cofferdam_gmtime", args, run)),
        "mktime" => Some(("cofferdam_mktime", args, run)),
        "strftime" => Some(("cofferdam_strftime", args, run)),
        "fromjson" => None,
        _ if why_missing(name).is_some() => None,
        _ => Some((name, args, run)),
    });
    kept.chain(own_natives())
}

fn stop<'a>(code: i32) -> Exn<'a, Val> {
    Exn::halt(code)
}

fn own_natives() -> [Fun<Jq>; 4] {
    let tick = Native::<Jq>::new(|cv| {
        let spent = cv.0.data().meter.tick(&cv.1).map_err(stop);
        box_once(spent.map(|()| cv.1))
    });
    let tick = tick.with_paths(|cv| {
        let spent = cv.0.data().meter.tick(&cv.1.0).map_err(stop);
        box_once(spent.map(|()| cv.1))
    });
    let tick = tick.with_update(|cv, f| match cv.0.data().meter.tick(&cv.1) {
        Ok(()) => f(cv.1),
        Err(code) => box_once(Err(stop(code))),
    });
    let step = Native::<Jq>::new(|cv| {
        let spent = cv.0.data().meter.spend(1).map_err(stop);
        box_once(spent.map(|()| cv.1))
    });
    let step = step.with_paths(|cv| {
        let spent = cv.0.data().meter.spend(1).map_err(stop);
        box_once(spent.map(|()| cv.1))
    });
    let step = step.with_update(|cv, f| match cv.0.data().meter.spend(1) {
        Ok(()) => f(cv.1),
        Err(code) => box_once(Err(stop(code))),
    });
    [
        (STEP, v(0), step),
        (TICK, v(0), tick),
        (
            MULTIPLY,
            v(2),
            Native::<Jq>::new(|mut cv| {
                let right = cv.0.pop_var();
                let left = cv.0.pop_var();
                multiply(left, right)
            }),
        ),
        (
            "fromjson",
            v(0),
            Native::<Jq>::new(|cv| bome(from_json(&cv.1))),
        ),
    ]
}

fn multiply<'a>(left: Val, right: Val) -> ValXs<'a, Val> {
    let (text, times) = match (&left, &right) {
        (Val::TStr(s) | Val::BStr(s), Val::Num(n)) | (Val::Num(n), Val::TStr(s) | Val::BStr(s)) => {
            (s.len(), n.as_isize().unwrap_or(isize::MAX))
        }
        _ => return bome(left * right),
    };
    let bytes = text.saturating_mul(usize::try_from(times).unwrap_or(0));
    if bytes > TEXT_BYTES_MAX {
        return box_once(Err(stop(STOPPED_SIZE)));
    }
    bome(left * right)
}

fn from_json(text: &Val) -> Result<Val, Error<Val>> {
    let Val::TStr(bytes) = text else {
        return Err(Error::typ(text.clone(), "string"));
    };
    let value = serde_json::from_slice(bytes)
        .map_err(|e| Error::str(format_args!("the text is not JSON: {e}")))?;
    to_jq(&value).map_err(|e| match e {
        Mismatch::Deep | Mismatch::Large => Error::str("the JSON text is too deep or too large"),
        Mismatch::NotJson(what) => Error::str(what),
    })
}
