//! Ctrl-C and its kin: the first asks the operation to end cleanly, the second ends the process
//! at once. Either is safe for the repository, whose objects are written whole or not at all.

use std::ffi::c_int;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;

use crate::ui::errors::CliError;

const WATCHED: [c_int; 3] = [SIGINT, SIGTERM, SIGHUP];

/// Whether, and by which signal, the operation was asked to end.
#[derive(Clone, Debug, Default)]
pub struct Interrupt {
    cancelled: Arc<AtomicBool>,
    signal: Arc<AtomicUsize>,
}

impl Interrupt {
    /// Begins to watch. Not before secrets are read: until then a signal ends the process.
    ///
    /// # Errors
    /// When the handlers cannot be set.
    pub fn watch(&self) -> Result<(), CliError> {
        for signal in WATCHED {
            let number = usize::try_from(signal).unwrap_or_default();
            let status = 128 + signal;
            // The order matters: the flag is still unset when the first signal passes here.
            flag::register_conditional_shutdown(signal, status, Arc::clone(&self.cancelled))
                .and_then(|_| flag::register(signal, Arc::clone(&self.cancelled)))
                .and_then(|_| flag::register_usize(signal, Arc::clone(&self.signal), number))
                .map_err(CliError::Signals)?;
        }
        Ok(())
    }

    /// The flag for the engine.
    #[must_use]
    pub fn flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.cancelled)
    }

    /// The signal that arrived.
    #[must_use]
    pub fn signal(&self) -> Option<u8> {
        let signal = self.signal.load(Ordering::Relaxed);
        u8::try_from(signal).ok().filter(|signal| *signal != 0)
    }
}
