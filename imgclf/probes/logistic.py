"""L2-regularised logistic regression to convergence, for many subsets of the rows and many strengths of the penalty in one compiled call.

The objective of a subset with row weights w and a strength l2, as in scikit-learn with C = 1 / (l2 · Σw):

    Σᵢ wᵢ · crossentropy(xᵢ·W + b, yᵢ) / Σᵢ wᵢ  +  l2/2 · ‖W‖²        the bias b is free

Two classes have one column w, the difference of their logits, as in scikit-learn; it is returned as W = (−w/2, w/2), b likewise.

All subsets share one rotation of the features onto their principal axes, of which there are no more than rows, so that an iteration of
them all is two products of one matrix. In it L-BFGS (Nocedal & Wright, 2006, algorithm 7.4) starts from the Hessian's own diagonal, which
the rotation makes a good preconditioner. No line search lets one subset wait for another: each takes its step where the slope along it
has shrunk, else a shorter one in the next iteration, and goes on to the next strength, from the solution it has found, when that has
converged.
"""

import contextlib
import dataclasses
import functools
from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
import scipy.special
import threadpoolctl

_HISTORY = 10  # pairs of steps and gradient changes
_DIAGONAL_EVERY = 16  # iterations
TOLERANCE = 3e-4  # of the kernel's relative error
_MOST_ITERATIONS = 500  # of a strength; float32 may not let it come closer
_ROWS = 8192  # of features that are rotated at once
_ROUND = 64  # rows and axes are padded to a multiple of this
_SMALL = 2**24  # elements of a matrix whose products are not worth a second thread
_LOGITS = 2**25  # of all rows and subsets at once: 128 MB each time they are held


@dataclasses.dataclass(frozen=True)
class Solutions:
    """Of K subsets and L strengths.

    Attributes:
      kernel: float32 [K, L, D, C].
      bias: float32 [K, L, C].
      gradient_norm: float64 [K, L], of the objective. Over l2 · ‖W‖ it bounds the kernel's relative error, as the objective curves by l2
        at least.
    """

    kernel: np.ndarray
    bias: np.ndarray
    gradient_norm: np.ndarray


@dataclasses.dataclass(frozen=True)
class Rotation:
    """Features in their principal axes: coordinates float32 [N, R + 1], a column of ones last, and axes float32 [D, R]."""

    coordinates: np.ndarray
    axes: np.ndarray

    @classmethod
    def of(cls, features: np.ndarray, mean: np.ndarray | float = 0.0, deviation: np.ndarray | float = 1.0) -> "Rotation":
        """Rotates (features − mean) / deviation, float32 [N, D], a block of rows at a time."""
        n, width = features.shape

        def blocks() -> Iterator[tuple[slice, np.ndarray]]:
            for start in range(0, n, _ROWS):
                rows = slice(start, min(start + _ROWS, n))
                yield rows, (features[rows] - mean) / deviation

        if n <= width:
            x = np.concatenate([block for _, block in blocks()]).astype(np.float64)
            values, vectors = eigh(x @ x.T)
            kept = values > 1e-12 * max(values[-1], 1e-300)
            sizes = np.sqrt(values[kept])
            coordinates = np.concatenate([vectors[:, kept] * sizes, np.ones((n, 1))], axis=1)
            return cls(coordinates.astype(np.float32), (x.T @ (vectors[:, kept] / sizes)).astype(np.float32))
        gram = np.zeros((width, width))
        for _, x in blocks():
            gram += x.T @ x
        _, vectors = eigh(gram)
        axes = vectors.astype(np.float32)
        coordinates = np.ones((n, width + 1), np.float32)
        for rows, x in blocks():
            coordinates[rows, :width] = x @ axes
        return cls(coordinates, axes)


