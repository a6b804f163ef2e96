//! Services whose puts on a condition are not what they should be, below the engine's real code for
//! such services.

use std::sync::Arc;

use cairn_engine::store::object::ObjectStore;
use cairn_engine::store::options::TimeLimits;
use opendal::raw::{
    Layer, OpCopy, OpCreateDir, OpList, OpPresign, OpRead, OpRename, OpStat, OpWrite, RpCreateDir,
    RpPresign, RpRename, RpStat, Service, ServiceInfo, Servicer, oio,
};
use opendal::{
    Buffer, Capability, Error, ErrorKind, Metadata, MetadataBuilder, OperationContext, Operator,
    Result,
};

/// What becomes of the condition that no object of that name may be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// It is kept.
    Kept,
    /// It is kept, and listings lack everything.
    Unlisted,
    /// The service knows no conditions.
    Unknown,
    /// It accepts the condition, and replaces what is there.
    Ignored,
    /// It says that it wrote, and leaves what is there.
    SaysDone,
}

/// A store over a service with such conditions, and one over the same objects without fault.
///
/// # Panics
/// When opendal refuses to keep objects in memory.
#[must_use]
pub fn services(condition: Condition) -> (ObjectStore, ObjectStore) {
    let memory = Operator::new(opendal::services::Memory::default()).expect("memory");
    let store = |operator| ObjectStore::new(operator, "memory", TimeLimits::default());
    (store(memory.clone().layer(Conditions(condition))), store(memory))
}

/// A store, and what its service holds besides objects.
///
/// # Panics
/// When opendal refuses to keep objects in memory.
#[must_use]
pub fn service_and_way() -> (ObjectStore, Holds) {
    let memory = Operator::new(opendal::services::Memory::default()).expect("memory");
    let store = ObjectStore::new(memory.clone(), "memory", TimeLimits::default());
    (store, Holds(memory))
}

/// What a service holds, whatever it is called.
#[derive(Debug)]
pub struct Holds(Operator);

impl Holds {
    /// Writes something.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn write(&self, name: &str, data: Vec<u8>) {
        at_once(self.0.write(name, data)).expect("it is written");
    }

    /// The names below a folder.
    ///
    /// # Panics
    /// When they cannot be listed.
    #[must_use]
    pub fn names(&self, folder: &str) -> Vec<String> {
        let listed = at_once(self.0.list(folder)).expect("a list");
        let files = listed.into_iter().map(|entry| entry.path().to_owned());
        files.filter(|path| !path.ends_with('/')).collect()
    }
}

/// What a service in memory answers, which never waits.
fn at_once<T>(request: impl Future<Output = T>) -> T {
    let mut request = std::pin::pin!(request);
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    loop {
        if let std::task::Poll::Ready(answer) = request.as_mut().poll(&mut context) {
            return answer;
        }
    }
}

#[derive(Debug)]
struct Conditions(Condition);

impl Layer for Conditions {
    fn apply_service(&self, inner: Servicer) -> Servicer {
        Arc::new(Conditional { inner, condition: self.0 })
    }
}

#[derive(Debug)]
struct Conditional {
    inner: Servicer,
    condition: Condition,
}

impl Service for Conditional {
    type Reader = oio::Reader;
    type Writer = oio::Writer;
    type Lister = oio::Lister;
    type Deleter = oio::Deleter;
    type Copier = oio::Copier;
    type Composer = oio::Composer;

    fn info(&self) -> ServiceInfo {
        self.inner.info()
    }

    fn capability(&self) -> Capability {
        let mut capability = self.inner.capability();
        capability.write_with_if_not_exists = self.condition != Condition::Unknown;
        capability
    }

    async fn create_dir(
        &self,
        context: &OperationContext,
        path: &str,
        arguments: OpCreateDir,
    ) -> Result<RpCreateDir> {
        self.inner.create_dir(context, path, arguments).await
    }

    async fn stat(&self, context: &OperationContext, path: &str, how: OpStat) -> Result<RpStat> {
        self.inner.stat(context, path, how).await
    }

    fn read(&self, context: &OperationContext, path: &str, how: OpRead) -> Result<oio::Reader> {
        self.inner.read(context, path, how)
    }

    fn write(&self, context: &OperationContext, path: &str, how: OpWrite) -> Result<oio::Writer> {
        match self.condition {
            Condition::Kept | Condition::Unlisted | Condition::Unknown => {
                self.inner.write(context, path, how)
            }
            Condition::Ignored => self.inner.write(context, path, OpWrite::new()),
            Condition::SaysDone => {
                let inner = self.inner.write(context, path, how)?;
                Ok(Box::new(SaysDone { inner }))
            }
        }
    }

    fn delete(&self, context: &OperationContext) -> Result<oio::Deleter> {
        self.inner.delete(context)
    }

    fn list(&self, context: &OperationContext, path: &str, how: OpList) -> Result<oio::Lister> {
        match self.condition {
            Condition::Unlisted => Ok(Box::new(Nothing)),
            _ => self.inner.list(context, path, how),
        }
    }

    fn copy(
        &self,
        context: &OperationContext,
        from: &str,
        to: &str,
        how: OpCopy,
    ) -> Result<oio::Copier> {
        self.inner.copy(context, from, to, how)
    }

    async fn rename(
        &self,
        context: &OperationContext,
        from: &str,
        to: &str,
        how: OpRename,
    ) -> Result<RpRename> {
        self.inner.rename(context, from, to, how).await
    }

    async fn presign(
        &self,
        context: &OperationContext,
        path: &str,
        how: OpPresign,
    ) -> Result<RpPresign> {
        self.inner.presign(context, path, how).await
    }
}

/// A listing of nothing.
struct Nothing;

impl oio::List for Nothing {
    async fn next(&mut self) -> Result<Option<oio::Entry>> {
        Ok(None)
    }
}

struct SaysDone {
    inner: oio::Writer,
}

impl oio::Write for SaysDone {
    async fn write(&mut self, data: Buffer) -> Result<()> {
        self.inner.write(data).await
    }

    async fn close(&mut self) -> Result<Metadata> {
        match self.inner.close().await {
            Err(error) if is_taken(&error) => Ok(MetadataBuilder::file(0).build()),
            answer => answer,
        }
    }

    async fn abort(&mut self) -> Result<()> {
        self.inner.abort().await
    }
}

fn is_taken(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::ConditionNotMatch | ErrorKind::AlreadyExists)
}
