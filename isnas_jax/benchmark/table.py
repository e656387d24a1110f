"""The benchmark as an object: queries of fits that were computed once.

`query`, `curve`, `gram` and `stack` return what a search may know, without the clean image. Methods
whose names begin with `truth` return what only an evaluation may know. An architecture is a
genotype or the name of a baseline, and may be given as text. Without a seed, results are means over
the seeds that the benchmark has. Needs pyarrow.
"""

import dataclasses
import functools
import pathlib
import urllib.parse
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import jax
import numpy as np

from isnas_jax.benchmark import cases
from isnas_jax.benchmark.fits import Fits, entry, psnr_of
from isnas_jax.io import identity
from isnas_jax.problems import Problem
from isnas_jax.registry import UnknownNameError
from isnas_jax.searching import Combination, Stack
from isnas_jax.study import Case, store

DATA = pathlib.Path(__file__).parent / "data"

At: TypeAlias = int | str

_STACK = Stack()


class Cost(NamedTuple):
    """The cost of an architecture at the size of the benchmark.

    Attributes:
      parameters: Number of parameters.
      operations: Floating-point operations of a step.
      seconds: Seconds of a step, on one core; the benchmark's page names the machine.
    """

    parameters: int
    operations: float
    seconds: float


class Known(NamedTuple):
    """What a search may know of a fit, without the clean image.

    Attributes:
      validation: Validation error of the EMA, the weighted mean of squared residuals.
      iterations: Iterations that the fit ran.
      seconds: Simulated seconds that they took.
      stop: The iteration of the EMA, from 0.
    """

    validation: float
    iterations: float
    seconds: float
    stop: float


class Truth(NamedTuple):
    """What only an evaluation with the clean image may know.

    Attributes:
      psnr: PSNR of the EMA in dB.
      ssim: Its SSIM; nan but at the stop.
      iteration: The iteration of the EMA, from 0.
    """

    psnr: float
    ssim: float
    iteration: float


class Stacked(NamedTuple):
    """What a search may know of a stack.

    Attributes:
      validation: Validation error of the weighted mean of the members' restorations.
      seconds: Simulated seconds of all their fits.
    """

    validation: float
    seconds: float


