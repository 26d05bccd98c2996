"""The forward kernel, and the one that finds the keys that nobody attends.

One program computes BLOCK_M queries of one head: through its plain (FULL) tiles, then through its masked (PARTIAL) ones. The running maximum and sum are those of
online softmax (Milakov and Gimelshein 2018; Dao et al. 2022), in powers of 2 where q is half precision.
"""

import triton
import triton.language as tl

from .triton_common import LN2, MASKED, PLAIN, QUERY_SECTIONS, advance, begin, dot, exponential, read_rows, unit, write_rows


@triton.jit
def _tiles(
    acc, m_i, l_i, q, m, queries_here, keys_here, c, own,
    k, k_row, v, v_row, ints, flags, reals, live, ptr, size, first, stop, entry, scale,
    KEYS: tl.constexpr, ATTENDED: tl.constexpr, EVALUATE: tl.constexpr,
    HEAD_DIM: tl.constexpr, VALUE_DIM: tl.constexpr, BLOCK_HEAD: tl.constexpr, BLOCK_VALUE: tl.constexpr, BLOCK_N: tl.constexpr,
    PRECISION: tl.constexpr, UPCAST: tl.constexpr, F64: tl.constexpr, NATURAL: tl.constexpr,
):  # fmt: skip
    """Every tile of one section. acc [M, V], m_i and l_i [M]."""
    run, tile, end, count = begin(ptr, size, first, stop, entry)
    for _ in range(count):
        n = tile * BLOCK_N + tl.arange(0, BLOCK_N)
        inside = n < keys_here
        alive = inside
        if EVALUATE:
            # A key that nobody attends may hold anything: it is not read.
            alive = tl.load(live + n, mask=inside, other=0) != 0
        keys = read_rows(k, n, k_row, alive, EVALUATE, HEAD_DIM, BLOCK_HEAD, UPCAST)  # [N, D]
        s = dot(q, tl.trans(keys), tl.zeros([q.shape[0], BLOCK_N], acc.dtype), PRECISION)  # [M, N]
        if EVALUATE:
            other = KEYS(c, ints, flags, reals, n, inside)
            allow = ATTENDED(c, own, other, ints, flags, reals, 1) & (m < queries_here)[:, None] & inside[None, :]
            s = tl.where(allow, s * scale, float("-inf"))
            m_new = tl.maximum(m_i, tl.max(s, 1))
            # A row that has met no key yet has the maximum -inf, and -inf - -inf is no number.
            top = tl.where(m_new == float("-inf"), 0.0, m_new)
            p = exponential(s - top[:, None], NATURAL)
        else:
            # The scale is not negative: the maximum is scaled, and each score in the same instruction that subtracts it.
            m_new = tl.maximum(m_i, tl.max(s, 1) * scale)
            top = m_new
            p = exponential(s * scale - top[:, None], NATURAL)
        alpha = exponential(m_i - top, NATURAL)
        l_i = l_i * alpha + tl.sum(p, 1)
        values = read_rows(v, n, v_row, alive, EVALUATE, VALUE_DIM, BLOCK_VALUE, UPCAST)  # [N, V]
        acc = dot(p.to(values.dtype), values, acc * alpha[:, None], PRECISION)
        m_i = m_new
        run, tile, end = advance(run, tile, end, first, stop)
    return acc, m_i, l_i


