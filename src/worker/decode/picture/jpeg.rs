//! What the header of a JPEG says, and where a JPEG ends.

use std::borrow::Cow;

use image::DynamicImage;

use super::{open, reason};

const END: &[u8] = b"\xFF\xD9";
/// Marks of segments.
const SCAN: u8 = 0xDA;
const PROGRESSIVE: [u8; 2] = [0xC2, 0xC6];
/// Those between the marks of frames that are none: tables, and what is set aside.
const NO_FRAMES: [u8; 3] = [0xC4, 0xC8, 0xCC];

/// The header of a frame: what a decoder sets aside for it.
struct Frame {
    is_progressive: bool,
    width: u64,
    height: u64,
    /// How often each component is sampled, across and down.
    sampled: Vec<(u64, u64)>,
}

impl Frame {
    fn read(mark: u8, segment: &[u8]) -> Option<Self> {
        let [_, h1, h2, w1, w2, count, components @ ..] = segment else {
            return None;
        };
        let components = components.as_chunks::<3>().0;
        let sampled = components.iter().take((*count).into()).map(|[_, by, _]| {
            let (across, down) = (by >> 4, by & 15);
            (across.max(1).into(), down.max(1).into())
        });
        Some(Self {
            is_progressive: PROGRESSIVE.contains(&mark),
            width: u16::from_be_bytes([*w1, *w2]).into(),
            height: u16::from_be_bytes([*h1, *h2]).into(),
            sampled: sampled.collect(),
        })
    }

    /// Bytes of all coefficients, 16 bits each.
    fn coefficients(&self) -> u64 {
        let most = |side: fn(&(u64, u64)) -> u64| self.sampled.iter().map(side).max().unwrap_or(1);
        let (across, down) = (most(|by| by.0), most(|by| by.1));
        let blocks = self.width.div_ceil(8 * across) * self.height.div_ceil(8 * down);
        let each: u64 = self.sampled.iter().map(|by| by.0 * by.1).sum();
        blocks * each * 64 * 2
    }

    /// Bytes of the rows that are worked on.
    fn rows(&self) -> u64 {
        let components = self.sampled.len() as u64;
        3 * 2 * 32 * components * self.width.next_multiple_of(32)
    }
}

/// The segments before the first scan, and its header, each behind its mark.
fn segments(jpeg: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    let mut rest = jpeg.get(2..).unwrap_or_default();
    let mut is_over = false;
    std::iter::from_fn(move || {
        while let [0xFF, 0xFF, ..] = rest {
            rest = &rest[1..];
        }
        let [0xFF, mark, h, l, ..] = *rest else {
            return None;
        };
        let length = usize::from(u16::from_be_bytes([h, l]));
        let segment = rest.get(4..2 + length)?;
        rest = &rest[2 + length..];
        (!std::mem::replace(&mut is_over, mark == SCAN)).then_some((mark, segment))
    })
}

/// Bytes that a decoder keeps beside the picture: all coefficients until the last scan, if there are
/// several, and the four inks of print.
pub fn beside(jpeg: &[u8]) -> u64 {
    let mut frame = None;
    for (mark, segment) in segments(jpeg) {
        match mark {
            0xC0..=0xCF if !NO_FRAMES.contains(&mark) => frame = Frame::read(mark, segment),
            SCAN => {
                let Some(frame) = &frame else { break };
                let components = frame.sampled.len();
                let at_once = segment.first().copied().unwrap_or_default();
                let in_parts = frame.is_progressive || usize::from(at_once) < components;
                let kept = if in_parts { frame.coefficients() } else { 0 };
                let inks = match components {
                    4 => 4 * frame.width * frame.height,
                    _ => 0,
                };
                return frame.rows() + kept + inks;
            }
            _ => {}
        }
    }
    // It is refused.
    0
}

/// The file with the mark that ends it, where that is missing: some programs leave it out. A PNG
/// whose rows are not all there remains one that is cut off.
pub fn with_end(file: &[u8]) -> Cow<'_, [u8]> {
    const PNG_END: &[u8] = b"\0\0\0\0IEND\xAE\x42\x60\x82";
    let has_end = |end: &[u8]| file.windows(end.len()).rev().any(|part| part == end);
    match file {
        _ if lacks_end(file) => [file, END].concat().into(),
        [0x89, b'P', b'N', b'G', ..] if !has_end(PNG_END) => [file, PNG_END].concat().into(),
        _ => file.into(),
    }
}

/// A JPEG without an end mark behind its last scan.
pub fn lacks_end(file: &[u8]) -> bool {
    let last = |mark: u8| file.windows(2).rposition(|pair| pair == [0xFF, mark]);
    file.starts_with(&[0xFF, 0xD8]) && last(END[1]) < last(SCAN)
}

/// Whether more is missing of a JPEG than the mark of its end: its decoder makes pixels of whatever
/// stands there in the place of what is missing, and passes over it where nothing is.
pub fn is_cut(jpeg: &[u8], picture: &DynamicImage) -> Result<bool, String> {
    const FILLING: [u8; 256] = [0x5A; 256];
    let filled = [jpeg, &FILLING, END].concat();
    let filled = DynamicImage::from_decoder(open(&filled)?).map_err(|error| reason(&error))?;
    Ok(filled != *picture)
}
