# SPDX-License-Identifier: Apache-2.0
"""Sparse labels as tensors, and the loss straight from them: a part of `fkdb.torch`."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, Literal, NamedTuple

import torch

from . import _core
from ._core import LabelSpec
from ._errors import InvalidArgumentError, MismatchError, UnsupportedError


@dataclasses.dataclass
class SparseLabels:
    """Labels of N crops as they are stored: indices (N, K) int32, values (N, K) float32, of the kind `spec` names."""

    spec: LabelSpec
    indices: torch.Tensor
    values: torch.Tensor

    def __post_init__(self) -> None:
        # What torch.compile, which sees no attribute of a LabelSpec, needs of it.
        self._rule = _Rule.of(self.spec)
        self.num_classes = self._rule.num_classes

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def device(self) -> torch.device:
        return self.indices.device

    def __getitem__(self, rows: int | slice | torch.Tensor) -> SparseLabels:
        """Those of some rows: a number, a slice, or a tensor of numbers or booleans."""
        if isinstance(rows, int):
            rows = slice(rows, rows + 1 or None)
        return SparseLabels(self.spec, self.indices[rows], self.values[rows])

    def to(self, device: torch.device | str | int, non_blocking: bool = False) -> SparseLabels:
        """On another device. They have one type: indices above 256 do not survive bfloat16."""
        if isinstance(device, torch.dtype):
            raise TypeError(f"labels have no other type: expected a device, got {device}")
        return SparseLabels(self.spec, self.indices.to(device, non_blocking=non_blocking),
                            self.values.to(device, non_blocking=non_blocking))

    def cuda(self, non_blocking: bool = False) -> SparseLabels:
        return self.to("cuda", non_blocking)

    def pin_memory(self, *arguments: Any) -> SparseLabels:
        return SparseLabels(self.spec, self.indices.pin_memory(), self.values.pin_memory())

    def dense(self, tau: float = 1.0) -> torch.Tensor:
        """(N, C) float32, each row summing to 1 (paper Eq. 3 to 7). tau: of the softmax over stored logits."""
        return _recover(self.indices, self.values, self._rule, tau)


class SoftTargetLoss(torch.nn.Module):
    """Soft cross-entropy of a student's logits with sparse labels (paper section 3.1), no dense label in between.

    temperature: of the student's softmax. tau: of the softmax over stored logits. reduction: 'mean', 'sum' or 'none'.
    Works under autocast and torch.compile.
    """

    def __init__(self, temperature: float = 1.0, tau: float = 1.0, reduction: Literal["mean", "sum", "none"] = "mean") -> None:
        super().__init__()
        if reduction not in ("mean", "sum", "none"):
            raise InvalidArgumentError(f"reduction {reduction!r}: expected 'mean', 'sum' or 'none'")
        if not (temperature > 0 and tau > 0):
            raise InvalidArgumentError(f"temperature {temperature}, tau {tau}: expected more than 0")
        self.temperature, self.tau, self.reduction = temperature, tau, reduction

    def forward(self, logits: torch.Tensor, labels: SparseLabels) -> torch.Tensor:
        """logits (N, C) float32, bfloat16 or float16; labels: `SparseLabels` of N rows. The loss is float32."""
        losses = soft_target_loss(logits, labels, self.temperature, self.tau)
        return losses.mean() if self.reduction == "mean" else losses.sum() if self.reduction == "sum" else losses


def soft_target_loss(logits: torch.Tensor, labels: SparseLabels, temperature: float = 1.0, tau: float = 1.0) -> torch.Tensor:
    """(N,) float32: the soft cross-entropy of each row of logits (N, C) with its label. Differentiable in the logits."""
    indices, values = _checked(logits, labels)
    losses: torch.Tensor = _loss(logits, indices, values, labels._rule.text, temperature, tau)[0]
    return losses


def loss_and_gradient(logits: torch.Tensor, labels: SparseLabels, temperature: float = 1.0, tau: float = 1.0,
                      scale: float | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """The losses (N,) of `soft_target_loss`, without history, and the gradient (N, C) in the logits of `scale` times their sum.

    Both in one pass over the logits, which autograd's two steps cannot have: `logits.backward(gradient)` goes on from there.
    scale: 1 / N if None, that of the mean loss. With float16 logits it is the place for a loss scale: the gradient is
    rounded once, after it.
    """
    indices, values = _checked(logits, labels)
    losses, gradient = _one_pass(logits.detach(), indices, values, labels._rule.text, temperature, tau,
                                 1 / max(1, len(logits)) if scale is None else scale)
    return losses, gradient


def _checked(logits: torch.Tensor, labels: SparseLabels) -> tuple[torch.Tensor, torch.Tensor]:
    """The labels' indices and values on the logits' device, if they fit."""
    if logits.dim() != 2 or logits.shape[1] != labels.num_classes or len(logits) != len(labels):
        raise MismatchError(f"logits of shape {tuple(logits.shape)} for {len(labels)} labels of {labels.num_classes} classes")
    indices, values = labels.indices, labels.values
    if indices.dtype != torch.int32 or values.dtype != torch.float32:
        raise TypeError(f"labels of {indices.dtype} and {values.dtype}: expected int32 indices and float32 values")
    if indices.device != logits.device:
        indices, values = (t.to(logits.device, non_blocking=True) for t in (indices, values))
    return indices, values


# What follows is torch.ops.fkdb.soft_target_loss: losses, and the gradient of each row's loss. On the CPU, where time goes
# into exponentials, the kernels of cuda/ make both in the same pass; on a GPU, where it goes into memory, the gradient is
# made when its factor is known, and read and written once. Without these kernels, Torch's own operations.


@torch.library.custom_op("fkdb::soft_target_loss", mutates_args=())
def _loss(logits: torch.Tensor, indices: torch.Tensor, values: torch.Tensor, spec: str, temperature: float,
          tau: float) -> tuple[torch.Tensor, torch.Tensor]:
    return _torch_loss(logits, indices, values, spec, temperature, tau)


def _torch_loss(logits: torch.Tensor, indices: torch.Tensor, values: torch.Tensor, spec: str, temperature: float,
                tau: float) -> tuple[torch.Tensor, torch.Tensor]:
    rule = _Rule.parse(spec)
    log_p = torch.log_softmax(logits.float() / temperature, 1)
    if rule.num_indices == 0:
        y = _recover(indices, values, rule, tau)
        total = y.sum(1, keepdim=True)
        return -(y * log_p).sum(1), ((total * log_p.exp() - y) / temperature).to(_kept_type(logits))
    y, tail = _tail_rule(rule, indices, values)
    index = indices.long()
    total = y.sum(1, keepdim=True) + tail * (rule.num_classes - rule.num_indices)
    losses = -((y - tail) * log_p.gather(1, index)).sum(1) - (tail * torch.where(tail > 0, log_p, 0)).sum(1)
    gradient = (total * log_p.exp() - tail).scatter_add_(1, index, tail - y) / temperature
    return losses, gradient.to(_kept_type(logits))


def _kept_type(logits: torch.Tensor) -> torch.dtype:
    """Of a gradient that is kept until its factor is known: what is small without a loss scale would be 0 in float16."""
    return torch.float32 if logits.dtype == torch.float16 else logits.dtype


def _tail_rule(rule: _Rule, indices: torch.Tensor, values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Probabilities at the stored classes (N, K), and everywhere else (N, 1)."""
    if rule.kind == "hard":
        return torch.ones_like(indices, dtype=torch.float32), torch.zeros(len(indices), 1, device=indices.device)
    total = values.sum(1, keepdim=True)
    rest = rule.num_classes - rule.num_indices
    spreads = (total < 1) if rest > 0 and rule.kind in ("smoothing", "marginal-smoothing") else torch.zeros_like(total, dtype=torch.bool)
    tail = torch.where(spreads, (1 - total) / max(rest, 1), 0)
    return torch.where(spreads, values, values / total), tail


