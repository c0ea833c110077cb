//! Who may be reached, as tables.

use std::net::IpAddr;

use http::Uri;

use super::address::{Kind, kind};
use super::allow::{HostName, Pattern};
use super::{Audience, Destination, Egress, Named, dial};
use crate::spec::Grants;

pub(crate) mod authority;
mod body;
mod network;
mod pipeline;
mod table;
mod tls;

/// Pattern, URL, whether it is allowed.
const MATCHES: &[(&str, &str, bool)] = &[
    (
        "https://api.example.com",
        "https://api.example.com/v1?x=1",
        true,
    ),
    ("https://api.example.com", "https://API.Example.COM/", true),
    ("https://api.example.com", "https://api.example.com./", true),
    ("https://api.example.com/", "https://api.example.com/", true),
    (
        "https://api.example.com",
        "https://api.example.com:443/",
        true,
    ),
    (
        "https://api.example.com:443",
        "https://api.example.com/",
        true,
    ),
    (
        "https://api.example.com",
        "https://api.example.com:8443/",
        false,
    ),
    (
        "https://api.example.com:8443",
        "https://api.example.com:8443/",
        true,
    ),
    (
        "https://api.example.com:8443",
        "https://api.example.com/",
        false,
    ),
    ("https://api.example.com", "http://api.example.com/", false),
    ("http://api.example.com", "http://api.example.com/", true),
    (
        "http://api.example.com",
        "http://api.example.com:443/",
        false,
    ),
    ("https://api.example.com", "https://example.com/", false),
    (
        "https://api.example.com",
        "https://api.example.com.evil.net/",
        false,
    ),
    (
        "https://api.example.com",
        "https://evil-api.example.com/",
        false,
    ),
    (
        "https://api.example.com",
        "https://api.example.com@evil.net/",
        false,
    ),
    (
        "https://api.example.com",
        "https://evil.net/api.example.com",
        false,
    ),
    (
        "https://api.example.com",
        "https://evil.net/?https://api.example.com",
        false,
    ),
    ("https://*.example.com", "https://api.example.com/", true),
    ("https://*.example.com", "https://a.b.example.com/", true),
    ("https://*.example.com", "https://example.com/", false),
    ("https://*.example.com", "https://.example.com/", false),
    ("https://*.example.com", "https://notexample.com/", false),
    (
        "https://*.example.com",
        "https://example.com.evil.net/",
        false,
    ),
    (
        "https://*.example.com:8443",
        "https://api.example.com/",
        false,
    ),
    ("https://*", "https://anything.at.all/", true),
    ("https://*", "http://anything.at.all/", false),
    ("http://127.0.0.1:8080", "http://127.0.0.1:8080/", true),
    ("http://127.0.0.1:8080", "http://0x7f.1:8080/", true),
    ("http://127.0.0.1:8080", "http://2130706433:8080/", true),
    ("http://127.0.0.1:8080", "http://127.0.0.2:8080/", false),
    ("http://127.0.0.1:8080", "http://localhost:8080/", false),
    ("http://localhost:8080", "http://127.0.0.1:8080/", false),
    ("http://localhost:8080", "http://localhost:8080/", true),
    ("http://[::1]:8080", "http://[::1]:8080/", true),
    ("http://[::1]:8080", "http://[0:0:0:0:0:0:0:1]:8080/", true),
    (
        "http://[::1]:8080",
        "http://[::ffff:127.0.0.1]:8080/",
        false,
    ),
    (
        "http://127.0.0.1:8080",
        "http://[::ffff:7f00:1]:8080/",
        true,
    ),
    (
        "https://bücher.example",
        "https://xn--bcher-kva.example/",
        true,
    ),
    ("https://*.example.com", "https://10.0.0.1/", false),
];

#[test]
fn the_allow_list_matches_what_it_says_and_nothing_else() {
    for (pattern, url, allowed) in MATCHES {
        let pattern = Pattern::parse(pattern).unwrap();
        let uri: Uri = url.parse().unwrap_or_default();
        let matched = Destination::of(&uri).is_ok_and(|to| pattern.matches(&to));
        assert_eq!(matched, *allowed, "{pattern:?} and {url}");
    }
}

#[test]
fn entries_that_make_no_sense_are_refused_with_what_to_write() {
    for text in [
        "",
        "api.example.com",
        "ftp://api.example.com",
        "https://",
        "https://api.example.com/v1",
        "https://api.example.com?x",
        "https://user@api.example.com",
        "https://api.example.com:0",
        "https://api.example.com:99999",
        "https://api.example.com:x",
        "https://api.*.com",
        "https://*api.example.com",
        "https://*.",
        "https://*.10.0.0.1",
        "https://a b",
        "https://api.example.com..",
        "https://a..example.com",
        "https://api\t.example.com",
        "https://api\n.example.com",
        "https://api.example.com\\@evil",
        "https://*.*.example.com",
        "https://0x7f.1.2.3.4",
    ] {
        let reason = Pattern::parse(text).unwrap_err();
        assert!(reason.contains("write `https://host`"), "{text}: {reason}");
    }
    for text in ["", "*", "a b", "https://api.example.com/x"] {
        assert!(Audience::parse(text).is_err(), "{text}");
    }
}

