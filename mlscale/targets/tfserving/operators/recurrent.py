"""Recurrent layers as loops over time, of any number of steps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from mlscale.targets.tfserving.operator_table import GraphNode, NotExpressible, Tensor, register

_Step = Callable[[Any, list[Any]], list[Any]]


@dataclass(frozen=True)
class _Weights:
    """Of one direction: of the inputs (gates, inputs), of the state (gates, hidden), and the biases of both."""

    inputs: Any
    state: Any
    input_bias: Any
    state_bias: Any


@register("GRU", fixed=(1, 2, 3))
def run_gru(
    node: GraphNode, x: Tensor, w: Tensor, r: Tensor, b: Tensor = None, lengths: Tensor = None, h: Tensor = None
) -> Tensor:
    """Return the outputs of gated recurrent units, and their last state."""
    resets_after = node.get("linear_before_reset", 0)

    def build_step(weights: _Weights) -> _Step:
        hidden = weights.state.shape[1]

        def step(gates: Tensor, state: list[Any]) -> list[Any]:
            (h,) = state
            given = gates + weights.input_bias
            early = given[:, : 2 * hidden] + tf.matmul(h, weights.state[: 2 * hidden].T)
            update, reset = tf.split(tf.sigmoid(early + weights.state_bias[: 2 * hidden]), 2, -1)
            own, bias = weights.state[2 * hidden :].T, weights.state_bias[2 * hidden :]
            remembered = reset * (tf.matmul(h, own) + bias) if resets_after else tf.matmul(reset * h, own) + bias
            return [(1 - update) * tf.tanh(given[:, 2 * hidden :] + remembered) + update * h]

        return step

    return _run_directions(node, x, w, r, b, lengths, [h], build_step)


@register("LSTM", fixed=(1, 2, 3))
def run_lstm(
    node: GraphNode,
    x: Tensor,
    w: Tensor,
    r: Tensor,
    b: Tensor = None,
    lengths: Tensor = None,
    h: Tensor = None,
    c: Tensor = None,
    peepholes: Tensor = None,
) -> Tensor:
    """Return the outputs of long short-term memory, and its last states."""
    node.refuse_attributes(input_forget=0)
    if peepholes is not None:
        raise NotExpressible("peepholes")

    def build_step(weights: _Weights) -> _Step:
        bias = weights.input_bias + weights.state_bias

        def step(gates: Tensor, state: list[Any]) -> list[Any]:
            h, c = state
            given, output, forget, cell = tf.split(gates + tf.matmul(h, weights.state.T) + bias, 4, -1)
            c = tf.sigmoid(forget) * c + tf.sigmoid(given) * tf.tanh(cell)
            return [tf.sigmoid(output) * tf.tanh(c), c]

        return step

    return _run_directions(node, x, w, r, b, lengths, [h, c], build_step)


def _run_directions(
    node: GraphNode,
    x: Tensor,
    w: Tensor,
    r: Tensor,
    b: Tensor,
    lengths: Tensor,
    states: list[Any],
    build_step: Callable[[_Weights], _Step],
) -> tuple[Any, ...]:
    """Return the outputs (steps, directions, n, hidden) and the last states (directions, n, hidden).

    Args:
        x: (steps, n, inputs).
        w, r, b: the weights of each direction.
        states: the first ones, of each direction; None for zeros.
        build_step: returns the function from a step's gates and the states to the next states.
    """
    node.refuse_attributes(activations=None, clip=None, layout=0)
    if lengths is not None:
        raise NotExpressible("a length of each sequence")
    order = {"forward": [False], "reverse": [True], "bidirectional": [False, True]}[node.get("direction", "forward")]
    hidden, gates = r.shape[2], r.shape[1]
    biases = np.zeros((len(order), 2 * gates), w.dtype) if b is None else b
    zeros = tf.zeros(tf.stack([tf.shape(x)[1], hidden]), x.dtype)
    # A reversed direction reads the steps backwards, and its outputs are those of the steps in order.
    outputs, lasts = [], []
    for number, is_reversed in enumerate(order):
        weights = _Weights(w[number], r[number], biases[number, :gates], biases[number, gates:])
        first = [zeros if state is None else state[number] for state in states]
        given = tf.reverse(x, [0]) if is_reversed else x
        sequence, last = _run_steps(given, weights, first, build_step(weights))
        outputs.append(tf.reverse(sequence, [0]) if is_reversed else sequence)
        lasts.append(last)
    return tf.stack(outputs, 1), *(tf.stack(list(parts)) for parts in zip(*lasts, strict=True))


def _run_steps(x: Tensor, weights: _Weights, first: list[Any], step: _Step) -> tuple[Any, list[Any]]:
    """Return the first state at each step, (steps, n, hidden), and all states after the last one."""
    # One product for all steps; only what depends on the state is computed in the loop.
    gates = tf.tensordot(x, weights.inputs.T, 1)
    steps = tf.shape(x)[0]
    written = tf.TensorArray(x.dtype, steps, element_shape=(None, weights.state.shape[1]))
    for state in first:
        state.set_shape((None, weights.state.shape[1]))

    def advance(number: Tensor, written: Tensor, *state: Tensor) -> tuple[Any, ...]:
        following = step(gates[number], list(state))
        return number + 1, written.write(number, following[0]), *following

    _, written, *last = tf.while_loop(lambda number, *rest: number < steps, advance, (0, written, *first))
    return written.stack(), last
