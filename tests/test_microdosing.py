"""The codec of chapter 6: sizes, exact entropy parameters, MicroRN, streams. Tiny models with seeded random weights."""

from __future__ import annotations

import dataclasses
import zlib
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from lib.coding import LARGEST, BitstreamError, SymbolDecoder, SymbolEncoder
from lib.errors import UserError
from lib.microdosing import film, motion, side, stream
from lib.microdosing.codec import Codec, LatentCoder, latent_size
from lib.microdosing.config import MicroConfig, ModelConfig, MotionConfig
from lib.microdosing.model import (
    ChannelNorm,
    Discriminator,
    Encoder,
    Generator,
    HiFiC,
    HyperPrior,
    gaussian_cdfs,
    parameters,
    scale_table,
)
from lib.microdosing.motion import MotionPrior
from lib.microdosing.profile import multiplications
from lib.microdosing.stream import Stream
from lib.microdosing.student import MicroRN
from lib.microdosing.tasks import coded

TRAIN = {"steps": 2, "batch_size": 2, "lr": 1e-3}
MICRO = MicroConfig(channels=4, blocks=1, kernel=1, code=8)


def tiny_codec(seed: int = 0) -> Codec:
    """Latents that carry something, and a prior whose scales differ."""
    torch.manual_seed(seed)
    model = HiFiC(ModelConfig(width=2, encoder_width=4, latent=6, hyper=8, blocks=1))
    settings = {"hidden": 8, "hyper": 8, "rate": 1.0, "mse": 0.1, "lpips": 0.0, "shift": 2.0, "crop": 64}
    moving = MotionPrior(6, MotionConfig.model_validate(settings | {"train": TRAIN}))
    with torch.no_grad():
        for block in model.generator.residual:
            block.body[4].weight.normal_()
        for prior in (model.prior, moving.prior):
            prior.scales[4].weight.mul_(20)
            prior.means[4].weight.mul_(10)
            prior.analysis[4].weight.mul_(10)
            prior.freeze()
    return Codec(model, moving)


def tiny_student(seed: int = 0) -> MicroRN:
    torch.manual_seed(seed)
    student = MicroRN(32, MICRO)
    torch.nn.init.normal_(student.last.weight, std=0.2)
    return student


