//! The promises, as they can be looked at: all the time, and in the end.

use std::collections::{BTreeMap, BTreeSet};

use paas_core::memory::MemoryAnswer;
use paas_core::pipeline::{Outcome, Output, State};
use paas_core::{
    AppName, AppState, AppView, Deployment, DeploymentId, Event, Host, InstanceName, Kind, Platform,
    Position, RecordSet, Recorded, Scope, StateStore, StoredEvent, WorkClass,
};
use sha2::{Digest, Sha256};

use crate::ledger::Ledger;
use crate::story::{NAMES, foreign, orgs};
use crate::world::World;

const ALL: usize = 1_000;

/// What holds at every moment.
pub(crate) async fn now(world: &World, reader: &Platform, ledger: &Ledger) -> Result<(), String> {
    let instances = world.host.instances();
    let mut of_deployment: BTreeMap<&DeploymentId, usize> = BTreeMap::new();
    for instance in &instances {
        *of_deployment.entry(&instance.deployment).or_default() += 1;
    }
    if let Some((deployment, _)) = of_deployment.into_iter().find(|(_, count)| *count > 1) {
        return Err(format!("{deployment} has two containers: {instances:?}"));
    }
    if world.host.foreign_names() != [foreign()] {
        return Err("something that is not the platform's was touched".to_owned());
    }
    for name in NAMES.map(|name| name.parse().unwrap()) {
        let (is_excused, was_live) = {
            let entries = ledger.entries();
            let is_misrouted = entries.misrouted.contains(&host(&name));
            (entries.leaving.contains(&name) || is_misrouted, entries.live.contains(&name))
        };
        if is_excused {
            continue;
        }
        match world.ingress.request(&host(&name)) {
            MemoryAnswer::Instance(request) => {
                let target = &request.target().instance;
                let is_up = instances.iter().any(|one| one.name == *target && one.is_running());
                let is_broken = ledger.entries().broken.contains(target);
                if !is_broken && (!is_up || !world.host.answers(request.target().address)) {
                    return Err(format!("a request to {name} reaches {target}, which does not run"));
                }
                // Before its first release counts as live, it may be taken back.
                if !was_live && live_instance(reader, &name).await.is_some() {
                    ledger.entries().live.insert(name);
                }
            }
            // Of one that broke, the host says so until it runs again.
            MemoryAnswer::Stopped
                if live_instance(reader, &name)
                    .await
                    .is_some_and(|live| ledger.entries().broken.contains(&live)) => {}
            MemoryAnswer::Stopped | MemoryAnswer::Unknown if was_live => {
                return Err(format!("{name} was live and is not routed any more"));
            }
            MemoryAnswer::Stopped | MemoryAnswer::Unknown => {}
        }
    }
    Ok(())
}

/// The instance of the live release, if there is one.
async fn live_instance(reader: &Platform, name: &AppName) -> Option<InstanceName> {
    for org in orgs() {
        if let Ok(view) = reader.org(&org).get(name.clone()).await
            && view.status.live.is_some()
        {
            return view.status.instance.map(|instance| instance.name);
        }
    }
    None
}

fn host(name: &AppName) -> Host {
    format!("{name}.localhost").parse().unwrap()
}

/// What is under way or waits; `None` once there is nothing.
pub(crate) async fn unrest(world: &World, reader: &Platform) -> Option<String> {
    for org in orgs() {
        for view in reader.org(&org).list(ALL, None).await.unwrap().items {
            if let Some(id) = view.status.active.iter().chain(&view.status.queue).next() {
                let waiting = reader.org(&org).deployment(id).await.unwrap();
                let history = waiting.history(0).await.unwrap();
                return Some(format!("{}: {:?}, {history:#?}", view.app.name, view.active));
            }
        }
    }
    for class in [WorkClass::Light, WorkClass::Build] {
        let count = world.store.count(class, None).await.unwrap();
        if count > 0 {
            return Some(format!("{count} apps have work of the class {class:?}"));
        }
    }
    None
}

