//! Pictures as people have them, and as nobody should.

use image::codecs::jpeg::JpegEncoder;
use image::codecs::png::PngEncoder;
use image::codecs::tiff::TiffEncoder;
use image::codecs::webp::WebPEncoder;
use image::{ExtendedColorType, ImageEncoder, Rgb, Rgba, RgbaImage};
use moxcms::ColorProfile;
use proptest::prelude::*;

use super::*;

fn encoded(picture: &DynamicImage, format: ImageFormat) -> Vec<u8> {
    let mut file = Cursor::new(vec![]);
    picture.write_to(&mut file, format).unwrap();
    file.into_inner()
}

const FORMATS: [ImageFormat; 6] = [
    ImageFormat::Png,
    ImageFormat::Jpeg,
    ImageFormat::WebP,
    ImageFormat::Gif,
    ImageFormat::Bmp,
    ImageFormat::Tiff,
];

/// Red on the left, blue on the right.
fn halves(width: u32, height: u32) -> DynamicImage {
    RgbImage::from_fn(width, height, |x, _| {
        if x < width / 2 {
            Rgb([220, 0, 0])
        } else {
            Rgb([0, 0, 220])
        }
    })
    .into()
}

fn at(pixels: &Pixels, x: u32, y: u32) -> &[u8] {
    let start = (y * pixels.size.width + x) as usize * 3;
    &pixels.rgb[start..start + 3]
}

/// The header of a PNG that claims a size.
fn claims(width: u32, height: u32) -> Vec<u8> {
    let mut png = encoded(&halves(2, 2), ImageFormat::Png);
    png[16..20].copy_from_slice(&width.to_be_bytes());
    png[20..24].copy_from_slice(&height.to_be_bytes());
    let mut sum = flate_crc(&png[12..29]);
    png[29..33].swap_with_slice(&mut sum);
    png
}

/// The checksum of a PNG's chunk.
fn flate_crc(bytes: &[u8]) -> [u8; 4] {
    let bit = |crc: u32, _| {
        if crc & 1 == 1 {
            0xEDB8_8320 ^ (crc >> 1)
        } else {
            crc >> 1
        }
    };
    (!bytes
        .iter()
        .fold(!0u32, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), bit)))
    .to_be_bytes()
}

#[test]
fn every_format_is_read_and_resized() {
    for format in FORMATS {
        let file = encoded(&halves(300, 200), format);
        assert_eq!(dimensions(&file), Ok((300, 200)));
        let shown = pixels(
            &file,
            Size {
                width: 96,
                height: 48,
            },
        )
        .unwrap();
        assert_eq!(shown.rgb.len(), 96 * 48 * 3);
        assert!(
            at(&shown, 10, 20)[0] > 200 && at(&shown, 80, 20)[2] > 200,
            "{format:?}"
        );
    }
}

#[test]
fn a_picture_of_the_right_size_stays_as_it_is() {
    let picture = halves(96, 48);
    let shown = pixels(
        &encoded(&picture, ImageFormat::Png),
        Size {
            width: 96,
            height: 48,
        },
    )
    .unwrap();
    assert_eq!(shown.rgb, picture.into_rgb8().into_raw());
}

#[test]
fn grey_transparent_and_deep_pictures_become_rgb() {
    let size = Size {
        width: 48,
        height: 48,
    };
    let clear = RgbaImage::from_pixel(50, 50, Rgba([10, 200, 30, 0]));
    assert_eq!(
        at(
            &pixels(&encoded(&clear.into(), ImageFormat::Png), size).unwrap(),
            5,
            5
        ),
        [255; 3]
    );
    let half = RgbaImage::from_pixel(50, 50, Rgba([0, 100, 255, 51]));
    assert_eq!(
        at(
            &pixels(&encoded(&half.into(), ImageFormat::Png), size).unwrap(),
            5,
            5
        ),
        [204, 224, 255]
    );
    let grey = DynamicImage::ImageLuma8(image::GrayImage::from_pixel(50, 50, image::Luma([77])));
    assert_eq!(
        at(
            &pixels(&encoded(&grey, ImageFormat::Png), size).unwrap(),
            5,
            5
        ),
        [77, 77, 77]
    );
    let deep = DynamicImage::ImageRgb16(image::ImageBuffer::from_pixel(
        50,
        50,
        Rgb([0xFFFF, 0, 0x8080]),
    ));
    assert_eq!(
        at(
            &pixels(&encoded(&deep, ImageFormat::Png), size).unwrap(),
            5,
            5
        ),
        [255, 0, 128]
    );
}

