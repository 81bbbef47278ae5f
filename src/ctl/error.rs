//! How gemmactl can fail, what it says then, and the exit codes that scripts rely on.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::config;

pub const FAILED: u8 = 1;
pub const USAGE: u8 = 2;
pub const UNAVAILABLE: u8 = 69;
pub const TRY_LATER: u8 = 75;
pub const NO_PERMISSION: u8 = 77;
pub const BAD_CONFIG: u8 = 78;
pub const INTERRUPTED: u8 = 130;

/// The promise to scripts, as help and manual print it.
pub const EXIT_STATUS: &[(u8, &str)] = &[
    (0, "All went well."),
    (
        FAILED,
        "The daemon refused the request or failed while it answered.",
    ),
    (
        USAGE,
        "The command line, the prompt or a file that goes with it cannot be used.",
    ),
    (
        UNAVAILABLE,
        "The daemon is not running or cannot be reached.",
    ),
    (
        TRY_LATER,
        "The daemon is busy, or --timeout is over: try later.",
    ),
    (
        NO_PERMISSION,
        "You may not open the socket, not call over the bus, not read or write the file, or not do this: it is for administrators.",
    ),
    (BAD_CONFIG, "The configuration has mistakes."),
    (INTERRUPTED, "Interrupted by Ctrl-C."),
];

/// Why a command did not do what it was asked to.
#[derive(Debug)]
pub enum Error {
    /// Nobody listens on any of the sockets.
    NotRunning { sockets: Vec<(PathBuf, io::Error)> },
    /// The socket, or a directory on the way to it, is closed to this user. `remedy` says how to
    /// get in.
    NotPermitted { socket: PathBuf, remedy: String },
    /// There is no bus, or nobody serves on it.
    NotOnBus { cause: String },
    /// The bus's policy keeps this user out.
    KeptOut { cause: String },
    /// The daemon is there and has no room now.
    Busy {
        message: String,
        retry_after: Option<Duration>,
    },
    /// The daemon is there and lets this user not do it.
    NotAllowed { message: String },
    /// The daemon said no, and perhaps to which field of the request.
    Refused {
        message: String,
        field: Option<String>,
    },
    /// The connection ended before the answer did, or what came is no answer.
    Broken { cause: String },
    /// `--timeout` is over.
    TimedOut { limit: Duration },
    /// The prompt cannot be used.
    Usage(String),
    /// The configuration has mistakes.
    Config(config::Errors),
    /// A file could not be read or written.
    File { path: PathBuf, cause: io::Error },
    /// Standard input or output, or the system under them, failed.
    Output(io::Error),
    /// The reader of our output has left, as `head` does.
    Closed,
}

impl Error {
    /// For failures of writing to standard output or error.
    pub fn from_output(cause: io::Error) -> Self {
        if cause.kind() == io::ErrorKind::BrokenPipe {
            Self::Closed
        } else {
            Self::Output(cause)
        }
    }

    /// For what breaks off or cannot be read.
    pub fn broken(cause: impl ToString) -> Self {
        Self::Broken {
            cause: cause.to_string(),
        }
    }

    /// The exit code, one of [`EXIT_STATUS`].
    pub fn code(&self) -> u8 {
        match self {
            Self::NotRunning { .. } | Self::NotOnBus { .. } => UNAVAILABLE,
            Self::NotPermitted { .. } | Self::KeptOut { .. } | Self::NotAllowed { .. } => {
                NO_PERMISSION
            }
            Self::File { cause, .. } if cause.kind() == io::ErrorKind::PermissionDenied => {
                NO_PERMISSION
            }
            Self::Busy { .. } | Self::TimedOut { .. } => TRY_LATER,
            Self::Refused { .. } | Self::Broken { .. } | Self::File { .. } | Self::Output(_) => {
                FAILED
            }
            Self::Usage(_) => USAGE,
            Self::Config(_) => BAD_CONFIG,
            Self::Closed => 0,
        }
    }

