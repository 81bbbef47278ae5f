//! What of the model's files is in memory: packed weights in a file, rows of the per-layer table,
//! the live picture.

use std::fs::{File, OpenOptions};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use gemmad::chat::ChatEvent;
use gemmad::gemma::layout::Kind;
use gemmad::ipc::{FileRole, LoadPlan, MemoryPlan, PackedPlan, Packing, Repack, ServeEvent};

use crate::client::{Worker, plan_of, user};
use crate::quantize::{packs, quantized};

const QUESTION: &str = "What is the capital of France?";
const ANSWER: &str = "The capital of France is Paris.";

/// The tiny model in four bits.
fn packable() -> &'static Path {
    static FILE: OnceLock<(tempfile::TempDir, PathBuf)> = OnceLock::new();
    &FILE.get_or_init(|| quantized("tiny-e2b-q8_0.gguf")).1
}

fn plan(ready: bool, empty: bool) -> LoadPlan {
    let plan = plan_of(packable());
    let packed = Some(PackedPlan {
        model: [1; 32],
        ready,
        empty,
    });
    LoadPlan {
        slots: 1,
        memory: MemoryPlan {
            packed,
            ..plan.memory
        },
        ..plan
    }
}

/// A worker with the packable model, its packed weights in `ready` or going to `empty`, or else to
/// memory.
fn worker(ready: Option<&File>, empty: Option<&File>) -> (Worker, Packing) {
    worker_of(Repack::Anywhere, ready, empty)
}

fn worker_of(repack: Repack, ready: Option<&File>, empty: Option<&File>) -> (Worker, Packing) {
    let model = File::open(packable()).unwrap();
    let files: Vec<BorrowedFd> = [Some(&model), ready, empty]
        .into_iter()
        .flatten()
        .map(AsFd::as_fd)
        .collect();
    let mut worker = Worker::spawn(&[("GOMP_SPINCOUNT", "1000")]);
    let mut plan = plan(ready.is_some(), empty.is_some());
    plan.memory.repack = repack;
    let loaded = worker.load_all(&plan, &files).unwrap();
    (worker, loaded.packing)
}

/// A file of packed weights.
fn packed() -> File {
    let file = tempfile::tempfile().unwrap();
    let (mut worker, packing) = worker(None, Some(&file));
    assert_eq!(packing, Packing::New { instead: None });
    assert_eq!(worker.receive(), ServeEvent::Packed);
    file
}

fn answer(worker: &mut Worker) -> String {
    worker.ask(user(QUESTION)).text
}

#[test]
fn what_was_packed_is_used_again() {
    if !packs() {
        return;
    }
    let (mut plain, packing) = worker(None, None);
    assert!(matches!(packing, Packing::InMemory { .. }), "{packing:?}");
    let expected = answer(&mut plain);
    assert_eq!(expected, ANSWER);

    let file = tempfile::tempfile().unwrap();
    let (mut first, packing) = worker(None, Some(&file));
    assert_eq!(packing, Packing::New { instead: None });
    assert_eq!(first.receive(), ServeEvent::Packed);
    assert_eq!(answer(&mut first), expected);

    let before = file.metadata().unwrap().modified().unwrap();
    let empty = tempfile::tempfile().unwrap();
    let (mut second, packing) = worker(Some(&file), Some(&empty));
    assert_eq!(packing, Packing::Reused);
    assert_eq!(answer(&mut second), expected);
    assert_eq!(empty.metadata().unwrap().len(), 0);
    assert_eq!(file.metadata().unwrap().modified().unwrap(), before);
    let bytes = first.report_memory().files[1]
        .parts
        .iter()
        .map(|part| part.bytes)
        .sum::<u64>();
    assert!(bytes > 400_000 && plain.anonymous() > second.anonymous() + bytes / 2);
}

