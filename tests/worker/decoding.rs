//! A supervisor's other half, reduced like the first: has a request's media decoded.

use std::fs::File;
use std::io::Cursor;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};

use gemmad::chat::{ChatError, ChatRequest, DecodedMedia, Detail, Part, Pixels, Samples};
use gemmad::ipc::frame::{self, Decoder};
use gemmad::ipc::{
    DECODE_MEMORY, DECODE_MEMORY_MOST, DecodeEvent, DecodeRequest, DecodedMedium, EncodedMedium,
    Greeting, MediumKind, WorkerKind,
};
use gemmad::sys::socket;
use image::{DynamicImage, ImageBuffer, ImageFormat, Rgb, RgbImage, Rgba};

/// Six megapixels of one colour.
const PROGRESSIVE: &[u8] = include_bytes!("../data/pictures/progressive.jpg");

/// What a decoder says of these media, to its end, and what it leaves in its file, in which it has
/// the room that it asks for.
pub fn events(media: &[(MediumKind, &[u8])], memory: u64) -> (Vec<DecodeEvent>, File) {
    let usual = media.iter().map(|(kind, _)| kind.most_bytes()).sum();
    let told = events_within(media, memory, usual);
    match told.0[..] {
        [
            DecodeEvent::Needs {
                memory: least,
                room,
            },
        ] if least <= memory && room > usual => events_within(media, memory, room),
        _ => told,
    }
}

fn events_within(
    media: &[(MediumKind, &[u8])],
    memory: u64,
    room: u64,
) -> (Vec<DecodeEvent>, File) {
    let (encoded, decoded) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
    let (mut request, mut at) = (vec![], 0);
    for &(kind, file) in media {
        encoded.write_all_at(file, at).unwrap();
        let bytes = file.len() as u64;
        request.push(EncodedMedium { kind, bytes });
        at += bytes;
    }
    decoded.set_len(room).unwrap();
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mut worker = Command::new(env!("CARGO_BIN_EXE_gemmad-worker"))
        .arg(WorkerKind::Decode.name())
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .spawn()
        .unwrap();
    let mut bytes = vec![];
    let media = request;
    frame::encode(&DecodeRequest { media, memory }, &mut bytes).unwrap();
    socket::send_all(&ours, &bytes, &[encoded.as_fd(), decoded.as_fd()]).unwrap();
    let (mut decoder, mut piece, mut events) = (Decoder::new(), [0; 4096], vec![]);
    let mut greeting = None;
    loop {
        let got = socket::recv(&ours, &mut piece, &mut vec![]).unwrap();
        if got == 0 {
            break;
        }
        decoder.feed(&piece[..got]);
        if greeting.is_none() {
            greeting = decoder.next::<Greeting>().unwrap();
        }
        while let Some(event) = decoder.next().unwrap() {
            events.push(event);
        }
    }
    assert_eq!(greeting, Some(Greeting::OURS));
    worker.wait().unwrap();
    (events, decoded)
}

/// The request as a model's worker gets it.
pub fn decoded(mut request: ChatRequest) -> Result<ChatRequest, ChatError> {
    let media: Vec<_> = request
        .media()
        .map(|(_, _, part)| match part {
            Part::Picture(picture) => (MediumKind::Picture(picture.detail), &picture.file[..]),
            Part::Sound(sound) => (MediumKind::Sound, &sound.file[..]),
            other => panic!("{other:?}"),
        })
        .collect();
    if media.is_empty() {
        return Ok(request);
    }
    let (events, file) = events(&media, DECODE_MEMORY_MOST);
    let (mut at, mut events) = (0, events.into_iter());
    for (message, part, content) in request.media_mut() {
        let (message, part) = (message as u32, part as u32);
        *content = match (events.next(), &*content) {
            (
                Some(DecodeEvent::Decoded(DecodedMedium::Picture { width, height })),
                Part::Picture(picture),
            ) => {
                let pixels = Pixels {
                    width,
                    height,
                    detail: picture.detail,
                    at,
                };
                at += pixels.bytes();
                Part::Pixels(pixels)
            }
            (Some(DecodeEvent::Decoded(DecodedMedium::Sound { samples: count, .. })), _) => {
                let samples = Samples { count, at };
                at += samples.bytes();
                Part::Samples(samples)
            }
            (Some(DecodeEvent::Rejected { reason }), Part::Sound(_)) => {
                return Err(ChatError::Sound {
                    message,
                    part,
                    reason,
                });
            }
            (Some(DecodeEvent::Rejected { reason }), _) => {
                return Err(ChatError::Picture {
                    message,
                    part,
                    reason,
                });
            }
            other => panic!("{other:?}"),
        };
    }
    request.decoded = Some(DecodedMedia::new(file));
    Ok(request)
}

