//! The registry as everybody reads it: the newest known snapshot, kept fresh in the background.

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use feast_core::{Error, ErrorCode, RegistryChanges, RegistrySnapshot, RegistryStore, RegistryVersion, Result};
use tokio::runtime::Handle;
use tokio::task::spawn_blocking;

/// How often a commit starts over when others commit at the same time.
pub const COMMIT_ATTEMPTS: u32 = 50;

/// Longest pause between two attempts to commit.
const LONGEST_PAUSE: Duration = Duration::from_millis(200);

/// Shortest pause between two background refreshes after a failed one.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// After how long a background refresh that has not ended is told as a failure.
const SLOW_REFRESH: Duration = Duration::from_secs(5);

/// No time.
const NEVER: u64 = u64::MAX;

/// The cached registry. Clones share the cache.
///
/// Readers get an immutable snapshot by a pointer load. They wait for the store only while there is no snapshot yet.
#[derive(Clone)]
pub struct RegistryHandle(Arc<Shared>);

struct Shared {
    store: Arc<dyn RegistryStore>,
    ttl: Option<Duration>,
    versions_have_tables: bool,
    current: ArcSwapOption<RegistrySnapshot>,
    /// One read of the store at a time: the later one sees the newer state and is the one that stays.
    loading: tokio::sync::Mutex<()>,
    /// Whether a background refresh is under way.
    refreshing: AtomicBool,
    /// Milliseconds after `opened` at which the oldest one under way began, whoever waits for it; `NEVER`: there is none.
    began: AtomicU64,
    opened: Instant,
    /// Milliseconds after `opened` at which the snapshot was last known to be the stored state.
    checked: AtomicU64,
    /// Milliseconds after `opened` before which no background refresh starts again.
    not_before: AtomicU64,
    failure: Mutex<Option<(String, Instant)>>,
}

/// What `/ready` wants to know.
#[derive(Debug, Clone)]
pub struct RegistryHealth {
    /// Version of the snapshot; `None` before the first one, and for a registry that does not exist yet.
    pub version: Option<RegistryVersion>,
    /// Time since the snapshot was last known to be the stored state; `None` before the first one.
    pub age: Option<Duration>,
    /// Why the last refresh failed and how long ago, or that the one under way takes long; `None` when all is well.
    pub failure: Option<(String, Duration)>,
}

impl fmt::Debug for RegistryHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegistryHandle")
            .field("store", &self.0.store)
            .field("ttl", &self.0.ttl)
            .field("health", &self.health())
            .finish()
    }
}

impl RegistryHandle {
    /// A handle whose snapshots [`snapshot_checked`](Self::snapshot_checked) refreshes when they are older than
    /// `ttl`; never by itself with `None`. Nothing is read yet.
    pub fn new(store: Arc<dyn RegistryStore>, ttl: Option<Duration>) -> Self {
        Self::with_versions(store, ttl, false)
    }

    /// [`new`](Self::new), whose snapshots say whether each version of a view has a table of its own online.
    pub fn with_versions(store: Arc<dyn RegistryStore>, ttl: Option<Duration>, versions_have_tables: bool) -> Self {
        Self(Arc::new(Shared {
            store,
            ttl,
            versions_have_tables,
            current: ArcSwapOption::empty(),
            loading: tokio::sync::Mutex::new(()),
            refreshing: AtomicBool::new(false),
            began: AtomicU64::new(NEVER),
            opened: Instant::now(),
            checked: AtomicU64::new(0),
            not_before: AtomicU64::new(0),
            failure: Mutex::new(None),
        }))
    }

    /// The store behind the cache.
    pub fn store(&self) -> &Arc<dyn RegistryStore> {
        &self.0.store
    }

    /// Whether each version of a view has a table of its own in the online store.
    pub fn versions_have_tables(&self) -> bool {
        self.0.versions_have_tables
    }

    /// The newest known snapshot; `None` before the first one.
    pub fn known(&self) -> Option<Arc<RegistrySnapshot>> {
        self.0.current.load_full()
    }

    /// The newest known snapshot; the first call reads the store.
    ///
    /// # Errors
    /// Those of [`RegistryStore::load`], while there is no snapshot.
    pub async fn snapshot(&self) -> Result<Arc<RegistrySnapshot>> {
        match self.0.current.load_full() {
            Some(snapshot) => Ok(snapshot),
            None => self.refresh().await,
        }
    }

