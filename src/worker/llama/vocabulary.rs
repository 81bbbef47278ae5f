//! llama.cpp's own reading of a vocabulary, against which the tests hold ours.

use std::ffi::{CStr, CString, c_char};
use std::path::Path;
use std::ptr::NonNull;

use llama_cpp_sys_2 as sys;

use super::{Token, alone};

/// The vocabulary of a model that is never freed.
pub struct Oracle(NonNull<sys::llama_vocab>);

impl Oracle {
    /// Reads a file's vocabulary, and nothing else of it.
    pub fn read(path: &Path) -> Self {
        let _alone = alone();
        let name = CString::new(path.to_str().unwrap()).unwrap();
        // SAFETY: no arguments, plain data.
        let mut params = unsafe { sys::llama_model_default_params() };
        params.vocab_only = true;
        // SAFETY: the name outlives the call.
        let model = unsafe { sys::llama_model_load_from_file(name.as_ptr(), params) };
        assert!(!model.is_null(), "{path:?} cannot be loaded");
        // SAFETY: the model was loaded just now.
        let vocab = unsafe { sys::llama_model_get_vocab(model) };
        Self(NonNull::new(vocab.cast_mut()).unwrap())
    }

    pub fn len(&self) -> usize {
        // SAFETY: the model is never freed.
        unsafe { sys::llama_vocab_n_tokens(self.0.as_ptr()) as usize }
    }

    pub fn begin(&self) -> Token {
        // SAFETY: as above.
        unsafe { sys::llama_vocab_bos(self.0.as_ptr()) }
    }

    pub fn is_end(&self, token: Token) -> bool {
        // SAFETY: as above; `token` is one of the vocabulary.
        unsafe { sys::llama_vocab_is_eog(self.0.as_ptr(), token) }
    }

    /// Whether it is found by its spelling.
    pub fn is_spelled(&self, token: Token) -> bool {
        let found = sys::LLAMA_TOKEN_ATTR_CONTROL
            | sys::LLAMA_TOKEN_ATTR_USER_DEFINED
            | sys::LLAMA_TOKEN_ATTR_UNKNOWN;
        // SAFETY: as above.
        unsafe { sys::llama_vocab_get_attr(self.0.as_ptr(), token) & found != 0 }
    }

    pub fn text(&self, token: Token) -> String {
        // SAFETY: as above; the text ends in NUL and is copied at once.
        unsafe { CStr::from_ptr(sys::llama_vocab_get_text(self.0.as_ptr(), token)) }
            .to_str()
            .unwrap()
            .to_owned()
    }

    pub fn bytes(&self, token: Token) -> Vec<u8> {
        let mut buffer = vec![0u8; 1024];
        let (place, room) = (buffer.as_mut_ptr().cast::<c_char>(), buffer.len() as i32);
        // SAFETY: the buffer has the length that is passed.
        let written =
            unsafe { sys::llama_token_to_piece(self.0.as_ptr(), token, place, room, 0, true) };
        buffer.truncate(usize::try_from(written).unwrap());
        buffer
    }

    pub fn tokens(&self, text: &str, markup: bool) -> Vec<Token> {
        let mut tokens = vec![0; text.len() + 1];
        let (from, bytes, room) = (
            text.as_ptr().cast::<c_char>(),
            text.len() as i32,
            tokens.len() as i32,
        );
        // SAFETY: the text has `bytes` bytes, and `tokens` has `room` places.
        let written = unsafe {
            sys::llama_tokenize(
                self.0.as_ptr(),
                from,
                bytes,
                tokens.as_mut_ptr(),
                room,
                false,
                markup,
            )
        };
        tokens.truncate(usize::try_from(written).unwrap());
        tokens
    }
}
