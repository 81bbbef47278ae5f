//! The family's tokenizer. Pure: made of three lists of a model file, and of nothing of
//! llama.cpp's.
//!
//! Gemma 4's vocabulary is byte-pair encoding on characters (`tokenizer.ggml.model` is `gemma4`;
//! the rules are those of the family's `tokenizer.json`):
//!
//! 1. Tokens that are known by their spelling, like `<|turn>`, are taken out of the text, the
//!    longest first.
//! 2. Spaces become `▁` (U+2581). Lines are told from runs of line ends; a run that is a token is
//!    that token.
//! 3. Each character is a token; of all neighbours those are joined first that the list of merges
//!    has first.
//! 4. A character that is no token becomes a token for each of its bytes.
//!
//! llama.cpp keeps a string and an entry of a hash table for each token and each merge, both ways:
//! 90 MB and a second and a half at each start for the real vocabulary. Here the texts stand behind
//! each other as in the file, and a merge is three numbers in a sorted list: 13 MB and 0.2 s.

mod merges;

use std::hash::BuildHasher;
use std::ops::Range;

use aho_corasick::{AhoCorasick, MatchKind};
use hashbrown::{DefaultHashBuilder, HashTable};
use serde::{Deserialize, Serialize};

use merges::{Joiner, Merges};

/// A token's number: its row in the table of embeddings. Signed, as llama.cpp has it.
pub type Token = i32;

/// What a space is in a token.
const SPACE: &str = "\u{2581}";
/// Tokens that end a turn, whatever the file says of them.
const ENDS: [&str; 3] = ["<eos>", "<turn|>", "<|tool_response>"];
/// Tokens that can be: their numbers are 32 bits with a sign.
const MOST: usize = 1 << 24;

/// Where in its file a vocabulary lies, and what the header says of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// Tokens, and how many bytes from the start of the file their texts are: each a length of 64
    /// bits and its bytes.
    pub count: u32,
    pub texts: Range<u64>,
    /// A number of 32 bits for each token, if the file has them.
    pub kinds: Option<Range<u64>>,
    /// `left right`, the first to be joined first; as the texts.
    pub merges: Range<u64>,
    /// Which token begins every prompt.
    pub begin: Option<u32>,
    /// Which tokens end an answer, besides those that are known by their texts.
    pub ends: Vec<u32>,
    /// Which tokens must never be sampled.
    pub suppressed: Vec<u32>,
}

/// The lists of a [`Place`].
#[derive(Clone, Copy, Debug)]
pub struct Lists<'a> {
    pub texts: &'a [u8],
    pub kinds: Option<&'a [u8]>,
    pub merges: &'a [u8],
}

/// A vocabulary that is ready for use. Never changes.
#[derive(Debug)]
pub struct Vocabulary {
    texts: Texts,
    kinds: Vec<Kind>,
    merges: Merges,
    /// The tokens that one byte of a text becomes if nothing else fits.
    bytes: [Option<Token>; 256],
    /// The tokens that are found by their spelling: in markup, and in all text.
    markup: Spelled,
    plain: Spelled,
    begin: Option<Token>,
    suppressed: Vec<Token>,
}

/// What a token is, as `tokenizer.ggml.token_type` numbers it, and whether it ends a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Kind {
    number: u8,
    ends: bool,
}

const NORMAL: u8 = 1;
const UNKNOWN: u8 = 2;
const CONTROL: u8 = 3;
const USER_DEFINED: u8 = 4;
const BYTE: u8 = 6;

impl Kind {
    /// A part of the markup that text does not become.
    fn is_control(self) -> bool {
        self.number == CONTROL || self.ends
    }
}

