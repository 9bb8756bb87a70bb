"""The router of Eqs. 3 to 5, its cached inputs, and how weights are made."""

import pytest
import torch
from torch import Tensor

from morelib.routing import Router, SampleRouting, losses_of
from morelib.routing.cache import InputCache
from morelib.routing.router import router_input


def _features(batch: int = 1, height: int = 32, width: int = 24, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    widths = (3, 4, 5)
    return [
        torch.randn(batch, c, height >> level, width >> level, generator=generator)
        for level, c in enumerate(widths)
    ]


def _router(n_experts: int = 4, **options: object) -> Router:
    torch.manual_seed(0)
    router = Router(12, n_experts, embedding=16, **options)  # type: ignore[arg-type]
    torch.nn.init.normal_(router.gate.weight)
    return router


def test_input_has_the_smallest_levels_size_and_all_channels_and_no_gradient() -> None:
    features = [level.requires_grad_() for level in _features(2)]
    for crop in ("centre", "pool"):
        inputs = router_input(features, crop)  # type: ignore[arg-type]
        assert inputs.shape == (2, 12, 8, 6)
        assert not inputs.requires_grad


def test_centre_crop_sees_the_centre_only_and_pooling_sees_everything() -> None:
    features = _features()
    edited = [level.clone() for level in features]
    edited[0][..., 0, 0] += 100.0
    assert torch.equal(router_input(features, "centre"), router_input(edited, "centre"))
    assert not torch.equal(router_input(features, "pool"), router_input(edited, "pool"))


def test_all_experts_start_equal() -> None:
    gates = Router(12, 5)(router_input(_features(3))).gates
    torch.testing.assert_close(gates, torch.full((3, 5), 0.2))


def test_gates_are_the_softmax_of_the_logits() -> None:
    output = _router()(router_input(_features(3)))
    torch.testing.assert_close(output.gates, output.logits.softmax(-1))
    assert output.embedding.shape == (3, 16)


def test_reduced_width_has_fewer_parameters() -> None:
    def count(module: Router) -> int:
        return sum(parameter.numel() for parameter in module.parameters())

    assert count(_router(width=4)) < count(_router())


def test_a_router_batch_may_come_in_parts() -> None:
    parts = [torch.randn(n, 20, 6, 5) for n in (1, 3)]
    for options in ({}, {"width": 4}, {"standardise": True}):
        torch.manual_seed(0)
        router = Router(20, 4, **options)
        for together, apart in zip(router(torch.cat(parts)), router(*parts), strict=True):
            torch.testing.assert_close(together, apart)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_autocast_does_not_reach_the_router(dtype: torch.dtype) -> None:
    """Features may come in a short format; what is made of them has the precision of the weights."""
    router = _router()
    features = [[level.to(dtype) for level in _features(8, seed=seed)] for seed in range(2)]
    records = []
    for enabled in (False, True):
        routing = SampleRouting(top_k=2, cached_inputs=4)
        with torch.autocast("cpu", torch.bfloat16, enabled):
            for batch in features:
                weights, record = routing(router, batch, training=True)
        records.append([weights, *record[:4], *losses_of([record])])
    assert records[1][1].dtype == torch.float32
    assert all(torch.equal(*pair) for pair in zip(*records, strict=True))


def test_standardising_survives_a_batch_of_one_without_cache() -> None:
    routing = SampleRouting(top_k=1, cached_inputs=4)
    router = _router(standardise=True)
    for seed in range(3):
        weights, record = routing(router, _features(1, seed=seed), training=True)
        assert torch.isfinite(weights).all() and torch.isfinite(record.embedding).all()


def test_noise_changes_the_selection_and_nothing_else() -> None:
    router, features = _router(), _features(8)
    calm, noisy = SampleRouting(top_k=2, cached_inputs=0), SampleRouting(top_k=2, cached_inputs=0)
    noisy.tau = 10.0
    torch.manual_seed(0)
    calm_weights, calm_record = calm(router, features, training=True)
    noisy_weights, noisy_record = noisy(router, features, training=True)
    assert not torch.equal(calm_record.selected, noisy_record.selected)
    for field in ("logits", "gates", "embedding"):
        assert torch.equal(getattr(calm_record, field), getattr(noisy_record, field))
    assert torch.equal(calm_weights, noisy_weights)


def test_evaluation_has_no_noise_no_router_batch_and_leaves_the_cache_alone() -> None:
    routing, router = SampleRouting(top_k=2), _router()
    routing.tau = 10.0
    _, first = routing(router, _features(8), training=False)
    _, second = routing(router, _features(8), training=False)
    assert torch.equal(first.selected, second.selected)
    assert first.router_batch is None
    assert not len(routing.cache)


def test_cached_inputs_change_the_losses_and_not_the_decision() -> None:
    router = _router()
    alone, helped = SampleRouting(top_k=1, cached_inputs=0), SampleRouting(top_k=1, cached_inputs=4)
    for seed in range(1, 4):
        helped(router, _features(1, seed=seed), training=True)
    weights_alone, record_alone = alone(router, _features(), training=True)
    weights_helped, record_helped = helped(router, _features(), training=True)
    assert torch.equal(record_alone.selected, record_helped.selected)
    torch.testing.assert_close(weights_alone, weights_helped)
    assert losses_of([record_alone]).aux != losses_of([record_helped]).aux


def test_cached_inputs_are_routed_with_the_current_weights() -> None:
    routing, router = SampleRouting(top_k=1, cached_inputs=4), _router()
    routing(router, _features(seed=1), training=True)
    _, before = routing(router, _features(seed=2), training=True)
    routing.cache.load_state(routing.cache.state()[:1])
    with torch.no_grad():
        router.gate.weight.mul_(3.0)
    _, after = routing(router, _features(seed=2), training=True)
    assert losses_of([before]).z != losses_of([after]).z


def test_images_of_different_size_share_a_cache() -> None:
    routing, router = SampleRouting(top_k=1, cached_inputs=4), _router()
    for seed, (height, width) in enumerate([(32, 24), (40, 24), (32, 24), (24, 48)]):
        _, record = routing(router, _features(1, height, width, seed), training=True)
    assert torch.isfinite(losses_of([record]).aux)
    assert len(routing.cache.batches()) == 3


def test_cache_is_first_in_first_out_and_cropped() -> None:
    cache = InputCache(capacity=3, window=(2, 2))
    for value in range(5):
        cache.push(torch.full((1, 1, 4, 6), float(value)))
    assert [entry.shape for entry in cache.state()] == [(1, 2, 2)] * 3
    assert [entry.mean().item() for entry in cache.state()] == [2, 3, 4]


def test_cache_of_any_sizes_keeps_what_a_list_would_keep() -> None:
    torch.manual_seed(0)
    cache, kept = InputCache(capacity=5, window=(4, 4)), []
    for step in range(40):
        pushed = torch.randn(1 + step % 2, 2, 3 + (step % 7 > 4), 4)
        cache.push(pushed)
        kept = [*kept, *pushed][-5:]
        assert len(cache) == len(kept)
        assert all(map(torch.equal, cache.state(), kept))
        if step % 3:  # what was pushed last settles, or waits
            by_size = cache.batches()
            assert sum(len(part) for parts in by_size for part in parts) == len(kept)
            assert all(map(torch.equal, cache.state(), kept))
        if step % 11 == 10:
            cache.load_state(cache.state())


def test_a_full_cache_of_one_size_stays_where_it_is() -> None:
    cache, moved = InputCache(capacity=3, window=(2, 2)), []
    for value in range(8):
        (entries,) = [*cache.batches(), [None]][0]
        cache.push(torch.full((1, 1, 2, 2), float(value)))
        moved.append((cache.moved, entries is not None and entries.data_ptr()))
    assert len(set(moved[4:])) == 1 and moved[3] != moved[2]
    assert [entry.mean().item() for entry in cache.state()] == [5, 6, 7]


@pytest.mark.parametrize("top_k", [1, 2, 4])
def test_gate_scales(top_k: int) -> None:
    router, features = _router(), _features(3)
    weights = {}
    for scale in ("paper", "renormalise", "n_over_k"):
        routing = SampleRouting(top_k=top_k, gate_scale=scale)  # type: ignore[arg-type]
        weights[scale], record = routing(router, features, training=False)
    torch.testing.assert_close(weights["paper"], record.gates)
    torch.testing.assert_close(weights["renormalise"].gather(-1, record.selected).sum(-1), torch.ones(3))
    torch.testing.assert_close(weights["n_over_k"], record.gates * 4 / top_k)


def test_the_reconstruction_can_be_kept_from_training_the_router() -> None:
    router, features = _router(), _features(2)
    assert SampleRouting(gate_gradient=True)(router, features, training=False)[0].requires_grad
    assert not SampleRouting(gate_gradient=False)(router, features, training=False)[0].requires_grad
