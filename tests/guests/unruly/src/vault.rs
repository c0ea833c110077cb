//! What a connector can try with secrets besides putting one into a header.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cofferdam_sdk::prelude::*;
use cofferdam_sdk::secrets::Algorithm;

use crate::Answer;

/// What to sign.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SignUse {
    /// The secret's name.
    pub name: String,
    /// `hmac-sha256`, `hmac-sha1` or `hmac-sha512`.
    pub algorithm: String,
    /// Bytes as hexadecimal digits.
    pub data: String,
}

/// A signature.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Signed {
    /// Bytes as hexadecimal digits.
    pub signature: String,
}

/// A request that holds placeholders: `{NAME}` stands for that of the secret of this name.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SecretRequest {
    /// The address.
    pub url: String,
    /// Headers.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// User and password for `Basic` credentials.
    #[serde(default)]
    pub basic: Option<(String, String)>,
    /// A body.
    #[serde(default)]
    pub body: Option<String>,
    /// What to do with the answer.
    #[serde(default)]
    pub then: Then,
}

/// What to do with an answer that may hold a secret.
#[derive(Debug, Clone, Copy, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Then {
    /// Returns it.
    #[default]
    Return,
    /// Fails with it as the message, the code and the details.
    Fail,
    /// Panics with it.
    Panic,
    /// Traps after it was printed and logged.
    Trap,
    /// Keeps it in the connector's own store.
    Keep,
}

pub(crate) fn sign(input: &SignUse) -> Result<Signed, Failure> {
    let algorithm = match input.algorithm.as_str() {
        "hmac-sha1" => Algorithm::HmacSha1,
        "hmac-sha512" => Algorithm::HmacSha512,
        _ => Algorithm::HmacSha256,
    };
    let data: Vec<u8> = (0..input.data.len() / 2)
        .filter_map(|at| u8::from_str_radix(&input.data[at * 2..at * 2 + 2], 16).ok())
        .collect();
    let signature = secrets::sign(&input.name, algorithm, &data)?;
    let mut digits = String::new();
    for byte in signature {
        // Writing to a string cannot fail.
        let _ = write!(digits, "{byte:02x}");
    }
    Ok(Signed { signature: digits })
}

pub(crate) fn send(input: SecretRequest) -> Result<Answer, Failure> {
    let body = filled(&input.body.unwrap_or_default())?;
    let mut request = http::Request::post(filled(&input.url)?).body(body);
    for (name, value) in input.headers {
        request = request.header(name, filled(&value)?);
    }
    if let Some((user, password)) = input.basic {
        let credentials = STANDARD.encode(format!("{}:{}", filled(&user)?, filled(&password)?));
        request = request.header("authorization", format!("Basic {credentials}"));
    }
    let response = request.send()?;
    let answer = Answer {
        status: response.status(),
        body: response.text(),
    };
    let told = format!("{answer:?}");
    match input.then {
        Then::Return => return Ok(answer),
        Then::Fail => {
            let details = json!({ "answer": told });
            let failure = Failure::new(Class::Unavailable, told.clone(), told);
            return Err(failure.details(details));
        }
        Then::Panic => panic!("{told}"),
        Then::Trap => {
            println!("{told}");
            eprintln!("{told}");
            cofferdam_sdk::info!("{told}", answer = told);
            #[cfg(target_arch = "wasm32")]
            core::arch::wasm32::unreachable();
        }
        Then::Keep => kv::set("answer", told.as_bytes())?,
    }
    Ok(answer)
}

/// With each `{NAME}` replaced by the placeholder of that secret.
fn filled(text: &str) -> Result<String, Failure> {
    let mut filled = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('{') {
        let Some((name, after)) = after.split_once('}') else {
            break;
        };
        filled.push_str(before);
        filled.push_str(&secrets::placeholder(name)?);
        rest = after;
    }
    filled.push_str(rest);
    Ok(filled)
}