def clip(count: int = 5, height: int = 70, width: int = 90) -> list[np.ndarray]:
    """Blocks that move to the right by two pixels a frame."""
    rng = np.random.default_rng(0)
    picture = rng.integers(30, 220, (-(-height // 8), -(-width // 8), 3)).astype(np.uint8).repeat(8, 0).repeat(8, 1)
    return [np.ascontiguousarray(np.roll(picture, 2 * i, 1)[:height, :width]) for i in range(count)]


@pytest.fixture(scope="module")
def codec() -> Codec:
    return tiny_codec()


@pytest.fixture(scope="module")
def data(codec) -> bytes:
    return codec.compress_sequence(clip(), tiny_student(), group=3)


# --------------------------------------------------------------------------------------------------------------- sizes


def test_published_sizes():
    """Counts that follow from the published layer list."""
    with torch.device("meta"):
        generator = Generator(60, 220, 9)
        encoder = Encoder(60, 220)
        prior = HyperPrior(220, 320)
    assert parameters(generator.head) == 1_904_120
    assert parameters(generator.residual) == 149_351_040
    assert parameters(generator.last) == 5_519_523
    assert parameters(generator) == 156_774_683
    assert parameters(encoder) == 7_423_420
    assert sum(map(parameters, (prior.analysis, prior.means, prior.scales))) == 17_263_480


def test_published_operations():
    """Multiply-accumulates of one output pixel, by stage."""
    with torch.device("meta"):
        generator = Generator(60, 220, 9)
        y, features = torch.empty(1, 220, 4, 4), torch.empty(1, 960, 4, 4)
    pixels = 64 * 64
    assert multiplications(lambda: generator.head(y)) / pixels == 9 * 220 * 960 / 256
    assert multiplications(lambda: generator.residual(features)) / pixels == 18 * 9 * 960**2 / 256
    assert multiplications(lambda: generator.tail(features)) / pixels == 4 * 16_200 + 8_820


@pytest.mark.parametrize(
    ("channels", "blocks", "kernel", "millions", "ratio"),
    [
        (16, 3, 3, 0.379, 20.1), (32, 2, 3, 0.698, 19.3), (32, 3, 3, 0.765, 19.2), (64, 3, 3, 1.642, 17.3),
        (32, 3, 1, 0.273, 20.4), (64, 3, 1, 0.659, 19.4), (64, 5, 1, 0.992, 18.6), (96, 3, 1, 1.187, 18.2),
    ],
)  # fmt: skip
def test_student_sizes(channels, blocks, kernel, millions, ratio):
    config = MicroConfig(channels=channels, blocks=blocks, kernel=kernel)
    with torch.device("meta"):
        count = parameters(MicroRN(960, config))
    assert count / 1e6 == pytest.approx(millions, abs=5.1e-4)
    assert 156_774_683 / (156_774_683 - 149_351_040 + count) == pytest.approx(ratio, abs=0.06)


@pytest.mark.parametrize("height, width", [(64, 128), (128, 64)])
def test_shapes(height, width):
    model = HiFiC(ModelConfig(width=2, encoder_width=3, latent=5, hyper=4, blocks=1))
    x = torch.rand(2, 3, height, width)
    latents, image = model(x, torch.tensor([1.0, 2.0]))
    assert latents.y.shape == (2, 5, height // 16, width // 16) == latents.y_hat.shape
    assert image.shape == x.shape and latents.bits.shape == (2,)
    logits = Discriminator(5, 4)(x, latents.y_hat)
    assert logits.shape == (2, 1, height // 8 - 1, width // 8 - 1)


def test_channel_norm():
    x, norm = torch.randn(2, 6, 5, 7), ChannelNorm(6)
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)
    expected = (x - x.mean(1, keepdim=True)) / torch.sqrt(x.var(1, keepdim=True, unbiased=True) + 1e-3)
    expected = expected * norm.weight.view(1, -1, 1, 1) + norm.bias.view(1, -1, 1, 1)
    torch.testing.assert_close(norm(x), expected, rtol=1e-5, atol=1e-5)


# ------------------------------------------------------------------------------------------------------------- MicroRN


def test_folding_changes_nothing_but_size():
    student = tiny_student()
    h = torch.randn(1, 32, 4, 5)
    tensors = student.folded()
    assert {name: tuple(tensor.shape) for name, tensor in tensors.items()} == MicroRN.shapes(32, MICRO)
    assert sum(tensor.numel() for tensor in tensors.values()) < parameters(student)
    # once more, written with the modules
    f = x = student.first(h)
    r = student.code

    def aware(number, x):
        part = student.aware[number]
        kernel = part.kernel(r).view(-1, 1, 3, 3)
        y = torch.nn.functional.conv2d(x, kernel, padding=1, groups=x.shape[1])
        y = part.mix(torch.nn.functional.leaky_relu(y, 0.1))
        return y + x * torch.sigmoid(part.attention(r)).view(1, -1, 1, 1)

    leaky = torch.nn.LeakyReLU(0.1)
    x = student.plain[1](leaky(aware(1, leaky(student.plain[0](leaky(aware(0, x))))))) + x
    expected = student.last(student.plain[2](x) + f)
    torch.testing.assert_close(student(h), expected)


def test_untrained_student_leaves_the_head_as_it_is():
    assert not MicroRN(32, MICRO)(torch.randn(1, 32, 4, 4)).any()


@pytest.mark.parametrize("bits", [8, 6, 4, 2])
def test_side_information_round_trip(bits):
    student = MicroRN(32, MicroConfig(channels=8, blocks=2, kernel=3, code=16))
    torch.nn.init.normal_(student.last.weight)
    packed = side.pack(student.folded(), student.config, bits)
    found, stored = side.unpack(packed, 32)
    expected = side.quantise_through(student.folded(), bits)
    assert stored == bits and list(found) == list(expected)
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor.detach(), rtol=0, atol=1e-6)
    count = sum(tensor.numel() for tensor in expected.values())
    assert 8 * len(packed) < (bits + 0.5) * count + 8 * 400  # no more than without an entropy coder


def test_quantised_training_passes_the_gradient():
    student = tiny_student()
    MicroRN.run(side.quantise_through(student.folded(), 4), torch.randn(1, 32, 4, 4)).sum().backward()
    assert student.code.grad is not None and bool(student.first.weight.grad.any())


# ------------------------------------------------------------------------------------------------------------- entropy


def test_tables():
    cdfs = gaussian_cdfs()
    assert len(cdfs) == 64 and all(min(np.diff(cdf)) >= 1 and cdf[-1] == 65536 for cdf in cdfs)
    for scale, cdf in zip(scale_table(), cdfs, strict=True):
        mass, k = np.diff(cdf) / 65536, len(cdf) // 2 - 1
        assert np.allclose(mass, mass[::-1], atol=2e-5)
        # the Gaussian of that scale, but for the share that the rarest symbols get on top, and what lies outside
        edges = torch.special.ndtr(torch.from_numpy(np.arange(-k, k + 2) - 0.5) / scale).numpy()
        assert np.abs(mass - np.diff(edges)).sum() < 2 * len(mass) / 65536 + 2 * edges[0] + 1e-3
    # golden value: another machine must build the same tables
    assert zlib.crc32(repr(cdfs).encode()) == 0x21D9538E


def test_entropy_parameters_do_not_depend_on_threads(codec):
    prior = codec.model.prior
    z = np.random.default_rng(1).integers(-5, 6, (8, 6, 9)).astype(np.int32)
    before = torch.get_num_threads()
    found = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append(prior.parameters_of(z, 1.0))
    finally:
        torch.set_num_threads(before)
    for means, index in found[1:]:
        assert torch.equal(means, found[0][0]) and np.array_equal(index, found[0][1])
    # whole maps and parts of them, away from the border, agree to the bit too
    means, index = prior.parameters_of(z[:, :4], 1.0)
    assert torch.equal(means[:, :4], found[0][0][:, :4]) and np.array_equal(index[:, :4], found[0][1][:, :4])


def test_exact_parameters_are_those_of_the_network(codec):
    prior = codec.model.prior
    z = np.random.default_rng(2).integers(-3, 4, (8, 3, 3)).astype(np.int32)
    means, index = prior.parameters_of(z, 1.0)
    with torch.no_grad():
        float_means = prior.means(torch.from_numpy(z)[None].float())[0]
        scale = torch.nn.functional.softplus(prior.scales(torch.from_numpy(z)[None].float()))[0].numpy()
    assert float((means - float_means).abs().max()) < 0.02
    table = scale_table()[index]
    ratio = table[(scale > 0.12) & (scale < 250)] / scale[(scale > 0.12) & (scale < 250)]
    assert len(np.unique(index)) > 5 and 0.9 < ratio.min() and ratio.max() < 1.1
    coarser = prior.parameters_of(z, 2.0)[1]
    assert (coarser <= index).all() and (coarser < index).any()


def test_huge_hyper_latents_stay_finite(codec):
    z = np.full((8, 1, 1), LARGEST, np.int32)
    means, index = codec.model.prior.parameters_of(z, 1.0)
    assert torch.isfinite(means).all() and index.min() >= 0 and index.max() <= 63


def test_estimated_rate_is_that_of_the_stream(codec):
    frame = clip(1, 128, 192)[0]
    x = codec._tensor(frame)
    for step in (0.25, 1.0):
        _, bpp = coded(codec.model, x, step)
        real = 8 * sum(Stream(codec.compress_sequence([frame], step=step)).header.lengths) / (128 * 192)
        assert real == pytest.approx(float(bpp), rel=0.03, abs=0.01)


def test_latents_round_trip_with_escapes(codec):
    y = torch.randn(1, 6, 8, 12) * 3
    y[0, 0, 0, 0] = 5000.0
    encoder = SymbolEncoder(codec.latents.tables)
    sent = codec.latents.put(encoder, y, 0.5)
    decoder = SymbolDecoder(codec.latents.tables, encoder.finish(), codec.latents.count(8, 12))
    received = codec.latents.get(decoder, 8, 12, 0.5)
    decoder.finish()
    assert torch.equal(sent, received)
    assert float((y - received).abs().max()) <= 0.25 + 1e-3


# ------------------------------------------------------------------------------------------------------------- streams


@pytest.mark.parametrize("size", [(16, 16), (70, 90), (64, 128), (1, 5)])
@pytest.mark.parametrize("group", [1, 3])
def test_round_trip(codec, size, group):
    frames = clip(4, *size)
    data = codec.compress_sequence(frames, tiny_student(), group=group, rate=Fraction(30000, 1001))
    header = Stream(data).header
    assert (header.height, header.width) == size and header.rate == Fraction(30000, 1001)
    assert header.keys == tuple(i % group == 0 for i in range(4))
    decoded = list(codec.decompress_sequence(data))
    assert len(decoded) == 4 and all(f.shape == (*size, 3) and f.dtype == np.uint8 for f in decoded)
    assert data == codec.compress_sequence(frames, tiny_student(), group=group, rate=Fraction(30000, 1001))


def test_the_decoder_shows_what_the_encoder_meant(codec):
    frame = clip(1)[0]
    weights = side.unpack(side.pack(tiny_student().folded(), MICRO, 8), 32)[0]
    data = codec.compress_sequence([frame], tiny_student())
    opened = codec.open(data)
    assert np.array_equal(next(codec.decompress_sequence(data)), codec.image(codec.latent(opened, 0), weights, 70, 90))
    teacher = codec.compress_sequence([frame])
    assert Stream(teacher).header.side == 0
    assert not np.array_equal(next(codec.decompress_sequence(teacher)), next(codec.decompress_sequence(data)))


def test_random_access_at_key_frames(codec, data):
    whole = list(codec.decompress_sequence(data))
    for first in range(5):
        found = list(codec.decompress_sequence(data, first, 1))
        assert len(found) == 1 and np.array_equal(found[0], whole[first])
    # frames before the key frame are not read: they may be damaged
    opened = Stream(data)
    start = opened._starts[0]
    damaged = data[:start] + bytes(opened.header.lengths[0]) + data[start + opened.header.lengths[0] :]
    assert np.array_equal(next(codec.decompress_sequence(damaged, 4, 1)), whole[4])
    with pytest.raises(BitstreamError, match="frame 0"):
        list(codec.decompress_sequence(damaged))
    for first, count in ((5, 1), (-1, 1), (0, 6), (2, 0)):
        with pytest.raises(UserError, match="frames 0 to 4"):
            codec.decompress_sequence(data, first, count)


def test_inter_frames_close_the_loop(codec):
    """The encoder predicts from what the decoder will have: the error does not grow with the number of frames."""
    frames = clip(12)
    data = codec.compress_sequence(frames, tiny_student(), group=12, step=0.25)
    opened = codec.open(data)
    with torch.inference_mode():
        before, y_before = None, None
        weights = side.unpack(opened.side, 32)[0]
        for number, frame in enumerate(frames):
            y_before = codec.latent(opened, number, before, y_before)
            before = codec.image(y_before, weights, 70, 90)
            y = codec.model.encoder(torch.nn.functional.pad(codec._tensor(frame), (0, 38, 0, 58), mode="replicate"))
            assert float((y - y_before).abs().max()) < 0.125 + 1e-2


def test_a_budget_is_met(codec):
    frames = clip(6)
    finest = 8 * len(codec.compress_sequence(frames, step=0.25)) / (70 * 90 * 6)
    step = codec.choose_step(frames, 0.8 * finest)
    spent = 8 * len(codec.compress_sequence(frames, step=step)) / (70 * 90 * 6)
    finer = 8 * len(codec.compress_sequence(frames, step=step - 0.1)) / (70 * 90 * 6)
    assert spent <= 0.8 * finest * 1.02 and finer > 0.78 * finest
    with pytest.raises(UserError, match="at least"):
        codec.choose_step(frames, 1e-3)


@pytest.mark.parametrize(
    ("frames", "options", "message"),
    [
        ([], {}, "no frames"),
        ([*clip(1), *clip(1, 64, 64)], {}, "one size"),
        ([clip(1)[0].astype(float)], {}, "uint8"),
        ([clip(1)[0][:, :, 0]], {}, "uint8"),
        ([np.zeros((1, 20000, 3), np.uint8)], {}, "cannot be coded"),
        (clip(1), {"step": 0}, "step"),
        (clip(1), {"step": float("nan")}, "step"),
        (clip(1), {"group": 0}, "group"),
        (clip(1), {"rate": Fraction(0)}, "frame rate"),
    ],
)
def test_input_that_is_refused(codec, frames, options, message):
    with pytest.raises(UserError, match=message):
        codec.compress_sequence(frames, **options)


def test_more_that_is_refused(codec):
    with pytest.raises(UserError, match="2 to 8 bits"):
        codec.compress_sequence(clip(1), tiny_student(), bits=9)
    with pytest.raises(UserError, match="no trained motion networks"):
        Codec(codec.model).compress_sequence(clip(2), group=2)
    fresh = HiFiC(ModelConfig(width=2, encoder_width=4, latent=6, hyper=8, blocks=1))
    with pytest.raises(UserError, match="no tables"):
        Codec(fresh)


def test_streams_of_others(codec, data):
    other = tiny_codec(1)
    with pytest.raises(BitstreamError, match="written with the model"):
        other.decompress_sequence(data)
    with pytest.raises(BitstreamError, match="written with the motion"):
        Codec(codec.model).decompress_sequence(data)
    still = codec.compress_sequence(clip(2))  # needs no motion networks
    assert len(list(Codec(codec.model).decompress_sequence(still))) == 2
    for foreign in (b"", b"MD", b"\x89PNG\r\n\x1a\n" + bytes(100), bytes(1000)):
        with pytest.raises(BitstreamError):
            Stream(foreign)


def test_every_truncation_is_noticed(data):
    for length in range(0, len(data), 7):
        with pytest.raises(BitstreamError):
            Stream(data[:length])
    with pytest.raises(BitstreamError, match="follow the end"):
        Stream(data + b"x")


def test_damage_is_noticed(codec, data):
    """Flipped bits anywhere: a typed error, nothing else."""
    rng = np.random.default_rng(0)
    for _ in range(60):
        damaged = bytearray(data)
        damaged[rng.integers(len(data))] ^= 1 << rng.integers(8)
        with pytest.raises(BitstreamError):
            list(codec.decompress_sequence(bytes(damaged)))


def test_forged_parts_with_valid_checksums(codec, data):
    """A hostile writer knows the CRC, too: its streams give typed errors or some picture, in bounded memory."""
    opened = Stream(data)
    header = opened.header
    parts = [(key, opened.frame(number)) for number, key in enumerate(header.keys)]
    rng = np.random.default_rng(1)
    for trial in range(60):
        forged, information = [bytearray(part) for _, part in parts], bytearray(opened.side)
        target = information if trial % 3 == 0 else forged[rng.integers(len(forged))]
        for _ in range(int(rng.integers(1, 6))):
            target[rng.integers(len(target))] = rng.integers(256)
        if trial % 5 == 0:
            del target[int(rng.integers(len(target))) :]
        again = stream.pack(
            header, bytes(information), [(k, bytes(p)) for (k, _), p in zip(parts, forged, strict=True)]
        )
        try:
            frames = list(codec.decompress_sequence(again))
        except BitstreamError:
            continue
        assert len(frames) == 5 and frames[0].shape == (70, 90, 3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"width": 0}, "cannot be coded"),
        ({"width": 2**31}, "cannot be coded"),
        ({"width": 16384, "height": 16384}, "cannot be coded"),
        ({"step": 0.0}, "does not know"),
        ({"step": 2.0**20}, "does not know"),
        ({"rate": Fraction(2**31)}, "does not know"),
        ({"motion": stream.NO_MOTION}, "key frame"),
    ],
)
def test_hostile_headers(data, change, message):
    opened = Stream(data)
    parts = [(key, opened.frame(number)) for number, key in enumerate(opened.header.keys)]
    with pytest.raises(BitstreamError, match=message):
        Stream(stream.pack(dataclasses.replace(opened.header, **change), opened.side, parts))


