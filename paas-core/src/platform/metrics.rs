//! What the platform counts, and how much work there is.

use std::sync::Arc;

use super::Platform;
use super::health::STUCK;
use crate::engine::PING_PATIENCE;
use crate::error::Result;
use crate::metrics::{Family, Metrics};
use crate::store::{Backlog, WorkClass};

impl Platform {
    /// How much work of a class waits for a worker or has one, in all orgs and on all servers.
    ///
    /// # Errors
    /// The store's; `Timeout` when it does not answer within five seconds.
    pub async fn backlog(&self, class: WorkClass) -> Result<Backlog> {
        let services = self.services();
        let context = services.context().with_budget(PING_PATIENCE);
        context.run("store.backlog", services.store.backlog(class)).await
    }

    /// Where this platform counts: for what embeds it and has numbers of its own.
    #[must_use]
    pub fn registry(&self) -> &Arc<Metrics> {
        &self.inner.services.metrics
    }

    /// Everything there is to tell in numbers, by name: what was counted since the program began, and what is so now.
    /// [`exposition`](crate::metrics::exposition) makes of it the text that Prometheus reads.
    ///
    /// Every part is asked whether it answers. What a store that does not answer would tell is left out; it takes five
    /// seconds at most.
    ///
    /// ```
    /// use paas_core::metrics::{Value, exposition};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> paas_core::Result<()> {
    /// let platform = paas_core::Platform::builder().start().await?;
    /// let families = platform.metrics().await;
    /// let lost = families.iter().find(|family| family.name == "paas_leases_lost_total");
    /// assert_eq!(lost.and_then(|family| family.value(&[])), Some(&Value::Number(0.0)));
    /// assert!(exposition(&families).contains("paas_work_waiting{class=\"build\"} 0\n"));
    /// # Ok(())
    /// # }
    /// ```
    pub async fn metrics(&self) -> Vec<Family> {
        let (health, light, build) =
            tokio::join!(self.health(), self.backlog(WorkClass::Light), self.backlog(WorkClass::Build),);
        let mut families = self.registry().families();
        let backlogs = [(WorkClass::Light, light), (WorkClass::Build, build)];
        let known =
            backlogs.iter().filter_map(|(class, backlog)| Some((class.as_str(), backlog.as_ref().ok()?)));
        let by_class = |name, help, number: fn(&Backlog) -> f64| {
            Family::gauges(
                name,
                help,
                "class",
                known.clone().map(|(class, backlog)| (class, number(backlog))),
            )
        };
        families.extend([
            by_class(
                "paas_work_waiting",
                "Apps with work that is due and waits for a worker, or, in the class build, for a build slot.",
                |backlog| count(backlog.waiting),
            ),
            by_class(
                "paas_work_held",
                "Apps with work that a worker of any server has.",
                |backlog| count(backlog.held),
            ),
            by_class(
                "paas_work_oldest_seconds",
                "For how long the work that waits longest has been due.",
                |backlog| backlog.oldest.as_secs_f64(),
            ),
        ]);
        if known.clone().next().is_some() {
            let stuck = health.problems.iter().filter(|problem| problem.part == STUCK);
            families.push(Family::gauge(
                "paas_operations_stuck",
                "Operations that can't go on without an operator, on any server.",
                count(stuck.map(|problem| problem.waiting as u64).sum()),
            ));
        }
        families.extend(self.states());
        families.sort_by_key(|family| family.name);
        families
    }

    /// What this process knows by itself.
    fn states(&self) -> [Family; 3] {
        let workers = self.inner.engine.workers();
        let workers = WorkClass::ALL
            .map(|class| (class.as_str(), count(workers.get(&class).copied().unwrap_or_default() as u64)));
        let outages = self.services().outages.all();
        let up = |part| if outages.contains_key(part) { 0.0 } else { 1.0 };
        let waiting = |part| outages.get(part).map_or(0.0, |outage| count(outage.waiting.len() as u64));
        let mut parts = vec!["claiming", "engine", "ingress", "store"];
        parts.extend(self.services().parts.iter().map(|part| part.name()));
        let of_parts = |number: &dyn Fn(&'static str) -> f64| -> Vec<_> {
            parts.iter().map(|part| (*part, number(part))).collect()
        };
        [
            Family::gauges(
                "paas_operations_under_way",
                "Apps that a worker of this server works on.",
                "class",
                workers,
            ),
            Family::gauges(
                "paas_part_up",
                "1 if a part of the platform answers, 0 if it does not.",
                "part",
                of_parts(&up),
            ),
            Family::gauges(
                "paas_part_waiting_operations",
                "Operations on this server that wait until a part of the platform answers again.",
                "part",
                of_parts(&waiting),
            ),
        ]
    }
}

#[allow(clippy::cast_precision_loss)] // exact up to 2^53
fn count(number: u64) -> f64 {
    number as f64
}
