"""The command line: the list of commands, the entry point, and messages for wrong usage."""

import gc
import os
import sys

from cyclopts import App, CycloptsError, MissingArgumentError

from metaprior import __version__
from metaprior.cli.check import check
from metaprior.cli.demo import demo
from metaprior.cli.judge import evaluate, methods
from metaprior.cli.learn import compare, fit
from metaprior.cli.protocols import reproduce, rerun
from metaprior.cli.use import explain, predict, suggest
from metaprior.errors import InputError
from metaprior.system.faults import STOPPED, Stopped, stoppable
from metaprior.system.terminal import print_anywhere

CONTINUED = {
    "fit": "; continue with the same command and --resume",
    "reproduce": "; the same command continues",
    "compare": "; the same command continues",
}

app = App(
    name="metaprior",
    help="Learn a prior from a table of many small groups; predict a new group from a few rows.",
    version=__version__,
    suppress_keyboard_interrupt=False,  # `main` says how to continue
)
for verb in (
    demo,
    check,
    fit,
    explain,
    predict,
    suggest,
    evaluate,
    compare,
    methods,
    reproduce,
    rerun,
):
    app.command(verb)


def usage(error: CycloptsError) -> str:
    """What was wrong with the arguments."""
    said = str(error)
    # Of an option that is left out, Cyclopts says that it "requires an argument".
    absent = (
        isinstance(error, MissingArgumentError)
        and error.keyword is None
        and error.argument is not None
    )
    if not absent or "Did you mean" in said:
        return said
    unknown = [token for token in error.unused_tokens or [] if token.startswith("--")]
    other = f" and does not know {unknown[0]}" if unknown else ""
    command = " ".join(error.command_chain or ())
    return (
        f"{command} needs {error.argument.name}{other}. "
        f"`metaprior {command} --help` lists what it takes."
    )


def complain(message: str) -> int:
    print(f"metaprior: {' '.join(message.split())}", file=sys.stderr)
    return 2


def _with_standard_input(arguments: list[str]) -> list[str]:
    """`-` as a path, which Cyclopts takes for an option otherwise; but not as a missing value."""
    pairs = zip(arguments, ["", *arguments])
    found = ["./-" if given == "-" and before != "--missing" else given for given, before in pairs]
    if found.count("./-") > 1:
        raise InputError("Standard input (-) can be one table only.")
    return found


def main(arguments: list[str] | None = None) -> None:
    """The entry point: a clear line on stderr and status 2 for anything the user can put right."""
    gc.set_threshold(
        100_000
    )  # importing and tracing make very many objects, nearly all of which stay
    print_anywhere()
    status = 0
    arguments = sys.argv[1:] if arguments is None else arguments
    command = next(iter(arguments), "")
    stopped = f"metaprior: stopped{CONTINUED.get(command, '')}.\n"
    try:
        with stoppable(stopped, patient=command == "fit"):
            arguments = _with_standard_input(arguments)
            app(arguments, exit_on_error=False, print_error=False, result_action="return_value")
    except CycloptsError as error:
        status = complain(usage(error))
    except InputError as error:
        status = complain(str(error))
    except Stopped:
        print(stopped, end="", file=sys.stderr)
        status = STOPPED
    except KeyboardInterrupt:
        print(stopped, end="", file=sys.stderr)
        status = 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    except OSError as error:
        from metaprior.system.folder import plain_os_error

        status = complain(plain_os_error(error))
    sys.exit(status)


if __name__ == "__main__":
    main()
