//! Reads what every token needs before a token needs it, and checks what was packed at an earlier
//! start.

use std::ops::Range;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use rustix::fs::{Advice, fadvise};

use super::PackedMap;
use crate::gemma::layout::Layout;
use crate::sys::mapping;
use crate::worker::packed::CHUNK;
use crate::worker::weight_files::WeightFiles;

/// Chunks that the disk is asked for before the first of them is waited for.
const AHEAD: usize = 8;
/// Bytes of a part that is asked for before what was packed.
const SMALL: u64 = 1 << 20;
/// How long one call of [`Readiness::wait`] may block.
const PATIENCE: Duration = Duration::from_millis(20);

/// What to read, in this order.
pub struct Warm {
    /// Chunks of the packed file that every token needs.
    chunks: Vec<usize>,
    packed: Option<PackedMap>,
    /// Parts of the model's files.
    parts: Vec<Range<u64>>,
    model: WeightFiles,
    lock: bool,
}

impl Warm {
    /// What every token needs of the model's files and of what was packed at an earlier start, until
    /// `most` bytes are reached. `layout` is the model's.
    pub fn plan(
        layout: &Layout,
        packed: Option<&PackedMap>,
        model: WeightFiles,
        most: u64,
        lock: bool,
    ) -> Self {
        let mut left = most;
        let mut parts: Vec<_> = layout.extents().to_vec();
        parts.retain(|extent| extent.class.turn().is_some());
        parts.sort_by_key(|extent| (extent.class.turn(), extent.offset));
        let chunks = packed
            .map(|packed| chunks(&packed.layout(), &mut left))
            .unwrap_or_default();
        let parts = parts.iter().map_while(|extent| {
            left = left.checked_sub(extent.bytes)?;
            Some(extent.offset..extent.end())
        });
        let parts = parts.collect();
        Self {
            chunks,
            packed: packed.cloned(),
            parts,
            model,
            lock,
        }
    }

    /// Starts to read on a thread of its own. `progress` hears how many chunks of how many are read.
    pub fn start(self, progress: impl Fn(usize, usize) + Send + 'static) -> Readiness {
        let (done, ready) = channel();
        crate::worker::thread::start(move || {
            // The receiver may have ended.
            let _ = done.send(self.read(&progress));
        });
        Readiness {
            ready,
            is_ready: false,
        }
    }

    /// Reads everything. The error says that the packed file is not what was written.
    fn read(&self, progress: &dyn Fn(usize, usize)) -> Result<(), String> {
        // The small parts first: they are scattered over the file, and the disk can sort them.
        let (small, large): (Vec<_>, Vec<_>) = self
            .parts
            .iter()
            .partition(|part| part.end - part.start <= SMALL);
        small.into_iter().for_each(|part| self.ask_for(part));
        self.read_packed(progress)?;
        large.into_iter().for_each(|part| self.ask_for(part));
        Ok(())
    }

    /// Has the kernel read a part of the model, without waiting for it.
    fn ask_for(&self, part: &Range<u64>) {
        for (file, part) in self.model.pieces(part.clone()) {
            for start in (part.start..part.end).step_by(mapping::ASKED_AT_ONCE) {
                let length = (part.end - start)
                    .min(mapping::ASKED_AT_ONCE as u64)
                    .try_into()
                    .ok();
                // A hint; a file system that does not take it reads at the first touch.
                let _ = fadvise(file, start, length, Advice::WillNeed);
            }
        }
    }

    fn read_packed(&self, progress: &dyn Fn(usize, usize)) -> Result<(), String> {
        let Some(PackedMap {
            contents, space, ..
        }) = &self.packed
        else {
            return Ok(());
        };
        let range = |index: usize| index * CHUNK..((index + 1) * CHUNK).min(space.size());
        self.chunks
            .iter()
            .take(AHEAD)
            .for_each(|&index| space.will_need(range(index)));
        for (place, &index) in self.chunks.iter().enumerate() {
            if let Some(&next) = self.chunks.get(place + AHEAD) {
                space.will_need(range(next));
            }
            space.populate(range(index));
            if !contents.is_good(index, space.bytes(range(index))) {
                return Err(format!(
                    "the packed weights from byte {} on are not what was written",
                    range(index).start
                ));
            }
            if self.lock
                && let Err(error) = space.lock(range(index))
            {
                eprintln!("weights cannot be locked in memory: {error}; see LimitMEMLOCK");
            }
            progress(place + 1, self.chunks.len());
        }
        Ok(())
    }
}

