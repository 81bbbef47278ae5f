//! A bar that shows how far something is, on a terminal.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::show::show_size;
use super::text::Terminal;

/// How often it is drawn.
const DRAW_HZ: u8 = 10;

/// Shows itself when there is something to show, on a terminal only. Clones are one bar.
#[derive(Clone)]
pub struct Bar(ProgressBar);

impl Bar {
    pub fn new(terminal: &Terminal) -> Self {
        let target = match terminal.err.is_terminal {
            true => ProgressDrawTarget::stderr_with_hz(DRAW_HZ),
            false => ProgressDrawTarget::hidden(),
        };
        let bar = ProgressBar::with_draw_target(None, target);
        if let Ok(style) = ProgressStyle::with_template("{wide_bar} {msg}") {
            bar.set_style(style.progress_chars("=> "));
        }
        Self(bar)
    }

    /// It is at `at` of `of`, and says so in these words.
    pub fn show(&self, at: u64, of: Option<u64>, said: String) {
        if let Some(of) = of {
            self.0.set_length(of);
        }
        self.0.set_position(at);
        self.0.set_message(said);
    }

    /// It is at the beginning of so many bytes.
    pub fn begin(&self, bytes: u64) {
        self.0.reset();
        self.show(0, Some(bytes), String::new());
    }

    /// It is so many bytes further.
    pub fn add(&self, bytes: u64) {
        let (at, of) = (self.0.position() + bytes, self.0.length().unwrap_or(0));
        self.show(at, None, format!("{} of {}", show_size(at), show_size(of)));
    }

    pub fn clear(&self) {
        self.0.finish_and_clear();
    }
}
