"""The server's log, written by a thread of its own.

Standard error may be a pipe that nobody reads, or a terminal that somebody has stopped: whoever writes to it waits
then, and the loop thread must not. So a record is put in a queue, which is bounded; what does not fit is counted, and
the count is written once there is room.

Deliberately absent: files, rotation and levels of the operator's choice. A service manager keeps what it is given.
"""

import atexit
import logging
import queue
import threading
from logging.handlers import QueueHandler
from typing import Any, Final, TextIO

from skerry.limits import LOG_END_SECONDS_MAX, LOG_RECORDS_WAITING_MAX


class QueuedLog(QueueHandler):
    """A handler that never waits. Shape: `dropped` counts the records that found no room, until that is written."""

    def __init__(self, stream: TextIO, formatter: logging.Formatter) -> None:
        self._waiting: queue.Queue[Any] = queue.Queue(LOG_RECORDS_WAITING_MAX)
        super().__init__(self._waiting)
        self.dropped = 0
        self._writer = logging.StreamHandler(stream)
        self._writer.setFormatter(formatter)
        self._thread: Final = threading.Thread(target=self._write, name="skerry-log", daemon=True)
        self._thread.start()

    def enqueue(self, record: logging.LogRecord) -> None:
        """Takes a record, or counts it."""
        try:
            self._waiting.put_nowait(record)
        except queue.Full:
            self.dropped += 1

    def finish(self) -> None:
        """Writes what waits, LOG_END_SECONDS_MAX at most."""
        try:
            self._waiting.put_nowait(None)
        except queue.Full:
            return
        self._thread.join(LOG_END_SECONDS_MAX)

    def _write(self) -> None:
        while (record := self._waiting.get()) is not None:
            self._writer.handle(record)
            if self.dropped and self._waiting.empty():
                dropped, self.dropped = self.dropped, 0
                lost = f"{dropped} lines of the log were dropped: nobody read them as fast as they came"
                self._writer.handle(logging.LogRecord("skerry", logging.WARNING, "", 0, lost, None, None))


def log_to(stream: TextIO, line: str) -> None:
    """Makes the process's log go to a stream, without waiting for it. Shape: `line` is the format of a line."""
    handler = QueuedLog(stream, logging.Formatter(line))
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
    atexit.register(handler.finish)
