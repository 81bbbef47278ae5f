//! Writes small GGUF files for tests: right ones, and ones that lie.

/// The header of bytes that are a whole file.
pub fn header(bytes: &[u8]) -> super::Header {
    super::parse(&bytes, bytes.len() as u64, super::Patience::default()).expect("a sound header")
}

/// A file being put together. Tensors are placed one behind the other and filled with zeros.
#[derive(Clone)]
pub struct File {
    pub version: u32,
    /// What the header claims; `None` is the truth.
    pub tensor_count: Option<u64>,
    pub key_count: Option<u64>,
    pub alignment: u64,
    pub keys: Vec<Vec<u8>>,
    pub tensors: Vec<Vec<u8>>,
    pub data: u64,
}

pub fn string(text: &[u8]) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes(), text].concat()
}

/// A list's value: element type, count and elements.
pub fn list(element: u32, count: u64, elements: &[u8]) -> Vec<u8> {
    [&element.to_le_bytes()[..], &count.to_le_bytes(), elements].concat()
}

impl File {
    pub fn new() -> Self {
        Self {
            version: 3,
            tensor_count: None,
            key_count: None,
            alignment: 32,
            keys: vec![],
            tensors: vec![],
            data: 0,
        }
    }

    /// The least that the store takes for a model.
    pub fn model() -> Self {
        Self::new()
            .text("general.architecture", "gemma4")
            .u32("general.file_type", 7)
            .u32("gemma4.block_count", 2)
            .u32("gemma4.context_length", 4096)
            .u32("gemma4.embedding_length", 32)
            .text("tokenizer.ggml.model", "gemma4")
            .key(
                b"tokenizer.ggml.tokens",
                9,
                &list(8, 2, &[string(b"<bos>"), string(b"a")].concat()),
            )
            .key(b"tokenizer.ggml.merges", 9, &list(8, 0, &[]))
            .tensor("token_embd.weight", &[32, 2], 8)
    }

    /// Any entry: the key, the type's number, the value's bytes.
    pub fn key(mut self, key: &[u8], kind: u32, value: &[u8]) -> Self {
        self.keys
            .push([&string(key)[..], &kind.to_le_bytes(), value].concat());
        self
    }

    pub fn u16(self, key: &str, value: u16) -> Self {
        self.key(key.as_bytes(), 2, &value.to_le_bytes())
    }

    pub fn u32(self, key: &str, value: u32) -> Self {
        self.key(key.as_bytes(), 4, &value.to_le_bytes())
    }

    pub fn f32(self, key: &str, value: f32) -> Self {
        self.key(key.as_bytes(), 6, &value.to_le_bytes())
    }

    pub fn text(self, key: &str, value: &str) -> Self {
        self.key(key.as_bytes(), 8, &string(value.as_bytes()))
    }

    /// Any tensor entry, which gets no data.
    pub fn tensor_at(mut self, name: &[u8], dims: &[u64], kind: u32, offset: u64) -> Self {
        let dims_bytes: Vec<u8> = dims.iter().flat_map(|dim| dim.to_le_bytes()).collect();
        let rank = (dims.len() as u32).to_le_bytes();
        self.tensors.push(
            [
                &string(name)[..],
                &rank,
                &dims_bytes,
                &kind.to_le_bytes(),
                &offset.to_le_bytes(),
            ]
            .concat(),
        );
        self
    }

    /// A tensor behind the ones before it.
    pub fn tensor(mut self, name: &str, dims: &[u64], kind: u32) -> Self {
        let ty = super::TensorType::from_id(kind).expect("a type that exists");
        let offset = self.data.next_multiple_of(self.alignment);
        self.data = offset + dims.iter().product::<u64>() / ty.block_weights * ty.block_bytes;
        self.tensor_at(name.as_bytes(), dims, kind, offset)
    }

    /// More bytes of data.
    pub fn data(mut self, bytes: u64) -> Self {
        self.data += bytes;
        self
    }

    pub fn header(&self) -> super::Header {
        header(&self.bytes())
    }

    pub fn bytes(&self) -> Vec<u8> {
        let tensors = self.tensor_count.unwrap_or(self.tensors.len() as u64);
        let keys = self.key_count.unwrap_or(self.keys.len() as u64);
        let mut out = [
            b"GGUF",
            &self.version.to_le_bytes()[..],
            &tensors.to_le_bytes(),
            &keys.to_le_bytes(),
        ]
        .concat();
        out.extend(self.keys.concat());
        out.extend(self.tensors.concat());
        if self.data > 0 {
            out.resize(
                out.len().next_multiple_of(self.alignment as usize) + self.data as usize,
                0,
            );
        }
        out
    }
}
