//! Decimal numbers of any length, and the regular expressions of those within bounds. Pure.

use std::cmp::Ordering;

use llguidance::derivre::RegexAst;
use serde_json::Number;

use super::Bound;

/// Digits of a whole number where a schema names no larger one: exact in every language.
const DIGITS: usize = 15;
/// Digits behind the point.
const FRACTION_DIGITS: usize = 15;
/// The largest divisor, without its point: the engine has a state for each remainder.
const MAX_COEFFICIENT: u32 = 100_000;
/// Digits of a number that is written in a schema, beyond which it says nothing.
const MAX_DIGITS: i64 = 400;

/// A decimal number, without zeros that say nothing.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Decimal {
    negative: bool,
    /// Before the point; "0" if nothing is there.
    whole: String,
    /// Behind the point.
    fraction: String,
}

impl Decimal {
    /// `None` if it has too many digits.
    pub fn of(number: &Number) -> Option<Self> {
        let text = number.to_string();
        let (negative, text) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text.as_str()),
        };
        let (digits, exponent) = match text.split_once(['e', 'E']) {
            Some((digits, exponent)) => (digits, exponent.parse::<i64>().ok()?),
            None => (text, 0),
        };
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        let point = whole.len() as i64 + exponent;
        if point.abs() > MAX_DIGITS {
            return None;
        }
        let mut all = format!("{whole}{fraction}");
        if point < 0 {
            all.insert_str(0, &"0".repeat(point.unsigned_abs() as usize));
        }
        let point = point.max(0) as usize;
        while all.len() < point {
            all.push('0');
        }
        let (whole, fraction) = all.split_at(point);
        let (whole, fraction) = (
            whole.trim_start_matches('0'),
            fraction.trim_end_matches('0'),
        );
        let is_zero = whole.is_empty() && fraction.is_empty();
        Some(Self {
            negative: negative && !is_zero,
            whole: if whole.is_empty() { "0" } else { whole }.to_owned(),
            fraction: fraction.to_owned(),
        })
    }

    pub fn is_whole(&self) -> bool {
        self.fraction.is_empty()
    }

    /// Whether it is a multiple of another one; `None` where that is not known.
    pub fn is_multiple_of(&self, of: &Self) -> Option<bool> {
        let places = self.fraction.len().max(of.fraction.len());
        let scaled = |number: &Self| {
            format!("{}{:0<places$}", number.whole, number.fraction)
                .parse::<u128>()
                .ok()
        };
        match scaled(of)? {
            0 => Some(false),
            of => Some(scaled(self)? % of == 0),
        }
    }

    /// The number without its point, and its digits behind it; `None` if it is too large or not above
    /// zero.
    fn coefficient(&self) -> Option<(u32, u32)> {
        let digits = format!("{}{}", self.whole, self.fraction);
        let coefficient: u32 = digits.parse().ok()?;
        (1..=MAX_COEFFICIENT)
            .contains(&coefficient)
            .then_some((coefficient, self.fraction.len() as u32))
    }

    fn size(&self, other: &Self) -> Ordering {
        (self.whole.len(), &self.whole, &self.fraction).cmp(&(
            other.whole.len(),
            &other.whole,
            &other.fraction,
        ))
    }
}

impl Ord for Decimal {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self.negative, other.negative) {
            (false, false) => self.size(other),
            (true, true) => other.size(self),
            (false, true) => Ordering::Greater,
            (true, false) => Ordering::Less,
        }
    }
}

