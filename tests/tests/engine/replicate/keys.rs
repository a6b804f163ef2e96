//! Keys: those that are added or removed at home, and the snapshots that writers' keys signed.

use cairn_engine::ops::replicate::Target;
use cairn_engine::repo::keys;
use cairn_engine::retention::Rule;
use cairn_engine::store::memory::MemoryStore;
use cairn_format::certificate::Role;
use cairn_tests::compare::look;
use cairn_tests::lab::{OWNER, back_up, new_key};
use cairn_tests::tree;

use super::{Home, acknowledged, only, policy, target};

#[test]
fn keys_that_are_added_or_removed_at_home_are_so_on_the_replica() {
    let mut home = Home::new(10);
    home.back_up(1);
    let replica = MemoryStore::new();
    let remembered = || Target { place: Some("there".to_owned()), ..target(&replica) };
    let slot = keys::add(&home.open(), &new_key("reader", Role::Reader)).expect("a key");
    only(home.replicate(&[remembered()])).expect("a replication");
    assert!(home.lab.try_open(&replica, "reader", "reader").is_ok());
    // What somebody added to the replica itself stays.
    let there = home.lab.open(&replica, "there");
    keys::add(&there, &new_key("only-there", Role::Owner)).expect("a key");
    keys::remove(&home.open(), &slot.to_hex(), false).expect("removed");
    only(home.replicate(&[remembered()])).expect("a replication");
    assert!(home.lab.try_open(&replica, "reader", "reader").is_err());
    assert!(home.lab.try_open(&replica, "only-there", "there").is_ok());
    assert!(home.lab.try_open(&replica, OWNER, "there").is_ok());
}

#[test]
fn a_key_that_is_removed_at_home_is_so_on_a_replica_of_which_nothing_is_remembered() {
    let mut home = Home::new(16);
    home.back_up(1);
    let replica = MemoryStore::new();
    let remembered = || Target { place: Some("there".to_owned()), ..target(&replica) };
    let slot = keys::add(&home.open(), &new_key("reader", Role::Reader)).expect("a key");
    only(home.replicate(&[remembered()])).expect("a replication");
    let there = home.lab.open(&replica, "there");
    keys::add(&there, &new_key("only-there", Role::Owner)).expect("a key");
    keys::remove(&home.open(), &slot.to_hex(), false).expect("removed");
    std::fs::remove_dir_all(home.lab.cache("home")).expect("removed");
    only(home.replicate(&[remembered()])).expect("a replication");
    assert!(home.lab.try_open(&replica, "reader", "reader").is_err());
    assert!(home.lab.try_open(&replica, "only-there", "there").is_ok());
}

#[test]
fn snapshots_of_writers_keys_are_replicated() {
    let mut home = Home::new(11);
    home.back_up(1);
    keys::add(&home.open(), &new_key("writer", Role::Writer)).expect("a key");
    tree::small(&home.source.join("of-writer"), 30, 5);
    tree::settle(&home.source);
    let writer = home.lab.try_open(&home.store, "writer", "writer").expect("it opens");
    let snapshot = back_up(&writer, &home.source).expect("a backup").snapshot.expect("a snapshot");
    home.trees.insert(snapshot.id, look(&home.source));
    drop(writer);
    home.back_up(2);
    for rules in [None, policy(vec![Rule::Last(1)])] {
        let replica = MemoryStore::new();
        let target = Target { rules, ..target(&replica) };
        only(home.replicate(&[target])).expect("a replication");
        let wanted = acknowledged(&home.lab.open(&replica, "look"));
        assert!(wanted.contains(&snapshot.id));
        home.assert_holds(&replica, &wanted);
    }
}
