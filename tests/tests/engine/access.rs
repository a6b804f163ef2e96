//! Goal: what cannot work is refused with the right class of error, before anything is changed;
//! clocks decide nothing.
//! Method: wrong keys, foreign versions, forged slots, selectors, clocks set anywhere.

use bytes::Bytes;
use cairn_engine::error::{Class, Error, Explain as _};
use cairn_engine::ops::backup::{self, BackupOptions};
use cairn_engine::ops::restore::{self, RestoreOptions};
use cairn_engine::ops::snapshots;
use cairn_engine::repo::{InitOptions, init, keys};
use cairn_engine::store::Store as _;
use cairn_engine::store::local::LocalStore;
use cairn_engine::store::memory::MemoryStore;
use cairn_format::certificate::Role;
use cairn_format::error::FormatError;
use cairn_format::format_object::{FORMAT_BYTES, FormatObject};
use cairn_format::ids::SlotId;
use cairn_format::names::ObjectName;
use cairn_format::slot::{Argon2Costs, SLOT_HEAD_BYTES, SlotHead, SlotMethod};
use cairn_tests::compare::assert_same;
use cairn_tests::lab::{
    Lab, OWNER, TestClock, back_up, copy_of, inside, new_key, object, select, verify_full,
};
use cairn_tests::tree;

#[test]
fn a_wrong_key_and_no_repository_are_told_apart() {
    let lab = Lab::new(61);
    let store = lab.memory();
    let class = |store: &MemoryStore, key: &str| {
        lab.try_open(store, key, "cache").err().expect("it does not open").class()
    };
    assert_eq!(class(&store, "wrong"), Class::WrongKey);
    assert_eq!(class(&MemoryStore::new(), OWNER), Class::NoRepository);
    let missing = LocalStore::open(&lab.path("nowhere")).expect_err("nothing is there");
    assert_eq!(Error::from(missing).class(), Class::NoRepository);
    std::fs::create_dir(lab.path("empty")).expect("a folder");
    let empty = LocalStore::open(&lab.path("empty")).expect_err("nothing is in it");
    assert_eq!(Error::from(empty).class(), Class::NoRepository);
    let options = InitOptions::new(new_key("again", Role::Owner));
    let error = init(&store, &options, &lab.context).expect_err("there is one already");
    assert_eq!(error.class(), Class::Refused);
}

/// A newer version or an unknown required feature is refused by readers and writers alike, and is
/// no damage: whoever follows the hint loses nothing.
#[test]
fn a_repository_of_a_newer_version_is_refused() {
    let lab = Lab::new(62);
    let store = lab.memory();
    let bytes = object(&store, &ObjectName::Format);
    let hash = |bytes: &[u8]| *blake3::hash(bytes).as_bytes();
    let known = FormatObject::parse(&bytes, hash).expect("it is ours");

    let feature = FormatObject { required_features: 1 << 40, ..known }.encode(hash);
    let mut version = bytes[..FORMAT_BYTES - 32].to_vec();
    version[16..20].copy_from_slice(&2_u32.to_le_bytes());
    let check = hash(&version);
    version.extend_from_slice(&check);
    for (what, format) in [("feature", feature), ("version", version)] {
        let other = copy_of(&store);
        other.overwrite(ObjectName::Format, Bytes::from(format));
        let error = lab.try_open(&other, OWNER, "cache").err().expect(what);
        assert_eq!(error.class(), Class::Refused, "{what}: {error}");
        assert_eq!(error.code(), "format.newer");
        assert!(error.hint().is_some_and(|hint| hint.contains("newer")));
    }
}

/// The `format` object of another repository, correct in itself, is noticed.
#[test]
fn a_format_object_of_another_repository_is_damage() {
    let lab = Lab::new(63);
    let (one, other) = (lab.memory(), lab.memory());
    one.overwrite(ObjectName::Format, object(&other, &ObjectName::Format));
    let error = lab.try_open(&one, OWNER, "cache").err().expect("it does not open");
    assert!(matches!(error.class(), Class::Damage | Class::WrongKey), "{error}");
}

