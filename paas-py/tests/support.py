"""What tests share, without pytest's help."""

import paas

REPOSITORY = "https://git.example.com/team/hello.git"


def page(text: str) -> dict[str, str]:
    """The files of a site of one page."""
    return {"index.html": text}


def push_slow(platform: paas.Platform, seconds: float = 600) -> None:
    """Commits a page whose build takes this long."""
    platform.memory_host.script(page("slow"), build_seconds=seconds)
    platform.memory_git.commit(REPOSITORY, "main", page("slow"))


def until_built(deployment: paas.Deployment) -> None:
    """Returns once the build has begun."""
    for event in deployment.events():
        if event.type == "started" and event["step"] == "build":
            return
