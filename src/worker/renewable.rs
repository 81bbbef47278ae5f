//! A context that can be given back while nobody needs it, and made again: its cache and its
//! buffers are most of what a worker has that cannot be evicted.

use super::llama::Context;

/// Makes the context, the first time and again.
type Make = Box<dyn Fn() -> Result<Context, String>>;

pub struct Renewable {
    make: Make,
    context: Option<Context>,
}

impl Renewable {
    /// With a context from the start.
    pub fn new(make: impl Fn() -> Result<Context, String> + 'static) -> Result<Self, String> {
        let context = Some(make()?);
        Ok(Self {
            make: Box::new(make),
            context,
        })
    }

    /// The context, if it was not given back.
    pub fn get(&mut self) -> Option<&mut Context> {
        self.context.as_mut()
    }

    /// Sees to it that there is one.
    pub fn renew(&mut self) -> Result<(), String> {
        if self.context.is_none() {
            self.context = Some((self.make)()?);
        }
        Ok(())
    }

    /// Frees it, and with it all that the sequences hold.
    pub fn release(&mut self) {
        self.context = None;
    }

    /// See [`Context::cut`]. What was given back holds nothing.
    pub fn cut(&mut self, sequence: u32, from: u32) {
        if let Some(context) = &mut self.context {
            context.cut(sequence, from);
        }
    }

    /// See [`Context::oldest`].
    pub fn oldest(&self, sequence: u32) -> Option<u32> {
        self.context.as_ref()?.oldest(sequence)
    }
}