/// The chunks in which a token always needs something, in order, as far as `left` bytes reach.
fn chunks(layout: &Layout, left: &mut u64) -> Vec<usize> {
    let needed = layout
        .extents()
        .iter()
        .filter(|extent| extent.class.turn().is_some());
    let mut chunks: Vec<usize> = needed
        .flat_map(|extent| extent.offset as usize / CHUNK..=(extent.end() - 1) as usize / CHUNK)
        .collect();
    chunks.dedup();
    chunks.truncate((*left / CHUNK as u64) as usize);
    *left -= (chunks.len() * CHUNK) as u64;
    chunks
}

/// Whether what every token needs was read and is good.
pub struct Readiness {
    ready: Receiver<Result<(), String>>,
    is_ready: bool,
}

impl Readiness {
    /// Waits a short while. `true` once a token may be computed; an error if the packed file is
    /// corrupt.
    pub fn wait(&mut self) -> Result<bool, String> {
        if !self.is_ready {
            match self.ready.recv_timeout(PATIENCE) {
                Ok(read) => read?,
                Err(RecvTimeoutError::Timeout) => return Ok(false),
                Err(RecvTimeoutError::Disconnected) => {
                    return Err("the weights could not be read".to_owned());
                }
            }
            self.is_ready = true;
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gemma::layout::Class;
    use crate::sys::mapping::Mapping;
    use crate::worker::packed::{self, Key, Tensor, Writer};
    use std::fs::File;
    use std::os::unix::fs::FileExt;
    use std::sync::Arc;

    fn empty() -> WeightFiles {
        WeightFiles::one(tempfile::tempfile().unwrap())
    }

    fn layout() -> Layout {
        Layout::new(
            100,
            [
                (10, Class::Head),
                (30, Class::Layer(1)),
                (50, Class::Layer(0)),
                (70, Class::Experts(0)),
                (90, Class::Shared),
            ],
        )
    }

    #[test]
    fn the_order_is_that_of_a_token() {
        let parts = |most| Warm::plan(&layout(), None, empty(), most, false).parts;
        assert_eq!(parts(1000), [90..100, 50..70, 30..50, 10..30]);
        assert_eq!(parts(35), [90..100, 50..70]);
        assert!(parts(0).is_empty());
    }

    #[test]
    fn chunks_of_experts_alone_are_left_out() {
        let chunk = CHUNK as u64;
        let layout = Layout::new(
            10 * chunk,
            [
                (0, Class::Layer(0)),
                (chunk + 5, Class::Experts(0)),
                (5 * chunk - 5, Class::Layer(1)),
                (6 * chunk, Class::Experts(1)),
            ],
        );
        let mut left = 100 * chunk;
        assert_eq!(chunks(&layout, &mut left), [0, 1, 4, 5]);
        assert_eq!(left, 96 * chunk);
        let mut left = 2 * chunk + 1;
        assert_eq!(chunks(&layout, &mut left), [0, 1]);
        assert_eq!(left, 1);
    }

    fn packed() -> (File, PackedMap) {
        let file = tempfile::tempfile().unwrap();
        let mut writer = Writer::new(file.try_clone().unwrap()).unwrap();
        writer.append(&vec![3; CHUNK + 500]).unwrap();
        let tensor = |name: &str, offset| Tensor {
            name: name.into(),
            offset,
            bytes: 400,
            source: 30,
        };
        let tensors = vec![
            tensor("blk.0.attn_q.weight", 0),
            tensor("blk.1.attn_q.weight", CHUNK as u64),
        ];
        let packed = writer
            .finish(
                &Key {
                    model: [0; 32],
                    packing: String::new(),
                },
                tensors,
            )
            .unwrap();
        let space = Mapping::of_file(&packed.file, CHUNK + 500).unwrap();
        (
            file,
            PackedMap {
                contents: Arc::new(packed.contents),
                space: Arc::new(space),
            },
        )
    }

    fn outcome(packed: &PackedMap) -> Result<(), String> {
        let mut readiness =
            Warm::plan(&layout(), Some(packed), empty(), 1 << 30, false).start(|_, _| {});
        loop {
            match readiness.wait() {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                Err(error) => return Err(error),
            }
        }
    }

    #[test]
    fn corrupt_weights_are_found() {
        let (file, map) = packed();
        assert_eq!(outcome(&map), Ok(()));
        file.write_all_at(&[4], CHUNK as u64 + 77).unwrap();
        assert!(outcome(&map).unwrap_err().contains("from byte 4194304 on"));
        let key = Key {
            model: [0; 32],
            packing: String::new(),
        };
        assert!(packed::open(file, &key).is_ok());
    }
}