@pytest.mark.parametrize(
    "beside",
    [
        film.Film(Fraction(16, 11)),
        film.Film(times=(7,)),
        film.Film(clock=Fraction(1, 48000), times=(0, 9, 10, 50, 1000)),
        film.Film(companions=b"sound", times=(2**40,)),
    ],
)
def test_films_keep_what_is_beside_the_pictures(data, beside):
    """Aspect, times and companions come back, and any damage is noticed."""
    packed = film.pack(beside, data)
    assert film.unpack(packed) == (beside, data)
    film.check_times(beside, 5)
    for position in range(0, len(packed), 7):
        damaged = bytearray(packed)
        damaged[position] ^= 4
        with pytest.raises(BitstreamError):
            film.unpack(bytes(damaged))
    for end in range(0, len(packed), 11):
        with pytest.raises(BitstreamError):
            film.unpack(packed[:end])


def test_a_film_without_anything_beside_it_is_its_stream(data):
    assert film.pack(film.Film(), data) == data and film.unpack(data) == (film.Film(), data)


@pytest.mark.parametrize(
    ("beside", "message"),
    [
        (film.Film(aspect=Fraction(2**31)), "does not know"),
        (film.Film(clock=Fraction(1, 2**30), times=(0,)), "does not know"),
        (film.Film(times=(3, 3, 4)), "out of order"),
        (film.Film(times=(5, 9)), "2 time stamps for 5 frames"),
    ],
)
def test_hostile_films(data, beside, message):
    with pytest.raises(BitstreamError, match=message):
        film.check_times(film.unpack(film.pack(beside, data))[0], 5)


