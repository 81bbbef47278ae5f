//! Whatever happens in whatever order: the state against a world with dice.

use std::collections::{BTreeSet, HashMap, HashSet};

use super::*;

/// The world outside the state: what the driver and a worker would do, with dice for what they
/// cannot know.
#[derive(Default)]
struct World {
    alive: Option<(u64, bool)>,
    dying: bool,
    open: BTreeSet<u64>,
    sent: BTreeSet<u64>,
    closed: HashSet<u64>,
    /// Those for whom another model is to be chosen.
    reassigning: Vec<u64>,
    /// The model of each that left the choice to us.
    models: HashMap<u64, &'static str>,
}

/// From the largest to the smallest.
const MODELS: [&str; 3] = ["c", "b", "a"];

impl World {
    fn perform(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Spawn { generation, .. } => {
                    assert_eq!(self.alive, None, "one worker at a time");
                    (self.alive, self.dying) = (Some((generation, false)), false);
                }
                Action::End { generation }
                | Action::Kill { generation }
                | Action::KillSilent { generation, .. } => {
                    assert_eq!(self.alive.map(|a| a.0), Some(generation));
                    self.dying = true;
                }
                Action::Send { id } => {
                    assert!(
                        matches!(self.alive, Some((_, true))) && !self.dying,
                        "only a loaded worker gets requests"
                    );
                    assert!(self.open.contains(&id) && self.sent.insert(id));
                    assert!(self.sent.len() <= 2, "slots");
                }
                Action::Cancel { id } => {
                    self.sent.remove(&id);
                }
                Action::Choose { id, .. } => {
                    assert!(
                        self.open.contains(&id) && self.models.contains_key(&id),
                        "{id} left the choice to us"
                    );
                    self.reassigning.push(id);
                }
                Action::Fail { id, .. } | Action::LoadDone { id } => self.close(id),
                Action::Trim | Action::AskBeat | Action::Unloaded | Action::Drained => {}
            }
        }
    }

    /// Does what the state wants, and chooses other models as often as it wants that.
    fn step(&mut self, s: &mut State, t: Instant, input: Input) {
        let actions = s.step(t, input);
        self.perform(actions);
        while let Some(id) = self.reassigning.pop() {
            let less = MODELS
                .into_iter()
                .skip_while(|model| *model != self.models[&id])
                .nth(1);
            if let Some(less) = less {
                self.models.insert(id, less);
            }
            let actions = s.step(
                t,
                Input::Chosen {
                    id,
                    model: less.map(str::to_owned).ok_or_else(|| no_room("a")),
                },
            );
            self.perform(actions);
        }
    }

    fn close(&mut self, id: u64) {
        self.sent.remove(&id);
        assert!(self.open.remove(&id), "{id} was open");
        assert!(self.closed.insert(id), "{id} ends once");
    }

    /// A new request. `which` says whose it is, and what for.
    fn submit(&mut self, id: u64, which: u8, flexible: bool) -> Input {
        self.open.insert(id);
        let model = MODELS[usize::from(which) % 3];
        if flexible {
            self.models.insert(id, model);
        }
        Input::Submit {
            id,
            owner: PrincipalId::User(u32::from(which)),
            model: model.into(),
            flexible,
            tier: match which {
                1 => ServiceTier::Flex,
                _ => ServiceTier::Default,
            },
            kind: if which == 3 { Kind::Load } else { Kind::Chat },
        }
    }

    /// The worker that is up or coming up, if it may still say something.
    fn speaking(&self, is_loaded: bool) -> Option<u64> {
        let (generation, loaded) = self.alive.filter(|_| !self.dying)?;
        Some(generation).filter(|_| loaded == is_loaded)
    }

    fn load(&mut self, generation: u64) -> Input {
        self.alive = Some((generation, true));
        loaded(generation)
    }

    /// The worker is gone.
    fn bury(&mut self) {
        self.alive = None;
        self.dying = false;
        self.sent.clear();
    }

    /// What the dice say happens, unless it cannot happen now.
    fn happen(&mut self, what: u8, which: u8) -> Option<Input> {
        let nth = |ids: &BTreeSet<u64>| ids.iter().nth(usize::from(which)).copied();
        let (sent, open) = (nth(&self.sent), nth(&self.open));
        Some(match what {
            4 | 5 => {
                let generation = self.speaking(false)?;
                self.load(generation)
            }
            6 => {
                let (generation, _) = self.alive?;
                self.bury();
                Input::Exited {
                    generation,
                    cause: "dice".into(),
                    out_of_memory: which > 1,
                }
            }
            7 => Input::Begun {
                id: sent?,
                shown: which < 2,
            },
            8 => {
                self.close(sent?);
                Input::Ended { id: sent? }
            }
            9 => {
                // The client is gone: nothing more is owed to it.
                self.open.remove(&open?);
                self.closed.insert(open?);
                Input::HangUp { id: open? }
            }
            10 => Input::Unload,
            11 => Input::EndWhenIdle(which < 2),
            12 => Input::GiveUp {
                cause: "dice".into(),
            },
            13 => {
                let (generation, _) = self.alive.filter(|(_, loaded)| !loaded)?;
                Input::LoadFailed {
                    generation,
                    failure: bad("dice"),
                    out_of_memory: which > 1,
                }
            }
            _ => Input::Refused {
                id: open?,
                failure: no_room("c"),
            },
        })
    }

    /// What happens next in a world where all goes well.
    fn go_well(&mut self) -> Option<Input> {
        match self.alive {
            Some((generation, _)) if self.dying => {
                self.bury();
                Some(exited(generation, "asked"))
            }
            Some((generation, false)) => Some(self.load(generation)),
            _ => {
                let id = self.sent.first().copied()?;
                self.close(id);
                Some(Input::Ended { id })
            }
        }
    }
}

proptest::proptest! {
    /// Whatever happens in whatever order, every request ends exactly once, and with a worker that
    /// works the queue empties.
    #[test]
    fn every_request_ends_once(dice in proptest::collection::vec((0u8..15, 0u8..4), 1..200)) {
        let (mut s, mut t) = state();
        let mut world = World::default();
        let mut next = 0;
        for (what, which) in dice {
            t += Duration::from_millis(300);
            let input = if what < 4 {
                next += 1;
                Some(world.submit(next, which, what < 2))
            } else {
                world.happen(what, which)
            };
            world.step(&mut s, t, input.unwrap_or(Input::Tick));
        }
        for _ in 0..400 {
            t += Duration::from_secs(2);
            let input = world.go_well().unwrap_or(Input::Tick);
            world.step(&mut s, t, input);
        }
        proptest::prop_assert!(world.open.is_empty(), "left: {:?} {s:?}", world.open);
        proptest::prop_assert_eq!(s.waiting() + s.running(), 0);
    }
}
