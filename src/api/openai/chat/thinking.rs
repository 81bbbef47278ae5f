//! How much a chat's model thinks, in the words of all who have some for it. Pure.
//!
//! Off unless asked for. Whether: a switch (`enable_thinking`, `think`, …), else a budget says so,
//! else an effort. How long: the budget, else the effort.

use crate::api::openai::common::effort;
use crate::api::parse::Invalid;
use crate::api::parse::json::{Json, Object, quote};
use crate::chat::Thinking;

/// What a request says of thoughts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wish {
    pub thinking: Thinking,
    /// The client does not want to see them.
    pub hides_thoughts: bool,
}

/// What is said in several places; the later ones win over the earlier.
#[derive(Default)]
struct Said {
    enabled: Option<bool>,
    /// Tokens.
    budget: Option<u32>,
    effort: Option<Thinking>,
    hidden: bool,
}

/// Takes everything that is about thoughts.
pub fn wish(object: &mut Object) -> Result<Wish, Invalid> {
    let mut said = Said::default();
    said.reasoning(object)?;
    if let Some(thinking) = object.take("thinking") {
        said.typed(&thinking)?;
    }
    if let Some(think) = object.take("think") {
        said.think(&think)?;
    }
    if let Some(name) = object.take("reasoning_effort") {
        said.effort = Some(effort(&name)?);
    }
    for name in [
        "reasoning_budget",
        "thinking_budget",
        "thinking_token_budget",
        "thinking_budget_tokens",
    ] {
        if let Some(budget) = object.take(name) {
            said.tokens(&budget)?;
        }
    }
    if let Some(enable) = object.take("enable_thinking") {
        said.enabled = Some(enable.boolean()?);
    }
    if let Some(kwargs) = object.take("chat_template_kwargs") {
        said.kwargs(&kwargs)?;
    }
    if let Some(include) = object.take("include_reasoning") {
        said.hidden |= !include.boolean()?;
    }
    Ok(Wish {
        thinking: said.thinking(),
        hides_thoughts: said.hidden,
    })
}

impl Said {
    /// OpenRouter's and Ollama's `reasoning`.
    fn reasoning(&mut self, object: &mut Object) -> Result<(), Invalid> {
        let Some(reasoning) = object.take("reasoning") else {
            return Ok(());
        };
        let mut fields = reasoning.object()?;
        if let Some(name) = fields.take("effort") {
            self.effort = Some(effort(&name)?);
        }
        if let Some(tokens) = fields.take("max_tokens") {
            self.tokens(&tokens)?;
        }
        if let Some(enabled) = fields.take("enabled") {
            self.enabled = Some(enabled.boolean()?);
        }
        self.hidden |= fields.switch("exclude", false)?;
        // The thoughts are told as they are.
        for name in ["summary", "generate_summary"] {
            fields.string(name)?;
        }
        fields.finish()
    }

    /// Anthropic's `thinking`, which gateways pass on.
    fn typed(&mut self, json: &Json) -> Result<(), Invalid> {
        if !json.is_object() {
            self.enabled = Some(json.boolean()?);
            return Ok(());
        }
        let mut fields = json.object()?;
        let kind = fields.need("type")?;
        self.enabled = Some(match kind.string()?.as_str() {
            "enabled" | "adaptive" | "auto" => true,
            "disabled" => false,
            other => {
                return kind.wrong(format!(
                    "must be `enabled`, `adaptive`, `auto` or `disabled`, not `{}`",
                    quote(other)
                ));
            }
        });
        if let Some(tokens) = fields.take("budget_tokens") {
            self.tokens(&tokens)?;
        }
        // Earlier thoughts are in the prompt or not as the template has it.
        fields.take("clear_thinking");
        fields.finish()
    }

    /// Ollama's `think`: a switch or an effort.
    fn think(&mut self, json: &Json) -> Result<(), Invalid> {
        if json.is_string() {
            self.effort = Some(effort(json)?);
        } else {
            self.enabled = Some(json.boolean()?);
        }
        Ok(())
    }

    /// The template's variables; those of the family's that a request may set.
    fn kwargs(&mut self, json: &Json) -> Result<(), Invalid> {
        let mut kwargs = json.object()?;
        for name in ["thinking", "enable_thinking"] {
            if let Some(enable) = kwargs.take(name) {
                self.enabled = Some(enable.boolean()?);
            }
        }
        if let Some(name) = kwargs.take("reasoning_effort") {
            self.effort = Some(effort(&name)?);
        }
        if let Some(tokens) = kwargs.take("thinking_budget") {
            self.tokens(&tokens)?;
        }
        kwargs.finish()
    }

    /// A budget; -1 is none.
    fn tokens(&mut self, json: &Json) -> Result<(), Invalid> {
        if json.is("-1") {
            self.budget = None;
        } else {
            self.budget = Some(json.u32(0, u32::MAX)?);
        }
        Ok(())
    }

    fn thinking(&self) -> Thinking {
        match (self.enabled, self.budget, self.effort) {
            (Some(false), ..) | (_, Some(0), _) => Thinking::Off,
            (_, Some(budget), _) => Thinking::On {
                budget: Some(budget),
            },
            (Some(true), None, None | Some(Thinking::Off)) => Thinking::On { budget: None },
            (_, None, effort) => effort.unwrap_or_default(),
        }
    }
}
