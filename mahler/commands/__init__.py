"""One small program per verb: `mahler backtest` is backtest.py with its primary config conf/backtest.yaml.

The first line of a module's docstring is its line in `mahler --help`. Its one public function is
`run(config: Schema)`: the command line composes the config with Hydra, checks it against the
dataclass that annotates the argument (`mahler.config.load`) and calls it, once per job of a sweep.
"""