/// Address, whether it is `+` public, `p` private, `-` never to be dialled by a name.
const ADDRESSES: &[(&str, char)] = &[
    ("93.184.216.34", '+'),
    ("1.1.1.1", '+'),
    ("172.15.0.1", '+'),
    ("172.32.0.1", '+'),
    ("100.63.0.1", '+'),
    ("192.167.255.1", '+'),
    ("2606:4700::1111", '+'),
    ("2a00:1450::1", '+'),
    ("10.0.0.1", 'p'),
    ("172.16.0.1", 'p'),
    ("172.31.255.255", 'p'),
    ("192.168.1.1", 'p'),
    ("fd12:3456::1", 'p'),
    ("fc00::1", 'p'),
    ("::ffff:10.0.0.1", 'p'),
    ("0.0.0.0", '-'),
    ("0.1.2.3", '-'),
    ("127.0.0.1", '-'),
    ("127.255.255.254", '-'),
    ("169.254.169.254", '-'),
    ("169.254.1.1", '-'),
    ("100.64.0.1", '-'),
    ("100.100.100.200", '-'),
    ("100.127.255.255", '-'),
    ("192.0.0.192", '-'),
    ("192.0.2.1", '-'),
    ("198.18.0.1", '-'),
    ("198.51.100.1", '-'),
    ("203.0.113.1", '-'),
    ("192.88.99.1", '-'),
    ("168.63.129.16", '-'),
    ("224.0.0.1", '-'),
    ("239.255.255.255", '-'),
    ("240.0.0.1", '-'),
    ("255.255.255.255", '-'),
    ("::", '-'),
    ("::1", '-'),
    ("::127.0.0.1", '-'),
    ("::ffff:127.0.0.1", '-'),
    ("::ffff:169.254.169.254", '-'),
    ("::ffff:0:127.0.0.1", '-'),
    ("64:ff9b::7f00:1", '-'),
    ("64:ff9b:1::a00:1", '-'),
    ("2002:7f00:1::", '-'),
    ("2001:0:7f00:1::", '-'),
    ("2001:db8::1", '-'),
    ("fe80::1", '-'),
    ("febf::1", '-'),
    ("fec0::1", '-'),
    ("ff02::1", '-'),
    ("fd00:ec2::254", '-'),
    ("100::1", '-'),
    ("4000::1", '-'),
];

#[test]
fn every_range_is_judged_for_what_it_is() {
    for (address, expected) in ADDRESSES {
        let found = match kind(address.parse().unwrap()) {
            Kind::Public => '+',
            Kind::Private => 'p',
            Kind::Forbidden(_) => '-',
        };
        assert_eq!(found, *expected, "{address}");
    }
}

#[test]
fn a_forbidden_address_is_dialled_only_if_it_was_written_out() {
    let vet = |host: &str, named, private, address: &str| {
        let host = HostName::parse(host).unwrap();
        dial::vet(&host, named, private, address.parse::<IpAddr>().unwrap()).is_ok()
    };
    assert!(vet("127.0.0.1", Named::Exactly, false, "127.0.0.1"));
    assert!(!vet("127.0.0.1", Named::ByWildcard, false, "127.0.0.1"));
    assert!(vet("localhost", Named::Exactly, false, "127.0.0.1"));
    assert!(vet("localhost", Named::Exactly, false, "::1"));
    assert!(!vet("localhost", Named::Exactly, false, "169.254.169.254"));
    assert!(!vet("localhost", Named::ByWildcard, true, "127.0.0.1"));
    assert!(!vet(
        "rebound.example.com",
        Named::Exactly,
        false,
        "127.0.0.1"
    ));
    assert!(!vet(
        "rebound.example.com",
        Named::Exactly,
        true,
        "127.0.0.1"
    ));
    assert!(!vet(
        "rebound.example.com",
        Named::Exactly,
        true,
        "169.254.169.254"
    ));
    assert!(!vet(
        "rebound.example.com",
        Named::Exactly,
        false,
        "10.0.0.1"
    ));
    assert!(vet(
        "intranet.example.com",
        Named::Exactly,
        true,
        "10.0.0.1"
    ));
    assert!(vet("10.0.0.1", Named::Exactly, false, "10.0.0.1"));
    assert!(vet(
        "api.example.com",
        Named::ByWildcard,
        false,
        "93.184.216.34"
    ));
}

#[test]
fn a_star_is_narrowed_by_the_manifest_and_a_name_is_not() {
    let text = "name=\"x\"\nversion=\"1.0.0\"\n[capabilities]\nhttp=[\"https://a.example.com\"]";
    let manifest = cofferdam_core::manifest::Manifest::parse(text, "plugin.toml").unwrap();
    let http = vec![
        "https://*.example.com".to_owned(),
        "http://127.0.0.1:9".to_owned(),
    ];
    let grants = Grants {
        http,
        ..Grants::default()
    };
    let egress = Egress::new("test", &grants, Some(&manifest)).unwrap();
    let permit = |url: &str| egress.permit(&Destination::of(&url.parse().unwrap()).unwrap());
    assert_eq!(permit("https://a.example.com/"), Ok(Named::ByWildcard));
    assert_eq!(permit("http://127.0.0.1:9/"), Ok(Named::Exactly));
    let denied = permit("https://b.example.com/").unwrap_err().to_string();
    assert!(
        denied.contains("http = [\"https://b.example.com\"]"),
        "{denied}"
    );
    let denied = permit("https://c.example.net:444/")
        .unwrap_err()
        .to_string();
    assert!(
        denied.contains("http = [\"https://c.example.net:444\"]"),
        "{denied}"
    );
}
