//! The preparer thread: from a request to the tokens of its prompt.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, SyncSender};

use sha2::{Digest, Sha256};

use super::compiler::{self, CompileJob, CompilerHandle};
use super::constraint::{Constraints, GrammarCompiler, GrammarSources};
use super::inbox::Ends;
use super::link::Writer;
use super::llama::Token;
use super::media::{Form, Medium, less};
use super::messages::{Chat, Incoming, Prepared, ServerMessage};
use super::prompt::{Prompter, Segment, opens_thought};
use super::prompt_cache::{Listed, Places};
use super::schedule::room::ANSWER;
use super::sequence::Sequence;
use super::vocab::Vocab;
use crate::chat::{
    ChatError, ChatRequest, Detail, MAX_TEXT_BYTES, Message, Part, RawPrompt, Role, TextAnswer,
    TextTask, Thinking, Tool,
};
use crate::gemma::marker;
use crate::gemma::sound::Hearing;
use crate::ipc::{ProjectorPlan, ServeEvent};

/// Makes prompts for one model.
pub struct Preparer {
    pub prompter: Prompter,
    pub vocab: Vocab,
    /// Bytes of the longest token.
    pub longest: usize,
    /// Tokens of context that a request may come to have, and those that it has in any case.
    pub context: u32,
    pub floor: u32,
    /// `None` without a projector.
    pub media: Option<MediaSupport>,
    /// Those that everybody goes on from.
    pub system_prompts: Vec<String>,
}

/// What pictures and sounds the model takes with its projector.
pub struct MediaSupport {
    picture: MediumTokens,
    /// Pixels of a picture's side.
    longest_side: u32,
    /// Tokens of one picture.
    most: u32,
    sound: Option<(MediumTokens, Hearing)>,
}

/// The tokens around a medium, and the one that stands for each of its own.
struct MediumTokens {
    begin: Token,
    soft: Token,
    end: Token,
}

impl MediumTokens {
    fn of(vocab: Vocab, [begin, soft, end]: [&str; 3]) -> Result<Self, String> {
        let token = |text| {
            vocab.named(text).ok_or(format!(
                "the vocabulary has no token `{text}`, which media need"
            ))
        };
        Ok(Self {
            begin: token(begin)?,
            soft: token(soft)?,
            end: token(end)?,
        })
    }

    fn place(&self, medium: &Medium, prompt: &mut Sequence) {
        prompt.tokens.push(self.begin);
        prompt.insert(medium.digest, self.soft, medium.tokens);
        prompt.tokens.push(self.end);
    }
}

impl MediaSupport {
    /// `most`: tokens of one picture.
    pub fn of(plan: &ProjectorPlan, vocab: Vocab, most: u32) -> Result<Self, String> {
        let picture = MediumTokens::of(
            vocab,
            [marker::IMAGE_BEGIN, marker::IMAGE, marker::IMAGE_END],
        )?;
        let sound = |hearing| {
            Ok::<_, String>((
                MediumTokens::of(
                    vocab,
                    [marker::AUDIO_BEGIN, marker::AUDIO, marker::AUDIO_END],
                )?,
                hearing,
            ))
        };
        Ok(Self {
            picture,
            longest_side: plan.longest_side,
            most,
            sound: plan.hearing.map(sound).transpose()?,
        })
    }

    fn place(&self, medium: &Medium, prompt: &mut Sequence) {
        match &self.sound {
            Some((tokens, _)) if !medium.is_picture() => tokens.place(medium, prompt),
            _ => self.picture.place(medium, prompt),
        }
    }

    fn check_picture(&self, medium: &Medium, detail: Detail) -> Result<(), ChatError> {
        let Form::Picture(size) = medium.form else {
            return Ok(());
        };
        if medium.tokens > self.most as usize {
            return Err(medium.refuse(format!(
                "takes {} tokens, and this model reads at most {} of a picture; {}, or raise `batch` in gemmad.toml",
                medium.tokens,
                self.most,
                less(detail)
            )));
        }
        if size.width.max(size.height) > self.longest_side {
            return Err(medium.refuse(format!(
                "is too long and thin: it would be shown at {} x {} pixels, and this model sees at most {} on a side",
                size.width, size.height, self.longest_side
            )));
        }
        Ok(())
    }
}

/// What a request is read as.
struct Read {
    prompt: Sequence,
    media: Vec<Arc<Medium>>,
    in_thought: bool,
}

/// Starts the thread.
pub fn spawn(preparer: Preparer, compiler: GrammarCompiler, ends: Ends, writer: Writer) {
    let compiler = compiler::spawn(compiler, ends.ready.clone(), writer.clone());
    super::thread::start(move || preparer.run(ends.incoming, &compiler, &ends.ready, &writer));
}

