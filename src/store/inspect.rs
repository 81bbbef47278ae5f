//! One model: its files opened once, their headers checked as one, described.

use std::fs::{File, Metadata};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use super::gguf::{Header, Patience};
use super::open::{open, open_all};
use super::{
    BadFile, CacheRows, Installers, Model, StoredFile, architecture, bounds, check_trust, figures,
    fingerprint, quantization, split, vocabulary,
};
use crate::gemma::header_key;
use crate::gemma::layout::{Class, Layout};
use crate::gemma::model_shape::ModelShape;
use crate::gemma::variant::{Facts, Variant};
use crate::gemma::vocabulary::Place;

/// Every whole model has it; files with only a tokenizer and adapters do not.
const FIRST_TENSOR: &str = "token_embd.weight";

/// A model's files, open, and what loading them needs to know.
#[derive(Debug)]
pub struct OpenModel {
    pub model: Model,
    /// In the order of [`Model::files`].
    pub files: Vec<File>,
    pub layout: Layout,
    pub vocabulary: Place,
    /// Stands for what the files hold: see `fingerprint`.
    pub fingerprint: [u8; 32],
}

/// Opens a model's file, or all its parts in their order, and checks the headers. The descriptors are the very files that were
/// checked, and close on exec. Symbolic links are followed: model stores are full of them. Blocks on the disk.
pub fn read(paths: &[PathBuf], patience: Patience<'_>) -> Result<(Model, Vec<File>), BadFile> {
    let (header, files) = open_all(paths, patience)?;
    let described = describe(&header).map_err(|error| cut(error, paths.len()))?;
    let model = model(paths, described, &files);
    Ok((model, files.into_iter().map(|(file, _)| file).collect()))
}

/// Opens one of the parts of a model and checks what can be known without the others.
///
/// # Errors
/// It is none, or of another family.
pub fn read_part(path: &Path, patience: Patience<'_>) -> Result<(), BadFile> {
    open(path, patience, |header| match split::part(header)? {
        // Only the first says what it is of.
        Some(part) if part.number == 1 => {
            check_architecture(header).map_err(|error| cut(error, part.of as usize))
        }
        Some(_) => Ok(()),
        None => describe(header).map(drop),
    })
    .map(drop)
}

/// As [`read`], with what loading needs besides, of files that only these may have changed.
pub fn inspect(paths: &[PathBuf], installers: &Installers) -> Result<OpenModel, BadFile> {
    for path in paths {
        check_trust(path, installers)?;
    }
    let (header, files) = open_all(paths, Patience::default())?;
    let model = model(paths, describe(&header)?, &files);
    let tensors = header.tensors().iter();
    let classes = tensors.map(|tensor| (tensor.offset, Class::of_tensor(&tensor.name)));
    let starts = model.files.iter().scan(0, |end, file| {
        let start = *end;
        *end += file.bytes;
        Some((start, Class::Header))
    });
    Ok(OpenModel {
        layout: Layout::new(model.size(), classes.chain(starts)),
        vocabulary: vocabulary::place(&header)?,
        fingerprint: fingerprint::of(&files, header.tensors())?,
        model,
        files: files.into_iter().map(|(file, _)| file).collect(),
    })
}

fn model(paths: &[PathBuf], described: Described, files: &[(File, Metadata)]) -> Model {
    let created = files.iter().filter_map(|(_, metadata)| {
        let since = metadata.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
        Some(since.as_secs())
    });
    let stored = paths.iter().zip(files);
    let stored = stored.map(|(path, (_, metadata))| StoredFile {
        path: path.clone(),
        bytes: metadata.len(),
        identity: metadata.into(),
    });
    Model {
        id: paths.first().map(|path| id(path)).unwrap_or_default(),
        files: stored.collect(),
        created: created.max().unwrap_or(0),
        variant: described.variant,
        name: described.name,
        width: described.width,
        context_limit: described.context_limit,
        quantization: described.quantization.to_owned(),
        figures: described.figures,
        cache_rows: described.cache_rows,
        projector: None,
        drafter: None,
    }
}

/// What clients call the model in a file, which may be one of its parts.
pub fn id(path: &Path) -> String {
    let stem = split::whole_stem(path);
    let spell = |c: char| match c.to_ascii_lowercase() {
        c @ ('a'..='z' | '0'..='9' | '.' | '_' | '-') => c,
        _ => '-',
    };
    stem.chars().map(spell).collect()
}

/// What the header says of a model that can be served.
#[derive(Debug, PartialEq)]
struct Described {
    variant: Variant,
    name: String,
    width: u32,
    context_limit: u32,
    quantization: &'static str,
    figures: ModelShape,
    cache_rows: CacheRows,
}

fn describe(header: &Header) -> Result<Described, BadFile> {
    check_architecture(header)?;
    if let Some(kind) = header.str("general.type")?.filter(|kind| *kind != "model") {
        return Err(BadFile::Incomplete {
            kind: format!(
                "of type `{}`",
                kind.escape_debug().take(64).collect::<String>()
            ),
        });
    }
    if header.tensor(FIRST_TENSOR).is_none() {
        return Err(BadFile::Incomplete {
            kind: format!("a file without the tensor `{FIRST_TENSOR}`"),
        });
    }
    bounds::check(header, architecture::MODEL, true)?;
    let facts = Facts {
        block_count: header.need_u32(&header_key("block_count"))?,
        embedding_length: header.need_u32(&header_key("embedding_length"))?,
        expert_count: header.u32(&header_key("expert_count"))?.unwrap_or(0),
        per_layer_embedding_length: header
            .u32(&header_key("embedding_length_per_layer_input"))?
            .unwrap_or(0),
        size_label: header.str("general.size_label")?,
    };
    vocabulary::place(header)?;
    let context_limit = header.need_u32(&header_key("context_length"))?;
    Ok(Described {
        variant: Variant::of(facts),
        name: header.str("general.name")?.unwrap_or_default().to_owned(),
        width: facts.embedding_length,
        context_limit,
        quantization: quantization::name(header)?,
        figures: figures::of(header)?,
        cache_rows: CacheRows::of(header, architecture::MODEL)?,
    })
}

