"""Figures and tables: identical bytes, whole files or none, constant tiles, and diagrams that can be read."""

from __future__ import annotations

import errno
import hashlib
import multiprocessing
import os
import platform
import re
import subprocess
import sys
import types
import zlib
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from matplotlib import font_manager
from PIL import Image

from lib import config, paths, plotting
from lib.errors import UserError


@pytest.fixture(autouse=True)
def figures(tmp_path, monkeypatch):
    """The folder of figures of one test; the style is set, and figures are closed afterwards."""
    monkeypatch.setenv("GMMP_FIGURES", str(tmp_path / "figures"))
    with matplotlib.rc_context():
        plotting.use_style()
        yield tmp_path / "figures"
    plt.close("all")


def lines():
    fig, ax = plt.subplots(figsize=plotting.size(2))
    x = np.linspace(0, 1, 20)
    plotting.curve(ax, x, x**2, "flow")
    ax.set(xlabel=r"$\log_2 x$", title="A finding")
    return fig, pd.DataFrame({"x": x, "y": x**2})


def save_all() -> None:
    """One figure of each kind and a table."""
    fig, data = lines()
    plotting.save(fig, "demo/lines", data=data, caption="Lines.")
    images = torch.linspace(0, 1, 4 * 3 * 8 * 8).reshape(4, 3, 8, 8)
    grid = plotting.image_grid(
        images, cols=2, col_titles=["a", "b"], row_titles=["VAE", "flow"], title="A finding",
        scores=[1, 2.5, "x", None], frames={1: "#d55e00"}, pixelated=True,
    )  # fmt: skip
    plotting.save(grid, "demo/grid", caption="Grid.")
    d = plotting.Diagram(height=1.4)
    x, code = d.image(0.4, 0.7, images[0], 0.5, note="$x$"), d.vector(4.2, 0.7, "$z$", values=[0, 0.5, 1])
    box, encoder = d.box(1.5, 0.7, "$T$"), d.trapezoid(3, 0.7, "encoder", w=1, h=0.8, colour="VAE")
    plus = d.circle(5.4, 0.7, "$+$")
    d.arrow(x, box)
    d.arrow(box, encoder, "$h$", dashed=True)
    d.arrow(encoder, code, both=True)
    d.arrow(code, plus, bend=0.3)
    d.arrow(plus, box, via=[(5.4, 1.25), (1.5, 1.25)])
    d.group([code], "code")
    d.line([(0.1, 0.1), (6, 0.1)])
    plotting.save(d.fig, "demo/diagram", caption="Diagram.")
    plotting.table(data, "demo/table", caption="Table.")


DIGESTS = {"lines": "ce8fb917623533a1", "grid": "d3365e923167f769", "diagram": "a6a0ea6dab3d51ba"}


def contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


# --- writing ---------------------------------------------------------------------------------------------------------


def test_the_same_figure_has_the_same_bytes_in_every_process(figures, tmp_path):
    save_all()
    first = contents(figures)
    assert sorted(first) == sorted(
        [f"demo/{name}.{kind}" for name in ("lines", "grid", "diagram") for kind in ("png", "pdf", "csv")]
        + ["demo/table.csv", "demo/table.md", "demo/captions.yaml"]
    )
    code = "import sys; sys.path[:0] = ['tests', '.']; import test_plotting as t; t.plotting.use_style(); t.save_all()"
    environment = {**os.environ, "GMMP_FIGURES": str(tmp_path / "again"), "PYTHONHASHSEED": "7"}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment, cwd=paths.ROOT)
    assert contents(tmp_path / "again") == first


def digest(folder: Path, name: str) -> str:
    """Of the pixels, the page description and the data: file headers may differ between versions of zlib."""
    with Image.open(folder / f"{name}.png") as png:
        total = hashlib.sha256(np.asarray(png).tobytes())
    pages = re.findall(rb"stream\r?\n(.*?)\r?\nendstream", (folder / f"{name}.pdf").read_bytes(), re.DOTALL)
    total.update(b"".join(zlib.decompress(page) for page in pages if page[:1] == b"x"))
    total.update((folder / f"{name}.csv").read_bytes())
    return total.hexdigest()[:16]


@pytest.mark.skipif(platform.machine() != "x86_64", reason="other processors round glyphs differently")
@pytest.mark.parametrize("name", DIGESTS)
def test_figures_look_as_they_did_before(figures, name):
    """A change of style or of the drawing code shows here; where it is meant, write the new digest down."""
    save_all()
    assert digest(figures / "demo", name) == DIGESTS[name]


