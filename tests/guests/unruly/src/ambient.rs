//! What a connector could find around it, were anything lying about.

use cofferdam_sdk::prelude::*;

/// What is there without having been given.
#[derive(Debug, Default, Serialize, JsonSchema)]
pub struct Ambient {
    /// Environment variables, as `NAME=value`.
    pub environment: Vec<String>,
    /// Arguments.
    pub arguments: Vec<String>,
    /// Directories.
    pub directories: Vec<String>,
    /// The working directory.
    pub working_directory: Option<String>,
    /// What can be read from standard input.
    pub input: String,
}

/// Where to go past the host's HTTP.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SocketUse {
    /// What to do.
    pub what: SocketDeed,
    /// A port of this machine.
    #[serde(default)]
    pub port: u16,
    /// A name to look up.
    #[serde(default)]
    pub name: String,
}

/// What can be done with a socket.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum SocketDeed {
    /// Opens a line.
    TcpConnect,
    /// Waits for lines.
    TcpListen,
    /// Sends a datagram.
    UdpSend,
    /// Looks a name up.
    Resolve,
}

/// What came of it: an error, or `done`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct SocketSeen {
    /// The error's name, or `done`.
    pub result: String,
}

#[cfg(not(target_arch = "wasm32"))]
pub(crate) fn look() -> Ambient {
    Ambient::default()
}

#[cfg(target_arch = "wasm32")]
pub(crate) fn look() -> Ambient {
    use wasip2::cli::{environment, stdin};

    let variables = environment::get_environment().into_iter();
    Ambient {
        environment: variables
            .map(|(name, value)| format!("{name}={value}"))
            .collect(),
        arguments: environment::get_arguments(),
        directories: wasip2::filesystem::preopens::get_directories()
            .into_iter()
            .map(|(_, name)| name)
            .collect(),
        working_directory: environment::initial_cwd(),
        input: match stdin::get_stdin().blocking_read(4_096) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(_closed) => String::new(),
        },
    }
}

#[cfg(not(target_arch = "wasm32"))]
pub(crate) fn dial(_input: &SocketUse) -> SocketSeen {
    SocketSeen {
        result: "only a component has sockets".to_owned(),
    }
}

#[cfg(target_arch = "wasm32")]
pub(crate) fn dial(input: &SocketUse) -> SocketSeen {
    use wasip2::sockets::instance_network::instance_network;
    use wasip2::sockets::ip_name_lookup::resolve_addresses;
    use wasip2::sockets::network::{IpAddressFamily, IpSocketAddress, Ipv4SocketAddress};
    use wasip2::sockets::tcp_create_socket::create_tcp_socket;
    use wasip2::sockets::udp_create_socket::create_udp_socket;

    let network = instance_network();
    let at = |address, port| IpSocketAddress::Ipv4(Ipv4SocketAddress { port, address });
    let here = at((127, 0, 0, 1), input.port);
    let result = match input.what {
        SocketDeed::TcpConnect => create_tcp_socket(IpAddressFamily::Ipv4).and_then(|socket| {
            socket.start_connect(&network, here)?;
            socket.subscribe().block();
            socket.finish_connect().map(drop)
        }),
        SocketDeed::TcpListen => create_tcp_socket(IpAddressFamily::Ipv4).and_then(|socket| {
            socket.start_bind(&network, at((0, 0, 0, 0), 0))?;
            socket.finish_bind()?;
            socket.start_listen()?;
            socket.finish_listen()
        }),
        SocketDeed::UdpSend => create_udp_socket(IpAddressFamily::Ipv4).and_then(|socket| {
            socket.start_bind(&network, at((0, 0, 0, 0), 0))?;
            socket.finish_bind()?;
            let (_, outgoing) = socket.stream(Some(here))?;
            outgoing.check_send()?;
            let datagram = wasip2::sockets::udp::OutgoingDatagram {
                data: b"out".to_vec(),
                remote_address: None,
            };
            outgoing.send(&[datagram]).map(drop)
        }),
        SocketDeed::Resolve => resolve_addresses(&network, &input.name).and_then(|stream| {
            stream.subscribe().block();
            stream.resolve_next_address().map(drop)
        }),
    };
    SocketSeen {
        result: result.map_or_else(|error| error.name().to_owned(), |()| "done".to_owned()),
    }
}
