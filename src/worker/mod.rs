//! The worker. Its only argument says what it is started for: to serve a model, to read
//! ([`document`]) or fetch ([`fetch`], [`pull`]) one file, to decode ([`decode`]) the media of one request, or
//! to say what devices there are ([`devices`]).
//! A worker that serves has one model, one context, one loop:
//!
//! ```text
//!   supervisor ══ stdin ══▶ reader ──▶ preparer ──▶ llama thread ══ stdin ══▶ supervisor
//!                             │   render, tokenise │    ▲  load, decode, sample
//!                             │                    │    │        │ pictures, sounds
//!                             │      compiler ◀────┘    │        ▼
//!                             │      grammars ──────────┤      encoder: encode
//!                             └── cancel flags, the end ┴──────── ┘
//! ```
//!
//! The llama thread is the main thread and owns the model's context and all slots. Templates and
//! tokens are made beside it, and media encoded, so that a long prompt or a picture does not hold
//! up the answers that are on their way. Everything between the threads is bounded.

mod compiler;
mod confinement;
mod connection;
mod constraint;
mod decode;
mod destination;
mod devices;
mod document;
mod encoder;
mod exit;
mod fetch;
mod generation;
mod guide;
mod inbox;
mod link;
mod llama;
mod load;
mod logprob;
mod mask_thread;
mod media;
mod messages;
mod packed;
mod prepare;
mod progress;
pub mod prompt;
mod prompt_cache;
mod pull;
mod relay;
mod releasable_context;
mod repetition;
mod residency;
mod schedule;
mod sequence;
mod sequences;
mod serve;
mod speculation;
mod thread;
pub mod vocab;
mod weight_files;

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::time::Instant;

use crate::ipc::prompts::PromptCachePlan;
use crate::ipc::{
    Decode, Devices, Extract, Fetch, LoadPlan, LoadedModel, Protocol, Pull, Relay, Serve,
    ServeEvent, ServeRequest, WorkerKind,
};
use crate::sandbox::{Needs, Profile};
use crate::sys::pagemap::Pagemap;
use crate::sys::{process, socket};
use encoder::MediaEncoder;
use exit::{EXIT_LOAD, EXIT_PROTOCOL, EXIT_SYSTEM, EXIT_USAGE};
use inbox::{Ends, Inbox};
use link::{Reader, Writer};
use load::{LoadError, Loaded};
use progress::LoadProgress;
use prompt_cache::PromptCache;
use residency::{MemoryReporter, MemoryReporterCell};
use serve::Server;

/// The whole life of a worker. Its standard input is the channel to the supervisor; the end of the
/// channel is the end of the worker.
pub fn main() -> ExitCode {
    let stdin = std::io::stdin();
    let kind = std::env::args().nth(1);
    let kind = kind.and_then(|kind| WorkerKind::named(&kind));
    let Some(kind) = kind.filter(|_| socket::is_stream(&stdin)) else {
        eprintln!(
            "gemmad-worker serves one model for gemmad, which starts it. To ask a model something, use `gemmactl ask`."
        );
        return ExitCode::from(EXIT_USAGE);
    };
    hide_panics();
    if let Err(error) = process::be_killed_first() {
        eprintln!("the OOM score of this worker stays as it is: {error}");
    }
    // While it still may be opened; by who has something to report with it.
    let pagemap = match kind {
        WorkerKind::Serve => Pagemap::open().ok(),
        WorkerKind::Extract
        | WorkerKind::Decode
        | WorkerKind::Fetch
        | WorkerKind::Pull
        | WorkerKind::Relay
        | WorkerKind::Devices => None,
    };
    match process::harden_child().and_then(|()| stdin.as_fd().try_clone_to_owned()) {
        Ok(channel) => run(kind, UnixStream::from(channel), pagemap).unwrap_or_else(ExitCode::from),
        Err(error) => {
            eprintln!("gemmad-worker cannot start: {error}");
            ExitCode::from(EXIT_SYSTEM)
        }
    }
}

/// The message of a panic may quote a prompt; where it happened is enough.
fn hide_panics() {
    std::panic::set_hook(Box::new(|info| match info.location() {
        Some(place) => eprintln!("gemmad-worker panicked at {place}"),
        None => eprintln!("gemmad-worker panicked"),
    }));
}

