//! The figures of a scenario: a line of JSON for tools, a table for people.

use hdrhistogram::Histogram;
use serde_json::{Map, Value, json};

use crate::cli::output;

use super::measure::Cost;

/// Latencies are kept from 1 µs to 10 minutes in three significant digits.
const LATENCY_US_MAX: u64 = 600_000_000;

/// An empty histogram of latencies in microseconds.
pub(super) fn latencies() -> Histogram<u64> {
    let histogram = Histogram::new_with_bounds(1, LATENCY_US_MAX, 3);
    histogram.expect("the bounds are constants that the library allows")
}

/// Quantiles of a latency in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Latency {
    p50: f64,
    p99: f64,
    p999: f64,
    max: f64,
}

impl Latency {
    /// The quantiles of a histogram of microseconds; none if it is empty.
    pub(super) fn of(histogram_us: &Histogram<u64>) -> Option<Self> {
        let ms = |us: u64| us as f64 / 1_000.0;
        let at = |quantile| ms(histogram_us.value_at_quantile(quantile));
        let max = ms(histogram_us.max());
        let found = Self { p50: at(0.5), p99: at(0.99), p999: at(0.999), max };
        (!histogram_us.is_empty()).then_some(found)
    }

    fn json(&self) -> Value {
        json!({"p50": self.p50, "p99": self.p99, "p999": self.p999, "max": self.max})
    }

    fn cell(&self) -> String {
        let ms = |value: f64| match value {
            ..10.0 => format!("{value:.2}"),
            _ => format!("{value:.1}"),
        };
        format!("{} / {} / {}", ms(self.p50), ms(self.p99), ms(self.p999))
    }
}

/// The figures of one run of a scenario; what a scenario does not have is none.
#[derive(Debug, Clone, Default)]
pub(super) struct Row {
    pub(super) window: Option<u32>,
    pub(super) subscribers: Option<u32>,
    pub(super) rate_per_s: Option<f64>,
    pub(super) latency: Option<Latency>,
    pub(super) cost: Cost,
    /// Figures that only this scenario has.
    pub(super) figures: Map<String, Value>,
    /// What it was run with.
    pub(super) settings: Map<String, Value>,
}

impl Row {
    /// The line that tools read.
    fn json(&self, scenario: &str) -> Value {
        let rounded = |figure: Option<f64>, digits: i32| {
            let scale = 10_f64.powi(digits);
            figure.map(|figure| (figure * scale).round() / scale)
        };
        json!({
            "scenario": scenario,
            "window": self.window,
            "subscribers": self.subscribers,
            "rate_per_s": rounded(self.rate_per_s, 1),
            "latency_ms": self.latency.map(|latency| latency.json()),
            "server_cpu_s_per_million": rounded(self.cost.server_cpu_s_per_million, 3),
            "client_cpu_s_per_million": rounded(self.cost.client_cpu_s_per_million, 3),
            "server_rss_bytes": self.cost.server_rss_bytes,
            "disk_bytes_per_op": rounded(self.cost.disk_bytes_per_op, 1),
            "figures": self.figures,
            "settings": self.settings,
        })
    }
}

