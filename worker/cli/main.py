"""The group of subcommands, and the one place where an error becomes lines on stderr and an exit status."""

from __future__ import annotations

import errno
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Final, TypeGuard

import click

from worker import __version__
from worker.errors import CancelWorkerError, ConfigError

PROGRAM: Final = "cancel-worker"

_FULL: Final = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}

_SUBCOMMANDS: Final = {
    "run": "Run the worker.",
    "demo": "Show everything at work on this machine: a broker, a venue, the worker.",
    "simulate": "Run the venue simulator alone.",
    "check": "Check configuration, broker, topology and venue log-in.",
    "topology": "Print or declare the AMQP topology.",
    "cancel": "Cancel orders: publish one command and wait for its final events.",
    "kill": "Cancel every open order in scope, until verified flat.",
    "tail": "Follow events, live or from a time on.",
    "audit": "Verify or export the audit stream.",
    "dead": "List, show, requeue or purge dead-lettered commands.",
    "schema": "Print JSON Schema of commands and events, or an AsyncAPI document.",
}


class Subcommands(click.Group):
    """Imports a subcommand's module when it is called for; the list of them needs none."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_SUBCOMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _SUBCOMMANDS:
            return None
        command: click.Command = import_module(f"worker.cli.{cmd_name}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(_SUBCOMMANDS.items()))


@click.group(
    cls=Subcommands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    no_args_is_help=False,  # a missing command is an error on one line like any other
    subcommand_metavar="COMMAND [OPTIONS]",
)
@click.option(
    "--config",
    "files",
    metavar="FILE",
    multiple=True,
    type=click.Path(path_type=Path),
    help="A TOML file; may be repeated, later files win over earlier ones. Default: the files in "
    "CANCEL_WORKER_CONFIG (with : between), else config/default.toml if it is there.",
)
@click.version_option(__version__, "--version", prog_name=PROGRAM, message="%(prog)s %(version)s")
@click.pass_context
def commands(context: click.Context, files: tuple[Path, ...]) -> None:
    """Take order-cancel commands from RabbitMQ to a trading venue and publish one final event per cancel.

    Every setting has a default. Files are given with --config, before the command; variables of the environment
    named CANCEL_WORKER__SECTION__KEY win over files, for example CANCEL_WORKER__BROKER__URL. Secrets (broker.url,
    venue.api_key, venue.api_secret) are never arguments: give them by environment, or as paths in broker.url_file,
    venue.api_key_file and venue.api_secret_file.

    \b
    Exit status of every command:
      0  done
      1  failed at run time, or interrupted
      2  the command line or the configuration is wrong
    """
    context.obj = files


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one subcommand; the exit status. No exception leaves here but KeyboardInterrupt."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    # Without it Python prints what libraries log at WARNING and above; what matters of it is in our own errors.
    logging.getLogger().addHandler(logging.NullHandler())
    try:
        status = _invoke(given)
        sys.stdout.flush()
    except BrokenPipeError:
        _discard_stdout()
        return 1
    except click.ClickException as error:
        _tell(_of_click(error))
        return error.exit_code
    except Exception as error:  # noqa: BLE001 - the last place before the user
        return _failed(error)
    return status


def _invoke(arguments: list[str]) -> int:
    try:
        status: object = commands.main(arguments, prog_name=PROGRAM, standalone_mode=False)
    except click.Abort:  # click's word for Ctrl-C
        raise KeyboardInterrupt from None
    return status if isinstance(status, int) else 0


def _failed(error: Exception) -> int:
    """Lines for an error, and its exit status."""
    causes = list(_leaves(error))
    if all(isinstance(cause, BrokenPipeError) for cause in causes):
        _discard_stdout()
        return 1
    statuses = [1]
    for cause in causes:
        if isinstance(cause, CancelWorkerError):
            statuses.append(cause.exit_status)
            for line in cause.problems if isinstance(cause, ConfigError) else (str(cause),):
                _tell(line)
        elif _is_full(cause):
            _discard_stdout()
            _tell(f"cannot write the output: {cause.strerror}")
        else:
            _tell_bug(cause)
    return max(statuses)


def _is_full(error: Exception) -> TypeGuard[OSError]:
    """Whether standard output took no more: a file or an address of our own would be named in the error."""
    return isinstance(error, OSError) and error.filename is None and error.errno in _FULL


def _leaves(error: Exception) -> Iterator[Exception]:
    """The errors that a group holds, or the error itself."""
    if isinstance(error, ExceptionGroup):
        for member in error.exceptions:
            yield from _leaves(member)
    else:
        yield error


def _of_click(error: click.ClickException) -> str:
    """A usage error on one line, with the way to the help."""
    message = " ".join(error.format_message().split())
    if isinstance(error, click.NoSuchOption) and error.option_name == "--config":
        return "--config goes before the command: cancel-worker --config FILE COMMAND"
    if isinstance(error, click.UsageError) and error.ctx is not None:
        return f"{message} (see {error.ctx.command_path} --help)"
    return message


def _tell_bug(error: Exception) -> None:
    """Where it happened, not what it says: a message of another library may hold anything, a secret too."""
    place, trace = "", error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        if trace.tb_frame.f_globals.get("__name__", "").startswith("worker"):
            place = f" in {Path(code.co_filename).name}:{trace.tb_lineno}"
        trace = trace.tb_next
    _tell(f"this is a bug: {type(error).__name__}{place}; set CANCEL_WORKER__LOG__LEVEL=debug and try again for more")
    if os.environ.get("CANCEL_WORKER__LOG__LEVEL", "").strip("\"'") == "debug":
        from worker import log

        log.configure("debug", "console", sys.stderr.fileno())
        log.get_logger().debug("bug", exc_info=error)


def _tell(line: str) -> None:
    from worker.config.secret import mask_url

    line = mask_url(line)  # a URL given as an argument by mistake would be quoted with its password
    safe = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in line)
    try:
        print(f"{PROGRAM}: {safe}", file=sys.stderr, flush=True)
    except (OSError, ValueError):  # stderr is closed: nobody to tell
        pass


def _discard_stdout() -> None:
    """Whoever read our output is gone: what Python would still flush at the end has to go nowhere."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    except OSError:
        pass
