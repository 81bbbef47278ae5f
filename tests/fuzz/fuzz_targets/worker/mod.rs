//! The worker's readers of files, by their paths, with a supervisor that keeps nothing.

#[path = "../../../../src/worker/document"]
pub mod document {
    pub mod blocks;
    pub mod encoding;
    pub mod html;
    pub mod mail;
    pub mod notebook;
    pub mod office;
    pub mod pdf;
    pub mod rich;
    pub mod table;
    pub mod text;

    use std::marker::PhantomData;

    use crate::careful::careful;
    use crate::ipc::{DocumentKind, EXTRACT_PAGES, EXTRACT_TEXT};

    /// Takes pages as the reader's does, and keeps none.
    #[derive(Default)]
    pub struct Pages<'a> {
        pub encoding: Option<&'static str>,
        pub cut: bool,
        pub before: String,
        read: u32,
        bytes: usize,
        supervisor: PhantomData<&'a ()>,
    }

    impl Pages<'_> {
        pub fn push(&mut self, text: String, says_little: bool, picture: Option<Vec<u8>>) -> bool {
            assert!(picture.is_none() || says_little);
            self.bytes += self.before.len() + text.len();
            self.before.clear();
            self.read += 1;
            self.cut |= self.bytes > EXTRACT_TEXT;
            !self.cut
        }

        pub fn is_full(&self) -> bool {
            self.cut || self.read as usize >= EXTRACT_PAGES
        }
    }

    pub fn of_kind(kind: DocumentKind, bytes: Vec<u8>, pages: &mut Pages<'_>) -> Result<u32, String> {
        match kind {
            DocumentKind::Html => html::read(&bytes, pages),
            DocumentKind::Pdf => pdf::read(bytes, pages),
            DocumentKind::Office => office::read(&bytes, pages),
            DocumentKind::Rich => rich::read(&bytes, pages),
            DocumentKind::Mail => mail::read(&bytes, pages),
            DocumentKind::Notebook => notebook::read(&bytes, pages),
            DocumentKind::Table => table::read(&bytes, pages),
            DocumentKind::Text => encoding::text(&bytes).map(|_| 1).ok_or_else(|| "is none".into()),
        }
    }

    /// Reads a file; it is read within the bounds, or refused by a reason.
    pub fn check(kind: DocumentKind, bytes: &[u8]) {
        let mut pages = Pages::default();
        match careful(|| of_kind(kind, bytes.to_vec(), &mut pages)) {
            Ok(count) => assert!(pages.read <= count),
            Err(reason) => assert!(reason.len() < 500),
        }
    }
}
