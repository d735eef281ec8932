"""Files of results that people and version control can read.

One measured line is one line of text. A file is written beside its place and then put there.
"""

import json
from pathlib import Path
from typing import Any


def layout(value: Any, depth: int, indent: int = 0) -> str:
    """JSON with containers spread over lines down to `depth`, and whole below it.

    What holds plain values alone is always whole.
    """
    parts = list(value.values()) if isinstance(value, dict) else value
    if depth == 0 or not isinstance(value, dict | list):
        return json.dumps(value)
    if not any(isinstance(part, dict | list) for part in parts):
        return json.dumps(value)

    pad = " " * (indent + 1)
    texts = [layout(part, depth - 1, indent + 1) for part in parts]
    if isinstance(value, dict):
        texts = [f"{json.dumps(name)}: {text}" for name, text in zip(value, texts)]
    start, end = "{}" if isinstance(value, dict) else "[]"
    lines = ",\n".join(pad + text for text in texts)
    return f"{start}\n{lines}\n{' ' * indent}{end}"


def rounded(value: Any, digits: int = 5) -> Any:
    """The same with so many significant digits: no clock is better than that."""
    if isinstance(value, dict):
        return {name: rounded(part, digits) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(part, digits) for part in value]
    return float(f"{value:.{digits}g}") if isinstance(value, float) else value


def write(path: Path, results: dict[str, Any], depth: int) -> None:
    """Write it whole or not at all, so that a run that is stopped leaves what there was."""
    part = path.with_name(path.name + ".part")
    part.write_text(layout(results, depth) + "\n", "utf-8")
    part.replace(path)
