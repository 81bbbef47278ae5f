//! The regular expressions of JSON Schema are ECMA-262's; here they become those of the engine,
//! which knows no place inside a text, but what is common to expressions and what is in none of
//! them. Pure.

use std::cell::RefCell;
use std::iter::Peekable;
use std::str::Chars;

use llguidance::derivre::{Regex, RegexAst, RegexBuilder};
use regex_syntax::hir::{Hir, HirKind, Look};

/// What an expression may cost before it is given up, in the engine's units.
const FUEL: u64 = 50_000;
/// Ways to place the anchors of one expression.
const MAX_WAYS: usize = 64;

/// ECMA-262's `\s` and `.`.
const SPACES: &str =
    r"\t\n\x0b\x0c\r \u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000\ufeff";
const LINE_ENDS: &str = r"\n\r\u2028\u2029";

/// Texts in which an expression is found.
#[derive(Clone)]
pub struct Pattern {
    pub source: String,
    /// Every one of them matches the whole text.
    pub all: Vec<RegexAst>,
    /// And none of these does.
    pub none: Vec<RegexAst>,
    /// Whether other texts are no matches for certain.
    pub exact: bool,
    compiled: RefCell<Option<Regex>>,
}

impl std::fmt::Debug for Pattern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.source)
    }
}

impl Pattern {
    /// The error continues "the pattern …".
    pub fn parse(source: &str) -> Result<Self, String> {
        let mut pattern = Self {
            source: source.to_owned(),
            all: vec![],
            none: vec![],
            exact: true,
            compiled: RefCell::new(None),
        };
        let rest = pattern.leading(source)?;
        let rest = pattern.trailing(rest)?;
        pattern.all.push(search(&rest)?);
        pattern.check()?;
        Ok(pattern)
    }

    /// An expression that matches whole texts.
    pub fn whole(regex: &str, exact: bool) -> Self {
        Self {
            source: regex.to_owned(),
            all: vec![RegexAst::Regex(format!("(?:{regex})"))],
            none: vec![],
            exact,
            compiled: RefCell::new(None),
        }
    }

    /// Takes look-aheads from the start: each is an expression of its own.
    fn leading(&mut self, source: &str) -> Result<String, String> {
        let (anchored, mut rest) = match source.strip_prefix('^') {
            Some(rest) => (true, rest),
            None => (false, source),
        };
        let mut taken = false;
        while let Some((ahead, inner, behind)) = look(rest) {
            let found = search(&format!("^(?:{inner})"))?;
            if ahead {
                self.all.push(found);
            } else {
                self.none.push(found);
            }
            rest = behind;
            taken = true;
        }
        if !taken {
            return Ok(source.to_owned());
        }
        if has_choice(rest) {
            return Err(
                "has a look-ahead in one of several branches, which is not supported".into(),
            );
        }
        // One that may begin anywhere is only looked for at the start.
        self.exact &= anchored;
        Ok(format!("^{rest}"))
    }

    /// Takes what must not come before the end.
    fn trailing(&mut self, source: String) -> Result<String, String> {
        let Some(start) = source.rfind("(?<!") else {
            return Ok(source);
        };
        let Some(inner) = source[start + 4..].strip_suffix(")$") else {
            return Ok(source);
        };
        if inner.contains(['(', ')', '[']) || has_choice(&source[..start]) {
            return Ok(source);
        }
        self.none.push(search(&format!("(?:{inner})$"))?);
        Ok(format!("{}$", &source[..start]))
    }

    fn check(&self) -> Result<(), String> {
        let mut compiled = self.compiled.borrow_mut();
        let mut builder = RegexBuilder::new();
        let regex = builder
            .mk(&self.raw())
            .and_then(|expression| builder.to_regex_limited(expression, FUEL));
        *compiled = Some(regex.map_err(|error| {
            let error = error.to_string();
            let line = error.lines().last().unwrap_or_default();
            format!("is not supported: {line}")
        })?);
        Ok(())
    }

    fn raw(&self) -> RegexAst {
        let none = self
            .none
            .iter()
            .map(|ast| RegexAst::Not(Box::new(ast.clone())));
        RegexAst::And(self.all.iter().cloned().chain(none).collect())
    }
}