def test_files_tell_nothing_about_when_and_with_what_they_were_made(figures):
    fig, data = lines()
    plotting.save(fig, "demo/lines", data=data, caption="Lines.")
    with Image.open(figures / "demo/lines.png") as png:
        assert set(png.info) <= {"dpi"}
        assert png.size == (round(6.3 * 150), 300)
    pdf = (figures / "demo/lines.pdf").read_bytes()
    assert not any(word in pdf for word in (b"CreationDate", b"Producer", b"Matplotlib", b"/Type3"))
    assert b"DejaVuSans" in pdf
    assert not plt.get_fignums()


def test_fonts_are_those_that_matplotlib_carries():
    carried = Path(matplotlib.get_data_path()).resolve()
    assert Path(font_manager.findfont("DejaVu Sans")).resolve().is_relative_to(carried)


def test_csv_holds_what_the_figure_draws(figures):
    fig, data = lines()
    plotting.save(fig, "demo/lines", data=data, caption="Lines.")
    read = pd.read_csv(figures / "demo/lines.csv")
    pd.testing.assert_frame_equal(read, data, rtol=1e-6)
    assert b"\r" not in (figures / "demo/lines.csv").read_bytes()


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ({"x": torch.arange(2), "y": [0.5, 0.25]}, "x,y\n0,0.5\n1,0.25\n"),
        ({"x": torch.tensor([1.5], dtype=torch.bfloat16)}, "x\n1.5\n"),
        ({"a": pd.DataFrame({"x": [1]}), "b": pd.DataFrame({"x": [2]})}, "panel,x\na,1\nb,2\n"),
        (pd.DataFrame({"x": [1.0]}, index=pd.Index(["VAE"], name="model")), "model,x\nVAE,1\n"),
        (pd.DataFrame({"x": [1, 2]}).iloc[::-1], "x\n2\n1\n"),
    ],
)
def test_data_come_as_frames_or_columns(figures, data, expected):
    plotting.save(lines()[0], "demo/lines", data=data, caption="Lines.")
    assert (figures / "demo/lines.csv").read_text() == expected


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (None, "needs data="),
        ({}, "empty"),
        (pd.DataFrame(), "empty"),
        ({"x": [1, 2], "y": [1]}, "differ in length"),
        ({"x": np.zeros((2, 2))}, "not flat"),
        ([1, 2], "not list"),
    ],
)
def test_figures_without_proper_data_are_refused(figures, data, message):
    with pytest.raises(ValueError, match=message):
        plotting.save(lines()[0], "demo/lines", data=data, caption="Lines.")
    assert not figures.exists()


@pytest.mark.parametrize("name", ["lines", "a/b/c", "../a", "/a/b", "a/.b", "a/b.png", "a/"])
def test_names_are_one_folder_and_one_file(name):
    with pytest.raises(ValueError, match="is named"):
        plotting.save(lines()[0], name, data={"x": [1]}, caption="Lines.")


def test_a_caption_is_demanded_and_kept(figures):
    with pytest.raises(ValueError, match="caption"):
        plotting.save(lines()[0], "demo/lines", data={"x": [1]}, caption=" ")
    plotting.save(lines()[0], "demo/b", data={"x": [1]}, caption="Two:\n  $x^2$ of é.")
    plotting.table(pd.DataFrame({"x": [1]}), "demo/a", caption="One.")
    assert plotting.captions("demo") == {"a": "One.", "b": "Two: $x^2$ of é."}
    (figures / "demo/b.csv").unlink()
    plotting.save(lines()[0], "demo/c", data={"x": [1]}, caption="Three.")
    assert list(yaml.safe_load((figures / "demo/captions.yaml").read_text())) == ["a", "c"]
    assert plotting.captions("other") == {}


@pytest.mark.parametrize("text", ["a: [", "- a", "a: 1", "\udcff"])
def test_damaged_captions_are_named(figures, text):
    (figures / "demo").mkdir(parents=True)
    (figures / "demo/captions.yaml").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(UserError, match="captions.yaml"):
        plotting.captions("demo")


def _table(number: int) -> None:
    plotting.table(pd.DataFrame({"x": [number]}), f"demo/table{number}", caption=f"Table {number}.")


