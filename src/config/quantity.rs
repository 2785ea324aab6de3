//! Sizes like `2GiB` and durations like `50ms`, both ways.

use std::time::Duration;

const SIZES: [(&str, u64); 5] =
    [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];
const DURATIONS_MS: [(&str, u64); 5] =
    [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// The bytes in `512KiB`, `64MiB`, `2GiB`, `1TiB` or `100B`.
pub(super) fn parse_bytes(text: &str) -> Option<u64> {
    parse(text, &SIZES)
}

/// The duration in `50ms`, `2s`, `5m`, `24h` or `7d`.
pub(super) fn parse_duration(text: &str) -> Option<Duration> {
    parse(text, &DURATIONS_MS).map(Duration::from_millis)
}

/// The shortest text that means these bytes.
pub(super) fn bytes_text(bytes: u64) -> String {
    text(bytes, &SIZES)
}

/// The shortest text that means this duration, of whole milliseconds.
pub(super) fn duration_text(duration: Duration) -> String {
    text(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX), &DURATIONS_MS)
}

fn parse(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at_checked(digits)?;
    let (_, factor) = units.iter().find(|(name, _)| *name == unit.trim_start())?;
    number.parse::<u64>().ok()?.checked_mul(*factor)
}

fn text(amount: u64, units: &[(&str, u64)]) -> String {
    let fits = |(_, factor): &&(&str, u64)| amount != 0 && amount.is_multiple_of(*factor);
    let smallest = units.iter().min_by_key(|(_, factor)| *factor);
    match units.iter().filter(fits).max_by_key(|(_, factor)| *factor).or(smallest) {
        Some((name, factor)) => format!("{}{name}", amount / factor),
        None => amount.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_come_back() {
        for (text, bytes) in [
            ("0B", 0),
            ("100B", 100),
            ("64MiB", 64 << 20),
            ("2GiB", 2 << 30),
            ("1025KiB", 1_049_600),
        ] {
            assert_eq!(parse_bytes(text), Some(bytes));
            assert_eq!(bytes_text(bytes), text);
        }
        assert_eq!(parse_bytes("2 GiB"), Some(2 << 30));
        for (text, ms) in
            [("0ms", 0), ("50ms", 50), ("2s", 2_000), ("90s", 90_000), ("1d", 86_400_000)]
        {
            assert_eq!(parse_duration(text), Some(Duration::from_millis(ms)));
            assert_eq!(duration_text(Duration::from_millis(ms)), text);
        }
        for bad in ["", "5", "GiB", "1.5GiB", "-1s", "2gb", "2 fortnights", "99999999999TiB"] {
            assert_eq!((parse_bytes(bad), parse_duration(bad)), (None, None), "{bad}");
        }
    }
}