def eigh(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`scipy.linalg.eigh` in one thread: where other work uses the cores, those of BLAS spin, and 0.04 s of work took 1.7 s of CPU."""
    with threadpoolctl.threadpool_limits(1, "blas"):
        return scipy.linalg.eigh(matrix)


@contextlib.contextmanager
def few_threads(size: int) -> Iterator[None]:
    """Keeps NumPy's products of matrices of so many elements in one thread where they are small, for the same reason.

    Six hundred features of width 1,280 take 0.8 s of CPU in five folds so, and 1.6 s in two threads, each of which waits for the other.
    """
    with threadpoolctl.threadpool_limits(1, "blas") if size <= _SMALL else contextlib.nullcontext():
        yield


def cross_entropy(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Of each example, float64 [N], for float64 [N, C] and int [N]."""
    return scipy.special.logsumexp(logits, axis=1) - np.take_along_axis(logits, labels[:, None], 1)[:, 0]


@dataclasses.dataclass(frozen=True)
class Examples:
    """What a head is fitted to: (features − mean) / deviation, which the solutions are for, and labels.

    Attributes:
      features: float32 [N, D].
      labels: int [N], below `classes`.
      classes: C.
      mean, deviation: [D], or one number for all features.
    """

    features: np.ndarray
    labels: np.ndarray
    classes: int
    mean: np.ndarray | float = 0.0
    deviation: np.ndarray | float = 1.0

    @functools.cached_property
    def rotation(self) -> Rotation:
        """The scaled features in their principal axes, found once for all subsets."""
        return Rotation.of(self.features, self.mean, self.deviation)


@dataclasses.dataclass(frozen=True)
class LogisticPath:
    """The solutions of K subsets, at any strengths.

    Attributes:
      examples: of all subsets.
      weights: float [K, N], 0 where a row is not in the subset.
    """

    examples: Examples
    weights: np.ndarray

    def solve(self, strengths: np.ndarray, *, start: Solutions | None = None, tolerance: float = TOLERANCE) -> Solutions:
        """Minimises the objective for every subset and strength, from the strongest on, each from the solution of the one before.

        Args:
          strengths: float [L], l2, each above 0, in any order.
          start: of the same subsets; its last strength's solution is what the strongest starts from, in place of zeros.
          tolerance: of the kernel's relative error, by the bound in `Solutions.gradient_norm`; the error is usually smaller.
        """
        rotation, classes = self.examples.rotation, self.examples.classes
        axes = rotation.axes
        strengths, weights = np.asarray(strengths, np.float64), np.asarray(self.weights, np.float64)
        coordinates = _rounded(rotation.coordinates)
        labels = np.asarray(self.examples.labels, np.int32)
        labels = np.pad(labels, (0, len(coordinates) - len(labels)))
        shares = np.zeros((len(weights), len(coordinates)), np.float32)
        shares[:, : weights.shape[1]] = weights / weights.sum(1, keepdims=True)
        order = np.argsort(-strengths, kind="stable")
        penalties = (strengths[order] * (2 if classes == 2 else 1)).astype(np.float32)
        first = np.zeros((coordinates.shape[1], len(weights), classes), np.float32)
        if start is not None:
            first[: axes.shape[1]] = np.einsum("dr,kdc->rkc", axes, start.kernel[:, -1], optimize=True)
            first[-1] = start.bias[:, -1]
        at_once = max(1, _LOGITS // (len(coordinates) * classes))
        kernel = np.zeros((len(weights), len(strengths), len(axes), classes), np.float32)
        bias = np.zeros((len(weights), len(strengths), classes), np.float32)
        norms = np.zeros((len(weights), len(strengths)))
        on_device = jnp.asarray(coordinates)
        for begin in range(0, len(weights), at_once):
            some = slice(begin, begin + at_once)
            found, gradient_norm = _solve(on_device, labels, shares[some].T, penalties, tolerance, first[:, some])
            found, gradient_norm = np.asarray(found), np.asarray(gradient_norm)  # [L, P, K, C], [L, K]
            for place, level in enumerate(order):
                kernel[some, level] = np.einsum("dr,rkc->kdc", axes, found[place, : axes.shape[1]], optimize=True)
                bias[some, level], norms[some, level] = found[place, -1], gradient_norm[place]
        return Solutions(kernel, bias, norms)


def _rounded(coordinates: np.ndarray) -> np.ndarray:
    """Adds rows and axes of zeros, which change nothing, so that data of nearly one size share a compiled program; ones stay last."""
    rows, columns = (-(-size // _ROUND) * _ROUND for size in coordinates.shape)
    padded = np.zeros((rows, columns), np.float32)
    padded[: len(coordinates), : coordinates.shape[1] - 1] = coordinates[:, :-1]
    padded[: len(coordinates), -1] = coordinates[:, -1]
    return padded


class _State(NamedTuple):
    """Of the iteration; K subsets, each at its own strength. P = R + 1 parameters a class."""

    iteration: jax.Array
    level: jax.Array  # int32 [K], which strength; L when done
    since: jax.Array  # int32 [K], iterations at this strength
    theta: jax.Array  # [P, K, C], as what follows
    gradient: jax.Array
    direction: jax.Array
    diagonal: jax.Array
    length: jax.Array  # [K], of the step that is tried next
    steps: jax.Array  # [M, P, K, C]
    changes: jax.Array  # [M, P, K, C], of the gradient
    found: jax.Array  # [L, P, K, C]
    norms: jax.Array  # [L, K]


@dataclasses.dataclass(frozen=True)
class _Problem:
    """What is minimised for all subsets, as it stands while the solver is compiled.

    Attributes:
      coordinates: [N, P].
      own: bool [N, 1, C], the class of each row.
      shares: [N, K], of each row's weight in a subset.
      penalties: [L], in descending order.
      tolerance: of the kernel's relative error.
    """

    coordinates: jax.Array
    own: jax.Array
    shares: jax.Array
    penalties: jax.Array
    tolerance: jax.Array

    @property
    def levels(self) -> int:
        return len(self.penalties)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of theta: P, K, C."""
        return self.coordinates.shape[1], self.shares.shape[1], self.own.shape[-1]

    @property
    def penalized(self) -> jax.Array:
        """Float32 [P, 1, 1]: 1 for the kernel, 0 for the bias."""
        parameters = self.shape[0]
        return (jnp.arange(parameters) < parameters - 1).astype(jnp.float32)[:, None, None]

    def penalty_at(self, level: jax.Array) -> jax.Array:
        """[P, K, 1]."""
        return self.penalties[jnp.minimum(level, self.levels - 1)][:, None] * self.penalized

    def gradient_at(self, theta: jax.Array, penalty: jax.Array | float) -> jax.Array:
        others = jnp.where(self.own, 0.0, self._probabilities(theta))
        # 1 − p of a p near 1 would lose its digits
        residual = jnp.where(self.own, -others.sum(-1, keepdims=True), others) * self.shares[:, :, None]
        return _product(self.coordinates.T, residual.reshape(len(self.own), -1)).reshape(self.shape) + penalty * theta

    def diagonal_at(self, theta: jax.Array, penalty: jax.Array) -> jax.Array:
        """The diagonal of the Hessian."""
        p = self._probabilities(theta)
        curvature = (p * (1 - p) * self.shares[:, :, None]).reshape(len(self.own), -1)
        return _product((self.coordinates**2).T, curvature).reshape(self.shape) + penalty + 1e-12

    def _probabilities(self, theta: jax.Array) -> jax.Array:
        """[N, K, C]."""
        logits = _product(self.coordinates, theta.reshape(len(theta), -1))
        return jax.nn.softmax(logits.reshape(len(self.own), -1, self.own.shape[-1]))


_product = functools.partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)


def _dot(a: jax.Array, b: jax.Array) -> jax.Array:
    """[…, P, K, C] to […, K]."""
    return jnp.sum(a * b, axis=(-3, -1))


def _norm(theta: jax.Array) -> jax.Array:
    return jnp.sqrt(_dot(theta, theta))


@jax.jit
def _solve(
    coordinates: jax.Array, labels: jax.Array, shares: jax.Array, penalties: jax.Array, tolerance: jax.Array, first: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Solves for coordinates [N, P], shares [N, K] and penalties [L] in descending order, from theta `first` [P, K, C] on.

    Returns:
      theta [L, P, K, C], and gradient norms [L, K].
    """
    own = (labels[:, None] == jnp.arange(first.shape[-1]))[:, None]
    problem = _Problem(coordinates, own, shares, penalties, tolerance)
    start = _start(problem, first)
    floor = 1e-9 * _norm(problem.gradient_at(jnp.zeros_like(first), 0.0))
    end = jax.lax.while_loop(lambda state: (state.level < problem.levels).any(), lambda state: _iterate(problem, floor, state), start)
    return end.found, end.norms


def _start(problem: _Problem, theta: jax.Array) -> _State:
    shape = problem.shape
    subsets = shape[1]
    first = jnp.zeros(subsets, jnp.int32)
    gradient = problem.gradient_at(theta, problem.penalty_at(first))
    diagonal = problem.diagonal_at(theta, problem.penalty_at(first))
    history = jnp.zeros((_HISTORY, *shape), jnp.float32)
    return _State(
        iteration=jnp.int32(0),
        level=first,
        since=first,
        theta=theta,
        gradient=gradient,
        direction=-gradient / diagonal,
        diagonal=diagonal,
        length=jnp.ones(subsets, jnp.float32),
        steps=history,
        changes=history,
        found=jnp.zeros((problem.levels, *shape), jnp.float32),
        norms=jnp.zeros((problem.levels, subsets), jnp.float32),
    )


def _iterate(problem: _Problem, floor: jax.Array, state: _State) -> _State:
    """Tries a step of every subset. One that is taken has its successor's direction computed, one that is not is tried again, shorter."""
    levels = problem.levels
    penalty = problem.penalty_at(state.level)
    trial = state.theta + state.length[:, None] * state.direction
    gradient = problem.gradient_at(trial, penalty)
    slope, new_slope = _dot(state.gradient, state.direction), _dot(gradient, state.direction)
    taken = new_slope <= -0.5 * slope
    pair, mask = state.iteration % _HISTORY, taken[:, None]
    state = state._replace(
        iteration=state.iteration + 1,
        since=state.since + 1,
        steps=state.steps.at[pair].set(jnp.where(mask, trial - state.theta, 0)),
        changes=state.changes.at[pair].set(jnp.where(mask, gradient - state.gradient, 0)),
        theta=jnp.where(mask, trial, state.theta),
        gradient=jnp.where(mask, gradient, state.gradient),
    )
    target = problem.tolerance * problem.penalties[jnp.minimum(state.level, levels - 1)] * _norm(state.theta * problem.penalized)
    done = (_norm(state.gradient) <= jnp.maximum(target, floor)) | (state.since >= _MOST_ITERATIONS)
    done &= state.level < levels
    state = jax.lax.cond(done.any(), functools.partial(_finish, problem), lambda state, _: state, state, done)
    due = (state.iteration % _DIAGONAL_EVERY == 0) | (state.iteration == 3)
    diagonal = jax.lax.cond(
        due, lambda state: problem.diagonal_at(state.theta, problem.penalty_at(state.level)), lambda state: state.diagonal, state
    )
    state = state._replace(diagonal=diagonal)
    anew = (taken | done)[:, None]
    shorter = state.length * jnp.clip(slope / (slope - new_slope), 0.1, 0.7)  # where a line through both slopes meets zero
    direction = jnp.where(anew, _next_direction(state), state.direction)
    direction = jnp.where((state.level < levels)[:, None], direction, 0)
    return state._replace(direction=direction, length=jnp.where(taken | done, 1.0, shorter))


def _finish(problem: _Problem, state: _State, done: jax.Array) -> _State:
    """Notes the solutions of the subsets that are done, and sets them to the next strength: what depends on it is exact there."""
    here = (state.level == jnp.arange(problem.levels)[:, None]) & done  # [L, K]
    level = state.level + done
    change = problem.penalty_at(level) - problem.penalty_at(state.level)
    return state._replace(
        level=level,
        since=jnp.where(done, 0, state.since),
        gradient=state.gradient + change * state.theta,
        diagonal=state.diagonal + change,
        changes=state.changes + change * state.steps,
        found=jnp.where(here[:, None, :, None], state.theta, state.found),
        norms=jnp.where(here, _norm(state.gradient), state.norms),
    )


def _next_direction(state: _State) -> jax.Array:
    """L-BFGS's two loops over the pairs, the latest first, then back; a pair of zeros changes nothing."""
    latest = (state.iteration - 1 - jnp.arange(_HISTORY)) % _HISTORY
    curvature = _dot(state.steps, state.changes)
    inverse = jnp.where(curvature > 0, 1 / jnp.where(curvature > 0, curvature, 1), 0)  # [M, K]
    q, factors = state.gradient, []
    for i in range(_HISTORY):
        pair = latest[i]
        factor = inverse[pair] * _dot(state.steps[pair], q)
        q = q - factor[:, None] * state.changes[pair]
        factors.append(factor)
    change = state.changes[latest[0]]
    expected = _dot(change, change / state.diagonal)
    scale = jnp.where(expected > 0, curvature[latest[0]] / jnp.where(expected > 0, expected, 1), 1)
    q = q / state.diagonal * scale[:, None]
    for i in reversed(range(_HISTORY)):
        pair = latest[i]
        q = q + (factors[i] - inverse[pair] * _dot(state.changes[pair], q))[:, None] * state.steps[pair]
    return -q
