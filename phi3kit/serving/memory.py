"""How many slots of which length the memory pays for."""

from dataclasses import dataclass

from phi3kit.errors import InvalidRequest, WeightsError
from phi3kit.serving.graph import Graph
from phi3kit.system import machine

# Throughput on two cores grew up to eight rows; more only wait for each other.
SLOTS = 8
# A share of the free memory: the weights are loaded by then, and what is left serves the requests themselves.
_SHARE = 4
_LEAST_CONTEXT = 32


@dataclass(frozen=True)
class Plan:
    """The cache of a server.

    Attributes:
        slots: rows.
        context: tokens of each.
        bytes: of all of them; the system gives them only as they are used.
    """

    slots: int
    context: int
    bytes: int


def plan(graph: Graph, slots: int | None = None, context: int | None = None, budget: int | None = None) -> Plan:
    """Divide memory into slots: it pays for the context first, then for as many slots as fit, at least one.

    Args:
        graph: tells what one token takes, and the longest context.
        slots: the most slots; 8 by default.
        context: tokens of each slot; by default the model's context window, or what the budget pays for.
        budget: bytes for all slots; by default a quarter of what is free within this process's cgroup.

    Raises:
        InvalidRequest: a context that the model does not have.
        WeightsError: the budget does not pay for one slot.
    """
    budget = machine.memory()[1] // _SHARE if budget is None else budget
    if context and not _LEAST_CONTEXT <= context <= graph.context_length:
        raise InvalidRequest("context", context, f"a whole number from {_LEAST_CONTEXT} to {graph.context_length}")
    affordable = budget // graph.bytes_per_token
    wanted = context or min(graph.context_length, affordable)
    if affordable < max(wanted, _LEAST_CONTEXT):
        needed = max(wanted, _LEAST_CONTEXT) * graph.bytes_per_token
        raise WeightsError(
            f"One slot of {max(wanted, _LEAST_CONTEXT)} tokens takes {needed / 1e6:.0f} MB, and --kv-memory gives "
            f"{budget / 1e6:.0f} MB: give more, or a shorter --context."
        )
    count = min(slots or SLOTS, affordable // wanted)
    return Plan(count, wanted, count * wanted * graph.bytes_per_token)
