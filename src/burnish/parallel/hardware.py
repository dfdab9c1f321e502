"""Accelerators by name: memory, peak bf16 rate, bandwidth, as their makers' data sheets state them.

Dense rates, without structured sparsity. What training reaches of a peak is another figure: `TYPICAL_SHARE`.
"""

from __future__ import annotations

from dataclasses import dataclass

TYPICAL_SHARE = 0.4
"""The share of the peak that well-tuned training of billions of parameters reaches (published: 0.35 to 0.55)."""

CONTEXT_BYTES = 0.7e9
"""What CUDA and its libraries hold on a device before a model is there."""

NETWORK = 50e9
"""Bytes a second that one device sends to another node: a network card of 400 Gbit/s for each, as built since 2022."""

BUS = 25e9
"""Bytes a second between a device and its host's memory, by PCIe 4."""

HOST_RATE = 20e9
"""Bytes a second of host memory for each rank that keeps its optimiser there."""


@dataclass(frozen=True, slots=True)
class Accelerator:
    """One device: bytes of memory, bf16 multiply-adds counted as two operations a second, bytes a second.

    `link` is what it sends to others of its node in a second, one way: by NVLink or Infinity Fabric, else by PCIe.
    """

    name: str
    memory: float
    bf16: float
    bandwidth: float
    link: float


ACCELERATORS = {
    accelerator.name: accelerator
    for accelerator in (
        Accelerator("A100-40G", 40e9, 312e12, 1.555e12, 300e9),
        Accelerator("A100-80G", 80e9, 312e12, 2.039e12, 300e9),
        Accelerator("H100", 80e9, 989e12, 3.35e12, 450e9),
        Accelerator("H200", 141e9, 989e12, 4.8e12, 450e9),
        Accelerator("B200", 180e9, 2250e12, 7.7e12, 900e9),
        Accelerator("L40S", 48e9, 362e12, 0.864e12, 32e9),
        Accelerator("L4", 24e9, 121e12, 0.3e12, 32e9),
        Accelerator("A10G", 24e9, 70e12, 0.6e12, 32e9),
        Accelerator("4090", 24e9, 165e12, 1.008e12, 32e9),
        Accelerator("3090", 24e9, 71e12, 0.936e12, 32e9),
        Accelerator("T4", 16e9, 65e12, 0.32e12, 16e9),
        Accelerator("MI300X", 192e9, 1307e12, 5.3e12, 448e9),
    )
}
