//! Opens packs: their keys, directories, and frames.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use cairn_format::envelope::{HEADER_BYTES, Header, Kind, Part, SIGNATURE_BYTES};
use cairn_format::ids::PackId;
use cairn_format::names::{ObjectName, PackKind};
use cairn_format::pack::{Directory, LOCATOR_BYTES, Locator};
use cairn_format::parity::{PARITY_FOOTER_BYTES, ParityFooter};
use cairn_format::segment::{NAMESPACE_TRUSTED, PackSection};
use parking_lot::{Mutex, MutexGuard};

use crate::error::Error;
use crate::seal::envelope::KeySource;
use crate::seal::{Opened, PartOpener, Role, Trust};
use crate::store::away::Away;
use crate::store::error::Place;
use crate::store::{Store, StoreError};

/// Keys of packs kept at hand.
const OPENERS_MAX: usize = 1024;

/// Ranges read from a pack begin and end at multiples of this, so that the store does not see where
/// frames lie (SPEC §13), bytes.
pub const RANGE_STEP_BYTES: u64 = 64 << 10;

/// Packs of which the keys are asked for at once, as far as their ids differ in what tells these
/// apart.
const ASKING: usize = 64;

/// Opens packs of one repository.
pub struct PackReader<'a> {
    store: &'a dyn Store,
    keys: &'a (dyn KeySource + Sync),
    openers: Mutex<Openers>,
    /// Held while the beginning of a pack is read from afar: others wait for its keys instead of
    /// asking for them as well.
    asking: [Mutex<()>; ASKING],
    /// Where somebody else can be asked for what the store does not give.
    away: Option<&'a Away>,
}

#[derive(Default)]
struct Openers {
    by_pack: HashMap<PackId, Arc<PartOpener>>,
    order: VecDeque<PackId>,
}

fn damaged(pack: PackId) -> impl Fn(&dyn std::fmt::Display) -> Error {
    move |error| Error::PackDamaged { pack, message: error.to_string() }
}

/// Turns a store's "not there" into damage: packs that the index names must be there.
fn missing(pack: PackId) -> impl FnOnce(StoreError) -> Error {
    move |error| match error {
        StoreError::NotFound { .. } => Error::PackMissing { pack },
        StoreError::Short { .. } => {
            Error::PackDamaged { pack, message: "it is shorter than it must be".to_owned() }
        }
        other => Error::Store(other),
    }
}

/// Reads a range of an object, or as much of it as there is; never nothing.
///
/// # Errors
/// Those of [`Store::get_range`]; [`StoreError::Short`] when there is nothing of the range.
pub fn available(
    store: &dyn Store,
    name: &ObjectName,
    offset: u64,
    bytes: u64,
) -> Result<bytes::Bytes, StoreError> {
    available_by(|offset, bytes| store.get_range(name, offset, bytes), offset, bytes)
}

fn available_by(
    get_range: impl Fn(u64, u64) -> Result<bytes::Bytes, StoreError>,
    offset: u64,
    bytes: u64,
) -> Result<bytes::Bytes, StoreError> {
    match get_range(offset, bytes) {
        Err(StoreError::Short { available, .. }) if 0 < available && available < bytes => {
            get_range(offset, available)
        }
        other => other,
    }
}

impl<'a> PackReader<'a> {
    /// A reader with no packs open.
    #[must_use]
    pub fn new(store: &'a dyn Store, keys: &'a (dyn KeySource + Sync)) -> Self {
        let asking = [const { Mutex::new(()) }; ASKING];
        Self { store, keys, openers: Mutex::default(), asking, away: None }
    }

    /// Does not ask the store while it does not answer.
    #[must_use]
    pub fn unless_away(self, away: Option<&'a Away>) -> Self {
        Self { away, ..self }
    }

    fn get_range(
        &self,
        name: &ObjectName,
        offset: u64,
        bytes: u64,
    ) -> Result<bytes::Bytes, StoreError> {
        let call = || self.store.get_range(name, offset, bytes);
        match self.away {
            Some(away) => away.ask(|| Place::object(self.store.location(), name), call),
            None => call(),
        }
    }

    fn known(&self, id: &PackId) -> Option<Arc<PartOpener>> {
        self.openers.lock().by_pack.get(id).cloned()
    }

