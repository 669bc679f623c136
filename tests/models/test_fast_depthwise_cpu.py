"""The gradient of wide depthwise kernels, computed in strips, beside torch's own."""

import pytest
import torch
from torch import nn

from sk_transformers.models.fast_depthwise_cpu import depthwise_convolution
from sk_transformers.models.fast_paths import use_fast_paths
from sk_transformers.models.token_mixers import SeparableConvolution

STRIPS, PLAIN = "_StripwiseConvolutionBackward", "ConvolutionBackward0"


def depthwise(kernel_size=7, channels=6, dtype=torch.float64):
    height, width = (kernel_size, kernel_size) if isinstance(kernel_size, int) else kernel_size
    padding = (height // 2, width // 2)
    return nn.Conv2d(channels, channels, kernel_size, padding=padding, groups=channels, bias=False, dtype=dtype)


def gradients(run, conv, maps):
    maps = maps.clone().requires_grad_()
    output = run(conv, maps)
    (output * torch.linspace(-1, 1, output.numel(), dtype=output.dtype).view_as(output)).sum().backward()
    weight_gradient, conv.weight.grad = conv.weight.grad, None
    return output, maps.grad, weight_gradient


@pytest.mark.parametrize("kernel_size", [7, 5, 4, (3, 7), (1, 6)])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("size", [(5, 9), (8, 2)])  # smaller than the kernel, too
def test_gradients_are_those_of_the_convolution(kernel_size, memory_format, size):
    conv = depthwise(kernel_size)
    maps = torch.randn(3, 6, *size, dtype=torch.float64).to(memory_format=memory_format)
    assert depthwise_convolution(conv, maps).grad_fn.name().startswith(STRIPS)
    torch.testing.assert_close(
        gradients(depthwise_convolution, conv, maps), gradients(lambda conv, maps: conv(maps), conv, maps)
    )


def test_it_is_the_plain_convolution_where_nothing_is_gained():
    conv, maps = depthwise(), torch.randn(1, 6, 8, 8, dtype=torch.float64)
    assert depthwise_convolution(depthwise(3), maps).grad_fn.name() == PLAIN
    assert depthwise_convolution(conv.eval(), maps).grad_fn.name() == PLAIN
    with torch.no_grad():
        assert depthwise_convolution(conv.train(), maps).grad_fn is None
    use_fast_paths(False)
    try:
        assert depthwise_convolution(conv, maps).grad_fn.name() == PLAIN
    finally:
        use_fast_paths(True)
    seen = []
    conv.register_forward_hook(lambda *_: seen.append(True))
    assert depthwise_convolution(conv, maps).grad_fn.name() == PLAIN and seen


def test_autocast_computes_in_half_precision_and_keeps_the_gradient_whole():
    conv, maps = depthwise(channels=16, dtype=torch.float32), torch.randn(4, 16, 8, 8)

    def half(conv, maps):
        with torch.autocast("cpu", torch.bfloat16):
            return depthwise_convolution(conv, maps)

    output, maps_gradient, weight_gradient = gradients(half, conv, maps)
    assert (output.dtype, maps_gradient.dtype, weight_gradient.dtype) == (torch.bfloat16, torch.float32, torch.float32)
    _, *expected = gradients(lambda conv, maps: conv(maps), conv.double(), maps.double())
    for gradient, true in zip((maps_gradient, weight_gradient), expected):
        assert (gradient - true).norm() < 0.01 * true.norm()


def test_a_layer_trains_through_it_compiled_too():
    mixer, tokens = SeparableConvolution(8, (6, 6)), torch.randn(2, 36, 8)
    whole = torch.compile(mixer, fullgraph=True, backend="aot_eager")
    results = []
    for run in (mixer, whole):
        for fast in (True, False):
            use_fast_paths(fast)
            torch.compiler.reset()
            mixer.zero_grad()
            try:
                output, _ = run(tokens, (6, 6))
                output.square().sum().backward()
            finally:
                use_fast_paths(True)
            results.append([output, *(parameter.grad.clone() for parameter in mixer.parameters())])
    for result in results[1:]:
        torch.testing.assert_close(result, results[0])
