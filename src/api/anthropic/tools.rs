//! `tools` and `tool_choice`: what the model may call.
//!
//! Tools of the client's own are offered. Those of Anthropic's types, which its service runs or whose
//! schema it knows, are left out, which the answer says (`x-gemmad-ignored`). A tool with
//! `defer_loading` waits until the conversation names it: a tool search found it (`tool_reference`),
//! a message adds it (`tool_addition`), it was called, or it must be. If nothing here could find it,
//! it does not wait.

use std::collections::HashSet;

use crate::api::ignored::Ignored;
use crate::api::parse::Invalid;
use crate::api::parse::json::{Json, Object, quote};
use crate::chat::{ChatRequest, Tool, ToolChoice};

/// What the types of Anthropic's own tools begin with; a date or a version follows.
const OWN: [&str; 12] = [
    "web_search",
    "web_fetch",
    "code_execution",
    "bash_",
    "text_editor_",
    "computer_",
    "memory_",
    "tool_search_tool",
    "advisor",
    "mcp_toolset",
    "browser_toolset",
    "computer_toolset",
];
/// The one that finds deferred tools.
const SEARCH: &str = "tool_search_tool";

/// A tool of the request.
#[derive(Debug)]
pub struct Offered {
    pub tool: Tool,
    /// Where it stands.
    pub place: String,
    is_deferred: bool,
}

/// The tools of a request.
#[derive(Debug, Default)]
pub struct Tools {
    offered: Vec<Offered>,
    /// Deferred tools would be found by the service.
    is_searched: bool,
}

/// What messages say about tools.
#[derive(Debug, Default)]
pub struct Changes {
    /// Names of deferred tools that were found or added.
    pub found: HashSet<String>,
    pub added: Vec<Offered>,
    /// Names of those that are gone again.
    pub removed: HashSet<String>,
}

/// Reads `tools`.
pub fn tools(object: &mut Object, ignored: &mut Ignored) -> Result<Tools, Invalid> {
    let mut tools = Tools::default();
    let Some(list) = object.take("tools") else {
        return Ok(tools);
    };
    for json in list.array()? {
        match tool(&json)? {
            Ok(offered) => tools.offered.push(offered),
            Err(kind) => {
                tools.is_searched |= kind.starts_with(SEARCH);
                ignored.note(json.path(), &kind);
            }
        }
    }
    Ok(tools)
}

/// A tool of the client's, or the type of one that is not.
pub fn tool(json: &Json) -> Result<Result<Offered, String>, Invalid> {
    let mut object = json.object()?;
    if let Some(kind) = object.take("type") {
        let name = kind.string()?;
        if OWN.iter().any(|own| name.starts_with(own)) {
            return Ok(Err(name));
        }
        if name != "custom" {
            return kind.wrong(format!(
                "is `{}`, which is not known here; a tool of your own is `custom`",
                quote(&name)
            ));
        }
    }
    let name = object.need("name")?.string()?;
    let description = object.string("description")?.unwrap_or_default();
    let parameters = Some(object.need("input_schema")?.opaque_object()?);
    let is_deferred = object.switch("defer_loading", false)?;
    let strict = object.switch("strict", false)?;
    // The prefix cache finds its entries by itself; no other tool calls tools.
    for idle in [
        "cache_control",
        "input_examples",
        "eager_input_streaming",
        "allowed_callers",
    ] {
        object.take(idle);
    }
    object.finish()?;
    Ok(Ok(Offered {
        tool: Tool {
            name,
            description,
            parameters,
            strict,
        },
        place: json.path().to_owned(),
        is_deferred,
    }))
}

impl Tools {
    /// Gives the request the tools that the model is to see, and `tool_choice`. Returns their
    /// places.
    pub fn offer(
        self,
        object: &mut Object,
        request: &mut ChatRequest,
        changes: Changes,
    ) -> Result<Vec<String>, Invalid> {
        let choice = choice(object, request)?;
        let mut wanted = changes.found;
        if let Choice::Of(ToolChoice::Named(name)) = &choice {
            wanted.insert(name.clone());
        }
        let calls = request.messages.iter().flat_map(|m| &m.tool_calls);
        wanted.extend(calls.map(|call| call.name.clone()));
        // The client's own search is a tool that is not deferred.
        let waits = !self.is_searched && self.offered.iter().any(|tool| !tool.is_deferred);
        let mut places = vec![];
        for Offered {
            tool,
            place,
            is_deferred,
        } in self.offered.into_iter().chain(changes.added)
        {
            let absent = is_deferred && waits && !wanted.contains(&tool.name);
            let twice = request.tools.contains(&tool);
            if !absent && !twice && !changes.removed.contains(&tool.name) {
                request.tools.push(tool);
                places.push(place);
            }
        }
        match choice {
            Choice::None => {
                request.tools.clear();
                places.clear();
            }
            Choice::Of(choice) => request.tool_choice = choice,
        }
        Ok(places)
    }
}

enum Choice {
    None,
    Of(ToolChoice),
}

