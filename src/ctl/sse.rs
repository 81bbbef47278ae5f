//! Server-sent events out of bytes, however they were split on the way.

/// Bytes of one event at most, its lines together. The largest real ones have a few thousand.
pub const MAX_EVENT: usize = 1 << 20;

/// Collects bytes until events are complete.
#[derive(Debug, Default)]
pub struct SseReader {
    /// The line that is not complete yet.
    line: Vec<u8>,
    /// The `data` lines of the event that is not complete yet, with a newline after each.
    data: String,
    has_data: bool,
}

/// Why the stream cannot be read.
#[derive(Debug, PartialEq, Eq)]
pub enum SseError {
    TooLong,
    NotUtf8,
}

impl SseReader {
    /// Takes what came, and returns the data of every event that is complete now.
    ///
    /// # Errors
    /// A line or an event longer than [`MAX_EVENT`], or one that is not UTF-8. The stream is of no
    /// use then.
    pub fn push(&mut self, bytes: &[u8]) -> Result<Vec<String>, SseError> {
        let mut events = vec![];
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            if self.line.len() + self.data.len() + part.len() > MAX_EVENT {
                return Err(SseError::TooLong);
            }
            self.line.extend_from_slice(part);
            if part.ends_with(b"\n") {
                let line = std::mem::take(&mut self.line);
                events.extend(self.take_line(&line)?);
            }
        }
        Ok(events)
    }

    fn take_line(&mut self, line: &[u8]) -> Result<Option<String>, SseError> {
        let line = std::str::from_utf8(line).map_err(|_| SseError::NotUtf8)?;
        let line = line.strip_suffix('\n').unwrap_or(line);
        let line = line.strip_suffix('\r').unwrap_or(line);
        if line.is_empty() {
            let mut data = std::mem::take(&mut self.data);
            data.pop();
            return Ok(std::mem::take(&mut self.has_data).then_some(data));
        }
        // Other fields, and comments, which begin with a colon, keep the line awake and say
        // nothing.
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        if field == "data" {
            self.data.push_str(value.strip_prefix(' ').unwrap_or(value));
            self.data.push('\n');
            self.has_data = true;
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(chunks: &[&[u8]]) -> Vec<String> {
        let mut reader = SseReader::default();
        chunks
            .iter()
            .flat_map(|chunk| reader.push(chunk).unwrap())
            .collect()
    }

    #[test]
    fn events_of_every_shape() {
        assert_eq!(
            read(&[b"data: {\"a\":1}\n\ndata: [DONE]\n\n"]),
            ["{\"a\":1}", "[DONE]"]
        );
        assert_eq!(read(&[b"data:a\r\n\r\n"]), ["a"]);
        assert_eq!(
            read(&[b": ping\n\nevent: x\nid: 7\ndata: a\ndata: b\n\n"]),
            ["a\nb"]
        );
        assert_eq!(read(&[b"data\n\n"]), [""]);
        assert_eq!(
            read(&[b"\n\n\ndatax: a\n\ndata: never ended\n"]),
            Vec::<String>::new()
        );
    }

    #[test]
    fn what_never_ends_is_refused() {
        let mut reader = SseReader::default();
        reader.push(b"data: ").unwrap();
        let error = (0..100).find_map(|_| reader.push(&[b'x'; 64 << 10]).err());
        assert_eq!(error, Some(SseError::TooLong));

        let mut reader = SseReader::default();
        let line = [b"data: ".as_slice(), &[b'x'; 1000], b"\n"].concat();
        let error = (0..2000).find_map(|_| reader.push(&line).err());
        assert_eq!(error, Some(SseError::TooLong));

        assert_eq!(
            SseReader::default().push(b"data: \xff\n"),
            Err(SseError::NotUtf8)
        );
    }

    proptest! {
        /// Bytes may be split anywhere, characters and line ends included.
        #[test]
        fn splits_do_not_matter(texts in proptest::collection::vec("[^\\r\\n]{0,12}", 0..8), crlf: bool, cuts in proptest::collection::vec(0usize..400, 0..40)) {
            let end = if crlf { "\r\n" } else { "\n" };
            let stream: String = texts.iter().map(|text| format!(": c{end}data: {text}{end}{end}")).collect();
            let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(stream.len())).chain([0, stream.len()]).collect();
            cuts.sort_unstable();
            let chunks: Vec<_> = cuts.windows(2).map(|cut| &stream.as_bytes()[cut[0]..cut[1]]).collect();
            prop_assert_eq!(read(&chunks), texts);
        }
    }
}
