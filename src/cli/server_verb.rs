//! `server`: MLflow's protocol over HTTP.
//!
//! Contract: prints where it listens once connections are taken, and answers until it is asked to stop. Beyond this
//! machine it listens with a token, or where somebody said that none is wanted.

use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use serde_json::json;

use super::args;
use super::failure::{Failure, Outcome};
use super::output::{Output, shell_quoted};
use crate::server::{Options, Server, Token, Ui};
use crate::{Durability, Error, Store};

/// Longest token file that is read, in bytes.
const TOKENS_BYTES_MAX: u64 = 64 * 1024;

/// Listens and answers.
pub(super) fn serve(out: &mut Output<'_>, path: &Path, args: &args::Server) -> Outcome {
    let tokens = match &args.auth_token_file {
        Some(file) => read_tokens(out, file)?,
        None => Vec::new(),
    };
    let ui = match args.ui.to_str() {
        Some("auto") => Ui::find(),
        Some("off") => Ui::Page,
        _ => Ui::in_folder(&args.ui).ok_or_else(|| {
            Failure::Usage(format!(
                "there are no pages in {}: name the folder mlflow/server/js/build of an installed MLflow",
                args.ui.display()
            ))
        })?,
    };
    let is_open = tokens.is_empty() && !args.no_auth;
    if is_open && !is_local(&args.host) {
        return Err(Failure::Usage(format!(
            "{} can be reached from other machines: give --auth-token-file FILE, or --no-auth to let in everybody who \
             reaches the port",
            args.host
        )));
    }
    crate::vfs::process::share_freed_memory();
    let durability = if args.sync { Durability::Sync } else { Durability::Os };
    let store = Store::options().durability(durability).open(path)?;
    let options = Options {
        host: args.host.clone(),
        port: args.port,
        allowed_hosts: args.allowed_hosts.clone(),
        allowed_origins: args.cors_allowed_origins.clone(),
        tokens,
        json_bytes_max: usize::try_from(args.max_json).unwrap_or(usize::MAX),
        artifact_bytes_max: args.max_artifact,
        connections_max: usize::try_from(args.max_connections).unwrap_or(usize::MAX),
        drain_timeout: Duration::from_millis(args.drain),
        ui: ui.clone(),
        ..Options::default()
    };
    let server = Server::bind(store, options)?;
    tell(out, path, &ui, server.address(), args)?;
    Ok(server.run()?)
}

/// Whether only this machine reaches what listens there.
fn is_local(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn tell(out: &mut Output<'_>, path: &Path, ui: &Ui, address: SocketAddr, args: &args::Server) -> Outcome {
    // What listens everywhere is reached at any address of the machine; this one works here.
    let host = match args.host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
        Ok(host) if host.is_unspecified() => "127.0.0.1".to_owned(),
        Ok(IpAddr::V6(host)) => format!("[{host}]"),
        _ => args.host.clone(),
    };
    let url = format!("http://{host}:{}", address.port());
    let pages = match ui {
        Ui::Files(folder) => Some(folder.display().to_string()),
        Ui::Page => None,
    };
    if out.json {
        out.json_line(&json!({ "url": url, "address": address.to_string(), "store": path, "ui": pages }))?;
    } else {
        writeln!(out.out, "mlrs-db serves {} at {url}", shell_quoted(path))?;
        writeln!(
            out.out,
            "  pages   {}",
            pages.as_deref().unwrap_or("none; MLflow has them: pip install mlflow")
        )?;
        writeln!(out.out, "  client  mlflow.set_tracking_uri(\"{url}\")")?;
    }
    out.out.flush()?;
    if args.no_auth && !is_local(&args.host) {
        out.warn("everybody who reaches this port may read, change and delete everything in the store");
    }
    out.note("^C stops it");
    Ok(())
}

fn read_tokens(out: &Output<'_>, file: &Path) -> Outcome<Vec<Token>> {
    let failed = |source| Error::Io { action: "read", path: file.to_owned(), source };
    let metadata = std::fs::metadata(file).map_err(failed)?;
    if metadata.len() > TOKENS_BYTES_MAX {
        return Err(Failure::Usage(format!("{} is too long for a file of tokens", file.display())));
    }
    if metadata.permissions().mode() & 0o077 != 0 {
        out.warn(format_args!("other users may read {}", file.display()));
        out.hint(format_args!("chmod 600 {}", shell_quoted(file)));
    }
    let text = std::fs::read_to_string(file).map_err(failed)?;
    let tokens: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    match tokens.iter().find(|token| !token.bytes().all(|byte| byte.is_ascii_graphic())) {
        Some(_) => Err(Failure::Usage(format!(
            "{} holds a token with blanks or characters that no header can carry",
            file.display()
        ))),
        None if tokens.is_empty() => Err(Failure::Usage(format!(
            "{} holds no token; `head -c 32 /dev/urandom | base64 > FILE` makes one",
            file.display()
        ))),
        None => Ok(tokens.into_iter().map(Token::new).collect()),
    }
}
