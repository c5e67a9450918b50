"""FLOPs and memory of real code, counted as PyTorch dispatches it; on the device "meta" nothing is computed or held.

FLOPs are those of matrix products and convolutions, two per multiply-add, of every pass there is: forward, backward,
forward-mode derivatives, double backward. Elementwise work is left out, and whatever does not go through PyTorch.
"""

import weakref
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry


@dataclass(frozen=True)
class Counted:
    """`flops`, and `peak_bytes`: the most that all tensors made meanwhile held at once."""

    flops: float
    peak_bytes: int


def counted(run: Callable[[], object], held: Iterable[Tensor] = ()) -> Counted:
    """What `run` costs. `held` are tensors that exist before it: views of them are no new memory.

    A library's own scratch space (packed weights, an im2col buffer) is not seen.
    """
    with _Counting(held) as counting:
        run()
    return Counted(float(counting.flops), counting.peak)


class _Counting(TorchDispatchMode):
    """Adds up FLOPs by PyTorch's own table, and the bytes of the storages that operations return, until they are freed.

    Not FlopCounterMode, whose hooks on modules refuse a gradient by a leaf, which the official code's penalty is.
    """

    def __init__(self, held: Iterable[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.flops = self.now = self.peak = 0
        self.sizes = {tensor.untyped_storage()._cdata: 0 for tensor in held}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if func._overloadpacket in flop_registry:
            self.flops += flop_registry[func._overloadpacket](*args, **(kwargs or {}), out_val=result)
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                storage = leaf.untyped_storage()
                if storage._cdata not in self.sizes:
                    self.sizes[storage._cdata] = storage.nbytes()
                    self.now += storage.nbytes()
                    self.peak = max(self.peak, self.now)
                    weakref.finalize(storage, self._freed, storage._cdata).atexit = False
        return result

    def _freed(self, key: int) -> None:
        self.now -= self.sizes.pop(key, 0)
