//! `gemmactl token helper`: a token for programs that ask for their key with a command. The last one is kept until it is
//! nearly over, so that a program that asks every minute does not make a token every minute.

use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::header::{AUTHORIZATION, HOST};
use rustix::fs::OFlags;
use rustix::process::geteuid;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::Token;
use crate::access::token::PREFIX;
use crate::ctl::args::HelperArgs;
use crate::ctl::client::Client;
use crate::ctl::error::Error;
use crate::ctl::http::Http;
use crate::ctl::show::{parse, promptly};
use crate::ctl::socket::runtime_directory;
use crate::ctl::text::Terminal;
use crate::store::replace::replace;

/// Below the user's runtime directory.
const FOLDER: &str = "gemmactl";
const FILE: &str = "tokens.json";
/// Tokens that are kept: of so many daemons and kinds.
const MOST: usize = 16;
/// Bytes of the file that are read.
const MOST_BYTES: u64 = 64 << 10;
/// Seconds that a token is good for at least when it is printed; half of its time if that is less.
const SPARE: u64 = 600;

/// A token that was printed.
#[derive(Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    /// What was asked for, and of whom.
    order: Value,
    token: String,
    /// Seconds since 1970.
    issued: u64,
    expires: u64,
}

impl Kept {
    /// Whether a program that is given it now has some time.
    fn lasts(&self, now: u64) -> bool {
        let whole = self.expires.saturating_sub(self.issued);
        // A clock that was set back makes none last longer.
        self.issued <= now && now.saturating_add(SPARE.min(whole / 2)) < self.expires
    }
}

impl Http {
    /// Whether the daemon takes this token.
    async fn takes(&self, token: &str) -> Result<bool, Error> {
        let request = Request::get("/version")
            .header(HOST, "localhost")
            .header(AUTHORIZATION, format!("Bearer {token}"))
            .body(Full::default().map_err(|never| match never {}).boxed())
            .map_err(Error::broken)?;
        match self.exchange(request).await {
            // One that may not ask so often is a good one.
            Ok(_) | Err(Error::Busy { .. }) => Ok(true),
            Err(Error::Refused { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// The token alone. `sockets`: those of the daemon, to tell tokens of several daemons apart.
pub async fn run(
    daemon: &Http,
    args: &HelperArgs,
    sockets: &[PathBuf],
    terminal: &Terminal,
) -> Result<Vec<u8>, Error> {
    let cache = Cache::find(&runtime_directory());
    let wanted = args.order.order();
    let order = json!({ "of": sockets, "what": wanted });
    let now = now();
    let mut kept = cache.as_ref().map(Cache::read).unwrap_or_default();
    kept.retain(|one| one.lasts(now));
    let found = kept.iter().find(|one| one.order == order).cloned();
    if let Some(found) = found
        && promptly(Box::pin(daemon.takes(&found.token))).await?
    {
        return Ok(line(&found.token, terminal));
    }
    kept.retain(|one| one.order != order);
    let issued: Token = parse(promptly(daemon.issue_token(&wanted)).await?)?;
    if !issued.token.starts_with(PREFIX) {
        return Err(Error::broken("it sent no token"));
    }
    kept.truncate(MOST - 1);
    kept.insert(
        0,
        Kept {
            order,
            token: issued.token.clone(),
            issued: now,
            expires: issued.expires_at,
        },
    );
    if let Some(cache) = &cache {
        cache.write(&kept)?;
    }
    Ok(line(&issued.token, terminal))
}

fn line(token: &str, terminal: &Terminal) -> Vec<u8> {
    format!("{}\n", terminal.out.clean(token)).into_bytes()
}

fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |time| time.as_secs())
}

/// The file of tokens, which this user alone can read and which ends with their session.
struct Cache(PathBuf);

impl Cache {
    /// In the user's own runtime directory; `None`: there is none, and nothing is kept.
    fn find(runtime: &Path) -> Option<Self> {
        let folder = runtime.join(FOLDER);
        let is_ours = |path: &Path| {
            let metadata = path.symlink_metadata().ok()?;
            (metadata.is_dir() && metadata.uid() == geteuid().as_raw()).then_some(metadata.mode())
        };
        is_ours(runtime)?;
        // It may be there.
        let _ = DirBuilder::new().mode(0o700).create(&folder);
        let mode = is_ours(&folder)?;
        (mode & 0o077 == 0).then(|| Self(folder.join(FILE)))
    }

    /// What it has: nothing if others could have read or written it, or if it is not what this program writes.
    fn read(&self) -> Vec<Kept> {
        self.try_read().unwrap_or_default()
    }

    fn try_read(&self) -> io::Result<Vec<Kept>> {
        let file = OpenOptions::new()
            .read(true)
            .custom_flags((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits() as i32)
            .open(&self.0)?;
        let metadata = file.metadata()?;
        let is_ours = metadata.uid() == geteuid().as_raw() && metadata.mode() & 0o077 == 0;
        if !metadata.is_file() || !is_ours {
            return Ok(vec![]);
        }
        let mut bytes = vec![];
        file.take(MOST_BYTES).read_to_end(&mut bytes)?;
        Ok(serde_json::from_slice(&bytes)?)
    }

    fn write(&self, kept: &[Kept]) -> Result<(), Error> {
        let written = serde_json::to_vec(kept)
            .map_err(io::Error::from)
            .and_then(|bytes| replace(&self.0, 0o600, &bytes));
        written.map_err(|cause| Error::File {
            path: self.0.clone(),
            cause,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn kept(issued: u64, expires: u64) -> Kept {
        Kept {
            order: json!({}),
            token: "gmd_x".into(),
            issued,
            expires,
        }
    }

    #[test]
    fn a_token_is_printed_again_while_it_lasts_long_enough() {
        let hour = kept(1000, 4600);
        assert!(hour.lasts(1000) && hour.lasts(3999));
        assert!(!hour.lasts(4000) && !hour.lasts(5000));
        let minute = kept(1000, 1060);
        assert!(minute.lasts(1029) && !minute.lasts(1030));
        // The clock was set back.
        assert!(!hour.lasts(999));
    }

    #[test]
    fn what_others_could_have_read_is_not_used() {
        let runtime = tempfile::tempdir().unwrap();
        let cache = Cache::find(runtime.path()).unwrap();
        cache.write(&[kept(1, 2)]).unwrap();
        let mode = |path: &Path, bits| {
            fs::set_permissions(path, fs::Permissions::from_mode(bits)).unwrap();
        };
        assert_eq!(fs::metadata(&cache.0).unwrap().mode() & 0o777, 0o600);
        assert_eq!(cache.read().len(), 1);
        mode(&cache.0, 0o640);
        assert!(cache.read().is_empty());
        let folder = runtime.path().join(FOLDER);
        mode(&folder, 0o755);
        assert!(Cache::find(runtime.path()).is_none());
        mode(&folder, 0o700);
        fs::remove_file(&cache.0).unwrap();
        std::os::unix::fs::symlink("/etc/hostname", &cache.0).unwrap();
        assert!(cache.read().is_empty());
        // What is there is replaced, not followed.
        cache.write(&[]).unwrap();
        assert!(cache.0.symlink_metadata().unwrap().is_file());
        assert!(Cache::find(&runtime.path().join("none")).is_none());
    }
}
