"""Chapter 7: the model's properties, its data, what is measured and its commands."""

from __future__ import annotations

import functools
import json
import math
import runpy
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from lib import config, dynamics, paths, store, training
from lib.data import people, sprites
from lib.dynamics import baselines, evaluate, experiments, faces, factors, model, real, sources, truth
from lib.errors import UserError
from lib.store import from_rows

SMOKE = config.load("07_disentangled_dynamics", "smoke")


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def tiny(channels: int = 3, **changes) -> model.DisentanglingModel:
    return experiments.disentangler(channels, SMOKE.sprites.model_copy(update=changes)).eval()


# ---------------------------------------------------------------------------------------------------------------- model


def test_static_code_does_not_depend_on_the_order():
    found, frames = tiny(), torch.rand(3, 6, 3, 64, 64)
    with torch.no_grad():
        before = found.static(frames).mean
        after = found.static(frames[:, torch.tensor([4, 2, 0, 5, 1, 3])]).mean
    torch.testing.assert_close(before, after, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(before, found.static(torch.rand(3, 6, 3, 64, 64)).mean, atol=1e-4)


def test_pairs_are_encoded_a_few_at_a_time(monkeypatch):
    """Else all pairs of forty sequences of 28 frames take fourteen gigabytes."""
    found, frames, sizes = tiny(), torch.rand(2, 5, 3, 64, 64), []
    with torch.no_grad():
        whole = found.static(frames).mean
        monkeypatch.setattr(model, "AT_ONCE", 6)
        found.pair_encoder.trunk.register_forward_pre_hook(lambda _, given: sizes.append(len(given[0])))
        torch.testing.assert_close(found.static(frames).mean, whole, rtol=1e-5, atol=1e-6)
    assert max(sizes) <= 6 and sum(sizes) == 2 * 20


@pytest.mark.parametrize(("count", "pairs"), [(1, 1), (2, 2), (5, 20)])
def test_all_pairs_are_those_of_different_frames(count, pairs):
    found = model.all_pairs(count).tolist()
    assert len(found) == len({tuple(p) for p in found}) == pairs
    assert count == 1 or all(i != j for i, j in found)


def test_random_pairs_do_not_repeat_while_there_are_others():
    assert len({tuple(p) for p in experiments.random_pairs(4, 12).tolist()}) == 12
    assert experiments.random_pairs(1, 3).tolist() == [[0, 0]] * 3


def test_pairs_are_seen_together():
    """The features of a pair are no sum of those of its frames: a CNN sees both at once."""
    encoder = tiny().pair_encoder
    a, b, c, d = torch.rand(4, 1, 1, 3, 64, 64)
    pair = torch.tensor([[0, 1]])

    def mean(x, y):
        return encoder(torch.cat([x, y], 1), pair).mean

    with torch.no_grad():
        crossed = mean(a, b) + mean(c, d) - mean(a, d) - mean(c, b)
    assert crossed.abs().max() > 1e-5


def test_prior_is_a_density_with_and_without_its_condition():
    prior = model.DynamicPrior(static=4, dynamic=1, components=5, hidden=8)
    axis = torch.linspace(-20, 20, 8001)[:, None]
    with torch.no_grad():
        for keep in (True, False):
            given = torch.randn(1, 4).expand(len(axis), -1)
            density = prior.log_prob(axis, given, torch.full((len(axis),), keep)).exp()
            assert density.sum().item() * 40 / 8000 == pytest.approx(1, abs=1e-3)


def test_dropped_condition_hides_the_static_code():
    prior, d = model.DynamicPrior(4, 2, 3, 8), torch.randn(6, 2)
    with torch.no_grad():
        seen = [prior.log_prob(d, torch.randn(6, 4), torch.ones(6, dtype=torch.bool)) for _ in range(2)]
        hidden = [prior.log_prob(d, torch.randn(6, 4), torch.zeros(6, dtype=torch.bool)) for _ in range(2)]
    assert not torch.allclose(*seen)
    assert torch.equal(*hidden)


def test_samples_of_the_prior_follow_its_density():
    prior = model.DynamicPrior(2, 1, 3, 8)
    static = torch.zeros(20_000, 2)
    with torch.no_grad():
        drawn = prior.sample(static)[:, 0]
        axis = torch.linspace(-10, 10, 2001)
        density = prior.log_prob(axis[:, None], static[: len(axis)]).exp()
        below = torch.cumsum(density, 0) * 0.01
    for threshold in (-1.0, 0.0, 1.0):
        expected = below[(axis - threshold).abs().argmin()].item()
        assert (drawn < threshold).float().mean().item() == pytest.approx(expected, abs=0.02)


def test_divergences_are_those_of_torch():
    q = model.Gaussian(torch.randn(5, 3), torch.randn(5, 3))
    ours = torch.distributions.Normal(q.mean, (0.5 * q.log_var).exp())
    standard = torch.distributions.Normal(0.0, 1.0)
    torch.testing.assert_close(q.kl_standard(), torch.distributions.kl_divergence(ours, standard).sum(1))
    x = torch.randn(5, 3)
    torch.testing.assert_close(q.log_prob(x), ours.log_prob(x).sum(1))


def test_bound_falls_with_noise_and_counts_each_term():
    found, frames = tiny(), torch.rand(2, 3, 3, 64, 64)
    terms = found.terms(frames, frames, model.all_pairs(3))
    assert terms.kl_static >= 0
    assert terms.loss(2.0, 3.0).item() == pytest.approx(
        (terms.reconstruction + 2 * terms.kl_static + 3 * terms.kl_dynamic).item(), rel=1e-6
    )
    squared = (terms.frames - frames).square().sum().item() / 6
    assert terms.reconstruction.item() == pytest.approx(squared / (2 * found.sigma**2), rel=1e-4)


def test_shared_error_is_that_of_a_correlated_gaussian():
    """The quadratic form of the covariance sigma^2 I + shared^2 11^T between the frames, pixel by pixel."""
    decoded, frames = torch.rand(2, 3, 1, 4, 4), torch.rand(2, 3, 1, 4, 4)
    covariance = 0.3**2 * torch.eye(3) + 0.2**2 * torch.ones(3, 3)
    error = (decoded - frames).flatten(2)  # (sets, frames, pixels)
    expected = 0.5 * torch.einsum("nup,uv,nvp->n", error, torch.linalg.inv(covariance), error).mean() / 3
    torch.testing.assert_close(model.reconstruction_error(decoded, frames, 0.3, 0.2), expected)
    squared = error.square().sum(2).mean() / (2 * 0.3**2)
    torch.testing.assert_close(model.reconstruction_error(decoded, frames, 0.3, 0.0), squared)


def test_swap_uses_who_of_one_and_what_of_the_other():
    found = tiny()
    frames = torch.rand(2, 4, 3, 64, 64)
    with torch.no_grad():
        static, dynamic = found.codes(frames)
        swapped = found.decode(static[[1]], dynamic[[0]])
        torch.testing.assert_close(swapped[0, 2], found.decoder(torch.cat([static[1], dynamic[0, 2]])[None])[0])


def test_context_is_not_what_is_explained():
    """A frame to explain may not reach the static code of its own set: the gradient is zero."""
    task = training.build_task("dynamics", "sprites", SMOKE, 0)
    frames = torch.rand(2, task.count, 3, 64, 64, requires_grad=True)
    context, targets = frames.split([SMOKE.sprites.context, SMOKE.sprites.targets], 1)
    task.model.static(context, model.all_pairs(SMOKE.sprites.context)).mean.sum().backward()
    used = frames.grad.abs().sum((2, 3, 4))[0] > 0
    assert used.tolist() == [True] * context.shape[1] + [False] * targets.shape[1]


# ----------------------------------------------------------------------------------------------------------------- data


def test_sprites_have_their_factors():
    numbers = np.array([0, 7, 1295])
    assert sprites.attributes(numbers).tolist() == [[0, 0, 0, 0], [0, 0, 1, 1], [5, 5, 5, 5]]
    train, test = sprites.split("train"), sprites.split("test")
    assert (len(train), len(test)) == (1000, 296)
    assert not set(train) & set(test)
    with pytest.raises(UserError, match="train, test"):
        sprites.split("valid")
    with pytest.raises(UserError, match="lpc, drawn"):
        sprites.Sprites("photo")


def test_each_factor_of_the_drawn_sprites_shows():
    found = sprites.sprites("drawn")
    base = found.frames(np.array([0]), np.array([1]), np.array([3]))[0].astype(int)
    for step in (216, 36, 6, 1):  # body, bottomwear, topwear, hair
        other = found.frames(np.array([step]), np.array([1]), np.array([3]))[0].astype(int)
        assert np.abs(other - base).max() > 30
    assert np.abs(found.frames(np.array([0]), np.array([2]), np.array([3]))[0] - base).max() > 30
    clip = found.clips(np.array([0]), np.array([4]))
    assert clip.shape == (1, 8, 64, 64, 3)
    assert len({frame.tobytes() for frame in clip[0]}) >= 4


def test_sets_of_sprites_hold_one_character():
    source = sources.SpriteSets("drawn", "test", "clip")
    assert source.draw(3, 5).shape == (3, 5, 3, 64, 64)
    frames, actions, attributes = source.clips(4)
    assert frames.shape == (4, 8, 3, 64, 64)
    assert 0 <= frames.min() and frames.max() <= 1
    assert actions.shape == (4,) and attributes.shape == (4, 4)


def test_digits_are_where_their_state_says():
    source = sources.DigitSets("test")
    digit = source.images[:1].float() / 255
    rows, columns = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")

    def centre(*state):
        picture = source.place(digit, torch.tensor([state]))[0, 0]
        return (picture * columns).sum() / picture.sum(), (picture * rows).sum() / picture.sum()

    x0, y0 = centre(0.0, 0.0, 0.0)
    x1, y1 = centre(1.0, -0.5, 0.0)
    assert (x1 - x0).item() == pytest.approx(source.reach, abs=0.3)
    assert (y1 - y0).item() == pytest.approx(-0.5 * source.reach, abs=0.3)
    upright, turned = (source.place(digit, torch.tensor([[0.0, 0.0, turn]])) for turn in (0.0, 1.0))
    assert (upright - turned).abs().max() > 0.5
    assert turned.sum().item() == pytest.approx(upright.sum().item(), rel=0.05)


@pytest.mark.parametrize(
    ("sets", "message"),
    [
        ([], "no sequence"),
        ([np.zeros((0, 64, 64, 3), np.uint8)], "empty"),
        ([np.zeros((2, 64, 64, 3), np.float32)], "8-bit"),
        ([np.zeros((2, 64, 64, 3), np.uint8), np.zeros((2, 32, 64, 3), np.uint8)], "64x32x3"),
    ],
)
def test_wrong_sets_are_refused(sets, message):
    with pytest.raises(UserError, match=message):
        sources.FrameSets(sets)


def test_a_set_of_one_frame_is_a_set():
    found = sources.FrameSets([np.full((1, 64, 64, 3), 9, np.uint8)]).draw(2, 3)
    assert found.shape == (2, 3, 3, 64, 64)
    assert (found == 9 / 255).all()


def test_augmentation_is_one_for_all_frames_of_a_set():
    image = np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3), np.uint8)
    found = faces.AugmentedSets([np.repeat(image, 4, 0)]).draw(3, 4)
    torch.testing.assert_close(found[:, :1].expand_as(found), found)
    assert not torch.allclose(found[0], found[1])