    /// The newest known snapshot, without waiting; when it is older than the ttl, a refresh is started in the
    /// background. A refresh that fails keeps the snapshot and shows in [`health`](Self::health), as does one that finds
    /// no registry any more: whoever serves goes on serving.
    ///
    /// # Errors
    /// Those of [`RegistryStore::load`], while there is no snapshot.
    pub async fn snapshot_checked(&self) -> Result<Arc<RegistrySnapshot>> {
        let Some(snapshot) = self.0.current.load_full() else { return self.refresh().await };
        if self.0.is_due() && !self.0.refreshing.swap(true, Ordering::AcqRel) {
            let refreshing = Refreshing(Arc::clone(&self.0));
            let handle = self.clone();
            // Decoding a registry takes too long for a thread that answers requests.
            let runtime = Handle::current();
            spawn_blocking(move || {
                let _refreshing = refreshing;
                if let Err(error) = runtime.block_on(handle.refresh_in_background()) {
                    tracing::warn!(registry = %handle.0.store, %error, "the registry could not be refreshed");
                }
            });
        }
        Ok(snapshot)
    }

    /// The stored state of now. The store is read in full only when its version is not the known one.
    ///
    /// # Errors
    /// Those of [`RegistryStore::load`]; the known snapshot stays then.
    pub async fn refresh(&self) -> Result<Arc<RegistrySnapshot>> {
        self.refresh_if(|_, _| true).await
    }

    /// [`refresh`](Self::refresh) for whoever serves: a registry that is gone leaves the known snapshot.
    ///
    /// # Errors
    /// Those of [`RegistryStore::load`], and `Unavailable` for a registry that is gone.
    pub async fn refresh_in_background(&self) -> Result<Arc<RegistrySnapshot>> {
        let _begun = Begun::now(&self.0);
        self.refresh_if(|known, loaded| known.version.is_none() || loaded.version.is_some()).await
    }

    /// Takes the stored state unless it is refused, given what is known.
    async fn refresh_if(
        &self,
        accept: impl FnOnce(&RegistrySnapshot, &RegistrySnapshot) -> bool,
    ) -> Result<Arc<RegistrySnapshot>> {
        let _loading = self.0.loading.lock().await;
        let loaded = self.0.load(accept).await;
        self.0.remember(loaded.as_ref().err());
        loaded
    }

    /// Commits changes on top of `base`, and reads the registry anew.
    ///
    /// # Errors
    /// Those of [`RegistryStore::commit`].
    pub async fn commit(&self, base: Option<&RegistryVersion>, changes: &RegistryChanges) -> Result<RegistryVersion> {
        let version = self.0.store.commit(base, changes).await?;
        // The commit stands, whatever becomes of reading it back.
        if let Err(error) = self.refresh().await {
            tracing::warn!(registry = %self.0.store, %error, "the registry could not be read after a commit");
        }
        Ok(version)
    }

    /// Commits the changes that a function derives from the stored state, and returns the state after it. When
    /// somebody else commits in between, the function is called again with the new state. No changes: no commit.
    ///
    /// # Errors
    /// Those of the function and of the store; `Conflict` when others commit all the time.
    pub async fn commit_with<F>(&self, mut changes: F) -> Result<Arc<RegistrySnapshot>>
    where
        F: FnMut(&RegistrySnapshot) -> Result<RegistryChanges> + Send,
    {
        for attempt in 1..=COMMIT_ATTEMPTS {
            let snapshot = self.refresh().await?;
            let changes = changes(&snapshot)?;
            if changes.changes.is_empty() {
                return Ok(snapshot);
            }
            match self.0.store.commit(snapshot.version.as_ref(), &changes).await {
                Ok(_) => return self.refresh().await,
                Err(error) if error.code() == ErrorCode::Conflict => pause(attempt).await,
                Err(error) => return Err(error),
            }
        }
        Err(Error::new(
            ErrorCode::Conflict,
            format!("{} kept changing: {COMMIT_ATTEMPTS} attempts to commit met other commits", self.0.store),
        )
        .with_hint("try again when fewer processes change the registry"))
    }

    /// Removes the registry with all its projects.
    ///
    /// # Errors
    /// Those of [`RegistryStore::teardown`].
    pub async fn teardown(&self) -> Result<()> {
        self.0.store.teardown().await?;
        self.refresh().await.map(drop)
    }