/// Does what a worker of this kind is for. An error is the exit status.
fn run(kind: WorkerKind, channel: UnixStream, pagemap: Option<Pagemap>) -> Result<ExitCode, u8> {
    match kind {
        WorkerKind::Serve => serve(channel, pagemap),
        WorkerKind::Extract => match greet::<Extract>(channel)? {
            Some((request, mut reader, writer)) => {
                document::run(request, reader.take_fds(), &writer)
            }
            None => Ok(ExitCode::SUCCESS),
        },
        WorkerKind::Decode => match greet::<Decode>(channel)? {
            Some((request, mut reader, writer)) => {
                decode::run(&request, reader.take_fds(), &writer)
            }
            None => Ok(ExitCode::SUCCESS),
        },
        WorkerKind::Fetch => match greet::<Fetch>(channel)? {
            Some((fetch, _, writer)) => fetch::run(&fetch, &writer),
            None => Ok(ExitCode::SUCCESS),
        },
        WorkerKind::Pull => match greet::<Pull>(channel)? {
            Some((pull, mut reader, writer)) => pull::run(&pull, reader.take_fds(), &writer),
            None => Ok(ExitCode::SUCCESS),
        },
        WorkerKind::Relay => match greet::<Relay>(channel)? {
            Some((relay, reader, writer)) => relay::run(relay, reader.into_socket(), &writer),
            None => Ok(ExitCode::SUCCESS),
        },
        WorkerKind::Devices => match greet::<Devices>(channel)? {
            Some((request, _, writer)) => devices::run(&request, &writer),
            None => Ok(ExitCode::SUCCESS),
        },
    }
}

/// Says hello and waits for the first request. `None` when none comes.
#[allow(
    clippy::type_complexity,
    reason = "a request and both ends of its channel"
)]
fn greet<P: Protocol>(
    channel: UnixStream,
) -> Result<Option<(P::Request, Reader<P>, Writer<P>)>, u8> {
    let Ok(writer) = Writer::greet(channel.try_clone().map_err(|_| EXIT_SYSTEM)?) else {
        return Ok(None);
    };
    let mut reader = Reader::new(channel);
    match reader.next() {
        Ok(request) => Ok(request.map(|request| (request, reader, writer))),
        Err(error) => {
            eprintln!("{error}");
            Err(EXIT_PROTOCOL)
        }
    }
}

/// Loads a model and serves it.
fn serve(channel: UnixStream, pagemap: Option<Pagemap>) -> Result<ExitCode, u8> {
    let (mut plan, mut reader, writer) = match greet::<Serve>(channel)? {
        Some((ServeRequest::Load(plan), reader, writer)) => (plan, reader, writer),
        Some(_) => {
            eprintln!("the supervisor's first request was not `Load`");
            return Err(EXIT_PROTOCOL);
        }
        None => return Ok(ExitCode::SUCCESS),
    };
    let received = Instant::now();
    let mut files = reader.take_fds();
    // No file: the last of the descriptors.
    let prompts = plan.prompts.take();
    let prompts = prompts.and_then(|plan| Some((plan, files.pop()?)));
    // Before any thread is started: they all inherit it.
    load::pin(&plan);
    // It opens libraries.
    let cpu_variant = load_kernels(&writer)?;
    confine(&files, &plan)?;
    llama::report();

    let reporter = MemoryReporterCell::default();
    let (inbox, ends) = Inbox::open(reader, writer.clone(), reporter.clone());
    let progress = LoadProgress::told_to(writer.clone());
    let loaded = load::load(&plan, files, &inbox, &progress);
    // It goes on where weights are read still.
    drop(progress);
    if inbox.ended() {
        return Ok(ExitCode::from(inbox.status()));
    }
    let loaded = match loaded {
        Ok(loaded) => loaded,
        Err(LoadError {
            reason,
            out_of_memory,
        }) => {
            // When the channel has ended the reason is not needed.
            let _ = writer.send(&ServeEvent::LoadFailed {
                reason,
                out_of_memory,
            });
            return Err(EXIT_LOAD);
        }
    };
    let load_us = received.elapsed().as_micros() as u64;
    if let Some(pagemap) = pagemap {
        report_memory(&loaded, &plan, pagemap, &reporter);
    }
    if writer
        .send(&announcement(&loaded, load_us, cpu_variant))
        .is_ok()
    {
        answer(loaded, prompts, &inbox, ends, writer)?;
    }
    Ok(ExitCode::from(inbox.status()))
}

