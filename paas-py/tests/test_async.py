"""The awaited calls, on a platform in memory."""

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
import pytest_asyncio

import paas
from support import REPOSITORY, page, push_slow


@pytest_asyncio.fixture
async def platform() -> AsyncIterator[paas.Platform]:
    async with await paas.Platform.in_memory_async() as platform:
        platform.memory_git.commit(REPOSITORY, "main", page("hello"))
        yield platform


async def test_a_new_app_becomes_a_live_url(platform: paas.Platform) -> None:
    app = await platform.apps.create_async("hello", REPOSITORY, env={"GREETING": "hello"})
    deployment = await app.deployment.outcome_async()
    assert (deployment.state, deployment.release) == ("running", 1)
    assert (await app.refresh_async()).url == "http://hello.localhost"
    assert (await platform.apps.get_async("hello")) == app


async def test_events_are_iterated(platform: paas.Platform) -> None:
    app = await platform.apps.create_async("hello", REPOSITORY)
    events = [event async for event in app.deployment.events()]
    assert (events[0].type, events[-1].type) == ("accepted", "ended")
    assert events == list(app.deployment.events())
    assert [found.name async for found in platform.apps.list()] == ["hello"]


async def test_operations(platform: paas.Platform) -> None:
    apps = platform.apps
    app = await apps.create_async("hello", REPOSITORY)
    await app.deployment.outcome_async()
    updated = await apps.update_async(app, env={"KEY": "value"})
    await updated.deployment.outcome_async()
    states = []
    # A call starts when it is made, not when it is awaited.
    operations: list[Callable[[], asyncio.Future[paas.Deployment]]] = [
        lambda: apps.restart_async(app),
        lambda: apps.stop_async(app),
        lambda: apps.start_async(app),
        lambda: apps.rollback_async(app, 1),
        lambda: apps.deploy_async(app, no_cache=True),
        lambda: platform.deploy_async(app),
    ]
    for operate in operations:
        deployment = await operate()
        assert await deployment.wait_async()
        states.append((deployment.kind, (await deployment.refresh_async()).state))
        assert await apps.deployment_async(deployment.id) == deployment
    assert states == [
        ("restart", "running"),
        ("stop", "stopped"),
        ("start", "running"),
        ("rollback", "running"),
        ("deploy", "running"),
        ("deploy", "running"),
    ]
    deletion = await apps.delete_async(app)
    assert (await deletion.outcome_async()).state == "deleted"


async def test_two_with_one_name_get_one_app(platform: paas.Platform) -> None:
    both = [platform.apps.create_async("hello", REPOSITORY) for _ in range(2)]
    results = await asyncio.gather(*both, return_exceptions=True)
    errors = [result for result in results if isinstance(result, BaseException)]
    assert [type(error) for error in errors] == [paas.AlreadyExists]


async def test_many_at_once_hold_nobody_up(platform: paas.Platform) -> None:
    created = [platform.apps.create_async(f"app-{number}", REPOSITORY) for number in range(20)]
    apps = await asyncio.gather(*created)
    outcomes = await asyncio.gather(*(app.deployment.outcome_async() for app in apps))
    assert {outcome.state for outcome in outcomes} == {"running"}


async def test_failures_are_raised(platform: paas.Platform) -> None:
    with pytest.raises(paas.Invalid):
        await platform.apps.create_async("A B", REPOSITORY)
    with pytest.raises(paas.NotFound):
        await platform.apps.get_async("nothing-here")
    with pytest.raises(paas.NotFound):
        await anext(platform.apps.releases("nothing-here"))


async def test_a_cancelled_task_leaves_the_deployment_alone(platform: paas.Platform) -> None:
    push_slow(platform, seconds=0.5)
    app = await platform.apps.create_async("hello", REPOSITORY)

    async def watch() -> None:
        async for _ in app.deployment.events():
            pass

    async def wait() -> None:
        await app.deployment.outcome_async()

    tasks = [asyncio.create_task(watch()), asyncio.create_task(wait())]
    await asyncio.sleep(0.1)
    for task in tasks:
        task.cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(result) for result in results] == [asyncio.CancelledError] * 2
    assert (await app.deployment.outcome_async()).state == "running"


async def test_a_stream_goes_on_where_a_cancelled_reader_left_it(platform: paas.Platform) -> None:
    push_slow(platform, seconds=0.5)
    app = await platform.apps.create_async("hello", REPOSITORY)
    events = app.deployment.events()
    seen: list[int] = []

    async def read() -> None:
        async for event in events:
            seen.append(event.version)

    with pytest.raises(TimeoutError):
        await asyncio.wait_for(read(), timeout=0.1)
    assert seen
    await read()
    assert seen == list(range(1, len(seen) + 1))


async def test_cancel(platform: paas.Platform) -> None:
    push_slow(platform)
    app = await platform.apps.create_async("hello", REPOSITORY)
    assert await app.deployment.wait_async(timeout=0.05) is False
    await app.deployment.cancel_async()
    with pytest.raises(paas.Cancelled):
        await app.deployment.outcome_async()


async def test_the_loop_runs_on_while_something_is_awaited(platform: paas.Platform) -> None:
    push_slow(platform, seconds=0.2)
    app = await platform.apps.create_async("hello", REPOSITORY)
    outcome = app.deployment.outcome_async()
    turns = 0
    while not outcome.done():
        turns += 1
        await asyncio.sleep(0)
    assert turns > 1
    await outcome
