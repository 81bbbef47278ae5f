//! The rules of objects. Pure.

use std::rc::Rc;

use llguidance::derivre::RegexAst;
use serde_json::Value;

use super::{Form, Writer};
use crate::worker::constraint::goal::{Goal, ObjectPart, Term, Ways, found, matches_nothing};
use crate::worker::constraint::rules::{Row, Symbol};
use crate::worker::constraint::schema::{Fault, Kinds, Pattern, Says};

/// Patterns of names of which every combination is looked at.
const MAX_COMBINED: usize = 3;
/// States of an object whose properties are counted.
const MAX_STATES: usize = 20_000;

/// A property: its key with its value, and whether it must be there.
type Item = (Symbol, bool);
/// A class of names: for each pattern whether they match it; and what a property of such a name must
/// be, `None` if there may be none.
type Class = (Vec<(Rc<Pattern>, bool)>, Option<Vec<Term>>);

impl Writer<'_> {
    pub(super) fn object(&mut self, object: &ObjectPart) -> Result<Symbol, Fault> {
        if object.is_empty() {
            return Ok(Symbol::Nothing);
        }
        let names = self.names(object);
        let mut items = vec![];
        let names_of = Goal::of(object.names.iter().copied());
        for name in &names {
            let must = object.required.contains(name);
            let fits = self.goals.fits(&names_of, &Value::from(&**name));
            if object.forbidden.contains(name) || (!fits && !must) {
                continue;
            }
            let value = if fits {
                self.goal(&object.property(name))?
            } else {
                Symbol::Nothing
            };
            let mut row = self.key(name);
            row.push(value);
            match (self.rules.rule(vec![row]), must) {
                (Symbol::Nothing, true) => return Ok(Symbol::Nothing),
                (Symbol::Nothing, false) => {}
                (item, must) => items.push((item, must)),
            }
        }
        let free = self.free(object, &names)?;
        let (mut least, mut most) = (object.least, object.most);
        if items.len().saturating_mul(most.unwrap_or(least)) > MAX_STATES {
            let node = object.counted.unwrap_or(self.goals.schema.root);
            let path = self.goals.schema.path(node).to_owned();
            let reason = "counts more properties than can be kept count of";
            self.goals.leave_out(&path, "maxProperties", reason)?;
            (least, most) = (0, None);
        }
        // Names that are not listed may be repeated, and then count once.
        let named = items.iter().filter(|(_, must)| *must).count();
        if free.is_some() && least > named + 1 {
            let node = object.counted.unwrap_or(self.goals.schema.root);
            let path = self.goals.schema.path(node).to_owned();
            let reason = "can be kept to only if all properties but one are listed";
            self.goals.leave_out(&path, "minProperties", reason)?;
        }
        Ok(self.properties(&items, free, least, most))
    }

    /// The properties that have names, in the order in which they are written.
    fn names(&self, object: &ObjectPart) -> Vec<Rc<str>> {
        let listed = object
            .fields
            .iter()
            .flat_map(|fields| fields.named.iter().map(|(name, _)| name));
        let mut names: Vec<Rc<str>> = vec![];
        for name in listed.chain(&object.required).chain(&object.forbidden) {
            if !names.contains(name) {
                names.push(name.clone());
            }
        }
        if self.form == Form::Call {
            names.sort_by_key(|name| name.to_lowercase());
        }
        names
    }

    /// A property that has no name in the schema.
    fn free(&mut self, object: &ObjectPart, taken: &[Rc<str>]) -> Result<Option<Symbol>, Fault> {
        let mut key = vec![self.free_key()];
        if !object.names.is_empty() {
            key.push(self.texts(&object.names)?);
        }
        for name in taken {
            let written = match self.form {
                Form::Json => Value::from(&**name).to_string(),
                Form::Call => name.to_string(),
            };
            key.push(not(RegexAst::Literal(written)));
        }
        let mut rows: Vec<Row> = vec![];
        for (patterns, terms) in self.classes(object) {
            let Some(terms) = terms else {
                continue;
            };
            let value = self.goal(&Goal::of(terms))?;
            if value == Symbol::Nothing {
                continue;
            }
            let mut key = key.clone();
            for (pattern, matches) in &patterns {
                let found = found(pattern, self.spelling());
                key.push(if *matches { found } else { not(found) });
            }
            let key = RegexAst::And(key);
            let several = patterns.iter().filter(|(_, matches)| *matches).count() > 1;
            if several && matches_nothing(&key) {
                continue;
            }
            let key = self.rules.regex(key);
            let colon = self.rules.text(":");
            rows.push(vec![key, colon, value]);
        }
        Ok((!rows.is_empty()).then(|| self.rules.rule(rows)))
    }

    /// All classes of the names that the schema does not list.
    fn classes(&mut self, object: &ObjectPart) -> Vec<Class> {
        let mut patterns: Vec<Rc<Pattern>> = vec![];
        for (pattern, _) in object.fields.iter().flat_map(|fields| &fields.patterns) {
            if !patterns.iter().any(|other| other.source == pattern.source) {
                patterns.push(pattern.clone());
            }
        }
        let lists = object.fields.iter().any(|fields| fields.lists);
        let speaks = object
            .fields
            .iter()
            .any(|fields| fields.additional.is_some());
        let closed = self.form == Form::Call && lists && !speaks;
        // Of many patterns names match one or none: fewer names, but none that is wrong.
        let count = patterns.len();
        let sets: Vec<Vec<bool>> = if count <= MAX_COMBINED {
            (0..1_usize << count)
                .map(|set| (0..count).map(|i| set & (1 << i) != 0).collect())
                .collect()
        } else {
            let one = |i: usize| (0..count).map(|j| i == j).collect();
            (0..=count).map(one).collect()
        };
        let mut classes = vec![];
        for set in sets {
            let mut terms: Vec<Term> = vec![];
            for fields in &object.fields {
                let said = fields.patterns.iter().filter(|(pattern, _)| {
                    let place = patterns
                        .iter()
                        .position(|other| other.source == pattern.source);
                    place.is_some_and(|place| set[place])
                });
                let said: Vec<Term> = said.map(|(_, id)| (*id, true)).collect();
                match fields.additional {
                    Some(id) if said.is_empty() => terms.push((id, true)),
                    _ => terms.extend(said),
                }
            }
            let matches_one = set.contains(&true);
            if terms.is_empty() {
                terms.extend(object.unevaluated.iter().map(|id| (*id, true)));
            }
            let terms = (matches_one || !closed).then_some(terms);
            classes.push((patterns.iter().cloned().zip(set).collect(), terms));
        }
        classes
    }

    /// The expression of the texts that reach what is said of names.
    fn texts(&mut self, names: &[Term]) -> Result<RegexAst, Fault> {
        let text = self.goals.schema.add(Says::Kinds(Kinds::STRING), "");
        let mut goals = vec![Goal::of(names.iter().copied().chain([(text, true)]))];
        let mut options = vec![];
        while let Some(goal) = goals.pop() {
            match self.goals.ways(&goal)? {
                Ways::Goals(more) => goals.extend(more),
                Ways::Parts(parts) => {
                    for part in parts {
                        match &part.listed {
                            None => options.push(part.text.regex(&part.unlisted, self.spelling())),
                            Some(listed) => {
                                let texts = listed.iter().filter_map(Value::as_str);
                                options.extend(texts.map(|text| {
                                    self.spelling().of(RegexAst::Literal(text.to_owned()))
                                }));
                            }
                        }
                    }
                }
            }
        }
        Ok(RegexAst::Or(options))
    }

    /// `items` in their order, and then any number of `free` ones; `least` to `most` in all.
    fn properties(
        &mut self,
        items: &[Item],
        free: Option<Symbol>,
        least: usize,
        most: Option<usize>,
    ) -> Symbol {
        let [open, comma, close] = ["{", ",", "}"].map(|text| self.rules.text(text));
        // Rules by how many properties were written: exactly as long as that makes a difference.
        let most = most.map(|most| match free {
            Some(_) => most,
            None => most.min(items.len()),
        });
        let states = match items {
            [] => 0,
            _ => most.unwrap_or(least.max(1)),
        };
        let mut after: Vec<Symbol> = (0..=states)
            .map(|written| {
                let (least, most) = (
                    least.saturating_sub(written),
                    most.map(|most| most - written),
                );
                self.frees(free, written > 0, least, most)
            })
            .collect();
        for (item, must) in items.iter().rev() {
            let mut here = vec![];
            for written in 0..=states {
                let mut rows = vec![];
                let next = if most.is_some() {
                    written + 1
                } else {
                    (written + 1).min(states)
                };
                if next <= states {
                    let mut row = vec![*item, after[next]];
                    if written > 0 {
                        row.insert(0, comma);
                    }
                    rows.push(row);
                }
                if !must {
                    rows.push(vec![after[written]]);
                }
                here.push(self.rules.rule(rows));
            }
            after = here;
        }
        self.rules.rule(vec![vec![open, after[0], close]])
    }

    /// `least` to `most` properties without names, behind others or not.
    fn frees(
        &mut self,
        free: Option<Symbol>,
        behind: bool,
        least: usize,
        most: Option<usize>,
    ) -> Symbol {
        let comma = self.rules.text(",");
        let Some(free) = free.filter(|_| most != Some(0)) else {
            return if least == 0 {
                self.rules.empty()
            } else {
                Symbol::Nothing
            };
        };
        if most.is_some_and(|most| most < least) {
            return Symbol::Nothing;
        }
        if behind {
            return self.rules.times(&[comma, free], least, most);
        }
        let most = most.map(|most| most - 1);
        let more = self
            .rules
            .times(&[comma, free], least.saturating_sub(1), most);
        let mut rows = vec![vec![free, more]];
        if least == 0 {
            rows.push(vec![]);
        }
        self.rules.rule(rows)
    }
}

fn not(ast: RegexAst) -> RegexAst {
    RegexAst::Not(Box::new(ast))
}
