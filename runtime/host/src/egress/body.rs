//! Secrets in the body of a request: only where a connector says so, and only in forms and JSON.
//!
//! In a body a stand-in normally stays what it is, since what is written into other systems is read
//! there again, by whoever may. Endpoints that hand out tokens (RFC 6749) take credentials in no
//! other place, so a request may say `cofferdam-secrets: body`. That header never leaves.

use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderName, HeaderValue, Request};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use wasmtime_wasi_http::WasiBody;

use super::Destination;
use crate::capabilities::secrets;
use crate::scope::Scope;

/// The header in which a connector says that secrets are to be put into the body as well.
const SECRETS: HeaderName = HeaderName::from_static("cofferdam-secrets");
/// The bodies of token requests are short.
const BODY_BYTES_MAX: usize = 64 << 10;

/// Why a request is not sent.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refused {
    #[error("the header `cofferdam-secrets` says `body` and nothing else")]
    Word,
    #[error(
        "secrets are put only into a body that is `application/x-www-form-urlencoded` or `application/json`"
    )]
    Kind,
    #[error("secrets are put only into a body of at most {BODY_BYTES_MAX} bytes")]
    Size,
    #[error("its body did not come whole")]
    Broken,
    #[error(transparent)]
    Secret(#[from] secrets::Refused),
}

/// How a secret is written into a body.
#[derive(Clone, Copy)]
enum Form {
    Urlencoded,
    Json,
}

/// Puts secrets in the place of their stand-ins in the body, if the request says so. What the
/// connection's scrubber does not look for needs no looking for either: the scrubber knows each
/// secret in these two forms.
pub(crate) async fn reveal(
    scope: &Scope,
    destination: &Destination,
    mut request: Request<WasiBody>,
) -> Result<Request<WasiBody>, Refused> {
    let Some(word) = request.headers_mut().remove(&SECRETS) else {
        return Ok(request);
    };
    if word != "body" || request.headers().contains_key(&SECRETS) {
        return Err(Refused::Word);
    }
    let form = form(request.headers().get(CONTENT_TYPE)).ok_or(Refused::Kind)?;
    let (mut parts, body) = request.into_parts();
    let text = collect(body, scope.left()).await?;
    let encode = |secret: &str| match form {
        Form::Urlencoded => url::form_urlencoded::byte_serialize(secret.as_bytes()).collect(),
        Form::Json => {
            let quoted = serde_json::Value::from(secret).to_string();
            quoted[1..quoted.len() - 1].to_owned()
        }
    };
    let text = secrets::reveal_text(scope, destination, &text, encode)?.unwrap_or(text);
    if text.len() > BODY_BYTES_MAX {
        return Err(Refused::Size);
    }
    parts
        .headers
        .insert(CONTENT_LENGTH, HeaderValue::from(text.len()));
    let body = Full::new(Bytes::from(text)).map_err(|never| match never {});
    Ok(Request::from_parts(parts, body.boxed_unsync()))
}

fn form(kind: Option<&HeaderValue>) -> Option<Form> {
    let kind = kind?.to_str().ok()?.split(';').next()?.trim();
    if kind.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
        Some(Form::Urlencoded)
    } else if kind.eq_ignore_ascii_case("application/json") {
        Some(Form::Json)
    } else {
        None
    }
}

/// The whole body as text.
async fn collect(body: WasiBody, limit: Duration) -> Result<String, Refused> {
    let collected = Limited::new(body, BODY_BYTES_MAX).collect();
    let collected = tokio::time::timeout(limit, collected).await;
    let collected = collected.map_err(|_| Refused::Broken)?;
    let bytes = collected.map_err(|error| {
        if error.is::<LengthLimitError>() {
            Refused::Size
        } else {
            Refused::Broken
        }
    })?;
    String::from_utf8(bytes.to_bytes().to_vec()).map_err(|_| Refused::Kind)
}
