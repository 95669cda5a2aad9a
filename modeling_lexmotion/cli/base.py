"""The `lexmotion` command: its groups, its error handling, and what it prints."""

import errno
import functools
import logging
import os
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console, ConsoleOptions, ConsoleRenderable, RenderHook, RenderResult
from rich.markup import escape
from rich.segment import Segment

from lexmotion.common.files import full_disk_named
from lexmotion.common.text import check_encoding, printable

app = typer.Typer(
    name="lexmotion",
    help="Human motion and language in one space whose dimensions are words.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

evaluate_app = typer.Typer(help="Measure a trained model on a prepared dataset.", no_args_is_help=True)
app.add_typer(evaluate_app, name="evaluate")

index_app = typer.Typer(help="Build and update an index of motions, to search them by words.", no_args_is_help=True)
app.add_typer(index_app, name="index")

export_app = typer.Typer(help="Write a trained model in the format of another library.", no_args_is_help=True)
app.add_typer(export_app, name="export")

report_app = typer.Typer(help="Write figures and web pages about a trained model.", no_args_is_help=True)
app.add_typer(report_app, name="report")

# Errors that users can cause and fix; anything else is a bug and keeps its traceback.
USER_ERRORS = (ValueError, OSError, ImportError, FloatingPointError)
# `name: ...` at the start, and `name=value`, in the text of an error or a note.
_ARGUMENT = re.compile(
    r"(?<![\w.-])(?P<name>[a-z_]+)=(?P<value>True|\.\.\.|'[^']*'|\"[^\"]*\"|\{[^{}]*\}|[\w.]+)"
    r"|^(?P<first>[a-z_]+)(?=: )"
)
_PAIR = re.compile(r"'([^']*)': '([^']*)'")
DEBUG_VARIABLE = "LEXMOTION_DEBUG"
OTHER_NAMES = {"splits": "split", "kinds": "what"}  # Python argument -> option
REMEDY = "check the path and its permissions"
REMEDIES = {
    errno.ENOENT: "check the path",
    errno.EEXIST: "a file is in the way of the folder; pass another path",
    errno.ENOTDIR: "a file is in the way of the folder; pass another path",
    errno.EISDIR: "pass a file",
    errno.ENOSPC: "free some space, or write to another disk",
}


def main(arguments: list[str] | None = None) -> None:
    """Run the command; user errors print one line and exit with status 1.

    Args:
        arguments: words after `lexmotion`; None reads `sys.argv`.
    """
    words = sys.argv[1:] if arguments is None else arguments
    logging.setLogRecordFactory(functools.partial(PrintableRecord, words=words))
    try:
        check_encoding(words)
        with full_disk_named("a file"):
            app(args=words, prog_name="lexmotion")
    except USER_ERRORS as error:
        if os.environ.get(DEBUG_VARIABLE):
            raise
        fail(error, flags_of(words))
    except KeyboardInterrupt:
        terminal(stderr=True).print("[yellow]Stopped.[/] To resume `lexmotion train`, run the same command again.")
        sys.exit(130)


class PrintableRecord(logging.LogRecord):
    """A log record that cannot control the terminal; LexMotion's warnings name options of the command in `words`."""

    def __init__(self, *arguments: Any, words: Sequence[str] = (), **named: Any):
        super().__init__(*arguments, **named)
        self.words = words

    def getMessage(self) -> str:  # noqa: N802
        text = printable(super().getMessage())
        own = self.name.startswith("lexmotion.") and self.levelno >= logging.WARNING
        return with_flags(text, flags_of(self.words)) if own else text


class PrintableHook(RenderHook):
    """Removes what could control the terminal from the text that a console prints, see `printable`."""

    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        return [_Printable(renderable) for renderable in renderables]


class _Printable:
    def __init__(self, content: ConsoleRenderable):
        self.content = content

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for segment in console.render(self.content, options):
            yield segment if segment.control else Segment(printable(segment.text), segment.style)


def terminal(stderr: bool = False, **options: Any) -> Console:
    """Return a console for texts of users and files; `options` are those of `rich.console.Console`."""
    console = Console(stderr=stderr, **options)
    console.push_render_hook(PrintableHook())
    return console


def flags_of(arguments: Sequence[str]) -> dict[str, str]:
    """Return the option of each Python argument of the command that is called: `{"missing_ok": "--missing-ok"}`."""
    command: Any = typer.main.get_command(app)
    for word in arguments:
        command = getattr(command, "commands", {}).get(word, command)
    flags: dict[str, str] = {}
    for option in command.params:
        if option.param_type_name == "option":
            flag = max(option.opts, key=len)
            flags |= {option.name: flag, flag.removeprefix("--").replace("-", "_"): flag}
    return flags | {name: flags[option] for name, option in OTHER_NAMES.items() if option in flags}


def with_flags(text: str, flags: Mapping[str, str]) -> str:
    """Replace Python arguments by the options of the command: `replace=True` by `--replace`."""

    def flag(match: re.Match) -> str:
        name, value = match["name"] or match["first"], match["value"]
        if name not in flags:
            return match.group()
        if value in (None, "True", "..."):
            return flags[name]
        if value[0] == "{":
            value = " ".join(shlex.quote(f"{key}={of}") for key, of in _PAIR.findall(value))
        elif value[0] in "'\"":
            value = shlex.quote(value[1:-1])
        return f"{flags[name]} {value}"

    return _ARGUMENT.sub(flag, text)


def plain(error: BaseException) -> str:
    """Return the text of an error; that of the operating system names the file first and has a remedy."""
    if isinstance(error, OSError) and error.filename is not None and error.errno is not None:
        reason = os.strerror(error.errno)
        return f"{os.fsdecode(error.filename)}: {reason[:1].lower()}{reason[1:]}; {REMEDIES.get(error.errno, REMEDY)}"
    return str(error)


def fail(error: BaseException, flags: Mapping[str, str] | None = None) -> NoReturn:
    """Print `error` as one line to stderr, with options for Python arguments, and exit with status 1."""
    text = with_flags(" ".join(plain(error).split()) or type(error).__name__, flags or {})
    console = terminal(stderr=True, soft_wrap=True, highlight=False)
    console.print(f"[bold red]error:[/] {escape(text)}")
    console.print(f"[dim]lexmotion --debug ... (or {DEBUG_VARIABLE}=1) shows the traceback.[/]")
    sys.exit(1)


def show_version(wanted: bool) -> None:
    """Print the version and exit."""
    if wanted:
        from importlib.metadata import version

        terminal().print(f"lexmotion {version('lexmotion')}", highlight=False)
        raise typer.Exit


@app.callback()
def common(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Human motion and language in one space whose dimensions are words.

    Start with [bold]lexmotion quickstart[/]. Then [bold]prepare[/] a motion corpus, [bold]train[/] the four phases,
    [bold]evaluate[/] retrieval and [bold]explain[/] which words the model finds in a motion.
    """
    if debug:
        os.environ[DEBUG_VARIABLE] = "1"
