//! Models that were cut into parts, which llama.cpp calls splits: what belongs together, and whether all of it is there.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::catalog::part_of;
use super::gguf::Header;
use super::{BadFile, Part, Rejected};
use crate::gemma::layout::MOST_FILES;

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

/// Whether a file is the one of this number among so many: the only one is whole.
pub(super) fn check_number(part: Option<Part>, number: u32, files: usize) -> Result<(), BadFile> {
    let found = part.map_or((1, 1), |part| (part.number, part.of as usize));
    if found == (number, files) {
        return Ok(());
    }
    Err(BadFile::Incomplete {
        kind: format!(
            "part {} of {} in the place of part {number} of {files}",
            found.0, found.1
        ),
    })
}

/// Whether all parts together have the tensors that one speaks of.
pub(super) fn check_tensors(part: Part, found: usize) -> Result<(), BadFile> {
    if part.tensors as usize == found {
        return Ok(());
    }
    Err(BadFile::Incomplete {
        kind: format!(
            "{} parts that have {found} tensors and should have {}: one is of another model",
            part.of, part.tensors
        ),
    })
}

/// The parts of one model that are there.
struct Set {
    /// The model's name, without what numbers a part, and how many parts there should be.
    whole: String,
    of: u32,
    /// By their numbers, each with the tensors that it says all have.
    parts: BTreeMap<u32, (PathBuf, u32)>,
}

/// The files of each model of which there are parts in a folder, in their order, or one reason for each that is not whole.
/// What a part is its header says; its name, as llama.cpp's tools give it, says of which model: two can be alike in
/// their headers, and a model made of both would talk nonsense.
pub(super) fn sets(
    found: impl IntoIterator<Item = (PathBuf, Part)>,
) -> Vec<Result<Vec<PathBuf>, Rejected>> {
    let mut sets: Vec<Set> = vec![];
    let mut misnamed = vec![];
    for (path, part) in found {
        let named =
            numbered(&path).filter(|(_, number, of)| (*number, *of) == (part.number, part.of));
        let Some((whole, ..)) = named else {
            misnamed.push(Err(Rejected::file(
                &path,
                BadFile::Misnamed(part).to_string(),
            )));
            continue;
        };
        let part_of_it = |set: &&mut Set| {
            (&set.whole, set.of) == (&whole, part.of) && !set.parts.contains_key(&part.number)
        };
        let entry = (path, part.tensors);
        match sets.iter_mut().find(part_of_it) {
            Some(set) => drop(set.parts.insert(part.number, entry)),
            None => sets.push(Set {
                whole,
                of: part.of,
                parts: [(part.number, entry)].into(),
            }),
        }
    }
    let sets = sets.into_iter().map(Set::whole);
    sets.chain(misnamed).collect()
}

impl Set {
    fn whole(self) -> Result<Vec<PathBuf>, Rejected> {
        let Some((number, (path, tensors))) = self.parts.first_key_value() else {
            return Ok(vec![]);
        };
        let of = self.of;
        let reason = if of as usize > MOST_FILES {
            format!(
                "one of {of} parts of a model, which may have {MOST_FILES} at most; join them with \
                 `llama-gguf-split --merge {whole}-00001-of-{of:05}.gguf {whole}.gguf` and take the parts away",
                whole = self.whole
            )
        } else if self.parts.len() < of as usize {
            format!(
                "one of {of} parts of a model; missing: {}; put them beside it",
                self.missing()
            )
        } else if let Some((other, (_, theirs))) =
            self.parts.iter().find(|(_, (_, theirs))| theirs != tensors)
        {
            format!(
                "one of {of} parts of a model; part {number} speaks of {tensors} tensors and part {other} of {theirs}, so one of \
                 them is another model's: put the right one in its place"
            )
        } else {
            return Ok(self.parts.into_values().map(|(path, _)| path).collect());
        };
        Err(Rejected::file(path, reason))
    }

    /// The numbers of those that are missing.
    fn missing(&self) -> String {
        let listed = (1..=self.of).filter(|number| !self.parts.contains_key(number));
        let listed: Vec<_> = listed
            .take(LISTED)
            .map(|number| number.to_string())
            .collect();
        let more = (self.of as usize).saturating_sub(self.parts.len() + listed.len());
        let listed = listed.join(", ");
        match more {
            0 => listed,
            _ => format!("{listed} and {more} more"),
        }
    }
}

/// The name of the whole model, the number of this part and of how many, where a file is named like a part.
fn numbered(path: &Path) -> Option<(String, u32, u32)> {
    let (whole, number, of) = part_of(path.file_name()?.to_str()?)?;
    ((1..=of).contains(&number) && !whole.is_empty()).then(|| (whole.to_owned(), number, of))
}

