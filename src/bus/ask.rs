//! From a call to an answer.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use super::Shared;
use super::charge::Charge;
use super::client::Client;
use super::error::BusError;
use super::files;
use super::options::Options;
use super::progress::{Listener, Telling};
use super::settings::Settings;
use crate::access::quota::Share;
use crate::api::Invalid;
use crate::api::openai::chat::completion::CompletionBuilder;
use crate::api::openai::chat::request::{self, ChatCall, Delivery};
use crate::api::openai::chat::response::Head;
use crate::api::{conversation, generation};
use crate::attachments::{self, Medium};
use crate::chat::{Detail, Document, Done, Message, Part, Picture, Role, Sound, Source};

/// How long a call may take unless it says otherwise: less than the 25 s after which callers give
/// up by themselves, without being told why.
const USUAL_TIME: Duration = Duration::from_secs(20);

/// A request that was looked at, with what it takes until it is answered.
pub struct Asked {
    pub call: ChatCall,
    pub client: Client,
    /// How long its caller waits.
    pub timeout: Duration,
    /// Its bytes.
    pub bytes: Share,
}

/// A whole answer.
pub struct Answered {
    pub completion: CompletionBuilder,
    head: Head,
    done: Done,
    logprobs: bool,
}

impl Answered {
    /// As OpenAI's `chat.completion`.
    pub fn json(&self) -> String {
        self.completion.json(&self.head, &self.done, self.logprobs)
    }
}

/// How long the caller waits (`timeout`, seconds).
pub fn timeout_of(options: &mut Options) -> Result<Duration, BusError> {
    Ok(options
        .count("timeout")?
        .map_or(USUAL_TIME, |seconds| Duration::from_secs(seconds.into())))
}

/// What goes with a text: the options `images`, `sounds` and `files` (`ah`).
pub struct PassedFiles {
    descriptors: Vec<OwnedFd>,
    images: usize,
    sounds: usize,
}

impl PassedFiles {
    pub fn take(options: &mut Options) -> Result<Self, BusError> {
        let mut descriptors = options.files("images")?;
        let images = descriptors.len();
        descriptors.extend(options.files("sounds")?);
        let sounds = descriptors.len() - images;
        descriptors.extend(options.files("files")?);
        Ok(Self {
            descriptors,
            images,
            sounds,
        })
    }
}

/// A file as a part of a message: the medium that its first bytes say it is, and where they say
/// nothing, what its caller calls it.
fn part(file: Arc<[u8]>, called: Option<Medium>) -> Part {
    match attachments::medium(&file).or(called) {
        Some(Medium::Picture) => Part::Picture(Picture {
            file,
            detail: Detail::Auto,
        }),
        Some(Medium::Sound) => Part::Sound(Sound { file }),
        None => Part::Document(Document {
            name: String::new(),
            source: Source::File(file),
            detail: Detail::Auto,
        }),
    }
}

impl Shared {
    /// Nothing yet of a request of this client.
    pub fn charge(&self, client: &Client) -> Charge {
        let share = self.admission.share_of_bodies(&client.caller.principal);
        Charge::new(share, self.limits.body_bytes)
    }

    /// Charges the bytes of an answer that is no model's.
    pub fn answer_share(&self, client: &Client, bytes: usize) -> Result<Share, BusError> {
        let mut share = self.admission.share_of_bodies(&client.caller.principal);
        share.grow(bytes as u64).map_err(BusError::bodies)?;
        Ok(share)
    }

    /// Looks at a request of OpenAI's form. Options: `timeout`, and `files` (`ah`), which the
    /// request names `fd:0`, `fd:1`, ….
    pub async fn request(
        &self,
        client: Client,
        text: &str,
        mut options: Options,
    ) -> Result<Asked, BusError> {
        let (files, timeout) = (options.files("files")?, timeout_of(&mut options)?);
        options.finish()?;
        let mut charge = self.charge(&client);
        charge.take(text.len())?;
        let (files, charge) = files::read(files, charge).await?;
        let parse = move |text: &[u8]| request::parse_with(text, &files);
        let call = generation::parse(text.as_bytes().to_vec(), parse).await?;
        if call.choices > 1 {
            return Err(Invalid::new("n", "must be 1: a call over D-Bus has one answer").into());
        }
        self.resolved(call, client, timeout, charge).await
    }

