"""Type checkers, and so editors, see what a user's script works with."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("users_script.py")
LINES = SCRIPT.read_text().splitlines()
# The lines of `mistakes`, after its name and docstring.
MISTAKES = set(range(LINES.index("def mistakes() -> None:") + 3, len(LINES) + 1))


def lines_with_errors(*command: str) -> set[int]:
    """Numbers of the script's lines of which a checker complains."""
    said = subprocess.run(
        [*command, SCRIPT], capture_output=True, text=True, check=False, cwd=SCRIPT.parents[1]
    )
    print(said.stdout, said.stderr)
    rows = [row.split(":") for row in said.stdout.splitlines() if SCRIPT.name in row]
    return {int(row[1]) for row in rows}


@pytest.mark.slow
def test_mypy_sees_real_types(request):
    """`Any` in a type's place would fail `assert_type`; each mistake is found on its line.

    Takes 7 s of processor time where nothing of the packages is in mypy's cache yet.
    """
    cache = request.config.cache.mkdir("mypy")
    command = (sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(cache))
    assert lines_with_errors(*command) == MISTAKES


def test_ty_sees_real_types():
    ty = Path(sys.executable).with_name("ty")
    assert lines_with_errors(str(ty), "check", "--output-format", "concise") == MISTAKES
