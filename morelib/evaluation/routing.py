"""What a network's routers do on a data set: collected per slice, with the labels to compare them to."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from sklearn.manifold import TSNE
from sklearn.model_selection import LeaveOneGroupOut, cross_val_predict
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

from morelib.data.batches import Batch
from morelib.data.dataset import SliceDataset
from morelib.evaluation.evaluate import Model, OnSlice, ready, reconstruct_volume
from morelib.nn import Reconstruction
from morelib.nn.hooks import hooked
from morelib.nn.more import denoisers_of
from morelib.nn.unrolled import Unrolled
from morelib.routing.router import RouterOutput
from morelib.routing.selection import select_top_k


@dataclass(frozen=True)
class CollectedRouting:
    """Routing of n slices in c cascades.

    gates (c, n, experts), selected (c, n, k), embedding (c, n, d); acquisition and volume name per slice.
    """

    gates: Tensor
    selected: Tensor
    embedding: Tensor
    acquisition: tuple[str, ...]
    volume: tuple[str, ...]

    def of_anatomy(self, anatomy: str) -> "CollectedRouting":
        """The slices of `brain` or of `knee` (acquisitions that begin with AX or with COR)."""
        prefix = {"brain": "AX", "knee": "COR"}[anatomy]
        keep = [i for i, name in enumerate(self.acquisition) if name.startswith(prefix)]
        rows = torch.tensor(keep, dtype=torch.int64)
        return CollectedRouting(
            self.gates[:, rows],
            self.selected[:, rows],
            self.embedding[:, rows],
            tuple(self.acquisition[i] for i in keep),
            tuple(self.volume[i] for i in keep),
        )


def collect_routing(
    model: Model, *datasets: SliceDataset, device: torch.device | str = "cpu"
) -> CollectedRouting:
    """Reconstruct every slice of `datasets` and keep what the routers did. ValueError for a network that has none."""
    records: list[Reconstruction] = []
    labels: list[tuple[str, str]] = []

    def keep(batch: Batch, output: Reconstruction) -> None:
        if output.routing is None:
            raise ValueError("this network has no router")
        records.append(output)
        labels.extend(zip(batch.acquisition, batch.volume, strict=True))

    _reconstruct(model, datasets, device, keep)

    def stack(name: str) -> Tensor:
        rows = [torch.stack([getattr(r, name) for r in output.routing or ()]) for output in records]
        return torch.cat(rows, 1).cpu()

    acquisition, volume = zip(*labels, strict=True)
    return CollectedRouting(stack("gates"), stack("selected"), stack("embedding"), acquisition, volume)


def collect_control(
    model: nn.Module, control: nn.Module, *datasets: SliceDataset, device: torch.device | str = "cpu"
) -> CollectedRouting:
    """What the routers of `control` make of the very inputs that the routers of `model` get.

    An embedding may separate categories because the features it is fed do so already. The same features through an
    untrained router show how much. Both are MoRE networks of one shape.
    """
    others = [denoiser.router.to(device).eval() for denoiser in denoisers_of(control)]
    outputs: list[RouterOutput] = []

    def listen(_: nn.Module, inputs: tuple[Tensor, ...], __: RouterOutput) -> None:
        # Routers are called cascade by cascade. `forward`, because a call would be heard by this very function.
        outputs.append(others[len(outputs) % len(others)].forward(inputs[0]))

    with hooked((router, listen) for router in {denoiser.router for denoiser in denoisers_of(model)}):
        collected = collect_routing(model, *datasets, device=device)

    gates = _by_cascade([output.gates for output in outputs], len(others))
    embedding = _by_cascade([output.embedding for output in outputs], len(others))
    selected = select_top_k(gates, collected.selected.shape[-1])
    return replace(collected, gates=gates, selected=selected, embedding=embedding)


def collect_scales(model: Unrolled, dataset: SliceDataset, device: torch.device | str = "cpu") -> Tensor:
    """The gates of a network of `GatedDenoiser`, each the scale of a correction: (cascades, slices of `dataset`)."""
    routers = [cascade.denoiser.router for cascade in model.cascades]
    gates: list[Tensor] = []

    def listen(_: nn.Module, __: tuple[Tensor, ...], output: RouterOutput) -> None:
        gates.append(output.logits.sigmoid())  # as `GatedDenoiser` does

    with hooked((router, listen) for router in routers):  # type: ignore[misc]
        _reconstruct(model, [dataset], device)
    return _by_cascade(gates, len(routers)).squeeze(-1)


def _reconstruct(
    model: Model,
    datasets: Sequence[SliceDataset],
    device: torch.device | str,
    on_slice: OnSlice | None = None,
) -> None:
    """Every slice, for what can be overheard."""
    with ready(model, device) as run:
        for dataset in datasets:
            for number in range(len(dataset.volumes)):
                reconstruct_volume(
                    run, (dataset[item] for item in dataset.items_of(number)), device, on_slice
                )


def _by_cascade(heard: Sequence[Tensor], cascades: int) -> Tensor:
    """What routers gave one slice, (1, n), cascade by cascade and slice by slice: (cascades, slices, n)."""
    return torch.cat(list(heard)).unflatten(0, (-1, cascades)).transpose(0, 1).cpu()


def without_common_part(collected: CollectedRouting, network: nn.Module) -> CollectedRouting:
    """The same slices, had every router's W been blind to what their embeddings have in common: W (I - m m^T).

    m is the direction of the mean embedding. A drawn W turns that common part into the same choice for all slices.
    `network` is the one whose routers left `collected`.
    """
    common = F.normalize(collected.embedding.mean(1, keepdim=True), dim=-1)
    own = collected.embedding - (collected.embedding * common).sum(-1, keepdim=True) * common
    weights = [denoiser.router.gate.weight.detach().cpu() for denoiser in denoisers_of(network)]
    gates = (own @ torch.stack(weights).mT).softmax(-1)  # Eq. 5
    return replace(collected, gates=gates, selected=select_top_k(gates, collected.selected.shape[-1]))


def tsne(embedding: Tensor, perplexity: float = 15.0, seed: int = 0) -> NDArray[np.float64]:
    """Two-dimensional t-SNE (van der Maaten 2008) of (n, d), standardised per dimension first.

    The perplexity is lowered to (n - 1) / 3 where there are few points.
    """
    points = StandardScaler().fit_transform(embedding.double().numpy())
    method = TSNE(perplexity=min(perplexity, (len(points) - 1) / 3), random_state=seed, init="pca")
    return np.asarray(method.fit_transform(points), dtype=np.float64)


def neighbour_accuracy(
    embedding: Tensor, labels: tuple[str, ...], volumes: tuple[str, ...], neighbours: int = 5
) -> float:
    """How often a slice's label is guessed from its nearest neighbours in the embedding, of other volumes only.

    Slices of the same volume would give the answer away. Uses all dimensions, so unlike a t-SNE picture it cannot
    flatter.
    """
    points = StandardScaler().fit_transform(embedding.double().numpy())
    classifier = KNeighborsClassifier(neighbours)
    guessed = cross_val_predict(classifier, points, np.array(labels), groups=volumes, cv=LeaveOneGroupOut())
    return float(np.mean(guessed == np.array(labels)))
