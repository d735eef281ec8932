"""Who does a case in PyTorch."""

from typing import Any

from benchmarks.cases import WHOLE, Case


def make(who: str, case: Case) -> Any:
    """The peer, warmed up."""
    if who not in case.peers:
        raise ValueError(f"{case.name} has the peers {', '.join(case.peers)}; not {who!r}.")
    if who == WHOLE:
        from benchmarks.torch_whole import make as whole

        return whole(case)
    if case.row == "maml":
        from benchmarks.torch_maml import make as maml

        return maml(who, case)
    if case.kind == "sinusoid":
        from benchmarks.torch_bayes import PEERS as BAYES

        return BAYES[case.row](case)
    from benchmarks.torch_sets import PEERS as SETS

    return SETS[case.row](case)


def compiler() -> bool:
    """Whether there is the C++ compiler that `torch.compile` needs."""
    import os
    import shutil

    return any(
        shutil.which(name) for name in (os.environ.get("CXX", ""), "g++", "clang++", "c++") if name
    )
