"""The folder that `fit` makes: what it holds, when it may be written, how a run continues."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from metaprior.errors import InputError
from metaprior.system.folder import PART, check_writable, machine, versions, write_atomic
from metaprior.system.terminal import names_in

FORMAT = "metaprior run"
HOLDOUT = 0.2  # share of the groups that `fit` keeps for `evaluate`
_OURS = {"prior", "run.json", "checkpoint", "last_good"}


class Run:
    """A run folder: `prior` when finished, `run.json` always, `checkpoint/` while it fits."""

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        self.prior = self.folder / "prior"
        self.record = self.folder / "run.json"
        self.checkpoint = self.folder / "checkpoint"
        self.last_good = self.folder / "last_good"  # a prior of before a loss was not finite

    @property
    def finished(self) -> bool:
        return self.prior.is_file()

    def read(self) -> dict[str, Any]:
        """What `run.json` says."""
        try:
            record = json.loads(self.record.read_text("utf-8"))
        except FileNotFoundError:
            raise InputError(
                f"{self.record}: no such file; was {self.folder} made by `metaprior fit`?"
            ) from None
        except (ValueError, OSError):
            record = None
        if not isinstance(record, dict) or record.get("format") != FORMAT:
            raise InputError(f"{self.record}: not the record of a metaprior run.")
        return record

    def load(self) -> Any:
        """The finished prior."""
        import metaprior

        if not self.folder.exists():
            raise InputError(f"{self.folder}: no such folder.")
        if self.folder.is_file():
            return metaprior.load(self.folder)  # a prior file by itself is as good
        if self.finished:
            return metaprior.load(self.prior)
        if self.record.exists():
            raise InputError(
                f"{self.folder}: this fit has not finished; continue it with `fit --resume`."
            )
        raise InputError(f"{self.folder}: holds no prior; was it made by `metaprior fit`?")

    def keep(self, prior: Any) -> None:
        """Write a loaded prior again where it came from."""
        write_atomic(self.folder if self.folder.is_file() else self.prior, prior.save)

    def check_new(self, resume: bool) -> None:
        """`fit` may write here: a new or empty folder, or with `resume` an unfinished run."""
        check_writable(self.folder)
        if not self.folder.exists():
            return
        if not self.folder.is_dir():
            raise InputError(f"{self.folder}: --out is a file; give a folder.")
        names = {entry.name for entry in self.folder.iterdir() if not entry.name.endswith(PART)}
        if not names or (names == {"checkpoint"} and not any(self.checkpoint.iterdir())):
            return  # nothing, or a fit that was cut off as it began
        if "run.json" not in names or not names <= _OURS:
            other = sorted(names - _OURS) or sorted(names)
            raise InputError(
                f"{self.folder}: --out holds something else ({other[0]}); choose another folder."
            )
        if not resume and self.finished:
            raise InputError(
                f"{self.folder}: --out holds a finished prior; choose another folder or remove it."
            )
        if not resume:
            raise InputError(
                f"{self.folder}: --out holds an unfinished run; "
                "continue it with --resume or remove it."
            )

    def check_same(self, options: dict[str, Any], table: Path) -> None:
        """A continued run has the options and the table it was started with."""
        record = self.read()
        for name, value in options.items():
            if name == "skip_bad_tasks" and value:
                continue  # a fit that met a bad group tells the user to add it
            was = record["options"].get(name, False)
            if was != value and (was or value):  # older records lack newer options
                flag = "--holdout by" if name == "holdout_by" else "--" + name.replace("_", "-")
                raise InputError(
                    f"{self.folder}: was started with {flag} {was}, now {flag} {value}; "
                    "they must agree."
                )
        from metaprior.tables.reading.files import fingerprint

        if record["table_sha256"] != fingerprint(table):
            raise InputError(f"{table}: has changed since the run in {self.folder} was started.")

    def fit(
        self,
        table: Path,
        options: dict[str, Any],
        progress: Callable | None,
        devices: int | str = 1,
        told: Callable | None = None,
    ) -> Any:
        """Start or continue the run and finish it.

        Nothing is written before the table has been found good.

        Args:
            table: path of the table, or `-`.
            options: of `fit`, plain values.
            progress: called with the share done and what is being done.
            devices: of `--devices`.
            told: see `Prior.fit`.
        """
        import metaprior
        from metaprior.system.devices import first
        from metaprior.tables.culprits import BadTask

        settings, columns = split_options(options, table)
        try:
            prior = metaprior.Prior(**settings, devices=devices)
        except ValueError as error:
            raise InputError(str(error)) from None

        made, fresh = not self.folder.exists(), not self.record.exists()
        writes, begun = first(), False

        # Called for the first time when the table has been read and checked.
        def tell(done: float, what: str) -> None:
            nonlocal begun
            if writes and not begun and (fresh or self.read()["options"] != options):
                self.start(table, options, devices)
            begun = True
            if progress is not None:
                progress(done, what)

        try:
            prior.fit(table, **columns, checkpoint=self.checkpoint, progress=tell, told=told)
        except BadTask as error:
            if prior.trained is None:
                raise
            if writes:
                prior.info.pop("seconds", None)
                write_atomic(self.last_good, prior.save)
            raise BadTask(
                f"{error} {self.last_good} is the prior of before, to predict with."
            ) from None
        except InputError:
            if writes and fresh:
                self.remove(made)
            raise
        if writes:
            self._finish(prior)
        return prior

    def _finish(self, prior: Any) -> None:
        """Write the prior."""
        # Without the seconds: the same prior is the same bits, however long it took.
        seconds = prior.info.pop("seconds", None)
        write_atomic(self.prior, prior.save)
        prior.info["seconds"] = seconds
        self.clean()

    def start(self, table: Path, options: dict[str, Any], devices: int | str = 1) -> None:
        """Write the record of a run that begins."""
        from metaprior.tables.reading.files import fingerprint, place

        record = {
            "format": FORMAT,
            "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
            "table": place(table),
            "table_sha256": fingerprint(table),
            "versions": versions(),
            "machine": machine(),
            "devices": devices,
            "seed": options["seed"],
            "options": options,
        }
        self.folder.mkdir(parents=True, exist_ok=True)
        write_atomic(
            self.record, lambda part: part.write_text(json.dumps(record, indent=1) + "\n", "utf-8")
        )

    def clean(self) -> None:
        """Remove what only an unfinished run needs."""
        shutil.rmtree(self.checkpoint, ignore_errors=True)
        self.last_good.unlink(missing_ok=True)
        for part in self.folder.glob("*" + PART):
            part.unlink(missing_ok=True)

    def remove(self, folder: bool) -> None:
        """Undo the start of a run."""
        self.clean()
        self.record.unlink(missing_ok=True)
        if folder and self.folder.exists():
            self.folder.rmdir()

    def recorded(self) -> tuple[Path, dict[str, Any]]:
        """The table and options of the fit, if the table is still there and the same."""
        from metaprior.tables.reading.files import again, fingerprint

        record = self.read()
        table = again(record["table"], "--splits fits again from the table of `fit`")
        if fingerprint(table) != record["table_sha256"]:
            raise InputError(
                f"{table}: has changed since {self.folder} was fitted; "
                "--splits needs the same table."
            )
        return table, record["options"]

    def refit(self, split: int, progress: Callable | None) -> Any:
        """The same fit from the recorded table with other groups kept aside.

        The first few splits keep every group aside once; then the groups are shuffled anew.
        """
        table, options = self.recorded()
        import metaprior

        seed, part = which_split(options, split)
        settings, columns = split_options(options | {"seed": seed, "part": part}, table)
        prior = metaprior.Prior(**settings)
        return prior.fit(table, **columns, progress=progress)


_SETTINGS = (
    "method",
    "target_scale",
    "steps",
    "seed",
    "kind",
    "split_by",
    "holdout",
    "holdout_by",
    "skip_bad_tasks",
    "part",
    "drop_missing_targets",
    "keep_na",
    "missing",
)
_COLUMNS = ("task", "features", "numeric", "categorical", "date", "ordered")


def one_split(by: str) -> str:
    """Why groups are not split again."""
    return (
        f"--holdout by={by} splits the groups in one way: those with the largest values are kept "
        "aside. Leave out --splits."
    )


def asked_for(text: str | None, share: float = HOLDOUT) -> dict[str, float | str | None]:
    """`0.3`, `by=COLUMN` or `0.3,by=COLUMN` as the options `holdout` and `holdout_by`.

    Args:
        text: of `--holdout`; `None` where it is not given.
        share: where none is named.

    Raises:
        InputError: it is none of the three, or the share is not above 0 and at most 0.5.

    Example:
        >>> from metaprior.cli.run import asked_for
        >>> asked_for("by=year")
        {'holdout': 0.2, 'holdout_by': 'year'}
    """
    if text is None:
        return {"holdout": share, "holdout_by": None}
    first, found, by = text.partition("by=")
    number = first.strip().removesuffix(",")
    wrong = InputError(
        f"--holdout takes a share above 0, at most 0.5, such as 0.3; or by=COLUMN; or "
        f"0.3,by=COLUMN; got {text!r}."
    )
    if (found and not by.strip()) or (found and number == first.strip() != ""):
        raise wrong
    try:
        share = float(number) if number or not found else share
    except ValueError:
        raise wrong from None
    if not 0 < share <= 0.5:
        raise wrong
    return {"holdout": share, "holdout_by": by.strip() if found else None}


def splits_of(options: dict[str, Any]) -> int:
    """So many splits keep every group aside once; one where those of largest values are kept."""
    return 1 if options.get("holdout_by") else max(1, round(1 / options["holdout"]))


def which_split(options: dict[str, Any], split: int) -> tuple[int, int]:
    """Seed and part of a split."""
    splits = splits_of(options)
    return options["seed"] + split // splits, split % splits


def split_options(options: dict[str, Any], table: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """A run's options as arguments of `Prior` and of `Prior.fit`."""
    settings = {name: options[name] for name in _SETTINGS if name in options}
    columns = {name: options[name] for name in _COLUMNS if name in options}
    return settings, {**columns, "target": split_target(options["target"], table)}


def split_target(text: str, table: Path) -> str | list[str]:
    """`a,b` as two columns, unless the table has one of that name."""
    if "," not in text:
        return text
    from metaprior.tables.read import read

    if text in read(table).columns:
        return text
    names = names_in(text)
    if not names:
        raise InputError(f"--target {text!r} is empty; give column names with commas between.")
    return names