/// What holds once everything came to its end.
pub(crate) async fn in_the_end(world: &World, reader: &Platform, ledger: &Ledger) -> Result<(), String> {
    nothing_is_lost(reader, ledger).await?;
    let (mut live, mut apps) = (BTreeSet::new(), BTreeSet::new());
    let mut orgs_with_apps = BTreeSet::new();
    for org in orgs() {
        for view in reader.org(&org).list(ALL, None).await.unwrap().items {
            let told = |message: String| format!("{} ({}): {message}", view.app.name, view.app.id);
            let journals = journals(reader, &view).await.map_err(told)?;
            newest_is_live(world, &view, &journals).map_err(told)?;
            live.extend(view.status.instance.as_ref().map(|instance| instance.name.clone()));
            apps.insert(view.app.id.clone());
            orgs_with_apps.insert(org.clone());
        }
    }
    for instance in world.host.instances() {
        if !live.contains(&instance.name) {
            return Err(format!("nobody needs {instance:?}"));
        }
    }
    for (app, images) in world.host.apps_with_images() {
        if !apps.contains(&app) {
            return Err(format!("an image of {app} is there, and that app is not"));
        }
        if images > world.settings.images_kept {
            return Err(format!("{app} has {images} images"));
        }
    }
    if let Some(org) = world.host.networks().into_iter().find(|org| !orgs_with_apps.contains(org)) {
        return Err(format!("{org} has a network and no app"));
    }
    Ok(())
}

/// Every app and operation that somebody was told of is there, unless a deletion was asked for.
async fn nothing_is_lost(reader: &Platform, ledger: &Ledger) -> Result<(), String> {
    let (created, accepted, deleting) = {
        let entries = ledger.entries();
        (entries.created.clone(), entries.accepted.clone(), entries.deleting.clone())
    };
    for (app, (org, name)) in created {
        match reader.org(&org).get(app.clone()).await {
            Err(error) if error.kind() == Kind::NotFound && deleting.contains(&(org, name.clone())) => {}
            found => drop(found.map_err(|error| format!("{name} ({app}) is lost: {error}"))?),
        }
    }
    for (id, org) in accepted {
        match reader.org(&org).deployment(&id).await {
            // It went with its app.
            Err(error) if error.kind() == Kind::NotFound && !deleting.is_empty() => {}
            found => drop(found.map_err(|error| format!("{id} is lost: {error}"))?),
        }
    }
    Ok(())
}

/// An operation and what its journal says.
struct Journal {
    deployment: Deployment,
    accepted: Position,
    outcome: Outcome,
    /// The position at which it went live, or took the app's route away.
    routed: Option<Position>,
}

/// Every operation of an app, oldest first; each has a legal journal, without a gap, to its end.
async fn journals(reader: &Platform, view: &AppView) -> Result<Vec<Journal>, String> {
    let apps = reader.org(&view.app.org);
    let mut journals = Vec::new();
    for deployment in apps.deployments(&view.app, ALL, None).await.unwrap().items {
        let id = &deployment.id;
        let events = apps.handle_to(&deployment).history(0).await.map_err(|error| error.to_string())?;
        let state = State::replay(&events);
        if !events.is_sorted_by(|one, next| one.position < next.position) {
            return Err(format!("{id}: its events are out of order"));
        }
        let Some(Event::Ended { outcome }) = events.last().map(|last| &last.event) else {
            return Err(format!("{id} has not ended: {:?}", state.phase));
        };
        if !deployment.state.is_settled() {
            return Err(format!("{id} has ended and is shown as {:?}", deployment.state));
        }
        let outcome = outcome.clone();
        journals.push(Journal {
            accepted: events[0].position,
            routed: events.iter().find(|recorded| is_routed(recorded)).map(|recorded| recorded.position),
            deployment,
            outcome,
        });
    }
    // Not by their ids: a clock that was set back makes younger ones look older.
    journals.sort_by_key(|journal| journal.accepted);
    Ok(journals)
}