    /// A request whose addresses are fetched, whose files are read and whose media are decoded.
    async fn resolved(
        &self,
        mut call: ChatCall,
        client: Client,
        timeout: Duration,
        charge: Charge,
    ) -> Result<Asked, BusError> {
        let (most, mut bytes) = (self.limits.body_bytes, charge.into_share());
        let (request, attachments) = (&mut call.request, &self.attachments);
        let resolved = async {
            let (model, mut read) = (&call.model, vec![]);
            attachments
                .read(request, model, most, &mut bytes, &mut read)
                .await?;
            attachments.decode(request, model, &mut bytes).await
        };
        client.wait(timeout, resolved).await??;
        conversation::settle(&mut call.request);
        Ok(Asked {
            call,
            client,
            timeout,
            bytes,
        })
    }

    /// Makes a request of a question. Options: those of [`Settings`], `system` (`s`), `timeout`,
    /// those of [`PassedFiles`].
    pub async fn question(
        &self,
        client: Client,
        prompt: &str,
        mut options: Options,
    ) -> Result<Asked, BusError> {
        let (files, timeout) = (PassedFiles::take(&mut options)?, timeout_of(&mut options)?);
        let (settings, system) = (Settings::take(&mut options)?, options.text("system")?);
        options.finish()?;
        let mut charge = self.charge(&client);
        charge.take(system.as_ref().map_or(0, String::len))?;
        let (turn, charge) = self.turn(prompt, files, charge).await?;
        let system = system.map(|text| Message::text(Role::System, text));
        let messages = system.into_iter().chain([turn]).collect();
        self.ask(client, &settings, messages, timeout, charge).await
    }

    /// What a user says, as a message; what is seen and heard first, as Gemma wants it.
    pub async fn turn(
        &self,
        text: &str,
        files: PassedFiles,
        mut charge: Charge,
    ) -> Result<(Message, Charge), BusError> {
        charge.take(text.len())?;
        let PassedFiles {
            descriptors,
            images,
            sounds,
        } = files;
        let (contents, charge) = files::read(descriptors, charge).await?;
        let called = |place| match place {
            i if i < images => Some(Medium::Picture),
            i if i < images + sounds => Some(Medium::Sound),
            _ => None,
        };
        let mut turn = Message::text(Role::User, text);
        let parts = contents
            .into_iter()
            .enumerate()
            .map(|(i, file)| part(file, called(i)));
        turn.content.splice(..0, parts);
        Ok((turn, charge))
    }

    /// Makes a request of messages, whose bytes are charged.
    pub async fn ask(
        &self,
        client: Client,
        settings: &Settings,
        messages: Vec<Message>,
        timeout: Duration,
        charge: Charge,
    ) -> Result<Asked, BusError> {
        let call = ChatCall {
            model: settings.model().to_owned(),
            request: settings.request(messages),
            choices: 1,
            delivery: Delivery::Complete,
            hides_thoughts: false,
        };
        call.request.check()?;
        self.resolved(call, client, timeout, charge).await
    }

    /// Waits for the whole answer, and tells who listens how far it is. A caller who leaves the bus
    /// cancels it.
    pub async fn complete(
        &self,
        asked: Asked,
        listener: Option<Listener>,
    ) -> Result<Answered, BusError> {
        let Asked {
            mut call,
            client,
            timeout,
            bytes,
        } = asked;
        call.request.whole = true;
        let logprobs = call.request.logprobs.is_some();
        let work = async {
            let mut answer = self
                .backends
                .chat(client.caller.id(), &call.model, call.request)
                .await?;
            let telling = listener.map(|listener| Telling::start(listener, answer.waiting.clone()));
            let mut event = generation::next(&mut answer).await?;
            let mut completion = CompletionBuilder::hiding_thoughts(call.hides_thoughts);
            loop {
                if let Some(done) = completion.event(event) {
                    // To here the request was kept: it might have been answered anew.
                    drop(bytes);
                    if let Some(telling) = telling {
                        telling.stop().await;
                    }
                    return Ok(Answered {
                        completion,
                        head: Head::new(&answer.model()),
                        done,
                        logprobs,
                    });
                }
                event = generation::next(&mut answer).await?;
            }
        };
        client.wait(timeout, work).await?
    }
}