impl PartialOrd for Decimal {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

fn regex(text: impl Into<String>) -> RegexAst {
    RegexAst::Regex(text.into())
}

fn not(ast: RegexAst) -> RegexAst {
    RegexAst::Not(Box::new(ast))
}

/// Numbers, and whole ones only if `whole`. Those without bounds may have an exponent.
pub fn numbers(whole: bool, least: Option<&Bound>, most: Option<&Bound>) -> RegexAst {
    let bounds = least.into_iter().chain(most);
    let longest = bounds.map(|(number, _)| number.whole.len()).max();
    let more = longest.unwrap_or(0).max(DIGITS) - 1;
    // Near a bound no more digits than readers can tell from it.
    let places = longest.map_or(FRACTION_DIGITS, |whole| DIGITS.saturating_sub(whole).max(1));
    let fraction = format!("(\\.[0-9]{{1,{places}}})?");
    let size = format!("(0|[1-9][0-9]{{0,{more}}})");
    let signed = match (whole, longest) {
        // Some readers take -0 for a number with a fraction.
        (true, _) => format!("0|-?[1-9][0-9]{{0,{more}}}"),
        (false, Some(_)) => format!("-?{size}{fraction}"),
        (false, None) => format!("-?{size}{fraction}([eE][+-]?[0-9]{{1,2}})?"),
    };
    let signed = regex(signed);
    let mut all = vec![signed];
    all.extend(least.map(|(number, exclusive)| above(number, *exclusive)));
    all.extend(most.map(|(number, exclusive)| below(number, *exclusive)));
    RegexAst::And(all)
}

/// Numbers of which `of` is a divisor; `None` if that cannot be said.
pub fn multiples(of: &Decimal) -> Option<RegexAst> {
    let (coefficient, places) = of.coefficient()?;
    Some(RegexAst::Concat(vec![
        regex("-?"),
        RegexAst::MultipleOf(coefficient, places),
    ]))
}

/// Every way to write one number without an exponent.
pub fn spellings(of: &Decimal) -> RegexAst {
    let sign = if of.negative { "-" } else { "" };
    let zeros = if of.fraction.is_empty() {
        "(\\.0+)?".to_owned()
    } else {
        format!("\\.{}0*", of.fraction)
    };
    let zero = if of.whole == "0" && of.fraction.is_empty() {
        "-?"
    } else {
        ""
    };
    regex(format!("{zero}{sign}{}{zeros}", of.whole))
}

fn above(bound: &Decimal, exclusive: bool) -> RegexAst {
    if bound.negative {
        // Everything that is not negative, and what is not as far from zero.
        RegexAst::Or(vec![
            regex("[0-9][0-9.]*"),
            RegexAst::And(vec![
                regex("-[0-9.]+"),
                not(negative(larger(bound, !exclusive))),
            ]),
        ])
    } else {
        larger(bound, exclusive)
    }
}

fn below(bound: &Decimal, exclusive: bool) -> RegexAst {
    let is_zero = bound.whole == "0" && bound.fraction.is_empty();
    if bound.negative || (is_zero && exclusive) {
        negative(larger(bound, exclusive))
    } else {
        RegexAst::Or(vec![
            regex("-[0-9.]+"),
            RegexAst::And(vec![regex("[0-9][0-9.]*"), not(larger(bound, !exclusive))]),
        ])
    }
}

fn negative(size: RegexAst) -> RegexAst {
    RegexAst::Concat(vec![RegexAst::Literal("-".into()), size])
}

/// Numbers without a sign that are as far from zero as `bound`, or farther; only farther if
/// `exclusive`.
fn larger(bound: &Decimal, exclusive: bool) -> RegexAst {
    let (whole, fraction) = (bound.whole.as_str(), bound.fraction.as_str());
    let mut options = vec![format!("[1-9][0-9]{{{},}}(\\.[0-9]+)?", whole.len())];
    let higher = |digit: char| match digit {
        '9' => None,
        digit => Some(format!("[{}-9]", (digit as u8 + 1) as char)),
    };
    for (i, digit) in whole.char_indices() {
        if let Some(higher) = higher(digit) {
            let rest = whole.len() - i - 1;
            options.push(format!(
                "{}{higher}[0-9]{{{rest}}}(\\.[0-9]+)?",
                &whole[..i]
            ));
        }
    }
    for (i, digit) in fraction.char_indices() {
        if let Some(higher) = higher(digit) {
            options.push(format!("{whole}\\.{}{higher}[0-9]*", &fraction[..i]));
        }
    }
    options.push(match (fraction.is_empty(), exclusive) {
        (true, true) => format!("{whole}\\.[0-9]*[1-9][0-9]*"),
        (true, false) => format!("{whole}(\\.[0-9]+)?"),
        (false, true) => format!("{whole}\\.{fraction}[0-9]*[1-9][0-9]*"),
        (false, false) => format!("{whole}\\.{fraction}[0-9]*"),
    });
    regex(options.join("|"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use llguidance::derivre::RegexBuilder;

    fn decimal(text: &str) -> Decimal {
        Decimal::of(&serde_json::from_str(text).unwrap()).unwrap()
    }

    #[test]
    fn numbers_within_bounds() {
        let samples = [
            "-1000", "-100.5", "-12", "-1.50", "-1.5", "-1", "-0.25", "0", "0.001", "0.1", "0.5",
            "0.50", "0.51", "1", "1.0", "1.01", "2", "9", "9.99", "10", "11", "19", "20", "99",
            "100", "100.1", "999", "1000",
        ];
        let bounds = [
            "-100", "-1.5", "-1", "0", "0.5", "1", "9", "10", "19.99", "100",
        ];
        for bound in bounds {
            for exclusive in [false, true] {
                let bound = (decimal(bound), exclusive);
                for (least, most) in [(Some(&bound), None), (None, Some(&bound))] {
                    let mut builder = RegexBuilder::new();
                    let expression = builder.mk(&numbers(false, least, most)).unwrap();
                    let mut regex = builder.to_regex(expression);
                    for sample in samples {
                        let order = decimal(sample).cmp(&bound.0);
                        let fits = match order {
                            Ordering::Equal => !exclusive,
                            Ordering::Greater => least.is_some(),
                            Ordering::Less => most.is_some(),
                        };
                        assert_eq!(regex.is_match(sample), fits, "{sample} {bound:?} {least:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn numbers_are_read_as_they_are_written() {
        assert_eq!(decimal("1.50"), decimal("15e-1"));
        assert_eq!(decimal("1e3"), decimal("1000.0"));
        assert_eq!(decimal("0.005"), decimal("5e-3"));
        assert_eq!(decimal("-0.0"), decimal("0"));
        assert!(decimal("1e3").is_whole() && !decimal("0.5").is_whole());
        assert_eq!(decimal("0.3").is_multiple_of(&decimal("0.1")), Some(true));
        assert_eq!(decimal("7").is_multiple_of(&decimal("2")), Some(false));
        assert!(decimal("-2") < decimal("-1.5") && decimal("9") < decimal("10"));
    }
}
