"""A paper account against what its backtest promised.

bands       what is promised when a config is promoted: limits of every check, with one false-alarm rate for the whole
paper       the paper ledger as the tables that are checked
checks      the checks: value, band, verdict, what to do
stage       paper, half size, full size: what takes an account up, and what brings it down
page        the checks as a page with pictures
"""
