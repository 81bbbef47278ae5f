//! Numbers and texts as regular expressions. Pure.

use llguidance::derivre::{JsonQuoteOptions, RegexAst, RegexBuilder};
use serde_json::Value;

use super::part::{NumberPart, Part, TextPart};
use crate::worker::constraint::schema::{Decimal, Kinds, Pattern, multiples, numbers, spellings};

/// What looking for a text that fits may cost, in the engine's units.
const FUEL: u64 = 20_000;

fn not(ast: RegexAst) -> RegexAst {
    RegexAst::Not(Box::new(ast))
}

/// How a text is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spelling {
    /// In quotes and with escapes.
    Json,
    /// As it is.
    Plain,
}

impl Spelling {
    /// The expression of what a text that matches is written as.
    pub fn of(self, ast: RegexAst) -> RegexAst {
        match self {
            Self::Plain => ast,
            Self::Json => RegexAst::JsonQuote(Box::new(ast), JsonQuoteOptions::regular()),
        }
    }

    pub fn anything(self) -> RegexAst {
        self.of(RegexAst::Regex("(?s:.*)".into()))
    }
}

/// The texts in which a pattern is found, as they are written.
pub fn found(pattern: &Pattern, spelling: Spelling) -> RegexAst {
    let all = pattern.all.iter().map(|ast| spelling.of(ast.clone()));
    let none = pattern.none.iter().map(|ast| not(spelling.of(ast.clone())));
    RegexAst::And(all.chain(none).collect())
}

impl TextPart {
    pub fn says_nothing(&self) -> bool {
        self.least == 0
            && self.most.is_none()
            && self.patterns.is_empty()
            && self.no_patterns.is_empty()
    }

    /// The texts that fit, as they are written. `unlisted` are values that do not.
    pub fn regex(&self, unlisted: &[Value], spelling: Spelling) -> RegexAst {
        let mut all = vec![];
        if self.least > 0 || self.most.is_some() {
            let most = self
                .most
                .map_or(String::new(), |(most, _)| most.to_string());
            let length = RegexAst::Regex(format!("(?s:.{{{},{most}}})", self.least));
            all.push(spelling.of(length));
        }
        all.extend(self.patterns.iter().map(|pattern| found(pattern, spelling)));
        if all.is_empty() {
            all.push(spelling.anything());
        }
        all.extend(
            self.no_patterns
                .iter()
                .map(|pattern| not(found(pattern, spelling))),
        );
        for value in unlisted {
            if let Value::String(text) = value {
                all.push(not(spelling.of(RegexAst::Literal(text.clone()))));
            }
        }
        RegexAst::And(all)
    }

    /// Whether no text fits for certain.
    pub fn is_empty(&self, unlisted: &[Value]) -> bool {
        if self.most.is_some_and(|(most, _)| most < self.least) {
            return true;
        }
        !self.patterns.is_empty() && matches_nothing(&self.regex(unlisted, Spelling::Plain))
    }
}

/// Whether an expression matches no text for certain.
pub fn matches_nothing(ast: &RegexAst) -> bool {
    let mut builder = RegexBuilder::new();
    let Ok(expression) = builder.mk(ast) else {
        return false;
    };
    let regex = builder.to_regex_limited(expression, FUEL);
    regex.is_ok_and(|mut regex| regex.always_empty())
}

impl NumberPart {
    pub fn says_nothing(&self) -> bool {
        self.least.is_none()
            && self.most.is_none()
            && self.multiples.is_empty()
            && self.no_multiples.is_empty()
    }

    pub fn is_empty(&self) -> bool {
        match (&self.least, &self.most) {
            (Some((least, above)), Some((most, below))) => {
                least > most || (least == most && (*above || *below))
            }
            _ => false,
        }
    }
}

impl Part {
    /// The numbers that fit.
    pub fn numbers(&self) -> RegexAst {
        let number = &self.number;
        let whole = !self.kinds.has(Kinds::FRACTION);
        let mut all = vec![numbers(whole, number.least.as_ref(), number.most.as_ref())];
        let simple = || RegexAst::Regex("-?[0-9.]+".into());
        if !self.kinds.has(Kinds::INTEGER) {
            all.push(simple());
            all.push(not(RegexAst::Regex("-?[0-9]+(\\.0+)?".into())));
        }
        let multiple = |of: &Decimal| multiples(of).unwrap_or(RegexAst::NoMatch);
        all.extend(number.multiples.iter().map(multiple));
        for of in &number.no_multiples {
            all.push(simple());
            all.push(not(multiple(of)));
        }
        for value in &self.unlisted {
            if let Value::Number(number) = value
                && let Some(number) = Decimal::of(number)
            {
                all.push(simple());
                all.push(not(spellings(&number)));
            }
        }
        RegexAst::And(all)
    }
}
