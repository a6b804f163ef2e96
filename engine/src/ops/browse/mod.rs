//! Snapshots as one read-only tree of numbered entries: names are looked up, directories listed, files
//! read anywhere. For whoever shows them as a file system, which this knows nothing of.
//!
//! ```text
//! snapshots/<time>-<id>/...   each snapshot with everything in it
//! jobs/<job>/<time>-<id>      links to those of one job, and to its latest
//! latest                      a link to the newest
//! ```
//!
//! Everything is read when it is asked for, through the readers that a restore uses: authenticated,
//! checked against its id, from where a collection has moved it, or from another copy. Memory is
//! bounded, but for a hundred bytes for each entry that was looked up and not forgotten since
//! ([`View::forget`]). All calls may come from many threads at once.

mod attributes;
mod content;
mod inodes;
mod links;
mod problems;
mod readers;
mod shelf;

use std::sync::Arc;

use cairn_format::limits::PATH_DEPTH_MAX;
use cairn_format::node::is_name;
use cairn_format::tree::{Entry, Node, Xattr};

use self::attributes::Looks;
pub use self::attributes::{Attributes, Kind};
use self::content::Contents;
pub use self::content::OpenFile;
use self::inodes::{Folder, Inodes, Key, Place};
use self::problems::Problems;
pub use self::problems::ViewError;
use self::readers::Readers;
use self::shelf::{Shelf, Shelves};
use crate::error::Error;
use crate::repo::Repository;
use crate::tree::reader::{self, Listing, NodeSource};

/// Number of the first directory.
pub const ROOT: u64 = 1;

/// What is shown, and how.
#[derive(Clone, Debug, Default)]
pub struct ViewOptions {
    /// Only the snapshot that this selector names when the view is opened.
    pub snapshot: Option<String>,
    /// Only snapshots of this job.
    pub job: Option<String>,
    /// Only snapshots with all of these tags.
    pub tags: Vec<String>,
    /// Owners by number, not by the name that was recorded.
    pub numeric_owner: bool,
    /// User and group that directories have which are in no snapshot.
    pub owner: (u32, u32),
}

/// What happened so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ViewReport {
    /// Bytes of files that were asked for and given.
    pub bytes_read: u64,
    /// Files and directories of which something could not be had because of damage.
    pub damaged: u64,
    /// Those of which something could not be had for another reason.
    pub failed: u64,
}

/// An entry of a directory that was listed.
#[derive(Clone, Debug)]
pub struct Listed {
    /// Its name.
    pub name: Vec<u8>,
    /// What it is.
    pub kind: Kind,
    /// Number of the entry after it, to go on from.
    pub next: u64,
    what: What,
}

#[derive(Clone, Debug)]
enum What {
    Top(Place),
    Tree(Key, Box<Entry>),
}

impl Listed {
    /// The number it has when nothing else that is known has the same.
    #[must_use]
    pub fn number(&self) -> u64 {
        match &self.what {
            What::Top(place) => place.key().number,
            What::Tree(key, _) => key.number,
        }
    }
}

/// Some entries of a directory that follow one another.
#[derive(Debug, Default)]
pub struct Batch {
    /// The entries.
    pub entries: Vec<Listed>,
    /// Number of the entry after them, to go on from.
    pub next: u64,
    /// Part of the directory could not be read between them, or before the next.
    pub damaged: bool,
    /// Nothing follows.
    pub end: bool,
}

/// The view of a repository's snapshots.
pub struct View<'r> {
    repository: &'r Repository,
    shelf: Shelf<'r>,
    readers: Readers<'r>,
    inodes: Inodes,
    looks: Looks,
    contents: Contents,
    problems: Problems,
}

impl<'r> View<'r> {
    /// Opens the view.
    ///
    /// # Errors
    /// [`Error::NoSnapshot`] and its kin when a selector names none; a key that cannot read; failures
    /// of the store or the cache.
    pub fn open(repository: &'r Repository, options: ViewOptions) -> Result<Self, Error> {
        let looks = Looks::new(options.owner, options.numeric_owner);
        let shelf = Shelf::open(repository, options)?;
        // Now, and not when somebody waits for the first file; after snapshots were listed, so that it
        // knows what they need.
        repository.catalog()?;
        Ok(Self {
            repository,
            shelf,
            readers: Readers::new(repository),
            inodes: Inodes::new(),
            looks,
            contents: Contents::new(),
            problems: Problems::default(),
        })
    }

    /// How many snapshots are shown.
    #[must_use]
    pub fn snapshots(&self) -> usize {
        self.shelf.current().all().len()
    }

    /// What happened so far.
    #[must_use]
    pub fn report(&self) -> ViewReport {
        let (damaged, failed) = self.problems.counts();
        ViewReport { bytes_read: self.contents.bytes_read(), damaged, failed }
    }

