"""The scripts as commands of an installed package: isnas-search and the others."""

import functools
import runpy


def _run(name: str) -> None:
    """As `python -m` would."""
    runpy.run_module(f"{__package__}.{name}", run_name="__main__", alter_sys=True)


analyze = functools.partial(_run, "analyze")
classical = functools.partial(_run, "classical")
compact = functools.partial(_run, "compact")
compare = functools.partial(_run, "compare")
evaluate_metric = functools.partial(_run, "evaluate_metric")
evaluate_strategy = functools.partial(_run, "evaluate_strategy")
make_dataset = functools.partial(_run, "make_dataset")
report = functools.partial(_run, "report")
restore = functools.partial(_run, "restore")
score = functools.partial(_run, "score")
search = functools.partial(_run, "search")
