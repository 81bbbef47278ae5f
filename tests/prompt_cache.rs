//! A conversation goes on without being read again, whatever became of its worker meanwhile; nobody goes
//! on from what is another's; and answers are the same with and without what was kept.

mod harness;

use std::fs;
use std::time::{Duration, Instant};

use harness::users::{self, ALICE, BOB, as_user};
use harness::{Daemon, Options, Reply, TINY, signal, wait_for};
use serde_json::{Value, json};

/// An answer may be written in other tokens than it was sampled in: then the prompt's last step is read
/// again.
const STEP: u64 = 256;

/// A text of some hundred tokens.
fn document(about: &str) -> String {
    let lines = (0..40).map(|i| format!("Line {i} says that {about} has the number {}.", i * 7));
    lines.collect::<Vec<_>>().join("\n")
}

/// A conversation that grows by a question and its answer at a time.
struct Conversation {
    body: Value,
}

impl Conversation {
    fn new(system: Option<&str>) -> Self {
        let messages: Vec<_> = system
            .map(|text| json!({"role": "system", "content": text}))
            .into_iter()
            .collect();
        Self {
            body: json!({"model": TINY, "messages": messages, "temperature": 0, "max_tokens": 24, "logprobs": true}),
        }
    }

    fn say(&mut self, role: &str, text: &str) {
        let messages = self.body["messages"].as_array_mut().unwrap();
        messages.push(json!({"role": role, "content": text}));
    }

    /// Asks, and takes the answer to what was said.
    fn ask(&mut self, daemon: &Daemon, question: &str) -> Turn {
        self.say("user", question);
        let turn = Turn::of(&daemon.chat(&self.body));
        self.say("assistant", &turn.text);
        turn
    }
}

#[derive(Debug)]
struct Turn {
    text: String,
    prompt: u64,
    cached: u64,
}

impl Turn {
    fn of(reply: &Reply) -> Self {
        let text = reply.content();
        let usage = &reply.json()["usage"];
        Self {
            text,
            prompt: usage["prompt_tokens"].as_u64().unwrap(),
            cached: usage["prompt_tokens_details"]["cached_tokens"]
                .as_u64()
                .unwrap_or_default(),
        }
    }
}

/// Prompts that are kept, as the caller sees them: their tokens.
fn kept(daemon: &Daemon) -> Vec<u64> {
    let cache = daemon.get("/cache").json();
    let entries = cache["prompts"]["entries"].as_array().unwrap();
    entries
        .iter()
        .map(|entry| entry["tokens"].as_u64().unwrap())
        .collect()
}

fn wait_until_kept(daemon: &Daemon, tokens: u64) {
    wait_for("the prompt to be kept", || {
        kept(daemon).iter().any(|kept| *kept >= tokens)
    });
}

/// Files that outlive the daemon.
fn retained(daemon: &Daemon) -> Vec<std::path::PathBuf> {
    let names = fs::read_dir(daemon.dir.path().join("cache")).unwrap();
    let paths = names.map(|entry| entry.unwrap().path());
    paths
        .filter(|path| path.extension().is_some_and(|ending| ending == "prompt"))
        .collect()
}

fn wait_until_retained(daemon: &Daemon) {
    wait_for("the prompt to be retained", || !retained(daemon).is_empty());
}

fn unload(daemon: &Daemon) {
    assert_eq!(daemon.post("/models/unload", &json!({})).status, 200);
}

#[test]
fn a_conversation_goes_on_after_its_worker_has_ended() {
    let daemon = Daemon::start();
    let mut chat = Conversation::new(None);
    let first = chat.ask(&daemon, &document("the lamp"));
    assert_eq!(first.cached, 0);
    // Unloaded at once: what was read is kept then.
    unload(&daemon);
    let second = chat.ask(&daemon, &document("the chair"));
    assert!(second.cached + STEP >= first.prompt, "{second:?} {first:?}");
    // Killed, once it was kept.
    wait_until_kept(&daemon, second.prompt);
    signal(daemon.status()["pid"].as_u64().unwrap() as u32, "KILL");
    let third = chat.ask(&daemon, "Is that all?");
    assert!(third.cached + STEP >= second.prompt, "{third:?} {second:?}");
    // It is one conversation, and so one file.
    unload(&daemon);
    assert_eq!(kept(&daemon).len(), 1);
    assert!(!daemon.dir.path().join("prompt-cache.key").exists());
    // No file of it has a name.
    let names = fs::read_dir(daemon.dir.path().join("cache")).unwrap();
    let names: Vec<_> = names.map(|entry| entry.unwrap().file_name()).collect();
    assert!(
        names
            .iter()
            .all(|name| name.to_string_lossy().ends_with(".packed")),
        "{names:?}"
    );
}