def test_people_are_held_out_once_each():
    parts = faces.folds(82, 4)
    assert sorted(np.concatenate(parts)) == list(range(82))


# ------------------------------------------------------------------------------------------------------------- measures


def test_entropies_of_a_perfect_and_of_a_blind_judge():
    perfect = evaluate.entropies(np.eye(9))
    assert perfect["IS"] == pytest.approx(9)
    assert perfect["H(y)"] == pytest.approx(math.log(9))
    assert evaluate.entropies(np.full((5, 9), 1 / 9))["IS"] == pytest.approx(1)


def test_probe_reads_what_is_there_and_nothing_else():
    rng = np.random.default_rng(0)
    labels, groups = rng.integers(0, 3, 900), np.repeat(np.arange(90), 10)
    telling = np.eye(3)[labels] + 0.1 * rng.normal(size=(900, 3))
    assert evaluate.probe(telling, labels, groups) > 0.99
    assert evaluate.probe(rng.normal(size=(900, 3)), labels, groups) < 0.45


class Oracle:
    """Knows the factors: its codes are the labels themselves, and it decodes by drawing."""

    def __init__(self, clips):
        self.clips, self.done = clips, 0

    def codes(self, frames):
        part = slice(self.done, self.done + len(frames))
        self.done = (self.done + len(frames)) % len(self.clips)
        action = torch.from_numpy(self.clips.actions[part]).float()
        time = torch.arange(8.0).expand(len(frames), -1)
        dynamic = torch.stack([action[:, None].expand(-1, 8), time], 2)
        return torch.from_numpy(self.clips.characters[part]).float()[:, None], dynamic

    def decode(self, static, dynamic):
        shape = dynamic.shape[:2]
        characters = static.long()[:, None].expand(-1, shape[1], -1).flatten().numpy()
        actions, times = dynamic.long().flatten(0, 1).T.numpy()
        return sources.as_frames(self.clips.sprites.frames(characters, actions, times)).view(*shape, 3, 64, 64)