def test_large_frames_of_a_few_bytes_are_not_decoded(codec, data):
    """A stream that claims sixteen million pixels and has no symbols for them ends at its first symbol out of step."""
    header = dataclasses.replace(Stream(data).header, motion=stream.NO_MOTION, width=2048, height=1024)
    with pytest.raises(BitstreamError):
        list(codec.decompress_sequence(stream.pack(header, b"", [(True, bytes(9))])))


def test_hostile_side_information():
    from lib.coding import varint

    for sizes in ((512, 32, 3, 8), (0, 1, 1, 8), (4, 33, 1, 8), (4, 1, 2, 8), (4, 1, 1, 9), (60000, 1, 1, 8)):
        with pytest.raises(BitstreamError):
            side.unpack(b"".join(map(varint, sizes)) + bytes(4000), 960)


# -------------------------------------------------------------------------------------------------------------- motion


def test_flow_of_a_known_shift():
    rng = np.random.default_rng(0)
    picture = np.kron(rng.integers(0, 255, (24, 24)), np.ones((4, 4)))
    import cv2

    picture = cv2.GaussianBlur(picture.astype(np.uint8), (0, 0), 2)[:, :, None].repeat(3, 2)
    moved = np.roll(picture, (2, 3), (0, 1))
    flow = motion.estimate_flow(moved, picture)
    assert np.median(flow[0]) == -3 * motion.PER_PIXEL and np.median(flow[1]) == -2 * motion.PER_PIXEL
    x = torch.from_numpy(picture).permute(2, 0, 1)[None].float()
    back = motion.move(x, flow)[0].permute(1, 2, 0).numpy()
    inside = (slice(16, -16), slice(16, -16))
    assert np.abs(back - moved)[inside].mean() < np.abs(picture.astype(float) - moved)[inside].mean() / 4


