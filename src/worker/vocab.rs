//! The model's vocabulary, read from its file beside llama.cpp, which loads none.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use crate::gemma::vocabulary::{Lists, Place, Vocabulary};

/// It lives as long as the process, like the model.
pub type Vocab = &'static Vocabulary;

/// Reads the vocabulary that `file` has at `place`. Blocks on the disk.
pub fn read(file: &File, place: &Place) -> Result<Vocab, String> {
    let read = |range: &Range<u64>| {
        let failed =
            |error: std::io::Error| format!("the file's vocabulary cannot be read: {error}");
        // What the supervisor has found is still there, or reading ends too soon.
        let length = range
            .end
            .saturating_sub(range.start)
            .min(file.metadata().map_err(failed)?.len());
        let mut bytes = vec![0; length as usize];
        file.read_exact_at(&mut bytes, range.start)
            .map(|()| bytes)
            .map_err(failed)
    };
    let (texts, merges) = (read(&place.texts)?, read(&place.merges)?);
    let kinds = place.kinds.as_ref().map(read).transpose()?;
    let lists = Lists {
        texts: &texts,
        kinds: kinds.as_deref(),
        merges: &merges,
    };
    let vocabulary = Vocabulary::new(place, lists)
        .map_err(|reason| format!("the file's vocabulary {reason}"))?;
    Ok(Box::leak(Box::new(vocabulary)))
}

#[cfg(test)]
pub mod tests;