impl Vocabulary {
    /// Makes the tables. The error continues "the file's vocabulary …".
    pub fn new(place: &Place, lists: Lists<'_>) -> Result<Self, String> {
        let count = place.count as usize;
        if !(1..=MOST).contains(&count) {
            return Err(format!("has {count} tokens"));
        }
        let texts = Texts::new(lists.texts, count)?;
        let kinds = kinds(&texts, lists.kinds, &place.ends)?;
        let merges = Merges::new(strings(lists.merges), &texts)?;
        let spelled = |wanted: fn(Kind) -> bool| {
            let tokens = (0..count as Token)
                .filter(|&token| wanted(kinds[token as usize]) && !texts.get(token).is_empty());
            Spelled::new(&texts, tokens.collect())
        };
        let markup =
            spelled(|kind| kind.is_control() || matches!(kind.number, USER_DEFINED | UNKNOWN))?;
        let plain = spelled(|kind| kind.number == USER_DEFINED && !kind.is_control())?;
        let bytes = std::array::from_fn(|byte| texts.find(format!("<0x{byte:02X}>").as_bytes()));
        let known = |token: u32| (token < place.count).then_some(token as Token);
        Ok(Self {
            kinds,
            merges,
            bytes,
            markup,
            plain,
            begin: place.begin.and_then(known),
            suppressed: place.suppressed.iter().copied().filter_map(known).collect(),
            texts,
        })
    }

    /// Tokens in the vocabulary.
    #[allow(
        clippy::len_without_is_empty,
        reason = "an empty vocabulary is refused"
    )]
    pub fn len(&self) -> usize {
        self.kinds.len()
    }

    /// The token that starts every prompt, if the model has one.
    pub fn bos(&self) -> Option<Token> {
        self.begin
    }

    /// Whether the model ends its turn with `token`.
    pub fn is_end(&self, token: Token) -> bool {
        self.kind(token).is_some_and(|kind| kind.ends)
    }

    /// All tokens that end a turn.
    pub fn ends(&self) -> Vec<Token> {
        self.all().filter(|&token| self.is_end(token)).collect()
    }

    /// Tokens that the file says must never be sampled.
    pub fn suppressed(&self) -> &[Token] {
        &self.suppressed
    }

    /// Whether `token` is a marker of the chat format and no text. Files mark some of them as
    /// control tokens and some, the thinking channel's and the tool calls', as user-defined, like
    /// pieces of ordinary text; those are known by their look.
    pub fn is_marker(&self, token: Token) -> bool {
        let looks = |text: &str| {
            text.starts_with("<|") && text.ends_with('>')
                || text.starts_with('<') && text.ends_with("|>")
        };
        let Some(kind) = self.kind(token) else {
            return false;
        };
        kind.is_control() || kind.number == USER_DEFINED && self.text(token).is_some_and(looks)
    }

    /// The token with this text.
    pub fn named(&self, text: &str) -> Option<Token> {
        self.texts.find(text.as_bytes())
    }

    /// The text of every token that is found by its spelling.
    pub fn spelled(&self) -> Vec<String> {
        self.markup
            .tokens
            .iter()
            .filter_map(|&token| self.text(token))
            .map(str::to_owned)
            .collect()
    }

    /// A token as the file spells it.
    pub fn text(&self, token: Token) -> Option<&str> {
        self.kind(token)?;
        // All texts were checked.
        std::str::from_utf8(self.texts.get(token)).ok()
    }

    /// Bytes of the longest token: no text of `n` tokens has more than `n` times as many.
    pub fn longest(&self) -> usize {
        self.all()
            .map(|token| self.bytes(token).len())
            .max()
            .unwrap_or(0)
            .max(1)
    }

    /// What `token` stands for in a text, markers spelled out. A part of a character is not UTF-8.
    pub fn bytes(&self, token: Token) -> Vec<u8> {
        let Some(kind) = self.kind(token) else {
            return vec![];
        };
        let text = self.texts.get(token);
        match kind.number {
            _ if kind.is_control() => text.to_vec(),
            UNKNOWN | USER_DEFINED => text.to_vec(),
            NORMAL => without_marks(text),
            BYTE => byte(text).into_iter().collect(),
            // What is unused stands for nothing.
            _ => vec![],
        }
    }

    /// Appends the tokens of `text`. Spelled control tokens become such only with `markup`;
    /// user-defined ones do always. No token is added in front or behind.
    pub fn tokenize(&self, text: &str, markup: bool, tokens: &mut Vec<Token>) {
        let mut joiner = Joiner::default();
        let mut rest = 0;
        for (range, token) in if markup { &self.markup } else { &self.plain }.find(text) {
            self.text_tokens(&text[rest..range.start], &mut joiner, tokens);
            tokens.push(token);
            rest = range.end;
        }
        self.text_tokens(&text[rest..], &mut joiner, tokens);
    }

    /// Appends the tokens of a text in which nothing is taken for a marker.
    fn text_tokens(&self, text: &str, joiner: &mut Joiner, tokens: &mut Vec<Token>) {
        let mut rest = text;
        while let Some(first) = rest.bytes().next() {
            let line = rest
                .bytes()
                .position(|byte| (byte == b'\n') != (first == b'\n'))
                .unwrap_or(rest.len());
            let (line, behind) = rest.split_at(line);
            rest = behind;
            match self.texts.find(line.as_bytes()).filter(|_| first == b'\n') {
                Some(token) => tokens.push(token),
                None => self.line_tokens(line, joiner, tokens),
            }
        }
    }

    fn line_tokens(&self, line: &str, joiner: &mut Joiner, tokens: &mut Vec<Token>) {
        let mut utf8 = [0; 4];
        joiner.clear();
        for (at, c) in line.char_indices() {
            let text = if c == ' ' {
                SPACE
            } else {
                c.encode_utf8(&mut utf8)
            };
            joiner.push(at, self.texts.find(text.as_bytes()));
        }
        self.merges.join(joiner);
        for (at, token) in joiner.symbols() {
            match token {
                Some(token) => tokens.push(token),
                // Only single characters are none.
                None => {
                    let c = line[at..]
                        .chars()
                        .next()
                        .map_or(' ', |c| if c == ' ' { '\u{2581}' } else { c });
                    tokens.extend(
                        c.encode_utf8(&mut utf8)
                            .bytes()
                            .filter_map(|byte| self.bytes[usize::from(byte)]),
                    );
                }
            }
        }
    }

    fn kind(&self, token: Token) -> Option<Kind> {
        self.kinds.get(usize::try_from(token).ok()?).copied()
    }

    fn all(&self) -> Range<Token> {
        // There are fewer than `MOST`.
        0..self.kinds.len() as Token
    }
}

