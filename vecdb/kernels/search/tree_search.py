"""Queries over codes that lie in the order of a clustering tree, among all rows or among those of a tenant.

    slot     0 ............ sorted .......... rows           place of a row's code
             leaf by leaf   in order of rows
    listed   the slots of a tenant, ascending: what it has in a node of the tree is a range of them

    few   -> every listed slot is scanned
    many  -> nodes nearest first: groups, and leaves of a group where the tenant has much in it, until a number of them
             in a row improved nothing; what is not sorted yet is scanned in any case

After Curator (Jin et al., 2024), whose shortlists these ranges are: there they are stored at the tree's nodes, here a
binary search finds them in the tenant's own array.
"""

from __future__ import annotations

import math

import numpy as np

from vecdb.kernels.array_table import flat, matrix
from vecdb.kernels.codes.one_bit_fastscan import fill_tables, sift_panels
from vecdb.kernels.codes.one_bit_lines import AHEAD, as_planes, sift
from vecdb.kernels.codes.sq8 import encode_query
from vecdb.kernels.compile import kernel, part
from vecdb.kernels.primitives.checksums import is_sound
from vecdb.kernels.primitives.distance import exact
from vecdb.kernels.primitives.prefetch import stream_at, stream_code
from vecdb.kernels.primitives.topk import add_key, first_at_least, insert, key_of, put_answer, sort_keys
from vecdb.kernels.primitives.visibility import is_visible
from vecdb.kernels.search.beam_search import code_distance

_AHEAD = 8  # codes on their way from memory while one is compared
_DEVIATIONS = np.float32(3.0)
PANEL_SHARE = 5  # of the rows: from there on all panels are looked at as fast as lines that lie scattered (measured)
_NEVER = np.int64(1) << np.int64(62)


@part()
def _place_of(listed, everything, low, high, slot):
    """Where the slots from `slot` on begin: in `listed`, or where everything is searched the slot itself."""
    if everything:
        return min(max(slot, low), high)
    return first_at_least(listed, low, high, slot)


@part()
def _scan(listed, everything, first, stop, coded, blocks, seen, pool, size, most):
    """Compare the codes at places [first, stop) into the sorted pool. Returns its size.

    coded : (codes, bias, query8, query16, probe).   seen : (rows_of, row_count, sequence, deleted).   everything : the
    slots themselves, whose rows may be dead: they are looked up when they are near enough; listed ones are visible.
    pool : int64[> most], distance << 32 | slot.
    """
    codes, bias, query8, query16, probe = coded
    rows_of, row_count, sequence, deleted = seen
    worst = pool[size - 1] if size == most else _NEVER
    for at in range(first, stop):
        slot = np.int64(at)
        if not everything:
            stream_code(codes, np.int64(listed[min(at + _AHEAD, stop - 1)]), blocks)
            slot = np.int64(listed[at])
        key = (np.int64(code_distance(codes, bias, slot, query8, query16, probe, blocks)) << 32) | slot
        if key >= worst:
            continue
        if everything and not is_visible(np.int64(rows_of[slot]), row_count, sequence, deleted, deleted[:0]):
            continue
        if size == most:
            size -= 1
        insert(pool, np.int64(size), key)
        size += 1
        if size == most:
            worst = pool[size - 1]
    return size


