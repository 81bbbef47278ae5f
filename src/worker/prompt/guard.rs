//! Nothing that a client wrote may become a control token.
//!
//! llama.cpp finds control tokens in text by their spelling. Before rendering, each place of a
//! client's text where the spelling of one begins gets a guard character behind its first
//! character; after rendering, the text is cut at the guards and handed to the tokenizer in pieces.
//! Since a piece is searched on its own, a spelling that is cut is never seen whole. That matters
//! because tokenising without special tokens is not enough: it still finds the seven user-defined
//! ones (`<|tool_call>` and its like).
//!
//! A spelling that is only begun at the end of a text is guarded as well, since the template may
//! put the rest of it behind. Letter case does not count, since a template may change it.

use std::collections::HashMap;

use super::Segment;

/// Stands where a spelling is cut. A noncharacter: no text means it, and clients' own ones are
/// taken out.
const GUARD: char = '\u{FDD0}';

/// The spellings of all control tokens, as a tree over bytes.
#[derive(Debug)]
pub struct Guard {
    nodes: Vec<Node>,
    /// Whether a spelling may begin with a byte, which few do.
    begins: [bool; 256],
}

#[derive(Debug, Default)]
struct Node {
    next: HashMap<u8, usize>,
    /// A spelling ends here.
    last: bool,
}

/// A spelling that begins at some place.
struct Spelling {
    /// Bytes of the longest complete one; 0 if there is none.
    len: usize,
    /// The text ends before this can be told.
    begun: bool,
}

impl Guard {
    /// `markers`: the text of every token that llama.cpp finds by its spelling (types control,
    /// user-defined and unknown). White space (runs of newlines are tokens of such types in some
    /// files) and single characters steer nothing and stay as they are.
    pub fn new(markers: &[String]) -> Self {
        let mut nodes = vec![Node::default()];
        for marker in markers
            .iter()
            .filter(|m| m.chars().count() > 1 && !m.starts_with(char::is_whitespace))
        {
            let mut at = 0;
            for byte in marker.bytes() {
                let fresh = nodes.len();
                at = *nodes[at]
                    .next
                    .entry(byte.to_ascii_lowercase())
                    .or_insert(fresh);
                if at == fresh {
                    nodes.push(Node::default());
                }
            }
            nodes[at].last = true;
        }
        let mut begins = [false; 256];
        for byte in nodes[0].next.keys() {
            begins[usize::from(*byte)] = true;
            begins[usize::from(byte.to_ascii_uppercase())] = true;
        }
        Self { nodes, begins }
    }

    fn spelling(&self, text: &[u8]) -> Spelling {
        let (mut at, mut len) = (0, 0);
        for (i, byte) in text.iter().enumerate() {
            match self.nodes[at].next.get(&byte.to_ascii_lowercase()) {
                Some(next) => at = *next,
                None => return Spelling { len, begun: false },
            }
            if self.nodes[at].last {
                len = i + 1;
            }
        }
        Spelling {
            len,
            begun: at != 0,
        }
    }

    /// A client's text with its spellings broken.
    pub fn protect(&self, text: &str) -> String {
        let clean: String = text.chars().filter(|c| *c != GUARD).collect();
        let mut out = String::with_capacity(clean.len() + 16);
        for (i, c) in clean.char_indices() {
            out.push(c);
            let rest = &clean.as_bytes()[i..];
            if !self.begins[usize::from(rest[0])] {
                continue;
            }
            let spelling = self.spelling(rest);
            if spelling.len > 0 || spelling.begun {
                out.push(GUARD);
            }
        }
        out
    }

    /// Cuts rendered text at its guards. A guarded spelling comes out as [`Segment::Plain`], in two
    /// pieces at least; all segments together are the rendered text without the guards.
    pub fn split(&self, rendered: &str) -> Vec<Segment> {
        let mut pieces = rendered.split(GUARD);
        let mut text = pieces.next().unwrap_or_default().to_owned();
        let mut cuts = vec![];
        for piece in pieces {
            cuts.push(text.len());
            text.push_str(piece);
        }
        cuts.dedup();

        let mut segments = Segments {
            text: &text,
            out: vec![],
            at: 0,
            plain_until: 0,
        };
        for cut in cuts {
            let Some(first) = text[..cut].chars().next_back() else {
                continue;
            };
            let begin = cut - first.len_utf8();
            segments.advance(begin);
            segments.plain_until = segments.plain_until.max(cut);
            segments.advance(cut);
            segments.plain_until = segments
                .plain_until
                .max(begin + self.spelling(&text.as_bytes()[begin..]).len);
        }
        segments.advance(text.len());
        segments.out
    }
}

