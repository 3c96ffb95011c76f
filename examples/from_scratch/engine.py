"""Reverse-mode automatic differentiation over NumPy arrays.

    z = (x @ w + b).relu().sum()     builds a graph: each result holds its inputs and how to send a gradient to them
    z.backward()                     visits it once, results before inputs, and adds up gradients in `.grad`

After Karpathy's micrograd, with arrays and broadcasting in place of numbers, and without recursion: a graph may be as
deep as memory allows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
Backward = Callable[[Array], Sequence[Array]]  # gradient of the result -> gradient of each input


class Value:
    """An array and, once `backward` was called on what was computed from it, its gradient.

    Attributes:
        data: float64.
        grad: of the same shape, zeros at first; gradients add up until `zero_grad`.
    """

    __array_priority__ = 100  # NumPy leaves `array + value` to us

    def __init__(self, data: ArrayLike, inputs: Sequence[Value] = (), backward: Backward | None = None):
        self.data = np.asarray(data, dtype=np.float64)
        self.grad = np.zeros_like(self.data)
        self._inputs = tuple(inputs)
        self._backward = backward

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the array."""
        return self.data.shape

    def __repr__(self) -> str:
        return f"Value({self.data!r})"

    # Arithmetic. Shapes broadcast as NumPy's do; a gradient is summed over what was stretched.

    def __add__(self, other: Value | ArrayLike) -> Value:
        other = as_value(other)
        return Value(
            self.data + other.data,
            (self, other),
            lambda grad: (unstretched(grad, self.shape), unstretched(grad, other.shape)),
        )

    def __mul__(self, other: Value | ArrayLike) -> Value:
        other = as_value(other)
        return Value(
            self.data * other.data,
            (self, other),
            lambda grad: (
                unstretched(grad * other.data, self.shape),
                unstretched(grad * self.data, other.shape),
            ),
        )

    def __matmul__(self, other: Value | ArrayLike) -> Value:
        other = as_value(other)
        if self.data.ndim < 2 or other.data.ndim < 2:
            raise ValueError(f"@ takes arrays of at least two axes; got shapes {self.shape} and {other.shape}")
        return Value(
            self.data @ other.data,
            (self, other),
            lambda grad: (
                unstretched(grad @ other.data.swapaxes(-1, -2), self.shape),
                unstretched(self.data.swapaxes(-1, -2) @ grad, other.shape),
            ),
        )

    def __pow__(self, exponent: float) -> Value:
        if isinstance(exponent, Value):
            raise TypeError("an exponent must be a number; write (x.log() * y).exp() for x to the power of a Value")
        return Value(
            self.data**exponent,
            (self,),
            lambda grad: (grad * exponent * self.data ** (exponent - 1),),
        )

    def __neg__(self) -> Value:
        return self * -1.0

    def __sub__(self, other: Value | ArrayLike) -> Value:
        return self + -as_value(other)

    def __truediv__(self, other: Value | ArrayLike) -> Value:
        return self * as_value(other) ** -1.0

    __radd__ = __add__
    __rmul__ = __mul__

    def __rsub__(self, other: ArrayLike) -> Value:
        return as_value(other) - self

    def __rtruediv__(self, other: ArrayLike) -> Value:
        return as_value(other) / self

    def __rmatmul__(self, other: ArrayLike) -> Value:
        return as_value(other) @ self

    # Functions of each entry.

    def relu(self) -> Value:
        """max(x, 0); the gradient at 0 is 0, as torch has it."""
        return Value(np.maximum(self.data, 0), (self,), lambda grad: (grad * (self.data > 0),))

    def exp(self) -> Value:
        """e to the power of x."""
        result = np.exp(self.data)
        return Value(result, (self,), lambda grad: (grad * result,))

    def log(self) -> Value:
        """The natural logarithm. Raises ValueError where an entry is not above 0."""
        if not (self.data > 0).all():
            raise ValueError(f"log needs entries above 0; the least is {self.data.min()}")
        return Value(np.log(self.data), (self,), lambda grad: (grad / self.data,))

    # Shapes.

    def sum(self, axis: int | tuple[int, ...] | None = None, keepdims: bool = False) -> Value:
        """The sum over some axes, all by default."""

        def spread(grad: Array) -> tuple[Array]:
            if axis is not None and not keepdims:
                grad = np.expand_dims(grad, axis)
            return (np.broadcast_to(grad, self.shape),)

        return Value(self.data.sum(axis=axis, keepdims=keepdims), (self,), spread)

    def mean(self, axis: int | tuple[int, ...] | None = None, keepdims: bool = False) -> Value:
        """The mean over some axes, all by default."""
        total = self.sum(axis, keepdims)
        return total * (max(total.data.size, 1) / self.data.size)

    def reshape(self, *shape: int) -> Value:
        """The same entries in another shape."""
        return Value(self.data.reshape(shape), (self,), lambda grad: (grad.reshape(self.shape),))

    @property
    def T(self) -> Value:
        """The last two axes exchanged."""
        return Value(self.data.swapaxes(-1, -2), (self,), lambda grad: (grad.swapaxes(-1, -2),))

    # Gradients.

    def backward(self) -> None:
        """Add to every Value that this one depends on the gradient of this one with respect to it.

        Raises:
            ValueError: this is not a single number.
        """
        if self.data.size != 1:
            raise ValueError(f"backward starts at one number; this has shape {self.shape}")
        # Gradients of this pass alone: what an earlier one left in `grad` must not be sent on again.
        flowing = {id(self): np.ones_like(self.data)}
        for value in reversed(topological(self)):
            grad = flowing.pop(id(value))
            value.grad = value.grad + grad
            if value._backward is None:
                continue
            for each, part in zip(value._inputs, value._backward(grad), strict=True):
                flowing[id(each)] = flowing[id(each)] + part if id(each) in flowing else part


def topological(result: Value) -> list[Value]:
    """Everything that `result` depends on, inputs before what is computed from them, `result` last.

    A depth-first walk with a stack of its own: a Value is listed when it is met the second time, after its inputs.
    """
    order: list[Value] = []
    seen: set[int] = set()
    stack = [(result, False)]
    while stack:
        value, inputs_done = stack.pop()
        if inputs_done:
            order.append(value)
        elif id(value) not in seen:
            seen.add(id(value))
            stack.append((value, True))
            stack += [(each, False) for each in value._inputs]
    return order


def as_value(data: Value | ArrayLike) -> Value:
    """Itself, or a constant."""
    return data if isinstance(data, Value) else Value(data)


def unstretched(grad: Array, shape: tuple[int, ...]) -> Array:
    """A gradient summed over the axes along which an array of `shape` was stretched to its shape."""
    grad = grad.sum(axis=tuple(range(grad.ndim - len(shape))))
    stretched = tuple(axis for axis, size in enumerate(shape) if size == 1 and grad.shape[axis] != 1)
    return grad.sum(axis=stretched, keepdims=True) if stretched else grad
