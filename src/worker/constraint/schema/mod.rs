//! A JSON Schema, read: a node for each thing that it says. A schema with several keywords is the
//! node that says all of theirs at once. Pure.
//!
//! What a node says of one kind of values holds for every value of another kind, as in JSON Schema.

mod keywords;
mod number;
mod pattern;
mod place;
mod read;

use std::rc::Rc;

use serde_json::Value;

pub use number::{Decimal, multiples, numbers, spellings};
pub use pattern::{Pattern, matches};
pub use read::{Care, Schema};

/// Why the model cannot be held to a schema, or to a part of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Where, as a JSON pointer.
    pub path: String,
    /// Continues the sentence "the schema …".
    pub reason: String,
}

impl Fault {
    pub fn new(path: impl Into<String>, reason: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            reason: reason.into(),
        }
    }
}

/// The JSON pointer to a field.
pub fn child(path: &str, name: &str) -> String {
    format!("{path}/{}", name.replace('~', "~0").replace('/', "~1"))
}

/// A node of a [`Schema`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id(u32);

/// What a node says of a value.
#[derive(Clone, Debug)]
pub enum Says {
    Anything,
    Nothing,
    /// What another node says.
    Is(Id),
    Not(Id),
    All(Vec<Id>),
    Any(Vec<Id>),
    /// One of them, and no other.
    One(Vec<Id>),
    Kinds(Kinds),
    Listed(Rc<Vec<Value>>),
    Number(NumberRule),
    Text(TextRule),
    List(ListRule),
    Object(ObjectRule),
}

/// Kinds of values, as a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Kinds(u8);

impl Kinds {
    pub const NULL: Self = Self(1);
    pub const BOOLEAN: Self = Self(2);
    pub const INTEGER: Self = Self(4);
    /// Numbers that are not whole.
    pub const FRACTION: Self = Self(8);
    pub const NUMBER: Self = Self(12);
    pub const STRING: Self = Self(16);
    pub const ARRAY: Self = Self(32);
    pub const OBJECT: Self = Self(64);
    pub const ALL: Self = Self(127);
    pub const NONE: Self = Self(0);

    /// The kind that `type` calls so.
    pub fn named(name: &str) -> Option<Self> {
        Some(match name {
            "null" => Self::NULL,
            "boolean" => Self::BOOLEAN,
            "integer" => Self::INTEGER,
            "number" => Self::NUMBER,
            "string" => Self::STRING,
            "array" => Self::ARRAY,
            "object" => Self::OBJECT,
            _ => return None,
        })
    }

    /// The kind of a value.
    pub fn of(value: &Value) -> Self {
        match value {
            Value::Null => Self::NULL,
            Value::Bool(_) => Self::BOOLEAN,
            Value::Number(number) => match Decimal::of(number) {
                Some(number) if !number.is_whole() => Self::FRACTION,
                _ => Self::INTEGER,
            },
            Value::String(_) => Self::STRING,
            Value::Array(_) => Self::ARRAY,
            Value::Object(_) => Self::OBJECT,
        }
    }

    pub fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    pub fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    pub fn has(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    pub fn is_none(self) -> bool {
        self.0 == 0
    }
}

/// A bound of numbers: the number, and whether it is itself excluded.
pub type Bound = (Decimal, bool);

#[derive(Clone, Debug)]
pub enum NumberRule {
    Least(Bound),
    Most(Bound),
    Multiple(Decimal),
}

#[derive(Clone, Debug)]
pub enum TextRule {
    /// Characters.
    Least(usize),
    Most(usize),
    Pattern(Rc<Pattern>),
}

#[derive(Clone, Debug)]
pub enum ListRule {
    Least(usize),
    Most(usize),
    Unique,
    Items {
        first: Vec<Id>,
        rest: Option<Id>,
    },
    Contains {
        item: Id,
        least: usize,
        most: Option<usize>,
    },
    /// What items must be of which nothing else is said.
    Unevaluated(Id),
}

#[derive(Clone, Debug)]
pub enum ObjectRule {
    Least(usize),
    Most(usize),
    Required(Rc<str>),
    Names(Id),
    Fields(Rc<Fields>),
    /// What properties must be of which nothing else is said.
    Unevaluated(Id),
}

/// What properties must be.
#[derive(Debug, Default)]
pub struct Fields {
    /// By name, in the schema's order.
    pub named: Vec<(Rc<str>, Id)>,
    pub patterns: Vec<(Rc<Pattern>, Id)>,
    pub additional: Option<Id>,
    /// Whether the schema has `properties`.
    pub lists: bool,
}

impl Fields {
    pub fn named(&self, name: &str) -> Option<Id> {
        let found = self.named.iter().find(|(other, _)| &**other == name);
        found.map(|(_, id)| *id)
    }

    /// What this says of the property of a name; several nodes hold at once.
    pub fn of(&self, name: &str) -> Vec<Id> {
        let by_pattern = self.patterns.iter();
        let by_pattern = by_pattern.filter(|(pattern, _)| matches(pattern, name));
        let mut all: Vec<Id> = self.named(name).into_iter().collect();
        all.extend(by_pattern.map(|(_, id)| *id));
        if all.is_empty() {
            all.extend(self.additional);
        }
        all
    }
}
