"""How feature maps are computed: by which operations, to how many digits."""

import dataclasses

import jax
import jax.numpy as jnp
from jax import lax

IMPLEMENTATIONS = ("matmul", "conv")
PRECISIONS = ("highest", "high", "default")
DTYPES = ("float32", "bfloat16")


@dataclasses.dataclass(frozen=True)
class Numerics:
    """How the feature maps of a network are computed.

    Accelerators multiply float32 in fewer bits unless told: "default" precision
    is TF32 on recent GPUs and bfloat16 on TPUs. Parameters, the statistics of
    normalizations and the image itself are float32 in any case.

    Attributes:
      implementation: "matmul", matrix products (some by Winograd's filtering),
        direct convolutions and shifted sums with gradients of their own, always at
        the highest precision; or "conv", XLA's, depthwise ones apart, with
        maps written out around normalizations. By default what suits the backend:
        products on CPUs, convolutions elsewhere.
      precision: Of XLA's convolutions: "highest" (float32), "high" or "default";
        depthwise ones are always at the highest.
      dtype: Of feature maps: "float32" or "bfloat16".

    Raises:
      ValueError: For what is none of these.
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
        for name, known in choices.items():
            if (value := getattr(self, name)) not in known:
                raise ValueError(
                    f"{name} {value!r} does not exist; "
                    f"choose from {', '.join(choice for choice in known if choice)}"
                )

    @property
    def uses_matmul(self) -> bool:
        """Whether it is "matmul", on this backend."""
        if self.implementation is None:
            return jax.default_backend() == "cpu"
        return self.implementation == "matmul"

    @property
    def lax_precision(self) -> lax.Precision:
        """What `lax` calls the precision."""
        return lax.Precision[self.precision.upper()]

    def cast(self, *arrays: jax.Array) -> tuple[jax.Array, ...]:
        """Arrays in the feature maps' type; float64 stays."""
        return tuple(
            array if array.dtype == jnp.float64 else array.astype(self.dtype) for array in arrays
        )
