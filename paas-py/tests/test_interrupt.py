"""Ctrl-C, and other threads, while a call waits."""

import signal
import threading
from types import FrameType

import pytest

import paas
from support import REPOSITORY, push_slow, until_built


def test_a_blocking_wait_is_interrupted_and_the_deployment_goes_on(platform: paas.Platform) -> None:
    push_slow(platform, seconds=0.5)
    app = platform.apps.create("hello", REPOSITORY)
    until_built(app.deployment)
    threading.Timer(0.1, signal.raise_signal, [signal.SIGINT]).start()
    with pytest.raises(KeyboardInterrupt):
        app.deployment.outcome()
    assert app.deployment.refresh().state == "building"
    assert app.deployment.outcome().state == "running"


def test_an_iteration_is_interrupted(platform: paas.Platform) -> None:
    push_slow(platform)
    app = platform.apps.create("hello", REPOSITORY)
    until_built(app.deployment)
    threading.Timer(0.1, signal.raise_signal, [signal.SIGINT]).start()
    with pytest.raises(KeyboardInterrupt):
        list(app.deployment.events())
    app.deployment.cancel()


def test_a_handler_that_raises_nothing_interrupts_nothing(platform: paas.Platform) -> None:
    push_slow(platform, seconds=0.3)
    seen: list[int] = []

    def note(number: int, _frame: FrameType | None) -> None:
        seen.append(number)

    before = signal.signal(signal.SIGUSR1, note)
    try:
        app = platform.apps.create("hello", REPOSITORY)
        threading.Timer(0.1, signal.raise_signal, [signal.SIGUSR1]).start()
        assert app.deployment.outcome().state == "running"
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert seen == [signal.SIGUSR1]


def test_other_threads_run_while_a_call_waits(platform: paas.Platform) -> None:
    push_slow(platform)
    app = platform.apps.create("hello", REPOSITORY)
    until_built(app.deployment)
    # The main thread holds the interpreter only if the wait below does not release it; then this deadlocks.
    threading.Thread(target=app.deployment.cancel).start()
    with pytest.raises(paas.Cancelled):
        app.deployment.outcome()
