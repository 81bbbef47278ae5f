//! The head of a small variant's drafter. A token's logit is the product of its row of the table with
//! the drafter's last hidden row, for 262,144 tokens. The tokens are in clusters, though, each of which
//! has a row of its own: here only the tokens of the clusters with the largest products are rated.
//!
//! llama.cpp's graph always rates all tokens. It ends earlier for us: the scheduler asks before each
//! node whether we need it ([`Tap::on_node`]), and goes no further where we say so.

use std::ffi::{CStr, c_void};
use std::fs::File;
use std::io;
use std::ptr::NonNull;

use llama_cpp_sys_2 as sys;

use super::Token;
use super::drafter::{Guess, likeliest};
use crate::gemma::clusters::{Clusters, Place, RATED};
use crate::sys::mapping::Mapping;
use crate::sys::residency::{MappedFiles, Window};

/// The node of a drafter's graph that is its last hidden row.
const HIDDEN: &[u8] = b"result_norm";
/// Tensors and nodes of both graphs, and more.
const NODES: usize = 32;

/// The file in which a drafter's clusters are.
#[derive(Debug)]
pub struct ClusterFile {
    map: Mapping,
    files: MappedFiles,
    places: Clusters,
    /// The tokens of the clusters, one cluster behind the other.
    tokens: Vec<Token>,
}

impl ClusterFile {
    /// Of a vocabulary of so many tokens.
    ///
    /// # Errors
    /// It is not what its header says, or cannot be mapped.
    pub fn new(file: &File, places: Clusters, tokens: u32) -> Result<Self, String> {
        let Clusters {
            table,
            centroids,
            tokens: ordering,
            back,
        } = places;
        let end = [table, centroids, ordering, back].map(|place| place.offset + place.bytes);
        let end = end.into_iter().max().unwrap_or(0);
        let length = file.metadata().map_err(unreadable)?.len();
        if length < end || table.rows != u64::from(tokens) {
            return Err("the file with its clusters is not what its header says".to_owned());
        }
        let map = Mapping::of_file(file, end as usize).map_err(unreadable)?;
        let files = MappedFiles::of([(file, 0..length)]).map_err(unreadable)?;
        let numbers = bytes(&map, ordering);
        let width = numbers.len() / (ordering.rows * ordering.columns).max(1) as usize;
        let known = numbers.chunks_exact(width.max(1)).map(|number| {
            // Little-endian, like all of the file.
            let number = number
                .iter()
                .rev()
                .fold(0u64, |all, byte| all << 8 | u64::from(*byte));
            u32::try_from(number).ok().filter(|token| *token < tokens)
        });
        let known = known.map(|token| token.map(|token| token as Token));
        let known = known.collect::<Option<Vec<_>>>();
        let known = known.ok_or("one of its clusters has a token that does not exist")?;
        Ok(Self {
            map,
            files,
            places,
            tokens: known,
        })
    }

    /// Where it is mapped.
    pub fn windows(&self) -> io::Result<Vec<Window>> {
        // SAFETY: it stays mapped as long as the process runs, like the drafter whose it is.
        unsafe { self.files.windows() }
    }

    /// The tokens of a cluster.
    fn cluster(&self, index: usize) -> &[Token] {
        let size = self.places.tokens.columns as usize;
        self.tokens
            .get(index * size..(index + 1) * size)
            .unwrap_or_default()
    }
}

fn bytes(map: &Mapping, place: Place) -> &[u8] {
    map.bytes(place.offset as usize..(place.offset + place.bytes) as usize)
}

fn unreadable(error: io::Error) -> String {
    format!("the file with its clusters cannot be read: {error}")
}

/// Takes the last hidden row out of a drafter's graph, and ends it there.
pub(super) struct Tap {
    row: Vec<f32>,
    is_filled: bool,
}

impl Tap {
    pub(super) fn new(places: &ClusterFile) -> Self {
        Self {
            row: vec![0.0; places.places.table.columns as usize],
            is_filled: false,
        }
    }

