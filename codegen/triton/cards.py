"""Rates of the usual card of each architecture, from vendors' data sheets: what predictions of kernels are made from.

None of it was measured here. Sources: the NVIDIA data sheets of the A100 Tensor Core GPU (80 GB, SXM), the L40S and the
H200 Tensor Core GPU; dense rates, without structured sparsity. Figures of one multiprocessor: CUDA C++ Programming
Guide, "Features and Technical Specifications"; operations a clock: the architectures' white papers. Second-level cache:
5,120 bytes a clock in the white paper of the A100; the others are assumed to be like it at their own boost clocks.
"""

from dataclasses import dataclass

from .architecture import Architecture


@dataclass(frozen=True)
class Card:
    memory: float
    """Bytes a second from device memory."""
    cache: float
    """Bytes a second from the second-level cache, to all multiprocessors."""
    matrix: float
    """Operations a second of bf16 and f16 matrix instructions, a multiplication and an addition being two."""
    plain: float
    """The same of float32 outside the matrix units."""
    shared: int
    """Bytes of shared memory of a multiprocessor, for all its programs."""
    threads: int
    """That a multiprocessor can hold."""
    programs: int
    """The same of programs."""
    clock_operations: int
    """Of a multiprocessor's matrix units in one clock, 16-bit and dense."""


CARDS = {
    "sm_80": Card(2.039e12, 7.2e12, 312e12, 19.5e12, 164 * 1024, 2048, 32, 2048),
    "sm_89": Card(0.864e12, 12.9e12, 362e12, 91.6e12, 100 * 1024, 1536, 24, 1024),
    "sm_90": Card(4.8e12, 10.1e12, 989e12, 67e12, 228 * 1024, 2048, 32, 4096),
}


def card(machine: Architecture) -> Card:
    """The card to predict with; of an architecture that has none here, the oldest."""
    return CARDS.get(machine.name, CARDS["sm_80"])
