//! Pieces of a transcription with their times, and subtitles of them. Pure.

use std::fmt::Write as _;

/// What was said from one time to another.
#[derive(Clone, Debug, PartialEq)]
pub struct Segment {
    /// Seconds from the start of the sound.
    pub begin: f64,
    pub end: f64,
    /// Without blanks around it, never empty.
    pub text: String,
    /// The mean log-probability of its tokens.
    pub logprob: f64,
}

/// What stands between two texts that follow each other: a blank, but where the writing has none.
pub fn joint(before: &str, after: &str) -> &'static str {
    match (before.chars().next_back(), after.chars().next()) {
        (Some(last), Some(first)) if !(has_no_blanks(last) || has_no_blanks(first)) => " ",
        _ => "",
    }
}

/// Chinese and Japanese characters and their punctuation, Thai, Lao, Khmer and Burmese letters, and
/// blanks.
fn has_no_blanks(c: char) -> bool {
    c.is_whitespace()
        || matches!(c,
            '\u{0E00}'..='\u{0EFF}'
            | '\u{1000}'..='\u{109F}'
            | '\u{1780}'..='\u{17FF}'
            | '\u{3000}'..='\u{30FF}'
            | '\u{3400}'..='\u{4DBF}'
            | '\u{4E00}'..='\u{9FFF}'
            | '\u{F900}'..='\u{FAFF}'
            | '\u{FF00}'..='\u{FF65}'
            | '\u{20000}'..='\u{3FFFF}')
}

/// SubRip subtitles.
pub fn srt(segments: &[Segment]) -> String {
    let mut text = String::new();
    for (number, segment) in (1..).zip(segments) {
        let (begin, end) = (time(segment.begin, ','), time(segment.end, ','));
        let said = one_line(&segment.text);
        // Writing into a string does not fail.
        let _ = write!(text, "{number}\n{begin} --> {end}\n{said}\n\n");
    }
    text
}

/// WebVTT subtitles.
pub fn vtt(segments: &[Segment]) -> String {
    let mut text = "WEBVTT\n\n".to_owned();
    for segment in segments {
        let (begin, end) = (time(segment.begin, '.'), time(segment.end, '.'));
        let said = one_line(&segment.text)
            .replace('&', "&amp;")
            .replace('<', "&lt;")
            .replace('>', "&gt;");
        let _ = write!(text, "{begin} --> {end}\n{said}\n\n");
    }
    text
}

/// An empty line would be the end of it.
fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Hours, minutes, seconds and milliseconds.
fn time(seconds: f64, point: char) -> String {
    let ms = (seconds * 1000.0).round() as u64;
    let (s, ms) = (ms / 1000, ms % 1000);
    let (m, s) = (s / 60, s % 60);
    format!("{:02}:{:02}:{s:02}{point}{ms:03}", m / 60, m % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(begin: f64, end: f64, text: &str) -> Segment {
        Segment {
            begin,
            end,
            text: text.into(),
            logprob: -0.5,
        }
    }

    #[test]
    fn segments_become_subtitles() {
        let segments = [
            segment(0.0, 9.9996, "Hello."),
            segment(3599.5, 3725.25, "a <b> & c\n\n--> d"),
        ];
        assert_eq!(
            srt(&segments),
            "1\n00:00:00,000 --> 00:00:10,000\nHello.\n\n2\n00:59:59,500 --> 01:02:05,250\na <b> & c --> d\n\n"
        );
        assert_eq!(
            vtt(&segments),
            "WEBVTT\n\n00:00:00.000 --> 00:00:10.000\nHello.\n\n00:59:59.500 --> 01:02:05.250\na &lt;b&gt; &amp; c --&gt; d\n\n"
        );
        assert_eq!((srt(&[]), vtt(&[])), (String::new(), "WEBVTT\n\n".into()));
    }

    #[test]
    fn texts_are_joined_as_their_writing_has_it() {
        for (before, after, between) in [
            ("One.", "Two.", " "),
            ("", "Two.", ""),
            ("One.", "", ""),
            ("一。", "二", ""),
            ("한국", "어", " "),
            ("ก", "ข", ""),
        ] {
            assert_eq!(joint(before, after), between, "{before} {after}");
        }
    }
}