def test_flow_round_trip(codec):
    rng = np.random.default_rng(0)
    flow = rng.integers(-40, 41, (2, *motion.grid(70, 90))).astype(np.int32)
    flow[0, 1, 1] = motion.LARGEST
    encoder = SymbolEncoder(codec.latents.tables)
    motion.put_flow(encoder, flow)
    decoder = SymbolDecoder(codec.latents.tables, encoder.finish(), motion.flow_symbols(70, 90))
    assert np.array_equal(motion.get_flow(decoder, 70, 90), flow)
    decoder.finish()


def test_moving_by_nothing_changes_nothing():
    x = torch.rand(1, 3, 37, 51)
    torch.testing.assert_close(motion.move(x, np.zeros((2, *motion.grid(37, 51)), np.int32)), x, atol=1e-5, rtol=0)


def test_still_pairs_and_their_inverse():
    torch.manual_seed(0)
    x = torch.rand(8, 3, 8, 8).repeat_interleave(8, 2).repeat_interleave(8, 3)
    before, now, back = motion.random_motion(x, 6.0)
    inside = (slice(None), slice(None), slice(12, -12), slice(12, -12))
    assert before.shape == now.shape == x.shape
    assert float((back(before) - now)[inside].abs().mean()) < 0.5 * float((before - now)[inside].abs().mean())