#[test]
fn a_turned_picture_is_turned_back() {
    let jpeg = encoded(&halves(96, 48), ImageFormat::Jpeg);
    // An EXIF segment behind the start mark: one entry, orientation 6, to be turned by 90
    // degrees.
    let exif =
        b"\xFF\xE1\x00\x22Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0";
    let file = [&jpeg[..2], exif, &jpeg[2..]].concat();
    assert_eq!(dimensions(&file), Ok((48, 96)));
    let shown = pixels(
        &file,
        Size {
            width: 48,
            height: 96,
        },
    )
    .unwrap();
    assert!(at(&shown, 20, 10)[0] > 200 && at(&shown, 20, 90)[2] > 200);
}

#[test]
fn the_first_frame_of_an_animation_is_shown() {
    let frame = |colour| image::Frame::new(RgbaImage::from_pixel(60, 40, Rgba(colour)));
    let mut gif = vec![];
    let mut encoder = image::codecs::gif::GifEncoder::new(&mut gif);
    encoder
        .encode_frames([frame([0, 200, 0, 255]), frame([200, 0, 0, 255])])
        .unwrap();
    drop(encoder);
    let shown = pixels(
        &gif,
        Size {
            width: 48,
            height: 48,
        },
    )
    .unwrap();
    assert!(at(&shown, 20, 20)[1] > 150 && at(&shown, 20, 20)[0] < 50);
}

#[test]
fn what_lacks_the_mark_of_its_end_alone_is_read() {
    let size = Size {
        width: 48,
        height: 48,
    };
    for (format, mark) in [(ImageFormat::Png, 12), (ImageFormat::Jpeg, 2)] {
        let whole = encoded(&halves(200, 200), format);
        let ended = &whole[..whole.len() - mark];
        assert_eq!(
            pixels(ended, size).unwrap().rgb,
            pixels(&whole, size).unwrap().rgb
        );
    }
}

#[test]
fn kinds_that_are_not_read_are_named() {
    for (file, named) in [
        (&b"\0\0\0\x18ftypheic"[..], "HEIC"),
        (b"\0\0\0\x18ftypavif", "AVIF"),
        (b"\0\0\0\x18ftypisom", "a video"),
        (b"\0\0\0\x18ftypmif1\0\0\0\0mif1avif", "AVIF"),
        (b"\0\0\0\x18ftypM4A ", "`input_audio`"),
        (b"RIFF\0\0\0\0AVI LIST", "a video"),
        (b"\x1A\x45\xDF\xA3\x01\0\0\0", "a video"),
        (b"\xFF\x0A\x00\x10", "JPEG XL"),
        (b"8BPS\0\x01", "Photoshop"),
        (b"<?xml version='1.0'?>\n<svg/>", "SVG"),
    ] {
        let said = dimensions(file).unwrap_err();
        assert!(said.contains(named), "{said}");
    }
}

#[test]
fn bombs_are_refused_by_their_header() {
    // The sizes of a BMP, a GIF and a WebP lie where they always do.
    let huge = |format, at: usize, bytes: &[u8]| {
        let mut file = encoded(&halves(2, 2), format);
        file[at..at + bytes.len()].copy_from_slice(bytes);
        dimensions(&file).unwrap_err()
    };
    let bmp = huge(ImageFormat::Bmp, 18, &[0xFF, 0xFF, 0, 0, 0xFF, 0xFF, 0, 0]);
    assert!(bmp.contains("65535 x 65535 pixels"), "{bmp}");
    let gif = huge(ImageFormat::Gif, 6, &[0xFF; 4]);
    assert!(gif.contains("65535 x 65535 pixels"), "{gif}");
    // 14 bits for each side, less one; the decoder takes the largest for none at all.
    let webp = huge(ImageFormat::WebP, 21, &[0xFF, 0xFF, 0xFF, 0x0F]);
    assert!(webp.contains("pixels"), "{webp}");
    for (width, height) in [
        (65_535, 65_535),
        (MAX_SIDE + 1, 1),
        (1, MAX_SIDE + 1),
        (10_838, 10_836),
    ] {
        let error = dimensions(&claims(width, height)).unwrap_err();
        assert!(
            error.contains(&format!("{width} x {height} pixels")),
            "{error}"
        );
    }
    assert_eq!(dimensions(&claims(4096, 6144)), Ok((4096, 6144)));
    assert!(
        pixels(
            &claims(4096, 6144),
            Size {
                width: 48,
                height: 48
            }
        )
        .err()
        .unwrap()
        .contains("damaged")
    );
    assert!(dimensions(&claims(0, 4)).is_err());
}