/// What belongs to a model is read from one file: llama.cpp has no way to read a projector from several.
fn cut(error: BadFile, of: usize) -> BadFile {
    let role = match error {
        BadFile::Projector => "projector",
        BadFile::Drafter => "drafter",
        other => return other,
    };
    match of {
        1 => error,
        of => BadFile::CutCompanion { role, of },
    }
}

fn check_architecture(header: &Header) -> Result<(), BadFile> {
    match header.need_str("general.architecture")? {
        architecture::MODEL => Ok(()),
        architecture::PROJECTOR => Err(BadFile::Projector),
        architecture::DRAFTER | architecture::EARLY_DRAFTER => Err(BadFile::Drafter),
        other => Err(BadFile::OtherArchitecture {
            found: other.escape_debug().take(64).collect(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::super::gguf::write;
    use super::*;

    fn describe_bytes(file: write::File) -> Result<Described, String> {
        describe(&file.header()).map_err(|error| error.to_string())
    }

    #[test]
    fn a_model_is_described() {
        let described = describe_bytes(write::File::model()).unwrap();
        assert_eq!(
            (described.variant, described.context_limit),
            (Variant::Other { small: false }, 4096)
        );
        assert_eq!((described.quantization, described.width), ("Q8_0", 32));
    }

    #[test]
    fn a_model_may_say_what_it_is_built_like() {
        let described =
            describe_bytes(write::File::model().text("general.size_label", "31B")).unwrap();
        assert_eq!(described.variant, Variant::B31);
    }

    #[test]
    fn other_files_are_told_apart() {
        let architecture = |name: &str| {
            describe_bytes(write::File::new().text("general.architecture", name)).unwrap_err()
        };
        assert!(architecture("llama").contains("architecture `llama`"));
        assert!(architecture("clip").contains("a projector"));
        assert!(architecture("gemma4-assistant").contains("a drafter"));
        assert!(architecture("gemma4").contains("token_embd.weight"));
        assert!(
            describe_bytes(write::File::new())
                .unwrap_err()
                .contains("`general.architecture`: missing")
        );
        assert!(
            describe_bytes(write::File::model().text("general.type", "adapter"))
                .unwrap_err()
                .contains("`adapter`")
        );
        let no_facts = write::File::new()
            .text("general.architecture", "gemma4")
            .tensor(FIRST_TENSOR, &[32, 2], 8);
        assert!(
            describe_bytes(no_facts)
                .unwrap_err()
                .contains("gemma4.block_count")
        );
    }

    #[test]
    fn ids_are_plain() {
        assert_eq!(
            id(Path::new("/m/Gemma-4_E2B-it.Q4_0.gguf")),
            "gemma-4_e2b-it.q4_0"
        );
        assert_eq!(id(Path::new("Größe & Co.GGUF")), "gr--e---co");
        assert_eq!(id(Path::new("Big-00002-of-00003.gguf")), "big");
    }

    #[test]
    fn the_tiny_model_is_read() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/tiny/tiny-e2b-q8_0.gguf");
        let (model, files) = read(&[path], Patience::default()).unwrap();
        assert_eq!(model.id, "tiny-e2b-q8_0");
        assert_eq!(model.variant, Variant::E2b);
        assert_eq!(model.quantization, "Q8_0");
        assert_eq!(model.size(), files[0].metadata().unwrap().len());
        assert!(model.context_limit > 0 && model.created > 0);
        let flags = rustix::io::fcntl_getfd(&files[0]).unwrap();
        assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
    }

    #[test]
    fn every_byte_of_the_tiny_model_has_a_class() {
        use crate::gemma::layout::Kind;
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/tiny/tiny-e2b-q8_0.gguf");
        let OpenModel { model, layout, .. } = inspect(&[path], &Installers::default()).unwrap();
        assert_eq!(layout.length(), model.size());
        assert_eq!(
            Kind::ALL.iter().map(|kind| layout.sum(*kind)).sum::<u64>(),
            model.size()
        );
        // 2048 tokens of 128 numbers, and of 6 layers of 32 numbers, in Q8_0.
        assert_eq!(layout.sum(Kind::Head), 2048 * 128 / 32 * 34);
        assert_eq!(layout.sum(Kind::PerLayer), 2048 * 6 * 32 / 32 * 34);
        assert!(layout.sum(Kind::Layers) > 500_000);
        assert_eq!(layout.sum(Kind::Experts), 0);
    }

    #[test]
    fn what_is_no_regular_file_is_refused_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe.gguf");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let read = |path: &Path| read(&[path.into()], Patience::default()).map(|_| ());
        for path in [pipe.as_path(), folder.path(), Path::new("/dev/null")] {
            assert!(matches!(read(path), Err(BadFile::NotAFile)));
        }
        let none = read(&folder.path().join("none.gguf"));
        assert!(matches!(none, Err(BadFile::Unreadable(_))));
        let empty = folder.path().join("empty.gguf");
        std::fs::write(&empty, b"").unwrap();
        assert!(matches!(read(&empty), Err(BadFile::Header(_))));
    }
}
