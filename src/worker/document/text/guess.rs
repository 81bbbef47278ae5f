//! Glyphs of which a file says nothing but their numbers. Programs that draw letters of their own
//! number them like characters more often than not, and those that leave out a usual font number
//! its glyphs, the first of which have the same order in all fonts that come with systems. Whether a
//! page did either shows in what comes of it: text has its letters in known shares. Pure.

/// Fewer letters show nothing.
const FEWEST: usize = 20;
/// Of the characters, letters are at least this part, and small ones this part of the letters …
const LETTERS: f64 = 0.7;
const SMALL: f64 = 0.7;
/// … and these are so many of them in all languages that are written with them.
const FREQUENT: &str = "etaoinsr";
const FREQUENT_SHARE: f64 = 0.5;
/// The first glyphs of usual fonts: those of ASCII from the space on, then those of Mac OS Roman.
const SPACE: u32 = 3;
const ACCENTED: u32 = 98;
const LAST: u32 = 225;

/// What codes mean, if they mean anything: all as characters, or all as numbers of glyphs.
pub fn meanings(codes: &[u32]) -> Option<Vec<Option<char>>> {
    [character, glyph]
        .into_iter()
        .map(|meaning| codes.iter().map(|&code| meaning(code)).collect())
        .find(|meanings: &Vec<Option<char>>| is_text(meanings))
}

fn character(code: u32) -> Option<char> {
    char::from_u32(code).filter(|c| (' '..='~').contains(c))
}

fn glyph(code: u32) -> Option<char> {
    match code {
        SPACE..ACCENTED => char::from_u32(code - SPACE + u32::from(b' ')),
        ACCENTED..=LAST => {
            let byte = [(code - ACCENTED + 0x80) as u8];
            let (text, _) = encoding_rs::MACINTOSH.decode_without_bom_handling(&byte);
            text.chars().next()
        }
        _ => None,
    }
}

fn is_text(meanings: &[Option<char>]) -> bool {
    let count =
        |is: &dyn Fn(char) -> bool| meanings.iter().flatten().filter(|&&c| is(c)).count() as f64;
    let letters = count(&char::is_alphabetic);
    let seen = meanings.len() as f64 - count(&|c| c == ' ');
    letters >= FEWEST as f64
        && letters >= LETTERS * seen
        && count(&char::is_lowercase) >= SMALL * letters
        && count(&|c| FREQUENT.contains(c)) >= FREQUENT_SHARE * letters
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(codes: impl Iterator<Item = u32>) -> Option<String> {
        let codes: Vec<u32> = codes.collect();
        meanings(&codes).map(|all| all.into_iter().map(|c| c.unwrap_or('?')).collect())
    }

    #[test]
    fn codes_are_taken_for_what_reads_as_text() {
        let text = "a quantile approach to density estimation";
        assert_eq!(read(text.bytes().map(u32::from)).as_deref(), Some(text));
        assert_eq!(
            read(text.bytes().map(|c| u32::from(c) - 29)).as_deref(),
            Some(text)
        );
        assert_eq!(read((65..91).chain(97..123)), None);
        let numbered: Vec<char> = text.chars().collect();
        let by_first_use = numbered
            .iter()
            .map(|c| 97 + numbered.iter().position(|other| other == c).unwrap() as u32 % 26);
        assert_eq!(read(by_first_use), None);
        assert_eq!(read("as is".bytes().map(u32::from)), None, "too short");
        assert_eq!(read([u32::MAX; 50].into_iter()), None);
        let accented = "b\u{70}n\u{70}ficier de la prise en charge";
        let codes = accented
            .bytes()
            .map(|c| if c == 0x70 { 112 } else { u32::from(c) - 29 });
        let read = read(codes).unwrap();
        assert!(read.starts_with("bénéficier"), "{read}");
    }
}
