//! A worker's end of the channel, held against what is kept.

use std::io::{Read, Write};
use std::time::{Duration, SystemTime};

use super::*;
use crate::backend::KeptFor;
use crate::chat::Retention;
use crate::ipc::prompts::{Owner, PIECE, PromptReply, PromptRequest, State, receive, send};
use crate::store::RetainedWriter;

const ANNA: PrincipalId = PrincipalId::User(1000);
const BEN: PrincipalId = PrincipalId::User(1001);
/// A system prompt of the configuration's.
const SHARED: [u8; 32] = [9; 32];

fn key(model: &str) -> ModelKey {
    ModelKey {
        model: model.to_owned(),
        fingerprint: [1; 32],
        projector: None,
        slots: 2,
        small_kv: false,
        worker: None,
    }
}

fn room(folder: &Path, most: u64) -> Room {
    Room {
        folder: folder.to_owned(),
        most,
        secret: Some(folder.join("state/key")),
    }
}

/// A worker's end of the channel.
struct Worker {
    channel: UnixStream,
    plan: PromptCachePlan,
    folder: Arc<tempfile::TempDir>,
    kept: u8,
}

/// What a worker hands over.
#[derive(Clone, Copy)]
struct Handed<'a> {
    owner: Owner,
    retention: Retention,
    bytes: &'a [u8],
    replaces: Option<PrefixId>,
    sent: u64,
}

impl Handed<'_> {
    fn of(owner: PrincipalId) -> Self {
        Self {
            owner: Owner::One(owner),
            retention: Retention::InMemory,
            bytes: &[7; 10],
            replaces: None,
            sent: u64::MAX,
        }
    }
}

impl Worker {
    fn of(cache: &PromptCache, key: ModelKey, most: u64) -> Self {
        Self::on(cache, key, most, Arc::new(tempfile::tempdir().unwrap()))
    }

    fn on(cache: &PromptCache, key: ModelKey, most: u64, folder: Arc<tempfile::TempDir>) -> Self {
        let room = room(folder.path(), most);
        let (plan, channel) = cache
            .open_channel(key, room, u64::MAX, vec![SHARED])
            .unwrap();
        Self {
            channel: UnixStream::from(OwnedFd::from(channel)),
            plan,
            folder,
            kept: 0,
        }
    }

    fn keep(
        &mut self,
        owner: PrincipalId,
        bytes: &[u8],
        replaces: Option<PrefixId>,
    ) -> Option<PrefixId> {
        let handed = Handed::of(owner);
        self.hand_over(Handed {
            bytes,
            replaces,
            ..handed
        })
    }

    fn hand_over(&mut self, handed: Handed<'_>) -> Option<PrefixId> {
        self.kept += 1;
        self.begin(handed);
        match receive(&mut self.channel).unwrap() {
            Some(PromptReply::Kept { id }) => id,
            other => panic!("{other:?}"),
        }
    }

    fn begin(&mut self, handed: Handed<'_>) {
        let state = State {
            tokens: 7,
            digest: [self.kept; 32],
            bytes: handed.bytes.len() as u64,
        };
        let prefix = Prefix {
            owner: handed.owner,
            retention: handed.retention,
            is_fork: false,
            states: vec![state],
        };
        let keep = PromptRequest::Keep {
            prefix,
            replaces: handed.replaces,
            sent: handed.sent,
        };
        send(&mut self.channel, &keep).unwrap();
        // Who lies is not listened to.
        let _ = self.channel.write_all(handed.bytes);
    }

    fn tried(&mut self, id: PrefixId, usable: bool) {
        send(&mut self.channel, &PromptRequest::Tried { id, usable }).unwrap();
    }

    /// Waits until the supervisor has attended to its end.
    fn die(self, cache: &PromptCache) {
        drop(self.channel);
        // Its thread holds the cache until then.
        while Arc::strong_count(&cache.0) > 1 {
            std::thread::yield_now();
        }
    }

