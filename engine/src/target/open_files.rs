//! A bounded number of open files, the least recently used closed first.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use rustix::fd::OwnedFd;

/// Open files by number. A file in use by another thread stays open until that is done, beyond
/// the bound if need be.
pub(super) struct OpenFiles {
    files_max: usize,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    files: HashMap<u64, (Arc<OwnedFd>, u64)>,
    /// Counts uses; the file with the smallest count was not used for longest.
    uses: u64,
}

impl OpenFiles {
    pub(super) fn new(files_max: usize) -> Self {
        Self { files_max: files_max.max(1), inner: Mutex::default() }
    }

    pub(super) fn get(&self, id: u64) -> Option<Arc<OwnedFd>> {
        let mut inner = self.inner.lock();
        inner.uses += 1;
        let now = inner.uses;
        let (file, used) = inner.files.get_mut(&id)?;
        *used = now;
        Some(Arc::clone(file))
    }

    pub(super) fn put(&self, id: u64, file: OwnedFd) -> Arc<OwnedFd> {
        let file = Arc::new(file);
        let mut inner = self.inner.lock();
        inner.uses += 1;
        let now = inner.uses;
        inner.files.insert(id, (Arc::clone(&file), now));
        if inner.files.len() > self.files_max {
            let oldest = inner.files.iter().min_by_key(|(_, (_, used))| *used).map(|(id, _)| *id);
            oldest.and_then(|id| inner.files.remove(&id));
        }
        file
    }

    pub(super) fn close(&self, id: u64) {
        self.inner.lock().files.remove(&id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_recently_used_is_closed() {
        let open = || OwnedFd::from(tempfile::tempfile().unwrap());
        let files = OpenFiles::new(2);
        files.put(1, open());
        files.put(2, open());
        assert!(files.get(1).is_some());
        files.put(3, open());
        assert!(files.get(1).is_some() && files.get(2).is_none() && files.get(3).is_some());
        files.close(1);
        assert!(files.get(1).is_none());
    }
}
