"""A mixture of Student t distributions: heavier tails than a Gaussian mixture's."""

import numpy as np
from scipy import special, stats
from sklearn.mixture import GaussianMixture


class StudentMixture:
    """A Gaussian mixture whose components become t of `nu` > 2 degrees of freedom, of the same covariances."""

    def __init__(self, components, nu):
        self.components, self.nu = components, nu

    def fit(self, codes, validation, rng):
        seed = int(rng.integers(2**31))
        mixture = GaussianMixture(self.components, reg_covar=1e-6, random_state=seed).fit(codes.astype(np.float64))
        self.weights_, self.means_ = mixture.weights_, mixture.means_
        self.shapes_ = mixture.covariances_ * (self.nu - 2) / self.nu

    def sample(self, n, rng):
        which = rng.choice(len(self.weights_), size=n, p=self.weights_)
        roots = np.linalg.cholesky(self.shapes_)
        noise = np.einsum("nij,nj->ni", roots[which], rng.standard_normal((n, self.means_.shape[1])))
        return self.means_[which] + noise / np.sqrt(rng.chisquare(self.nu, n) / self.nu)[:, None]

    def log_density(self, codes):
        parts = zip(self.means_, self.shapes_, strict=True)
        each = [stats.multivariate_t(mean, shape, self.nu).logpdf(codes) for mean, shape in parts]
        return special.logsumexp(np.stack(each, axis=1) + np.log(self.weights_), axis=1)
