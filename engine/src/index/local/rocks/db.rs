//! One RocksDB: its tables, its tuning, and what its errors mean.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use rocksdb::{
    BlockBasedIndexType, BlockBasedOptions, BottommostLevelCompaction, Cache, ColumnFamily,
    ColumnFamilyDescriptor, CompactOptions, DB, DBRawIterator, DBRecoveryMode, DataBlockIndexType,
    ErrorKind, IngestExternalFileOptions, LogLevel, Options, PrefixRange, ReadOptions,
    SstFileWriter, WriteBatch, WriteBufferManager, WriteOptions,
};

use super::open::LOAD_FILES;
use crate::index::local::{IndexError, LocalOptions};

/// What a key-value pair belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Table {
    /// Chunk -> place in the pack added first.
    Chunks,
    /// File cache.
    Files,
    /// Slot -> super-feature and chunk.
    Sketches,
    /// What collections remember.
    Memos,
    /// Number -> what a removed pack held.
    Gone,
    /// Number -> pack record.
    Records,
    /// Pack -> number.
    Numbers,
    /// Number -> the pack's directory.
    Layouts,
    /// Number, frame -> base chunks.
    Bases,
    /// Chunk, number -> a further place of the chunk.
    Others,
    /// Number -> pack that no segment names.
    Pending,
    /// Loaded index segment.
    Segments,
    /// Pack -> verification.
    Ledger,
    /// The caller's named values.
    Names,
    /// Name of an object in the store -> what it says.
    Objects,
    /// The index's own values, by the names below.
    Own,
}

/// In [`Table::Own`]: format and repository.
pub(super) const OWN_IDENTITY: &[u8] = b"identity";
/// In [`Table::Own`]: the next number and the counts.
pub(super) const OWN_TALLY: &[u8] = b"tally";
/// In [`Table::Own`]: the first number of a load that is not finished.
pub(super) const OWN_LOADING: &[u8] = b"loading";

/// The families with tables of their own. The small tables share the default family, so that
/// one flush makes them durable together (see `load.rs`) and their write buffers stay few.
const CHUNKS: &str = "chunks";
const FILES: &str = "files";
const SKETCHES: &str = "sketches";
const MEMOS: &str = "memos";
const DEFAULT: &str = "default";

impl Table {
    fn family(self) -> &'static str {
        match self {
            Self::Chunks => CHUNKS,
            Self::Files => FILES,
            Self::Sketches => SKETCHES,
            Self::Memos => MEMOS,
            _ => DEFAULT,
        }
    }

    /// Sets the tables of the default family apart.
    fn tag(self) -> Option<u8> {
        Some(match self {
            Self::Chunks | Self::Files | Self::Sketches | Self::Memos => return None,
            Self::Gone => b'g',
            Self::Records => b'r',
            Self::Numbers => b'n',
            Self::Layouts => b'l',
            Self::Bases => b'b',
            Self::Others => b'o',
            Self::Pending => b'p',
            Self::Segments => b's',
            Self::Ledger => b'v',
            Self::Names => b'm',
            Self::Objects => b't',
            Self::Own => b'i',
        })
    }

    fn key(self, key: &[u8]) -> Cow<'_, [u8]> {
        match self.tag() {
            None => Cow::Borrowed(key),
            Some(tag) => Cow::Owned([&[tag], key].concat()),
        }
    }

    /// Takes the tag off a stored key again.
    fn strip(self, key: &[u8]) -> &[u8] {
        key.get(usize::from(self.tag().is_some())..).unwrap_or_default()
    }
}

/// What every database of one opened index shares, so that together they keep the memory cap.
pub(super) struct Budget {
    cache: Cache,
    buffers: WriteBufferManager,
    memory_bytes: usize,
}

impl Budget {
    pub(super) fn new(options: LocalOptions) -> Self {
        let memory_bytes = options.memory_bytes.max(LocalOptions::MEMORY_BYTES_MIN);
        // A quarter is for sorting (see `load.rs`), the rest for blocks, filters and write
        // buffers, which are charged to the cache.
        let cache = Cache::new_hyper_clock_cache(memory_bytes / 4 * 3, 0);
        let buffers = WriteBufferManager::new_write_buffer_manager_with_cache(
            memory_bytes / 4,
            false,
            cache.clone(),
        );
        Self { cache, buffers, memory_bytes }
    }

    /// Memory for sorting the chunks of a load, bytes.
    pub(super) fn sort_bytes(&self) -> usize {
        self.memory_bytes / 4
    }
}