def test_captions_of_processes_side_by_side_are_all_kept(figures):
    with multiprocessing.get_context("fork").Pool(4) as pool:
        pool.map(_table, range(24))
    assert len(plotting.captions("demo")) == 24


def test_a_full_disk_leaves_the_old_figure_and_nothing_partial(figures, monkeypatch):
    fig, data = lines()
    plotting.save(fig, "demo/lines", data=data, caption="Lines.")
    before = contents(figures)

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match="cannot write .*lines.png: the disk is full; free some space"):
        plotting.save(lines()[0], "demo/lines", data={"x": [1]}, caption="Other.")
    assert contents(figures) == before


def test_a_folder_that_cannot_be_made_is_explained(figures):
    figures.write_text("a file where the folder should be")
    with pytest.raises(UserError, match="cannot write"):
        plotting.save(lines()[0], "demo/lines", data={"x": [1]}, caption="Lines.")


# --- declared figures and tables -------------------------------------------------------------------------------------


@plotting.declare_figure("lines_{split}", "{settings.seeds:,} seeds, {split}, $x^{{2}}$; {preset}, seed {seed}.")
def declared_lines():
    return lines()


@plotting.declare_figure("grid", "Grid.")
def declared_grid(images):
    """Images side by side."""
    return plotting.image_grid(images)


@plotting.declare_table("scores", "Scores on {data}.", {"x": ".1f", "not here": ".3f", "n": ","}, best={"x": "max"})
def declared_scores():
    return pd.DataFrame({"x": [1.26, 2.0], "n": [12, 12345]})


@pytest.fixture
def shown(monkeypatch):
    """What a notebook would show, as Markdown."""
    texts = []
    monkeypatch.setattr("lib.plotting.display.show_markdown", texts.append)
    monkeypatch.setattr("lib.plotting.display.notebook_shell", object)
    monkeypatch.setattr("IPython.display.display", lambda data, raw: texts.extend(data.keys() & {"image/png"}))
    return texts


def display(**parameters):
    return plotting.Display("09_toy", config.parameters(**parameters), types.SimpleNamespace(seeds=1200))


def test_a_declared_figure_is_written_and_shown_with_its_caption_and_its_numbers(figures, shown):
    display()(declared_lines(), split="test")
    caption = "1,200 seeds, test, $x^{2}$; laptop, seed 0."
    source = '<small>[numbers behind it](../figures/09_toy/lines_test.csv) · `make figures CHAPTERS="09"`</small>'
    assert shown == ["image/png", f"{caption}\n\n{source}"]
    assert plotting.captions("09_toy") == {"lines_test": caption}
    assert {p.suffix for p in (figures / "09_toy").glob("lines_test*")} == {".png", ".pdf", ".csv"}
    assert declared_grid.__doc__ == "Images side by side."


def test_a_figure_that_knows_its_data_needs_no_more(figures, shown):
    display()(declared_grid(torch.rand(2, 4, 4)))
    assert len(pd.read_csv(figures / "09_toy/grid.csv")) == 2


def test_a_declared_table_formats_the_columns_it_has(figures, shown):
    display()(declared_scores(), data="MNIST")
    body = "| x | n |\n| --: | --: |\n| 1.3 | 12 |\n| **2.0** | 12,345 |\n\nScores on MNIST."
    assert shown[0].startswith(f"{body}\n\n<small>")
    assert (figures / "09_toy/scores.md").read_text() == body + "\n"


@pytest.mark.parametrize(
    ("parameters", "note"),
    [
        ({"preset": "smoke", "seed": 3}, '<small>`make figures CHAPTERS="09" PRESET=smoke SEED=3`</small>'),
        ({"retrain": True}, '<small>`make figures CHAPTERS="09" RETRAIN=1`</small>'),
        ({"overrides": {"seeds": 2}}, ""),
    ],
)
def test_a_run_that_is_not_the_standard_one_links_to_no_shipped_numbers(shown, parameters, note):
    display(**parameters)(declared_scores(), data="MNIST")
    assert shown[0].split("\n\n")[-1] == note


@pytest.mark.parametrize(("made", "field"), [(declared_scores, "data"), (declared_lines, "split")])
def test_a_field_of_a_caption_that_nobody_gave_is_named(figures, made, field):
    with pytest.raises(ValueError, match=f"needs '{field}'; pass it"):
        display()(made())
    assert not figures.exists()


