//! Reads a schema: each keyword that says something of the data becomes a node. Words that are not
//! known say nothing, as JSON Schema has it (2020-12, section 6.5).

use std::collections::HashMap;
use std::rc::Rc;

use serde_json::Value;

use super::child;
use super::keywords::Keywords;
use super::place::Places;
use super::{Fault, Fields, Id, Kinds, ListRule, NumberRule, ObjectRule, Pattern, Says, TextRule};
use crate::worker::constraint::formats;

/// Schemas within one schema.
const MAX_SCHEMAS: usize = 10_000;
/// Schemas within each other.
const MAX_DEPTH: usize = 200;

/// How far a schema is kept to: less where it would be too much otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Care {
    Exact,
    /// Without what single options exclude.
    Less,
    /// And without lengths and patterns of texts.
    Least,
}

impl Care {
    /// The next lower one.
    pub fn less(self) -> Option<Self> {
        match self {
            Self::Exact => Some(Self::Less),
            Self::Less => Some(Self::Least),
            Self::Least => None,
        }
    }
}

/// A schema as nodes.
pub struct Schema {
    nodes: Vec<Says>,
    /// Where each node comes from, as a JSON pointer.
    paths: Vec<Rc<str>>,
    pub root: Id,
    /// What cannot be kept to, and was left out.
    pub left_out: Vec<Fault>,
    /// Whether anything may be left out.
    strict: bool,
    pub care: Care,
}

impl Schema {
    /// With `strict` what cannot be kept to is an error.
    pub fn read(root: &Value, strict: bool, care: Care) -> Result<Self, Fault> {
        let mut reader = Reader {
            places: Places::of(root),
            schema: Self {
                nodes: vec![],
                paths: vec![],
                root: Id(0),
                left_out: vec![],
                strict,
                care,
            },
            known: HashMap::new(),
            count: 0,
            depth: 0,
        };
        reader.schema.root = reader.schema(root, "")?;
        Ok(reader.schema)
    }

    pub fn says(&self, id: Id) -> &Says {
        &self.nodes[id.0 as usize]
    }

    pub fn path(&self, id: Id) -> &str {
        &self.paths[id.0 as usize]
    }

    /// One more node, which comes from where another does.
    pub fn add(&mut self, says: Says, path: &str) -> Id {
        let id = Id(self.nodes.len() as u32);
        self.nodes.push(says);
        self.paths.push(path.into());
        id
    }

    /// Goes on without what cannot be kept to, if that is allowed.
    pub fn leave_out(&mut self, fault: Fault) -> Result<(), Fault> {
        if self.strict {
            return Err(fault);
        }
        if !self.left_out.iter().any(|other| other.path == fault.path) {
            self.left_out.push(fault);
        }
        Ok(())
    }
}

struct Reader<'a> {
    places: Places<'a>,
    schema: Schema,
    /// Schemas that were read, by their pointers.
    known: HashMap<String, Id>,
    count: usize,
    depth: usize,
}

/// What one schema says, piece by piece.
type Pieces = Vec<Id>;

impl<'a> Reader<'a> {
    fn schema(&mut self, value: &'a Value, path: &str) -> Result<Id, Fault> {
        if let Some(id) = self.known.get(path) {
            return Ok(*id);
        }
        self.count += 1;
        if self.count > MAX_SCHEMAS || self.depth > MAX_DEPTH {
            return Err(Fault::new(
                "",
                format!(
                    "consists of more than {MAX_SCHEMAS} schemas, or of more than {MAX_DEPTH} within each other"
                ),
            ));
        }
        let id = self.schema.add(Says::Anything, path);
        self.known.insert(path.to_owned(), id);
        let says = match value {
            Value::Bool(true) => Says::Anything,
            Value::Bool(false) => Says::Nothing,
            Value::Object(fields) => {
                self.depth += 1;
                let says = self.object(&Keywords {
                    fields,
                    path: path.into(),
                });
                self.depth -= 1;
                says?
            }
            _ => {
                let fault = Fault::new(path, "must be an object or a boolean");
                self.schema.leave_out(fault)?;
                Says::Anything
            }
        };
        self.schema.nodes[id.0 as usize] = says;
        Ok(id)
    }