impl Preparer {
    /// Prepares requests one after the other until there are no more senders.
    fn run(
        self,
        incoming: Receiver<Incoming>,
        compiler: &CompilerHandle,
        ready: &SyncSender<ServerMessage>,
        writer: &Writer,
    ) {
        let listed = self.listed();
        for incoming in incoming {
            let (id, outcome) = match incoming {
                Incoming::Text { id, task } => (
                    id,
                    self.text(&task)
                        .map(|answer| writer.send(&ServeEvent::Text { id, answer }).is_ok()),
                ),
                Incoming::Chat(chat) if chat.cancelled.load(Ordering::Relaxed) => continue,
                Incoming::Chat(chat) => {
                    let sources = GrammarSources::of(&chat.request);
                    let (id, prepared) = (chat.id, self.prepare(&listed, chat).map(Box::new));
                    let outcome = prepared.and_then(|prepared| match sources {
                        None => Ok(prepared.hand_over(ready, writer).is_ok()),
                        Some(sources) => compiler
                            .submit(CompileJob { prepared, sources })
                            .map(|()| true),
                    });
                    (id, outcome)
                }
            };
            if !outcome
                .unwrap_or_else(|error| writer.send(&ServeEvent::Failed { id, error }).is_ok())
            {
                return;
            }
        }
    }

    fn prepare(
        &self,
        listed: &[Listed],
        Chat {
            id,
            owner,
            sent,
            mut request,
            cancelled,
            received,
        }: Chat,
    ) -> Result<Prepared, ChatError> {
        let Read {
            prompt,
            media,
            in_thought,
        } = self.read(&request)?;
        self.fits(prompt.len(), self.sound_tokens(&request))?;
        let has_room = (prompt.len() + ANSWER).min(self.context as usize) <= self.floor as usize;
        let raw = request.prompt.is_some();
        let tokens = matches!(request.prompt, Some(RawPrompt::Tokens(_)));
        let adds_bos = !tokens && self.vocab.bos().is_some();
        // Whatever a raw prompt leaves open, all that follows is text.
        let in_thought = in_thought && !raw;
        let mut prediction = vec![];
        if let Some(text) = request.prediction.take() {
            self.vocab.tokenize(&text, false, &mut prediction);
        }
        request.messages = vec![];
        request.decoded = None;
        request.prompt = None;
        request.tools = vec![];
        Ok(Prepared {
            id,
            owner,
            sent,
            request,
            places: Places::of(&prompt, self.vocab, listed),
            prompt,
            media,
            in_thought,
            raw,
            adds_bos,
            constraints: Constraints::default(),
            prediction,
            has_room,
            cancelled,
            received,
        })
    }

    /// How prompts begin that have one of the system prompts which are everybody's: up to the end of its
    /// text, whatever follows. That begins otherwise where the model is to think.
    fn listed(&self) -> Vec<Listed> {
        let thinking = [Thinking::Off, Thinking::On { budget: None }];
        let all = self
            .system_prompts
            .iter()
            .flat_map(|text| thinking.map(|thinking| (text, thinking)));
        let listed = all.filter_map(|(text, thinking)| {
            let tool = Tool {
                name: "f".to_owned(),
                description: String::new(),
                parameters: None,
                strict: false,
            };
            let request = |tools| ChatRequest {
                tools,
                thinking,
                ..ChatRequest::new(vec![
                    Message::text(Role::System, text.as_str()),
                    Message::text(Role::User, "Hi"),
                ])
            };
            let one = self.read(&request(vec![])).ok()?.prompt;
            let other = self.read(&request(vec![tool])).ok()?.prompt;
            Some(Listed {
                tokens: one.first(one.common(&other)).tokens,
                text: Sha256::digest(text.as_bytes()).into(),
            })
        });
        listed.collect()
    }

    /// The whole prompt, unless it is certain that it does not fit.
    fn read(&self, request: &ChatRequest) -> Result<Read, ChatError> {
        let vocabulary = self.vocab.len() as u32;
        if let Some(&(token, _)) = request
            .sampling
            .logit_bias
            .iter()
            .find(|&&(token, _)| token >= vocabulary)
        {
            return Err(ChatError::UnknownToken { token, vocabulary });
        }
        if let Some(RawPrompt::Tokens(tokens)) = &request.prompt {
            return self.tokens(tokens);
        }
        let media = self.media(request)?;
        let segments = self.prompter.render(request)?;
        // Tokenising costs time and memory by the byte. What is certainly too long is refused
        // before, with the least number of tokens that it can have; a shorter one is counted, so
        // that its client is told which context it needs.
        let bytes: usize = segments.iter().map(|segment| segment.text().len()).sum();
        let soft: usize = media.iter().map(|medium| medium.tokens).sum();
        if bytes > MAX_TEXT_BYTES {
            let sounds = self.sound_tokens(request);
            self.fits(bytes.div_ceil(self.longest) + soft, sounds)?;
        }

        let mut prompt = Sequence {
            tokens: self.vocab.bos().into_iter().collect(),
            media: vec![],
        };
        let mut next = media.iter();
        for segment in &segments {
            if let (Segment::Picture | Segment::Sound, Some(support)) = (segment, &self.media) {
                // There are as many as places for them, in the same order.
                if let Some(medium) = next.next() {
                    support.place(medium, &mut prompt);
                }
                continue;
            }
            let markup = matches!(segment, Segment::Markup(_));
            self.vocab
                .tokenize(segment.text(), markup, &mut prompt.tokens);
        }
        if prompt.is_empty() {
            return Err(ChatError::Template {
                reason: "the prompt is empty".to_owned(),
            });
        }
        Ok(Read {
            prompt,
            media,
            in_thought: opens_thought(&segments),
        })
    }