#[test]
fn answers_are_the_same_whatever_was_kept() {
    let turns = |between: &dyn Fn(&Daemon)| {
        let daemon = Daemon::start();
        let mut chat = Conversation::new(Some("You answer briefly."));
        let questions = [
            document("the boat"),
            "Which line comes first?".to_owned(),
            "And the last?".to_owned(),
        ];
        questions.map(|question| {
            let turn = chat.ask(&daemon, &question);
            between(&daemon);
            turn
        })
    };
    let (loaded, unloaded) = (turns(&|_| ()), turns(&unload));
    assert!(unloaded[2].cached > unloaded[0].prompt, "{unloaded:?}");
    for (one, other) in loaded.iter().zip(&unloaded) {
        assert_eq!(one.text, other.text);
        assert_eq!(one.prompt, other.prompt);
    }
}

#[test]
fn an_idle_release_forgets_nothing() {
    let daemon = Daemon::with(Options {
        models_keys: "idle-release = \"3s\"\n".into(),
        ..Options::default()
    });
    let mut chat = Conversation::new(None);
    let first = chat.ask(&daemon, &document("the kettle"));
    wait_for("the release", || {
        daemon.log().contains("gave back what it could")
    });
    let second = chat.ask(&daemon, "And what else?");
    assert!(second.cached + STEP >= first.prompt, "{second:?} {first:?}");
    assert!(kept(&daemon).iter().any(|tokens| *tokens >= first.prompt));
}

#[test]
fn what_takes_the_place_of_a_conversation_does_not_end_it() {
    let daemon = Daemon::with(Options {
        inference: "slots = 1\n".into(),
        ..Options::default()
    });
    let mut chats: Vec<_> = (0..3).map(|_| Conversation::new(None)).collect();
    let mut read = vec![];
    for (chat, about) in chats.iter_mut().zip(["a cat", "a dog", "a cow"]) {
        read.push(chat.ask(&daemon, &document(about)).prompt);
    }
    for (chat, read) in chats.iter_mut().zip(&read) {
        let turn = chat.ask(&daemon, "And what else?");
        assert!(turn.cached + STEP >= *read, "{turn:?} {read}");
    }
}

#[test]
fn a_system_prompt_is_read_once_for_all_conversations() {
    let daemon = Daemon::start();
    let system = document("the tool");
    let mut read = vec![];
    for question in ["Hi!", "What is the capital of France?", "Who are you?"] {
        let turn = Conversation::new(Some(&system)).ask(&daemon, question);
        read.push(turn.prompt - turn.cached);
        unload(&daemon);
    }
    assert!(read[0] > 256, "{read:?}");
    assert!(read[1] < 64 && read[2] < 64, "{read:?}");
}

#[test]
fn thoughts_that_are_left_out_cost_nothing() {
    let daemon = Daemon::start();
    let mut chat = Conversation::new(None);
    chat.body["reasoning_effort"] = json!("high");
    // Longer than what sliding layers can go back by themselves.
    chat.body["max_tokens"] = json!(700);
    chat.body["ignore_eos"] = json!(true);
    let first = chat.ask(&daemon, &document("the bridge"));
    chat.body["max_tokens"] = json!(8);
    let second = chat.ask(&daemon, "And what else?");
    assert!(second.cached + 16 >= first.prompt, "{second:?} {first:?}");
}

#[test]
fn an_answer_that_is_asked_for_again_takes_nothing_away() {
    let daemon = Daemon::start();
    let mut chat = Conversation::new(None);
    chat.body["reasoning_effort"] = json!("high");
    let first = chat.ask(&daemon, &document("the tower"));
    unload(&daemon);
    // The same question again, of which all is there but the turn that the model writes.
    let mut again = Conversation::new(None);
    again.body["reasoning_effort"] = json!("high");
    let second = again.ask(&daemon, &document("the tower"));
    assert!(second.cached + 16 >= first.prompt, "{second:?} {first:?}");
    unload(&daemon);
    let third = again.ask(&daemon, "And what else?");
    assert!(third.cached + 16 >= first.prompt, "{third:?} {first:?}");
}

