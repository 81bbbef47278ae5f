//! Drafters: the small files beside a model that guess the tokens which the model says next
//! (multi-token prediction).

mod clusters;

use std::fs::File;
use std::path::{Path, PathBuf};

use super::companion::Companion;
use super::gguf::{GgufError, Header, LAYERS, Patience, Tensor};
use super::open::open;
use super::{BadFile, Model, architecture, bounds};
pub use clusters::Clustered;
pub(super) use clusters::TOKENS as CLUSTERS_TOKENS;

/// Its own table of tokens: a column for each token of the vocabulary.
const TOKENS: &str = "token_embd.weight";
/// From a token's embedding and hidden state, both of the model's width, to its own width, and
/// back.
const IN: &str = "nextn.pre_projection.weight";
const OUT: &str = "nextn.post_projection.weight";

/// A drafter that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drafter {
    pub path: PathBuf,
    /// Bytes of the file.
    pub size: u64,
    /// Width of the hidden state that it reads, which is its model's.
    pub width: u32,
    /// Tokens of the vocabulary.
    pub tokens: u64,
    /// What it reads of its model's cache.
    pub rows: CacheRows,
    /// The model's name as the header has it.
    pub name: String,
    /// `None`: each guess is chosen among all tokens.
    pub clustered: Option<Box<Clustered>>,
}

/// Numbers of a token's keys and values in the last layer that looks back a window, and in the last
/// that looks back at everything. A drafter has no keys and values of its own: it reads its
/// model's, in these two layers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheRows {
    pub sliding: u32,
    pub global: u32,
}

impl CacheRows {
    /// As the header of a model, or of a drafter, has it. What a header leaves out counts as
    /// nothing.
    pub(super) fn of(header: &Header, architecture: &str) -> Result<Self, GgufError> {
        let number = |key: &str| {
            Ok::<_, GgufError>(header.u32(&format!("{architecture}.{key}"))?.unwrap_or(0))
        };
        let each = |key: &str| header.per_layer(&format!("{architecture}.attention.{key}"));
        let (slides, heads) = (each("sliding_window_pattern")?, each("head_count_kv")?);
        let narrow = number("attention.key_length_swa")?
            .saturating_add(number("attention.value_length_swa")?);
        let wide =
            number("attention.key_length")?.saturating_add(number("attention.value_length")?);
        let mut rows = Self::default();
        for layer in 0..number("block_count")?.min(LAYERS as u32) {
            let heads = heads
                .as_ref()
                .and_then(|heads| heads.layer(layer))
                .unwrap_or(0);
            match slides.as_ref().and_then(|slides| slides.layer(layer)) {
                Some(1..) => rows.sliding = heads.saturating_mul(narrow),
                _ => rows.global = heads.saturating_mul(wide),
            }
        }
        Ok(rows)
    }
}

/// Opens a drafter and checks its header, like [`super::read()`]. Blocks on the disk.
pub fn read_drafter(path: &Path, patience: Patience<'_>) -> Result<(Drafter, File), BadFile> {
    let (described, file, metadata) = open(path, patience, describe)?;
    let Described {
        width,
        tokens,
        rows,
        name,
        clustered,
    } = described;
    Ok((
        Drafter {
            path: path.to_owned(),
            size: metadata.len(),
            width,
            tokens,
            rows,
            name,
            clustered: clustered.map(Box::new),
        },
        file,
    ))
}

#[derive(Debug, PartialEq)]
struct Described {
    width: u32,
    tokens: u64,
    rows: CacheRows,
    name: String,
    clustered: Option<Clustered>,
}

