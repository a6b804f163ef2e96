//! The database that is written, laid over one that is only read.
//!
//! Without a base it is the database itself. With a base, an empty value in the upper database
//! says that the pair is deleted below; no table stores empty values of its own.

use std::ops::ControlFlow;
use std::path::Path;

use rocksdb::WriteBatch;

use super::db::{Db, EachFound, Table};
use crate::index::local::IndexError;

/// Is shown a key and its value, and says whether to go on.
pub(super) type EachPair<'a> = dyn FnMut(&[u8], &[u8]) -> Result<ControlFlow<()>, IndexError> + 'a;

/// One database, or two seen as one.
pub(super) struct Layers {
    top: Db,
    base: Option<Db>,
}

/// Changes that are made together.
pub(super) struct Batch<'a> {
    layers: &'a Layers,
    changes: WriteBatch,
}

impl Batch<'_> {
    /// `value` must not be empty.
    pub(super) fn put(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<(), IndexError> {
        debug_assert!(!value.is_empty(), "an empty value means deleted");
        self.layers.top.put(&mut self.changes, table, key, value)
    }

    pub(super) fn delete(&mut self, table: Table, key: &[u8]) -> Result<(), IndexError> {
        match self.layers.base {
            Some(_) => self.layers.top.put(&mut self.changes, table, key, &[]),
            None => self.layers.top.delete(&mut self.changes, table, key),
        }
    }

    /// Size of the changes, bytes.
    pub(super) fn bytes(&self) -> usize {
        self.changes.size_in_bytes()
    }

    pub(super) fn write(self) -> Result<(), IndexError> {
        self.layers.top.write(self.changes)
    }
}

impl Layers {
    pub(super) fn new(top: Db, base: Option<Db>) -> Self {
        Self { top, base }
    }

    pub(super) fn batch(&self) -> Batch<'_> {
        Batch { layers: self, changes: WriteBatch::default() }
    }

    /// Reports damage; see [`Db::corrupt`].
    pub(super) fn corrupt(&self, reason: &str) -> IndexError {
        self.top.corrupt(reason)
    }

    pub(super) fn root(&self) -> &Path {
        self.top.root()
    }

    pub(super) fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, IndexError> {
        match (self.top.get(table, key)?, &self.base) {
            (Some(value), Some(_)) if value.is_empty() => Ok(None),
            (None, Some(base)) => base.get(table, key),
            (found, _) => Ok(found),
        }
    }

    /// Looks up keys in ascending order; `each` gets the position and value of those found.
    pub(super) fn get_sorted(
        &self,
        table: Table,
        keys: &[&[u8]],
        each: &mut EachFound<'_>,
    ) -> Result<(), IndexError> {
        let Some(base) = &self.base else { return self.top.get_sorted(table, keys, each) };
        let mut decided = vec![false; keys.len()];
        self.top.get_sorted(table, keys, &mut |position, value| {
            if let Some(decided) = decided.get_mut(position) {
                *decided = true;
            }
            if value.is_empty() { Ok(()) } else { each(position, value) }
        })?;
        let (positions, rest): (Vec<usize>, Vec<&[u8]>) = keys
            .iter()
            .zip(decided)
            .enumerate()
            .filter(|(_, (_, decided))| !decided)
            .map(|(position, (key, _))| (position, *key))
            .unzip();
        base.get_sorted(table, &rest, &mut |position, value| {
            positions.get(position).map_or(Ok(()), |&position| each(position, value))
        })
    }

    /// Shows the pairs whose keys begin with `prefix`, from `from` on in ascending order, until
    /// `each` breaks off.
    pub(super) fn scan(
        &self,
        table: Table,
        prefix: &[u8],
        from: &[u8],
        each: &mut EachPair<'_>,
    ) -> Result<(), IndexError> {
        let mut top = self.top.cursor(table, prefix, from)?;
        let mut base = match &self.base {
            Some(base) => Some(base.cursor(table, prefix, from)?),
            None => None,
        };
        loop {
            let below = match &base {
                Some(base) => base.pair()?,
                None => None,
            };
            let above = top.pair()?;
            let (from_top, from_base) = match (above, below) {
                (None, None) => return Ok(()),
                (Some(_), None) => (true, false),
                (None, Some(_)) => (false, true),
                (Some((a, _)), Some((b, _))) => (a <= b, b <= a),
            };
            if let Some((key, value)) = if from_top { above } else { below } {
                let deleted = value.is_empty() && base.is_some();
                if !deleted && each(key, value)?.is_break() {
                    return Ok(());
                }
            }
            if from_top {
                top.advance();
            }
            if let Some(base) = base.as_mut().filter(|_| from_base) {
                base.advance();
            }
        }
    }

    /// The database that is written.
    pub(super) fn top(&self) -> &Db {
        &self.top
    }

    /// See [`Db::flush`].
    pub(super) fn flush(&self, table: Table) -> Result<(), IndexError> {
        self.top.flush(table)
    }
}