/// Loads ggml's kernels for this CPU, if they are not built in. An error is the exit status.
fn load_kernels(writer: &Writer<Serve>) -> Result<Option<&'static str>, u8> {
    llama::load_kernels().map_err(|reason| {
        // When the channel has ended the reason is not needed.
        let _ = writer.send(&ServeEvent::LoadFailed {
            reason,
            out_of_memory: false,
        });
        EXIT_LOAD
    })
}

/// From now on requests for what is in memory are answered.
fn report_memory(
    loaded: &Loaded,
    plan: &LoadPlan,
    pagemap: Pagemap,
    reporter: &MemoryReporterCell,
) {
    let Ok(windows) = loaded.engine.model.windows() else {
        return;
    };
    let drafter = loaded.drafter.and_then(|drafter| drafter.windows().ok());
    let (packed, layout) = (&loaded.packed, &plan.memory.layout);
    let layout = packed
        .as_ref()
        .map_or_else(|| layout.clone(), |packed| packed.mark(layout));
    // It was not set before.
    let _ = reporter.set(MemoryReporter::new(
        pagemap,
        layout,
        windows,
        packed.clone(),
        // What cannot be found is not shown.
        drafter.unwrap_or_default(),
    ));
}

fn announcement(loaded: &Loaded, load_us: u64, cpu_variant: Option<&str>) -> ServeEvent {
    let limits = loaded.engine.limits;
    ServeEvent::Loaded(LoadedModel {
        context: limits.context,
        floor: limits.floor,
        slots: limits.slots,
        threads: limits.threads,
        load_us,
        template: loaded.template.clone(),
        packing: loaded.packing.clone(),
        cpu_variant: cpu_variant.map(str::to_owned),
    })
}

/// Answers requests until the channel ends. An error is the exit status.
fn answer(
    loaded: Loaded,
    prompts: Option<(PromptCachePlan, OwnedFd)>,
    inbox: &Inbox,
    ends: Ends,
    writer: Writer,
) -> Result<(), u8> {
    let Loaded {
        engine,
        preparer,
        compiler,
        encoder,
        unsaved,
        ..
    } = loaded;
    if let Some(file) = unsaved {
        save(file, writer.clone());
    }
    let ready = ends.ready.clone();
    let encoder = encoder
        .map(|config| MediaEncoder::spawn(config, ready.clone()))
        .transpose()
        .map_err(|error| {
            eprintln!("the encoder cannot start: {error}");
            EXIT_SYSTEM
        })?;
    prepare::spawn(preparer, compiler, ends, writer.clone());
    let prompts = PromptCache::new(prompts, engine.sequences.count(), ready.clone());
    let server = Server::new(engine, encoder, prompts, ready, writer.clone());
    server.run(inbox).map_err(|reason| {
        // When the channel has ended the reason is not needed.
        let _ = writer.send(&ServeEvent::PackedCorrupt { reason });
        EXIT_LOAD
    })
}

/// Takes away what is not needed from here on; what this kernel does not have is said.
fn confine(files: &[OwnedFd], plan: &LoadPlan) -> Result<(), u8> {
    let files: Vec<BorrowedFd> = files.iter().map(AsFd::as_fd).collect();
    let model = plan
        .files
        .iter()
        .fold(0, |sum: u64, bytes| sum.saturating_add(*bytes));
    let largest_file = model.saturating_add(packed::BEYOND);
    confinement::confine(&Needs {
        profile: Profile::Serve,
        files: &files,
        largest_file,
        memory: Some(plan.memory.data_limit).filter(|limit| *limit > 0),
        cpu_seconds: None,
    })
}

/// Sees to it that the disk has the packed weights, which takes as long as the disk needs, and says
/// so.
fn save(file: File, writer: Writer) {
    thread::start(move || match file.sync_all() {
        // A failed write is seen by the reader as the end of the channel.
        Ok(()) => drop(writer.send(&ServeEvent::Packed)),
        Err(error) => eprintln!("the packed weights did not reach the disk: {error}"),
    });
}
