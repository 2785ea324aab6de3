//! Holds the source tree to the design: who may use whom, what the domain may not touch, where the
//! outside world is named, and that no file is dead.
//!
//! The checker is a function over (path, text) pairs, so the tests at the bottom plant each kind of
//! offence in a small tree and see it found; the first test runs it over the real one.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// The layer table: what a folder (or file) of `src/` may use of the others. A path of several
/// segments allows that part only. `storage` is the storage crate.
const LAYERS: &[(&str, &[&str])] = &[
    ("main", &["cli", "node", "client", "config", "telemetry", "storage::inspect"]),
    (
        "cli",
        &[
            "node",
            "client",
            "config",
            "telemetry",
            "storage::inspect",
            "supervisor",
            "transport::tls",
            "transport::certificate",
            "transport::TlsError",
            "domain",
        ],
    ),
    (
        "node",
        &[
            "gateway",
            "console",
            "replication",
            "routing",
            "peer",
            "client",
            "transport",
            "protocol",
            "domain",
            "storage",
        ],
    ),
    ("gateway", &["replication", "routing", "protocol", "transport", "domain"]),
    ("console", &["replication", "routing", "protocol", "transport", "domain"]),
    ("replication", &["peer", "domain", "protocol", "storage"]),
    ("routing", &["peer", "domain", "protocol", "storage"]),
    ("peer", &["transport", "protocol", "domain"]),
    ("client", &["transport", "protocol", "domain"]),
    // The protocols' names stand with the protocols, and a peer's certificate carries its name.
    (
        "transport",
        &["protocol::frame", "protocol::ALPN", "protocol::PEER_ALPN", "domain::node_name"],
    ),
    ("protocol", DOMAIN_TYPES),
    ("config", DOMAIN_TYPES),
    ("telemetry", DOMAIN_TYPES),
    // A task that panicked or hung is a lifecycle event with a code.
    // What it spawns stands on the host that it stands on itself.
    ("supervisor", &["telemetry::event", "host"]),
    ("host", &["entropy"]),
    ("entropy", &[]),
    ("clock", DOMAIN_TYPES),
    ("domain", &[]),
];

/// What line 1 of the table may use: ids, names, paths, limits.
const DOMAIN_TYPES: &[&str] = &[
    "domain::id",
    "domain::node_address",
    "domain::node_name",
    "domain::topic::path",
    "domain::limits",
];
/// What lines 2 and up may use without being named in the table.
const FREE: &[&str] = &["config", "telemetry", "supervisor", "clock", "entropy", "host"];
/// Lines 0 and 1: they have no free use.
const LOWEST: &[&str] =
    &["protocol", "config", "telemetry", "supervisor", "clock", "entropy", "host", "domain"];

/// Paths that no file of the domain may name.
const IMPURE: &[&str] = &[
    "std::time",
    "core::time",
    "std::fs",
    "std::net",
    "std::io",
    "std::thread",
    "std::env",
    "std::process",
    "tokio",
    "futures",
    "rand",
    "getrandom",
    "tracing",
    "metrics",
    "log",
    "quorate_storage",
];
/// Words that no file of the domain may use: no awaiting, no iteration in hash order.
const IMPURE_WORDS: &[&str] = &["async", "await", "HashMap", "HashSet", "RandomState"];

/// Crates that are named in one place only.
const KEPT_IN: &[(&str, &str)] = &[
    ("openraft", "src/replication/"),
    ("openraft_rt", "src/replication/"),
    ("openraft_rt_tokio", "src/replication/"),
    ("quinn", "src/transport/"),
    ("quinn_proto", "src/transport/"),
    ("quinn_udp", "src/transport/"),
    ("sled", "storage/src/index/on_sled.rs"),
];

/// Names that say nothing about what a module holds.
const EMPTY_NAMES: &[&str] =
    &["util", "utils", "utility", "common", "helper", "helpers", "manager", "misc"];
const ENTRIES_PER_FOLDER_MAX: usize = 15;
/// Folders whose entries another rule fixes: the layer table, and one file for each command.
const LISTS: &[&str] = &["src", "src/domain/apply"];

/// One offence against the design.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Offence {
    path: String,
    line: usize,
    rule: String,
}