    /// The right to ask for the beginning of a pack, where others would wait long for what they
    /// ask for as well.
    fn ask_alone(&self, id: &PackId) -> Option<MutexGuard<'_, ()>> {
        let [first, ..] = id.as_bytes();
        let asking = self.asking.get(usize::from(*first) % ASKING);
        asking.filter(|_| !self.store.is_near()).map(|asking| asking.lock())
    }

    /// What opens the parts of a pack.
    ///
    /// # Errors
    /// When the pack is missing, damaged, or sealed to a key that is not at hand.
    pub fn opener(&self, kind: PackKind, id: PackId) -> Result<Arc<PartOpener>, Error> {
        if let Some(opener) = self.known(&id) {
            return Ok(opener);
        }
        let alone = self.ask_alone(&id);
        // Somebody may have asked meanwhile.
        if alone.is_some()
            && let Some(opener) = self.known(&id)
        {
            return Ok(opener);
        }
        let name = ObjectName::Pack(kind, id);
        let header = self.get_range(&name, 0, HEADER_BYTES as u64).map_err(missing(id))?;
        self.note_header(kind, id, &header)
    }

    /// Opens the header of a pack, and keeps what opens the rest.
    fn note_header(
        &self,
        kind: PackKind,
        id: PackId,
        header: &[u8],
    ) -> Result<Arc<PartOpener>, Error> {
        let opener = Arc::new(self.open_header(kind, id, header)?.opener);
        let mut openers = self.openers.lock();
        if openers.order.len() >= OPENERS_MAX
            && let Some(oldest) = openers.order.pop_front()
        {
            openers.by_pack.remove(&oldest);
        }
        if openers.by_pack.insert(id, Arc::clone(&opener)).is_none() {
            openers.order.push_back(id);
        }
        Ok(opener)
    }

    /// Whether a pack's header says that a parity section follows.
    ///
    /// # Errors
    /// As [`Self::opener`].
    pub fn has_parity(&self, kind: PackKind, id: PackId) -> Result<bool, Error> {
        let name = ObjectName::Pack(kind, id);
        let header = self.store.get_range(&name, 0, HEADER_BYTES as u64).map_err(missing(id))?;
        Ok(self.open_header(kind, id, &header)?.header.parity)
    }

    fn open_header(&self, kind: PackKind, id: PackId, header: &[u8]) -> Result<Opened, Error> {
        let opened = Opened::open(header, self.keys).map_err(|error| damaged(id)(&error))?;
        let expected = match kind {
            PackKind::Data => Kind::DataPack,
            PackKind::Tree => Kind::TreePack,
        };
        if opened.header.kind == expected {
            Ok(opened)
        } else {
            Err(damaged(id)(&"it holds another kind of frames than its name says"))
        }
    }

    /// Reads a range of a pack, widened to [`RANGE_STEP_BYTES`]; returns it with the offset at
    /// which it begins. Of a pack that was cut short it is what is left, so that the frames before
    /// the cut can still be read. Where the medium does not give all of it, it is not widened: what was
    /// asked for may lie beside the bad sector.
    ///
    /// # Errors
    /// When the pack is missing, has nothing of the range, or part of it cannot be read.
    pub fn range(
        &self,
        kind: PackKind,
        id: PackId,
        pack_bytes: u64,
        start: u64,
        end: u64,
    ) -> Result<(u64, bytes::Bytes), Error> {
        let from = start / RANGE_STEP_BYTES * RANGE_STEP_BYTES;
        let to = end.div_ceil(RANGE_STEP_BYTES).saturating_mul(RANGE_STEP_BYTES).min(pack_bytes);
        if to < end || from >= to {
            return Err(damaged(id)(&"a frame lies outside of it"));
        }
        let name = ObjectName::Pack(kind, id);
        // What begins at the front has the header, which takes no request of its own then.
        let with_header = from == 0 && !self.store.is_near() && self.known(&id).is_none();
        let alone = with_header.then(|| self.ask_alone(&id));
        let get_range = |offset, bytes| self.get_range(&name, offset, bytes);
        let bytes = match available_by(get_range, from, to - from) {
            Err(StoreError::Unreadable { .. }) if (from, to) != (start, end) => {
                let bytes = available_by(get_range, start, end - start);
                return Ok((start, bytes.map_err(missing(id))?));
            }
            read => read.map_err(missing(id))?,
        };
        if let Some(header) = bytes.get(..HEADER_BYTES).filter(|_| with_header) {
            // Whoever needs it asks for it if it is damaged, and is told so.
            let _opener = self.note_header(kind, id, header);
        }
        drop(alone);
        Ok((from, bytes))
    }

    /// Reads and checks the directory of a pack of `pack_bytes` bytes: what a segment would say of it.
    ///
    /// # Errors
    /// When the pack is missing, damaged, or signed by nobody who may.
    pub fn directory(
        &self,
        kind: PackKind,
        id: PackId,
        pack_bytes: u64,
        trust: &Trust,
    ) -> Result<PackSection, Error> {
        let name = ObjectName::Pack(kind, id);
        let failed = damaged(id);
        let bytes = u32::try_from(pack_bytes)
            .ok()
            .filter(|bytes| *bytes <= cairn_format::limits::PACK_BYTES_MAX)
            .ok_or_else(|| failed(&"it is larger than a pack may be"))?;
        if pack_bytes < HEADER_BYTES as u64 + u64::from(LOCATOR_BYTES) {
            return Err(failed(&"it is shorter than a pack can be"));
        }
        let header = self.store.get_range(&name, 0, HEADER_BYTES as u64).map_err(missing(id))?;
        let opened = self.open_header(kind, id, &header)?;
        let core_bytes =
            if opened.header.parity { self.core_bytes(&name, id, pack_bytes)? } else { pack_bytes };
        let locator_at = core_bytes
            .checked_sub(u64::from(LOCATOR_BYTES))
            .ok_or_else(|| failed(&"its parity section leaves no room for it"))?;
        let mut sealed = self
            .store
            .get_range(&name, locator_at, u64::from(LOCATOR_BYTES))
            .map_err(missing(id))?
            .to_vec();
        let plain = opened
            .opener
            .open_in_place(Part::Locator, &mut sealed)
            .map_err(|error| failed(&error))?;
        let locator = Locator::decode(plain, core_bytes).map_err(|error| failed(&error))?;
        let mut sealed = self
            .store
            .get_range(&name, locator.directory_offset, locator.directory_bytes)
            .map_err(missing(id))?
            .to_vec();
        let plain = opened
            .opener
            .open_in_place(Part::Directory, &mut sealed)
            .map_err(|error| failed(&error))?;
        let (directory, role, writer) =
            check_directory(&opened.header, plain, trust).map_err(|message| failed(&message))?;
        let sealed = directory.frames.iter().map(|frame| u64::from(frame.sealed_bytes));
        if HEADER_BYTES as u64 + sealed.sum::<u64>() != locator.frames_end
            || directory.frames.len() != locator.frames as usize
        {
            return Err(failed(&"its directory does not describe its frames"));
        }
        let domain = match opened.header.keying {
            cairn_format::envelope::Keying::Domain { domain, .. } => domain,
            cairn_format::envelope::Keying::Symmetric { .. } => {
                return Err(failed(&"it is not sealed to a domain"));
            }
        };
        Ok(PackSection {
            id,
            kind,
            domain,
            epoch: opened.header.epoch,
            bytes,
            namespace: if role == Role::Writer { writer } else { NAMESPACE_TRUSTED },
            session: directory.session,
            frames: directory.frames,
        })
    }
}