/// The texts of all tokens, and which token has a text.
#[derive(Debug)]
struct Texts {
    /// One behind the other.
    bytes: Vec<u8>,
    /// Where each ends.
    ends: Vec<u32>,
    /// Tokens by their texts; of two with the same the last.
    tokens: HashTable<Token>,
    hash: DefaultHashBuilder,
}

impl Texts {
    fn new(list: &[u8], count: usize) -> Result<Self, String> {
        if u32::try_from(list.len()).is_err() || list.len() / 8 < count {
            return Err(format!("has {} bytes for {count} tokens", list.len()));
        }
        let bytes = Vec::with_capacity(list.len() - 8 * count);
        let hash = DefaultHashBuilder::default();
        let mut texts = Self {
            bytes,
            ends: Vec::with_capacity(count),
            tokens: HashTable::with_capacity(count),
            hash,
        };
        for text in strings(list).take(count) {
            let text = text?;
            std::str::from_utf8(text)
                .map_err(|_| format!("has a token, {}, that is no UTF-8", texts.ends.len()))?;
            texts.bytes.extend_from_slice(text);
            texts.ends.push(texts.bytes.len() as u32);
            let token = (texts.ends.len() - 1) as Token;
            let Self {
                bytes,
                ends,
                tokens,
                hash,
            } = &mut texts;
            let of = |token: Token| slice(bytes, ends, token);
            match tokens.entry(
                hash.hash_one(text),
                |&other| of(other) == text,
                |&other| hash.hash_one(of(other)),
            ) {
                hashbrown::hash_table::Entry::Occupied(mut same) => *same.get_mut() = token,
                hashbrown::hash_table::Entry::Vacant(place) => drop(place.insert(token)),
            }
        }
        if texts.ends.len() != count {
            return Err(format!("has {} texts for {count} tokens", texts.ends.len()));
        }
        Ok(texts)
    }