@part()
def _look(
    listed, everything, first, stop, slot, end, sieved, limit, coded, blocks, lines, panels, count, asked, slack,
    wanted, seen, nearest, sifted, kept, pool, size, most, work,
):  # fmt: skip
    """Compare what lies at places [first, stop) into the sorted pool, or where `sieved` what comes through the sieve.
    Returns the pool's size.

    slot, end : the sorted slots that the places are among; the same where they are among none.
    lines : (lines, words, floats, stride).   panels : (panels, tables, estimates); empty, or with the query's tables.
    asked : (planes64, step, half, weight, width), the query as the sieve takes it.
    """
    if not sieved:
        work[0] += stop - first
        return _scan(listed, everything, first, stop, coded, blocks, seen, pool, size, most)
    planes64, step, half, weight, width = asked
    if slot < end and len(panels[0]) > 0 and end - slot <= PANEL_SHARE * (stop - first):
        through = sift_panels(
            listed, everything, first, stop, slot, end, panels[0], panels[1], width, step, half, weight, limit,
            slack, wanted, seen, nearest, sifted, kept, count, panels[2],
        )  # fmt: skip
    else:
        through = sift(
            listed, everything, first, stop, lines[0], lines[1], lines[2], lines[3], planes64, step, half, weight,
            limit, slack, wanted, seen, nearest, sifted, kept, count,
        )  # fmt: skip
    work[0] += through
    return _scan(kept, False, np.int64(0), through, coded, blocks, seen, pool, size, most)


@part()
def _push(nodes, count, score, node):
    """Put a node on the heap nodes[:count], of the nearest first. Returns how many there are."""
    key = key_of(score, node)
    at = count
    while at > 0 and nodes[(at - 1) >> 1] > key:
        nodes[at] = nodes[(at - 1) >> 1]
        at = (at - 1) >> 1
    nodes[at] = key
    return count + 1


@part()
def _pop(nodes, count):
    """Take the nearest node off the heap nodes[:count]. Returns it."""
    nearest = nodes[0] & np.int64(0xFFFFFFFF)
    last = nodes[count - 1]
    size = count - 1
    at = np.int64(0)
    while 2 * at + 1 < size:
        child = 2 * at + 1
        if child + 1 < size and nodes[child + 1] < nodes[child]:
            child += 1
        if nodes[child] >= last:
            break
        nodes[at] = nodes[child]
        at = child
    nodes[at] = last
    return nearest


@part()
def _score(codes, bias, spreads, node, query8, query16, probe, ratio, blocks):
    """How promising a node is, smaller is more: its squared distance less a share of its rows' mean squared distance
    from it (Curator's second version); minus its inner product where there are no spreads.
    """
    d = np.float32(code_distance(codes, bias[:0], node, query8, query16, probe, blocks))
    if len(spreads):
        return d * ratio + np.float32(bias[node]) - spreads[node]
    return d


@part()
def _ratio(query, scale, metric, probe):
    """What a product of query and code is multiplied with to be in squared units of the code."""
    if metric == 0:
        return np.float32(np.int64(1) << np.int64(probe[1]))
    top = np.float32(1e-37)
    square = np.float32(0.0)
    for j in range(len(query)):
        top = max(top, abs(query[j]))
        square += query[j] * query[j]
    return top / (np.float32(127.0) * scale * np.float32(np.sqrt(square)))


