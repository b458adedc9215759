"""Logging that escapes and shortens what callers send, and drops lines rather than block a call when nobody reads them.

JSON for machines, one object a line; text for people. Control characters are escaped in both, values are cut. Lines
wait for the writer in a queue of bounded length: where nobody reads standard error, lines are lost and counted, and
calls go on.
"""

from __future__ import annotations

import json
import logging
import math
import re
import sys
import threading
import traceback
from collections import deque
from datetime import UTC, datetime
from threading import Thread
from typing import TYPE_CHECKING, Any

from .record import current_call

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TextIO

    from ..settings import LogFormat

MAX_VALUE = 256  # characters of a field
MAX_MESSAGE = 2048  # of our own sentences, which may quote the last words of a worker
MAX_TRACE = 8192  # of a traceback
MAX_CAUSES = 4  # of an exception
MAX_LINES = 10_000  # that wait for the writer
TOGETHER_SECONDS = 0.01  # for which lines gather: waking the writer for each of them costs more than writing it
CLOSE_SECONDS = 2.0
# Whatever a terminal obeys or a reader of lines takes for an end: C0, DEL, C1, the two Unicode ends of lines, the marks
# that turn the direction of writing, and halves of surrogate pairs.
UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


class JsonFormatter(logging.Formatter):
    """Formats one JSON object per line: time, level, logger, message and fields; `id` for lines of a call."""

    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": safe(record.getMessage(), MAX_MESSAGE),
        }
        if call := current_call():
            entry["id"] = call.id
        entry |= fields_of(record)
        if record.exc_info:
            entry["trace"] = trace_of(record.exc_info)
        return json.dumps(entry)


class TextFormatter(logging.Formatter):
    """Formats a readable line with its fields after the message; a traceback follows, indented."""

    def format(self, record: logging.LogRecord) -> str:
        when = datetime.fromtimestamp(record.created).astimezone().isoformat(" ", "milliseconds")[:23]
        parts = [when, f"{record.levelname:7}", f"{record.name}:", safe(record.getMessage(), MAX_MESSAGE)]
        parts += [f"{name}={value}" for name, value in fields_of(record).items()]
        line = " ".join(parts)
        if record.exc_info:
            line += "\n    " + trace_of(record.exc_info).replace("\n", "\n    ")
        return line


class QueuedHandler(logging.Handler):
    """Formats immediately and writes from its own thread. `on_drop` is called for each line that did not fit the
    queue."""

    def __init__(self, stream: TextIO, on_drop: Callable[[], None] = lambda: None) -> None:
        super().__init__()
        self.on_drop = on_drop
        self._stream = stream
        self._lines: deque[str] = deque()
        self._has_lines, self._closing = threading.Event(), threading.Event()
        self._writer = Thread(target=self._write, name="log", daemon=True)
        self._writer.start()

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record)
        except Exception:
            self.handleError(record)
            return
        if len(self._lines) >= MAX_LINES:
            self.on_drop()
            return
        self._lines.append(line)
        if not self._has_lines.is_set():
            self._has_lines.set()

    def close(self) -> None:
        """Write the queued lines, if that does not take long."""
        super().close()
        self._closing.set()
        self._has_lines.set()
        self._writer.join(CLOSE_SECONDS)

    def _write(self) -> None:
        closing = False
        while not closing:
            self._has_lines.wait()
            self._has_lines.clear()
            closing = self._closing.wait(TOGETHER_SECONDS)
            self._write_waiting()

    def _write_waiting(self) -> None:
        while self._lines:
            try:
                self._stream.write(self._lines.popleft() + "\n")
                self._stream.flush()
            except (OSError, ValueError):
                self.on_drop()  # there is nobody to tell


def safe(text: str, most: int) -> str:
    """The text truncated and with control characters escaped."""
    if len(text) > most:
        text = f"{text[:most]}... ({len(text)} characters)"
    return UNSAFE.sub(lambda match: rf"\u{ord(match[0]):04x}", text)


def trace_of(exc_info: Any) -> str:
    """The traceback of an exception and its causes, with texts truncated: they may quote a caller's data."""
    parts = ["Traceback (most recent call last):"]
    error = exc_info[1]
    while error is not None and len(parts) < MAX_CAUSES + 1:
        frames = "".join(traceback.format_tb(error.__traceback__)).splitlines()
        line = f"{type(error).__module__}.{type(error).__qualname__}: {safe(str(error), MAX_VALUE)}"
        parts.append("\n".join([*(safe(line, MAX_VALUE) for line in frames), line]))
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return "\n".join(parts)[:MAX_TRACE]


def fields_of(record: logging.LogRecord) -> dict[str, object]:
    """The fields logged with `extra={"fields": {...}}`, made safe to write."""
    fields: dict[str, object] = getattr(record, "fields", {})
    return {name: value if is_number(value) else safe(str(value), MAX_VALUE) for name, value in fields.items()}


def is_number(value: object) -> bool:
    """Whether the value is a number that JSON can represent: not NaN or infinite."""
    return isinstance(value, int) or (isinstance(value, float) and math.isfinite(value))


def start_logging(log_format: LogFormat | None = None) -> QueuedHandler:
    """Log to standard error, as text on a terminal and else as JSON, unless a format is given."""
    handler = QueuedHandler(sys.stderr)
    text = sys.stderr.isatty() if log_format is None else log_format == "text"
    handler.setFormatter(TextFormatter() if text else JsonFormatter())
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    logging.captureWarnings(True)
    # No line shows them, and every record would look them up.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    threading.excepthook = lambda args: _lost("a thread", args)
    sys.unraisablehook = lambda args: _lost("something that was thrown away", args)
    return handler


def _lost(where: str, args: threading.ExceptHookArgs | sys.UnraisableHookArgs) -> None:
    """Log an unhandled exception."""
    if args.exc_value is not None:
        logging.getLogger(__name__).error(
            "%s ended with an error", where, exc_info=(args.exc_type, args.exc_value, args.exc_traceback)
        )