/// A slot that demands a tebibyte, or that is too cheap to protect anything, is passed over
/// without computing anything, and the others still open.
#[test]
fn absurd_argon2_costs_are_refused_both_ways() {
    let lab = Lab::new(64);
    let store = lab.memory();
    let bytes = object(&store, &ObjectName::Key(first_slot(&store)));
    // SPEC section 3.1: method, role at 10 and 11; memory, passes, lanes at 12, 16, 20.
    for (memory_kib, passes, lanes) in [
        (1_u32 << 30, 3_u32, 4_u32),
        (8, 3, 4),
        (64 << 10, 1 << 30, 4),
        (64 << 10, 3, 1 << 20),
        (64 << 10, 0, 4),
    ] {
        let mut forged = bytes.to_vec();
        let layout = argon2_layout(&forged);
        forged[layout.method] = 1;
        for (at, value) in layout.costs.into_iter().zip([memory_kib, passes, lanes]) {
            forged[at..at + 4].copy_from_slice(&value.to_le_bytes());
        }
        let parsed = SlotHead::parse(&forged[..SLOT_HEAD_BYTES]);
        assert!(matches!(parsed, Err(FormatError::Limit { .. })), "{parsed:?}");
        let other = copy_of(&store);
        let id = SlotId::from_bytes(*blake3::hash(&forged).as_bytes());
        other.overwrite(ObjectName::Key(id), Bytes::from(forged));
        let passphrase = cairn_engine::seal::SecretBytes::new(b"any".to_vec());
        let unlock = cairn_engine::seal::Unlock::Passphrase(passphrase);
        let shared = std::sync::Arc::new(other.clone());
        let error = cairn_engine::repo::Repository::open(shared, &unlock, &lab.context);
        assert!(error.is_err(), "{memory_kib} KiB, {passes} passes, {lanes} lanes");
        let repository = lab.open(&other, "cache");
        assert_eq!(keys::list(repository.store()).expect("a list").len(), 2);
    }
}

struct Argon2Layout {
    method: usize,
    costs: [usize; 3],
}

/// Where a slot's head says its method and costs, found by encoding one with known values.
fn argon2_layout(slot: &[u8]) -> Argon2Layout {
    let head = SlotHead::parse(&slot[..SLOT_HEAD_BYTES]).expect("it is sound");
    let encode = |memory_kib, passes, lanes| {
        let costs = Argon2Costs { memory_kib, passes, lanes };
        let method = SlotMethod::Passphrase { costs, salt: [0; 32] };
        SlotHead { method, ..head.clone() }.encode().expect("it is sound")
    };
    let base = encode(20_000, 2, 1);
    let differs = |other: Vec<u8>| {
        base.iter().zip(&other).position(|(one, two)| one != two).expect("they differ")
    };
    let method = 1 + base
        .iter()
        .zip(&slot[..SLOT_HEAD_BYTES])
        .skip(1)
        .position(|(one, two)| one != two)
        .expect("the methods differ");
    // Little endian: the first byte that differs is the lowest, as these differ in it.
    let costs = [
        differs(encode(20_001, 2, 1)),
        differs(encode(20_000, 3, 1)),
        differs(encode(20_000, 2, 2)),
    ];
    Argon2Layout { method, costs }
}

fn first_slot(store: &MemoryStore) -> SlotId {
    let mut names = store.names().into_iter();
    let slot = names.find_map(|name| match name {
        ObjectName::Key(id) => Some(id),
        _ => None,
    });
    slot.expect("a slot")
}

#[test]
fn a_slot_copied_from_another_repository_opens_nothing() {
    let lab = Lab::new(65);
    let (one, other) = (lab.memory(), lab.memory());
    one.delete(&ObjectName::Key(first_slot(&one))).expect("memory deletes");
    let foreign = ObjectName::Key(first_slot(&other));
    one.overwrite(foreign, object(&other, &foreign));
    let error = lab.try_open(&one, OWNER, "cache").err().expect("it does not open");
    assert!(matches!(error.class(), Class::Damage | Class::WrongKey), "{error}");
}

#[test]
fn the_last_owner_key_stays() {
    let lab = Lab::new(66);
    let store = lab.memory();
    let repository = lab.open(&store, "cache");
    keys::add(&repository, &new_key("reader", Role::Reader)).expect("a key");
    let slot = keys::list(&store).expect("a list").into_iter();
    let owner = slot.filter(|slot| slot.head.as_ref().is_some_and(|h| h.role == Role::Owner));
    let owner = owner.map(|slot| slot.id.to_hex()).next().expect("an owner");
    let error = keys::remove(&repository, &owner, false).expect_err("it is the last");
    assert_eq!(error.class(), Class::Refused);
    let reader = lab.try_open(&store, "reader", "reader").expect("it opens");
    let error = keys::remove(&reader, &owner, false).expect_err("a reader may not");
    assert_eq!(error.class(), Class::WrongKey);
    let source = lab.path("source");
    tree::small(&source, 3, 1);
    let error = back_up(&reader, &source).expect_err("a reader may not");
    assert_eq!(error.class(), Class::WrongKey);
}

