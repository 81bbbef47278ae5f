use super::*;
use crate::gemma::sound::{FRAME, MAX_SAMPLES};
use proptest::prelude::*;

const WAV: &[u8] = include_bytes!("../../../../tests/data/sounds/tone-1.wav");
const MP3: &[u8] = include_bytes!("../../../../tests/data/sounds/tone-1.mp3");
const FLAC: &[u8] = include_bytes!("../../../../tests/data/sounds/tone-1.flac");
const OGG: &[u8] = include_bytes!("../../../../tests/data/sounds/tone-1.ogg");
const OPUS: &[u8] = include_bytes!("../../../../tests/data/sounds/tone-1.opus");

const AAC: &[u8] = include_bytes!("../../../../tests/data/sounds/tone-1.m4a");
const ALAC: &[u8] = include_bytes!("../../../../tests/data/sounds/tone-1.alac.m4a");
const WEBM: &[u8] = include_bytes!("../../../../tests/data/sounds/tone-1.webm");
const MP4: &[u8] = include_bytes!("../../../../tests/data/sounds/tone-1.mp4");
const ADPCM: &[u8] = include_bytes!("../../../../tests/data/sounds/tone-1.adpcm.wav");
const AIFF: &[u8] = include_bytes!("../../../../tests/data/sounds/tone-1.aiff");
const CAF: &[u8] = include_bytes!("../../../../tests/data/sounds/tone-1.caf");

/// All of a file, in pieces of so many samples at most, each from a reading of its own.
fn pieces(file: &[u8], longest: usize) -> Result<Vec<Piece>, String> {
    let (mut all, mut from) = (vec![], Some(SoundPlace::default()));
    while let Some(place) = from.take() {
        listen(file, place, longest, |piece| {
            from = piece.next;
            all.push(piece);
            Ok(ControlFlow::Break(()))
        })?;
    }
    Ok(all)
}

/// All of a file that is no longer than a model hears at once.
fn samples(file: &[u8]) -> Result<Vec<f32>, String> {
    let mut pieces = pieces(file, MAX_SAMPLES)?;
    assert_eq!(pieces.len(), 1);
    Ok(pieces.remove(0).samples)
}

/// A file of 16-bit samples, its channels interleaved.
fn wav(rate: u32, channels: u16, samples: &[i16]) -> Vec<u8> {
    let bytes = samples.len() as u32 * 2;
    let mut file = [
        &b"RIFF"[..],
        &(36 + bytes).to_le_bytes(),
        b"WAVEfmt \x10\0\0\0\x01\0",
        &channels.to_le_bytes(),
    ]
    .concat();
    file.extend(rate.to_le_bytes());
    file.extend((rate * u32::from(channels) * 2).to_le_bytes());
    file.extend((channels * 2).to_le_bytes());
    file.extend(b"\x10\0data");
    file.extend(bytes.to_le_bytes());
    file.extend(samples.iter().flat_map(|sample| sample.to_le_bytes()));
    file
}

/// A second of a sine of `pitch` Hz, and what its samples are multiplied with.
fn sine(rate: u32, pitch: f32, loudness: f32) -> Vec<i16> {
    let angle = |i: u32| std::f32::consts::TAU * pitch * i as f32 / rate as f32;
    (0..rate)
        .map(|i| (angle(i).sin() * loudness * 32767.0) as i16)
        .collect()
}

fn loudness(samples: &[f32]) -> f32 {
    (samples.iter().map(|sample| sample * sample).sum::<f32>() / samples.len() as f32).sqrt()
}

/// How alike two sounds are, in decibels of what differs.
fn likeness(a: &[f32], b: &[f32]) -> f32 {
    let difference: Vec<f32> = a.iter().zip(b).map(|(a, b)| a - b).collect();
    20.0 * (loudness(a) / loudness(&difference)).log10()
}

#[test]
fn every_format_has_the_same_sound() {
    let exact = samples(WAV).unwrap();
    assert_eq!(exact.len(), (WAV.len() - 44) / 2);
    assert_eq!(samples(FLAC).unwrap(), exact);
    // What compression loses is the noise, 6 dB or more below the tone.
    for (file, name, least) in [
        (MP3, "MP3", 15.0),
        (OGG, "Vorbis", 15.0),
        (OPUS, "Opus", 10.0),
    ] {
        let heard = samples(file).unwrap();
        assert!(
            heard.len().abs_diff(exact.len()) <= 1,
            "{name}: {} of {}",
            heard.len(),
            exact.len()
        );
        assert!(
            likeness(&exact, &heard) > least,
            "{name}: {} dB",
            likeness(&exact, &heard)
        );
    }
}

