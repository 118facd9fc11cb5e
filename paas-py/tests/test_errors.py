"""Failures, as exceptions."""

import pickle
import re
import traceback
from pathlib import Path
from typing import get_args

import pytest

import paas
from paas import words
from support import REPOSITORY, page

CORE = Path(__file__).parents[2] / "paas-core" / "src"


def test_a_failed_build_tells_whose_fault_it_is(platform: paas.Platform) -> None:
    platform.memory_host.script(page("broken"), output=["pip install"], build_error="pip ended with code 1")
    platform.memory_git.commit(REPOSITORY, "main", page("broken"))
    deployment = platform.apps.create("hello", REPOSITORY).deployment
    with pytest.raises(paas.BuildFailed, match="pip ended with code 1") as caught:
        deployment.outcome()
    error = caught.value
    assert (error.kind, error.fault, error.operation) == ("build_failed", "user", "memory.build")
    assert (error.evidence, error.retryable) == (("pip install",), False)
    assert (deployment.state, deployment.step) == ("failed", "build")
    assert isinstance(deployment.failure, paas.BuildFailed)
    assert "| pip install" in "".join(traceback.format_exception(error))


def test_a_program_that_ends_at_its_start_is_unhealthy(platform: paas.Platform) -> None:
    platform.memory_host.script(page("crash"), exit_code=3)
    platform.memory_git.commit(REPOSITORY, "main", page("crash"))
    with pytest.raises(paas.Unhealthy, match="code 3") as caught:
        platform.apps.create("hello", REPOSITORY).deployment.outcome()
    assert caught.value.fault == "user"
    assert caught.value.hint is not None
    assert f"hint: {caught.value.hint}" in caught.value.__notes__


def test_a_missing_repository_and_branch(platform: paas.Platform) -> None:
    with pytest.raises(paas.NotFound) as caught:
        platform.apps.create("gone", "https://git.example.com/team/gone.git").deployment.outcome()
    assert caught.value.code == "repository_not_found"
    with pytest.raises(paas.NotFound) as caught:
        platform.apps.create("hello", REPOSITORY, branch="mian").deployment.outcome()
    assert caught.value.code == "branch_not_found"


def test_two_apps_of_one_name(platform: paas.Platform) -> None:
    platform.apps.create("hello", REPOSITORY)
    with pytest.raises(paas.AlreadyExists) as caught:
        platform.apps.create("hello", REPOSITORY)
    assert (caught.value.code, caught.value.operation) == ("name_taken", "apps.create")


def test_a_newer_deployment_supersedes(platform: paas.Platform) -> None:
    platform.memory_host.script(page("slow"), build_seconds=600)
    platform.memory_git.commit(REPOSITORY, "main", page("slow"))
    app = platform.apps.create("hello", REPOSITORY)
    first = app.deployment
    platform.memory_git.commit(REPOSITORY, "main", page("quick"))
    platform.deploy(app).outcome()
    with pytest.raises(paas.Conflict) as caught:
        first.outcome()
    assert caught.value.code == "superseded"


@pytest.mark.parametrize("name", ["", "a;id", "a/b", "..", "A", "xn--a", "www", "a" * 64])
def test_bad_names(platform: paas.Platform, name: str) -> None:
    with pytest.raises(paas.Invalid):
        platform.apps.create(name, REPOSITORY)


@pytest.mark.parametrize("port", [0, -1, 65536, 2**40])
def test_bad_ports(platform: paas.Platform, port: int) -> None:
    with pytest.raises(paas.Invalid):
        platform.apps.create("hello", REPOSITORY, port=port)


@pytest.mark.parametrize(
    "url", ["file:///etc", "git://h/r", "ext::sh -c id", "../x", "http://127.0.0.1/r.git"]
)
def test_bad_repositories(platform: paas.Platform, url: str) -> None:
    with pytest.raises(paas.Invalid):
        platform.apps.create("hello", url)


def test_a_private_address_is_denied(platform: paas.Platform) -> None:
    with pytest.raises(paas.PermissionDenied) as caught:
        platform.apps.create("hello", "https://169.254.169.254/r.git")
    assert caught.value.code == "egress_denied"


def test_what_is_not_there(platform: paas.Platform) -> None:
    for call in (platform.apps.get, platform.apps.restart, platform.apps.delete, platform.apps.deployment):
        with pytest.raises(paas.NotFound):
            call("nothing-here")
    with pytest.raises(paas.NotFound):
        list(platform.apps.releases("nothing-here"))


def test_secrets_stay_secret(platform: paas.Platform) -> None:
    platform.memory_git.require_token(REPOSITORY, "canary-token")
    app = platform.apps.create("hello", REPOSITORY, token="canary-token", env={"KEY": "canary-value"})
    deployment = app.deployment.outcome()
    with pytest.raises(paas.Invalid) as caught:
        platform.apps.create("other", "https://user:canary-word@git.example.com/team/hello.git")
    with pytest.raises(paas.Invalid) as assigned:
        platform.apps.update(app, env={"KEY=canary-assigned": "x"})
    error, other = caught.value, assigned.value
    shown = [
        *(
            repr(each)
            for each in (platform, platform.apps, app, deployment, error, other, platform.memory_git)
        ),
        *(repr(event) for event in deployment.events()),
        *(repr(line) for line in app.logs()),
        *(repr(release) for release in platform.apps.releases(app)),
        *(repr(vars(each)) + str(each) + str(each.__notes__) for each in (error, other)),
    ]
    assert not [text for text in shown if "canary" in text]
    assert app.env_names == ["KEY"]


def test_exceptions_travel_between_processes() -> None:
    error = paas.BuildFailed("it broke", fault="user", evidence=("a line",), hint="mend it", code="limit")
    again = pickle.loads(pickle.dumps(error))  # noqa: S301
    assert type(again) is paas.BuildFailed
    assert (str(again), vars(again)) == ("it broke", vars(error))


def test_every_kind_of_the_core_has_its_exception() -> None:
    source = (CORE / "error.rs").read_text()
    kinds = re.findall(r'Self::(\w+) => "(\w+)"', source[source.index("impl Kind {") :].split("\nimpl ")[0])
    assert {kind for _, kind in kinds} == set(get_args(words.Kind)) == set(paas.PaasError.by_kind)
    for name, kind in kinds:
        exception = getattr(paas, name)
        assert exception is paas.PaasError.by_kind[kind]
        assert issubclass(exception, paas.PaasError)
        assert name in paas.__all__


@pytest.mark.parametrize(
    ("file", "enum", "literal"),
    [
        ("domain/app.rs", "AppState", words.AppState),
        ("domain/deployment.rs", "DeploymentState", words.DeploymentState),
        ("domain/deployment.rs", "OperationKind", words.OperationKind),
        ("domain/deployment.rs", "Step", words.Step),
        ("error.rs", "Fault", words.Fault),
        ("logs/mod.rs", "LogSource", words.LogSource),
        ("logs/mod.rs", "LogStream", words.LogOutput),
        ("pipeline/event.rs", "Event", words.EventType),
    ],
)
def test_every_word_of_the_core_is_typed(file: str, enum: str, literal: object) -> None:
    text = (CORE / file).read_text()
    found = re.search(rf"pub enum {enum} \{{\n(.*?)\n\}}", text, re.DOTALL)
    assert found is not None
    variants = re.findall(r"^    ([A-Z]\w*)(?: \{|,)", found[1], re.MULTILINE)
    snake = [re.sub(r"(?<!^)([A-Z])", r"_\1", variant).lower() for variant in variants]
    assert set(snake) == set(get_args(literal))
