//! The one file that prints: results on standard output, progress and errors on standard error.

use std::io::{self, IsTerminal as _, Write as _};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Writes one line to standard output.
///
/// A closed pipe (`quorate … | head`) ends the process quietly, as other tools do.
pub(super) fn line(text: impl AsRef<str>) {
    let mut out = io::stdout().lock();
    let written = out.write_all(text.as_ref().as_bytes()).and_then(|()| out.write_all(b"\n"));
    exit_on_closed_pipe(written.and_then(|()| out.flush()));
}

/// Writes lines that end in a newline already, in one go.
pub(super) fn lines(text: &str) {
    let mut out = io::stdout().lock();
    let written = out.write_all(text.as_bytes());
    exit_on_closed_pipe(written.and_then(|()| out.flush()));
}

/// Writes raw bytes to standard output: completions, exact values.
pub(super) fn bytes(bytes: &[u8]) {
    let mut out = io::stdout().lock();
    let written = out.write_all(bytes);
    exit_on_closed_pipe(written.and_then(|()| out.flush()));
}

/// Writes one JSON value as a line.
pub(super) fn json(value: &serde_json::Value) {
    line(value.to_string());
}

/// Writes a line for people to standard error.
pub(super) fn note(text: impl AsRef<str>) {
    let mut err = io::stderr().lock();
    // A closed standard error leaves nobody to tell.
    let _unheard = err.write_all(format!("{}\n", text.as_ref()).as_bytes());
}

/// Writes an error with its causes to standard error.
pub(super) fn error(error: &anyhow::Error) {
    note(format!("quorate: {error:#}"));
}

fn exit_on_closed_pipe(written: io::Result<()>) {
    if let Err(error) = written {
        let code = i32::from(error.kind() != io::ErrorKind::BrokenPipe);
        std::process::exit(code);
    }
}

/// A progress bar on standard error when that is a terminal, hidden otherwise.
#[must_use]
pub(super) fn progress(length: Option<u64>, unit: &'static str) -> ProgressBar {
    let bar = match length {
        Some(length) => ProgressBar::new(length),
        None => ProgressBar::new_spinner(),
    };
    let template = match length {
        Some(_) => "{bar:30} {human_pos}/{human_len} {msg} {per_sec} {elapsed} (eta {eta})",
        None => "{spinner} {human_pos} {msg} {per_sec} {elapsed}",
    };
    bar.set_draw_target(if io::stderr().is_terminal() {
        ProgressDrawTarget::stderr()
    } else {
        ProgressDrawTarget::hidden()
    });
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.set_message(unit);
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

/// Lays out rows under their heads in columns, two spaces apart.
#[must_use]
pub(super) fn table(heads: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells
            .map(|cell| cell.chars().count())
            .chain([heads.get(column).map_or(0, |h| h.len())])
            .max()
    };
    let widths: Vec<usize> = (0..heads.len()).map(|column| width(column).unwrap_or(0)).collect();
    let mut text = String::new();
    let mut row_of = |cells: &mut dyn Iterator<Item = &str>| {
        let mut row = String::new();
        for (cell, width) in cells.zip(&widths) {
            row.push_str(&format!("{cell:width$}  "));
        }
        text.push_str(row.trim_end());
        text.push('\n');
    };
    row_of(&mut heads.iter().copied());
    for row in rows {
        row_of(&mut row.iter().map(String::as_str));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_align() {
        let rows = vec![vec!["n1".into(), "leader".into()], vec!["n22".into(), "-".into()]];
        assert_eq!(table(&["node", "role"], &rows), "node  role\nn1    leader\nn22   -\n");
    }
}
