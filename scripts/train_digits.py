"""Train the demo network and write its weights: `python scripts/train_digits.py`.

1. The images of the training half (`summit_graph.images.digits.halves`) are shifted by up to a
   pixel each way, at random, in every epoch.
2. Adam with a one-cycle learning rate minimises the cross-entropy for a fixed number of epochs; the
   held-out half chooses nothing.
3. The accuracy on both halves is printed and the weights are written beside
   `summit_graph/network/digits.py`.

It takes about a quarter of a minute. The seed is fixed and it runs on one thread, so that
the same versions of PyTorch give the same weights.
"""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save
from torch import Tensor
from torch.nn import functional

from summit_graph.images.digits import digits, halves
from summit_graph.network.digits import WEIGHTS, DigitsCNN

EPOCHS = 60
BATCH = 32
SEED = 7


def shifted(images: Tensor, generator: torch.Generator) -> Tensor:
    """Images (B, 1, 8, 8), each moved by -1, 0 or 1 pixel down and right; paper moves in."""
    framed = functional.pad(images, (1, 1, 1, 1), value=float(images.min()))
    moves = torch.randint(0, 3, (len(images), 2), generator=generator).tolist()
    return torch.stack(
        [
            image[:, down : down + 8, right : right + 8]
            for image, (down, right) in zip(framed, moves, strict=True)
        ]
    )


def accuracy(network: DigitsCNN, images: Tensor, labels: Tensor) -> float:
    """The share of the images whose largest logit is their label's."""
    network.eval()
    with torch.no_grad():
        return float((network(images).argmax(dim=1) == labels).float().mean())


def main() -> None:
    """Train, print the accuracies, write the weights."""
    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    network = DigitsCNN()
    pixels, targets = digits()
    images = torch.stack([network.transform(Image.fromarray(picture)) for picture in pixels])
    labels = torch.from_numpy(targets)
    training, held_out = (torch.from_numpy(numbers) for numbers in halves(len(labels)))
    generator = torch.Generator().manual_seed(SEED)
    optimiser = torch.optim.Adam(network.parameters(), weight_decay=1e-4)
    steps = EPOCHS * int(np.ceil(len(training) / BATCH))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=5e-3, total_steps=steps)
    for _ in range(EPOCHS):
        network.train()
        order = training[torch.randperm(len(training), generator=generator)]
        for batch in torch.split(order, BATCH):
            loss = functional.cross_entropy(
                network(shifted(images[batch], generator)), labels[batch], label_smoothing=0.05
            )
            optimiser.zero_grad()
            torch.autograd.backward(loss)
            optimiser.step()
            schedule.step()
    for name, numbers in (("training", training), ("held-out", held_out)):
        print(
            f"{name}: {accuracy(network, images[numbers], labels[numbers]):.2%} of {len(numbers)}"
        )
    WEIGHTS.write_bytes(save(network.state_dict()))


if __name__ == "__main__":
    main()
