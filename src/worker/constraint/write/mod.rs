//! From goals to rules: what fits a schema, as JSON or as Gemma writes the arguments of a call.
//! Pure.
//!
//! Gemma writes `call:NAME{key:value,…}<tool_call|>`, keys in alphabetical order as the chat
//! template has them, strings between two quote tokens and as they are, everything else like JSON.
//! There an object with `properties` has no others unless the schema says so.

mod list;
mod object;
mod value;

use std::collections::HashMap;

use super::goal::{Goal, Goals, Part, Ways};
use super::rules::{Row, Rules, Symbol};
use super::schema::{Fault, Kinds, Says, Schema};

/// Rules of one grammar.
const MAX_RULES: usize = 40_000;
/// Values within each other.
const MAX_DEPTH: usize = 400;
/// What nothing fits.
pub const NOTHING: &str = "can be fulfilled by nothing";

/// How values are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    Json,
    /// The arguments of a call.
    Call,
}

/// The rule of the values that fit a schema; only objects, for a call.
pub fn write(rules: &mut Rules, schema: Schema, form: Form) -> Result<(Symbol, Schema), Fault> {
    let root = schema.root;
    let mut writer = Writer {
        goals: Goals::new(schema),
        rules,
        form,
        known: HashMap::new(),
        anything: None,
        plain: HashMap::new(),
        depth: 0,
    };
    let mut terms = vec![(root, true)];
    if form == Form::Call {
        let object = writer.goals.schema.add(Says::Kinds(Kinds::OBJECT), "");
        terms.push((object, true));
    }
    let start = writer.goal(&Goal::of(terms))?;
    let schema = writer.goals.schema;
    if rules.prune(start) {
        Ok((start, schema))
    } else {
        Err(Fault::new("", NOTHING))
    }
}

struct Writer<'a> {
    goals: Goals,
    rules: &'a mut Rules,
    form: Form,
    known: HashMap<Goal, Symbol>,
    /// The rule of every value.
    anything: Option<Symbol>,
    /// Numbers and texts of which nothing else is said, by their kind.
    plain: HashMap<Kinds, Row>,
    depth: usize,
}

impl Writer<'_> {
    /// What reaches a goal.
    fn goal(&mut self, goal: &Goal) -> Result<Symbol, Fault> {
        if goal.terms().is_empty() {
            return Ok(self.anything());
        }
        if let Some(symbol) = self.known.get(goal) {
            return Ok(*symbol);
        }
        if self.depth > MAX_DEPTH || self.rules.rules.len() > MAX_RULES {
            let path = self.goals.path(goal);
            return Err(Fault::new(path, "is too large to be made a grammar of"));
        }
        let symbol = self.rules.reserve();
        self.known.insert(goal.clone(), symbol);
        self.depth += 1;
        let rows = self.rows(goal);
        self.depth -= 1;
        let rows = rows?;
        if rows.is_empty() {
            self.known.insert(goal.clone(), Symbol::Nothing);
            return Ok(Symbol::Nothing);
        }
        self.rules.define(symbol, rows);
        Ok(symbol)
    }

    fn rows(&mut self, goal: &Goal) -> Result<Vec<Row>, Fault> {
        let mut rows = vec![];
        match self.goals.ways(goal)? {
            Ways::Goals(goals) => {
                for goal in goals {
                    let symbol = self.goal(&goal)?;
                    rows.push(vec![symbol]);
                }
            }
            Ways::Parts(parts) => {
                for part in parts {
                    self.part(&part, &mut rows)?;
                }
            }
        }
        rows.retain(|row| !row.contains(&Symbol::Nothing));
        rows.dedup();
        Ok(rows)
    }

    fn part(&mut self, part: &Part, rows: &mut Vec<Row>) -> Result<(), Fault> {
        if part.says_nothing() {
            let anything = self.anything();
            rows.push(vec![anything]);
            return Ok(());
        }
        if let Some(listed) = &part.listed {
            self.listed(listed, rows);
            return Ok(());
        }
        self.scalars(part, rows);
        if part.kinds.has(Kinds::ARRAY) {
            let list = self.list(&part.list)?;
            rows.push(vec![list]);
        }
        if part.kinds.has(Kinds::OBJECT) {
            let object = self.object(&part.object)?;
            rows.push(vec![object]);
        }
        Ok(())
    }
}