/// Clocks ten years off, going backwards, before 1970 and at the end of time: backups work, and
/// every snapshot restores.
#[test]
fn any_clock_will_do() {
    const YEAR_MS: i64 = 365 * 24 * 3_600_000;
    let lab = Lab::new(67);
    let store = lab.memory();
    let source = lab.path("source");
    tree::small(&source, 10, 1);
    let repository = lab.open(&store, "cache");
    let start = TestClock::START_MS;
    let times = [
        start,
        start - 10 * YEAR_MS,
        start + 10 * YEAR_MS,
        0,
        -5 * YEAR_MS,
        i64::MAX - 1_000_000,
        i64::MIN + 1_000_000,
    ];
    for (round, time) in times.into_iter().enumerate() {
        lab.clock.set_ms(time);
        std::fs::write(source.join("text"), format!("round {round}")).expect("a file");
        let report = back_up(&repository, &source).expect("the backup");
        let snapshot = report.snapshot.expect("a snapshot");
        let (target, restored) = lab.restore(&repository, &snapshot, false).expect("it restores");
        assert_eq!(restored.failure_count, 0, "{:?}", restored.failures);
        assert_same(&source, &inside(&target, &source));
    }
    let fresh = lab.open(&store, "fresh");
    assert_eq!(snapshots::list(&fresh).expect("a list").len(), 7);
    let found = verify_full(&fresh);
    assert!(found.findings.is_empty(), "{:?}", found.findings);
}

#[test]
fn snapshots_are_selected_as_documented() {
    let lab = Lab::new(68);
    let store = lab.memory();
    let source = lab.path("source");
    std::fs::create_dir(&source).expect("a folder");
    let repository = lab.open(&store, "cache");
    // Enough that two ids begin with the same digit.
    for _ in 0..17 {
        back_up(&repository, &source).expect("the backup");
    }
    let listed = snapshots::list(&repository).expect("a list");
    let newest = listed.last().expect("the newest");
    assert_eq!(select(&repository, "latest").id, newest.id);
    assert_eq!(select(&repository, "latest~16").id, listed[0].id);
    assert_eq!(select(&repository, "job:job~1").id, listed[15].id);
    for snapshot in &listed {
        assert_eq!(select(&repository, &snapshot.id.to_hex()).id, snapshot.id);
    }
    let class =
        |selector: &str| snapshots::select(&repository, selector).expect_err(selector).class();
    for (selector, expected) in [
        ("latest~17", Class::Failed),
        ("job:other", Class::Failed),
        ("@1999-01-01", Class::Failed),
        (&"0".repeat(64), Class::Failed),
        ("", Class::Usage),
        ("latest~x", Class::Usage),
        ("latest~-1", Class::Usage),
        ("@yesterday-ish", Class::Usage),
        ("not hex", Class::Usage),
        ("ab~1", Class::Usage),
    ] {
        assert_eq!(class(selector), expected, "{selector:?}");
    }
    let mut first_digits = listed.iter().map(|s| s.id.to_hex()[..1].to_owned()).collect::<Vec<_>>();
    first_digits.sort();
    let twice = first_digits.windows(2).find(|pair| pair[0] == pair[1]).expect("17 of 16");
    match snapshots::select(&repository, &twice[0]) {
        Err(Error::AmbiguousSnapshot { candidates, .. }) => assert!(candidates.len() >= 2),
        other => panic!("{other:?}"),
    }
}

#[test]
fn requests_that_ask_for_nothing_or_too_much_are_refused() {
    let lab = Lab::new(69);
    let store = lab.memory();
    let repository = lab.open(&store, "cache");
    let source = lab.path("source");
    tree::small(&source, 3, 1);
    let error = backup::run(&repository, BackupOptions::new("job", Vec::new()));
    assert_eq!(error.expect_err("nothing to back up").class(), Class::Usage);
    let error = back_up(&repository, &lab.path("nowhere")).expect_err("nothing is there");
    assert!(error.to_string().contains("nowhere"), "{error}");
    assert!(snapshots::list(&repository).expect("a list").is_empty(), "nothing was made");
    back_up(&repository, &source).expect("the backup");

    let target = lab.path("target");
    std::fs::create_dir(&target).expect("a folder");
    std::fs::write(target.join("mine"), "precious").expect("a file");
    let options = RestoreOptions::new(select(&repository, "latest"), target.clone());
    for outcome in [
        restore::plan(&repository, &options).map(|_| ()),
        restore::run(&repository, &options).map(|_| ()),
    ] {
        assert_eq!(outcome.expect_err("it is not empty").class(), Class::Refused);
    }
    assert_eq!(std::fs::read(target.join("mine")).expect("the file"), b"precious");
    assert_eq!(std::fs::read_dir(&target).expect("the folder").count(), 1, "nothing was added");
    let path = Some(b"/no/such/path".to_vec());
    let nothing = RestoreOptions { path, ..RestoreOptions::new(options.snapshot, lab.path("new")) };
    assert!(matches!(restore::plan(&repository, &nothing), Err(Error::NoPath { .. })));
}