    /// The entry of this name. It is known by its number until it was forgotten as often as it was
    /// looked up.
    ///
    /// # Errors
    /// [`ViewError::Absent`], [`ViewError::NotDirectory`]; damage and failures.
    pub fn lookup(&self, directory: u64, name: &[u8]) -> Result<Attributes, ViewError> {
        match self.inodes.place(directory)? {
            Place::Tree { folder: Some(folder), .. } => {
                let found = self
                    .readers
                    .of(&folder.shown)
                    .and_then(|reader| reader::lookup(&*reader, &folder.node, name))
                    .map_err(|error| self.trouble(&folder, None, error))?;
                let entry = found.ok_or(ViewError::Absent)?;
                self.enter(&folder, folder.child(&entry), &entry)
            }
            Place::Tree { folder: None, .. } | Place::Link { .. } => Err(ViewError::NotDirectory),
            place => {
                let shelves = self.shelf.recent();
                let found = shelves.entries(&place).into_iter().find(|one| one.name == name);
                match found.map(|one| one.what) {
                    Some(What::Top(place)) => {
                        let number = self.inodes.add(place.clone());
                        Ok(self.top_attributes(number, &place, &shelves))
                    }
                    _ => Err(ViewError::Absent),
                }
            }
        }
    }

    /// Forgets so many lookups of an entry.
    pub fn forget(&self, number: u64, lookups: u64) {
        self.inodes.forget(number, lookups);
    }

    /// Takes an entry that was listed in this directory as looked up.
    ///
    /// # Errors
    /// As [`Self::lookup`].
    pub fn adopt(&self, directory: u64, listed: &Listed) -> Result<Attributes, ViewError> {
        match (&listed.what, self.inodes.place(directory)?) {
            (What::Top(place), _) => {
                let number = self.inodes.add(place.clone());
                Ok(self.top_attributes(number, place, &self.shelf.current()))
            }
            (What::Tree(key, entry), Place::Tree { folder: Some(folder), .. }) => {
                self.enter(&folder, *key, entry)
            }
            _ => Err(ViewError::NotDirectory),
        }
    }

    /// What is known of an entry.
    ///
    /// # Errors
    /// [`ViewError::Absent`] for a number that is not known; damage and failures.
    pub fn attributes(&self, number: u64) -> Result<Attributes, ViewError> {
        let place = self.inodes.place(number)?;
        match &place {
            Place::Tree { above, .. } => {
                let entry = self.entry(&place)?;
                self.describe(number, above, &entry)
            }
            top => Ok(self.top_attributes(number, top, &self.shelf.current())),
        }
    }

    /// Entries of a directory from number `first` on, at most so many; all of them where snapshots are
    /// listed.
    ///
    /// # Errors
    /// [`ViewError::NotDirectory`]; failures. Damage does not end it.
    pub fn list(&self, directory: u64, first: u64, entries_max: usize) -> Result<Batch, ViewError> {
        let folder = match self.inodes.place(directory)? {
            Place::Tree { folder: Some(folder), .. } => folder,
            Place::Tree { folder: None, .. } | Place::Link { .. } => {
                return Err(ViewError::NotDirectory);
            }
            place => {
                let mut entries = self.shelf.recent().entries(&place);
                let next = entries.len() as u64;
                entries.retain(|entry| entry.next > first);
                return Ok(Batch { entries, next, damaged: false, end: true });
            }
        };
        let reader =
            self.readers.of(&folder.shown).map_err(|error| self.trouble(&folder, None, error))?;
        let mut batch = Batch::default();
        let mut listing = Listing::starting_at(&*reader, folder.node, first);
        while batch.entries.len() < entries_max {
            match listing.next() {
                Some(Ok(entry)) => batch.entries.push(Listed {
                    name: entry.name.clone(),
                    kind: Kind::of(&entry.node),
                    next: listing.position(),
                    what: What::Tree(folder.child(&entry), Box::new(entry)),
                }),
                Some(Err(error)) if error.is_damage() => match self.trouble(&folder, None, error) {
                    ViewError::Failed(_) => batch.damaged = true,
                    forgotten => return Err(forgotten),
                },
                Some(Err(error)) => return Err(self.trouble(&folder, None, error)),
                None => {
                    batch.end = true;
                    break;
                }
            }
        }
        batch.next = listing.position();
        Ok(batch)
    }

    /// Where a symbolic link leads to.
    ///
    /// # Errors
    /// [`ViewError::OtherKind`]; damage and failures.
    pub fn link_target(&self, number: u64) -> Result<Vec<u8>, ViewError> {
        match self.inodes.place(number)? {
            Place::Link { key, .. } => self.shelf.current().target(key).ok_or(ViewError::Absent),
            place @ Place::Tree { folder: None, .. } => match self.entry(&place)?.node {
                Node::Symlink(target) => Ok(target),
                _ => Err(ViewError::OtherKind),
            },
            _ => Err(ViewError::OtherKind),
        }
    }

