//! Functions: those offered (`tools`, `tool_choice`) and those called (`tool_calls` of earlier
//! turns).

use crate::api::parse::Invalid;
use crate::api::parse::cut_off::closed;
use crate::api::parse::json::{Json, Object, check_object, quote};
use crate::chat::{Tool, ToolCall, ToolChoice};

/// What the model may call, and how.
#[derive(Clone, Debug, PartialEq)]
pub struct Offer {
    pub tools: Vec<Tool>,
    pub choice: ToolChoice,
    pub parallel: bool,
}

/// Where the fields that describe or name a function stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// In an object `function`, as a chat has it.
    Nested,
    /// Beside `type`, as a response has it.
    Flat,
}

/// Reads `tools`, `tool_choice` and `parallel_tool_calls`. `tool_choice` "none" means that the
/// model is shown no functions.
pub fn offered(object: &mut Object, shape: Shape) -> Result<Offer, Invalid> {
    let tools = match object.take("tools") {
        Some(tools) => tools
            .array()?
            .iter()
            .map(|json| tool(json, shape))
            .collect::<Result<_, _>>()?,
        None => vec![],
    };
    let mut offer = Offer {
        tools,
        choice: ToolChoice::Auto,
        parallel: object.switch("parallel_tool_calls", true)?,
    };
    let Some(choice) = object.take("tool_choice") else {
        return Ok(offer);
    };
    if choice.is_string() {
        choose(&choice, &mut offer)?;
        return Ok(offer);
    }
    let mut fields = choice.object()?;
    let kind = fields.need("type")?;
    match (kind.string()?.as_str(), shape) {
        ("function", _) => {
            offer.choice = ToolChoice::Named(name_of(&mut fields, shape)?.string()?);
        }
        ("allowed_tools", Shape::Nested) => {
            let mut allowed = fields.need("allowed_tools")?.object()?;
            allow(&mut allowed, &mut offer, shape)?;
            allowed.finish()?;
        }
        ("allowed_tools", Shape::Flat) => allow(&mut fields, &mut offer, shape)?,
        (other, _) => {
            return kind.wrong(format!(
                "must be `function` or `allowed_tools`, not `{}`",
                quote(other)
            ));
        }
    }
    fields.finish()?;
    Ok(offer)
}

/// `mode`, and the `tools` that it is about.
fn allow(allowed: &mut Object, offer: &mut Offer, shape: Shape) -> Result<(), Invalid> {
    choose(&allowed.need("mode")?, offer)?;
    only(&allowed.need("tools")?, offer, shape)
}

fn choose(mode: &Json, offer: &mut Offer) -> Result<(), Invalid> {
    match mode.string()?.as_str() {
        "auto" => {}
        "none" => offer.tools.clear(),
        "required" => offer.choice = ToolChoice::Required,
        other => {
            return mode.wrong(format!(
                "must be `auto`, `none`, `required` or an object, not `{}`",
                quote(other)
            ));
        }
    }
    Ok(())
}

/// Leaves only those functions that a list names.
fn only(list: &Json, offer: &mut Offer, shape: Shape) -> Result<(), Invalid> {
    let mut names = vec![];
    for json in list.array()? {
        let mut object = json.object()?;
        is_function(&object.need("type")?)?;
        let name = name_of(&mut object, shape)?;
        let text = name.string()?;
        object.finish()?;
        if !offer.tools.iter().any(|tool| tool.name == text) {
            let blamed = match shape {
                Shape::Nested => json,
                Shape::Flat => name,
            };
            return blamed.wrong("names a function that is not in `tools`");
        }
        names.push(text);
    }
    offer.tools.retain(|tool| names.contains(&tool.name));
    Ok(())
}

/// The name of a function that was offered.
fn name_of<'a>(object: &mut Object<'a>, shape: Shape) -> Result<Json<'a>, Invalid> {
    match shape {
        Shape::Nested => {
            let mut function = object.need("function")?.object()?;
            let name = function.need("name")?;
            function.finish()?;
            Ok(name)
        }
        Shape::Flat => object.need("name"),
    }
}

