//! Drafters with clusters, of whose tokens those of the best are rated. The tiny family's have none, so
//! some are made for one: tokens whose rows of the table are alike.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use gemmad::chat::{ChatRequest, Speculation, Tally};
use gemmad::gemma::clusters::RATED;
use gemmad::ipc::{DrafterPlan, FileRole, LoadPlan};
use gemmad::store::gguf::{self, Header, Patience};
use gemmad::store::{Drafter, read_drafter};

use super::client::{Worker, plan_of, user};
use super::speculation::{drafting, fresh, greedy_answers_are_the_same, pairs, plan_with, with};
use super::{STORY, story};

const TABLE: &str = "token_embd.weight";
const Q8_0_BLOCK: usize = 34;

/// The rows of a table of Q8_0, but for each block's factor, which is much the same for all.
fn rows(bytes: &[u8], header: &Header) -> Vec<Vec<f32>> {
    let table = header.tensor(TABLE).unwrap();
    assert_eq!(table.ty.name, "Q8_0");
    let row = table.dims()[0] as usize / 32 * Q8_0_BLOCK;
    let table = &bytes[table.offset as usize..][..table.bytes as usize];
    let numbers = |row: &[u8]| {
        let blocks = row.chunks(Q8_0_BLOCK);
        blocks
            .flat_map(|block| block[2..].iter().map(|number| f32::from(*number as i8)))
            .collect()
    };
    table.chunks(row).map(numbers).collect()
}

