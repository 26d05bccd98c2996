"""The backward kernels: `prepare`, dQ by rows of queries, dK and dV by rows of keys.

    P = exp(S - lse)    dS = P * (dP - delta)    delta_i = sum_d dO_id O_id - dlse_i (the gradient of lse is folded in)
    dQ_i = scale sum_j gq_ij dS_ij K_j    dK_j = scale sum_i gk_ij dS_ij Q_i    dV_j = sum_i gv_ij P_ij dO_i

Each kernel visits only the tiles where a gate it needs may be open. In its masked sections a pair counts where it attends and its
gate is open, settled before the products.
lse comes as `top` and, where it is natural, `rest` (`backend.Attended`); `top` is +inf for a row without a key, whose P is then exactly 0.
"""

import triton
import triton.language as tl

from .triton_common import (
    K_ALONE,
    KEY_SECTIONS,
    MASKED,
    PLAIN,
    QUERY_SECTIONS,
    V_ALONE,
    advance,
    as_score,
    begin,
    dot,
    exponential,
    read_rows,
    unit,
    write_rows,
)


@triton.jit(do_not_specialize=["heads", "members", "queries"])
def prepare_kernel(
    out, dout, do_batch, do_head, do_row, top, dlse, delta, heads, members, queries,
    HAS_DLSE: tl.constexpr, VALUE_DIM: tl.constexpr, BLOCK_VALUE: tl.constexpr, BLOCK_M: tl.constexpr, F64: tl.constexpr,
):  # fmt: skip
    """delta (batch, heads, queries), 0 for a row without a key; out, top and dlse are contiguous."""
    member = tl.program_id(0) % members
    m = tl.program_id(0) // members * BLOCK_M + tl.arange(0, BLOCK_M)
    at = member.to(tl.int64) * queries
    alive = tl.load(top + at + m, mask=m < queries, other=float("inf")) != float("inf")
    dout += (member // heads).to(tl.int64) * do_batch + (member % heads).to(tl.int64) * do_head
    o = as_score(read_rows(out + at * VALUE_DIM, m, VALUE_DIM, alive, True, VALUE_DIM, BLOCK_VALUE, False), F64)
    do = as_score(read_rows(dout, m, do_row, alive, True, VALUE_DIM, BLOCK_VALUE, False), F64)
    d = tl.sum(o * do, 1)
    if HAS_DLSE:
        d -= tl.load(dlse + at + m, mask=alive, other=0.0)
    tl.store(delta + at + m, d, mask=m < queries)


# ------------------------------------------------------------------------------------------------ dQ


@triton.jit
def _query_tiles(
    dq, q, do, m, top, rest, delta, queries_here, keys_here, c, own,
    k, k_row, v, v_row, ints, flags, reals, live, ptr, size, first, stop, entry, scale,
    KEYS: tl.constexpr, ATTENDED: tl.constexpr, GATE_Q: tl.constexpr, EVALUATE: tl.constexpr, WEIGHTED: tl.constexpr,
    HEAD_DIM: tl.constexpr, VALUE_DIM: tl.constexpr, BLOCK_HEAD: tl.constexpr, BLOCK_VALUE: tl.constexpr, BLOCK_N: tl.constexpr,
    PRECISION: tl.constexpr, UPCAST: tl.constexpr, F64: tl.constexpr, NATURAL: tl.constexpr,
):  # fmt: skip
    """Every tile of one section. dq [M, D]; top, rest and delta [M]."""
    run, tile, end, count = begin(ptr, size, first, stop, entry)
    for _ in range(count):
        n = tile * BLOCK_N + tl.arange(0, BLOCK_N)
        inside = n < keys_here
        alive = inside
        if EVALUATE:
            alive = tl.load(live + n, mask=inside, other=0) != 0
        keys = read_rows(k, n, k_row, alive, EVALUATE, HEAD_DIM, BLOCK_HEAD, UPCAST)  # [N, D]
        values = read_rows(v, n, v_row, alive, EVALUATE, VALUE_DIM, BLOCK_VALUE, UPCAST)  # [N, V]
        nothing = tl.zeros([q.shape[0], BLOCK_N], dq.dtype)
        shifted = dot(q, tl.trans(keys), nothing, PRECISION) * scale - top[:, None]  # [M, N]
        if NATURAL:
            shifted -= rest[:, None]
        p = exponential(shifted, NATURAL)
        ds = p * (dot(do, tl.trans(values), nothing, PRECISION) - delta[:, None])
        if EVALUATE:
            other = KEYS(c, ints, flags, reals, n, inside)
            allow = ATTENDED(c, own, other, ints, flags, reals, 1) & (m < queries_here)[:, None] & inside[None, :]
            gate = GATE_Q(c, own, other, ints, flags, reals, 1)
            ds = tl.where(allow, ds * as_score(gate, F64), 0.0) if WEIGHTED else tl.where(allow & gate, ds, 0.0)
        dq = dot(ds.to(keys.dtype), keys, dq, PRECISION)
        run, tile, end = advance(run, tile, end, first, stop)
    return dq


@triton.jit(do_not_specialize=["heads", "members", "heads_per_key", "queries", "rows", "parts"])
def query_gradient_kernel(
    q, k, v, dout, delta, top, rest, dq, q_batch, q_head, q_row, k_batch, k_head, k_row, v_batch, v_head, v_row,
    do_batch, do_head, do_row, facts, numbers, ints, flags, reals, group_of, live, ptr, size, first, stop, order,
    heads, members, heads_per_key, queries, rows, parts, scale_given: tl.float64,
    CONSTANTS: tl.constexpr, QUERIES: tl.constexpr, KEYS: tl.constexpr, ATTENDED: tl.constexpr, GATE_Q: tl.constexpr,
    WEIGHTED: tl.constexpr, FACTS: tl.constexpr, NUMBERS: tl.constexpr,
    HEAD_DIM: tl.constexpr, VALUE_DIM: tl.constexpr, BLOCK_HEAD: tl.constexpr, BLOCK_VALUE: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, PRECISION: tl.constexpr, UPCAST: tl.constexpr, F64: tl.constexpr, NATURAL: tl.constexpr,
):  # fmt: skip
    """dq (batch, heads, queries, head_dim), contiguous."""
    member = tl.program_id(0) % members
    block = tl.program_id(0) // members
    row = tl.load(order + block // parts)
    m = (row * parts + block % parts) * BLOCK_M + tl.arange(0, BLOCK_M)
    factor = tl.full([], scale_given, tl.float64)
    batch, head = member // heads, member % heads
    group = tl.load(group_of + member)
    facts += group.to(tl.int64) * FACTS
    queries_here, keys_here = tl.load(facts), tl.load(facts + 1)
    live += tl.load(facts + 2)
    c = CONSTANTS(facts, numbers + group.to(tl.int64) * NUMBERS)
    own = QUERIES(c, ints, flags, reals, m, m < queries_here)
    q += batch.to(tl.int64) * q_batch + head.to(tl.int64) * q_head
    dout += batch.to(tl.int64) * do_batch + head.to(tl.int64) * do_head
    k += batch.to(tl.int64) * k_batch + (head // heads_per_key).to(tl.int64) * k_head
    v += batch.to(tl.int64) * v_batch + (head // heads_per_key).to(tl.int64) * v_head
    at = member.to(tl.int64) * queries
    row_top = tl.load(top + at + m, mask=m < queries, other=float("inf"))
    row_rest = tl.load(rest + at + m, mask=m < queries, other=0.0)
    row_delta = tl.load(delta + at + m, mask=m < queries, other=0.0)
    alive = row_top != float("inf")
    asking = read_rows(q, m, q_row, alive, True, HEAD_DIM, BLOCK_HEAD, UPCAST)  # [M, D]
    do = read_rows(dout, m, do_row, alive, True, VALUE_DIM, BLOCK_VALUE, UPCAST)  # [M, V]
    acc = tl.zeros([BLOCK_M, BLOCK_HEAD], tl.float64 if F64 else tl.float32)
    entry = (group * rows + row) * QUERY_SECTIONS
    acc = _query_tiles(
        acc, asking, do, m, row_top, row_rest, row_delta, queries_here, keys_here, c, own,
        k, k_row, v, v_row, ints, flags, reals, live, ptr, size, first, stop, entry + PLAIN, unit(factor, NATURAL, F64),
        KEYS, ATTENDED, GATE_Q, False, WEIGHTED, HEAD_DIM, VALUE_DIM, BLOCK_HEAD, BLOCK_VALUE, BLOCK_N, PRECISION, UPCAST, F64, NATURAL,
    )  # fmt: skip
    acc = _query_tiles(
        acc, asking, do, m, row_top, row_rest, row_delta, queries_here, keys_here, c, own,
        k, k_row, v, v_row, ints, flags, reals, live, ptr, size, first, stop, entry + MASKED, unit(factor, NATURAL, F64),
        KEYS, ATTENDED, GATE_Q, True, WEIGHTED, HEAD_DIM, VALUE_DIM, BLOCK_HEAD, BLOCK_VALUE, BLOCK_N, PRECISION, UPCAST, F64, NATURAL,
    )  # fmt: skip
    write_rows(dq + at * HEAD_DIM, m, acc * as_score(factor, F64), m < queries, HEAD_DIM, BLOCK_HEAD)


# ------------------------------------------------------------------------------------------------ dK and dV


@triton.jit
def _key_tiles(
    dk, dv, keys, values, n, queries_here, keys_here, c, own,
    q, q_row, dout, do_row, top, rest, delta, ints, flags, reals, ptr, size, first, stop, entry, scale,
    QUERIES: tl.constexpr, ATTENDED: tl.constexpr, GATE_K: tl.constexpr, GATE_V: tl.constexpr,
    EVALUATE: tl.constexpr, FOR_K: tl.constexpr, FOR_V: tl.constexpr, WEIGHTED_K: tl.constexpr, WEIGHTED_V: tl.constexpr,
    HEAD_DIM: tl.constexpr, VALUE_DIM: tl.constexpr, BLOCK_HEAD: tl.constexpr, BLOCK_VALUE: tl.constexpr, BLOCK_M: tl.constexpr,
    PRECISION: tl.constexpr, UPCAST: tl.constexpr, F64: tl.constexpr, NATURAL: tl.constexpr,
):  # fmt: skip
    """Every tile of one section for one query head. dk [N, D] without the scale, dv [N, V]."""
    run, tile, end, count = begin(ptr, size, first, stop, entry)
    for _ in range(count):
        m = tile * BLOCK_M + tl.arange(0, BLOCK_M)
        inside = m < queries_here
        if EVALUATE:
            # Settled before the products, and kept as bits: fewer registers live across them.
            other = QUERIES(c, ints, flags, reals, m, inside)
            allow = ATTENDED(c, other, own, ints, flags, reals, 0) & inside[None, :] & (n < keys_here)[:, None]  # [N, M]
            gate_k = GATE_K(c, other, own, ints, flags, reals, 0)
            gate_v = GATE_V(c, other, own, ints, flags, reals, 0)
            allow_k = allow if WEIGHTED_K else allow & gate_k
            allow_v = allow if WEIGHTED_V else allow & gate_v
            row_top = tl.load(top + m, mask=inside, other=float("inf"))
            alive = row_top != float("inf")
        else:
            row_top = tl.load(top + m)
            alive = inside
        asking = read_rows(q, m, q_row, alive, EVALUATE, HEAD_DIM, BLOCK_HEAD, UPCAST)  # [M, D]
        do = read_rows(dout, m, do_row, alive, EVALUATE, VALUE_DIM, BLOCK_VALUE, UPCAST)  # [M, V]
        nothing = tl.zeros([keys.shape[0], BLOCK_M], tl.float64 if F64 else tl.float32)
        shifted = dot(keys, tl.trans(asking), nothing, PRECISION) * scale - row_top[None, :]  # [N, M]
        if NATURAL:
            shifted -= (tl.load(rest + m, mask=inside, other=0.0) if EVALUATE else tl.load(rest + m))[None, :]
        p = exponential(shifted, NATURAL)
        if FOR_V:
            pv = p
            if EVALUATE:
                pv = tl.where(allow_v, p * as_score(gate_v, F64) if WEIGHTED_V else p, 0.0)
            dv = dot(pv.to(do.dtype), do, dv, PRECISION)
        if FOR_K:
            row_delta = tl.load(delta + m, mask=inside, other=0.0) if EVALUATE else tl.load(delta + m)
            ds = p * (dot(values, tl.trans(do), nothing, PRECISION) - row_delta[None, :])
            if EVALUATE:
                ds = tl.where(allow_k, ds * as_score(gate_k, F64) if WEIGHTED_K else ds, 0.0)
            dk = dot(ds.to(asking.dtype), asking, dk, PRECISION)
        run, tile, end = advance(run, tile, end, first, stop)
    return dk, dv


@triton.jit(do_not_specialize=["heads", "members", "queries", "keys_all", "rows", "parts"])
def key_gradient_kernel(
    q, k, v, dout, delta, top, rest, dk, dv, q_batch, q_head, q_row, k_batch, k_head, k_row, v_batch, v_head, v_row,
    do_batch, do_head, do_row, facts, numbers, ints, flags, reals, group_of, ptr, size, first, stop, order,
    heads, members, queries, keys_all, rows, parts, scale_given: tl.float64,
    CONSTANTS: tl.constexpr, QUERIES: tl.constexpr, KEYS: tl.constexpr, ATTENDED: tl.constexpr, GATE_K: tl.constexpr, GATE_V: tl.constexpr,
    WANT_K: tl.constexpr, WANT_V: tl.constexpr, WEIGHTED_K: tl.constexpr, WEIGHTED_V: tl.constexpr,
    SECTIONS: tl.constexpr, HEADS_PER_KEY: tl.constexpr, FACTS: tl.constexpr, NUMBERS: tl.constexpr,
    HEAD_DIM: tl.constexpr, VALUE_DIM: tl.constexpr, BLOCK_HEAD: tl.constexpr, BLOCK_VALUE: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, PRECISION: tl.constexpr, UPCAST: tl.constexpr, F64: tl.constexpr, NATURAL: tl.constexpr,
):  # fmt: skip
    """dk (batch, key_heads, keys, head_dim) and dv (batch, key_heads, keys, value_dim), contiguous.

    SECTIONS has a bit for every section that the mask can have and that feeds a wanted gradient; the others are not compiled.
    One program owns BLOCK_N keys of one key head and adds up its HEADS_PER_KEY query heads in order: no atomics, the same bits every time.
    """
    member = tl.program_id(0) % members  # of (batch, key_heads)
    block = tl.program_id(0) // members
    row = tl.load(order + block // parts)
    n = (row * parts + block % parts) * BLOCK_N + tl.arange(0, BLOCK_N)
    factor = tl.full([], scale_given, tl.float64)
    key_heads = heads // HEADS_PER_KEY
    batch, key_head = member // key_heads, member % key_heads
    k += batch.to(tl.int64) * k_batch + key_head.to(tl.int64) * k_head
    v += batch.to(tl.int64) * v_batch + key_head.to(tl.int64) * v_head
    keys = read_rows(k, n, k_row, n < keys_all, True, HEAD_DIM, BLOCK_HEAD, UPCAST)  # [N, D]
    values = read_rows(v, n, v_row, n < keys_all, True, VALUE_DIM, BLOCK_VALUE, UPCAST)  # [N, V]
    wide = tl.float64 if F64 else tl.float32
    acc_k = tl.zeros([BLOCK_N, BLOCK_HEAD], wide)
    acc_v = tl.zeros([BLOCK_N, BLOCK_VALUE], wide)
    scale = unit(factor, NATURAL, F64)
    for one in range(HEADS_PER_KEY):
        head = key_head * HEADS_PER_KEY + one
        at = (batch * heads + head).to(tl.int64) * queries
        group = tl.load(group_of + batch * heads + head)
        here = facts + group.to(tl.int64) * FACTS
        queries_here, keys_here = tl.load(here), tl.load(here + 1)
        c = CONSTANTS(here, numbers + group.to(tl.int64) * NUMBERS)
        own = KEYS(c, ints, flags, reals, n, n < keys_here)
        q_here = q + batch.to(tl.int64) * q_batch + head.to(tl.int64) * q_head
        do_here = dout + batch.to(tl.int64) * do_batch + head.to(tl.int64) * do_head
        for section in tl.static_range(KEY_SECTIONS):
            if (SECTIONS >> section) & 1:
                acc_k, acc_v = _key_tiles(
                    acc_k, acc_v, keys, values, n, queries_here, keys_here, c, own,
                    q_here, q_row, do_here, do_row, top + at, rest + at, delta + at, ints, flags, reals, ptr, size, first, stop,
                    (group * rows + row) * KEY_SECTIONS + section, scale,
                    QUERIES, ATTENDED, GATE_K, GATE_V, section % 2 == MASKED, WANT_K and section // 2 != V_ALONE, WANT_V and section // 2 != K_ALONE, WEIGHTED_K, WEIGHTED_V,
                    HEAD_DIM, VALUE_DIM, BLOCK_HEAD, BLOCK_VALUE, BLOCK_M, PRECISION, UPCAST, F64, NATURAL,
                )  # fmt: skip
    at_keys = member.to(tl.int64) * keys_all
    if WANT_K:
        write_rows(dk + at_keys * HEAD_DIM, n, acc_k * as_score(factor, F64), n < keys_all, HEAD_DIM, BLOCK_HEAD)
    if WANT_V:
        write_rows(dv + at_keys * VALUE_DIM, n, acc_v, n < keys_all, VALUE_DIM, BLOCK_VALUE)
