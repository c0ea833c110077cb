//! From what the connector is to code.

use proc_macro2::TokenStream;
use quote::{format_ident, quote};

use crate::parse::{Action, Connector};

pub(crate) fn expand(connector: &Connector) -> TokenStream {
    let block = &connector.block;
    let implementation = implementation(connector);
    let exports = exports(connector);
    let test = examples_test(connector);
    // The shape of an action is this macro's, whatever a single one would make of it.
    quote! {
        #[allow(clippy::needless_pass_by_value, clippy::unnecessary_wraps, clippy::unused_self)]
        #block
        #implementation
        #exports
        #test
    }
}

fn implementation(connector: &Connector) -> TokenStream {
    let Connector {
        name,
        description,
        actions,
        ..
    } = connector;
    let this = &connector.block.self_ty;
    let entries = actions.iter().map(descriptor_entry);
    let invocations = actions.iter().map(invocation);
    let lookups = actions.iter().filter_map(lookup);
    let inputs = actions.iter().map(|action| {
        let (name, input) = (&action.name, input_type(action));
        quote!(#name => ::cofferdam_sdk::connector::parse::<#input>(input).map(drop),)
    });
    let open = if connector.has_open {
        quote!(<#this>::open())
    } else {
        quote!(::cofferdam_sdk::config::read::<Self>())
    };
    quote! {
        impl ::cofferdam_sdk::Connector for #this {
            fn descriptor() -> ::cofferdam_sdk::Descriptor {
                let mut actions = ::cofferdam_sdk::__private::Map::new();
                #(#entries)*
                ::cofferdam_sdk::Descriptor {
                    name: #name.to_owned(),
                    version: ::core::env!("CARGO_PKG_VERSION").to_owned(),
                    description: #description.to_owned(),
                    actions,
                }
            }

            fn open() -> ::core::result::Result<Self, ::cofferdam_sdk::Failure> {
                #open
            }

            fn invoke(
                &self,
                call: &::cofferdam_sdk::Call,
            ) -> ::core::result::Result<::std::string::String, ::cofferdam_sdk::Failure> {
                match call.action.as_str() {
                    #(#invocations)*
                    other => ::core::result::Result::Err(
                        ::cofferdam_sdk::connector::no_such_action(other),
                    ),
                }
            }

            fn check(
                &self,
            ) -> ::core::result::Result<::cofferdam_sdk::Health, ::cofferdam_sdk::Failure> {
                <#this>::check(self)
            }

            fn lookup(
                &self,
                action: &str,
                #[allow(unused_variables)] key: &str,
            ) -> ::core::result::Result<
                ::core::option::Option<::std::string::String>,
                ::cofferdam_sdk::Failure,
            > {
                match action {
                    #(#lookups)*
                    other => ::core::result::Result::Err(
                        ::cofferdam_sdk::connector::no_lookup(other),
                    ),
                }
            }

            fn accepts(
                action: &str,
                input: &str,
            ) -> ::core::result::Result<(), ::cofferdam_sdk::Failure> {
                match action {
                    #(#inputs)*
                    other => ::core::result::Result::Err(
                        ::cofferdam_sdk::connector::no_such_action(other),
                    ),
                }
            }
        }
    }
}

fn input_type(action: &Action) -> TokenStream {
    action
        .input
        .as_ref()
        .map_or_else(|| quote!(::cofferdam_sdk::Empty), |input| quote!(#input))
}

fn descriptor_entry(action: &Action) -> TokenStream {
    let Action {
        name,
        title,
        description,
        effect,
        examples,
        output,
        ..
    } = action;
    let input = input_type(action);
    let lookup = action.lookup.is_some();
    let compensated_by = action.compensated_by.as_ref().map_or_else(
        || quote!(::core::option::Option::None),
        |by| quote!(::core::option::Option::Some(#by.to_owned())),
    );
    quote! {
        actions.insert(
            #name.to_owned(),
            ::cofferdam_sdk::connector::entry(&::cofferdam_sdk::Action {
                title: #title.to_owned(),
                description: #description.to_owned(),
                effect: ::cofferdam_sdk::Effect::#effect,
                input: ::cofferdam_sdk::connector::input_schema::<#input>(),
                output: ::cofferdam_sdk::connector::output_schema::<#output>(),
                compensated_by: #compensated_by,
                lookup: #lookup,
                examples: ::cofferdam_sdk::connector::examples(&[#(#examples),*]),
            }),
        );
    }
}

fn invocation(action: &Action) -> TokenStream {
    let Action { name, method, .. } = action;
    let input = input_type(action);
    let call = action.takes_call.then(|| quote!(call,));
    let argument = action.input.is_some().then(|| quote!(input));
    quote! {
        #name => {
            #[allow(unused_variables)]
            let input = ::cofferdam_sdk::connector::parse::<#input>(&call.input)?;
            ::cofferdam_sdk::connector::answer(self.#method(#call #argument))
        }
    }
}

fn lookup(action: &Action) -> Option<TokenStream> {
    let (name, lookup, output) = (&action.name, action.lookup.as_ref()?, &action.output);
    // The type is written out, so that a lookup cannot return anything but the action's output.
    Some(quote! {
        #name => ::cofferdam_sdk::connector::found::<#output>(self.#lookup(key)),
    })
}

fn exports(connector: &Connector) -> TokenStream {
    let this = &connector.block.self_ty;
    let recovers = connector
        .actions
        .iter()
        .any(|action| action.lookup.is_some());
    if connector.export_by_hand {
        quote!()
    } else if recovers {
        quote!(::cofferdam_sdk::export!(#this, with lookup);)
    } else {
        quote!(::cofferdam_sdk::export!(#this);)
    }
}

fn examples_test(connector: &Connector) -> Option<TokenStream> {
    connector
        .actions
        .iter()
        .find(|action| !action.examples.is_empty())?;
    let this = &connector.block.self_ty;
    // One file may have several connectors.
    let module = format_ident!("examples_of_{}", connector.name.value().replace('-', "_"));
    Some(quote! {
        #[cfg(all(test, not(target_arch = "wasm32")))]
        mod #module {
            use super::*;

            #[test]
            fn every_example_is_a_valid_input() {
                ::cofferdam_sdk::testing::assert_examples::<#this>();
            }
        }
    })
}
