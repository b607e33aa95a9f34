"""L2-regularised logistic regression to convergence, for many subsets of the rows at once, and along a path of penalties.

The objective of a subset with row weights w and a strength l2, as in scikit-learn with C = 1 / (l2 · Σw):

    Σᵢ wᵢ · crossentropy(xᵢ·W + b, yᵢ) / Σᵢ wᵢ  +  l2/2 · ‖W‖²        the bias b is free

Two classes have one column w, the difference of their logits, as in scikit-learn; it is returned as W = (−w/2, w/2), b likewise.

All subsets share one rotation of the features onto their principal axes, of which there are no more than rows, so that an iteration of
them all is two products of one matrix. In it L-BFGS (Nocedal & Wright, 2006, algorithm 7.4) starts from the Hessian's own diagonal, which
the rotation makes a good preconditioner. No line search lets one subset wait for another: each takes its step where the slope along it
has shrunk, else a shorter one in the next iteration.

A strength starts from where the solutions of the two before it lead to, on a straight line in the strength's logarithm: that halves the
iterations of a path, as the solution of the one before alone is still half of its length away.
"""

import contextlib
import dataclasses
import functools
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy
import threadpoolctl

_HISTORY = 10  # pairs of steps and gradient changes
_DIAGONAL_EVERY = 16  # iterations
TOLERANCE = 3e-4  # of the kernel's relative error
_LEAP = 2.0  # a line through two solutions is followed at most so many times their distance
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

    def along(self, strengths: Iterable[float], *, start: Solutions | None = None, tolerance: float = TOLERANCE) -> Iterator[Solutions]:
        """Minimises the objective for every subset at one strength after another: as many as are asked for.

        Args:
          strengths: l2, each above 0. Quickest from the strongest on, in even steps of their logarithm.
          start: of the same subsets; its last strength's solution is what the first starts from, in place of zeros.
          tolerance: of the kernel's relative error, by the bound in `Solutions.gradient_norm`; the error is usually smaller.

        Yields:
          The solutions of each strength, L = 1.
        """
        axes, classes, problem = self.examples.rotation.axes, self.examples.classes, self._prepared
        theta = np.zeros((problem.coordinates.shape[1], len(self.weights), classes), np.float32)
        if start is not None:
            theta[: axes.shape[1]] = np.einsum("dr,kdc->rkc", axes, start.kernel[:, -1], optimize=True)
            theta[-1] = start.bias[:, -1]
        found = list[tuple[float, np.ndarray]]()  # the last two strengths' logarithms and solutions
        for l2 in strengths:
            place = float(np.log(l2))
            theta, norms = problem.solve(_led_on(found, place) if len(found) == 2 else theta, l2, tolerance)
            found = [*found[-1:], (place, theta)]
            kernel = np.einsum("dr,rkc->kdc", axes, theta[: axes.shape[1]], optimize=True)
            yield Solutions(np.ascontiguousarray(kernel[:, None]), theta[-1][:, None], norms[:, None])

    def solve(self, strengths: np.ndarray, *, tolerance: float = TOLERANCE) -> Solutions:
        """Minimises the objective for every subset and strength, float [L] in any order; see `along`."""
        order = np.argsort(-np.asarray(strengths, np.float64), kind="stable")
        found = list(self.along(np.asarray(strengths, np.float64)[order], tolerance=tolerance))
        back = [found[place] for place in np.argsort(order)]
        return Solutions(*(np.concatenate([getattr(one, field.name) for one in back], axis=1) for field in dataclasses.fields(Solutions)))

    @functools.cached_property
    def _prepared(self) -> "_Prepared":
        coordinates, weights = _rounded(self.examples.rotation.coordinates), np.asarray(self.weights, np.float64)
        labels = np.asarray(self.examples.labels, np.int32)
        shares = np.zeros((len(weights), len(coordinates)), np.float32)
        shares[:, : weights.shape[1]] = weights / weights.sum(1, keepdims=True)
        return _Prepared(jax.device_put(coordinates), np.pad(labels, (0, len(coordinates) - len(labels))), shares, self.examples.classes)


def _led_on(found: Sequence[tuple[float, np.ndarray]], place: float) -> np.ndarray:
    """What a straight line through two solutions has at another strength: theta, for the strengths' logarithms."""
    (before, earlier), (last, latest) = found
    ratio = (place - last) / (last - before) if last != before else 0.0
    return latest + np.float32(np.clip(ratio, 0, _LEAP)) * (latest - earlier)


