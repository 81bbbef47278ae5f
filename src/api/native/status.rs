//! `GET /health`, `GET /status` and `GET /version`: for service managers, for people, for scripts.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Extension;
use axum::extract::State;
use axum::response::Response;
use serde::Serialize;
use tokio::time::timeout;

use crate::access::Caller;
use crate::access::admission::Admission;
use crate::access::token::{Signs, Tokens};
use crate::api::error::ApiError;
use crate::api::{Api, json, render};
use crate::backend::{
    Backends, Confinement, Failure, MemoryState, Phase, Rejected, Remote, RemoteStatus, Status,
    WaitingUser,
};
use crate::chat::{Drafted, PrincipalId, Tally};

pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// How long the engine may take to say that it is there.
const BEAT_TIME: Duration = Duration::from_secs(5);

/// 200 when a request would be served now and the engine answers (a model that is not loaded yet is no obstacle), else the
/// failure that the request would meet.
pub async fn health(State(api): State<Arc<Api>>) -> Result<Response, ApiError> {
    serves(&api)?;
    answers(&api.backends, BEAT_TIME).await?;
    Ok(json(r#"{"status":"ok"}"#.into()))
}

/// Whether the engine itself answers, and not only this door.
async fn answers(backends: &Backends, limit: Duration) -> Result<(), ApiError> {
    let beat = timeout(limit, backends.local().beat()).await;
    beat.map_err(|_| ApiError::engine_silent(limit))?
        .map_err(ApiError::from)
}

/// The failure that a request would meet now, if any.
pub fn serves(api: &Api) -> Result<(), ApiError> {
    let status = api.backends.local().status();
    status.check_installed()?;
    match status.phase {
        Phase::BackingOff { cause, until } => Err(Failure::BackingOff {
            cause,
            retry_after: until - Instant::now(),
        }
        .into()),
        Phase::Draining => Err(Failure::ShuttingDown.into()),
        Phase::Cold | Phase::Loading { .. } | Phase::Ready { .. } | Phase::Unloading { .. } => {
            Ok(())
        }
    }
}

#[derive(Serialize)]
struct Version {
    name: &'static str,
    version: &'static str,
}

pub async fn version() -> Response {
    json(render(&Version {
        name: "gemmad",
        version: VERSION,
    }))
}

pub async fn status(State(api): State<Arc<Api>>, Extension(caller): Extension<Caller>) -> Response {
    let viewer = Viewer::of(&caller, &api.admission);
    json(describe(&api.backends, &api.admission, viewer))
}

/// Whose requests in the queue are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Viewer {
    /// Sees everybody's.
    Administrator,
    /// Sees their own, and how many others there are.
    User(PrincipalId),
    /// Nobody knows who it is.
    Stranger,
}

impl Viewer {
    pub fn of(caller: &Caller, admission: &Admission) -> Self {
        match admission.may_administer(&caller.principal) {
            true => Self::Administrator,
            false => Self::User(caller.id().account()),
        }
    }

    fn sees(self, account: PrincipalId) -> bool {
        match self {
            Self::Administrator => true,
            Self::User(own) => own == account,
            Self::Stranger => false,
        }
    }
}

/// The status as JSON, for this viewer.
pub fn describe(backends: &Backends, admission: &Admission, viewer: Viewer) -> String {
    let upstreams = backends.remote().map(Remote::statuses);
    shown(
        backends.local().status(),
        upstreams.unwrap_or_default(),
        TokensOut::of(&admission.tokens),
        viewer,
    )
}

fn shown(
    status: Status,
    upstreams: Vec<RemoteStatus>,
    tokens: TokensOut,
    viewer: Viewer,
) -> String {
    let queue = QueueOut::of(&status.queue, viewer);
    render(&StatusOut {
        queue,
        tokens,
        upstreams: upstreams.into_iter().map(UpstreamOut::from).collect(),
        ..StatusOut::from(status)
    })
}

/// [`Status`] in one flat object; what does not apply is null.
#[derive(Debug, Default, Serialize)]
struct StatusOut {
    /// [`Phase::id`]
    state: &'static str,
    /// The model that the state is about.
    model: Option<String>,
    default: Option<String>,
    waiting: u32,
    queue: QueueOut,
    running: u32,
    served: u64,
    crashes: u64,
    /// Tokens of context that one request can have.
    context: Option<u32>,
    /// Those that each slot has in any case, and those that all of them together may hold now.
    context_floor: Option<u32>,
    context_granted: Option<u64>,
    slots: Option<u32>,
    threads: Option<u32>,
    /// The worker's.
    pid: Option<u32>,
    load_ms: Option<u64>,
    /// What to know about the chat template, if it is not the file's own.
    template: Option<String>,
    /// ggml's kernels for this CPU; null where they are built in.
    cpu_variant: Option<String>,
    /// Why the workers died.
    cause: Option<String>,
    retry_in_s: Option<f64>,
    /// Until the model is unloaded if nothing is asked meanwhile; null while it answers, without
    /// one, and where idle models stay.
    unload_in_s: Option<f64>,
    /// Of the answer that ended last.
    tokens_per_second: Option<f64>,
    /// Tokens that were tried ahead, by where they came from.
    speculation: SpeculationOut,
    /// Files and folders that are not used.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    passed_over: Vec<PassedOver>,
    memory: MemoryOut,
    sandbox: SandboxOut,
    tokens: TokensOut,
    /// Services on other machines.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    upstreams: Vec<UpstreamOut>,
    version: &'static str,
}

/// What tokens are signed with.
#[derive(Debug, Default, Serialize)]
struct TokensOut {
    /// Where the key is; null where no token is taken.
    key: Option<Signs>,
    /// Why none is, where they are meant to be.
    cause: Option<String>,
}

impl TokensOut {
    fn of(tokens: &Tokens) -> Self {
        Self {
            key: tokens.signs(),
            cause: tokens.broken().map(str::to_owned),
        }
    }
}

#[derive(Debug, Serialize)]
struct UpstreamOut {
    name: String,
    models: Vec<String>,
    running: u32,
    served: u64,
    failed: u64,
    /// What kept it from answering last.
    cause: Option<String>,
    /// How long it is left alone after failures; null if it is not.
    retry_in_s: Option<f64>,
}

impl From<RemoteStatus> for UpstreamOut {
    fn from(status: RemoteStatus) -> Self {
        let rest = status.resting.as_millis() as f64 / 1e3;
        Self {
            name: status.name,
            models: status.models,
            running: status.running,
            served: status.served,
            failed: status.failed,
            cause: status.cause,
            retry_in_s: Some(rest).filter(|rest| *rest > 0.0),
        }
    }
}

#[derive(Debug, Default, Serialize)]
struct SpeculationOut {
    lookup: TallyOut,
    forced: TallyOut,
    drafter: TallyOut,
}

impl From<Drafted> for SpeculationOut {
    fn from(drafted: Drafted) -> Self {
        let Drafted {
            lookup,
            forced,
            drafter,
        } = drafted;
        let [lookup, forced, drafter] = [lookup, forced, drafter]
            .map(|Tally { accepted, rejected }| TallyOut { accepted, rejected });
        Self {
            lookup,
            forced,
            drafter,
        }
    }
}

#[derive(Debug, Default, Serialize)]
struct TallyOut {
    accepted: u64,
    rejected: u64,
}

/// Who waits, as far as the viewer may know.
#[derive(Debug, Default, Serialize)]
struct QueueOut {
    /// Who is next comes first.
    users: Vec<UserOut>,
    /// Requests of those who are not shown.
    others: u32,
}

/// The requests of one user that wait.
#[derive(Debug, Serialize)]
struct UserOut {
    /// Of a user of this machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    uid: Option<u32>,
    /// Of anybody else.
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<String>,
    /// Of an app.
    #[serde(skip_serializing_if = "Option::is_none")]
    app: Option<String>,
    waiting: u32,
    longest_wait_s: f64,
}

impl QueueOut {
    fn of(queue: &[WaitingUser], viewer: Viewer) -> Self {
        let (seen, others): (Vec<_>, Vec<_>) =
            queue.iter().partition(|user| viewer.sees(user.account));
        let shown = |user: &WaitingUser| UserOut {
            uid: user.account.uid(),
            subject: match user.account {
                PrincipalId::Subject {
                    subject,
                    owner: None,
                    ..
                } => Some(format!("{subject:032x}")),
                _ => None,
            },
            app: match user.account {
                PrincipalId::App(name) => Some(name.to_string()),
                _ => None,
            },
            waiting: user.waiting,
            longest_wait_s: user.since.elapsed().as_millis() as f64 / 1e3,
        };
        Self {
            users: seen.into_iter().map(shown).collect(),
            others: others.iter().map(|user| user.waiting).sum(),
        }
    }
}

/// What is not used of a model directory, and why.
#[derive(Debug, Serialize)]
pub struct PassedOver {
    path: String,
    /// With what to do about it, where there is something.
    reason: String,
}

impl From<Rejected> for PassedOver {
    fn from(Rejected { path, reason, .. }: Rejected) -> Self {
        Self {
            path: path.display().to_string(),
            reason,
        }
    }
}

/// What was done about memory that ran short.
#[derive(Debug, Default, Serialize)]
struct MemoryOut {
    /// `calm`, `eased` or `shrinking`
    level: &'static str,
    /// Seconds since the last action; null, as the next two, before there was one.
    since_s: Option<f64>,
    reason: Option<String>,
    action: Option<&'static str>,
    /// Whose PSI triggers wake the daemon: `machine`, `group`. Without a model, and where the
    /// kernel allows none, empty.
    psi_triggers: Vec<&'static str>,
}

/// What this kernel confines a worker with.
#[derive(Debug, Default, Serialize)]
struct SandboxOut {
    seccomp: bool,
    /// The version of Landlock's interface; null where the kernel has none.
    landlock_abi: Option<u32>,
}

impl From<Confinement> for SandboxOut {
    fn from(
        Confinement {
            landlock_abi,
            seccomp,
        }: Confinement,
    ) -> Self {
        Self {
            seccomp,
            landlock_abi,
        }
    }
}

impl From<MemoryState> for MemoryOut {
    fn from(
        MemoryState {
            level,
            last,
            triggers,
            ..
        }: MemoryState,
    ) -> Self {
        let since_s = last
            .as_ref()
            .map(|last| last.at.elapsed().as_millis() as f64 / 1e3);
        let (reason, action) = last.map(|last| (last.reason, last.action)).unzip();
        let psi_triggers = [("machine", triggers.machine), ("group", triggers.group)];
        let psi_triggers = psi_triggers
            .into_iter()
            .filter_map(|(name, there)| there.then_some(name))
            .collect();
        Self {
            level: level.id(),
            since_s,
            reason,
            action,
            psi_triggers,
        }
    }
}

impl From<Status> for StatusOut {
    fn from(status: Status) -> Self {
        let left =
            |at: Instant| at.saturating_duration_since(Instant::now()).as_millis() as f64 / 1e3;
        let out = Self {
            state: status.phase.id(),
            default: status.default,
            waiting: status.waiting,
            running: status.running,
            served: status.served,
            crashes: status.crashes,
            unload_in_s: status.unload_at.map(left),
            tokens_per_second: Some(status.tokens_per_second).filter(|rate| *rate > 0.0),
            speculation: status.drafted.into(),
            passed_over: status.rejected.into_iter().map(PassedOver::from).collect(),
            memory: status.memory.into(),
            sandbox: Confinement::of_kernel().into(),
            version: VERSION,
            ..Self::default()
        };
        match status.phase {
            Phase::Loading { model } | Phase::Unloading { model } => Self {
                model: Some(model),
                ..out
            },
            Phase::Ready {
                model,
                context,
                floor,
                granted,
                slots,
                threads,
                pid,
                load_time,
                template,
                cpu_variant,
            } => Self {
                model: Some(model),
                context: Some(context),
                context_floor: Some(floor),
                context_granted: Some(granted),
                slots: Some(slots),
                threads: Some(threads),
                pid: Some(pid),
                load_ms: Some(load_time.as_millis() as u64),
                template,
                cpu_variant,
                ..out
            },
            Phase::BackingOff { cause, until } => Self {
                cause: Some(cause),
                retry_in_s: Some(left(until)),
                ..out
            },
            Phase::Cold | Phase::Draining => out,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};
    use std::time::Duration;

    fn rendered(phase: Phase) -> Value {
        let first = Status::first(vec![], vec![], Some("tiny".into()));
        let status = Status {
            phase,
            waiting: 1,
            running: 2,
            served: 3,
            crashes: 4,
            ..first
        };
        serde_json::from_str(&shown(
            status,
            vec![],
            TokensOut::default(),
            Viewer::Stranger,
        ))
        .unwrap()
    }

    #[tokio::test]
    async fn an_engine_that_does_not_answer_is_not_healthy() {
        let status = Status::first(vec![], vec![], None);
        let (backends, asked, _publish) = Backends::scripted(status);
        let limit = Duration::from_millis(20);
        assert!(answers(&backends, limit).await.is_ok());
        drop(asked);
        let error = answers(&backends, limit).await.unwrap_err();
        assert_eq!(
            (error.status.as_u16(), error.code),
            (503, Some("engine_silent"))
        );
    }

    #[test]
    fn others_in_the_queue_are_a_number_to_those_who_are_no_administrators() {
        let since = Instant::now() - Duration::from_secs(3);
        let queue = [(1000, 2), (1001, 5), (1002, 1)].map(|(uid, waiting)| WaitingUser {
            account: PrincipalId::User(uid),
            waiting,
            since,
        });
        let seen = |viewer| {
            let QueueOut { users, others } = QueueOut::of(&queue, viewer);
            assert!(users.iter().all(|user| user.longest_wait_s >= 3.0));
            let users = users.iter().map(|user| (user.uid.unwrap(), user.waiting));
            (users.collect::<Vec<_>>(), others)
        };
        assert_eq!(
            seen(Viewer::Administrator),
            (vec![(1000, 2), (1001, 5), (1002, 1)], 0)
        );
        let own = Viewer::User(PrincipalId::User(1001));
        assert_eq!(seen(own), (vec![(1001, 5)], 3));
        assert_eq!(seen(Viewer::Stranger), (vec![], 8));
    }

    #[test]
    fn every_phase_has_its_name_and_facts() {
        let (load_time, kernel) = (Duration::from_millis(1200), Confinement::of_kernel());
        let ready = rendered(Phase::Ready {
            model: "tiny".into(),
            context: 8192,
            floor: 8192,
            granted: 16_384,
            slots: 2,
            threads: 4,
            pid: 77,
            load_time,
            template: None,
            cpu_variant: Some("haswell".into()),
        });
        assert_eq!(
            ready,
            json!({"state": "ready", "model": "tiny", "default": "tiny", "waiting": 1,
                "queue": {"users": [], "others": 0}, "running": 2, "served": 3, "crashes": 4,
                "context": 8192, "context_floor": 8192, "context_granted": 16384, "slots": 2, "threads": 4, "pid": 77, "load_ms": 1200, "template": null, "cpu_variant": "haswell", "cause": null, "retry_in_s": null,
                "unload_in_s": null, "tokens_per_second": null,
                "speculation": {"lookup": {"accepted": 0, "rejected": 0}, "forced": {"accepted": 0, "rejected": 0}, "drafter": {"accepted": 0, "rejected": 0}},
                "memory": {"level": "calm", "since_s": null, "reason": null, "action": null, "psi_triggers": []},
                "sandbox": {"seccomp": kernel.seccomp, "landlock_abi": kernel.landlock_abi}, "tokens": {"key": null, "cause": null}, "version": VERSION})
        );
        let mut idle = Status::first(vec![], vec![], None);
        idle.unload_at = Some(Instant::now() + Duration::from_secs(60));
        idle.tokens_per_second = 9.5;
        idle.drafted.forced.accepted = 7;
        let idle: Value =
            serde_json::from_str(&shown(idle, vec![], TokensOut::default(), Viewer::Stranger))
                .unwrap();
        assert!(
            (59.0..=60.0).contains(&idle["unload_in_s"].as_f64().unwrap()),
            "{idle}"
        );
        assert_eq!(idle["tokens_per_second"], 9.5);
        assert_eq!(idle["speculation"]["forced"]["accepted"], 7);
        let backing = rendered(Phase::BackingOff {
            cause: "SIGSEGV".into(),
            until: Instant::now() + Duration::from_millis(2500),
        });
        assert_eq!(
            (&backing["state"], &backing["cause"]),
            (&json!("backing_off"), &json!("SIGSEGV"))
        );
        assert!(
            (2.0..=2.5).contains(&backing["retry_in_s"].as_f64().unwrap()),
            "{backing}"
        );
        for (phase, name) in [
            (Phase::Cold, "cold"),
            (Phase::Loading { model: "m".into() }, "loading"),
            (Phase::Unloading { model: "m".into() }, "unloading"),
            (Phase::Draining, "draining"),
        ] {
            assert_eq!(rendered(phase)["state"], name);
        }
    }
}
