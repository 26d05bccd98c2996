"""What the Triton kernels share: one dot, one way to read rows, one way to step along runs, the unit of scores.

Shapes in comments: M queries, N keys, D head_dim and V value_dim (padded to BLOCK_HEAD and BLOCK_VALUE). Scores are [M, N] in a
query-major kernel, [N, M] in a key-major one. Of a tile, `plain` means that every pair attends and every gate the kernel asks for is 1:
nothing is evaluated; `masked`, that the emitted predicate says which.
"""

import triton
import triton.language as tl

LOG2E = tl.constexpr(1.4426950408889634)
LN2 = tl.constexpr(0.6931471805599453)

# Sections of a row of tiles. dK/dV has three times two: which of the two sums a tile feeds, and whether it is plain.
PLAIN, MASKED, QUERY_SECTIONS = tl.constexpr(0), tl.constexpr(1), tl.constexpr(2)
BOTH, K_ALONE, V_ALONE, KEY_SECTIONS = tl.constexpr(0), tl.constexpr(1), tl.constexpr(2), tl.constexpr(6)


@triton.jit
def dot(a, b, acc, PRECISION: tl.constexpr):
    """acc + a @ b, accumulated in acc's dtype. Every product of the kernels goes through here: a dot that does not name its
    precision is computed in TF32."""
    return tl.dot(a, b, acc, input_precision=PRECISION, out_dtype=acc.dtype)


@triton.jit
def read_rows(base, at, stride, inside, CHECK: tl.constexpr, DIM: tl.constexpr, BLOCK_DIM: tl.constexpr, UPCAST: tl.constexpr):
    """Rows `at` of a matrix, [rows, BLOCK_DIM]; 0 beyond DIM, and where CHECK and not `inside`."""
    dim = tl.arange(0, BLOCK_DIM)
    where = base + at.to(tl.int64)[:, None] * stride + dim[None, :]
    if CHECK:
        if DIM == BLOCK_DIM:
            x = tl.load(where, mask=inside[:, None], other=0.0)
        else:
            x = tl.load(where, mask=inside[:, None] & (dim < DIM)[None, :], other=0.0)
    else:
        if DIM == BLOCK_DIM:
            x = tl.load(where)
        else:
            x = tl.load(where, mask=(dim < DIM)[None, :], other=0.0)
    if UPCAST:
        x = x.to(tl.float32)
    return x


@triton.jit
def write_rows(base, at, x, inside, DIM: tl.constexpr, BLOCK_DIM: tl.constexpr):
    """[rows, BLOCK_DIM] into a contiguous matrix of DIM columns."""
    dim = tl.arange(0, BLOCK_DIM)
    where = base + at.to(tl.int64)[:, None] * DIM + dim[None, :]
    tl.store(where, x.to(base.dtype.element_ty), mask=inside[:, None] & (dim < DIM)[None, :])


@triton.jit
def begin(ptr, size, first, stop, entry):
    """Where a section starts: its run, the tile it begins with, the tile that ends the run, and how many tiles there are."""
    run = tl.load(ptr + entry)
    return run, tl.load(first + run), tl.load(stop + run), tl.load(size + entry)


@triton.jit
def advance(run, tile, end, first, stop):
    """The next tile: of the same run, or the first of the next. One flat loop over all runs keeps the loads pipelined."""
    tile += 1
    done = tile == end
    run += done.to(tl.int32)
    tile = tl.where(done, tl.load(first + run, mask=done, other=0), tile)
    end = tl.where(done, tl.load(stop + run, mask=done, other=0), end)
    return run, tile, end


@triton.jit
def exponential(x, NATURAL: tl.constexpr):
    """2 ** x is one instruction and serves half precision; e ** x keeps what float32 has, since lse is natural and a change of its base
    would round it."""
    if NATURAL:
        return tl.exp(x)
    else:
        return tl.exp2(x)


@triton.jit
def unit(factor, NATURAL: tl.constexpr, F64: tl.constexpr):
    """What a product of q and k is multiplied by to be a score in that unit."""
    if NATURAL:
        return as_score(factor, F64)
    else:
        return as_score(factor * LOG2E, F64)


@triton.jit
def as_score(x, F64: tl.constexpr):
    """A number in the dtype of the scores."""
    if F64:
        return x.to(tl.float64)
    else:
        return x.to(tl.float32)