@triton.jit(do_not_specialize=["heads", "members", "heads_per_key", "queries", "rows", "parts"])
def forward_kernel(
    q, k, v, out, lse, top, rest, q_batch, q_head, q_row, k_batch, k_head, k_row, v_batch, v_head, v_row,
    facts, numbers, ints, flags, reals, group_of, live, ptr, size, first, stop, order,
    heads, members, heads_per_key, queries, rows, parts, scale_given: tl.float64,
    CONSTANTS: tl.constexpr, QUERIES: tl.constexpr, KEYS: tl.constexpr, ATTENDED: tl.constexpr, FACTS: tl.constexpr, NUMBERS: tl.constexpr,
    HEAD_DIM: tl.constexpr, VALUE_DIM: tl.constexpr, BLOCK_HEAD: tl.constexpr, BLOCK_VALUE: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, PRECISION: tl.constexpr, UPCAST: tl.constexpr, F64: tl.constexpr, NATURAL: tl.constexpr,
):  # fmt: skip
    """out (batch, heads, queries, value_dim); lse, and its parts in the unit of the scores, (batch, heads, queries); all contiguous."""
    member = tl.program_id(0) % members
    block = tl.program_id(0) // members
    row = tl.load(order + block // parts)
    m = (row * parts + block % parts) * BLOCK_M + tl.arange(0, BLOCK_M)
    factor = tl.full([], scale_given, tl.float64)  # a Python float in the interpreter
    batch, head = member // heads, member % heads
    group = tl.load(group_of + member)
    facts += group.to(tl.int64) * FACTS
    queries_here, keys_here = tl.load(facts), tl.load(facts + 1)
    c = CONSTANTS(facts, numbers + group.to(tl.int64) * NUMBERS)
    own = QUERIES(c, ints, flags, reals, m, m < queries_here)
    live += tl.load(facts + 2)
    q += batch.to(tl.int64) * q_batch + head.to(tl.int64) * q_head
    k += batch.to(tl.int64) * k_batch + (head // heads_per_key).to(tl.int64) * k_head
    v += batch.to(tl.int64) * v_batch + (head // heads_per_key).to(tl.int64) * v_head
    asking = read_rows(q, m, q_row, m < queries_here, True, HEAD_DIM, BLOCK_HEAD, UPCAST)  # [M, D]
    scale = unit(factor, NATURAL, F64)
    wide = tl.float64 if F64 else tl.float32
    acc = tl.zeros([BLOCK_M, BLOCK_VALUE], wide)
    m_i = tl.full([BLOCK_M], float("-inf"), wide)
    l_i = tl.zeros([BLOCK_M], wide)
    entry = (group * rows + row) * QUERY_SECTIONS
    acc, m_i, l_i = _tiles(
        acc, m_i, l_i, asking, m, queries_here, keys_here, c, own,
        k, k_row, v, v_row, ints, flags, reals, live, ptr, size, first, stop, entry + PLAIN, scale,
        KEYS, ATTENDED, False, HEAD_DIM, VALUE_DIM, BLOCK_HEAD, BLOCK_VALUE, BLOCK_N, PRECISION, UPCAST, F64, NATURAL,
    )  # fmt: skip
    acc, m_i, l_i = _tiles(
        acc, m_i, l_i, asking, m, queries_here, keys_here, c, own,
        k, k_row, v, v_row, ints, flags, reals, live, ptr, size, first, stop, entry + MASKED, scale,
        KEYS, ATTENDED, True, HEAD_DIM, VALUE_DIM, BLOCK_HEAD, BLOCK_VALUE, BLOCK_N, PRECISION, UPCAST, F64, NATURAL,
    )  # fmt: skip
    # A row without a key has l_i = 0 and m_i = -inf; a sum that is no number stays none.
    total = tl.where((l_i > 0) | (l_i != l_i), l_i, 1.0)
    acc = acc / total[:, None]
    at = member.to(tl.int64) * queries
    write_rows(out + at * VALUE_DIM, m, acc, m < queries, VALUE_DIM, BLOCK_VALUE)
    logarithm = tl.log(total)
    tl.store(lse + at + m, (m_i if NATURAL else m_i * LN2) + logarithm, mask=m < queries)
    # Half precision has no use for two parts: `top` is the whole, and rest 0.
    whole = m_i if NATURAL else m_i + tl.log2(total)
    tl.store(top + at + m, tl.where(m_i == float("-inf"), float("inf"), whole), mask=m < queries)
    tl.store(rest + at + m, logarithm if NATURAL else tl.zeros_like(logarithm), mask=m < queries)


@triton.jit(do_not_specialize=["rows", "parts", "groups"])
def live_kernel(
    live, facts, numbers, ints, flags, reals, ptr, size, first, stop, order, rows, parts, groups,
    CONSTANTS: tl.constexpr, QUERIES: tl.constexpr, KEYS: tl.constexpr, ATTENDED: tl.constexpr, FACTS: tl.constexpr, NUMBERS: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """1 for every key of every group that some query attends, uint8. Once a plan."""
    group = tl.program_id(0) % groups
    block = tl.program_id(0) // groups
    row = tl.load(order + block // parts)
    n = (row * parts + block % parts) * BLOCK_N + tl.arange(0, BLOCK_N)
    facts += group.to(tl.int64) * FACTS
    queries_here, keys_here = tl.load(facts), tl.load(facts + 1)
    c = CONSTANTS(facts, numbers + group.to(tl.int64) * NUMBERS)
    inside = n < keys_here
    own = KEYS(c, ints, flags, reals, n, inside)
    entry = (group * rows + row) * QUERY_SECTIONS
    # In a FULL tile every key is attended.
    found = tl.zeros([BLOCK_N], tl.int1) | (tl.load(size + entry + PLAIN) > 0)
    run, tile, end, count = begin(ptr, size, first, stop, entry + MASKED)
    missing = 1
    while (count > 0) & (missing > 0):
        m = tile * BLOCK_M + tl.arange(0, BLOCK_M)
        other = QUERIES(c, ints, flags, reals, m, m < queries_here)
        allow = ATTENDED(c, other, own, ints, flags, reals, 0) & (m < queries_here)[None, :] & inside[:, None]  # [N, M]
        found = found | (tl.max(allow.to(tl.int32), 1) > 0)
        missing = tl.sum((inside & ~found).to(tl.int32), 0)
        count -= 1
        run, tile, end = advance(run, tile, end, first, stop)
    tl.store(live + tl.load(facts + 2) + n, found.to(tl.uint8), mask=inside)