    /// What it took in the last decode, once.
    pub(super) fn take(&mut self) -> Option<&[f32]> {
        std::mem::take(&mut self.is_filled).then_some(&*self.row)
    }

    /// # Safety
    /// `tap` is one that nothing else uses; llama.cpp calls this from inside a decode, with nodes of its
    /// graph.
    pub(super) unsafe extern "C" fn on_node(
        node: *mut sys::ggml_tensor,
        ask: bool,
        tap: *mut c_void,
    ) -> bool {
        // SAFETY: by this function's contract.
        let (tap, node) = unsafe { (&mut *tap.cast::<Self>(), &*node) };
        if ask {
            // SAFETY: ggml ends names with a zero.
            return unsafe { CStr::from_ptr(node.name.as_ptr()) }.to_bytes() == HIDDEN;
        }
        // SAFETY: the buffer of a node that was computed is alive.
        let is_row = node.type_ == sys::GGML_TYPE_F32
            && node.ne == [tap.row.len() as i64, 1, 1, 1]
            && !node.buffer.is_null()
            && unsafe { sys::ggml_backend_buffer_is_host(node.buffer) };
        if is_row {
            // SAFETY: one row of as many numbers, in memory that can be read.
            let row = unsafe { std::slice::from_raw_parts(node.data.cast(), tap.row.len()) };
            tap.row.copy_from_slice(row);
            tap.is_filled = true;
        }
        false
    }
}

/// Two small graphs of ggml's: which clusters are the best, and the logits of their tokens.
pub(super) struct ClusterHead {
    file: &'static ClusterFile,
    backend: NonNull<sys::ggml_backend>,
    context: NonNull<sys::ggml_context>,
    /// The file's map, and the rest.
    buffers: [sys::ggml_backend_buffer_t; 2],
    graphs: [*mut sys::ggml_cgraph; 2],
    /// The hidden row.
    row: *mut sys::ggml_tensor,
    /// The products with the clusters' rows.
    scores: *mut sys::ggml_tensor,
    /// The model's hidden state, as the drafter expects it.
    next: *mut sys::ggml_tensor,
    /// Rows of the tokens that are rated.
    picked: *mut sys::ggml_tensor,
    logits: *mut sys::ggml_tensor,
    /// Room for what they hold.
    scored: Vec<f32>,
    order: Vec<usize>,
    tokens: Vec<Token>,
    rated: Vec<f32>,
}

impl ClusterHead {
    pub(super) fn new(file: &'static ClusterFile, threads: i32) -> Result<Self, String> {
        let Clusters {
            table,
            centroids,
            tokens,
            back,
        } = file.places;
        let best = RATED.min(centroids.rows);
        let rated = (best * tokens.columns) as i64;
        // SAFETY: no arguments but plain ones; what is made here is freed by `drop`, as soon as there is
        // something to be dropped.
        let mut head = unsafe {
            let device = sys::ggml_backend_dev_by_type(sys::GGML_BACKEND_DEVICE_TYPE_CPU);
            let backend = NonNull::new(sys::ggml_backend_dev_init(device, std::ptr::null()));
            let backend = backend.ok_or("ggml has no memory for its clusters")?;
            let context = NonNull::new(sys::ggml_init(sys::ggml_init_params {
                mem_size: NODES * sys::ggml_tensor_overhead() + 2 * graph_bytes(),
                mem_buffer: std::ptr::null_mut(),
                no_alloc: true,
            }));
            let Some(context) = context else {
                sys::ggml_backend_free(backend.as_ptr());
                return Err("ggml has no memory for its clusters".to_owned());
            };
            use_threads(device, backend.as_ptr(), threads);
            Self {
                file,
                backend,
                context,
                buffers: [std::ptr::null_mut(); 2],
                graphs: [std::ptr::null_mut(); 2],
                row: sys::ggml_new_tensor_1d(
                    context.as_ptr(),
                    sys::GGML_TYPE_F32,
                    table.columns as i64,
                ),
                scores: std::ptr::null_mut(),
                next: std::ptr::null_mut(),
                picked: std::ptr::null_mut(),
                logits: std::ptr::null_mut(),
                scored: vec![0.0; centroids.rows as usize],
                order: vec![],
                tokens: Vec::with_capacity(rated as usize),
                rated: vec![0.0; rated as usize],
            }
        };
        // SAFETY: the context is alive.
        let picked = unsafe {
            head.matrix(Place {
                rows: rated as u64,
                ..table
            })
        };
        head.picked = picked;
        // SAFETY: as above; what these are made of are matrices of this context.
        unsafe { head.build(centroids, back)? };
        Ok(head)
    }