class DrawnJudge(torch.nn.Module):
    """Recognises a drawn clip by looking it up among all candidates of the test."""

    def __init__(self, clips):
        super().__init__()
        self.sprites, self.known = clips.sprites, np.unique(clips.characters)
        self.table = {}
        for character in self.known:
            every = self.sprites.clips(np.full(9, character), np.arange(9))
            self.table |= {clip.tobytes(): (character, action) for action, clip in enumerate(every)}

    def forward(self, frames):
        action, looks = torch.zeros(len(frames), 9), torch.zeros(len(frames), 4, 6)
        for k, clip in enumerate(store.to_images(frames)):
            character, act = self.table[clip.tobytes()]
            action[k, act] = 50
            looks[k, range(4), sprites.attributes(np.array([character]))[0]] = 50
        return action, looks


def test_perfect_codes_score_perfectly():
    clips = evaluate.Clips(sources.SpriteSets("drawn", "test"), 40)
    row = evaluate.swaps(Oracle(clips), DrawnJudge(clips), clips)
    assert row["action kept"] == 100
    assert all(row[f"{name} kept"] == 100 for name in sprites.ATTRIBUTES)
    assert row["PSNR"] > 60
    assert row["H(y|x)"] < 1e-6


def test_partners_are_other_characters():
    clips = evaluate.Clips(sources.SpriteSets("drawn", "test"), 200)
    partner = evaluate.other_characters(clips)
    assert (clips.characters[partner] != clips.characters).all()


