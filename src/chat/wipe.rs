//! What a client said does not stay behind in memory that was given back.

use std::sync::Arc;

use zeroize::Zeroize;

use super::{Part, Picture, Remote, Sound, Source};

impl Drop for Part {
    fn drop(&mut self) {
        if let Self::Text(text) = self {
            text.zeroize();
        }
    }
}

impl Drop for Picture {
    fn drop(&mut self) {
        wipe(&mut self.file);
    }
}

impl Drop for Sound {
    fn drop(&mut self) {
        wipe(&mut self.file);
    }
}

impl Drop for Remote {
    fn drop(&mut self) {
        self.url.zeroize();
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        if let Self::File(file) = self {
            wipe(file);
        }
    }
}

fn wipe(file: &mut Arc<[u8]>) {
    // Others who share it have it still.
    if let Some(file) = Arc::get_mut(file) {
        file.zeroize();
    }
}
