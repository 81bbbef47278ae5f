//! Functions: those offered (`tools`, `tool_choice`) and those called (`tool_calls` of earlier turns).

use super::json::{Json, Object, check_object, quote};
use crate::chat::{Invalid, Tool, ToolCall};

/// What the model may call. `tool_choice` "none" means that it is shown no functions.
pub fn offered(object: &mut Object) -> Result<Vec<Tool>, Invalid> {
    let tools = match object.take("tools") {
        Some(tools) => tools.array()?.iter().map(tool).collect::<Result<_, _>>()?,
        None => vec![],
    };
    if let Some(parallel) = object.take("parallel_tool_calls")
        && !parallel.boolean()?
    {
        return parallel.wrong("cannot be false: how many functions are called in one turn is the model's choice");
    }
    let Some(choice) = object.take("tool_choice") else { return Ok(tools) };
    let named = if choice.is_string() { choice.string()? } else { String::new() };
    match named.as_str() {
        "auto" => Ok(tools),
        "none" => Ok(vec![]),
        _ => choice.wrong("must be \"auto\" or \"none\": the model cannot be forced to call a function"),
    }
}

fn tool(json: &Json) -> Result<Tool, Invalid> {
    let mut object = json.object()?;
    is_function(&object.need("type")?)?;
    let mut function = object.need("function")?.object()?;
    object.finish()?;
    let name = function.need("name")?.string()?;
    let description = function.take("description").map(|text| text.string()).transpose()?.unwrap_or_default();
    let parameters = function.take("parameters").map(|schema| schema.opaque_object()).transpose()?;
    if let Some(strict) = function.take("strict")
        && strict.boolean()?
    {
        return strict.wrong("cannot be true: arguments are always a JSON object, but the model is not held to the schema");
    }
    function.finish()?;
    Ok(Tool { name, description, parameters })
}

/// A call in an assistant's message.
pub fn call(json: &Json) -> Result<ToolCall, Invalid> {
    let mut object = json.object()?;
    let id = object.need("id")?.string()?;
    is_function(&object.need("type")?)?;
    // Clients that collect streamed deltas send this back.
    object.take("index");
    let mut function = object.need("function")?.object()?;
    object.finish()?;
    let name = function.need("name")?.string()?;
    let arguments = arguments(&function.need("arguments")?)?;
    function.finish()?;
    Ok(ToolCall { id, name, arguments })
}

/// A JSON object in a string, as OpenAI has it; a bare object is taken too. Some clients say "" for none.
fn arguments(json: &Json) -> Result<String, Invalid> {
    if !json.is_string() {
        return json.opaque_object();
    }
    let text = json.string()?;
    if text.trim_ascii().is_empty() {
        return Ok("{}".into());
    }
    match check_object(&text) {
        Ok(()) => Ok(text),
        Err(reason) => json.wrong(format!("must be a JSON object in a string; it {reason}")),
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
    use super::super::json::body;
    use super::*;

    fn parse(json: &str) -> Result<Vec<Tool>, Invalid> {
        let mut object = body(json.as_bytes())?;
        let tools = offered(&mut object)?;
        object.finish()?;
        Ok(tools)
    }

    const LIGHT: &str = r#"{"type":"function","function":{"name":"set_light","description":"Turn it","strict":false,
        "parameters":{"type":"object","properties":{"z":{},"a":{}}}}}"#;

    #[test]
    fn tools_keep_their_schema_as_it_is() {
        let tools = parse(&format!("{{\"tools\":[{LIGHT},{{\"type\":\"function\",\"function\":{{\"name\":\"f\"}}}}]}}")).unwrap();
        assert_eq!(tools[0].name, "set_light");
        assert_eq!(tools[0].parameters.as_deref(), Some(r#"{"type":"object","properties":{"z":{},"a":{}}}"#));
        assert_eq!(tools[1], Tool { name: "f".into(), description: String::new(), parameters: None });
    }

    #[test]
    fn tool_choice_none_hides_them() {
        let with = |rest: &str| parse(&format!("{{\"tools\":[{LIGHT}]{rest}}}"));
        assert_eq!(with("").unwrap().len(), 1);
        assert_eq!(with(r#","tool_choice":"auto","parallel_tool_calls":true"#).unwrap().len(), 1);
        assert_eq!(with(r#","tool_choice":"none""#).unwrap().len(), 0);
        for forced in [r#""required""#, r#"{"type":"function","function":{"name":"set_light"}}"#, r#""any""#, "7"] {
            assert_eq!(with(&format!(",\"tool_choice\":{forced}")).unwrap_err().field, "tool_choice", "{forced}");
        }
        assert_eq!(with(r#","parallel_tool_calls":false"#).unwrap_err().field, "parallel_tool_calls");
    }

    #[test]
    fn errors_name_the_field() {
        for (tool, field) in [
            (r#"{}"#, "tools[0].type"),
            (r#"{"type":"web_search"}"#, "tools[0].type"),
            (r#"{"type":"function"}"#, "tools[0].function"),
            (r#"{"type":"function","function":{}}"#, "tools[0].function.name"),
            (r#"{"type":"function","function":{"name":"f","parameters":[]}}"#, "tools[0].function.parameters"),
            (r#"{"type":"function","function":{"name":"f","parameters":{"a":1e999}}}"#, "tools[0].function.parameters"),
            (r#"{"type":"function","function":{"name":"f","strict":true}}"#, "tools[0].function.strict"),
            (r#"{"type":"function","function":{"name":"f","paramters":{}}}"#, "tools[0].function.paramters"),
        ] {
            assert_eq!(parse(&format!("{{\"tools\":[{tool}]}}")).unwrap_err().field, field, "{tool}");
        }
    }

    #[test]
    fn calls_have_an_object_of_arguments() {
        let parse = |arguments: &str| {
            let json = format!(r#"{{"x":{{"id":"c","type":"function","index":0,"function":{{"name":"f","arguments":{arguments}}}}}}}"#);
            call(&body(json.as_bytes()).unwrap().take("x").unwrap()).map(|call| call.arguments)
        };
        assert_eq!(parse(r#""{\"a\":[1]}""#).unwrap(), r#"{"a":[1]}"#);
        assert_eq!(parse(r#"{"a":1}"#).unwrap(), r#"{"a":1}"#);
        assert_eq!(parse(r#""""#).unwrap(), "{}");
        for bad in [r#""[1]""#, r#""{""#, r#""{\"a\":1} x""#, "7", "[]"] {
            assert_eq!(parse(bad).unwrap_err().field, "x.function.arguments", "{bad}");
        }
    }
}