#[test]
fn the_source_tree_keeps_to_the_design() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = BTreeMap::new();
    for folder in ["src", "storage", "tests", "benches", "fuzz"] {
        read_tree(root, &root.join(folder), &mut files);
    }
    assert!(files.contains_key("src/lib.rs"), "the checker reads the wrong tree");
    let offences = offences(&files);
    let report: Vec<String> = offences
        .iter()
        .map(|offence| format!("{}:{}: {}", offence.path, offence.line, offence.rule))
        .collect();
    assert!(report.is_empty(), "{} offences:\n{}", report.len(), report.join("\n"));
}

/// All files below `folder` by their path from `root`; the text of Rust files only. Build output,
/// hidden files and fuzz corpora are not source.
fn read_tree(root: &Path, folder: &Path, files: &mut BTreeMap<String, String>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries {
        let path = entry.expect("a folder of the source tree can be listed").path();
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
        let name = name.unwrap_or_default();
        if name.starts_with('.') || ["target", "corpus", "artifacts"].contains(&name.as_str()) {
            continue;
        }
        if path.is_dir() {
            read_tree(root, &path, files);
            continue;
        }
        let text = if name.ends_with(".rs") {
            fs::read_to_string(&path).expect("a source file is UTF-8 and can be read")
        } else {
            String::new()
        };
        let relative = path.strip_prefix(root).expect("it was found below the root");
        files.insert(relative.to_string_lossy().replace('\\', "/"), text);
    }
}

/// Every offence in a tree of (path, text) pairs, in order.
fn offences(files: &BTreeMap<String, String>) -> Vec<Offence> {
    let mut found = BTreeSet::new();
    let sources: BTreeMap<&str, Source> = files
        .iter()
        .filter(|(path, _)| path.ends_with(".rs"))
        .map(|(path, text)| (path.as_str(), Source::read(path, text)))
        .collect();
    for (path, source) in &sources {
        let mut report = |line: usize, rule: String| {
            found.insert(Offence { path: (*path).to_owned(), line, rule });
        };
        check_layers(path, source, &mut report);
        check_purity(path, source, &mut report);
        check_kept_places(path, source, &mut report);
        check_markers(path, files.get(*path).map_or("", String::as_str), source, &mut report);
    }
    for (path, rule) in dead_files(&sources).into_iter().chain(bad_names(files)) {
        found.insert(Offence { path, line: 1, rule });
    }
    found.into_iter().collect()
}

type Report<'a> = &'a mut dyn FnMut(usize, String);

/// The layer table, for files of `src/`.
fn check_layers(path: &str, source: &Source, report: Report<'_>) {
    let Some(unit) = unit_of(path) else { return };
    if unit == "lib" {
        return;
    }
    let Some((_, allowed)) = LAYERS.iter().find(|(name, _)| *name == unit) else {
        report(1, format!("{unit} is not in the layer table"));
        return;
    };
    for used in &source.paths {
        let target: Vec<&str> = match used.segments.first().map(String::as_str) {
            Some("crate") => used.segments.iter().skip(1).map(String::as_str).collect(),
            Some("quorate") if unit == "main" => {
                used.segments.iter().skip(1).map(String::as_str).collect()
            }
            Some("quorate_storage") => std::iter::once("storage")
                .chain(used.segments.iter().skip(1).map(String::as_str))
                .collect(),
            _ => continue,
        };
        let Some(first) = target.first() else { continue };
        if *first == unit || *first == "self" {
            continue;
        }
        let free = FREE.contains(first) && !LOWEST.contains(&unit);
        let named = allowed.iter().any(|rule| {
            let rule: Vec<&str> = rule.split("::").collect();
            target.starts_with(&rule)
        });
        if !free && !named {
            report(used.line, format!("{unit} may not use {}", target.join("::")));
        }
    }
}

/// The part of the layer table that a file of `src/` belongs to.
fn unit_of(path: &str) -> Option<&str> {
    let inside = path.strip_prefix("src/")?;
    let first = inside.split('/').next()?;
    Some(first.strip_suffix(".rs").unwrap_or(first))
}

/// The domain decides and does nothing else.
fn check_purity(path: &str, source: &Source, report: Report<'_>) {
    if !path.starts_with("src/domain/") {
        return;
    }
    for used in &source.paths {
        let text = used.segments.join("::");
        // A single word may be a variable; only as the head of a path is it a crate.
        let is_path = used.segments.len() > 1 || used.imported;
        for impure in IMPURE {
            if is_path && (text == *impure || text.starts_with(&format!("{impure}::"))) {
                report(used.line, format!("the domain is pure and may not use {text}"));
            }
        }
    }
    for token in &source.tokens {
        if IMPURE_WORDS.contains(&token.text.as_str()) {
            report(token.line, format!("the domain is pure and may not use {}", token.text));
        }
    }
}

