"""Operators of the language that Triton's own do not agree with. They are total, and the same for blocks of any shape."""

import triton
import triton.language as tl


@triton.jit
def floordiv(a, b):
    """a // b rounded down; 0 where b is 0. Negating instead of dividing by -1 wraps where the machine would trap."""
    odd = (b == 0) | (b == -1)
    d = tl.where(odd, 1, b)
    quotient = a // d  # rounds towards 0
    rest = a - quotient * d
    quotient -= ((rest != 0) & ((rest < 0) != (d < 0))).to(quotient.dtype)
    return tl.where(odd, tl.where(b == 0, 0, -a), quotient)


@triton.jit
def mod(a, b):
    """a - floordiv(a, b) * b; 0 where b is 0."""
    odd = (b == 0) | (b == -1)
    d = tl.where(odd, 1, b)
    rest = a - (a // d) * d
    rest += tl.where((rest != 0) & ((rest < 0) != (d < 0)), d, 0)
    return tl.where(odd, 0, rest)


@triton.jit
def power(a, b, BITS: tl.constexpr):
    """a ** b modulo the size of the integers, by square and multiply; 0 where b is negative."""
    result = a * 0 + b * 0 + 1
    square = a + b * 0
    for bit in tl.static_range(BITS):
        result = tl.where((b >> bit) & 1 == 1, result * square, result)
        square = square * square
    return tl.where(b < 0, 0, result)


@triton.jit
def ratio(a, b):
    """a / b in float64; 0 where b is 0."""
    return tl.where(b == 0, 0.0, a / tl.where(b == 0, 1.0, b))
