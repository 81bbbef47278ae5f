//! `GET /openapi.json`: what is served, described for programs. The tests hold it and the router
//! together.

use axum::response::Response;

use crate::api::json;

/// The description, OpenAPI 3.1.
const TEXT: &str = include_str!("openapi.json");

pub async fn describe() -> Response {
    json(TEXT.into())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::super::routes;
    use super::*;
    use crate::api::llama_cpp::{completion, tokens};
    use crate::api::native::pull;
    use crate::api::openai::{chat, completions, responses};
    use crate::api::parse::Invalid;
    use crate::api::{anthropic, ollama, parse::json};

    fn description() -> Value {
        serde_json::from_str(TEXT).unwrap()
    }

    #[test]
    fn every_route_is_described_and_nothing_else() {
        let description = description();
        let described: BTreeSet<(String, String)> = description["paths"]
            .as_object()
            .unwrap()
            .iter()
            .flat_map(|(path, methods)| {
                methods
                    .as_object()
                    .unwrap()
                    .keys()
                    .map(|method| (method.to_uppercase(), path.clone()))
            })
            .collect();
        // A path that may have slashes in it is written otherwise in the router.
        let served = routes()
            .into_iter()
            .map(|route| (route.method.to_string(), route.path.replace("{*", "{")))
            .collect();
        assert_eq!(described, served);
        assert_eq!(description["info"]["version"], env!("CARGO_PKG_VERSION"));
    }

    #[test]
    fn every_example_is_accepted() {
        type Reads = fn(&[u8]) -> Result<(), Invalid>;
        let readers: [(&str, Reads); 21] = [
            ("/v1/chat/completions", |body| {
                chat::request::parse(body).map(drop)
            }),
            ("/v1/completions", |body| {
                completions::request::parse(body).map(drop)
            }),
            ("/v1/responses", |body| {
                responses::request::parse(body).map(drop)
            }),
            ("/v1/responses/input_tokens", |body| {
                responses::request::parse(body).map(drop)
            }),
            ("/v1/responses/compact", |body| {
                responses::compact::read(body).map(drop)
            }),
            ("/v1/messages", |body| {
                anthropic::request::parse(body).map(drop)
            }),
            ("/v1/messages/count_tokens", |body| {
                anthropic::request::parse_count(body).map(drop)
            }),
            ("/v1/chat/completions/input", |body| {
                chat::request::parse(body).map(drop)
            }),
            ("/v1/chat/completions/input_tokens", |body| {
                chat::request::parse(body).map(drop)
            }),
            ("/apply-template", |body| {
                chat::request::parse(body).map(drop)
            }),
            ("/completion", |body| completion::request(body).map(drop)),
            ("/api/chat", |body| ollama::chat::parse(body).map(drop)),
            ("/api/generate", |body| {
                ollama::generate::parse(body).map(drop)
            }),
            ("/api/show", |body| ollama::models::asked(body).map(drop)),
            ("/api/pull", |body| ollama::pull::read(body).map(drop)),
            ("/tokenize", |body| tokens::tokenize(body).map(drop)),
            ("/detokenize", |body| tokens::detokenize(body).map(drop)),
            ("/models/load", |body| json::body(body).map(drop)),
            ("/models/verify", |body| json::body(body).map(drop)),
            ("/models/prune", |body| json::body(body).map(drop)),
            ("/v1/models/pull", |body| {
                json::body(body).and_then(pull::read).map(drop)
            }),
        ];
        for (path, methods) in description()["paths"].as_object().unwrap() {
            let content = &methods["post"]["requestBody"]["content"]["application/json"];
            if content.is_null() {
                continue;
            }
            let (_, read) = readers
                .iter()
                .find(|(known, _)| known == path)
                .unwrap_or_else(|| panic!("{path} has no reader here"));
            read(content["example"].to_string().as_bytes())
                .unwrap_or_else(|error| panic!("{path}: {error}"));
        }
    }
}
