//! What kind of content a file has, by its name.
//!
//! Contract: artifacts that people read are `text/plain`, as in MLflow, whose pages count on it; what is not known is
//! bytes. Nobody's artifact is a page or a script.

/// Extensions of text, and whole names of files without one.
const TEXT: &[&str] = &[
    "MLmodel",
    "MLproject",
    "mlproject",
    "cfg",
    "cnf",
    "conf",
    "config",
    "csv",
    "err",
    "hocon",
    "html",
    "ini",
    "js",
    "json",
    "jsonl",
    "log",
    "md",
    "prop",
    "properties",
    "py",
    "rst",
    "sh",
    "sql",
    "toml",
    "tsv",
    "txt",
    "xml",
    "yaml",
    "yml",
];
const OTHERS: &[(&str, &str)] = &[
    ("gif", "image/gif"),
    ("gz", "application/gzip"),
    ("jpeg", "image/jpeg"),
    ("jpg", "image/jpeg"),
    ("mp3", "audio/mpeg"),
    ("mp4", "video/mp4"),
    ("pdf", "application/pdf"),
    ("png", "image/png"),
    ("svg", "image/svg+xml"),
    ("tar", "application/x-tar"),
    ("wav", "audio/x-wav"),
    ("webm", "video/webm"),
    ("webp", "image/webp"),
    ("zip", "application/zip"),
];
const PAGES: &[(&str, &str)] = &[
    ("css", "text/css; charset=utf-8"),
    ("html", "text/html; charset=utf-8"),
    ("ico", "image/x-icon"),
    ("js", "text/javascript; charset=utf-8"),
    ("json", "application/json"),
    ("map", "application/json"),
    ("mjs", "text/javascript; charset=utf-8"),
    ("txt", "text/plain; charset=utf-8"),
    ("wasm", "application/wasm"),
    ("woff", "font/woff"),
    ("woff2", "font/woff2"),
];
const BYTES: &str = "application/octet-stream";

fn extension(name: &str) -> &str {
    name.rsplit_once('.').map_or(name, |(_, extension)| extension)
}

fn known(table: &[(&str, &'static str)], extension: &str) -> Option<&'static str> {
    table.iter().find(|(known, _)| known.eq_ignore_ascii_case(extension)).map(|(_, media_type)| *media_type)
}

/// Of an artifact.
pub(super) fn of_artifact(name: &str) -> &'static str {
    let extension = extension(name);
    if TEXT.contains(&extension) || TEXT.contains(&extension.to_ascii_lowercase().as_str()) {
        return "text/plain";
    }
    known(OTHERS, extension).unwrap_or(BYTES)
}

/// Of a file of the pages.
pub(super) fn of_page(name: &str) -> &'static str {
    let extension = extension(name);
    known(PAGES, extension).or_else(|| known(OTHERS, extension)).unwrap_or(BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn artifacts_are_text_pictures_or_bytes() {
        for (name, media_type) in [
            ("MLmodel", "text/plain"),
            ("conda.yaml", "text/plain"),
            ("page.html", "text/plain"),
            ("a.PNG", "image/png"),
            ("model.pkl", "application/octet-stream"),
            ("", "application/octet-stream"),
        ] {
            assert_eq!(of_artifact(name), media_type, "{name}");
        }
        assert_eq!(of_page("main.js"), "text/javascript; charset=utf-8");
    }
}
