//! Building and taking apart addresses.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::failure::Failure;

/// What stays as it is in a path segment (RFC 3986, `unreserved`).
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b'@')
    .remove(b':');

/// Joins a base address and path segments, so that no segment can leave its place.
///
/// Each segment is percent-encoded, `/` and `?` included; a slash at the end of the base does
/// not matter, and a path in the base is kept.
///
/// ```
/// # use cofferdam_sdk::http;
/// let url = http::url("https://api.example.com/v3/", &["contacts", "a/b c"]).unwrap();
/// assert_eq!(url, "https://api.example.com/v3/contacts/a%2Fb%20c");
/// ```
///
/// # Errors
/// Class `invalid-input` if the base is not an `http` or `https` address without query, or if
/// a segment is empty, `.` or `..`.
pub fn url(base: &str, segments: &[&str]) -> Result<String, Failure> {
    let address = Address::parse(base)?;
    if base.contains(['?', '#']) {
        return Err(Failure::invalid_input(
            "url",
            format!("the base address `{base}` must have no query and no fragment"),
        ));
    }
    let mut joined = format!(
        "{}://{}{}",
        address.scheme, address.authority, address.path_and_query
    );
    while joined.ends_with('/') {
        joined.pop();
    }
    for segment in segments {
        if matches!(*segment, "" | "." | "..") {
            return Err(Failure::invalid_input(
                "url",
                format!("`{segment}` cannot be a part of an address' path"),
            ));
        }
        joined.push('/');
        joined.extend(utf8_percent_encode(segment, SEGMENT));
    }
    Ok(joined)
}

/// An address in the parts that a request is made of.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Address<'a> {
    /// `http` or `https`.
    pub(crate) scheme: &'static str,
    /// Host and port, as written.
    pub(crate) authority: &'a str,
    /// Starts with `/`, or is empty.
    pub(crate) path_and_query: &'a str,
}

impl<'a> Address<'a> {
    /// Takes an address apart. Addresses with credentials or with characters that need
    /// encoding are refused rather than repaired: two readers might repair them differently.
    pub(crate) fn parse(url: &'a str) -> Result<Self, Failure> {
        let refuse = |why: &str| {
            let shown: String = url.chars().take(200).collect();
            Err(Failure::invalid_input(
                "url",
                format!("`{shown}` is not a usable address: {why}"),
            ))
        };
        let (scheme, rest) = match url.split_once("://") {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("https") => ("https", rest),
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => ("http", rest),
            _ => return refuse("it must start with `https://` or `http://`"),
        };
        let rest = rest.split('#').next().unwrap_or_default();
        let (authority, path_and_query) =
            rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        if authority.is_empty() {
            return refuse("it names no host");
        }
        if authority.contains('@') {
            return refuse("credentials belong into a secret, not into an address");
        }
        if url
            .bytes()
            .any(|b| !(0x21..=0x7e).contains(&b) || b"\\\"<>^`{|}".contains(&b))
        {
            return refuse("it has characters that must be percent-encoded");
        }
        Ok(Self {
            scheme,
            authority,
            path_and_query,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_in_the_base_is_kept() {
        assert_eq!(url("http://h:1/a/b//", &["c"]).unwrap(), "http://h:1/a/b/c");
        assert_eq!(url("http://h", &[]).unwrap(), "http://h");
    }

    #[test]
    fn a_segment_cannot_climb_or_cut() {
        assert_eq!(
            url("http://h", &["a/../b?c#d"]).unwrap(),
            "http://h/a%2F..%2Fb%3Fc%23d"
        );
        for segment in ["", ".", ".."] {
            assert!(url("http://h", &[segment]).is_err());
        }
    }

    #[test]
    fn an_address_is_taken_apart_once() {
        let address = Address::parse("HTTPS://h:8/p/q?x=1#f").unwrap();
        assert_eq!(
            address,
            Address {
                scheme: "https",
                authority: "h:8",
                path_and_query: "/p/q?x=1"
            }
        );
        assert_eq!(Address::parse("http://h?x").unwrap().path_and_query, "?x");
    }

    #[test]
    fn addresses_that_two_readers_may_read_differently_are_refused() {
        for bad in [
            "ftp://h",
            "h/p",
            "http://",
            "http://u:p@h/",
            "http://h/a b",
            "http://h\\@x",
            "http://h/\r\n",
        ] {
            assert!(Address::parse(bad).is_err(), "{bad}");
        }
    }
}
