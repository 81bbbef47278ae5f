//! Endpoints of other services that have no meaning here, each answered with what there is instead.

/// The beginning of a path, with or without `/v1/` before it, what it would be for, and what to use in its place.
const UNSUPPORTED: &[(&str, &str, &str)] = &[
    ("embeddings", "embeddings", GENERATES),
    (
        "images",
        "making pictures",
        "the family reads pictures: send them in the messages of POST /v1/chat/completions",
    ),
    ("videos", "making films", GENERATES),
    ("audio/speech", "speech", GENERATES),
    (
        "audio/translations",
        "translating sound",
        "put the sound into a message of POST /v1/chat/completions and ask for the translation",
    ),
    ("realtime", "spoken conversations", GENERATES),
    (
        "fine_tuning",
        "training models",
        "put a file that was trained elsewhere into the models' directory",
    ),
    (
        "batches",
        "batches",
        "send the requests one by one, they are queued; POST /v1/responses takes `background`",
    ),
    (
        "messages/batches",
        "batches",
        "send the requests one by one, they are queued",
    ),
    ("moderations", "moderation", GENERATES),
    ("assistants", "assistants", STATE),
    ("threads", "threads", STATE),
    ("conversations", "kept conversations", STATE),
    ("vector_stores", "searching files", STATE),
    (
        "uploads",
        "files in parts",
        "send the file whole to POST /v1/files",
    ),
    (
        "complete",
        "Anthropic's old text completions",
        "use POST /v1/messages",
    ),
    ("edits", "edits", GENERATES),
    ("embedding", "embeddings", GENERATES),
    ("rerank", "ranking", GENERATES),
    ("reranking", "ranking", GENERATES),
    (
        "infill",
        "filling gaps",
        "the family was not taught to; POST /v1/completions goes on with a text",
    ),
    (
        "lora-adapters",
        "adapters",
        "merge them into the model's file elsewhere",
    ),
    // Ollama's.
    ("api/embed", "embeddings", GENERATES),
    ("api/embeddings", "embeddings", GENERATES),
    ("api/create", "making models of others", MADE),
    ("api/copy", "second names of models", NAMES),
    ("api/push", "publishing models", FILES),
    (
        "api/blobs",
        "files of models",
        "`gemmactl import` and POST /models/import take a GGUF file in; POST /api/pull fetches one",
    ),
    ("api/me", "accounts", ACCOUNTS),
    ("api/signout", "accounts", ACCOUNTS),
    ("api/user", "accounts", ACCOUNTS),
    ("api/web_search", "searching the web", SEARCH),
    ("api/web_fetch", "fetching pages", SEARCH),
    ("api/experimental", "what Ollama tries out", OLLAMA),
    ("api", "this part of Ollama's API", OLLAMA),
];

const GENERATES: &str = "the Gemma 4 family generates text: POST /v1/chat/completions, /v1/responses, /v1/messages and /v1/completions are served";
const OLLAMA: &str = "what is: POST /api/chat, /api/generate, /api/show, /api/pull, GET /api/tags, /api/ps, /api/version, DELETE /api/delete";
const MADE: &str = "send `system`, `options` and `messages` with each request; `gemmactl import` takes in a GGUF file that was made elsewhere";
const NAMES: &str =
    "a model is called as its file is; `gemmactl import --link` gives a file a second name";
const FILES: &str = "upload the file from the models' directory to where others fetch it";
const ACCOUNTS: &str = "there are none; the kernel says who the caller is";
const SEARCH: &str = "offer a function for it in the `tools` of POST /api/chat";
const STATE: &str = "use POST /v1/responses with `store` and `previous_response_id`";

/// Why there is nothing at this path, if it is one that clients know from elsewhere.
pub fn reason(path: &str) -> Option<String> {
    let rest = path.strip_prefix("/v1/").or(path.strip_prefix('/'))?;
    let is_under = |prefix: &str| {
        rest.strip_prefix(prefix)
            .is_some_and(|more| more.is_empty() || more.starts_with('/'))
    };
    let (_, what, instead) = UNSUPPORTED.iter().find(|(prefix, ..)| is_under(prefix))?;
    Some(format!("{what}: not served here; {instead}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_paths_are_explained() {
        for path in [
            "/v1/embeddings",
            "/v1/images/generations",
            "/v1/fine_tuning/jobs/x",
            "/v1/batches",
            "/v1/assistants",
            "/embeddings",
            "/api/embed",
            "/api/blobs/sha256:00",
            "/api/copy",
            "/api/anything",
            "/infill",
        ] {
            assert!(
                reason(path).is_some_and(|reason| reason.contains("not served here; ")),
                "{path}"
            );
        }
        for path in ["/v1/embeddingsx", "/v1", "/v1/", "/v1/chat/completions"] {
            assert_eq!(reason(path), None, "{path}");
        }
    }
}
