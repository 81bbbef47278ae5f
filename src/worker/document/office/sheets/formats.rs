//! How a workbook's numbers are shown: which of them are dates, shares and sums of money.

use std::collections::HashMap;

use super::super::archive::Archive;

/// Formats of a workbook.
const MAX_FORMATS: usize = 65_536;
/// The last day that a workbook can name: the end of the year 9999.
const LAST_DAY: f64 = 2_958_466.0;
/// Digits behind the point.
const MAX_PLACES: usize = 15;

/// The formats of cells, by their places in the list of styles.
pub struct Formats {
    styles: Vec<Format>,
    from_1904: bool,
}

#[derive(Clone, Debug, PartialEq)]
enum Format {
    /// As it is.
    General,
    /// A day, a time, or both.
    Time { day: bool, time: bool },
    /// So many digits behind the point, in hundredths or not, and what stands around the number.
    Number {
        places: usize,
        is_share: bool,
        before: String,
        after: String,
    },
}

impl Formats {
    pub fn read(
        archive: &Archive<'_>,
        part: Option<&str>,
        from_1904: bool,
    ) -> Result<Self, String> {
        let mut formats = Self {
            styles: vec![],
            from_1904,
        };
        let Some(mut xml) = part.map(|part| archive.xml(part)).transpose()?.flatten() else {
            return Ok(formats);
        };
        if !xml.find("styleSheet")? {
            return Ok(formats);
        }
        let mut own = HashMap::new();
        while let Some(tag) = xml.element()? {
            match tag.name() {
                "numFmts" => {
                    while let Some(tag) = xml.element()? {
                        let id = tag
                            .attribute("numFmtId")
                            .and_then(|id| id.parse::<u32>().ok());
                        let code = tag.attribute("formatCode").unwrap_or_default();
                        if let Some(id) = id.filter(|_| own.len() < MAX_FORMATS) {
                            own.insert(id, Format::of(&code));
                        }
                        xml.skip()?;
                    }
                }
                "cellXfs" => {
                    while let Some(tag) = xml.element()? {
                        let id = tag
                            .attribute("numFmtId")
                            .and_then(|id| id.parse::<u32>().ok());
                        let id = id.unwrap_or(0);
                        let format = own.get(&id).cloned();
                        if formats.styles.len() < MAX_FORMATS {
                            formats
                                .styles
                                .push(format.unwrap_or_else(|| Format::usual(id)));
                        }
                        xml.skip()?;
                    }
                }
                _ => xml.skip()?,
            }
        }
        Ok(formats)
    }

    /// A cell's number as its style shows it.
    pub fn shown(&self, value: &str, style: usize) -> String {
        let Ok(number) = value.trim().parse::<f64>() else {
            return value.trim().to_owned();
        };
        match self.styles.get(style) {
            Some(Format::Time { day, time }) if (0.0..LAST_DAY).contains(&number) => {
                moment(number, *day, *time, self.from_1904)
            }
            Some(Format::Number {
                places,
                is_share,
                before,
                after,
            }) => {
                let number = if *is_share { number * 100.0 } else { number };
                format!("{before}{number:.places$}{after}")
            }
            _ => general(number),
        }
    }
}

impl Format {
    /// Those that every workbook has.
    fn usual(id: u32) -> Self {
        Self::of(match id {
            1 | 3 | 37 | 38 => "0",
            2 | 4 | 39 | 40 => "0.00",
            9 => "0%",
            10 => "0.00%",
            14..=17 | 27..=31 | 36 | 50..=54 | 57 | 58 => "yyyy-mm-dd",
            18..=21 | 32..=35 | 45..=47 | 55 | 56 => "h:mm:ss",
            22 => "yyyy-mm-dd h:mm",
            _ => "General",
        })
    }

    fn of(code: &str) -> Self {
        // What is for positive numbers comes first.
        let (plain, before, after) = parted(code);
        let lower = plain.to_ascii_lowercase();
        if lower.contains("general") || lower.contains('@') {
            return Self::General;
        }
        let day = lower.contains(['y', 'd']) || lower.contains('m') && !lower.contains(['h', 's']);
        let time = lower.contains(['h', 's']);
        if day || time {
            return Self::Time { day, time };
        }
        if !lower.contains(['0', '#', '?']) || lower.contains(['e', '/']) {
            return Self::General;
        }
        let behind = lower.split_once('.').map_or("", |(_, behind)| behind);
        let places = behind
            .chars()
            .take_while(|c| matches!(c, '0' | '#' | '?'))
            .count();
        Self::Number {
            places: places.min(MAX_PLACES),
            is_share: lower.contains('%'),
            before,
            after: if lower.contains('%') {
                format!("%{after}")
            } else {
                after
            },
        }
    }
}

