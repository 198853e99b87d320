"""Upscaling, average pooling and the taps of a 5x5 convolution of whole maps, by one small matrix per axis.

All three are linear, separable and the same for every channel, so ``out = Y @ x @ X.T`` with one matrix per axis
(`supersimplenet.model.axes`). Each row has four or five nonzero entries per tap, so on a CPU the matrices are
multiplied as sparse ones: first the columns' matrix, then the rows'.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor
from torch.nn import functional as F

from supersimplenet.model.axes import TAPS, pooled_upscale, tap_matrix
from supersimplenet.utils.system import is_cpu


@dataclass(frozen=True)
class SparseMatrix:
    """A matrix stored as its nonzero entries, row after row.

    Attributes:
        index: (E,) int32, the column of each entry.
        offset: (rows,) int32, the index of each row's first entry.
        weight: (E,) the entries; None where all are 1.
    """

    index: Tensor
    offset: Tensor
    weight: Tensor | None

    def times(self, rows: Tensor) -> Tensor:
        """Multiply by a dense matrix (columns, D), without gradient; return (rows, D)."""
        return F.embedding_bag(self.index, rows, self.offset, mode="sum", per_sample_weights=self.weight)


class Resampling(Protocol):
    """Upscaling of one feature map of some images: along the columns, then along the rows."""

    def apply(self, values: Tensor, taps: int = 1) -> Tensor:
        """Convert (pixels * taps, taps * K) to (upscaled pixels, K), without gradient."""
        ...

    def apply_transposed(self, values: Tensor, taps: int = 1) -> Tensor:
        """Apply the transpose: convert (upscaled pixels, K) to (pixels * taps, taps * K), without gradient."""
        ...


@dataclass(frozen=True)
class SparseResampling:
    """Resampling with a sparse matrix and its transpose for each step: the fewest operations, for a CPU."""

    columns: SparseMatrix
    rows: SparseMatrix
    columns_transposed: SparseMatrix
    rows_transposed: SparseMatrix

    def apply(self, values: Tensor, taps: int = 1) -> Tensor:
        """Apply both steps; see `Resampling`."""
        channels = values.shape[1] // taps
        return self.rows.times(self.columns.times(values).view(-1, channels))

    def apply_transposed(self, values: Tensor, taps: int = 1) -> Tensor:
        """Apply the transpose of both steps; see `Resampling`."""
        return self.columns_transposed.times(self.rows_transposed.times(values).view(-1, taps * values.shape[1]))


@dataclass(frozen=True)
class DenseResampling:
    """Resampling with a dense matrix for each step, for a GPU, which multiplies zeros faster than it skips them.

    Attributes:
        columns: (w, w_l * x).
        rows: (h, h_l * y).
    """

    columns: Tensor
    rows: Tensor

    def apply(self, values: Tensor, taps: int = 1) -> Tensor:
        """Apply both steps; see `Resampling`."""
        columns_out, rows_in = len(self.columns), self.rows.shape[1] // taps
        across = self.columns @ values.view(-1, self.columns.shape[1], values.shape[1])  # (image * h_l, w, y * K)
        by_row = across.view(-1, rows_in, columns_out, taps, values.shape[1] // taps).transpose(2, 3)
        stacked = by_row.reshape(len(by_row), self.rows.shape[1], -1)  # (image, h_l * y, w * K)
        return (self.rows @ stacked).view(-1, values.shape[1] // taps)

    def apply_transposed(self, values: Tensor, taps: int = 1) -> Tensor:
        """Apply the transpose of both steps; see `Resampling`."""
        columns_out, rows_in = len(self.columns), self.rows.shape[1] // taps
        down = self.rows.T @ values.reshape(-1, len(self.rows), columns_out * values.shape[1])
        by_row = down.view(-1, rows_in, taps, columns_out, values.shape[1]).transpose(2, 3)
        across = by_row.reshape(-1, columns_out, taps * values.shape[1])  # (image * h_l, w, y * K)
        return (self.columns.T @ across).view(-1, taps * values.shape[1])


@lru_cache(maxsize=64)
@torch.inference_mode(False)
def resampling(
    size_in: tuple[int, int],
    size_out: tuple[int, int],
    align_corners: bool,
    taps: int,
    images: int,
    device: torch.device,
    dtype: torch.dtype,
) -> Resampling:
    """Build upscaling and pooling of one feature map of some images, with or without 5x5 taps; dense except on a CPU.

    Args:
        size_in: (h_l, w_l).
        size_out: (h, w).
        align_corners: the convention of `torch.nn.functional.interpolate`.
        taps: 1 or 5; with 5, the input's rows are ordered (image, h_l, w_l, tap x) and its columns (tap y, channel).
        images: number of images.
        device: device of the matrices.
        dtype: type of the matrices.

    Source: JIMS section 3.1 (upscaling, neighbourhood aggregation). Differs: none.
    """

    def axis(length_in: int, length_out: int) -> NDArray[np.float64]:
        kind = (length_in, length_out, align_corners, torch.device("cpu"), torch.float64)
        matrix = pooled_upscale(*kind)[:, :, None] if taps == 1 else tap_matrix(*kind)  # (out, in, tap)
        values: NDArray[np.float64] = matrix.numpy()
        return values

    (rows_in, columns_in), (rows_out, columns_out) = size_in, size_out
    across = axis(columns_in, columns_out).reshape(columns_out, -1)  # (w, w_l * x)
    if not is_cpu(device):
        dense = (across, axis(rows_in, rows_out).reshape(rows_out, -1))
        return DenseResampling(*(torch.from_numpy(matrix).to(device=device, dtype=dtype) for matrix in dense))
    columns = sparse.kron(sparse.eye_array(images * rows_in), sparse.csr_array(across), format="csr")
    # The input of the second step is ordered (image, h_l, w, y): the identity over w stands between h_l and y.
    down = sparse.coo_array(axis(rows_in, rows_out).reshape(rows_out, -1))  # (h, h_l * y)
    row_in, tap = np.divmod(down.col, taps)
    w = np.arange(columns_out)
    target = (down.row[:, None] * columns_out + w).ravel()
    source = ((row_in[:, None] * columns_out + w) * taps + tap[:, None]).ravel()
    shape = (rows_out * columns_out, rows_in * columns_out * taps)
    one = sparse.csr_array((np.repeat(down.data, columns_out), (target, source)), shape=shape)
    rows = sparse.kron(sparse.eye_array(images), one, format="csr")

    def tensors(matrix: sparse.csr_array) -> SparseMatrix:
        entries = [matrix.indices, matrix.indptr[:-1]]
        index, offset = (torch.from_numpy(e.astype(np.int32)).to(device) for e in entries)
        return SparseMatrix(index, offset, torch.from_numpy(matrix.data).to(device=device, dtype=dtype))

    return SparseResampling(tensors(columns), tensors(rows), tensors(columns.T.tocsr()), tensors(rows.T.tocsr()))


def upscale(maps: Sequence[Tensor], size: tuple[int, int], align_corners: bool) -> Tensor:
    """Upscale and pool feature maps; return the sum over the maps.

    Args:
        maps: (B, h_l, w_l, K) each.
        size: (h, w).
        align_corners: the convention of `torch.nn.functional.interpolate`.

    Returns:
        (B, h, w, K).
    """
    return _upscale(maps, size, align_corners, 1)


def upscale_taps(maps: Sequence[Tensor], size: tuple[int, int], align_corners: bool) -> Tensor:
    """Compute the 5x5 'same' convolution of the upscaled, pooled features, from each tap's response at each position.

    Args:
        maps: (B, h_l, w_l, 5 * 5 * K) each, taps ordered x, y.
        size: (h, w).
        align_corners: the convention of `torch.nn.functional.interpolate`.

    Returns:
        (B, h, w, K), summed over the maps.
    """
    return _upscale(maps, size, align_corners, TAPS)


def upscale_dense(maps: Sequence[Tensor], size: tuple[int, int], align_corners: bool) -> Tensor:
    """Compute `upscale` with dense matrix products alone, which graph compilers make fast."""

    def axis(layer: int, size_in: int, size_out: int) -> Tensor:
        return pooled_upscale(size_in, size_out, align_corners, maps[layer].device, maps[layer].dtype)

    return resample_dense(maps, size, axis)


def resample_dense(maps: Sequence[Tensor], size: tuple[int, int], axis: Callable[[int, int, int], Tensor]) -> Tensor:
    """Resample feature maps by one dense matrix per axis; return the sum over the maps.

    Args:
        maps: (B, h_l, w_l, K) each.
        size: (h, w).
        axis: returns the matrix (size_out, size_in) of an axis from the map's number, size_in and size_out.

    Returns:
        (B, h, w, K).
    """
    combined, operators = [], []
    for layer, values in enumerate(maps):
        rows, columns = values.shape[1:3]
        combined.append(axis(layer, columns, size[1]) @ values)  # (B, h_l, w, K)
        operators.append(axis(layer, rows, size[0]))
    stacked = torch.cat(combined, dim=1).flatten(2)  # (B, sum of h_l, w * K)
    return (torch.cat(operators, dim=1) @ stacked).view(stacked.shape[0], *size, maps[0].shape[-1])


def upscale_taps_dense(maps: Sequence[Sequence[Tensor]], size: tuple[int, int], align_corners: bool) -> Tensor:
    """Compute `upscale_taps` with dense matrix products alone.

    Args:
        maps: for each feature map one tensor (B, h_l, w_l, 5 * K) per tap y, its taps x in order.
        size: (h, w).
        align_corners: the convention of `torch.nn.functional.interpolate`.

    Returns:
        (B, h, w, K).
    """
    combined, operators = [], []
    for taps in maps:
        (rows, columns), kind = taps[0].shape[1:3], (align_corners, taps[0].device, taps[0].dtype)
        across = tap_matrix(columns, size[1], *kind).flatten(1)  # (w, w_l * x)
        down = tap_matrix(rows, size[0], *kind)  # (h, h_l, y)
        for tap, values in enumerate(taps):
            channels = values.shape[-1] // TAPS
            by_tap = values.reshape(values.shape[0], rows, columns * TAPS, channels)
            combined.append(across @ by_tap)  # (B, h_l, w, K)
            operators.append(down[:, :, tap])
    stacked = torch.cat(combined, dim=1).flatten(2)  # (B, sum of h_l * y, w * K)
    return (torch.cat(operators, dim=1) @ stacked).view(stacked.shape[0], *size, maps[0][0].shape[-1] // TAPS)


def _upscale(maps: Sequence[Tensor], size: tuple[int, int], align_corners: bool, taps: int) -> Tensor:
    images = len(maps[0])
    operators = [
        resampling((m.shape[1], m.shape[2]), size, align_corners, taps, images, m.device, m.dtype) for m in maps
    ]
    upscaled: Tensor = _Upscale.apply(operators, taps, *(m.reshape(-1, m.shape[3] // taps) for m in maps))
    return upscaled.view(images, *size, -1)


class _Upscale(torch.autograd.Function):
    """Sum of linear operators; backward applies the transpose of each."""

    @staticmethod
    def forward(ctx: Any, operators: Sequence[Resampling], taps: int, *maps: Tensor) -> Tensor:
        ctx.operators, ctx.taps = operators, taps
        upscaled = operators[0].apply(maps[0], taps)
        for operator, rows in zip(operators[1:], maps[1:], strict=True):
            upscaled += operator.apply(rows, taps)
        return upscaled

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        gradient = gradients[0].contiguous()
        return None, None, *(operator.apply_transposed(gradient, ctx.taps) for operator in ctx.operators)
