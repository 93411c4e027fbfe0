"""The ledger of claims: what the thesis says, what we measured, how sure we are, and the verdict.

::

    claims.yaml ----------------------------+
    notebook --record--> claims.d/<chapter>.csv --report--> claims.csv, REPORT.md

Each chapter has its own file of measurements, replaced in one step, so that notebooks that run side by side lose
nothing. Verdicts are worked out when they are asked for: a bound that changes in claims.yaml changes the verdict, not
the measurement.

**How a chapter records a claim.** Give `record` the sample, not its mean, so that it finds the 95 % interval itself::

    run = {"preset": "laptop", "data": "kodak", "device": "cpu"}
    # one number an image: mean and interval over images; `null` is the answer that does nothing
    record("4.bm3d", table["psnr"] - table["psnr of BM3D"], **run, null=(-10.2, "the noisy image"))
    # rows that belong together are drawn together: pairs of one person, frames of one clip, runs of one seed
    record("3.ssim", pairs, column="ssim", groups="source", **run)
    # a share takes rows that are true or false and gives per cent (exact interval where there are no groups)
    record("3.identity", pairs["own"], statistic="share", **run)
    # a comparison of trainings: one difference a seed, from at least three seeds
    record("3.progressive", grown - direct, **run, seeds=len(grown))
    # any statistic of resampled rows: BD-rate of curves averaged over images (axis 0: images)
    record("5.jpeg", np.stack([ours, theirs], 1), statistic=lambda curves: bd_rate(*curves.mean(0)), **run)
    # a ratio of sums (bytes of all files), the worst of these very clips (frames are drawn within each clip)
    record("5.estimate", table, statistic="ratio", column="bytes/estimate", **run)
    record("6.lpips", frames, statistic=lambda rows: rows.groupby("clip")["above"].mean().max(), strata="clip", **run)
    # counts and identities have no sampling error; what was resampled elsewhere brings its interval
    record("2.parameters", count / 1e6, exact=True, **run)
    record("2.bits", 1.12, interval=(1.11, 1.13), n=10_000, seeds=3, published=(1.08, "UvA tutorial 11, 0.6 M"), **run)

A plain number without ``interval`` or ``exact`` is *undecided*. The unfavourable end of the interval decides; where
``null`` meets the bound, too, the verdict is *no evidence*: choose a measure that doing nothing does not pass. In
claims.yaml, ``measure: [compression.curve_*_kodak]`` names the stored tables that a value is read from (without it the
value is live), ``tolerance`` how closely a second measurement agrees (relative, 0.02), ``changed`` lists changes of a
bound or measure after measuring with their reasons, ``source`` says where the thesis or a paper states the claim.
"""

from __future__ import annotations

from lib.claims.overview import contributions
from lib.claims.records import COLUMNS, device_name, ledger, record
from lib.claims.reports import chapter_table, report
from lib.claims.schema import PAPERS, SECTIONS, VERDICTS, Bound, Claim, load

__all__ = [
    "COLUMNS",
    "PAPERS",
    "SECTIONS",
    "VERDICTS",
    "Bound",
    "Claim",
    "chapter_table",
    "contributions",
    "device_name",
    "ledger",
    "load",
    "record",
    "report",
]
