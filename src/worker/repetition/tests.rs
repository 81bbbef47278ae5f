use super::*;

/// After how many tokens an answer of words is ended; `None`: never.
fn ends(answer: impl IntoIterator<Item = u32>) -> Option<usize> {
    ends_of(answer.into_iter().map(|token| (token, "word")))
}

fn ends_of<T: AsRef<[u8]>>(answer: impl IntoIterator<Item = (u32, T)>) -> Option<usize> {
    let mut guard = RepetitionGuard::new();
    let mut answer = answer.into_iter();
    let at = answer.position(|(token, bytes)| guard.take(token, bytes.as_ref()));
    at.map(|at| at + 1)
}

/// Numbers that look like nothing, the same each time.
fn noise(seed: u64) -> impl Iterator<Item = u32> {
    let mut state = seed.wrapping_mul(BASE) | 1;
    std::iter::repeat_with(move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 33) as u32
    })
}

fn paragraph(seed: u64, tokens: usize) -> Vec<u32> {
    noise(seed).take(tokens).collect()
}

const LONG: usize = 100_000;

#[test]
fn every_loop_is_ended_soon_and_not_at_once() {
    for period in [1, 2, 3, 7, 24, 25, 60, 150, 400, 1000] {
        let before = noise(1).take(500);
        let again = paragraph(2, period);
        let at = ends(before.chain(again.iter().copied().cycle().take(LONG))).unwrap();
        let fresh = LAST / FRESH;
        let least = 500 + LAST - fresh + TIMES as usize * period;
        assert!(
            (least..least + 2 * RUN + fresh).contains(&at),
            "{period}: {at}, not {least}"
        );
    }
}

#[test]
fn paragraphs_in_any_order_are_a_loop() {
    let paragraphs: Vec<_> = (1..=4).map(|seed| paragraph(seed, 80)).collect();
    let order = noise(9).map(|n| n as usize % paragraphs.len());
    let text = order.flat_map(|which| paragraphs[which].clone());
    // Each is worn soon; where one follows another, each pair of them has to be.
    let at = ends(text.take(LONG)).unwrap();
    assert!(at < 20_000, "{at}");
}

#[test]
fn a_word_changed_now_and_then_is_a_loop() {
    let again = paragraph(3, 1500);
    let mut news = noise(8);
    let text = std::iter::repeat_with(|| {
        let mut copy = again.clone();
        copy[700] = news.next().unwrap();
        copy
    });
    assert!(ends(text.take(40).flatten()).is_some());
}

#[test]
fn what_is_asked_for_is_written() {
    // "a" a thousand times, with a space or a comma between.
    assert_eq!(ends([7].into_iter().cycle().take(1000)), None);
    assert_eq!(ends([7, 8].into_iter().cycle().take(2000)), None);
    // A poem with a chorus: eight verses.
    let chorus = paragraph(1, 60);
    let song = (0..8).flat_map(|verse| [paragraph(10 + verse, 80), chorus.clone()].concat());
    assert_eq!(ends(song), None);
    // A file, shown again after each of six changes.
    let file = paragraph(2, 1500);
    assert_eq!(ends(file.iter().copied().cycle().take(6 * 1500)), None);
}

#[test]
fn data_may_be_the_same_for_longer() {
    let zeros = |count| (0..count).map(|i| (i as u32 % 2, ["0", ", "][i % 2]));
    assert_eq!(ends_of(zeros(60 * 60 * 2)), None);
    let at = ends_of(zeros(LONG)).unwrap();
    let least = LAST_OF_DATA - LAST_OF_DATA / FRESH;
    assert!((least..LAST_OF_DATA).contains(&at), "{at}");
    // A third of an entry's tokens are words.
    let entry = [
        ("{\"", 0),
        ("status", 1),
        ("\": ", 2),
        ("ok", 3),
        ("}", 4),
        (",\n", 5),
    ];
    let entries = |count| {
        entry
            .into_iter()
            .cycle()
            .take(count)
            .map(|(text, token)| (token, text))
    };
    assert_eq!(ends_of(entries(7500)), None);
    assert!(ends_of(entries(LONG)).is_some());
    // Words of other scripts are words.
    assert!(ends_of((0..LAST + 100).map(|_| (1, "\u{3042}"))).is_some());
}

#[test]
fn what_is_regular_is_no_loop() {
    // Rows of twenty tokens that differ in one: a number that grows, or a value.
    let row = paragraph(4, 20);
    let rows = |value: fn(usize) -> u32| {
        let row = row.clone();
        (0..LONG / 20).flat_map(move |i| {
            let mut row = row.clone();
            row[5] = value(i);
            row
        })
    };
    assert_eq!(ends(rows(|i| i as u32)), None);
    assert_eq!(ends(noise(5).take(LONG)), None);
    // Digits one by one, of numbers that grow.
    let digits = (0..20_000u32).flat_map(|n| n.to_string().into_bytes());
    assert_eq!(ends(digits.map(u32::from)), None);
}

#[test]
fn runs_are_told_apart_by_all_of_their_tokens() {
    // Runs of zeros and ones: a hash that forgot an order or a place would take them for the same.
    let bits = noise(6).take(LONG).map(|n| n & 1);
    assert_eq!(ends(bits), None);
    assert!(ends(std::iter::repeat_n(0, LONG)).is_some());
}

/// How often texts that people and programs have written are taken for a loop, each as an answer of
/// up to so many tokens: `GEMMAD_CORPUS=/usr/lib/python3:/usr/share cargo test --release --bin
/// gemmad-worker -- --ignored --nocapture texts_that_are_no_loops`
#[test]
#[ignore = "a measurement"]
fn texts_that_are_no_loops() {
    const ANSWER: usize = 32_768;
    // More than so many tokens have.
    const BYTES: usize = 8 * ANSWER;
    const LARGEST: u64 = 4 << 20;
    let folders = std::env::var("GEMMAD_CORPUS").expect("folders, separated by colons");
    let vocab = crate::worker::vocab::tests::real().expect("the real vocabulary");
    let mut paths: Vec<_> = folders.split(':').map(std::path::PathBuf::from).collect();
    let (mut files, mut all, mut ended) = (0, 0, 0);
    while let Some(path) = paths.pop() {
        if path.is_symlink() {
            continue;
        }
        if let Ok(entries) = std::fs::read_dir(&path) {
            paths.extend(entries.flatten().map(|entry| entry.path()));
            continue;
        }
        let is_small = path.metadata().is_ok_and(|file| file.len() <= LARGEST);
        let Some(text) = is_small
            .then(|| std::fs::read_to_string(&path).ok())
            .flatten()
        else {
            continue;
        };
        let mut tokens = vec![];
        let text = &text[..text.floor_char_boundary(BYTES)];
        vocab.tokenize(text, false, &mut tokens);
        tokens.truncate(ANSWER);
        files += 1;
        all += tokens.len();
        let answer = tokens
            .iter()
            .map(|&token| (token as u32, vocab.bytes(token)));
        if let Some(at) = ends_of(answer) {
            ended += 1;
            println!("{} at token {at}", path.display());
        }
    }
    println!("{ended} of {files} texts, {all} tokens");
}