#[test]
fn what_phones_and_browsers_record_is_heard() {
    let exact = samples(WAV).unwrap();
    for (file, name) in [(ALAC, "ALAC"), (AIFF, "AIFF"), (CAF, "CAF")] {
        assert_eq!(samples(file).unwrap(), exact, "{name}");
    }
    for (file, name) in [
        (AAC, "AAC"),
        (WEBM, "WebM"),
        (MP4, "Opus in MP4"),
        (ADPCM, "ADPCM"),
    ] {
        let heard = samples(file).unwrap();
        // An encoder may begin with what is no sound, and end with a whole packet.
        let longer = heard.len() as f32 / RATE as f32 - exact.len() as f32 / RATE as f32;
        assert!((-0.02..0.2).contains(&longer), "{name}: {longer} s");
        // So it is looked for.
        let at = |begin: usize| likeness(&exact, heard.get(begin..).unwrap_or_default());
        let best = (0..3000).step_by(1).map(at).fold(f32::MIN, f32::max);
        assert!(best > 8.0, "{name}: {best} dB");
    }
}

#[test]
fn every_rate_becomes_the_familys() {
    for rate in [
        8000, 11_025, 22_050, 44_100, 48_000, 96_000, 192_000, 44_101,
    ] {
        let heard = samples(&wav(rate, 1, &sine(rate, 440.0, 0.5))).unwrap();
        assert!(
            heard.len().abs_diff(RATE as usize) <= 1,
            "{rate}: {}",
            heard.len()
        );
        // The ends are where the filter meets silence. A whole number of periods, so that sine
        // and cosine are apart.
        let heard = &heard[2000..14_000];
        let wave = |at: fn(f32) -> f32| -> Vec<f32> {
            (0..heard.len())
                .map(|i| at(std::f32::consts::TAU * 440.0 * i as f32 / RATE as f32))
                .collect()
        };
        let [sine, cosine] = [wave(f32::sin), wave(f32::cos)];
        let share = |wave: &[f32]| {
            2.0 * wave.iter().zip(heard).map(|(a, b)| a * b).sum::<f32>() / heard.len() as f32
        };
        let (a, b) = (share(&sine), share(&cosine));
        let tone: Vec<f32> = sine
            .iter()
            .zip(&cosine)
            .map(|(sine, cosine)| a * sine + b * cosine)
            .collect();
        assert!(
            likeness(&tone, heard) > 40.0,
            "{rate}: {} dB",
            likeness(&tone, heard)
        );
        assert!((a.hypot(b) - 0.5).abs() < 0.01, "{rate}: {}", a.hypot(b));
    }
    // What the family's rate has no place for is left out and not folded.
    let high = samples(&wav(48_000, 1, &sine(48_000, 12_000.0, 0.5))).unwrap();
    assert!(loudness(&high[1000..15_000]) < 0.001, "{}", loudness(&high));
}

#[test]
fn channels_are_heard_together() {
    let (left, right) = (sine(RATE, 440.0, 0.5), sine(RATE, 660.0, 0.25));
    let both: Vec<i16> = left
        .iter()
        .zip(&right)
        .flat_map(|(left, right)| [*left, *right])
        .collect();
    let heard = samples(&wav(RATE, 2, &both)).unwrap();
    let mean = |i: usize| (f32::from(left[i]) + f32::from(right[i])) / 65536.0;
    assert!(
        heard
            .iter()
            .enumerate()
            .all(|(i, sample)| (sample - mean(i)).abs() < 1e-4)
    );
}

#[test]
fn long_and_short_sounds() {
    let most = MAX_SAMPLES;
    assert_eq!(
        samples(&wav(RATE, 1, &vec![1000; most])).unwrap().len(),
        most
    );
    assert_eq!(
        samples(&wav(44_100, 1, &vec![1000; 44_100 * 30]))
            .unwrap()
            .len(),
        most
    );
    let short = samples(&wav(RATE, 1, &[1000; 3])).unwrap();
    assert_eq!((short.len(), short[2] > 0.0, short[3]), (FRAME, true, 0.0));
    assert!(
        samples(&wav(RATE, 1, &[]))
            .unwrap_err()
            .contains("no samples")
    );
}

#[test]
fn a_recording_that_never_learned_its_length_is_heard() {
    let mut file = WAV.to_vec();
    for length in [u32::MAX, 0x7FFF_F000, 0] {
        file[4..8].copy_from_slice(&length.saturating_add(36).to_le_bytes());
        file[40..44].copy_from_slice(&length.to_le_bytes());
        assert_eq!(
            samples(&file).unwrap().len(),
            (WAV.len() - 44) / 2,
            "{length}"
        );
    }
}

#[test]
fn what_cannot_be_heard_is_named() {
    for file in [
        &b""[..],
        b"hello",
        b"\x89PNG\r\n\x1a\n",
        b"RIFF\0\0\0\0AVI LIST",
        &[0; 5000],
    ] {
        let error = samples(file).unwrap_err();
        assert!(
            error.contains("is no WAV, AIFF") || error.contains("damaged"),
            "{error}"
        );
    }
    for (file, name) in [
        (WAV, "WAV"),
        (FLAC, "FLAC"),
        (OGG, "Vorbis"),
        (OPUS, "Opus"),
    ] {
        assert!(
            samples(&file[..file.len() / 2])
                .unwrap_err()
                .contains("cut off"),
            "{name}"
        );
    }
    let speex = [b"OggS\0\x02".as_slice(), &[0; 20], b"\x01\x50Speex   1.2"].concat();
    assert!(samples(&speex).unwrap_err().contains("is Speex"));
    assert!(samples(b"#!AMR\n\x3c").unwrap_err().contains("is AMR"));
    let mut file = wav(RATE, 1, &[0; 100]);
    file[24..28].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(
        samples(&file)
            .unwrap_err()
            .contains("4294967295 samples a second")
    );
    assert!(
        samples(&wav(RATE, 9, &[0; 900]))
            .unwrap_err()
            .contains("9 channels")
    );
}