/// Whether a text matches.
pub fn matches(pattern: &Pattern, text: &str) -> bool {
    if pattern.compiled.borrow().is_none() && pattern.check().is_err() {
        return false;
    }
    pattern
        .compiled
        .borrow_mut()
        .as_mut()
        .is_some_and(|regex| regex.is_match(text))
}

/// A look-ahead at the start of an expression: whether it must be found, what it looks for, and
/// what follows it.
fn look(rest: &str) -> Option<(bool, &str, &str)> {
    let (ahead, inner) = match (rest.strip_prefix("(?="), rest.strip_prefix("(?!")) {
        (Some(inner), _) => (true, inner),
        (_, Some(inner)) => (false, inner),
        _ => return None,
    };
    let mut depth = 0;
    let end = places(inner).find(|&(_, c)| {
        depth += match c {
            '(' => 1,
            ')' => -1,
            _ => 0,
        };
        depth < 0
    })?;
    Some((ahead, &inner[..end.0], &inner[end.0 + 1..]))
}

/// Whether an expression has branches that are in no group.
fn has_choice(rest: &str) -> bool {
    let mut depth = 0;
    places(rest).any(|(_, c)| {
        depth += match c {
            '(' => 1,
            ')' => -1,
            _ => 0,
        };
        depth == 0 && c == '|'
    })
}

/// The characters of an expression that stand for themselves in no case: neither escaped nor in a
/// class.
fn places(rest: &str) -> impl Iterator<Item = (usize, char)> + '_ {
    let (mut escaped, mut class) = (false, false);
    rest.char_indices().filter(move |&(_, c)| {
        let plain = !escaped && !class;
        match (escaped, c) {
            (true, _) => escaped = false,
            (false, '\\') => escaped = true,
            (false, '[') => class = true,
            (false, ']') => class = false,
            _ => {}
        }
        plain && c != '\\' && c != '['
    })
}

/// The expression of all texts in which another one is found.
fn search(source: &str) -> Result<RegexAst, String> {
    let text = translate(source)?;
    let hir = regex_syntax::Parser::new().parse(&text).map_err(|error| {
        let error = error.to_string();
        let line = error.lines().last().unwrap_or_default();
        format!("cannot be read: {}", line.trim_start_matches("error: "))
    })?;
    let any = || RegexAst::Regex("(?s:.*)".into());
    let ways = ways(&hir)?.into_iter().map(|way| {
        let mut parts = vec![way.regex];
        if !way.start {
            parts.insert(0, any());
        }
        if !way.end {
            parts.push(any());
        }
        RegexAst::Concat(parts)
    });
    Ok(RegexAst::Or(ways.collect()))
}

/// One way to match, with its anchors.
struct Way {
    start: bool,
    end: bool,
    regex: RegexAst,
}

impl Way {
    fn plain(regex: RegexAst) -> Self {
        Self {
            start: false,
            end: false,
            regex,
        }
    }
}

fn ways(hir: &Hir) -> Result<Vec<Way>, String> {
    let looks = hir.properties().look_set();
    if looks.is_empty() {
        return Ok(vec![Way::plain(RegexAst::Regex(hir.to_string()))]);
    }
    let ways = match hir.kind() {
        HirKind::Look(Look::Start) => vec![Way {
            start: true,
            end: false,
            regex: RegexAst::EmptyString,
        }],
        HirKind::Look(Look::End) => vec![Way {
            start: false,
            end: true,
            regex: RegexAst::EmptyString,
        }],
        HirKind::Look(_) => return Err("has a word boundary, which is not supported".into()),
        HirKind::Capture(group) => ways(&group.sub)?,
        HirKind::Alternation(branches) => {
            let mut all = vec![];
            for branch in branches {
                all.extend(ways(branch)?);
            }
            all
        }
        HirKind::Concat(parts) => concat(parts)?,
        _ => return Err("has an anchor inside, which is not supported".into()),
    };
    if ways.len() > MAX_WAYS {
        return Err("has too many branches with anchors".into());
    }
    Ok(ways)
}

