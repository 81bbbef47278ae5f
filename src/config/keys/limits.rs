//! `[limits]`: the limits that keep one client from harming the others.

use super::{Key, Rule, count, key, time};

pub(super) static KEYS: &[Key] = &[
    key(
        "connections",
        count(65_536, |config, n| config.limits.connections = n),
    ),
    key(
        "connections-per-user",
        count(65_536, |config, n| config.limits.connections_per_user = n),
    ),
    // A request goes to the worker as one frame; `ipc::frame::MAX_FRAME` leaves room beside it.
    key(
        "body-size",
        Rule::Size {
            min: 1 << 10,
            max: 48 << 20,
            put: |config, n| config.limits.body_bytes = n,
        },
    ),
    key("queue", count(65_536, |config, n| config.limits.queue = n)),
    key(
        "queue-per-user",
        count(65_536, |config, n| config.limits.queue_per_user = n),
    ),
    key(
        "output-tokens",
        count(262_144, |config, n| config.limits.output_tokens = n),
    ),
    key(
        "request-time",
        time(|config, time| config.limits.request_time = time),
    ),
    key(
        "client-stall",
        time(|config, time| config.limits.client_stall = time),
    ),
    key(
        "sound-time",
        time(|config, time| config.limits.sound_time = time),
    ),
    key(
        "load-time",
        time(|config, time| config.limits.load_time = time),
    ),
    key(
        "worker-silence",
        time(|config, time| config.limits.worker_silence = time),
    ),
    key(
        "stored-responses",
        Rule::Number {
            min: 0,
            max: 65_536,
            put: |config, n| config.limits.stored_responses = n,
        },
    ),
    key(
        "stored-size",
        Rule::Size {
            min: 1 << 10,
            max: 1 << 30,
            put: |config, n| config.limits.stored_bytes = n,
        },
    ),
    key(
        "stored-time",
        time(|config, time| config.limits.stored_time = time),
    ),
    key(
        "files-size",
        Rule::Size {
            min: 0,
            max: 1 << 30,
            put: |config, n| config.limits.files_bytes = n,
        },
    ),
    key(
        "files-time",
        time(|config, time| config.limits.files_time = time),
    ),
];
