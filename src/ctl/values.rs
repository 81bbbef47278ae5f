//! Values of options out of what was typed: one reader for each kind. What the daemon would refuse is
//! refused here, so that it ends as every mistake on the command line does. Pure.

use std::ops::RangeInclusive;
use std::time::Duration;

use serde_json::Number;

use crate::chat::MAX_STOP_BYTES;
use crate::config::{self, BusChoice};

/// Bytes below which a size without a unit is taken for a slip: no model fits into a MiB.
const SLIP: u64 = 1 << 20;
/// Tokens of context, as the configuration has it.
pub const CONTEXTS: RangeInclusive<i64> = 256..=262_144;

/// A number of this range. JSON has no infinities.
pub fn number(text: &str, range: RangeInclusive<f32>) -> Result<f64, String> {
    let number = text.parse().ok();
    number
        .filter(|number: &f64| range.contains(&(*number as f32)))
        .ok_or_else(|| format!("write a number from {} to {}", range.start(), range.end()))
}

/// A count of tokens to draw from; -1 and 0 are all of them.
pub fn top_k(text: &str) -> Result<i64, String> {
    let range = -1..=i32::MAX.into();
    whole(text, range).ok_or_else(|| "write a whole number, or 0 for all tokens".into())
}

/// A number of tokens at most; -1 is no limit, as in other programs.
pub fn max_tokens(text: &str) -> Result<i64, String> {
    let range = -1..=u32::MAX.into();
    whole(text, range)
        .filter(|tokens| *tokens != 0)
        .ok_or_else(|| "write a number of tokens, like 500 or 4k, or -1 for no limit".into())
}

/// Tokens of context.
pub fn context(text: &str) -> Result<u32, String> {
    let tokens = whole(text, CONTEXTS).and_then(|tokens| tokens.try_into().ok());
    tokens.ok_or_else(|| {
        format!(
            "write a number of tokens from {} to {}, like 4096 or 4k",
            CONTEXTS.start(),
            CONTEXTS.end()
        )
    })
}

/// What makes an answer repeatable; -1 is another one each time, as in other programs.
pub fn seed(text: &str) -> Result<Number, String> {
    match text.parse::<u64>() {
        Ok(seed) => Ok(seed.into()),
        Err(_) if text == "-1" => Ok((-1).into()),
        Err(_) => Err("write a whole number, or -1 for another seed each time".into()),
    }
}

/// A text that ends an answer.
pub fn stop(text: &str) -> Result<String, String> {
    match text.len() {
        0 => Err("write the text before which the answer ends; it must not be empty".into()),
        1..=MAX_STOP_BYTES => Ok(text.into()),
        bytes => Err(format!("it has {bytes} bytes, more than {MAX_STOP_BYTES}")),
    }
}

/// A whole number of this range; `4k` is 4096.
fn whole(text: &str, range: RangeInclusive<i64>) -> Option<i64> {
    let (digits, unit) = match text.strip_suffix(['k', 'K']) {
        Some(thousands) => (thousands, 1024),
        None => (text, 1),
    };
    let number = digits.parse::<i64>().ok()?.checked_mul(unit)?;
    Some(number).filter(|number| range.contains(number))
}

/// Bytes of memory.
pub fn ram(text: &str) -> Result<u64, String> {
    let bytes = config::parse_size(text).filter(|bytes| *bytes > 0);
    let bytes = bytes.ok_or("write a size like 4G, 4.5GB, 1500M or \"2 GiB\"")?;
    match text.trim().bytes().all(|byte| byte.is_ascii_digit()) && bytes < SLIP {
        true => Err(format!("these are {bytes} bytes; did you mean {bytes}M?")),
        false => Ok(bytes),
    }
}

/// A time of more than 0.
pub fn duration(text: &str) -> Result<Duration, String> {
    let time = config::parse_duration(text).filter(|time| !time.is_zero());
    time.ok_or_else(|| "write a time like 500ms, 30s, 10m or 1h".into())
}

/// Where the message bus is.
pub fn bus(name: &str) -> Result<BusChoice, String> {
    match name {
        "system" => Ok(BusChoice::System),
        "session" => Ok(BusChoice::Session),
        address if address.starts_with("unix:") => Ok(BusChoice::Address(address.into())),
        _ => Err("it must be `system`, `session` or an address like `unix:path=/run/dbus/system_bus_socket`".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::{PENALTIES, TEMPERATURES};

    #[test]
    fn numbers_are_within_the_daemons_bounds() {
        let temperature = |text| number(text, TEMPERATURES);
        assert_eq!((temperature("0.5"), temperature("2")), (Ok(0.5), Ok(2.0)));
        assert_eq!(number("-2", PENALTIES), Ok(-2.0));
        for text in ["-1", "2.1", "nan", "inf", "x", "", "--json"] {
            let error = temperature(text).unwrap_err();
            assert_eq!(error, "write a number from 0 to 2", "{text}");
        }
    }

    #[test]
    fn whole_numbers_may_be_thousands() {
        assert_eq!((context("4k"), context("4096")), (Ok(4096), Ok(4096)));
        assert_eq!((context("256K"), max_tokens("2K")), (Ok(262_144), Ok(2048)));
        for text in [
            "-5",
            "0",
            "255",
            "257k",
            "4M",
            "4 k",
            "k",
            "x",
            "9999999999999999999k",
        ] {
            let error = context(text).unwrap_err();
            assert!(error.contains("from 256 to 262144, like 4096"), "{error}");
        }
        assert_eq!((max_tokens("-1"), top_k("-1")), (Ok(-1), Ok(-1)));
        assert_eq!(top_k("0"), Ok(0));
        for text in ["0", "-2", "4294967296", "1.5"] {
            assert!(max_tokens(text).is_err(), "{text}");
        }
        assert!(top_k("-2").is_err() && top_k("2147483648").is_err());
    }

    #[test]
    fn seeds_are_any_number_or_none() {
        assert_eq!(seed("18446744073709551615"), Ok(u64::MAX.into()));
        assert_eq!(seed("-1"), Ok((-1).into()));
        for text in ["-2", "1.5", "x", "18446744073709551616"] {
            assert!(seed(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_and_times() {
        assert_eq!(
            (ram("4G"), ram("512MiB"), ram("1048576")),
            (Ok(4 << 30), Ok(512 << 20), Ok(1 << 20))
        );
        assert_eq!(
            (ram("4GB"), ram("4.5G"), ram("4 GB"), ram(".5G")),
            (Ok(4 << 30), Ok(9 << 29), Ok(4 << 30), Ok(1 << 29))
        );
        for text in ["0", "G", "4 X", "-1"] {
            assert!(ram(text).unwrap_err().contains("like 4G"), "{text}");
        }
        assert!(ram("512").unwrap_err().contains("did you mean 512M?"));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        assert!(duration("0").is_err() && duration("soon").is_err());
    }

    #[test]
    fn texts_that_end_an_answer_are_some() {
        assert_eq!(stop("-b"), Ok("-b".into()));
        assert!(stop("").is_err() && stop(&"x".repeat(257)).is_err());
    }
}
