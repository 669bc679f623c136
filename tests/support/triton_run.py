"""CSKA's Triton kernel under Triton's interpreter: a process of its own, told so before it imports triton."""

import copy
import os

os.environ["TRITON_INTERPRET"] = "1"

import torch

from sk_transformers import triton_kernel
from sk_transformers.benchmarks import numerics
from sk_transformers.benchmarks.measure import CPU
from sk_transformers.models.reference import conv_static_key_attention

CASES = [  # dtype, batch, heads, grid, e, d, keys, the largest error
    (torch.float32, 2, 3, (5, 7), 8, 12, 35, 2e-6),
    (torch.float32, 1, 2, (1, 9), 20, 16, 130, 2e-6),  # several tiles of keys
    (torch.float16, 1, 2, (9, 8), 16, 5, 20, 2e-3),  # several tiles of queries, and keys with a stride
]


def check_case(dtype, batch, heads, grid, e, d, keys, tolerance):
    """Compare outputs with the equations in float64, of tensors as projections leave them in memory."""
    torch.manual_seed(0)
    query = torch.randn(batch, grid[0] * grid[1], heads, e).to(dtype).transpose(1, 2)
    value = torch.randn(batch, keys, heads, d).to(dtype).transpose(1, 2)
    key, bias = torch.randn(heads, keys, 9 * e).to(dtype), torch.randn(heads, keys).to(dtype)
    output = triton_kernel.launch(query, key, bias, value, grid, 0.3)
    exact, _ = conv_static_key_attention(query.double(), key.double(), bias.double(), value.double(), grid, 0.3)
    error = (output.double() - exact.transpose(1, 2)).norm() / exact.norm()
    assert output.dtype == dtype and error < tolerance, error


def main():
    for case in CASES:
        check_case(*case)
    numerics.GRID, numerics.BATCH = (3, 5), 2
    triton_kernel.use_triton()
    for dtype in (torch.float32, torch.float16):  # of bfloat16 the interpreter multiplies the bits
        check = numerics.check_mixer("CSKA", dtype, CPU)
        assert check.is_right and check.kernel == "TritonConvStaticKey", check
    # A mask, such as a bias that is not the key's own, and float64 are left to torch.
    assert numerics.check_mixer("CSKA, full bias", torch.float32, CPU).kernel == "tiled_attention"
    tokens = torch.randn(1, 15, numerics.WIDTH)
    mixer = numerics.make_mixer("CSKA")
    assert numerics.kernel_of(copy.deepcopy(mixer).double(), tokens.double()) == "tiled_attention"
    triton_kernel.use_triton(False)
    assert numerics.kernel_of(mixer, tokens) == "tiled_attention"


if __name__ == "__main__":
    main()
