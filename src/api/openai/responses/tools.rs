//! `tools` and `tool_choice`: what the model may call, and how its calls are named.
//!
//! | type | what is done |
//! |---|---|
//! | `function` | offered |
//! | `namespace` | its functions are offered, and come back with `namespace`; those whose name is not the only one under the names of both |
//! | `custom` | offered as a function with one text, `input`; one with a grammar is left out |
//! | what the service itself would run | left out, and said in `x-gemmad-ignored` |

use std::collections::HashMap;

use crate::api::ignored::Ignored;
use crate::api::openai::tools;
use crate::api::parse::Invalid;
use crate::api::parse::json::{Json, Object, quote};
use crate::api::render;
use crate::chat::{MAX_NAME_BYTES, Tool, ToolChoice};

/// Tools that OpenAI's service runs, or for which it has a protocol of its own. Those with a version
/// (`web_search_preview_2025_03_11`) begin with one of these.
const HOSTED: [&str; 11] = [
    "web_search",
    "image_generation",
    "local_shell",
    "shell",
    "code_interpreter",
    "mcp",
    "computer",
    "file_search",
    "apply_patch",
    "tool_search",
    "programmatic_tool_calling",
];

/// The parameters of a `custom` tool, which takes a text.
const TEXT: &str =
    r#"{"type":"object","properties":{"input":{"type":"string"}},"required":["input"]}"#;

/// Whether a type is a tool's that the service itself would run.
pub fn is_hosted(kind: &str) -> bool {
    HOSTED.iter().any(|hosted| {
        kind.strip_prefix(hosted)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('_'))
    })
}

/// What the model may call.
#[derive(Debug)]
pub struct Toolbox {
    pub tools: Vec<Tool>,
    pub choice: ToolChoice,
    pub names: Names,
    /// Where each of the tools stands in the request.
    pub places: Vec<String>,
    /// What was offered, as a response shows it: a JSON array.
    pub shown: String,
}

/// The tools by the names that the model knows them by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names(Vec<Named>);

/// A tool as its client knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// As the model knows it.
    called: String,
    pub name: String,
    pub namespace: Option<String>,
    /// It takes a text.
    pub is_custom: bool,
}

impl Names {
    /// The tool that the model calls by this name.
    pub fn of(&self, called: &str) -> Option<&Named> {
        self.0.iter().find(|named| named.called == called)
    }

    /// What the model knows a tool by that a client names.
    pub fn called(&self, namespace: Option<&str>, name: &str) -> String {
        let same = |named: &&Named| {
            named.name == name && (namespace.is_none() || named.namespace.as_deref() == namespace)
        };
        match self.0.iter().find(same) {
            Some(named) => named.called.clone(),
            None => joined(namespace, name),
        }
    }

    fn has(&self, called: &str) -> bool {
        self.of(called).is_some()
    }
}

/// `namespace.name`; without the dot if the namespace ends with a mark of its own, and the name
/// alone if both are too long.
fn joined(namespace: Option<&str>, name: &str) -> String {
    let Some(namespace) = namespace else {
        return name.to_owned();
    };
    let dot = if namespace.ends_with(['_', '.', '-', '/']) {
        ""
    } else {
        "."
    };
    let whole = format!("{namespace}{dot}{name}");
    if whole.len() > MAX_NAME_BYTES {
        return name.to_owned();
    }
    whole
}

/// Reads `tools` and `tool_choice`. `tool_choice` "none" means that the model is shown no tools.
pub fn toolbox(object: &mut Object, ignored: &mut Ignored) -> Result<Toolbox, Invalid> {
    let mut toolbox = Toolbox {
        tools: vec![],
        choice: ToolChoice::Auto,
        names: Names::default(),
        places: vec![],
        shown: String::new(),
    };
    let mut shown = vec![];
    if let Some(tools) = object.take("tools") {
        for json in tools.array()? {
            shown.extend(toolbox.add(&json, None, ignored)?);
        }
    }
    toolbox.tell_apart();
    toolbox.shown = format!("[{}]", shown.join(","));
    if let Some(choice) = object.take("tool_choice") {
        toolbox.choose(&choice)?;
    }
    Ok(toolbox)
}

