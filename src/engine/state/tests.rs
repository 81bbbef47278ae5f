use super::backoff::FIRST_PAUSE;
use super::dispatch::TEXTS;
use super::jobs::RETRY_AFTER;
use super::worker::END_TIME;
use super::*;
use crate::backend::Failure;
use crate::chat::{PrincipalId, ServiceTier};
use crate::engine::queue::Kind;

mod backoff;
mod deaths;
mod fallback;
mod heartbeat;
mod jobs;
mod memory;
mod stall;
mod turns;
mod unload;
mod world;

fn settings() -> Settings {
    Settings {
        queue: 8,
        queue_per_user: 4,
        request_time: Duration::from_secs(600),
        load_time: Duration::from_secs(60),
        idle_unload: Some(Duration::from_secs(1000)),
        idle_release: None,
        worker_silence: LEAST_SILENCE,
    }
}

const LEAST_SILENCE: Duration = Duration::from_secs(180);

/// What is done besides asking the worker whether it computes.
fn besides_beats(mut actions: Vec<Action>) -> Vec<Action> {
    actions.retain(|action| *action != Action::AskBeat);
    actions
}

fn state() -> (State, Instant) {
    (State::new(settings()), Instant::now())
}

fn submit(id: u64, model: &str) -> Input {
    Input::Submit {
        id,
        owner: PrincipalId::User(1000),
        model: model.into(),
        flexible: false,
        tier: ServiceTier::Default,
        kind: Kind::Chat,
    }
}

/// A request that left the choice of its model to us.
fn submit_flexible(id: u64, model: &str) -> Input {
    Input::Submit {
        id,
        owner: PrincipalId::User(1000),
        model: model.into(),
        flexible: true,
        tier: ServiceTier::Default,
        kind: Kind::Chat,
    }
}

fn loaded(generation: u64) -> Input {
    Input::Loaded {
        generation,
        slots: 2,
    }
}

fn exited(generation: u64, cause: &str) -> Input {
    Input::Exited {
        generation,
        cause: cause.into(),
        out_of_memory: false,
    }
}

fn no_room(model: &str) -> Failure {
    Failure::NoRoom {
        model: model.into(),
        needs: 9,
        free: 5,
        reserve: 1,
        bound: "there".into(),
        instead: None,
    }
}

fn bad(reason: &str) -> Failure {
    Failure::BadModel {
        model: "bad".into(),
        reason: reason.into(),
    }
}

fn spawn(generation: u64, model: &str) -> Action {
    Action::Spawn {
        generation,
        model: model.into(),
        downsized: 0,
    }
}

fn downsized(generation: u64, model: &str, downsized: u32) -> Action {
    Action::Spawn {
        generation,
        model: model.into(),
        downsized,
    }
}

fn out_of_memory(generation: u64) -> Input {
    Input::Exited {
        generation,
        cause: "SIGKILL".into(),
        out_of_memory: true,
    }
}
