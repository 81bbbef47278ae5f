//! Has a sound transcribed, one piece after another: each is a request of its own, so others' requests
//! come in between, and what is held is one piece. Dropping it stops what runs, and asks for no more.

use std::sync::Arc;
use std::time::Duration;

use super::request::{self, TranscriptionCall, Wish};
use super::segment::{Segment, joint};
use crate::access::quota::Share;
use crate::api::Api;
use crate::api::error::ApiError;
use crate::api::generation::next;
use crate::attachments::{Heard, Listener, Listening};
use crate::backend::{Answer, Failure};
use crate::chat::{ChatEvent, Done, PrincipalId, TokenLogprob, Usage};

/// How often a piece is asked again for which the queue has no room: what was heard before it would be
/// lost.
const TRIES: u32 = 60;
const PAUSE: Duration = Duration::from_secs(5);

/// See the module's text.
pub struct Transcriber {
    api: Arc<Api>,
    owner: PrincipalId,
    model: String,
    wish: Wish,
    listener: Listener,
    /// The bytes of the sound and of its pieces, for as long as they are held.
    _share: Share,
    piece: Option<Piece>,
    /// All pieces that are done.
    text: String,
    /// Seconds of sound that were taken up.
    seconds: f64,
    usage: Usage,
}

/// What has happened.
pub enum Step {
    /// More of the text.
    Delta(String),
    /// A piece is done in which something was said.
    Segment(Segment),
}

/// The piece that is being heard.
struct Piece {
    answer: Answer,
    begin: f64,
    end: f64,
    /// What was said, without blanks around it.
    said: String,
    /// Blanks behind it, which count if more comes.
    blanks: String,
    logprobs: f64,
    tokens: u32,
}

impl Transcriber {
    /// `share` has the bytes of the form's body.
    pub async fn begin(
        api: Arc<Api>,
        owner: PrincipalId,
        call: TranscriptionCall,
        mut share: Share,
    ) -> Result<Self, ApiError> {
        let TranscriptionCall { model, sound, wish } = call;
        let listening = Listening {
            longest: wish.format.longest_piece(),
            limit: api.limits.sound_time,
        };
        let listener = api
            .attachments
            .listen(&sound, &model, listening, &mut share)
            .await
            .map_err(|refused| ApiError::attachments(refused, request::field))?;
        Ok(Self {
            api,
            owner,
            model,
            wish,
            listener,
            _share: share,
            piece: None,
            text: String::new(),
            seconds: 0.0,
            usage: Usage::default(),
        })
    }

    /// What happens next; `None` when all was heard.
    pub async fn step(&mut self) -> Result<Option<Step>, ApiError> {
        let failed = |failure| ApiError::failure(failure, request::field);
        loop {
            let Some(piece) = &mut self.piece else {
                let Some(heard) = self.listener.next().await.map_err(failed)? else {
                    return Ok(None);
                };
                self.seconds = heard.end;
                // Nothing is said in it, and who is asked what it was makes something up.
                if !heard.silent {
                    self.piece = Some(self.ask(heard).await.map_err(failed)?);
                }
                continue;
            };
            match next(&mut piece.answer).await.map_err(failed)? {
                ChatEvent::Text { text, logprobs } => {
                    piece.rate(&logprobs);
                    let delta = piece.say(&text, &self.text);
                    if !delta.is_empty() {
                        return Ok(Some(Step::Delta(delta)));
                    }
                }
                ChatEvent::Restarted => piece.forget(),
                ChatEvent::Done(done) => {
                    if let Some(segment) = self.done(&done) {
                        return Ok(Some(Step::Segment(segment)));
                    }
                }
                _ => {}
            }
        }
    }

    /// All that was said so far.
    pub fn text(&self) -> &str {
        &self.text
    }

    pub fn wish(&self) -> &Wish {
        &self.wish
    }

    pub fn seconds(&self) -> f64 {
        self.seconds
    }

    /// Of all pieces together.
    pub fn usage(&self) -> Usage {
        self.usage
    }

    async fn ask(&self, heard: Heard) -> Result<Piece, Failure> {
        let is_first = heard.begin == 0.0;
        let mut request = self.wish.request(heard.part, heard.decoded);
        // Nobody goes on from one of many pieces, and they would push out what somebody does.
        request.cache_prompt = is_first && heard.is_last;
        let mut tries = 1;
        let answer = loop {
            let asked = self
                .api
                .backends
                .chat(self.owner, &self.model, request.clone());
            match asked.await {
                Err(Failure::QueueFull { .. } | Failure::UserQueueFull { .. })
                    if !is_first && tries < TRIES =>
                {
                    tries += 1;
                    tokio::time::sleep(PAUSE).await;
                }
                answer => break answer?,
            }
        };
        Ok(Piece {
            answer,
            begin: heard.begin,
            end: heard.end,
            said: String::new(),
            blanks: String::new(),
            logprobs: 0.0,
            tokens: 0,
        })
    }

    /// The piece has come to its end.
    fn done(&mut self, done: &Done) -> Option<Segment> {
        let usage = &mut self.usage;
        usage.prompt_tokens += done.usage.prompt_tokens;
        usage.cached_tokens += done.usage.cached_tokens;
        usage.completion_tokens += done.usage.completion_tokens;
        let piece = self.piece.take().filter(|piece| !piece.said.is_empty())?;
        self.text.push_str(joint(&self.text, &piece.said));
        self.text.push_str(&piece.said);
        Some(Segment {
            begin: piece.begin,
            end: piece.end,
            text: piece.said,
            logprob: piece.logprobs / f64::from(piece.tokens.max(1)),
        })
    }
}

impl Piece {
    /// Takes more of its text, and returns what that adds to the text `before` it.
    fn say(&mut self, text: &str, before: &str) -> String {
        let is_first = self.said.is_empty();
        let text = match is_first {
            true => text.trim_start(),
            false => text,
        };
        let words = text.trim_end();
        if words.is_empty() {
            if !is_first {
                self.blanks.push_str(text);
            }
            return String::new();
        }
        let between = match is_first {
            true => joint(before, words).to_owned(),
            false => std::mem::take(&mut self.blanks),
        };
        if !is_first {
            self.said.push_str(&between);
        }
        self.said.push_str(words);
        self.blanks = text[words.len()..].to_owned();
        between + words
    }

    fn rate(&mut self, logprobs: &[TokenLogprob]) {
        self.tokens += logprobs.len() as u32;
        self.logprobs += logprobs
            .iter()
            .map(|token| f64::from(token.logprob))
            .sum::<f64>();
    }

    /// It is answered anew.
    fn forget(&mut self) {
        self.said.clear();
        self.blanks.clear();
        (self.logprobs, self.tokens) = (0.0, 0);
    }
}