def test_vae_is_split_by_what_varies_within_sequences():
    vae = baselines.PlainVAE(3, 8, 4, 16, 0.1).eval()
    frames = torch.rand(6, 5, 3, 64, 64)
    with torch.no_grad():
        split = evaluate.SplitVAE(vae, frames, 1)
        static, dynamic = split.codes(frames)
        assert static.shape == (6, 3) and dynamic.shape == (6, 5, 1)
        codes = vae.encode(frames.flatten(0, 1)).mean.view(6, 5, 4)
        share = codes.var(1).mean(0) / codes.flatten(0, 1).var(0)
        assert split.dynamic.item() == share.argmax().item()
        whole = split.decode(codes[:, 0][:, split.static], codes[:, :1][..., split.dynamic])
        torch.testing.assert_close(whole[:, 0], vae.decoder(codes[:, 0]))


def test_ordered_model_depends_on_the_order():
    found = baselines.OrderedModel(3, 8, 4, 3, 16, 0.1).eval()
    frames = torch.rand(2, 8, 3, 64, 64)
    with torch.no_grad():
        assert evaluate.shuffled(found, frames) > 1e-4
        assert evaluate.shuffled(tiny(), frames) < 1e-5
    assert found.terms(frames).loss().isfinite()


def test_pictures_survive_their_table():
    tiles = np.random.default_rng(0).integers(0, 256, (2, 3, 8, 8, 3), np.uint8)
    assert (store.from_rows(store.to_rows(tiles)) == tiles).all()


def test_numbers_of_characters_are_those_of_their_attributes():
    every = np.arange(1296)
    assert (factors.numbers(sprites.attributes(every)) == every).all()


def test_directions_of_a_code_that_adds_them_up_are_found():
    rng = np.random.default_rng(0)
    truth_of = rng.normal(size=(4, 6, 5))
    attributes = rng.integers(0, 6, (400, 4))
    codes = sum(truth_of[k, attributes[:, k]] for k in range(4)) + 3.0
    found = factors.directions(codes, attributes)
    for k in range(4):
        np.testing.assert_allclose(found[k, 4] - found[k, 1], truth_of[k, 4] - truth_of[k, 1], atol=1e-8)