fn concat(parts: &[Hir]) -> Result<Vec<Way>, String> {
    let mut all = vec![Way::plain(RegexAst::EmptyString)];
    for (i, part) in parts.iter().enumerate() {
        let mut longer = vec![];
        for before in &all {
            for after in ways(part)? {
                // In the middle an anchor matches nothing, unless what is around it is empty.
                let empty = |regex: &RegexAst| matches!(regex, RegexAst::EmptyString);
                let inside = (after.start && i > 0 && !empty(&before.regex))
                    || (before.end && !empty(&after.regex));
                if inside {
                    return Err("has an anchor inside, which is not supported".into());
                }
                let regex = match (&before.regex, after.regex) {
                    (RegexAst::EmptyString, regex) => regex,
                    (before, RegexAst::EmptyString) => before.clone(),
                    (before, regex) => RegexAst::Concat(vec![before.clone(), regex]),
                };
                longer.push(Way {
                    start: before.start || after.start,
                    end: before.end || after.end,
                    regex,
                });
            }
        }
        if longer.len() > MAX_WAYS {
            return Err("has too many branches with anchors".into());
        }
        all = longer;
    }
    Ok(all)
}

/// ECMA-262's spelling as the engine's.
fn translate(source: &str) -> Result<String, String> {
    let (mut out, mut chars) = (String::new(), source.chars().peekable());
    while let Some(c) = chars.next() {
        match c {
            '\\' => escape(&mut out, &mut chars, false)?,
            '[' => class(&mut out, &mut chars)?,
            '.' => out.push_str(&format!("[^{LINE_ENDS}]")),
            '(' if chars.peek() == Some(&'?') => {
                let ahead: String = chars.clone().take(3).collect();
                if ["?=", "?!", "?<=", "?<!"]
                    .iter()
                    .any(|look| ahead.starts_with(look))
                {
                    return Err(
                        "has a look-ahead or look-behind that is not at its start, which is not supported"
                            .into(),
                    );
                }
                out.push('(');
            }
            // A brace that counts nothing stands for itself.
            '{' if !is_count(&chars) => out.push_str("\\{"),
            '{' => {
                out.push('{');
                for c in chars.by_ref() {
                    out.push(c);
                    if c == '}' {
                        break;
                    }
                }
            }
            '}' => out.push_str("\\}"),
            ']' => out.push_str("\\]"),
            c => out.push(c),
        }
    }
    Ok(out)
}

fn is_count(chars: &Peekable<Chars<'_>>) -> bool {
    let inside: String = chars.clone().take_while(|&c| c != '}').collect();
    let closed = chars.clone().any(|c| c == '}');
    let numbers = inside.split_once(',').unwrap_or((&inside, ""));
    closed
        && !numbers.0.is_empty()
        && [numbers.0, numbers.1]
            .iter()
            .all(|part| part.bytes().all(|byte| byte.is_ascii_digit()))
}

fn escape(out: &mut String, chars: &mut Peekable<Chars<'_>>, in_class: bool) -> Result<(), String> {
    let Some(c) = chars.next() else {
        return Err("ends in the middle of an escape".into());
    };
    match c {
        'd' => out.push_str("[0-9]"),
        'D' => out.push_str("[^0-9]"),
        'w' => out.push_str("[0-9A-Za-z_]"),
        'W' => out.push_str("[^0-9A-Za-z_]"),
        's' => out.push_str(&format!("[{SPACES}]")),
        'S' => out.push_str(&format!("[^{SPACES}]")),
        'b' if in_class => out.push_str("\\x08"),
        'c' => {
            let letter = chars.next().unwrap_or_default();
            if !letter.is_ascii_alphabetic() {
                return Err("has `\\c` without a letter".into());
            }
            out.push_str(&format!("\\x{:02x}", letter as u8 % 32));
        }
        '0' => out.push_str("\\x00"),
        'v' => out.push_str("\\x0b"),
        'f' => out.push_str("\\x0c"),
        'Z' | 'z' | 'A' if !in_class => out.push_str(if c == 'A' { "^" } else { "$" }),
        'n' | 'r' | 't' | 'x' | 'u' | 'p' | 'P' | 'b' | 'B' => {
            out.push('\\');
            out.push(c);
        }
        '1'..='9' => return Err("refers back to a group, which is not supported".into()),
        c if c.is_ascii_alphanumeric() => out.push(c),
        c if c.is_ascii() => {
            out.push('\\');
            out.push(c);
        }
        c => out.push(c),
    }
    Ok(())
}

