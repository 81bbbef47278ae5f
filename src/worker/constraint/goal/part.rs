//! Everything that is said of one value, without a choice. Pure.

use std::rc::Rc;

use serde_json::Value;

use super::fits::same;
use super::{Goal, Term};
use crate::worker::constraint::schema::{
    Bound, Decimal, Fields, Id, Kinds, ListRule, NumberRule, ObjectRule, Pattern, Says, Schema,
    TextRule,
};

#[derive(Clone)]
pub struct Part {
    pub kinds: Kinds,
    pub listed: Option<Vec<Value>>,
    /// Values that it must not be.
    pub unlisted: Vec<Value>,
    pub number: NumberPart,
    pub text: TextPart,
    pub list: ListPart,
    pub object: ObjectPart,
    added: bool,
}

#[derive(Clone, Default)]
pub struct NumberPart {
    pub least: Option<Bound>,
    pub most: Option<Bound>,
    pub multiples: Vec<Decimal>,
    pub no_multiples: Vec<Decimal>,
}

#[derive(Clone, Default)]
pub struct TextPart {
    pub least: usize,
    /// With where it stands.
    pub most: Option<(usize, Id)>,
    pub patterns: Vec<Rc<Pattern>>,
    pub no_patterns: Vec<Rc<Pattern>>,
}

#[derive(Clone, Default)]
pub struct ListPart {
    pub least: usize,
    pub most: Option<usize>,
    /// Where `uniqueItems` stands.
    pub unique: Option<Id>,
    /// What the items must be: those of the first places, and the rest.
    pub items: Vec<(Vec<Id>, Option<Id>)>,
    /// What single items must be beside that.
    pub places: Vec<(usize, Term)>,
    pub contains: Vec<Contains>,
    pub unevaluated: Vec<Id>,
}

#[derive(Clone)]
pub struct Contains {
    pub item: Id,
    pub least: usize,
    pub most: Option<usize>,
    /// Where it stands.
    pub node: Id,
}

#[derive(Clone, Default)]
pub struct ObjectPart {
    pub least: usize,
    pub most: Option<usize>,
    /// Where the numbers of properties stand.
    pub counted: Option<Id>,
    pub required: Vec<Rc<str>>,
    pub forbidden: Vec<Rc<str>>,
    pub fields: Vec<Rc<Fields>>,
    /// What single properties must be beside that.
    pub places: Vec<(Rc<str>, Term)>,
    /// What names must be.
    pub names: Vec<Term>,
    pub unevaluated: Vec<Id>,
}

impl Default for Part {
    fn default() -> Self {
        Self {
            kinds: Kinds::ALL,
            listed: None,
            unlisted: vec![],
            number: NumberPart::default(),
            text: TextPart::default(),
            list: ListPart::default(),
            object: ObjectPart::default(),
            added: false,
        }
    }
}

fn larger(a: Option<Bound>, b: Bound) -> Option<Bound> {
    Some(match a {
        Some(a) if (&a.0, a.1) >= (&b.0, b.1) => a,
        _ => b,
    })
}

fn smaller(a: Option<Bound>, b: Bound) -> Option<Bound> {
    Some(match a {
        Some(a) if (&a.0, !a.1) <= (&b.0, !b.1) => a,
        _ => b,
    })
}

fn lower(a: Option<usize>, b: usize) -> Option<usize> {
    Some(a.map_or(b, |a| a.min(b)))
}

impl Part {
    pub fn says_nothing(&self) -> bool {
        !self.added
    }

    /// Adds what a node says, or the contrary of it. `false` if nothing is left. A contrary that
    /// cannot be said in full is said of fewer values: what is left fits in any case.
    pub fn add(&mut self, schema: &mut Schema, id: Id, says: &Says, holds: bool) -> bool {
        self.added = true;
        match says {
            Says::Kinds(kinds) if holds => self.kinds = self.kinds.and(*kinds),
            Says::Kinds(kinds) => self.kinds = self.kinds.without(*kinds),
            Says::Listed(values) if holds => {
                self.listed = Some(match self.listed.take() {
                    None => values.to_vec(),
                    Some(mut listed) => {
                        listed.retain(|value| values.iter().any(|other| same(value, other)));
                        listed
                    }
                });
            }
            Says::Listed(values) => self.unlist(values),
            Says::Number(rule) => self.number(rule, holds),
            Says::Text(rule) => self.text(id, rule, holds),
            Says::List(rule) => self.list(schema, id, rule, holds),
            Says::Object(rule) => self.object(id, rule, holds),
            _ => {}
        }
        !self.kinds.is_none()
    }