    /// A prompt of tokens, which stays as it is.
    fn tokens(&self, tokens: &[u32]) -> Result<Read, ChatError> {
        let vocabulary = self.vocab.len() as u32;
        if let Some(&token) = tokens.iter().find(|token| **token >= vocabulary) {
            return Err(ChatError::UnknownPromptToken { token, vocabulary });
        }
        let prompt = Sequence {
            tokens: tokens.iter().map(|&token| token as Token).collect(),
            media: vec![],
        };
        Ok(Read {
            prompt,
            media: vec![],
            in_thought: false,
        })
    }

    /// Answers what needs the vocabulary and the template alone.
    fn text(&self, task: &TextTask) -> Result<TextAnswer, ChatError> {
        match task {
            TextTask::Count(request) => {
                Ok(TextAnswer::Count(self.read(request)?.prompt.len() as u32))
            }
            TextTask::Render(request) => {
                let segments = self.prompter.render(request)?;
                let text: String = segments.iter().map(Segment::text).collect();
                Ok(TextAnswer::Bytes(text.into()))
            }
            TextTask::Tokenize {
                text,
                begin,
                control,
            } => {
                let mut tokens: Vec<Token> =
                    self.vocab.bos().filter(|_| *begin).into_iter().collect();
                self.vocab.tokenize(text, *control, &mut tokens);
                // The vocabulary has no negative numbers.
                Ok(TextAnswer::Tokens(
                    tokens
                        .into_iter()
                        .map(|token| (token as u32, self.vocab.bytes(token)))
                        .collect(),
                ))
            }
            TextTask::Detokenize { tokens } => {
                let vocabulary = self.vocab.len() as u32;
                if let Some(&token) = tokens.iter().find(|token| **token >= vocabulary) {
                    return Err(ChatError::UnknownToken { token, vocabulary });
                }
                Ok(TextAnswer::Bytes(
                    tokens
                        .iter()
                        .flat_map(|&token| self.vocab.bytes(token as Token))
                        .collect(),
                ))
            }
        }
    }

    /// The request's pictures and sounds, which are decoded already.
    fn media(&self, request: &ChatRequest) -> Result<Vec<Arc<Medium>>, ChatError> {
        // A long sound is many of them: it is told how many tokens they are together.
        let sounds = self.sound_tokens(request);
        self.fits(sounds, sounds)?;
        let mut media = vec![];
        for (message, part, content) in request.media() {
            let origin = request.origins.get(message);
            let message = origin.map_or(message, |origin| *origin as usize);
            let Some(modality) = content.modality() else {
                continue;
            };
            let unsupported = |reason: &str| ChatError::UnsupportedModality {
                modality,
                reason: reason.to_owned(),
            };
            let support = self.media.as_ref().ok_or_else(|| {
                unsupported("it was loaded without a projector; put the model's mmproj file beside it and load it again")
            })?;
            let medium = match (content, &request.decoded) {
                (Part::Pixels(pixels), Some(file)) => {
                    let medium = Medium::picture(pixels, file, message, part)?;
                    support.check_picture(&medium, pixels.detail)?;
                    medium
                }
                (Part::Samples(samples), Some(file)) => {
                    let deaf = || unsupported("its projector is for pictures only");
                    let (_, hearing) = support.sound.as_ref().ok_or_else(deaf)?;
                    Medium::sound(samples, file, *hearing, message, part)?
                }
                _ => {
                    return Err(ChatError::Inference {
                        reason: "a picture or a sound came that was not decoded".to_owned(),
                    });
                }
            };
            media.push(Arc::new(medium));
            // Before the next one is looked at.
            self.fits(media.iter().map(|medium| medium.tokens).sum(), sounds)?;
        }
        Ok(media)
    }

    /// Tokens of the request's sounds, as their lengths say.
    fn sound_tokens(&self, request: &ChatRequest) -> usize {
        let sound = self.media.as_ref().and_then(|media| media.sound.as_ref());
        let Some((_, hearing)) = sound else { return 0 };
        let sounds = request.media().map(|(_, _, part)| match part {
            Part::Samples(samples) => hearing.tokens(samples.count as usize),
            _ => 0,
        });
        sounds.sum()
    }

    /// Whether a prompt of `tokens`, of which some are `sounds`, leaves room for an answer.
    fn fits(&self, tokens: usize, sounds: usize) -> Result<(), ChatError> {
        if tokens < self.context as usize {
            return Ok(());
        }
        Err(ChatError::PromptTooLong {
            prompt_tokens: u32::try_from(tokens).unwrap_or(u32::MAX),
            context_tokens: self.context,
            ceiling: self.context,
            sound_tokens: u32::try_from(sounds).unwrap_or(u32::MAX),
        })
    }
}
