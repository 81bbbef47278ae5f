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
    choosing: Vec<u64>,
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
                Action::End { generation } | Action::Kill { generation } => {
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
                Action::Cancel { id } => drop(self.sent.remove(&id)),
                Action::Choose { id, .. } => {
                    assert!(
                        self.open.contains(&id) && self.models.contains_key(&id),
                        "{id} left the choice to us"
                    );
                    self.choosing.push(id);
                }
                Action::Fail { id, .. } | Action::LoadDone { id } => self.close(id),
                Action::Trim | Action::Unloaded | Action::Drained => {}
            }
        }
    }

    /// Does what the state wants, and chooses other models as often as it wants that.
    fn step(&mut self, s: &mut State, t: Instant, input: Input) {
        let actions = s.step(t, input);
        self.perform(actions);
        while let Some(id) = self.choosing.pop() {
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
            let picked = world.sent.iter().nth(usize::from(which)).copied();
            let input = match what {
                0..=3 => {
                    next += 1;
                    world.open.insert(next);
                    let kind = if which == 3 { Kind::Load } else { Kind::Chat };
                    let (model, flexible) = (MODELS[usize::from(which) % 3], what < 2);
                    if flexible {
                        world.models.insert(next, model);
                    }
                    Input::Submit { id: next, owner: PrincipalId::User(u32::from(which)), model: model.into(), flexible, kind }
                }
                4 | 5 => match world.alive {
                    Some((generation, false)) if !world.dying => {
                        world.alive = Some((generation, true));
                        loaded(generation)
                    }
                    _ => Input::Tick,
                },
                6 => match world.alive {
                    Some((generation, _)) => {
                        (world.alive, world.dying) = (None, false);
                        world.sent.clear();
                        Input::Exited { generation, cause: "dice".into(), out_of_memory: which > 1 }
                    }
                    None => Input::Tick,
                },
                7 => picked.map_or(Input::Tick, |id| Input::Begun { id }),
                8 => match picked {
                    Some(id) => {
                        world.close(id);
                        Input::Ended { id }
                    }
                    None => Input::Tick,
                },
                9 => match world.open.iter().nth(usize::from(which)).copied() {
                    Some(id) => {
                        // The client is gone: nothing more is owed to it.
                        world.open.remove(&id);
                        world.closed.insert(id);
                        world.step(&mut s, t, Input::HangUp { id });
                        continue;
                    }
                    None => Input::Tick,
                },
                10 => Input::Unload,
                11 => Input::EndWhenIdle(which < 2),
                12 => Input::GiveUp { cause: "dice".into() },
                13 => match world.alive {
                    Some((generation, false)) => Input::LoadFailed { generation, failure: bad("dice"), out_of_memory: which > 1 },
                    _ => Input::Tick,
                },
                _ => match world.open.iter().nth(usize::from(which)).copied() {
                    Some(id) => Input::Refused { id, failure: no_room("c") },
                    None => Input::Tick,
                },
            };
            world.step(&mut s, t, input);
        }
        for _ in 0..400 {
            t += Duration::from_secs(2);
            let input = match world.alive {
                Some((generation, _)) if world.dying => {
                    (world.alive, world.dying) = (None, false);
                    world.sent.clear();
                    exited(generation, "asked")
                }
                Some((generation, false)) => {
                    world.alive = Some((generation, true));
                    loaded(generation)
                }
                _ => match world.sent.first().copied() {
                    Some(id) => {
                        world.close(id);
                        Input::Ended { id }
                    }
                    None => Input::Tick,
                },
            };
            world.step(&mut s, t, input);
        }
        proptest::prop_assert!(world.open.is_empty(), "left: {:?} {s:?}", world.open);
        proptest::prop_assert_eq!(s.waiting() + s.running(), 0);
    }
}