    fn unlist(&mut self, values: &[Value]) {
        for value in values {
            match value {
                Value::Null => self.kinds = self.kinds.without(Kinds::NULL),
                // A list of another length and an object without one of the names are others.
                Value::Array(list) if list.is_empty() => self.list.least = self.list.least.max(1),
                Value::Array(list) => self.list.most = lower(self.list.most, list.len() - 1),
                Value::Object(fields) => match fields.keys().next() {
                    Some(name) => add_name(&mut self.object.forbidden, &name.as_str().into()),
                    None => self.object.least = self.object.least.max(1),
                },
                value => self.unlisted.push(value.clone()),
            }
        }
        let has = |value: bool| self.unlisted.contains(&Value::Bool(value));
        if has(true) && has(false) {
            self.kinds = self.kinds.without(Kinds::BOOLEAN);
        }
    }

    /// The contrary of what is said of one kind of values is a value of that kind.
    fn only(&mut self, kind: Kinds) {
        self.kinds = self.kinds.and(kind);
    }

    fn number(&mut self, rule: &NumberRule, holds: bool) {
        let part = &mut self.number;
        match (rule, holds) {
            (NumberRule::Least(bound), true) => {
                part.least = larger(part.least.take(), bound.clone())
            }
            (NumberRule::Most(bound), true) => part.most = smaller(part.most.take(), bound.clone()),
            (NumberRule::Multiple(of), true) => part.multiples.push(of.clone()),
            (NumberRule::Least((bound, exclusive)), false) => {
                part.most = smaller(part.most.take(), (bound.clone(), !exclusive));
            }
            (NumberRule::Most((bound, exclusive)), false) => {
                part.least = larger(part.least.take(), (bound.clone(), !exclusive));
            }
            (NumberRule::Multiple(of), false) => part.no_multiples.push(of.clone()),
        }
        if !holds {
            self.only(Kinds::NUMBER);
        }
    }

    fn text(&mut self, id: Id, rule: &TextRule, holds: bool) {
        let part = &mut self.text;
        let lower = |a: Option<(usize, Id)>, b: usize| match a {
            Some((a, id)) if a <= b => Some((a, id)),
            _ => Some((b, id)),
        };
        match (rule, holds) {
            (TextRule::Least(count), true) => part.least = part.least.max(*count),
            (TextRule::Most(count), true) => part.most = lower(part.most, *count),
            (TextRule::Least(count), false) => part.most = lower(part.most, count - 1),
            (TextRule::Most(count), false) => part.least = part.least.max(count + 1),
            (TextRule::Pattern(pattern), true) => part.patterns.push(pattern.clone()),
            (TextRule::Pattern(pattern), false) if pattern.exact => {
                part.no_patterns.push(pattern.clone());
            }
            // Which texts are none of a format is not known.
            (TextRule::Pattern(_), false) => self.kinds = Kinds::NONE,
        }
        if !holds {
            self.only(Kinds::STRING);
        }
    }

    fn list(&mut self, schema: &mut Schema, id: Id, rule: &ListRule, holds: bool) {
        let part = &mut self.list;
        match (rule, holds) {
            (ListRule::Least(count), true) => part.least = part.least.max(*count),
            (ListRule::Most(count), true) => part.most = lower(part.most, *count),
            (ListRule::Least(count), false) => part.most = lower(part.most, count - 1),
            (ListRule::Most(count), false) => part.least = part.least.max(count + 1),
            (ListRule::Unique, true) => part.unique = Some(id),
            (ListRule::Items { first, rest }, true) => part.items.push((first.clone(), *rest)),
            (ListRule::Items { first, rest }, false) => {
                // The first place that can be wrong is.
                let (place, item) = match (first.first(), rest) {
                    (Some(item), _) => (0, *item),
                    (None, Some(item)) => (0, *item),
                    (None, None) => {
                        self.kinds = Kinds::NONE;
                        return;
                    }
                };
                part.places.push((place, (item, false)));
                part.least = part.least.max(place + 1);
            }
            (ListRule::Contains { item, least, most }, true) => part.contains.push(Contains {
                item: *item,
                least: *least,
                most: *most,
                node: id,
            }),
            (
                ListRule::Contains {
                    item, least: 1.., ..
                },
                false,
            ) => {
                let path = schema.path(id).to_owned();
                let none = schema.add(Says::Not(*item), &path);
                part.items.push((vec![], Some(none)));
            }
            (ListRule::Unevaluated(id), true) => part.unevaluated.push(*id),
            (ListRule::Unique | ListRule::Contains { .. } | ListRule::Unevaluated(_), false) => {
                self.kinds = Kinds::NONE;
            }
        }
        if !holds {
            self.only(Kinds::ARRAY);
        }
    }

