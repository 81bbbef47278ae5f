//! Options that hold for a question, or for all of a conversation.

use super::error::BusError;
use super::options::Options;
use crate::api::openai::common::DEFAULT_MODEL;
use crate::chat::{ChatRequest, Message, Retention, ServiceTier, Speculation, Thinking};

/// The options `model`, `max-tokens`, `temperature`, `seed`, `thinking`, `speculation`,
/// `prompt-cache-retention` and `service-tier`.
#[derive(Debug, Default)]
pub struct Settings {
    model: Option<String>,
    max_tokens: Option<u32>,
    temperature: Option<f64>,
    seed: Option<u32>,
    thinking: bool,
    speculation: Option<Speculation>,
    retention: Retention,
    tier: ServiceTier,
}

impl Settings {
    /// Takes them out of a call's options.
    pub fn take(options: &mut Options) -> Result<Self, BusError> {
        Ok(Self {
            model: options.text("model")?,
            max_tokens: options.count("max-tokens")?,
            temperature: options.number("temperature")?,
            seed: options.count("seed")?,
            thinking: options.switch("thinking")?.unwrap_or(false),
            speculation: speculation(options)?,
            retention: retention(options)?,
            tier: tier(options)?,
        })
    }

    /// The model as it was asked for.
    pub fn model(&self) -> &str {
        self.model.as_deref().unwrap_or(DEFAULT_MODEL)
    }

    /// A request that continues this conversation. It is not checked.
    pub fn request(&self, messages: Vec<Message>) -> ChatRequest {
        let mut request = ChatRequest::new(messages);
        request.output.max_tokens = self.max_tokens;
        if let Some(temperature) = self.temperature {
            request.sampling.temperature = temperature as f32;
        }
        request.sampling.seed = self.seed;
        request.speculation = self.speculation;
        request.retention = self.retention;
        request.tier = self.tier;
        if self.thinking {
            request.thinking = Thinking::On { budget: None };
        }
        request
    }
}

fn speculation(options: &mut Options) -> Result<Option<Speculation>, BusError> {
    let name = options.text("speculation")?;
    let known = name.map(|name| {
        Speculation::of(&name).ok_or_else(|| {
            BusError::InvalidRequest(format!(
                "option `speculation` is `auto`, `on` or `off`, not {name:?}"
            ))
        })
    });
    known.transpose()
}

fn retention(options: &mut Options) -> Result<Retention, BusError> {
    let Some(name) = options.text("prompt-cache-retention")? else {
        return Ok(Retention::default());
    };
    let known = Retention::NAMES.iter().find(|(known, _)| *known == name);
    known.map(|(_, retention)| *retention).ok_or_else(|| {
        BusError::InvalidRequest(format!(
            "option `prompt-cache-retention` is `in_memory` or `24h`, not {name:?}"
        ))
    })
}

fn tier(options: &mut Options) -> Result<ServiceTier, BusError> {
    match options.text("service-tier")?.as_deref() {
        None | Some("auto" | "default") => Ok(ServiceTier::Default),
        Some("flex") => Ok(ServiceTier::Flex),
        Some(name) => Err(BusError::InvalidRequest(format!(
            "option `service-tier` is `default` or `flex`, not {name:?}"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::{Role, Sampling};
    use std::collections::HashMap;
    use zbus::zvariant::{OwnedValue, Value};

    fn taken(options: &[(&str, Value<'_>)]) -> Result<Settings, BusError> {
        let owned = |(name, value): &(&str, Value<'_>)| {
            let value = OwnedValue::try_from(value.try_clone().unwrap()).unwrap();
            ((*name).to_owned(), value)
        };
        let options: HashMap<_, _> = options.iter().map(owned).collect();
        Settings::take(&mut Options::new(options))
    }

    fn settings(options: &[(&str, Value<'_>)]) -> Settings {
        taken(options).unwrap()
    }

    #[test]
    fn no_options_are_the_defaults() {
        let messages = vec![Message::text(Role::User, "hi")];
        let settings = settings(&[]);
        assert_eq!(settings.model(), "auto");
        assert_eq!(
            settings.request(messages.clone()),
            ChatRequest::new(messages)
        );
    }

    #[test]
    fn every_option_has_its_field() {
        let settings = settings(&[
            ("model", "tiny".into()),
            ("max-tokens", 7u32.into()),
            ("temperature", 0.5.into()),
            ("seed", 9u32.into()),
            ("thinking", true.into()),
            ("speculation", "off".into()),
            ("prompt-cache-retention", "24h".into()),
            ("service-tier", "flex".into()),
        ]);
        assert_eq!(settings.model(), "tiny");
        let request = settings.request(vec![]);
        assert_eq!(request.output.max_tokens, Some(7));
        assert_eq!(
            request.sampling,
            Sampling {
                temperature: 0.5,
                seed: Some(9),
                ..Sampling::default()
            }
        );
        assert_eq!(request.thinking, Thinking::On { budget: None });
        assert_eq!(request.speculation, Some(Speculation::Off));
        assert_eq!(request.retention, Retention::Day);
        assert_eq!(request.tier, ServiceTier::Flex);
    }

    #[test]
    fn unknown_words_are_refused_by_name() {
        for option in ["speculation", "prompt-cache-retention", "service-tier"] {
            let error = taken(&[(option, "sometimes".into())]).unwrap_err();
            let error = format!("{error:?}");
            assert!(
                error.contains(option) && error.contains("sometimes"),
                "{error}"
            );
        }
    }
}
