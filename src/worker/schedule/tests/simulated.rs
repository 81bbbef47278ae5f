//! Requests of all kinds, step after step, without llama.cpp.

use proptest::prelude::*;

use super::*;

/// A request of a simulated worker.
#[derive(Clone, Debug)]
struct Request {
    prompt: Sequence,
    /// Tokens of its answer.
    answer: usize,
    cache_prompt: bool,
    /// Tokens that it would try in a step, the first half of which are right.
    draft: usize,
    stops: Stops,
    medium: MediumState,
    awaits_mask: bool,
    /// Prompt tokens decoded, and reused.
    decoded: usize,
    sampled: usize,
}

/// A worker without llama.cpp, which performs plans and checks them.
struct Simulation {
    cached: Vec<Sequence>,
    last_used: Vec<u64>,
    running: Vec<Option<Request>>,
    waiting: Vec<Request>,
    limits: Limits,
    media_turn: usize,
    now: u64,
}

impl Simulation {
    fn plan(&self) -> StepPlan {
        let sequences: Vec<_> = (0..self.cached.len())
            .map(|i| SequenceState {
                cached: &self.cached[i],
                first_position: (!self.cached[i].is_empty()).then_some(0),
                checkpoint: None,
                owner: Some(OWNER),
                last_used: self.last_used[i],
                reserved: self.cached[i].len(),
                request: self.running[i].as_ref().map(|request| RunningState {
                    prompt: &request.prompt,
                    fresh: usize::from(request.sampled > 0),
                    draft: request.draft,
                    medium: request.medium,
                    awaits_mask: request.awaits_mask,
                    rates_prompt: false,
                    tier: ServiceTier::Default,
                    stops: request.stops,
                }),
            })
            .collect();
        let waiting = self.waiting.iter().map(|request| WaitingState {
            prompt: &request.prompt,
            owner: OWNER,
            cache_prompt: request.cache_prompt,
            rates_prompt: false,
            tier: ServiceTier::Default,
            stops: request.stops,
            fetched: None,
        });
        let waiting: Vec<_> = waiting.collect();
        step(&sequences, &waiting, self.media_turn, &self.limits)
    }

    /// One step; `masked` is whether new tokens have to wait for a mask. Returns whether anything
    /// was decoded, or an event is awaited.
    fn perform(&mut self, masked: bool) {
        let plan = self.plan();
        for admission in &plan.admissions {
            let mut request = self.waiting.remove(0);
            let cached = &mut self.cached[admission.sequence];
            assert!(self.running[admission.sequence].is_none());
            assert!(admission.reuse < request.prompt.len());
            assert!(admission.reuse <= cached.common(&request.prompt));
            cached.truncate(admission.reuse);
            request.decoded = admission.reuse;
            self.now += 1;
            self.last_used[admission.sequence] = self.now;
            self.running[admission.sequence] = Some(request);
        }
        for &sequence in &plan.encode {
            let request = self.running[sequence].as_mut().unwrap();
            assert_eq!(request.medium, MediumState::Raw, "encoded once");
            request.medium = MediumState::Encoding;
        }
        let free = self.running.iter().any(Option::is_none);
        assert!(self.waiting.is_empty() || !free, "a free sequence is taken");
        let total: usize = plan.segments.iter().map(|one| one.tokens.count()).sum();
        assert!(total <= self.limits.batch);
        let decoding = self.running.iter().flatten();
        let decoding = decoding.filter(|one| one.decoded == one.prompt.len() && !one.awaits_mask);
        let decoding = decoding.count();
        let sampled = plan
            .segments
            .iter()
            .filter(|one| matches!(one.tokens, Tokens::Sampled { .. }));
        assert_eq!(
            sampled.count(),
            decoding.min(self.limits.batch),
            "each answer goes on"
        );
        let outputs: usize = plan.segments.iter().map(|one| one.logits).sum();
        assert!(outputs <= self.limits.outputs);
        let progress = total > 0 || plan.embeddings.is_some();
        assert_eq!(progress, !matches!(plan.receive, Receive::Wait { .. }));
        for segment in &plan.segments {
            if let Tokens::Prompt(range) = &segment.tokens {
                let stops = self.running[segment.sequence].as_ref().unwrap().stops;
                let jumps = |stop: usize| range.start < stop && stop < range.end;
                assert!(![stops.fork, stops.turn].into_iter().flatten().any(jumps));
            }
            self.decode(segment, masked);
        }
        if let Some(segment) = plan.embeddings {
            self.decode_embeddings(&segment);
        }
        if !progress {
            self.deliver();
        }
    }