    /// # Safety
    /// The context is alive.
    unsafe fn matrix(&self, place: Place) -> *mut sys::ggml_tensor {
        let (columns, rows) = (place.columns as i64, place.rows as i64);
        let context = self.context.as_ptr();
        // SAFETY: by this function's contract; the type is one that ggml has (`store/gguf`).
        unsafe { sys::ggml_new_tensor_2d(context, place.kind as sys::ggml_type, columns, rows) }
    }

    /// Makes the graphs, and gives all tensors their memory.
    ///
    /// # Safety
    /// The context and the backend are alive.
    unsafe fn build(&mut self, centroids: Place, back: Place) -> Result<(), String> {
        let (context, backend) = (self.context.as_ptr(), self.backend.as_ptr());
        // SAFETY: by this function's contract. The map is as large as all places in it and lives as
        // long as the process; ggml only reads what lies there.
        unsafe {
            let weights = [centroids, back].map(|place| (self.matrix(place), place));
            let [(clusters, _), (back, _)] = weights;
            self.scores = sys::ggml_mul_mat(context, clusters, self.row);
            self.next = sys::ggml_mul_mat(context, back, self.row);
            self.logits = sys::ggml_mul_mat(context, self.picked, self.row);
            let device = sys::ggml_backend_dev_by_type(sys::GGML_BACKEND_DEVICE_TYPE_CPU);
            for node in [self.scores, self.next, self.logits] {
                if !sys::ggml_backend_dev_supports_op(device, node) {
                    return Err("ggml cannot compute with the types of its clusters".to_owned());
                }
            }
            for (graph, nodes) in [(0, &[self.scores, self.next][..]), (1, &[self.logits])] {
                self.graphs[graph] = sys::ggml_new_graph_custom(context, NODES, false);
                for node in nodes {
                    sys::ggml_build_forward_expand(self.graphs[graph], *node);
                }
            }
            let map = &self.file.map;
            self.buffers[0] = sys::ggml_backend_cpu_buffer_from_ptr(map.base().cast(), map.size());
            for (tensor, place) in weights {
                let start = map.base().add(place.offset as usize).cast();
                if self.buffers[0].is_null()
                    || sys::ggml_nbytes(tensor) as u64 != place.bytes
                    || sys::ggml_backend_tensor_alloc(self.buffers[0], tensor, start)
                        != sys::GGML_STATUS_SUCCESS
                {
                    return Err("ggml does not take its clusters as they lie".to_owned());
                }
            }
            self.buffers[1] = sys::ggml_backend_alloc_ctx_tensors(context, backend);
            if self.buffers[1].is_null() {
                return Err("ggml has no memory for its clusters".to_owned());
            }
        }
        Ok(())
    }

