//! From a call's text to an answer.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::time::Duration;

use serde_json::{Map, Value, json};
use zbus::zvariant::OwnedValue;

use super::Shared;
use super::client::Client;
use super::error::BusError;
use super::files;
use super::options::Options;
use crate::access::quota::Share;
use crate::api::generation;
use crate::api::openai::chat::completion::Whole;
use crate::api::openai::chat::request::{self, ChatCall};
use crate::api::openai::chat::response::Head;
use crate::chat::Done;

/// How long a call may take unless it says otherwise: less than the 25 s after which callers give
/// up by themselves, without being told why.
const USUAL_TIME: Duration = Duration::from_secs(20);

/// Bytes of a request beside its messages; more only costs a copy.
const MOST_SETTINGS: usize = 512;

/// A message of a request, as JSON.
pub type Message = String;

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
    pub whole: Whole,
    head: Head,
    done: Done,
    logprobs: bool,
}

impl Answered {
    /// As OpenAI's `chat.completion`.
    pub fn json(&self) -> String {
        self.whole.json(&self.head, &self.done, self.logprobs)
    }
}

/// How long the caller waits (`timeout`, seconds).
pub fn timeout_of(options: &mut Options) -> Result<Duration, BusError> {
    Ok(options
        .count("timeout")?
        .map_or(USUAL_TIME, |seconds| Duration::from_secs(seconds.into())))
}

/// What goes with a text: the options `images`, `sounds` and `files` (`ah`).
pub struct Media {
    images: Vec<OwnedFd>,
    sounds: Vec<OwnedFd>,
    files: Vec<OwnedFd>,
}

impl Media {
    pub fn of(options: &mut Options) -> Result<Self, BusError> {
        Ok(Self {
            images: options.files("images")?,
            sounds: options.files("sounds")?,
            files: options.files("files")?,
        })
    }
}

/// Options that hold for a question or for a whole conversation, as a request's fields.
pub fn settings(options: &mut Options) -> Result<Map<String, Value>, BusError> {
    let fields = [
        ("model", options.text("model")?.map(Value::from)),
        (
            "max_completion_tokens",
            options.count("max-tokens")?.map(Value::from),
        ),
        (
            "temperature",
            options.number("temperature")?.map(Value::from),
        ),
        ("seed", options.count("seed")?.map(Value::from)),
        (
            "chat_template_kwargs",
            options
                .switch("thinking")?
                .map(|on| json!({"enable_thinking": on})),
        ),
    ];
    Ok(fields
        .into_iter()
        .filter_map(|(name, value)| Some((name.to_owned(), value?)))
        .collect())
}

/// One message.
pub fn message(role: &str, content: Value) -> Message {
    json!({"role": role, "content": content}).to_string()
}

impl Shared {
    /// Looks at a request of OpenAI's form. Options: `timeout`, and `files` (`ah`), which the
    /// request names `fd:0`, `fd:1`, ….
    pub async fn request(
        &self,
        client: Client,
        text: &str,
        options: HashMap<String, OwnedValue>,
    ) -> Result<Asked, BusError> {
        let mut options = Options::new(options);
        let (files, timeout) = (options.files("files")?, timeout_of(&mut options)?);
        options.finish()?;
        let mut bytes = self.gate.share_of_bodies(&client.caller.principal);
        self.account(&mut bytes, text.len())?;
        let text = if files.is_empty() {
            text.as_bytes().to_vec()
        } else {
            let request = serde_json::from_str(text).map_err(|error| {
                BusError::InvalidRequest(format!("the request is not JSON: {error}"))
            })?;
            self.with_files(request, files, &mut bytes).await?
        };
        self.asked(text, client, timeout, bytes).await
    }

    /// What the text asks, with its files read.
    async fn asked(
        &self,
        text: Vec<u8>,
        client: Client,
        timeout: Duration,
        mut bytes: Share,
    ) -> Result<Asked, BusError> {
        let mut call = generation::parse(text, request::parse).await?;
        let most = self.limits.body_bytes;
        let resolved = self
            .attachments
            .resolve(&mut call.request, most, &mut bytes);
        client.wait(timeout, resolved).await??;
        Ok(Asked {
            call,
            client,
            timeout,
            bytes,
        })
    }

