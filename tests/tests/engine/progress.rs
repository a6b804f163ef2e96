//! Goal: whoever watches learns how much there is to do, and what was counted adds up to it.
//! Method: a monitor that writes everything down.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cairn_engine::context::{Context, Counter, Monitor, Remark};
use cairn_engine::ops::restore::{self, RestoreOptions};
use cairn_engine::repo::Repository;
use cairn_tests::lab::{Lab, back_up, select, unlock};
use cairn_tests::tree;

#[derive(Default)]
struct Watcher {
    counted: Mutex<HashMap<Counter, u64>>,
    totals: Mutex<Vec<(Counter, u64)>>,
}

impl Monitor for Watcher {
    fn count(&self, counter: Counter, amount: u64) {
        // The backup waits here for the second walk, which would else be too late for so little.
        for _ in 0..10_000 {
            if counter != Counter::BytesRead || self.total(counter).is_some() {
                break;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        *self.counted.lock().expect("no panic").entry(counter).or_default() += amount;
    }
    fn stage(&self, _: &'static str, total: Option<(Counter, u64)>) {
        self.totals.lock().expect("no panic").extend(total);
    }
    fn warn(&self, _: Remark) {}
    fn wants_total(&self) -> bool {
        true
    }
    fn total(&self, counter: Counter, total: u64) {
        self.totals.lock().expect("no panic").push((counter, total));
    }
}

impl Watcher {
    fn counted(&self, counter: Counter) -> u64 {
        self.counted.lock().expect("no panic").get(&counter).copied().unwrap_or_default()
    }

    fn total(&self, counter: Counter) -> Option<u64> {
        let totals = self.totals.lock().expect("no panic");
        totals.iter().find(|(known, _)| *known == counter).map(|(_, total)| *total)
    }
}

#[test]
fn totals_are_told_and_reached() {
    let lab = Lab::new(91);
    let store = lab.memory();
    let source = lab.path("source");
    tree::everything(&source, 2);
    std::fs::write(source.join("a large one"), vec![5; 40 << 20]).expect("a file");
    let watch = |cache: &str| {
        let watcher = Arc::new(Watcher::default());
        let monitor = Arc::<Watcher>::clone(&watcher);
        let context = Context { cache_dir: lab.cache(cache), monitor, ..lab.context.clone() };
        let opened = Repository::open(Arc::new(store.clone()), &unlock("owner"), &context);
        (opened.expect("it opens"), watcher)
    };
    drop(lab.open(&store, "first"));
    let (repository, watcher) = watch("watched");
    back_up(&repository, &source).expect("the backup");
    // Holes are part of a file's length and are not read.
    let read = watcher.counted(Counter::BytesRead);
    let total = watcher.total(Counter::BytesRead).expect("the second walk adds up");
    assert!(total >= read && read >= 40 << 20, "{read} of {total}");
    let (repository, watcher) = watch("watched");
    let snapshot = select(&repository, "latest");
    let options = RestoreOptions::new(snapshot, lab.path("target"));
    restore::run(&repository, &options).expect("the restore");
    let total = watcher.total(Counter::BytesRestored).expect("a whole snapshot's size is known");
    assert_eq!(watcher.counted(Counter::BytesRestored), total);
}
