use super::*;

/// A cache that notes what it holds, and fails when it is told to.
#[derive(Default)]
pub struct FakeCache {
    pub lens: Vec<usize>,
    pub next: Option<DecodeError>,
}

impl FakeCache {
    pub fn new(count: usize) -> Self {
        Self {
            lens: vec![0; count],
            next: None,
        }
    }
}

impl KvCache for FakeCache {
    fn reserve(&mut self) -> Result<(), String> {
        Ok(())
    }

    fn release(&mut self) {
        self.lens.iter_mut().for_each(|len| *len = 0);
    }

    fn truncate(&mut self, sequence: u32, from: u32) {
        let len = &mut self.lens[sequence as usize];
        *len = (*len).min(from as usize);
    }

    fn first_position(&self, sequence: u32) -> Option<u32> {
        (self.lens[sequence as usize] > 0).then_some(0)
    }

    /// What fails fails after the first token.
    fn decode(
        &mut self,
        batch: &mut Batch,
        _: impl Iterator<Item = Arc<AtomicBool>>,
    ) -> Result<(), DecodeError> {
        let error = self.next.take();
        let count = if error.is_some() { 1 } else { usize::MAX };
        for (sequence, _) in batch.entries().take(count) {
            self.lens[sequence as usize] += 1;
        }
        error.map_or(Ok(()), Err)
    }

    fn decode_embeddings(&mut self, rows: Rows<'_>, _: Arc<AtomicBool>) -> Result<(), DecodeError> {
        let len = &mut self.lens[rows.sequence as usize];
        assert_eq!(*len, rows.position as usize);
        *len += rows.count;
        self.next.take().map_or(Ok(()), Err)
    }

    fn draft(&mut self, _: DraftStart, _: Arc<AtomicBool>, _: &mut dyn FnMut(Guess) -> bool) {}

    /// A state is how many tokens there are; of sliding layers, with a mark.
    fn state_bytes(&mut self, _: u32, extent: Extent) -> usize {
        match extent {
            Extent::Whole => 8,
            Extent::Sliding => 9,
        }
    }

    fn save(&mut self, sequence: u32, extent: Extent) -> Option<Vec<u8>> {
        let mut state = self.lens[sequence as usize].to_le_bytes().to_vec();
        if extent == Extent::Sliding {
            state.push(0);
        }
        Some(state)
    }

    fn restore(&mut self, sequence: u32, state: &[u8], extent: Extent) -> bool {
        if state.len() != self.state_bytes(sequence, extent) {
            return false;
        }
        if extent == Extent::Whole {
            self.lens[sequence as usize] = usize::from_le_bytes(state.try_into().unwrap());
        }
        true
    }

    fn logits(&mut self, _: usize) -> Option<&[f32]> {
        None
    }
}

fn lens(sequences: &Sequences<FakeCache>) -> Vec<usize> {
    let ours = (0..sequences.count()).map(|i| sequences.cached(i).len());
    let ours: Vec<usize> = ours.collect();
    assert_eq!(ours, sequences.cache.lens, "both sides hold the same");
    ours
}

fn filled() -> Sequences<FakeCache> {
    let mut sequences = Sequences::new(FakeCache::new(3), 3, 16);
    assert_eq!(sequences.push(0, &[1, 2, 3], 1), 2);
    assert_eq!(sequences.push(2, &[4, 5], 0), 4);
    assert_eq!(sequences.batch(), [1, 2, 3, 4, 5]);
    assert_eq!(
        lens(&sequences),
        [0, 0, 0],
        "nothing is held before it was decoded"
    );
    sequences.decode(std::iter::empty()).unwrap();
    sequences.clear_batch();
    assert_eq!(lens(&sequences), [3, 0, 2]);
    sequences
}

#[test]
fn what_was_decoded_is_held() {
    let mut sequences = filled();
    sequences.push(2, &[6], 1);
    sequences.decode(std::iter::empty()).unwrap();
    assert_eq!(sequences.cached(2).tokens, [4, 5, 6]);
    sequences.truncate(0, 1);
    sequences.begin(0, PrincipalId::User(1000), 9);
    assert_eq!(
        (lens(&sequences), sequences.last_used(0)),
        (vec![1, 0, 3], 9)
    );
    sequences.clear(2);
    assert_eq!(lens(&sequences), [1, 0, 0]);
    sequences.release();
    assert_eq!(lens(&sequences), [0, 0, 0]);
}

