//! The audio input of the family, and how many tokens a sound becomes. Pure.
//!
//! Both forms take mono sound of 16,000 samples a second and make about 25 tokens of a second.

use serde::{Deserialize, Serialize};

/// Samples a second.
pub const RATE: u32 = 16_000;
/// Seconds of the longest sound (transformers, `Gemma4AudioFeatureExtractor`; the encoder learned
/// no longer ones).
pub const MAX_SECONDS: u32 = 30;
/// Samples of the longest sound.
pub const MAX_SAMPLES: usize = (RATE * MAX_SECONDS) as usize;
/// Samples of the shortest sound: what becomes one token. A shorter one is filled up with silence.
pub const FRAME: usize = 640;

/// Samples from one window of the spectrum to the next, and of a window.
const HOP: usize = 160;
const WINDOW: usize = 320;

/// How sound becomes tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Hearing {
    /// E2B and E4B: a log-mel spectrum, halved twice, through an encoder.
    Spectrum,
    /// 12B: frames of raw samples.
    Frames,
}

impl Hearing {
    /// Tokens of a sound of so many samples, [`FRAME`] at least.
    pub fn tokens(self, samples: usize) -> usize {
        match self {
            // Half a window of silence comes before the sound; a window is looked at together with
            // the sample behind it.
            Self::Spectrum => ((samples + WINDOW / 2).saturating_sub(WINDOW + 1) / HOP + 1)
                .div_ceil(2)
                .div_ceil(2),
            Self::Frames => samples.div_ceil(FRAME),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_those_of_the_familys_processor() {
        // transformers 5.23, Gemma4Processor: 480,000 samples are 750 tokens.
        for (samples, spectrum, frames) in [
            (FRAME, 1, 1),
            (641, 1, 2),
            (1280, 2, 2),
            (16_000, 25, 25),
            (19_840, 31, 31),
            (MAX_SAMPLES, 750, 750),
        ] {
            assert_eq!(
                (
                    Hearing::Spectrum.tokens(samples),
                    Hearing::Frames.tokens(samples)
                ),
                (spectrum, frames),
                "{samples}"
            );
        }
    }
}