#[test]
fn what_is_no_picture_is_refused() {
    for file in [&b""[..], b"RIFF\0\0\0\0WAVEfmt ", b"hello"] {
        assert!(
            dimensions(file).unwrap_err().contains("is no PNG, JPEG"),
            "{file:?}"
        );
    }
    for format in FORMATS {
        let file = encoded(&halves(200, 200), format);
        assert!(
            dimensions(&file[..12]).unwrap_err().contains("damaged"),
            "{format:?}"
        );
    }
    for format in FORMATS {
        let file = encoded(&halves(200, 200), format);
        let cut = pixels(
            &file[..file.len() - 20],
            Size {
                width: 48,
                height: 48,
            },
        )
        .map(|_| ());
        assert!(cut.unwrap_err().contains("cut off"), "{format:?}");
    }
}

const TWO: Size = Size {
    width: 96,
    height: 48,
};

fn close(found: &[u8], to: [u8; 3]) -> bool {
    found.iter().zip(to).all(|(a, b)| a.abs_diff(b) <= 9)
}

/// One colour, by an encoder that adds a profile and EXIF.
fn labelled(
    pixels: &[u8],
    kind: ExtendedColorType,
    (width, height): (u32, u32),
    icc: &[u8],
    exif: &[u8],
) -> Vec<Vec<u8>> {
    fn written(
        mut encoder: impl ImageEncoder,
        pixels: &[u8],
        kind: ExtendedColorType,
        (width, height): (u32, u32),
        labels: [&[u8]; 2],
    ) {
        let [icc, exif] = labels.map(<[u8]>::to_vec);
        if !icc.is_empty() {
            encoder.set_icc_profile(icc).unwrap();
        }
        if !exif.is_empty() {
            encoder.set_exif_metadata(exif).unwrap();
        }
        encoder.write_image(pixels, width, height, kind).unwrap();
    }
    let (size, labels) = ((width, height), [icc, exif]);
    let [mut png, mut jpeg, mut webp] = [const { Vec::new() }; 3];
    written(PngEncoder::new(&mut png), pixels, kind, size, labels);
    written(
        JpegEncoder::new_with_quality(&mut jpeg, 100),
        pixels,
        kind,
        size,
        labels,
    );
    written(
        WebPEncoder::new_lossless(&mut webp),
        pixels,
        kind,
        size,
        labels,
    );
    let mut files = vec![png, jpeg, webp];
    if exif.is_empty() {
        let mut tiff = Cursor::new(vec![]);
        written(TiffEncoder::new(&mut tiff), pixels, kind, size, labels);
        files.push(tiff.into_inner());
    }
    files
}

#[test]
fn colours_are_those_that_the_profile_means() {
    // Red of sRGB, as the phones' profile has it.
    let p3 = ColorProfile::new_display_p3().encode().unwrap();
    let red = [234, 51, 35].repeat(96 * 48);
    for file in labelled(&red, ExtendedColorType::Rgb8, (96, 48), &p3, &[]) {
        let shown = pixels(&file, TWO).unwrap();
        assert!(
            close(at(&shown, 9, 9), [255, 0, 0]),
            "{:?}: {:?}",
            &file[..4],
            at(&shown, 9, 9)
        );
    }
    let linear = ColorProfile::new_gray_with_gamma(1.0).encode().unwrap();
    let grey = [55; 96 * 48];
    for file in labelled(&grey, ExtendedColorType::L8, (96, 48), &linear, &[]) {
        // WebP has no grey; a profile of other channels says nothing.
        let expected = if file.starts_with(b"RIFF") { 55 } else { 128 };
        let shown = pixels(&file, TWO).unwrap();
        assert!(
            close(at(&shown, 9, 9), [expected; 3]),
            "{:?}",
            at(&shown, 9, 9)
        );
    }
    for broken in [&p3[..200], b"no profile", &[0xFF; 400]] {
        for file in labelled(&red, ExtendedColorType::Rgb8, (96, 48), broken, &[]) {
            let shown = pixels(&file, TWO).unwrap();
            assert!(close(at(&shown, 9, 9), [234, 51, 35]));
        }
    }
}