def test_whole_tables_are_shown():
    frame = pd.DataFrame({"claim": ["a long claim " * 20], **{f"c{i}": [i] for i in range(30)}})
    with pd.option_context("display.max_colwidth", 50, "display.max_columns", 20, "display.width", 80):
        plotting.show_whole_tables()
        texts = repr(frame), frame._repr_html_()
    assert not any("..." in text for text in texts)
    assert len(texts[0].splitlines()) == 2


# --- tables ----------------------------------------------------------------------------------------------------------


def test_table_shows_stable_digits_and_keeps_all_of_them(figures):
    frame = pd.DataFrame(
        {
            "model": ["VAE", "GAN", "a|b"],
            "bits/dim": [1.25, float("nan"), 1.07840001],
            "bits/dim sd": [0.011, float("nan"), 0.0042],
            "parameters": [120000, 950, 1400000],
            "invertible": [False, False, True],
        }
    )
    shown = plotting.table(frame, "demo/t", caption="Test set.", best={"bits/dim": "min"}, formats={"parameters": ","})
    assert shown.markdown == (
        "| model | bits/dim | parameters | invertible |\n"
        "| :-- | --: | --: | :-- |\n"
        "| VAE | 1.250 ± 0.011 | 120,000 | no |\n"
        "| GAN | – | 950 | no |\n"
        "| a\\|b | **1.078 ± 0.004** | 1,400,000 | yes |\n\nTest set."
    )
    assert shown._repr_mimebundle_() == {"text/markdown": shown.markdown, "text/plain": shown.markdown}
    assert repr(shown) == shown.markdown
    assert (figures / "demo/t.md").read_text() == shown.markdown + "\n"
    pd.testing.assert_frame_equal(pd.read_csv(figures / "demo/t.csv"), frame, rtol=1e-6)


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        ([0.5, 12.25], ["0.50", "12.25"]),
        ([1234.5, 2.0], ["1,234", "2"]),
        ([1e-6, 20.0], ["1e-06", "20"]),
        ([0.0, float("inf")], ["0", "∞"]),
        ([None, "x"], ["–", "x"]),
        (["a\nb"], ["a<br>b"]),
    ],
)
def test_default_digits_of_a_column(column, expected):
    body = plotting.table(pd.DataFrame({"c": column}), "demo/t", caption="T.").markdown.splitlines()[2:-2]
    assert body == [f"| {text} |" for text in expected]


def test_tables_refuse_unknown_columns_and_words():
    frame = pd.DataFrame({"x": [1]})
    with pytest.raises(ValueError, match="no column 'y'; there are x"):
        plotting.table(frame, "demo/t", caption="T.", formats={"y": ".1f"})
    with pytest.raises(ValueError, match="'min' or 'max'"):
        plotting.table(frame, "demo/t", caption="T.", best={"x": "most"})


# --- colours and curves ----------------------------------------------------------------------------------------------


def test_every_method_has_one_colour_whatever_was_imported():
    assert all(matplotlib.colors.is_color_like(value) for value in plotting.COLOURS.values())
    with pytest.raises(TypeError):
        plotting.COLOURS["comb"] = "#000000"
    with pytest.raises(UserError, match="did you mean 'JPEG 2000'"):
        plotting.colour("JPEG2000")
    assert plotting.tint("#000000", 1) == "#ffffff" and plotting.tint("#d55e00", 0) == "#d55e00"


def test_curve_draws_smoothed_values_over_raw_ones():
    fig, ax = plt.subplots()
    noise = np.tile([0.0, 1.0], 50)
    plotting.curve(ax, np.arange(100), torch.tensor(noise), "GAN", smooth=10, low=noise - 1, high=noise + 1)
    raw, smooth = ax.lines
    assert np.array_equal(raw.get_ydata(), noise)
    assert np.allclose(smooth.get_ydata()[5:-5], 0.5)
    assert {line.get_color() for line in ax.lines} == {plotting.colour("GAN")}
    assert ax.get_legend_handles_labels()[1] == ["GAN"]
    with pytest.raises(ValueError, match="both low= and high="):
        plotting.curve(ax, [0], [0], "GAN", low=[0])


# --- images ----------------------------------------------------------------------------------------------------------


def tiles(fig):
    """Left, bottom, width and height of the tiles in inches."""
    w, h = fig.get_size_inches()
    return [np.array(ax.get_position().bounds) * (w, h, w, h) for ax in fig.axes]


