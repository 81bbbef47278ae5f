//! Measures a worker: `cargo test --release --test worker -- --ignored --nocapture speed`.
//! `GEMMAD_MODEL` names another model file, `GEMMAD_CPUS` the CPUs (`0,1`).

use std::fs::File;
use std::time::Instant;

use crate::client::{Worker, plan, tiny, user};
use gemmad::chat::OutputLimits;
use gemmad::ipc::LoadPlan;

#[test]
#[ignore = "a measurement"]
fn speed() {
    let model = std::env::var_os("GEMMAD_MODEL").map_or_else(tiny, Into::into);
    let cpus = std::env::var("GEMMAD_CPUS")
        .unwrap_or("0,1".into())
        .split(',')
        .map(|cpu| cpu.parse().unwrap())
        .collect();
    let plan = LoadPlan {
        slots: 1,
        batch: 512,
        cpus,
        ..plan()
    };
    let mut worker = Worker::spawn(&[]);
    let start = Instant::now();
    let loaded = worker.load(&plan, File::open(&model).unwrap()).unwrap();
    println!(
        "{}: loaded in {:.2} s, {} threads",
        model.display(),
        start.elapsed().as_secs_f64(),
        loaded.threads
    );

    let mut request = user("The garden is green. ".repeat(40));
    request.cache_prompt = false;
    request.output = OutputLimits {
        max_tokens: Some(33),
        ignore_eos: true,
        ..OutputLimits::default()
    };
    for round in 0..3 {
        let start = Instant::now();
        let answer = worker.ask(request.clone());
        let (usage, timings) = (answer.usage(), answer.done().timings);
        println!(
            "round {round}: {} prompt tokens, {:.1}/s; {} tokens, {:.1}/s; {:.1} ms beside the worker's own time",
            usage.prompt_tokens,
            f64::from(usage.prompt_tokens) * 1e6 / timings.prompt_us as f64,
            usage.completion_tokens,
            f64::from(usage.completion_tokens - 1) * 1e6 / timings.predicted_us as f64,
            start.elapsed().as_secs_f64() * 1e3
                - (timings.prompt_us + timings.predicted_us) as f64 / 1e3,
        );
    }
}