    fn object(&mut self, id: Id, rule: &ObjectRule, holds: bool) {
        let part = &mut self.object;
        match (rule, holds) {
            (ObjectRule::Least(count), true) => {
                part.least = part.least.max(*count);
                part.counted = Some(id);
            }
            (ObjectRule::Most(count), true) => {
                part.most = lower(part.most, *count);
                part.counted = Some(id);
            }
            (ObjectRule::Least(0), false) => self.kinds = Kinds::NONE,
            (ObjectRule::Least(count), false) => {
                part.most = lower(part.most, count - 1);
                part.counted = Some(id);
            }
            (ObjectRule::Most(count), false) => {
                part.least = part.least.max(count + 1);
                part.counted = Some(id);
            }
            (ObjectRule::Required(name), true) => add_name(&mut part.required, name),
            (ObjectRule::Required(name), false) => add_name(&mut part.forbidden, name),
            (ObjectRule::Fields(fields), true) => part.fields.push(fields.clone()),
            (ObjectRule::Names(names), true) => part.names.push((*names, true)),
            (ObjectRule::Unevaluated(id), true) => part.unevaluated.push(*id),
            (ObjectRule::Fields(fields), false) => {
                // A property that is not what it should be: the choice among several is one of
                // goals, so it is made where they are taken apart.
                match fields.named.as_slice() {
                    [(name, id)] => {
                        add_name(&mut part.required, name);
                        part.places.push((name.clone(), (*id, false)));
                    }
                    _ => self.kinds = Kinds::NONE,
                }
            }
            (ObjectRule::Names(_) | ObjectRule::Unevaluated(_), false) => {
                self.kinds = Kinds::NONE;
            }
        }
        if !holds {
            self.only(Kinds::OBJECT);
        }
    }
}

impl ListPart {
    /// What the item at a place must be.
    pub fn item(&self, place: usize) -> Goal {
        let said = self
            .items
            .iter()
            .filter_map(|(first, rest)| first.get(place).or(rest.as_ref()));
        let mut terms: Vec<Term> = said.map(|id| (*id, true)).collect();
        if terms.is_empty() {
            terms.extend(self.unevaluated.iter().map(|id| (*id, true)));
        }
        let beside = self.places.iter().filter(|(other, _)| *other == place);
        terms.extend(beside.map(|(_, term)| *term));
        Goal::of(terms)
    }

    /// How many places have something said of them alone.
    pub fn places(&self) -> usize {
        let first = self.items.iter().map(|(first, _)| first.len());
        let beside = self.places.iter().map(|(place, _)| place + 1);
        first.chain(beside).max().unwrap_or(0)
    }
}

impl ObjectPart {
    pub fn is_empty(&self) -> bool {
        let required = self.required.len();
        self.required
            .iter()
            .any(|name| self.forbidden.contains(name))
            || self
                .most
                .is_some_and(|most| most < self.least.max(required))
    }

    /// What the property of a name must be.
    pub fn property(&self, name: &str) -> Goal {
        let said = self.fields.iter().flat_map(|fields| fields.of(name));
        let mut terms: Vec<Term> = said.map(|id| (id, true)).collect();
        if terms.is_empty() {
            terms.extend(self.unevaluated.iter().map(|id| (*id, true)));
        }
        let beside = self.places.iter().filter(|(other, _)| &**other == name);
        terms.extend(beside.map(|(_, term)| *term));
        Goal::of(terms)
    }
}

fn add_name(names: &mut Vec<Rc<str>>, name: &Rc<str>) {
    if !names.contains(name) {
        names.push(name.clone());
    }
}