    /// What to tell the user, and what can be done; `None` when there is nothing to tell.
    pub fn message(&self) -> Option<String> {
        // What others wrote stays within its line, and shows what is in it.
        let plain = |text: &str| config::one_line(text).into_owned();
        let name = |path: &Path| plain(&path.display().to_string());
        Some(match self {
            Self::NotRunning { sockets } => {
                let tried = sockets
                    .iter()
                    .map(|(socket, cause)| format!("{}: {cause}", name(socket)));
                format!(
                    "gemmad is not running: {}\nstart it with `systemctl start gemmad`, your own one with `systemctl --user start \
                     gemmad`, or by hand with `gemmad --config FILE`; if it listens on another socket, name that with --socket or \
                     GEMMAD_SOCKET",
                    tried.collect::<Vec<_>>().join(", ")
                )
            }
            Self::NotPermitted { socket, remedy } => {
                format!("you may not open {}\n{}", name(socket), plain(remedy))
            }
            Self::NotOnBus { cause } => format!(
                "gemmad is not on the bus: {}\nstart it with `systemctl start gemmad`; `dbus` in gemmad.toml says on which bus it \
                 serves, and --bus=session or --bus=ADDRESS names another one here",
                plain(cause)
            ),
            Self::KeptOut { cause } => {
                format!(
                    "the bus does not let you in: {}\nan administrator can, with `usermod -aG gemmad NAME`; then log in again",
                    plain(cause)
                )
            }
            Self::Busy {
                message,
                retry_after: Some(time),
            } => format!(
                "{}\ntry again in {} s",
                plain(message),
                time.as_secs().max(1)
            ),
            Self::Busy {
                message,
                retry_after: None,
            } => format!("{}\ntry again later", plain(message)),
            Self::NotAllowed { message } | Self::Refused { message, .. } => plain(message),
            Self::Broken { cause } => format!(
                "the daemon broke off: {}\n`gemmactl status` and `journalctl -u gemmad` may say why",
                plain(cause)
            ),
            Self::TimedOut { limit } => format!(
                "no complete answer after {limit:?}\ngive it more time with --timeout, or try again later"
            ),
            Self::Usage(message) => plain(message),
            Self::Config(errors) => format!("the configuration has mistakes:\n{errors}"),
            Self::File { path, cause } => format!("{}: {cause}", name(path)),
            Self::Output(cause) => cause.to_string(),
            Self::Closed => return None,
        })
    }
}

/// The table at the end of `--help`.
pub fn exit_status_help() -> String {
    let lines = EXIT_STATUS
        .iter()
        .map(|(code, meaning)| format!("\n  {code:<4} {meaning}"));
    format!("Exit status:{}", lines.collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::super::socket::not_connected;
    use super::*;

    #[test]
    fn every_exit_code_is_the_promised_one() {
        let socket = || PathBuf::from("/s");
        let connect = |kind: io::ErrorKind| not_connected(Path::new("/nowhere/s"), kind.into());
        let cases = [
            (connect(io::ErrorKind::NotFound), 69),
            (connect(io::ErrorKind::ConnectionRefused), 69),
            (connect(io::ErrorKind::PermissionDenied), 77),
            (connect(io::ErrorKind::WouldBlock), 75),
            (connect(io::ErrorKind::InvalidInput), 2),
            (
                Error::Busy {
                    message: String::new(),
                    retry_after: None,
                },
                75,
            ),
            (
                Error::TimedOut {
                    limit: Duration::from_secs(1),
                },
                75,
            ),
            (
                Error::NotAllowed {
                    message: String::new(),
                },
                77,
            ),
            (
                Error::Refused {
                    message: String::new(),
                    field: None,
                },
                1,
            ),
            (
                Error::Broken {
                    cause: String::new(),
                },
                1,
            ),
            (
                Error::File {
                    path: socket(),
                    cause: io::ErrorKind::NotFound.into(),
                },
                1,
            ),
            (
                Error::File {
                    path: socket(),
                    cause: io::ErrorKind::PermissionDenied.into(),
                },
                77,
            ),
            (Error::from_output(io::ErrorKind::StorageFull.into()), 1),
            (Error::from_output(io::ErrorKind::BrokenPipe.into()), 0),
            (Error::Usage(String::new()), 2),
            (Error::Config(config::Errors(vec![])), 78),
        ];
        for (error, code) in cases {
            assert_eq!(error.code(), code, "{error:?}");
            assert!(
                EXIT_STATUS.iter().any(|(known, _)| *known == code),
                "{code} is not documented"
            );
        }
    }

    #[test]
    fn messages_say_what_to_do() {
        let text = |error: Error| error.message().unwrap_or_default();
        let not_running = text(not_connected(
            Path::new("/nowhere/s"),
            io::ErrorKind::NotFound.into(),
        ));
        assert!(
            not_running.contains("/nowhere/s") && not_running.contains("systemctl start gemmad"),
            "{not_running}"
        );
        let busy = text(Error::Busy {
            message: "full".into(),
            retry_after: Some(Duration::from_secs(7)),
        });
        assert_eq!(busy, "full\ntry again in 7 s");
        for error in [
            Error::Usage("a\n\x1b[2Jb".into()),
            Error::NotAllowed {
                message: "a\n\x1b[2Jb".into(),
            },
        ] {
            assert_eq!(text(error), "a\\n\\u{1b}[2Jb");
        }
        let odd = text(not_connected(
            Path::new("a\nb"),
            io::ErrorKind::NotFound.into(),
        ));
        assert!(odd.starts_with("gemmad is not running: a\\nb: "), "{odd}");
    }
}
