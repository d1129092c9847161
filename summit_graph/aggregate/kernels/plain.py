"""The kernel in plain PyTorch, for any device (docs/method.md, section 3).

1. A 1x1 mixer has a closed form: the largest of `w * max X` and `w * min X`. A larger kernel is
   multiplied with the input's patches, source by source, and the largest value over the
   positions is kept; sources are taken in runs whose product stays in the cache.
2. The influences of all terms stand side by side, one column per source. A source with several
   terms for one target keeps its largest.
3. The k largest columns are taken. Only where the k-th and the next are equal does the order of
   ties matter, and only those rows are sorted in full.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from summit_graph.aggregate.kernels import Mixing, Passing, Strongest

# Values that a product of kernels and patches may hold on a CPU, to stay in its cache.
_CACHED = 1 << 20


class _Columns(NamedTuple):
    """Influences, one column per source.

    Attributes:
        influence: (images, targets, shared + own).
        shared: (shared,) int64, the neurons of the first columns, the same for all targets.
        own: (targets, own) int64, the neurons of the others.
    """

    influence: Tensor
    shared: Tensor
    own: Tensor

    def neurons(self, targets: Tensor, places: Tensor) -> Tensor:
        """The neurons of some columns; `targets` broadcasts to `places`."""
        shared, own = len(self.shared), self.own.shape[1]
        if not own:
            return self.shared[places]
        named = self.own[targets, (places - shared).clamp(min=0)]
        if not shared:
            return named
        return torch.where(places < shared, self.shared[places.clamp(max=shared - 1)], named)


def strongest(terms: Sequence[Mixing | Passing], k: int, memory: int) -> Strongest:
    """The k strongest sources of every target; see `Kernel`."""
    images = len(terms[0].maps)
    targets = _targets(terms[0])
    columns = sum(term.kernel.shape[1] if isinstance(term, Mixing) else 1 for term in terms)
    rows = max(1, memory // (16 * images * (columns + k)))
    if rows >= targets or any(isinstance(t, Mixing) and t.groups > 1 for t in terms):
        return _strongest(terms, k, memory)
    parts = [
        _strongest([_rows(term, start, start + rows) for term in terms], k, memory)
        for start in range(0, targets, rows)
    ]
    return Strongest(
        torch.cat([part.neurons for part in parts], 1),
        torch.cat([part.influence for part in parts], 1),
    )


def _targets(term: Mixing | Passing) -> int:
    return term.kernel.shape[0] if isinstance(term, Mixing) else term.maps.shape[1]


def _rows(term: Mixing | Passing, start: int, stop: int) -> Mixing | Passing:
    """A term for some of its targets."""
    gate = None if term.gate is None else term.gate[:, start:stop]
    if isinstance(term, Mixing):
        return term._replace(kernel=term.kernel[start:stop], gate=gate)
    return Passing(term.maps[:, start:stop], gate, term.neurons[start:stop])


def _strongest(terms: Sequence[Mixing | Passing], k: int, memory: int) -> Strongest:
    columns = _side_by_side(terms, [_columns(term, memory) for term in terms])
    found = columns.influence
    width = found.shape[2]
    wanted = min(k, width)
    top = torch.topk(found, min(wanted + 1, width), dim=2)
    values, places = top.values[..., :wanted], top.indices[..., :wanted]
    every = torch.arange(found.shape[1], device=found.device).reshape(1, -1, 1)
    neurons = columns.neurons(every, places)
    tied = (top.values[..., 1:] == top.values[..., :-1]) & (top.values[..., 1:] > 0)
    for rows in torch.nonzero(tied.any(-1)).split(4096):
        image, target = rows.unbind(1)
        every_place = torch.arange(width, device=found.device).expand(len(rows), -1)
        own = columns.neurons(target.unsqueeze(1), every_place)
        by_number = torch.sort(own, dim=1, stable=True)
        ordered = found[image, target].gather(1, by_number.indices)
        by_value = torch.sort(ordered, dim=1, descending=True, stable=True)
        values[image, target] = by_value.values[:, :wanted]
        neurons[image, target] = by_number.values.gather(1, by_value.indices[:, :wanted])
    none = values <= 0
    neurons = F.pad(neurons.masked_fill(none, -1), (0, k - wanted), value=-1)
    return Strongest(neurons, F.pad(values.masked_fill(none, 0), (0, k - wanted)))


def _side_by_side(terms: Sequence[Mixing | Passing], columns: list[_Columns]) -> _Columns:
    """All terms together, each source once for each target."""
    together = _Columns(
        torch.cat(
            [c.influence[..., : len(c.shared)] for c in columns]
            + [c.influence[..., len(c.shared) :] for c in columns],
            2,
        )
        if len(columns) > 1
        else columns[0].influence,
        torch.cat([c.shared for c in columns]),
        torch.cat([c.own for c in columns], 1),
    )
    named = torch.cat([term.neurons for term in terms])
    if int(named.min()) >= 0 and len(named.unique()) == len(named):
        return together
    targets, width = together.influence.shape[1:]
    every = torch.arange(targets, device=named.device).unsqueeze(1)
    places = torch.arange(width, device=named.device).expand(targets, -1)
    neurons = together.neurons(every, places)
    influence = together.influence.masked_fill(neurons < 0, 0)
    names, place = torch.unique(neurons, return_inverse=True)
    merged = influence.new_full((*influence.shape[:2], len(names)), -torch.inf)
    merged.scatter_reduce_(2, place.expand_as(influence), influence, "amax")
    return _Columns(merged, names, names.new_zeros((targets, 0)))


def _columns(term: Mixing | Passing, memory: int) -> _Columns:
    if isinstance(term, Passing):
        maps = term.maps if term.gate is None else term.maps * term.gate
        own = term.neurons.unsqueeze(1)
        return _Columns(maps.amax(2).unsqueeze(2), term.neurons[:0], own)
    rows, columns = term.kernel.shape[2:]
    if rows == columns == 1 and (term.gate is None or term.gate.shape[2] == 1):
        influence = _closed_form(term)
    elif term.kernel.shape[1] == 1 and term.groups > 1:
        influence = _one_source_each(term)
    else:
        influence = _by_patches(term, memory)
    targets = len(term.kernel)
    if term.groups == 1:
        return _Columns(influence, term.neurons, term.neurons.new_zeros((targets, 0)))
    own = term.neurons.reshape(term.groups, 1, -1).expand(-1, targets // term.groups, -1)
    return _Columns(influence, term.neurons[:0], own.reshape(targets, -1))


def _closed_form(term: Mixing) -> Tensor:
    """1x1 kernels: (images, targets, inputs per group)."""
    down, right = term.stride
    read = term.maps[:, :, ::down, ::right].flatten(2)
    high, low = read.amax(2), read.amin(2)
    each, images = len(term.kernel) // term.groups, len(read)
    weight = term.kernel[:, :, 0, 0].reshape(term.groups, each, -1)
    shape = (images, term.groups, 1, -1)
    high, low = high.reshape(shape), low.reshape(shape)
    if term.gate is not None:
        gate = term.gate.reshape(-1, term.groups, each, 1)
        weight = weight * gate
    influence = weight * high
    if bool((low < 0).any()) or (term.gate is not None and bool((term.gate < 0).any())):
        influence = torch.maximum(influence, weight * low)
    return influence.reshape(images, len(term.kernel), -1)


def _one_source_each(term: Mixing) -> Tensor:
    """Depthwise kernels: the mixer's own output is each target's one contribution."""
    maps = F.conv2d(
        term.maps, term.kernel, None, term.stride, 0, term.dilation, term.groups
    ).flatten(2)
    if term.gate is not None:
        maps = maps * term.gate
    return maps.amax(2).unsqueeze(2)


def _by_patches(term: Mixing, memory: int) -> Tensor:
    """Any kernel: (images, targets, inputs per group)."""
    targets, inputs, rows, columns = term.kernel.shape
    images, groups = len(term.maps), term.groups
    each, area = targets // groups, rows * columns
    weight = term.kernel.reshape(groups, each, inputs, area).permute(0, 2, 1, 3)
    weight = weight.reshape(groups * inputs, each, area)
    found = term.maps.new_empty((images, groups * inputs, each))
    down, right = term.stride
    high = term.dilation[0] * (rows - 1) + 1
    wide = term.dilation[1] * (columns - 1) + 1
    height = (term.maps.shape[2] - high) // down + 1
    width = (term.maps.shape[3] - wide) // right + 1
    positions = height * width
    on_cpu = term.maps.device.type == "cpu"
    limit = max(1, min(_CACHED if on_cpu else memory // 8, memory // 8))
    together = max(1, min(images, limit // (each * positions)))
    run = max(1, min(groups * inputs, limit // (each * positions * together)))
    for first in range(0, images, together):
        some = term.maps[first : first + together]
        for start in range(0, groups * inputs, run):
            windows = some[:, start : start + run].unfold(2, high, down).unfold(3, wide, right)
            windows = windows[..., :: term.dilation[0], :: term.dilation[1]]
            patches = windows.permute(1, 4, 5, 0, 2, 3).reshape(-1, area, len(some) * positions)
            maps = torch.bmm(weight[start : start + run], patches)
            maps = maps.reshape(len(maps), each, len(some), positions)
            if term.gate is not None:
                maps = maps * _gate_of(term, start, len(maps), first, len(some))
            found[first : first + together, start : start + run] = maps.amax(3).permute(2, 0, 1)
    found = found.reshape(images, groups, inputs, each).permute(0, 1, 3, 2)
    return found.reshape(images, targets, inputs)


def _gate_of(term: Mixing, start: int, count: int, first: int, images: int) -> Tensor:
    """(inputs, targets per group, images, positions or 1) of a gate, for a run of inputs."""
    assert term.gate is not None
    each, inputs = len(term.kernel) // term.groups, term.kernel.shape[1]
    gate = term.gate.expand(len(term.maps), -1, -1)[first : first + images]
    gate = gate.reshape(images, term.groups, each, -1)
    group = torch.arange(start, start + count, device=gate.device) // inputs
    return gate[:, group].permute(1, 2, 0, 3)
