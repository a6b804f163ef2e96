//! What frames are stored against: bases, from whichever of their places is sound.

use std::collections::HashSet;

use bytes::Bytes;
use cairn_format::ids::{ChunkId, WriterId};
use cairn_format::limits::FRAME_BASE_BYTES_MAX;
use cairn_format::pack::ChunkRef;

use super::{ChunkReader, ROUNDS_MAX};
use crate::error::Error;
use crate::index::local::{ChunkPlace, PackRecord};

impl ChunkReader<'_> {
    /// The concatenated bases of a frame.
    ///
    /// # Errors
    /// When one cannot be had; failures of the store or the cache.
    pub fn base_prefix(&self, pack: &PackRecord, place: &ChunkPlace) -> Result<Vec<u8>, Error> {
        let (bases, namespace) = self.catalog.bases(place)?;
        let ids = bases.iter().map(|base| base.id).collect::<Vec<_>>();
        let places = self.catalog.places(&ids, namespace)?;
        let mut prefix = Vec::new();
        for (base, found) in bases.iter().zip(places) {
            let first = match found {
                Some(found) => self.base_at(pack, place, base, &found),
                None => Err(Error::ChunkMissing { chunk: base.id }),
            };
            match first {
                Ok(bytes) => prefix.extend_from_slice(&bytes),
                Err(error) if error.is_damage() => {
                    match self.base_elsewhere(pack, place, base, namespace)? {
                        Some(copy) => prefix.extend_from_slice(&copy),
                        None => return Err(self.no_base(pack, place, base, namespace, error)?),
                    }
                }
                Err(error) => return Err(error),
            }
            if prefix.len() > FRAME_BASE_BYTES_MAX as usize {
                return Err(Error::BaseDepth { pack: pack.id, frame: place.frame_number });
            }
        }
        Ok(prefix)
    }

    /// Why a base cannot be had: it is damaged wherever it stands, or stands nowhere.
    fn no_base(
        &self,
        pack: &PackRecord,
        place: &ChunkPlace,
        base: &ChunkRef,
        namespace: WriterId,
        damage: Error,
    ) -> Result<Error, Error> {
        if !self.catalog.base_copies(base, pack.kind, namespace)?.is_empty() {
            return Ok(damage);
        }
        Ok(Error::BaseMissing { pack: pack.id, frame: place.frame_number, base: base.id })
    }

    /// A base from whichever of its places is sound, also from where a collection copied it to
    /// meanwhile, or out of the parity of its packs; `None` when none of that gives it.
    fn base_elsewhere(
        &self,
        pack: &PackRecord,
        place: &ChunkPlace,
        base: &ChunkRef,
        namespace: WriterId,
    ) -> Result<Option<Bytes>, Error> {
        let mut looked_for = HashSet::new();
        for _ in 0..ROUNDS_MAX {
            let mut vanished = Vec::new();
            for copy in self.catalog.copies(base.id, namespace)? {
                match self.base_at(pack, place, base, &copy) {
                    Ok(bytes) => return Ok(Some(bytes)),
                    Err(error) if error.has_vanished() => vanished.push(copy.pack),
                    Err(error) if error.is_damage() => {}
                    Err(error) => return Err(error),
                }
            }
            vanished.retain(|pack| looked_for.insert(*pack));
            if vanished.is_empty() {
                break;
            }
            for pack in vanished {
                self.catalog.look_again(self.repository.vault(), pack)?;
            }
        }
        let copies = self.catalog.base_copies(base, pack.kind, namespace)?;
        self.rescued_chunk(base.id, &copies)
    }

    /// The plaintext of a base from one of its places, if that may serve as one (SPEC §6.3).
    fn base_at(
        &self,
        pack: &PackRecord,
        place: &ChunkPlace,
        base: &ChunkRef,
        found: &ChunkPlace,
    ) -> Result<Bytes, Error> {
        if found.based {
            return Err(Error::BaseDepth { pack: pack.id, frame: place.frame_number });
        }
        let home = self.catalog.pack(found.pack)?;
        if home.kind != pack.kind || found.bytes != base.bytes {
            return Err(Error::ChunkHash { chunk: base.id, pack: home.id });
        }
        let frame = self.cached_frame(&self.base_cache, &home, found)?;
        let chunk = self.slice(&home, base.id, found, &frame)?;
        Ok(frame.slice_ref(chunk))
    }

    /// The plaintext of a chunk that is to be a base, out of a frame without bases; neighbours asked
    /// for one after another cost one read.
    ///
    /// # Errors
    /// When its pack or frame is missing or damaged.
    pub fn base(&self, id: ChunkId, place: &ChunkPlace) -> Result<Bytes, Error> {
        let pack = self.catalog.pack(place.pack)?;
        if place.based {
            return Err(Error::BaseDepth { pack: pack.id, frame: place.frame_number });
        }
        let frame = self.cached_frame(&self.base_cache, &pack, place)?;
        Ok(frame.slice_ref(self.slice(&pack, id, place, &frame)?))
    }
}
