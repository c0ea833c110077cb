//! The attribute macro of `cofferdam-sdk`; see its documentation.

mod expand;
mod parse;

use proc_macro::TokenStream;

/// Makes a connector of a struct and its `impl` block.
///
/// `#[connector(name = "…", description = "…")]`: the name has lower-case letters, digits and
/// hyphens; without a description the block's doc comment is taken. The version is the crate's.
/// With `export = by_hand` the component's exports are left to `cofferdam_sdk::export!`, for a
/// connector that is wrapped by another.
///
/// In the block:
/// - `#[action(effect = read | idempotent | once)]` on a method makes it an action, named like
///   the method with hyphens. It takes `&self`, then a `&Call` if it wants one, then the input
///   if it has one (a type that is `Deserialize + JsonSchema`), and returns
///   `Result<Output, Failure>` (`Serialize + JsonSchema`). The doc comment is its description,
///   the first sentence its title. Besides `effect`:
///   - `title = "…"`: another title;
///   - `compensated_by = "archive-contact"`: the action of this connector that undoes it;
///   - `lookup = find_contact`: the method `fn find_contact(&self, key: &str) ->
///     Result<Option<Output>, Failure>` that tells what came of the call with an idempotency
///     key. A connector with one exports the optional interface `recovery`;
///   - `example = r#"{"id": "1"}"#`: an input that works; may come more than once. A test in
///     the connector's crate checks that the action takes it.
/// - `fn check(&self) -> Result<Health, Failure>` must be there: a cheap probe.
/// - `fn open() -> Result<Self, Failure>` makes the struct; without one it must be
///   `Deserialize`, and its fields are read from the connection's settings of their names.
#[proc_macro_attribute]
pub fn connector(arguments: TokenStream, item: TokenStream) -> TokenStream {
    let expanded = syn::parse::<parse::Arguments>(arguments)
        .and_then(|arguments| parse::Connector::new(arguments, syn::parse(item)?))
        .map(|connector| expand::expand(&connector));
    expanded
        .unwrap_or_else(|error| error.to_compile_error())
        .into()
}