#[test]
fn nobody_goes_on_from_what_is_anothers() {
    if !users::possible("what the cache of prompts tells of others") {
        return;
    }
    let daemon = users::daemon(Options::default());
    let ask = |uid| {
        as_user(uid, || {
            let mut chat = Conversation::new(Some(&document("the safe")));
            chat.ask(&daemon, "Hi!").cached
        })
    };
    for (uid, least) in [(ALICE, 0), (BOB, 0), (ALICE, 256), (BOB, 256)] {
        let cached = ask(uid);
        assert!(
            cached >= least && (least > 0 || cached == 0),
            "{uid}: {cached}"
        );
        unload(&daemon);
    }
    // Each sees their own, and takes away their own.
    let own = |uid| as_user(uid, || kept(&daemon).len());
    assert!(own(ALICE) >= 1 && own(BOB) >= 1);
    let path = "/cache/prompts/clear";
    as_user(BOB, || {
        let all = daemon.post(&format!("{path}?all=true"), &json!({}));
        assert_eq!(all.status, 403, "{}", all.text());
        let own = daemon.post(path, &json!({})).json();
        let owners = own["entries"].as_array().unwrap().iter();
        let owners: Vec<_> = owners.map(|entry| entry["owner"].clone()).collect();
        assert!(
            owners
                .iter()
                .all(|owner| *owner == BOB.to_string().as_str()),
            "{own}"
        );
    });
    assert!(own(ALICE) >= 1 && own(BOB) == 0);
    let all = daemon.post(&format!("{path}?all=true"), &json!({})).json();
    assert_eq!(all["entries"][0]["owner"], ALICE.to_string(), "{all}");
    assert!(kept(&daemon).is_empty());
}

#[test]
fn who_wants_nothing_kept_is_heeded() {
    let keeps_nothing = Daemon::with(Options {
        memory: "prompt-cache-size = \"0\"\n".into(),
        ..Options::default()
    });
    let asks_for_nothing = Daemon::start();
    for (daemon, cache_prompt) in [(&keeps_nothing, true), (&asks_for_nothing, false)] {
        let mut chat = Conversation::new(None);
        chat.body["cache_prompt"] = json!(cache_prompt);
        chat.ask(daemon, &document("the diary"));
        std::thread::sleep(Duration::from_millis(1500));
        unload(daemon);
        assert_eq!(chat.ask(daemon, "And what else?").cached, 0);
        assert!(kept(daemon).is_empty());
    }
}

#[test]
fn what_was_asked_for_outlives_the_daemon() {
    // What the daemon is ended with, and whether it has had the time to keep what was read.
    for (signal, waits) in [("TERM", false), ("KILL", true)] {
        let mut daemon = Daemon::start();
        let [mut day, mut usual] = ["24h", "in_memory"].map(|retention| {
            let mut chat = Conversation::new(None);
            chat.body["prompt_cache_retention"] = json!(retention);
            chat
        });
        let first = day.ask(&daemon, &document("the harbour"));
        let other = usual.ask(&daemon, &document("the lighthouse"));
        if waits {
            wait_until_retained(&daemon);
        }
        daemon.restart(signal);
        assert_eq!(retained(&daemon).len(), 1);
        let second = day.ask(&daemon, "And what else?");
        assert!(second.cached + 64 >= first.prompt, "{second:?} {first:?}");
        let forgotten = usual.ask(&daemon, "And what else?");
        assert!(forgotten.cached < 64, "{forgotten:?} {other:?}");
        // It grows, and stays one.
        unload(&daemon);
        assert_eq!(retained(&daemon).len(), 1);
        let cleared = daemon.post("/cache/prompts/clear", &json!({})).json();
        assert_eq!(cleared["entries"].as_array().unwrap().len(), 2, "{cleared}");
        wait_for("the file to go", || retained(&daemon).is_empty());
    }
}

#[test]
fn answers_are_the_same_over_a_restart() {
    let turns = |restarts: bool| {
        let mut daemon = Daemon::start();
        let mut chat = Conversation::new(Some(&document("the clock")));
        chat.body["prompt_cache_retention"] = json!("24h");
        ["Which line comes first?", "And the last?", "And why?"].map(|question| {
            let turn = chat.ask(&daemon, question);
            if restarts {
                daemon.restart("TERM");
            }
            turn
        })
    };
    let (steady, restarted) = (turns(false), turns(true));
    assert!(restarted[2].cached > restarted[0].prompt, "{restarted:?}");
    for (one, other) in steady.iter().zip(&restarted) {
        assert_eq!((&one.text, one.prompt), (&other.text, other.prompt));
    }
}

