//! Tokens with pictures among them: what a prompt holds, and what a slot has read. Pure.

use super::llama::Token;

/// Tells one picture, as it is shown, from every other.
pub type Digest = [u8; 32];

/// A row of tokens. Where a picture is, the same token stands once for each of the picture's own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sequence {
    pub tokens: Vec<Token>,
    /// In the order of their places, without overlap. The last may be cut off by the end of the tokens.
    pub pictures: Vec<Place>,
}

/// Where a picture is, and which.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
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

    /// Adds a picture of `count` tokens, each of them `token`.
    pub fn show(&mut self, digest: Digest, token: Token, count: usize) {
        self.pictures.push(Place { at: self.len(), count, digest });
        self.tokens.extend(std::iter::repeat_n(token, count));
    }

    /// Keeps the first `len` tokens.
    pub fn truncate(&mut self, len: usize) {
        self.tokens.truncate(len);
        self.pictures.retain(|place| place.at < len);
    }

    /// Tokens at the start that both have, pictures as wholes.
    pub fn common(&self, other: &Self) -> usize {
        let same = self.tokens.iter().zip(&other.tokens).take_while(|(a, b)| a == b).count();
        let mut places = self.pictures.iter().zip(&other.pictures).skip_while(|(a, b)| a == b);
        let unlike = places.next().map(|(a, b)| a.at.min(b.at));
        // One has pictures where the other has none.
        let more = [self, other].map(|one| one.pictures.get(self.pictures.len().min(other.pictures.len())));
        let extra = more.into_iter().flatten().map(|place| place.at).min();
        let same = unlike.or(extra).map_or(same, |at| at.min(same));
        self.whole(other.whole(same))
    }

    /// `len`, or the start of the picture that it would cut.
    pub fn whole(&self, len: usize) -> usize {
        self.picture_over(len).filter(|place| place.at < len).map_or(len, |place| place.at)
    }

    /// The picture that has a token at `position`.
    pub fn picture_over(&self, position: usize) -> Option<&Place> {
        self.pictures.iter().find(|place| (place.at..place.at + place.count).contains(&position))
    }

    /// Tokens from `position` to the next picture or the end; none inside a picture.
    pub fn text_from(&self, position: usize) -> usize {
        if self.picture_over(position).is_some() {
            return 0;
        }
        self.pictures.iter().map(|place| place.at).find(|at| *at >= position).unwrap_or(self.len()).saturating_sub(position)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `.` is a token of text, a letter a picture of three tokens.
    fn sequence(text: &str) -> Sequence {
        let mut sequence = Sequence::default();
        for c in text.bytes() {
            match c {
                b'.' => sequence.tokens.push(7),
                picture => sequence.show([picture; 32], 9, 3),
            }
        }
        sequence
    }

    #[test]
    fn pictures_are_compared_by_what_they_show() {
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
        // Tokens that spell a picture are none.
        let spelled = Sequence { tokens: vec![7, 9, 9, 9], pictures: vec![] };
        assert_eq!(spelled.common(&sequence(".a.")), 1);
    }

    #[test]
    fn a_picture_that_was_cut_counts_for_nothing() {
        let mut cut = sequence("..a.");
        cut.truncate(4);
        assert_eq!((cut.len(), cut.pictures.len()), (4, 1));
        assert_eq!(cut.common(&sequence("..a.")), 2);
        cut.truncate(2);
        assert_eq!(cut, sequence(".."));
    }

    #[test]
    fn places() {
        let sequence = sequence("..a.b");
        assert_eq!([0, 2, 3, 4, 5, 6, 9].map(|len| sequence.whole(len)), [0, 2, 2, 2, 5, 6, 9]);
        assert_eq!([0, 1, 2, 3, 4, 5, 6, 8, 9].map(|at| sequence.text_from(at)), [2, 1, 0, 0, 0, 1, 0, 0, 0]);
        assert_eq!(sequence.picture_over(4).map(|place| place.at), Some(2));
        assert_eq!(sequence.picture_over(5), None);
    }
}