fn is_routed(recorded: &Recorded) -> bool {
    use Output::{Routed, Withdrawn};
    matches!(recorded.event, Event::Finished { output: Routed { .. } | Withdrawn { .. }, .. })
}

/// The newest accepted operation that did what it should is what is live, and it is all that is.
fn newest_is_live(world: &World, view: &AppView, journals: &[Journal]) -> Result<(), String> {
    let routed: Vec<_> = journals.iter().filter_map(|journal| journal.routed).collect();
    if !routed.is_sorted() {
        return Err("a newer operation went live before an older one".to_owned());
    }
    let newest = journals.iter().rev().find(|journal| {
        // After its Route it stands, whatever became of what came behind.
        journal.routed.is_some() || journal.outcome == Outcome::Succeeded
    });
    // A deletion that fails behind its Route leaves an app without one, to be deleted again.
    let serving = newest.filter(|journal| journal.deployment.kind.serves());
    let (status, answer) = (&view.status, world.ingress.request(&host(&view.app.name)));
    named(world, &host(&view.app.name), !matches!(answer, MemoryAnswer::Unknown))?;
    if let Some(revival) = &status.revival {
        // Its image is gone, and what was to bring it back came to nothing: it waits for a person.
        let is_over =
            journals.iter().any(|journal| journal.deployment.id == *revival && journal.routed.is_none());
        let says_so = matches!(answer, MemoryAnswer::Stopped | MemoryAnswer::Unknown);
        return if is_over && says_so { Ok(()) } else { Err(format!("{revival} should bring it back")) };
    }
    match (serving, &status.instance, answer) {
        (Some(journal), Some(instance), MemoryAnswer::Instance(request)) => {
            if instance.deployment != journal.deployment.id {
                return Err(format!("{} is live and not {}", instance.deployment, journal.deployment.id));
            }
            if request.target().instance != instance.name || status.state != AppState::Running {
                return Err(format!("{:?} is routed, and the status is {status:?}", request.target()));
            }
            if status.live != journal.deployment.release {
                return Err(format!("{:?} is live, and {:?}", status.live, journal.deployment.release));
            }
            let is_up = |one: &paas_core::Instance| one.name == instance.name && one.is_running();
            if !world.host.instances().iter().any(is_up) {
                return Err(format!("{} is live and does not run", instance.name));
            }
            Ok(())
        }
        (None, None, MemoryAnswer::Stopped | MemoryAnswer::Unknown) => Ok(()),
        (serving, instance, answer) => Err(format!(
            "{:?} should be live; {instance:?} is, and a request gets {answer:?}",
            serving.map(|journal| &journal.deployment.id)
        )),
    }
}

/// The name of what has a route points at the proxy, as it was set first.
fn named(world: &World, host: &Host, is_routed: bool) -> Result<(), String> {
    let records = world.dns.records();
    let is_right = |set: &RecordSet| {
        set.host == *host && set.ttl_seconds == 60 && set.values == ["192.0.2.10".to_owned()].into()
    };
    let found: Vec<_> = records.iter().filter(|set| set.host == *host).collect();
    match (is_routed, &found[..]) {
        (true, [set]) if is_right(set) => Ok(()),
        (false, _) => Ok(()),
        _ => Err(format!("{host} has the DNS records {found:?}")),
    }
}

/// A digest of every event that ever was.
pub(crate) async fn fingerprint(world: &World) -> (u64, String) {
    let (mut digest, mut count, mut after) = (Sha256::new(), 0, Position(0));
    loop {
        let page = world.store.feed(&Scope::System, after, ALL).await.unwrap();
        let Some(last) = page.last() else { break };
        after = last.position;
        for StoredEvent { stream, version, position, at, body } in page {
            digest.update(format!("{stream} {version} {} {at} {}\n", position.0, body.len()));
            digest.update(body);
            count += 1;
        }
    }
    (count, digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}
