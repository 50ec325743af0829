"""Row kernels over n-gram numbers: TF-IDF values of a row, and their sums by group of rows.

Decides: how a row is weighed. Never: finds n-grams, checks its input, keeps state.

    add_product_sums(row_splits, numbers, targets, row_counts, weights, 0, scale, sums)
    row_splits, columns, values = weigh_rows(row_splits, numbers, row_counts, weights, columns)
"""

from __future__ import annotations

import numpy as np

from distrain.jit import compiled


@compiled
def _longest(row_splits: np.ndarray) -> int:
    longest = 0
    for row in range(len(row_splits) - 1):
        longest = max(longest, row_splits[row + 1] - row_splits[row])
    return longest


@compiled
def _weigh(
    features: np.ndarray,
    start: int,
    end: int,
    row_counts: np.ndarray,
    weights: np.ndarray,
    distinct: np.ndarray,
    values: np.ndarray,
) -> int:
    """Fill `distinct` with the n-grams of one row, and `values` with TF-IDF values; return the number of n-grams."""
    used, squares = 0, 0.0
    while start < end:
        feature, count = features[start], 0
        while start < end and features[start] == feature:
            count += 1
            start += 1
        distinct[used] = feature
        values[used] = count * weights[row_counts[feature]]
        squares += values[used] * values[used]
        used += 1
    norm = np.sqrt(squares)
    for index in range(used):
        values[index] /= norm
    return used


@compiled
def slot_of(offsets: np.ndarray, groups: np.ndarray, num_groups: int, line: int, group: int) -> int:
    """Return the slot of a group in a line of slots: its own, or the empty slot that it takes."""
    start, room = offsets[line], offsets[line + 1] - offsets[line]
    if room == num_groups:
        return int(start + group)
    place = group % room
    while groups[start + place] >= 0 and groups[start + place] != group:
        place = place + 1 if place + 1 < room else 0
    return int(start + place)


@compiled
def add_group_sums(
    row_splits: np.ndarray,
    features: np.ndarray,
    labels: np.ndarray,
    group_splits: np.ndarray,
    group_items: np.ndarray,
    row_counts: np.ndarray,
    weights: np.ndarray,
    first: int,
    scale: float,
    num_groups: int,
    offsets: np.ndarray,
    groups: np.ndarray,
    sums: np.ndarray,
) -> None:
    """Add each row's TF-IDF values and their squares to the sums of the groups that hold the row.

    Args:
        row_splits: int64 `[n + 1]`.
        features: int32: n-gram numbers, ascending in a row.
        labels: integers `[n]`: label numbers.
        group_splits: int64 `[labels + 1]`: label `i` stands for `group_items[group_splits[i]:group_splits[i + 1]]`.
        group_items: int32: group numbers.
        row_counts: int32: number of rows that hold each n-gram.
        weights: float64: weight of an n-gram, indexed by the number of rows that hold the n-gram.
        first: number of the n-gram in the first line of slots; n-grams without a line are left out.
        scale: number that stands for 1 in `sums`.
        num_groups: number of groups.
        offsets: int64 `[n-grams + 1]`: first slot of each line.
        groups: int32 `[slots]`, changed in place: the group of a slot, or -1.
        sums: int64 `[slots, 2]`, changed in place: sums of values, and sums of their squares. Sums of whole numbers
            do not depend on the order.
    """
    longest = _longest(row_splits)
    distinct, values = np.empty(longest, np.int32), np.empty(longest, np.float64)
    num_lines = len(offsets) - 1
    is_table = offsets[num_lines] == num_lines * num_groups  # then each slot has its group from the start
    for row in range(len(row_splits) - 1):
        items = group_items[group_splits[labels[row]] : group_splits[labels[row] + 1]]
        used = _weigh(features, row_splits[row], row_splits[row + 1], row_counts, weights, distinct, values)
        for index in range(used):
            line = distinct[index] - first
            if 0 <= line < num_lines:
                value = np.int64(values[index] * scale + 0.5)
                square = np.int64(values[index] * values[index] * scale + 0.5)
                for group in items:
                    if is_table:
                        slot = line * num_groups + group
                    else:
                        slot = slot_of(offsets, groups, num_groups, line, group)
                        groups[slot] = group
                    sums[slot, 0] += value
                    sums[slot, 1] += square


@compiled
def add_product_sums(
    row_splits: np.ndarray,
    features: np.ndarray,
    targets: np.ndarray,
    row_counts: np.ndarray,
    weights: np.ndarray,
    first: int,
    scale: float,
    sums: np.ndarray,
) -> None:
    """Add each row's TF-IDF values, their squares, and their products with the row's target.

    Args:
        row_splits: int64 `[n + 1]`.
        features: int32: n-gram numbers, ascending in a row.
        targets: float64 `[n]`: targets of mean 0 and deviation 1, so that products sum to at most the number of rows.
        row_counts: int32: number of rows that hold each n-gram.
        weights: float64: weight of an n-gram, indexed by the number of rows that hold the n-gram.
        first: number of the n-gram in the first line of `sums`; n-grams without a line are left out.
        scale: number that stands for 1 in `sums`.
        sums: int64 `[n-grams, 3]`, changed in place.
    """
    longest = _longest(row_splits)
    distinct, values = np.empty(longest, np.int32), np.empty(longest, np.float64)
    for row in range(len(row_splits) - 1):
        used = _weigh(features, row_splits[row], row_splits[row + 1], row_counts, weights, distinct, values)
        for index in range(used):
            line = distinct[index] - first
            if 0 <= line < len(sums):
                sums[line, 0] += np.int64(values[index] * scale + 0.5)
                sums[line, 1] += np.int64(values[index] * values[index] * scale + 0.5)
                sums[line, 2] += np.int64(np.floor(values[index] * targets[row] * scale + 0.5))


@compiled
def weigh_rows(
    row_splits: np.ndarray, features: np.ndarray, row_counts: np.ndarray, weights: np.ndarray, columns: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the TF-IDF values of the chosen n-grams; the norm includes all kept n-grams.

    Args:
        row_splits: int64 `[n + 1]`.
        features: int32: n-gram numbers, ascending in a row.
        row_counts: int32: number of rows that hold each n-gram.
        weights: float64: weight of an n-gram, indexed by the number of rows that hold the n-gram.
        columns: int32: column of each n-gram, or -1 if the n-gram is not chosen. Larger numbers are not chosen.

    Returns:
        Row splits int64, columns int32 (ascending in a row), values float32.
    """
    longest = _longest(row_splits)
    distinct, values = np.empty(longest, np.int32), np.empty(longest, np.float64)
    order = np.empty(longest, np.int64)
    chosen_splits = np.zeros(len(row_splits), np.int64)
    chosen = np.empty(len(features), np.int32)
    chosen_values = np.empty(len(features), np.float32)
    kept = 0
    for row in range(len(row_splits) - 1):
        used = _weigh(features, row_splits[row], row_splits[row + 1], row_counts, weights, distinct, values)
        num_chosen = 0
        for index in range(used):
            if distinct[index] >= len(columns):
                break
            order[num_chosen] = np.int64(columns[distinct[index]]) << 32 | index
            num_chosen += columns[distinct[index]] >= 0
        order[:num_chosen].sort()
        for entry in order[:num_chosen]:
            chosen[kept] = entry >> 32
            chosen_values[kept] = values[entry & 0xFFFFFFFF]
            kept += 1
        chosen_splits[row + 1] = kept
    return chosen_splits, chosen[:kept], chosen_values[:kept]