#[test]
fn a_bad_file_is_replaced() {
    if !packs() {
        return;
    }
    let good = packed();
    let length = good.metadata().unwrap().len();
    let other = tempfile::tempfile().unwrap();
    other.write_all_at(&[7; 100_000], 0).unwrap();
    // The length that is left, and where it was written to.
    for (why, left, written) in [
        ("was cut short", length - 3, None),
        ("is damaged", length, Some(length - 100)),
        ("was cut short", 0, None),
    ] {
        let file = copy(&good);
        file.set_len(left).unwrap();
        if let Some(place) = written {
            file.write_all_at(&[0xff; 4], place).unwrap();
        }
        let empty = tempfile::tempfile().unwrap();
        let (mut worker, packing) = worker(Some(&file), Some(&empty));
        assert_eq!(
            packing,
            Packing::New {
                instead: Some(why.into())
            }
        );
        assert_eq!(worker.receive(), ServeEvent::Packed);
        assert_eq!(answer(&mut worker), ANSWER);
        assert_eq!(empty.metadata().unwrap().len(), length);
    }
    let (mut worker, packing) = worker(Some(&other), None);
    assert!(matches!(packing, Packing::InMemory { .. }), "{packing:?}");
    assert_eq!(answer(&mut worker), ANSWER);
}

fn copy(file: &File) -> File {
    let mut bytes = vec![0; file.metadata().unwrap().len() as usize];
    file.read_exact_at(&mut bytes, 0).unwrap();
    let copy = tempfile::tempfile().unwrap();
    copy.write_all_at(&bytes, 0).unwrap();
    copy
}

#[test]
fn another_models_weights_are_found_out() {
    if !packs() {
        return;
    }
    let file = packed();
    let twelve = quantized("tiny-12b-q8_0.gguf");
    let empty = tempfile::tempfile().unwrap();
    let mut worker = Worker::spawn(&[("GOMP_SPINCOUNT", "1000")]);
    let model = File::open(&twelve.1).unwrap();
    let other = plan_of(&twelve.1);
    let memory = MemoryPlan {
        packed: plan(true, true).memory.packed,
        ..other.memory
    };
    let plan = LoadPlan {
        slots: 1,
        memory,
        ..other
    };
    let loaded = worker
        .load_all(&plan, &[model.as_fd(), file.as_fd(), empty.as_fd()])
        .unwrap();
    let Packing::New { instead: Some(why) } = loaded.packing else {
        panic!("{:?}", loaded.packing)
    };
    assert!(why.contains("bytes instead of"), "{why}");
    assert_eq!(worker.receive(), ServeEvent::Packed);
    assert_eq!(answer(&mut worker), ANSWER);
}

#[test]
fn spoilt_weights_are_never_computed_with() {
    if !packs() {
        return;
    }
    let file = packed();
    file.write_all_at(&[0x55; 64], 1000).unwrap();
    let (mut worker, packing) = worker(Some(&file), None);
    assert_eq!(packing, Packing::Reused);
    worker.begin(user(QUESTION));
    let reason = loop {
        match worker.receive() {
            ServeEvent::PackedCorrupt { reason } => break reason,
            ServeEvent::Event {
                event: ChatEvent::Accepted { .. } | ChatEvent::Started { .. },
                ..
            } => {}
            other => panic!("{other:?}"),
        }
    };
    assert!(
        reason.contains("from byte 0 on are not what was written"),
        "{reason}"
    );
    assert_eq!(
        worker.wait(Duration::from_secs(10)).unwrap().code(),
        Some(65)
    );
}

/// A file on which nothing can be written.
fn full_disk() -> File {
    let file = OpenOptions::new().read(true).write(true).open("/dev/full");
    file.unwrap()
}

#[test]
fn a_full_disk_leaves_the_weights_in_memory() {
    if !packs() {
        return;
    }
    let full = full_disk();
    let (mut worker, packing) = worker(None, Some(&full));
    let Packing::InMemory { why } = packing else {
        panic!("{packing:?}")
    };
    assert!(
        why.contains("cannot be written") && why.contains("No space left"),
        "{why}"
    );
    assert_eq!(answer(&mut worker), ANSWER);
}

