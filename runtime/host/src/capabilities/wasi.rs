//! WASI 0.2, all of it linked, since whole languages import all of it; and nothing ambient in it:
//! no arguments, no environment, no sockets, no directories but those granted. Standard output and
//! error become log lines.

use std::collections::HashSet;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::io::AsyncWrite;
use wasmtime::component::Linker;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamResult};
use wasmtime_wasi::{FsPerms, WasiCtx, WasiCtxBuilder};

use super::{Capability, missing};
use crate::Error;
use crate::call::LogLevel;
use crate::chamber::State;
use crate::plugin::Plugin;
use crate::scope::Scope;
use crate::spec::{ConnectionSpec, Directory};

/// The packages that are linked; `wasi:http` is a capability of its own.
const PACKAGES: [&str; 6] = [
    "wasi:io/",
    "wasi:clocks/",
    "wasi:random/",
    "wasi:filesystem/",
    "wasi:cli/",
    "wasi:sockets/",
];
/// Random bytes in one piece.
pub(crate) const RANDOM_BYTES_MAX: u64 = 64 << 10;
/// What one write to standard output may carry.
const WRITE_BYTES_MAX: usize = 64 << 10;
/// A line that is longer is split.
const LINE_BYTES_MAX: usize = 8 << 10;

pub(crate) struct Wasi;

impl Capability for Wasi {
    fn name(&self) -> &'static str {
        "wasi"
    }

    fn provides(&self, interface: &str, version: &str) -> bool {
        version.starts_with("0.2.") && PACKAGES.iter().any(|p| interface.starts_with(p))
    }

    fn link(&self, linker: &mut Linker<State>) -> wasmtime::Result<()> {
        wasmtime_wasi::p2::add_to_linker_async(linker)
    }

    fn admit(&self, plugin: &Plugin, spec: &ConnectionSpec) -> Result<(), Error> {
        let Some(manifest) = plugin.manifest() else {
            return Ok(());
        };
        let granted = |path: &str| spec.grants.filesystem.iter().any(|d| d.guest_path == path);
        match manifest
            .capabilities
            .filesystem
            .iter()
            .find(|path| !granted(path))
        {
            None => Ok(()),
            Some(path) => {
                let line = format!(
                    "filesystem = [{{ guest = \"{path}\", host = \"FOLDER\", writable = false }}]"
                );
                Err(missing(
                    plugin,
                    spec,
                    format!("the directory `{path}`"),
                    line,
                ))
            }
        }
    }
}

/// A directory that was checked.
pub(crate) type Preopen = Directory;

pub(crate) fn preopens(place: &str, directories: &[Directory]) -> Result<Vec<Preopen>, Error> {
    let mut guests = HashSet::new();
    for directory in directories {
        let refuse = |value: String, reason: &str| {
            Err(Error::BadGrant {
                place: place.to_owned(),
                key: "filesystem",
                value,
                reason: reason.to_owned(),
            })
        };
        let guest = directory.guest_path.trim_end_matches('/');
        if !directory.guest_path.starts_with('/') || guest.split('/').any(|part| part == "..") {
            return refuse(
                directory.guest_path.clone(),
                "write an absolute path such as `/data`, without `..`",
            );
        }
        if !guests.insert(guest) {
            return refuse(
                directory.guest_path.clone(),
                "it is granted twice; give each directory a path of its own",
            );
        }
        if !directory.host_path.is_dir() {
            let shown = directory.host_path.display().to_string();
            return refuse(shown, "there is no such folder; make it first");
        }
    }
    Ok(directories.to_vec())
}

/// The WASI context of one call.
pub(crate) fn prepare(scope: &Arc<Scope>) -> wasmtime::Result<WasiCtx> {
    let mut builder = WasiCtxBuilder::new();
    builder
        .stdout(Lines::new(scope, LogLevel::Info))
        .stderr(Lines::new(scope, LogLevel::Warn))
        .max_random_size(RANDOM_BYTES_MAX)
        .allow_ip_name_lookup(false)
        .allow_tcp(false)
        .allow_udp(false)
        .socket_addr_check(|_, _| Box::pin(async { false }));
    for directory in &scope.settings.preopens {
        let perms = if directory.writable {
            FsPerms::ReadWrite
        } else {
            FsPerms::ReadOnly
        };
        builder.preopened_dir(&directory.host_path, &directory.guest_path, perms)?;
    }
    Ok(builder.build())
}

/// A stream whose lines go to the call's log.
#[derive(Clone)]
struct Lines {
    scope: Arc<Scope>,
    level: LogLevel,
    line: Arc<Mutex<Vec<u8>>>,
}

impl Lines {
    fn new(scope: &Arc<Scope>, level: LogLevel) -> Self {
        Self {
            scope: Arc::clone(scope),
            level,
            line: Arc::default(),
        }
    }

    fn push(&self, bytes: &[u8]) {
        let mut line = self.line.lock();
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            line.extend_from_slice(piece);
            if piece.ends_with(b"\n") || line.len() >= LINE_BYTES_MAX {
                self.emit(&mut line);
            }
        }
    }

    fn emit(&self, line: &mut Vec<u8>) {
        let text = String::from_utf8_lossy(line).trim_end().to_owned();
        line.clear();
        if !text.is_empty() {
            self.scope.log(self.level, text);
        }
    }
}

impl Drop for Lines {
    /// What was written without a line's end is told when the last handle goes.
    fn drop(&mut self) {
        if let Some(line) = Arc::get_mut(&mut self.line) {
            let mut rest = std::mem::take(line.get_mut());
            self.emit(&mut rest);
        }
    }
}

impl IsTerminal for Lines {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for Lines {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.clone())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

impl AsyncWrite for Lines {
    fn poll_write(
        self: Pin<&mut Self>,
        _context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        self.push(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(
        self: Pin<&mut Self>,
        _context: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[async_trait::async_trait]
impl Pollable for Lines {
    async fn ready(&mut self) {}
}

impl OutputStream for Lines {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.push(&bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(WRITE_BYTES_MAX)
    }
}