    fn object(&mut self, words: &Keywords<'a>) -> Result<Says, Fault> {
        let mut pieces = vec![];
        for part in [
            Self::reference,
            Self::values,
            Self::numbers,
            Self::texts,
            Self::items,
            Self::contains,
            Self::fields,
            Self::counts_of_properties,
            Self::dependencies,
            Self::combined,
            Self::condition,
        ] {
            if let Err(fault) = part(self, words, &mut pieces) {
                if fault.path.is_empty() {
                    return Err(fault);
                }
                self.schema.leave_out(fault)?;
            }
        }
        // OpenAPI 3.0's way to say that there may be nothing.
        if words.is_true("nullable") {
            let null = self.piece(words, Says::Kinds(Kinds::NULL));
            let given = self.piece(words, Says::All(pieces));
            return Ok(Says::Any(vec![given, null]));
        }
        Ok(Says::All(pieces))
    }

    fn piece(&mut self, words: &Keywords<'_>, says: Says) -> Id {
        self.schema.add(says, &words.path)
    }

    /// A schema that is a keyword's value.
    fn inner(&mut self, words: &Keywords<'a>, name: &str) -> Result<Option<Id>, Fault> {
        match words.get(name) {
            None => Ok(None),
            Some(value) => self.schema(value, &words.at(name)).map(Some),
        }
    }

    fn each(&mut self, list: &'a [Value], path: &str) -> Result<Vec<Id>, Fault> {
        let places = list.iter().enumerate();
        places
            .map(|(i, value)| self.schema(value, &child(path, &i.to_string())))
            .collect()
    }

    fn reference(&mut self, words: &Keywords<'a>, pieces: &mut Pieces) -> Result<(), Fault> {
        for name in ["$ref", "$recursiveRef", "$dynamicRef"] {
            let Some(reference) = words.text(name)? else {
                continue;
            };
            let Some((path, target)) = self.places.find(reference) else {
                let reason = if reference.starts_with('#') {
                    "refers to what is not there"
                } else {
                    "refers to another document, and only references within the schema are followed"
                };
                self.schema.leave_out(Fault::new(words.at(name), reason))?;
                continue;
            };
            let target = self.schema(target, &path)?;
            pieces.push(self.piece(words, Says::Is(target)));
        }
        Ok(())
    }

    fn values(&mut self, words: &Keywords<'a>, pieces: &mut Pieces) -> Result<(), Fault> {
        let mut kinds = Kinds::ALL;
        if let Some(value) = words.get("type") {
            let names = match value {
                Value::Array(names) => names.iter().collect(),
                one => vec![one],
            };
            kinds = Kinds::NONE;
            for name in names {
                let kind = name.as_str().and_then(Kinds::named);
                kinds = kinds.or(kind.ok_or_else(|| {
                    words.wrong(
                        "type",
                        "one of null, boolean, integer, number, string, array and object, or a list of them",
                    )
                })?);
            }
            pieces.push(self.piece(words, Says::Kinds(kinds)));
        }
        if let Some(list) = words.list("enum")? {
            if !list.is_empty() && !list.iter().any(|value| kinds.has(Kinds::of(value))) {
                let reason = "lists values none of which is of the `type`";
                return Err(Fault::new(words.at("enum"), reason));
            }
            pieces.push(self.piece(words, Says::Listed(Rc::new(list.to_vec()))));
        }
        if let Some(value) = words.get("const") {
            pieces.push(self.piece(words, Says::Listed(Rc::new(vec![value.clone()]))));
        }
        Ok(())
    }

    fn numbers(&mut self, words: &Keywords<'a>, pieces: &mut Pieces) -> Result<(), Fault> {
        type Rule = fn(super::Bound) -> NumberRule;
        let bounds: [(&str, &str, Rule); 2] = [
            ("minimum", "exclusiveMinimum", NumberRule::Least),
            ("maximum", "exclusiveMaximum", NumberRule::Most),
        ];
        for (name, exclusive, rule) in bounds {
            // Until draft 4 the second was a switch of the first.
            let switch = matches!(words.get(exclusive), Some(Value::Bool(_)));
            if let Some(bound) = words.number(name)? {
                let says = Says::Number(rule((bound, switch && words.is_true(exclusive))));
                pieces.push(self.piece(words, says));
            }
            if !switch && let Some(bound) = words.number(exclusive)? {
                pieces.push(self.piece(words, Says::Number(rule((bound, true)))));
            }
        }
        for name in ["multipleOf", "divisibleBy"] {
            if let Some(of) = words.number(name)? {
                if super::number::multiples(&of).is_none() {
                    return Err(words.wrong(name, "above zero, and of five digits at most"));
                }
                pieces.push(self.piece(words, Says::Number(NumberRule::Multiple(of))));
            }
        }
        Ok(())
    }