/// How a database is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// For writing, with a log that survives the death of the process.
    Kept,
    /// For writing, without a log: the files die with the process.
    Private,
    /// As it is now, while another process writes it.
    ReadOnly,
}

/// Open files of a database that is written; one that is only read keeps all open, because the
/// writer deletes files under it.
const OPEN_FILES: i32 = 256;
/// Largest sum of logs, bytes: bounds the time and memory to replay them.
const LOG_BYTES: u64 = 24 << 20;
const BLOCK_BYTES: usize = 8 << 10;
const FILTER_BITS: f64 = 10.0;
const FILE_BYTES: u64 = 32 << 20;

/// Is shown the position of a key that was found, and its value.
pub(super) type EachFound<'a> = dyn FnMut(usize, &[u8]) -> Result<(), IndexError> + 'a;

/// One open RocksDB.
pub(super) struct Db {
    rocks: DB,
    write: WriteOptions,
    /// How files to be ingested must look.
    table_options: Options,
    /// The index's folder, which errors name.
    root: PathBuf,
}

impl Db {
    /// Opens the database in `path`. `log_folder` takes RocksDB's own journal, which must not be
    /// the database's folder when another process writes that.
    pub(super) fn open(
        path: &Path,
        root: &Path,
        log_folder: &Path,
        access: Access,
        budget: &Budget,
    ) -> Result<Self, rocksdb::Error> {
        let options = database_options(log_folder, access, budget);
        let families = || {
            [DEFAULT, CHUNKS, FILES, SKETCHES, MEMOS]
                .map(|name| ColumnFamilyDescriptor::new(name, family_options(&options, budget)))
        };
        let rocks = match access {
            Access::Kept | Access::Private => DB::open_cf_descriptors(&options, path, families())?,
            Access::ReadOnly => {
                DB::open_cf_descriptors_read_only(&options, path, families(), false)?
            }
        };
        let mut write = WriteOptions::default();
        write.disable_wal(access == Access::Private);
        let table_options = family_options(&options, budget);
        Ok(Self { rocks, write, table_options, root: root.to_owned() })
    }

    /// Whether nothing was ever written to it.
    pub(super) fn is_new(&self) -> bool {
        self.rocks.latest_sequence_number() == 0
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    fn family(&self, table: Table) -> Result<&ColumnFamily, IndexError> {
        let name = table.family();
        self.rocks.cf_handle(name).ok_or_else(|| self.corrupt(&format!("no family {name}")))
    }

    /// What an error of RocksDB means. Damage is noted, so that the next open starts empty.
    pub(super) fn fail(&self, error: &rocksdb::Error) -> IndexError {
        let folder = self.root.clone();
        match trouble(&error.kind(), error.as_ref()) {
            Trouble::Space => IndexError::NoSpace { folder },
            Trouble::Damage => self.corrupt(error.as_ref()),
            Trouble::Refusal | Trouble::Other => {
                IndexError::Store { folder, reason: error.as_ref().to_owned() }
            }
        }
    }

    /// Reports damage that RocksDB did not see, and notes it for the next open.
    pub(super) fn corrupt(&self, reason: &str) -> IndexError {
        super::open::note_damage(&self.root, reason);
        IndexError::Corrupt { folder: self.root.clone(), reason: reason.to_owned() }
    }

    pub(super) fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, IndexError> {
        let family = self.family(table)?;
        self.rocks.get_cf(family, table.key(key)).map_err(|error| self.fail(&error))
    }

    /// Looks up keys in ascending order; `each` gets the position and value of those found.
    pub(super) fn get_sorted(
        &self,
        table: Table,
        keys: &[&[u8]],
        each: &mut EachFound<'_>,
    ) -> Result<(), IndexError> {
        let family = self.family(table)?;
        let stored: Vec<Cow<'_, [u8]>> = keys.iter().map(|key| table.key(key)).collect();
        let found =
            self.rocks.batched_multi_get_cf(family, stored.iter().map(|key| key.as_ref()), true);
        for (position, value) in found.into_iter().enumerate() {
            if let Some(value) = value.map_err(|error| self.fail(&error))? {
                each(position, &value)?;
            }
        }
        Ok(())
    }

    /// The pairs of a table whose keys begin with `prefix`, from `from` on.
    pub(super) fn cursor(
        &self,
        table: Table,
        prefix: &[u8],
        from: &[u8],
    ) -> Result<Cursor<'_>, IndexError> {
        let mut read = ReadOptions::default();
        read.set_iterate_range(PrefixRange(table.key(prefix).into_owned()));
        read.fill_cache(false);
        let mut pairs = self.rocks.raw_iterator_cf_opt(self.family(table)?, read);
        pairs.seek(table.key(from));
        Ok(Cursor { db: self, table, pairs })
    }

