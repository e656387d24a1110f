r"""Search an architecture for one image and restore with it (ISNAS-DIP).

    python -m experiments.search --image=sample:camera --task=denoising --sigma=25 \
        --seed=0 --output_dir=out

Scores random genotypes untrained, fits the best to a crop, selects the one
closest to their metric-weighted mean and restores with it from a fresh
initialisation. --preset=published takes the paper's settings.
"""

from collections.abc import Sequence

import jax
import numpy as np
from absl import flags

import isnas_jax as isnas
from experiments import cli
from isnas_jax import images, records
from isnas_jax.search import oracle

FLAGS = flags.FLAGS

cli.define_image_flags()
cli.define_fit_flags()
cli.define_score_flags()
cli.define_search_flags()
flags.DEFINE_string("cohort_by", "metric", "metric, or random for the control.")


def main(_: Sequence[str]) -> None:
    """The story: pose the problem, search, restore, write everything down."""
    settings = cli.preset(FLAGS.task)
    corrupt_key, draw_key, search_key = jax.random.split(jax.random.key(FLAGS.seed), 3)
    fit_settings = cli.fit_settings(settings)
    search_settings = cli.search_settings(settings, FLAGS.cohort_by)
    problem, truth = cli.load_problem(corrupt_key, settings["size"])
    genotypes = cli.load_genotypes(draw_key, settings)
    folder = cli.open_folder(settings, "search")

    bars = cli.Bars()
    result = isnas.search(
        search_key,
        problem,
        FLAGS.task,
        genotypes,
        search_settings,
        fit_settings,
        truth=truth,
        folder=folder / "work",
        progress=bars,
    )
    bars.close()

    cli.write_scores(folder, genotypes, {FLAGS.metric: result.scores})
    psnrs = None if truth is None else oracle(result, problem, search_settings, truth)
    cohort = []
    for rank, (index, fit) in enumerate(zip(result.cohort, result.cohort_fits, strict=True)):
        images.save(folder / "cohort" / f"{rank:02d}.png", fit.restored)
        row = {
            "rank": rank,
            "genotype": str(genotypes[index]),
            "score": float(result.scores[index].mean()),
            "weight": float(result.weights[rank]),
            "restored_at": fit.restored_at,
            "selected": rank == result.selected,
        }
        if psnrs is not None:
            row["proxy_psnr_by_truth"] = psnrs[rank]
            row["oracle_by_truth"] = rank == int(np.argmax(psnrs))
        cohort.append(row)
    records.write_csv(folder / "cohort.csv", cohort)
    selected = str(genotypes[result.cohort[result.selected]])
    record = cli.write_restoration(folder, problem, result.fit, truth, selected)
    cli.write_timings(folder, result.seconds)
    print(cli.summary(record, folder))


if __name__ == "__main__":
    cli.run(main)
