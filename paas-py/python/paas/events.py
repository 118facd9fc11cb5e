"""Events: what happened to an app or a deployment, in order, for ever."""

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, cast

from paas.words import EventType


class Event(Mapping[str, Any]):
    """Something that happened. Its data are read like a dict: ``event["step"]``, ``event.get("attempt")``."""

    __slots__ = ("_data", "at", "position", "stream", "version")

    stream: str
    """The id of the deployment or app it belongs to."""
    version: int
    """Its number within the stream, from 1, without gaps."""
    position: int
    """Its place among the events of all streams."""
    at: datetime
    """When it was recorded."""

    def __init__(
        self, stream: str, version: int, position: int, at: datetime, data: Mapping[str, Any]
    ) -> None:
        self.stream = stream
        self.version = version
        self.position = position
        self.at = at
        self._data = data

    @property
    def type(self) -> EventType:
        """What happened, in one word."""
        return cast(EventType, self._data["type"])

    def __getitem__(self, key: str) -> Any:
        return self._data[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._data)

    def __len__(self) -> int:
        return len(self._data)

    def __repr__(self) -> str:
        return f"<paas.Event {self.version} {dict(self._data)!r}>"
