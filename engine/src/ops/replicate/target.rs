//! The place of a replica, and what it is to keep there.

use std::sync::Arc;

use cairn_format::ids::SnapshotId;

use super::pass::Handover;
use crate::collect::Weakness;
use crate::error::Error;
use crate::ops::gc::MAX_DELETE_PERCENT_DEFAULT;
use crate::retention::Policy;
use crate::store::Store;
use crate::store::patient::{GivingUp, Patience, Patient};

/// How long expired data may stay on a replica unless told otherwise, milliseconds.
pub const ERASE_WITHIN_MS_DEFAULT: u64 = 72 * 60 * 60 * 1000;

/// Opens the place of a replica. Called once, by the thread that writes it, so that a place that
/// cannot be reached holds up no other.
#[derive(Clone)]
pub struct Opener(Arc<dyn Fn() -> Result<Arc<dyn Store>, Error> + Send + Sync>);

impl Opener {
    /// What opens it: for a replica that is not there yet, an empty place.
    pub fn new(open: impl Fn() -> Result<Arc<dyn Store>, Error> + Send + Sync + 'static) -> Self {
        Self(Arc::new(open))
    }
}

impl std::fmt::Debug for Opener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Opener")
    }
}

/// A replica that is to be made or updated.
#[derive(Clone, Debug)]
pub struct Target {
    /// What it is called in reports.
    pub name: String,
    /// Where it is.
    pub open: Opener,
    /// What the place is remembered by on this host, if it is. Of one that is not, nothing is known
    /// of what expired there, so that each replication collects.
    pub place: Option<String>,
    /// Which snapshots it keeps; `None`: those of home.
    pub rules: Option<Policy>,
    /// Only snapshots of this job.
    pub job: Option<String>,
    /// Only this snapshot, whatever else is there; nothing is forgotten.
    pub only: Option<SnapshotId>,
    /// How long after it expired data may stay there, milliseconds: a collection runs there when it
    /// would be late at the next replication. `None`: none ever runs.
    pub erase_within_ms: Option<u64>,
    /// Refuse to free more than this share of its packs, percent.
    pub max_delete_percent: f64,
    /// Without rules: also forget what home lacks and never said is to go. Otherwise that stays, as
    /// home may have lost it.
    pub forget_missing: bool,
    /// This host's clock is right: see [`crate::ops::forget::ForgetOptions`].
    pub trust_clock: bool,
    /// How long its place may get nowhere before it is given up. `None`: for as long as it likes.
    pub patience: Option<Patience>,
    /// Who brings packs there while a backup runs: [`super::back_up`] sets it.
    #[doc(hidden)]
    pub handover: Option<Handover>,
    /// Weakens the protocol, for tests of the simulator.
    #[doc(hidden)]
    pub weakness: Option<Weakness>,
}

impl Target {
    /// A replica that has what home has.
    #[must_use]
    pub fn new(name: &str, store: Arc<dyn Store>) -> Self {
        Self::at(name, Opener::new(move || Ok(Arc::clone(&store))))
    }

    /// The same in a place that has to be opened.
    #[must_use]
    pub fn at(name: &str, open: Opener) -> Self {
        Self {
            name: name.to_owned(),
            open,
            place: None,
            rules: None,
            job: None,
            only: None,
            erase_within_ms: Some(ERASE_WITHIN_MS_DEFAULT),
            max_delete_percent: MAX_DELETE_PERCENT_DEFAULT,
            forget_missing: false,
            trust_clock: false,
            patience: None,
            handover: None,
            weakness: None,
        }
    }

    /// Opens its place.
    pub(super) fn open(&self) -> Result<Arc<dyn Store>, Error> {
        match self.patience {
            None => (self.open.0)(),
            Some(patience) => self.open_patiently(patience, &|_| ()),
        }
    }

    /// Opens its place, to be waited for so long; `note` is told by what it can be given up.
    pub(super) fn open_patiently(
        &self,
        patience: Patience,
        note: &dyn Fn(GivingUp),
    ) -> Result<Arc<dyn Store>, Error> {
        let open = Arc::clone(&self.open.0);
        Ok(Arc::new(Patient::open(&self.name, patience, note, move || open())?))
    }
}
