"""From a repository on a real git server to a page that a real container answers."""

import http.client
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

import pytest

import paas

pytestmark = pytest.mark.real

ROOT = Path(__file__).parents[2]
SAMPLES = ROOT / "examples" / "apps"
BASE_IMAGES = {"static": "paas/static:1", "python:3.11": "paas/python:3.11", "node:20": "paas/node:20"}
# Builds that install packages trust what this machine trusts.
AUTHORITIES = Path("/etc/ssl/certs/ca-certificates.crt")
# Not the default one: another platform may run on this machine's engine.
POOL = "10.189.0.0/16"


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[str]:
    """Yields the URL of an empty repository on a git server of its own."""
    command = [
        "cargo",
        "run",
        "--quiet",
        "--package=paas-git",
        "--features=testing",
        "--example=git_server",
        "--",
    ]
    command += [f"--directory={tmp_path / 'served'}", "--repository=hello", "--allow-push"]
    words = [word for argument in command for word in argument.split("=", 1)]
    with subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, text=True) as server:  # noqa: S603
        try:
            assert server.stdout is not None
            server.stdout.readline()
            url = server.stdout.readline().strip()
            assert url, "the git server did not start"
            yield url
        finally:
            server.terminate()


def git(folder: Path, *arguments: str) -> None:
    """Runs git with nobody's configuration."""
    author = ["-c", "user.name=demo", "-c", "user.email=demo@localhost", "-c", "init.defaultBranch=main"]
    subprocess.run(["git", *author, *arguments], cwd=folder, check=True, capture_output=True)  # noqa: S603, S607


def push(folder: Path, repository: str) -> None:
    """Commits what is in the folder, and pushes it."""
    git(folder, "add", "--all")
    git(folder, "commit", "--message", "Change the page")
    git(folder, "push", repository, "HEAD:main")


def get(url: str) -> tuple[int, str]:
    """Asks the proxy for the page, without looking the host up."""
    address = urlsplit(url)
    with closing(http.client.HTTPConnection("127.0.0.1", address.port, timeout=10)) as connection:
        connection.request("GET", "/", headers={"Host": address.netloc})
        response = connection.getresponse()
        return response.status, response.read().decode()


@pytest.fixture
def port() -> int:
    """A port that is free for the proxy."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        number: int = free.getsockname()[1]
        return number


@pytest.fixture
def local(tmp_path: Path, port: int) -> Callable[[], paas.Platform]:
    """Starts the platform of this test, again and again on one directory."""
    return lambda: paas.Platform.local(
        tmp_path / "platform",
        proxy_port=port,
        allowed_hosts=["127.0.0.1"],
        base_images=BASE_IMAGES,
        ca_certificates=AUTHORITIES if AUTHORITIES.exists() else None,
        address_pool=POOL,
    )


@pytest.mark.parametrize(
    ("sample", "expected"),
    [
        ("static-site", "Hello, it is live."),
        ("dockerfile", "Hello from a Dockerfile"),
        ("node", "Hello from Node"),
        ("flask", "Hello from Flask"),
    ],
)
def test_every_sample_app_answers(
    sample: str, expected: str, tmp_path: Path, repository: str, local: Callable[[], paas.Platform]
) -> None:
    work = tmp_path / "work"
    shutil.copytree(SAMPLES / sample, work)
    git(work, "init")
    push(work, repository)
    with local() as platform:
        app = platform.apps.create(sample, repository)
        app.deployment.outcome()
        assert app.refresh().url is not None
        status, body = get(str(app.url))
        assert (status, expected in body) == (200, True), body
        platform.apps.delete(app).outcome()
        assert get(str(app.url))[0] != 200


def test_a_repository_becomes_a_page_that_answers(
    tmp_path: Path, repository: str, port: int, local: Callable[[], paas.Platform]
) -> None:
    work = tmp_path / "work"
    shutil.copytree(SAMPLES / "static-site", work)
    git(work, "init")
    push(work, repository)
    with local() as platform:
        app = platform.apps.create("hello", repository)
        steps = [event["step"] for event in app.deployment.events() if event.type == "finished"]
        assert steps == ["fetch", "plan", "build", "start", "verify", "route", "retire"]
        app.deployment.outcome()
        assert app.refresh().url == f"http://hello.localhost:{port}"
        assert app.url is not None
        status, body = get(app.url)
        assert (status, "Hello, it is live." in body) == (200, True)
        assert [line for line in app.deployment.logs() if line.source == "build"]

        with pytest.raises(paas.Unavailable):
            local()

        (work / "index.html").write_text("the second page")
        push(work, repository)
        assert platform.deploy(app).outcome().release == 2
        assert get(app.url) == (200, "the second page")

        (work / "Dockerfile").write_text("FROM paas/static:1\nRUN echo it is broken && exit 7\n")
        push(work, repository)
        failed = platform.deploy(app)
        with pytest.raises(paas.BuildFailed) as caught:
            failed.outcome()
        assert (caught.value.fault, failed.step) == ("user", "build")
        assert any("it is broken" in line for line in caught.value.evidence)
        assert get(app.url) == (200, "the second page")

    # A start that fails lets go of the directory at once; the name stays that of the first start.
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", port))
        taken.listen()
        with pytest.raises(paas.Unavailable):
            local()
    with pytest.raises(paas.Invalid):
        paas.Platform.local(tmp_path / "platform", proxy_port=port, installation="another")

    # The container outlived the platform; a new one on the same directory finds everything as it was.
    with local() as platform:
        app = platform.apps.get("hello")
        assert (app.state, app.release) == ("running", 2)
        assert app.url is not None
        assert get(app.url) == (200, "the second page")
        assert platform.apps.delete(app).outcome().state == "deleted"
        assert get(app.url)[0] != 200
