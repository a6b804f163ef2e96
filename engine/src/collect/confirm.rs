//! Of several copies of a chunk none goes before one that stays was read. There are several where
//! two writers stored the same, and where a copy was found damaged and stored anew: whoever collects
//! may not know which of them is damaged.

use std::collections::HashSet;

use cairn_format::ids::{ChunkId, SessionId, WriterId};
use cairn_format::names::ObjectName;
use cairn_format::segment::NAMESPACE_TRUSTED;

use super::mark::Marked;
use crate::context::Remark;
use crate::error::Error;
use crate::index::catalog::Catalog;
use crate::index::local::{ChunkPlace, PackNumber, PackRecord};
use crate::repo::Repository;
use crate::repo::chunks::ChunkReader;

/// Places that are remembered as sound, at most.
const SOUND_MAX: usize = 1 << 20;

/// Reads copies that stay, each once.
pub struct Confirmer<'a> {
    repository: &'a Repository,
    catalog: &'a Catalog,
    /// What this session wrote without bases it has compared already.
    session: SessionId,
    /// The reader used last, and the namespace it reads for.
    reader: Option<(WriterId, ChunkReader<'a>)>,
    /// Places that were read: pack, frame, offset in it.
    sound: HashSet<(PackNumber, u32, u32)>,
}

impl<'a> Confirmer<'a> {
    /// Nothing is read yet. Packs of `session` are taken to be sound.
    #[must_use]
    pub fn new(repository: &'a Repository, catalog: &'a Catalog, session: SessionId) -> Self {
        Self { repository, catalog, session, reader: None, sound: HashSet::new() }
    }

    /// Looks at every chunk of packs that go and that is marked elsewhere: where it cannot be read
    /// there, all its copies are marked. True when marks were added.
    ///
    /// # Errors
    /// Failures of the store or the cache that are not damage.
    pub fn confirm(
        &mut self,
        going: &[(PackNumber, PackRecord)],
        marked: &mut Marked<'_>,
    ) -> Result<bool, Error> {
        let mut fresh = false;
        for (number, record) in going {
            self.repository.check_cancelled()?;
            let frames = match self.catalog.frames(*number) {
                // Another collection deleted it.
                Err(error) if error.has_vanished() => continue,
                frames => frames?,
            };
            let chunks = frames.into_iter().flat_map(|frame| frame.chunks);
            for (position, chunk) in chunks.enumerate() {
                // It is copied, unless a trusted copy does.
                if marked.live.get(*number, position) && record.writer == NAMESPACE_TRUSTED {
                    continue;
                }
                let kept = self.kept(chunk.id, record.writer, *number, marked)?;
                for place in &kept {
                    if self.is_sound(chunk.id, record.writer, place)? {
                        break;
                    }
                    fresh |= self.give_up(place, marked)?;
                    fresh |= marked.keep_copies(chunk.id, record.writer)?;
                }
            }
        }
        Ok(fresh)
    }

    /// Marked places of a chunk outside of a pack and of those that are condemned.
    fn kept(
        &self,
        id: ChunkId,
        namespace: WriterId,
        outside: PackNumber,
        marked: &mut Marked<'_>,
    ) -> Result<Vec<ChunkPlace>, Error> {
        let condemned = self.catalog.condemned_here();
        let mut kept = Vec::new();
        for copy in self.catalog.copies(id, namespace)? {
            if copy.pack != outside && !condemned.contains(&copy.pack) && marked.is_live(&copy)? {
                kept.push(copy);
            }
        }
        Ok(kept)
    }

    fn is_sound(
        &mut self,
        id: ChunkId,
        namespace: WriterId,
        place: &ChunkPlace,
    ) -> Result<bool, Error> {
        let key = (place.pack, place.frame_number, place.offset);
        if self.sound.contains(&key) {
            return Ok(true);
        }
        let reader = match self.reader.take() {
            Some((reads_for, reader)) if reads_for == namespace => reader,
            _ => self.repository.chunk_reader(namespace)?,
        };
        let outcome = self.catalog.pack(place.pack).and_then(|pack| {
            // Another collection may have taken the base, wherever this session had put it.
            let own = pack.session == self.session && !place.based;
            if own { Ok(()) } else { reader.check_at(id, place) }
        });
        self.reader = Some((namespace, reader));
        match outcome {
            Ok(()) => {
                if self.sound.len() >= SOUND_MAX {
                    self.sound.clear();
                }
                self.sound.insert(key);
                Ok(true)
            }
            Err(error) if error.is_damage() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Does without a place that cannot be read: its pack was collected, or is damaged. True when
    /// that is news.
    fn give_up(&self, place: &ChunkPlace, marked: &mut Marked<'_>) -> Result<bool, Error> {
        self.catalog.look_again(self.repository.vault(), place.pack)?;
        let record = match self.catalog.pack(place.pack) {
            Err(error) if error.has_vanished() => return Ok(true),
            record => record?,
        };
        if !marked.distrust(place.pack)? {
            return Ok(false);
        }
        let message = "a chunk cannot be read, and is kept in another pack".to_owned();
        let error = Error::PackDamaged { pack: record.id, message };
        self.repository
            .monitor()
            .warn(Remark::of(ObjectName::Pack(record.kind, record.id), &error));
        self.catalog.note_verified(&[record.id], &[])?;
        Ok(true)
    }
}
