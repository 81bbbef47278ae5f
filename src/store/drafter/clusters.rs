//! Drafters with clusters. llama.cpp cannot load a file that has them, so it gets a file of its own
//! without: what is left of the header, the other tensors, and a hole where the table of tokens is,
//! which is read from the drafter's file.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};

use super::{OUT, TOKENS as TABLE};
use crate::gemma::clusters::{Clusters, Place};
use crate::store::gguf::{Header, Tensor};

/// A row for each cluster, and the clusters' tokens, one cluster behind the other.
const CENTROIDS: &str = "masked_embd_centroids.weight";
pub const TOKENS: &str = "masked_embd_ordering";
/// What takes most of a header, and is said to llama.cpp in another way.
const VOCABULARY: &str = "tokenizer.";
/// ggml reads weights at multiples of this.
const ALIGNED: u64 = 32;
/// Bytes that are copied at a time.
const PIECE: usize = 1 << 20;

/// What llama.cpp gets, and where the rest is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Clustered {
    /// `None`: they are not what is needed, and llama.cpp's file has the table.
    pub clusters: Option<Clusters>,
    content: Vec<Content>,
    bytes: u64,
}

/// What a new file has, one behind the other.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Content {
    Bytes(Box<[u8]>),
    /// A part of the drafter's file.
    Copy(Range<u64>),
    /// Nothing, in so many bytes.
    Hole(u64),
}

/// `None`: the drafter has no clusters.
pub(super) fn of(header: &Header) -> Option<Clustered> {
    let is_of_clusters = |tensor: &Tensor| [CENTROIDS, TOKENS].contains(&&*tensor.name);
    if !header.tensors().iter().any(is_of_clusters) {
        return None;
    }
    let clusters = places(header);
    let others = header.tensors().iter().filter(|t| !is_of_clusters(t));
    let others: Vec<&Tensor> = others.collect();
    let kept = header
        .places()
        .filter(|(key, _)| !key.starts_with(VOCABULARY));
    let kept: Vec<Range<u64>> = kept.map(|(_, place)| place).collect();

    let mut start = b"GGUF".to_vec();
    start.extend(header.version.to_le_bytes());
    start.extend((others.len() as u64).to_le_bytes());
    start.extend((kept.len() as u64).to_le_bytes());
    let mut new = New::default();
    new.push(Content::Bytes(start.into()));
    kept.into_iter()
        .for_each(|place| new.push(Content::Copy(place)));
    new.push(Content::Bytes(entries(&others, header.alignment).into()));
    for tensor in others {
        new.fill(header.alignment);
        new.push(match clusters {
            Some(_) if *tensor.name == *TABLE => Content::Hole(tensor.bytes),
            _ => Content::Copy(tensor.offset..tensor.offset + tensor.bytes),
        });
    }
    new.fill(header.alignment);
    let New { content, bytes } = new;
    Some(Clustered {
        clusters,
        content,
        bytes,
    })
}

/// The entries of tensors that lie one behind the other.
fn entries(tensors: &[&Tensor], alignment: u32) -> Vec<u8> {
    let (mut entries, mut offset) = (vec![], 0u64);
    for tensor in tensors {
        entries.extend((tensor.name.len() as u64).to_le_bytes());
        entries.extend(tensor.name.as_bytes());
        entries.extend((tensor.dims().len() as u32).to_le_bytes());
        let dims = tensor.dims().iter();
        entries.extend(dims.flat_map(|dim| dim.to_le_bytes()));
        entries.extend(tensor.ty.id.to_le_bytes());
        entries.extend(offset.to_le_bytes());
        offset = (offset + tensor.bytes).next_multiple_of(alignment.into());
    }
    entries
}

#[derive(Default)]
struct New {
    content: Vec<Content>,
    bytes: u64,
}

impl New {
    fn push(&mut self, content: Content) {
        self.bytes += content.bytes();
        self.content.push(content);
    }

    /// Up to the next multiple of `alignment`.
    fn fill(&mut self, alignment: u32) {
        let missing = self.bytes.next_multiple_of(alignment.into()) - self.bytes;
        self.push(Content::Hole(missing));
    }
}

impl Content {
    fn bytes(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Copy(part) => part.end - part.start,
            Self::Hole(bytes) => *bytes,
        }
    }
}

/// Where everything is, if it is what is needed.
fn places(header: &Header) -> Option<Clusters> {
    let place = |name| header.tensor(name).and_then(place);
    let (table, centroids, back) = (place(TABLE)?, place(CENTROIDS)?, place(OUT)?);
    let tokens = header.tensor(TOKENS)?;
    let (count, rows) = (tokens.dims().iter().product::<u64>(), centroids.rows);
    let fits = centroids.columns == table.columns
        && back.columns == table.columns
        && count == table.rows
        && count.is_multiple_of(rows)
        && ["I32", "I64"].contains(&tokens.ty.name);
    fits.then(|| Clusters {
        table,
        centroids,
        tokens: Place {
            offset: tokens.offset,
            bytes: tokens.bytes,
            kind: tokens.ty.id,
            columns: count / rows,
            rows,
        },
        back,
    })
}

/// A matrix with which ggml can multiply where it lies.
fn place(tensor: &Tensor) -> Option<Place> {
    let &[columns, rows] = tensor.dims() else {
        return None;
    };
    tensor.offset.is_multiple_of(ALIGNED).then_some(Place {
        offset: tensor.offset,
        bytes: tensor.bytes,
        kind: tensor.ty.id,
        columns,
        rows,
    })
}