def test_latent_size():
    assert latent_size(1, 1) == (4, 4) and latent_size(144, 176) == (12, 12) and latent_size(128, 65) == (8, 8)


def test_coder_counts_its_symbols(codec):
    assert isinstance(codec.residuals, LatentCoder)
    assert codec.latents.count(8, 12) == 8 * 2 * 3 + 6 * 8 * 12


# ---------------------------------------------------------------------------------------------------------- old streams


def test_a_file_written_before_lib_coding_decodes():
    """Three frames with motion and a student; pixels come from float networks.

    The weights are kept in a file: those that a seed draws differ in their last bits from one processor to another.
    """
    streams = Path(__file__).parent / "golden" / "streams"
    data, weights = (streams / "moving.mdc").read_bytes(), load_file(streams / "moving.safetensors")
    parts = tiny_codec()
    for name, part in (("model.", parts.model), ("motion.", parts.motion)):
        part.load_state_dict({key.removeprefix(name): value for key, value in weights.items() if key.startswith(name)})
    frames = list(Codec(parts.model, parts.motion).decompress_sequence(data))
    assert len(frames) == 3 and frames[0].shape == (70, 90, 3)
    assert [float(frame.mean()) for frame in frames] == pytest.approx([121.011, 120.946, 121.0], abs=0.05)
