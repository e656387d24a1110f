r"""Judge stopping rules, choices and combinations by what `gather` wrote, in seconds.

    python -m experiments.decisions.tables --input_dir=docs/decisions --output_dir=tables

A rule is a function of what was recorded of an architecture on an image, by
split, to the position it stops at, whose mean it restores with, and which: the
exponential mean at every 5th iteration or the debiased one at every 20th. Add
one to `RULES`. A choice is a selection and a combination as of a search; add one
to `CHOICES`. `runs.csv`, where it is there, holds what `experiments.compare`
wrote. Intervals are 95 % bootstrap over images, whose architectures and methods
stay together.
"""

import dataclasses
import functools
import itertools
import pathlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias, cast

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import scipy.stats
from absl import flags

from isnas_jax import study
from isnas_jax.io import records
from isnas_jax.problems import CLASSICAL, TASKS
from isnas_jax.report import tables
from isnas_jax.searching import Cohort
from isnas_jax.searching.combination import Combination, Stack, selected_only, uniform_mean
from isnas_jax.searching.presets import quick
from isnas_jax.searching.selection import closest_to_mean, least_validation, lowest_mean_rank
from isnas_jax.study.intervals import over_images

from .. import cli
from .curves import PARTS, Part
from .gather import STEP, stop

FLAGS = flags.FLAGS

# Looked at while the rules and cohorts were chosen; the tables report on the others.
TUNED_ON = ("coffee", "coins", "moon")
CASE = ["part", "image", "seed"]
SMOOTHING = 0.9

Recorded: TypeAlias = Mapping[str, Mapping[str, np.ndarray]]  # by split, then by name
Rule: TypeAlias = Callable[[Recorded], tuple[int, str, str]]


