//! Experts: has those that a layer has chosen read together, while the rest of the layer is
//! computed.
//!
//! By itself the kernel reads them page by page as they are touched, with what happens to lie
//! around them, and each touch waits for the disk. Which experts stay is the page cache's decision:
//! those that were used lately.

use std::ops::Range;
use std::sync::mpsc::sync_channel;

use super::super::llama::{ExpertWatch, Experts, Watcher};
use super::PackedMap;
use crate::gemma::layout::Class;
use crate::sys::residency;

/// A layer that has chosen this part of its experts (a long prompt's step) is followed by one that
/// does the same.
const MOST: (usize, usize) = (3, 4);
/// Layers whose experts may wait to be asked for. More would be late.
const QUEUE: usize = 2;

/// Reads ahead on a thread of its own, which ends with the watch. `count` is the number of experts
/// that each layer has.
pub fn fetcher(packed: Option<&PackedMap>, count: usize) -> ExpertWatch {
    let (send, wanted) = sync_channel::<Vec<Range<usize>>>(QUEUE);
    super::super::thread::start(move || wanted.iter().flatten().for_each(residency::prefetch));
    let watcher: Watcher = Box::new(move |layers, layer, chosen| {
        // It is a hint: with a queue that is full the touch itself reads.
        let _ = send.try_send(wanted_by(layers, layer, chosen));
    });
    let known = packed.into_iter().flat_map(
        |PackedMap {
             contents, space, ..
         }| {
            let base = space.base().addr();
            contents
                .tensors
                .iter()
                .filter_map(move |tensor| match Class::of_tensor(&tensor.name) {
                    Class::Experts(layer) => Some((
                        layer.into(),
                        Experts::new(base + tensor.offset as usize, tensor.bytes as usize, count),
                    )),
                    _ => None,
                })
        },
    );
    ExpertWatch::new(watcher, known)
}

/// The addresses to read for a layer's choice, in the order in which they are used.
fn wanted_by(layers: &[Vec<Experts>], layer: usize, chosen: &[usize]) -> Vec<Range<usize>> {
    let tensors = |layer: usize| layers.get(layer).map_or(&[][..], Vec::as_slice);
    let here = tensors(layer)
        .iter()
        .flat_map(|tensor| chosen.iter().filter_map(|expert| tensor.addresses(*expert)));
    let most = tensors(layer)
        .first()
        .is_some_and(|tensor| chosen.len() * MOST.1 >= tensor.count * MOST.0);
    let next = if most { tensors(layer + 1) } else { &[] };
    here.chain(next.iter().map(Experts::all)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_chosen_is_wanted_and_after_a_long_step_the_next_layer() {
        let up = Experts::new(1000, 80, 8);
        let down = Experts::new(2000, 40, 8);
        let next = Experts::new(5000, 80, 8);
        let layers = [vec![], vec![up, down], vec![next]];
        assert_eq!(
            wanted_by(&layers, 1, &[2, 7]),
            [1020..1030, 1070..1080, 2010..2015, 2035..2040]
        );
        assert_eq!(
            wanted_by(&layers, 1, &[0, 1, 2, 3, 4, 5]).last(),
            Some(&(5000..5080))
        );
        assert_eq!(
            wanted_by(&layers, 1, &[0, 1, 2, 3, 4]).last(),
            Some(&(2020..2025))
        );
        assert_eq!(
            wanted_by(&layers, 2, &[6, 7, 8, 99]),
            [5060..5070, 5070..5080]
        );
        assert!(wanted_by(&layers, 0, &[1]).is_empty());
        assert!(wanted_by(&layers, 9, &[1]).is_empty());
    }
}
