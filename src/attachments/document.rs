//! What becomes of a file in a conversation. Pure.

use crate::chat::{Detail, Part, Picture};
use crate::ipc::{Extent, Page};

/// What was read of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadFile {
    /// As the client calls it.
    pub name: String,
    pub extent: Extent,
}

impl ReadFile {
    /// Whether the model gets all of it.
    pub fn is_complete(&self) -> bool {
        !self.extent.cut && self.extent.read == self.extent.pages && self.extent.unseen == 0
    }
}

/// A file's text between marks that say where it begins and ends.
pub fn quoted(name: &str, text: &str) -> Part {
    Part::Text(format!("{}{}\n</file>\n", begin(name), text.trim_end()))
}

fn begin(name: &str) -> String {
    let name: String = name
        .chars()
        .filter(|c| !c.is_control() && !matches!(c, '"' | '<' | '>'))
        .take(200)
        .collect();
    if name.is_empty() {
        "<file>\n".into()
    } else {
        format!("<file name=\"{name}\">\n")
    }
}

/// A file's pages, each picture at its page, and a word on what is missing.
pub fn assembled(name: &str, pages: Vec<Page>, extent: &Extent) -> Vec<Part> {
    let (mut parts, mut text) = (vec![], begin(name));
    let many = extent.pages > 1;
    for (i, page) in pages.into_iter().enumerate() {
        if many {
            text += &format!("[page {}]\n", i + 1);
        }
        text += page.text.trim();
        text.push('\n');
        if let Some(file) = page.picture {
            parts.push(Part::Text(std::mem::take(&mut text)));
            parts.push(Part::Picture(Picture {
                file: file.into(),
                detail: Detail::Auto,
            }));
        }
    }
    if extent.cut || extent.read < extent.pages {
        text += &format!(
            "[the rest is left out: {} of {} pages are here]\n",
            extent.read, extent.pages
        );
    }
    text += "</file>\n";
    parts.push(Part::Text(text));
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_becomes_text_with_its_pictures_in_place() {
        assert_eq!(
            quoted("a\"<.txt", "hi\n"),
            Part::Text("<file name=\"a.txt\">\nhi\n</file>\n".into())
        );
        let page = |text: &str, picture: Option<&[u8]>| Page {
            text: text.into(),
            picture: picture.map(Vec::from),
        };
        let extent = Extent {
            pages: 3,
            read: 2,
            unseen: 0,
            ..Extent::default()
        };
        let parts = assembled("", vec![page("one", None), page("", Some(b"png"))], &extent);
        assert_eq!(
            parts[0],
            Part::Text("<file>\n[page 1]\none\n[page 2]\n\n".into())
        );
        assert!(matches!(&parts[1], Part::Picture(picture) if picture.file[..] == b"png"[..]));
        assert_eq!(
            parts[2],
            Part::Text("[the rest is left out: 2 of 3 pages are here]\n</file>\n".into())
        );
        let whole = Extent {
            pages: 1,
            read: 1,
            ..Extent::default()
        };
        assert_eq!(
            assembled("a", vec![page("one", None)], &whole),
            [Part::Text("<file name=\"a\">\none\n</file>\n".into())]
        );
        assert!(
            ReadFile {
                name: String::new(),
                extent: whole
            }
            .is_complete()
                && !ReadFile {
                    name: String::new(),
                    extent
                }
                .is_complete()
        );
    }
}