    /// `token` is one of the vocabulary.
    fn get(&self, token: Token) -> &[u8] {
        slice(&self.bytes, &self.ends, token)
    }

    fn find(&self, text: &[u8]) -> Option<Token> {
        self.tokens
            .find(self.hash.hash_one(text), |&token| self.get(token) == text)
            .copied()
    }
}

fn slice<'a>(bytes: &'a [u8], ends: &[u32], token: Token) -> &'a [u8] {
    let token = token as usize;
    let start = if token == 0 { 0 } else { ends[token - 1] };
    &bytes[start as usize..ends[token] as usize]
}

/// The texts of a list as a GGUF file has it.
fn strings(mut list: &[u8]) -> impl Iterator<Item = Result<&[u8], String>> {
    std::iter::from_fn(move || {
        if list.is_empty() {
            return None;
        }
        let text = list.split_first_chunk::<8>().and_then(|(length, rest)| {
            let length = usize::try_from(u64::from_le_bytes(*length))
                .ok()
                .filter(|&length| length <= rest.len())?;
            let (text, behind) = rest.split_at(length);
            list = behind;
            Some(text)
        });
        if text.is_none() {
            list = &[];
        }
        Some(text.ok_or_else(|| "is cut off".to_owned()))
    })
}

fn kinds(texts: &Texts, numbers: Option<&[u8]>, ends: &[u32]) -> Result<Vec<Kind>, String> {
    let count = texts.ends.len();
    let mut kinds = vec![
        Kind {
            number: NORMAL,
            ends: false
        };
        count
    ];
    if let Some(numbers) = numbers {
        let (numbers, rest) = numbers.as_chunks::<4>();
        if numbers.len() != count || !rest.is_empty() {
            return Err(format!("has {} kinds for {count} tokens", numbers.len()));
        }
        for (kind, number) in kinds.iter_mut().zip(numbers) {
            // What is no kind is like what is unused.
            kind.number = u8::try_from(u32::from_le_bytes(*number)).unwrap_or(0);
        }
    }
    let named = ENDS
        .iter()
        .filter_map(|text| texts.find(text.as_bytes()))
        .map(|token| token as usize);
    for token in named.chain(ends.iter().map(|&token| token as usize)) {
        if let Some(kind) = kinds.get_mut(token) {
            kind.ends = true;
        }
    }
    Ok(kinds)
}

/// Spaces in the place of their marks.
fn without_marks(text: &[u8]) -> Vec<u8> {
    let (mark, mut out, mut rest) = (SPACE.as_bytes(), Vec::with_capacity(text.len()), text);
    while let [first, behind @ ..] = rest {
        if let Some(behind) = rest.strip_prefix(mark) {
            out.push(b' ');
            rest = behind;
        } else {
            out.push(*first);
            rest = behind;
        }
    }
    out
}

/// The byte that a token like `<0x0A>` stands for.
fn byte(text: &[u8]) -> Option<u8> {
    let digits = text.strip_prefix(b"<0x")?.strip_suffix(b">")?;
    u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

/// Tokens that are found by their spelling.
#[derive(Debug)]
struct Spelled {
    finder: Option<AhoCorasick>,
    tokens: Vec<Token>,
}

impl Spelled {
    fn new(texts: &Texts, tokens: Vec<Token>) -> Result<Self, String> {
        let finder = AhoCorasick::builder()
            .match_kind(MatchKind::LeftmostLongest)
            .build(tokens.iter().map(|&token| texts.get(token)));
        let finder = finder.map_err(|error| format!("has markers that are too many: {error}"))?;
        Ok(Self {
            finder: Some(finder).filter(|_| !tokens.is_empty()),
            tokens,
        })
    }

    /// Where they stand in a text, from its beginning on.
    fn find(&self, text: &str) -> impl Iterator<Item = (Range<usize>, Token)> {
        let found = self
            .finder
            .iter()
            .flat_map(move |finder| finder.find_iter(text));
        found.map(|found| (found.range(), self.tokens[found.pattern().as_usize()]))
    }
}

#[cfg(test)]
mod tests;
