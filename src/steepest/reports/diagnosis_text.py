"""What the numbers of a diagnosis say, in sentences: each follows from the data that it is given, or is left out.

    numbers(data)    the table: name ↦ number or text
    findings(data)   one for each figure: what it shows, and what may help

The thresholds at which advice is given are below, by name.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

CLOSE = 1.5  # a ratio of realised to predicted within [1/CLOSE, CLOSE] is called close
REJECTED = 0.1  # share of updates that kept the policy, from which on advice is given
SOLVED = 0.1  # relative residual from which on a direction is called poorly solved
PRECISE = 0.01  # relative residual below which more iterations hardly change the direction
AIM = 0.9  # a good cosine with the exact gradient


class Finding(NamedTuple):
    """figure: the name of its file, without ending.  title: its message's subject.  says: what is so.  advice: what may
    help, empty where nothing is called for."""

    figure: str
    title: str
    says: str
    advice: str


def pairs(updates: Mapping[str, Any], predicted: str, realised: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(steps, predicted, realised) of the accepted updates that have both numbers; a kept policy realises nothing."""
    rows = zip(*(updates[name] for name in ("step", predicted, realised, "accepted")), strict=True)
    kept = [(s, p, r) for s, p, r, accepted in rows if accepted is not False and p is not None and r is not None]
    steps, before, after = np.array(kept, float).reshape(-1, 3).T
    return steps, before, after


def numbers(data: Mapping[str, Any]) -> dict[str, Any]:
    """The table of a diagnosis: plain numbers and text, None where the run does not say."""
    updates, gradient, line = data["updates"], data["gradient"], data["line"]
    kl, gain = (_ratio(*pairs(updates, p, r)[1:]) for p, r in _PAIRS)
    counts = reasons(updates)
    own = gradient["rows"].index(data["run"]["batch"]) if data["run"]["batch"] in gradient["rows"] else None
    cosine = np.asarray(gradient["cosine"][own]) if own is not None else np.zeros(0)
    natural = data["natural"]
    at = int(np.argmin(np.abs(np.asarray(line["delta"]) - line["used"])))
    eigenvalues = np.asarray(data["spectrum"]["values"])
    return {
        "updates": sum(counts.values()),
        "kept the policy": sum(n for reason, n in counts.items() if reason != "accepted"),
        "realised KL / predicted, median": _median(kl),
        "realised improvement / predicted, median": _median(gain),
        "gradient cosine, one batch": _mean(cosine),
        "gradient cosine, standard deviation": float(np.std(cosine, ddof=1)) if cosine.size > 1 else None,
        "gradient noise scale, rows": gradient["noise_rows"],
        "natural direction cosine, one batch": _mean(np.asarray(natural["cosine"])) if natural else None,
        "largest eigenvalue of F": float(eigenvalues[-1]) if eigenvalues.size else None,
        "share of the gradient below the damping": below(data, data["solver"]["used"]),
        "damping": data["solver"]["used"],
        "residual of the solve": _residual(data),
        "KL at delta / delta, same rows": float(line["kl"][at] / line["delta"][at]),
        "KL at delta / delta, other rows": float(line["kl_elsewhere"][at] / line["delta"][at]),
        "improvement at delta / predicted, other rows": _over(line["gain_elsewhere"][at], line["predicted"][at]),
    }


def findings(data: Mapping[str, Any]) -> list[Finding]:
    """A `Finding` for each figure that there is data for."""
    table = numbers(data)
    said = [_kl(data), _improvement(data), _acceptance(data), _damping(data), _gradient(data, table)]
    return [
        f
        for f in (*said, _spectrum(data, table), _alignment(data, table), _solver(data), _line(table), _gain(table))
        if f is not None
    ]


def reasons(updates: Mapping[str, Any]) -> Counter[str]:
    """How many updates ended for each reason; "accepted" or "not said" where a row has only the flag or nothing."""
    spoken = [
        reason if reason is not None else {True: "accepted", False: "rejected"}.get(accepted, "not said")
        for reason, accepted in zip(updates["reason"], updates["accepted"], strict=True)
    ]
    return Counter(spoken)


def below(data: Mapping[str, Any], level: float) -> float | None:
    """The share of ‖g‖² in eigenvalues of F below `level`."""
    weights = np.asarray(data["spectrum"]["gradient_weights"])
    return float(weights[np.asarray(data["spectrum"]["gradient_values"]) < level].sum()) if weights.size else None


_PAIRS = (("predicted_kl", "kl"), ("predicted_improvement", "improvement"))


