//! The clusters of a small variant's drafter: which tokens may come next is found out cluster by
//! cluster, and only those of the best ones are rated. Pure.

use serde::{Deserialize, Serialize};

/// Clusters whose tokens are rated, as the family's drafters were trained.
pub const RATED: u64 = 32;

/// A matrix in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// Bytes of the file in front of it.
    pub offset: u64,
    pub bytes: u64,
    /// The number of the type, as files have it.
    pub kind: u32,
    /// Numbers of a row.
    pub columns: u64,
    pub rows: u64,
}

/// Where a drafter's file has what its clusters take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Clusters {
    /// A row for each token.
    pub table: Place,
    /// A row for each cluster.
    pub centroids: Place,
    /// A row for each cluster: its tokens, whole numbers of 32 or 64 bits.
    pub tokens: Place,
    /// From the drafter's hidden state to its model's.
    pub back: Place,
}
