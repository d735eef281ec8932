"""Several processes that run one `fit` together."""

import os
import re
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from metaprior.errors import InputError
from metaprior.system.terminal import at_least, use_cache


def among_processes(
    devices: int | str,
    coordinator: str | None,
    processes: int | None,
    process_id: int | None,
    table: Path,
    held: ExitStack,
) -> tuple[Callable[[Callable[[], None]], None], bool]:
    """Join the other processes of a `fit`, if there are any.

    Args:
        devices: of `--devices`.
        coordinator, processes, process_id: of the options of these names.
        table: must be the same file in every process.
        held: until it is closed, the end of one process is the end of all.

    Returns:
        how to run what only the first process does, and whether this is the first.
    """
    given = (coordinator, processes, process_id)
    told = any(value is not None for value in given)
    slurm = devices == "all" and int(os.environ.get("SLURM_STEP_NUM_TASKS", "1")) > 1
    if not told and not slurm:
        return _alone, True
    if str(table) == "-":
        raise InputError("Several processes cannot share standard input; give a file.")
    if told:
        _check(devices, coordinator, processes, process_id)
    use_cache()
    from metaprior.system import devices as runtime
    from metaprior.system.folder import digest

    runtime.join(*given)
    held.enter_context(runtime.together())

    def mark():
        return [digest(table) if table.is_file() else "missing"]

    runtime.agree(mark, f"{table}: is not the same file in every process.")
    return runtime.by_first, runtime.first()


def _alone(call: Callable[[], None]) -> None:
    """The only process is the first."""
    call()


def _check(
    devices: int | str, coordinator: str | None, processes: int | None, process_id: int | None
) -> None:
    if coordinator is None or processes is None or process_id is None:
        raise InputError("--coordinator, --processes and --process-id go together.")
    if devices != "all":
        raise InputError("Several processes use all their devices: add --devices all.")
    if re.fullmatch(r".+:\d+", coordinator) is None:
        raise InputError(f"--coordinator is HOST:PORT; got {coordinator!r}.")
    at_least(processes, 1, "--processes")
    if not 0 <= process_id < processes:
        raise InputError(f"--process-id is from 0 to {processes - 1}; got {process_id}.")