/// Six megapixels in which nothing repeats for long.
fn large() -> DynamicImage {
    let pixel = |x: u32, y: u32| Rgb([x as u8, (y / 3) as u8, (x * y / 7) as u8]);
    RgbImage::from_fn(3000, 2000, pixel).into()
}

fn encoded(picture: &DynamicImage, format: ImageFormat) -> Vec<u8> {
    let mut file = Cursor::new(vec![]);
    picture.write_to(&mut file, format).unwrap();
    file.into_inner()
}

/// A WAV file of noise on one channel.
fn noise(rate: u32, seconds: u32) -> Vec<u8> {
    let bytes = rate * seconds * 2;
    let mut file = [&b"RIFF"[..], &(36 + bytes).to_le_bytes()].concat();
    file.extend(b"WAVEfmt \x10\0\0\0\x01\0\x01\0");
    file.extend([rate, rate * 2].map(u32::to_le_bytes).concat());
    file.extend(b"\x02\0\x10\0data");
    file.extend(bytes.to_le_bytes());
    file.extend((0..bytes).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8 & 0x3F));
    file
}

#[test]
fn the_memory_that_headers_ask_for_is_enough() {
    let rgb = large();
    // An EXIF segment behind the start mark: one entry, orientation 6, to be turned by 90 degrees.
    let exif =
        b"\xFF\xE1\x00\x22Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0";
    let jpeg = encoded(&rgb, ImageFormat::Jpeg);
    let turned = [&jpeg[..2], exif, &jpeg[2..]].concat();
    let deep = ImageBuffer::from_fn(3000, 2000, |x, y| {
        Rgba([x as u16, y as u16, (x * y) as u16, u16::MAX])
    });
    let picture = MediumKind::Picture(Detail::High);
    let media = [
        (
            "deep PNG",
            picture,
            encoded(&DynamicImage::ImageRgba16(deep), ImageFormat::Png),
        ),
        ("PNG", picture, encoded(&rgb, ImageFormat::Png)),
        ("WebP", picture, encoded(&rgb, ImageFormat::WebP)),
        ("GIF", picture, encoded(&rgb, ImageFormat::Gif)),
        ("BMP", picture, encoded(&rgb, ImageFormat::Bmp)),
        ("progressive JPEG", picture, PROGRESSIVE.into()),
        ("JPEG", picture, jpeg),
        ("turned JPEG", picture, turned),
        ("192 kHz", MediumKind::Sound, noise(192_000, 30)),
        ("44 kHz", MediumKind::Sound, noise(44_100, 30)),
    ];
    let mut asked = 0;
    for (name, kind, file) in &media {
        let all = [(*kind, &file[..])];
        let (mut told, _) = events(&all, DECODE_MEMORY);
        if let [DecodeEvent::Needs { memory, .. }] = told[..] {
            println!("{name}: {} MiB", memory >> 20);
            asked += 1;
            told = events(&all, memory).0;
        }
        assert!(
            matches!(told[..], [DecodeEvent::Decoded(decoded)] if decoded.is_of(*kind)),
            "{name}: {told:?}"
        );
    }
    assert!((1..media.len()).contains(&asked), "{asked}");
}

#[test]
fn one_process_decodes_all_media_of_a_request() {
    let sound = noise(16_000, 1);
    let small = encoded(&RgbImage::new(40, 30).into(), ImageFormat::Png);
    let picture = MediumKind::Picture(Detail::Low);
    let media = [
        (picture, &small[..]),
        (MediumKind::Sound, &sound[..]),
        (picture, &small[..small.len() / 2]),
        (picture, &small[..]),
    ];
    let (told, file) = events(&media, DECODE_MEMORY);
    let shown = DecodedMedium::Picture {
        width: 432,
        height: 336,
    };
    let heard = DecodedMedium::Sound {
        samples: 16_000,
        silent: false,
        next: None,
    };
    let [
        DecodeEvent::Decoded(first),
        DecodeEvent::Decoded(second),
        DecodeEvent::Rejected { reason },
    ] = &told[..]
    else {
        panic!("{told:?}");
    };
    assert_eq!((*first, *second), (shown, heard));
    assert!(reason.contains("cut off"), "{reason}");
    // The sound begins where the picture ends.
    let mut samples = vec![0; heard.bytes() as usize];
    file.read_exact_at(&mut samples, shown.bytes()).unwrap();
    let (samples, _) = samples.as_chunks();
    let mut loudness = samples
        .iter()
        .map(|sample| f32::from_le_bytes(*sample).abs());
    assert!(loudness.all(|loud| loud < 0.5));
    let mut pixel = [9; 3];
    file.read_exact_at(&mut pixel, shown.bytes() - 3).unwrap();
    assert_eq!(pixel, [0; 3]);
}
