//! House style, checked: which part may name which, where outside crates may appear, and how files look.
//!
//! Contract: reads `src/` of this package and nothing else; every rule is shown to fire by an example in memory. The
//! rules look at code with comments and strings masked, and at test code (`#[cfg(test)]`) only where they say so. A
//! line that has to unwrap says why: `// tidy: allow(unwrap): the reason`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The parts from the bottom up; a part may name its own row and the rows before it.
const PARTS: &[&[&str]] = &[
    &["error", "limits", "id", "sync"],
    &["model"],
    &["codec"],
    &["format"],
    &["vfs"],
    &["log"],
    &["catalog"],
    &["index"],
    &["query"],
    &["mlruns"],
    &["store"],
    &["mlflow"],
    &["server"],
    &["cli"],
];

/// Outside paths and the places that may name them. `error.rs` knows the numbers of ENOSPC and EDQUOT.
const HOMES: &[(&str, &[&str])] = &[
    ("redb", &["src/index"]),
    ("loom", &["src/sync.rs"]),
    ("libc", &["src/vfs", "src/error.rs"]),
    ("memmap2", &["src/vfs"]),
    // The index hands redb the file it was given.
    // What lies outside of stores: trees, and where they are exported to.
    // And what MLflow's package has for browsers.
    ("std::fs", &["src/vfs", "src/index", "src/mlruns", "src/store/trees.rs", "src/server/ui.rs", "src/cli"]),
    ("bincode", &["src/format"]),
    ("zstd", &["src/codec", "src/format"]),
    ("clap", &["src/cli", "src/main.rs"]),
    ("clap_complete", &["src/cli"]),
    ("clap_mangen", &["src/cli"]),
    ("indicatif", &["src/cli"]),
    ("comfy_table", &["src/cli"]),
    ("axum", &["src/server"]),
    ("hyper", &["src/server"]),
    ("hyper_util", &["src/server"]),
    ("tokio", &["src/server"]),
];

const UNSAFE_HOMES: &[&str] = &["src/vfs", "src/codec/simd"];
const COLUMNS_MAX: usize = 120;
const FILE_LINES_MAX: usize = 650;
/// More lines than this without tests are noted (`--nocapture` shows it), not refused.
const FILE_CODE_LINES_MAX: usize = 500;
/// A line that holds a longer string may be longer: rustfmt does not break strings.
const UNBREAKABLE_STRING: usize = 60;

/// What the rules need to know of the whole crate.
#[derive(Default)]
struct Crate {
    /// Names that `lib.rs` re-exports, and the part they come from.
    reexports: BTreeMap<String, String>,
    /// Modules of `lib.rs` that are not public.
    private: BTreeSet<String>,
    /// Files that are test code as a whole (`#[cfg(test)] mod tests;`).
    test_files: BTreeSet<String>,
}

/// A word or a character of code.
#[derive(Clone, Debug, PartialEq)]
struct Token<'a> {
    text: &'a str,
    line: usize,
    at: usize,
}