def _recover(indices: torch.Tensor, values: torch.Tensor, rule: _Rule, tau: float) -> torch.Tensor:
    if rule.kind == "logits":
        return torch.softmax(values / tau, 1)
    if rule.kind == "full":
        return values / values.sum(1, keepdim=True) if rule.values != "f32" else values
    y, tail = _tail_rule(rule, indices, values)
    return tail.expand(-1, rule.num_classes).scatter(1, indices.long(), y)


@_loss.register_kernel("cpu")
def _cpu_loss(logits: torch.Tensor, indices: torch.Tensor, values: torch.Tensor, spec: str, temperature: float,
              tau: float) -> tuple[torch.Tensor, torch.Tensor]:
    z = logits.to(_kept_type(logits))
    losses, gradient = _one_pass(z, indices, values, spec, temperature, tau, 1.0)
    return losses, gradient


def _made_later(logits: torch.Tensor) -> bool:
    """Whether the gradient of these logits is made in the backward pass."""
    return logits.device.type == "cuda" and _core.has_gpu_kernels


def _on_gpu(logits: torch.Tensor, indices: torch.Tensor, values: torch.Tensor, spec: str, temperature: float, tau: float,
            losses: torch.Tensor, gradient: torch.Tensor | None, scale: float, row_scales: torch.Tensor | None) -> None:
    compute: Any = _core.soft_cross_entropy_on_gpu  # which takes tensors as arrays
    with torch.cuda.device(logits.device):
        compute(_Rule.parse(spec).spec(), indices.contiguous(), values.contiguous(), logits, losses, gradient, row_scales,
                temperature, tau, scale, torch.cuda.current_stream().cuda_stream)


def _floats(logits: torch.Tensor) -> torch.Tensor:
    return (logits if logits.dtype in (torch.float32, torch.bfloat16, torch.float16) else logits.float()).contiguous()


