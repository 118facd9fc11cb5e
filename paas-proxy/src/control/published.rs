//! What the program has published: what a process that lost its table is told again.

use std::collections::{BTreeMap, VecDeque};

use paas_core::{Generation, Host, Serving};

use super::Call;
use crate::table::MAX_TOMBSTONES;

/// The last change of each host that the process has taken. Of withdrawals as many are remembered as in its table.
#[derive(Debug, Default)]
pub(super) struct Published {
    changes: BTreeMap<Host, Serving>,
    withdrawn: VecDeque<(Host, Generation)>,
}

impl Published {
    /// Remembers a change that is in force.
    pub(super) fn remember(&mut self, host: Host, serving: Serving) {
        if self.changes.get(&host).is_some_and(|known| known.generation >= serving.generation) {
            return;
        }
        if serving.route.is_none() {
            self.withdrawn.push_back((host.clone(), serving.generation));
        }
        self.changes.insert(host, serving);
        if self.withdrawn.len() > MAX_TOMBSTONES
            && let Some((host, generation)) = self.withdrawn.pop_front()
            && self.changes.get(&host).is_some_and(|known| known.generation == generation)
        {
            self.changes.remove(&host);
        }
    }

    /// The calls that put all of it in force.
    pub(super) fn calls(&self) -> Vec<Call> {
        let call = |(host, serving): (&Host, &Serving)| match &serving.route {
            Some(route) => Call::Publish { route: route.clone(), generation: serving.generation },
            None => Call::Withdraw { host: host.clone(), generation: serving.generation },
        };
        self.changes.iter().map(call).collect()
    }
}
