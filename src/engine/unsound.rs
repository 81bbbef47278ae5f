//! Models whose output was not a number. `auto`, and every other name that leaves a choice, means
//! another while there is one; who names such a model is answered by it as far as it goes. Pure.

use std::collections::BTreeMap;

use crate::store::{FileIdentity, Model};

/// Them, by their ids, each with its files: what is put in their place is innocent.
#[derive(Clone, Debug, Default)]
pub struct UnsoundModels(BTreeMap<String, Vec<FileIdentity>>);

impl UnsoundModels {
    pub(super) fn add(&mut self, model: &Model) {
        self.0.insert(model.id.clone(), model.identity());
    }

    pub(super) fn has(&self, model: &Model) -> bool {
        self.0.get(&model.id) == Some(&model.identity())
    }

    /// Leaves those of `models` that are sound, if there are any.
    pub(super) fn leave_out(&self, models: &mut Vec<&Model>) {
        if models.iter().any(|model| !self.has(model)) {
            models.retain(|model| !self.has(model));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sound_ones_are_left_if_there_are_any_and_a_new_file_is_innocent() {
        let (a, b) = (Model::example("/m/a.gguf"), Model::example("/m/b.gguf"));
        let mut unsound = UnsoundModels::default();
        let left = |unsound: &UnsoundModels, mut models: Vec<&Model>| {
            unsound.leave_out(&mut models);
            let ids = models.into_iter().map(|model| model.id.clone());
            ids.collect::<Vec<_>>()
        };
        assert_eq!(left(&unsound, vec![&a, &b]), ["a", "b"]);
        unsound.add(&a);
        assert_eq!(left(&unsound, vec![&a, &b]), ["b"]);
        assert_eq!(left(&unsound, vec![&a]), ["a"]);
        let mut new = a.clone();
        new.files[0].identity.inode += 1;
        assert_eq!(left(&unsound, vec![&new, &b]), ["a", "b"]);
    }
}
