//! What becomes of a file in a conversation. Pure.

use super::look::MAX_PAGES;
use crate::chat::{Detail, Part, Picture};
use crate::ipc::{Extent, Look, Page, Shows, Sight, Unseen};

/// What was read of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadFile {
    /// As the client calls it.
    pub name: String,
    pub extent: Extent,
    /// Those that were read.
    pub pages: Vec<ReadPage>,
}

/// What of a page the model gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadPage {
    /// Of its text.
    pub bytes: usize,
    pub seen: Seen,
}

/// What of a page the model sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// Its text says all.
    Told,
    /// Not what the text itself names.
    Named,
    /// The page.
    Shown(Shows),
    /// Not what else the page shows.
    Unseen(Shows, Unseen),
}

impl ReadFile {
    /// One of which nothing has been read.
    pub fn unread(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            extent: Extent::default(),
            pages: vec![],
        }
    }

    /// Pages that are shown.
    pub fn shown(&self) -> usize {
        let is_shown = |page: &&ReadPage| matches!(page.seen, Seen::Shown(_));
        self.pages.iter().filter(is_shown).count()
    }

    /// Pages that show what the model does not get.
    pub fn unseen(&self) -> usize {
        let is_unseen = |page: &&ReadPage| matches!(page.seen, Seen::Named | Seen::Unseen(..));
        self.pages.iter().filter(is_unseen).count()
    }

    /// Whether the model gets all of it.
    pub fn is_complete(&self) -> bool {
        let Extent {
            pages, read, cut, ..
        } = self.extent;
        !cut && pages > 0 && read == pages && self.unseen() == 0
    }
}

impl ReadPage {
    pub fn of(page: &Page) -> Self {
        let seen = match page.sight {
            Sight::Told => Seen::Told,
            Sight::Named => Seen::Named,
            Sight::Shown { why, .. } => Seen::Shown(why),
            Sight::Unseen { why, because } => Seen::Unseen(why, because),
        };
        Self {
            bytes: page.text.len(),
            seen,
        }
    }

    /// It is not shown, and its text says next to nothing.
    pub fn is_lost(&self) -> bool {
        matches!(self.seen, Seen::Unseen(Shows::LittleText, _))
    }
}

impl Seen {
    /// Why the page is to be seen; continues "the page …".
    pub fn why(self) -> Option<String> {
        let (Self::Shown(why) | Self::Unseen(why, _)) = self else {
            return None;
        };
        Some(match why {
            Shows::LittleText => "has hardly any text".into(),
            Shows::Pictures(share) => format!("has pictures and drawings on {share} % of it"),
            Shows::Unreadable(share) => {
                format!("has characters that cannot be read, {share} % of all")
            }
        })
    }

    /// Why it is not shown.
    pub fn because(self) -> Option<String> {
        let because = match self {
            Self::Unseen(_, because) => because,
            Self::Named => {
                return Some("pictures in such files are not; the text says where".into());
            }
            Self::Told | Self::Shown(_) => return None,
        };
        Some(match because {
            Unseen::TooMany => format!("at most {MAX_PAGES} pages of a file are shown"),
            Unseen::Bytes => "the pictures of other pages have too many bytes".into(),
            Unseen::Context => "the context has no room for more pictures".into(),
            Unseen::Blind => "the model takes no pictures".into(),
            Unseen::Small => "that is a small part of the page".into(),
            Unseen::Undrawn => "the page could not be drawn".into(),
        })
    }

    /// What the model is told of it.
    fn remark(self) -> Option<String> {
        let (why, because) = (self.why()?, self.because()?);
        Some(format!("[not shown: this page {why}; {because}]\n"))
    }
}

/// Tokens of what was read of a file, about.
pub fn tokens(parts: &[Part]) -> u32 {
    let of_part = |part: &Part| match part {
        Part::Text(text) => Look::tokens_of_text(text.len()),
        Part::Picture(Picture {
            detail: Detail::Tokens(tokens),
            ..
        }) => *tokens,
        _ => 0,
    };
    parts.iter().map(of_part).fold(0, u32::saturating_add)
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
        text.extend(ReadPage::of(&page).seen.remark());
        if let Sight::Shown { picture, .. } = page.sight {
            parts.push(Part::Text(std::mem::take(&mut text)));
            parts.push(Part::Picture(Picture {
                file: picture.into(),
                detail: Detail::Tokens(extent.budget),
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
        let page = |text: &str, sight: Sight| Page {
            text: text.into(),
            sight,
        };
        let extent = Extent {
            pages: 4,
            read: 3,
            budget: 560,
            ..Extent::default()
        };
        let why = Shows::Pictures(30);
        let shown = Sight::Shown {
            why: Shows::LittleText,
            picture: b"png".to_vec(),
        };
        let because = Unseen::TooMany;
        let pages = vec![
            page("one", Sight::Told),
            page("", shown),
            page("three", Sight::Unseen { why, because }),
        ];
        let read: Vec<_> = pages.iter().map(ReadPage::of).collect();
        let parts = assembled("", pages, &extent);
        assert_eq!(tokens(&parts), 33 / 3 + 560 + 166 / 3);
        assert_eq!(
            parts[0],
            Part::Text("<file>\n[page 1]\none\n[page 2]\n\n".into())
        );
        assert!(
            matches!(&parts[1], Part::Picture(Picture { file, detail: Detail::Tokens(560) })
            if file[..] == b"png"[..])
        );
        assert_eq!(
            parts[2],
            Part::Text(
                "[page 3]\nthree\n[not shown: this page has pictures and drawings on 30 % of it; \
                at most 16 pages of a file are shown]\n\
                [the rest is left out: 3 of 4 pages are here]\n</file>\n"
                    .into()
            )
        );
        let whole = Extent {
            pages: 1,
            read: 1,
            ..Extent::default()
        };
        assert_eq!(
            assembled("a", vec![page("one", Sight::Told)], &whole),
            [Part::Text("<file name=\"a\">\none\n</file>\n".into())]
        );
        let mut file = ReadFile::unread("");
        assert!(!file.is_complete());
        (file.extent, file.pages) = (whole, vec![read[0]]);
        assert!(file.is_complete());
        file.pages = vec![read[2]];
        assert!(!file.is_complete());
        (file.extent, file.pages) = (extent, vec![]);
        assert!(!file.is_complete());
    }
}
