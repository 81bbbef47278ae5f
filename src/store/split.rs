//! Files that were cut into parts, which llama.cpp calls splits. They are not served: a worker gets
//! one file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::gguf::Header;
use super::{BadFile, Part, Rejected};

/// Numbers of missing parts that a reason lists.
const LISTED: usize = 8;

/// What the header of a part says of it; `None` of a whole file.
pub(super) fn part(header: &Header) -> Result<Option<Part>, BadFile> {
    let Some(of) = header.u32("split.count")?.filter(|count| *count > 1) else {
        return Ok(None);
    };
    let number = header.need_u32("split.no")?.saturating_add(1);
    if number > of {
        return Err(BadFile::Incomplete {
            kind: format!("part {number} of {of}, which cannot be"),
        });
    }
    Ok(Some(Part {
        number,
        of,
        tensors: header.u32("split.tensors.count")?.unwrap_or(0),
    }))
}

/// The parts of one file that are there.
struct Set {
    /// How many parts there should be and their tensors, and the file's name where the parts are
    /// named after it.
    key: (u32, u32, Option<String>),
    parts: BTreeMap<u32, PathBuf>,
}

/// One reason for each set of parts in a folder, however many of them are there. What belongs
/// together the headers say; names only tell two sets apart that are alike in their headers.
pub(super) fn reject(found: impl IntoIterator<Item = (PathBuf, Part)>) -> Vec<Rejected> {
    let mut sets: Vec<Set> = vec![];
    for (path, part) in found {
        let key = (part.of, part.tensors, whole_name(&path, part));
        match sets
            .iter_mut()
            .find(|set| set.key == key && !set.parts.contains_key(&part.number))
        {
            Some(set) => drop(set.parts.insert(part.number, path)),
            None => sets.push(Set {
                key,
                parts: [(part.number, path)].into(),
            }),
        }
    }
    sets.iter().filter_map(Set::rejected).collect()
}

impl Set {
    fn rejected(&self) -> Option<Rejected> {
        let ((of, _, whole), (_, path)) = (&self.key, self.parts.first_key_value()?);
        let missing = u64::from(*of).saturating_sub(self.parts.len() as u64);
        let state = match missing {
            0 => "all of them are here".to_owned(),
            _ => {
                let listed: Vec<_> = (1..=*of)
                    .filter(|number| !self.parts.contains_key(number))
                    .take(LISTED)
                    .collect();
                let more = missing.saturating_sub(listed.len() as u64);
                let listed = listed
                    .iter()
                    .map(u32::to_string)
                    .collect::<Vec<_>>()
                    .join(", ");
                let more = if more > 0 {
                    format!(" and {more} more")
                } else {
                    String::new()
                };
                format!("missing: {listed}{more}; put them beside it")
            }
        };
        let names = match whole {
            Some(_) => String::new(),
            None => format!(", name them `NAME-00001-of-{of:05}.gguf` and so on"),
        };
        let whole = whole.as_deref().unwrap_or("NAME");
        let reason = format!(
            "one of {of} parts of a file, which is served only as a whole; {state}{names}, join them with \
             `llama-gguf-split --merge {whole}-00001-of-{of:05}.gguf {whole}.gguf` and take the parts away"
        );
        Some(Rejected {
            path: path.clone(),
            reason,
            hides: false,
        })
    }
}

/// The name of the whole file, without its ending, where a part is named as llama.cpp names them.
fn whole_name(path: &Path, part: Part) -> Option<String> {
    let stem = path.file_stem()?.to_str()?;
    Some(
        stem.strip_suffix(&format!("-{:05}-of-{:05}", part.number, part.of))?
            .to_owned(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(name: &str, number: u32, of: u32, tensors: u32) -> (PathBuf, Part) {
        (
            Path::new("/m").join(name),
            Part {
                number,
                of,
                tensors,
            },
        )
    }

    fn told(found: &[(PathBuf, Part)]) -> Vec<(String, String)> {
        reject(found.to_vec())
            .into_iter()
            .map(|set| (set.path.display().to_string(), set.reason))
            .collect()
    }

    #[test]
    fn a_set_is_told_once() {
        let all =
            [1, 2, 3].map(|number| part(&format!("big-{number:05}-of-00003.gguf"), number, 3, 9));
        let told_of_all = told(&all);
        assert_eq!(told_of_all.len(), 1);
        assert_eq!(told_of_all[0].0, "/m/big-00001-of-00003.gguf");
        let expected = "one of 3 parts of a file, which is served only as a whole; all of them are here, join them with \
                        `llama-gguf-split --merge big-00001-of-00003.gguf big.gguf` and take the parts away";
        assert_eq!(told_of_all[0].1, expected);
        let told_of_one = told(&all[1..2]);
        assert!(told_of_one[0].0.ends_with("big-00002-of-00003.gguf"));
        assert!(
            told_of_one[0]
                .1
                .contains("missing: 1, 3; put them beside it, join"),
            "{told_of_one:?}"
        );
    }

    #[test]
    fn a_header_may_claim_any_number_of_parts() {
        let told = told(&[part("x.gguf", 2, u32::MAX, 9)]);
        assert!(
            told[0]
                .1
                .contains("missing: 1, 3, 4, 5, 6, 7, 8, 9 and 4294967286 more;"),
            "{told:?}"
        );
    }

    #[test]
    fn other_names_are_told_as_part_of_the_remedy() {
        let told = told(&[part("one.gguf", 1, 2, 9), part("two.gguf", 2, 2, 9)]);
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0].1.contains("here, name them `NAME-00001-of-00002.gguf` and so on, join them with `llama-gguf-split"), "{told:?}");
    }

    #[test]
    fn sets_are_told_apart() {
        let name = |set: &str, number: u32| format!("{set}-{number:05}-of-00002.gguf");
        let two = ["a", "b"].map(|set| [1, 2].map(|number| part(&name(set, number), number, 2, 9)));
        assert_eq!(told(&two.concat()).len(), 2);
        // Of one of them only the second part is there.
        let told_of_three = told(&[two[0][1].clone(), two[1][0].clone(), two[1][1].clone()]);
        assert!(
            told_of_three[0].1.contains("missing: 1;")
                && told_of_three[1].1.contains("all of them are here"),
            "{told_of_three:?}"
        );
        // Other tensors, another file, whatever the names.
        assert_eq!(
            told(&[part("x.gguf", 1, 2, 9), part("y.gguf", 2, 2, 8)]).len(),
            2
        );
        assert_eq!(
            told(&[part("x.gguf", 1, 2, 9), part("copy of x.gguf", 1, 2, 9)]).len(),
            2
        );
    }
}