#[test]
fn a_batch_that_was_aborted_leaves_nothing() {
    let mut sequences = filled();
    sequences.cache.next = Some(DecodeError::Aborted);
    sequences.push(0, &[7, 8], 1);
    assert_eq!(
        sequences.decode(std::iter::empty()),
        Err(DecodeError::Aborted)
    );
    assert_eq!(lens(&sequences), [3, 0, 2]);
}

#[test]
fn a_batch_that_failed_empties_its_sequences() {
    let mut sequences = filled();
    sequences.cache.next = Some(DecodeError::Failed(-1));
    sequences.push(0, &[7, 8], 1);
    assert_eq!(
        sequences.decode(std::iter::empty()),
        Err(DecodeError::Failed(-1))
    );
    assert_eq!(lens(&sequences), [0, 0, 2], "the others keep theirs");
}

#[test]
fn a_medium_is_held_in_pieces() {
    let span = MediumSpan {
        at: 3,
        count: 3,
        digest: [1; 32],
    };
    let piece = |tokens| Piece {
        span,
        tokens,
        rows: &[],
        is_picture: true,
    };
    let mut sequences = filled();
    let decode = |sequences: &mut Sequences<_>, piece| {
        sequences.decode_embeddings(0, &piece, Arc::default())
    };
    decode(&mut sequences, piece(&[9, 9])).unwrap();
    assert_eq!(sequences.cached(0).media, [span]);
    sequences.cache.next = Some(DecodeError::Aborted);
    decode(&mut sequences, piece(&[9])).unwrap_err();
    assert_eq!(lens(&sequences), [5, 0, 2]);
    decode(&mut sequences, piece(&[9])).unwrap();
    assert_eq!(sequences.cached(0).tokens, [1, 2, 3, 9, 9, 9]);
    assert_eq!(sequences.cached(0).media, [span]);
    sequences.cache.next = Some(DecodeError::Malformed);
    decode(&mut sequences, piece(&[9])).unwrap_err();
    assert_eq!(
        (lens(&sequences), sequences.cached(0).media.len()),
        (vec![0, 0, 2], 0)
    );
}

#[test]
fn a_sequence_goes_back_to_its_checkpoint() {
    let mut sequences = filled();
    assert!(!sequences.take_checkpoint(0, 8), "too large");
    assert_eq!(sequences.checkpoint(0), None);
    assert!(sequences.take_checkpoint(0, 9));
    sequences.push(0, &[7, 8], 1);
    sequences.decode(std::iter::empty()).unwrap();
    assert_eq!(
        (sequences.checkpoint(0), lens(&sequences)),
        (Some(3), vec![5, 0, 2])
    );
    assert!(sequences.go_back(0));
    assert_eq!(
        (sequences.checkpoint(0), lens(&sequences)),
        (Some(3), vec![3, 0, 2])
    );
    sequences.truncate(0, 2);
    assert_eq!(sequences.checkpoint(0), None, "what it was made of is gone");
    assert!(!sequences.go_back(0));
    assert_eq!(lens(&sequences), [0, 0, 2]);
}

#[test]
fn what_was_saved_is_restored_in_another_sequence() {
    let mut sequences = filled();
    sequences.take_checkpoint(0, 9);
    sequences.push(0, &[7, 8], 1);
    sequences.decode(std::iter::empty()).unwrap();
    let saved = || {
        let mut sequences = filled();
        sequences.take_checkpoint(0, 9);
        sequences.push(0, &[7, 8], 1);
        sequences.decode(std::iter::empty()).unwrap();
        sequences.save(0).unwrap()
    };
    let prompt = Sequence {
        tokens: vec![1, 2, 3, 7, 8, 9],
        media: vec![],
    };
    for tokens in [5, 3] {
        assert!(sequences.restore(1, &prompt, saved(), tokens));
        assert_eq!(sequences.cached(1).tokens, prompt.tokens[..tokens]);
        assert_eq!(lens(&sequences), [5, tokens, 2]);
    }
    assert!(
        !sequences.restore(1, &prompt, saved(), 4),
        "there is no such place"
    );
    assert_eq!(lens(&sequences), [5, 0, 2]);
    let mut broken = saved();
    broken[0].bytes.pop();
    assert!(!sequences.restore(1, &prompt, broken, 5));
    assert_eq!(lens(&sequences), [5, 0, 2]);
}