@dataclasses.dataclass(frozen=True)
class _Prepared:
    """What is the same for all strengths: rounded coordinates [N, P] on the device, labels int32 [N], and shares float32 [K, N]."""

    coordinates: jax.Array
    labels: np.ndarray
    shares: np.ndarray
    classes: int

    @functools.cached_property
    def floors(self) -> np.ndarray:
        """Float32 [K], the norm of a gradient that is nothing in float32: a thousand millionth of that at theta = 0."""
        residual = 1 / self.classes - np.eye(self.classes, dtype=np.float32)[self.labels]
        of_zero = [np.asarray(self.coordinates).T @ (residual * share[:, None]) for share in self.shares]
        return np.array([1e-9 * np.linalg.norm(gradient) for gradient in of_zero], np.float32)

    def solve(self, first: np.ndarray, l2: float, tolerance: float) -> tuple[np.ndarray, np.ndarray]:
        """Theta [P, K, C] and the gradient's norm [K] of all subsets, from theta `first` on; so many at once as memory allows."""
        penalty = np.float32(l2 * (2 if self.classes == 2 else 1))
        at_once = max(1, _LOGITS // (len(self.labels) * self.classes))
        parts = [
            _solve(self.coordinates, self.labels, self.shares[some].T, self.floors[some], penalty, np.float32(tolerance), first[:, some])
            for some in (slice(begin, begin + at_once) for begin in range(0, len(self.shares), at_once))
        ]
        return np.concatenate([np.asarray(theta) for theta, _ in parts], axis=1), np.concatenate([np.asarray(norm) for _, norm in parts])


def _rounded(coordinates: np.ndarray) -> np.ndarray:
    """Adds rows and axes of zeros, which change nothing, so that data of nearly one size share a compiled program; ones stay last."""
    rows, columns = (-(-size // _ROUND) * _ROUND for size in coordinates.shape)
    padded = np.zeros((rows, columns), np.float32)
    padded[: len(coordinates), : coordinates.shape[1] - 1] = coordinates[:, :-1]
    padded[: len(coordinates), -1] = coordinates[:, -1]
    return padded


class _State(NamedTuple):
    """Of the iteration; K subsets. P = R + 1 parameters a class."""

    iteration: jax.Array
    done: jax.Array  # bool [K]
    theta: jax.Array  # [P, K, C], as what follows
    gradient: jax.Array
    direction: jax.Array
    diagonal: jax.Array
    length: jax.Array  # [K], of the step that is tried next
    steps: jax.Array  # [M, P, K, C]
    changes: jax.Array  # [M, P, K, C], of the gradient


@dataclasses.dataclass(frozen=True)
class _Problem:
    """What is minimised for all subsets, as it stands while the solver is compiled.

    Attributes:
      coordinates: [N, P].
      own: bool [N, 1, C], the class of each row.
      shares: [N, K], of each row's weight in a subset.
      floors: [K], norms of gradients below which float32 has no more digits.
      strength: of the penalty.
      tolerance: of the kernel's relative error.
    """

    coordinates: jax.Array
    own: jax.Array
    shares: jax.Array
    floors: jax.Array
    strength: jax.Array
    tolerance: jax.Array

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of theta: P, K, C."""
        return self.coordinates.shape[1], self.shares.shape[1], self.own.shape[-1]

    @property
    def penalized(self) -> jax.Array:
        """Float32 [P, 1, 1]: 1 for the kernel, 0 for the bias."""
        parameters = self.shape[0]
        return (jnp.arange(parameters) < parameters - 1).astype(jnp.float32)[:, None, None]

    @property
    def penalty(self) -> jax.Array:
        """[P, 1, 1]."""
        return self.strength * self.penalized

    def gradient_at(self, theta: jax.Array) -> jax.Array:
        others = jnp.where(self.own, 0.0, self._probabilities(theta))
        # 1 − p of a p near 1 would lose its digits
        residual = jnp.where(self.own, -others.sum(-1, keepdims=True), others) * self.shares[:, :, None]
        return _product(self.coordinates.T, residual.reshape(len(self.own), -1)).reshape(self.shape) + self.penalty * theta

    def diagonal_at(self, theta: jax.Array) -> jax.Array:
        """The diagonal of the Hessian."""
        p = self._probabilities(theta)
        curvature = (p * (1 - p) * self.shares[:, :, None]).reshape(len(self.own), -1)
        return _product((self.coordinates**2).T, curvature).reshape(self.shape) + self.penalty + 1e-12

    def converged(self, theta: jax.Array, gradient: jax.Array) -> jax.Array:
        """Bool [K]."""
        return _norm(gradient) <= jnp.maximum(self.tolerance * self.strength * _norm(theta * self.penalized), self.floors)

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
    coordinates: jax.Array,
    labels: jax.Array,
    shares: jax.Array,
    floors: jax.Array,
    strength: jax.Array,
    tolerance: jax.Array,
    first: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """Solves for coordinates [N, P], shares [N, K] and one strength, from theta `first` [P, K, C] on.

    Returns:
      theta [P, K, C], and gradient norms [K].
    """
    own = (labels[:, None] == jnp.arange(first.shape[-1]))[:, None]
    problem = _Problem(coordinates, own, shares, floors, strength, tolerance)
    end = jax.lax.while_loop(
        lambda state: ~state.done.all() & (state.iteration < _MOST_ITERATIONS), functools.partial(_iterate, problem), _start(problem, first)
    )
    return end.theta, _norm(end.gradient)


def _start(problem: _Problem, theta: jax.Array) -> _State:
    """The first iteration tries a step of length 0: it finds the gradient and the diagonal, which are compiled once so."""
    nothing, history = jnp.zeros_like(theta), jnp.zeros((_HISTORY, *problem.shape), jnp.float32)
    return _State(
        iteration=jnp.int32(0),
        done=jnp.zeros(problem.shape[1], bool),
        theta=theta,
        gradient=nothing,
        direction=nothing,
        diagonal=jnp.ones_like(theta),
        length=jnp.ones(problem.shape[1], jnp.float32),
        steps=history,
        changes=history,
    )


def _iterate(problem: _Problem, state: _State) -> _State:
    """Tries a step of every subset. One that is taken has its successor's direction computed, one that is not is tried again, shorter."""
    trial = state.theta + state.length[:, None] * state.direction
    gradient = problem.gradient_at(trial)
    slope, new_slope = _dot(state.gradient, state.direction), _dot(gradient, state.direction)
    taken = (new_slope <= -0.5 * slope) & ~state.done
    pair, mask = state.iteration % _HISTORY, taken[:, None]
    kept = mask & (state.iteration > 0)
    state = state._replace(
        iteration=state.iteration + 1,
        steps=state.steps.at[pair].set(jnp.where(kept, trial - state.theta, 0)),
        changes=state.changes.at[pair].set(jnp.where(kept, gradient - state.gradient, 0)),
        theta=jnp.where(mask, trial, state.theta),
        gradient=jnp.where(mask, gradient, state.gradient),
    )
    state = state._replace(done=state.done | problem.converged(state.theta, state.gradient))
    due = (state.iteration % _DIAGONAL_EVERY == 0) | (state.iteration == 1) | (state.iteration == 4)
    diagonal = jax.lax.cond(
        due & ~state.done.all(), lambda theta, _: problem.diagonal_at(theta), lambda _, diagonal: diagonal, state.theta, state.diagonal
    )
    state = state._replace(diagonal=diagonal)
    shorter = state.length * jnp.clip(slope / (slope - new_slope), 0.1, 0.7)  # where a line through both slopes meets zero
    direction = jnp.where(mask, _next_direction(state), state.direction)
    direction = jnp.where(state.done[:, None], 0, direction)
    return state._replace(direction=direction, length=jnp.where(taken, 1.0, shorter))


def _next_direction(state: _State) -> jax.Array:
    """L-BFGS's two loops over the pairs, the latest first, then back; a pair of zeros changes nothing."""
    latest = (state.iteration - 1 - jnp.arange(_HISTORY)) % _HISTORY
    curvature = _dot(state.steps, state.changes)
    inverse = jnp.where(curvature > 0, 1 / jnp.where(curvature > 0, curvature, 1), 0)  # [M, K]

    def back(i: jax.Array, carried: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        q, factors = carried
        factor = inverse[latest[i]] * _dot(state.steps[latest[i]], q)
        return q - factor[:, None] * state.changes[latest[i]], factors.at[i].set(factor)

    q, factors = jax.lax.fori_loop(0, _HISTORY, back, (state.gradient, jnp.zeros_like(curvature)))
    change = state.changes[latest[0]]
    expected = _dot(change, change / state.diagonal)
    scale = jnp.where(expected > 0, curvature[latest[0]] / jnp.where(expected > 0, expected, 1), 1)

    def forth(j: jax.Array, q: jax.Array) -> jax.Array:
        i = _HISTORY - 1 - j
        pair = latest[i]
        return q + (factors[i] - inverse[pair] * _dot(state.changes[pair], q))[:, None] * state.steps[pair]

    return -jax.lax.fori_loop(0, _HISTORY, forth, q / state.diagonal * scale[:, None])
