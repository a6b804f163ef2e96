//! Writing an object so that it is whole and right under its name once the put returns.

use std::cell::RefCell;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use cairn_format::names::ObjectName;
use md5::{Digest as _, Md5};
use opendal::options::WriteOptions;
use opendal::{ErrorKind, Metadata};

use super::errors::refuses_condition;
use super::unfinished::FOLDER;
use super::{ObjectStore, RequestKind};
use crate::store::error::StoreError;
use crate::store::{Found, Put, Store as _, judge_existing};

/// Length of an MD5 sum, hexadecimal digits.
const MD5_DIGITS: usize = 32;

/// What the names of objects begin with until they are whole, where a service shows them before.
pub(super) const ASIDE: &str = "write-";

/// How a write ended that the service answered.
enum Wrote {
    /// The object is there.
    Done(Receipt),
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
        let cheap = !self.writes_in_place && !self.condition_is_dear;
        if fits && cheap && self.is_conditional() {
            match self.write(name, data, true)? {
                Wrote::Done(receipt) => {
                    return self.confirm(name, data, &receipt).map(|()| Put::Written);
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
            Wrote::Done(receipt) => self.confirm(name, data, &receipt).map(|()| Put::Written),
            Wrote::Taken | Wrote::Unconditional => {
                self.confirm(name, data, &Receipt::default()).map(|()| Put::AlreadyThere)
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
        if self.writes_in_place && !conditional {
            return self.write_aside(name, data);
        }
        let options = WriteOptions { if_not_exists: conditional, ..WriteOptions::default() };
        let bytes = Bytes::copy_from_slice(data);
        let body = bytes.clone();
        let request = SENT_SUM.scope(RefCell::default(), async {
            match self.operator.write_options(&path, bytes, options).await {
                Ok(metadata) => {
                    // The sum is of the copy that was sent: of `data` only if that is still the same.
                    let sent = SENT_SUM.with(RefCell::take).filter(|_| body == data);
                    Ok(Wrote::Done(Receipt { sent, ..Receipt::of(&metadata) }))
                }
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
        });
        self.wait(RequestKind::Write, || self.place(name), data.len() as u64, request)
    }

    /// Writes under a name of no object, and renames when it is whole. What is left behind by a
    /// writer that dies is passed over by listings, and swept some day.
    fn write_aside(&self, name: &ObjectName, data: &[u8]) -> Result<Wrote, StoreError> {
        let sent = data.len() as u64;
        let random = getrandom::u64().unwrap_or_default();
        let aside = format!("{FOLDER}{ASIDE}{random:016x}");
        let place = || self.place(name);
        let written = self
            .wait(RequestKind::Write, place, sent, async {
                self.operator.write(&aside, Bytes::copy_from_slice(data)).await
            })
            .and_then(|_| self.wait(RequestKind::Look, place, 0, self.operator.stat(&aside)))
            .and_then(|metadata| match metadata.content_length() {
                found if found == sent => Ok(()),
                found => Err(StoreError::BadWrite { place: place(), sent, found }),
            })
            .and_then(|()| self.bring_into_place(&aside, name));
        if let Err(error) = written {
            // In vain is no harm: nobody reads it.
            let _deleted = self.wait(RequestKind::Delete, place, 0, self.operator.delete(&aside));
            return Err(match error {
                // What is absent is what was to be renamed.
                StoreError::NotFound { place } => StoreError::BadWrite { place, sent, found: 0 },
                error => error,
            });
        }
        Ok(Wrote::Done(Receipt::default()))
    }

    /// Renames, which makes the folders that are missing. Apache denies that to whoever makes a folder
    /// at the moment in which another does: then it is there by the next attempt. What is denied for
    /// another reason is denied again.
    fn bring_into_place(&self, aside: &str, name: &ObjectName) -> Result<(), StoreError> {
        let path = name.to_string();
        let rename = || {
            let rename = async { self.operator.rename(aside, &path).await };
            self.wait(RequestKind::Other, || self.place(name), 0, rename)
        };
        let mut outcome = rename();
        // Once for each folder on the way.
        for _ in path.matches('/') {
            if !matches!(outcome, Err(StoreError::Denied { .. })) {
                break;
            }
            outcome = rename();
        }
        outcome
    }

    /// Makes sure that what lies under the name is what was sent. By the MD5 sum that the
    /// service tells, or its entity tag where that is one, without another request; else by its size. `format`, which another may have
    /// written at the same moment, is compared.
    fn confirm(&self, name: &ObjectName, data: &[u8], receipt: &Receipt) -> Result<(), StoreError> {
        let sent = data.len() as u64;
        if name.content_hash().is_none() {
            let same = self.stat(name)? == sent && self.get(name, sent)? == data;
            return judge_existing(|| self.place(name), name, data, same).map(|_| ());
        }
        // Most of what a write costs this machine: computed once, here or for the request.
        let sum_of_data = || receipt.sent.clone().unwrap_or_else(|| base64(&Md5::digest(data)));
        if let Some(sum) = &receipt.sum {
            return match *sum == sum_of_data() {
                true => Ok(()),
                false => Err(StoreError::Altered { place: self.place(name) }),
            };
        }
        if let Some(tag) = &receipt.tag
            && !self.tags_are_other.load(Ordering::Relaxed)
        {
            if *tag == sum_of_data() {
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

/// What a service tells of what it wrote.
#[derive(Default)]
struct Receipt {
    /// Its MD5 sum, in base 64.
    sum: Option<String>,
    /// The entity tag in base 64, if it can be an MD5 sum.
    tag: Option<String>,
    /// The MD5 sum of what was sent, in base 64, if the request had one.
    sent: Option<String>,
}

tokio::task_local! {
    /// The MD5 sum that the request of the write under way has, in base 64.
    static SENT_SUM: RefCell<Option<String>>;
}

/// Notes the MD5 sum, in base 64, of the body of a request that is being sent; of no effect outside
/// of a write.
pub(in crate::store) fn note_sent_sum(sum: &str) {
    let _outside = SENT_SUM.try_with(|sent| sent.replace(Some(sum.to_owned())));
}

impl Receipt {
    fn of(metadata: &Metadata) -> Self {
        Self {
            sum: metadata.content_md5().map(str::to_owned).filter(|sum| !sum.is_empty()),
            tag: metadata.etag().and_then(|tag| sum_of_tag(tag.trim_matches('"'))),
            sent: None,
        }
    }
}

/// The sum that an entity tag is, in base 64, if it can be one.
fn sum_of_tag(tag: &str) -> Option<String> {
    let digit = |digit: &u8| char::from(*digit).to_digit(16);
    let digits = tag.bytes().collect::<Vec<_>>();
    let pairs = digits.chunks_exact(2).map(|pair| match pair {
        [high, low] => u8::try_from(digit(high)? << 4 | digit(low)?).ok(),
        _ => None,
    });
    let bytes = pairs.collect::<Option<Vec<_>>>().filter(|_| tag.len() == MD5_DIGITS)?;
    Some(base64(&bytes))
}

/// Base 64 with padding.
pub(in crate::store) fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digit = |value: u32| DIGITS.get(value as usize & 63).copied().map_or('=', char::from);
    let mut text = String::new();
    for triple in bytes.chunks(3) {
        let byte = |index: usize| triple.get(index).copied().map_or(0, u32::from);
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        let digits = [bits >> 18, bits >> 12, bits >> 6, bits];
        text.extend(digits.into_iter().take(triple.len() + 1).map(digit));
        text.extend(std::iter::repeat_n('=', 3 - triple.len()));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_written_as_services_do() {
        // RFC 4648 §10, and the sum of nothing.
        let cases =
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")];
        for (plain, text) in cases {
            assert_eq!(base64(plain.as_bytes()), text);
        }
        assert_eq!(base64(&Md5::digest(b"")), "1B2M2Y8AsgTpgAmY7PhCfg==");
        let sum = Some("1B2M2Y8AsgTpgAmY7PhCfg==".to_owned());
        assert_eq!(sum_of_tag("d41d8cd98f00b204e9800998ecf8427e"), sum);
        assert_eq!(sum_of_tag("D41D8CD98F00B204E9800998ECF8427E"), sum);
        // Of parts, too short, no digits.
        for other in
            ["d41d8cd98f00b204e9800998ecf8427e-2", "d41d", "", "g41d8cd98f00b204e9800998ecf8427e"]
        {
            assert_eq!(sum_of_tag(other), None, "{other}");
        }
    }
}