fn product(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Cuts a list of tokens in halves that are alike, until there are so many lists.
fn cut(mut tokens: Vec<usize>, rows: &[Vec<f32>], lists: usize) -> Vec<Vec<usize>> {
    if lists == 1 {
        return vec![tokens];
    }
    let far = |from: usize| {
        let from = &rows[from];
        let nearest = |a: &usize| product(&rows[*a], from);
        let found = tokens
            .iter()
            .min_by(|a, b| nearest(a).total_cmp(&nearest(b)));
        *found.unwrap()
    };
    let one = far(tokens[0]);
    let other = far(one);
    let axis: Vec<f32> = rows[one]
        .iter()
        .zip(&rows[other])
        .map(|(a, b)| a - b)
        .collect();
    tokens.sort_by(|a, b| product(&rows[*a], &axis).total_cmp(&product(&rows[*b], &axis)));
    let rest = tokens.split_off(tokens.len() / 2);
    [cut(tokens, rows, lists / 2), cut(rest, rows, lists / 2)].concat()
}

/// The tiny E2B's drafter with so many clusters, in a new file.
fn with_clusters(drafter: &Path, count: usize, to: &Path) {
    let bytes = std::fs::read(drafter).unwrap();
    let header = gguf::parse(&&bytes[..], bytes.len() as u64, Patience::default()).unwrap();
    let rows = rows(&bytes, &header);
    let clusters = cut((0..rows.len()).collect(), &rows, count);
    let centroid = |tokens: &Vec<usize>| {
        let mean = (0..rows[0].len()).map(|i| {
            let sum: f32 = tokens.iter().map(|token| rows[*token][i]).sum();
            sum / tokens.len() as f32
        });
        mean.flat_map(f32::to_le_bytes).collect::<Vec<u8>>()
    };
    let centroids: Vec<u8> = clusters.iter().flat_map(centroid).collect();
    let ordering = clusters.concat().into_iter();
    let ordering: Vec<u8> = ordering
        .flat_map(|token| (token as i32).to_le_bytes())
        .collect();

    let keys = header.places().map(|(_, place)| place.end).max().unwrap() as usize;
    let mut out = bytes[..keys].to_vec();
    out[8..16].copy_from_slice(&(header.tensors().len() as u64 + 2).to_le_bytes());
    let (mut data, mut entries): (Vec<u8>, Vec<u8>) = (vec![], vec![]);
    let mut put = |name: &str, dims: &[u64], kind: u32, content: &[u8]| {
        entries.extend((name.len() as u64).to_le_bytes());
        entries.extend(name.as_bytes());
        entries.extend((dims.len() as u32).to_le_bytes());
        entries.extend(dims.iter().flat_map(|dim| dim.to_le_bytes()));
        entries.extend(kind.to_le_bytes());
        entries.extend((data.len() as u64).to_le_bytes());
        data.extend(content);
        data.resize(data.len().next_multiple_of(32), 0);
    };
    let width = rows[0].len() as u64;
    put(
        "masked_embd_centroids.weight",
        &[width, count as u64],
        0,
        &centroids,
    );
    put("masked_embd_ordering", &[rows.len() as u64], 26, &ordering);
    for tensor in header.tensors() {
        let content = &bytes[tensor.offset as usize..][..tensor.bytes as usize];
        put(&tensor.name, tensor.dims(), tensor.ty.id, content);
    }
    out.extend(entries);
    out.resize(out.len().next_multiple_of(32), 0);
    out.extend(data);
    std::fs::write(to, out).unwrap();
}

/// As the supervisor has it.
fn clustered(model: &Path, drafter: &Path) -> (Drafter, LoadPlan, Vec<File>) {
    let (drafter, file) = read_drafter(drafter, Patience::default()).unwrap();
    let content = drafter.clustered.as_ref().unwrap();
    let plan = LoadPlan {
        drafter: Some(DrafterPlan {
            name: "clustered".into(),
            bytes: content.bytes(),
            clusters: content.clusters,
        }),
        ..plan_of(model)
    };
    let files = vec![
        File::open(model).unwrap(),
        content.write(&file).unwrap(),
        file,
    ];
    (drafter, plan, files)
}

fn start(plan: &LoadPlan, files: &[File]) -> Worker {
    let mut worker = Worker::spawn(&[("GOMP_SPINCOUNT", "1000")]);
    let files: Vec<_> = files.iter().map(AsFd::as_fd).collect();
    worker.load_all(plan, &files).unwrap();
    worker
}

fn questions() -> [ChatRequest; 5] {
    let repeat = format!("Repeat this text: {}", story());
    [
        STORY,
        &repeat,
        "Count to 20.",
        "What is 27 + 48?",
        "Who are you?",
    ]
    .map(|question| with(Speculation::On, &fresh(&user(question))))
}

fn tallies(worker: &mut Worker) -> Vec<Tally> {
    let answers = questions().map(|question| worker.ask(question));
    answers
        .map(|answer| answer.usage().drafted.drafter)
        .to_vec()
}

fn made(count: usize) -> (PathBuf, PathBuf, tempfile::TempDir) {
    let [(model, drafter), _] = pairs();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("clustered.gguf");
    with_clusters(&drafter, count, &file);
    (model, file, folder)
}

/// With no more clusters than are rated, all tokens are: the same guesses as without.
#[test]
fn clusters_that_are_all_rated_change_nothing() {
    let (model, drafter, _folder) = made(RATED as usize);
    let (_, plan, files) = clustered(&model, &drafter);
    let of_clusters = tallies(&mut start(&plan, &files));
    let [(model, drafter), _] = pairs();
    let without = tallies(&mut drafting(
        &plan_with(&model, &drafter),
        &model,
        &drafter,
    ));
    assert_eq!(of_clusters, without);
    let all = without
        .into_iter()
        .fold(Tally::default(), |all, one| all + one);
    assert!(all.accepted > 50, "{all:?}");
}

/// A quarter of the tokens is rated.
#[test]
fn the_best_clusters_have_what_comes_next() {
    let (model, drafter, _folder) = made(4 * RATED as usize);
    let (_, plan, files) = clustered(&model, &drafter);
    let mut worker = start(&plan, &files);
    let tallies = tallies(&mut worker);
    let all = tallies
        .into_iter()
        .fold(Tally::default(), |all, one| all + one);
    println!("{all:?}");
    let count = all.accepted + all.rejected;
    assert!(all.accepted * 100 > count * 50, "{all:?}");

    // Its own file for llama.cpp, and the table of tokens in the file that came.
    let memory = worker.report_memory();
    let of_drafter = memory
        .files
        .iter()
        .find(|file| file.role == FileRole::Drafter);
    let of_drafter = of_drafter.unwrap();
    let (bytes, resident) = of_drafter
        .parts
        .iter()
        .fold((0, 0), |(bytes, resident), part| {
            (bytes + part.bytes, resident + part.resident)
        });
    let rated = 2048 * 68 / 4;
    let whole = drafter.metadata().unwrap().len();
    assert!(
        bytes >= whole / 2 && resident > rated && resident <= bytes,
        "{of_drafter:?}"
    );

    let tried = greedy_answers_are_the_same(worker, &model);
    assert!(tried.drafter.accepted > 100, "{tried:?}");
}