fn choice(object: &mut Object, request: &mut ChatRequest) -> Result<Choice, Invalid> {
    let Some(choice) = object.take("tool_choice") else {
        return Ok(Choice::Of(ToolChoice::Auto));
    };
    let mut fields = choice.object()?;
    let kind = fields.need("type")?;
    let choice = match kind.string()?.as_str() {
        "auto" => Choice::Of(ToolChoice::Auto),
        "any" => Choice::Of(ToolChoice::Required),
        "tool" => Choice::Of(ToolChoice::Named(fields.need("name")?.string()?)),
        "none" => Choice::None,
        other => {
            return kind.wrong(format!(
                "must be `auto`, `any`, `tool` or `none`, not `{}`",
                quote(other)
            ));
        }
    };
    if let Some(one) = fields.take("disable_parallel_tool_use") {
        request.parallel_tool_calls = !one.boolean()?;
    }
    fields.finish()?;
    Ok(choice)
}

impl Changes {
    /// A block `tool_addition` or `tool_removal`.
    pub fn read(&mut self, object: &mut Object, adds: bool) -> Result<(), Invalid> {
        let json = object.need("tool")?;
        let mut fields = json.object()?;
        let kind = fields.need("type")?;
        match (kind.string()?.as_str(), adds) {
            ("tool_reference", _) => {
                let name = fields
                    .take("name")
                    .or_else(|| fields.take("tool_name"))
                    .map_or_else(|| fields.lacks("name", "is required"), |name| name.string())?;
                if adds {
                    self.removed.remove(&name);
                    self.found.insert(name);
                } else {
                    self.removed.insert(name);
                }
            }
            ("tool_definition", true) => {
                let definition = fields.need("definition")?;
                match tool(&definition)? {
                    Ok(mut offered) => {
                        offered.is_deferred = false;
                        self.removed.remove(&offered.tool.name);
                        self.added.push(offered);
                    }
                    Err(kind) => {
                        return definition.wrong(format!(
                            "is `{}`, which is not run here; only tools of your own can be added",
                            quote(&kind)
                        ));
                    }
                }
            }
            (other, _) => {
                return kind.wrong(format!(
                    "is `{}`, which is not known here; a tool is a `tool_reference` or a `tool_definition`",
                    quote(other)
                ));
            }
        }
        fields.take("cache_control");
        fields.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::parse::json::body;

    const TOOLS: &str = r#""tools":[{"name":"ToolSearch","input_schema":{}},{"name":"f","input_schema":{},"defer_loading":true},
        {"name":"g","input_schema":{},"defer_loading":true,"type":"custom"},{"type":"web_search_20250305","name":"web_search","max_uses":8}"#;

    fn names(rest: &str, changes: Changes) -> (String, Option<String>) {
        let mut object = body(format!("{{{rest}}}").as_bytes().to_vec().leak()).unwrap();
        let mut ignored = Ignored::default();
        let tools = tools(&mut object, &mut ignored).unwrap();
        let mut request = ChatRequest::new(vec![]);
        let places = tools.offer(&mut object, &mut request, changes).unwrap();
        object.finish().unwrap();
        assert_eq!(places.len(), request.tools.len());
        let names: Vec<_> = request
            .tools
            .iter()
            .map(|tool| tool.name.as_str())
            .collect();
        (names.join(" "), ignored.value())
    }

    fn found(names: &[&str]) -> Changes {
        Changes {
            found: names.iter().map(|name| (*name).to_owned()).collect(),
            ..Changes::default()
        }
    }

    #[test]
    fn deferred_tools_wait_until_they_are_named() {
        let none = Changes::default;
        let ignored = Some("tools[3] web_search_20250305".to_owned());
        assert_eq!(
            names(&format!("{TOOLS}]"), none()),
            ("ToolSearch".into(), ignored.clone())
        );
        assert_eq!(names(&format!("{TOOLS}]"), found(&["g"])).0, "ToolSearch g");
        let named = format!(r#"{TOOLS}],"tool_choice":{{"type":"tool","name":"f"}}"#);
        assert_eq!(names(&named, none()).0, "ToolSearch f");
        let searched =
            format!(r#"{TOOLS},{{"type":"tool_search_tool_bm25_20251119","name":"s"}}]"#);
        assert_eq!(names(&searched, none()).0, "ToolSearch f g");
        let alone = r#""tools":[{"name":"f","input_schema":{},"defer_loading":true}]"#;
        assert_eq!(names(alone, none()).0, "f");
        let chosen = format!(r#"{TOOLS}],"tool_choice":{{"type":"none"}}"#);
        assert_eq!(names(&chosen, none()).0, "");
    }

    #[test]
    fn messages_add_and_remove_tools() {
        let mut changes = Changes::default();
        let mut read = |json: &'static str, adds| {
            let mut object = body(json.as_bytes())?;
            changes.read(&mut object, adds)
        };
        read(r#"{"tool":{"type":"tool_reference","name":"f"}}"#, true).unwrap();
        read(
            r#"{"tool":{"type":"tool_reference","name":"ToolSearch"}}"#,
            false,
        )
        .unwrap();
        read(
            r#"{"tool":{"type":"tool_definition","definition":{"name":"h","input_schema":{},"defer_loading":true}}}"#,
            true,
        )
        .unwrap();
        for (json, field) in [
            (
                r#"{"tool":{"type":"tool_definition","definition":{"name":"h"}}}"#,
                "tool.definition.input_schema",
            ),
            (r#"{"tool":{"type":"mcp_toolset_reference"}}"#, "tool.type"),
            (r#"{"tool":{"type":"tool_reference"}}"#, "tool.name"),
        ] {
            assert_eq!(read(json, true).unwrap_err().field, field, "{json}");
        }
        assert_eq!(names(&format!("{TOOLS}]"), changes).0, "f h");
    }
}
