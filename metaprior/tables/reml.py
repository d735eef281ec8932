"""Linear mixed models fitted by (restricted) maximum likelihood, in NumPy.

y = X β + Z u + e in each group, u ~ N(0, σ² Λ Λᵀ), e ~ N(0, σ²): Laird & Ware, "Random-Effects
Models for Longitudinal Data", Biometrics 1982. β and σ are profiled out as in Bates, Mächler,
Bolker & Walker, "Fitting Linear Mixed-Effects Models Using lme4", Journal of Statistical Software
2015, sections 2 and 3; the gradient with respect to Λ is exact.
"""

from typing import NamedTuple

import numpy as np

VARIES = 1e-6  # variance within groups of a standardised column, from which it has a slope a group
BLOCK = 4_000_000  # numbers of a temporary array


class Sums(NamedTuple):
    """What the likelihood needs of the rows: sums over all, and over each group.

    Args:
        xx, xy, yy: XᵀX `(p, p)`, Xᵀy `(p,)` and yᵀy over all rows.
        zz, zx, zy: ZᵀZ `(g, q, q)`, ZᵀX `(g, q, p)` and Zᵀy `(g, q)` of each group.
        rows: how many there are.
    """

    xx: np.ndarray
    xy: np.ndarray
    yy: float
    zz: np.ndarray
    zx: np.ndarray
    zy: np.ndarray
    rows: int

    @staticmethod
    def of(x: np.ndarray, z: np.ndarray, y: np.ndarray, start: np.ndarray) -> "Sums":
        """From rows in the order of the groups.

        Args:
            x: columns of the fixed effects, `(n, p)`.
            z: columns of the random effects, `(n, q)`.
            y: outcomes, `(n,)`.
            start: the first row of each group, `(g,)`.
        """
        whole = np.concatenate([z, x, y[:, None]], axis=1)
        groups, q, width = len(start), z.shape[1], whole.shape[1]
        each = np.empty((groups, q, width))
        ends = np.append(start[1:], len(y))
        step = max(1, BLOCK // (q * width))  # rows whose products are held at once
        first = 0
        while first < groups:
            last = max(first + 1, int(np.searchsorted(ends, start[first] + step, "right")))
            rows = slice(start[first], ends[last - 1])
            products = z[rows, :, None] * whole[rows, None, :]
            each[first:last] = np.add.reduceat(products, start[first:last] - start[first], axis=0)
            first = last
        zz, zx, zy = each[:, :, :q], each[:, :, q:-1], each[:, :, -1]
        return Sums(x.T @ x, x.T @ y, float(y @ y), zz, zx, zy, len(y))

    def some(self, columns: np.ndarray) -> "Sums":
        """With some of the random effects only."""
        zz = self.zz[:, columns][:, :, columns]
        return self._replace(zz=zz, zx=self.zx[:, columns], zy=self.zy[:, columns])


def parts_of(fold: np.ndarray) -> list[np.ndarray]:
    """Which groups are outside each fold, as masks `(g,)`; last, all of them."""
    return [*(fold != k for k in range(int(fold.max()) + 1)), np.ones(len(fold), bool)]


def starts(count: np.ndarray) -> np.ndarray:
    """The first row of each group, where their rows follow one another."""
    return np.append(0, np.cumsum(count)[:-1])


def within(x: np.ndarray, start: np.ndarray) -> np.ndarray:
    """Variance of each column within groups, `(p,)`.

    Args:
        x: rows in the order of the groups, `(n, p)`.
        start: first row of each group, `(g,)`.
    """
    count = np.diff(np.append(start, len(x)))
    mean = np.add.reduceat(x, start, axis=0) / count[:, None]
    return ((x - np.repeat(mean, count, axis=0)) ** 2).mean(0)


class Fitted(NamedTuple):
    """A fitted mixed model.

    Args:
        beta: fixed effects, `(p,)`.
        beta_cov: their covariance, `(p, p)`.
        factor: L with Ψ = L Lᵀ, the covariance of the random effects, `(q, q)`.
        variance: σ² of the noise.
        log_likelihood: restricted or not, in nats.
        parameters: how many numbers the covariance has.
    """

    beta: np.ndarray
    beta_cov: np.ndarray
    factor: np.ndarray
    variance: float
    log_likelihood: float
    parameters: int

    @property
    def aic(self) -> float:
        """Akaike's criterion, for models with the same fixed effects."""
        return 2 * self.parameters - 2 * self.log_likelihood


class _Solved(NamedTuple):
    """The profile likelihood at one Λ."""

    value: float
    gradient: np.ndarray
    beta: np.ndarray
    cov: np.ndarray
    variance: float


def _solve(sums: Sums, factor: np.ndarray, restricted: bool, ridge: float) -> _Solved:
    """-2 log likelihood at Λ, profiled over β and σ, and its gradient `(q, q)`."""
    q, p = factor.shape[0], len(sums.xy)
    s = sums.zz @ factor  # SΛ
    inner = np.linalg.inv(np.eye(q) + factor.T @ s)  # M⁻¹
    weights = inner @ (factor.T @ sums.zx)  # Q = M⁻¹ Λᵀ ZᵀX
    # XᵀV⁻¹X and XᵀV⁻¹y, times σ².
    left = (sums.zx.transpose(0, 2, 1) @ factor).reshape(len(s), p, q)
    c = sums.xx - np.einsum("gpq,gqr->pr", left, weights, optimize=True) + ridge * np.eye(p)
    b = sums.xy - np.einsum("gqp,gq->p", weights, sums.zy @ factor)
    cov = np.linalg.inv(c)
    beta = cov @ b

    error = sums.zy - sums.zx @ beta  # Zᵀ(y - Xβ)
    effects = np.einsum("gqr,gr->gq", inner, error @ factor)  # M⁻¹ Λᵀ e
    explained = np.einsum("gq,gq->", effects, error @ factor)
    rss = sums.yy - 2 * beta @ sums.xy + beta @ sums.xx @ beta - explained + ridge * beta @ beta
    rss = max(float(rss), 1e-12 * sums.yy, 1e-300)

    n = sums.rows - (p if restricted else 0)
    value = n * (1 + np.log(2 * np.pi * rss / n)) - np.linalg.slogdet(inner)[1].sum()
    gradient = 2 * (s @ inner).sum(0)
    left_over = error - np.einsum("gqr,gr->gq", s, effects)
    gradient -= 2 * n / rss * left_over.T @ effects
    if restricted:
        value += np.linalg.slogdet(c)[1]
        rest = sums.zx - s @ weights
        gradient -= 2 * np.einsum("gqp,grp->qr", rest @ cov, weights, optimize=True)
    return _Solved(float(value), gradient, beta, cov, rss / n)


def fit_reml(
    sums: Sums,
    *,
    correlated: bool = True,
    restricted: bool = True,
    ridge: float = 0.0,
    start: np.ndarray | None = None,
) -> Fitted:
    """The covariance with the highest (restricted) likelihood.

    Args:
        sums: of the rows; the columns of X are linearly independent.
        correlated: whether random effects may be correlated.
        restricted: REML, which does not take the fixed effects for known; else ML.
        ridge: rows' worth of evidence that each fixed effect is 0.
        start: Λ to start from, `(q, q)`.
    """
    from scipy.optimize import minimize

    q = sums.zz.shape[1]
    places = np.tril_indices(q) if correlated else np.diag_indices(q)

    def of(numbers: np.ndarray) -> np.ndarray:
        factor = np.zeros((q, q))
        factor[places] = numbers
        return factor

    def loss(numbers: np.ndarray) -> tuple[float, np.ndarray]:
        found = _solve(sums, of(numbers), restricted, ridge)
        return found.value, found.gradient[places]

    first = 0.5 * np.eye(q) if start is None else start
    best = minimize(
        loss,
        first[places],
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": 300, "maxcor": 200, "ftol": 1e-11, "gtol": 1e-5},
    )
    factor = of(best.x)
    found = _solve(sums, factor, restricted, ridge)
    return Fitted(
        beta=found.beta,
        beta_cov=found.variance * found.cov,
        factor=np.sqrt(found.variance) * factor,
        variance=found.variance,
        log_likelihood=-0.5 * found.value,
        parameters=len(places[0]) + 1,
    )