struct Segments<'a> {
    text: &'a str,
    out: Vec<Segment>,
    at: usize,
    /// Up to here the text is a guarded spelling.
    plain_until: usize,
}

impl Segments<'_> {
    /// Ends a segment at `to`.
    fn advance(&mut self, to: usize) {
        let mut plain_to = self.plain_until.clamp(self.at, to.max(self.at));
        while !self.text.is_char_boundary(plain_to) {
            plain_to += 1;
        }
        if plain_to > self.at {
            self.out
                .push(Segment::Plain(self.text[self.at..plain_to].to_owned()));
            self.at = plain_to;
        }
        if to > self.at {
            self.out
                .push(Segment::Markup(self.text[self.at..to].to_owned()));
            self.at = to;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MARKERS: [&str; 12] = [
        "<|turn>",
        "<turn|>",
        "<bos>",
        "<eos>",
        "<|channel>",
        "<channel|>",
        "<|tool_call>",
        "<tool_call|>",
        "<|\"|>",
        "<|tool_response>",
        "[multimodal]",
        "\n\n",
    ];

    fn guard() -> Guard {
        Guard::new(&MARKERS.map(String::from))
    }

    fn joined(segments: &[Segment]) -> String {
        segments.iter().map(Segment::text).collect()
    }

    /// What llama.cpp would find: any marker, even in plain segments.
    fn finds_marker(segments: &[Segment]) -> bool {
        segments
            .iter()
            .any(|s| MARKERS[..11].iter().any(|m| s.text().contains(m)))
    }

    #[test]
    fn every_typed_marker_comes_out_plain() {
        let guard = guard();
        for marker in &MARKERS[..11] {
            let text = format!("a {marker} b");
            let segments = guard.split(&guard.protect(&text));
            let (first, rest) = marker.split_at(1);
            let plain = |s: &str| Segment::Plain(s.into());
            assert_eq!(
                segments,
                [
                    Segment::Markup("a ".into()),
                    plain(first),
                    plain(rest),
                    Segment::Markup(" b".into())
                ],
                "{marker}"
            );
        }
    }

    #[test]
    fn ordinary_text_stays_whole() {
        let guard = guard();
        for text in ["", "a < b > c", "x\n\ny", "<html>", "größer <ü"] {
            assert_eq!(guard.protect(text), text);
        }
        assert_eq!(
            guard.split("<|turn>user\nHi"),
            [Segment::Markup("<|turn>user\nHi".into())]
        );
        assert_eq!(guard.split(""), []);
    }

    #[test]
    fn a_marker_cannot_be_put_together() {
        let guard = guard();
        for (a, b) in [
            ("<|tu", "rn>system"),
            ("<", "|turn>"),
            ("x<|turn", ">"),
            ("<\u{FDD0}|turn>", ""),
            ("<<|turn>", "<|turn><turn|>"),
        ] {
            let segments = guard.split(&(guard.protect(a) + &guard.protect(b)));
            assert!(!finds_marker(&segments), "{a} {b}: {segments:?}");
            assert_eq!(joined(&segments), format!("{a}{b}").replace(GUARD, ""));
        }
        let upper = guard.protect("<EOS>").to_lowercase();
        assert!(!finds_marker(&guard.split(&upper)));
    }

    #[test]
    fn a_real_marker_after_a_begun_one_survives() {
        let guard = guard();
        let segments = guard.split(&(guard.protect("a <|turn") + "<turn|>\n"));
        assert_eq!(
            segments.last(),
            Some(&Segment::Markup("|turn<turn|>\n".into()))
        );
    }

    proptest! {
        #[test]
        fn no_text_yields_a_marker(
            parts in prop::collection::vec(prop_oneof![
                prop::sample::select(MARKERS.to_vec()).prop_map(String::from),
                "[<|>a-z\u{FDD0}ü\"]{0,8}",
            ], 0..12),
        ) {
            let guard = guard();
            let rendered: String = parts.iter().map(|p| guard.protect(p)).collect();
            let segments = guard.split(&rendered);
            prop_assert!(!finds_marker(&segments), "{:?}", segments);
            prop_assert_eq!(joined(&segments), parts.concat().replace(GUARD, ""));
            prop_assert!(segments.iter().all(|s| !s.text().is_empty()));
        }
    }
}
