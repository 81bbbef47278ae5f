//! The model's vocabulary.

use std::ffi::{CStr, c_char};
use std::ptr::NonNull;

use ggml_sys as sys;

use super::Token;

/// A handle to the vocabulary of the leaked model.
#[derive(Clone, Copy, Debug)]
pub struct Vocab {
    raw: NonNull<sys::llama_vocab>,
    len: Token,
}

// SAFETY: a vocabulary never changes after its model was loaded and is never freed; llama.h promises that
// tokenising is thread-safe, and everything else here only reads.
unsafe impl Send for Vocab {}
// SAFETY: as above.
unsafe impl Sync for Vocab {}

impl Vocab {
    /// # Safety
    /// `raw` belongs to a model that is never freed.
    pub(super) unsafe fn new(raw: NonNull<sys::llama_vocab>) -> Self {
        // SAFETY: the pointer is valid by this function's contract.
        let len = unsafe { sys::llama_vocab_n_tokens(raw.as_ptr()) };
        Self { raw, len }
    }

    /// Tokens in the vocabulary.
    #[allow(clippy::len_without_is_empty, reason = "an empty vocabulary is refused at load")]
    pub fn len(&self) -> usize {
        self.len.max(0) as usize
    }

    /// The token that starts every prompt, if the model has one.
    pub fn bos(&self) -> Option<Token> {
        // SAFETY: the vocabulary lives for ever.
        let bos = unsafe { sys::llama_vocab_bos(self.raw.as_ptr()) };
        (0..self.len).contains(&bos).then_some(bos)
    }

    /// Whether the model ends its turn with `token`.
    pub fn is_end(&self, token: Token) -> bool {
        // SAFETY: the vocabulary lives for ever; unknown numbers are answered with false.
        unsafe { sys::llama_vocab_is_eog(self.raw.as_ptr(), token) }
    }

    /// All tokens that end a turn.
    pub fn ends(&self) -> Vec<Token> {
        (0..self.len).filter(|&token| self.is_end(token)).collect()
    }

    /// Tokens that the file says must never be drawn.
    pub fn suppressed(&self) -> Vec<Token> {
        let mut count = 0;
        // SAFETY: `count` outlives the call; the array belongs to the vocabulary and is copied at once.
        let tokens = unsafe {
            let first = sys::llama_vocab_get_suppress_tokens(self.raw.as_ptr(), &mut count);
            if first.is_null() || count <= 0 {
                return vec![];
            }
            std::slice::from_raw_parts(first, count as usize)
        };
        tokens.iter().copied().filter(|token| (0..self.len).contains(token)).collect()
    }

    /// Whether `token` is a marker of the chat format and no text. Files mark some of them as `control` and some,
    /// the thinking channel's and the tool calls', as `user defined`, like pieces of ordinary text; those are
    /// known by their look.
    pub fn is_marker(&self, token: Token) -> bool {
        let attributes = self.attributes(token);
        let looks = |text: String| text.starts_with("<|") && text.ends_with('>') || text.starts_with('<') && text.ends_with("|>");
        attributes & sys::LLAMA_TOKEN_ATTR_CONTROL != 0
            || attributes & sys::LLAMA_TOKEN_ATTR_USER_DEFINED != 0 && self.text(token).is_some_and(looks)
    }

    /// The tokens with this text.
    pub fn named(&self, text: &str) -> Vec<Token> {
        (0..self.len).filter(|&token| self.text(token).is_some_and(|found| found == text)).collect()
    }

    fn attributes(&self, token: Token) -> sys::llama_token_attr {
        if !(0..self.len).contains(&token) {
            return sys::LLAMA_TOKEN_ATTR_UNDEFINED;
        }
        // SAFETY: the token is in the vocabulary, which lives for ever.
        unsafe { sys::llama_vocab_get_attr(self.raw.as_ptr(), token) }
    }

    /// The text of every token that llama.cpp finds by its spelling.
    pub fn spelled(&self) -> Vec<String> {
        const FOUND: sys::llama_token_attr =
            sys::LLAMA_TOKEN_ATTR_CONTROL | sys::LLAMA_TOKEN_ATTR_USER_DEFINED | sys::LLAMA_TOKEN_ATTR_UNKNOWN;
        let found = (0..self.len).filter(|&token| self.attributes(token) & FOUND != 0);
        found.filter_map(|token| self.text(token)).filter(|text| !text.is_empty()).collect()
    }

    /// A token as the file spells it.
    pub fn text(&self, token: Token) -> Option<String> {
        if !(0..self.len).contains(&token) {
            return None;
        }
        // SAFETY: the token is in the vocabulary; its text ends in NUL and lives as long as the vocabulary.
        let text = unsafe {
            let text = sys::llama_vocab_get_text(self.raw.as_ptr(), token);
            if text.is_null() {
                return None;
            }
            CStr::from_ptr(text)
        };
        text.to_str().ok().map(str::to_owned)
    }

    /// Bytes of the longest token: no text of `n` tokens has more than `n` times as many.
    pub fn longest(&self) -> usize {
        (0..self.len).map(|token| self.bytes(token).len()).max().unwrap_or(0).max(1)
    }

    /// What `token` stands for in a text, markers spelled out. A part of a character is not UTF-8.
    pub fn bytes(&self, token: Token) -> Vec<u8> {
        if !(0..self.len).contains(&token) {
            return vec![];
        }
        // Llama.cpp has all pieces ready; this only copies.
        let mut buffer = vec![0u8; 64];
        loop {
            // SAFETY: the buffer has the length that is passed, and the token is in the vocabulary.
            let written = unsafe {
                sys::llama_token_to_piece(self.raw.as_ptr(), token, buffer.as_mut_ptr().cast::<c_char>(), buffer.len() as i32, 0, true)
            };
            match usize::try_from(written) {
                Ok(written) => {
                    buffer.truncate(written);
                    return buffer;
                }
                Err(_) => buffer.resize(written.unsigned_abs() as usize, 0),
            }
        }
    }

    /// Appends the tokens of `text`. Spelled control tokens become such only with `markup`; user-defined ones do
    /// always. No token is added in front or behind. `None` if the text is too long for llama.cpp (2 GiB).
    pub fn tokenize(&self, text: &str, markup: bool, tokens: &mut Vec<Token>) -> Option<()> {
        if text.is_empty() {
            return Some(());
        }
        let bytes = i32::try_from(text.len()).ok()?;
        let start = tokens.len();
        // Three bytes a token is a guess; a second round gets the exact number.
        let mut room = text.len() / 3 + 16;
        loop {
            tokens.resize(start + room, 0);
            // SAFETY: the text has `bytes` bytes, and `tokens` has `room` places from `start` on.
            let written = unsafe {
                sys::llama_tokenize(
                    self.raw.as_ptr(),
                    text.as_ptr().cast::<c_char>(),
                    bytes,
                    tokens[start..].as_mut_ptr(),
                    i32::try_from(room).ok()?,
                    false,
                    markup,
                )
            };
            match usize::try_from(written) {
                Ok(written) => {
                    tokens.truncate(start + written);
                    return Some(());
                }
                Err(_) if written == i32::MIN => return None,
                Err(_) => room = written.unsigned_abs() as usize,
            }
        }
    }
}

#[cfg(test)]
pub mod tests;