/// Code without its comments and strings, character by character in the same places.
fn mask(source: &str) -> String {
    let bytes = source.as_bytes();
    let at = |i: usize| bytes.get(i).copied().unwrap_or(0);
    let mut masked = bytes.to_vec();
    let mut i = 0;
    let word = |i: usize| at(i).is_ascii_alphanumeric() || at(i) == b'_';
    while i < bytes.len() {
        let start = i;
        let prefix = if at(i) == b'b' || at(i) == b'c' { 1 } else { 0 };
        let hashes = |from: usize| (from..).take_while(|&j| at(j) == b'#').count();
        let fresh = i == 0 || !word(i - 1);
        if at(i) == b'/' && at(i + 1) == b'/' {
            i = (i..bytes.len()).find(|&j| at(j) == b'\n').unwrap_or(bytes.len());
        } else if at(i) == b'/' && at(i + 1) == b'*' {
            let mut depth = 0;
            loop {
                match (at(i), at(i + 1)) {
                    (b'/', b'*') => (depth, i) = (depth + 1, i + 2),
                    (b'*', b'/') => (depth, i) = (depth - 1, i + 2),
                    _ => i += 1,
                }
                if depth == 0 || i >= bytes.len() {
                    break;
                }
            }
        } else if fresh && at(i + prefix) == b'r' && at(i + prefix + 1 + hashes(i + prefix + 1)) == b'"' {
            let count = hashes(i + prefix + 1);
            let close = format!("\"{}", "#".repeat(count));
            let body = i + prefix + count + 2;
            i = source
                .get(body..)
                .and_then(|rest| rest.find(&close))
                .map_or(bytes.len(), |n| body + n + close.len());
        } else if at(i) == b'"' {
            i += 1;
            while i < bytes.len() && at(i) != b'"' {
                i += if at(i) == b'\\' { 2 } else { 1 };
            }
            i += 1;
        } else if at(i) == b'\'' {
            let quoted = source.get(i + 1..).and_then(|rest| rest.chars().next()).map_or(0, char::len_utf8);
            if at(i + 1) == b'\\' {
                i += 3;
                while i < bytes.len() && at(i) != b'\'' {
                    i += 1;
                }
                i += 1;
            } else if at(i + 1 + quoted) == b'\'' {
                i += quoted + 2;
            } else {
                // A lifetime.
                i += 1;
                continue;
            }
        } else {
            i += 1;
            continue;
        }
        i = i.min(bytes.len());
        for byte in &mut masked[start..i] {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
    }
    String::from_utf8_lossy(&masked).into_owned()
}

fn tokens(masked: &str) -> Vec<Token<'_>> {
    let (mut found, mut line, mut skip) = (Vec::new(), 1, 0);
    for (at, c) in masked.char_indices() {
        if c == '\n' {
            line += 1;
        }
        if at < skip || c.is_whitespace() {
            continue;
        }
        let rest = &masked[at..];
        let len = match rest.find(|c: char| !(c.is_alphanumeric() || c == '_')) {
            _ if rest.starts_with("::") => 2,
            Some(0) => c.len_utf8(),
            Some(len) => len,
            None => rest.len(),
        };
        found.push(Token { text: &rest[..len], line, at });
        skip = at + len;
    }
    found
}

fn is_word(text: &str) -> bool {
    text.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// Position of the bracket that closes the one at `open`.
fn closing(tokens: &[Token<'_>], open: usize) -> usize {
    let mut depth = 0usize;
    for (index, token) in tokens.iter().enumerate().skip(open) {
        match token.text {
            "{" | "(" | "[" => depth += 1,
            "}" | ")" | "]" => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return index;
        }
    }
    tokens.len().saturating_sub(1)
}

/// The tokens split into those of test items (`#[cfg(test)]`, `#[cfg(all(test, ..))]`) and the others; the names of
/// test modules in files of their own; the lines of test items.
fn split_tests<'a>(all: &[Token<'a>]) -> (Vec<Token<'a>>, Vec<String>, BTreeSet<usize>) {
    let (mut code, mut modules, mut lines) = (Vec::new(), Vec::new(), BTreeSet::new());
    let mut index = 0;
    while index < all.len() {
        let attribute = all[index].text == "#" && all.get(index + 1).is_some_and(|t| t.text == "[");
        let close = if attribute { closing(all, index + 1) } else { index };
        let words: Vec<&str> = all[index..=close].iter().map(|t| t.text).collect();
        let is_test = words.get(2) == Some(&"cfg") && words.contains(&"test") && !words.contains(&"not");
        if !is_test {
            code.push(all[index].clone());
            index += 1;
            continue;
        }
        let mut end = close + 1;
        while end < all.len() && all[end].text != ";" && all[end].text != "{" {
            end = if all[end].text == "[" || all[end].text == "(" { closing(all, end) } else { end } + 1;
        }
        if all.get(end).is_some_and(|t| t.text == "{") {
            end = closing(all, end);
        } else if end >= 2 && all[end - 2].text == "mod" {
            modules.push(all[end - 1].text.to_owned());
        }
        let last = all.get(end).or(all.last()).map_or(0, |t| t.line);
        lines.extend(all[index].line..=last);
        index = end + 1;
    }
    (code, modules, lines)
}

