//! Whether a value that is written in a schema fits a goal. Pure.

use serde_json::Value;

use super::{Goal, Goals};
use crate::worker::constraint::schema::{
    Decimal, Id, Kinds, ListRule, NumberRule, ObjectRule, Says, TextRule, matches,
};

/// Nodes that lead to one another.
const MAX_DEPTH: usize = 100;

/// Equal as JSON Schema has it: 1 is 1.0, and the order of properties says nothing.
pub fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => match (Decimal::of(a), Decimal::of(b)) {
            (Some(a), Some(b)) => a == b,
            _ => a == b,
        },
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b))
        }
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len()
                && a.iter()
                    .all(|(name, a)| b.get(name).is_some_and(|b| same(a, b)))
        }
        _ => a == b,
    }
}

impl Goals {
    pub fn fits(&self, goal: &Goal, value: &Value) -> bool {
        goal.terms()
            .iter()
            .all(|(id, holds)| self.holds(*id, value, 0) == *holds)
    }

    fn holds(&self, id: Id, value: &Value, depth: usize) -> bool {
        if depth > MAX_DEPTH {
            return true;
        }
        let inner = |id: &Id, value: &Value| self.holds(*id, value, depth + 1);
        match self.schema.says(id) {
            Says::Anything => true,
            Says::Nothing => false,
            Says::Is(other) => inner(other, value),
            Says::Not(other) => !inner(other, value),
            Says::All(all) => all.iter().all(|id| inner(id, value)),
            Says::Any(any) => any.iter().any(|id| inner(id, value)),
            Says::One(list) => list.iter().filter(|id| inner(id, value)).count() == 1,
            Says::Kinds(kinds) => kinds.has(Kinds::of(value)),
            Says::Listed(values) => values.iter().any(|other| same(other, value)),
            Says::Number(rule) => match value {
                Value::Number(number) => {
                    Decimal::of(number).is_none_or(|number| holds_of_number(rule, &number))
                }
                _ => true,
            },
            Says::Text(rule) => match value {
                Value::String(text) => match rule {
                    TextRule::Least(count) => text.chars().count() >= *count,
                    TextRule::Most(count) => text.chars().count() <= *count,
                    TextRule::Pattern(pattern) => matches(pattern, text),
                },
                _ => true,
            },
            Says::List(rule) => match value {
                Value::Array(list) => self.holds_of_list(rule, list, depth + 1),
                _ => true,
            },
            Says::Object(rule) => match value {
                Value::Object(_) => self.holds_of_object(rule, value, depth + 1),
                _ => true,
            },
        }
    }

    fn holds_of_list(&self, rule: &ListRule, list: &[Value], depth: usize) -> bool {
        match rule {
            ListRule::Least(count) => list.len() >= *count,
            ListRule::Most(count) => list.len() <= *count,
            ListRule::Unique => {
                let places = list.iter().enumerate();
                places
                    .into_iter()
                    .all(|(i, value)| !list[i + 1..].iter().any(|other| same(value, other)))
            }
            ListRule::Items { first, rest } => list.iter().enumerate().all(|(i, value)| {
                let id = first.get(i).or(rest.as_ref());
                id.is_none_or(|id| self.holds(*id, value, depth))
            }),
            ListRule::Contains { item, least, most } => {
                let found = list.iter().filter(|value| self.holds(*item, value, depth));
                let found = found.count();
                found >= *least && most.is_none_or(|most| found <= most)
            }
            ListRule::Unevaluated(_) => true,
        }
    }

    fn holds_of_object(&self, rule: &ObjectRule, value: &Value, depth: usize) -> bool {
        let Value::Object(fields) = value else {
            return true;
        };
        match rule {
            ObjectRule::Least(count) => fields.len() >= *count,
            ObjectRule::Most(count) => fields.len() <= *count,
            ObjectRule::Required(name) => fields.contains_key(&**name),
            ObjectRule::Names(names) => fields
                .keys()
                .all(|name| self.holds(*names, &Value::from(name.as_str()), depth)),
            ObjectRule::Fields(rule) => fields.iter().all(|(name, value)| {
                let says = rule.of(name);
                says.iter().all(|id| self.holds(*id, value, depth))
            }),
            ObjectRule::Unevaluated(_) => true,
        }
    }
}

fn holds_of_number(rule: &NumberRule, number: &Decimal) -> bool {
    match rule {
        NumberRule::Least((bound, exclusive)) => number > bound || (number == bound && !exclusive),
        NumberRule::Most((bound, exclusive)) => number < bound || (number == bound && !exclusive),
        NumberRule::Multiple(of) => number.is_multiple_of(of).unwrap_or(true),
    }
}