impl PackReader<'_> {
    /// Length of a pack without its parity section (SPEC §6.4), bytes.
    fn core_bytes(&self, name: &ObjectName, id: PackId, pack_bytes: u64) -> Result<u64, Error> {
        let footer_bytes = u64::from(PARITY_FOOTER_BYTES);
        let at = pack_bytes.saturating_sub(footer_bytes);
        let footer = self.store.get_range(name, at, footer_bytes).map_err(missing(id))?;
        let footer =
            ParityFooter::decode(&footer, crate::parity::hash).map_err(|e| damaged(id)(&e))?;
        if footer.layout.object_bytes() != pack_bytes {
            return Err(damaged(id)(&"its parity section has another length than its footer says"));
        }
        Ok(footer.layout.protected_bytes)
    }
}

type CheckedDirectory = (Directory, Role, cairn_format::ids::WriterId);

fn check_directory(
    header: &Header,
    plain: &[u8],
    trust: &Trust,
) -> Result<CheckedDirectory, String> {
    let (body, signature) = plain
        .split_last_chunk::<SIGNATURE_BYTES>()
        .ok_or_else(|| "its directory is cut short".to_owned())?;
    let directory = Directory::decode(body).map_err(|error| error.to_string())?;
    let writer = trust
        .verify("the directory of a pack", &header.bound(), &directory.certificate, body, signature)
        .map_err(|error| error.to_string())?;
    Ok((directory, writer.role, writer.id))
}
