"""What each sink is: something that takes one result after another."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

Message = dict[str, Any]  # a result in its public form, with ``repeat``: whether the sink may have got it before


class AwayError(Exception):
    """A sink cannot be reached, or does not confirm; the result is delivered again later.

    Args:
        message: why.
        code: short name of a reason that is the station's own, for the page's texts (``reason.CODE``); empty for words
            of a library or of the system.
        values: what the reason names.
    """

    def __init__(self, message: str, code: str = "", /, **values: str) -> None:
        super().__init__(message)
        self.code, self.values = code, values


class RefusedError(Exception):
    """A sink says that it will never take this result; it is set aside, and the next ones are delivered."""


class Sink(ABC):
    """Takes results, from one thread alone. After `AwayError` it is closed and opened again.

    Attributes:
        late: results that came too late for the sink to act on, since the start.
    """

    late = 0

    @abstractmethod
    def open(self) -> None:
        """Connect.

        Raises:
            AwayError: it cannot be reached now.
        """

    @abstractmethod
    def deliver(self, message: Message) -> None:
        """Deliver a result, and return when the sink has confirmed it.

        Raises:
            AwayError: it did not confirm; the result comes again.
            RefusedError: it will never take this result.
        """

    def confirm(self) -> None:  # noqa: B027
        """Make sure that all that was delivered is safe; called before it leaves the outbox.

        Raises:
            AwayError: it is not; all since the last call comes again.
        """

    def check(self) -> None:  # noqa: B027
        """Find out whether the connection still stands; called about once a second while there is nothing to deliver.

        Raises:
            AwayError: it does not.
        """

    @abstractmethod
    def close(self) -> None:
        """Disconnect; called also after errors, and never raises."""