@pytest.mark.parametrize(
    "options",
    [
        {"cols": 3},
        {"rows": 3, "row_titles": ["VAE", "GAN", "a long flow name"], "col_titles": ["x", "y"], "title": "A finding"},
        {"cols": 2, "scores": [1, 2.345, "n/a", None, float("inf"), 0], "frames": {1: "#ff0000"}},
    ],
)
def test_tiles_have_one_size_and_do_not_overlap(options):
    fig = plotting.image_grid(torch.rand(6, 1, 8, 8), tile=0.8, **options)
    places = tiles(fig)
    assert len(places) == 6
    assert all(place[2:] == pytest.approx([0.8, 0.8]) for place in places)
    for i, (x, y, w, h) in enumerate(places):
        assert -1e-9 <= x and x + w <= fig.get_figwidth() + 1e-9 and -1e-9 <= y and y + h <= fig.get_figheight() + 1e-9
        for u, v, *_ in places[i + 1 :]:
            assert abs(x - u) >= w - 1e-9 or abs(y - v) >= h - 1e-9
    fig.canvas.draw()
    renderer = fig.canvas.get_renderer()
    for text in fig.texts:
        box = text.get_window_extent(renderer)
        assert box.x0 >= -1 and box.y0 >= -1 and box.x1 <= fig.bbox.x1 + 1 and box.y1 <= fig.bbox.y1 + 1
        assert not any(box.overlaps(ax.get_window_extent(renderer).shrunk(0.98, 0.98)) for ax in fig.axes)


def test_a_grid_is_never_wider_than_the_text():
    fig = plotting.image_grid(torch.rand(20, 8, 16), row_titles=["a name"])
    assert fig.get_figwidth() == pytest.approx(plotting.TEXT_WIDTH)
    assert all(place[2] == pytest.approx(2 * place[3]) for place in tiles(fig))


def test_pixels_are_shown_as_they_are(figures):
    image = torch.tensor([[0.0, 0.2], [0.6, 1.0]])
    plotting.save(plotting.image_grid([image], pixelated=True), "demo/pixels", caption="Pixels.")
    shown = np.asarray(Image.open(figures / "demo/pixels.png").convert("L")).astype(float)
    quarter = shown.shape[0] // 4
    centres = shown[quarter :: 2 * quarter, quarter :: 2 * quarter][:2, :2]
    assert np.abs(centres - 255 * image.numpy()).max() <= 1


@pytest.mark.parametrize(
    "image",
    [
        np.full((4, 5), 0.5),
        np.full((1, 4, 5), 0.5),
        np.full((3, 4, 5), 0.5),
        np.full((4, 5, 3), 0.5),
        np.full((4, 5, 3), 128, np.uint8),
        torch.full((3, 4, 5), 0.5, dtype=torch.bfloat16, requires_grad=True),
    ],
)
def test_images_come_in_any_usual_shape(image):
    fig = plotting.image_grid([image])
    assert tiles(fig)[0][2:] == pytest.approx([1, 0.8])
    assert getattr(fig, plotting.DATA)["mean"].iloc[0] == pytest.approx(0.5, abs=0.01)


def test_the_statistics_of_a_tile_notice_a_changed_picture():
    images = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    before = getattr(plotting.image_grid(images, col_titles=["a", "b"], scores=[1.0, 2.0]), plotting.DATA)
    assert list(before["column"]) == ["a", "b"] and list(before["score"]) == [1, 2]
    flipped = getattr(plotting.image_grid(images.flip(-1)), plotting.DATA)
    assert flipped["mean"].to_numpy() == pytest.approx(before["mean"].to_numpy())
    blocks = [c for c in before if c.startswith("block")]
    assert len(blocks) == 16
    assert np.abs(before[blocks].to_numpy() - flipped[blocks].to_numpy()).max() > 0.05


def test_a_tile_may_stay_empty():
    fig = plotting.image_grid([torch.rand(4, 4), None, torch.rand(4, 4)], cols=2, scores=[1, None, 2])
    assert len(fig.axes) == 2


