//! The program as a server on a store of its own, and a client that speaks HTTP byte by byte.
//!
//! Contract: the server listens at a port of its own choice and dies with this value; the client sends what it is told,
//! sense or not. Included by path.
#![allow(dead_code)]

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// Whoever waits longer hangs.
const PATIENCE: Duration = Duration::from_secs(120);

/// The command that starts a server, with nothing of the tester's environment that could change it.
pub fn command(store: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mlrs-db"));
    command.arg("--store").arg(store).args(["server", "--port", "0", "--json", "--quiet"]).args(arguments);
    for variable in ["MLRS_DB_STORE", "MLFLOW_SERVER_ALLOWED_HOSTS", "MLFLOW_SERVER_CORS_ALLOWED_ORIGINS"] {
        command.env_remove(variable);
    }
    command.stdin(Stdio::null());
    command
}

pub struct Served {
    child: Child,
    pub url: String,
    /// Where it listens: host and port.
    pub address: String,
    pub said: Value,
}

impl Served {
    /// A server without pages.
    pub fn start(store: &Path, arguments: &[&str]) -> Self {
        Self::run(command(store, &[&["--ui", "off"], arguments].concat()))
    }

    pub fn run(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().expect("the program starts");
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let said: Value = serde_json::from_str(&line).unwrap_or_else(|_| panic!("no line: {line}"));
        let text = |name: &str| said[name].as_str().unwrap().to_owned();
        Self { child, url: text("url"), address: text("address"), said }
    }

    pub fn client(&self) -> Client {
        let stream = TcpStream::connect(&self.address).expect("the server accepts");
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Client { stream, host: self.address.clone() }
    }

    /// One request on a connection of its own.
    pub fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Response {
        self.client().ask(method, path, headers, body)
    }

    pub fn get(&self, path: &str) -> Response {
        self.ask("GET", path, &[], b"")
    }

    /// A POST of JSON that must succeed; `path` is below `/api/2.0/mlflow/`.
    pub fn post(&self, path: &str, body: Value) -> Value {
        self.client().post(path, body)
    }

    /// A line of `/proc/PID/status`, in KiB.
    pub fn memory_kib(&self, name: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with(name)).expect("a line of that name");
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    pub fn terminate(&self) {
        let sent = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Waits for its end.
    pub fn ended(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "the server does not end");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub fn stop(&mut self) {
        self.terminate();
        let status = self.ended();
        assert!(status.success(), "{status}");
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[derive(Debug)]
pub struct Response {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Response {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("text")
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }

    /// Status and error code of an error in MLflow's shape.
    pub fn error(&self) -> (u16, String) {
        let json = self.json();
        assert!(json["message"].as_str().is_some_and(|text| !text.is_empty()), "{json}");
        (self.status, json["error_code"].as_str().expect("an error code").to_owned())
    }
}

/// A connection that is kept.
pub struct Client {
    pub stream: TcpStream,
    host: String,
}

impl Client {
    /// Sends a head and, as it is, a body.
    pub fn send(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> std::io::Result<()> {
        let mut head = format!("{method} {path} HTTP/1.1\r\n");
        let has = |name: &str| headers.iter().any(|(known, _)| known.eq_ignore_ascii_case(name));
        if !has("host") {
            head += &format!("Host: {}\r\n", self.host);
        }
        if !has("content-type") && !body.is_empty() {
            head += "Content-Type: application/json\r\n";
        }
        if !has("content-length") && !has("transfer-encoding") {
            head += &format!("Content-Length: {}\r\n", body.len());
        }
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        let mut bytes = (head + "\r\n").into_bytes();
        bytes.extend_from_slice(body);
        self.stream.write_all(&bytes)
    }

    pub fn ask(&mut self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Response {
        self.send(method, path, headers, body).expect("the server reads");
        self.receive(method == "HEAD").expect("an answer")
    }

    pub fn post(&mut self, path: &str, body: Value) -> Value {
        let answer = self.ask("POST", &format!("/api/2.0/mlflow/{path}"), &[], body.to_string().as_bytes());
        assert_eq!(answer.status, 200, "{path} {body}: {answer:?}");
        answer.json()
    }

    /// Reads one answer; an answer to HEAD has no body.
    pub fn receive(&mut self, is_head: bool) -> std::io::Result<Response> {
        let mut bytes = Vec::new();
        let mut buffer = vec![0u8; 64 * 1024];
        let head_end = loop {
            if let Some(at) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
                // "100 Continue" comes before the answer.
                if bytes.starts_with(b"HTTP/1.1 100") {
                    bytes.drain(..at + 4);
                    continue;
                }
                break at;
            }
            match self.stream.read(&mut buffer)? {
                0 => return Err(ErrorKind::UnexpectedEof.into()),
                read => bytes.extend_from_slice(&buffer[..read]),
            }
        };
        let head = String::from_utf8(bytes[..head_end].to_vec()).expect("a head in UTF-8");
        let mut lines = head.lines();
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let header = |line: &str| {
            let (name, value) = line.split_once(':').expect("a header");
            (name.to_ascii_lowercase(), value.trim().to_owned())
        };
        let headers: Vec<(String, String)> = lines.map(header).collect();
        let mut body = bytes[head_end + 4..].to_vec();
        let length =
            headers.iter().find(|(name, _)| name == "content-length").map_or("0", |(_, value)| value);
        let length: usize = if is_head { 0 } else { length.parse().unwrap() };
        while body.len() < length {
            match self.stream.read(&mut buffer)? {
                0 => return Err(ErrorKind::UnexpectedEof.into()),
                read => body.extend_from_slice(&buffer[..read]),
            }
        }
        assert_eq!(body.len(), length, "more than one answer");
        Ok(Response { status, headers, body })
    }

    pub fn end_sending(&self) {
        self.stream.shutdown(Shutdown::Write).unwrap();
    }
}

/// A directory on a disk: what is uploaded here may be too large for a `/tmp` in memory.
pub fn scratch() -> tempfile::TempDir {
    tempfile::TempDir::with_prefix_in("server-", env!("CARGO_TARGET_TMPDIR")).expect("a scratch directory")
}

/// Where the store of a scratch directory is.
pub fn store_in(scratch: &tempfile::TempDir) -> PathBuf {
    scratch.path().join("store")
}
