//! Which of the files beside a model are the model's: projectors and drafters.

use std::cmp::Reverse;
use std::path::Path;

use super::{Model, split};

/// Words of names that say what a file is, not whose.
const ROLES: [&str; 5] = ["mmproj", "mtp", "assistant", "draft", "drafter"];

/// A file that belongs to a model and lies beside it.
pub trait Companion {
    fn path(&self) -> &Path;
    /// The model's name as the file's header has it.
    fn name(&self) -> &str;
    /// Whether the numbers in both headers agree.
    fn fits(&self, model: &Model) -> bool;
}

/// The companion of a model among those in its folder: its numbers are the model's, and its name
/// speaks of no other size. Of several the one whose file is named most like the model's, then the
/// first.
pub fn pair<'a, C: Companion>(model: &Model, companions: &'a [C]) -> Option<&'a C> {
    let own = sizes(model.path(), &model.name);
    let is_its = |companion: &&C| {
        let theirs = sizes(companion.path(), companion.name());
        let named_so = theirs.is_empty() || own.is_empty() || theirs == own;
        companion.path().parent() == model.path().parent() && named_so && companion.fits(model)
    };
    let alike = |companion: &C| {
        words(companion.path())
            .iter()
            .zip(words(model.path()))
            .take_while(|(a, b)| *a == b)
            .count()
    };
    companions
        .iter()
        .filter(is_its)
        .max_by_key(|companion| (alike(companion), Reverse(companion.path())))
}

/// The sizes in a file's name, like `e2b` and `26b`, `a4b`; those in its header's name if there are
/// none.
fn sizes(path: &Path, name: &str) -> Vec<String> {
    let is_size = |word: &String| {
        let digits = word
            .trim_start_matches(['a', 'e'])
            .strip_suffix('b')
            .unwrap_or_default();
        !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit())
    };
    let found: Vec<String> = words(path).into_iter().filter(is_size).collect();
    if found.is_empty() {
        split_words(name).into_iter().filter(is_size).collect()
    } else {
        found
    }
}

/// The words of a file's name that tell models apart.
fn words(path: &Path) -> Vec<String> {
    split_words(&split::whole_stem(path))
        .into_iter()
        .filter(|word| !ROLES.contains(&word.as_str()))
        .collect()
}

fn split_words(text: &str) -> Vec<String> {
    text.to_ascii_lowercase()
        .split(|c: char| !c.is_ascii_alphanumeric())
        .filter(|word| !word.is_empty())
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    /// Fits any model but those that are called so.
    struct File(PathBuf, &'static str);

    impl Companion for File {
        fn path(&self) -> &Path {
            &self.0
        }

        fn name(&self) -> &str {
            ""
        }

        fn fits(&self, model: &Model) -> bool {
            model.name != self.1
        }
    }

    fn paired(model: &str, name: &str, files: &[&str]) -> Option<String> {
        let files: Vec<_> = files
            .iter()
            .map(|path| File(path.into(), "misfit"))
            .collect();
        let model = Model {
            name: name.into(),
            ..Model::example(model)
        };
        pair(&model, &files).map(|found| found.0.display().to_string())
    }

    #[test]
    fn models_find_their_companion() {
        let family = ["/m/tiny-12b-mmproj-f16.gguf", "/m/tiny-e2b-mmproj-f16.gguf"];
        assert_eq!(
            paired("/m/tiny-e2b-q8_0.gguf", "", &family).as_deref(),
            Some(family[1])
        );
        assert_eq!(
            paired("/m/tiny-12b-q8_0.gguf", "", &family).as_deref(),
            Some(family[0])
        );
        assert_eq!(paired("/m/tiny-e4b-q8_0.gguf", "", &family), None);
        assert_eq!(paired("/m/tiny-26b-a4b-q8_0.gguf", "", &family), None);
        assert_eq!(
            paired("/m/model.gguf", "Gemma 4 E2B It", &family).as_deref(),
            Some(family[1])
        );
        // The names that people upload them by.
        assert_eq!(
            paired("/m/gemma-4-E2B-it-Q4_K_M.gguf", "", &["/m/mmproj-F16.gguf"]).as_deref(),
            Some("/m/mmproj-F16.gguf")
        );
        let two = [
            "/m/mmproj-gemma-4-26B-A4B-it-bf16.gguf",
            "/m/mmproj-gemma-4-26B-A4B-it-f16.gguf",
        ];
        assert_eq!(
            paired("/m/gemma-4-26B-A4B-it-Q4_0.gguf", "", &two).as_deref(),
            Some(two[0])
        );
        assert_eq!(paired("/m/gemma-4-31B-it-Q4_0.gguf", "", &two), None);
        assert_eq!(
            paired("/m/b-x.gguf", "", &["/m/a-mmproj.gguf", "/m/b-mmproj.gguf"]).as_deref(),
            Some("/m/b-mmproj.gguf")
        );
        let drafters = [
            "/m/mtp-gemma-4-E2B-it.gguf",
            "/m/gemma-4-E4B-it-assistant.Q8_0.gguf",
        ];
        assert_eq!(
            paired("/m/gemma-4-E2B-it-Q4_0.gguf", "", &drafters).as_deref(),
            Some(drafters[0])
        );
        assert_eq!(
            paired("/m/gemma-4-E4B-it-Q4_0.gguf", "", &drafters).as_deref(),
            Some(drafters[1])
        );
    }

    #[test]
    fn another_folder_or_other_numbers_are_none_of_the_models() {
        assert_eq!(
            paired("/m/tiny-e2b.gguf", "", &["/n/tiny-e2b-mmproj.gguf"]),
            None
        );
        assert_eq!(
            paired("/m/tiny-e2b.gguf", "misfit", &["/m/tiny-e2b-mmproj.gguf"]),
            None
        );
    }
}