def _kl(data: Mapping[str, Any]) -> Finding | None:
    _, predicted, realised = pairs(data["updates"], *_PAIRS[0])
    ratio = _ratio(predicted, realised)
    if not ratio.size:
        return None
    middle = float(np.median(ratio))
    says = (
        f"The realised KL was {middle:.3g} × the predicted one on the median of {_updates(ratio.size)}{_span(ratio)}."
    )
    moved = np.array([x for x in data["updates"]["normaliser_kl"] if x is not None], float)
    if moved.size and np.median(moved) > 0.1 * np.median(realised):
        says += (
            f" The refresh of the observation statistics moved the policy by another {np.median(moved):.2g} nats per "
            "state on the median, outside the trust region."
        )
    advice = ""
    if middle > CLOSE:
        advice = "The quadratic model is too short-sighted for these steps: a smaller delta, or more damping."
    elif middle < 1 / CLOSE:
        advice = "The quadratic model overstates how far these steps go: a larger delta would be used."
    return Finding("kl", "Predicted and realised KL", says, advice)


def _improvement(data: Mapping[str, Any]) -> Finding | None:
    ratio = _ratio(*pairs(data["updates"], *_PAIRS[1])[1:])
    if not ratio.size:
        return None
    middle = float(np.median(ratio))
    says = (
        f"The surrogate improved by {middle:.3g} × what the gradient predicts on the median of "
        f"{_updates(ratio.size)}{_span(ratio)}."
    )
    advice = "The objective bends within a step: a smaller delta makes the prediction good." if middle < 0.5 else ""
    return Finding("improvement", "Predicted and realised improvement", says, advice)


def _acceptance(data: Mapping[str, Any]) -> Finding:
    updates = data["updates"]
    counts, total = reasons(updates), len(updates["step"])
    lost = {reason: n for reason, n in counts.most_common() if reason not in ("accepted", "no_gradient")}
    named = ", ".join(f"{reason} {n}" for reason, n in lost.items())
    share = sum(lost.values()) / total
    says = f"{counts['accepted']} of {_updates(total)} changed the policy"
    says += f"; {100 * share:.3g} % did not: {named}." if lost else "; none failed."
    if counts["no_gradient"]:
        says += f" In {counts['no_gradient']} the gradient was 0."
    back = np.array([b for b in updates["backtracks"] if b is not None], int)
    if back.any():
        says += f" The line search shrank the step in {np.count_nonzero(back)}, at most {_times(int(back.max()))}."
    advice = _REMEDIES.get(next(iter(lost)), "") if share >= REJECTED else ""
    return Finding("acceptance", "Accepted updates", says, advice)


_REMEDIES = {
    "line_search": "Where no point on the line improves, the direction is noise or the policy at its best: see the "
    "gradient's figure; a larger batch helps against the first.",
    "kl": "The quadratic model fails at these steps: a smaller delta or more damping.",
    "solver": "The solver's direction does not ascend: more damping.",
    "curvature": "The metric gives the direction no length, as beside a deterministic policy: more damping.",
    "nonfinite_gradient": "Look for rewards, observations or values that are not finite.",
    "nonfinite_step": "A step leaves the finite numbers: a smaller delta or more damping.",
}


def _damping(data: Mapping[str, Any]) -> Finding | None:
    values = np.array([x for x in data["updates"]["damping"] if x is not None], float)
    if not values.size:
        return None
    says = f"λ was {values[0]:.3g} in all {_updates(values.size)}."
    if values.min() < values.max():
        says = f"λ went from {values[0]:.3g} to {values[-1]:.3g}, between {values.min():.3g} and {values.max():.3g}."
    return Finding("damping", "Damping", says, "")


def _gradient(data: Mapping[str, Any], table: Mapping[str, Any]) -> Finding:
    run, noise, title = data["run"], table["gradient noise scale, rows"], "Noise of the gradient"
    mean, deviation = table["gradient cosine, one batch"], table["gradient cosine, standard deviation"]
    natural = table["natural direction cosine, one batch"]
    says = f"The gradients of one batch of {run['batch']:,} rows and of all others of {run['rows']:,} rows have "
    if mean is None:
        return Finding("gradient", title, says + "no cosine: one of them is 0.", "")
    says += f"a cosine of {mean:.2f}"
    says += f" ± {deviation:.2f} (standard deviation of {run['batches']} batches)." if deviation is not None else "."
    says += f" Of natural directions, in the metric of F, it is {natural:.2f}." if natural is not None else ""
    if noise is None or not np.isfinite(noise):
        says += f" The batches agree in nothing that {run['rows']:,} rows can show."
        advice = "Either the policy is as good as these advantages can tell, or the batch is far too small."
        return Finding("gradient", title, says, f"{advice} More --rows would tell which.")
    needed = noise * AIM**2 / (1 - AIM**2)
    says += f" The noise scale is {_count(noise)} rows: a cosine of {AIM} with the exact gradient takes about "
    says += f"{_count(needed)} rows."
    advice = "A larger batch would give a better direction." if needed > run["batch"] else ""
    return Finding("gradient", title, says, advice)