    fn decode(&mut self, segment: &Segment, masked: bool) {
        let cached = &mut self.cached[segment.sequence];
        let request = self.running[segment.sequence].as_mut().unwrap();
        match &segment.tokens {
            Tokens::Prompt(range) => {
                assert_eq!(range.start, cached.len(), "contiguous");
                assert_eq!(range.start, request.decoded, "each token once");
                let tokens = &request.prompt.tokens[range.clone()];
                assert!(!tokens.contains(&9), "a medium is no text");
                cached.tokens.extend_from_slice(tokens);
                request.decoded = range.end;
            }
            Tokens::Sampled { fresh, draft } => {
                assert!(
                    request.sampled > 0,
                    "nothing is sampled before the prompt was decoded"
                );
                assert!(*fresh == 1 && *draft <= request.draft);
                cached.tokens.extend(vec![8; fresh + draft / 2]);
                request.sampled += draft / 2;
                assert_eq!(segment.logits, draft + 1);
            }
        }
        if let Tokens::Prompt(_) = &segment.tokens {
            let is_read = request.decoded == request.prompt.len();
            assert_eq!(segment.logits, usize::from(is_read));
        }
        if segment.logits > 0 {
            request.sampled += 1;
            request.awaits_mask = masked;
        }
        if request.sampled > request.answer {
            let request = self.running[segment.sequence].take().unwrap();
            if !request.cache_prompt {
                self.cached[segment.sequence].truncate(0);
            }
        }
    }

    fn decode_embeddings(&mut self, segment: &EmbeddingsSegment) {
        let cached = &mut self.cached[segment.sequence];
        let request = self.running[segment.sequence].as_mut().unwrap();
        assert_eq!(request.medium, MediumState::Encoded);
        assert!(segment.count <= self.limits.embeddings && segment.count > 0);
        assert_eq!(cached.len(), segment.span.at + segment.offset);
        if segment.offset == 0 {
            cached.media.push(segment.span);
        }
        let end = cached.len() + segment.count;
        let tokens = &request.prompt.tokens[cached.len()..end];
        cached.tokens.extend_from_slice(tokens);
        request.decoded = end;
        if end == segment.span.at + segment.span.count {
            request.medium = MediumState::Raw;
        }
        self.media_turn = segment.sequence + 1;
    }

    /// The threads beside the loop answer.
    fn deliver(&mut self) {
        let mut delivered = false;
        for request in self.running.iter_mut().flatten() {
            delivered |= request.awaits_mask || request.medium == MediumState::Encoding;
            request.awaits_mask = false;
            if request.medium == MediumState::Encoding {
                request.medium = MediumState::Encoded;
            }
        }
        assert!(delivered || self.running.iter().all(Option::is_none));
    }
}

fn request() -> impl Strategy<Value = Request> {
    let text = "[.ab]{0,8}[.]{1,12}";
    (text, 0usize..6, any::<bool>(), 0usize..9).prop_map(|(text, answer, cache_prompt, draft)| {
        Request {
            draft,
            stops: Stops {
                ends: [Some(text.len() / 4), None, None],
                shared: None,
                fork: Some(text.len() / 3),
                turn: Some(text.len() / 2),
            },
            prompt: prompt(&text),
            answer,
            cache_prompt,
            medium: MediumState::Raw,
            awaits_mask: false,
            decoded: 0,
            sampled: 0,
        }
    })
}

proptest! {
    #[test]
    fn every_request_is_answered_and_every_token_decoded_once(
        requests in prop::collection::vec((request(), 0usize..4), 1..12),
        sequences in 1usize..4,
        batch in 4usize..20,
        beside_answers in 1usize..20,
        embeddings in 1usize..8,
        masks in prop::collection::vec(any::<bool>(), 1..8),
    ) {
        let mut simulation = Simulation {
            cached: vec![Sequence::default(); sequences],
            last_used: vec![0; sequences],
            running: vec![None; sequences],
            waiting: vec![],
            limits: Limits { batch, beside_answers, outputs: 8, embeddings, whole_media: false, window: 100, room: ROOM },
            media_turn: 0,
            now: 0,
        };
        let mut masks = masks.iter().copied().cycle();
        for (request, pause) in requests {
            simulation.waiting.push(request);
            for _ in 0..pause {
                simulation.perform(masks.next().unwrap_or_default());
            }
        }
        for _ in 0..2000 {
            simulation.perform(masks.next().unwrap_or_default());
        }
        let open = simulation.running.iter().flatten().count() + simulation.waiting.len();
        prop_assert_eq!(open, 0, "every step makes progress");
        prop_assert!(simulation.cached.iter().all(|cached| cached.media.iter().all(|span| span.at < cached.len())));
    }
}
