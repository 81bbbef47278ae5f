//! What a client said does not stay behind in memory that was given back.

use std::sync::Arc;

use zeroize::Zeroize;

use super::{Part, Picture};

impl Drop for Part {
    fn drop(&mut self) {
        if let Self::Text(text) = self {
            text.zeroize();
        }
    }
}

impl Drop for Picture {
    fn drop(&mut self) {
        // Others who share it have it still.
        if let Some(file) = Arc::get_mut(&mut self.file) {
            file.zeroize();
        }
    }
}
