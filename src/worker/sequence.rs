//! Tokens with pictures and sounds among them: what a prompt holds, and what of it the KV cache holds. Pure.

use crate::gemma::vocabulary::Token;

/// Tells one medium, in the form in which it is read, from every other.
pub type Digest = [u8; 32];

/// A row of tokens. Where a medium is, the same token stands once for each of the medium's own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sequence {
    pub tokens: Vec<Token>,
    /// In the order of their spans, without overlap. The last may be cut off by the end of the
    /// tokens.
    pub media: Vec<MediumSpan>,
}

/// Where a medium is, and which.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MediumSpan {
    pub at: usize,
    pub count: usize,
    pub digest: Digest,
}

impl Sequence {
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    /// Adds a medium of `count` tokens, each of them `token`.
    pub fn insert(&mut self, digest: Digest, token: Token, count: usize) {
        self.media.push(MediumSpan {
            at: self.len(),
            count,
            digest,
        });
        self.tokens.extend(std::iter::repeat_n(token, count));
    }

    /// Keeps the first `len` tokens.
    pub fn truncate(&mut self, len: usize) {
        self.tokens.truncate(len);
        self.media.retain(|span| span.at < len);
    }

    /// The first `len` tokens, with their media.
    pub fn first(&self, len: usize) -> Self {
        let spans = self.media.iter().filter(|span| span.at < len);
        Self {
            tokens: self.tokens[..len].to_vec(),
            media: spans.copied().collect(),
        }
    }

    /// Tokens at the start that both have, media as wholes.
    pub fn common(&self, other: &Self) -> usize {
        let same = self
            .tokens
            .iter()
            .zip(&other.tokens)
            .take_while(|(a, b)| a == b)
            .count();
        let mut spans = self
            .media
            .iter()
            .zip(&other.media)
            .skip_while(|(a, b)| a == b);
        let unlike = spans.next().map(|(a, b)| a.at.min(b.at));
        // One has media where the other has none.
        let more = [self, other].map(|one| one.media.get(self.media.len().min(other.media.len())));
        let extra = more.into_iter().flatten().map(|span| span.at).min();
        let same = unlike.or(extra).map_or(same, |at| at.min(same));
        self.whole(other.whole(same))
    }

    /// `len`, or the start of the medium that it would cut.
    pub fn whole(&self, len: usize) -> usize {
        self.medium_over(len)
            .filter(|span| span.at < len)
            .map_or(len, |span| span.at)
    }

    /// The medium that has a token at `position`.
    pub fn medium_over(&self, position: usize) -> Option<&MediumSpan> {
        self.media
            .iter()
            .find(|span| (span.at..span.at + span.count).contains(&position))
    }

    /// Media that have a token at `position` or after it.
    pub fn media_from(&self, position: usize) -> usize {
        self.media
            .iter()
            .filter(|span| span.at + span.count > position)
            .count()
    }

    /// Tokens from `position` to the next medium or the end; none inside one.
    pub fn text_from(&self, position: usize) -> usize {
        if self.medium_over(position).is_some() {
            return 0;
        }
        self.media
            .iter()
            .map(|span| span.at)
            .find(|at| *at >= position)
            .unwrap_or(self.len())
            .saturating_sub(position)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `.` is a token of text, a letter a medium of three tokens.
    fn sequence(text: &str) -> Sequence {
        let mut sequence = Sequence::default();
        for c in text.bytes() {
            match c {
                b'.' => sequence.tokens.push(7),
                medium => sequence.insert([medium; 32], 9, 3),
            }
        }
        sequence
    }

    #[test]
    fn media_are_compared_by_what_they_are() {
        for (a, b, common) in [
            ("..", "..", 2),
            ("..a.", "..a..", 6),
            ("..a.", "..b..", 2),
            (".a.b.", ".a.c.", 5),
            (".a.b.", ".a...", 5),
            (".a", ".a.", 4),
            (".", "a", 0),
            ("", "a", 0),
        ] {
            assert_eq!(sequence(a).common(&sequence(b)), common, "{a} {b}");
            assert_eq!(sequence(b).common(&sequence(a)), common, "{b} {a}");
        }
        // Tokens that spell a medium are none.
        let spelled = Sequence {
            tokens: vec![7, 9, 9, 9],
            media: vec![],
        };
        assert_eq!(spelled.common(&sequence(".a.")), 1);
    }

    #[test]
    fn a_medium_that_was_cut_counts_for_nothing() {
        let mut cut = sequence("..a.");
        cut.truncate(4);
        assert_eq!((cut.len(), cut.media.len()), (4, 1));
        assert_eq!(cut.common(&sequence("..a.")), 2);
        cut.truncate(2);
        assert_eq!(cut, sequence(".."));
    }

    #[test]
    fn places() {
        let sequence = sequence("..a.b");
        assert_eq!(
            [0, 2, 3, 4, 5, 6, 9].map(|len| sequence.whole(len)),
            [0, 2, 2, 2, 5, 6, 9]
        );
        assert_eq!(
            [0, 1, 2, 3, 4, 5, 6, 8, 9].map(|at| sequence.text_from(at)),
            [2, 1, 0, 0, 0, 1, 0, 0, 0]
        );
        assert_eq!(sequence.medium_over(4).map(|place| place.at), Some(2));
        assert_eq!(sequence.medium_over(5), None);
    }
}
