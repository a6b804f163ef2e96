//! What is refused or left out: places that are no replica, keys that may not, damage at home.

use std::collections::BTreeSet;

use bytes::Bytes;
use cairn_engine::error::{Class, Explain as _};
use cairn_engine::ops::replicate::{self, Target};
use cairn_engine::repo::keys;
use cairn_engine::repo::places::Places;
use cairn_engine::store::Store as _;
use cairn_engine::store::fault::{Call, Fault, FaultStore, Plan};
use cairn_engine::store::memory::MemoryStore;
use cairn_engine::store::record::CallKind;
use cairn_format::certificate::Role;
use cairn_format::names::ObjectName;
use cairn_tests::lab::{copy_of, new_key, object};
use cairn_tests::seed::noise;

use super::{Home, only, target};

#[test]
fn damage_at_home_costs_only_the_snapshots_that_need_it() {
    let mut home = Home::new(8);
    let sound = home.back_up(1);
    std::fs::write(home.source.join("broken"), noise(300_000, 77)).expect("a file");
    let broken = home.back_up(2);
    std::fs::remove_file(home.source.join("broken")).expect("removed");
    let after = home.back_up(3);
    // The largest pack of the second backup has nothing but that file in it, or nearly so.
    let of_second = {
        let repository = home.open();
        let catalog = repository.catalog().expect("the index");
        let mut found = None;
        catalog
            .index()
            .for_each_pack(&mut |_, record, _| {
                if record.session == broken.record.session
                    && record.kind == cairn_format::names::PackKind::Data
                {
                    found = Some(ObjectName::Pack(record.kind, record.id));
                }
                std::ops::ControlFlow::Continue(())
            })
            .expect("the index is read");
        found.expect("a pack")
    };
    let mut bytes = object(&home.store, &of_second).to_vec();
    let end = bytes.len() * 3 / 4;
    bytes[400..end].fill(0);
    home.store.overwrite(of_second, Bytes::from(bytes));
    let replica = MemoryStore::new();
    let at_place = |only| Target { place: Some("there".to_owned()), only, ..target(&replica) };
    let done = only(home.replicate(&[at_place(None)])).expect("a replication");
    assert!(!done.damaged.is_empty(), "{done:?}");
    // What is remembered does not say that all is well, nor does a copy of a single snapshot.
    let memory = Places::new(&home.lab.cache("home")).expect("a memory of places");
    let known = || {
        let place = memory.recall("there").expect("it is known");
        place.replication.expect("there was a replication")
    };
    let state = known();
    assert!(state.failure.is_some() && state.ran_ms.is_some(), "{state:?}");
    assert_eq!((state.done_ms, state.newest_ms), (None, None));
    only(home.replicate(&[at_place(Some(sound.id))])).expect("a copy");
    let later = known();
    assert_eq!((later.failure, later.newest_ms), (state.failure, None));
    let copied = done.copied.iter().copied().collect::<BTreeSet<_>>();
    assert!(copied.contains(&sound.id) && !copied.contains(&broken.id), "{done:?}");
    assert!(copied.len() + done.damaged.len() == 3 && after.acknowledged);
    home.assert_holds(&replica, &copied);
}

#[test]
fn what_is_no_replica_is_refused() {
    let mut home = Home::new(9);
    home.back_up(1);
    let refused = |home: &Home, store: &MemoryStore| {
        let before = store.names();
        let error = only(home.replicate(&[target(store)])).expect_err("it is refused");
        assert_eq!(store.names(), before);
        (error.code(), error.class())
    };
    // Another repository, the home copy itself, a copy of its files, and a newer format.
    assert_eq!(refused(&home, &home.lab.memory()), ("replica.other", Class::Refused));
    assert_eq!(refused(&home, &home.store), ("replica.same", Class::Refused));
    assert_eq!(refused(&home, &copy_of(&home.store)), ("replica.same", Class::Refused));
    let newer = MemoryStore::new();
    let mut format = object(&home.store, &ObjectName::Format).to_vec();
    format[16] = 2;
    let hash = *blake3::hash(&format[..64]).as_bytes();
    format[64..].copy_from_slice(&hash);
    newer.overwrite(ObjectName::Format, Bytes::from(format));
    assert_eq!(refused(&home, &newer), ("format.newer", Class::Refused));
    // A key that may not.
    let owner = home.open();
    keys::add(&owner, &new_key("reader", Role::Reader)).expect("a key");
    drop(owner);
    let reader = home.lab.try_open(&home.store, "reader", "home").expect("it opens");
    let error = replicate::run(&reader, &[], false).expect_err("it is refused");
    assert_eq!(error.class(), Class::WrongKey);
}

#[test]
fn a_wrong_copy_is_refused_before_anything_is_changed_in_it() {
    let mut home = Home::new(17);
    home.back_up(1);
    let (right, wrong) = (MemoryStore::new(), MemoryStore::new());
    home.replicate_to(&wrong);
    let at_place =
        |store: &MemoryStore| Target { place: Some("there".to_owned()), ..target(store) };
    only(home.replicate(&[at_place(&right)])).expect("a replication");
    keys::add(&home.open(), &new_key("reader", Role::Reader)).expect("a key");
    let before = wrong.names();
    let refused = only(home.replicate(&[at_place(&wrong)])).expect_err("it is refused");
    assert_eq!((refused.code(), refused.class()), ("place.changed", Class::Refused));
    assert_eq!(wrong.names(), before);
    // Nor is one without an identity given one.
    let nobody = copy_of(&wrong);
    for name in nobody.names() {
        if matches!(name, ObjectName::Replica(_)) {
            nobody.delete(&name).expect("it is deleted");
        }
    }
    let before = nobody.names();
    only(home.replicate(&[at_place(&nobody)])).expect_err("it is refused");
    assert_eq!(nobody.names(), before);
}

#[test]
fn an_acknowledgement_that_a_replica_loses_is_put_again() {
    let mut home = Home::new(15);
    let wanted = [1, 2].map(|change| home.back_up(change).id).into();
    let recorded = FaultStore::new(MemoryStore::new(), Plan::new());
    home.replicate_to(&recorded);
    let calls = recorded.calls();
    let puts = calls.iter().filter(|call| call.kind == CallKind::Put);
    let acks = puts.enumerate().filter(|(_, put)| matches!(put.name, Some(ObjectName::Ack { .. })));
    let acks = acks.map(|(number, _)| number as u64).collect::<Vec<_>>();
    assert_eq!(acks.len(), 2);
    for ack in acks {
        let replica = MemoryStore::new();
        let plan = Plan::new().nth(CallKind::Put, ack, Fault::LostPut);
        let losing = FaultStore::new(replica.clone(), plan);
        let done = home.replicate_to(&losing);
        let is_ack = |call: &Call| matches!(call.name, Some(ObjectName::Ack { .. }));
        assert!(losing.calls().iter().any(|call| call.fault.is_some() && is_ack(call)));
        assert_eq!(done.copied.iter().copied().collect::<BTreeSet<_>>(), wanted);
        home.assert_holds(&replica, &wanted);
    }
}
