//! The tokens of one step, or rows in place of tokens.

use llama_cpp_sys_2 as sys;

use super::Token;

/// Tokens of several sequences that are computed together. Its memory is reserved once.
#[derive(Debug)]
pub struct Batch {
    tokens: Vec<Token>,
    positions: Vec<i32>,
    sequences: Vec<i32>,
    outputs: Vec<i8>,
    /// One for each token: how many sequences it belongs to.
    ones: Vec<i32>,
    /// One for each token: where its sequence stands. Filled when llama.cpp gets the batch.
    places: Vec<*mut i32>,
}

impl Batch {
    /// A batch with room for `size` tokens.
    pub fn new(size: usize) -> Self {
        Self {
            tokens: Vec::with_capacity(size),
            positions: Vec::with_capacity(size),
            sequences: Vec::with_capacity(size),
            outputs: Vec::with_capacity(size),
            ones: vec![1; size],
            places: Vec::with_capacity(size),
        }
    }

    pub fn clear(&mut self) {
        self.tokens.clear();
        self.positions.clear();
        self.sequences.clear();
        self.outputs.clear();
    }

    pub fn tokens(&self) -> &[Token] {
        &self.tokens
    }

    /// The sequence of each token, and the token.
    pub fn entries(&self) -> impl Iterator<Item = (u32, Token)> {
        let sequences = self.sequences.iter().map(|&sequence| sequence as u32);
        sequences.zip(self.tokens.iter().copied())
    }

    /// Adds a token at `position` of `sequence`; with `output` its logits will be asked for.
    /// Returns its row. llama.cpp computes sequences together whose tokens come in the order of
    /// their numbers.
    pub fn push(&mut self, token: Token, position: u32, sequence: u32, output: bool) -> usize {
        self.tokens.push(token);
        self.positions.push(position as i32);
        self.sequences.push(sequence as i32);
        self.outputs.push(i8::from(output));
        self.tokens.len() - 1
    }

    /// The batch in llama.cpp's form: valid until `self` changes or moves.
    pub(super) fn raw(&mut self) -> sys::llama_batch {
        let count = self.tokens.len();
        if self.ones.len() < count {
            self.ones.resize(count, 1);
        }
        self.places.clear();
        self.places
            .extend(self.sequences.iter_mut().map(std::ptr::from_mut));
        sys::llama_batch {
            n_tokens: count as i32,
            token: self.tokens.as_mut_ptr(),
            embd: std::ptr::null_mut(),
            pos: self.positions.as_mut_ptr(),
            n_seq_id: self.ones.as_mut_ptr(),
            seq_id: self.places.as_mut_ptr(),
            logits: self.outputs.as_mut_ptr(),
        }
    }
}

/// Rows of one sequence in place of tokens: a picture or a sound, or a piece of one.
#[derive(Clone, Copy, Debug)]
pub struct Rows<'a> {
    pub numbers: &'a [f32],
    /// How many rows the numbers are.
    pub count: usize,
    /// Where the first one stands.
    pub position: u32,
    pub sequence: u32,
    /// They are a picture's.
    pub picture: bool,
}

/// Rows, with the position and the sequence of each.
pub(super) struct RowBatch<'a> {
    rows: Rows<'a>,
    positions: Vec<i32>,
    sequences: Vec<i32>,
    ones: Vec<i32>,
    /// No logits are wanted.
    outputs: Vec<i8>,
    places: Vec<*mut i32>,
}

impl<'a> RowBatch<'a> {
    /// `None` if the numbers are not as many rows of `width` as they should be.
    pub(super) fn new(rows: Rows<'a>, width: usize) -> Option<Self> {
        let first = rows.position as i32;
        (rows.numbers.len() == rows.count * width).then(|| Self {
            rows,
            positions: (first..).take(rows.count).collect(),
            sequences: vec![rows.sequence as i32; rows.count],
            ones: vec![1; rows.count],
            outputs: vec![0; rows.count],
            places: vec![],
        })
    }

    /// The batch in llama.cpp's form: valid until `self` changes or moves.
    pub(super) fn raw(&mut self) -> sys::llama_batch {
        self.places = self.sequences.iter_mut().map(std::ptr::from_mut).collect();
        sys::llama_batch {
            n_tokens: self.rows.count as i32,
            token: std::ptr::null_mut(),
            // llama.cpp only reads it.
            embd: self.rows.numbers.as_ptr().cast_mut(),
            pos: self.positions.as_mut_ptr(),
            n_seq_id: self.ones.as_mut_ptr(),
            seq_id: self.places.as_mut_ptr(),
            logits: self.outputs.as_mut_ptr(),
        }
    }
}
