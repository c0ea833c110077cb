//! The allow-list: whatever URL is permitted leads, by another parser's reading too, to a host that
//! was granted.

#![no_main]

use cofferdam_host::Grants;
use libfuzzer_sys::fuzz_target;
use url::{Host, Url};

fuzz_target!(|input: (&str, &str)| {
    let (pattern, url) = input;
    let grants = |http: &[&str]| Grants {
        http: http.iter().map(|&entry| entry.to_owned()).collect(),
        ..Grants::default()
    };
    // Any pattern: taken or refused, and never a reason to panic.
    if let Err(error) = grants(&[pattern]).permit_http(url) {
        assert!(
            error.to_string().contains("write `https://host`"),
            "{error}"
        );
    }
    // Known patterns: what they permit is what they say.
    if grants(&["https://*.example.com"])
        .permit_http(url)
        .expect("a valid pattern")
    {
        let read = Url::parse(url).expect("what is permitted is a URL");
        assert_eq!(read.scheme(), "https");
        assert_eq!(read.port_or_known_default(), Some(443));
        assert!(
            read.username().is_empty() && read.password().is_none(),
            "{url}"
        );
        let host = read
            .host_str()
            .unwrap_or_default()
            .trim_end_matches('.')
            .to_owned();
        assert!(
            host.ends_with(".example.com") && host.len() > ".example.com".len(),
            "{url}"
        );
    }
    if grants(&["http://127.0.0.1:8080"])
        .permit_http(url)
        .expect("a valid pattern")
    {
        let read = Url::parse(url).expect("what is permitted is a URL");
        let here = match read.host() {
            Some(Host::Ipv4(address)) => address.is_loopback(),
            Some(Host::Ipv6(address)) => {
                address.to_ipv4_mapped().is_some_and(|v4| v4.is_loopback())
            }
            Some(Host::Domain(_)) | None => false,
        };
        assert!(here && read.port() == Some(8080), "{url}");
    }
});
