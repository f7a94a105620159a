//! Instants in PostgreSQL's binary format.

use bytes::BytesMut;
use tokio_postgres::types::{FromSql, IsNull, ToSql, Type, to_sql_checked};

/// An instant in microseconds since the epoch.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Micros(pub(super) i64);

/// Where PostgreSQL starts to count: 2000-01-01.
const POSTGRES_EPOCH: i64 = 946_684_800_000_000;

impl ToSql for Micros {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        out.extend_from_slice(&self.0.saturating_sub(POSTGRES_EPOCH).to_be_bytes());
        Ok(IsNull::No)
    }

    fn accepts(sql_type: &Type) -> bool {
        *sql_type == Type::TIMESTAMPTZ
    }

    to_sql_checked!();
}

impl<'a> FromSql<'a> for Micros {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        Ok(Self(i64::from_be_bytes(raw.try_into()?).saturating_add(POSTGRES_EPOCH)))
    }

    fn accepts(sql_type: &Type) -> bool {
        *sql_type == Type::TIMESTAMPTZ
    }
}
