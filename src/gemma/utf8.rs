//! Bytes that arrive in pieces become whole characters.

/// Decodes UTF-8 piece by piece. What can still become a character is held back (three bytes at
/// most); what cannot becomes one U+FFFD for each maximal subpart, as the Unicode standard
/// recommends.
#[derive(Debug, Default)]
pub struct Utf8 {
    held: Vec<u8>,
}

impl Utf8 {
    /// Appends to `out` every character that is whole now.
    pub fn feed(&mut self, bytes: &[u8], out: &mut String) {
        self.held.extend_from_slice(bytes);
        let mut from = 0;
        loop {
            let rest = &self.held[from..];
            match std::str::from_utf8(rest) {
                Ok(text) => {
                    out.push_str(text);
                    self.held.clear();
                    return;
                }
                Err(error) => {
                    let (valid, _) = rest.split_at(error.valid_up_to());
                    out.push_str(&String::from_utf8_lossy(valid));
                    from += valid.len();
                    match error.error_len() {
                        Some(len) => {
                            out.push(char::REPLACEMENT_CHARACTER);
                            from += len;
                        }
                        None => {
                            self.held.drain(..from);
                            return;
                        }
                    }
                }
            }
        }
    }

    /// Nothing follows: a character that was begun becomes U+FFFD.
    pub fn flush(&mut self, out: &mut String) {
        if !self.held.is_empty() {
            self.held.clear();
            out.push(char::REPLACEMENT_CHARACTER);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn decode(pieces: &[&[u8]]) -> String {
        let (mut utf8, mut out) = (Utf8::default(), String::new());
        for piece in pieces {
            utf8.feed(piece, &mut out);
            assert!(utf8.held.len() <= 3);
        }
        utf8.flush(&mut out);
        out
    }

    #[test]
    fn joins_split_characters() {
        assert_eq!(decode(&[b"a\xF0\x9F", b"\x98", b"\x80b"]), "a😀b");
        assert_eq!(decode(&[b"\xC3", b"\xC3\xA4"]), "\u{FFFD}ä");
        assert_eq!(decode(&[b"\xE2\x82"]), "\u{FFFD}");
        assert_eq!(decode(&[b"\xFF\xFE", b"x"]), "\u{FFFD}\u{FFFD}x");
    }

    proptest! {
        #[test]
        fn agrees_with_the_standard_library(pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..6), 0..12)) {
            let refs: Vec<&[u8]> = pieces.iter().map(Vec::as_slice).collect();
            prop_assert_eq!(decode(&refs), String::from_utf8_lossy(&pieces.concat()).into_owned());
        }
    }
}
