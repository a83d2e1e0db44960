"""Convolutions and products on the CPU by oneDNN: where torch takes a slower library, frozen kernels packed once.

Nothing here changes what is computed: parameters, state_dict keys and float32 results (to rounding) are those of plain
torch, gradients included. Whatever is not dense float32 or bfloat16 on an x86 CPU, is traced by a compiler or runs
under autocast takes torch's own way.
"""

from __future__ import annotations

import platform
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FEW_ROWS = 16  # below, a product only reads its matrix, which every library does equally fast


class Conv2d(nn.Conv2d):
    """nn.Conv2d whose kernel, once frozen, is kept in oneDNN's own order too, so that no call has to rearrange it.

    The copy is made at the first call on the CPU, as large as the kernel, and made anew when the kernel is moved, cast
    or written to (other than behind autograd's back, through `.data`). `keep_packed = False` does without.
    """

    keep_packed = True

    def forward(self, x: Tensor) -> Tensor:
        if not ours(x, self.weight) or x.numel() == 0:
            return super().forward(x)
        graph = torch.is_grad_enabled()
        if self.keep_packed and self.groups == 1 and not self.weight.requires_grad:
            if graph and (x.requires_grad or _needs_grad(self.bias)):
                return _FrozenConvolution.apply(x, self.bias, self)
            return self.packed_forward(x)
        if self.kernel_size == (1, 1) and self.stride == (1, 1) and x.dtype == torch.float32:
            tokens = x.permute(0, 2, 3, 1)
            return linear(tokens, self.weight[:, :, 0, 0], self.bias).permute(0, 3, 1, 2)
        return super().forward(x)

    def packed_forward(self, x: Tensor) -> Tensor:
        """The convolution with the packed kernel, without a graph."""
        padding, stride, dilation = list(self.padding), list(self.stride), list(self.dilation)
        kernel = self._kept("_packed", x, lambda: (self.weight.detach(), padding))
        bias = None if self.bias is None else self.bias.detach()
        return torch.ops.mkldnn._convolution_pointwise(x, kernel, bias, padding, stride, dilation, 1, "none", [], "")

    def packed_backward(self, grad: Tensor, x: Tensor) -> Tensor:
        """The gradient in the input x, given that in the output; without a graph itself."""
        same = all(2 * p == k - 1 for p, k in zip(self.padding, self.kernel_size, strict=True))
        if not same or self.stride != (1, 1) or self.dilation != (1, 1):
            return _input_gradient(grad, x, self)
        padding = list(self.padding)  # the transpose of such a convolution is one with the kernel turned round
        kernel = self._kept("_turned", grad, lambda: (self.weight.detach().flip(2, 3).transpose(0, 1), padding))
        return torch.ops.mkldnn._convolution_pointwise(grad, kernel, None, padding, [1, 1], [1, 1], 1, "none", [], "")

    def _kept(self, name: str, x: Tensor, make: Any) -> Tensor:
        weight = self.weight
        stamp = (weight.data_ptr(), -1 if weight.is_inference() else weight._version)
        kept = self.__dict__.get(name)
        if kept is None or kept[0] != stamp:
            with torch.no_grad():
                kernel, padding = make()
                kernel = torch._C._nn.mkldnn_reorder_conv2d_weight(
                    kernel.contiguous().to_mkldnn(), padding, list(self.stride), list(self.dilation), 1, list(x.shape)
                )
            kept = self.__dict__[name] = (stamp, kernel)
        return kept[1]

    def unpack(self) -> None:
        """Forget the packed copies."""
        for name in ("_packed", "_turned"):
            self.__dict__.pop(name, None)

    def _apply(self, *args: Any, **kwargs: Any) -> nn.Module:
        self.unpack()  # moved or cast
        return super()._apply(*args, **kwargs)

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key not in ("_packed", "_turned")}


class _FrozenConvolution(torch.autograd.Function):
    """A convolution with a frozen kernel: forward and backward packed, no gradient of the kernel."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, bias: Tensor | None, conv: Conv2d) -> Tensor:
        ctx.save_for_backward(x)
        ctx.conv = conv
        return conv.packed_forward(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        (x,), dx, db = ctx.saved_tensors, None, None
        if ctx.needs_input_grad[0]:
            graph = torch.is_grad_enabled()  # someone differentiates the gradient
            dx = _input_gradient(grad, x, ctx.conv) if graph else ctx.conv.packed_backward(grad, x)
        if ctx.needs_input_grad[1]:
            db = grad.sum(dim=(0, 2, 3))
        return dx, db, None


def _input_gradient(grad: Tensor, x: Tensor, conv: Conv2d) -> Tensor:
    return torch.ops.aten.convolution_backward(
        grad, x, conv.weight, None, conv.stride, conv.padding, conv.dilation, False, [0, 0], 1, [True, False, False]
    )[0]


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x @ weight^T + bias over the last axis of x (..., K), weight (O, K)."""
    if x.dtype != torch.float32 or x[..., 0].numel() < FEW_ROWS or not ours(x, weight):
        return F.linear(x, weight, bias)
    if torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad or _needs_grad(bias)):
        return _Linear.apply(x, weight, bias)
    return _product(x, weight, bias)


class _Linear(torch.autograd.Function):
    """x @ weight^T + bias and its three gradients, all products by oneDNN."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _product(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        product = F.linear if torch.is_grad_enabled() else _product  # the first where someone differentiates on
        dx = dw = db = None
        if ctx.needs_input_grad[0]:
            dx = product(grad, weight.t())
        if ctx.needs_input_grad[1]:
            dw = product(grad.flatten(0, -2).t(), x.flatten(0, -2).t())
        if ctx.needs_input_grad[2]:
            db = grad.flatten(0, -2).sum(0)
        return dx, dw, db


def _product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(x.contiguous(), weight.contiguous(), bias, "none", [], "")


def ours(x: Tensor, weight: Tensor) -> bool:
    """Whether the functions here compute with x and weight; torch's own do else."""
    return (
        x.device.type == "cpu"
        and weight.device.type == "cpu"
        and x.dtype == weight.dtype
        and not torch.compiler.is_compiling()
        and not torch.is_autocast_enabled("cpu")
        and torch.backends.mkldnn.enabled
        and _available(x.dtype)
    )


@cache
def _available(dtype: torch.dtype) -> bool:
    ops = ("_convolution_pointwise", "_linear_pointwise", "_is_mkldnn_bf16_supported")
    if not torch.backends.mkldnn.is_available() or platform.machine().lower() not in ("x86_64", "amd64"):
        return False
    if not all(hasattr(torch.ops.mkldnn, op) for op in ops):
        return False
    return dtype == torch.float32 or (dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported())


def _needs_grad(bias: Tensor | None) -> bool:
    return bias is not None and bias.requires_grad
