//! For stores that have another one inside. A method that such a store leaves to the trait would answer
//! that there is nothing, whatever is inside.

pub use cairn_format::names::{Folder, ObjectName};

pub use super::lock::{KeptFor, LockMode, Locked};
pub use super::profile::Profile;
pub use super::traffic::Traffic;
pub use super::{Keeping, Purged, Store, StoreError};

/// What a store answers.
pub type Answer<T> = Result<T, StoreError>;

/// Inside of `impl Store`: the methods of [`Store`] but for those that read, write, list and delete
/// objects, answered by the store that an expression names.
#[doc(hidden)]
#[macro_export]
macro_rules! forward_to_store {
    ($this:ident => $to:expr) => {
        fn location(&$this) -> String {
            $to.location()
        }

        fn is_near(&$this) -> bool {
            $to.is_near()
        }

        fn traffic(&$this) -> Option<$crate::store::forward::Traffic> {
            $to.traffic()
        }

        fn probe(
            &$this,
        ) -> $crate::store::forward::Answer<Option<$crate::store::forward::Profile>> {
            $to.probe()
        }

        fn kept(
            &$this,
            folder: $crate::store::forward::Folder,
            each: &mut dyn FnMut($crate::store::forward::ObjectName),
        ) -> $crate::store::forward::Answer<$crate::store::forward::Keeping> {
            $to.kept(folder, each)
        }

        fn purge(
            &$this,
            folder: $crate::store::forward::Folder,
            may_go: &dyn Fn(&$crate::store::forward::ObjectName) -> bool,
        ) -> $crate::store::forward::Answer<$crate::store::forward::Purged> {
            $to.purge(folder, may_go)
        }

        fn kept_for(&$this) -> $crate::store::forward::Answer<$crate::store::forward::KeptFor> {
            $to.kept_for()
        }

        fn locked(
            &$this,
            name: &$crate::store::forward::ObjectName,
        ) -> $crate::store::forward::Answer<$crate::store::forward::Locked> {
            $to.locked(name)
        }

        fn lock(
            &$this,
            name: &$crate::store::forward::ObjectName,
            until_ms: i64,
            mode: $crate::store::forward::LockMode,
        ) -> $crate::store::forward::Answer<()> {
            $to.lock(name, until_ms, mode)
        }

        fn unfinished(
            &$this,
            each: &mut dyn FnMut(&str, u64),
        ) -> $crate::store::forward::Answer<()> {
            $to.unfinished(each)
        }

        fn now_ms(&$this) -> $crate::store::forward::Answer<Option<i64>> {
            $to.now_ms()
        }

        fn taken_ms(
            &$this,
            name: &$crate::store::forward::ObjectName,
        ) -> $crate::store::forward::Answer<Option<i64>> {
            $to.taken_ms(name)
        }

        fn sweep(
            &$this,
            is_dead: &dyn Fn(&str) -> bool,
        ) -> $crate::store::forward::Answer<u64> {
            $to.sweep(is_dead)
        }
    };
}
