//! Where the signers of the ecosystems look for credentials: around the process, as their other tools
//! do, or, for a place with settings of its own, at those and nowhere else.

use std::collections::HashMap;
use std::path::PathBuf;

use reqsign_core::{Context, Env, OsEnv, ProvideCredential, Result};

use crate::store::options::Surroundings;

/// As signers ask for variables.
impl Env for Surroundings {
    fn var(&self, key: &str) -> Option<String> {
        match self.named().get(key) {
            Some(value) => Some(value.clone()).filter(|value| !value.is_empty()),
            None if self.is_closed() => None,
            None => OsEnv.var(key),
        }
    }

    fn vars(&self) -> HashMap<String, String> {
        let mut all = if self.is_closed() { HashMap::new() } else { OsEnv.vars() };
        all.extend(self.named().iter().map(|(name, value)| (name.clone(), value.clone())));
        all.retain(|name, value| !value.is_empty() || !self.named().contains_key(name));
        all
    }

    fn home_dir(&self) -> Option<PathBuf> {
        if self.is_closed() { self.var("HOME").map(PathBuf::from) } else { OsEnv.home_dir() }
    }
}

/// Finds what `inner` finds in these surroundings, whatever those of the signer are.
#[derive(Debug)]
pub(super) struct Within<P> {
    surroundings: Surroundings,
    inner: P,
}

impl<P> Within<P> {
    pub(super) const fn new(surroundings: Surroundings, inner: P) -> Self {
        Self { surroundings, inner }
    }
}

impl<P: ProvideCredential> ProvideCredential for Within<P> {
    type Credential = P::Credential;

    async fn provide_credential(&self, context: &Context) -> Result<Option<P::Credential>> {
        let context = context.clone().with_env(self.surroundings.clone());
        self.inner.provide_credential(&context).await
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::store::options::RemoteOptions;

    /// Cargo sets it for every test.
    const OF_PROCESS: &str = "CARGO_MANIFEST_DIR";

    fn named(given: &[(&str, &str)]) -> BTreeMap<String, String> {
        given.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn a_place_alone_sees_nothing_of_the_process() {
        let seen =
            RemoteOptions::default().alone(named(&[("AWS_REGION", "here"), ("AWS_PROFILE", "")]));
        let seen = seen.surroundings();
        assert_eq!(seen.var("AWS_REGION").as_deref(), Some("here"));
        assert_eq!((seen.var(OF_PROCESS), seen.var("AWS_PROFILE")), (None, None));
        assert_eq!(seen.vars(), HashMap::from([("AWS_REGION".to_owned(), "here".to_owned())]));
        assert_eq!(seen.home_dir(), None);
        let at_home = RemoteOptions::default().alone(named(&[("HOME", "/home/u")]));
        assert_eq!(at_home.surroundings().home_dir(), Some("/home/u".into()));
    }

    #[test]
    fn other_places_see_the_process_and_what_is_said_instead() {
        let seen = RemoteOptions::default();
        assert_eq!(seen.surroundings().var(OF_PROCESS), OsEnv.var(OF_PROCESS));
        assert_eq!(seen.surroundings().vars(), OsEnv.vars());
        let seen = seen.instead(named(&[("AWS_REGION", "away"), (OF_PROCESS, "")]));
        assert_eq!(seen.surroundings().vars().get(OF_PROCESS), None);
        assert_eq!(seen.surroundings().var(OF_PROCESS), None);
        assert_eq!(seen.surroundings().vars()["AWS_REGION"], "away");
        assert_eq!(seen.surroundings().home_dir(), OsEnv.home_dir());
    }
}
