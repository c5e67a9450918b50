"""Vector quantisation: codes that are entries of a codebook (van den Oord et al. 2017, sections 3.1, 3.2 and app. A.1).

    code      z = e_k with the least ‖E(x) − e_k‖², for each run of `length` neighbouring dimensions of E(x)
    gradient  ∂L/∂E(x) = ∂L/∂z, as if the code had not been moved to its entry (straight through)
    entry     e_k = m_k / N_k, moving averages of the sum of the vectors that chose entry k, and of their number

One codebook serves all positions of a code, as theirs serves all places of a map.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from rae_bench.models.terms.specs import Quantised


class Codebook(nn.Module):
    """`entries` (K, length), and the moving averages that they are made of: `sizes` (K,) and `sums` (K, length).

    The first batch that is trained on is where entries start: at its vectors, evenly spaced among them. Entries that
    started from noise would mostly never be chosen. Averages are part of the state, as batch norm's moments are, and
    move in the same way: in training mode, with every pass.
    """

    entries: Tensor
    sizes: Tensor
    sums: Tensor

    def __init__(self, spec: Quantised) -> None:
        super().__init__()
        self.spec = spec
        self.register_buffer("entries", torch.randn(spec.n_entries, spec.length))
        self.register_buffer("sizes", torch.zeros(spec.n_entries))
        self.register_buffer("sums", torch.zeros(spec.n_entries, spec.length))

    def forward(self, continuous: Tensor) -> tuple[Tensor, Tensor]:
        """The code of each of E(x) (B, d), with its straight-through gradient, and ‖E(x) − z‖² (B,), z a constant."""
        vectors = continuous.detach().reshape(-1, self.spec.length)
        entries = self._at_first(vectors) if self.training else self.entries
        chosen = _nearest(vectors, entries)
        code = entries[chosen].view_as(continuous)
        if self.training:
            self._follow(vectors, chosen)
        distance = (continuous - code).square().sum(dim=1)
        return code + (continuous - continuous.detach()), distance  # to the bit the entries: what is added is 0

    def nearest(self, z: Tensor) -> Tensor:
        """Any codes (B, d) moved to the entries that are nearest."""
        return self.entries[_nearest(z.reshape(-1, self.spec.length), self.entries)].view_as(z)

    def _at_first(self, vectors: Tensor) -> Tensor:
        """The entries; before the first update some of these vectors. Without a branch, for which a GPU would wait."""
        spaced = torch.arange(self.spec.n_entries, device=vectors.device) * len(vectors) // self.spec.n_entries
        return torch.where(self.sizes.sum() > 0, self.entries, vectors[spaced])

    @torch.no_grad()
    def _follow(self, vectors: Tensor, chosen: Tensor) -> None:
        """Move the averages by a batch; the first batch's are its own. `smoothing` keeps sizes above 0 (app. A.1)."""
        choices = functional.one_hot(chosen, self.spec.n_entries).to(vectors.dtype)
        sizes, sums = choices.sum(dim=0), (choices[:, :, None] * vectors[:, None]).sum(dim=0)
        share = 1 - self.spec.decay * (self.sizes.sum() > 0).to(vectors.dtype)
        self.sizes.lerp_(sizes, share)
        self.sums.lerp_(sums, share)
        n, k, smoothing = self.sizes.sum(), self.spec.n_entries, self.spec.smoothing
        smoothed = (self.sizes + smoothing) / (n + k * smoothing) * n
        self.entries.copy_(self.sums / smoothed[:, None])


def _nearest(vectors: Tensor, entries: Tensor) -> Tensor:
    """The entry nearest to each vector, (n,): of differences, so that an entry's nearest one is itself."""
    return (vectors[:, None] - entries).square().sum(dim=2).argmin(dim=1)
