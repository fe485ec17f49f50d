//! MLflow's REST protocol over HTTP, with artifacts.
//!
//! Contract: [`Server::run`] answers until the process gets SIGINT or SIGTERM, finishes the requests it has (for
//! [`Options::drain_timeout`] at most), and closes the store. What a client may cost is bounded: connections, bytes of
//! bodies in memory, time for a head and a body, calls of the store at a time. HTTP/1.1 without TLS: a proxy's
//! business.
//!
//! The way of a request: `connections` accepts it, `guard` looks at its host, origin and token, `routes` says whose it
//! is: `api` (JSON, answered by [`Protocol`]), `files` (artifacts), `ui` (the pages), `meters` (numbers about all
//! that).

mod api;
mod bodies;
mod connections;
mod file_body;
mod files;
mod guard;
mod hosts;
mod media_type;
mod meters;
mod patient;
mod routes;
mod ui;

use std::net::{IpAddr, SocketAddr, TcpListener, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;

use crate::error::{Error, Result};
use crate::mlflow::{Door, Protocol};
use crate::store::Store;

pub use guard::Token;
pub use ui::Ui;

/// The version of MLflow whose protocol is spoken: what clients ask for to know what a server can do.
pub const MLFLOW_VERSION: &str = "3.18.0";

/// Calls of the store at a time. More would wait for each other inside it.
const STORE_CALLS_MAX: usize = 32;
/// Threads for calls that block: those of the store, and pieces of artifacts.
const BLOCKING_THREADS_MAX: usize = 40;
/// Bodies of more bytes than this share [`BODIES_BYTES_MAX`].
const SMALL_BODY_BYTES: usize = 64 * 1024;
/// Bytes of all larger JSON bodies that are in memory at a time.
const BODIES_BYTES_MAX: usize = 64 * 1024 * 1024;

/// How a server is set up. The defaults are those of the program.
#[derive(Clone, Debug)]
pub struct Options {
    /// Name or address to listen at.
    pub host: String,
    /// Port to listen at; 0 for any that is free.
    pub port: u16,
    /// Values of `Host` that are answered, with `*` for any text; none for MLflow's: local names, private addresses,
    /// and `host`.
    pub allowed_hosts: Option<Vec<String>>,
    /// Origins of pages, besides the server's own and local ones, that may change something, with `*` for any text.
    pub allowed_origins: Vec<String>,
    /// Who has one of these is let in; if there are none, everybody.
    pub tokens: Vec<Token>,
    /// Longest JSON body in bytes.
    pub json_bytes_max: usize,
    /// Longest artifact in bytes; none for what the disk holds.
    pub artifact_bytes_max: Option<u64>,
    /// Connections at a time; further ones wait to be accepted.
    pub connections_max: usize,
    /// How long a client may take for the head of a request, and stay without one.
    pub head_timeout: Duration,
    /// How long a client may take for a JSON body.
    pub body_timeout: Duration,
    /// How long a client may send or take nothing in the midst of an artifact or an answer.
    pub idle_timeout: Duration,
    /// How long requests that are being answered may take once the server is asked to stop.
    pub drain_timeout: Duration,
    /// What `/` shows.
    pub ui: Ui,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            host: "127.0.0.1".to_owned(),
            port: 5000,
            allowed_hosts: None,
            allowed_origins: Vec::new(),
            tokens: Vec::new(),
            json_bytes_max: 16 * 1024 * 1024,
            artifact_bytes_max: None,
            connections_max: 512,
            head_timeout: Duration::from_secs(30),
            body_timeout: Duration::from_secs(60),
            idle_timeout: Duration::from_secs(60),
            drain_timeout: Duration::from_secs(10),
            ui: Ui::Page,
        }
    }
}

/// What requests need.
#[derive(Debug)]
struct App {
    protocol: Protocol,
    options: Options,
    hosts: hosts::Hosts,
    meters: meters::Meters,
    store_calls: Semaphore,
    /// Bytes of larger bodies that may still be read into memory.
    body_bytes: Arc<Semaphore>,
}

/// A server that listens, but does not answer yet.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    app: App,
}

impl Server {
    /// Listens. Connections wait until [`Server::run`].
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if the host has no address; [`Error::Io`] if the port is taken or forbidden; whatever
    /// reading the store says.
    pub fn bind(store: Store, options: Options) -> Result<Self> {
        let asked = format!("{}:{}", options.host, options.port);
        let failed = |source| Error::io("listen at", &asked, source);
        let host = options.host.trim_start_matches('[').trim_end_matches(']');
        let addresses: Vec<SocketAddr> = match host.parse::<IpAddr>() {
            Ok(address) => vec![SocketAddr::new(address, options.port)],
            Err(_) => (host, options.port).to_socket_addrs().map_err(failed)?.collect(),
        };
        let listener = TcpListener::bind(addresses.as_slice()).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let app = App {
            protocol: Protocol::new(store, Door::Proxy)?,
            hosts: hosts::Hosts::new(&options),
            meters: meters::Meters::default(),
            store_calls: Semaphore::new(STORE_CALLS_MAX),
            body_bytes: Arc::new(Semaphore::new(BODIES_BYTES_MAX.max(options.json_bytes_max))),
            options,
        };
        Ok(Self { listener, address, app })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers requests until SIGINT or SIGTERM; a second one ends the waiting for clients.
    ///
    /// # Errors
    /// [`Error::Io`] if threads cannot be made; what closing the store says.
    pub fn run(self) -> Result<()> {
        let store = self.app.protocol.store().clone();
        let failed = |source| Error::io("serve at", self.address.to_string(), source);
        let threads = std::thread::available_parallelism().map_or(2, |n| n.get().clamp(2, 4));
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(threads)
            .max_blocking_threads(BLOCKING_THREADS_MAX)
            .thread_name("mlrs-server")
            .enable_io()
            .enable_time()
            .build()
            .map_err(failed)?;
        let served = runtime.block_on(connections::serve(self.listener, self.app)).map_err(failed);
        // A call that hangs on a disk must not keep the process: what it did not acknowledge is nobody's.
        runtime.shutdown_timeout(Duration::from_secs(1));
        store.close().and(served)
    }
}
