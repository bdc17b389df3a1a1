"""What the results of several seeds say together."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any


def telling_counts(result: Mapping[str, Any]) -> dict[str, Any]:
    """The counts of a result that are shown, without those of most cells.

    Args:
        result: The content of `result.json`.

    Returns:
        `exact_match`, `first_answer` and `parts` as they are; `diagonal`, the cells
        (n, n); of each of the `sets`, all cells in one, from size `first` to `last`;
        `grid_limit`, the largest size up to 100.
    """
    evaluated = [cell for cell in result["cells"] if cell["total"]]
    sizes = [max(cell["a"], cell["b"]) for cell in evaluated]
    names = ("a", "b", "correct", "total")
    return {
        "grid_limit": max((size for size in sizes if size <= 100), default=100),
        "exact_match": result["exact_match"],
        "parts": {
            name: part["exact_match"] for name, part in result.get("parts", {}).items()
        },
        "first_answer": result.get("first_answer", {}),
        "diagonal": [
            {name: cell[name] for name in names}
            for cell in evaluated
            if cell["a"] == cell["b"]
        ],
        "sets": {
            name: {
                "first": cells[0]["a"],
                "last": cells[-1]["a"],
                "correct": sum(cell["correct"] for cell in cells),
                "total": sum(cell["total"] for cell in cells),
            }
            for name, cells in result["sets"].items()
        },
    }


def over_seeds(results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """`telling_counts` with a `spread` in the place of all seeds' counts.

    Args:
        results: Of each seed, evaluated in the same way.
    """
    return merge_seeds([telling_counts(result) for result in results])


def merge_seeds(parts: Sequence[Any]) -> Any:
    """The same part of the counts of every seed as one."""
    first = parts[0]
    if isinstance(first, list):
        return [merge_seeds(cells) for cells in zip(*parts, strict=True)]
    if not isinstance(first, Mapping):
        return first
    if "total" not in first:
        return {name: merge_seeds([part[name] for part in parts]) for name in first}
    sizes = {key: first[key] for key in first if key not in ("correct", "total")}
    return sizes | spread([part["correct"] / part["total"] for part in parts])


def spread(shares: Sequence[float]) -> dict[str, Any]:
    """Each seed's share, and what they say together.

        >>> spread([0.5, 0.7, 0.6])["median"]
        0.6

    Args:
        shares: From 0 to 1, of two seeds or more.
    """
    return {
        "values": list(shares),
        "median": statistics.median(shares),
        "min": min(shares),
        "max": max(shares),
        "mean": statistics.fmean(shares),
        "interval": mean_interval(shares),
    }


def mean_interval(shares: Sequence[float]) -> list[float]:
    """Student's 95% confidence interval of the mean of shares, within 0 to 1.

    Args:
        shares: Of two seeds or more, taken to be normally distributed.
    """
    # Takes most of a second, which runs of one seed need not wait for.
    from scipy import stats

    count, mean = len(shares), statistics.fmean(shares)
    quantile = float(stats.t.ppf(0.975, count - 1))
    margin = quantile * statistics.stdev(shares) / count**0.5
    return [max(mean - margin, 0.0), min(mean + margin, 1.0)]
