//! Model files, projectors and drafters from opening to what they take in memory, against anything
//! that a file may hold: whatever comes is refused by name or has sizes that can be reckoned with,
//! in bounded time.
#![no_main]

use std::cell::OnceCell;
use std::fs::File;
use std::hint::black_box;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::time::Duration;

use gemmad::gemma::model_shape::{PackedWeights, Retention, Sizes};
use gemmad::store::{self, BadFile, Installers, Patience};
use libfuzzer_sys::fuzz_target;

/// Bytes of holes behind a header, for the tensors of a model whose header alone is the seed.
const HOLES: u64 = 1 << 40;
/// One file may take so much of a CPU, read four times in a build that counts its branches.
const LONGEST: Duration = Duration::from_secs(1);

thread_local! {
    static PLACE: OnceCell<(PathBuf, File)> = const { OnceCell::new() };
}

fuzz_target!(|bytes: &[u8]| {
    PLACE.with(|place| {
        let (path, file) = place.get_or_init(|| {
            let path = PathBuf::from(format!("/dev/shm/gemmad-fuzz-{}.gguf", std::process::id()));
            let file = File::create(&path).unwrap();
            (path, file)
        });
        file.set_len(0).unwrap();
        file.write_all_at(bytes, 0).unwrap();
        let before = used();
        let paths = std::slice::from_ref(path);
        if let Err(bad) = store::inspect(paths, &Installers::default()) {
            check_reason(&bad);
        }
        file.set_len(bytes.len() as u64 + HOLES).unwrap();
        match store::read(paths, Patience::default()) {
            Ok((model, _)) => reckon(&model),
            Err(bad) => check_reason(&bad),
        }
        // As both parts of a model, which it cannot be.
        let twice = [path.clone(), path.clone()];
        let bad = store::read(&twice, Patience::default()).unwrap_err();
        check_reason(&bad);
        black_box(store::read_part(path, Patience::default()).is_ok());
        black_box(store::read_projector(path, Patience::default()).is_ok());
        black_box(store::read_drafter(path, Patience::default()).is_ok());
        let took = used() - before;
        assert!(took < LONGEST, "{took:?}");
    });
});

/// What this process has used of a CPU, however many others want it.
fn used() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

fn check_reason(bad: &BadFile) {
    assert!(bad.to_string().len() < 4000, "a reason as long as the file");
}

/// Sums overflow in no size that a model may be run at.
fn reckon(model: &store::Model) {
    for (context, slots, batch) in [(256, 1, 32), (262_144, 4, 2048), (16_384, 64, 512)] {
        let sizes = Sizes { context, ceiling: context, slots, draft: batch % 9, batch, small_kv: batch > 1000 };
        for packed in [PackedWeights::InFile, PackedWeights::InMemory] {
            let keep = Retention { per_layer: 64 << 20, experts: 33, packed };
            let cost = model.figures.cost(&sizes, &keep);
            assert!(cost.total() >= cost.unevictable());
        }
    }
}
