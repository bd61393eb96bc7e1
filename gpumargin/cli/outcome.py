"""How a command ends: every error as words on stderr and the contract's exit code."""

from __future__ import annotations

import functools
import os
import signal
import sys
import traceback
from collections.abc import Callable
from contextvars import ContextVar
from typing import ParamSpec

import typer

from gpumargin.cli.render import say
from gpumargin.cli.signals import Stopped, stopping
from gpumargin.errors import GpumarginError, InputError, InternalError, ResourceError

P = ParamSpec("P")
_DEBUG = ContextVar("debug", default=False)
# Words in errors of the array library that mean the machine lacks something; their types differ between versions.
_LACKING = ("RESOURCE_EXHAUSTED", "Unable to initialize backend")


def set_debug(*, is_on: bool) -> None:
    """Whether unexpected errors print their traceback."""
    _DEBUG.set(is_on or os.environ.get("GPUMARGIN_DEBUG", "0") not in ("", "0"))


def verb(function: Callable[P, None]) -> Callable[P, None]:
    """The command function with every error turned into words and an exit code."""

    @functools.wraps(function)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            with stopping():
                function(*args, **kwargs)
            sys.stdout.flush()
        except typer.Exit:
            raise
        except (BrokenPipeError, SystemExit):  # the latter is what rich makes of the former
            _forget_stdout()
            raise typer.Exit(0) from None
        except KeyboardInterrupt as error:
            number = error.number if isinstance(error, Stopped) else signal.SIGINT
            say(_with_notes("terminated" if number == signal.SIGTERM else "interrupted", error), style="bold red")
            raise typer.Exit(128 + number) from None
        except Exception as error:  # noqa: BLE001  the last line of defence: nothing may reach the user as a traceback
            raise typer.Exit(_reported(error)) from None

    return guarded


def _forget_stdout() -> None:
    """The reader of our output has gone, as in `| head`: what Python flushes at exit goes nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _reported(error: Exception) -> int:
    """Prints an error and returns its exit code."""
    if _DEBUG.get():
        say(traceback.format_exc().rstrip())
    if isinstance(error, InputError):
        _report_failures(error)
        return error.exit_code
    code, words = _ending(error)
    say(f"error: {_with_notes(words, error)}", style="bold red")
    return code


def _with_notes(words: str, error: BaseException) -> str:
    """Words of an error with what was noted on its way."""
    return "; ".join([words, *getattr(error, "__notes__", ())])


def _ending(error: Exception) -> tuple[int, str]:
    """Exit code and words of an error."""
    text = str(error).strip()
    if isinstance(error, GpumarginError):
        return error.exit_code, text
    if isinstance(error, MemoryError):
        return ResourceError.exit_code, f"out of memory{': ' * bool(text)}{text}; give a smaller --memory-budget"
    if isinstance(error, OSError):
        place = f" {str(error.filename)!r}" if error.filename else ""
        return ResourceError.exit_code, f"cannot use the file or disk{place}: {error.strerror or text}"
    if any(word in text for word in _LACKING):
        return ResourceError.exit_code, f"the device cannot do this: {text}; see `gpumargin doctor`"
    first = text.splitlines()[0] if text else "no message"
    hint = "`gpumargin --debug VERB ...` prints the traceback"
    return InternalError.exit_code, f"unexpected {type(error).__name__}: {first}; {hint}"


def _report_failures(error: InputError) -> None:
    from gpumargin.cli.failures import show_failures

    show_failures(error.failures, is_error=True)
    say(f"error: {str(error).splitlines()[0].rstrip(':')}; nothing was published", style="bold red")