fn tool(json: &Json, shape: Shape) -> Result<Tool, Invalid> {
    let mut object = json.object()?;
    is_function(&object.need("type")?)?;
    let mut fields = match shape {
        Shape::Nested => {
            let function = object.need("function")?.object()?;
            object.finish()?;
            function
        }
        Shape::Flat => object,
    };
    let tool = function(&mut fields)?;
    fields.finish()?;
    Ok(tool)
}

/// The fields that describe a function.
pub fn function(object: &mut Object) -> Result<Tool, Invalid> {
    let name = object.need("name")?.string()?;
    let description = object.string("description")?.unwrap_or_default();
    let parameters = object
        .take("parameters")
        .map(|schema| schema.opaque_object())
        .transpose()?;
    Ok(Tool {
        name,
        description,
        parameters,
        strict: object.switch("strict", false)?,
    })
}

/// A call in an assistant's message. What clients and gateways add to it is theirs.
pub fn call(json: &Json) -> Result<ToolCall, Invalid> {
    let mut object = json.object()?;
    let id = object.string("id")?.unwrap_or_default();
    if let Some(kind) = object.take("type") {
        is_function(&kind)?;
    }
    let mut function = object.need("function")?.object()?;
    object.finish_openly()?;
    let name = function.need("name")?.string()?;
    let arguments = match function.take("arguments") {
        Some(arguments) => self::arguments(&arguments)?,
        None => "{}".into(),
    };
    function.finish_openly()?;
    Ok(ToolCall {
        id,
        name,
        arguments,
    })
}

/// A JSON object in a string, as OpenAI has it; a bare object is taken too. Some clients say "" for
/// none. One that a token limit cut off is closed where it was.
pub fn arguments(json: &Json) -> Result<String, Invalid> {
    if !json.is_string() {
        return json.opaque_object();
    }
    let text = json.string()?;
    if text.trim_ascii().is_empty() {
        return Ok("{}".into());
    }
    match check_object(&text) {
        Ok(()) => Ok(text),
        Err(reason) => closed(&text).map_or_else(
            || json.wrong(format!("must be a JSON object in a string; it {reason}")),
            Ok,
        ),
    }
}