impl Toolbox {
    /// Takes a tool in. Returns what is shown of it: nothing of one that is left out.
    fn add(
        &mut self,
        json: &Json,
        namespace: Option<&str>,
        ignored: &mut Ignored,
    ) -> Result<Option<String>, Invalid> {
        let mut object = json.object()?;
        let kind = object.need("type")?;
        match kind.string()?.as_str() {
            "function" => {
                // There is no search for tools, so nothing waits to be found.
                object.take("defer_loading");
                let tool = tools::function(&mut object)?;
                object.finish()?;
                self.put(json, namespace, false, tool);
                Ok(Some(as_function(json)?))
            }
            "custom" => Ok(self
                .custom(json, object, namespace, ignored)?
                .then(|| json.raw().to_owned())),
            "namespace" if namespace.is_none() => {
                self.namespace(json, object, ignored)?;
                Ok(Some(json.raw().to_owned()))
            }
            hosted if is_hosted(hosted) => {
                ignored.note(json.path(), hosted);
                Ok(None)
            }
            other => kind.wrong(format!(
                "must be `function`, `custom` or `namespace`, not `{}`",
                quote(other)
            )),
        }
    }

    fn put(&mut self, json: &Json, namespace: Option<&str>, is_custom: bool, tool: Tool) {
        self.names.0.push(Named {
            called: tool.name.clone(),
            name: tool.name.clone(),
            namespace: namespace.map(str::to_owned),
            is_custom,
        });
        self.places.push(json.path().to_owned());
        self.tools.push(tool);
    }

    /// Gives functions of namespaces that share a name with others a longer one.
    fn tell_apart(&mut self) {
        let mut count = HashMap::<String, usize>::new();
        for named in &self.names.0 {
            *count.entry(named.name.clone()).or_default() += 1;
        }
        for (named, tool) in self.names.0.iter_mut().zip(&mut self.tools) {
            if count[&named.name] > 1 && named.namespace.is_some() {
                named.called = joined(named.namespace.as_deref(), &named.name);
                tool.name.clone_from(&named.called);
            }
        }
    }

    /// A tool that takes a text; `false` if it was left out.
    fn custom(
        &mut self,
        json: &Json,
        mut object: Object,
        namespace: Option<&str>,
        ignored: &mut Ignored,
    ) -> Result<bool, Invalid> {
        let name = object.need("name")?.string()?;
        let description = object.string("description")?.unwrap_or_default();
        object.take("defer_loading");
        if let Some(format) = object.take("format") {
            let mut format = format.object()?;
            let kind = format.need("type")?;
            match kind.string()?.as_str() {
                "text" => format.finish()?,
                // Of a text inside a call's arguments only the schema can be kept to.
                "grammar" => {
                    ignored.note(json.path(), "custom with a grammar");
                    return Ok(false);
                }
                other => {
                    return kind.wrong(format!(
                        "must be `text` or `grammar`, not `{}`",
                        quote(other)
                    ));
                }
            }
        }
        object.finish()?;
        let tool = Tool {
            name,
            description,
            parameters: Some(TEXT.to_owned()),
            strict: false,
        };
        self.put(json, namespace, true, tool);
        Ok(true)
    }

    /// Functions under a common name, which the first of them tells of.
    fn namespace(
        &mut self,
        json: &Json,
        mut object: Object,
        ignored: &mut Ignored,
    ) -> Result<(), Invalid> {
        let field = object.need("name")?;
        let name = field.string()?;
        if name.is_empty() {
            return field.wrong("must not be empty");
        }
        let description = object.string("description")?.unwrap_or_default();
        let list = object.need("tools")?;
        object.finish()?;
        let first = self.tools.len();
        for tool in list.array()? {
            self.add(&tool, Some(&name), ignored)?;
        }
        if let Some(tool) = self
            .tools
            .get_mut(first)
            .filter(|_| !description.is_empty())
        {
            tool.description = format!("{name}: {description}\n{}", tool.description);
        }
        if self.tools.len() == first {
            ignored.note(json.path(), "namespace without functions");
        }
        Ok(())
    }

    fn choose(&mut self, choice: &Json) -> Result<(), Invalid> {
        if choice.is_string() {
            return self.mode(choice);
        }
        let mut fields = choice.object()?;
        let kind = fields.need("type")?;
        match kind.string()?.as_str() {
            "function" | "custom" => {
                self.choice = ToolChoice::Named(self.named(fields)?);
                Ok(())
            }
            "allowed_tools" => {
                let (mode, list) = (fields.take("mode"), fields.need("tools")?);
                fields.finish()?;
                self.only(&list)?;
                mode.map_or(Ok(()), |mode| self.mode(&mode))
            }
            hosted if is_hosted(hosted) => kind.wrong(format!(
                "is `{}`, which is not run here; `tools` can only have functions called",
                quote(hosted)
            )),
            other => kind.wrong(format!(
                "must be `function`, `custom` or `allowed_tools`, not `{}`",
                quote(other)
            )),
        }
    }

