//! What llama.cpp has to say, on standard error: warnings and errors only, and none of it holds a
//! prompt.

use std::ffi::{CStr, c_char, c_void};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, Once};

use llama_cpp_sys_2 as sys;

/// Bytes of one message at most; the rest is cut off.
const MAX_LINE: usize = 1024;

/// Warnings that every file of the family causes and that mean nothing: llama.cpp is told of tokens
/// without a vocabulary; a projector's part for sound is said to be experimental; a drafter reads its
/// model's cache.
const USUAL: [&str; 4] = [
    "dummy tokens",
    "audio input is in experimental stage",
    "to match the shared source cache",
    ": sharing with layer ",
];

/// The errors since the last [`take_reason`].
static REASON: Mutex<Option<String>> = Mutex::new(None);
/// Whether warnings are expected and of no interest: a decode is being stopped on purpose.
static MUTED: AtomicBool = AtomicBool::new(false);

/// Sends llama.cpp's messages, and the reason of an `abort`, to standard error. Everything that
/// loads something calls it first.
pub fn report() {
    static ONCE: Once = Once::new();
    // SAFETY: the callbacks are valid for the whole life of the process and take no data of ours.
    // They are set once, and what could log waits for that here.
    ONCE.call_once(|| unsafe {
        sys::llama_log_set(Some(on_message), std::ptr::null_mut());
        sys::mtmd_log_set(Some(on_message), std::ptr::null_mut());
        sys::ggml_set_abort_callback(Some(on_abort));
    });
}

/// The errors since the last call, as llama.cpp worded them, the most particular one first.
pub fn take_reason() -> Option<String> {
    REASON.lock().ok()?.take()
}

/// Drops messages until it is called with `false`.
pub(super) fn mute(muted: bool) {
    MUTED.store(muted, Ordering::Relaxed);
}

extern "C" fn on_message(level: sys::ggml_log_level, text: *const c_char, _: *mut c_void) {
    if level != sys::GGML_LOG_LEVEL_WARN && level != sys::GGML_LOG_LEVEL_ERROR
        || MUTED.load(Ordering::Relaxed)
    {
        return;
    }
    let line = line(text);
    if line.is_empty() || USUAL.iter().any(|usual| line.contains(usual)) {
        return;
    }
    eprintln!("llama.cpp: {line}");
    if level == sys::GGML_LOG_LEVEL_ERROR
        && let Ok(mut reason) = REASON.lock()
    {
        let reason = reason.get_or_insert_default();
        if reason.len() + line.len() < MAX_LINE {
            *reason = if reason.is_empty() {
                line
            } else {
                format!("{reason}; {line}")
            };
        }
    }
}

extern "C" fn on_abort(text: *const c_char) {
    eprintln!("llama.cpp gave up: {}", line(text));
}

fn line(text: *const c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: llama.cpp passes a string that ends in NUL and stays as it is during the call.
    let text = unsafe { CStr::from_ptr(text) };
    let bytes = text.to_bytes();
    String::from_utf8_lossy(&bytes[..bytes.len().min(MAX_LINE)])
        .trim()
        .replace(['\n', '\r'], " ")
}
