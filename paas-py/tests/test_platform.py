"""The blocking calls, on a platform in memory."""

from datetime import UTC, datetime

import pytest

import paas
from support import REPOSITORY, page, push_slow, until_built

STEPS = ["fetch", "plan", "build", "start", "verify", "route", "retire"]


def test_a_new_app_becomes_a_live_url(platform: paas.Platform) -> None:
    app = platform.apps.create("hello", REPOSITORY)
    assert app.deployment.outcome().state == "running"
    assert (app.deployment.release, app.deployment.failure) == (1, None)
    assert app.refresh().url == "http://hello.localhost"
    assert (app.state, app.release, app.repository) == ("running", 1, REPOSITORY)
    assert app.created_at.tzinfo is UTC
    assert app.created_at <= datetime.now(UTC)


def test_an_app_that_is_kept_for_later_has_no_deployment(platform: paas.Platform) -> None:
    app = platform.apps.create("hello", REPOSITORY, deploy=False)
    assert app.state == "pending"
    with pytest.raises(paas.NotFound):
        _ = app.deployment
    deployment = platform.deploy(app)
    assert app.refresh().deployment == deployment
    assert deployment.outcome().settled


def test_events_come_in_order_and_end(platform: paas.Platform) -> None:
    deployment = platform.apps.create("hello", REPOSITORY).deployment
    events = list(deployment.events())
    assert [event.version for event in events] == list(range(1, len(events) + 1))
    assert [event["step"] for event in events if event.type == "finished"] == STEPS
    assert events[0].type == "accepted"
    assert events[0].stream == deployment.id
    assert dict(events[-1]) == {"type": "ended", "outcome": {"type": "succeeded"}}
    assert all(event.at.tzinfo is UTC for event in events)
    assert list(deployment.events(after=events[-3].version)) == events[-2:]


def test_the_feed_holds_every_stream_in_one_order(platform: paas.Platform) -> None:
    app = platform.apps.create("hello", REPOSITORY)
    feed = platform.events()
    first = next(feed)
    positions = [first.position]
    streams = {first.stream}
    for event in feed:
        positions.append(event.position)
        streams.add(event.stream)
        if event.type == "ended":
            break
    assert positions == sorted(set(positions))
    assert streams == {app.id, app.deployment.id}
    assert next(platform.events(after=positions[0])).position == positions[1]


def test_an_event_matches_like_a_mapping(platform: paas.Platform) -> None:
    event = next(platform.apps.create("hello", REPOSITORY).deployment.events())
    match event:
        case {"type": "accepted", "kind": kind}:
            assert kind == "deploy"
        case _:
            pytest.fail(repr(event))
    assert event.get("step") is None


def test_operations(platform: paas.Platform) -> None:
    apps = platform.apps
    app = apps.create("hello", REPOSITORY, env={"GREETING": "hello"}, port=3000)
    app.deployment.outcome()

    updated = apps.update(app, env={"GREETING": None, "COLOUR": "$(blue)\n"}, port=None)
    assert updated.deployment.kind == "config"
    assert updated.deployment.outcome().release == 2
    assert (updated.env_names, updated.port) == (["COLOUR"], None)

    assert apps.restart("hello").outcome().release == 2
    assert apps.stop(app.id).outcome().state == "stopped"
    assert (app.refresh().state, app.url) == ("stopped", None)
    assert apps.start(app).outcome().state == "running"
    assert apps.rollback(app, 1).outcome().release == 3
    assert app.refresh().env_names == ["GREETING"]
    assert [release.number for release in apps.releases(app)] == [3, 2, 1]
    kinds = [deployment.kind for deployment in apps.deployments(app)]
    assert kinds == ["rollback", "start", "stop", "restart", "config", "deploy"]
    assert apps.deployment(app.deployment.id) == app.deployment

    assert apps.delete(app).outcome().state == "deleted"
    assert platform.memory_host.instances == 0
    with pytest.raises(paas.NotFound):
        app.refresh()


def test_an_unchanged_tree_is_built_once(platform: paas.Platform) -> None:
    app = platform.apps.create("hello", REPOSITORY)
    app.deployment.outcome()
    assert platform.deploy(app).outcome().cached is True
    assert platform.apps.deploy(app, no_cache=True).outcome().cached is False


def test_the_list_goes_over_every_page(platform: paas.Platform) -> None:
    names = [f"app-{number:03}" for number in range(120)]
    for name in names:
        platform.apps.create(name, REPOSITORY, deploy=False)
    assert [app.name for app in platform.apps.list()] == names
    assert platform.apps.get("app-007") == next(app for app in platform.apps.list() if app.name == "app-007")


def test_logs_are_read_to_the_end_and_from_a_line_on(platform: paas.Platform) -> None:
    files = page("chatty")
    platform.memory_host.script(files, output=[f"line {number}" for number in range(1500)])
    platform.memory_git.commit(REPOSITORY, "main", files)
    app = platform.apps.create("hello", REPOSITORY)
    list(app.deployment.events())
    lines = list(app.deployment.logs())
    built = [line for line in lines if line.source == "build"]
    assert [str(line) for line in built] == [f"line {number}" for number in range(1500)]
    assert [line.sequence for line in lines] == sorted({line.sequence for line in lines})
    assert {line.deployment for line in lines} == {app.deployment.id}
    behind = [line.sequence for line in app.logs(after=lines[-2])]
    assert behind[0] == lines[-1].sequence


def test_cancel_ends_the_build(platform: paas.Platform) -> None:
    push_slow(platform)
    deployment = platform.apps.create("hello", REPOSITORY).deployment
    until_built(deployment)
    assert deployment.wait(timeout=0.01) is False
    assert deployment.state == "building"
    deployment.cancel()
    with pytest.raises(paas.Cancelled):
        deployment.outcome()
    assert (deployment.state, platform.memory_host.builds_running) == ("cancelled", 0)


def test_only_what_is_stuck_can_be_abandoned(platform: paas.Platform) -> None:
    deployment = platform.apps.create("hello", REPOSITORY).deployment
    with pytest.raises(paas.Conflict) as caught:
        deployment.abandon()
    assert caught.value.hint is not None


def test_forgetting_a_deployment_leaves_it_alone(platform: paas.Platform) -> None:
    push_slow(platform, seconds=0.3)
    app = platform.apps.create("hello", REPOSITORY)
    until_built(app.deployment)
    identifier = app.deployment.id
    del app
    assert platform.apps.deployment(identifier).outcome().state == "running"


def test_another_app_argument_is_a_type_error(platform: paas.Platform) -> None:
    with pytest.raises(TypeError, match="an App is wanted"):
        platform.apps.get(7)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        platform.apps.create("hello", REPOSITORY, env={"KEY": 7})  # type: ignore[dict-item]


def test_a_time_is_not_negative(platform: paas.Platform) -> None:
    deployment = platform.apps.create("hello", REPOSITORY).deployment
    for seconds in (-1.0, float("nan")):
        with pytest.raises(paas.Invalid):
            deployment.wait(seconds)
    assert deployment.wait(float("inf")) is True
