//! The worker's readers of files, by their paths, with a supervisor that keeps nothing.

#[path = "../../../../src/worker/document"]
pub mod document {
    pub mod area;
    pub mod blocks;
    pub mod encoding;
    pub mod fonts;
    pub mod glyphs;
    pub mod html;
    pub mod mail;
    pub mod notebook;
    pub mod notes;
    pub mod office;
    pub mod pdf;
    pub mod rich;
    pub mod sight;
    pub mod table;
    pub mod text;

    use std::marker::PhantomData;

    use crate::careful::careful;
    use crate::ipc::{DocumentKind, EXTRACT_PAGES, EXTRACT_PICTURES, EXTRACT_TEXT, Look, Sight};

    /// Takes pages as the reader's does, and keeps none.
    pub struct Pages<'a> {
        pub encoding: Option<&'static str>,
        pub cut: bool,
        pub before: String,
        pub look: Look,
        pub shown: u32,
        pub budget: u32,
        pub pictures_left: usize,
        pub read: u32,
        bytes: usize,
        supervisor: PhantomData<&'a ()>,
    }

    const LOOK: Look = Look { pages: 2, tokens: 280, room: None };

    impl Pages<'_> {
        pub fn push(&mut self, text: String, sight: Sight) -> bool {
            self.pictures_left -= sight.picture().map_or(0, <[u8]>::len);
            self.shown += u32::from(sight.picture().is_some());
            assert!(self.shown <= LOOK.pages);
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
        let mut pages = Pages {
            encoding: None,
            cut: false,
            before: String::new(),
            look: LOOK,
            shown: 0,
            budget: LOOK.tokens,
            pictures_left: EXTRACT_PICTURES,
            read: 0,
            bytes: 0,
            supervisor: PhantomData,
        };
        match careful(|| of_kind(kind, bytes.to_vec(), &mut pages)) {
            Ok(count) => assert!(pages.read <= count),
            Err(reason) => assert!(reason.len() < 500),
        }
    }
}