/// Every path of two or more words, groups (`a::{b, c::d}`) written out, and single words after `use`.
fn paths(tokens: &[Token<'_>]) -> Vec<(usize, Vec<String>)> {
    fn tree(
        tokens: &[Token<'_>],
        mut index: usize,
        prefix: &[String],
        found: &mut Vec<(usize, Vec<String>)>,
    ) -> usize {
        let mut path = prefix.to_vec();
        let line = tokens[index].line;
        loop {
            match tokens.get(index).map(|t| t.text) {
                Some("{") => {
                    let end = closing(tokens, index);
                    index += 1;
                    while index < end {
                        let starts = is_word(tokens[index].text) || ["{", "::"].contains(&tokens[index].text);
                        index = if starts { tree(tokens, index, &path, found) } else { index + 1 };
                    }
                    return end + 1;
                }
                Some(text) if is_word(text) => path.push(text.to_owned()),
                Some("::") if path.len() == prefix.len() => {
                    index += 1;
                    continue;
                }
                _ => {}
            }
            if tokens.get(index + 1).is_some_and(|t| t.text == "::") {
                index += 2;
                let goes_on = tokens.get(index).is_some_and(|t| is_word(t.text) || t.text == "{");
                if goes_on {
                    continue;
                }
            } else {
                index += 1;
            }
            found.push((line, path));
            return index.max(1);
        }
    }
    let mut found = Vec::new();
    let mut index = 0;
    while index < tokens.len() {
        let after_use = index > 0 && tokens[index - 1].text == "use";
        if !is_word(tokens[index].text) {
            index += 1;
            continue;
        }
        let mut here = Vec::new();
        let next = tree(tokens, index, &[], &mut here);
        found.extend(here.into_iter().filter(|(_, path)| path.len() > 1 || after_use));
        index = next.max(index + 1);
    }
    found
}

fn rank(part: &str) -> Option<usize> {
    PARTS.iter().position(|row| row.contains(&part))
}

/// The part a file belongs to, and how many modules down from the crate it is.
fn part_of(path: &str) -> (&str, usize) {
    let inner = path.strip_prefix("src/").unwrap_or(path);
    let inner = inner.strip_suffix(".rs").unwrap_or(inner);
    let inner = inner.strip_suffix("/mod").unwrap_or(inner);
    (inner.split('/').next().unwrap_or(inner), inner.split('/').count())
}

fn lives_in(path: &str, homes: &[&str]) -> bool {
    homes.iter().any(|home| path.starts_with(home))
}

/// All violations of one file, as `path:line: what`.
fn check(path: &str, source: &str, known: &Crate) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut report = |line: usize, what: String| wrong.push(format!("{path}:{line}: {what}"));
    let masked = mask(source);
    let all = tokens(&masked);
    let (mut code, _, mut test_lines) = split_tests(&all);
    let lines: Vec<&str> = source.lines().collect();
    if known.test_files.contains(path) {
        code.clear();
        test_lines.extend(1..=lines.len());
    }

    if !source.starts_with("//!") {
        report(1, "does not start with a //! line that says what the file is for".into());
    }
    check_paths(path, &code, known, &mut report);
    check_unsafe(path, &all, &lines, &mut report);

    for (number, line) in (1..).zip(&lines) {
        let in_test = test_lines.contains(&number);
        if !in_test && !line.is_ascii() {
            report(number, "not ASCII: write \\u{..}".into());
        }
        let masked_line = masked.lines().nth(number - 1).unwrap_or_default();
        if line.chars().count() > COLUMNS_MAX && longest_string(line, masked_line) < UNBREAKABLE_STRING {
            report(number, format!("longer than {COLUMNS_MAX} columns"));
        }
        for word in ["FIXME", "XXX"] {
            let whole = |at: usize| {
                !line[..at].ends_with(char::is_alphanumeric)
                    && !line[at + word.len()..].starts_with(char::is_alphanumeric)
            };
            if line.match_indices(word).any(|(at, _)| whole(at)) {
                report(number, format!("{word}: do it, or open an issue"));
            }
        }
    }
    if lines.len() > FILE_LINES_MAX {
        report(lines.len(), format!("longer than {FILE_LINES_MAX} lines: split it by concept"));
    }
    let vague =
        |name: &str| ["util", "helper", "manager"].iter().any(|v| name == *v || name == format!("{v}s"));
    let stem = path.trim_end_matches(".rs").trim_end_matches("/mod").rsplit('/').next().unwrap_or_default();
    if vague(stem) {
        report(1, format!("'{stem}' says nothing: name the module after its concept"));
    }
    for (index, token) in code.iter().enumerate() {
        let next = |n: usize| code.get(index + n).map_or("", |t| t.text);
        if ["todo", "unimplemented", "dbg"].contains(&token.text) && next(1) == "!" {
            report(token.line, format!("{}! outside tests", token.text));
        }
        if token.text == "mod" && vague(next(1)) {
            report(token.line, format!("'{}' says nothing: name the module after its concept", next(1)));
        }
        let panics = token.text == "." && ["unwrap", "expect"].contains(&next(1)) && next(2) == "(";
        let call_line = code.get(index + 1).map_or(token.line, |t| t.line);
        let allowed = lines.get(call_line - 1).is_some_and(|line| line.contains("// tidy: allow(unwrap): "));
        if panics && !allowed {
            report(call_line, format!(".{}() outside tests", next(1)));
        }
    }
    wrong
}

/// Lines of a file that are not test code.
fn code_lines(path: &str, source: &str, known: &Crate) -> usize {
    let masked = mask(source);
    let (_, _, test_lines) = split_tests(&tokens(&masked));
    if known.test_files.contains(path) { 0 } else { source.lines().count().saturating_sub(test_lines.len()) }
}

/// Imports: upwards only, and outside crates only at home.
fn check_paths(path: &str, code: &[Token<'_>], known: &Crate, report: &mut impl FnMut(usize, String)) {
    let (part, depth) = part_of(path);
    let root = path == "src/lib.rs" || path == "src/main.rs";
    for (line, words) in paths(code) {
        let supers = words.iter().take_while(|word| *word == "super").count();
        if supers >= depth && !root {
            report(line, "reaches another part through super::; write crate::".into());
        }
        if words[0] == "crate" && !root {
            let name = words.get(1).map_or("", String::as_str);
            let target = known.reexports.get(name).map_or(name, String::as_str);
            match (rank(part), rank(target)) {
                (None, _) => report(line, format!("'{part}' is not a known part")),
                (_, None) => report(line, format!("'crate::{name}' belongs to no known part")),
                (Some(own), Some(other)) if other > own => {
                    report(line, format!("'{part}' must not know '{target}', which is above it"));
                }
                _ => {}
            }
            if part == "cli" && known.private.contains(target) {
                report(line, format!("cli uses the public API only, '{target}' is private"));
            }
        }
        for (outside, homes) in HOMES {
            if words.join("::").split("::").take(outside.split("::").count()).eq(outside.split("::"))
                && !lives_in(path, homes)
            {
                report(line, format!("'{outside}' may only be named in {}", homes.join(", ")));
            }
        }
    }
}

/// `unsafe` only at home, and each block with its reason.
fn check_unsafe(path: &str, all: &[Token<'_>], lines: &[&str], report: &mut impl FnMut(usize, String)) {
    for (index, token) in all.iter().enumerate().filter(|(_, token)| token.text == "unsafe") {
        if !lives_in(path, UNSAFE_HOMES) {
            report(token.line, format!("unsafe outside {}", UNSAFE_HOMES.join(", ")));
        }
        let next = all.get(index + 1).map_or("", |t| t.text);
        // Three lines, and further up as long as it is one comment.
        let above: Vec<&str> = lines.iter().take(token.line).rev().map(|line| line.trim_start()).collect();
        let in_one_comment = |at: usize| above[3..=at].iter().all(|line| line.starts_with("//"));
        let mut near = above.iter().enumerate().take_while(|&(at, _)| at <= 3 || in_one_comment(at));
        let explained = near.any(|(_, line)| line.contains("SAFETY"));
        if ["{", "impl"].contains(&next) && !explained {
            report(token.line, "unsafe without a SAFETY comment within 3 lines above".into());
        }
    }
}

/// Length of the longest masked stretch between two quotes, or of a comment's last word (a long link).
fn longest_string(line: &str, masked: &str) -> usize {
    if line.trim_start().starts_with("//") {
        return line.split_whitespace().map(str::len).max().unwrap_or(0);
    }
    // Strings are where the code's characters are blank and the line's are not.
    let (mut longest, mut run) = (0, 0);
    for (a, b) in line.chars().zip(masked.chars()) {
        run = if b == ' ' && (a != ' ' || run > 0) { run + 1 } else { 0 };
        longest = longest.max(run);
    }
    longest
}

/// What `lib.rs` says of the crate, and which files are tests.
fn survey(files: &BTreeMap<String, String>) -> Crate {
    let mut known = Crate::default();
    if let Some(lib) = files.get("src/lib.rs") {
        let masked = mask(lib);
        let all = tokens(&masked);
        for (_, words) in paths(&all) {
            let words: Vec<String> =
                words.into_iter().filter(|word| word != "crate" && word != "self").collect();
            if let [part, .., name] = words.as_slice()
                && rank(part).is_some()
            {
                known.reexports.insert(name.clone(), part.clone());
            }
        }
        for (index, token) in all.iter().enumerate() {
            if token.text == "mod" && (index == 0 || all[index - 1].text != "pub") {
                known.private.extend(all.get(index + 1).map(|t| t.text.to_owned()));
            }
        }
    }
    for (path, source) in files {
        let masked = mask(source);
        let (_, modules, _) = split_tests(&tokens(&masked));
        let stem = path.strip_suffix(".rs").unwrap_or(path);
        let folder = match stem.rsplit_once('/') {
            Some((folder, "mod" | "lib" | "main")) => folder,
            _ => stem,
        };
        for module in modules {
            known.test_files.insert(format!("{folder}/{module}.rs"));
            known.test_files.insert(format!("{folder}/{module}/mod.rs"));
        }
    }
    known
}

fn read(folder: &Path, root: &Path, files: &mut BTreeMap<String, String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path: PathBuf = entry.unwrap().path();
        if path.is_dir() {
            read(&path, root, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let name = path.strip_prefix(root).unwrap().to_str().unwrap().replace('\\', "/");
            files.insert(name, fs::read_to_string(&path).unwrap());
        }
    }
}

#[test]
fn the_source_keeps_the_house_style() {
    let root = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").unwrap());
    let mut files = BTreeMap::new();
    read(&root.join("src"), &root, &mut files);
    assert!(files.contains_key("src/lib.rs"), "no source found under {}", root.display());
    let known = survey(&files);
    let wrong: Vec<String> = files.iter().flat_map(|(path, source)| check(path, source, &known)).collect();
    for (path, source) in &files {
        let lines = code_lines(path, source, &known);
        if lines > FILE_CODE_LINES_MAX {
            println!("note: {path}: {lines} lines without tests, more than {FILE_CODE_LINES_MAX}");
        }
    }
    assert!(wrong.is_empty(), "{} violations:\n{}", wrong.len(), wrong.join("\n"));
}

/// Violations of a file with a proper first line, without the path.
fn found(path: &str, body: &str) -> Vec<String> {
    let mut known = Crate::default();
    known.reexports.insert("Error".into(), "error".into());
    known.reexports.insert("Store".into(), "store".into());
    known.private.insert("index".into());
    let wrong = check(path, &format!("//! A file.\n{body}"), &known);
    wrong.iter().map(|text| text.trim_start_matches(path).trim_start_matches(':').to_owned()).collect()
}

#[track_caller]
fn fires(path: &str, body: &str, expected: &str) {
    let wrong = found(path, body);
    assert!(
        wrong.iter().any(|text| text.contains(expected)),
        "{body}\n  expected {expected}, found {wrong:?}"
    );
}

#[track_caller]
fn silent(path: &str, body: &str) {
    assert_eq!(found(path, body), Vec::<String>::new(), "{body}");
}

#[test]
fn parts_name_only_parts_below_them() {
    let log = "src/log/segment.rs";
    silent(
        log,
        "use crate::error::Result;\nuse crate::{Error, format::{Frame, event::Event}, vfs::Vfs, log::live::Live};",
    );
    fires(log, "use crate::store::Store;", "2: 'log' must not know 'store'");
    fires(log, "use crate::Store;", "'log' must not know 'store'");
    fires(
        log,
        "use crate::{\n    error::Result,\n    catalog::{State, Claims},\n};",
        "4: 'log' must not know 'catalog'",
    );
    fires(log, "fn f() { let x = crate::query::search(1); }", "'log' must not know 'query'");
    fires(log, "use crate::misc::X;", "'crate::misc' belongs to no known part");
    fires("src/misc.rs", "use crate::error::Error;", "'misc' is not a known part");
    fires("src/log/mod.rs", "use super::store::Store;", "through super::");
    fires(log, "use super::super::store::Store;", "through super::");
    silent("src/log/mod.rs", "pub(super) fn f() {}");
    silent(log, "use super::live::Live;");
    silent("src/store/trees.rs", "use crate::mlruns::Entities;");
    fires("src/mlruns/import.rs", "use crate::store::Store;", "must not know");
    silent("src/id.rs", "use crate::error::Result;");
    // Neither text nor comments nor tests are imports.
    silent(log, "// crate::store\nconst X: &str = \"crate::store::Store\";");
    silent(log, "#[cfg(test)]\nmod tests {\n    use crate::store::Store;\n    fn f() { { } }\n}");
    fires(log, "#[cfg(test)]\nmod tests {\n    fn f() { \"}\"; }\n}\nuse crate::store::Store;", "6: ");
    fires(log, "#[cfg(not(test))]\nuse crate::store::Store;", "must not know");
    fires("src/cli/mod.rs", "use crate::index::Index;", "cli uses the public API only");
    silent("src/cli/mod.rs", "use crate::store::Store;");
}

#[test]
fn outside_crates_stay_at_home() {
    for (path, body, outside) in [
        ("src/store/mod.rs", "use redb::Database;", "redb"),
        ("src/store/mod.rs", "fn f() -> ::redb::Database { todo() }", "redb"),
        ("src/log/mod.rs", "use std::{io, fs::File};", "std::fs"),
        ("src/log/mod.rs", "use std::fs;", "std::fs"),
        ("src/log/mod.rs", "fn f() { std::fs::read(p) }", "std::fs"),
        ("src/log/mod.rs", "const N: i32 = libc::ENOSPC;", "libc"),
        ("src/codec/mod.rs", "use bincode as b;", "bincode"),
        ("src/log/mod.rs", "use zstd::bulk;", "zstd"),
        ("src/log/mod.rs", "use memmap2::MmapMut;", "memmap2"),
        ("src/store/mod.rs", "use clap::Parser;", "clap"),
    ] {
        fires(path, body, &format!("'{outside}' may only be named in"));
    }
    silent("src/index/mod.rs", "use redb::Database;");
    silent("src/mlruns/mod.rs", "use std::fs;");
    silent("src/error.rs", "const N: i32 = libc::ENOSPC;");
    silent("src/codec/column.rs", "use zstd::bulk;");
    silent("src/log/mod.rs", "fn f() { let redb = 1; redb.x(); std::fmt::format(y); std::io::stdin(); }");
}

#[test]
fn unsafe_is_rare_and_explained() {
    fires("src/log/mod.rs", "// SAFETY: no.\nfn f() { unsafe { g() } }", "unsafe outside src/vfs");
    fires("src/codec/column.rs", "// SAFETY: no.\nfn f() { unsafe { g() } }", "unsafe outside src/vfs");
    fires("src/vfs/os.rs", "fn f() { unsafe { g() } }", "2: unsafe without a SAFETY comment");
    fires(
        "src/vfs/os.rs",
        "// SAFETY: far away\n\n\n\nunsafe impl Send for X {}",
        "unsafe without a SAFETY comment",
    );
    let more = "// More.\n".repeat(9);
    silent("src/vfs/os.rs", &format!("// SAFETY: g is fine.\n{more}fn f() {{ unsafe {{ g() }} }}"));
    silent("src/vfs/os.rs", "// SAFETY: g is fine.\n// More of it.\nfn f() { unsafe { g() } }");
    silent("src/codec/simd_x86.rs", "/// # Safety\n/// AVX2.\nunsafe fn f() {}");
    silent("src/log/mod.rs", "// unsafe { }\nconst X: &str = \"unsafe {\";");
}

#[test]
fn files_have_a_shape() {
    let long = "x".repeat(COLUMNS_MAX - 4);
    fires("src/model.rs", "const E: char = '\u{e9}';", "2: not ASCII");
    fires("src/model.rs", "// \u{e9}", "not ASCII");
    silent("src/model.rs", "#[cfg(test)]\nmod tests {\n    const E: char = '\u{e9}';\n}");
    fires("src/model.rs", "#[cfg(test)]\nmod tests {\n}\n// \u{e9}", "5: not ASCII");
    silent("src/model.rs", &format!("// {}", "x ".repeat(50)));
    fires("src/model.rs", &format!("// {}", "x ".repeat(60)), "longer than 120 columns");
    fires("src/model.rs", &format!("let {long} = 1;"), "longer than 120 columns");
    silent("src/model.rs", &format!("#[error(\"{long}\", path.display())]"));
    let tests = |lines: usize| format!("#[cfg(test)]\nmod tests {{\n{}}}\n", "f();\n".repeat(lines));
    silent("src/model.rs", &tests(FILE_LINES_MAX - 4));
    fires("src/model.rs", &tests(FILE_LINES_MAX - 3), "longer than 650 lines");
    let half = format!("f();\n\n{}", tests(9));
    assert_eq!(code_lines("src/model.rs", &half, &Crate::default()), 2);
    let test_file = Crate { test_files: ["src/model.rs".to_owned()].into(), ..Crate::default() };
    assert_eq!(code_lines("src/model.rs", &half, &test_file), 0);
    let wrong = check("src/model.rs", "use std::io;\n//! Late.", &Crate::default());
    assert_eq!(wrong, ["src/model.rs:1: does not start with a //! line that says what the file is for"]);
}

#[test]
fn banned_words_and_panics() {
    let path = "src/store/mod.rs";
    for (body, what) in [
        ("fn f() { todo!() }", "todo! outside tests"),
        ("fn f() { unimplemented!(\"x\") }", "unimplemented! outside tests"),
        ("fn f() { dbg!(x); }", "dbg! outside tests"),
        ("// FIXME later", "FIXME"),
        ("// XXX", "XXX"),
        ("// XXX: later", "XXX"),
        ("mod util;", "'util' says nothing"),
        ("pub mod helpers { }", "'helpers' says nothing"),
        ("fn f() { x.unwrap(); }", "2: .unwrap() outside tests"),
        ("fn f() { x\n    .expect(\"y\"); }", "3: .expect() outside tests"),
        ("fn f() { x.unwrap(); // tidy: allow(unwrap)\n}", ".unwrap() outside tests"),
    ] {
        fires(path, body, what);
    }
    fires("src/store/manager.rs", "", "'manager' says nothing");
    fires("src/store/utils/mod.rs", "", "'utils' says nothing");
    silent(path, "fn f() { x.unwrap(); // tidy: allow(unwrap): the lock is never poisoned\n}");
    silent(path, "// as `\\UXXXXXXXX`");
    silent(path, "fn f() { x.unwrap_or(1); x.expect_err(); todo(); let dbg = !x; }");
    silent(path, "#[cfg(test)]\nmod tests {\n    fn f() { x.unwrap(); todo!() }\n}");
    silent(path, "#[cfg(test)]\nfn f() { x.unwrap(); }\nfn g() {}");
    silent(path, "/// `x.unwrap()` panics.\nconst X: &str = r#\"todo!() \"quoted\" .unwrap()\"#;");
}

#[test]
fn masks_hide_text_and_nothing_else() {
    for (source, code) in [
        ("a // b\nc", "a     \nc"),
        ("a /* b /* c */ d */ e", "a                   e"),
        (r#"f("a\"b", 'c', '\'', b"d")"#, "f(      ,    ,     , b   )"),
        (r##"f(r#"a"b"#, x)"##, "f(        , x)"),
        ("fn f<'a>(x: &'a str) {}", "fn f<'a>(x: &'a str) {}"),
        ("number\"x\"", "number   "),
    ] {
        assert_eq!(mask(source), code, "{source}");
    }
}

#[test]
fn a_survey_knows_reexports_private_modules_and_test_files() {
    let files = [
        (
            "src/lib.rs",
            "pub mod store;\nmod index;\npub use error::{Error, Result};\npub use store::run::Run;\n",
        ),
        ("src/log/mod.rs", "mod live;\n#[cfg(test)]\nmod tests;\n"),
        ("src/log/live.rs", "#[cfg(all(test, feature = \"x\"))]\nmod loom;\n"),
    ];
    let known = survey(&files.map(|(path, text)| (path.to_owned(), text.to_owned())).into());
    let part = |name: &str| known.reexports.get(name).map(String::as_str);
    assert_eq!((part("Error"), part("Result"), part("Run")), (Some("error"), Some("error"), Some("store")));
    assert!(known.private.contains("index") && !known.private.contains("store"));
    assert!(
        known.test_files.contains("src/log/tests.rs") && known.test_files.contains("src/log/live/loom.rs")
    );
    let wrong =
        check("src/log/tests.rs", "//! Tests.\nuse crate::store::Store;\nfn f() { x.unwrap(); }\n", &known);
    assert_eq!(wrong, Vec::<String>::new());
}
