"""Loops over bf16 numbers that torch has no fast form of on a CPU, in C, compiled once on each machine.

`library.kernels` is None wherever they cannot be had; whoever uses them has the same in torch's operations.
"""