/// Libraries, printing, the clock and spawning each have one place.
fn check_kept_places(path: &str, source: &Source, report: Report<'_>) {
    if !(path.starts_with("src/") || path.starts_with("storage/src/")) {
        return;
    }
    for used in &source.paths {
        let first = used.segments.first().map_or("", String::as_str);
        let is_path = used.segments.len() > 1 || used.imported;
        for (name, place) in KEPT_IN {
            if is_path && first == *name && !path.starts_with(place) {
                report(used.line, format!("{name} is named in {place} only"));
            }
        }
        if used.in_tests {
            continue;
        }
        let ends_with = |tail: &[&str]| {
            used.segments.len() >= tail.len()
                && used
                    .segments
                    .iter()
                    .rev()
                    .zip(tail.iter().rev())
                    .all(|(one, other)| one == other)
        };
        let reads_clock = ends_with(&["Instant", "now"]) || ends_with(&["SystemTime", "now"]);
        if reads_clock && path != "src/clock.rs" {
            report(used.line, "the clock is read in src/clock.rs only".to_owned());
        }
        let spawns = ends_with(&["tokio", "spawn"])
            || ends_with(&["task", "spawn"])
            || ends_with(&["task", "spawn_blocking"])
            || ends_with(&["thread", "spawn"]);
        if spawns && path.starts_with("src/") && path != "src/supervisor.rs" {
            report(used.line, "tasks and threads are started in src/supervisor.rs only".to_owned());
        }
        if ends_with(&["io", "stdout"]) && path != "src/cli/output.rs" {
            report(used.line, "src/cli/output.rs is the one file that prints".to_owned());
        }
    }
    for pair in source.tokens.windows(2) {
        let [word, next] = pair else { continue };
        let prints =
            ["print", "println", "eprint", "eprintln", "dbg"].contains(&word.text.as_str());
        if prints && next.text == "!" && !word.in_tests && path != "src/cli/output.rs" {
            report(word.line, "src/cli/output.rs is the one file that prints".to_owned());
        }
    }
}

/// Nothing is left for later without being an issue.
fn check_markers(path: &str, text: &str, source: &Source, report: Report<'_>) {
    // Written apart, so that this file does not find itself.
    let markers =
        [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("HA", "CK"), concat!("X", "XX")];
    for (number, line) in text.lines().enumerate() {
        let words = line.split(|c: char| !c.is_alphanumeric() && c != '_');
        if let Some(word) = words.into_iter().find(|word| markers.contains(word)) {
            report(number + 1, format!("{word}: do it or write an issue"));
        }
    }
    for pair in source.tokens.windows(2) {
        let [word, next] = pair else { continue };
        if ["todo", "unimplemented"].contains(&word.text.as_str()) && next.text == "!" {
            report(word.line, format!("{}! in {path}: it is not built", word.text));
        }
    }
}

/// Files that no root reaches by `mod` declarations.
fn dead_files(sources: &BTreeMap<&str, Source>) -> Vec<(String, String)> {
    let mut reached: BTreeSet<String> = BTreeSet::new();
    let mut open: Vec<String> =
        sources.keys().filter(|path| is_root(path)).map(|path| (*path).to_owned()).collect();
    while let Some(path) = open.pop() {
        let Some(source) = sources.get(path.as_str()) else { continue };
        if !reached.insert(path.clone()) {
            continue;
        }
        for module in &source.modules {
            open.extend(module.files(&path, is_root(&path)));
        }
    }
    let rule = "no mod declaration reaches this file: it is dead";
    sources
        .keys()
        .filter(|path| !reached.contains(**path))
        .map(|path| ((*path).to_owned(), rule.to_owned()))
        .collect()
}

/// Where a compiler starts to read.
fn is_root(path: &str) -> bool {
    let parts: Vec<&str> = path.split('/').collect();
    let parts = match parts.as_slice() {
        ["storage" | "fuzz", rest @ ..] => rest,
        whole => whole,
    };
    match parts {
        ["src", "lib.rs" | "main.rs"] | ["src", "bin", _] | ["build.rs"] => true,
        ["tests" | "benches" | "examples", file] => file.ends_with(".rs"),
        ["tests" | "benches" | "examples", _, "main.rs"] | ["fuzz_targets", _] => true,
        _ => false,
    }
}