def _spectrum(data: Mapping[str, Any], table: Mapping[str, Any]) -> Finding | None:
    largest, spectrum = table["largest eigenvalue of F"], data["spectrum"]
    if largest is None:
        return None
    flat = float(np.asarray(spectrum["weights"])[np.asarray(spectrum["values"]) < spectrum["floor"]].sum())
    says = (
        f"The largest eigenvalue of F is {largest:.3g}; about {100 * flat:.3g} % of its {data['run']['parameters']:,} "
        "eigenvalues cannot be told from 0."
    )
    return Finding("spectrum", "Spectrum of the Fisher matrix", says, "")


def _alignment(data: Mapping[str, Any], table: Mapping[str, Any]) -> Finding | None:
    share, damping = table["share of the gradient below the damping"], table["damping"]
    if share is None:
        return None
    says = f"With λ = {damping:.3g}, {100 * share:.3g} % of ‖g‖² lies where λ is larger than the eigenvalue of F."
    advice = "There the step is closer to the plain gradient's: less damping is more natural." if share > 0.5 else ""
    return Finding("alignment", "Where the gradient lies in the spectrum", says, advice if data["natural"] else "")


def _solver(data: Mapping[str, Any]) -> Finding:
    solver = data["solver"]
    curve = _curve(solver)
    precise = np.flatnonzero(curve <= PRECISE)
    reached = f"is {curve[-1]:.2g} after {len(curve) - 1} iterations"
    if precise.size:
        reached = f"first falls below {PRECISE} after {precise[0]} iterations"
    says = f"With λ = {solver['used']:.3g} the relative residual of conjugate gradients {reached}."
    used, residual = solver["iterations"], _residual(data)
    if used is None or residual is None:
        name = solver["name"]
        return Finding("solver", "Residual", says + (f" The run itself solves by {name}." if name else ""), "")
    says += f" The run uses {used}, where it is {residual:.2g}."
    advice = ""
    if residual > SOLVED:
        advice = "The direction is poorly solved: more iterations, or more damping."
    elif precise.size and precise[0] <= used / 2:
        advice = f"{precise[0]} iterations would do here."
    return Finding("solver", "Residual of conjugate gradients", says, advice)


def _line(table: Mapping[str, Any]) -> Finding:
    same, other = table["KL at delta / delta, same rows"], table["KL at delta / delta, other rows"]
    says = (
        f"A step of the run's length from here realises {same:.3g} × its predicted KL on the rows that made it, and "
        f"{other:.3g} × on others."
    )
    advice = "The quadratic model fails at this length: a smaller delta." if same > CLOSE else ""
    if other > CLOSE * same:
        advice = "The step is shortest where it was measured: a larger batch or more damping."
    return Finding("line", "KL along the direction", says, advice)


def _gain(table: Mapping[str, Any]) -> Finding | None:
    ratio = table["improvement at delta / predicted, other rows"]
    if ratio is None:
        return None
    says = f"On rows that had no part in it the step improves the surrogate by {ratio:.3g} × what was predicted."
    advice = "What the update sees is mostly its own noise: a larger batch or a smaller delta." if ratio < 0.5 else ""
    return Finding("gain", "Improvement along the direction", says, advice)


def _ratio(predicted: np.ndarray, realised: np.ndarray) -> np.ndarray:
    return realised[predicted > 0] / predicted[predicted > 0]


def _span(ratio: np.ndarray) -> str:
    if ratio.size < 10:
        return ""
    low, high = np.quantile(ratio, [0.1, 0.9])
    return f" (from {low:.3g} to {high:.3g} in four of five)"


def _residual(data: Mapping[str, Any]) -> float | None:
    used = data["solver"]["iterations"]
    return None if used is None else float(_curve(data["solver"])[used])


def _curve(solver: Mapping[str, Any]) -> np.ndarray:
    """The residuals at the λ of the run."""
    return np.asarray(solver["residual"])[int(np.argmin(np.abs(np.asarray(solver["damping"]) - solver["used"])))]


def _over(a: float, b: float) -> float | None:
    return float(a / b) if b > 0 else None


def _mean(values: np.ndarray) -> float | None:
    return float(values.mean()) if values.size and np.isfinite(values).all() else None


def _median(values: np.ndarray) -> float | None:
    return float(np.median(values)) if values.size else None


def _updates(count: int) -> str:
    return f"{count} update{'s' if count != 1 else ''}"


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def _count(rows: float) -> str:
    return f"{float(f'{rows:.2g}'):,.0f}" if rows >= 1 else "less than 1"
