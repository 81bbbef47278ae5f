//! Where in a prompt a step ends, and what is done there. Pure.

/// Places in a prompt, by the tokens before them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stops {
    /// Where a step ends whatever is kept: llama.cpp rounds differently in steps of other sizes, and the
    /// answer is not to depend on whether another prompt was there before.
    pub ends: [Option<usize>; 3],
    /// The end of the system prompt, if its state is noted for other conversations of its owner.
    pub fork: Option<usize>,
    /// The end of a system prompt that is everybody's, if its state is noted for them.
    pub shared: Option<SharedStop>,
    /// The start of the model's turn, if the next prompt goes on there.
    pub turn: Option<usize>,
}

/// The end of a system prompt that is everybody's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SharedStop {
    /// Tokens before it.
    pub tokens: usize,
    /// SHA-256 of the system prompt's text.
    pub text: [u8; 32],
}

impl Stops {
    /// The first one behind `position`.
    pub fn next(self, position: usize) -> Option<usize> {
        let shared = self.shared.map(|stop| stop.tokens);
        let places = self.ends.into_iter().chain([self.fork, shared, self.turn]);
        places.flatten().filter(|place| *place > position).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_place_is_a_stop_once() {
        let stops = Stops {
            ends: [Some(3), None, Some(9)],
            fork: Some(7),
            shared: Some(SharedStop {
                tokens: 3,
                text: [0; 32],
            }),
            turn: None,
        };
        for (position, next) in [(0, Some(3)), (3, Some(7)), (7, Some(9)), (9, None)] {
            assert_eq!(stops.next(position), next);
        }
    }
}
