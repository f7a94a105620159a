//! The pool of connections, and their loan to calls.

use std::ops::{Deref, DerefMut};

use deadpool::Runtime;
use deadpool::managed::{Manager, Object, Pool, PoolError, TimeoutType};
use feast_core::{Error, Result};

use super::super::retry::Failure;
use super::{CONNECT_TIMEOUT, Dialect, SqlStore};

/// A connection for one call. Unless it is given back it is closed.
pub(in super::super) struct Lease<M: Manager>(Option<Object<M>>);

impl<M: Manager> Lease<M> {
    const IS_LENT: &'static str = "only `give_back`, which ends the lease, takes the connection";

    pub(super) fn give_back(mut self) {
        self.0 = None;
    }
}

impl<M: Manager> Deref for Lease<M> {
    type Target = M::Type;

    fn deref(&self) -> &M::Type {
        self.0.as_ref().expect(Self::IS_LENT)
    }
}

impl<M: Manager> DerefMut for Lease<M> {
    fn deref_mut(&mut self) -> &mut M::Type {
        self.0.as_mut().expect(Self::IS_LENT)
    }
}

impl<M: Manager> Drop for Lease<M> {
    fn drop(&mut self) {
        if let Some(object) = self.0.take() {
            drop(Object::take(object));
        }
    }
}

impl<D: Dialect> SqlStore<D> {
    pub(in super::super) async fn lease(&self) -> Result<Lease<D::Connections>, Failure> {
        match self.pool()?.get().await {
            Ok(object) => Ok(Lease(Some(object))),
            Err(PoolError::Timeout(TimeoutType::Wait)) => {
                let n = self.dialect.most_connections();
                let busy = Error::unavailable(format!("all {n} connections to the online store are busy"));
                Err(busy.with_context("online store", self).with_hint(D::BUSY_HINT).into())
            }
            Err(PoolError::Timeout(_)) => Err(Failure {
                error: Error::unavailable("could not connect to the online store in time")
                    .with_context("online store", self)
                    .with_hint("check `host` and `port`, and that no firewall is between"),
                transient: true,
            }),
            Err(PoolError::Backend(error)) => Err(self.dialect.failure("connect to", error)),
            Err(PoolError::Closed | PoolError::NoRuntimeSpecified | PoolError::PostCreateHook(_)) => {
                Err(Error::internal("the pool of connections does not work").into())
            }
        }
    }

    fn pool(&self) -> Result<Pool<D::Connections>> {
        let current = self.pool.get_or_make(|| {
            let pool = Pool::builder(self.dialect.connections())
                .max_size(self.dialect.most_connections())
                .runtime(Runtime::Tokio1)
                .wait_timeout(Some(CONNECT_TIMEOUT))
                .create_timeout(Some(CONNECT_TIMEOUT))
                .build()
                .map_err(|error| Error::internal("the pool of connections cannot be made").with_source(error))?;
            let ahead = self.dialect.connections_ahead();
            if ahead > 0 {
                let pool: Pool<D::Connections> = pool.clone();
                // Held together, so that they are different ones. What fails here fails again where it is needed.
                tokio::spawn(async move { futures::future::join_all((0..ahead).map(|_| pool.get())).await });
            }
            Ok::<_, Error>(pool)
        })?;
        Ok(current.1.clone())
    }
}