    /// The likeliest token by the drafter's last hidden row; `next` is its next state. `None`: they are no
    /// numbers.
    pub(super) fn guess(&mut self, row: &[f32], next: &mut [f32]) -> Option<Guess> {
        let Clusters { table, tokens, .. } = self.file.places;
        let wanted = RATED.min(tokens.rows) as usize;
        // SAFETY: the tensors are alive, and have as many numbers as these.
        unsafe {
            set(self.row, row)?;
            self.compute(0)?;
            get(self.scores, &mut self.scored)?;
            get(self.next, next)?;
        }
        self.order.clear();
        self.order.extend(0..self.scored.len());
        let scored = &self.scored;
        if wanted < self.order.len() {
            let larger = |a: &usize, b: &usize| scored[*b].total_cmp(&scored[*a]);
            self.order.select_nth_unstable_by(wanted, larger);
        }
        self.tokens.clear();
        for &cluster in self.order.iter().take(wanted) {
            self.tokens.extend_from_slice(self.file.cluster(cluster));
        }
        let rows = bytes(&self.file.map, table);
        let size = rows.len() / (table.rows as usize).max(1);
        // SAFETY: ggml gave it memory that the CPU writes, of as many bytes, and nothing is computed now.
        let picked = unsafe {
            let picked = &*self.picked;
            std::slice::from_raw_parts_mut(picked.data.cast::<u8>(), sys::ggml_nbytes(picked))
        };
        for (to, &token) in picked.chunks_exact_mut(size).zip(&self.tokens) {
            let start = token as usize * size;
            to.copy_from_slice(rows.get(start..start + size)?);
        }
        // SAFETY: as above.
        unsafe {
            self.compute(1)?;
            get(self.logits, &mut self.rated)?;
        }
        let Guess { token, chance } = likeliest(&self.rated)?;
        let token = *self.tokens.get(token as usize)?;
        Some(Guess { token, chance })
    }

    /// # Safety
    /// All tensors of the graph are alive.
    unsafe fn compute(&mut self, graph: usize) -> Option<()> {
        // SAFETY: by this function's contract.
        let status =
            unsafe { sys::ggml_backend_graph_compute(self.backend.as_ptr(), self.graphs[graph]) };
        (status == sys::GGML_STATUS_SUCCESS).then_some(())
    }
}

impl Drop for ClusterHead {
    fn drop(&mut self) {
        // SAFETY: all of it is ours. The map stays.
        unsafe {
            for buffer in self.buffers.into_iter().filter(|buffer| !buffer.is_null()) {
                sys::ggml_backend_buffer_free(buffer);
            }
            sys::ggml_free(self.context.as_ptr());
            sys::ggml_backend_free(self.backend.as_ptr());
        }
    }
}

fn graph_bytes() -> usize {
    // SAFETY: plain arguments.
    unsafe { sys::ggml_graph_overhead_custom(NODES, false) }
}

/// # Safety
/// Both are alive, and the backend is one of the device's.
unsafe fn use_threads(device: sys::ggml_backend_dev_t, backend: sys::ggml_backend_t, threads: i32) {
    // SAFETY: by this function's contract; under this name the registry has a function of this type.
    unsafe {
        let registry = sys::ggml_backend_dev_backend_reg(device);
        let name = c"ggml_backend_set_n_threads".as_ptr();
        let found = sys::ggml_backend_reg_get_proc_address(registry, name);
        if !found.is_null() {
            let set: sys::ggml_backend_set_n_threads_t = std::mem::transmute(found);
            if let Some(set) = set {
                set(backend, threads);
            }
        }
    }
}

/// # Safety
/// The tensor is alive and holds numbers of 32 bits.
unsafe fn set(tensor: *mut sys::ggml_tensor, numbers: &[f32]) -> Option<()> {
    let bytes = size_of_val(numbers);
    // SAFETY: by this function's contract; as many bytes as the tensor has.
    unsafe {
        (sys::ggml_nbytes(tensor) == bytes)
            .then(|| sys::ggml_backend_tensor_set(tensor, numbers.as_ptr().cast(), 0, bytes))
    }
}

