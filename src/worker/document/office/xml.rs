//! XML, read element by element. Entities other than XML's own five are nothing: none is expanded and
//! none is fetched. Names are taken without their prefixes.

use std::io::BufReader;

use quick_xml::events::{BytesStart, Event};
use quick_xml::{Error, Reader, XmlVersion};

use super::archive::{Part, said};

/// Elements within each other. Readers go down by calls.
const MAX_DEPTH: usize = 200;

/// A document that is read from its begin to its end.
pub struct Xml<'a> {
    reader: Reader<BufReader<Part<'a>>>,
    buffer: Vec<u8>,
    depth: usize,
}

/// What stands in an element.
pub enum Node {
    /// Its content comes next, and is to be read to its end: by [`Xml::next`], [`Xml::text`] or
    /// [`Xml::skip`].
    Element(Tag),
    Text(String),
}

/// The begin of an element.
pub struct Tag(BytesStart<'static>);

impl Tag {
    /// Without a prefix.
    pub fn name(&self) -> &str {
        local(self.0.name().into_inner())
    }

    /// An attribute, by its name without a prefix.
    pub fn attribute(&self, name: &str) -> Option<String> {
        self.find(|key| local(key) == name)
    }

    /// An attribute that names a relationship: in that vocabulary `id` stands beside other ids.
    pub fn relation(&self) -> Option<String> {
        self.find(|key| {
            let (prefix, name) = key.split_once(':').unwrap_or(("", key));
            !prefix.is_empty() && matches!(name, "id" | "embed" | "link" | "pict")
        })
    }

    /// Whether an attribute is there and true.
    pub fn is_on(&self, name: &str) -> bool {
        self.attribute(name)
            .is_some_and(|value| matches!(&*value, "1" | "true" | "on"))
    }

    fn find(&self, wanted: impl Fn(&str) -> bool) -> Option<String> {
        let mut attributes = self.0.attributes();
        let mut known = attributes.with_checks(false).flatten();
        let found = known.find(|attribute| wanted(attribute.key.into_inner()))?;
        let value = found.normalized_value(XmlVersion::Implicit1_0);
        Some(value.map_or_else(|_| found.value.into_owned(), |value| value.into_owned()))
    }
}

impl<'a> Xml<'a> {
    pub fn new(part: BufReader<Part<'a>>) -> Self {
        let mut reader = Reader::from_reader(part);
        let config = reader.config_mut();
        config.expand_empty_elements = true;
        config.allow_dangling_amp = true;
        Self {
            reader,
            buffer: vec![],
            depth: 0,
        }
    }

    /// What comes next in the element that was begun last; `None` at its end, and at the end of all.
    pub fn next(&mut self) -> Result<Option<Node>, String> {
        loop {
            self.buffer.clear();
            let text = match self.reader.read_event_into(&mut self.buffer) {
                Ok(Event::Start(tag)) => {
                    self.depth += 1;
                    if self.depth > MAX_DEPTH {
                        return Err(format!("has elements more than {MAX_DEPTH} deep"));
                    }
                    return Ok(Some(Node::Element(Tag(tag.into_owned()))));
                }
                Ok(Event::End(_)) => {
                    self.depth -= 1;
                    return Ok(None);
                }
                Ok(Event::Eof) if self.depth == 0 => return Ok(None),
                Ok(Event::Text(text)) => text.xml10_content().into_owned(),
                Ok(Event::CData(text)) => text.xml10_content().into_owned(),
                Ok(Event::GeneralRef(reference)) => match &*reference.xml10_content() {
                    "lt" => "<".into(),
                    "gt" => ">".into(),
                    "amp" => "&".into(),
                    "quot" => "\"".into(),
                    "apos" => "'".into(),
                    _ => match reference.resolve_char_ref() {
                        Ok(Some(character)) => character.to_string(),
                        _ => continue,
                    },
                },
                Ok(Event::Comment(_) | Event::Decl(_) | Event::PI(_) | Event::DocType(_)) => {
                    continue;
                }
                Err(Error::Io(error)) => return Err(said(&error)),
                _ => return Err("is damaged: a part of it is no XML".into()),
            };
            return Ok(Some(Node::Text(text)));
        }
    }

    /// The next element in the element that was begun last; text is passed over.
    pub fn element(&mut self) -> Result<Option<Tag>, String> {
        loop {
            match self.next()? {
                Some(Node::Element(tag)) => return Ok(Some(tag)),
                Some(Node::Text(_)) => {}
                None => return Ok(None),
            }
        }
    }

    /// Goes into the first element of this name, wherever it is; whether there is one.
    pub fn find(&mut self, name: &str) -> Result<bool, String> {
        loop {
            match self.next()? {
                Some(Node::Element(tag)) if tag.name() == name => return Ok(true),
                None if self.depth == 0 => return Ok(false),
                _ => {}
            }
        }
    }

    /// Passes over the rest of the element that was begun last.
    pub fn skip(&mut self) -> Result<(), String> {
        let end = self.depth.saturating_sub(1);
        while self.depth > end {
            self.next()?;
        }
        Ok(())
    }

    /// All text in the rest of the element that was begun last.
    pub fn text(&mut self) -> Result<String, String> {
        let (end, mut all) = (self.depth.saturating_sub(1), String::new());
        while self.depth > end {
            if let Some(Node::Text(text)) = self.next()? {
                all += &text;
            }
        }
        Ok(all)
    }
}

fn local(name: &str) -> &str {
    name.rsplit_once(':').map_or(name, |(_, name)| name)
}