fn class(out: &mut String, chars: &mut Peekable<Chars<'_>>) -> Result<(), String> {
    out.push('[');
    if chars.peek() == Some(&'^') {
        chars.next();
        out.push('^');
    }
    // ECMA-262's empty classes: nothing, and everything.
    if chars.peek() == Some(&']') {
        chars.next();
        let negated = out.ends_with('^');
        out.truncate(out.len() - 1 - usize::from(negated));
        out.push_str(if negated { "(?s:.)" } else { "[a&&b]" });
        return Ok(());
    }
    while let Some(c) = chars.next() {
        match c {
            ']' => {
                out.push(']');
                return Ok(());
            }
            '\\' => escape(out, chars, true)?,
            // These begin classes within classes, or combine them, in the engine's spelling only.
            '[' | '&' | '~' | '^' => {
                out.push('\\');
                out.push(c);
            }
            // A hyphen beside a class, or twice, is one.
            '-' if chars.peek() == Some(&']')
                || chars.peek() == Some(&'\\')
                || chars.peek() == Some(&'-')
                || out.ends_with(['[', ']'])
                || out.ends_with("[^") =>
            {
                out.push_str("\\-");
            }
            c => out.push(c),
        }
    }
    Err("has a class without an end".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn found_as_in_ecma_262() {
        for (pattern, texts, others) in [
            ("a", vec!["a", "xay"], vec!["", "b"]),
            ("^a", vec!["a", "ab"], vec!["ba"]),
            ("a$", vec!["ba"], vec!["ab"]),
            ("^a|b$", vec!["ax", "xb"], vec!["xax"]),
            ("^$|^a+$", vec!["", "aa"], vec!["ab"]),
            ("^(a|b|)$", vec!["", "b"], vec!["ab"]),
            ("(^a|b)c", vec!["ac", "xbc"], vec!["xac"]),
            ("^\\d{2,3}$", vec!["12"], vec!["1", "1234", "١٢"]),
            ("^[\\w.-]+$", vec!["a-b.c_1"], vec!["é", "a b"]),
            ("^{x}$", vec!["{x}"], vec!["x"]),
            ("^[[a]$", vec!["[", "a"], vec!["b"]),
            ("^.$", vec!["é", "\""], vec!["\n", "ab"]),
            ("^\\/\\-\\_$", vec!["/-_"], vec![]),
            ("^(?!-)[a-z-]{1,5}$", vec!["a-b"], vec!["-ab", ""]),
            (
                "^(?=.*[A-Z])(?=.*\\d).{4,}$",
                vec!["abC1"],
                vec!["abc1", "aC1"],
            ),
            ("^[a-z.]+(?<!\\.)$", vec!["a.b"], vec!["a."]),
            ("^(?!.*--)[a-z-]+$", vec!["a-b"], vec!["a--b"]),
            ("^[^]$", vec!["\n"], vec!["ab"]),
            ("^[\\s\\S]*$", vec!["", "a\n"], vec![]),
        ] {
            let parsed = Pattern::parse(pattern).unwrap();
            for text in texts {
                assert!(matches(&parsed, text), "{pattern} in {text}");
            }
            for text in others {
                assert!(!matches(&parsed, text), "{pattern} not in {text}");
            }
        }
    }

    #[test]
    fn what_is_not_supported_is_said() {
        for (pattern, word) in [
            ("a(?=b)c", "look-ahead"),
            ("^(?!a)b|c", "look-ahead"),
            ("(a)\\1", "refers back"),
            ("\\bword", "word boundary"),
            ("a^b", "anchor"),
            ("(", "cannot be read"),
            ("[a", "class"),
        ] {
            let error = Pattern::parse(pattern).unwrap_err();
            assert!(error.contains(word), "{pattern}: {error}");
        }
    }
}