    /// The extended attributes of an entry, sorted by name.
    ///
    /// # Errors
    /// Damage and failures.
    pub fn xattrs(&self, number: u64) -> Result<Vec<Xattr>, ViewError> {
        let place = self.inodes.place(number)?;
        if place.is_top() { Ok(Vec::new()) } else { Ok(self.entry(&place)?.meta.xattrs) }
    }

    /// Opens a file to read it.
    ///
    /// # Errors
    /// [`ViewError::OtherKind`]; damage and failures.
    pub fn open_file(&self, number: u64) -> Result<OpenFile, ViewError> {
        let place = self.inodes.place(number)?;
        let Place::Tree { above: Some(above), folder: None, .. } = &place else {
            return Err(ViewError::OtherKind);
        };
        let entry = self.entry(&place)?;
        match entry.node {
            Node::File(content) => Ok(OpenFile::new(Arc::clone(above), entry.name, content)),
            _ => Err(ViewError::OtherKind),
        }
    }

    /// Bytes of a file from an offset on: as many as asked for, but where the file ends. Holes are
    /// zeros.
    ///
    /// # Errors
    /// Damage in what was asked for; failures.
    pub fn read(&self, file: &OpenFile, offset: u64, bytes: usize) -> Result<Vec<u8>, ViewError> {
        self.readers
            .of(&file.above.shown)
            .and_then(|reader| self.contents.read(&reader, file, offset, bytes))
            .map_err(|error| self.trouble(&file.above, Some(&file.name), error))
    }

    /// Fetches what follows in a file that is read from front to back, if little of it is at hand: to
    /// be called when the answer to a read is on its way.
    pub fn read_ahead(&self, file: &OpenFile) {
        if let Ok(reader) = self.readers.of(&file.above.shown) {
            self.contents.read_ahead(&reader, file);
        }
    }

    /// The offset at which the next data, or the next hole, of a file begins, at or after this one;
    /// where the file ends there is a hole.
    ///
    /// # Errors
    /// [`ViewError::Absent`] behind the end, or when no data follows; damage and failures.
    pub fn seek(&self, file: &OpenFile, offset: u64, hole: bool) -> Result<u64, ViewError> {
        let trouble = |error| self.trouble(&file.above, Some(&file.name), error);
        let reader = self.readers.of(&file.above.shown).map_err(trouble)?;
        let found = content::seek(&*reader, &file.content, offset, hole).map_err(trouble)?;
        found.ok_or(ViewError::Absent)
    }

    /// The entry that a place in a snapshot has.
    fn entry(&self, place: &Place) -> Result<Entry, ViewError> {
        let Place::Tree { above, name, .. } = place else { return Err(ViewError::OtherKind) };
        let Some(above) = above else { return Err(ViewError::OtherKind) };
        self.readers
            .of(&above.shown)
            .and_then(|reader| reader::lookup(&*reader, &above.node, name))
            .map_err(|error| self.trouble(above, Some(name), error))?
            .ok_or(ViewError::Absent)
    }

    /// Makes an entry of a folder known, and describes it.
    fn enter(
        &self,
        folder: &Arc<Folder>,
        key: Key,
        entry: &Entry,
    ) -> Result<Attributes, ViewError> {
        let node = match entry.node {
            Node::Directory(node) => Some(node),
            _ => None,
        };
        // Decoding refuses such names: what would be shown here otherwise could lead anywhere.
        let sound = is_name(&entry.name) && folder.depth < PATH_DEPTH_MAX;
        if !sound {
            let error = reader::too_deep(node.unwrap_or(folder.node));
            return Err(self.trouble(folder, Some(&entry.name), error));
        }
        let below = node.map(|node| Arc::new(Folder::below(folder, key, &entry.name, node)));
        let place = Place::Tree {
            key,
            above: Some(Arc::clone(folder)),
            name: entry.name.as_slice().into(),
            folder: below,
        };
        let number = self.inodes.add(place);
        self.describe(number, &Some(Arc::clone(folder)), entry).inspect_err(|_| {
            self.inodes.forget(number, 1);
        })
    }

    fn describe(
        &self,
        number: u64,
        above: &Option<Arc<Folder>>,
        entry: &Entry,
    ) -> Result<Attributes, ViewError> {
        let Some(above) = above else { return Err(ViewError::OtherKind) };
        let failed = |error| self.trouble(above, Some(&entry.name), error);
        let reader = self.readers.of(&above.shown).map_err(failed)?;
        let near = self.repository.store().is_near();
        let nodes: &dyn NodeSource = &*reader;
        Ok(self.looks.describe(nodes, near, number, &above.shown.info, entry))
    }

    fn top_attributes(&self, number: u64, place: &Place, shelves: &Shelves) -> Attributes {
        self.looks.top(number, place, shelves)
    }

    /// What is said to whoever asked, after it was told to the person.
    fn trouble(&self, above: &Folder, name: Option<&[u8]>, error: Error) -> ViewError {
        self.problems.tell(self.repository, above, name, error)
    }
}