/// Where there is no room for packed weights in memory they stay where they can be evicted, whatever
/// becomes of the files.
#[test]
fn without_a_file_and_without_room_weights_are_not_packed() {
    if !packs() {
        return;
    }
    let full = full_disk();
    let (mut in_memory, _) = worker(None, None);
    let expected = answer(&mut in_memory);
    let damaged = packed();
    damaged
        .set_len(damaged.metadata().unwrap().len() - 3)
        .unwrap();
    for (repack, ready, empty, reason) in [
        (Repack::Never, None, None, "no room"),
        (Repack::IntoFile, None, Some(&full), "No space left"),
        (Repack::IntoFile, Some(&damaged), None, "no file"),
    ] {
        let (mut worker, packing) = worker_of(repack, ready, empty);
        let Packing::Left { why } = packing else {
            panic!("{repack:?}: {packing:?}")
        };
        assert!(why.contains(reason), "{repack:?}: {why}");
        assert_eq!(answer(&mut worker), expected, "{repack:?}");
        let (packed, left) = (in_memory.anonymous(), worker.anonymous());
        assert!(left + 200_000 < packed, "{repack:?}: {left} and {packed}");
        let kinds = worker.report_memory().files.len();
        assert_eq!(kinds, 1, "{repack:?}: the model file alone is mapped");
    }
    let file = tempfile::tempfile().unwrap();
    let (_, packing) = worker_of(Repack::IntoFile, None, Some(&file));
    assert_eq!(packing, Packing::New { instead: None });
}

#[test]
fn the_picture_shows_what_is_there() {
    if !packs() {
        return;
    }
    let file = packed();
    let (mut worker, _) = worker(Some(&file), None);
    answer(&mut worker);
    let picture = worker.report_memory();
    let roles: Vec<_> = picture.files.iter().map(|file| file.role).collect();
    assert_eq!(roles, [FileRole::Model, FileRole::Packed]);
    let model = &picture.files[0];
    let layout = plan_of(packable()).memory.layout;
    assert_eq!(
        model.parts.iter().map(|part| part.bytes).sum::<u64>(),
        layout.length()
    );
    assert_eq!(model.sum(Kind::PerLayer).0, layout.sum(Kind::PerLayer));
    let (head, resident) = model.sum(Kind::Head);
    assert!(
        resident > head * 9 / 10,
        "the head is read for every token: {resident} of {head}"
    );
    // So small that many of their pages hold something else as well.
    let (source, resident) = model.sum(Kind::Source);
    assert!(
        resident < source / 4,
        "sources are let go: {resident} of {source}"
    );
    let (layers, resident) = picture.files[1].sum(Kind::Layers);
    assert!(
        resident > layers * 9 / 10,
        "all layers are read for every token: {resident} of {layers}"
    );
    assert!(
        picture.anonymous > 1 << 20
            && picture.file_backed > head
            && picture.peak > picture.anonymous
    );
    assert_eq!(picture.locked, 0);
}

#[test]
fn rows_of_the_per_layer_table_do_not_stay() {
    let mut worker = Worker::tiny();
    for _ in 0..3 {
        worker.ask(user(QUESTION));
        // Nothing to do: what was touched is given back, but for pages that are not the table's
        // alone.
        let start = Instant::now();
        while worker.report_memory().files[0].sum(Kind::PerLayer).1 > 8192 {
            assert!(
                start.elapsed() < Duration::from_secs(10),
                "{:?}",
                worker.report_memory().files[0].sum(Kind::PerLayer)
            );
        }
    }
}

#[test]
fn weights_are_locked_when_that_is_asked() {
    if !packs() {
        return;
    }
    let file = packed();
    let model = File::open(packable()).unwrap();
    let mut worker = Worker::spawn(&[("GOMP_SPINCOUNT", "1000")]);
    let plan = plan(true, false);
    let plan = LoadPlan {
        memory: MemoryPlan {
            lock: true,
            ..plan.memory
        },
        ..plan
    };
    worker
        .load_all(&plan, &[model.as_fd(), file.as_fd()])
        .unwrap();
    answer(&mut worker);
    assert!(worker.report_memory().locked > 400_000);
}

#[test]
fn a_small_kv_cache_takes_less_memory() {
    let anonymous = |small_kv| {
        let plan = plan_of(&crate::client::tiny());
        let plan = LoadPlan {
            slots: 8,
            memory: MemoryPlan {
                small_kv,
                ..plan.memory
            },
            ..plan
        };
        let mut worker = Worker::with(&plan);
        assert_eq!(answer(&mut worker), ANSWER);
        // What is not used takes nothing.
        let long = worker.ask(user("word ".repeat(3500)));
        assert_eq!(long.error, None);
        worker.anonymous()
    };
    let (large, small) = (anonymous(false), anonymous(true));
    assert!(small < large - (1 << 19), "{small} and {large}");
}