@dataclasses.dataclass(frozen=True, eq=False)
class Benchmark:
    """The fits of many architectures to many images; see `load`.

    Attributes:
      folder: The folder with the files.
      files: The files by task, image and seed.
      version: The name and version of the benchmark, to be named with every result.
    """

    folder: pathlib.Path
    files: Mapping[tuple[str, str, int], pathlib.Path]
    version: str

    @functools.cached_property
    def digest(self) -> str:
        """A digest of all files."""
        contents = [identity.digest(path.read_bytes()) for path in self.folder.rglob("*.parquet")]
        return identity.digest(repr(sorted(contents)).encode())

    @property
    def tasks(self) -> list[str]:
        """The tasks, with the strength of their corruption."""
        return list(dict.fromkeys(task for task, _, _ in self.files))

    def images(self, task: str) -> list[str]:
        """Return the names of a task's images."""
        self._check("task", task, self.tasks)
        return list(dict.fromkeys(image for other, image, _ in self.files if other == task))

    def seeds(self, image: str, task: str, architecture: Any = None) -> list[int]:
        """Return the seeds of an image's fits, or of an architecture's: not all have every seed."""
        self._check("image", image, self.images(task))
        seeds = [seed for *case, seed in self.files if case == [task, image]]
        if architecture is None:
            return seeds
        return [seed for seed in seeds if str(architecture) in self._fits[task, image, seed].rows]

    @functools.cached_property
    def architectures(self) -> list[str]:
        """The architectures as text: genotypes CELL:BITS and names of baselines."""
        return list(dict.fromkeys(name for fits in self._fits.values() for name in fits.rows))

    def problem(self, image: str, task: str) -> Problem:
        """Return the problem of an image in a task."""
        return self.truth_case(image, task).problem

    @functools.lru_cache(maxsize=64)  # noqa: B019
    def truth_case(self, image: str, task: str) -> Case:
        """Return the problem of an image in a task, with the clean image."""
        self._check("image", image, self.images(task))
        return cases.read_case(self.folder, image, task)

    def __len__(self) -> int:
        """Return the number of architectures."""
        return len(self.architectures)

    def __iter__(self) -> Iterator[str]:
        """Iterate over the architectures."""
        return iter(self.architectures)

    def random(self, key: jax.Array) -> str:
        """Return a random architecture."""
        return self.architectures[int(jax.random.randint(key, (), 0, len(self)))]

    def query(
        self, architecture: Any, image: str, task: str, seed: int | None = None, at: At = "stop"
    ) -> Known:
        """Return what a search may know of a fit.

        Args:
          architecture: A genotype or the name of a baseline.
          image: One of `images(task)`.
          task: One of `tasks`.
          seed: One of `seeds(image, task)`; by default all of them.
          at: "stop", or the number of an iteration, a multiple of 10: what was known after it.

        Raises:
          ValueError: For what the benchmark does not have.
        """
        step = self.cost(architecture, image, task).seconds

        def known(fits: Fits, rows: list[int]) -> Known:
            values = fits.at(rows[0])
            if at == "stop":
                validation = fits.residuals[rows[0], rows[0]]
                return Known(validation, values["ended"], values["ended"] * step, values["stop"])
            iteration, validation = entry(values["validation_curve"], at)
            return Known(validation, iteration + 1, (iteration + 1) * step, iteration)

        return self._mean(known, [architecture], image, task, seed)

    def truth(
        self, architecture: Any, image: str, task: str, seed: int | None = None, at: At = "stop"
    ) -> Truth:
        """Return what only an evaluation may know of a fit; see `query` for the arguments.

        `at="best"` is the iteration with the highest PSNR, the oracle's stop.
        """

        def truth(fits: Fits, rows: list[int]) -> Truth:
            values = fits.at(rows[0])
            if at == "stop":
                return Truth(values["psnr"], values["ssim"], values["stop"])
            if at == "best":
                return Truth(values["best_psnr"], np.nan, values["best"])
            iteration, thousandths = entry(values["ema_curve"], at)
            return Truth(thousandths / 1000, np.nan, iteration)

        return self._mean(truth, [architecture], image, task, seed)

    def curve(
        self, architecture: Any, image: str, task: str, seed: int | None = None
    ) -> np.ndarray:
        """Return the validation errors of the EMA at every 10th iteration."""
        return self._curve("validation_curve", architecture, image, task, seed)

    def truth_curve(
        self, architecture: Any, image: str, task: str, seed: int | None = None, curve: str = "ema"
    ) -> np.ndarray:
        """Return PSNRs in dB of "ema" or "output" (every 10th), or of "biased_ema" (every 20th)."""
        self._check("curve", curve, ["ema", "output", "biased_ema"])
        return self._curve(f"{curve}_curve", architecture, image, task, seed) / 1000

    def cost(self, architecture: Any, image: str, task: str) -> Cost:
        """Return the cost of an architecture on an image."""

        def cost(fits: Fits, rows: list[int]) -> Cost:
            values = fits.at(rows[0])
            key = str(architecture), int(values["channels"])
            if key not in self._steps:
                raise UnknownNameError(f"{self.version} has no costs of {architecture}")
            return Cost(values["parameters"], *self._steps[key])

        return self._mean(cost, [architecture], image, task, None)

    def gram(
        self, members: Sequence[Any], image: str, task: str, seed: int | None = None
    ) -> np.ndarray:
        """Return the products (M, M) of the validation residuals at the stop.

        A weighted mean of restorations with weights w has the validation error w' G w.
        """
        return self._mean(
            lambda fits, rows: fits.residuals[np.ix_(rows, rows)], members, image, task, seed
        )

    def truth_gram(
        self, members: Sequence[Any], image: str, task: str, seed: int | None = None
    ) -> np.ndarray:
        """Return the mean products (M, M) of the errors at the stop, in squared gray levels.

        A weighted mean of restorations with weights w has the mean squared error w' G w.
        """
        return self._mean(
            lambda fits, rows: fits.errors[np.ix_(rows, rows)], members, image, task, seed
        )

    def stack(
        self,
        members: Sequence[Any],
        image: str,
        task: str,
        seed: int | None = None,
        combination: Combination = _STACK,
    ) -> Stacked:
        """Combine the restorations of members by their validation residuals.

        The combination gets the members and their residuals, without scores, and the member with
        the lowest validation error as the selected one.
        """
        seconds = sum(self.query(member, image, task, seed).seconds for member in members)

        def stack(fits: Fits, rows: list[int]) -> Stacked:
            weights, gram = fits.combine(rows, combination)
            return Stacked(float(weights @ gram @ weights), seconds)

        return self._mean(stack, members, image, task, seed)

    def truth_stack(
        self,
        members: Sequence[Any],
        image: str,
        task: str,
        seed: int | None = None,
        combination: Combination = _STACK,
    ) -> float:
        """Return the PSNR in dB of the restoration that `stack` combines."""

        def psnr(fits: Fits, rows: list[int]) -> np.ndarray:
            weights, _ = fits.combine(rows, combination)
            return psnr_of(weights @ fits.errors[np.ix_(rows, rows)] @ weights)

        return float(self._mean(psnr, members, image, task, seed))

    @functools.cached_property
    def _steps(self) -> dict[tuple[str, int], tuple[float, float]]:
        """Operations and seconds of a step, by architecture and number of channels."""
        path = self.folder / "costs.parquet"
        rows = store.read(path).to_pylist() if path.exists() else []
        keys = [(row["architecture"], row["channels"]) for row in rows]
        return dict(zip(keys, ((row["operations"], row["seconds"]) for row in rows), strict=True))

    @functools.cached_property
    def _fits(self) -> dict[tuple[str, str, int], Fits]:
        return {key: Fits.read(path) for key, path in self.files.items()}

    def _check(self, kind: str, value: Any, choices: Sequence[Any]) -> None:
        if value not in choices:
            names = ", ".join(map(str, choices))
            raise UnknownNameError(
                f"{kind} {value!r} is not in {self.version}; choose from {names}"
            )

    def _curve(self, name: str, architecture: Any, *where: Any) -> np.ndarray:
        return self._mean(lambda fits, rows: fits.at(rows[0])[name], [architecture], *where)

    def _mean(
        self,
        value: Callable[[Fits, list[int]], Any],
        members: Sequence[Any],
        image: str,
        task: str,
        seed: int | None,
    ) -> Any:
        """Return the mean of a value of members' fits over those seeds that all of them have."""
        seeds = self.seeds(image, task)
        if seed is not None:
            self._check("seed", seed, seeds)
            seeds = [seed]
        every = [self._fits[task, image, number] for number in seeds]
        names = list(map(str, members))
        usable = [fits for fits in every if all(name in fits.rows for name in names)]
        if not usable:
            missing = next(name for name in names if name not in every[0].rows)
            raise UnknownNameError(
                f"{self.version} has no fit of {missing} to {image} in {task}, seed {seeds[0]}, "
                f"but those of {len(every[0].rows)} architectures: see Benchmark.architectures"
            )
        values = [value(fits, [fits.rows[name] for name in names]) for fits in usable]
        mean = np.mean(values, axis=0)
        return type(values[0])(*mean.tolist()) if isinstance(values[0], tuple) else mean


def load(folder: str | pathlib.Path = DATA) -> Benchmark:
    """Load the benchmark of the package, or that of a folder which `pack` wrote.

    Raises:
      ValueError: If the folder holds no benchmark.
    """
    folder = pathlib.Path(folder)
    files = {}
    for path in sorted((folder / "fits").glob("*.parquet")):
        task, image, seed = map(urllib.parse.unquote, path.stem.replace("@", ":").split("+"))
        files[task, image, int(seed)] = path
    if not files:
        raise ValueError(f"{str(folder)!r} holds no benchmark; see isnas_jax.benchmark.load")
    return Benchmark(folder, files, store.study_of(path))
