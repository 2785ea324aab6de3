//! What `cargo test --benches` runs in place of measurements: the parts that need no server.

use clap::{CommandFactory as _, Parser as _};

use crate::Arguments;
use crate::figures::{Figures, Spread, latencies};
use crate::meter::cpu_s;
use crate::nats::protocol::{Frame, frame, put_publish};
use crate::quorate_bench::figures_of;
use crate::report::{Round, ratio, row, table};
use crate::scenario::SCENARIOS;

/// Runs every check; the first that fails panics.
pub(crate) fn all() {
    arguments_are_read();
    frames_are_read_however_they_come();
    what_is_no_frame_is_refused();
    the_client_writes_what_the_protocol_says();
    our_line_is_read();
    figures_come_of_counts();
    spreads_have_a_middle();
    the_table_is_aligned();
    processor_time_is_found_behind_any_name();
}

fn arguments_are_read() {
    Arguments::command().debug_assert();
    let given = ["peers", "--bench", "window 64", "--rounds", "2", "--nats", "/nats-server"];
    let arguments = Arguments::try_parse_from(given).expect("they are legal");
    assert_eq!((arguments.rounds, arguments.seconds), (2, 5));
    let chosen = |filter: &str| SCENARIOS.iter().filter(|s| s.name.contains(filter)).count();
    assert_eq!(chosen(arguments.filter.as_deref().unwrap_or("")), 1);
    assert_eq!((chosen(""), chosen("durable"), chosen("fan-out")), (6, 4, 2));
    assert!(Arguments::try_parse_from(["peers", "--rounds", "0"]).is_err());
}

fn frames_are_read_however_they_come() {
    let stream = b"INFO {\"a\":1}\r\nPING\r\nMSG a.b 1 5\r\nx\r\ny\n\r\nMSG a 7 _INBOX.1 0\r\n\r\n\
        HMSG h 1 12 14\r\nNATS/1.0\r\n\r\nhi\r\n+OK\r\n-ERR 'no'\r\nPONG\r\n";
    let message = |subject, payload| Frame::Message { subject, payload };
    let expected = [
        Frame::Info,
        Frame::Ping,
        message(b"a.b", b"x\r\ny\n"),
        message(b"a", b""),
        message(b"h", b"hi"),
        Frame::Ok,
        Frame::Error(b"'no'"),
        Frame::Pong,
    ];
    let mut rest: &[u8] = stream;
    for wanted in expected {
        let (found, length) = frame(rest).expect("it is legal").expect("it is complete");
        assert_eq!(found, wanted);
        let (whole, after) = rest.split_at(length);
        for cut in 0..length {
            let part = whole.split_at(cut).0;
            assert_eq!(frame(part).expect("it may become one"), None, "{part:?}");
        }
        rest = after;
    }
    assert!(rest.is_empty());
}

fn what_is_no_frame_is_refused() {
    let long = vec![b'x'; 70_000];
    let refused: [&[u8]; 8] = [
        b"HELLO\r\n",
        b"PING\n",
        b"MSG a 1 x\r\n",
        b"MSG a\r\n",
        b"MSG a 1 99999999999\r\n",
        b"MSG a 1 1\r\nabc",
        b"HMSG a 1 9 2\r\nhi\r\n",
        &long,
    ];
    for bytes in refused {
        assert!(frame(bytes).is_err(), "{}", String::from_utf8_lossy(bytes));
    }
}

fn the_client_writes_what_the_protocol_says() {
    let mut buffer = Vec::new();
    put_publish(&mut buffer, format_args!("a.{}", 1), Some(format_args!("r")), b"xyz");
    put_publish(&mut buffer, format_args!("b"), None, b"");
    assert_eq!(buffer, b"PUB a.1 r 3\r\nxyz\r\nPUB b 0\r\n\r\n");
}

fn our_line_is_read() {
    let output = "a note\n{\"scenario\":\"publish\",\"rate_per_s\":1000.5,\"latency_ms\":{\"p50\":1,\
        \"p99\":2.5,\"p999\":3,\"max\":4},\"server_cpu_s_per_million\":8,\
        \"client_cpu_s_per_million\":1.5,\"settings\":{\"cores\":2}}\n";
    let (figures, settings) = figures_of(output).expect("it is the line");
    assert_eq!(figures, sample(1000.5, 1.0));
    assert_eq!(settings.get("cores"), Some(&2.into()));
    for broken in ["", "no JSON", "{}", "{\"rate_per_s\":null}"] {
        assert!(figures_of(broken).is_err(), "{broken}");
    }
}

fn sample(rate_per_s: f64, p50_ms: f64) -> Figures {
    Figures {
        rate_per_s,
        p50_ms,
        p99_ms: 2.5,
        server_cpu_s_per_million: 8.0,
        client_cpu_s_per_million: 1.5,
    }
}

fn figures_come_of_counts() {
    let mut histogram = latencies();
    for us in 1..=1_000 {
        histogram.saturating_record(us);
    }
    let figures = Figures::of(1_000, 2.0, &histogram, 0.008, 0.0015);
    let expected = Figures { p50_ms: 0.5, p99_ms: 0.99, ..sample(500.0, 0.5) };
    assert_eq!(figures, Some(expected));
    assert_eq!(Figures::of(0, 2.0, &histogram, 1.0, 1.0), None);
    assert_eq!(Figures::of(1, 2.0, &latencies(), 1.0, 1.0), None);
}

fn spreads_have_a_middle() {
    let of = |values: &[f64]| Spread::of(values.iter().copied());
    let spread = |median, min, max| Some(Spread { median, min, max });
    assert_eq!(of(&[3.0, 1.0, 2.0]), spread(2.0, 1.0, 3.0));
    assert_eq!(of(&[4.0, 1.0, 2.0, 3.0]), spread(2.5, 1.0, 4.0));
    assert_eq!(of(&[]), None);
    assert_eq!(of(&[1.0, f64::NAN]), None);
}

fn the_table_is_aligned() {
    let rounds = [(100.0, 150.0), (100.0, 300.0), (200.0, 400.0)]
        .map(|(peer, ours)| Round { peer: sample(peer, 2.0), ours: sample(ours, 1.0) });
    let rates = ratio(&rounds, |figures| figures.rate_per_s);
    assert_eq!(rates, Some(Spread { median: 2.0, min: 1.5, max: 3.0 }));
    let cells = row("a row", &rounds);
    let expected = [
        "a row",
        "100",
        "2.00 / 2.50",
        "8.00",
        "300",
        "1.00 / 2.50",
        "8.00",
        "2.00 (1.50–3.00)",
        "0.50 (0.50–0.50)",
        "1.00 (1.00–1.00)",
    ];
    assert_eq!(cells, expected);
    let table = table(&[cells]);
    let mut widths = table.lines().map(|line| line.chars().count());
    let first = widths.next();
    assert!(widths.all(|width| Some(width) == first), "{table}");
    assert_eq!(table.lines().count(), 3);
}

fn processor_time_is_found_behind_any_name() {
    let stat = "4242 (na) ts (x) S 1 4242 4242 0 -1 4194560 2571 0 3 0 1234 66 0 0 20 0 9 0 118";
    assert_eq!(cpu_s(stat), Some(13.0));
    assert_eq!(cpu_s("4242 (nats-server) S 1 2"), None);
}
