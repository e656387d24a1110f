"""The result of a fit: arrays, a summary and a picture."""

import dataclasses
from typing import Any, NamedTuple

import numpy as np

from isnas_jax import figures


class Start(NamedTuple):
    """Where a fit begins, or where a refit leaves another fit's trajectory.

    The network's variables or the optimizer's state are initialized if they are None.
    """

    variables: Any = None
    optimizer_state: Any = None


@dataclasses.dataclass(frozen=True, repr=False)
class Fit:
    """The result of a fit that ran T iterations, as NumPy arrays.

    Attributes:
      loss: [T], the problem's loss, without regularizers.
      validation: [T], validation error of the EMA, or None without a validation problem.
      psnr: [T] dB, of the output, or None without a clean image.
      psnr_ema: [T] dB, of the EMA, or None without a clean image.
      criterion: [T], of the stopping rule; nan where it has none.
      output: [H, W, C], the last output.
      ema: [H, W, C], the exponential moving average at the last iteration.
      restored: [H, W, C], the EMA that the stopping rule chose.
      restored_at: The iteration of `restored`.
      best: [H, W, C], the EMA closest to the clean image, or None; an oracle's choice.
      snapshots: The EMA at chosen iterations, those that were reached.
      variables: The network's parameters after the last update; None if loaded from a file.
      optimizer_state: State of the optimizer after it; None if loaded from a file.
      fold_fits: The validated fits that chose the length of this refit; see `refit`.
      start: Where a refit leaves this fit, by `FitConfig.refit_from`; None if that is 0 or the
        fit was loaded from a file.
    """

    loss: np.ndarray
    validation: np.ndarray | None
    psnr: np.ndarray | None
    psnr_ema: np.ndarray | None
    criterion: np.ndarray
    output: np.ndarray
    ema: np.ndarray
    restored: np.ndarray
    restored_at: int
    best: np.ndarray | None
    snapshots: dict[int, np.ndarray]
    variables: Any
    optimizer_state: Any = None
    fold_fits: tuple["Fit", ...] = ()
    start: Start | None = None

    def __repr__(self) -> str:
        height, width, channels = self.restored.shape
        text = (
            f"Fit of {height} x {width} x {channels}: {len(self.loss)} iterations, "
            f"restored at {self.restored_at}"
        )
        if self.psnr_ema is None:
            return text
        return (
            f"{text} with {self.psnr_ema[self.restored_at]:.2f} dB; "
            f"best {self.psnr_ema.max():.2f} dB at {self.psnr_ema.argmax()}"
        )

    def _repr_html_(self) -> str:
        return figures.picture(self.restored, repr(self))

    def curves(self) -> dict[str, np.ndarray]:
        """Return the recorded values by name, each [T].

        The validation error of a refit is that of its first validated fit, of that fit's length.
        """
        names = ("loss", "validation", "psnr", "psnr_ema", "criterion")
        curves = {name: getattr(self, name) for name in names}
        if self.fold_fits:
            curves["validation"] = self.fold_fits[0].validation
        return {name: values for name, values in curves.items() if values is not None}

    def plot(self) -> Any:
        """Return a matplotlib figure of the restored image and the curves."""
        return figures.fit(self.restored, self.curves(), self.restored_at)

    def arrays(self) -> dict[str, np.ndarray]:
        """Return curves and images to store in a file, without parameters and other fits."""
        snapshots = {f"snapshot_{at}": image for at, image in self.snapshots.items()}
        omitted = ("snapshots", "variables", "optimizer_state", "fold_fits", "start")
        return snapshots | {
            name: np.asarray(value)
            for name, value in vars(self).items()
            if value is not None and name not in omitted
        }

    @classmethod
    def from_arrays(cls, arrays: dict[str, np.ndarray]) -> "Fit":
        """Return the fit that has these `arrays`."""
        prefix = "snapshot_"
        values: dict[str, Any] = {f.name: arrays.get(f.name) for f in dataclasses.fields(cls)}
        values["restored_at"], values["fold_fits"] = int(values["restored_at"]), ()
        values["snapshots"] = {
            int(name.removeprefix(prefix)): image
            for name, image in arrays.items()
            if name.startswith(prefix)
        }
        return cls(**values)