    pub(super) fn put(
        &self,
        batch: &mut WriteBatch,
        table: Table,
        key: &[u8],
        value: &[u8],
    ) -> Result<(), IndexError> {
        batch.put_cf(self.family(table)?, table.key(key), value);
        Ok(())
    }

    pub(super) fn delete(
        &self,
        batch: &mut WriteBatch,
        table: Table,
        key: &[u8],
    ) -> Result<(), IndexError> {
        batch.delete_cf(self.family(table)?, table.key(key));
        Ok(())
    }

    pub(super) fn write(&self, batch: WriteBatch) -> Result<(), IndexError> {
        self.rocks.write_opt(batch, &self.write).map_err(|error| self.fail(&error))
    }

    /// Writes all files anew, without what was removed or replaced; the log then begins anew too.
    pub(super) fn compact(&self) -> Result<(), IndexError> {
        let mut options = CompactOptions::default();
        // Also of files that nothing was written over since they were taken over as they are.
        options.set_bottommost_level_compaction(BottommostLevelCompaction::ForceOptimized);
        // All of them: what one has not flushed keeps the log of all.
        let families = [Table::Own, Table::Chunks, Table::Files, Table::Sketches, Table::Memos];
        for table in families {
            self.flush(table)?;
        }
        for table in families {
            let family = self.family(table)?;
            self.rocks.compact_range_cf_opt(family, None::<&[u8]>, None::<&[u8]>, &options);
        }
        Ok(())
    }

    /// Makes everything in the table's family durable.
    pub(super) fn flush(&self, table: Table) -> Result<(), IndexError> {
        self.rocks.flush_cf(self.family(table)?).map_err(|error| self.fail(&error))
    }
}

/// Table files built outside the database, to be taken over by it in one step.
pub(super) struct TableFiles<'a> {
    db: &'a Db,
    table: Table,
    folder: &'a Path,
    files: Vec<PathBuf>,
    /// The one being written.
    writer: Option<SstFileWriter<'a>>,
}

impl<'a> TableFiles<'a> {
    /// `folder` must be on the database's file system.
    pub(super) fn new(db: &'a Db, table: Table, folder: &'a Path) -> Self {
        Self { db, table, folder, files: Vec::new(), writer: None }
    }

    /// Adds a pair; keys must ascend.
    pub(super) fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), IndexError> {
        let fail = |error: rocksdb::Error| self.db.fail(&error);
        let writer = match &mut self.writer {
            Some(writer) => writer,
            none => {
                let file = self.folder.join(format!("{LOAD_FILES}{}.sst", self.files.len()));
                let writer = SstFileWriter::create(&self.db.table_options);
                writer.open(&file).map_err(fail)?;
                self.files.push(file);
                none.insert(writer)
            }
        };
        writer.put(self.table.key(key), value).map_err(fail)?;
        if writer.file_size() >= FILE_BYTES { self.finish_file() } else { Ok(()) }
    }

    fn finish_file(&mut self) -> Result<(), IndexError> {
        match self.writer.take() {
            None => Ok(()),
            Some(mut writer) => writer.finish().map_err(|error| self.db.fail(&error)),
        }
    }

    /// Adds everything to the database. When it returns, it is durable.
    pub(super) fn ingest(mut self) -> Result<(), IndexError> {
        self.finish_file()?;
        if self.files.is_empty() {
            return Ok(());
        }
        let mut options = IngestExternalFileOptions::default();
        options.set_move_files(true);
        let family = self.db.family(self.table)?;
        self.db
            .rocks
            .ingest_external_file_cf_opts(family, &options, self.files.clone())
            .map_err(|error| self.db.fail(&error))
    }
}

impl Drop for TableFiles<'_> {
    fn drop(&mut self) {
        for file in &self.files {
            // Those taken over are gone; others are swept by the next open if this fails.
            let _ = std::fs::remove_file(file);
        }
    }
}

/// A key without its tag, and its value.
pub(super) type Pair<'a> = (&'a [u8], &'a [u8]);

/// Walks over pairs of one table in ascending order.
pub(super) struct Cursor<'a> {
    db: &'a Db,
    table: Table,
    pairs: DBRawIterator<'a>,
}

impl Cursor<'_> {
    /// The present pair; `None` at the end.
    pub(super) fn pair(&self) -> Result<Option<Pair<'_>>, IndexError> {
        match self.pairs.item() {
            Some((key, value)) => Ok(Some((self.table.strip(key), value))),
            None => self.pairs.status().map(|()| None).map_err(|error| self.db.fail(&error)),
        }
    }

    pub(super) fn advance(&mut self) {
        // Stepping on from the end is forbidden.
        if self.pairs.valid() {
            self.pairs.next();
        }
    }
}