/// # Safety
/// The tensor is alive and holds numbers of 32 bits.
unsafe fn get(tensor: *const sys::ggml_tensor, numbers: &mut [f32]) -> Option<()> {
    let bytes = size_of_val(numbers);
    // SAFETY: by this function's contract; as many bytes as the tensor has.
    unsafe {
        (sys::ggml_nbytes(tensor) == bytes)
            .then(|| sys::ggml_backend_tensor_get(tensor, numbers.as_mut_ptr().cast(), 0, bytes))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;
    use crate::worker::llama::alone;

    const WIDTH: usize = 32;
    const TOKENS: usize = 512;
    /// Of as many tokens each; a quarter of them are rated.
    const CLUSTERS: usize = 128;
    const WIDE: usize = 48;
    const F32: u32 = 0;
    const Q8_0: u32 = 8;
    const I32: u32 = 26;
    const I64: u32 = 27;

    /// Numbers between -1 and 1.
    fn random(state: &mut u64, count: usize) -> Vec<f32> {
        let mut next = || {
            *state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (*state >> 40) as f32 / (1u32 << 23) as f32 - 1.0
        };
        (0..count).map(|_| next()).collect()
    }

    /// A matrix as a file has it, and the numbers that it stands for.
    fn matrix(kind: u32, numbers: Vec<f32>) -> (Vec<u8>, Vec<f32>) {
        if kind == F32 {
            return (
                numbers.iter().flat_map(|n| n.to_le_bytes()).collect(),
                numbers,
            );
        }
        // Q8_0: blocks of 32 with a factor of 16 bits each; 1/128 is 0x2000 there.
        let (mut bytes, mut stored) = (vec![], vec![]);
        for block in numbers.chunks(32) {
            bytes.extend(0x2000u16.to_le_bytes());
            for number in block {
                let whole = (number * 128.0).round().clamp(-127.0, 127.0) as i8;
                bytes.push(whole as u8);
                stored.push(f32::from(whole) / 128.0);
            }
        }
        (bytes, stored)
    }

    /// Token, logit of each that is rated in some order, and next state, by the book.
    struct Reference {
        table: Vec<f32>,
        centroids: Vec<f32>,
        back: Vec<f32>,
        ordering: Vec<usize>,
    }

    fn products(matrix: &[f32], row: &[f32]) -> Vec<f64> {
        let product = |line: &[f32]| {
            let pairs = line.iter().zip(row);
            pairs.map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
        };
        matrix.chunks(row.len()).map(product).collect()
    }

    impl Reference {
        /// The logits of all tokens, `None` for those that are not rated.
        fn logits(&self, row: &[f32]) -> Vec<Option<f64>> {
            let scores = products(&self.centroids, row);
            let mut best: Vec<usize> = (0..CLUSTERS).collect();
            best.sort_by(|a, b| scores[*b].total_cmp(&scores[*a]));
            let all = products(&self.table, row);
            let mut logits = vec![None; TOKENS];
            let size = TOKENS / CLUSTERS;
            for cluster in &best[..RATED as usize] {
                for token in &self.ordering[cluster * size..(cluster + 1) * size] {
                    logits[*token] = Some(all[*token]);
                }
            }
            logits
        }
    }

    fn made(kind: u32, of_tokens: u32) -> (ClusterFile, Reference) {
        let mut state = 7;
        let parts = [TOKENS, CLUSTERS, WIDE].map(|rows| {
            let numbers = random(&mut state, rows * WIDTH);
            (rows, matrix(kind, numbers))
        });
        // A permutation, since 5 and 512 have no factor in common.
        let ordering: Vec<usize> = (0..TOKENS).map(|i| (i * 5 + 3) % TOKENS).collect();
        let (file, mut end) = (tempfile::tempfile().unwrap(), 64);
        let mut put = |bytes: &[u8], kind, rows: usize, columns: usize| {
            let place = Place {
                offset: end,
                bytes: bytes.len() as u64,
                kind,
                columns: columns as u64,
                rows: rows as u64,
            };
            file.write_all_at(bytes, end).unwrap();
            end = (end + place.bytes).next_multiple_of(32);
            place
        };
        let [table, centroids, back] =
            [0, 1, 2].map(|i: usize| put(&parts[i].1.0, kind, parts[i].0, WIDTH));
        let numbers: Vec<u8> = match of_tokens {
            I32 => ordering
                .iter()
                .flat_map(|t| (*t as i32).to_le_bytes())
                .collect(),
            _ => ordering
                .iter()
                .flat_map(|t| (*t as i64).to_le_bytes())
                .collect(),
        };
        let tokens = put(&numbers, of_tokens, CLUSTERS, TOKENS / CLUSTERS);
        let places = Clusters {
            table,
            centroids,
            tokens,
            back,
        };
        let made = ClusterFile::new(&file, places, TOKENS as u32).unwrap();
        assert!(ClusterFile::new(&file, places, TOKENS as u32 - 1).is_err());
        file.set_len(end - 64).unwrap();
        assert!(ClusterFile::new(&file, places, TOKENS as u32).is_err());
        file.set_len(end).unwrap();
        let [(_, table), (_, centroids), (_, back)] = parts.map(|(_, matrix)| matrix);
        let reference = Reference {
            table,
            centroids,
            back,
            ordering,
        };
        (made, reference)
    }

    #[test]
    fn it_guesses_as_the_reference_does() {
        let _alone = alone();
        // Products of Q8_0 round the hidden row to 8 bits as well, of each block.
        for (kind, of_tokens, tolerance) in [(F32, I32, 1e-3), (Q8_0, I64, 0.05)] {
            let (file, reference) = made(kind, of_tokens);
            let mut head = ClusterHead::new(Box::leak(Box::new(file)), 2).unwrap();
            let (mut state, mut compared) = (11, 0);
            for _ in 0..50 {
                let row = random(&mut state, WIDTH);
                let mut next = vec![0.0; WIDE];
                let guess = head.guess(&row, &mut next).unwrap();
                for (next, expected) in next.iter().zip(products(&reference.back, &row)) {
                    assert!((f64::from(*next) - expected).abs() < tolerance);
                }
                let logits = reference.logits(&row);
                let (mut seen, mut sum) = (0, 0.0);
                let best = logits.iter().flatten().copied().fold(f64::MIN, f64::max);
                for (token, logit) in head.tokens.iter().zip(&head.rated) {
                    // A cluster that is as good as the last of the best may be taken in its place.
                    if let Some(expected) = logits[*token as usize] {
                        assert!((f64::from(*logit) - expected).abs() < tolerance, "{kind}");
                        seen += 1;
                        sum += (expected - best).exp();
                    }
                }
                let missing = head.tokens.len() - seen;
                assert!(
                    missing <= if kind == F32 { 0 } else { 8 },
                    "{kind}: {missing}"
                );
                if missing > 0 {
                    continue;
                }
                compared += 1;
                let guessed = logits[guess.token as usize].unwrap();
                assert!(best - guessed < tolerance, "{guessed}, where {best} is");
                assert!(
                    (f64::from(guess.chance) - 1.0 / sum).abs() < tolerance,
                    "{guess:?}"
                );
            }
            assert!(compared >= 25, "{kind}: {compared}");
        }
    }

    #[test]
    fn what_is_no_number_is_no_guess() {
        let _alone = alone();
        let (file, _) = made(F32, I32);
        let mut head = ClusterHead::new(Box::leak(Box::new(file)), 1).unwrap();
        let mut next = vec![0.0; WIDE];
        assert_eq!(head.guess(&[f32::NAN; WIDTH], &mut next), None);
        assert_eq!(head.guess(&[0.5; WIDTH - 1], &mut next), None);
        assert!(head.guess(&[0.5; WIDTH], &mut next).is_some());
    }

    #[test]
    fn clusters_of_tokens_that_do_not_exist_are_refused() {
        let file = tempfile::tempfile().unwrap();
        let place = |offset, kind, columns, rows, bytes| Place {
            offset,
            bytes,
            kind,
            columns,
            rows,
        };
        let places = Clusters {
            table: place(0, F32, 1, 2, 8),
            centroids: place(32, F32, 1, 1, 4),
            tokens: place(64, I32, 2, 1, 8),
            back: place(96, F32, 1, 1, 4),
        };
        file.set_len(128).unwrap();
        assert!(ClusterFile::new(&file, places, 2).is_ok());
        for wrong in [2i32, -1] {
            file.write_all_at(&wrong.to_le_bytes(), 68).unwrap();
            let error = ClusterFile::new(&file, places, 2).unwrap_err();
            assert!(error.contains("does not exist"), "{error}");
        }
    }
}
