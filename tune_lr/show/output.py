"""The output of a process, made so that it cannot end what the process does.

A pipe whose reader has gone, a disk that is full and a character that the encoding lacks all raise in `print`. A study
of hours must not end of it.
"""

import codecs
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from rich.console import Console

# What stands for a sign of ours where the encoding of the output lacks it. Any other such character becomes "?".
_PLAIN_SIGNS = {"…": "...", "━": "-", "╸": "-", "╺": "-"} | dict(zip("▁▂▃▄▅▆▇█", "_.,-=+*#", strict=True))
_PLAIN = "tune_lr.plain"


def _plain_signs(error: UnicodeError) -> tuple[str, int]:
    """Replace what cannot be encoded: the error handler of the name `_PLAIN`."""
    assert isinstance(error, UnicodeEncodeError)
    text = error.object[error.start : error.end]
    return "".join(_PLAIN_SIGNS.get(character, "?") for character in text), error.end


codecs.register_error(_PLAIN, _plain_signs)


class SafeStream:
    """A text stream whose `write` and `flush` never raise.

    The first OSError switches the stream off: `failure` holds it, `on_failure` is called with it once, and what is
    written afterwards is dropped. Characters that the encoding lacks are replaced.
    """

    def __init__(self, stream: TextIO, on_failure: Callable[[OSError], None] | None = None) -> None:
        self.failure: OSError | None = None
        self._stream = stream
        self._on_failure = on_failure

    def __getattr__(self, name: str) -> Any:
        """Return what the stream itself has of that name: `encoding`, `isatty`, `fileno`, ..."""
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write the text, as far as that can be; return its length."""
        if self.failure is None:
            try:
                try:
                    self._stream.write(text)
                except UnicodeEncodeError:
                    self._stream.write(self._encodable(text))
            except BlockingIOError:
                pass  # a pipe that does not block is full: the text is lost, the next one may not be
            except (OSError, ValueError) as error:
                self._fail(error)
        return len(text)

    def flush(self) -> None:
        """Hand on what has been written, as far as that can be."""
        if self.failure is None:
            try:
                self._stream.flush()
            except BlockingIOError:
                pass
            except (OSError, ValueError) as error:
                self._fail(error)

    def _encodable(self, text: str) -> str:
        encoding = self._stream.encoding or "ascii"
        return text.encode(encoding, _PLAIN).decode(encoding)

    def _fail(self, error: OSError | ValueError) -> None:
        # A ValueError is raised by a stream that somebody has closed.
        self.failure = error if isinstance(error, OSError) else OSError(str(error))
        if self._on_failure is not None:
            self._on_failure(self.failure)


def safe_console(stream: TextIO | None) -> "Console":
    """Return a console on `stream`: on this stream, whatever takes the place of `sys.stdout` later.

    `stream` is None in a process that was started without it; then nothing is shown.

    FORCE_COLOR asks for colours. It does not make a terminal of a file: the screen that is drawn again and again is for
    terminals alone, and not for those of TERM=dumb.
    """
    from rich.console import Console

    if stream is None:
        return Console(quiet=True)
    file: Any = stream if isinstance(stream, SafeStream) else SafeStream(stream)
    console = Console(file=file)
    console.is_interactive = console.is_interactive and _is_terminal(stream)
    return console


def open_missing_streams() -> None:
    """Open the null device for each of the standard streams that this process was started without (`>&-`).

    Otherwise the next file that is opened, perhaps one of a study, would get the number of the stream, and what the
    libraries in C and the child processes print would be written into it.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free, which is this one
            os.set_inheritable(number, True)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            null = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115  it stays open until the process ends
            setattr(sys, name, null)


def _is_terminal(stream: TextIO) -> bool:
    try:
        return stream.isatty()
    except ValueError:  # it is closed
        return False