#[test]
fn a_long_sound_is_cut_at_its_pauses_and_nothing_of_it_is_lost() {
    // A second of a tone, and every eleven seconds one of silence.
    let second = |i: usize| match i % 11 {
        10 => vec![0; RATE as usize],
        i => sine(RATE, 300.0 + 40.0 * i as f32, 0.5),
    };
    let whole: Vec<i16> = (0..100).flat_map(second).collect();
    let file = wav(RATE, 1, &whole);
    let exact: Vec<f32> = whole
        .iter()
        .map(|sample| f32::from(*sample) / 32768.0)
        .collect();
    let (mut at_once, mut memory) = (vec![], 0);
    listen(&file, SoundPlace::default(), MAX_SAMPLES, |piece| {
        memory = memory.max(piece.samples.len());
        at_once.push(piece.samples);
        Ok(ControlFlow::Continue(()))
    })
    .unwrap();
    assert!(memory <= MAX_SAMPLES && at_once.concat() == exact);
    let one_by_one = pieces(&file, MAX_SAMPLES).unwrap();
    let found: Vec<_> = one_by_one.iter().map(|piece| &piece.samples).collect();
    assert_eq!(found, at_once.iter().collect::<Vec<_>>());
    // In the middle of the silence.
    let mut end = 0;
    for piece in &at_once[..at_once.len() - 1] {
        end += piece.len();
        let at = end as f32 / RATE as f32;
        assert!((at % 11.0 - 10.5).abs() < 0.05, "{at}");
    }
    assert!(one_by_one.iter().all(|piece| !piece.silent));
    let silence = pieces(&wav(RATE, 1, &vec![0; 40 * RATE as usize]), MAX_SAMPLES).unwrap();
    assert!(silence.len() == 2 && silence.iter().all(|piece| piece.silent));
}

#[test]
fn every_format_goes_on_where_a_piece_ended() {
    for (file, name) in [
        (WAV, "WAV"),
        (MP3, "MP3"),
        (FLAC, "FLAC"),
        (OGG, "Vorbis"),
        (OPUS, "Opus"),
        (AAC, "AAC"),
        (ALAC, "ALAC"),
        (WEBM, "WebM"),
        (MP4, "Opus in MP4"),
        (ADPCM, "ADPCM"),
        (AIFF, "AIFF"),
        (CAF, "CAF"),
    ] {
        let whole = samples(file).unwrap();
        let parts = pieces(file, RATE as usize / 4).unwrap();
        assert!(parts.len() > 1, "{name}");
        let joined: Vec<f32> = parts.into_iter().flat_map(|piece| piece.samples).collect();
        assert!(joined.len().abs_diff(whole.len()) <= 20, "{name}");
        let differs = likeness(&whole, &joined);
        assert!(differs > 35.0, "{name}: {differs} dB");
    }
}

#[test]
fn what_a_sound_claims_is_how_long_it_is() {
    for (file, name) in [
        (WAV, "WAV"),
        (MP3, "MP3"),
        (FLAC, "FLAC"),
        (OGG, "Vorbis"),
        (OPUS, "Opus"),
        (AAC, "AAC"),
        (ALAC, "ALAC"),
        (WEBM, "WebM"),
        (MP4, "Opus in MP4"),
        (ADPCM, "ADPCM"),
        (AIFF, "AIFF"),
        (CAF, "CAF"),
    ] {
        let heard = samples(file).unwrap().len() as f64 / f64::from(RATE);
        let claimed = claims(file).unwrap().seconds;
        assert!(
            (claimed - heard).abs() < 0.15,
            "{name}: {claimed} s of {heard} s"
        );
    }
    assert!(claims(b"hello").is_err());
    let place = SoundPlace {
        packet: 1 << 40,
        skip: 0,
    };
    let beyond = listen(WAV, place, MAX_SAMPLES, |_| panic!("there is nothing"));
    assert!(beyond.unwrap_err().contains("damaged"));
}

proptest! {
    #[test]
    fn damage_is_refused_or_heard(at in 0usize..9000, byte: u8, cut in 0usize..9000, which in 0usize..11) {
        let mut file = [WAV, MP3, FLAC, OGG, OPUS, AAC, ALAC, WEBM, MP4, ADPCM, CAF][which].to_vec();
        let (at, cut) = (at % file.len(), cut % file.len());
        file[at] = byte;
        for file in [&file[..], &file[..cut]] {
            let _ = claims(file);
            if let Ok(heard) = pieces(file, 5000) {
                for piece in heard {
                    prop_assert!((FRAME..=5000).contains(&piece.samples.len()));
                    prop_assert!(piece.samples.iter().all(|sample| sample.is_finite()));
                }
            }
        }
    }
}
