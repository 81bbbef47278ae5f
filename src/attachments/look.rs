//! How the pages of a request's files are shown: as large as they are wanted, or as what the model
//! takes has room for. Pure.

use crate::backend::{Failure, Found};
use crate::chat::{ChatRequest, Detail, Document, Part, Source};
use crate::ipc::{Look, MediumKind};

use crate::ipc::kind::{self, Reader};

/// Pages of a file that are shown.
pub const MAX_PAGES: u32 = 16;
/// Tokens that are left to an answer whose length is not told, but no more than a part of the
/// context.
const ANSWER: u32 = 1024;
const ANSWER_PART: u32 = 4;
/// Tokens of a message's own marks, and of a sound of usual length.
const MESSAGE: u32 = 8;
const SOUND: u32 = 750;

/// What the model of a request can be shown, file after file.
#[derive(Debug)]
pub struct Viewer {
    /// Tokens of one picture, or why the model takes none.
    picture: Result<u32, Failure>,
    /// Tokens that there is room for.
    left: u32,
}

impl Viewer {
    /// For the files of a request, which gets this model if it has pictures, of so many bytes when
    /// they are decoded.
    pub fn new(request: &ChatRequest, found: Result<Found, Failure>, most: u64) -> Self {
        let (picture, context) = match found {
            Ok(found) => (Ok(found.picture), found.context),
            Err(failure) => (Err(failure), 0),
        };
        let wanted = request.output.max_tokens.unwrap_or(ANSWER);
        let answer = wanted.min(context / ANSWER_PART);
        Self {
            picture,
            left: context
                .saturating_sub(answer)
                .saturating_sub(tokens(request))
                .min(tokens_of_pixels(most)),
        }
    }

    /// For one who looks what there is to be seen.
    pub fn of_anything() -> Self {
        let [_, _, largest] = Look::BUDGETS;
        Self {
            picture: Ok(largest),
            left: 0,
        }
    }

    /// How the pages of the next file are shown.
    pub fn look(&self, detail: Detail) -> Look {
        let Ok(picture) = self.picture else {
            return Look {
                pages: 0,
                tokens: Look::BUDGETS[0],
                room: None,
            };
        };
        let [low, _, high] = Look::BUDGETS;
        let (tokens, room) = match detail {
            Detail::Low => (low, None),
            Detail::High => (high, None),
            Detail::Tokens(tokens) => (tokens, None),
            Detail::Auto => {
                let largest = Look::BUDGETS.into_iter().rfind(|size| *size <= picture);
                (largest.unwrap_or(low), Some(self.left))
            }
        };
        Look {
            pages: MAX_PAGES,
            tokens,
            room,
        }
    }

    /// Tokens that have been given away.
    pub fn take(&mut self, tokens: u32) {
        self.left = self.left.saturating_sub(tokens);
    }

    /// Why the model sees nothing, if it does not.
    pub fn blindness(&self) -> Option<&Failure> {
        self.picture.as_ref().err()
    }
}

/// Tokens of pictures whose pixels have so many bytes.
fn tokens_of_pixels(bytes: u64) -> u32 {
    let [one, ..] = Look::BUDGETS;
    let token = MediumKind::Picture(Detail::Tokens(one)).most_bytes() / u64::from(one);
    u32::try_from(bytes / token).unwrap_or(u32::MAX)
}

/// Tokens of what a request has besides files that are read by a worker, about.
fn tokens(request: &ChatRequest) -> u32 {
    let of_part = |part: &Part| match part {
        Part::Text(text) => Look::tokens_of_text(text.len()),
        Part::Picture(picture) => match picture.detail {
            Detail::High => Look::BUDGETS[2],
            Detail::Tokens(tokens) => tokens,
            Detail::Low | Detail::Auto => Look::BUDGETS[0],
        },
        Part::Sound(_) => SOUND,
        Part::Document(Document {
            name,
            source: Source::File(file),
            ..
        }) => match kind::reader(name, file) {
            Ok(Reader::Text(text)) => Look::tokens_of_text(text.len()),
            Ok(Reader::Picture) => Look::BUDGETS[0],
            Ok(Reader::Worker(_)) | Err(_) => 0,
        },
        _ => 0,
    };
    let parts = request.parts().map(|(_, _, part)| of_part(part));
    let messages = request.messages.iter().map(|message| {
        let calls = message.tool_calls.iter().map(|call| call.arguments.len());
        MESSAGE.saturating_add(Look::tokens_of_text(calls.sum()))
    });
    let tools = request.tools.iter().map(|tool| {
        let schema = tool.parameters.as_ref().map_or(0, String::len);
        Look::tokens_of_text(tool.description.len() + schema)
    });
    parts
        .chain(messages)
        .chain(tools)
        .fold(0, u32::saturating_add)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::{Message, Role};

    const MOST: u64 = 128 << 20;

    fn found(context: u32, picture: u32) -> Result<Found, Failure> {
        Ok(Found {
            context,
            picture,
            ..Found::example("a")
        })
    }

    #[test]
    fn detail_says_how_closely_pages_are_looked_at() {
        let request = ChatRequest::new(vec![Message::text(Role::User, "a".repeat(300))]);
        let seeing = Viewer::new(&request, found(8192, 560), MOST);
        for (detail, tokens, room) in [
            (Detail::Low, 280, None),
            (Detail::High, 1120, None),
            (Detail::Tokens(70), 70, None),
            (Detail::Auto, 560, Some(8192 - 1024 - 108)),
        ] {
            let look = Look {
                pages: MAX_PAGES,
                tokens,
                room,
            };
            assert_eq!(seeing.look(detail), look, "{detail:?}");
        }
        let blind = Viewer::new(&request, Err(Failure::ShuttingDown), MOST);
        assert_eq!(blind.look(Detail::High).pages, 0);
        assert!(blind.blindness().is_some() && seeing.blindness().is_none());
    }

    #[test]
    fn what_is_taken_is_not_there_for_the_next_file() {
        let request = ChatRequest::new(vec![]);
        let mut viewer = Viewer::new(&request, found(2048, 1120), MOST);
        viewer.take(1000);
        assert_eq!(viewer.look(Detail::Auto).room, Some(2048 - 512 - 1000));
        // No more pixels than a request may hold.
        let wide = Viewer::new(&request, found(1 << 20, 1120), MOST);
        assert_eq!(wide.look(Detail::Auto).room, Some(19_418));
    }
}
