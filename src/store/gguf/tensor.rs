//! Tensors: what the header says of one, and whether all of them can be where it says.

use super::cursor::{Cursor, Place};
use super::error::{Fault, GgufError, shown};
use super::{TENSOR_NAME_BYTES, TENSOR_RANK};

/// How weights are packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TensorType {
    /// The number in the file.
    pub id: u32,
    pub name: &'static str,
    /// Weights in one block; rows are whole blocks.
    pub block_weights: u64,
    /// Bytes of one block.
    pub block_bytes: u64,
}

const fn ty(id: u32, name: &'static str, block_weights: u64, block_bytes: u64) -> TensorType {
    TensorType {
        id,
        name,
        block_weights,
        block_bytes,
    }
}

/// Every type that ggml knows and has not given up. In between: 4 and 5, 31 to 33, 36 to 38, given
/// up.
static TYPES: [TensorType; 35] = [
    ty(0, "F32", 1, 4),
    ty(1, "F16", 1, 2),
    ty(2, "Q4_0", 32, 18),
    ty(3, "Q4_1", 32, 20),
    ty(6, "Q5_0", 32, 22),
    ty(7, "Q5_1", 32, 24),
    ty(8, "Q8_0", 32, 34),
    ty(9, "Q8_1", 32, 36),
    ty(10, "Q2_K", 256, 84),
    ty(11, "Q3_K", 256, 110),
    ty(12, "Q4_K", 256, 144),
    ty(13, "Q5_K", 256, 176),
    ty(14, "Q6_K", 256, 210),
    ty(15, "Q8_K", 256, 292),
    ty(16, "IQ2_XXS", 256, 66),
    ty(17, "IQ2_XS", 256, 74),
    ty(18, "IQ3_XXS", 256, 98),
    ty(19, "IQ1_S", 256, 50),
    ty(20, "IQ4_NL", 32, 18),
    ty(21, "IQ3_S", 256, 110),
    ty(22, "IQ2_S", 256, 82),
    ty(23, "IQ4_XS", 256, 136),
    ty(24, "I8", 1, 1),
    ty(25, "I16", 1, 2),
    ty(26, "I32", 1, 4),
    ty(27, "I64", 1, 8),
    ty(28, "F64", 1, 8),
    ty(29, "IQ1_M", 256, 56),
    ty(30, "BF16", 1, 2),
    ty(34, "TQ1_0", 256, 54),
    ty(35, "TQ2_0", 256, 66),
    ty(39, "MXFP4", 32, 17),
    ty(40, "NVFP4", 64, 36),
    ty(41, "Q1_0", 128, 18),
    ty(42, "Q2_0", 64, 18),
];

impl TensorType {
    /// The type with this number in a file.
    pub fn from_id(id: u32) -> Option<&'static Self> {
        TYPES.iter().find(|ty| ty.id == id)
    }
}

/// A tensor's shape, rank, type, bytes and offset.
type Described = ([u64; TENSOR_RANK], usize, &'static TensorType, u64, u64);

/// One tensor; its bytes are known to lie inside the file.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    pub name: Box<str>,
    pub ty: &'static TensorType,
    dims: [u64; TENSOR_RANK],
    rank: usize,
    /// Where its bytes start, counted from the start of the file.
    pub offset: u64,
    /// How many there are.
    pub bytes: u64,
}

impl Tensor {
    /// The shape, fastest axis first; one to four sizes, none of them 0.
    pub fn dims(&self) -> &[u64] {
        self.dims.get(..self.rank).unwrap_or_default()
    }

    /// Reads one entry; `offset` is still counted from the start of the data.
    pub(super) fn read(
        cursor: &mut Cursor<'_>,
        index: u64,
        alignment: u64,
    ) -> Result<Self, GgufError> {
        let name = cursor
            .name(TENSOR_NAME_BYTES)
            .map_err(|fault| Place::TensorName(index).error(fault))?;
        let described = Self::describe(cursor, alignment);
        let (dims, rank, ty, bytes, offset) =
            described.map_err(|fault| Place::Tensor(&name).error(fault))?;
        Ok(Self {
            name,
            ty,
            dims,
            rank,
            offset,
            bytes,
        })
    }

    /// Reads what comes behind the name.
    fn describe(cursor: &mut Cursor<'_>, alignment: u64) -> Result<Described, Fault> {
        let found = cursor.u32()?;
        let rank = match usize::try_from(found) {
            Ok(rank @ 1..=TENSOR_RANK) => rank,
            _ => return Err(Fault::BadRank { found }),
        };
        let mut dims = [1; TENSOR_RANK];
        for dim in dims.iter_mut().take(rank) {
            *dim = cursor.u64()?;
            if *dim == 0 {
                return Err(Fault::EmptyDimension);
            }
        }
        let found = cursor.u32()?;
        let ty = TensorType::from_id(found).ok_or(Fault::UnknownTensorType { found })?;
        if dims[0] % ty.block_weights != 0 {
            return Err(Fault::PartialBlock {
                row: dims[0],
                block: ty.block_weights,
                of: ty.name,
            });
        }
        // ggml counts both weights and bytes in signed 64 bits.
        let bytes = dims
            .iter()
            .try_fold(1u64, |product, &dim| product.checked_mul(dim))
            .filter(|&weights| weights <= i64::MAX as u64)
            .and_then(|weights| (weights / ty.block_weights).checked_mul(ty.block_bytes))
            .filter(|&bytes| bytes <= i64::MAX as u64)
            .ok_or_else(|| Fault::SizeOverflow {
                dims: dims[..rank].to_vec(),
            })?;
        let offset = cursor.u64()?;
        if offset % alignment != 0 {
            return Err(Fault::Misaligned { offset, alignment });
        }
        Ok((dims, rank, ty, bytes, offset))
    }

    /// Moves the tensor to its place behind the header, which must be inside the file.
    pub(super) fn place(&mut self, data_start: u64, file_length: u64) -> Result<(), GgufError> {
        let start = self.offset.checked_add(data_start);
        let end = start.and_then(|start| start.checked_add(self.bytes));
        match (start, end) {
            (Some(start), Some(end)) if end <= file_length => {
                self.offset = start;
                Ok(())
            }
            _ => Err(Place::Tensor(&self.name).error(Fault::OutsideFile {
                end,
                length: file_length,
            })),
        }
    }
}

/// No two tensors may share a name or a byte.
pub(super) fn check_distinct(tensors: &[Tensor]) -> Result<(), GgufError> {
    let mut order: Vec<&Tensor> = tensors.iter().collect();
    order.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    if let Some(twins) = order.windows(2).find(|pair| pair[0].name == pair[1].name) {
        return Err(Place::Tensor(&twins[0].name).error(Fault::Duplicate));
    }
    order.sort_unstable_by_key(|tensor| tensor.offset);
    // The sum cannot overflow: both ends are inside the file.
    match order
        .windows(2)
        .find(|pair| pair[0].offset + pair[0].bytes > pair[1].offset)
    {
        Some(pair) => Err(Place::Tensor(&pair[1].name).error(Fault::Overlap {
            with: shown(&pair[0].name),
        })),
        None => Ok(()),
    }
}
