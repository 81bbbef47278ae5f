//! Cuts a model's file into parts, as llama.cpp's `gguf-split` does.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use gemmad::store::gguf::{Header, Patience, Tensor, parse};

/// Bytes of a file in front of its keys: what it is, its version, and how many tensors and keys there are.
const START: usize = 24;

/// Writes the model in `source` to `folder` as `NAME-00001-of-0000N.gguf` and so on. All keys go to the first part, the tensors to
/// all in turns of about as many bytes.
pub fn split(source: &Path, folder: &Path, name: &str, of: u16) -> Vec<PathBuf> {
    let bytes = fs::read(source).unwrap();
    let file = File::open(source).unwrap();
    let header = parse(&file, bytes.len() as u64, Patience::default()).unwrap();
    let keys = &bytes[START..end_of_keys(&bytes, &header)];
    let count = header.metadata().count() as u64;
    let all = header.tensors();
    let total: u64 = all.iter().map(|tensor| tensor.bytes).sum();
    let mut before = 0;
    let mut parts = vec![vec![]; of.into()];
    for tensor in all {
        let part = (before * u64::from(of) / total).min(u64::from(of) - 1);
        parts[part as usize].push(tensor);
        before += tensor.bytes;
    }
    let written = parts.iter().enumerate().map(|(index, tensors)| {
        let own = match index {
            0 => (keys, count),
            _ => (&[][..], 0),
        };
        let told = (index as u16, of, all.len() as i32);
        let path = folder.join(format!("{name}-{:05}-of-{of:05}.gguf", index + 1));
        fs::write(&path, part(&header, own, told, tensors, &bytes)).unwrap();
        path
    });
    written.collect()
}

/// The keys end where the first tensor's entry begins.
pub fn end_of_keys(bytes: &[u8], header: &Header) -> usize {
    let entry = entry(&header.tensors()[0], 0);
    let place = bytes.windows(entry.len()).position(|here| here == entry);
    place.expect("the first tensor's entry")
}

fn entry(tensor: &Tensor, offset: u64) -> Vec<u8> {
    let dims = tensor.dims();
    let mut entry = text(&tensor.name);
    entry.extend((dims.len() as u32).to_le_bytes());
    entry.extend(dims.iter().flat_map(|dim| dim.to_le_bytes()));
    entry.extend(tensor.ty.id.to_le_bytes());
    entry.extend(offset.to_le_bytes());
    entry
}

pub fn text(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat()
}

fn part(
    header: &Header,
    (keys, count): (&[u8], u64),
    (number, of, tensors_of_all): (u16, u16, i32),
    tensors: &[&Tensor],
    source: &[u8],
) -> Vec<u8> {
    let alignment = header.alignment as usize;
    let mut out = b"GGUF".to_vec();
    out.extend(header.version.to_le_bytes());
    out.extend((tensors.len() as u64).to_le_bytes());
    out.extend((count + 3).to_le_bytes());
    out.extend(keys);
    for (key, value) in [("split.no", number), ("split.count", of)] {
        out.extend(
            [
                text(key),
                2u32.to_le_bytes().to_vec(),
                value.to_le_bytes().to_vec(),
            ]
            .concat(),
        );
    }
    out.extend(text("split.tensors.count"));
    out.extend(5u32.to_le_bytes());
    out.extend(tensors_of_all.to_le_bytes());
    let mut offset = 0;
    for tensor in tensors {
        out.extend(entry(tensor, offset));
        offset = (offset + tensor.bytes).next_multiple_of(alignment as u64);
    }
    for tensor in tensors {
        out.resize(out.len().next_multiple_of(alignment), 0);
        let (start, end) = (tensor.offset, tensor.offset + tensor.bytes);
        out.extend(&source[start as usize..end as usize]);
    }
    out.resize(out.len().next_multiple_of(alignment), 0);
    out
}
