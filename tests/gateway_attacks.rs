//! The gateway under attack, and with clients that do not do what it expects.

mod harness;

use std::fs;

use harness::Options;
use harness::gateway::{both_with, gemmactl};
use serde_json::Value;

#[test]
fn a_refusal_reaches_whoever_is_still_sending() {
    const TIMES: usize = 50;
    let options = Options {
        limits: "body-size = \"1 MiB\"\n".into(),
        ..Options::default()
    };
    let Some((daemon, gateway)) = both_with(options, "") else {
        return;
    };
    let token = gemmactl(&daemon, &["token", "issue"]);
    let models = gemmactl(&daemon, &["token", "issue", "--scope", "models"]);
    let [small, large] = [300_000, 8 << 20].map(|bytes| {
        let file = gateway.dir.path().join(bytes.to_string());
        fs::write(&file, vec![b'x'; bytes]).unwrap();
        format!("@{}", file.display())
    });
    let chat = "/v1/chat/completions";
    for protocol in ["--http2", "--http1.1"] {
        for (key, path, body, refused) in [
            ("gmd_x", chat, &small, (401, "invalid_token")),
            ("gmd_x", chat, &large, (401, "invalid_token")),
            (&*token, "/tokens", &large, (403, "not_permitted")),
            (&*models, chat, &small, (403, "not_permitted")),
            (&*token, chat, &large, (413, "body_too_large")),
        ] {
            let key = format!("Authorization: Bearer {key}");
            for time in 0..TIMES {
                let (status, told) =
                    gateway.curl(path, &[protocol, "-H", &key, "--data-binary", body]);
                let told: Value = serde_json::from_str(&told).unwrap_or_default();
                let code = told["error"]["code"].as_str().unwrap_or("");
                assert_eq!((status, code), refused, "{protocol} {path} {body} {time}");
            }
        }
    }
}