    fn fetch(&mut self, id: PrefixId) -> Option<Vec<u8>> {
        send(&mut self.channel, &PromptRequest::Fetch { id }).unwrap();
        match receive(&mut self.channel).unwrap() {
            Some(PromptReply::Fetched { bytes: Some(bytes) }) => {
                let mut fetched = vec![0; bytes as usize];
                self.channel.read_exact(&mut fetched).unwrap();
                Some(fetched)
            }
            Some(PromptReply::Fetched { bytes: None }) => None,
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_later_worker_of_the_same_model_gets_what_was_kept() {
    let cache = PromptCache::default();
    let bytes = vec![9; 3 * PIECE + 5];
    let id = Worker::of(&cache, key("e2b"), 1 << 30)
        .keep(ANNA, &bytes, None)
        .unwrap();
    let mut later = Worker::of(&cache, key("e2b"), 1 << 30);
    assert_eq!(later.plan.kept[0].id, id);
    assert!(later.fetch(id) == Some(bytes));
    assert_eq!(later.fetch(id + 1), None);
    // States of other models, or of other sizes of this one, are none of it.
    let mut other = Worker::of(&cache, key("e4b"), 1 << 30);
    assert!(other.plan.kept.is_empty());
    assert_eq!(other.fetch(id), None);
    let small = ModelKey {
        small_kv: true,
        ..key("e2b")
    };
    assert!(Worker::of(&cache, small, 1 << 30).plan.kept.is_empty());
}

#[test]
fn one_takes_the_place_of_another_of_its_owner() {
    let cache = PromptCache::default();
    let mut worker = Worker::of(&cache, key("e2b"), 1 << 30);
    let first = worker.keep(ANNA, &[1; 10], None);
    let others = worker.keep(BEN, &[2; 10], first);
    assert_eq!(cache.list(None).len(), 2, "that was not BEN's to replace");
    let second = worker.keep(ANNA, &[3; 20], first).unwrap();
    assert_eq!(worker.fetch(first.unwrap()), None);
    assert_eq!(worker.fetch(second), Some(vec![3; 20]));
    assert_eq!(cache.clear(Some(ANNA)).len(), 1);
    assert_eq!(worker.fetch(second), None);
    assert!(worker.fetch(others.unwrap()).is_some());
    assert_eq!(cache.clear(None).len(), 1);
    assert!(cache.list(None).is_empty());
}

#[test]
fn who_has_the_most_loses_the_oldest() {
    let cache = PromptCache::default();
    let mut worker = Worker::of(&cache, key("e2b"), 100);
    let bens = worker.keep(BEN, &[0; 30], None).unwrap();
    let annas: Vec<_> = (0..5)
        .map(|_| worker.keep(ANNA, &[0; 30], None).unwrap())
        .collect();
    assert!(worker.fetch(bens).is_some(), "ANNA has more");
    let there: Vec<_> = annas.iter().map(|id| worker.fetch(*id).is_some()).collect();
    assert_eq!(there, [false, false, false, true, true]);
    // What was used counts as new.
    worker.fetch(annas[3]);
    worker.fetch(annas[4]);
    worker.fetch(annas[3]);
    worker.keep(ANNA, &[0; 30], None).unwrap();
    assert!(worker.fetch(annas[3]).is_some());
    assert_eq!(worker.fetch(annas[4]), None);
}

#[test]
fn a_worker_that_says_too_much_is_not_listened_to() {
    let cache = PromptCache::default();
    for bytes in [101, u64::MAX] {
        let mut worker = Worker::of(&cache, key("e2b"), 100);
        let state = State {
            tokens: 7,
            digest: [2; 32],
            bytes,
        };
        let prefix = Prefix {
            owner: Owner::One(ANNA),
            retention: Retention::InMemory,
            is_fork: false,
            states: vec![state],
        };
        let keep = PromptRequest::Keep {
            prefix,
            replaces: None,
            sent: u64::MAX,
        };
        send(&mut worker.channel, &keep).unwrap();
        assert_eq!(receive::<PromptReply>(&mut worker.channel).unwrap(), None);
    }
    assert!(cache.list(None).is_empty());
}

#[test]
fn without_a_disk_nothing_is_kept_and_the_worker_is_told() {
    let cache = PromptCache::default();
    let mut worker = Worker::of(&cache, key("e2b"), 1 << 30);
    // Its folder cannot be made there.
    let (_, channel) = cache
        .open_channel(
            key("e2b"),
            room("/proc/no".as_ref(), 1 << 30),
            u64::MAX,
            vec![],
        )
        .unwrap();
    worker.channel = UnixStream::from(OwnedFd::from(channel));
    assert_eq!(worker.keep(ANNA, &[0; 10], None), None);
    assert_eq!(worker.fetch(1), None);
}

fn day(owner: PrincipalId) -> Handed<'static> {
    Handed {
        retention: Retention::Day,
        ..Handed::of(owner)
    }
}

fn names(folder: &Path) -> usize {
    let names = std::fs::read_dir(folder).unwrap();
    names
        .filter(|entry| {
            let name = entry.as_ref().unwrap().file_name();
            name.to_string_lossy().ends_with(".prompt")
        })
        .count()
}

/// What a daemon that starts now finds, with this worker program.
fn recalled(folder: &Path, worker: Option<FileIdentity>) -> PromptCache {
    let cache = PromptCache::default();
    cache.look(&room(folder, 1 << 30), worker);
    cache
}

#[test]
fn what_was_asked_for_outlives_the_daemon() {
    let worker_program = Some(FileIdentity::default());
    let model = ModelKey {
        worker: worker_program,
        ..key("e2b")
    };
    let cache = PromptCache::default();
    let mut worker = Worker::of(&cache, model.clone(), 1 << 30);
    // A worker's word is not enough, and what was not asked for has no name.
    worker.hand_over(day(ANNA));
    worker.hand_over(Handed::of(ANNA));
    let folder = worker.folder.clone();
    assert_eq!(names(folder.path()), 0);
    cache.ask(ANNA);
    worker.hand_over(Handed {
        bytes: &[3; 2 * PIECE],
        ..day(ANNA)
    });
    worker.hand_over(Handed {
        owner: Owner::All { text: SHARED },
        ..day(ANNA)
    });
    assert_eq!(names(folder.path()), 2);
    worker.die(&cache);

    let later = recalled(folder.path(), worker_program);
    let kept_for: Vec<_> = later.list(None).iter().map(|kept| kept.kept_for).collect();
    assert_eq!(kept_for, [KeptFor::Day, KeptFor::Configuration]);
    assert_eq!(later.list(Some(BEN)).len(), 1, "ANNA's is shown to BEN");
    let mut worker = Worker::on(&later, model, 1 << 30, folder.clone());
    let ids: Vec<_> = worker.plan.kept.iter().map(|kept| kept.id).collect();
    assert!(worker.fetch(ids[0]) == Some(vec![3; 2 * PIECE]));
    assert_eq!(worker.fetch(ids[1]), Some(vec![7; 10]));
    assert_eq!(later.clear(Some(ANNA)).len(), 1);
    assert_eq!(worker.fetch(ids[0]), None);
    // Another worker program has other states.
    let other = Some(FileIdentity {
        inode: 5,
        ..FileIdentity::default()
    });
    assert!(recalled(folder.path(), other).list(None).is_empty());
    assert_eq!(names(folder.path()), 0);
}

#[test]
fn what_is_in_the_configuration_no_more_is_not_kept() {
    let cache = PromptCache::default();
    let mut worker = Worker::of(&cache, key("e2b"), 1 << 30);
    let shared = |text| Handed {
        owner: Owner::All { text },
        ..day(ANNA)
    };
    worker.hand_over(shared(SHARED));
    assert_eq!(
        (cache.list(Some(BEN)).len(), cache.clear(Some(BEN)).len()),
        (1, 0)
    );
    let folder = worker.folder.clone();
    let room = room(folder.path(), 1 << 30);
    let (plan, _) = cache.open_channel(key("e2b"), room, 0, vec![]).unwrap();
    assert!(plan.kept.is_empty() && cache.list(None).is_empty());
    // A worker shares nothing else.
    worker.begin(shared([8; 32]));
    assert!(!matches!(
        receive::<PromptReply>(&mut worker.channel),
        Ok(Some(_))
    ));
}

#[test]
fn what_was_on_its_way_when_prompts_were_cleared_is_not_kept() {
    let cache = PromptCache::default();
    let mut worker = Worker::of(&cache, key("e2b"), 1 << 30);
    let sent = cache.now();
    cache.clear(Some(ANNA));
    let old = |owner| Handed {
        sent,
        ..Handed::of(owner)
    };
    assert_eq!(worker.hand_over(old(ANNA)), None);
    assert!(worker.hand_over(old(BEN)).is_some());
    let new = Handed {
        sent: cache.now(),
        ..Handed::of(ANNA)
    };
    assert!(worker.hand_over(new).is_some());
    cache.clear(None);
    for owner in [ANNA, BEN] {
        assert_eq!(
            worker.hand_over(Handed {
                owner: Owner::One(owner),
                ..new
            }),
            None
        );
    }
    assert!(cache.list(None).is_empty());
}

#[test]
fn when_everybodys_go_the_secret_goes() {
    let cache = PromptCache::default();
    cache.ask(ANNA);
    let mut worker = Worker::of(&cache, key("e2b"), 1 << 30);
    worker.hand_over(day(ANNA));
    let folder = worker.folder.clone();
    let secret = folder.path().join("state/key");
    assert!(secret.exists());
    worker.die(&cache);
    cache.clear(None);
    while secret.exists() || names(folder.path()) > 0 {
        std::thread::yield_now();
    }
}

#[test]
fn a_worker_that_dies_of_a_prompt_gets_it_no_more() {
    let cache = PromptCache::default();
    let mut worker = Worker::of(&cache, key("e2b"), 1 << 30);
    let ids: Vec<_> = [ANNA, BEN, ANNA]
        .map(|owner| worker.keep(owner, &[1; 10], None).unwrap())
        .into();
    for id in &ids {
        worker.fetch(*id);
    }
    worker.tried(ids[0], true);
    worker.tried(ids[1], false);
    worker.die(&cache);
    let left = Worker::of(&cache, key("e2b"), 1 << 30).plan.kept;
    assert_eq!(
        left.iter().map(|kept| kept.id).collect::<Vec<_>>(),
        ids[..1]
    );
}

#[test]
fn one_place_is_kept_once() {
    let cache = PromptCache::default();
    let mut worker = Worker::of(&cache, key("e2b"), 1 << 30);
    worker.keep(ANNA, &[1; 10], None);
    worker.kept = 0;
    worker.keep(BEN, &[2; 10], None);
    worker.kept = 0;
    worker.keep(ANNA, &[3; 10], None);
    assert_eq!(cache.list(Some(ANNA)).len(), 1);
    assert_eq!(cache.list(Some(BEN)).len(), 1);
}

#[test]
fn a_day_is_the_longest() {
    let folder = tempfile::tempdir().unwrap();
    let secret = Secret::read_or_make(&folder.path().join("state/key")).unwrap();
    let model = ModelKey {
        worker: Some(FileIdentity::default()),
        ..key("e2b")
    };
    let plant = |owner, age: Duration| {
        let state = State {
            tokens: 7,
            digest: [age.as_secs() as u8; 32],
            bytes: 10,
        };
        let prefix = Prefix {
            owner,
            retention: Retention::Day,
            is_fork: false,
            states: vec![state],
        };
        let about = retention::about(&model, &prefix).unwrap();
        let now = SystemTime::now() - age;
        let mut writer = RetainedWriter::create(folder.path(), &secret, &about, 10, now).unwrap();
        writer.write(&[1; 10]).unwrap();
        writer.finish().unwrap();
    };
    let (minute, day) = (Duration::from_secs(60), shelf::RETENTION);
    plant(Owner::One(ANNA), day + minute);
    plant(Owner::One(ANNA), day - minute);
    plant(Owner::All { text: SHARED }, 2 * day);
    let cache = recalled(folder.path(), model.worker);
    assert_eq!((cache.list(None).len(), names(folder.path())), (2, 2));
    let expires = cache.lock().next_expiry().unwrap();
    assert!(expires > SystemTime::now() && expires <= SystemTime::now() + minute);
    assert!(cache.lock().take_expired().is_empty());
}
