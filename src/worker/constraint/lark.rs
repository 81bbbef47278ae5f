//! Rules in the making, in llguidance's dialect of Lark. Knows how Gemma writes data, but no
//! schema. Pure.

use std::fmt::Write;

use crate::gemma::marker;

/// Objects and lists within each other, where a schema says nothing of them.
const FREE_DEPTH: usize = 6;

/// Numbers that no reader loses digits of.
const INTEGER: &str = "-?(0|[1-9][0-9]{0,14})";
const NUMBER: &str = "-?(0|[1-9][0-9]{0,14})(\\.[0-9]{1,15})?([eE][+-]?[0-9]{1,2})?";
/// A key that is not listed.
const FREE_KEY: &str = "[a-zA-Z_][a-zA-Z0-9_.-]{0,63}";

#[derive(Default)]
pub struct Lark {
    rules: String,
    count: usize,
    /// Names of rules that are the same everywhere, by their bodies.
    known: Vec<(String, String)>,
}

impl Lark {
    /// A grammar whose start is one of `starts`.
    pub fn finish(self, starts: &[String]) -> String {
        format!("start: {}\n{}", starts.join(" | "), self.rules)
    }

    /// A text as it is.
    pub fn text(text: &str) -> String {
        // JSON's strings are Lark's.
        serde_json::Value::from(text).to_string()
    }

    /// The regular expression of a text.
    pub fn regex_of(text: &str) -> String {
        text.chars().fold(String::new(), |mut out, c| {
            if c.is_ascii_alphanumeric() || c == '_' {
                out.push(c);
            } else {
                let _ = write!(out, "\\x{{{:x}}}", c as u32);
            }
            out
        })
    }

    /// A rule that is one of `options`.
    pub fn rule(&mut self, options: Vec<String>) -> String {
        if let [only] = options.as_slice()
            && !only.contains(' ')
        {
            return only.clone();
        }
        let name = self.reserve();
        self.define(&name, options);
        name
    }

    /// A name whose rule comes later.
    pub fn reserve(&mut self) -> String {
        self.count += 1;
        format!("r{}", self.count)
    }

    pub fn define(&mut self, name: &str, options: Vec<String>) {
        let _ = writeln!(self.rules, "{name}: {}", options.join("\n  | "));
    }

    /// A terminal: what all of the regular expressions match, and none of `unless`.
    fn terminal(&mut self, all: &[&str], unless: &[String]) -> String {
        let mut parts: Vec<String> = all.iter().map(|regex| format!("/{regex}/")).collect();
        if !unless.is_empty() {
            parts.push(format!("~/({})/", unless.join("|")));
        }
        let body = parts.join(" & ");
        if let Some((_, name)) = self.known.iter().find(|(known, _)| *known == body) {
            return name.clone();
        }
        self.count += 1;
        let name = format!("T{}", self.count);
        let _ = writeln!(self.rules, "{name}: {body}");
        self.known.push((body, name.clone()));
        name
    }

    pub fn integer(&mut self) -> String {
        self.terminal(&[INTEGER], &[])
    }

    pub fn number(&mut self) -> String {
        self.terminal(&[NUMBER], &[])
    }

    /// A string whose text all of the regular expressions match.
    pub fn string(&mut self, all: &[String]) -> String {
        let all: Vec<&str> = if all.is_empty() {
            vec!["(?s:.*)"]
        } else {
            all.iter().map(String::as_str).collect()
        };
        let text = self.terminal(&all, &[]);
        self.rule(vec![format!("{0} {text} {0}", marker::QUOTE)])
    }

    /// A key that is not listed, without its colon.
    pub fn key(&mut self, pattern: Option<&str>, taken: &[String]) -> String {
        let all: Vec<&str> = [FREE_KEY].into_iter().chain(pattern).collect();
        self.terminal(&all, taken)
    }

    /// A list of `first` and then any number of `more`, with `min` to `max` items in all.
    pub fn list(&mut self, first: &[String], more: Option<&str>, min: usize, max: usize) -> String {
        // From the last place to the first: what may follow the items before it.
        let left = |bound: usize| bound.saturating_sub(first.len());
        let mut tail = match more {
            Some(more) if left(max) > 0 => {
                if first.is_empty() {
                    return self.plain_list(more, min, max);
                }
                self.rule(vec![format!(
                    "(\",\" {more}){}",
                    times(left(min), (max < usize::MAX).then(|| left(max)))
                )])
            }
            _ => "\"\"".to_owned(),
        };
        for (i, item) in first.iter().enumerate().rev() {
            let comma = if i > 0 { "\",\" " } else { "" };
            let mut options = vec![format!("{comma}{item} {tail}")];
            if i >= min {
                options.push("\"\"".into());
            }
            tail = self.rule(options);
        }
        self.rule(vec![format!("\"[\" {tail} \"]\"")])
    }

    fn plain_list(&mut self, item: &str, min: usize, max: usize) -> String {
        let more = match max {
            1 => String::new(),
            usize::MAX => format!("(\",\" {item}){}", times(min.saturating_sub(1), None)),
            max => format!(
                "(\",\" {item}){}",
                times(min.saturating_sub(1), Some(max - 1))
            ),
        };
        let mut options = vec![format!("\"[\" {item} {more} \"]\"")];
        if min == 0 {
            options.push("\"[\" \"]\"".into());
        }
        self.rule(options)
    }

    /// An object of `items` in their order, each with whether it must be there, and then any number
    /// of `free` ones.
    pub fn object(&mut self, items: &[(String, bool)], free: Option<&str>) -> String {
        // Behind the last one, with and without something before.
        let mut after = free.map_or_else(
            || "\"\"".to_owned(),
            |free| self.rule(vec![format!("(\",\" {free})*")]),
        );
        let mut begin = free.map_or_else(
            || "\"\"".to_owned(),
            |free| self.rule(vec![format!("{free} (\",\" {free})*"), "\"\"".into()]),
        );
        for (item, must) in items.iter().rev() {
            let mut first = vec![format!("{item} {after}")];
            let mut later = vec![format!("\",\" {item} {after}")];
            if !must {
                first.push(begin);
                later.push(after);
            }
            begin = self.rule(first);
            after = self.rule(later);
        }
        self.rule(vec![format!("\"{{\" {begin} \"}}\"")])
    }

    /// Any value at all.
    pub fn anything(&mut self) -> String {
        const NAME: &str = "anything";
        if !self.known.iter().any(|(known, _)| known == NAME) {
            self.known.push((NAME.into(), NAME.into()));
            let (string, number, key) = (self.string(&[]), self.number(), self.key(None, &[]));
            let scalar =
                format!("{string}\n  | {number}\n  | \"true\"\n  | \"false\"\n  | \"null\"");
            for depth in 0..=FREE_DEPTH {
                let name = if depth == 0 {
                    NAME.to_owned()
                } else {
                    format!("{NAME}{depth}")
                };
                let inner = format!("{NAME}{}", depth + 1);
                let mut options = vec![scalar.clone()];
                if depth < FREE_DEPTH {
                    options.push(format!(
                        "\"{{\" ({key} \":\" {inner} (\",\" {key} \":\" {inner})*)? \"}}\""
                    ));
                    options.push(format!("\"[\" ({inner} (\",\" {inner})*)? \"]\""));
                }
                self.define(&name, options);
            }
        }
        NAME.into()
    }
}

/// How often something comes; `most` is not zero.
fn times(least: usize, most: Option<usize>) -> String {
    match (least, most) {
        (0, None) => "*".into(),
        (least, None) => format!("{{{least},}}"),
        (least, Some(most)) => format!("{{{least},{most}}}"),
    }
}
