"""Memory over time, while a model is loaded and gives its first answer."""

from dataclasses import dataclass

from phi3kit.workbook.pictures.shown import DARK, Picture, panels

# A curve's colour, line and marker; and where the names of its events stand: above to the left, or below to the right.
_LOOKS = ((DARK, "-", "o", (-4, 6), "right"), ("#a04d08", "--", "s", (4, -14), "left"))


@dataclass(frozen=True)
class Memory:
    """What one process held.

    Attributes:
        seconds: since it was started, at each look.
        megabytes: resident memory at each look.
        events: what was done by when, in the same seconds; the last is the first answer.
    """

    seconds: list[float]
    megabytes: list[float]
    events: dict[str, float]


def memory_curves(measured: dict[str, Memory]) -> Picture:
    """Draw the memory of two processes, each up to its first answer.

    Args:
        measured: as `compare.side_by_side` gives it.
    """
    figure, (panel,) = panels(10, 3.8)
    told, tops, ends = [], [], [max(one.events.values()) for one in measured.values()]
    for (name, one), end, (colour, line, marker, offset, side) in zip(measured.items(), ends, _LOOKS, strict=True):
        seen = sum(second <= end + 0.1 for second in one.seconds)
        seconds, megabytes = one.seconds[:seen], one.megabytes[:seen]
        tops.append(max(megabytes))
        words = f"{name}: at most {tops[-1]:,.0f} MB"
        panel.plot(seconds, megabytes, line, color=colour, linewidth=2, label=words)
        for event, at in one.events.items():
            point = min(zip(seconds, megabytes, strict=True), key=lambda seen: abs(seen[0] - at))
            panel.plot(*point, marker, color=colour)
            above = (offset[0], 6) if at == end else offset  # the last two may lie close together
            panel.annotate(event, point, above, textcoords="offset points", ha=side, fontsize=9)
        told.append(f"{words}; " + ", ".join(f"{event} after {at:.1f} s" for event, at in one.events.items()))
    panel.legend(loc="lower right", frameon=False, handlelength=4)
    panel.set(xlim=(0, 1.05 * max(ends)), ylim=(0, 1.12 * max(tops)))
    panel.set(xlabel="seconds since the process was started", ylabel="resident memory (MB)")
    return Picture(figure, "Memory over time, one curve for each process. " + ". ".join(told) + ".")