@part()
def _walk(
    listed, everything, low, high, patience, nodes_most, shortlist, sieved, limit, coded, blocks, ratio, lines, panels,
    count, asked, slack, wanted, seen, nearest, sifted, kept, pool, size, most, heads, groups, leaf_ends, nodes, work,
):  # fmt: skip
    """Look at places [low, high), which are sorted, node by node, the most promising first. Returns the pool's size.

    A group is opened where more than `shortlist` places lie in it; what is opened or small is looked at.
    Ends after `patience` looks in a row that did not change the nearest `limit`, or after `nodes_most` of them.
    heads : (codes, bias, spreads).   groups : (codes, bias, spreads, ends).
    """
    codes, bias, spreads, group_ends = groups
    _, _, query8, query16, probe = coded
    leaves = np.int64(len(leaf_ends))
    waiting = np.int64(0)
    for g in range(len(group_ends)):
        first_leaf = np.int64(group_ends[g - 1]) if g > 0 else np.int64(0)
        begin = np.int64(leaf_ends[first_leaf - 1]) if first_leaf > 0 else np.int64(0)
        end = np.int64(leaf_ends[np.int64(group_ends[g]) - 1])
        if end > begin and (
            everything
            or _place_of(listed, everything, low, high, begin) < _place_of(listed, everything, low, high, end)
        ):
            score = _score(codes, bias, spreads, np.int64(g), query8, query16, probe, ratio, blocks)
            waiting = _push(nodes, waiting, score, leaves + np.int64(g))
    work[2] += waiting
    idle = 0
    looks = 0
    while waiting > 0:
        node = _pop(nodes, waiting)
        waiting -= 1
        if node >= leaves:
            g = node - leaves
            leaf = np.int64(group_ends[g - 1]) if g > 0 else np.int64(0)
            last = np.int64(group_ends[g])
        else:
            leaf = node
            last = node + 1
        slot = np.int64(leaf_ends[leaf - 1]) if leaf > 0 else np.int64(0)
        stop_slot = np.int64(leaf_ends[last - 1])
        begin = _place_of(listed, everything, low, high, slot)
        end = _place_of(listed, everything, begin, high, stop_slot)
        if node >= leaves and end - begin > shortlist:
            at = begin
            for child in range(leaf, last):
                after = _place_of(listed, everything, at, end, np.int64(leaf_ends[child]))
                if after > at:
                    score = _score(heads[0], heads[1], heads[2], np.int64(child), query8, query16, probe, ratio, blocks)
                    waiting = _push(nodes, waiting, score, np.int64(child))
                    work[2] += 1
                at = after
            continue
        before = pool[limit - 1] if size >= limit else _NEVER
        size = _look(
            listed, everything, begin, end, slot, stop_slot, sieved, limit, coded, blocks, lines, panels, count, asked,
            slack, wanted, seen, nearest, sifted, kept, pool, size, most, work,
        )  # fmt: skip
        looks += 1
        idle = idle + 1 if size >= limit and pool[limit - 1] == before else 0
        if idle >= patience or looks >= nodes_most:
            break
    return size


@part()
def _cut(pool, size, limit, query8, square):
    """How many of the sorted pool may be among the nearest `limit`: those within three deviations of its limit-th.

    Rounding is uniform, so a distance d = constant - 2 q.x is off by 2 sqrt((|q|^2 + |x|^2) / 12) on average, with q
    and x in units of their codes.   square : |x|^2 of a row.
    """
    if size <= limit:
        return size
    total = np.float32(0.0)
    for j in range(len(query8)):
        q = np.float32(query8[j])
        total += q * q
    room = np.int64(_DEVIATIONS * np.float32(2.0) * np.float32(math.sqrt((total + square) / np.float32(12.0))))
    bound = ((pool[limit - 1] >> 32) + room + 1) << 32
    while size > limit and pool[size - 1] >= bound:
        size -= 1
    return size