    fn texts(&mut self, words: &Keywords<'a>, pieces: &mut Pieces) -> Result<(), Fault> {
        if let Some(count) = words.count("minLength")?.filter(|count| *count > 0) {
            pieces.push(self.piece(words, Says::Text(TextRule::Least(count))));
        }
        if let Some(count) = words.count("maxLength")? {
            pieces.push(self.piece(words, Says::Text(TextRule::Most(count))));
        }
        // Formats of numbers, and those that are not known, say nothing.
        let format = words.get("format").and_then(Value::as_str);
        if let Some(regex) = format.and_then(formats::regex) {
            let pattern = Rc::new(Pattern::whole(regex, false));
            pieces.push(self.piece(words, Says::Text(TextRule::Pattern(pattern))));
        }
        if let Some(source) = words.text("pattern")? {
            let pattern = self.pattern(source, &words.at("pattern"))?;
            pieces.push(self.piece(words, Says::Text(TextRule::Pattern(pattern))));
        }
        Ok(())
    }

    fn pattern(&mut self, source: &str, path: &str) -> Result<Rc<Pattern>, Fault> {
        let parsed = Pattern::parse(source);
        parsed
            .map(Rc::new)
            .map_err(|reason| Fault::new(path, format!("has a pattern that {reason}")))
    }

    fn items(&mut self, words: &Keywords<'a>, pieces: &mut Pieces) -> Result<(), Fault> {
        if let Some(count) = words.count("minItems")?.filter(|count| *count > 0) {
            pieces.push(self.piece(words, Says::List(ListRule::Least(count))));
        }
        if let Some(count) = words.count("maxItems")? {
            pieces.push(self.piece(words, Says::List(ListRule::Most(count))));
        }
        if words.is_true("uniqueItems") {
            let says = Says::List(ListRule::Unique);
            let id = self.schema.add(says, &words.at("uniqueItems"));
            pieces.push(id);
        }
        // Until 2019 a list of schemas for the first places was called `items`, and the rest
        // `additionalItems`.
        let (first, at, rest) = match words.get("items") {
            Some(Value::Array(first)) => (Some(first.as_slice()), "items", "additionalItems"),
            _ => (words.list("prefixItems")?, "prefixItems", "items"),
        };
        let first = self.each(first.unwrap_or_default(), &words.at(at))?;
        let rest = self.inner(words, rest)?;
        if !first.is_empty() || rest.is_some() {
            pieces.push(self.piece(words, Says::List(ListRule::Items { first, rest })));
        }
        if let Some(item) = self.inner(words, "unevaluatedItems")? {
            pieces.push(self.piece(words, Says::List(ListRule::Unevaluated(item))));
        }
        Ok(())
    }

    fn contains(&mut self, words: &Keywords<'a>, pieces: &mut Pieces) -> Result<(), Fault> {
        if let Some(item) = self.inner(words, "contains")? {
            let least = words.count("minContains")?.unwrap_or(1);
            let most = words.count("maxContains")?;
            let says = Says::List(ListRule::Contains { item, least, most });
            let id = self.schema.add(says, &words.at("contains"));
            pieces.push(id);
        }
        Ok(())
    }

