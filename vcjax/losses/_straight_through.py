"""Exact value, smooth derivative."""

import functools as ft
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
from jax.custom_derivatives import SymbolicZero


def straight_through(hard: Callable[..., Any], soft: Callable[..., Any]) -> Callable[..., Any]:
    """A function with the value of `hard`, bit for bit, and the derivative of `soft`.

    Evaluated without differentiation it costs what `hard` costs. Its value is piecewise constant, so it need not fall
    along the gradient: line searches and "did the loss go down" must look at `soft`. Both functions take the same
    arguments, pytrees whose leaves may be anything; pass every array that is differentiated as an argument rather than
    closing over it.
    """

    def call(*args):
        arrays, static = eqx.partition(args, eqx.is_array)
        leaves, structure = jax.tree.flatten(arrays)
        restore = lambda leaves: eqx.combine(jax.tree.unflatten(structure, leaves), static)

        @jax.custom_jvp
        def function(*leaves):
            return hard(*restore(leaves))

        @ft.partial(function.defjvp, symbolic_zeros=True)
        def _(primals, tangents):
            moving = [not isinstance(t, SymbolicZero) for t in tangents]

            def soft_of(*moved):
                moved = iter(moved)
                return soft(*restore([next(moved) if m else p for m, p in zip(moving, primals, strict=True)]))

            point = [p for m, p in zip(moving, primals, strict=True) if m]
            direction = [t for m, t in zip(moving, tangents, strict=True) if m]
            return hard(*restore(primals)), jax.jvp(soft_of, point, direction)[1]

        return function(*leaves)

    return call