@torch.library.custom_op("fkdb::loss_and_gradient", mutates_args=())
def _one_pass(logits: torch.Tensor, indices: torch.Tensor, values: torch.Tensor, spec: str, temperature: float, tau: float,
              scale: float) -> tuple[torch.Tensor, torch.Tensor]:
    if logits.device.type != "cpu" and not _made_later(logits):
        losses, gradient = _torch_loss(logits, indices, values, spec, temperature, tau)
        return losses, (gradient * scale).to(logits.dtype).contiguous()
    z = _floats(logits)
    losses, gradient = z.new_empty(len(z), dtype=torch.float32), torch.empty_like(z)
    if logits.device.type == "cpu":
        compute: Any = _core.soft_cross_entropy
        compute(_Rule.parse(spec).spec(), indices.contiguous(), values.contiguous(), z, losses, gradient, temperature, tau, scale,
                torch.get_num_threads())
    else:
        _on_gpu(z, indices, values, spec, temperature, tau, losses, gradient, scale, None)
    return losses, gradient.to(logits.dtype)


@_one_pass.register_fake
def _fake_pass(logits: torch.Tensor, indices: torch.Tensor, values: torch.Tensor, spec: str, temperature: float, tau: float,
               scale: float) -> tuple[torch.Tensor, torch.Tensor]:
    return logits.new_empty(logits.shape[0], dtype=torch.float32), torch.empty_like(logits, memory_format=torch.contiguous_format)


@_loss.register_kernel("cuda")
def _gpu_loss(logits: torch.Tensor, indices: torch.Tensor, values: torch.Tensor, spec: str, temperature: float,
              tau: float) -> tuple[torch.Tensor, torch.Tensor]:
    if not _made_later(logits):
        return _torch_loss(logits, indices, values, spec, temperature, tau)
    losses = logits.new_empty(len(logits), dtype=torch.float32)
    _on_gpu(_floats(logits), indices, values, spec, temperature, tau, losses, None, 1.0, None)
    return losses, logits.new_empty((0, logits.shape[1]))


@_loss.register_fake
def _fake_loss(logits: torch.Tensor, indices: torch.Tensor, values: torch.Tensor, spec: str, temperature: float,
               tau: float) -> tuple[torch.Tensor, torch.Tensor]:
    gradient = logits.new_empty((0, logits.shape[1])) if _made_later(logits) else torch.empty_like(logits, dtype=_kept_type(logits), memory_format=torch.contiguous_format)
    return logits.new_empty(logits.shape[0], dtype=torch.float32), gradient


# An operation of its own, and of the logits too, so that who differentiates it again hears that this cannot be.
@torch.library.custom_op("fkdb::soft_target_loss_backward", mutates_args=())
def _row_gradients(gradient: torch.Tensor, losses_gradient: torch.Tensor, logits: torch.Tensor, indices: torch.Tensor,
                   values: torch.Tensor, spec: str, temperature: float, tau: float) -> torch.Tensor:
    if not _made_later(logits):
        return (gradient * losses_gradient.unsqueeze(1)).to(logits.dtype)
    z = _floats(logits)
    made = torch.empty_like(z)
    _on_gpu(z, indices, values, spec, temperature, tau, z.new_empty(len(z), dtype=torch.float32), made, 1.0,
            losses_gradient.float().contiguous())
    return made.to(logits.dtype)


@_row_gradients.register_fake
def _fake_rows(gradient: torch.Tensor, losses_gradient: torch.Tensor, logits: torch.Tensor, indices: torch.Tensor,
               values: torch.Tensor, spec: str, temperature: float, tau: float) -> torch.Tensor:
    return torch.empty_like(logits, memory_format=torch.contiguous_format)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[torch.Tensor, torch.Tensor]) -> None:
    ctx.save_for_backward(output[1], *inputs[:3])
    ctx.rest = inputs[3:]
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, losses_gradient: torch.Tensor | None, _: torch.Tensor | None) -> tuple[torch.Tensor | None, ...]:
    gradient, *labelled = ctx.saved_tensors
    rows = None if losses_gradient is None else _row_gradients(gradient, losses_gradient, *labelled, *ctx.rest)
    return rows, None, None, None, None, None


_loss.register_autograd(_backward, setup_context=_save)


class _Rule(NamedTuple):
    """What a LabelSpec says of recovery, in types that operations of Torch and its compiler can take."""

    kind: str
    num_classes: int
    num_indices: int
    values: str
    text: str

    @staticmethod
    @functools.lru_cache
    def of(spec: LabelSpec) -> _Rule:
        if spec.kind == "label-map":
            raise UnsupportedError("label maps hold no labels of crops: a crop's would have to be pooled from the cells")
        return _Rule(spec.kind, spec.num_classes, spec.num_indices, spec.values,
                     f"{spec.kind} C={spec.num_classes} K={spec.num_indices} {spec.values}")

    @staticmethod
    @functools.lru_cache
    def parse(text: str) -> _Rule:
        kind, num_classes, num_indices, values = text.split(" ")
        return _Rule(kind, int(num_classes[2:]), int(num_indices[2:]), values, text)

    @functools.lru_cache
    def spec(self) -> LabelSpec:
        return LabelSpec(self.kind, num_classes=self.num_classes, top_k=self.num_indices, values=self.values)
