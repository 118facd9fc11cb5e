//! Due work: claiming, renewing, counting.

use std::time::Duration;

use paas_core::error::Result;
use paas_core::{Backlog, Claim, Claimed, Lease, WorkClass, WorkKey};
use tokio_postgres::Row;

use super::batch::fenced;
use super::pool::{Lost, Pool};
use super::reader::{column, damaged, number, text, time};
use crate::convert::{bounded, class, owner};

pub(super) async fn claim(pool: &Pool, claim: &Claim, now: Option<i64>) -> Result<Claimed> {
    const OPERATION: &str = "postgres.claim";
    const SQL: &str = "SELECT key, scope, class, fence, expires_at, next_due
        FROM paas.claim_work($1, $2, $3, $4, $5, $6)";
    let classes: Vec<&str> = claim.limit.keys().map(|class| class.as_str()).collect();
    let limits: Vec<i64> = claim.limit.values().map(|limit| bounded(*limit as u64)).collect();
    let slots = claim.limit.keys().map(|class| claim.slots.get(class).map(|slots| bounded(*slots as u64)));
    let slots: Vec<Option<i64>> = slots.collect();
    // PostgreSQL's text holds no NUL.
    let worker = claim.worker.replace('\0', "");
    let duration = wait(claim.duration);
    // Twice would be twice as many: leases whose answer was lost end by themselves.
    let rows = pool
        .query(OPERATION, Lost::Report, SQL, &[&now, &worker, &classes, &limits, &slots, &duration])
        .await?;
    let mut claimed = Claimed::default();
    for row in &rows {
        if column::<Option<&[u8]>>(row, OPERATION, 0)?.is_some() {
            claimed.leases.push(lease(row, OPERATION)?);
        } else if column::<Option<i64>>(row, OPERATION, 5)?.is_some() {
            claimed.next_due = Some(Duration::from_nanos(number(row, OPERATION, 5)?));
        }
    }
    Ok(claimed)
}

fn lease(row: &Row, operation: &'static str) -> Result<Lease> {
    Ok(Lease {
        key: text(row, operation, 0)?,
        scope: owner(column(row, operation, 1)?).map_err(|error| damaged(operation, error))?,
        class: class(column(row, operation, 2)?).ok_or_else(|| damaged(operation, "an unknown class"))?,
        fence: number(row, operation, 3)?,
        expires_at: time(row, operation, 4)?,
    })
}

pub(super) async fn renew(pool: &Pool, lease: &Lease, duration: Duration, now: Option<i64>) -> Result<Lease> {
    const OPERATION: &str = "postgres.renew";
    const SQL: &str = "UPDATE paas.work SET expires_at = now + $3 FROM paas.present($4) AS now
        WHERE key = $1 AND fence = $2 AND expires_at > now RETURNING expires_at";
    let (key, fence, duration) = (lease.key.as_bytes(), bounded(lease.fence), wait(duration));
    let rows = pool.query(OPERATION, Lost::Repeat, SQL, &[&key, &fence, &duration, &now]).await?;
    let row = rows.first().ok_or_else(|| fenced(OPERATION))?;
    Ok(Lease { expires_at: time(row, OPERATION, 0)?, ..lease.clone() })
}

pub(super) async fn count(
    pool: &Pool,
    class: WorkClass,
    key: Option<WorkKey>,
    now: Option<i64>,
) -> Result<u64> {
    const OPERATION: &str = "postgres.count";
    const SQL: &str = "SELECT paas.count_work($1, $2, $3)";
    let key = key.as_deref().map(str::as_bytes);
    let rows = pool.query(OPERATION, Lost::Repeat, SQL, &[&now, &class.as_str(), &key]).await?;
    rows.first().map_or(Ok(0), |row| number(row, OPERATION, 0))
}

pub(super) async fn backlog(pool: &Pool, class: WorkClass, now: Option<i64>) -> Result<Backlog> {
    const OPERATION: &str = "postgres.backlog";
    const SQL: &str = "SELECT count(*) - count(due_at), count(due_at), coalesce(max(now) - min(due_at), 0)
        FROM (
            SELECT now, CASE WHEN w.expires_at > now THEN NULL ELSE w.due_at END AS due_at
            FROM paas.present($1) AS now CROSS JOIN paas.work w
            WHERE w.class = $2 AND (w.due_at <= now OR w.expires_at > now)
        ) AS work";
    let rows = pool.query(OPERATION, Lost::Repeat, SQL, &[&now, &class.as_str()]).await?;
    let Some(row) = rows.first() else { return Ok(Backlog::default()) };
    Ok(Backlog {
        held: number(row, OPERATION, 0)?,
        waiting: number(row, OPERATION, 1)?,
        oldest: Duration::from_nanos(number(row, OPERATION, 2)?),
    })
}

/// At most some 100 years: later, added to a time of today, has no number.
pub(super) fn wait(duration: Duration) -> i64 {
    const MOST: i64 = 100 * 365 * 24 * 60 * 60 * 1_000_000_000;
    i64::try_from(duration.as_nanos()).map_or(MOST, |nanoseconds| nanoseconds.min(MOST))
}
