//! A goal is a set of nodes that must hold, and of nodes that must not: what one value is to be.
//! Here it is taken apart into the ways to reach it, each of which says everything about one value
//! without a choice. Goals that meet again are the same, so schemas that refer to themselves have
//! an end. Pure.

mod fits;
mod part;
mod texts;

use std::collections::HashMap;
use std::rc::Rc;

use super::schema::{Care, Fault, Fields, Id, Kinds, ObjectRule, Says, Schema, child};
use part::TextPart;
pub use part::{ListPart, ObjectPart, Part};
pub use texts::{Spelling, found, matches_nothing};

/// Ways to reach one goal.
const MAX_WAYS: usize = 128;
/// Goals that are taken apart for one schema, those included that are only asked whether anything
/// reaches them.
const MAX_STEPS: usize = 60_000;
/// Goals that are taken apart to see whether two nodes can hold at once.
const MAX_LOOKS: usize = 200;
/// How deep it is looked whether anything reaches a goal.
const EMPTY_DEPTH: usize = 4;

/// Characters of a text with a pattern that are counted.
const MAX_COUNTED: usize = 256;

/// A node, and whether it must hold.
pub type Term = (Id, bool);

/// Sorted, without repetitions.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub struct Goal(Vec<Term>);

impl Goal {
    pub fn of(terms: impl IntoIterator<Item = Term>) -> Self {
        let mut terms: Vec<Term> = terms.into_iter().collect();
        terms.sort();
        terms.dedup();
        Self(terms)
    }

    pub fn terms(&self) -> &[Term] {
        &self.0
    }
}

/// What a goal comes down to.
pub enum Ways {
    /// One of several goals.
    Goals(Vec<Goal>),
    Parts(Vec<Part>),
}

/// Takes goals apart.
pub struct Goals {
    pub schema: Schema,
    /// Whether two nodes can hold at once.
    overlaps: HashMap<(Id, Id), bool>,
    /// Nodes that say of each property by itself what another one says of all.
    apart: HashMap<Id, Id>,
    steps: usize,
    /// What is left of [`MAX_LOOKS`].
    looks: usize,
}

/// A way that is not taken to its end.
#[derive(Clone, Default)]
struct Walk {
    todo: Vec<Term>,
    seen: Vec<Term>,
    /// Nodes of which one of several must be chosen.
    choices: Vec<Term>,
    part: Part,
}

impl Goals {
    pub fn new(schema: Schema) -> Self {
        Self {
            schema,
            overlaps: HashMap::new(),
            apart: HashMap::new(),
            steps: 0,
            looks: 0,
        }
    }

    pub fn ways(&mut self, goal: &Goal) -> Result<Ways, Fault> {
        let mut walk = Walk {
            todo: goal.0.iter().rev().copied().collect(),
            ..Walk::default()
        };
        if !self.flatten(&mut walk)? {
            return Ok(Ways::Parts(vec![]));
        }
        if let ([choice], true) = (walk.choices.as_slice(), walk.part.says_nothing()) {
            let options = self.options(*choice)?;
            let goals = options
                .into_iter()
                .map(Goal::of)
                .filter(|option| option != goal);
            return Ok(Ways::Goals(goals.collect()));
        }
        let mut parts = vec![];
        self.finish(walk, goal, &mut parts)?;
        Ok(Ways::Parts(parts))
    }

    /// Collects what holds in any case; `false` if that is a contradiction.
    fn flatten(&mut self, walk: &mut Walk) -> Result<bool, Fault> {
        while let Some(term) = walk.todo.pop() {
            if walk.seen.contains(&term) {
                continue;
            }
            let (id, holds) = term;
            if walk.seen.contains(&(id, !holds)) {
                return Ok(false);
            }
            self.steps += 1;
            if self.steps > MAX_STEPS {
                return Err(Fault::new("", "is too large to be made a grammar of"));
            }
            walk.seen.push(term);
            if self.schema.care != Care::Exact && self.is_negative_choice(term) {
                let path = self.schema.path(id).to_owned();
                self.leave_out(&path, "not", "is too much to be kept to beside the rest")?;
                continue;
            }
            match (self.schema.says(id), holds) {
                (Says::Anything, true) | (Says::Nothing, false) => {}
                (Says::Anything, false) | (Says::Nothing, true) => return Ok(false),
                (Says::Is(other), holds) => walk.todo.push((*other, holds)),
                (Says::Not(other), holds) => walk.todo.push((*other, !holds)),
                (Says::All(all), true) => walk.todo.extend(all.iter().rev().map(|id| (*id, true))),
                (Says::Any(any), false) => {
                    walk.todo.extend(any.iter().rev().map(|id| (*id, false)));
                }
                (Says::All(list) | Says::Any(list) | Says::One(list), _) if list.len() == 1 => {
                    walk.todo.push((list[0], holds));
                }
                (Says::All(_) | Says::Any(_) | Says::One(_), _) => walk.choices.push(term),
                (Says::Object(ObjectRule::Fields(fields)), false) if fields.named.len() > 1 => {
                    let all = self.each_field(id, &fields.clone());
                    walk.todo.push((all, false));
                }
                (says, holds) => {
                    let says = says.clone();
                    if !walk.part.add(&mut self.schema, id, &says, holds) {
                        return Ok(false);
                    }
                }
            }
        }
        Ok(!walk.part.kinds.is_none())
    }