/// One column of a scenario's table: its head and its cell.
pub(super) type Column = (&'static str, fn(&Row) -> String);

/// Prints the figures of a scenario as they come: JSON at once, the table at the end.
pub(super) struct Report {
    scenario: &'static str,
    columns: &'static [Column],
    json: bool,
    rows: Vec<Row>,
}

impl Report {
    /// An empty report.
    pub(super) fn new(scenario: &'static str, columns: &'static [Column], json: bool) -> Self {
        Self { scenario, columns, json, rows: Vec::new() }
    }

    /// Takes in the figures of one run.
    pub(super) fn add(&mut self, row: Row) {
        if self.json {
            output::json(&row.json(self.scenario));
        } else {
            self.rows.push(row);
        }
    }

    /// Prints the table, unless figures were printed as JSON.
    pub(super) fn finish(&self) {
        if let (false, Some(first)) = (self.json, self.rows.first()) {
            output::line(settings_line(self.scenario, &first.settings));
            output::lines(&self.table());
        }
    }

    fn table(&self) -> String {
        let heads: Vec<&str> = self.columns.iter().map(|(head, _)| *head).collect();
        let cells = |row| self.columns.iter().map(|(_, cell)| cell(row)).collect();
        output::table(&heads, &self.rows.iter().map(cells).collect::<Vec<_>>())
    }
}

fn settings_line(scenario: &str, settings: &Map<String, Value>) -> String {
    let texts = settings.iter().map(|(key, value)| match value {
        Value::String(text) => format!("{key} {text}"),
        other => format!("{key} {other}"),
    });
    format!("{scenario}: {}", texts.collect::<Vec<_>>().join(", "))
}

/// A figure, or a dash where there is none.
fn cell(figure: Option<f64>, digits: usize) -> String {
    figure.map_or_else(|| "–".to_owned(), |figure| format!("{figure:.digits$}"))
}

/// Columns that several scenarios have.
pub(super) mod column {
    use super::*;

    pub(in crate::cli::bench) fn window(row: &Row) -> String {
        cell(row.window.map(f64::from), 0)
    }

    pub(in crate::cli::bench) fn subscribers(row: &Row) -> String {
        cell(row.subscribers.map(f64::from), 0)
    }

    pub(in crate::cli::bench) fn rate(row: &Row) -> String {
        cell(row.rate_per_s, 0)
    }

    pub(in crate::cli::bench) fn latency(row: &Row) -> String {
        row.latency.map_or_else(|| "–".to_owned(), |latency| latency.cell())
    }

    pub(in crate::cli::bench) fn server_cpu(row: &Row) -> String {
        cell(row.cost.server_cpu_s_per_million, 2)
    }

    pub(in crate::cli::bench) fn client_cpu(row: &Row) -> String {
        cell(row.cost.client_cpu_s_per_million, 2)
    }

    pub(in crate::cli::bench) fn rss(row: &Row) -> String {
        let Some(bytes) = &row.cost.server_rss_bytes else { return "–".to_owned() };
        let mb = |bytes: &u64| format!("{:.0}", *bytes as f64 / 1e6);
        bytes.iter().map(mb).collect::<Vec<_>>().join("/")
    }

    pub(in crate::cli::bench) fn disk(row: &Row) -> String {
        cell(row.cost.disk_bytes_per_op, 0)
    }

    /// A figure of the scenario's own.
    pub(in crate::cli::bench) fn figure(row: &Row, name: &str, digits: usize) -> String {
        cell(row.figures.get(name).and_then(Value::as_f64), digits)
    }

    /// Something that the run was made with.
    pub(in crate::cli::bench) fn setting(row: &Row, name: &str) -> String {
        match row.settings.get(name) {
            None | Some(Value::Null) => "–".to_owned(),
            Some(Value::String(text)) => text.clone(),
            Some(other) => other.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row() -> Row {
        let mut histogram = latencies();
        for us in 1..=1_000 {
            histogram.record(us * 10).unwrap();
        }
        Row {
            window: Some(64),
            rate_per_s: Some(54_321.06),
            latency: Latency::of(&histogram),
            cost: Cost {
                server_cpu_s_per_million: Some(8.25),
                client_cpu_s_per_million: Some(2.0),
                server_rss_bytes: Some(vec![40_000_000, 41_000_000]),
                disk_bytes_per_op: Some(512.04),
            },
            settings: Map::from_iter([("nodes".to_owned(), json!(3))]),
            ..Row::default()
        }
    }

    #[test]
    fn the_line_has_the_fields_that_tools_rely_on() {
        let line = row().json("publish");
        let fields: Vec<&str> = line.as_object().unwrap().keys().map(String::as_str).collect();
        let known = [
            "scenario",
            "window",
            "subscribers",
            "rate_per_s",
            "latency_ms",
            "server_cpu_s_per_million",
            "client_cpu_s_per_million",
            "server_rss_bytes",
            "disk_bytes_per_op",
            "figures",
            "settings",
        ];
        assert!(known.iter().all(|field| fields.contains(field)), "{fields:?}");
        assert_eq!(fields.len(), known.len());
        assert_eq!(line["subscribers"], Value::Null);
        assert_eq!(line["rate_per_s"], 54_321.1);
        assert_eq!(line["disk_bytes_per_op"], 512.0);
        assert_eq!(line["server_rss_bytes"], json!([40_000_000, 41_000_000]));
        // The histogram keeps three significant digits.
        let near =
            |value: &Value, wanted: f64| (value.as_f64().unwrap() / wanted - 1.0).abs() < 0.002;
        assert!(near(&line["latency_ms"]["p50"], 5.0), "{line}");
        assert!(near(&line["latency_ms"]["max"], 10.0), "{line}");
    }

    #[test]
    fn what_a_scenario_does_not_have_is_null() {
        let line = Row::default().json("topics");
        let absent = ["window", "subscribers", "rate_per_s", "latency_ms", "server_rss_bytes"];
        assert!(absent.iter().all(|field| line.get(field) == Some(&Value::Null)), "{line}");
        assert_eq!(line["settings"], json!({}));
    }

    #[test]
    fn the_table_has_a_cell_for_each_column() {
        const COLUMNS: &[Column] = &[
            ("window", column::window),
            ("acked/s", column::rate),
            ("p50 / p99 / p99.9 ms", column::latency),
            ("RSS MB", column::rss),
            ("subscribers", column::subscribers),
        ];
        let mut report = Report::new("publish", COLUMNS, false);
        report.add(row());
        let table = report.table();
        let line = table.lines().nth(1).unwrap();
        let cells: Vec<&str> = line.split("  ").map(str::trim).filter(|c| !c.is_empty()).collect();
        assert_eq!(cells, ["64", "54321", "5.00 / 9.90 / 9.99", "40/41", "–"]);
        assert_eq!(settings_line("publish", &row().settings), "publish: nodes 3");
    }
}
