//! Adds up what there is to back up, beside the backup itself, for whoever watches it.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::context::{Counter, Monitor};
use crate::source::filter::FileSourceOptions;
use crate::source::walk::{Event, LeafKind, Walk};

/// Walks the source a second time and tells the monitor how many bytes its files have; nothing when
/// `stop` is set first. What cannot be read is left out: the backup reports it.
pub fn add_up(options: FileSourceOptions, monitor: &dyn Monitor, stop: &AtomicBool) {
    let Ok(walk) = Walk::new(options) else { return };
    let mut linked = HashSet::new();
    let mut total = 0_u64;
    for event in walk {
        if stop.load(Ordering::Relaxed) || monitor.is_cancelled() {
            return;
        }
        if let Event::Leaf(leaf) = event
            && let LeafKind::File { bytes, .. } = leaf.kind
            && leaf.meta.link.is_none_or(|group| linked.insert(group))
        {
            total = total.saturating_add(bytes);
        }
    }
    monitor.total(Counter::BytesRead, total);
}
