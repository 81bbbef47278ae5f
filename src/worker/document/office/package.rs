//! What the formats of Microsoft's office have in common: parts that are found by relationships.

use std::collections::HashMap;

use super::archive::Archive;

/// Relationships of a part.
const MAX_RELATIONS: usize = 65_536;

/// What a part refers to, by the ids that it uses.
#[derive(Default)]
pub struct Relations(HashMap<String, Relation>);

pub struct Relation {
    /// The last word of its type's address.
    pub kind: String,
    /// The name of a part, or an address outside.
    pub target: String,
    pub is_outside: bool,
}

impl Relations {
    /// Those of a part; of the package if it has no name.
    pub fn of(archive: &Archive, part: &str) -> Result<Self, String> {
        let (folder, name) = part.rsplit_once('/').unwrap_or(("", part));
        let Some(mut xml) = archive.xml(&format!("{folder}/_rels/{name}.rels"))? else {
            return Ok(Self::default());
        };
        let mut all = HashMap::new();
        if !xml.find("Relationships")? {
            return Ok(Self::default());
        }
        while let Some(tag) = xml.element()? {
            let kind = tag.attribute("Type").unwrap_or_default();
            let target = tag.attribute("Target").unwrap_or_default();
            let is_outside = tag
                .attribute("TargetMode")
                .is_some_and(|mode| mode == "External");
            let relation = Relation {
                kind: kind.rsplit('/').next().unwrap_or_default().into(),
                target: if is_outside {
                    target
                } else {
                    within(folder, &target)
                },
                is_outside,
            };
            if let Some(id) = tag.attribute("Id").filter(|_| all.len() < MAX_RELATIONS) {
                all.insert(id, relation);
            }
            xml.skip()?;
        }
        Ok(Self(all))
    }

    /// The part that an id names.
    pub fn part(&self, id: &str) -> Option<&str> {
        let relation = self.0.get(id).filter(|relation| !relation.is_outside)?;
        Some(&relation.target)
    }

    /// The address that an id names.
    pub fn address(&self, id: &str) -> Option<&str> {
        let relation = self.0.get(id).filter(|relation| relation.is_outside)?;
        Some(&relation.target)
    }

    /// The parts of a kind, by their names.
    pub fn parts(&self, kind: &str) -> Vec<&str> {
        let of_kind = |relation: &&Relation| relation.kind == kind && !relation.is_outside;
        let mut parts: Vec<_> = self
            .0
            .values()
            .filter(of_kind)
            .map(|found| &*found.target)
            .collect();
        parts.sort_unstable();
        parts
    }
}

/// A target's name, from the folder of the part that names it.
pub fn within(folder: &str, target: &str) -> String {
    let mut names: Vec<_> = match target.starts_with('/') {
        true => vec![],
        false => folder.split('/').filter(|name| !name.is_empty()).collect(),
    };
    for name in target.split('/') {
        match name {
            "" | "." => {}
            ".." => drop(names.pop()),
            name => names.push(name),
        }
    }
    names.join("/")
}
