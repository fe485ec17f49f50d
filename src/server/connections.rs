//! Connections: accepting, limits of time and number, the orderly end.
//!
//! Contract: a client that is slow, silent or gone holds its own connection and nothing else, for as long as the time
//! limits say. Being out of descriptors is waited out. Once asked to stop, no connection is accepted, idle ones are
//! closed, and requests under way are answered.

use std::io;
use std::net::TcpListener;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpStream;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Semaphore, watch};

use super::patient::Patient;
use super::{App, Options, routes};

/// Longest head of a request in bytes, and what is read of a body at once.
const BUFFER_BYTES_MAX: usize = 64 * 1024;
/// How long to wait before accepting is tried again, where the system has no room for a connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Answers until a signal.
pub(super) async fn serve(listener: TcpListener, app: App) -> io::Result<()> {
    let (mut interrupts, mut terminations) =
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let mut signalled = async || {
        tokio::select! {
            _ = interrupts.recv() => {}
            _ = terminations.recv() => {}
        }
    };
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let options = app.options.clone();
    let places = Arc::new(Semaphore::new(options.connections_max.max(1)));
    let router = routes::router(Arc::new(app));
    let (stop, stopped) = watch::channel(());
    tokio::select! {
        () = accept(listener, &places, &router, &options, &stopped) => {}
        () = signalled() => {}
    }
    drop(stopped);
    drop(router);
    // The sender's end is the word to stop.
    drop(stop);
    let all = u32::try_from(options.connections_max.max(1)).unwrap_or(u32::MAX);
    tokio::select! {
        _ = places.acquire_many(all) => {}
        () = tokio::time::sleep(options.drain_timeout) => {}
        () = signalled() => {}
    }
    Ok(())
}

/// Accepts for ever.
async fn accept(
    listener: tokio::net::TcpListener,
    places: &Arc<Semaphore>,
    router: &Router,
    options: &Options,
    stopped: &watch::Receiver<()>,
) {
    loop {
        let Ok(place) = Arc::clone(places).acquire_owned().await else { return };
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let connection = talk(stream, router.clone(), options, stopped.clone());
        tokio::spawn(async move {
            connection.await;
            drop(place);
        });
    }
}

/// Serves one connection to its end.
fn talk(
    stream: TcpStream,
    router: Router,
    options: &Options,
    mut stopped: watch::Receiver<()>,
) -> impl Future<Output = ()> + use<> {
    // Answers are small, and whole when they are written.
    let _ = stream.set_nodelay(true);
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(options.head_timeout).max_buf_size(BUFFER_BYTES_MAX);
    let io = TokioIo::new(Patient::new(stream, options.idle_timeout));
    async move {
        let mut connection = pin!(builder.serve_connection(io, TowerToHyperService::new(router)));
        // What goes wrong on a connection is its client's to see.
        tokio::select! {
            _ = connection.as_mut() => return,
            _ = stopped.changed() => {}
        }
        connection.as_mut().graceful_shutdown();
        let _ = connection.await;
    }
}