    /// What the model knows the tool by that an object names.
    fn named(&self, mut fields: Object) -> Result<String, Invalid> {
        let name = fields.need("name")?;
        let namespace = fields.string("namespace")?;
        let called = self.names.called(namespace.as_deref(), &name.string()?);
        fields.finish()?;
        if !self.names.has(&called) {
            return name.wrong("names a function that is not in `tools`");
        }
        Ok(called)
    }

    fn mode(&mut self, mode: &Json) -> Result<(), Invalid> {
        match mode.string()?.as_str() {
            "auto" => {}
            "none" => {
                self.tools.clear();
                self.places.clear();
            }
            "required" => self.choice = ToolChoice::Required,
            other => {
                return mode.wrong(format!(
                    "must be `auto`, `none`, `required` or an object, not `{}`",
                    quote(other)
                ));
            }
        }
        Ok(())
    }

    /// Leaves only those tools that a list names. Tools that were left out are no longer there
    /// anyway.
    fn only(&mut self, list: &Json) -> Result<(), Invalid> {
        let mut wanted = vec![];
        for json in list.array()? {
            let mut fields = json.object()?;
            let kind = fields.need("type")?;
            match kind.string()?.as_str() {
                "function" | "custom" => wanted.push(self.named(fields)?),
                "namespace" => {
                    let name = fields.need("name")?.string()?;
                    fields.finish()?;
                    let of = |named: &&Named| named.namespace.as_ref() == Some(&name);
                    wanted.extend(self.names.0.iter().filter(of).map(|n| n.called.clone()));
                }
                hosted if is_hosted(hosted) => {}
                other => {
                    return kind.wrong(format!(
                        "must be `function`, `custom` or `namespace`, not `{}`",
                        quote(other)
                    ));
                }
            }
        }
        let mut places = self.places.drain(..);
        let mut left = vec![];
        self.tools.retain(|tool| {
            let place = places.next();
            let stays = wanted.contains(&tool.name);
            left.extend(place.filter(|_| stays));
            stays
        });
        drop(places);
        self.places = left;
        Ok(())
    }
}

