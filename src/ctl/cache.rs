//! `gemmactl cache`: the packed weights and the prompts that are kept on the disk.

use std::fmt::Write;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Deserialize;

use super::client::Client;
use super::error::Error;
use super::show::{parse, pretty, promptly, show_size};
use super::table::table;
use super::text::{Stream, Terminal};

#[derive(Default, Deserialize)]
#[serde(default)]
struct Cache {
    directory: Option<String>,
    limit: Option<u64>,
    bytes: u64,
    files: Vec<File>,
    prompts: Prompts,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Prompts {
    bytes: u64,
    entries: Vec<Prompt>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Prompt {
    model: String,
    owner: String,
    tokens: u64,
    bytes: u64,
    /// Seconds since 1970.
    used: u64,
    retention: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Cleared {
    freed: u64,
    files: Vec<File>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct File {
    name: String,
    bytes: u64,
    /// Seconds since 1970.
    used: u64,
    in_use: bool,
}

pub async fn list(client: &dyn Client, json: bool, terminal: &Terminal) -> Result<Vec<u8>, Error> {
    let cache = promptly(client.packed_weights()).await?;
    if json {
        return Ok(pretty(&cache, terminal));
    }
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    Ok(list_view(&parse(cache)?, now, terminal.out).into_bytes())
}

pub async fn clear(client: &dyn Client, json: bool, terminal: &Terminal) -> Result<Vec<u8>, Error> {
    let cleared = client.clear_packed_weights().await?;
    if json {
        Ok(pretty(&cleared, terminal))
    } else {
        Ok(clear_view(&parse(cleared)?).into_bytes())
    }
}

pub async fn forget(
    client: &dyn Client,
    all: bool,
    json: bool,
    terminal: &Terminal,
) -> Result<Vec<u8>, Error> {
    let forgotten = client.clear_prompts(all).await?;
    if json {
        return Ok(pretty(&forgotten, terminal));
    }
    let forgotten: Prompts = parse(forgotten)?;
    let (count, bytes) = (forgotten.entries.len(), show_size(forgotten.bytes));
    Ok(format!("forgot {}, {bytes} freed\n", counted(count, "prompt")).into_bytes())
}

/// `now` is since 1970.
fn list_view(cache: &Cache, now: Duration, out: Stream) -> String {
    let Some(directory) = &cache.directory else {
        return "packed weights are not kept on the disk: `cache-directory` is empty\n".into();
    };
    let row = |file: &File| {
        let used = if file.in_use {
            "now".into()
        } else {
            ago(now.saturating_sub(Duration::from_secs(file.used)))
        };
        [file.name.clone(), show_size(file.bytes), used]
    };
    let mut view = table(
        ["PACKED WEIGHTS", "SIZE", "USED"],
        cache.files.iter().map(row),
        &[1],
        out,
    );
    let limit = cache
        .limit
        .map(|limit| format!(" of {} at most", show_size(limit)))
        .unwrap_or_default();
    let count = counted(cache.files.len(), "file");
    // Writing to a string does not fail.
    let _ = writeln!(
        view,
        "{count}, {}{limit}, in {}",
        show_size(cache.bytes),
        out.clean(directory)
    );
    if !cache.prompts.entries.is_empty() {
        view += "\n";
        view += &prompts_view(&cache.prompts, now, out);
    }
    view
}

fn prompts_view(prompts: &Prompts, now: Duration, out: Stream) -> String {
    let row = |prompt: &Prompt| {
        [
            prompt.model.clone(),
            prompt.owner.clone(),
            prompt.tokens.to_string(),
            show_size(prompt.bytes),
            ago(now.saturating_sub(Duration::from_secs(prompt.used))),
            match &prompt.retention[..] {
                "24h" => "24 h".to_owned(),
                "configured" => "as long as configured".to_owned(),
                _ => "until the daemon stops".to_owned(),
            },
        ]
    };
    let mut view = table(
        ["PROMPTS OF", "OWNER", "TOKENS", "SIZE", "USED", "KEPT"],
        prompts.entries.iter().map(row),
        &[2, 3],
        out,
    );
    let count = counted(prompts.entries.len(), "prompt");
    // Writing to a string does not fail.
    let _ = writeln!(view, "{count}, {}", show_size(prompts.bytes));
    view
}

fn clear_view(cleared: &Cleared) -> String {
    let kept: u64 = cleared
        .files
        .iter()
        .filter(|file| file.in_use)
        .map(|file| file.bytes)
        .sum();
    let later = if kept > 0 {
        format!("; {} of them when the model is unloaded", show_size(kept))
    } else {
        String::new()
    };
    format!(
        "removed {}, {} ({} bytes) freed{later}\n",
        counted(cleared.files.len(), "file"),
        show_size(cleared.freed),
        cleared.freed
    )
}

fn counted(count: usize, what: &str) -> String {
    match count {
        1 => format!("1 {what}"),
        _ => format!("{count} {what}s"),
    }
}

fn ago(time: Duration) -> String {
    let (minutes, hours, days) = (
        time.as_secs() / 60,
        time.as_secs() / 3600,
        time.as_secs() / 86400,
    );
    match (minutes, hours) {
        (0, _) => "just now".into(),
        (_, 0) => format!("{minutes} min ago"),
        (_, 1..48) => format!("{hours} h ago"),
        _ => format!("{days} days ago"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const PIPE: Stream = Stream {
        is_terminal: false,
        colour: false,
    };

    #[test]
    fn files_stand_in_columns() {
        let file = |name: &str, bytes, used, in_use| json!({"name": name, "bytes": bytes, "used": used, "in_use": in_use});
        let files = [
            file("e2b-0123456789abcdef", 1_u64 << 30, 1000, false),
            file("tiny-0", 2 << 20, 0, true),
        ];
        let cache = json!({"directory": "/var/cache/gemmad", "limit": 32_u64 << 30, "bytes": (1_u64 << 30) + (2 << 20), "files": files});
        let expected = "PACKED WEIGHTS           SIZE  USED\n\
                        e2b-0123456789abcdef  1.0 GiB  5 min ago\n\
                        tiny-0                2.0 MiB  now\n\
                        2 files, 1.0 GiB of 32.0 GiB at most, in /var/cache/gemmad\n";
        assert_eq!(
            list_view(&parse(cache).unwrap(), Duration::from_secs(1300), PIPE),
            expected
        );
        let prompt = |retention| json!({"model": "e2b", "owner": "1000", "tokens": 3000, "bytes": 24 << 20, "used": 1240, "retention": retention});
        let entries = [prompt("in_memory"), prompt("24h")];
        let cache = json!({"directory": "/c", "files": [], "prompts": {"bytes": 48 << 20, "entries": entries}});
        let view = list_view(&parse(cache).unwrap(), Duration::from_secs(1300), PIPE);
        let prompts = "\nPROMPTS OF  OWNER  TOKENS      SIZE  USED       KEPT\n\
                       e2b         1000     3000  24.0 MiB  1 min ago  until the daemon stops\n\
                       e2b         1000     3000  24.0 MiB  1 min ago  24 h\n\
                       2 prompts, 48.0 MiB\n";
        assert!(view.ends_with(prompts), "{view}");
        let cleared = json!({"freed": 6 << 20, "files": files});
        assert_eq!(
            clear_view(&parse(cleared).unwrap()),
            "removed 2 files, 6.0 MiB (6291456 bytes) freed; 2.0 MiB of them when the model is unloaded\n"
        );
    }

    #[test]
    fn an_empty_cache_and_none() {
        let view = |cache| list_view(&parse(cache).unwrap(), Duration::ZERO, PIPE);
        assert_eq!(
            view(json!({"directory": "/c", "limit": 1 << 20, "bytes": 0, "files": []})),
            "0 files, 0 KiB of 1.0 MiB at most, in /c\n"
        );
        assert!(view(json!({"directory": null})).contains("`cache-directory` is empty"));
        assert_eq!(
            clear_view(&Cleared::default()),
            "removed 0 files, 0 KiB (0 bytes) freed\n"
        );
    }

    #[test]
    fn times_are_told_roughly() {
        let times =
            [0, 60, 3600, 47 * 3600, 48 * 3600].map(|seconds| ago(Duration::from_secs(seconds)));
        assert_eq!(
            times,
            ["just now", "1 min ago", "1 h ago", "47 h ago", "2 days ago"]
        );
    }
}
