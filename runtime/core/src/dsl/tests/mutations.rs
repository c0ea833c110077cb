//! Damaged documents: whatever happens to a text, the compiler answers.

use proptest::prelude::*;

use super::{HEAD, sources};
use crate::dsl::compile;

const TEXT: &str = "use:\n  retries: {r: {delay: PT1S, limit: {attempt: {count: 3}}}}\ndo:\n  - a:\n      call: pay.charge\n      with: {x: '${ .x }'}\n      metadata: {cofferdam: {onOutage: park, fallback: [{value: 1}]}}\n  - b:\n      try: [{c: {call: http, with: {method: get, endpoint: 'https://x/{y}'}}}]\n      catch: {retry: r, do: [{d: {set: '$error'}}]}\n  - e:\n      for: {in: [1, 2]}\n      do: [{f: {switch: [{g: {when: .a, then: exit}}]}}]\n";

proptest! {
    #[test]
    fn no_damage_makes_the_compiler_panic(
        edits in prop::collection::vec((0..900_usize, 0..12_usize, "[-a-z0-9:{}\\[\\],'\"$&*!#|>%@` \\n\\t.]{0,6}"), 1..6),
    ) {
        let mut text: Vec<char> = format!("{HEAD}{TEXT}").chars().collect();
        for (at, cut, insert) in edits {
            let at = at.min(text.len());
            let end = (at + cut).min(text.len());
            text.splice(at..end, insert.chars());
        }
        let text: String = text.into_iter().collect();
        if let Err(errors) = compile(&sources(&text, &[])) {
            prop_assert!(!errors.0.is_empty());
            for error in errors.0 {
                prop_assert!(error.line >= 1 && error.column >= 1);
            }
        }
    }

    #[test]
    fn no_text_makes_the_compiler_panic(text in "\\PC{0,200}") {
        prop_assert!(compile(&sources(&text, &[])).is_err());
    }
}