/// Names without meaning, and folders that hold too many things to take in.
fn bad_names(files: &BTreeMap<String, String>) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut folders: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for path in files.keys() {
        let parts: Vec<&str> = path.split('/').collect();
        for (depth, part) in parts.iter().enumerate() {
            let folder = parts.get(..depth).unwrap_or(&[]).join("/");
            folders.entry(folder).or_default().insert((*part).to_owned());
            let stem = part.strip_suffix(".rs").unwrap_or(part);
            if path.ends_with(".rs") && stem.split('_').any(|word| EMPTY_NAMES.contains(&word)) {
                found.push((path.clone(), format!("{stem} says nothing about what it holds")));
            }
        }
    }
    for (folder, entries) in folders {
        let is_source = entries.iter().any(|entry| entry.ends_with(".rs"));
        let is_list = LISTS.contains(&folder.as_str());
        if is_source && !is_list && entries.len() > ENTRIES_PER_FOLDER_MAX {
            let rule = format!("{} entries, over {ENTRIES_PER_FOLDER_MAX}", entries.len());
            found.push((folder, rule));
        }
    }
    found
}

/// One word or one punctuation mark of a file, comments left out and literals emptied.
#[derive(Debug)]
struct Token {
    text: String,
    line: usize,
    in_tests: bool,
}

/// A path such as `crate::domain::id` as the file uses it, groups spread out and `super` resolved.
#[derive(Debug)]
struct UsedPath {
    segments: Vec<String>,
    line: usize,
    imported: bool,
    in_tests: bool,
}

/// A `mod name;` declaration.
#[derive(Debug)]
struct Declared {
    name: String,
    /// Inline modules around it.
    inside: Vec<String>,
    /// From a `path` attribute.
    file: Option<String>,
}

impl Declared {
    /// The files that the declaration can mean, in the file `path`.
    fn files(&self, path: &str, is_root: bool) -> Vec<String> {
        let (folder, file) = path.rsplit_once('/').unwrap_or(("", path));
        if let Some(named) = &self.file {
            return vec![normalised(&format!("{folder}/{named}"))];
        }
        let stem = file.strip_suffix(".rs").unwrap_or(file);
        let mut base = folder.to_owned();
        if !is_root && stem != "mod" {
            base = format!("{base}/{stem}");
        }
        for module in &self.inside {
            base = format!("{base}/{module}");
        }
        let name = &self.name;
        vec![format!("{base}/{name}.rs"), format!("{base}/{name}/mod.rs")]
    }
}

/// A path with its `..` taken.
fn normalised(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            ".." => {
                parts.pop();
            }
            "." => {}
            other => parts.push(other),
        }
    }
    parts.join("/")
}

/// What the rules need to know of one file.
#[derive(Debug)]
struct Source {
    tokens: Vec<Token>,
    paths: Vec<UsedPath>,
    modules: Vec<Declared>,
}

impl Source {
    fn read(path: &str, text: &str) -> Self {
        let mut reader = Reader { module: module_of(path), ..Reader::new(tokenize(text)) };
        reader.read();
        Self { tokens: reader.tokens, paths: reader.paths, modules: reader.modules }
    }
}

/// The module path of a file of `src/`, `crate` first; others are their own crate's root.
fn module_of(path: &str) -> Vec<String> {
    let mut module = vec!["crate".to_owned()];
    let inside = path.strip_prefix("src/").or_else(|| path.strip_prefix("storage/src/"));
    for part in inside.unwrap_or("").split('/') {
        let name = part.strip_suffix(".rs").unwrap_or(part);
        if !["", "mod", "lib", "main"].contains(&name) {
            module.push(name.to_owned());
        }
    }
    module
}

/// Walks over a file's tokens and notes paths and module declarations.
struct Reader {
    tokens: Vec<Token>,
    at: usize,
    module: Vec<String>,
    /// Open inline modules: name, and the brace depth outside.
    inline: Vec<(String, usize)>,
    braces: usize,
    paths: Vec<UsedPath>,
    modules: Vec<Declared>,
}

impl Reader {
    fn new(tokens: Vec<Token>) -> Self {
        Self {
            tokens,
            at: 0,
            module: Vec::new(),
            inline: Vec::new(),
            braces: 0,
            paths: Vec::new(),
            modules: Vec::new(),
        }
    }