    /// Makes a request of a question. Options: those of [`settings`], `system` (`s`), `timeout`,
    /// those of [`Media`].
    pub async fn question(
        &self,
        client: Client,
        prompt: &str,
        options: HashMap<String, OwnedValue>,
    ) -> Result<Asked, BusError> {
        let mut options = Options::new(options);
        let (media, timeout) = (Media::of(&mut options)?, timeout_of(&mut options)?);
        let (settings, system) = (settings(&mut options)?, options.text("system")?);
        options.finish()?;
        let turn = self.turn(prompt, media).await?;
        let system = system.map(|text| message("system", json!(text)));
        self.ask(client, &settings, system.iter().chain([&turn]), timeout)
            .await
    }

    /// What a user says, as a message; what is seen and heard first, as Gemma wants it.
    pub async fn turn(&self, text: &str, media: Media) -> Result<Message, BusError> {
        let (images, sounds) = (media.images.len(), media.sounds.len());
        let all = media
            .images
            .into_iter()
            .chain(media.sounds)
            .chain(media.files)
            .collect();
        let files = files::encode(all, self.limits.body_bytes).await?;
        let shown = files.iter().enumerate().map(|(i, data)| match i {
            i if i < images => files::image(data),
            i if i < images + sounds => files::sound(data),
            _ => files::document(data),
        });
        Ok(message(
            "user",
            shown
                .chain([json!({"type": "text", "text": text})])
                .collect(),
        ))
    }

    /// Makes a request of messages.
    pub async fn ask<'a>(
        &self,
        client: Client,
        settings: &Map<String, Value>,
        messages: impl Iterator<Item = &'a Message>,
        timeout: Duration,
    ) -> Result<Asked, BusError> {
        let messages: Vec<&str> = messages.map(|message| message.as_str()).collect();
        let mut text = Vec::with_capacity(
            messages
                .iter()
                .map(|message| message.len() + 1)
                .sum::<usize>()
                + MOST_SETTINGS,
        );
        let mut bytes = self.gate.share_of_bodies(&client.caller.principal);
        self.account(&mut bytes, text.capacity())?;
        text.extend_from_slice(b"{\"messages\":[");
        text.extend_from_slice(messages.join(",").as_bytes());
        text.push(b']');
        for (name, value) in settings {
            // Names of options need no escaping.
            text.extend_from_slice(format!(",\"{name}\":{value}").as_bytes());
        }
        text.push(b'}');
        self.asked(text, client, timeout, bytes).await
    }

    /// The request as text, with the files in it.
    async fn with_files(
        &self,
        mut request: Value,
        files: Vec<OwnedFd>,
        bytes: &mut Share,
    ) -> Result<Vec<u8>, BusError> {
        let files = files::encode(files, self.limits.body_bytes).await?;
        files::put_in(&mut request, &files);
        let text = request.to_string().into_bytes();
        self.account(bytes, text.len())?;
        Ok(text)
    }

    /// Counts bytes that are held until the request is answered.
    pub fn account(&self, share: &mut Share, bytes: usize) -> Result<(), BusError> {
        let limit = self.limits.body_bytes;
        if bytes as u64 > limit {
            return Err(BusError::TooLarge(format!(
                "the request has {bytes} bytes; at most {limit} are taken (`body-size` in gemmad.toml)"
            )));
        }
        share.grow(bytes as u64).map_err(BusError::bodies)
    }

    /// Waits for the whole answer. A caller who leaves the bus cancels it.
    pub async fn whole(&self, asked: Asked) -> Result<Answered, BusError> {
        let Asked {
            call,
            client,
            timeout,
            bytes,
        } = asked;
        let logprobs = call.request.logprobs.is_some();
        let work = async {
            let mut answer = self
                .backends
                .chat(client.caller.id(), &call.model, call.request)
                .await?;
            let mut event = generation::next(&mut answer).await?;
            // From here on the request's memory is the worker's business.
            drop(bytes);
            let mut whole = Whole::default();
            loop {
                if let Some(done) = whole.event(event) {
                    return Ok(Answered {
                        whole,
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