@pytest.mark.parametrize(
    ("images", "options", "message"),
    [
        ([], {}, "at least one"),
        ([None], {}, "at least one"),
        (torch.rand(3, 4, 4), {"rows": 1, "cols": 2}, "do not fit"),
        (torch.rand(3, 4, 4), {"cols": 3, "col_titles": ["a"]}, "1 col_titles for 3"),
        (torch.rand(3, 4, 4), {"scores": [1]}, "1 scores for 3"),
        ([torch.rand(2, 4, 4)], {}, "1 or 3 channels"),
        ([torch.rand(4)], {}, "1 or 3 channels"),
        ([torch.full((4, 4), float("nan"))], {}, "NaN"),
    ],
)
def test_grids_that_make_no_sense_are_refused(images, options, message):
    with pytest.raises(ValueError, match=message):
        plotting.image_grid(images, **options)


# --- diagrams --------------------------------------------------------------------------------------------------------


def test_diagram_knows_its_elements(figures):
    d = plotting.Diagram(height=2)
    x = d.image(0.6, 1, torch.rand(8, 8), 0.7, note="$x$")
    encoder = d.trapezoid(2, 1, "encoder", w=1, h=1.2, narrow="right", colour="VAE")
    z = d.vector(3.2, 1, "$z$", values=[0, 0.5, 1])
    box = d.box(4.6, 1, "a box that\nfits its text", dashed=True)
    plus = d.circle(5.8, 1, "$+$")
    for a, b in ((x, encoder), (encoder, z), (z, box), (box, plus)):
        d.arrow(a, b)
    d.arrow(plus.top, encoder.top, "back", via=[(5.8, 1.75), (2, 1.75)], dashed=True)
    d.group([box, plus], "group")
    d.line([(0.1, 0.1), (0.5, 0.1)])
    plotting.save(d.fig, "demo/diagram", caption="Diagram.")
    rows = pd.read_csv(figures / "demo/diagram.csv")
    counts = rows["element"].value_counts()
    assert counts.to_dict() == {"arrow": 5, "text": 7, "image": 1, "trapezoid": 1, "vector": 1, "box": 1, "circle": 1,
                                "group": 1, "line": 1}  # fmt: skip
    assert encoder.top[1] == pytest.approx(1 + 1.2 * 0.75 / 2), "an arrow meets the slanted side"
    assert box.w == pytest.approx(plotting.text_width("fits its text") + 0.2)


def test_text_that_does_not_fit_is_found_while_drawing():
    with pytest.raises(ValueError, match="needs .* its shape has 0.30"):
        plotting.Diagram().box(1, 1, "far too long", w=0.3)
    with pytest.raises(ValueError, match="needs"):
        plotting.Diagram().trapezoid(1, 1, "one\ntwo\nthree\nfour", w=1, h=0.5)


def off_page(d):
    d.text(0.1, 1, "a long label at the edge")


def two_texts(d):
    d.text(1, 1, "one")
    d.text(1.1, 1.02, "two")


def on_a_shape(d):
    d.box(1, 1, "box", w=1, h=1)
    d.text(1.4, 1.3, "label")


def on_an_image(d):
    d.image(1, 1, torch.rand(4, 4), 0.5, note="$x$")
    d.text(1.2, 1, "label")


def under_an_arrow(d):
    d.text(1, 1, "label")
    d.arrow((0.2, 1), (2, 1))


def under_a_curve(d):
    d.text(1.1, 1.45, "label")
    d.arrow((0.2, 1), (2, 1), bend=0.5)


@pytest.mark.parametrize("draw", [off_page, two_texts, on_a_shape, on_an_image, under_an_arrow, under_a_curve])
def test_labels_that_cannot_be_read_are_found(draw):
    d = plotting.Diagram()
    draw(d)
    with pytest.raises(ValueError, match="label|one"):
        _ = d.fig


def test_labels_beside_shapes_and_inside_empty_ones_are_fine():
    d = plotting.Diagram()
    d.box(1, 1, w=1.5, h=1)
    d.text(1, 1.2, "inside")
    d.text(2, 1, "beside", ha="left")
    d.arrow((0.2, 0.3), (2, 0.3), "above")
    d.arrow((0.2, 0.3), (2, 0.3), "below", below=True)
    assert len(d.fig.axes) == 1


def test_diagrams_refuse_unknown_colours_and_directions():
    with pytest.raises(UserError, match="did you mean 'VAE'"):
        plotting.Diagram().box(1, 1, "x", colour="VEA")
    with pytest.raises(ValueError, match="'left' or 'right'"):
        plotting.Diagram().trapezoid(1, 1, narrow="up")
