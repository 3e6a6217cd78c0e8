"""How well forecasters forecast: every figure of notebook 12, from rolling origins, three seeds.

python benchmarks/forecasting.py           sunspots and CO2, some minutes
python benchmarks/forecasting.py --quick   the last two origins, one pass of training, not saved

The classics are fitted anew at each origin. A network is trained once, on what came before the
first origin, or "anew", from nothing at every seventh origin. `quality.py readme` writes the table
into the README.
"""

import argparse
import time

import numpy as np
from measuring import RESULTS, keep, machine, markdown, spread

from s2s_helpers.corpora import series
from s2s_helpers.course.baselines import (
    autoregression,
    holt_winters,
    rolling_origin,
    seasonal_naive,
)
from s2s_helpers.models.forecaster import Scaling
from s2s_helpers.training import forecasting
from s2s_helpers.training.schedules import constant

SEEDS = (0, 1, 2)
# Series, first origin, one origin in so many steps, horizon, what is taken off a window.
TASKS = {
    "sunspots": (series.sunspots, "1929", 2, 11, "last"),
    "CO2": (series.co2, "1990-03", 5, 12, "season"),
}
CLASSICS = {
    "seasonal naive": seasonal_naive,
    "Holt-Winters": holt_winters,
    "autoregression, order by AIC": autoregression,
}
ANEW = 7
FORCINGS = {"teacher forcing": constant(1), "free running": constant(0), "scheduled sampling": None}


def measures(rolled, seconds: float) -> dict:
    """Means over all steps, and the error and the coverage of every step ahead."""
    return {
        "mase": rolled.mase().mean(),
        "pinball": rolled.pinball().mean(),
        "coverage": 100 * rolled.coverage().mean(),
        "mase_by_step": rolled.mase().tolist(),
        "coverage_by_step": rolled.coverage().tolist(),
        "seconds": seconds,
    }


def task_runs(name: str, quick: bool) -> dict:
    """For every method a list of measures: one for a classic, one a seed for a network."""
    load, first, stride, horizon, how = TASKS[name]
    data = load()
    known = data.position(first)
    origins = range(known, len(data.values) - horizon + 1, stride)
    origins, seeds, epochs = (origins[-2:], SEEDS[:1], 1) if quick else (origins, SEEDS, 30)
    scaling, paths = Scaling(data.period, 3 * data.period, how), 20 if quick else 200
    runs = {}

    def roll(label: str, method):
        started = time.perf_counter()
        rolled = rolling_origin(data, method, origins, horizon)
        runs.setdefault(label, []).append(measures(rolled, time.perf_counter() - started))
        print(f"{name}, {label}: MASE {runs[label][-1]['mase']:.3f}", flush=True)
        return rolled.forecasts

    def network(history, forcing, seed: int):
        trainer = forecasting.forecasting_trainer(
            history, scaling, horizon, forcing, epochs, seed=seed, progress=False
        )
        trainer.fit()
        return trainer.model

    for label, classic in CLASSICS.items():
        roll(label, lambda hs, h, c=classic: np.stack([c(past, h, data.period) for past in hs]))
    for label, forcing in FORCINGS.items():
        models, found = [], []

        def once(histories, horizon, forcing=forcing, models=models):
            models.append(network(data.values[:known], forcing, seeds[len(models)]))
            return forecasting.forecast(models[-1], histories, horizon)

        for _ in seeds:
            found.append(roll(label, once))
        if label == "teacher forcing":
            for model in models:
                drawn = lambda hs, h, m=model: forecasting.forecast(m, hs, h, paths)  # noqa: E731
                roll(f"{label}, {paths} paths", drawn)
    roll(f"{label}, {len(seeds)} together", lambda hs, h: np.mean(found, axis=0))
    for seed in seeds:

        def anew(histories, horizon, seed=seed):
            groups = [histories[first : first + ANEW] for first in range(0, len(histories), ANEW)]
            every = [network(group[0], None, seed) for group in groups]
            found = [
                forecasting.forecast(m, g, horizon) for m, g in zip(every, groups, strict=True)
            ]
            return np.concatenate(found)

        roll(f"{label}, trained anew", anew)
    return runs


def table(results: dict) -> str:
    """The README's rows of a results file."""
    head = ["series", "method", "MASE", "pinball loss, scaled", "80 % interval covers, %", "s"]
    keys = {"mase": ".2f", "pinball": ".3f", "coverage": ".0f", "seconds": ".1f"}
    return markdown(
        head,
        [
            [name, label, *(spread([run[key] for run in runs], form) for key, form in keys.items())]
            for name, methods in results["runs"].items()
            for label, runs in methods.items()
        ],
    )


def main(quick: bool) -> None:
    results = {"machine": machine("statsmodels"), "seeds": list(SEEDS)}
    results["runs"] = {name: task_runs(name, quick) for name in TASKS}
    print(table(results))
    if not quick:
        keep(results, RESULTS / "forecasting.json")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a short form that saves nothing")
    main(parser.parse_args().quick)