fn describe(header: &Header) -> Result<Described, BadFile> {
    let unusable = |found: String| BadFile::OtherDrafter { found };
    let architecture = header.need_str("general.architecture")?;
    if architecture != architecture::DRAFTER {
        return Err(unusable(format!(
            "architecture `{}`",
            architecture.escape_debug().take(64).collect::<String>()
        )));
    }
    bounds::check(header, architecture::DRAFTER, false)?;
    let number = |key: &str| header.need_u32(&format!("{}.{key}", architecture::DRAFTER));
    let (own, width) = (number("embedding_length")?, number("embedding_length_out")?);
    if width == own {
        return Err(unusable(format!(
            "the same width inside and outside, {own}"
        )));
    }
    let tokens = header
        .tensor(TOKENS)
        .and_then(|tensor| tensor.dims().get(1).copied())
        .unwrap_or(0);
    let (own, wide) = (u64::from(own), u64::from(width));
    for (name, shape) in [
        (TOKENS, [own, tokens]),
        (IN, [2 * wide, own]),
        (OUT, [own, wide]),
    ] {
        let found = header
            .tensor(name)
            .map(Tensor::dims)
            .ok_or_else(|| unusable(format!("no tensor `{name}`")))?;
        if found != shape {
            return Err(unusable(format!(
                "a tensor `{name}` of the shape {found:?}, where {shape:?} is needed"
            )));
        }
    }
    let rows = CacheRows::of(header, architecture::DRAFTER)?;
    if rows.sliding == 0 || rows.global == 0 {
        return Err(unusable(
            "no layer of each kind that reads its model's cache".to_owned(),
        ));
    }
    Ok(Described {
        width,
        tokens,
        rows,
        name: header.str("general.name")?.unwrap_or_default().to_owned(),
        clustered: clusters::of(header),
    })
}

/// What the files and headers are called that were made for quantization (quantization-aware training).
const TRAINED_FOR_QUANTIZATION: &str = "qat";

impl Drafter {
    /// Whether of it and its model one was made for quantization and the other was not, as far as their
    /// names tell: it guesses what the other's model would say.
    pub fn is_of_other_training(&self, model: &Model) -> bool {
        let is_made_for_it = |path: &Path, name: &str| {
            let file = path.file_name().unwrap_or_default().to_string_lossy();
            let text = format!("{file} {name}").to_ascii_lowercase();
            let mut words = text.split(|c: char| !c.is_ascii_alphanumeric());
            words.any(|word| word == TRAINED_FOR_QUANTIZATION)
        };
        is_made_for_it(&self.path, &self.name) != is_made_for_it(model.path(), &model.name)
    }
}

impl Companion for Drafter {
    fn path(&self) -> &Path {
        &self.path
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn fits(&self, model: &Model) -> bool {
        (self.width, self.tokens, self.rows)
            == (
                model.width,
                u64::from(model.figures.tokens),
                model.cache_rows,
            )
    }
}

#[cfg(test)]
mod tests {
    use super::super::companion::pair;
    use super::super::gguf::write;
    use super::super::read;
    use super::*;

    fn key(name: &str) -> String {
        format!("{}.{name}", architecture::DRAFTER)
    }

    /// A drafter with its keys, but for one, and with no tensors.
    fn keys(without: &str) -> write::File {
        let numbers = [
            ("block_count", 2),
            ("embedding_length", 32),
            ("embedding_length_out", 64),
            ("attention.head_count_kv", 2),
            ("attention.key_length", 8),
            ("attention.value_length", 8),
            ("attention.key_length_swa", 4),
            ("attention.value_length_swa", 4),
            ("rope.dimension_count_swa", 4),
        ];
        let file = write::File::new()
            .text("general.architecture", architecture::DRAFTER)
            .text("general.name", "Tiny");
        let file = numbers
            .iter()
            .filter(|(name, _)| *name != without)
            .fold(file, |file, (name, value)| file.u32(&key(name), *value));
        file.key(
            key("attention.sliding_window_pattern").as_bytes(),
            9,
            &write::list(7, 2, &[1, 0]),
        )
    }

    fn described(file: write::File) -> Result<Described, String> {
        describe(&file.header()).map_err(|error| error.to_string())
    }