/// A file's name without its ending and without what numbers a part.
pub(super) fn whole_stem(path: &Path) -> String {
    match numbered(path) {
        Some((whole, ..)) => whole,
        None => path
            .file_stem()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(name: &str, number: u32, of: u32, tensors: u32) -> (PathBuf, Part) {
        let part = Part {
            number,
            of,
            tensors,
        };
        (Path::new("/m").join(name), part)
    }

    /// The names of each whole set's files, or the name and the reason of what is none.
    fn told(found: &[(PathBuf, Part)]) -> Vec<Result<Vec<String>, (String, String)>> {
        let name = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
        let of_set = |set: Result<Vec<PathBuf>, Rejected>| {
            set.map(|paths| paths.iter().map(name).collect())
                .map_err(|rejected| (name(&rejected.path), rejected.reason))
        };
        sets(found.to_vec()).into_iter().map(of_set).collect()
    }

    fn name(set: &str, number: u32, of: u32) -> String {
        format!("{set}-{number:05}-of-{of:05}.gguf")
    }

    #[test]
    fn a_model_is_all_its_parts() {
        let all = [3, 1, 2].map(|number| part(&name("big", number, 3), number, 3, 9));
        let in_order = [1, 2, 3].map(|number| name("big", number, 3));
        assert_eq!(told(&all), [Ok(in_order.to_vec())]);
        let reason = "one of 3 parts of a model; missing: 1, 3; put them beside it";
        assert_eq!(told(&all[2..]), [Err((name("big", 2, 3), reason.into()))]);
    }

    #[test]
    fn a_header_may_claim_any_number_of_parts() {
        let told_of = told(&[part(&name("x", 2, 99_999), 2, 99_999, 9)]);
        let (_, reason) = told_of[0].as_ref().unwrap_err();
        let remedy =
            "64 at most; join them with `llama-gguf-split --merge x-00001-of-99999.gguf x.gguf`";
        assert!(reason.contains(remedy), "{reason}");
        let told_of = told(&[part(&name("x", 2, 60), 2, 60, 9)]);
        let (_, reason) = told_of[0].as_ref().unwrap_err();
        let missing = "missing: 1, 3, 4, 5, 6, 7, 8, 9 and 51 more;";
        assert!(reason.contains(missing), "{reason}");
    }

    #[test]
    fn a_part_is_called_what_it_is() {
        let found = [
            part("one.gguf", 1, 2, 9),
            part(&name("x", 1, 2), 2, 2, 9),
            part(&name("x", 2, 2), 2, 2, 9),
        ];
        let told = told(&found);
        assert_eq!(told.len(), 3, "{told:?}");
        let (_, missing) = told[0].as_ref().unwrap_err();
        assert!(missing.contains("missing: 1;"), "{missing}");
        for (told, (name, remedy)) in told[1..].iter().zip([
            ("one.gguf", "call it `NAME-00001-of-00002.gguf`"),
            (
                "x-00001-of-00002.gguf",
                "call it `NAME-00002-of-00002.gguf`",
            ),
        ]) {
            let (file, reason) = told.as_ref().unwrap_err();
            assert!(file == name && reason.contains(remedy), "{file}: {reason}");
        }
    }

    #[test]
    fn sets_are_told_apart() {
        let two =
            ["a", "b"].map(|set| [1, 2].map(|number| part(&name(set, number, 2), number, 2, 9)));
        assert!(told(&two.concat()).iter().all(Result::is_ok));
        // Of one of them only the second part is there.
        let told_of_three = told(&[two[0][1].clone(), two[1][0].clone(), two[1][1].clone()]);
        assert!(told_of_three[0].is_err() && told_of_three[1].is_ok());
        let foreign = [
            part(&name("x", 1, 2), 1, 2, 9),
            part(&name("x", 2, 2), 2, 2, 8),
        ];
        let told_of_foreign = told(&foreign);
        let (_, reason) = told_of_foreign[0].as_ref().unwrap_err();
        let said = "part 1 speaks of 9 tensors and part 2 of 8";
        assert!(reason.contains(said), "{reason}");
    }

    #[test]
    fn names_without_a_part_s_number_stay_whole() {
        for (name, whole) in [
            ("big-00001-of-00003.gguf", "big"),
            ("a-of-b-00002-of-00002.gguf", "a-of-b"),
            ("big-1-of-3.gguf", "big-1-of-3"),
            ("big-00004-of-00003.gguf", "big-00004-of-00003"),
            ("-00001-of-00003.gguf", "-00001-of-00003"),
            ("big-0000x-of-00003.gguf", "big-0000x-of-00003"),
            ("big.gguf", "big"),
        ] {
            assert_eq!(whole_stem(name.as_ref()), whole, "{name}");
        }
    }
}
