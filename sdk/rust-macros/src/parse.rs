//! From attributes and methods to what the connector is.

use quote::ToTokens;
use syn::parse::{Parse, ParseStream};
use syn::punctuated::Punctuated;
use syn::spanned::Spanned;
use syn::{
    Attribute, Error, Expr, FnArg, GenericArgument, Ident, ImplItem, ItemImpl, Lit, LitStr, Meta,
    PathArguments, Result, ReturnType, Signature, Token, Type,
};

/// The arguments of `#[connector(…)]`.
pub(crate) struct Arguments {
    name: LitStr,
    description: Option<LitStr>,
    export_by_hand: bool,
}

impl Parse for Arguments {
    fn parse(input: ParseStream<'_>) -> Result<Self> {
        let (mut name, mut description, mut export_by_hand) = (None, None, false);
        for argument in Punctuated::<Argument, Token![,]>::parse_terminated(input)? {
            match argument.key.to_string().as_str() {
                "name" => name = Some(argument.text()?),
                "description" => description = Some(argument.text()?),
                "export" if argument.ident()? == "by_hand" => export_by_hand = true,
                _ => {
                    return Err(Error::new(
                        argument.key.span(),
                        "expected `name`, `description` or `export = by_hand`",
                    ));
                }
            }
        }
        let name = name.ok_or_else(|| input.error("a connector needs a `name = \"…\"`"))?;
        check_name(&name)?;
        Ok(Self {
            name,
            description,
            export_by_hand,
        })
    }
}

/// `key`, `key = "text"` or `key = ident`.
struct Argument {
    key: Ident,
    value: Option<Expr>,
}

impl Parse for Argument {
    fn parse(input: ParseStream<'_>) -> Result<Self> {
        let key = input.parse()?;
        let value = if input.parse::<Option<Token![=]>>()?.is_some() {
            Some(input.parse()?)
        } else {
            None
        };
        Ok(Self { key, value })
    }
}

impl Argument {
    fn text(&self) -> Result<LitStr> {
        match &self.value {
            Some(Expr::Lit(literal)) if let Lit::Str(text) = &literal.lit => Ok(text.clone()),
            _ => Err(Error::new(
                self.key.span(),
                format!("`{}` needs a text in quotes", self.key),
            )),
        }
    }

    fn ident(&self) -> Result<Ident> {
        match &self.value {
            Some(Expr::Path(path)) => path.path.require_ident().cloned(),
            _ => Err(Error::new(
                self.key.span(),
                format!("`{}` needs a name without quotes", self.key),
            )),
        }
    }
}

fn check_name(name: &LitStr) -> Result<()> {
    let text = name.value();
    let fine = (1..=64).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if fine {
        return Ok(());
    }
    Err(Error::new(
        name.span(),
        "a name is 1 to 64 lower-case letters, digits and hyphens",
    ))
}

/// A connector as its author wrote it.
pub(crate) struct Connector {
    pub(crate) name: LitStr,
    pub(crate) description: String,
    pub(crate) actions: Vec<Action>,
    pub(crate) has_open: bool,
    pub(crate) export_by_hand: bool,
    /// The block without the attributes that are this macro's own.
    pub(crate) block: ItemImpl,
}

/// One method that is an action.
pub(crate) struct Action {
    pub(crate) method: Ident,
    pub(crate) name: String,
    pub(crate) title: String,
    pub(crate) description: String,
    pub(crate) effect: Ident,
    pub(crate) compensated_by: Option<LitStr>,
    pub(crate) lookup: Option<Ident>,
    pub(crate) examples: Vec<LitStr>,
    pub(crate) takes_call: bool,
    pub(crate) input: Option<Type>,
    pub(crate) output: Type,
}

