//! Sizes and times as people write them.

use std::time::Duration;

/// Digits behind the point of a size.
const FRACTION: usize = 9;

/// Reads `32 MiB`, `512K`, `4GB`, `4.5 G` or a plain number of bytes. `None` for anything else.
/// `K`, `KB` and `KiB` are 1024 bytes and so on, in small letters as well: memory comes in such
/// units, and systemd's `MemoryMax=` reads them so. A fraction of a byte is left out.
pub fn parse_size(text: &str) -> Option<u64> {
    let text = text.trim();
    let number = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(number);
    let power = match unit.trim_start().to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        _ => return None,
    };
    let (whole, fraction) = match number.split_once('.') {
        // There is nothing between two bytes.
        Some((_, fraction)) if power == 0 || fraction.is_empty() || fraction.len() > FRACTION => {
            return None;
        }
        Some(parts) => parts,
        None => (number, ""),
    };
    let whole = match whole {
        // `.5G`
        "" if !fraction.is_empty() => 0,
        digits => digits.parse::<u64>().ok()?.checked_mul(1 << power)?,
    };
    let part = match fraction {
        "" => 0,
        // Less than 10^9, times 2^40 at most.
        digits => (digits.parse::<u128>().ok()? << power) / 10_u128.pow(digits.len() as u32),
    };
    whole.checked_add(u64::try_from(part).ok()?)
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
            ("4G", 4 << 30),
            ("4GB", 4 << 30),
            ("4 GB", 4 << 30),
            ("4gib", 4 << 30),
            ("4.5G", 9 << 29),
            ("0.5 KiB", 512),
            (".5 GiB", 1 << 29),
            ("1500MB", 1500 << 20),
            ("1.5 mib", 3 << 19),
            ("0.000000001 TB", 1099),
            ("2T", 2 << 40),
        ] {
            assert_eq!(parse_size(text), Some(bytes), "{text}");
        }
        for text in [
            "",
            "MiB",
            "1 M iB",
            "1 Mbit",
            "1.5",
            "1. GiB",
            ". GiB",
            ".5",
            "1.5.2 GiB",
            "1,5 GiB",
            "0.0000000001 TB",
            "+1",
            "-1",
            "1e3",
            "1 PiB",
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