#[test]
fn what_was_tampered_with_is_read_again() {
    let mut daemon = Daemon::start();
    let mut chat = Conversation::new(None);
    chat.body["prompt_cache_retention"] = json!("24h");
    let first = chat.ask(&daemon, &document("the seal"));
    unload(&daemon);
    // Within a state: found when it is fetched. The key: found at the start.
    let path = retained(&daemon).remove(0);
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&path, &bytes).unwrap();
    daemon.restart("TERM");
    let second = chat.ask(&daemon, "And what else?");
    assert_eq!(second.cached, 0, "{first:?}");
    // What is read from then on is kept by the next worker.
    unload(&daemon);
    chat.ask(&daemon, "Is that all?");
    unload(&daemon);
    assert_eq!(retained(&daemon).len(), 1);
    fs::remove_file(daemon.dir.path().join("prompt-cache.key")).unwrap();
    daemon.restart("TERM");
    wait_for("what cannot be read to go", || retained(&daemon).is_empty());
    assert_eq!(chat.ask(&daemon, "Really?").cached, 0);
}

#[test]
fn a_key_that_others_can_read_is_not_used() {
    use std::os::unix::fs::PermissionsExt;
    let daemon = Daemon::start();
    let key = daemon.dir.path().join("prompt-cache.key");
    fs::write(&key, [7; 32]).unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    let mut chat = Conversation::new(None);
    chat.body["prompt_cache_retention"] = json!("24h");
    chat.ask(&daemon, &document("the lock"));
    unload(&daemon);
    assert!(retained(&daemon).is_empty());
    assert_eq!(kept(&daemon).len(), 1, "it is kept until the daemon stops");
    let log = daemon.log();
    assert!(
        log.contains("prompt-cache.key: it is no file of the daemon's user alone"),
        "{log}"
    );
}

/// A daemon whose configuration has a system prompt.
fn with_system_prompt(text: &str) -> (tempfile::TempDir, Daemon) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("agent.txt");
    fs::write(&file, text).unwrap();
    let daemon = users::daemon(Options {
        inference: format!("system-prompts = [\"{}\"]\n", file.display()),
        ..Options::default()
    });
    (folder, daemon)
}

#[test]
fn a_system_prompt_of_the_configuration_is_everybodys_and_nothing_else_is() {
    if !users::possible("that all go on from a system prompt of the configuration's") {
        return;
    }
    let (listed, own) = (document("the workshop"), document("the attic"));
    let (_folder, mut daemon) = with_system_prompt(&listed);
    let ask = |daemon: &Daemon, uid, system: &str, question: &str| {
        as_user(uid, || {
            let mut chat = Conversation::new(Some(system));
            if question.contains("think") {
                chat.body["reasoning_effort"] = json!("low");
            }
            chat.ask(daemon, question)
        })
    };
    let question = document("my secret");
    let first = ask(&daemon, ALICE, &listed, &question);
    assert_eq!(first.cached, 0);
    // BOB goes on from the system prompt, and not from ALICE's question; nor from a longer one's end.
    let second = ask(&daemon, BOB, &listed, &question);
    assert!(
        (256..first.prompt - 256).contains(&second.cached),
        "{second:?}"
    );
    let shared = second.cached;
    let longer = format!("{listed}\nYou are in a hurry. {}", document("the hurry"));
    let third = ask(&daemon, ALICE, &longer, "Hi!");
    assert!(third.cached.abs_diff(shared) < 4, "{third:?} {shared}");
    unload(&daemon);
    let fourth = ask(&daemon, BOB, &longer, "Hi!");
    assert!(fourth.cached.abs_diff(shared) < 4, "{fourth:?} {shared}");
    // One that is not listed is everybody's own.
    assert_eq!(ask(&daemon, ALICE, &own, "Hi!").cached, 0);
    unload(&daemon);
    assert_eq!(ask(&daemon, BOB, &own, "Hi!").cached, 0);
    // It outlives the daemon, and what ALICE has asked does not.
    daemon.restart("TERM");
    assert_eq!(ask(&daemon, BOB, &listed, &question).cached, shared);
    assert_eq!(ask(&daemon, ALICE, &own, "Hi!").cached, 0);
    // Nobody takes it away but an administrator.
    as_user(BOB, || {
        daemon.post("/cache/prompts/clear", &json!({}));
        let cache = daemon.get("/cache").json();
        let owners = cache["prompts"]["entries"].as_array().unwrap().iter();
        assert!(
            owners.clone().all(|entry| entry["owner"] == "everyone"),
            "{cache}"
        );
        assert!(owners.count() >= 1);
    });
}