impl Clustered {
    /// Bytes of the file that llama.cpp gets.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The file that llama.cpp gets, in memory, which nobody can change. `file` is the drafter's. Blocks
    /// on the disk.
    ///
    /// # Errors
    /// The drafter's file cannot be read as far as its header says, or there is no memory.
    pub fn write(&self, file: &File) -> io::Result<File> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let new = File::from(memfd_create("drafter", flags)?);
        let (mut at, mut room) = (0, vec![0; PIECE]);
        for content in &self.content {
            match content {
                Content::Bytes(bytes) => new.write_all_at(bytes, at)?,
                Content::Copy(part) => {
                    let mut done = 0;
                    while part.start + done < part.end {
                        let left = part.end - part.start - done;
                        let piece = &mut room[..left.min(PIECE as u64) as usize];
                        file.read_exact_at(piece, part.start + done)?;
                        new.write_all_at(piece, at + done)?;
                        done += piece.len() as u64;
                    }
                }
                Content::Hole(_) => {}
            }
            at += content.bytes();
        }
        new.set_len(self.bytes)?;
        fcntl_add_seals(
            &new,
            SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE,
        )?;
        Ok(new)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Seek};

    use super::*;
    use crate::store::gguf::{self, Patience, write};

    /// A drafter's header as far as this looks at it, with numbers in all tensors.
    fn file(tokens: &[u64], centroids: &[u64]) -> Vec<u8> {
        let file = write::File::new()
            .text("general.architecture", "gemma4-assistant")
            .key(b"tokenizer.ggml.scores", 9, &write::list(6, 8, &[7; 32]))
            .u32("gemma4-assistant.block_count", 2)
            .tensor("output_norm.weight", &[4], 0)
            .tensor(TABLE, &[32, 8], 8)
            .tensor(CENTROIDS, centroids, 1)
            .tensor(TOKENS, tokens, 26)
            .tensor(OUT, &[32, 64], 0);
        let mut bytes = file.bytes();
        let header = write::header(&bytes);
        for (i, byte) in bytes[header.data_start as usize..].iter_mut().enumerate() {
            *byte = (i % 251) as u8;
        }
        bytes
    }

    fn new(clustered: &Clustered, bytes: &[u8]) -> Vec<u8> {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(bytes, 0).unwrap();
        let (mut new, mut content) = (clustered.write(&file).unwrap(), vec![]);
        new.rewind().unwrap();
        new.read_to_end(&mut content).unwrap();
        assert_eq!(content.len() as u64, clustered.bytes());
        assert!(new.write_all_at(b"x", 0).is_err(), "it is sealed");
        content
    }

    #[test]
    fn llama_cpp_gets_everything_else() {
        for (tokens, centroids, is_sound) in [
            (&[8u64][..], &[32u64, 4][..], true),
            (&[2, 4], &[32, 4], true),
            // Clusters of one size only, of rows that are as wide as the table's.
            (&[8], &[32, 3], false),
            (&[8], &[16, 4], false),
            (&[7], &[32, 7], false),
        ] {
            let bytes = file(tokens, centroids);
            let header = write::header(&bytes);
            let clustered = of(&header).unwrap();
            assert_eq!(clustered.clusters.is_some(), is_sound, "{centroids:?}");
            let made = new(&clustered, &bytes);
            let parsed = gguf::parse(&&made[..], made.len() as u64, Patience::default()).unwrap();
            let keys: Vec<_> = parsed.metadata().map(|(key, _)| key).collect();
            assert_eq!(
                keys,
                ["general.architecture", "gemma4-assistant.block_count"]
            );
            let names: Vec<_> = parsed
                .tensors()
                .iter()
                .map(|tensor| &*tensor.name)
                .collect();
            assert_eq!(names, ["output_norm.weight", TABLE, OUT]);
            for tensor in parsed.tensors() {
                let source = header.tensor(&tensor.name).unwrap();
                let part = |bytes: &[u8], tensor: &Tensor| {
                    bytes[tensor.offset as usize..][..tensor.bytes as usize].to_vec()
                };
                assert_eq!(tensor.dims(), source.dims());
                let expected = match &*tensor.name {
                    TABLE if is_sound => vec![0; tensor.bytes as usize],
                    _ => part(&bytes, source),
                };
                assert_eq!(part(&made, tensor), expected, "{}", tensor.name);
            }
        }
    }

    #[test]
    fn places_are_those_of_the_drafters_file() {
        let bytes = file(&[8], &[32, 4]);
        let header = write::header(&bytes);
        let Clusters {
            table,
            centroids,
            tokens,
            back,
        } = of(&header).unwrap().clusters.unwrap();
        assert_eq!((tokens.columns, tokens.rows, tokens.kind), (2, 4, 26));
        for (place, name) in [(table, TABLE), (centroids, CENTROIDS), (back, OUT)] {
            let tensor = header.tensor(name).unwrap();
            assert_eq!((place.offset, place.bytes), (tensor.offset, tensor.bytes));
            assert_eq!([place.columns, place.rows], tensor.dims());
        }
        let without = write::File::new().tensor(TABLE, &[32, 8], 8).header();
        assert_eq!(of(&without), None);
    }

    #[test]
    fn a_file_that_became_shorter_is_an_error() {
        let bytes = file(&[8], &[32, 4]);
        let clustered = of(&write::header(&bytes)).unwrap();
        let short = tempfile::tempfile().unwrap();
        short.write_all_at(&bytes[..100], 0).unwrap();
        assert!(clustered.write(&short).is_err());
    }
}
