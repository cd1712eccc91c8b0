"""Memory over time, while a process loads a model and gives its first answer."""

from dataclasses import dataclass

from phi3kit.workbook.lesson.pictures.display import DARK, INK, Picture, panels


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
    figure, axes = panels(11, 3.6, len(measured))
    sentences, top = [], max(max(memory.megabytes) for memory in measured.values())
    last = max(max(memory.events.values()) for memory in measured.values())
    for panel, (name, memory) in zip(axes, measured.items(), strict=True):
        end = max(memory.events.values())
        samples = [point for point in zip(memory.seconds, memory.megabytes, strict=True) if point[0] <= end + 0.1]
        words = f"{name}: at most {max(megabytes for _, megabytes in samples):,.0f} MB"
        panel.plot(*zip(*samples, strict=True), color=DARK, linewidth=2)
        # A later event is named higher, so that no line down to a name crosses another name.
        for height, (event, at) in enumerate(memory.events.items(), start=1):
            x, y = min(samples, key=lambda sample: abs(sample[0] - at))
            panel.plot([x, x], [0.09 * height * top, y], color=INK, linewidth=0.8)
            panel.plot(x, y, "o", color=DARK)
            panel.text(x, 0.09 * height * top, f" {event}, {at:.1f} s", fontsize=9, va="center")
        panel.set(xlim=(0, 1.45 * last), ylim=(0, 1.08 * top), xlabel="seconds since the process was started")
        panel.set_title(words, fontsize=10)
        events = ", ".join(f"{event} after {at:.1f} s" for event, at in memory.events.items())
        sentences.append(f"{words}; {events}")
    axes[0].set_ylabel("resident memory (MB)")
    return Picture(figure, "Memory over time, one panel for each process. " + ". ".join(sentences) + ".")