    fn peek(&self, ahead: usize) -> &str {
        self.tokens.get(self.at + ahead).map_or("", |token| token.text.as_str())
    }

    fn read(&mut self) {
        let mut file = None;
        while self.at < self.tokens.len() {
            let in_tests = self.inline.iter().any(|(name, _)| name == "tests");
            if let Some(token) = self.tokens.get_mut(self.at) {
                token.in_tests = in_tests;
            }
            let word = self.peek(0).to_owned();
            match word.as_str() {
                "{" => self.braces += 1,
                "}" => {
                    self.braces = self.braces.saturating_sub(1);
                    if self.inline.last().is_some_and(|(_, depth)| *depth == self.braces) {
                        self.inline.pop();
                    }
                }
                "path" if self.peek(1) == "=" && self.peek(2).starts_with('"') => {
                    file = Some(self.peek(2).trim_matches('"').to_owned());
                }
                "mod" if is_word(self.peek(1)) => {
                    let name = self.peek(1).to_owned();
                    if self.peek(2) == ";" {
                        let inside = self.inline.iter().map(|(name, _)| name.clone()).collect();
                        self.modules.push(Declared { name, inside, file: file.take() });
                    } else if self.peek(2) == "{" {
                        self.inline.push((name, self.braces));
                    }
                    self.at += 2;
                    continue;
                }
                "use" => {
                    self.at += 1;
                    self.read_use_tree(&[], true, in_tests);
                    continue;
                }
                _ if is_word(&word) => {
                    self.read_use_tree(&[], false, in_tests);
                    continue;
                }
                _ => {}
            }
            self.at += 1;
        }
    }

    /// Reads one path, with its groups when it is imported.
    fn read_use_tree(&mut self, before: &[String], imported: bool, in_tests: bool) {
        let line = self.tokens.get(self.at).map_or(0, |token| token.line);
        let mut segments = before.to_vec();
        while self.peek(0) == "::" {
            self.at += 1;
        }
        loop {
            let word = self.peek(0).to_owned();
            if imported && word == "{" {
                self.at += 1;
                while !matches!(self.peek(0), "}" | "") {
                    let start = self.at;
                    self.read_use_tree(&segments, true, in_tests);
                    if self.peek(0) == "," || self.at == start {
                        self.at += 1;
                    }
                }
                self.at += 1;
                return;
            }
            if !is_word(&word) && word != "*" {
                break;
            }
            if let Some(token) = self.tokens.get_mut(self.at) {
                token.in_tests = in_tests;
            }
            segments.push(word);
            self.at += 1;
            if self.peek(0) != "::" {
                break;
            }
            self.at += 1;
        }
        if imported && self.peek(0) == "as" {
            self.at += 2;
        }
        if !segments.is_empty() {
            let segments = self.resolved(segments);
            self.paths.push(UsedPath { segments, line, imported, in_tests });
        } else if imported {
            self.at += 1;
        }
    }

    /// The same path from the crate's root, when it climbs by `super` or starts at `self`.
    fn resolved(&self, segments: Vec<String>) -> Vec<String> {
        let climbs = segments.iter().take_while(|segment| *segment == "super").count();
        let starts_here = segments.len() > 1 && segments.first().is_some_and(|s| s == "self");
        if climbs == 0 && !starts_here {
            return segments;
        }
        let mut module = self.module.clone();
        module.extend(self.inline.iter().map(|(name, _)| name.clone()));
        module.truncate(module.len().saturating_sub(climbs).max(1));
        module.extend(segments.into_iter().skip(climbs + usize::from(starts_here)));
        module
    }
}

