"""The type of a record's field."""

from typing import Any, TypeAlias

# A numpy array on the host, a jax.Array inside a compiled program: the same record crosses the border, and JAX has no
# static type for both. Function arguments and results inside kernels are `jax.Array`.
Leaf: TypeAlias = Any