def first_least(
    values: np.ndarray, patience: float = np.inf, start: int = 0, margin: float = 0.0
) -> int:
    """Position of the first least value, until nothing was lower for so many iterations."""
    at, least = min(start // STEP, len(values) - 1), np.inf
    for position in range(at, len(values)):
        if values[position] < (1 - margin) * least:
            at, least = position, values[position]
        elif np.isfinite(least) and (position - at) * STEP >= patience:
            break
    return at


def smooth(values: np.ndarray, decay: float) -> np.ndarray:
    """The exponential mean with a decay an iteration."""
    series = pd.Series(values).ewm(alpha=1 - decay**STEP, adjust=False)
    return series.mean().to_numpy() if decay else values


def uses_validation(
    split: str, decay: float = SMOOTHING, *, own: bool = False, longer: float = 1.0
) -> Rule:
    """Least validation error: the whole fit there or later, or the mean of the split's own fit."""

    def rule(recorded):
        errors = recorded[split]["validation"]
        at = first_least(smooth(errors, decay), patience=len(errors) * STEP // 10)
        at = min(round(longer * at), len(recorded["whole"]["loss"]) - 1)
        return at, split if own else "whole", "psnr_ema"

    return rule


def by_debiased(*splits: str, most: int, longer: float = 1.0) -> Rule:
    """As by default: the whole fit's debiased mean where the rule stops on average, or later."""

    def rule(recorded):
        stops = [stop(recorded[split]["validation_debiased"], most) for split in splits]
        at = round(longer * float(np.mean(stops)))
        return min(at, len(recorded["whole"]["psnr_debiased"]) - 1), "whole", "psnr_debiased"

    return rule


def by_variance(kind: str, start: int, margin: float = 0.0) -> Rule:
    """ES-WMV or ES-EMV on the whole fit, their patience a sixth of the iterations."""

    def rule(recorded):
        values = recorded["whole"][kind]
        patience = len(values) * STEP // 6
        return first_least(values, patience, start, margin), "whole", "psnr_ema"

    return rule


def by_discrepancy(variance: float) -> Rule:
    """The first loss at the noise's variance, or the end."""

    def rule(recorded):
        below = np.flatnonzero(recorded["whole"]["loss"] <= variance)
        last = len(recorded["whole"]["loss"]) - 1
        return (below[0] if len(below) else last), "whole", "psnr_ema"

    return rule


def at_iteration(iteration: int | None) -> Rule:
    """A fixed iteration, or the last."""

    def rule(recorded):
        last = len(recorded["whole"]["loss"]) - 1
        return min(iteration // STEP if iteration else last, last), "whole", "psnr_ema"

    return rule


def rules_by_default(part: Part) -> dict[str, Rule]:
    """Those of the default preset's kind, with as many iterations as it has for the part's task."""
    corrupt = TASKS[part.task].corrupt
    blank = corrupt(jax.random.key(0), jnp.zeros((64, 64, 1)), **part.options)
    by = functools.partial(by_debiased, most=quick(blank).fit.iterations)
    return {
        "bootstrap, refitted, debiased": by("bootstrap"),
        "held-out, refitted, debiased": by("held-out"),
        "held-out, refitted 1.5 times as long, debiased": by("held-out", longer=1.5),
        "3 folds, refitted 1.5 times as long, debiased": by(
            "held-out", "held-out 2", "held-out 3", longer=1.5
        ),
    }


RULES: dict[str, Rule] = {
    "bootstrap, refitted": uses_validation("bootstrap"),
    "bootstrap, refitted, unsmoothed": uses_validation("bootstrap", 0.0),
    "bootstrap, not refitted": uses_validation("bootstrap", own=True),
    "held-out, refitted": uses_validation("held-out"),
    "held-out, refitted, unsmoothed": uses_validation("held-out", 0.0),
    "held-out, refitted 1.25 times as long": uses_validation("held-out", longer=1.25),
    "held-out, refitted 1.5 times as long": uses_validation("held-out", longer=1.5),
    "held-out, not refitted": uses_validation("held-out", own=True),
    "ES-WMV": by_variance("windowed", 50),
    "ES-WMV from 200, margin 2 %": by_variance("windowed", 200, 0.02),
    "ES-EMV": by_variance("moving", 100),
    "ES-EMV from 200, margin 2 %": by_variance("moving", 200, 0.02),
    "300 iterations": at_iteration(300),
    "450 iterations": at_iteration(450),
    "last iteration": at_iteration(None),
}


def gaps(curves: pd.DataFrame) -> pd.DataFrame:
    """A row an architecture, case and rule: dB below the whole fit's best exponential mean."""
    rows = []
    by_default = {name: rules_by_default(PARTS[name]) for name in curves["part"].unique()}
    for (part, image, seed, architecture), group in curves.groupby([*CASE, "architecture"]):
        recorded = {row["fitted"]: row for row in group.to_dict("records")}
        rules = by_default[str(part)] | RULES
        if (sigma := PARTS[str(part)].options.get("sigma")) is not None:
            rules["discrepancy"] = by_discrepancy((sigma / 255) ** 2)
        peak = recorded["whole"]["psnr_ema"].max()
        found = {"part": part, "image": image, "seed": seed, "architecture": architecture}
        for name, rule in rules.items():
            try:
                at, which, mean = rule(recorded)
            except KeyError:  # a split that was not fitted
                continue
            rows.append(found | {"rule": name, "gap": peak - recorded[which][mean][at]})
        debiased = peak - recorded["whole"]["psnr_debiased"].max()
        rows.append(found | {"rule": "oracle of the debiased mean", "gap": debiased})
    return pd.DataFrame(rows)


def stopping_table(gap: pd.DataFrame) -> pd.DataFrame:
    """A row a rule, columns a part: median, 90th percentile and mean gap."""
    rows = {}
    for rule in gap["rule"].unique():
        row = {}
        for part, group in gap[gap["rule"] == rule].groupby("part", sort=False):
            row[f"{part}: median"] = over_images(group, "gap", np.median).shown()
            row[f"{part}: 90 %"] = f"{np.quantile(group['gap'], 0.9):.2f}"
            row[f"{part}: mean"] = f"{group['gap'].mean():.2f}"
        rows[rule] = row
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("rule").fillna("")


def score_table(curves: pd.DataFrame) -> pd.DataFrame:
    """What the score tells of the best PSNR of three kinds of restorations.

    Kendall's tau over an image's genotypes, and how much more the best by score
    reach than the others, in dB; means over images.
    """
    whole = curves[(curves["fitted"] == "whole") & (curves["origin"] != "baseline")]
    kinds = {"psnr_ema": "exponential mean", "psnr_debiased": "debiased mean", "psnr": "output"}
    rows = {}
    for part, here in whole.groupby("part", sort=False):
        if not {"best", "drawn"} <= set(here["origin"]):
            continue
        for kind, label in kinds.items():
            reached = here.assign(best=[values.max() for values in here[kind]])
            found = []
            for (image, _), group in reached.groupby(["image", "seed"]):
                tau = scipy.stats.kendalltau(group["score"], group["best"]).statistic
                by_origin = group.groupby("origin")["best"].mean()
                more = by_origin["best"] - by_origin["drawn"]
                found.append({"image": image, "tau": tau, "more": more})
            table = pd.DataFrame(found)
            rows[f"{part}, {label}"] = {
                "tau of score and best PSNR": over_images(table, "tau").shown(),
                "best by score less random, dB": over_images(table, "more").shown(),
            }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("restoration")


@dataclasses.dataclass(frozen=True)
class RecordedCohort(Cohort):
    """A cohort of M members by the products of what they made, for the library's own choices.

    Residuals and errors have the recorded products, in M numbers each instead of
    one for each measurement or pixel. Choices that look at sums of squares see
    no difference.
    """

    validation: np.ndarray  # (M, M) of residuals
    of_part: np.ndarray  # (M, M) of errors by the clean image, of the fits to a part
    of_whole: np.ndarray  # (M, M) the same of the fits to everything

    @functools.cached_property
    def images(self) -> np.ndarray:
        return rows_with(self.of_part)[:, None, :, None]

    @functools.cached_property
    def residuals(self) -> np.ndarray:
        return rows_with(self.validation)


def rows_with(products: np.ndarray) -> np.ndarray:
    """Rows (M, M) that have these products with each other."""
    values, vectors = np.linalg.eigh(products)
    return vectors * np.sqrt(np.maximum(values, 0))


def members_of(row: Mapping[str, Any], names: Sequence[str]) -> RecordedCohort:
    """Some of a row's members."""
    at = [list(row["names"]).index(name) for name in names]
    number = len(row["names"])
    square = {
        name: row[name].reshape(number, number)[np.ix_(at, at)]
        for name in ("validation", "of_part", "of_whole")
    }
    scores, nothing = row["scores"][at], cast(Any, None)  # choices do not look at the problem
    return RecordedCohort(names, scores, problem=nothing, folds=(), **square)


def of_origin(row: Mapping[str, Any], **numbers: int) -> list[str]:
    """Names of the first so many members of each origin; "better" are "drawn", by score."""
    found: list[str] = []
    members = list(zip(row["names"], row["origins"], row["scores"], strict=True))
    for origin, number in numbers.items():
        if origin == "better":
            of_it = sorted((m for m in members if m[1] == "drawn"), key=lambda member: member[2])
        else:
            of_it = [member for member in members if member[1] == origin]
        found += [name for name, *_ in of_it[:number]]
    return found


def psnr(weights: np.ndarray, products: np.ndarray) -> float:
    """Of the weighted mean, from the products of its members' errors."""
    return float(-10 * np.log10(weights @ products @ weights))


class Choice(NamedTuple):
    """Whom to select, and what to return."""

    select: Callable[[RecordedCohort], int]
    combine: Combination = selected_only

    def __call__(self, cohort: RecordedCohort) -> np.ndarray:
        return self.combine(cohort, self.select(cohort))


CHOICES: dict[str, Choice] = {
    "stack": Choice(least_validation, Stack()),
    "stack, ridge 0.002": Choice(least_validation, Stack(0.002)),
    "stack, no ridge": Choice(least_validation, Stack(0.0)),
    "mean": Choice(least_validation, uniform_mean),
    "least validation error": Choice(least_validation),
    "ranks of validation error and score": Choice(lowest_mean_rank),
    "closest to the mean by score": Choice(closest_to_mean),
    "best score": Choice(lambda cohort: int(cohort.scores.argmin())),
    "oracle's choice": Choice(lambda cohort: int(np.diag(cohort.of_whole).argmin())),
}

BY_SCORE = {"ranks of validation error and score", "closest to the mean by score", "best score"}

ALL = 9  # more than there are of any origin
# How many of each origin: the best of the pool by score, random others, the better of these
# by score.
COHORT_SELECTIONS: dict[str, dict[str, int]] = {
    "3 best": {"best": 3},
    "3 random": {"drawn": 3},
    "2 best, DIP": {"best": 2, "baseline": 1},
    "2 random, DIP": {"drawn": 2, "baseline": 1},
    "2 better, DIP": {"better": 2, "baseline": 1},
    "DIP, NAS-DIP": {"baseline": 2},
    "2 best, DIP, NAS-DIP": {"best": 2, "baseline": 2},
    "2 random, DIP, NAS-DIP": {"drawn": 2, "baseline": 2},
    "2 better, DIP, NAS-DIP": {"better": 2, "baseline": 2},
    "all networks": {"best": ALL, "drawn": ALL, "baseline": 2},
    "classical": {"classical": ALL},
    "2 better, DIP, classical": {"better": 2, "baseline": 1, "classical": ALL},
    "2 better, DIP, NAS-DIP, classical": {"better": 2, "baseline": 2, "classical": ALL},
    "all networks, classical": {"best": ALL, "drawn": ALL, "baseline": 2, "classical": ALL},
}


def choices(members: pd.DataFrame) -> pd.DataFrame:
    """A row a case, split, cohort and choice with the PSNR of what it returns."""
    rows = []
    for row in members.to_dict("records"):
        for cohort, numbers in COHORT_SELECTIONS.items():
            names = of_origin(row, **numbers)
            needed = sum(number for number in numbers.values() if number < ALL)
            if len(names) < max(2, needed):
                continue
            # All folds were fitted by the default's cohort only.
            if "folds" in row["split"] and numbers.keys() & {"best", "drawn"}:
                continue
            found = members_of(row, names)
            for choice, weights_of in CHOICES.items():
                if choice in BY_SCORE and not np.isfinite(found.scores).all():
                    continue
                rows.append(
                    {name: row[name] for name in (*CASE, "split")}
                    | {"cohort": cohort, "choice": choice}
                    | {"psnr": psnr(weights_of(found), found.of_whole)}
                )
        for position, name in enumerate(row["names"]):
            if row["origins"][position] in ("baseline", "classical"):
                alone = np.eye(len(row["names"]))[position]
                found = members_of(row, list(row["names"]))
                rows.append(
                    {name: row[name] for name in (*CASE, "split")}
                    | {"cohort": name, "choice": "alone"}
                    | {"psnr": psnr(alone, found.of_whole)}
                )
    return pd.DataFrame(rows)


class Pool(NamedTuple):
    """The random genotypes of a case."""

    names: list[str]
    scores: dict[str, float]
    errors: dict[str, np.ndarray]  # of the validation, by iteration

    def least(self, values: Mapping[str, float], number: int) -> list[str]:
        """Names with the least values."""
        return sorted(self.names, key=lambda name: values[name])[:number]


def at_random(number: int) -> Callable[[Pool], list[list[str]]]:
    """All choices of so many."""
    return lambda pool: [list(names) for names in itertools.combinations(pool.names, number)]


def halved(iterations: int) -> Callable[[Pool], list[list[str]]]:
    """The better two by validation error after some iterations."""

    def pick(pool):
        end = iterations // STEP + 1
        return [pool.least({n: np.nanmin(pool.errors[n][:end]) for n in pool.names}, 2)]

    return pick


# Whom of a case's random genotypes to fit; what comes of several choices is averaged.
PICKS: dict[str, Callable[[Pool], list[list[str]]]] = {
    "two": at_random(2),
    "the better two by score": lambda pool: [pool.least(pool.scores, 2)],
    "the better two after 100 iterations": halved(100),
    "the better two after 200 iterations": halved(200),
    "none": at_random(0),
    "one": at_random(1),
    "three": at_random(3),
    "all": lambda pool: [pool.names],
}


def economy_table(curves: pd.DataFrame, members: pd.DataFrame) -> pd.DataFrame:
    """A row a pick, a column a part and split: dB above two random genotypes.

    All are stacked with the named networks of the default.
    """
    fitted = curves.set_index([*CASE, "fitted", "architecture"])["validation"]
    columns: dict[str, dict[str, str]] = {}
    alone = members[~members["split"].str.contains("folds")]
    for (part, split), group in alone.groupby(["part", "split"], sort=False):
        rows = []
        for row in group.to_dict("records"):
            named = of_origin(row, baseline=1 if PARTS[str(part)].task == "denoising" else 2)
            if len(names := of_origin(row, drawn=ALL)) < 2:
                continue
            case = tuple(row[name] for name in CASE)
            errors = {name: fitted[(*case, split, name)] for name in names}
            pool = Pool(names, dict(zip(row["names"], row["scores"], strict=True)), errors)
            found = {}
            for pick, choose in PICKS.items():
                cohorts = [members_of(row, names + named) for names in choose(pool)]
                reached = [psnr(CHOICES["stack"](one), one.of_whole) for one in cohorts]
                found[pick] = sum(reached) / len(reached) if reached else np.nan
            more = {pick: value - found["two"] for pick, value in found.items()}
            rows.append({"image": row["image"], **more})
        if not rows:
            continue
        table = pd.DataFrame(rows)
        columns[f"{part}, {split}"] = {
            pick: over_images(table, pick).shown() for pick in PICKS if pick != "two"
        }
    return pd.DataFrame(columns).rename_axis("beside the default's named networks")


def choice_table(found: pd.DataFrame, part: str, split: str) -> pd.DataFrame:
    """A row a cohort, a column a choice: the mean PSNR less that of the oracle's choice."""
    here = found[(found["part"] == part) & (found["split"] == split)]
    rows: dict[str, dict[str, str]] = {}
    for cohort, group in here[here["choice"] != "alone"].groupby("cohort", sort=False):
        wide = group.pivot_table("psnr", ["image", "seed"], "choice", sort=False).reset_index()
        best = wide["oracle's choice"]
        row = {"oracle's choice, dB": f"{best.mean():.2f}"}
        for choice in wide.columns.drop(["image", "seed", "oracle's choice"]):
            wide["difference"] = wide[choice] - best
            row[choice] = over_images(wide, "difference").shown()
        least = wide["stack"] - wide["least validation error"]
        row["stack less selected, least"] = f"{least.min():.2f}"
        rows[cohort] = row
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("cohort").fillna("")


def folds_table(found: pd.DataFrame) -> pd.DataFrame:
    """A row a part: the default's cohort decided by several folds, and by the first alone."""
    rows = {}
    for part, here in found.groupby("part", sort=False):
        splits = here["split"].unique()
        for folded in (split for split in splits if "folds" in split):
            first, _, folds = folded.partition(", ")
            for cohort in (default_of(str(part)), f"{default_of(str(part))}, classical"):
                wide = here[here["cohort"] == cohort].pivot_table(
                    "psnr", ["image", "seed"], ["split", "choice"]
                )
                if folded not in wide or first not in wide:
                    continue
                one, several = wide[first], wide[folded].dropna()
                row = {}
                for name, of in ((first, one.loc[several.index]), (folds, several)):
                    columns = {
                        "selected less best": of["least validation error"] - of["oracle's choice"],
                        "stack less best": of["stack"] - of["oracle's choice"],
                    }
                    for column, values in columns.items():
                        table = values.rename("dB").reset_index()
                        row[f"{name}: {column}"] = over_images(table, "dB").shown()
                    least = (of["stack"] - of["least validation error"]).min()
                    row[f"{name}: stack less selected, least"] = f"{least:.2f}"
                more = (several["stack"] - one["stack"]).dropna().rename("dB").reset_index()
                row[f"stack, {folds} less one"] = over_images(more, "dB").shown()
                rows[f"{part}: {cohort}"] = row
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("cohort")


def default_of(part: str) -> str:
    """The default's cohort in a part."""
    return "2 better, DIP" + ("" if PARTS[part].task == "denoising" else ", NAS-DIP")


def comparison_table(found: pd.DataFrame, part: str, split: str, default: str) -> pd.DataFrame:
    """A row a method: its mean PSNR, and how much more the default has, paired.

    The last row is the best classical restoration of each image.
    """
    here = found[(found["part"] == part) & (found["split"] == split)]
    here = here[here["choice"].isin(("alone", "stack"))]
    stacks = here["choice"] == "stack"
    here = here.assign(method=here["cohort"].where(~stacks, here["cohort"] + ": stack"))
    return study.differences(with_best_classical(here, "cohort"), "psnr", default)


def with_best_classical(found: pd.DataFrame, name: str) -> pd.DataFrame:
    """Results and, as one more method, the best classical restoration of each image and seed."""
    classical = found[found[name].isin(CLASSICAL)]
    best = classical.groupby(["image", "seed"], as_index=False)["psnr"].max()
    return pd.concat([found, best.assign(method="the best classical")])


def methods_table(runs: pd.DataFrame) -> pd.DataFrame:
    """A row a method of `experiments.compare`, and how much more the searches have, paired."""
    both = with_best_classical(runs, "method")
    table = study.differences(both, "psnr", "ISNAS-DIP")
    with_classical = study.differences(both, "psnr", "ISNAS-DIP+")
    ssim = runs.groupby("method")["ssim"].mean()
    table.insert(0, "runs", both.groupby("method").size())
    table.insert(2, "ssim", [f"{ssim[name]:.3f}" if name in ssim else "" for name in table.index])
    return table.join(with_classical.drop(columns="psnr"))


def all_tables(
    curves: pd.DataFrame, members: pd.DataFrame, runs: pd.DataFrame | None = None
) -> Iterator[tuple[str, pd.DataFrame]]:
    """Every table with its name."""
    if runs is not None:
        for task, group in runs.groupby("task", sort=False):
            yield f"methods {task}", methods_table(group)
    yield "stopping", stopping_table(gaps(curves))
    yield "score", score_table(curves)
    yield "economy", economy_table(curves, members)
    found = choices(members)
    yield "folds", folds_table(found)
    for part, split in members[["part", "split"]].drop_duplicates().itertuples(index=False):
        yield f"choices {part} {split}", choice_table(found, part, split)
        default = f"{default_of(part)}: stack"
        yield f"comparison {part} {split}", comparison_table(found, part, split, default)


def filled(page: str, name: str, table: str) -> str:
    """A page with a table between <!-- NAME --> and <!-- end -->, if it has these."""
    between = rf"(<!-- {re.escape(name)} -->\n).*?(<!-- end -->)"
    return re.sub(between, lambda found: f"{found[1]}\n{table}\n{found[2]}", page, flags=re.DOTALL)


def main(_: Sequence[str]) -> None:
    """The story: gaps by rule, choices by cohort, methods against the default."""
    source = pathlib.Path(FLAGS.input_dir)
    curves = pd.read_parquet(source / "curves.parquet")
    members = pd.read_parquet(source / "members.parquet")
    runs = pd.read_csv(source / "runs.csv") if (source / "runs.csv").exists() else None
    if FLAGS.tuning:
        curves, members = (t[t["image"].isin(TUNED_ON)] for t in (curves, members))
        runs = None  # none were compared
    else:
        curves, members = (t[~t["image"].isin(TUNED_ON)] for t in (curves, members))
    page = pathlib.Path(FLAGS.page).read_text(encoding="utf-8") if FLAGS.page else ""
    for name, table in all_tables(curves, members, runs):
        place = pathlib.Path(FLAGS.output_dir, re.sub(r"\W+", "_", name))
        print(f"\n{name}\n\n{tables.write(place, table)}")
        page = filled(page, name, place.with_suffix(".md").read_text(encoding="utf-8"))
    if FLAGS.page:
        records.write_bytes(pathlib.Path(FLAGS.page), page.encode())


if __name__ == "__main__":
    flags.DEFINE_string("input_dir", "docs/decisions", "Where the two tables are.")
    flags.DEFINE_string("output_dir", "decisions_tables", "Folder of what is made of them.")
    flags.DEFINE_string(
        "page", None, "Markdown file to put the tables into, where it has their names."
    )
    flags.DEFINE_boolean("tuning", False, "Of the images that choices were made on instead.")
    cli.run(main)
