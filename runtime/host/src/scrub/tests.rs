use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::json;

use super::*;

const SECRET: &str = "s3cr3t/+ä\"val";

fn scrubber() -> Scrubber {
    Scrubber::new([SECRET].into_iter())
}

#[test]
fn every_form_of_a_secret_is_overwritten() {
    let scrubber = scrubber();
    for form in [
        SECRET.to_owned(),
        STANDARD.encode(SECRET),
        STANDARD_NO_PAD.encode(SECRET),
        URL_SAFE_NO_PAD.encode(SECRET),
        utf8_percent_encode(SECRET, NON_ALPHANUMERIC).to_string(),
        utf8_percent_encode(SECRET, NON_ALPHANUMERIC)
            .to_string()
            .to_lowercase(),
        hex::encode(SECRET),
        hex::encode_upper(SECRET),
        "s3cr3t/+ä\\\"val".to_owned(),
        "s3cr3t\\/+\\u00e4\\\"val".to_owned(),
        "s3cr3t/+ä&quot;val".to_owned(),
        "s3cr3t/+%C3%A4%22val".to_owned(),
    ] {
        let text = format!("before {form} after");
        let bytes = text.len();
        let clean = scrubber.text(text);
        assert!(!clean.contains(&form), "{clean}");
        assert_eq!(clean.len(), bytes);
        assert!(
            clean.starts_with("before *") && clean.ends_with("* after"),
            "{clean}"
        );
    }
}

#[test]
fn a_secret_inside_a_longer_text_in_base64_is_overwritten_wherever_it_begins() {
    let scrubber = scrubber();
    for before in ["", "u", "us", "use", "user:"] {
        for after in ["", "x", "xy", "xyz"] {
            let encoded = STANDARD.encode(format!("{before}{SECRET}{after}"));
            let clean = scrubber.text(encoded.clone());
            assert_eq!(clean.len(), encoded.len());
            let hidden = clean.bytes().filter(|byte| *byte == b'*').count();
            let whole = SECRET.len() * 8 / 6 - 2;
            assert!(hidden >= whole, "{before:?} {after:?}: {clean}");
        }
    }
}

#[test]
fn json_is_scrubbed_in_depth() {
    let value = json!({"a": [{SECRET: SECRET}], "n": 1});
    let text = scrubber().value(value).to_string();
    assert!(!text.contains("s3cr3t"), "{text}");
}

#[test]
fn a_text_that_holds_json_holds_json_afterwards() {
    let scrubber = Scrubber::new(["987654321", SECRET].into_iter());
    let text = json!([{"n": 987_654_321, "s": SECRET}]).to_string();
    let clean: Value = serde_json::from_str(&scrubber.json(text)).unwrap();
    assert_eq!(clean[0]["n"], "*********");
    assert!(!clean.to_string().contains("s3cr3t"), "{clean}");
}

#[test]
fn a_number_that_is_a_secret_is_overwritten() {
    let scrubber = Scrubber::new(["987654321"].into_iter());
    assert_eq!(
        scrubber.value(json!({"a": 987_654_321})),
        json!({"a": "*********"})
    );
}

#[test]
fn a_secret_that_begins_with_another_is_overwritten_whole() {
    let scrubber = Scrubber::new(["token", "token-and-more", "more-of-it"].into_iter());
    let clean = scrubber.text("<token-and-more-of-it>".to_owned());
    assert_eq!(clean, "<********************>");
}

#[test]
fn a_secret_cut_anywhere_in_a_stream_is_found() {
    let scrubber = Scrubber::new([SECRET, "s3cr3t/+"].into_iter());
    let filler = "-".repeat(400);
    let text = format!("{filler}{SECRET}yy{SECRET}{filler}");
    let whole = scrubber.text(text.clone());
    for cut in 0..text.len() {
        let mut stream = StreamScrub::default();
        let mut out = stream.push(&scrubber, &text.as_bytes()[..cut]);
        out.extend(stream.push(&scrubber, &text.as_bytes()[cut..]));
        out.extend(stream.finish(&scrubber));
        assert_eq!(out, whole.as_bytes(), "cut at {cut}");
    }
    let mut stream = StreamScrub::default();
    let mut out = Vec::new();
    for byte in text.as_bytes() {
        out.extend(stream.push(&scrubber, std::slice::from_ref(byte)));
    }
    out.extend(stream.finish(&scrubber));
    assert_eq!(out, whole.as_bytes(), "byte by byte");
}

#[test]
fn what_is_held_back_of_a_stream_tells_nothing_of_a_secret() {
    let scrubber = scrubber();
    let held = |text: &str| {
        let mut stream = StreamScrub::default();
        text.len() - stream.push(&scrubber, text.as_bytes()).len()
    };
    let filler = "-".repeat(1_000);
    let neutral = held(&format!("{filler}-----"));
    for guess in ["s----", "s3---", "s3c--", "s3cr-", "s3cr3"] {
        assert_eq!(held(&format!("{filler}{guess}")), neutral, "{guess}");
        let reversed: String = guess.chars().rev().collect();
        assert_eq!(held(&format!("{filler}{reversed}")), neutral, "{guess}");
    }
}

#[test]
fn a_secret_in_a_headers_name_is_found_though_names_are_lower_case() {
    let scrubber = Scrubber::new(["Kq-9F3b"].into_iter());
    assert!(scrubber.finds_in_lower_case(b"x-kq-9f3b"));
    assert!(!scrubber.finds(b"x-kq-9f3b"));
}

#[test]
fn text_without_secrets_is_left_alone() {
    assert_eq!(scrubber().text("s3cr3t".to_owned()), "s3cr3t");
    assert_eq!(
        Scrubber::new(["abc"].into_iter()).text("abc".to_owned()),
        "abc"
    );
}

#[test]
fn a_secret_as_large_as_a_key_file_that_repeats_itself_is_overwritten() {
    let secret = "long-".repeat(4_000);
    let scrubber = Scrubber::new([secret.as_str()].into_iter());
    let clean = scrubber.text(secret.repeat(8));
    assert!(clean.bytes().all(|byte| byte == b'*'));
    let mut stream = StreamScrub::default();
    let mut out = Vec::new();
    for piece in secret.as_bytes().chunks(100) {
        out.extend(stream.push(&scrubber, piece));
    }
    out.extend(stream.finish(&scrubber));
    assert!(out.iter().all(|byte| *byte == b'*'));
}
