//! The comparison: a table for people, a line of JSON for each scenario for tools.

use serde_json::{Map, Value, json};

use crate::Arguments;
use crate::figures::{Figures, Spread};
use crate::scenario::{Scenario, TOPICS};

/// One run of each server, one after the other.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Round {
    pub(crate) peer: Figures,
    pub(crate) ours: Figures,
}

/// One server's run of a round.
type Whose = fn(&Round) -> &Figures;
/// One figure of a run.
type Pick = fn(&Figures) -> f64;

const PEER: Whose = |round| &round.peer;
const OURS: Whose = |round| &round.ours;

const RATE: Pick = |figures| figures.rate_per_s;
const P50: Pick = |figures| figures.p50_ms;
const P99: Pick = |figures| figures.p99_ms;
const SERVER_CPU: Pick = |figures| figures.server_cpu_s_per_million;
const CLIENT_CPU: Pick = |figures| figures.client_cpu_s_per_million;
/// Every figure with the name it has in JSON.
const FIGURES: [(&str, Pick); 5] = [
    ("rate_per_s", RATE),
    ("p50_ms", P50),
    ("p99_ms", P99),
    ("server_cpu_s_per_million", SERVER_CPU),
    ("client_cpu_s_per_million", CLIENT_CPU),
];
const HEADS: [&str; 10] = [
    "scenario",
    "NATS /s",
    "p50 / p99 ms",
    "CPU s/M",
    "Quorate /s",
    "p50 / p99 ms",
    "CPU s/M",
    "rate ×",
    "p50 ×",
    "CPU ×",
];

/// Collects the rounds of all scenarios.
#[derive(Debug)]
pub(crate) struct Report {
    json: bool,
    peer_version: String,
    seconds: u64,
    rounds: u32,
    settings: Map<String, Value>,
    rows: Vec<Vec<String>>,
}

impl Report {
    /// An empty report.
    pub(crate) fn new(peer_version: String, arguments: &Arguments) -> Self {
        Self {
            json: arguments.json,
            peer_version,
            seconds: arguments.seconds,
            rounds: arguments.rounds,
            settings: Map::new(),
            rows: Vec::new(),
        }
    }

    /// Takes in what a run of ours was made with.
    pub(crate) fn made_with(&mut self, settings: Map<String, Value>) {
        self.settings = settings;
    }

    /// Takes in the rounds of a scenario; JSON is printed at once.
    pub(crate) fn add(&mut self, scenario: &Scenario, rounds: Vec<Round>) {
        if self.json {
            println!("{}", self.line(scenario.name, &rounds));
        }
        self.rows.push(row(scenario.name, &rounds));
    }

    /// Prints the table, unless JSON was printed.
    pub(crate) fn finish(&self) {
        if !self.json && !self.rows.is_empty() {
            println!("{}\n{}", self.heading(), table(&self.rows));
        }
    }

    fn heading(&self) -> String {
        let setting = |name: &str| match self.settings.get(name) {
            Some(Value::String(text)) => text.clone(),
            Some(other) => other.to_string(),
            None => "unknown".to_owned(),
        };
        format!(
            "machine: {} cores of {}, Linux {}, {}; client beside servers, loopback\n\
             NATS: {}; durable: JetStream key-value bucket, 3 replicas in files, sync_interval \
             always, plain TCP; fan-out: core, TLS, in memory\n\
             Quorate: {} ({} build); durable: flushed on a quorum of 3, QUIC with TLS; fan-out: one \
             durable node, QUIC with TLS\n\
             {} rounds of {} s after 1 s, in turn; {TOPICS} keys; medians; × is Quorate / NATS in \
             the same round, median (least–greatest)\n",
            setting("cores"),
            setting("processor"),
            setting("kernel"),
            setting("file_system"),
            self.peer_version,
            setting("version"),
            setting("build"),
            self.rounds,
            self.seconds,
        )
    }

    fn line(&self, name: &str, rounds: &[Round]) -> Value {
        let spreads = |of: Whose| -> Map<String, Value> {
            let spread = |pick: Pick| spread_json(Spread::of(rounds.iter().map(|r| pick(of(r)))));
            FIGURES.iter().map(|(name, pick)| ((*name).to_owned(), spread(*pick))).collect()
        };
        let ratios = FIGURES
            .iter()
            .map(|(name, pick)| ((*name).to_owned(), spread_json(ratio(rounds, *pick))));
        json!({
            "scenario": name,
            "nats": spreads(PEER),
            "quorate": spreads(OURS),
            "ratio": ratios.collect::<Map<_, _>>(),
            "settings": {
                "rounds": self.rounds,
                "seconds": self.seconds,
                "nats_version": self.peer_version,
                "quorate": self.settings,
            },
        })
    }
}

fn spread_json(spread: Option<Spread>) -> Value {
    let rounded = |figure: f64| (figure * 1e4).round() / 1e4;
    spread.map_or(Value::Null, |spread| {
        json!({
            "median": rounded(spread.median),
            "min": rounded(spread.min),
            "max": rounded(spread.max),
        })
    })
}

/// Ours divided by the peer's, round by round.
pub(crate) fn ratio(rounds: &[Round], pick: Pick) -> Option<Spread> {
    Spread::of(rounds.iter().map(|round| pick(&round.ours) / pick(&round.peer)))
}

/// The cells of a scenario.
pub(crate) fn row(name: &str, rounds: &[Round]) -> Vec<String> {
    let median = |of: Whose, pick: Pick, digits: usize| {
        let spread = Spread::of(rounds.iter().map(|round| pick(of(round))));
        spread.map_or_else(|| "–".to_owned(), |spread| format!("{:.digits$}", spread.median))
    };
    let latency = |of| format!("{} / {}", median(of, P50, 2), median(of, P99, 2));
    let times = |pick| {
        let spread = ratio(rounds, pick);
        spread.map_or_else(
            || "–".to_owned(),
            |spread| format!("{:.2} ({:.2}–{:.2})", spread.median, spread.min, spread.max),
        )
    };
    vec![
        name.to_owned(),
        median(PEER, RATE, 0),
        latency(PEER),
        median(PEER, SERVER_CPU, 2),
        median(OURS, RATE, 0),
        latency(OURS),
        median(OURS, SERVER_CPU, 2),
        times(RATE),
        times(P50),
        times(SERVER_CPU),
    ]
}

/// Lays rows out under their heads, as Markdown that reads well as it is.
pub(crate) fn table(rows: &[Vec<String>]) -> String {
    let heads = HEADS.map(str::to_owned).to_vec();
    let mut widths = [0; HEADS.len()];
    for row in rows.iter().chain([&heads]) {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |row: &[String]| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("| {cell:width$} "));
        format!("{}|\n", cells.collect::<String>())
    };
    let rule = widths.map(|width| format!("|{}", "-".repeat(width + 2))).concat();
    let body: String = rows.iter().map(|row| line(row)).collect();
    format!("{}{rule}|\n{body}", line(&heads))
}
