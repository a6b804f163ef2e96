//! Writing an object so that it is whole and right under its name once the put returns.

use std::sync::atomic::Ordering;

use bytes::Bytes;
use cairn_format::names::ObjectName;
use md5::{Digest as _, Md5};
use opendal::options::WriteOptions;
use opendal::{ErrorKind, Metadata};

use super::errors::refuses_condition;
use super::{ObjectStore, RequestKind};
use crate::store::error::StoreError;
use crate::store::{Found, Put, Store as _, judge_existing};

/// Length of an MD5 sum, hexadecimal digits.
const MD5_DIGITS: usize = 32;

/// How a write ended that the service answered.
enum Wrote {
    /// The object is there, with this entity tag.
    Done(Option<String>),
    /// The name was taken.
    Taken,
    /// The service knows no conditional writes.
    Unconditional,
}

impl ObjectStore {
    /// One attempt of a put.
    pub(super) fn put_once(&self, name: &ObjectName, data: &[u8]) -> Result<Put, StoreError> {
        // Bytes that fit their name may replace whatever has it: then the condition of the write
        // asks in the same request whether there is anything.
        let fits = name.content_hash().is_some_and(|hash| *blake3::hash(data).as_bytes() == hash);
        if fits && self.is_conditional() && !self.writes_in_place {
            match self.write(name, data, true)? {
                Wrote::Done(tag) => {
                    return self.confirm(name, data, tag.as_deref()).map(|()| Put::Written);
                }
                Wrote::Taken | Wrote::Unconditional => {}
            }
        }
        let found = self.existing(name, data)?;
        if found == Some(Found::Same) {
            return Ok(Put::AlreadyThere);
        }
        let new = found.is_none() && name.content_hash().is_none();
        let wrote = match self.write(name, data, new)? {
            Wrote::Unconditional => self.write(name, data, false)?,
            wrote => wrote,
        };
        match wrote {
            Wrote::Done(tag) => self.confirm(name, data, tag.as_deref()).map(|()| Put::Written),
            Wrote::Taken | Wrote::Unconditional => {
                self.confirm(name, data, None).map(|()| Put::AlreadyThere)
            }
        }
    }

    fn is_conditional(&self) -> bool {
        self.operator.info().capability().write_with_if_not_exists
            && !self.unconditional.load(Ordering::Relaxed)
    }

    /// Compares the object that has the name, if any, with what is to be written.
    fn existing(&self, name: &ObjectName, data: &[u8]) -> Result<Option<Found>, StoreError> {
        let len = data.len() as u64;
        let same = match self.stat(name) {
            Ok(bytes) if bytes == len => match self.get(name, len) {
                Ok(stored) => stored == data,
                Err(StoreError::TooLarge { .. }) => false,
                Err(StoreError::NotFound { .. }) => return Ok(None),
                Err(error) => return Err(error),
            },
            Ok(_) => false,
            Err(StoreError::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        judge_existing(|| self.place(name), name, data, same).map(Some)
    }

    fn write(&self, name: &ObjectName, data: &[u8], new: bool) -> Result<Wrote, StoreError> {
        let path = name.to_string();
        let conditional = new && self.is_conditional();
        let options = WriteOptions { if_not_exists: conditional, ..WriteOptions::default() };
        let bytes = Bytes::copy_from_slice(data);
        let request = async {
            match self.operator.write_options(&path, bytes, options).await {
                Ok(metadata) => Ok(Wrote::Done(tag_of(&metadata))),
                Err(error) if conditional => match error.kind() {
                    ErrorKind::ConditionNotMatch | ErrorKind::AlreadyExists => Ok(Wrote::Taken),
                    _ if refuses_condition(&error) => {
                        self.unconditional.store(true, Ordering::Relaxed);
                        Ok(Wrote::Unconditional)
                    }
                    _ => Err(error),
                },
                Err(error) => Err(error),
            }
        };
        self.wait(RequestKind::Write, || self.place(name), data.len() as u64, request)
    }

    /// Makes sure that what lies under the name is what was sent. By its entity tag, where that is
    /// an MD5 sum, without another request; else by its size. `format`, which another may have
    /// written at the same moment, is compared.
    fn confirm(&self, name: &ObjectName, data: &[u8], tag: Option<&str>) -> Result<(), StoreError> {
        let sent = data.len() as u64;
        if name.content_hash().is_none() {
            let same = self.stat(name)? == sent && self.get(name, sent)? == data;
            return judge_existing(|| self.place(name), name, data, same).map(|_| ());
        }
        if let Some(tag) = tag
            && !self.tags_are_other.load(Ordering::Relaxed)
        {
            if tag == hexadecimal(&Md5::digest(data)) {
                return Ok(());
            }
            // Encrypting services make tags that look the same and are none: then the object is
            // right, and no tag is believed any more.
            if self.get(name, sent)? != data {
                return Err(StoreError::Altered { place: self.place(name) });
            }
            self.tags_are_other.store(true, Ordering::Relaxed);
            return Ok(());
        }
        let found = self.stat(name)?;
        if found != sent {
            return Err(StoreError::BadWrite { place: self.place(name), sent, found });
        }
        Ok(())
    }
}

/// The entity tag in lower case, if it can be an MD5 sum.
fn tag_of(metadata: &Metadata) -> Option<String> {
    let tag = metadata.etag()?.trim_matches('"').to_ascii_lowercase();
    (tag.len() == MD5_DIGITS && tag.bytes().all(|byte| byte.is_ascii_hexdigit())).then_some(tag)
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
