"""A finished fit, as arrays, in a file, in words and as a picture."""

import dataclasses
from typing import Any, NamedTuple

import numpy as np

from isnas_jax import figures


class Start(NamedTuple):
    """Where a fit begins, or where a refit may leave another fit's trajectory.

    Attributes:
      variables: The network's parameters.
      optimizer_state: The optimizer's.
    """

    variables: Any
    optimizer_state: Any = None


@dataclasses.dataclass(frozen=True, repr=False)
class Fit:
    """A finished fit of T iterations, as NumPy arrays.

    Attributes:
      loss: [T] of the problem, without further terms.
      validation: [T] error of the exponential mean on the validation problem,
        or None without one.
      psnr: [T] dB of the output, or None without a clean image.
      psnr_ema: [T] dB of the exponential mean, or None without a clean image.
      criterion: [T] of the stopping rule, nan where it has none.
      output: [H, W, C] of the last iteration.
      ema: [H, W, C] exponential mean at the last iteration.
      restored: [H, W, C] the mean that the stopping rule chose.
      restored_at: The iteration of `restored`.
      best: [H, W, C] the mean closest to the clean image, or None; an oracle, not a
        restoration.
      snapshots: The mean at chosen iterations, those that were reached.
      variables: The network's parameters after the last update; None if the
        fit is kept in a file.
      optimizer_state: The optimizer's after the last update; None as the variables.
      parts: The fits to parts of the measurements that found how many iterations
        to run; see `refit`.
      start: Where a refit begins, by the settings' `refit_from`; None if that is 0 or
        the fit was found in a file.
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
    parts: tuple["Fit", ...] = ()
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
        """What was recorded at every iteration, by name, each [T].

        With fits to parts, the validation is that of the first, as long as it is.
        """
        names = ("loss", "validation", "psnr", "psnr_ema", "criterion")
        found = {name: getattr(self, name) for name in names}
        if self.parts:
            found["validation"] = self.parts[0].validation
        return {name: values for name, values in found.items() if values is not None}

    def plot(self) -> Any:
        """A matplotlib figure: the restored image and the curves."""
        return figures.fit(self.restored, self.curves(), self.restored_at)

    def arrays(self) -> dict[str, np.ndarray]:
        """Curves and images, to be kept in a file: neither parameters nor other fits."""
        taken = {f"snapshot_{at}": image for at, image in self.snapshots.items()}
        fields = {name: value for name, value in vars(self).items() if value is not None}
        return taken | {
            name: np.asarray(value)
            for name, value in fields.items()
            if name not in ("snapshots", "variables", "optimizer_state", "parts", "start")
        }

    @classmethod
    def of_arrays(cls, arrays: dict[str, np.ndarray]) -> "Fit":
        """What `arrays` gave, back."""
        prefix = "snapshot_"
        values: dict[str, Any] = {field.name: None for field in dataclasses.fields(cls)}
        values["parts"] = ()
        values |= {name: value for name, value in arrays.items() if not name.startswith(prefix)}
        values["restored_at"] = int(values["restored_at"])
        values["snapshots"] = {
            int(name.removeprefix(prefix)): image
            for name, image in arrays.items()
            if name.startswith(prefix)
        }
        return cls(**values)