    fn fields(&mut self, words: &Keywords<'a>, pieces: &mut Pieces) -> Result<(), Fault> {
        if let Some(Value::Array(names)) = words.get("required") {
            for name in names {
                let Some(name) = name.as_str() else {
                    return Err(words.wrong("required", "an array of strings"));
                };
                pieces.push(self.required(words, name));
            }
        } else if !matches!(words.get("required"), None | Some(Value::Bool(_))) {
            // Until draft 3 a property said of itself whether it is required.
            return Err(words.wrong("required", "an array of strings"));
        }
        let mut fields = Fields::default();
        if let Some(named) = words.object("properties")? {
            fields.lists = true;
            for (name, value) in named {
                let id = self.schema(value, &child(&words.at("properties"), name))?;
                fields.named.push((name.as_str().into(), id));
                if value.get("required") == Some(&Value::Bool(true)) {
                    pieces.push(self.required(words, name));
                }
            }
        }
        for (source, value) in words.object("patternProperties")?.into_iter().flatten() {
            let at = child(&words.at("patternProperties"), source);
            match self.pattern(source, &at) {
                Ok(pattern) => fields.patterns.push((pattern, self.schema(value, &at)?)),
                Err(fault) => self.schema.leave_out(fault)?,
            }
        }
        fields.additional = self.inner(words, "additionalProperties")?;
        if fields.lists || !fields.patterns.is_empty() || fields.additional.is_some() {
            let says = Says::Object(ObjectRule::Fields(Rc::new(fields)));
            pieces.push(self.piece(words, says));
        }
        if let Some(id) = self.inner(words, "unevaluatedProperties")? {
            pieces.push(self.piece(words, Says::Object(ObjectRule::Unevaluated(id))));
        }
        if let Some(id) = self.inner(words, "propertyNames")? {
            let says = Says::Object(ObjectRule::Names(id));
            let id = self.schema.add(says, &words.at("propertyNames"));
            pieces.push(id);
        }
        Ok(())
    }

    fn required(&mut self, words: &Keywords<'_>, name: &str) -> Id {
        self.piece(words, Says::Object(ObjectRule::Required(name.into())))
    }

    fn counts_of_properties(
        &mut self,
        words: &Keywords<'a>,
        pieces: &mut Pieces,
    ) -> Result<(), Fault> {
        for (name, rule) in [
            (
                "minProperties",
                ObjectRule::Least as fn(usize) -> ObjectRule,
            ),
            ("maxProperties", ObjectRule::Most),
        ] {
            if let Some(count) = words.count(name)? {
                let id = self.schema.add(Says::Object(rule(count)), &words.at(name));
                pieces.push(id);
            }
        }
        Ok(())
    }

    /// `dependentRequired`, `dependentSchemas`, and `dependencies`, which was both until 2019.
    fn dependencies(&mut self, words: &Keywords<'a>, pieces: &mut Pieces) -> Result<(), Fault> {
        for word in ["dependentRequired", "dependentSchemas", "dependencies"] {
            for (name, value) in words.object(word)?.into_iter().flatten() {
                let at = child(&words.at(word), name);
                let if_there = self.required(words, name);
                let mut both = vec![if_there];
                match value {
                    Value::Array(names) if word != "dependentSchemas" => {
                        for name in names.iter().filter_map(Value::as_str) {
                            both.push(self.required(words, name));
                        }
                    }
                    Value::String(name) if word == "dependencies" => {
                        both.push(self.required(words, name));
                    }
                    value => both.push(self.schema(value, &at)?),
                }
                let absent = self.schema.add(Says::Not(if_there), &at);
                let both = self.schema.add(Says::All(both), &at);
                pieces.push(self.schema.add(Says::Any(vec![both, absent]), &at));
            }
        }
        Ok(())
    }

    fn combined(&mut self, words: &Keywords<'a>, pieces: &mut Pieces) -> Result<(), Fault> {
        type Rule = fn(Vec<Id>) -> Says;
        let rules: [(&str, Rule); 3] = [
            ("allOf", Says::All),
            ("anyOf", Says::Any),
            ("oneOf", Says::One),
        ];
        for (name, says) in rules {
            if let Some(list) = words.list(name)? {
                let all = self.each(list, &words.at(name))?;
                pieces.push(self.schema.add(says(all), &words.at(name)));
            }
        }
        if let Some(id) = self.inner(words, "not")? {
            pieces.push(self.schema.add(Says::Not(id), &words.at("not")));
        }
        Ok(())
    }

    /// `if`, with `then` and `else`.
    fn condition(&mut self, words: &Keywords<'a>, pieces: &mut Pieces) -> Result<(), Fault> {
        if words.get("then").is_none() && words.get("else").is_none() {
            return Ok(());
        }
        let Some(condition) = self.inner(words, "if")? else {
            return Ok(());
        };
        let at = words.at("if");
        let mut then = vec![condition];
        then.extend(self.inner(words, "then")?);
        let then = self.schema.add(Says::All(then), &at);
        let mut otherwise = vec![self.schema.add(Says::Not(condition), &at)];
        otherwise.extend(self.inner(words, "else")?);
        let otherwise = self.schema.add(Says::All(otherwise), &at);
        pieces.push(self.schema.add(Says::Any(vec![then, otherwise]), &at));
        Ok(())
    }
}