@kernel()
def search_slots(
    queries, rows, distances, counts, work, listed, plan, row_count, sequence_signed, view, vectors, scratch, count,
    blocks,
):  # fmt: skip
    """Answer `queries` (float32[nq, dim]) into rows int64[nq, limit], distances float32[nq, limit], counts int64[nq].

    listed : uint32[any] slots, ascending, of rows that are visible.   vectors : stored type[rows, dim].
    plan : int64[10]: limit; rerank, candidates scored on full vectors, >= limit; wanted, most rows that the sieve lets
    through; sieved, fewer places do without it; everything, search all visible rows and not those listed;
    few, as many places are all looked at; patience, nodes_most, shortlist, see `_walk`; percent of the sieve's
    slack.
    work : int64[3], += codes compared, rows re-ranked, nodes scored.
    view : table of a bundle (array_table.py) of what belongs to the order, in this order:
        numbers int64[3]: metric, slots that are in the order of the tree, bytes of a line of the sieve
        reals float32[4]: scale of the codes; |code - 128|^2 of a row, on average; the sieve's weight; the slack of its
            estimates, times |q - center|
        mean float32[dim]   codes uint8[slots, 64 * blocks]   bias int32[slots], or empty where only products count
        lines uint8, the same as words uint64 and floats float32  center float32[dim]   signs float32[any, D]:
        one_bit_lines.py rows_of uint32[slots]   slots_of uint32[rows]   far int32[any], rows whose codes say little
        head_codes, head_bias, head_spreads, group_codes, group_bias, group_spreads: heads of leaves and of groups, in
            the codes' space; spreads float32, what `_score` takes off, empty under ip
        group_ends int32[groups], leaves   leaf_ends int64[leaves], slots
        crcs uint32[rows]   verified uint8[rows / 8]   deleted uint64[rows]
        panels uint8, of the sorted slots, or empty: one_bit_fastscan.py
    scratch : table of pool int64[> rerank], keys int64[> rerank], nodes int64[>= leaves + groups], query8, query16,
        rotated, planes uint8 and the same as uint64, nearest float32[>= limit], sifted int64[> 2 * wanted],
        kept uint32[>= wanted], tables uint8[2 * bytes of a code, 16], estimates float32[32]
    count : as long as the sieve's code has words; looked at where the sieve is used.   blocks : as long as a code has.
    Returns the first row that does not match its checksum, or -1.
    """
    limit, rerank, wanted, sieved, everything = plan[0], plan[1], plan[2], plan[3], plan[4] != 0
    few, patience, nodes_most, shortlist = plan[5], plan[6], plan[7], plan[8]
    numbers, reals = flat(view, 0, np.int64), flat(view, 1, np.float32)
    metric, sorted_slots, stride = numbers[0], numbers[1], numbers[2]
    scale, square, weight = reals[0], reals[1], reals[2]
    slack = reals[3] * np.float32(plan[9]) / np.float32(100.0)
    mean, codes, bias = flat(view, 2, np.float32), matrix(view, 3, np.uint8), flat(view, 4, np.int32)
    lines, words, floats = flat(view, 5, np.uint8), flat(view, 6, np.uint64), flat(view, 7, np.float32)
    center, signs = flat(view, 8, np.float32), matrix(view, 9, np.float32)
    rows_of, slots_of, far = flat(view, 10, np.uint32), flat(view, 11, np.uint32), flat(view, 12, np.int32)
    head_codes, head_bias = matrix(view, 13, np.uint8), flat(view, 14, np.int32)
    head_spreads, group_codes = flat(view, 15, np.float32), matrix(view, 16, np.uint8)
    group_bias, group_spreads = flat(view, 17, np.int32), flat(view, 18, np.float32)
    group_ends, leaf_ends = flat(view, 19, np.int32), flat(view, 20, np.int64)
    crcs, verified, deleted = flat(view, 21, np.uint32), flat(view, 22, np.uint8), flat(view, 23, np.uint64)
    pool, keys, nodes = flat(scratch, 0, np.int64), flat(scratch, 1, np.int64), flat(scratch, 2, np.int64)
    query8, query16, rotated = flat(scratch, 3, np.int8), flat(scratch, 4, np.int16), flat(scratch, 5, np.float32)
    planes, planes64 = matrix(scratch, 6, np.uint8), matrix(scratch, 7, np.uint64)
    nearest, sifted, kept = flat(scratch, 8, np.float32), flat(scratch, 9, np.int64), flat(scratch, 10, np.uint32)
    panel_octets = flat(view, 24, np.uint8)
    tables, estimates = matrix(scratch, 11, np.uint8), flat(scratch, 12, np.float32)
    sequence = np.uint64(sequence_signed)
    seen = (rows_of, np.int64(row_count), sequence, deleted)
    octets = (lines, words, floats, stride)
    panels = (panel_octets, tables, estimates)
    heads = (head_codes, head_bias, head_spreads)
    groups = (group_codes, group_bias, group_spreads, group_ends)
    row_bytes = vectors.shape[1] * vectors.itemsize
    places = max(np.int64(row_count), np.int64(sorted_slots)) if everything else np.int64(len(listed))
    by_sieve, along = places >= sieved, places > few
    by_panels = by_sieve and len(panel_octets) > 0 and (along or sorted_slots <= PANEL_SHARE * places)
    if not everything:  # the first are on their way while the query is made ready
        for at in range(min(places, AHEAD)):
            if by_sieve:
                stream_at(lines, np.int64(listed[at]) * stride)
            elif at < _AHEAD:
                stream_code(codes, np.int64(listed[at]), blocks)
    start = np.int64(0)
    if along or by_panels:
        start = _place_of(listed, everything, np.int64(0), places, np.int64(sorted_slots))
    for i in range(len(queries)):
        query = queries[i]
        probe = encode_query(query, mean, scale, metric, len(bias) > 0, query8, query16)
        coded = (codes, bias, query8, query16, probe)
        step, half, norm = np.float32(0.0), np.float32(0.0), np.float32(0.0)
        if by_sieve:
            step, half, norm = as_planes(query, center, signs, metric == 1, rotated, planes)
            for j in range(limit):
                nearest[j] = np.float32(np.inf)
        if by_panels:
            fill_tables(planes, tables)
        asked = (planes64, step, half, weight, np.int64(planes.shape[1]))
        size = np.int64(0)
        if along:
            size = _walk(
                listed, everything, np.int64(0), start, patience, nodes_most, shortlist, by_sieve, np.int64(limit),
                coded, blocks, _ratio(query, scale, metric, probe), octets, panels, count, asked, slack * norm,
                np.int64(wanted), seen, nearest, sifted, kept, pool, size, np.int64(rerank), heads, groups, leaf_ends,
                nodes, work,
            )  # fmt: skip
        elif by_panels:
            size = _look(
                listed, everything, np.int64(0), start, np.int64(0), np.int64(sorted_slots), True, np.int64(limit),
                coded, blocks, octets, panels, count, asked, slack * norm, np.int64(wanted), seen, nearest, sifted,
                kept, pool, size, np.int64(rerank), work,
            )  # fmt: skip
        size = _look(
            listed, everything, start, places, np.int64(0), np.int64(0), by_sieve, np.int64(limit), coded, blocks,
            octets, panels, count, asked, slack * norm, np.int64(wanted), seen, nearest, sifted, kept, pool, size,
            np.int64(rerank), work,
        )  # fmt: skip
        size = _cut(pool, size, np.int64(limit), query8, square)
        for j in range(size):
            row = np.int64(rows_of[pool[j] & np.int64(0xFFFFFFFF)])
            pool[j] = row
            stream_at(vectors, row * row_bytes)  # first a line a page, so that pages are looked up all at once
            stream_at(vectors, (row + 1) * row_bytes - 1)
        for j in range(size):
            for line in range(64, min(row_bytes, 2048), 64):
                stream_at(vectors, pool[j] * row_bytes + line)
        for j in range(size):
            row = pool[j]
            if not is_sound(vectors, row, row_bytes, crcs, verified):
                return row
            keys[j] = key_of(exact(vectors, row, query, metric), row)
        work[1] += size
        sort_keys(keys, size)
        for j in range(len(far)):
            row = np.int64(far[j])
            if everything:
                if not is_visible(row, row_count, sequence, deleted, deleted[:0]):
                    continue
            else:
                slot = np.int64(slots_of[row])
                at = first_at_least(listed, np.int64(0), places, slot)
                if at == places or np.int64(listed[at]) != slot:
                    continue
            if not is_sound(vectors, row, row_bytes, crcs, verified):
                return row
            size = add_key(keys, size, np.int64(rerank), key_of(exact(vectors, row, query, metric), row))
            work[1] += 1
        counts[i] = put_answer(keys, size, np.int64(limit), rows[i], distances[i])
    return -1
