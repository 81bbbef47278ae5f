//! The rules of values without parts, of values that are listed, and of any value at all. Pure.

use llguidance::derivre::RegexAst;
use serde_json::Value;

use super::{Form, Writer};
use crate::gemma::{call, marker};
use crate::worker::constraint::goal::{Part, Spelling, matches_nothing};
use crate::worker::constraint::rules::{Row, Symbol};
use crate::worker::constraint::schema::Kinds;

/// Objects and lists within each other, where a schema says nothing of them and a call is parsed.
const FREE_DEPTH: usize = 6;
/// A key of a call that is not listed.
const FREE_KEY: &str = "[a-zA-Z_][a-zA-Z0-9_.-]{0,63}";

impl Writer<'_> {
    pub(super) fn spelling(&self) -> Spelling {
        match self.form {
            Form::Json => Spelling::Json,
            Form::Call => Spelling::Plain,
        }
    }

    /// A text in its quotes, of which `regex` is what is between those of a call.
    fn quoted(&mut self, regex: RegexAst) -> Row {
        let text = self.rules.regex(regex);
        self.in_quotes(vec![text])
    }

    fn in_quotes(&mut self, mut row: Row) -> Row {
        if self.form == Form::Call {
            let quote = self.rules.control(marker::QUOTE);
            row.insert(0, quote);
            row.push(quote);
        }
        row
    }

    pub(super) fn scalars(&mut self, part: &Part, rows: &mut Vec<Row>) {
        if part.kinds.has(Kinds::NULL) {
            rows.push(vec![self.rules.text("null")]);
        }
        if part.kinds.has(Kinds::BOOLEAN) {
            for value in [true, false] {
                if !part.unlisted.contains(&Value::Bool(value)) {
                    rows.push(vec![self.rules.text(&value.to_string())]);
                }
            }
        }
        if part.kinds.has(Kinds::NUMBER) && !part.number.is_empty() {
            let plain = part.unlisted.is_empty() && part.number.says_nothing();
            let kinds = part.kinds.and(Kinds::NUMBER);
            let known = self.plain.get(&kinds).filter(|_| plain).cloned();
            let row = known.unwrap_or_else(|| {
                let regex = part.numbers();
                if !plain && matches_nothing(&regex) {
                    return vec![Symbol::Nothing];
                }
                vec![self.rules.regex(regex)]
            });
            if plain {
                self.plain.insert(kinds, row.clone());
            }
            rows.push(row);
        }
        if part.kinds.has(Kinds::STRING) && !part.text.is_empty(&part.unlisted) {
            let plain = part.unlisted.is_empty() && part.text.says_nothing();
            let known = self.plain.get(&Kinds::STRING).filter(|_| plain).cloned();
            let row = known.unwrap_or_else(|| {
                let regex = part.text.regex(&part.unlisted, self.spelling());
                self.quoted(regex)
            });
            if plain {
                self.plain.insert(Kinds::STRING, row.clone());
            }
            rows.push(row);
        }
    }

    /// One of some values.
    pub(super) fn listed(&mut self, values: &[Value], rows: &mut Vec<Row>) {
        let (mut plain, mut texts) = (vec![], vec![]);
        for value in values {
            match value {
                Value::Array(_) | Value::Object(_) => rows.push(self.literal(value)),
                Value::String(text) if text.is_empty() => rows.push(self.literal(value)),
                Value::String(text) => texts.push(RegexAst::Literal(match self.form {
                    Form::Json => value.to_string(),
                    Form::Call => text.clone(),
                })),
                value => plain.push(RegexAst::Literal(value.to_string())),
            }
        }
        if self.form == Form::Json {
            plain.append(&mut texts);
        }
        if !plain.is_empty() {
            rows.push(vec![self.rules.regex(RegexAst::Or(plain))]);
        }
        if !texts.is_empty() {
            let row = self.quoted(RegexAst::Or(texts));
            rows.push(row);
        }
    }

    /// One value.
    pub(super) fn literal(&mut self, value: &Value) -> Row {
        match value {
            Value::Array(items) => {
                let mut row = vec![self.rules.text("[")];
                for (i, item) in items.iter().enumerate() {
                    if i > 0 {
                        row.push(self.rules.text(","));
                    }
                    row.extend(self.literal(item));
                }
                row.push(self.rules.text("]"));
                row
            }
            Value::Object(fields) => {
                let mut fields: Vec<_> = fields.iter().collect();
                if self.form == Form::Call {
                    fields.sort_by_key(|(name, _)| name.to_lowercase());
                }
                let mut row = vec![self.rules.text("{")];
                for (i, (name, value)) in fields.into_iter().enumerate() {
                    if i > 0 {
                        row.push(self.rules.text(","));
                    }
                    row.extend(self.key(name));
                    row.extend(self.literal(value));
                }
                row.push(self.rules.text("}"));
                row
            }
            Value::String(text) if self.form == Form::Call => {
                let text = if text.is_empty() {
                    vec![]
                } else {
                    vec![self.rules.text(text)]
                };
                self.in_quotes(text)
            }
            other => vec![self.rules.text(&other.to_string())],
        }
    }

    /// A name with its colon. In a call it is bare as the chat template writes it, or in quotes
    /// where its end could not be told.
    pub(super) fn key(&mut self, name: &str) -> Row {
        let mut row = if self.form == Form::Call && call::is_bare_key(name) {
            vec![self.rules.text(name)]
        } else {
            self.literal(&name.into())
        };
        row.push(self.rules.text(":"));
        row
    }

    /// The expression of names that are not listed.
    pub(super) fn free_key(&self) -> RegexAst {
        match self.form {
            Form::Json => Spelling::Json.anything(),
            Form::Call => RegexAst::Regex(FREE_KEY.into()),
        }
    }

    /// Any value at all.
    pub(super) fn anything(&mut self) -> Symbol {
        if let Some(symbol) = self.anything {
            return symbol;
        }
        let symbol = self.rules.reserve();
        self.anything = Some(symbol);
        let mut scalars = vec![];
        self.scalars(&Part::default(), &mut scalars);
        let key = self.free_key();
        let key = self.rules.regex(key);
        match self.form {
            Form::Json => {
                let rows = self.with_containers(scalars, key, symbol);
                self.rules.define(symbol, rows);
            }
            Form::Call => {
                let mut inner = self.rules.rule(scalars.clone());
                for depth in (0..FREE_DEPTH).rev() {
                    let rows = self.with_containers(scalars.clone(), key, inner);
                    if depth == 0 {
                        self.rules.define(symbol, rows);
                    } else {
                        inner = self.rules.rule(rows);
                    }
                }
            }
        }
        symbol
    }

    /// `rows`, and lists and objects of `inner`.
    fn with_containers(&mut self, mut rows: Vec<Row>, key: Symbol, inner: Symbol) -> Vec<Row> {
        let [comma, colon] = [",", ":"].map(|text| self.rules.text(text));
        for (open, item, close) in [("[", vec![inner], "]"), ("{", vec![key, colon, inner], "}")] {
            let (open, close) = (self.rules.text(open), self.rules.text(close));
            let mut next = vec![comma];
            next.extend(&item);
            let more = self.rules.repeated(&next);
            let mut some = vec![open];
            some.extend(&item);
            some.extend([more, close]);
            rows.push(vec![open, close]);
            rows.push(some);
        }
        rows
    }
}
