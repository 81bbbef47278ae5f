//! The bytes of one request: charged to its caller's share before anything is made of them.

use super::error::BusError;
use crate::access::quota::Share;

/// What a request holds, and how much more it may.
pub struct Charge {
    share: Share,
    limit: u64,
    taken: u64,
}

impl Charge {
    /// Nothing yet, and at most `limit` bytes.
    pub fn new(share: Share, limit: u64) -> Self {
        Self {
            share,
            limit,
            taken: 0,
        }
    }

    /// Charges so many bytes more.
    ///
    /// # Errors
    ///
    /// `TooLarge` if the request may not have so many, `Busy` if its caller has too many in other
    /// requests.
    pub fn take(&mut self, bytes: usize) -> Result<(), BusError> {
        let taken = self.taken.saturating_add(bytes as u64);
        if taken > self.limit {
            return Err(BusError::TooLarge(format!(
                "the request has {taken} bytes; at most {} are taken (`body-size` in gemmad.toml)",
                self.limit
            )));
        }
        self.share.grow(bytes as u64).map_err(BusError::bodies)?;
        self.taken = taken;
        Ok(())
    }

    /// What is held until the request is answered.
    pub fn into_share(self) -> Share {
        self.share
    }
}
