//! Sizes and times as people write them.

use std::time::Duration;

/// Reads `32 MiB`, `512KiB`, `1 GiB` or a plain number of bytes. `None` for anything else.
pub fn parse_size(text: &str) -> Option<u64> {
    let (number, unit) = split(text)?;
    let factor = match unit {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return None,
    };
    number.checked_mul(factor)
}

/// Reads `500ms`, `30s`, `10m`, `1h`, `2d` or a plain number of seconds. `None` for anything else.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let (number, unit) = split(text)?;
    let factor = match unit {
        "ms" => return Some(Duration::from_millis(number)),
        "" | "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return None,
    };
    number.checked_mul(factor).map(Duration::from_secs)
}

/// Bytes in the largest unit that leaves no rest.
pub(super) fn show_size(bytes: u64) -> String {
    match bytes {
        0 => "0".into(),
        _ if bytes.is_multiple_of(1 << 30) => format!("{} GiB", bytes >> 30),
        _ if bytes.is_multiple_of(1 << 20) => format!("{} MiB", bytes >> 20),
        _ if bytes.is_multiple_of(1 << 10) => format!("{} KiB", bytes >> 10),
        _ => bytes.to_string(),
    }
}

fn split(text: &str) -> Option<(u64, &str)> {
    let text = text.trim();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    Some((number.parse().ok()?, unit.trim_start()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, bytes) in [
            ("32 MiB", 32 << 20),
            ("512KiB", 512 << 10),
            (" 1 GiB ", 1 << 30),
            ("17", 17),
            ("17 B", 17),
        ] {
            assert_eq!(parse_size(text), Some(bytes), "{text}");
        }
        for text in [
            "",
            "MiB",
            "1 MB",
            "1.5 GiB",
            "-1",
            "1 mib",
            "99999999999999999999",
            "18446744073709551615 KiB",
        ] {
            assert_eq!(parse_size(text), None, "{text}");
        }
        assert_eq!(show_size(32 << 20), "32 MiB");
        assert_eq!(show_size(1025), "1025");
    }

    #[test]
    fn times() {
        for (text, ms) in [
            ("500ms", 500),
            ("30s", 30_000),
            ("10 m", 600_000),
            ("1h", 3_600_000),
            ("2d", 172_800_000),
            ("7", 7000),
        ] {
            assert_eq!(
                parse_duration(text),
                Some(Duration::from_millis(ms)),
                "{text}"
            );
        }
        for text in [
            "",
            "s",
            "1.5h",
            "-1s",
            "1 week",
            "1M",
            "18446744073709551615h",
        ] {
            assert_eq!(parse_duration(text), None, "{text}");
        }
    }
}
