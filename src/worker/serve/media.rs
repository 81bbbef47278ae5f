//! Pictures and sounds of requests: they are encoded beside the loop, and decoded in pieces.

use std::sync::Arc;

use super::{Server, inference};
use crate::chat::ChatError;
use crate::worker::encoder::EncodeJob;
use crate::worker::llama::DecodeError;
use crate::worker::messages::Encoded;
use crate::worker::schedule::EmbeddingsSegment;

impl Server {
    /// A medium was encoded; the request that waited for it may have ended.
    pub(super) fn encoded(&mut self, Encoded { slot, id, rows }: Encoded) {
        let running = self.running[slot].as_mut();
        let Some(generation) = running.filter(|generation| generation.id == id) else {
            return;
        };
        match rows {
            Ok(rows) => generation.encoded(rows),
            Err(error) => {
                self.out.failed(id, error);
                self.free(slot);
            }
        }
    }

    /// Has the next medium of a sequence's request encoded; `false` if that failed.
    pub(super) fn encode(&mut self, sequence: usize) -> bool {
        let Some(generation) = &mut self.running[sequence] else {
            return true;
        };
        let (id, cancelled) = (generation.id, generation.cancel_flag());
        let Some(medium) = generation.encode_next() else {
            return true;
        };
        let job = EncodeJob {
            slot: sequence,
            id,
            medium: Arc::downgrade(medium),
            cancelled,
        };
        let asked = match &self.encoder {
            Some(encoder) => encoder.encode(job),
            None => Err(ChatError::Inference {
                reason: "the worker has no projector".to_owned(),
            }),
        };
        if let Err(error) = asked {
            self.out.failed(id, error);
            self.free(sequence);
            return false;
        }
        true
    }

    /// Decodes a medium, or as much of it as one step takes; `false` if that did not come to its end.
    pub(super) fn decode_embeddings(&mut self, segment: &EmbeddingsSegment) -> bool {
        let sequence = segment.sequence;
        let sequences = &mut self.engine.sequences;
        // A batch that failed has not brought the sequence to where the medium is.
        let due = sequences.cached(sequence).len() == segment.span.at + segment.offset;
        let Some(generation) = self.running[sequence].as_mut().filter(|_| due) else {
            return false;
        };
        let cancelled = generation.cancel_flag();
        let Some(piece) = generation.piece(segment) else {
            return false;
        };
        self.media_turn = sequence + 1;
        let decoded = sequences.decode_embeddings(sequence, &piece, cancelled);
        match decoded {
            Ok(()) => generation.piece_decoded(segment),
            Err(DecodeError::Aborted) => {}
            Err(error) => self.fail(sequence, inference(error)),
        }
        decoded.is_ok()
    }
}