#[test]
fn answers_are_the_same_with_a_system_prompt_that_was_read_before() {
    let (listed, own) = (document("the kitchen"), document("the cellar"));
    for system in [&listed, &own] {
        let ask = |daemon: &Daemon, cache_prompt: bool, question: &str| {
            let mut chat = Conversation::new(Some(system));
            chat.body["cache_prompt"] = json!(cache_prompt);
            let turn = chat.ask(daemon, question);
            unload(daemon);
            turn
        };
        let [(_one, keeps), (_other, keeps_nothing)] =
            [(), ()].map(|()| with_system_prompt(&listed));
        let mut cached = vec![];
        // What the model has learnt to answer: where it is undecided, the order in which llama.cpp adds up
        // a restored cache decides.
        for question in [
            "Hi!",
            "What is the capital of France?",
            "What is the capital of Italy?",
        ] {
            let one = ask(&keeps, true, question);
            let other = ask(&keeps_nothing, false, question);
            assert_eq!((one.text, one.prompt), (other.text, other.prompt));
            cached.push(one.cached);
        }
        assert!(
            cached[0] == 0 && cached[1] > 256 && cached[2] > 256,
            "{cached:?}"
        );
    }
}

/// Words that begin with unlike tokens: each begins a prompt that is like no other from there on.
const SUBJECTS: [&str; 20] = [
    "apples",
    "bread",
    "copper",
    "doors",
    "eagles",
    "forests",
    "gold",
    "horses",
    "islands",
    "jewels",
    "keys",
    "lamps",
    "mountains",
    "nets",
    "oceans",
    "paper",
    "queens",
    "rivers",
    "ships",
    "towers",
];

/// How often one of the first is smaller than one of the second, from 0 to 1: 0.5 where they are alike.
fn smaller(first: &[Duration], second: &[Duration]) -> f64 {
    let less = |one: &Duration| second.iter().filter(|other| one < *other).count();
    let pairs = first.len() * second.len();
    first.iter().map(less).sum::<usize>() as f64 / pairs as f64
}

/// ALICE asks, and BOB guesses what she has asked: half of his guesses are right.
fn probe(daemon: &Daemon, system: Option<&str>) {
    let ask = |uid, subject: &str| {
        as_user(uid, || {
            let mut chat = Conversation::new(system);
            chat.body["max_tokens"] = json!(1);
            chat.say("user", &format!("{subject}: {}", document(subject)));
            let begun = Instant::now();
            let reply = daemon.chat(&chat.body);
            (begun.elapsed(), Turn::of(&reply))
        })
    };
    ask(ALICE, "windows");
    let (_, own) = ask(BOB, "zebras");
    let (asked, guessed) = SUBJECTS.split_at(SUBJECTS.len() / 2);
    let [mut first, mut again, mut right, mut wrong] = <[Vec<Duration>; 4]>::default();
    for (round, (asked, guessed)) in asked.iter().zip(guessed).enumerate() {
        let (time, turn) = ask(ALICE, asked);
        first.push(time);
        let (time, hers) = ask(ALICE, asked);
        again.push(time);
        assert!(hers.cached > turn.cached + 256, "{hers:?} {turn:?}");
        let mut guess = |is_right: bool| {
            let (time, turn) = ask(BOB, if is_right { asked } else { guessed });
            if is_right { &mut right } else { &mut wrong }.push(time);
            // What is his, or everybody's, and where his own prompts begin alike.
            assert!(turn.cached < own.cached + 32, "{turn:?} {own:?}");
            turn.cached
        };
        let is_right = round % 2 == 0;
        assert_eq!(guess(is_right), guess(!is_right), "{asked} {guessed}");
    }
    // Her own times tell her what was read before, so that his would, too.
    let hers = smaller(&again, &first);
    assert!(hers > 0.9, "{hers}: {again:?} {first:?}");
    // By chance it is off by more in one of a thousand runs.
    let his = smaller(&right, &wrong);
    assert!((0.1..0.9).contains(&his), "{his}: {right:?} {wrong:?}");
}

#[test]
fn the_time_of_an_answer_does_not_tell_what_others_have_asked() {
    if !users::possible("what the time of an answer tells of others") {
        return;
    }
    probe(&users::daemon(Options::default()), None);
    // Short enough that all of it fits into what every slot has, whatever memory is free.
    let listed = document("the workshop");
    let listed = listed.lines().take(20).collect::<Vec<_>>().join("\n");
    let (_folder, daemon) = with_system_prompt(&listed);
    probe(&daemon, Some(&listed));
}