/// The first part of a format without quoted texts, colours and conditions; the texts before the
/// number, and those behind it.
fn parted(code: &str) -> (String, String, String) {
    let (mut plain, mut before, mut after) = (String::new(), String::new(), String::new());
    let mut characters = code.chars();
    while let Some(c) = characters.next() {
        let has_number = plain.contains(['0', '#', '?']);
        let text = if has_number { &mut after } else { &mut before };
        match c {
            ';' => break,
            '"' => text.extend(characters.by_ref().take_while(|c| *c != '"')),
            '\\' => text.extend(characters.next()),
            // A blank as wide as the next character, or as many of it as fit.
            '_' | '*' => drop(characters.next()),
            '[' => {
                let inside: String = characters.by_ref().take_while(|c| *c != ']').collect();
                match inside.strip_prefix('$') {
                    Some(sign) => *text += sign.split('-').next().unwrap_or_default(),
                    None if inside.eq_ignore_ascii_case("h")
                        || inside.eq_ignore_ascii_case("hh") =>
                    {
                        plain.push('h');
                    }
                    None => {}
                }
            }
            '$' | '€' | '£' | '¥' | ' ' => text.push(c),
            c => plain.push(c),
        }
    }
    (plain, before, after)
}

/// As a workbook keeps numbers: fifteen digits.
fn general(number: f64) -> String {
    if number == 0.0 || !number.is_finite() {
        return number.to_string();
    }
    let rounded: f64 = format!("{number:.14e}").parse().unwrap_or(number);
    if (1e-6..1e15).contains(&rounded.abs()) {
        rounded.to_string()
    } else {
        format!("{rounded:e}")
    }
}

/// A day and a time of day as ISO 8601 has them.
fn moment(number: f64, day: bool, time: bool, from_1904: bool) -> String {
    // To the second.
    let seconds = (number * 86_400.0).round() as u64;
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    let clock = format!("{:02}:{:02}:{:02}", rest / 3600, rest / 60 % 60, rest % 60);
    let clock = clock.strip_suffix(":00").unwrap_or(&clock).to_owned();
    if !day {
        // Hours of more than a day are a length of time.
        return match days {
            0 => clock,
            days => format!("{}{}", days * 24 + rest / 3600, &clock[2..]),
        };
    }
    // Days since the year 0; there is no 29 February 1900, but the first workbooks had one.
    let epoch = match (from_1904, days) {
        (true, _) => 695_421,
        (false, 0..60) => 693_960,
        (false, _) => 693_959,
    };
    let (year, month, date) = date(days + epoch);
    let date = format!("{year:04}-{month:02}-{date:02}");
    if time && rest > 0 {
        format!("{date} {clock}")
    } else {
        date
    }
}

/// Year, month and day of a day that is counted from 1 January of the year 0.
fn date(day: u64) -> (u64, u64, u64) {
    // From 1 March, so that the odd day is the last of a year.
    let day = day.saturating_sub(60);
    let (era, of_era) = (day / 146_097, day % 146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let date = of_year - (153 * month + 2) / 5 + 1;
    let (month, late) = if month < 10 {
        (month + 3, 0)
    } else {
        (month - 9, 1)
    };
    (year + era * 400 + late, month, date)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(value: &str, code: &str) -> String {
        let formats = Formats {
            styles: vec![Format::of(code)],
            from_1904: false,
        };
        formats.shown(value, 0)
    }

    #[test]
    fn numbers_are_shown_as_the_sheet_shows_them() {
        for (value, code, expected) in [
            ("0.30000000000000004", "General", "0.3"),
            ("46053", "dd/mm/yyyy", "2026-01-31"),
            ("46054.5625", "yyyy-mm-dd h:mm:ss", "2026-02-01 13:30"),
            ("1", "d.m.yyyy", "1900-01-01"),
            ("59", "d.m.yyyy", "1900-02-28"),
            ("61", "d.m.yyyy", "1900-03-01"),
            ("2958465", "d.m.yyyy", "9999-12-31"),
            ("0.5", "h:mm AM/PM", "12:00"),
            ("1.25", "[h]:mm", "30:00"),
            ("0.254", "0.0%", "25.4%"),
            ("1234.5", "#,##0.00 \"€\"", "1234.50 €"),
            ("-3", "[$$-409]#,##0.00;[Red]-#,##0", "$-3.00"),
            ("12", "0", "12"),
            ("1e300", "General", "1e300"),
            ("-1", "yyyy", "-1"),
            ("NaN", "0.0%", "NaN%"),
            ("x", "0", "x"),
        ] {
            assert_eq!(shown(value, code), expected, "{value} {code}");
        }
        let mac = Formats {
            styles: vec![Format::usual(14)],
            from_1904: true,
        };
        assert_eq!(mac.shown("0", 0), "1904-01-01");
    }
}
