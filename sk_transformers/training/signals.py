"""What ends a run before its time: a signal, a loss that is not finite, a process that died."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class TrainingError(RuntimeError):
    """Training cannot go on."""


class Stopped(Exception):
    """A signal asked the run to end, and it was saved."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class StopRequest:
    """The first signal is remembered, for the run to end after its step; a second one ends it at once."""

    def __init__(self) -> None:
        self.signal = 0

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if self.signal:
            raise KeyboardInterrupt
        self.signal = number

    @property
    def requested(self) -> bool:
        """Whether there was a signal."""
        return self.signal != 0

    @property
    def status(self) -> int:
        """Of the process, as a shell reports a program that a signal ended, so that schedulers know it is not done."""
        return 128 + (self.signal or signal.SIGTERM)  # another process may have had it


@contextmanager
def listen_for_stop() -> Iterator[StopRequest]:
    """Take SIGTERM and SIGINT (Ctrl-C) as a request to stop."""
    request = StopRequest()
    before = {number: signal.signal(number, request) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def explain_dead_process() -> Iterator[None]:
    """Raise TrainingError with a sentence if a process died that this one waits for."""
    try:
        yield
    except RuntimeError as error:
        text = str(error)
        if "DataLoader worker" in text and ("killed" in text or "exited unexpectedly" in text):
            raise TrainingError(
                f"a process that loads images died: {text.splitlines()[0]} If memory ran out, lower --num_workers or"
                " the batch size; go on with --resume_from_checkpoint latest."
            ) from error
        if any(word in text.lower() for word in ("gloo", "nccl", "connection closed by peer", "connection reset")):
            raise TrainingError(
                f"another process of this run is gone: {text.splitlines()[0]} Its own message says why; go on with"
                " --resume_from_checkpoint latest."
            ) from error
        raise