fn database_options(log_folder: &Path, access: Access, budget: &Budget) -> Options {
    let mut options = Options::default();
    let writes = access != Access::ReadOnly;
    options.create_if_missing(writes);
    options.create_missing_column_families(writes);
    options.set_max_open_files(if writes { OPEN_FILES } else { -1 });
    options.set_max_file_opening_threads(2);
    options.set_max_background_jobs(2);
    options.set_write_buffer_manager(&budget.buffers);
    options.set_max_total_wal_size(LOG_BYTES);
    // After a loss of power the log is believed up to its first gap: writes vanish in order.
    options.set_wal_recovery_mode(DBRecoveryMode::PointInTime);
    // A log that is missing from the middle is damage.
    options.set_track_and_verify_wals_in_manifest(true);
    // The default of 2 MiB for every input of a compaction would count against our cap.
    options.set_compaction_readahead_size(256 << 10);
    options.set_db_log_dir(log_folder);
    options.set_log_level(LogLevel::Warn);
    options.set_keep_log_file_num(2);
    options.set_max_log_file_size(1 << 20);
    options.set_stats_dump_period_sec(0);
    options.set_stats_persist_period_sec(0);
    options
}

/// Tuned for looking up single keys that are hashes: a filter for the many that are absent, small
/// blocks with a hash index for the rest, no compression. Index and filter are cut into
/// partitions that live in the shared cache, so they respect the cap too.
fn family_options(database: &Options, budget: &Budget) -> Options {
    let mut blocks = BlockBasedOptions::default();
    blocks.set_block_cache(&budget.cache);
    blocks.set_block_size(BLOCK_BYTES);
    blocks.set_bloom_filter(FILTER_BITS, false);
    blocks.set_index_type(BlockBasedIndexType::TwoLevelIndexSearch);
    blocks.set_partition_filters(true);
    blocks.set_metadata_block_size(4 << 10);
    blocks.set_cache_index_and_filter_blocks(true);
    blocks.set_cache_index_and_filter_blocks_with_high_priority(true);
    blocks.set_pin_top_level_index_and_filter(true);
    blocks.set_data_block_index_type(DataBlockIndexType::BinaryAndHash);
    blocks.set_data_block_hash_ratio(0.75);
    blocks.set_format_version(5);
    let mut options = database.clone();
    options.set_block_based_table_factory(&blocks);
    options.set_write_buffer_size(budget.memory_bytes / 12);
    options.set_max_write_buffer_number(3);
    options.set_arena_block_size(128 << 10);
    options.set_target_file_size_base(FILE_BYTES);
    options.set_max_bytes_for_level_base(4 * FILE_BYTES);
    options
}

/// What kind of trouble an error of RocksDB is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// The disk is full.
    Space,
    /// The files are not what they should be.
    Damage,
    /// The system does not let us use files that may well be whole.
    Refusal,
    /// Anything else.
    Other,
}

/// RocksDB passes the system's errors on as text only.
pub(super) fn trouble(kind: &ErrorKind, message: &str) -> Trouble {
    let says = |texts: &[&str]| texts.iter().any(|text| message.contains(text));
    if says(&["No space left", "Disk quota exceeded", "NoSpace"]) {
        return Trouble::Space;
    }
    if says(&["Permission denied", "Read-only file system", "Too many open files", "lock file"]) {
        return Trouble::Refusal;
    }
    match kind {
        ErrorKind::Corruption | ErrorKind::NotFound => Trouble::Damage,
        ErrorKind::IOError if says(&["No such file", "Input/output error"]) => Trouble::Damage,
        _ => Trouble::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn troubles_are_told_apart() {
        let full = "IO error: No space left on device: While appending to file: /c/000012.log";
        assert_eq!(trouble(&ErrorKind::IOError, full), Trouble::Space);
        let gone = "IO error: No such file or directory: While open a file: /c/000012.sst";
        assert_eq!(trouble(&ErrorKind::IOError, gone), Trouble::Damage);
        let flipped = "Corruption: block checksum mismatch";
        assert_eq!(trouble(&ErrorKind::Corruption, flipped), Trouble::Damage);
        let refused = "IO error: Permission denied: While open a file for appending: /c/LOG";
        assert_eq!(trouble(&ErrorKind::IOError, refused), Trouble::Refusal);
        assert_eq!(trouble(&ErrorKind::Aborted, "Operation aborted: x"), Trouble::Other);
    }
}