    /// How fresh the snapshot is and whether the last refresh failed.
    pub fn health(&self) -> RegistryHealth {
        let snapshot = self.0.current.load_full();
        let checked = Duration::from_millis(self.0.checked.load(Ordering::Acquire));
        RegistryHealth {
            age: snapshot.is_some().then(|| self.0.opened.elapsed().saturating_sub(checked)),
            version: snapshot.and_then(|snapshot| snapshot.version.clone()),
            failure: self
                .0
                .slow()
                .or_else(|| self.0.failure().as_ref().map(|(told, when)| (told.clone(), when.elapsed()))),
        }
    }
}

impl Shared {
    async fn load(
        &self,
        accept: impl FnOnce(&RegistrySnapshot, &RegistrySnapshot) -> bool,
    ) -> Result<Arc<RegistrySnapshot>> {
        let started = Instant::now();
        let known = self.current.load_full();
        let mut snapshot = match &known {
            Some(known) => match self.store.load_newer(known).await? {
                Some(newer) => newer,
                None => return Ok(Arc::clone(known)),
            },
            None => self.store.load().await?,
        };
        snapshot.versions_have_tables = self.versions_have_tables;
        let snapshot = Arc::new(snapshot);
        if known.as_ref().is_some_and(|known| !accept(known, &snapshot)) {
            return Err(Error::unavailable(format!("{} is gone, what it held last is still served", self.store))
                .with_hint("put it back, or run `feast apply`"));
        }
        self.current.store(Some(Arc::clone(&snapshot)));
        if known.is_some() {
            let version = snapshot.version.as_ref().map(ToString::to_string);
            let took_ms = started.elapsed().as_secs_f64() * 1000.0;
            tracing::info!(registry = %self.store, version, took_ms, "the registry was read anew");
        }
        Ok(snapshot)
    }

    fn remember(&self, error: Option<&Error>) {
        let now = self.now();
        match error {
            None => {
                self.checked.store(now, Ordering::Release);
                *self.failure() = None;
            }
            Some(error) => {
                let pause = self.ttl.unwrap_or(RETRY_PAUSE).min(RETRY_PAUSE);
                self.not_before.store(now + pause.as_millis() as u64, Ordering::Release);
                *self.failure() = Some((error.to_string(), Instant::now()));
            }
        }
    }

    /// Whether the snapshot is older than the ttl and no recent attempt has failed.
    fn is_due(&self) -> bool {
        let now = self.now();
        let age = now.saturating_sub(self.checked.load(Ordering::Acquire));
        self.ttl.is_some_and(|ttl| u128::from(age) > ttl.as_millis()) && now >= self.not_before.load(Ordering::Acquire)
    }

    /// What is told of a registry that takes long to answer, and how long it has.
    fn slow(&self) -> Option<(String, Duration)> {
        let began = Some(self.began.load(Ordering::Acquire)).filter(|began| *began != NEVER)?;
        let waited = self.opened.elapsed().saturating_sub(Duration::from_millis(began));
        (waited > SLOW_REFRESH).then(|| (format!("{} has not answered for {} s", self.store, waited.as_secs()), waited))
    }

    fn now(&self) -> u64 {
        self.opened.elapsed().as_millis() as u64
    }

    fn failure(&self) -> std::sync::MutexGuard<'_, Option<(String, Instant)>> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends the one background refresh, also when its task is dropped halfway.
struct Refreshing(Arc<Shared>);

impl Drop for Refreshing {
    fn drop(&mut self) {
        self.0.refreshing.store(false, Ordering::Release);
    }
}

/// Tells since when a refresh in the background is under way, and that it has ended.
struct Begun<'a>(Option<&'a AtomicU64>);

impl<'a> Begun<'a> {
    fn now(shared: &'a Shared) -> Self {
        let is_first = shared.began.compare_exchange(NEVER, shared.now(), Ordering::AcqRel, Ordering::Acquire).is_ok();
        Self(is_first.then_some(&shared.began))
    }
}

impl Drop for Begun<'_> {
    fn drop(&mut self) {
        if let Some(began) = self.0 {
            began.store(NEVER, Ordering::Release);
        }
    }
}

/// Waits before the next attempt to commit, a random time up to a bound that grows with the attempts, so that
/// committers do not meet again.
pub async fn pause(attempt: u32) {
    let bound = Duration::from_millis(5).saturating_mul(attempt.max(1)).min(LONGEST_PAUSE).as_micros() as u64;
    tokio::time::sleep(Duration::from_micros(RandomState::new().hash_one(attempt) % bound)).await;
}