impl Connector {
    pub(crate) fn new(arguments: Arguments, mut block: ItemImpl) -> Result<Self> {
        if let Some((_, path, _)) = &block.trait_ {
            return Err(Error::new(
                path.span(),
                "`connector` belongs on an `impl` block without a trait",
            ));
        }
        let mut actions = Vec::new();
        let (mut has_open, mut has_check) = (false, false);
        for item in &mut block.items {
            let ImplItem::Fn(method) = item else { continue };
            has_open |= method.sig.ident == "open" && method.sig.receiver().is_none();
            has_check |= method.sig.ident == "check";
            if let Some(at) = method
                .attrs
                .iter()
                .position(|a| a.path().is_ident("action"))
            {
                let attribute = method.attrs.remove(at);
                actions.push(Action::new(&attribute, &method.attrs, &method.sig)?);
            }
        }
        if !has_check {
            return Err(Error::new(
                block.self_ty.span(),
                "a connector needs `fn check(&self) -> Result<Health, Failure>`",
            ));
        }
        if actions.is_empty() {
            return Err(Error::new(
                block.self_ty.span(),
                "a connector needs at least one method with `#[action(effect = …)]`",
            ));
        }
        for by in actions
            .iter()
            .filter_map(|action| action.compensated_by.as_ref())
        {
            if !actions.iter().any(|action| action.name == by.value()) {
                return Err(Error::new(
                    by.span(),
                    "this connector has no action of this name",
                ));
            }
        }
        let description = arguments
            .description
            .map_or_else(|| doc(&block.attrs), |text| text.value());
        Ok(Self {
            name: arguments.name,
            description,
            actions,
            has_open,
            export_by_hand: arguments.export_by_hand,
            block,
        })
    }
}

impl Action {
    fn new(attribute: &Attribute, attrs: &[Attribute], signature: &Signature) -> Result<Self> {
        let (takes_call, input) = inputs(signature)?;
        let method = signature.ident.clone();
        let description = doc(attrs);
        let name = method
            .to_string()
            .trim_start_matches("r#")
            .replace('_', "-");
        let mut action = Self {
            title: title(&description, &name),
            name,
            description,
            effect: Ident::new("Read", method.span()),
            compensated_by: None,
            lookup: None,
            examples: Vec::new(),
            takes_call,
            input,
            output: output(signature)?,
            method,
        };
        let arguments = match &attribute.meta {
            Meta::List(_) => {
                attribute.parse_args_with(Punctuated::<Argument, Token![,]>::parse_terminated)?
            }
            Meta::Path(_) | Meta::NameValue(_) => Punctuated::new(),
        };
        let mut has_effect = false;
        for argument in arguments {
            match argument.key.to_string().as_str() {
                "effect" => {
                    action.effect = effect(&argument.ident()?)?;
                    has_effect = true;
                }
                "title" => action.title = argument.text()?.value(),
                "compensated_by" => action.compensated_by = Some(argument.text()?),
                "lookup" => action.lookup = Some(argument.ident()?),
                "example" => action.examples.push(argument.text()?),
                _ => {
                    return Err(Error::new(
                        argument.key.span(),
                        "expected `effect`, `title`, `compensated_by`, `lookup` or `example`",
                    ));
                }
            }
        }
        if !has_effect {
            return Err(Error::new(
                attribute.span(),
                "say what repeating this action does: `effect = read`, `idempotent` or `once`",
            ));
        }
        Ok(action)
    }
}

fn effect(word: &Ident) -> Result<Ident> {
    let case = match word.to_string().as_str() {
        "read" => "Read",
        "idempotent" => "Idempotent",
        "once" => "Once",
        _ => {
            return Err(Error::new(
                word.span(),
                "expected `read`, `idempotent` or `once`",
            ));
        }
    };
    Ok(Ident::new(case, word.span()))
}

/// Whether a method takes the call, and what input it takes.
fn inputs(signature: &Signature) -> Result<(bool, Option<Type>)> {
    let wrong = "an action takes `&self`, then perhaps `&Call`, then perhaps its input";
    let mut arguments = signature.inputs.iter();
    if !matches!(arguments.next(), Some(FnArg::Receiver(_))) {
        return Err(Error::new(signature.span(), wrong));
    }
    let (mut takes_call, mut input) = (false, None);
    for argument in arguments {
        let FnArg::Typed(argument) = argument else {
            return Err(Error::new(argument.span(), wrong));
        };
        match argument.ty.as_ref() {
            Type::Reference(_) if !takes_call && input.is_none() => takes_call = true,
            Type::Reference(_) => return Err(Error::new(argument.span(), wrong)),
            owned if input.is_none() => input = Some(owned.clone()),
            _ => return Err(Error::new(argument.span(), wrong)),
        }
    }
    Ok((takes_call, input))
}