#[test]
fn inks_of_print_look_as_their_profile_says() {
    // As LittleCMS has them, see inks.py; without the profile they are 0, 255, 255 and 255, 51, 0.
    for file in [
        &include_bytes!("../../../../tests/data/pictures/inks.jpg")[..],
        include_bytes!("../../../../tests/data/pictures/inks-ycck.jpg"),
        include_bytes!("../../../../tests/data/pictures/inks.tif"),
    ] {
        let shown = pixels(file, TWO).unwrap();
        let found = [at(&shown, 9, 9), at(&shown, 86, 9)];
        assert!(close(found[0], [0, 149, 218]), "{found:?}");
        assert!(close(found[1], [223, 83, 23]), "{found:?}");
    }
}

#[test]
fn scans_of_one_page_are_read_and_others_refused() {
    let fax = include_bytes!("../../../../tests/data/pictures/fax.tif");
    let shown = pixels(fax, TWO).unwrap();
    assert_eq!(
        (at(&shown, 9, 9), at(&shown, 86, 9)),
        (&[0; 3][..], &[255; 3][..])
    );
    let pages = |kinds: [u32; 2]| {
        let mut file = Cursor::new(vec![]);
        let mut encoder = tiff::encoder::TiffEncoder::new(&mut file).unwrap();
        for kind in kinds {
            let mut page = encoder
                .new_image::<tiff::encoder::colortype::Gray8>(4, 4)
                .unwrap();
            page.encoder()
                .write_tag(tiff::tags::Tag::NewSubfileType, kind)
                .unwrap();
            page.write_data(&[77; 16]).unwrap();
        }
        dimensions(&file.into_inner())
    };
    assert_eq!(pages([0, 1]), Ok((4, 4)));
    assert!(pages([2, 2]).unwrap_err().contains("several pages"));
    assert!(pages([1, 0]).unwrap_err().contains("raw photograph"));
}

#[test]
fn every_format_says_how_the_camera_was_held() {
    let exif = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0";
    let picture = halves(96, 48).into_rgb8().into_raw();
    let held = |exif: &[u8]| labelled(&picture, ExtendedColorType::Rgb8, (96, 48), &[], exif);
    for file in held(exif) {
        assert_eq!(dimensions(&file), Ok((48, 96)));
    }
    // As some programs write it; JPEG has the label anyway.
    let [png, _, webp] = &held(&[b"Exif\0\0", &exif[..]].concat())[..] else {
        panic!("three formats");
    };
    assert_eq!(
        [png, webp].map(|file| dimensions(file)),
        [Ok((48, 96)), Ok((48, 96))]
    );
}

#[test]
fn what_a_jpeg_takes_is_in_its_header() {
    let mebi = |jpeg: &[u8]| memory(jpeg, Detail::Auto).map(|bytes| bytes >> 20);
    let sized = |jpeg: &[u8], width: u16, height: u16| {
        let is_frame = |mark: &[u8]| mark == [0xFF, 0xC0] || mark == [0xFF, 0xC2];
        let frame = jpeg.windows(2).position(is_frame).unwrap();
        let mut jpeg = jpeg.to_vec();
        jpeg[frame + 5..frame + 7].copy_from_slice(&height.to_be_bytes());
        jpeg[frame + 7..frame + 9].copy_from_slice(&width.to_be_bytes());
        jpeg
    };
    let plain = encoded(&halves(64, 48), ImageFormat::Jpeg);
    let progressive = include_bytes!("../../../../tests/data/pictures/progressive.jpg");
    // 48 megapixels: three bytes for each, and all coefficients where they come in several scans.
    assert_eq!(mebi(&sized(&plain, 8064, 6048)), Ok(157));
    assert!((280..440).contains(&mebi(&sized(progressive, 8064, 6048)).unwrap()));
    assert!(mebi(&sized(&plain, 12_000, 9_000)).is_ok());
    let said = mebi(&sized(progressive, 12_000, 9_000)).unwrap_err();
    assert!(
        said.contains("12000 x 9000 pixels") && said.contains("496 MiB"),
        "{said}"
    );
}

proptest! {
    #[test]
    fn damage_is_refused_or_shown(at in 0usize..2000, byte: u8, cut in 0usize..2000, which in 0usize..6) {
        let mut file = encoded(&halves(60, 40), FORMATS[which]);
        let (at, cut) = (at % file.len(), cut % file.len());
        file[at] = byte;
        let size = Size { width: 96, height: 48 };
        for file in [&file[..], &file[..cut]] {
            if let Ok(shown) = pixels(file, size) {
                prop_assert_eq!(shown.rgb.len(), 96 * 48 * 3);
            }
            let _ = dimensions(file);
        }
    }
}