fn is_word(text: &str) -> bool {
    text.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// Cuts a file into tokens. Comments vanish; a string becomes one token in quotes; a character or
/// a number becomes a token that no rule looks for.
fn tokenize(text: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let characters: Vec<char> = text.chars().collect();
    let at = |index: usize| characters.get(index).copied().unwrap_or('\0');
    let (mut index, mut line) = (0, 1);
    while index < characters.len() {
        let (start, start_line) = (index, line);
        match at(index) {
            '/' if at(index + 1) == '/' => {
                while index < characters.len() && at(index) != '\n' {
                    index += 1;
                }
                continue;
            }
            '/' if at(index + 1) == '*' => index = end_of_comment(&characters, index),
            'r' | 'b' | 'c' if raw_hashes(&characters, index).is_some() => {
                let (quote, hashes) = raw_hashes(&characters, index).unwrap_or((index, 0));
                index = end_of_raw_string(&characters, quote, hashes);
                tokens.push(Token { text: "\"\"".to_owned(), line, in_tests: false });
            }
            '"' => {
                index += 1;
                while index < characters.len() && at(index) != '"' {
                    index += if at(index) == '\\' { 2 } else { 1 };
                }
                index += 1;
                let inside = characters.get(start..index).unwrap_or(&[]).iter().collect();
                tokens.push(Token { text: inside, line, in_tests: false });
            }
            '\'' => {
                // A lifetime has no closing quote two or more characters on.
                let is_character = at(index + 1) == '\\' || at(index + 2) == '\'';
                index += 1;
                if is_character {
                    while index < characters.len() && at(index) != '\'' {
                        index += if at(index) == '\\' { 2 } else { 1 };
                    }
                    index += 1;
                }
                tokens.push(Token { text: "'".to_owned(), line, in_tests: false });
            }
            c if c.is_alphanumeric() || c == '_' => {
                while at(index).is_alphanumeric() || at(index) == '_' {
                    index += 1;
                }
                let word = characters.get(start..index).unwrap_or(&[]).iter().collect();
                tokens.push(Token { text: word, line, in_tests: false });
            }
            ':' if at(index + 1) == ':' => {
                index += 2;
                tokens.push(Token { text: "::".to_owned(), line, in_tests: false });
            }
            c => {
                index += 1;
                if !c.is_whitespace() {
                    tokens.push(Token { text: c.to_string(), line, in_tests: false });
                }
            }
        }
        let passed = characters.get(start..index.min(characters.len())).unwrap_or(&[]);
        line = start_line + passed.iter().filter(|c| **c == '\n').count();
    }
    tokens
}

fn end_of_comment(characters: &[char], start: usize) -> usize {
    let at = |index: usize| characters.get(index).copied().unwrap_or('\0');
    let (mut index, mut depth) = (start, 0_usize);
    while index < characters.len() {
        match (at(index), at(index + 1)) {
            ('/', '*') => (depth, index) = (depth + 1, index + 2),
            ('*', '/') => (depth, index) = (depth - 1, index + 2),
            _ => index += 1,
        }
        if depth == 0 {
            break;
        }
    }
    index
}

/// The place of the opening quote and the number of hashes of a raw string that starts at `start`.
fn raw_hashes(characters: &[char], start: usize) -> Option<(usize, usize)> {
    let at = |index: usize| characters.get(index).copied().unwrap_or('\0');
    let before = start.checked_sub(1).map_or(' ', at);
    if before.is_alphanumeric() || before == '_' {
        return None;
    }
    let r = if at(start) == 'r' { start } else { start + 1 };
    if at(r) != 'r' {
        return None;
    }
    let hashes = (r + 1..).take_while(|index| at(*index) == '#').count();
    (at(r + 1 + hashes) == '"').then_some((r + 1 + hashes, hashes))
}

fn end_of_raw_string(characters: &[char], quote: usize, hashes: usize) -> usize {
    let at = |index: usize| characters.get(index).copied().unwrap_or('\0');
    let mut index = quote + 1;
    while index < characters.len() {
        if at(index) == '"' && (1..=hashes).all(|ahead| at(index + ahead) == '#') {
            return index + 1 + hashes;
        }
        index += 1;
    }
    index
}

/// A small tree without an offence, with `text` added to what stands at `path`.
fn planted(path: &str, text: &str) -> Vec<Offence> {
    let modules = "cli node gateway console replication peer client transport protocol config \
                   telemetry supervisor clock domain";
    let mut files = BTreeMap::new();
    let mut lib = String::from("//! The map.\n");
    for module in modules.split(' ') {
        lib += &format!("pub mod {module};\n");
        let is_file = ["node", "supervisor", "clock"].contains(&module);
        let path =
            if is_file { format!("src/{module}.rs") } else { format!("src/{module}/mod.rs") };
        files.insert(path, String::new());
    }
    files.insert("src/lib.rs".to_owned(), lib);
    files.insert("src/main.rs".to_owned(), "fn main() { quorate::cli::run() }".to_owned());
    files.insert("src/cli/mod.rs".to_owned(), "mod output;".to_owned());
    files.insert("src/cli/output.rs".to_owned(), "println!();".to_owned());
    files.insert("storage/src/lib.rs".to_owned(), "mod index;".to_owned());
    files.insert("storage/src/index/mod.rs".to_owned(), "mod on_sled;".to_owned());
    files.insert("storage/src/index/on_sled.rs".to_owned(), "use sled::Db;".to_owned());
    assert_eq!(offences(&files), [], "the tree has an offence before anything is planted");
    *files.entry(path.to_owned()).or_default() += text;
    offences(&files)
}

#[test]
fn planted_offences_are_found() {
    let marker = format!("// {}: later", concat!("TO", "DO"));
    for (path, text, expected) in [
        // Directions.
        ("src/domain/mod.rs", "use crate::protocol::frame;", "domain may not use protocol::frame"),
        ("src/domain/mod.rs", "fn f() { crate::gateway::f() }", "domain may not use gateway::f"),
        ("src/domain/mod.rs", "use super::clock::Clock;", "domain may not use clock::Clock"),
        ("src/domain/mod.rs", "mod tests { use super::super::node; }", "domain may not use node"),
        ("src/domain/mod.rs", "use quorate_storage::Log;", "domain may not use storage::Log"),
        (
            "src/protocol/mod.rs",
            "use crate::domain::machine::Machine;",
            "protocol may not use domain",
        ),
        ("src/protocol/mod.rs", "use crate::config::Settings;", "protocol may not use config"),
        ("src/transport/mod.rs", "use crate::protocol::request;", "transport may not use protocol"),
        ("src/transport/mod.rs", "use crate::domain::id;", "transport may not use domain::id"),
        ("src/peer/mod.rs", "use crate::replication::view;", "peer may not use replication::view"),
        ("src/peer/mod.rs", "use crate::client::Client;", "peer may not use client::Client"),
        (
            "src/replication/mod.rs",
            "use crate::transport::Frame;",
            "replication may not use transport",
        ),
        (
            "src/gateway/mod.rs",
            "use crate::{domain, console::Page};",
            "gateway may not use console",
        ),
        ("src/gateway/mod.rs", "use crate::{domain::{id}, peer};", "gateway may not use peer"),
        ("src/gateway/mod.rs", "use quorate_storage::Log;", "gateway may not use storage::Log"),
        ("src/cli/mod.rs", "use crate::gateway::Gateway;", "cli may not use gateway::Gateway"),
        ("src/cli/mod.rs", "use quorate_storage::log::Log;", "cli may not use storage::log::Log"),
        (
            "src/cli/mod.rs",
            "use crate::transport::Endpoint;",
            "cli may not use transport::Endpoint",
        ),
        ("src/main.rs", "use quorate::gateway::Gateway;", "main may not use gateway::Gateway"),
        ("src/client/mod.rs", "use crate::node::Node;", "client may not use node::Node"),
        ("src/gateway/mod.rs", "use crate::Shortcut;", "gateway may not use Shortcut"),
        // Purity.
        ("src/domain/mod.rs", "use std::{fmt, time::Duration};", "may not use std::time::Duration"),
        ("src/domain/mod.rs", "use std::collections::HashMap;", "may not use HashMap"),
        ("src/domain/mod.rs", "type A = imbl::HashSet<u8>;", "may not use HashSet"),
        ("src/domain/mod.rs", "async fn f() {}", "may not use async"),
        ("src/domain/mod.rs", "use tokio::sync::mpsc;", "may not use tokio::sync::mpsc"),
        ("src/domain/mod.rs", "fn f() { getrandom::fill(b) }", "may not use getrandom::fill"),
        ("src/domain/mod.rs", "fn f() { tracing::info!() }", "may not use tracing::info"),
        ("src/domain/mod.rs", "use metrics;", "may not use metrics"),
        ("src/domain/mod.rs", "fn f() { std::fs::read(p) }", "may not use std::fs::read"),
        ("src/domain/mod.rs", "use std::net::*;", "may not use std::net::*"),
        ("src/domain/mod.rs", "use std::io;", "may not use std::io"),
        // One place each.
        ("src/gateway/mod.rs", "use openraft::Raft;", "openraft is named in src/replication/ only"),
        ("src/peer/mod.rs", "use quinn::Endpoint;", "quinn is named in src/transport/ only"),
        (
            "storage/src/lib.rs",
            "use sled::Db;",
            "sled is named in storage/src/index/on_sled.rs only",
        ),
        ("src/replication/mod.rs", "fn f(t: sled::Tree) {}", "sled is named in"),
        ("src/node.rs", "fn f() { println!() }", "the one file that prints"),
        ("storage/src/lib.rs", "fn f() { dbg!(1) }", "the one file that prints"),
        ("src/console/mod.rs", "fn f() { std::io::stdout() }", "the one file that prints"),
        (
            "src/node.rs",
            "fn f() { std::time::Instant::now() }",
            "the clock is read in src/clock.rs",
        ),
        ("src/gateway/mod.rs", "fn f() { SystemTime::now() }", "the clock is read in src/clock.rs"),
        ("src/gateway/mod.rs", "fn f() { tokio::spawn(g()) }", "started in src/supervisor.rs only"),
        ("src/node.rs", "fn f() { std::thread::spawn(g) }", "started in src/supervisor.rs only"),
        // Dead files, markers, names, size.
        ("src/domain/orphan.rs", "", "it is dead"),
        ("src/domain/lost/mod.rs", "mod sub;", "it is dead"),
        ("storage/src/orphan.rs", "", "it is dead"),
        ("tests/cluster/harness.rs", "", "it is dead"),
        ("src/node.rs", &marker, "do it or write an issue"),
        ("tests/later.rs", &marker, "do it or write an issue"),
        ("src/node.rs", "fn f() { unimplemented!() }", "it is not built"),
        ("src/domain/util.rs", "", "util says nothing"),
        ("src/gateway/session_manager/mod.rs", "", "session_manager says nothing"),
        ("src/unlisted/mod.rs", "", "unlisted is not in the layer table"),
    ] {
        let found = planted(path, text);
        assert!(
            found.iter().any(|offence| offence.rule.contains(expected)),
            "{path} with {text:?}: expected {expected:?}, found {found:?}"
        );
    }
}

#[test]
fn what_the_design_allows_is_no_offence() {
    for (path, text) in [
        ("src/domain/mod.rs", "// use crate::gateway and HashMap, never async\n/* std::fs */"),
        ("src/domain/mod.rs", r##"const A: &str = "tokio::spawn"; const B: &str = r#"HashMap"#;"##),
        ("src/domain/mod.rs", "use crate::domain::id; fn f<'a>(metrics: &'a u8, c: char) { '{' }"),
        ("src/protocol/mod.rs", "use crate::domain::{id::Index, limits, topic::path::TopicPath};"),
        (
            "src/transport/mod.rs",
            "use crate::{clock, protocol::frame::Frame, supervisor}; use quinn::A;",
        ),
        ("src/peer/mod.rs", "use crate::{config, domain::id, protocol, telemetry, transport};"),
        (
            "src/replication/mod.rs",
            "use openraft::Raft; use quorate_storage::Log; use crate::peer::M;",
        ),
        (
            "src/gateway/mod.rs",
            "use crate::{replication, protocol::request, transport, supervisor};",
        ),
        ("src/cli/mod.rs", "use crate::transport::tls; use quorate_storage::inspect::walk;"),
        ("src/cli/mod.rs", "use crate::domain::topic::value; use crate::node::Node;"),
        ("src/node.rs", "use crate::{gateway, console, replication, peer, clock, domain};"),
        ("src/clock.rs", "fn f() { std::time::Instant::now() }"),
        ("src/supervisor.rs", "fn f() { tokio::spawn(g()) }"),
        ("src/node.rs", "mod tests { fn f() { println!() } }"),
        ("tests/cluster/main.rs", "mod harness;"),
        ("src/domain/mod.rs", "use super::domain::id;"),
    ] {
        let found = planted(path, text);
        let harness = "tests/cluster/harness.rs";
        assert!(found.iter().all(|offence| offence.path == harness), "{path} {text:?}: {found:?}");
    }
}

#[test]
fn crowded_folders_are_found() {
    let file = |number: usize| (format!("src/domain/topic/a{number}.rs"), String::new());
    let mut files: BTreeMap<String, String> = (0..15).map(file).collect();
    let declared: String = (0..15).map(|number| format!("mod a{number};")).collect();
    files.insert("src/lib.rs".to_owned(), "mod domain;".to_owned());
    files.insert("src/domain/mod.rs".to_owned(), format!("mod topic {{ {declared} }}"));
    assert_eq!(offences(&files), []);
    files.insert("src/domain/topic/notes.md".to_owned(), String::new());
    let found = offences(&files);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found.iter().all(|offence| offence.rule == "16 entries, over 15"));
}
