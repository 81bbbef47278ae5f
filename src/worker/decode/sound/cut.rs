//! Where a sound that is too long is cut: at a pause. Pure.

/// Milliseconds of a frame, whose loudness is one number.
const FRAME_MS: usize = 20;
/// Frames of the shortest pause between words that tells itself from a closed mouth within one.
const PAUSE: usize = 15;
/// The first part of what is looked at has no cut: so pieces come to an end.
const SHORTEST: usize = 3;
/// How much louder than the quietest pause the others may be, as long as they are quieter than what is
/// halfway to the mean.
const ALIKE: f32 = 2.0;
/// The largest sample of what nobody hears, 60 dB below the loudest.
const INAUDIBLE: f32 = 0.001;

/// Samples up to the cut, a third of all `samples` at least: in the middle of the longest pause. Where
/// there is none it is at the quietest place.
pub fn place(samples: &[f32], rate: u32) -> usize {
    let frame = (rate as usize * FRAME_MS / 1000).max(1);
    let first = samples.len() / SHORTEST;
    let frames: Vec<f32> = samples[first..]
        .chunks_exact(frame)
        .map(|frame| frame.iter().map(|sample| sample * sample).sum())
        .collect();
    let pauses: Vec<f32> = frames
        .windows(PAUSE)
        .map(|pause| pause.iter().sum())
        .collect();
    let Some(quietest) = pauses.iter().copied().reduce(f32::min) else {
        return samples.len();
    };
    let inaudible = INAUDIBLE * INAUDIBLE * (frame * PAUSE) as f32;
    let mean = pauses.iter().sum::<f32>() / pauses.len() as f32;
    let alike = (ALIKE * quietest)
        .min(quietest.midpoint(mean))
        .max(inaudible);
    let (mut begin, mut longest) = (0, 0..0);
    for (at, pause) in pauses.iter().enumerate() {
        if *pause > alike {
            begin = at + 1;
        } else if at + 1 - begin >= longest.len() {
            longest = begin..at + 1;
        }
    }
    // As many frames are in a pause as in its first window, and one more for each further window.
    first + (longest.start + longest.end - 1 + PAUSE) * frame / 2
}

/// Whether there is nothing to hear.
pub fn is_silent(samples: &[f32]) -> bool {
    samples.iter().all(|sample| sample.abs() < INAUDIBLE)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: u32 = 8000;

    /// A tone, with these seconds of it quiet.
    fn speech(seconds: usize, pauses: &[(f32, f32)], noise: f32) -> Vec<f32> {
        let rate = RATE as f32;
        (0..seconds * RATE as usize)
            .map(|i| {
                let at = i as f32 / rate;
                let is_quiet = pauses.iter().any(|(from, to)| (*from..*to).contains(&at));
                (at * 1000.0).sin() * if is_quiet { noise } else { 0.5 }
            })
            .collect()
    }

    #[test]
    fn the_longest_pause_is_where_it_is_cut() {
        for noise in [0.0, 0.0005, 0.02] {
            let sound = speech(
                30,
                &[(2.0, 4.0), (12.0, 12.4), (20.0, 21.0), (29.0, 29.5)],
                noise,
            );
            let cut = place(&sound, RATE) as f32 / RATE as f32;
            assert!((cut - 20.5).abs() < 0.05, "{noise}: {cut}");
        }
        // A pause that lasts to the end.
        let cut = place(&speech(30, &[(24.0, 30.0)], 0.0), RATE) as f32 / RATE as f32;
        assert!((cut - 27.0).abs() < 0.05, "{cut}");
    }

    #[test]
    fn what_has_no_pause_is_cut_all_the_same() {
        let mut sound = speech(30, &[], 0.0);
        let third = sound.len() / SHORTEST;
        assert!((third..=sound.len()).contains(&place(&sound, RATE)));
        // A breath.
        sound[25 * RATE as usize..][..800].fill(0.1);
        let cut = place(&sound, RATE) as f32 / RATE as f32;
        assert!((cut - 25.05).abs() < 0.2, "{cut}");
        for short in [0, 1, 100, 2000] {
            let cut = place(&sound[..short], RATE);
            assert!((short / SHORTEST..=short).contains(&cut), "{short}");
        }
    }

    #[test]
    fn silence_is_told_from_what_is_quiet() {
        assert!(is_silent(&[0.0, 0.0009, -0.0009]));
        assert!(!is_silent(&[0.0, 0.0, -0.002]));
    }
}
