r"""Judge stopping rules, choices and combinations by what `gather` wrote, in seconds.

    python -m experiments.decisions.tables --input_dir=docs/decisions --output_dir=tables

A rule is a function of what was recorded of an architecture on an image, by
split, to the position it stops at, whose mean it restores with, and which: the
exponential mean at every 5th iteration or the debiased one at every 20th. Add
one to `RULES`. A choice takes a cohort's row to weights; add
one to `CHOICES`. Intervals are 95 % bootstrap over images, whose architectures
and methods stay together.
"""

import pathlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import jax
import numpy as np
import pandas as pd
import scipy.stats
from absl import flags

from experiments import cli
from experiments.decisions.curves import PARTS
from experiments.decisions.gather import STEP
from isnas_jax.problems import CLASSICAL
from isnas_jax.report import tables
from isnas_jax.searching.combination import simplex_least_squares
from isnas_jax.searching.selection import metric_weights
from isnas_jax.study.analysis import Estimate, estimate, resample

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


def by_validation(
    split: str, decay: float = SMOOTHING, *, own: bool = False, longer: float = 1.0
) -> Rule:
    """Least validation error: the whole fit there or later, or the mean of the split's own fit."""

    def rule(recorded):
        errors = recorded[split]["validation"]
        at = first_least(smooth(errors, decay), patience=len(errors) * STEP // 10)
        at = min(round(longer * at), len(recorded["whole"]["loss"]) - 1)
        return at, split if own else "whole", "psnr_mean"

    return rule


def by_debiased(split: str, longer: float = 1.0) -> Rule:
    """Least validation error of the debiased mean: the whole fit's there or later."""

    def rule(recorded):
        at = round(longer * int(np.argmin(recorded[split]["validation_debiased"])))
        return min(at, len(recorded["whole"]["psnr_debiased"]) - 1), "whole", "psnr_debiased"

    return rule


def by_variance(kind: str, start: int, margin: float = 0.0) -> Rule:
    """ES-WMV or ES-EMV on the whole fit, their patience a sixth of the iterations."""

    def rule(recorded):
        values = recorded["whole"][kind]
        patience = len(values) * STEP // 6
        return first_least(values, patience, start, margin), "whole", "psnr_mean"

    return rule


def by_discrepancy(variance: float) -> Rule:
    """The first loss at the noise's variance, or the end."""

    def rule(recorded):
        below = np.flatnonzero(recorded["whole"]["loss"] <= variance)
        last = len(recorded["whole"]["loss"]) - 1
        return (below[0] if len(below) else last), "whole", "psnr_mean"

    return rule


def at_iteration(iteration: int | None) -> Rule:
    """A fixed iteration, or the last."""

    def rule(recorded):
        last = len(recorded["whole"]["loss"]) - 1
        return min(iteration // STEP if iteration else last, last), "whole", "psnr_mean"

    return rule


RULES: dict[str, Rule] = {
    "bootstrap, refitted, debiased": by_debiased("bootstrap"),
    "held-out, refitted, debiased": by_debiased("held-out"),
    "held-out, refitted 1.5 times as long, debiased": by_debiased("held-out", 1.5),
    "bootstrap, refitted": by_validation("bootstrap"),
    "bootstrap, refitted, unsmoothed": by_validation("bootstrap", 0.0),
    "bootstrap, not refitted": by_validation("bootstrap", own=True),
    "held-out, refitted": by_validation("held-out"),
    "held-out, refitted, unsmoothed": by_validation("held-out", 0.0),
    "held-out, refitted 1.25 times as long": by_validation("held-out", longer=1.25),
    "held-out, refitted 1.5 times as long": by_validation("held-out", longer=1.5),
    "held-out, not refitted": by_validation("held-out", own=True),
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
    for (part, image, seed, architecture), group in curves.groupby([*CASE, "architecture"]):
        recorded = {row["fitted"]: row for row in group.to_dict("records")}
        rules = dict(RULES)
        if (sigma := PARTS[str(part)].options.get("sigma")) is not None:
            rules["discrepancy"] = by_discrepancy((sigma / 255) ** 2)
        peak = recorded["whole"]["psnr_mean"].max()
        found = {"part": part, "image": image, "seed": seed, "architecture": architecture}
        for name, rule in rules.items():
            if "bootstrap" in name and "bootstrap" not in recorded:
                continue
            at, which, mean = rule(recorded)
            rows.append(found | {"rule": name, "gap": peak - recorded[which][mean][at]})
        debiased = peak - recorded["whole"]["psnr_debiased"].max()
        rows.append(found | {"rule": "oracle of the debiased mean", "gap": debiased})
    return pd.DataFrame(rows)


def over_images(
    values: pd.DataFrame, column: str, statistic: Callable[[np.ndarray], float]
) -> Estimate:
    """A statistic of a column with its interval, images being drawn anew as they are."""
    groups = [group[column].to_numpy() for _, group in values.groupby("image")]
    counts = resample(jax.random.key(0), len(groups), 1000).astype(int)
    drawn = (
        np.concatenate([group for group, n in zip(groups, row, strict=True) for _ in range(n)])
        for row in counts
    )
    return estimate(np.array([statistic(values) for values in drawn]))


def cell(found: Estimate) -> str:
    """An estimate as a table shows it; empty where there is none."""
    if np.isnan(found.value):
        return ""
    return f"{found.value:.2f} ({found.low:.2f} to {found.high:.2f})"


def stopping_table(gap: pd.DataFrame) -> pd.DataFrame:
    """A row a rule, columns a part: median, 90th percentile and mean gap."""
    rows = {}
    for rule in gap["rule"].unique():
        row = {}
        for part, group in gap[gap["rule"] == rule].groupby("part", sort=False):
            row[f"{part}: median"] = cell(over_images(group, "gap", np.median))
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
    kinds = {"psnr_mean": "exponential mean", "psnr_debiased": "debiased mean", "psnr": "output"}
    rows = {}
    for part, here in whole.groupby("part", sort=False):
        for kind, label in kinds.items():
            reached = here.assign(best=[values.max() for values in here[kind]])
            found = []
            for (image, _), group in reached.groupby(["image", "seed"]):
                tau = scipy.stats.kendalltau(group["score"], group["best"]).statistic
                by_origin = group.groupby("origin")["best"].mean()
                more = by_origin["best"] - by_origin.get("drawn", np.nan)
                found.append({"image": image, "tau": tau, "more": more})
            table = pd.DataFrame(found)
            rows[f"{part}, {label}"] = {
                "tau of score and best PSNR": cell(over_images(table, "tau", np.mean)),
                "best by score less random, dB": cell(over_images(table, "more", np.mean)),
            }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("restoration")


class Members(NamedTuple):
    """A cohort, from a row of `members`: M of its members."""

    scores: np.ndarray  # (M,)
    validation: np.ndarray  # (M, M) products of residuals
    of_part: np.ndarray  # (M, M) products of errors by the truth, of the fits to a part
    of_whole: np.ndarray  # (M, M) the same of the fits to everything


def members_of(row: Mapping[str, Any], names: Sequence[str]) -> Members:
    """Some of a row's members."""
    at = [list(row["names"]).index(name) for name in names]
    number = len(row["names"])
    square = [
        row[name].reshape(number, number)[np.ix_(at, at)]
        for name in ("validation", "of_part", "of_whole")
    ]
    return Members(row["scores"][at], *square)


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


def stack(members: Members, ridge: float = 0.01) -> np.ndarray:
    """Weights as of `combination.Stack`, from the products of the residuals."""
    values, vectors = np.linalg.eigh(members.validation)
    number = len(values)
    away = np.sqrt(ridge * values.sum() / number) * (np.eye(number) - 1 / number)
    residuals = vectors * np.sqrt(np.maximum(values, 0))
    return simplex_least_squares(np.hstack([residuals, away]))


def closest(members: Members) -> np.ndarray:
    """The member closest to the mean by score, by the images of the fits to a part."""
    mean = metric_weights(members.scores)
    products = members.of_part
    distance = np.diag(products) - 2 * products @ mean + mean @ products @ mean
    return np.eye(len(mean))[distance.argmin()]


def one(values: np.ndarray) -> np.ndarray:
    """All weight on the least."""
    return np.eye(len(values))[values.argmin()]


def by_ranks(members: Members) -> np.ndarray:
    """The least sum of ranks by score and by validation error."""
    errors = pd.Series(np.diag(members.validation))
    ranks = errors.rank() + pd.Series(members.scores).rank()
    return one(ranks.to_numpy() + 1e-6 * errors.rank().to_numpy())


CHOICES: dict[str, Callable[[Members], np.ndarray]] = {
    "stack": stack,
    "stack, no ridge": lambda members: stack(members, 0.0),
    "stack, ridge 0.1": lambda members: stack(members, 0.1),
    "mean": lambda members: np.full(len(members.scores), 1 / len(members.scores)),
    "mean by score": lambda members: metric_weights(members.scores),
    "least validation error": lambda members: one(np.diag(members.validation)),
    "ranks of validation error and score": by_ranks,
    "closest to the mean by score": closest,
    "best score": lambda members: one(members.scores),
    "oracle's choice": lambda members: one(np.diag(members.of_whole)),
}

# How many of each origin: the best of the pool by score, random others, the better of these
# by score. 9 is all there are.
COHORTS: dict[str, dict[str, int]] = {
    "3 best": {"best": 3},
    "3 random": {"drawn": 3},
    "2 best, DIP": {"best": 2, "baseline": 1},
    "2 random, DIP": {"drawn": 2, "baseline": 1},
    "2 better, DIP": {"better": 2, "baseline": 1},
    "DIP, NAS-DIP": {"baseline": 2},
    "2 best, DIP, NAS-DIP": {"best": 2, "baseline": 2},
    "2 random, DIP, NAS-DIP": {"drawn": 2, "baseline": 2},
    "2 better, DIP, NAS-DIP": {"better": 2, "baseline": 2},
    "all networks": {"best": 9, "drawn": 9, "baseline": 2},
    "classical": {"classical": 9},
    "2 better, DIP, classical": {"better": 2, "baseline": 1, "classical": 9},
    "2 better, DIP, NAS-DIP, classical": {"better": 2, "baseline": 2, "classical": 9},
    "all networks, classical": {"best": 9, "drawn": 9, "baseline": 2, "classical": 9},
}


def choices(members: pd.DataFrame) -> pd.DataFrame:
    """A row a case, split, cohort and choice with the PSNR of what it returns."""
    rows = []
    for row in members.to_dict("records"):
        for cohort, numbers in COHORTS.items():
            names = of_origin(row, **numbers)
            if len(names) < min(2, sum(numbers.values())) or len(names) < sum(
                number for number in numbers.values() if number < 9
            ):
                continue
            found = members_of(row, names)
            for choice, weigh in CHOICES.items():
                if "score" in choice and not np.isfinite(found.scores).all():
                    continue
                rows.append(
                    {name: row[name] for name in (*CASE, "split")}
                    | {"cohort": cohort, "choice": choice}
                    | {"psnr": psnr(weigh(found), found.of_whole)}
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
            row[choice] = cell(over_images(wide, "difference", np.mean))
        least = wide["stack"] - wide["least validation error"]
        row["stack less selected, least"] = f"{least.min():.2f}"
        rows[cohort] = row
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("cohort").fillna("")


def comparison_table(found: pd.DataFrame, part: str, split: str, default: str) -> pd.DataFrame:
    """A row a method: its mean PSNR, and how much less it has than the default, paired.

    The last row is the best classical restoration of each image.
    """
    here = found[(found["part"] == part) & (found["split"] == split)]
    methods = {
        f"{cohort}: {choice}" if choice != "alone" else cohort: group
        for (cohort, choice), group in here.groupby(["cohort", "choice"], sort=False)
        if choice in ("alone", "stack")
    }
    alone = here[here["cohort"].isin(CLASSICAL)]
    methods["the best classical"] = alone.groupby(["image", "seed"], as_index=False)["psnr"].max()
    reference = methods[default].set_index(["image", "seed"])["psnr"]
    rows = {}
    for name, group in methods.items():
        values = group.set_index(["image", "seed"])["psnr"]
        difference = (reference - values).rename("difference").reset_index()
        rows[name] = {
            "PSNR, dB": f"{values.mean():.2f}",
            "default less this": cell(over_images(difference, "difference", np.mean)),
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("method")


def shown(frames: Iterable[tuple[str, pd.DataFrame]], folder: pathlib.Path) -> None:
    """Writes tables and prints them."""
    for name, frame in frames:
        print(f"\n{name}\n\n{tables.write(folder / name.replace(' ', '_'), frame)}")


def main(_: Sequence[str]) -> None:
    """The story: gaps by rule, choices by cohort, methods against the default."""
    source = pathlib.Path(FLAGS.input_dir)
    curves = pd.read_parquet(source / "curves.parquet")
    members = pd.read_parquet(source / "members.parquet")
    if FLAGS.tuning:
        curves, members = (t[t["image"].isin(TUNED_ON)] for t in (curves, members))
    else:
        curves, members = (t[~t["image"].isin(TUNED_ON)] for t in (curves, members))
    folder = pathlib.Path(FLAGS.output_dir)
    shown([("stopping", stopping_table(gaps(curves))), ("score", score_table(curves))], folder)
    found = choices(members)
    for part, split in members[["part", "split"]].drop_duplicates().itertuples(index=False):
        default = "2 better, DIP" + (", NAS-DIP" if PARTS[part].task != "denoising" else "")
        shown(
            [
                (f"choices {part} {split}", choice_table(found, part, split)),
                (
                    f"comparison {part} {split}",
                    comparison_table(found, part, split, f"{default}: stack"),
                ),
            ],
            folder,
        )


if __name__ == "__main__":
    flags.DEFINE_string("input_dir", "docs/decisions", "Where the two tables are.")
    flags.DEFINE_string("output_dir", "decisions_tables", "Folder of what is made of them.")
    flags.DEFINE_boolean("tuning", False, "Of the images that choices were made on instead.")
    cli.run(main)