    #[test]
    fn a_header_says_whose_drafter_it_is() {
        let good = |without| {
            keys(without)
                .tensor(TOKENS, &[32, 5], 0)
                .tensor(IN, &[128, 32], 0)
                .tensor(OUT, &[32, 64], 0)
        };
        let rows = CacheRows {
            sliding: 2 * 8,
            global: 2 * 16,
        };
        assert_eq!(
            described(good("")),
            Ok(Described {
                width: 64,
                tokens: 5,
                rows,
                name: "Tiny".into(),
                clustered: None,
            })
        );
        let early = write::File::new().text("general.architecture", architecture::EARLY_DRAFTER);
        for (file, reason) in [
            (early, "architecture `gemma4_assistant`"),
            (
                good("embedding_length_out"),
                "gemma4-assistant.embedding_length_out",
            ),
            (
                good("embedding_length_out").u32(&key("embedding_length_out"), 32),
                "the same width inside and outside, 32",
            ),
            (good("attention.head_count_kv"), "no layer of each kind"),
            (keys(""), "no tensor `token_embd.weight`"),
            (
                keys("")
                    .tensor(TOKENS, &[32, 5], 0)
                    .tensor(OUT, &[32, 64], 0),
                "no tensor `nextn.pre_projection.weight`",
            ),
            (
                keys("")
                    .tensor(TOKENS, &[32, 5], 0)
                    .tensor(IN, &[64, 32], 0),
                "[64, 32], where [128, 32] is needed",
            ),
        ] {
            let error = described(file).unwrap_err();
            assert!(error.contains(reason), "{error}");
        }
    }

    #[test]
    fn the_tiny_drafters_find_their_models_by_their_numbers_alone() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/tiny");
        let drafters = ["tiny-e2b-mtp-q8_0", "tiny-31b-mtp-q8_0"].map(|id| {
            let (drafter, _) =
                read_drafter(&folder.join(format!("{id}.gguf")), Patience::default()).unwrap();
            Drafter {
                path: folder.join(format!("{}.gguf", drafter.rows.sliding)),
                name: String::new(),
                ..drafter
            }
        });
        let paired = |id: &str| {
            let (model, _) =
                read(&[folder.join(format!("{id}.gguf"))], Patience::default()).unwrap();
            pair(&model, &drafters).map(|drafter| drafter.rows)
        };
        assert_eq!(
            paired("tiny-e2b-q8_0"),
            Some(CacheRows {
                sliding: 64,
                global: 128
            })
        );
        assert_eq!(
            paired("tiny-31b-q4_0"),
            Some(CacheRows {
                sliding: 256,
                global: 256
            })
        );
        assert_eq!(
            (paired("tiny-12b-q8_0"), paired("tiny-26b-a4b-q8_0")),
            (None, None)
        );
    }

    #[test]
    fn names_tell_how_a_drafter_was_trained() {
        let drafter = |file: &str, name: &str| Drafter {
            path: format!("/qat/{file}").into(),
            size: 1,
            width: 1,
            tokens: 1,
            rows: CacheRows::default(),
            name: name.into(),
            clustered: None,
        };
        let model = |path: &str, name: &str| Model {
            name: name.into(),
            ..Model::example(path)
        };
        let qat = model("/m/gemma-4-E2B-it-qat-UD-Q4_K_XL.gguf", "Gemma 4 E2B It");
        let plain = model("/m/gemma-4-E2B-it-Q4_K_M.gguf", "Gemma 4 E2B It");
        for (file, name, is_qat) in [
            ("mtp.gguf", "Gemma 4 E2B It Qat Assistant", true),
            ("mtp-gemma-4-E2B-it-QAT.gguf", "", true),
            ("mtp-gemma-4-E2B-it.gguf", "Gemma 4 E2B It Assistant", false),
            ("aquatic.gguf", "", false),
        ] {
            let drafter = drafter(file, name);
            assert_eq!(drafter.is_of_other_training(&qat), !is_qat, "{file}");
            assert_eq!(drafter.is_of_other_training(&plain), is_qat, "{file}");
        }
    }

    #[test]
    fn every_number_must_agree() {
        let drafter = Drafter {
            path: "/m/drafter.gguf".into(),
            size: 1,
            width: 128,
            tokens: 2048,
            rows: CacheRows {
                sliding: 64,
                global: 128,
            },
            name: String::new(),
            clustered: None,
        };
        let mut model = Model::example("/m/model.gguf");
        (model.width, model.figures.tokens, model.cache_rows) = (128, 2048, drafter.rows);
        assert!(drafter.fits(&model));
        assert!(
            !Drafter {
                width: 64,
                ..drafter.clone()
            }
            .fits(&model)
        );
        assert!(
            !Drafter {
                tokens: 2047,
                ..drafter.clone()
            }
            .fits(&model)
        );
        assert!(
            !Drafter {
                rows: CacheRows {
                    sliding: 128,
                    global: 128
                },
                ..drafter
            }
            .fits(&model)
        );
    }
}
