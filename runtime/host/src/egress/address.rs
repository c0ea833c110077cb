//! Which addresses may be dialled.
//!
//! The ranges follow the IANA special-purpose registries. An address that carries another inside
//! (IPv4-mapped, NAT64, 6to4, Teredo) is a way around a filter, and denied or judged by what it
//! carries.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What kind of address it is, as far as that matters for whether it may be dialled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Anybody's; may be dialled.
    Public,
    /// Somebody's own network; may be dialled if private addresses are allowed.
    Private,
    /// This machine, its link, the cloud's metadata, or no host at all; never by a wildcard.
    Forbidden(&'static str),
}

/// The IPv4 address in an IPv4-mapped IPv6 address; else the address itself.
pub(crate) fn canonical(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => v4.into(),
            None => address,
        },
    }
}

pub(crate) fn kind(address: IpAddr) -> Kind {
    match canonical(address) {
        IpAddr::V4(v4) => kind_v4(v4),
        IpAddr::V6(v6) => kind_v6(v6),
    }
}

fn kind_v4(address: Ipv4Addr) -> Kind {
    let [a, b, c, _] = address.octets();
    match (a, b, c) {
        (0, ..) => Kind::Forbidden("unspecified"),
        (127, ..) => Kind::Forbidden("loopback"),
        (169, 254, _) => Kind::Forbidden("link-local, where cloud metadata is served"),
        (100, 64..=127, _) => Kind::Forbidden("shared (carrier-grade NAT)"),
        (192, 0, 0) => Kind::Forbidden("reserved for protocols"),
        (192, 0, 2) | (198, 51, 100) | (203, 0, 113) => Kind::Forbidden("documentation"),
        (198, 18..=19, _) => Kind::Forbidden("benchmarking"),
        (192, 88, 99) => Kind::Forbidden("6to4 relay"),
        (168, 63, 129) => Kind::Forbidden("cloud platform"),
        (224..=239, ..) => Kind::Forbidden("multicast"),
        (240..=255, ..) => Kind::Forbidden("reserved or broadcast"),
        (10, ..) | (172, 16..=31, _) | (192, 168, _) => Kind::Private,
        _ => Kind::Public,
    }
}

fn kind_v6(address: Ipv6Addr) -> Kind {
    let segments = address.segments();
    match segments {
        [0, 0, 0, 0, 0, 0, 0, 0] => Kind::Forbidden("unspecified"),
        [0, 0, 0, 0, 0, 0, 0, 1] => Kind::Forbidden("loopback"),
        // `::a.b.c.d` and `::ffff:0:a.b.c.d`, obsolete ways to write an IPv4 address.
        [0, 0, 0, 0, _, _, _, _] => Kind::Forbidden("an IPv4 address in disguise"),
        [0x64, 0xff9b, ..] => Kind::Forbidden("NAT64"),
        [0x2002, ..] => Kind::Forbidden("6to4"),
        [0x2001, 0, ..] => Kind::Forbidden("Teredo"),
        [0x2001, 2, 0, ..] => Kind::Forbidden("benchmarking"),
        [0x2001, 0xdb8, ..] | [0x3fff, 0..=0x0fff, ..] => Kind::Forbidden("documentation"),
        [0x2001, 1..=0x01ff, ..] => Kind::Forbidden("reserved for protocols"),
        // The last half of an ISATAP address: an IPv4 address behind `0:5efe` or `200:5efe`.
        [_, _, _, _, 0 | 0x0200, 0x5efe, _, _] => Kind::Forbidden("ISATAP"),
        [0x100, 0, 0, 0, ..] => Kind::Forbidden("discard-only"),
        [0xfe80..=0xfebf, ..] => Kind::Forbidden("link-local"),
        [0xfec0..=0xfeff, ..] => Kind::Forbidden("site-local"),
        [0xff00..=0xffff, ..] => Kind::Forbidden("multicast"),
        // Metadata services of three large clouds have unique local addresses.
        [0xfd00, 0xec2 | 0xc1, ..] | [0xfd20, 0xce, ..] => Kind::Forbidden("cloud metadata"),
        [0xfc00..=0xfdff, ..] => Kind::Private,
        [0x2000..=0x3fff, ..] => Kind::Public,
        _ => Kind::Forbidden("not assigned"),
    }
}
