//! How a worker starts, refuses to, and ends.

use std::fs::File;
use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

use gemmad::chat::OutputLimits;
use gemmad::ipc::LoadPlan;

use super::client::{Worker, plan, tiny, user};
use super::limited;

#[test]
fn a_damaged_file_is_refused_with_a_reason() {
    let mut garbage = tempfile::tempfile().unwrap();
    garbage.write_all(&[7; 5000]).unwrap();
    let mut truncated = tempfile::tempfile().unwrap();
    let whole = std::fs::read(tiny()).unwrap();
    truncated.write_all(&whole[..whole.len() / 2]).unwrap();
    for mut file in [garbage, truncated, File::open("/dev/null").unwrap()] {
        std::io::Seek::rewind(&mut file).unwrap();
        let mut worker = Worker::spawn(&[]);
        let reason = worker.load(&plan(), &file).unwrap_err();
        assert!(reason.len() > 10, "{reason}");
        assert_eq!(
            worker
                .wait(Duration::from_secs(5))
                .and_then(|status| status.code()),
            Some(65),
            "{reason}"
        );
    }
}

#[test]
fn an_absurd_plan_is_refused_with_a_reason() {
    let mut worker = Worker::spawn(&[]);
    let reason = worker
        .load(
            &LoadPlan {
                slots: 1000,
                ..plan()
            },
            File::open(tiny()).unwrap(),
        )
        .unwrap_err();
    assert!(reason.contains("slots is 1000"), "{reason}");
}

#[test]
fn it_ends_when_the_supervisor_hangs_up() {
    let mut idle = Worker::tiny();
    idle.hang_up();
    assert!(
        idle.wait(Duration::from_secs(1))
            .is_some_and(|status| status.success())
    );

    let mut busy = Worker::tiny();
    let forever = OutputLimits {
        max_tokens: Some(2000),
        ignore_eos: true,
        ..OutputLimits::default()
    };
    busy.begin(limited(user("word ".repeat(1500)), forever));
    std::thread::sleep(Duration::from_millis(30));
    busy.hang_up();
    assert!(
        busy.wait(Duration::from_secs(1))
            .is_some_and(|status| status.success())
    );

    let mut early = Worker::spawn(&[]);
    early.hang_up();
    assert!(
        early
            .wait(Duration::from_secs(1))
            .is_some_and(|status| status.success())
    );
}

#[test]
fn nonsense_on_the_channel_ends_it() {
    let mut worker = Worker::tiny();
    worker.send_bytes(&[255; 64]);
    assert_eq!(
        worker
            .wait(Duration::from_secs(2))
            .and_then(|status| status.code()),
        Some(76)
    );
}

#[test]
fn it_is_of_no_use_by_hand() {
    let output = Command::new(env!("CARGO_BIN_EXE_gemmad-worker"))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(64));
    assert!(String::from_utf8_lossy(&output.stderr).contains("gemmactl"));
}

#[test]
fn long_requests_leave_no_memory_behind() {
    let mut worker = Worker::with(&LoadPlan { slots: 1, ..plan() });
    let long = |i: usize| {
        limited(
            user(format!("{i} {}", "word ".repeat(2500))),
            OutputLimits {
                max_tokens: Some(2),
                ..OutputLimits::default()
            },
        )
    };
    for i in 0..3 {
        worker.ask(long(i));
    }
    let before = worker.anonymous();
    for i in 0..20 {
        worker.ask(long(i));
    }
    let after = worker.anonymous();
    assert!(after < before + (1 << 20), "{before} → {after} bytes");
}