    /// Whether a node must not hold that says several things.
    fn is_negative_choice(&self, (id, holds): Term) -> bool {
        match self.schema.says(id) {
            Says::All(list) => !holds && list.len() > 1,
            Says::One(_) => !holds,
            _ => false,
        }
    }

    /// The node that says of every named property what `fields` does, each by itself.
    fn each_field(&mut self, id: Id, fields: &Fields) -> Id {
        if let Some(known) = self.apart.get(&id) {
            return *known;
        }
        let path = self.schema.path(id).to_owned();
        let mut all = vec![];
        for named in &fields.named {
            let one = Fields {
                named: vec![named.clone()],
                ..Fields::default()
            };
            let says = Says::Object(ObjectRule::Fields(Rc::new(one)));
            all.push(self.schema.add(says, &path));
        }
        let all = self.schema.add(Says::All(all), &path);
        self.apart.insert(id, all);
        all
    }

    /// Takes the choices one after the other.
    fn finish(&mut self, mut walk: Walk, goal: &Goal, parts: &mut Vec<Part>) -> Result<(), Fault> {
        if let Some(listed) = walk.part.listed.take() {
            // Values that are listed need no more than to be tried.
            let kept = listed.iter().filter(|value| self.fits(goal, value));
            let kept: Vec<_> = kept.cloned().collect();
            if !kept.is_empty() {
                walk.part.listed = Some(kept);
                parts.push(walk.part);
            }
            return Ok(());
        }
        if walk.choices.is_empty() {
            self.simplify(&mut walk.part, goal)?;
            parts.push(walk.part);
            return Ok(());
        }
        let choice = walk.choices.remove(0);
        let before = parts.len();
        for option in self.options(choice)? {
            let mut next = walk.clone();
            next.todo.extend(option.into_iter().rev());
            if self.flatten(&mut next)? {
                self.finish(next, goal, parts)?;
            }
            if parts.len() > MAX_WAYS {
                let path = self.schema.path(choice.0).to_owned();
                let fault =
                    Fault::new(path, "has too many combinations with what stands beside it");
                self.schema.leave_out(fault)?;
                parts.truncate(before);
                return self.finish(walk, goal, parts);
            }
        }
        Ok(())
    }

    /// Leaves out the greatest length of a text that has a pattern as well: the engine counts the
    /// characters at every place where the pattern can be.
    fn simplify(&mut self, part: &mut Part, goal: &Goal) -> Result<(), Fault> {
        let text = &mut part.text;
        if self.schema.care == Care::Least && !text.says_nothing() {
            *text = TextPart::default();
            let path = self.path(goal);
            let reason = "has texts that are too much to be kept to beside the rest";
            return self.schema.leave_out(Fault::new(path, reason));
        }
        let patterned = text.patterns.iter().any(|pattern| pattern.exact);
        if let Some((_, node)) = text
            .most
            .filter(|(most, _)| patterned && *most > MAX_COUNTED)
        {
            text.most = None;
            let path = self.schema.path(node).to_owned();
            let reason =
                format!("is above {MAX_COUNTED} beside a pattern, which is too much to count");
            self.leave_out(&path, "maxLength", &reason)?;
        }
        Ok(())
    }

