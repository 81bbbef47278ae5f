//! A grammar in the making: rules over regular expressions and control tokens. Knows no schema.
//! Pure.

use std::collections::HashMap;

use llguidance::derivre::RegexAst;

/// What rules are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Symbol {
    Rule(u32),
    /// Text that matches a regular expression.
    Regex(u32),
    /// A control token.
    Control(u32),
    /// What no text is.
    Nothing,
}

/// Symbols that follow one another.
pub type Row = Vec<Symbol>;

#[derive(Default)]
pub struct Rules {
    /// By number, each with the rows that it may be.
    pub rules: Vec<Vec<Row>>,
    pub regexes: Vec<RegexAst>,
    pub controls: Vec<&'static str>,
    texts: HashMap<String, Symbol>,
}

impl Rules {
    /// A symbol whose rule comes later.
    pub fn reserve(&mut self) -> Symbol {
        self.rules.push(vec![]);
        Symbol::Rule(self.rules.len() as u32 - 1)
    }

    pub fn define(&mut self, symbol: Symbol, rows: Vec<Row>) {
        if let Symbol::Rule(number) = symbol {
            self.rules[number as usize] = rows;
        }
    }

    /// One of `rows`.
    pub fn rule(&mut self, mut rows: Vec<Row>) -> Symbol {
        rows.retain(|row| !row.contains(&Symbol::Nothing));
        match rows.as_slice() {
            [] => return Symbol::Nothing,
            [row] if row.len() == 1 => return row[0],
            _ => {}
        }
        let symbol = self.reserve();
        self.define(symbol, rows);
        symbol
    }

    pub fn empty(&mut self) -> Symbol {
        self.rule(vec![vec![]])
    }

    pub fn regex(&mut self, ast: RegexAst) -> Symbol {
        self.regexes.push(ast);
        Symbol::Regex(self.regexes.len() as u32 - 1)
    }

    /// A text as it is.
    pub fn text(&mut self, text: &str) -> Symbol {
        if let Some(symbol) = self.texts.get(text) {
            return *symbol;
        }
        let symbol = self.regex(RegexAst::Literal(text.to_owned()));
        self.texts.insert(text.to_owned(), symbol);
        symbol
    }

    pub fn control(&mut self, token: &'static str) -> Symbol {
        let known = self.controls.iter().position(|other| *other == token);
        Symbol::Control(known.unwrap_or_else(|| {
            self.controls.push(token);
            self.controls.len() - 1
        }) as u32)
    }

    /// `row`, any number of times.
    pub fn repeated(&mut self, row: &[Symbol]) -> Symbol {
        if row.contains(&Symbol::Nothing) {
            return self.empty();
        }
        let symbol = self.reserve();
        let mut again = vec![symbol];
        again.extend(row);
        self.define(symbol, vec![vec![], again]);
        symbol
    }

    /// `row`, a number of times; in few rules, also for large numbers.
    pub fn times(&mut self, row: &[Symbol], least: usize, most: Option<usize>) -> Symbol {
        let once = self.rule(vec![row.to_vec()]);
        let exactly = self.exactly(once, least);
        let more = match most {
            None => self.repeated(&[once]),
            Some(most) => self.at_most(once, most.saturating_sub(least)),
        };
        self.rule(vec![vec![exactly, more]])
    }

    fn exactly(&mut self, once: Symbol, times: usize) -> Symbol {
        match times {
            0 => self.empty(),
            1 => once,
            _ => {
                let half = self.exactly(once, times / 2);
                let mut row = vec![half, half];
                row.extend((times % 2 == 1).then_some(once));
                self.rule(vec![row])
            }
        }
    }

    fn at_most(&mut self, once: Symbol, times: usize) -> Symbol {
        match times {
            0 => self.empty(),
            1 => self.rule(vec![vec![], vec![once]]),
            _ => {
                // Up to half as often, or half as often for certain and the rest after that.
                let half = times / 2;
                let fewer = self.at_most(once, half);
                let certain = self.exactly(once, half + 1);
                let rest = self.at_most(once, times - half - 1);
                self.rule(vec![vec![fewer], vec![certain, rest]])
            }
        }
    }

    /// Removes what no text is. `false` if nothing is left of `start`.
    pub fn prune(&mut self, start: Symbol) -> bool {
        let mut made = vec![false; self.rules.len()];
        // Which rules wait for a rule: each row counts what it lacks.
        let mut lacking: Vec<Vec<usize>> = vec![];
        let mut waiting: Vec<Vec<(usize, usize)>> = vec![vec![]; self.rules.len()];
        let mut ready = vec![];
        for (i, rows) in self.rules.iter().enumerate() {
            let mut counts = vec![];
            for (j, row) in rows.iter().enumerate() {
                let mut count = 0;
                for symbol in row {
                    match symbol {
                        Symbol::Rule(other) => {
                            count += 1;
                            waiting[*other as usize].push((i, j));
                        }
                        Symbol::Nothing => count += usize::MAX / 2,
                        _ => {}
                    }
                }
                if count == 0 {
                    ready.push(i);
                }
                counts.push(count);
            }
            lacking.push(counts);
        }
        while let Some(i) = ready.pop() {
            if std::mem::replace(&mut made[i], true) {
                continue;
            }
            for &(rule, row) in &waiting[i] {
                lacking[rule][row] -= 1;
                if lacking[rule][row] == 0 {
                    ready.push(rule);
                }
            }
        }
        for (rows, counts) in self.rules.iter_mut().zip(&lacking) {
            let mut counts = counts.iter();
            rows.retain(|_| counts.next() == Some(&0));
        }
        match start {
            Symbol::Rule(number) => made[number as usize],
            Symbol::Nothing => false,
            _ => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_no_end_is_nothing() {
        let mut rules = Rules::default();
        let a = rules.text("a");
        let endless = rules.reserve();
        rules.define(endless, vec![vec![a, endless]]);
        let either = rules.rule(vec![vec![endless], vec![a]]);
        let both = rules.rule(vec![vec![endless, a]]);
        assert!(rules.prune(either));
        assert!(!rules.prune(both));
        let Symbol::Rule(number) = either else {
            unreachable!()
        };
        assert_eq!(rules.rules[number as usize], [vec![a]]);
    }

    /// The lengths of what a symbol may be, for symbols that have few.
    fn lengths(rules: &Rules, symbol: Symbol) -> Vec<usize> {
        let Symbol::Rule(number) = symbol else {
            return vec![1];
        };
        let mut all: Vec<usize> = rules.rules[number as usize]
            .iter()
            .flat_map(|row| {
                row.iter().fold(vec![0], |sums, symbol| {
                    let more = lengths(rules, *symbol);
                    sums.iter()
                        .flat_map(|sum| more.iter().map(move |more| sum + more))
                        .collect()
                })
            })
            .collect();
        all.sort();
        all.dedup();
        all
    }

    #[test]
    fn repetitions_are_counted() {
        for (least, most) in [(0, 0), (0, 1), (1, 1), (0, 7), (3, 3), (2, 9), (5, 6)] {
            let mut rules = Rules::default();
            let a = rules.text("a");
            let symbol = rules.times(&[a], least, Some(most));
            assert_eq!(lengths(&rules, symbol), (least..=most).collect::<Vec<_>>());
        }
    }
}
