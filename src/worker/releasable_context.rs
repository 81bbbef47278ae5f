//! A context that can be freed while it is not needed, and made again: its cache and its buffers are
//! most of what a worker has that cannot be evicted.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::llama::{Batch, Context, DecodeError, DraftStart, Extent, Guess, Rows};
use super::sequences::KvCache;

/// Makes the context, the first time and again.
type Make = Box<dyn Fn() -> Result<Context, String>>;

pub struct ReleasableContext {
    make: Make,
    context: Option<Context>,
}

impl ReleasableContext {
    /// With a context from the start.
    pub fn new(make: impl Fn() -> Result<Context, String> + 'static) -> Result<Self, String> {
        let context = Some(make()?);
        Ok(Self {
            make: Box::new(make),
            context,
        })
    }
}

impl KvCache for ReleasableContext {
    fn reserve(&mut self) -> Result<(), String> {
        if self.context.is_none() {
            self.context = Some((self.make)()?);
        }
        Ok(())
    }

    fn release(&mut self) {
        self.context = None;
    }

    fn truncate(&mut self, sequence: u32, from: u32) {
        if let Some(context) = &mut self.context {
            context.truncate(sequence, from);
        }
    }

    fn first_position(&self, sequence: u32) -> Option<u32> {
        self.context.as_ref()?.first_position(sequence)
    }

    fn decode(
        &mut self,
        batch: &mut Batch,
        cancelled: impl Iterator<Item = Arc<AtomicBool>>,
    ) -> Result<(), DecodeError> {
        let context = self.context.as_mut().ok_or(DecodeError::Released)?;
        context.decode(batch, cancelled)
    }

    fn decode_embeddings(
        &mut self,
        rows: Rows<'_>,
        cancelled: Arc<AtomicBool>,
    ) -> Result<(), DecodeError> {
        let context = self.context.as_mut().ok_or(DecodeError::Released)?;
        context.decode_embeddings(rows, cancelled)
    }

    fn draft(
        &mut self,
        start: DraftStart,
        cancelled: Arc<AtomicBool>,
        goes_on: &mut dyn FnMut(Guess) -> bool,
    ) {
        if let Some(context) = &mut self.context {
            context.draft(start, cancelled, goes_on);
        }
    }

    fn state_bytes(&mut self, sequence: u32, extent: Extent) -> usize {
        let context = self.context.as_mut();
        context.map_or(0, |context| context.state_bytes(sequence, extent))
    }

    fn save(&mut self, sequence: u32, extent: Extent) -> Option<Vec<u8>> {
        self.context.as_mut()?.save(sequence, extent)
    }

    fn restore(&mut self, sequence: u32, state: &[u8], extent: Extent) -> bool {
        let context = self.context.as_mut();
        context.is_some_and(|context| context.restore(sequence, state, extent))
    }

    fn logits(&mut self, row: usize) -> Option<&[f32]> {
        self.context.as_mut()?.logits(row)
    }
}