/// A function with the fields that every response has, null where the client said nothing.
fn as_function(json: &Json) -> Result<String, Invalid> {
    let mut out = String::from("{");
    let fields: Vec<(String, Json)> = json.object()?.into_entries().collect();
    for (name, value) in &fields {
        out.push_str(&format!("{}:{},", render(name), value.raw()));
    }
    for name in ["description", "parameters", "strict"] {
        if !fields.iter().any(|(field, _)| field == name) {
            out.push_str(&format!("\"{name}\":null,"));
        }
    }
    out.pop();
    out.push('}');
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::parse::json::whole;

    fn parse(json: &str) -> Result<(Toolbox, Option<String>), Invalid> {
        let mut ignored = Ignored::default();
        let toolbox = whole(json, |object| toolbox(object, &mut ignored))?;
        Ok((toolbox, ignored.value()))
    }

    const ALL: &str = r#""tools":[{"type":"function","name":"f"},{"type":"web_search","external_web_access":false},
        {"type":"namespace","name":"agents","description":"Helpers","tools":[
          {"type":"function","name":"close","description":"Close one","strict":false,"parameters":{"type":"object"}},
          {"type":"custom","name":"say"}]},
        {"type":"namespace","name":"mcp__home__","description":"","tools":[{"type":"function","name":"light"}]},
        {"type":"custom","name":"patch","format":{"type":"grammar","syntax":"lark","definition":"start: \"a\""}},
        {"type":"computer_use_preview","display_width":1}]"#;

    fn with(rest: &str) -> Result<(Toolbox, Option<String>), Invalid> {
        parse(&format!("{{{ALL}{rest}}}"))
    }

    fn called(toolbox: &Toolbox) -> Vec<&str> {
        toolbox
            .tools
            .iter()
            .map(|tool| tool.name.as_str())
            .collect()
    }

    #[test]
    fn functions_reach_the_model_and_the_rest_is_said() {
        let (toolbox, ignored) = with("").unwrap();
        assert_eq!(called(&toolbox), ["f", "close", "say", "light"]);
        assert_eq!(
            toolbox.places,
            [
                "tools[0]",
                "tools[2].tools[0]",
                "tools[2].tools[1]",
                "tools[3].tools[0]"
            ]
        );
        assert_eq!(toolbox.tools[1].description, "agents: Helpers\nClose one");
        assert_eq!(
            ignored.as_deref(),
            Some(
                "tools[1] web_search, tools[4] custom with a grammar, tools[5] computer_use_preview"
            )
        );
        let named = toolbox.names.of("close").unwrap();
        assert_eq!(
            (
                named.name.as_str(),
                named.namespace.as_deref(),
                named.is_custom
            ),
            ("close", Some("agents"), false)
        );
        assert!(toolbox.names.of("say").unwrap().is_custom);
        assert_eq!(toolbox.names.called(Some("agents"), "close"), "close");
        assert_eq!(toolbox.names.called(None, "light"), "light");
        assert_eq!(toolbox.names.called(Some("gone"), "x"), "gone.x");
        let shown: serde_json::Value = serde_json::from_str(&toolbox.shown).unwrap();
        assert_eq!(
            shown[0],
            serde_json::json!({"type": "function", "name": "f", "description": null, "parameters": null, "strict": null})
        );
        assert_eq!(
            (shown[1]["name"].as_str(), shown.as_array().unwrap().len()),
            (Some("agents"), 3)
        );
    }

    #[test]
    fn choices() {
        for (choice, tools, expected) in [
            (r#""auto""#, 4, ToolChoice::Auto),
            (r#""none""#, 0, ToolChoice::Auto),
            (r#""required""#, 4, ToolChoice::Required),
            (
                r#"{"type":"function","name":"close","namespace":"agents"}"#,
                4,
                ToolChoice::Named("close".into()),
            ),
            (
                r#"{"type":"custom","name":"say"}"#,
                4,
                ToolChoice::Named("say".into()),
            ),
            (
                r#"{"type":"allowed_tools","mode":"required","tools":[{"type":"function","name":"f"},{"type":"web_search"}]}"#,
                1,
                ToolChoice::Required,
            ),
            (
                r#"{"type":"allowed_tools","tools":[{"type":"namespace","name":"agents"}]}"#,
                2,
                ToolChoice::Auto,
            ),
        ] {
            let (toolbox, _) = with(&format!(",\"tool_choice\":{choice}")).unwrap();
            assert_eq!(
                (toolbox.tools.len(), &toolbox.choice),
                (tools, &expected),
                "{choice}"
            );
            assert_eq!(toolbox.places.len(), tools);
        }
    }

    #[test]
    fn functions_of_the_same_name_are_told_apart() {
        let (toolbox, _) = parse(
            r#"{"tools":[{"type":"function","name":"f"},{"type":"namespace","name":"a","tools":[{"type":"function","name":"f"}]},
               {"type":"namespace","name":"mcp__b__","tools":[{"type":"function","name":"f"},{"type":"function","name":"g"}]}]}"#,
        )
        .unwrap();
        assert_eq!(called(&toolbox), ["f", "a.f", "mcp__b__f", "g"]);
        for (namespace, name, expected) in [
            (None, "f", "f"),
            (Some("a"), "f", "a.f"),
            (Some("mcp__b__"), "g", "g"),
        ] {
            assert_eq!(toolbox.names.called(namespace, name), expected);
        }
        // Both together would be too long.
        assert_eq!(
            joined(Some(&"n".repeat(64)), &"f".repeat(64)),
            "f".repeat(64)
        );
    }

    #[test]
    fn errors_name_the_field() {
        for (json, field) in [
            (
                r#"{"tools":[{"type":"funtion","name":"f"}]}"#,
                "tools[0].type",
            ),
            (r#"{"tools":[{"type":"webs"}]}"#, "tools[0].type"),
            (r#"{"tools":[{"type":"function"}]}"#, "tools[0].name"),
            (
                r#"{"tools":[{"type":"function","name":"f","x":1}]}"#,
                "tools[0].x",
            ),
            (
                r#"{"tools":[{"type":"namespace","name":"n"}]}"#,
                "tools[0].tools",
            ),
            (
                r#"{"tools":[{"type":"namespace","name":"n","tools":[{"type":"namespace","name":"m","tools":[]}]}]}"#,
                "tools[0].tools[0].type",
            ),
            (
                r#"{"tools":[{"type":"custom","name":"c","format":{"type":"xml"}}]}"#,
                "tools[0].format.type",
            ),
            (
                r#"{"tool_choice":{"type":"web_search"}}"#,
                "tool_choice.type",
            ),
            (
                r#"{"tool_choice":{"type":"function","name":"f"}}"#,
                "tool_choice.name",
            ),
            (
                r#"{"tool_choice":{"type":"allowed_tools","mode":"auto","tools":[{"type":"function","name":"f"}]}}"#,
                "tool_choice.tools[0].name",
            ),
            (r#"{"tool_choice":"any"}"#, "tool_choice"),
        ] {
            assert_eq!(parse(json).unwrap_err().field, field, "{json}");
        }
    }
}