fn is_function(json: &Json) -> Result<(), Invalid> {
    match json.string()?.as_str() {
        "function" => Ok(()),
        other => json.wrong(format!("must be `function`, not `{}`", quote(other))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::parse::json::{body, whole};

    fn parse(json: &str) -> Result<Offer, Invalid> {
        whole(json, |object| offered(object, Shape::Nested))
    }

    const LIGHT: &str = r#"{"type":"function","function":{"name":"set_light","description":"Turn it","strict":false,
        "parameters":{"type":"object","properties":{"z":{},"a":{}}}}}"#;

    #[test]
    fn tools_keep_their_schema_as_it_is() {
        let tools = parse(&format!(
            "{{\"tools\":[{LIGHT},{{\"type\":\"function\",\"function\":{{\"name\":\"f\"}}}}]}}"
        ))
        .unwrap()
        .tools;
        assert_eq!(tools[0].name, "set_light");
        assert_eq!(
            tools[0].parameters.as_deref(),
            Some(r#"{"type":"object","properties":{"z":{},"a":{}}}"#)
        );
        assert_eq!(
            tools[1],
            Tool {
                name: "f".into(),
                description: String::new(),
                parameters: None,
                strict: false,
            }
        );
    }

    /// A request that offers two functions.
    fn with(rest: &str) -> Result<Offer, Invalid> {
        const DIM: &str = r#"{"type":"function","function":{"name":"dim"}}"#;
        parse(&format!("{{\"tools\":[{LIGHT},{DIM}]{rest}}}"))
    }

    #[test]
    fn choices() {
        let names = |offer: &Offer| {
            offer
                .tools
                .iter()
                .map(|tool| tool.name.clone())
                .collect::<Vec<_>>()
                .join(" ")
        };
        for (rest, tools, choice, parallel) in [
            ("", "set_light dim", ToolChoice::Auto, true),
            (
                r#","tool_choice":"auto","parallel_tool_calls":true"#,
                "set_light dim",
                ToolChoice::Auto,
                true,
            ),
            (
                r#","parallel_tool_calls":false"#,
                "set_light dim",
                ToolChoice::Auto,
                false,
            ),
            (r#","tool_choice":"none""#, "", ToolChoice::Auto, true),
            (
                r#","tool_choice":"required""#,
                "set_light dim",
                ToolChoice::Required,
                true,
            ),
            (
                r#","tool_choice":{"type":"function","function":{"name":"dim"}}"#,
                "set_light dim",
                ToolChoice::Named("dim".into()),
                true,
            ),
            (
                r#","tool_choice":{"type":"allowed_tools","allowed_tools":{"mode":"required","tools":[{"type":"function","function":{"name":"dim"}}]}}"#,
                "dim",
                ToolChoice::Required,
                true,
            ),
        ] {
            let offer = with(rest).unwrap();
            assert_eq!(
                (names(&offer).as_str(), &offer.choice, offer.parallel),
                (tools, &choice, parallel),
                "{rest}"
            );
        }
    }

    #[test]
    fn wrong_choices_name_the_field() {
        for (choice, field) in [
            (r#""any""#, "tool_choice"),
            ("7", "tool_choice"),
            (r#"{"type":"custom"}"#, "tool_choice.type"),
            (r#"{"type":"function"}"#, "tool_choice.function"),
            (
                r#"{"type":"function","function":{"name":"dim","x":1}}"#,
                "tool_choice.function.x",
            ),
            (
                r#"{"type":"allowed_tools","allowed_tools":{"mode":"maybe","tools":[]}}"#,
                "tool_choice.allowed_tools.mode",
            ),
            (
                r#"{"type":"allowed_tools","allowed_tools":{"mode":"auto","tools":[{"type":"function","function":{"name":"x"}}]}}"#,
                "tool_choice.allowed_tools.tools[0]",
            ),
        ] {
            assert_eq!(
                with(&format!(",\"tool_choice\":{choice}"))
                    .unwrap_err()
                    .field,
                field,
                "{choice}"
            );
        }
    }

    #[test]
    fn errors_name_the_field() {
        for (tool, field) in [
            (r#"{}"#, "tools[0].type"),
            (r#"{"type":"web_search"}"#, "tools[0].type"),
            (r#"{"type":"function"}"#, "tools[0].function"),
            (
                r#"{"type":"function","function":{}}"#,
                "tools[0].function.name",
            ),
            (
                r#"{"type":"function","function":{"name":"f","parameters":[]}}"#,
                "tools[0].function.parameters",
            ),
            (
                r#"{"type":"function","function":{"name":"f","parameters":{"a":1e999}}}"#,
                "tools[0].function.parameters",
            ),
            (
                r#"{"type":"function","function":{"name":"f","strict":1}}"#,
                "tools[0].function.strict",
            ),
            (
                r#"{"type":"function","function":{"name":"f","paramters":{}}}"#,
                "tools[0].function.paramters",
            ),
        ] {
            assert_eq!(
                parse(&format!("{{\"tools\":[{tool}]}}")).unwrap_err().field,
                field,
                "{tool}"
            );
        }
    }

    #[test]
    fn calls_have_an_object_of_arguments() {
        let parse = |arguments: &str| {
            let json = format!(
                r#"{{"x":{{"id":"c","type":"function","index":0,"function":{{"name":"f","arguments":{arguments}}}}}}}"#
            );
            call(&body(json.as_bytes()).unwrap().take("x").unwrap()).map(|call| call.arguments)
        };
        assert_eq!(parse(r#""{\"a\":[1]}""#).unwrap(), r#"{"a":[1]}"#);
        assert_eq!(parse(r#"{"a":1}"#).unwrap(), r#"{"a":1}"#);
        assert_eq!(parse(r#""""#).unwrap(), "{}");
        assert_eq!(parse(r#""{\"a\":1,\"b""#).unwrap(), r#"{"a":1}"#);
        for bad in [r#""[1]""#, r#""{a""#, r#""{\"a\":1} x""#, "7", "[]"] {
            assert_eq!(
                parse(bad).unwrap_err().field,
                "x.function.arguments",
                "{bad}"
            );
        }
    }
}