class Factors(Oracle):
    """Its static code is the number of a character, to which each attribute adds its share."""

    def __init__(self, known, clips):
        both = evaluate.Clips(sources.SpriteSets("drawn", "test"), 1)
        both.characters = np.concatenate([known.characters, clips.characters])
        both.actions = np.concatenate([known.actions, clips.actions])
        super().__init__(both)
        self.known = len(known)

    def static(self, frames, pairs):
        static, _ = self.codes(frames)
        return model.Gaussian(static, static)

    def dynamic(self, frames, static):
        self.done = max(self.done, self.known)  # only those of the clips are asked for
        _, dynamic = self.codes(frames)
        return model.Gaussian(dynamic, dynamic)

    def decode(self, static, dynamic):
        return super().decode(static.round().clamp(0, 1295), dynamic)


def test_factors_of_codes_that_add_up_are_exchanged_alone():
    known = evaluate.Clips(sources.SpriteSets("drawn", "train"), 96)
    clips = evaluate.Clips(sources.SpriteSets("drawn", "test"), 6)
    rows = factors.exchanged(Factors(known, clips), clips, known)
    means = rows.groupby("exchanged")[["reached", "collateral"]].mean()
    assert means["reached"].tolist() == pytest.approx([1] * 6)
    assert means["collateral"].tolist() == pytest.approx([0] * 6)


def test_a_swap_that_does_nothing_shows_the_class_of_the_other_digit():
    source = sources.DigitSets("test")
    frames, _ = source.sets(torch.arange(6), 2)
    with torch.no_grad():
        found = tiny(channels=1)
        static, dynamic = found.codes(frames)
    labels = source.labels[:6]

    class Knows(torch.nn.Module):
        def forward(self, images):
            known = [(images[k] - frames[:, 0]).abs().sum((1, 2, 3)).argmin() for k in range(len(images))]
            return torch.nn.functional.one_hot(labels[torch.stack(known)], 10).float()

    rows = evaluate.digit_swaps(found, Knows(), source, frames, static, dynamic)
    assert (rows["real"] == rows["label"]).all()
    assert rows["unswapped"].tolist() == labels.roll(-1).tolist()


def test_rivals_read_the_people_that_they_have_not_seen():
    rows = real.pixels("rendered", 2)
    assert rows.groupby(["method", "protocol"]).size().unique().tolist() == [12]
    nothing = rows[rows["method"] == real.GUESS]
    assert (nothing["smiling"] == nothing["predicted"]).mean() == 0.5


def test_viewers_react_after_the_film_has_asked():
    first = int(truth.moments(60)[0])
    shown = [truth.reactions(seed, 60) for seed in range(40)]
    assert all((expressions[:first] == 0).all() for expressions, _ in shown)
    smiling = np.mean([expressions == truth.SMILE for expressions, _ in shown], 0)
    assert smiling[first + 3] > 0.5
    assert truth.f1(pd.DataFrame({"truth": [1, 1, 0, 0], "found": [1, 0, 1, 0]})) == 0.5


# -------------------------------------------------------------------------------------------------------------- command


@pytest.fixture
def run(call):
    return functools.partial(call, functools.partial(runpy.run_module, "lib.dynamics", run_name="__main__"))


def folder(root: Path, name: str, images) -> Path:
    (root / name).mkdir()
    for number, image in enumerate(images):
        Image.fromarray(image).save(root / name / f"{number:03d}.png")
    return root / name


def test_commands_encode_and_swap(run, tmp_path):
    clip = sprites.sprites("drawn").clips(np.array([5, 600]), np.array([0, 4]))
    who, what = folder(tmp_path, "who", clip[0]), folder(tmp_path, "what", clip[1])
    code, out, err = run("encode", who, tmp_path / "codes.json", "--model", "sprites", "--json")
    assert code == 0, err
    codes = json.loads((tmp_path / "codes.json").read_text())
    assert list(codes["dynamic"]) == [f"{k:03d}.png" for k in range(8)]
    assert json.loads(out)["frames"] == 8
    code, _, err = run("swap", who, what, tmp_path / "swap.png", "--model", "sprites", "--json")
    assert code == 0, err
    with Image.open(tmp_path / "swap.png") as picture:
        assert picture.size == (8 * 64, 2 * 64)


