//! The rules of lists. Pure.

use serde_json::Value;

use super::Writer;
use crate::worker::constraint::goal::{Goal, ListPart, Ways};
use crate::worker::constraint::rules::{Row, Symbol};
use crate::worker::constraint::schema::{Fault, Kinds};

/// Values of which lists without repetitions are made, in any order and in theirs.
const MAX_SHUFFLED: usize = 5;
const MAX_UNIQUE: usize = 64;
/// States of a list whose items are counted and told apart.
const MAX_STATES: usize = 5_000;

impl Writer<'_> {
    pub(super) fn list(&mut self, list: &ListPart) -> Result<Symbol, Fault> {
        if list.most.is_some_and(|most| most < list.least) {
            return Ok(Symbol::Nothing);
        }
        if let Some(node) = list.unique
            && list.most.is_none_or(|most| most > 1)
            && !self.is_unique_anyway(list)?
        {
            if let Some(unique) = self.unique(list)? {
                return Ok(unique);
            }
            let path = self.goals.schema.path(node).to_owned();
            let reason = "asks for items that differ, which can be kept to only where their values are listed";
            self.goals.leave_out(&path, "uniqueItems", reason)?;
        }
        let mut first = vec![];
        for place in 0..list.places().min(list.most.unwrap_or(usize::MAX)) {
            first.push(self.goal(&list.item(place))?);
        }
        let more = list.item(list.places());
        let inner = self.contained(list, &more, &mut first)?;
        Ok(match inner {
            Some(row) => self.rules.rule(vec![row]),
            None => {
                let more = self.goal(&more)?;
                self.plain_list(&first, more, list.least, list.most)
            }
        })
    }

    /// What `contains` asks for: those items come first behind the places that have something said
    /// of them alone. Where nothing else is counted the whole list is given, with one of them
    /// anywhere.
    fn contained(
        &mut self,
        list: &ListPart,
        more: &Goal,
        first: &mut Vec<Symbol>,
    ) -> Result<Option<Row>, Fault> {
        let mut asked = list
            .contains
            .iter()
            .filter(|c| c.least > 0 || c.most.is_some());
        let Some(contains) = asked.next() else {
            return Ok(None);
        };
        if let Some(other) = asked.next() {
            let path = self.goals.schema.path(other.node).to_owned();
            let reason = "is one of several that hold at once, which is not supported";
            self.goals.leave_out(&path, "contains", reason)?;
        }
        let with = |holds| Goal::of(more.terms().iter().copied().chain([(contains.item, holds)]));
        let found = self.goal(&with(true))?;
        let Some(most) = contains.most else {
            if contains.least == 1 && first.is_empty() && list.least < 2 && list.most.is_none() {
                let any = self.goal(more)?;
                let [open, comma, close] = ["[", ",", "]"].map(|text| self.rules.text(text));
                let before = self.rules.repeated(&[any, comma]);
                let after = self.rules.repeated(&[comma, any]);
                return Ok(Some(vec![open, before, found, after, close]));
            }
            if list
                .most
                .is_some_and(|most| first.len() + contains.least > most)
            {
                return Ok(Some(vec![Symbol::Nothing]));
            }
            first.extend(std::iter::repeat_n(found, contains.least));
            let least = list.least.max(first.len());
            let more = self.goal(more)?;
            let whole = self.plain_list(first, more, least, list.most);
            return Ok(Some(vec![whole]));
        };
        // Exactly so many, and none of the others.
        let others = self.goal(&with(false))?;
        let mut rows = vec![];
        for count in contains.least..=most.min(contains.least + 16) {
            let mut places = first.clone();
            places.extend(std::iter::repeat_n(found, count));
            if list.most.is_none_or(|most| places.len() <= most) {
                let least = list.least.max(places.len());
                rows.push(vec![self.plain_list(&places, others, least, list.most)]);
            }
        }
        Ok(Some(vec![self.rules.rule(rows)]))
    }

    /// A list of `first` and then any number of `more`, with `least` to `most` items in all.
    fn plain_list(
        &mut self,
        first: &[Symbol],
        more: Symbol,
        least: usize,
        most: Option<usize>,
    ) -> Symbol {
        let [open, comma, close] = ["[", ",", "]"].map(|text| self.rules.text(text));
        let left = |bound: usize| bound.saturating_sub(first.len());
        let most_left = most.map(left);
        let mut tail = if most_left == Some(0) || more == Symbol::Nothing {
            if left(least) > 0 {
                return Symbol::Nothing;
            }
            self.rules.empty()
        } else if first.is_empty() {
            let most = most_left.map(|most| most - 1);
            let rest = self
                .rules
                .times(&[comma, more], least.saturating_sub(1), most);
            let mut rows = vec![vec![open, more, rest, close]];
            if least == 0 {
                rows.push(vec![open, close]);
            }
            return self.rules.rule(rows);
        } else {
            self.rules.times(&[comma, more], left(least), most_left)
        };
        // From the last place to the first: what may follow the items before it.
        for (i, item) in first.iter().enumerate().rev() {
            let mut row = vec![*item, tail];
            if i > 0 {
                row.insert(0, comma);
            }
            let mut rows = vec![row];
            if i >= least {
                rows.push(vec![]);
            }
            tail = self.rules.rule(rows);
        }
        self.rules.rule(vec![vec![open, tail, close]])
    }

    /// Whether items differ because of what each must be.
    fn is_unique_anyway(&mut self, list: &ListPart) -> Result<bool, Fault> {
        let places = list.places();
        if places > 8 {
            return Ok(false);
        }
        if list.most.is_none_or(|most| most > places)
            && self.goal(&list.item(places))? != Symbol::Nothing
        {
            return Ok(false);
        }
        for i in 0..places {
            for j in 0..i {
                let terms = [list.item(i), list.item(j)];
                let both = Goal::of(terms.iter().flat_map(|goal| goal.terms().iter().copied()));
                if !self.goals.is_empty(&both, 2)? {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    /// A list without repetitions of values that are listed: in any order if there are few of them,
    /// in theirs if there are many.
    fn unique(&mut self, list: &ListPart) -> Result<Option<Symbol>, Fault> {
        if list.places() > 0 || !list.contains.is_empty() {
            return Ok(None);
        }
        let Some(values) = self.values(&list.item(0))? else {
            return Ok(None);
        };
        let most = list.most.unwrap_or(usize::MAX).min(values.len());
        if list.least > most {
            return Ok(Some(Symbol::Nothing));
        }
        let items: Vec<Symbol> = values
            .iter()
            .map(|value| {
                let row = self.literal(value);
                self.rules.rule(vec![row])
            })
            .collect();
        let [open, close] = ["[", "]"].map(|text| self.rules.text(text));
        let inside = if items.len() <= MAX_SHUFFLED {
            self.shuffled(&items, list.least, most)
        } else if items.len() * (most + 1) <= MAX_STATES {
            self.in_order(&items, list.least, most)
        } else {
            return Ok(None);
        };
        Ok(Some(self.rules.rule(vec![vec![open, inside, close]])))
    }

    /// All values that reach a goal, if they are few.
    fn values(&mut self, goal: &Goal) -> Result<Option<Vec<Value>>, Fault> {
        let mut values = vec![];
        let mut goals = vec![goal.clone()];
        let mut steps = 0;
        while let Some(goal) = goals.pop() {
            steps += 1;
            match self.goals.ways(&goal)? {
                _ if steps > MAX_UNIQUE => return Ok(None),
                Ways::Goals(more) => goals.extend(more),
                Ways::Parts(parts) => {
                    for part in parts {
                        match &part.listed {
                            Some(listed) => values.extend(listed.iter().cloned()),
                            None if part
                                .kinds
                                .without(Kinds::BOOLEAN.or(Kinds::NULL))
                                .is_none() =>
                            {
                                let all = [Value::Null, false.into(), true.into()];
                                let fitting = all
                                    .into_iter()
                                    .filter(|value| self.goals.fits(&goal, value));
                                values.extend(fitting);
                            }
                            None => return Ok(None),
                        }
                    }
                }
            }
        }
        let mut different: Vec<Value> = vec![];
        for value in values {
            if !different.contains(&value) {
                different.push(value);
            }
        }
        Ok((different.len() <= MAX_UNIQUE).then_some(different))
    }

    /// Every order of every choice: a rule for each set of what is left.
    fn shuffled(&mut self, items: &[Symbol], least: usize, most: usize) -> Symbol {
        let comma = self.rules.text(",");
        let all = (1_usize << items.len()) - 1;
        let mut rules = vec![Symbol::Nothing; all + 1];
        for left in 0..=all {
            let written = items.len() - left.count_ones() as usize;
            let mut rows = vec![];
            if written >= least {
                rows.push(vec![]);
            }
            for (i, item) in items.iter().enumerate() {
                if left & (1 << i) != 0 && written < most {
                    let mut row = vec![*item, rules[left & !(1 << i)]];
                    if written > 0 {
                        row.insert(0, comma);
                    }
                    rows.push(row);
                }
            }
            rules[left] = self.rules.rule(rows);
        }
        rules[all]
    }

    /// Every choice in one order.
    fn in_order(&mut self, items: &[Symbol], least: usize, most: usize) -> Symbol {
        let comma = self.rules.text(",");
        let mut after: Vec<Symbol> = (0..=most)
            .map(|written| {
                if written >= least {
                    self.rules.empty()
                } else {
                    Symbol::Nothing
                }
            })
            .collect();
        for item in items.iter().rev() {
            let mut here = vec![];
            for written in 0..=most {
                let mut rows = vec![vec![after[written]]];
                if written < most {
                    let mut row = vec![*item, after[written + 1]];
                    if written > 0 {
                        row.insert(0, comma);
                    }
                    rows.push(row);
                }
                here.push(self.rules.rule(rows));
            }
            after = here;
        }
        after[0]
    }
}
