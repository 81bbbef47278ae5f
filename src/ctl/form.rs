//! Files that say what form an answer is to have: a schema, functions.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde_json::{Value, json};

use super::error::Error;

/// Bytes of such a file at most: more than the daemon takes.
const LONGEST: u64 = 4 << 20;

/// Reads a file of JSON.
pub fn read(path: &Path) -> Result<Value, Error> {
    let mut text = String::new();
    let file = File::open(path).and_then(|file| file.take(LONGEST + 1).read_to_string(&mut text));
    file.map_err(|cause| Error::File {
        path: path.into(),
        cause,
    })?;
    if text.len() as u64 > LONGEST {
        return Err(Error::Usage(format!(
            "{} has more than {} MiB",
            path.display(),
            LONGEST >> 20
        )));
    }
    serde_json::from_str(&text)
        .map_err(|error| Error::Usage(format!("{} is not JSON: {error}", path.display())))
}

/// A schema as the API has it: an object.
pub fn schema(file: Value, path: &Path) -> Result<Value, Error> {
    match file.is_object() {
        true => Ok(file),
        false => Err(Error::Usage(format!(
            "--schema {} is no JSON Schema: it must hold an object",
            path.display()
        ))),
    }
}

/// Functions as the API has them. A function may stand alone, without the object around it that
/// says it is one.
pub fn tools(file: Value, path: &Path) -> Result<Value, Error> {
    let Value::Array(tools) = file else {
        return Err(Error::Usage(format!(
            "--tools {} is not a JSON array of functions",
            path.display()
        )));
    };
    let wrap = |tool: Value| {
        if tool.get("function").is_some() {
            tool
        } else {
            json!({ "type": "function", "function": tool })
        }
    };
    Ok(tools.into_iter().map(wrap).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_may_stand_alone_and_schemas_are_objects() {
        let whole = json!({"type": "function", "function": {"name": "f"}});
        assert_eq!(
            tools(json!([{"name": "f"}, whole]), Path::new("x")).unwrap(),
            json!([whole, whole])
        );
        assert!(
            matches!(tools(json!({}), Path::new("x")), Err(Error::Usage(text)) if text.contains("--tools x is not"))
        );
        for no_schema in [json!([]), json!("x"), Value::Null] {
            assert!(
                matches!(schema(no_schema, Path::new("x")), Err(Error::Usage(text)) if text.contains("--schema x is no"))
            );
        }
    }

    #[test]
    fn files_that_are_no_json_are_named() {
        assert!(matches!(
            read(Path::new("/nowhere/x.json")),
            Err(Error::File { .. })
        ));
        assert!(
            matches!(read(Path::new("Cargo.toml")), Err(Error::Usage(text)) if text.contains("Cargo.toml is not JSON"))
        );
    }
}
