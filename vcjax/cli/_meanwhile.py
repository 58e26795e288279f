"""Work that goes on while something else is imported."""

import threading
from collections.abc import Callable
from typing import Any


class Meanwhile:
    """A call in a thread of its own, which does not keep the process alive: a refusal need not wait for it."""

    def __init__(self, call: Callable[[], Any]) -> None:
        self._call, self._value = call, None
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._value = self._call()
        except BaseException as failure:
            self._failure = failure

    @property
    def done(self) -> bool:
        """Whether the call has ended."""
        return not self._thread.is_alive()

    def result(self) -> Any:
        """What the call returned, or raised."""
        self._thread.join()
        if self._failure is not None:
            raise self._failure
        return self._value
