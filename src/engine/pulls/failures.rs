//! What goes wrong with downloads, as failures that name the remedy.

use std::io;

use super::way::Way;
use crate::backend::{Failure, PullFault};

/// What a disk's refusal is.
pub fn disk(path: &std::path::Path, error: io::Error) -> Failure {
    let full = matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
    );
    let fault = if full {
        PullFault::Full
    } else {
        PullFault::Directory
    };
    let remedy = match full {
        true => "; `gemmactl rm` and `gemmactl cache clear` make room, and what came is kept",
        false => "",
    };
    Failure::Pull {
        fault,
        text: format!("{}: {error}{remedy}", path.display()),
    }
}

/// What a status says that will not change by itself.
pub fn not_served(status: u16, way: &Way) -> Failure {
    let (fault, text) = match status {
        401 | 403 => {
            let text = match way.has_token() {
                true => format!(
                    "its server answers {status}: the token may not have it. The licence of a gated repository has to be accepted on the hub first"
                ),
                false => format!(
                    "its server answers {status}: it is gated, or not there. The hub wants a token: `token-file` in gemmad.toml names it"
                ),
            };
            (PullFault::Gated, text)
        }
        404 | 410 => (
            PullFault::Unknown,
            format!("its server answers {status}: it is not there"),
        ),
        _ => (PullFault::Server, format!("its server answers {status}")),
    };
    Failure::Pull { fault, text }
}

pub fn cancelled() -> Failure {
    Failure::Pull {
        fault: PullFault::NoJob,
        text: "it was cancelled".into(),
    }
}
