"""Memory over time, while a process loads a model and gives its first answer."""

from dataclasses import dataclass

from phi3kit.workbook.lesson.pictures.display import DARK, Picture, panels

# A curve's colour, line and marker, and where its events are named: above to the left, or below to the right.
_STYLES = ((DARK, "-", "o", (-4, 6), "right"), ("#a04d08", "--", "s", (4, -14), "left"))


@dataclass(frozen=True)
class Memory:
    """The memory of one process over time.

    Attributes:
        seconds: from the start of the process to each sample.
        megabytes: resident memory in each sample.
        events: the time at which each step ended, in the same seconds; the last step is the first answer.
    """

    seconds: list[float]
    megabytes: list[float]
    events: dict[str, float]


def memory_curves(measured: dict[str, Memory]) -> Picture:
    """Draw the memory of two processes, each up to its first answer.

    Args:
        measured: as `comparison.side_by_side` returns it.
    """
    figure, (panel,) = panels(10, 3.8)
    sentences, tops, ends = [], [], [max(memory.events.values()) for memory in measured.values()]
    for (name, memory), end, (colour, line, marker, offset, side) in zip(measured.items(), ends, _STYLES, strict=True):
        count = sum(second <= end + 0.1 for second in memory.seconds)
        seconds, megabytes = memory.seconds[:count], memory.megabytes[:count]
        tops.append(max(megabytes))
        words = f"{name}: at most {tops[-1]:,.0f} MB"
        panel.plot(seconds, megabytes, line, color=colour, linewidth=2, label=words)
        for event, at in memory.events.items():
            point = min(zip(seconds, megabytes, strict=True), key=lambda sample: abs(sample[0] - at))
            panel.plot(*point, marker, color=colour)
            above = (offset[0], 6) if at == end else offset  # the last two may lie close together
            panel.annotate(event, point, above, textcoords="offset points", ha=side, fontsize=9)
        events = ", ".join(f"{event} after {at:.1f} s" for event, at in memory.events.items())
        sentences.append(f"{words}; {events}")
    panel.legend(loc="lower right", frameon=False, handlelength=4)
    panel.set(xlim=(0, 1.05 * max(ends)), ylim=(0, 1.12 * max(tops)))
    panel.set(xlabel="seconds since the process was started", ylabel="resident memory (MB)")
    return Picture(figure, "Memory over time, one curve for each process. " + ". ".join(sentences) + ".")
