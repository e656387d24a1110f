"""The implementation, precision and dtype that feature maps are computed with."""

import dataclasses

import jax
import jax.numpy as jnp
from jax import lax

IMPLEMENTATIONS = ("matmul", "conv")
PRECISIONS = ("highest", "high", "default")
DTYPES = ("float32", "bfloat16")


@dataclasses.dataclass(frozen=True)
class Numerics:
    """Implementation, precision and dtype of the operations in a network.

    Parameters, normalization statistics and the output image are always float32.

    Attributes:
      implementation: "matmul" or "conv"; None selects "matmul" on CPUs and "conv" elsewhere.
        "matmul" computes convolutions with matrix products, Winograd filtering, direct
        convolutions and shifted sums, and defines their gradients. It ignores `precision`
        and always uses the highest. "conv" uses XLA's convolutions, except for some
        depthwise convolutions.
      precision: Precision of XLA's convolutions: "highest" (float32), "high" or "default"
        (TF32 on recent GPUs, bfloat16 on TPUs). Depthwise convolutions always use the highest.
      dtype: Type of the feature maps: "float32" or "bfloat16".

    Raises:
      ValueError: If a value is not one of these choices.
    """

    implementation: str | None = None
    precision: str = "highest"
    dtype: str = "float32"

    def __post_init__(self) -> None:
        choices = {
            "implementation": (None, *IMPLEMENTATIONS),
            "precision": PRECISIONS,
            "dtype": DTYPES,
        }
        for name, valid in choices.items():
            if (value := getattr(self, name)) not in valid:
                raise ValueError(
                    f"{name} {value!r} does not exist; choose from {', '.join(filter(None, valid))}"
                )

    @property
    def uses_matmul(self) -> bool:
        """Whether the implementation is "matmul", given or selected for the default backend."""
        if self.implementation is None:
            return jax.default_backend() == "cpu"
        return self.implementation == "matmul"

    @property
    def lax_precision(self) -> lax.Precision:
        """The precision as a `lax.Precision`."""
        return lax.Precision[self.precision.upper()]

    def cast(self, *arrays: jax.Array) -> tuple[jax.Array, ...]:
        """Return the arrays converted to `dtype`; float64 arrays are unchanged."""
        return tuple(
            array if array.dtype == jnp.float64 else array.astype(self.dtype) for array in arrays
        )


def accumulator(x: jax.Array) -> jax.Array:
    """Return the array in the dtype of sums over it: float32, or float64 for float64."""
    return x if x.dtype == jnp.float64 else x.astype(jnp.float32)
