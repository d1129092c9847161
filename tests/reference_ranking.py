"""The ranking once more, slowly: docs/method.md, sections 4 and 5, written from the definition.

Plain dictionaries and loops, every path walked one by one. A neuron is (layer, channel), a layer is
(chosen, channels), counts are {(source neuron, target neuron): count}. Nothing here is shared with
the package.
"""

from __future__ import annotations

from math import floor

Neuron = tuple[int, int]
Layer = tuple[bool, int]
Counts = dict[tuple[Neuron, Neuron], int]


def hidden_ways(
    layers: list[Layer], counts: Counts, target: Neuron
) -> dict[Neuron, list[list[int]]]:
    """For each chosen source: the counts along every path to the target that is no direct hop."""
    ways: dict[Neuron, list[list[int]]] = {}

    def walk_back(neuron: Neuron, walked: list[int]) -> None:
        for (source, reached), count in counts.items():
            if reached != neuron or count <= 0:
                continue
            chosen = layers[source[0]][0]
            if not chosen:
                walk_back(source, [count, *walked])
            elif walked:
                ways.setdefault(source, []).append([count, *walked])

    walk_back(target, [])
    return ways


def product(numbers: list[int]) -> int:
    result = 1
    for number in numbers:
        result *= number
    return result


def class_graph(
    layers: list[Layer],
    counts: Counts,
    sources: int | None = None,
    exclude: frozenset[Neuron] = frozenset(),
) -> Counts:
    """Section 4: {(source, target): weight} between neurons of chosen layers."""
    counts = {
        (source, target): count
        for (source, target), count in counts.items()
        if count > 0 and source not in exclude and target not in exclude
    }
    edges: Counts = {}
    for number, (chosen, channels) in enumerate(layers):
        if not chosen:
            continue
        targets = [(number, channel) for channel in range(channels)]
        immediate = {t: {s for s, reached in counts if reached == t} for t in targets}
        direct = {t: {s for s in immediate[t] if layers[s[0]][0]} for t in targets}
        judged = [t for t in targets if direct[t]] or [t for t in targets if immediate[t]]
        m = sources
        if m is None:
            m = floor(sum(len(immediate[t]) for t in judged) / len(judged)) if judged else 0
        for target in targets:
            ways = hidden_ways(layers, counts, target)
            widest = {s: max(min(way) for way in ways[s]) for s in ways}
            for source in direct[target]:
                edges[source, target] = max(counts[source, target], widest.get(source, 0))
            indirect = [s for s in ways if s not in direct[target]]
            indirect.sort(key=lambda s: (-widest[s], -sum(product(way) for way in ways[s]), s))
            for source in indirect[:m]:
                edges[source, target] = widest[source]
    return edges


def contract_votes(
    layers: list[Layer], counts: Counts, votes: dict[Neuron, int]
) -> dict[Neuron, int]:
    """Section 6: votes of hidden neurons, handed to chosen ones by the widest path."""
    contracted: dict[Neuron, int] = {}

    def hand_back(neuron: Neuron, vote: int) -> None:
        if vote <= 0:
            return
        if layers[neuron[0]][0]:
            contracted[neuron] = max(vote, contracted.get(neuron, 0))
            return
        for (source, reached), count in counts.items():
            if reached == neuron:
                hand_back(source, min(vote, count))

    for neuron, vote in votes.items():
        hand_back(neuron, vote)
    return contracted


def teleport(
    nodes: list[Neuron], active: dict[Neuron, int], exclude: frozenset[Neuron] = frozenset()
) -> list[float]:
    """Section 5: each node's activation count by the maximum of its layer, sum 1."""
    shares = []
    for layer, channel in nodes:
        largest = max(
            (c for n, c in active.items() if n[0] == layer and n not in exclude), default=0
        )
        shares.append(active.get((layer, channel), 0) / largest if largest > 0 else 0.0)
    if sum(shares) == 0:
        shares = [1.0 for _ in nodes]
    return [share / sum(shares) for share in shares]


def pagerank(
    nodes: list[Neuron], edges: Counts, jump: list[float], damping: float = 0.85
) -> list[float]:
    """Section 5: power iteration until the L1 change is below 1e-13."""
    place = {node: index for index, node in enumerate(nodes)}
    neighbours: list[dict[int, int]] = [{} for _ in nodes]
    for (source, target), weight in edges.items():
        neighbours[place[source]][place[target]] = weight
        neighbours[place[target]][place[source]] = weight
    values = list(jump)
    while True:
        stepped = [(1 - damping) * share for share in jump]
        for node, value in enumerate(values):
            whole = sum(neighbours[node].values())
            for other, weight in neighbours[node].items():
                stepped[other] += damping * value * weight / whole
        change = sum(abs(a - b) for a, b in zip(stepped, values, strict=True))
        values = stepped
        if change < 1e-13:
            return values


def select(
    nodes: list[Neuron], values: list[float], edges: Counts, mass: float = 0.075
) -> tuple[set[Neuron], float, float | None]:
    """Section 5: kept neurons, the mass in the end, the threshold."""
    falling = sorted(values, reverse=True)
    value_of = dict(zip(nodes, values, strict=True))
    step = 0
    while True:
        raised = mass if step == 0 else mass + 0.005 * step
        if raised >= 1:
            return set(nodes), 1.0, None
        running = 0.0
        n = 0
        while n < len(falling) and running < raised:
            running += falling[n]
            n += 1
        if n >= len(falling):
            return set(nodes), raised, None
        threshold = falling[n]
        kept = {node for node in nodes if value_of[node] > threshold}
        with_edge = {target[0] for _, target in edges}
        with_kept_edge = {t[0] for s, t in edges if s in kept and t in kept}
        if with_edge == with_kept_edge:
            return kept, raised, threshold
        step += 1