def test_a_timeline_is_labelled_from_a_handful_of_frames(run, tmp_path):
    rng = np.random.default_rng(0)
    kind = np.repeat([0, 1], 20)
    codes = 5.0 * kind[:, None] + rng.normal(size=(40, 2))
    table = pd.DataFrame({"frame": np.arange(40), "seconds": np.arange(40) / 25, "face": 1})
    table[["d1", "d2"]] = codes
    table.loc[39, ["face", "d1", "d2"]] = [0, np.nan, np.nan]
    table.to_csv(tmp_path / "timeline.csv", index=False)
    (tmp_path / "examples.csv").write_text("frame,label\n3,calm\n25,laughing\n8,calm\n")
    files = [tmp_path / name for name in ("timeline.csv", "examples.csv", "out.csv")]
    code, out, err = run("label", *files, "--json", "--plot", tmp_path / "out.png")
    assert code == 0, err
    named = pd.read_csv(tmp_path / "out.csv")
    assert named["label"].tolist() == ["calm"] * 20 + ["laughing"] * 19 + [pytest.approx(np.nan, nan_ok=True)]
    assert json.loads(out)["labels"] == {"calm": 20, "laughing": 19}
    assert (tmp_path / "out.png").stat().st_size > 1000
    for text, told in (
        ("frame,label\n3,calm\n4,calm\n", "two different labels"),
        ("frame,label\n3,calm\n99,sad\n", "no frame of the timeline"),
        ("frame,label\n3,calm\n39,sad\n", "no face was found"),
        ("frame,name\n3,calm\n", "no column 'label'"),
    ):
        (tmp_path / "examples.csv").write_text(text)
        code, _, err = run("label", *files)
        assert code == 2 and told in err and err.count("\n") == 1


def test_footage_without_a_face_is_refused_and_frames_without_one_are_counted(run, tmp_path):
    rng = np.random.default_rng(0)
    noise = folder(tmp_path, "noise", rng.integers(0, 255, (2, 96, 128, 3), np.uint8))
    code, _, err = run("encode", noise, tmp_path / "out.csv")
    assert code == 2 and "no face was found in any of the 2 frames" in err
    assert not (tmp_path / "out.csv").exists()
    from lib.data import actors

    faces_of = [actors.render("alma", {}, actors.Pose(), actors.Light(), size=256).image for _ in range(1)]
    mixed = folder(tmp_path, "mixed", [faces_of[0], np.zeros((256, 256, 3), np.uint8)])
    code, out, err = run("encode", mixed, tmp_path / "out.csv", "--json")
    assert code == 0, err
    assert json.loads(out)["without_face"] == 1 and "no face in 1 of 2 frames" in err
    table = pd.read_csv(tmp_path / "out.csv")
    assert table["face"].tolist() == [1, 0] and table["d1"].isna().tolist() == [False, True]


def test_commands_refuse_in_one_sentence(run, tmp_path):
    rng = np.random.default_rng(0)
    mixed = folder(tmp_path, "mixed", [rng.integers(0, 255, (s, s, 3), np.uint8) for s in (64, 32)])
    (tmp_path / "empty").mkdir()
    broken = folder(tmp_path, "broken", [])
    (broken / "0.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    small = folder(tmp_path, "small", [np.zeros((4, 4, 3), np.uint8)])
    for source, told in (
        (mixed, "one size"),
        (tmp_path / "empty", "holds no picture"),
        (broken, "no image that can be read"),
        (small, "at least 8"),
        (tmp_path / "absent", "is no folder"),
    ):
        with pytest.raises(UserError, match=told):
            dynamics.read_frames(source)
    code, _, err = run("encode", tmp_path / "empty", tmp_path / "out.json")
    assert code == 2
    assert err.startswith("error: ") and err.count("\n") == 1
    assert not (tmp_path / "out.json").exists()
    with pytest.raises(UserError, match="faces, people, sprites, digits"):
        dynamics.load("laptop", model="cars")


def test_real_faces_are_aligned_as_the_shipped_model_saw_them():
    """The first column of the stored grid shows photographs as they were aligned for it."""
    tiles = from_rows(store.read_table(paths.CHECKPOINTS / "dynamics" / "grid_people.csv"))[1:, 0]
    places = []
    for tile in tiles:
        around = np.pad(tile, ((32, 32), (32, 32), (0, 0)), mode="edge")  # the detector wants some room
        points = people.landmarks(np.array(Image.fromarray(around).resize((640, 640), Image.Resampling.BICUBIC)))
        places.append(np.stack([points[36:42].mean(0), points[42:48].mean(0)]) / 5 - 32)
    left, right = np.mean(places, 0) / 64
    assert right[0] - left[0] == pytest.approx(people.DISTANCE, abs=0.01)
    assert (left[1] + right[1]) / 2 == pytest.approx(people.EYES, abs=0.015)