    /// The ways to make a choice.
    fn options(&mut self, (id, holds): Term) -> Result<Vec<Vec<Term>>, Fault> {
        let says = self.schema.says(id).clone();
        Ok(match (says, holds) {
            (Says::All(all), false) => all.into_iter().map(|id| vec![(id, false)]).collect(),
            (Says::Any(any), true) => any.into_iter().map(|id| vec![(id, true)]).collect(),
            (Says::One(list), true) => {
                let mut options = vec![];
                for (i, &one) in list.iter().enumerate() {
                    let mut option = vec![(one, true)];
                    for (j, &other) in list.iter().enumerate() {
                        if i == j || !self.overlap(one, other)? {
                            continue;
                        }
                        if self.schema.care == Care::Exact {
                            option.push((other, false));
                        } else {
                            let path = self.schema.path(id).to_owned();
                            self.leave_out(&path, "oneOf", "is kept to as `anyOf` is")?;
                        }
                    }
                    options.push(option);
                }
                options
            }
            (Says::One(list), false) => {
                let mut options = vec![list.iter().map(|id| (*id, false)).collect()];
                for (i, &one) in list.iter().enumerate() {
                    let others = list[i + 1..].iter();
                    options.extend(others.map(|&other| vec![(one, true), (other, true)]));
                }
                options
            }
            _ => vec![],
        })
    }

    /// Whether two nodes may hold at once.
    fn overlap(&mut self, one: Id, other: Id) -> Result<bool, Fault> {
        let pair = (one.min(other), one.max(other));
        if let Some(known) = self.overlaps.get(&pair) {
            return Ok(*known);
        }
        // Whoever asks the same meanwhile gets no answer.
        self.overlaps.insert(pair, true);
        let both = Goal::of([(one, true), (other, true)]);
        self.looks = MAX_LOOKS;
        let overlap = !self.is_empty(&both, EMPTY_DEPTH)?;
        self.overlaps.insert(pair, overlap);
        Ok(overlap)
    }

    /// Whether nothing reaches a goal for certain.
    pub fn is_empty(&mut self, goal: &Goal, depth: usize) -> Result<bool, Fault> {
        self.looks = self.looks.saturating_sub(1);
        if self.looks == 0 {
            return Ok(false);
        }
        match self.ways(goal)? {
            Ways::Goals(_) if depth == 0 => Ok(false),
            Ways::Goals(goals) => {
                for goal in goals {
                    if !self.is_empty(&goal, depth - 1)? {
                        return Ok(false);
                    }
                }
                Ok(true)
            }
            Ways::Parts(parts) => {
                for part in &parts {
                    if !self.part_is_empty(part, depth)? {
                        return Ok(false);
                    }
                }
                Ok(true)
            }
        }
    }

    fn part_is_empty(&mut self, part: &Part, depth: usize) -> Result<bool, Fault> {
        if part.listed.is_some() {
            return Ok(false);
        }
        let simple = Kinds::NULL.or(Kinds::BOOLEAN);
        if part.kinds.has(simple)
            || (part.kinds.has(Kinds::NUMBER) && !part.number.is_empty())
            || (part.kinds.has(Kinds::STRING) && !part.text.is_empty(&part.unlisted))
        {
            return Ok(false);
        }
        if part.kinds.has(Kinds::ARRAY) {
            let list = &part.list;
            let mut empty = list.most.is_some_and(|most| most < list.least);
            for i in 0..list.least.min(8) {
                let item = list.item(i);
                empty = empty || (depth > 0 && self.is_empty(&item, depth - 1)?);
            }
            if !empty {
                return Ok(false);
            }
        }
        if part.kinds.has(Kinds::OBJECT) {
            let mut empty = part.object.is_empty();
            for name in part.object.required.clone() {
                if empty || depth == 0 {
                    break;
                }
                let goal = part.object.property(&name);
                empty = self.is_empty(&goal, depth - 1)?;
            }
            return Ok(empty);
        }
        Ok(true)
    }

    /// Where a part of a goal comes from, to be named in an error.
    pub fn path(&self, goal: &Goal) -> String {
        let first = goal.0.first();
        first.map_or(String::new(), |(id, _)| self.schema.path(*id).to_owned())
    }

    /// Notes that a keyword cannot be kept to.
    pub fn leave_out(&mut self, path: &str, name: &str, reason: &str) -> Result<(), Fault> {
        let at = if path.rsplit('/').next() == Some(name) {
            path.to_owned()
        } else {
            child(path, name)
        };
        self.schema.leave_out(Fault::new(at, reason))
    }
}