/// The `T` of `Result<T, Failure>`.
fn output(signature: &Signature) -> Result<Type> {
    if let ReturnType::Type(_, ty) = &signature.output
        && let Type::Path(path) = ty.as_ref()
        && let Some(last) = path.path.segments.last()
        && last.ident == "Result"
        && let PathArguments::AngleBracketed(arguments) = &last.arguments
        && let Some(GenericArgument::Type(output)) = arguments.args.first()
    {
        return Ok(output.clone());
    }
    Err(Error::new(
        signature.output.span(),
        "an action returns `Result<Output, Failure>`",
    ))
}

/// The text of doc comments, without the space that follows the slashes.
fn doc(attrs: &[Attribute]) -> String {
    let lines: Vec<String> = attrs
        .iter()
        .filter(|attribute| attribute.path().is_ident("doc"))
        .filter_map(|attribute| match &attribute.meta {
            Meta::NameValue(pair) => match &pair.value {
                Expr::Lit(literal) if let Lit::Str(text) = &literal.lit => Some(text.value()),
                _ => Some(pair.value.to_token_stream().to_string()),
            },
            Meta::Path(_) | Meta::List(_) => None,
        })
        .map(|line| {
            line.strip_prefix(' ')
                .unwrap_or(&line)
                .trim_end()
                .to_owned()
        })
        .collect();
    lines.join("\n").trim().to_owned()
}

/// The first sentence, or the name in words.
fn title(description: &str, name: &str) -> String {
    let paragraph = description
        .split("\n\n")
        .next()
        .unwrap_or_default()
        .replace('\n', " ");
    let sentence = paragraph
        .split(". ")
        .next()
        .unwrap_or_default()
        .trim_end_matches('.');
    if !sentence.is_empty() {
        return sentence.to_owned();
    }
    let words = name.replace('-', " ");
    let mut letters = words.chars();
    letters
        .next()
        .map(|first| first.to_uppercase().chain(letters).collect())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use syn::parse_quote;

    use super::*;

    fn refusal(block: ItemImpl) -> String {
        let arguments = syn::parse_str(r#"name = "demo""#).unwrap();
        Connector::new(arguments, block).err().unwrap().to_string()
    }

    #[test]
    fn a_title_is_the_first_sentence_or_the_name() {
        assert_eq!(title("Does it. And more.\n\nAt length.", "x"), "Does it");
        assert_eq!(title("", "get-report"), "Get report");
    }

    #[test]
    fn an_action_without_effect_is_refused() {
        let message = refusal(parse_quote! {
            impl Demo {
                #[action]
                fn go(&self) -> Result<u8, Failure> { Ok(1) }
                fn check(&self) -> Result<Health, Failure> { todo() }
            }
        });
        assert!(
            message.contains("what repeating this action does"),
            "{message}"
        );
    }

    #[test]
    fn a_compensation_that_is_not_there_is_refused() {
        let message = refusal(parse_quote! {
            impl Demo {
                #[action(effect = once, compensated_by = "undo")]
                fn go(&self) -> Result<u8, Failure> { Ok(1) }
                fn check(&self) -> Result<Health, Failure> { todo() }
            }
        });
        assert!(message.contains("no action of this name"), "{message}");
    }

    #[test]
    fn a_connector_without_check_is_refused() {
        let message = refusal(parse_quote! {
            impl Demo {
                #[action(effect = read)]
                fn go(&self) -> Result<u8, Failure> { Ok(1) }
            }
        });
        assert!(message.contains("fn check"), "{message}");
    }

    #[test]
    fn a_name_with_a_dot_is_refused() {
        assert!(syn::parse_str::<Arguments>(r#"name = "a.b""#).is_err());
        assert!(syn::parse_str::<Arguments>(r#"title = "a""#).is_err());
    }
}
